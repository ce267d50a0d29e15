"""Rows 15 and 17: watchers while the server dies, and watchers that never read."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import pytest

from bench.batches import BatchMaker, Mix, run_name
from bench.load import Load, send
from bench.subscribing import subscribers
from tests.conftest import Serve
from tests.harness.deaf import deaf_watchers
from tests.harness.fleet import Fleet
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, read_back
from tests.harness.seeds import seeded
from tests.harness.server import ServerProcess
from tests.harness.watchers import Watcher, earliest
from trackd.v1.feed_pb2 import ChangeFilter, WatchChangesRequest

_FLAGS = ("--partitions", "2", "--write-back-events-max", "2000", "--feed-heartbeat-s", "0.2")
_DEAF_BYTES_MAX = 256 << 10


async def _watched_through_kills(serve: Serve, rng: random.Random, rounds: int) -> None:
    ledger = Ledger()
    server = serve(*_FLAGS, start=False)
    fleet = Fleet("WATCHED", ledger, rng)
    watchers = [
        Watcher(),
        Watcher(ChangeFilter(milestones=[30, 60])),  # type: ignore[list-item]
        Watcher(ChangeFilter(news_only=True)),
    ]
    for _ in range(rounds):
        await asyncio.to_thread(server.start)
        watching = [asyncio.ensure_future(each.keep_watching(server.grpc)) for each in watchers]
        fleet.new_waybills()
        written = len(ledger.acknowledged) + 100
        async with fleet.at_work(server.grpc):
            await asyncio.sleep(rng.uniform(0.1, 0.5))
            async with asyncio.timeout(60):
                while len(ledger.acknowledged) <= written:  # noqa: ASYNC110 (nobody tells)
                    await asyncio.sleep(0.02)
            server.kill()
        for each in watching:
            each.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    await asyncio.to_thread(server.start)
    whole = Watcher()
    await whole.watch(server.grpc, until_caught_up=True)
    for watcher in watchers:
        await watcher.watch(server.grpc, until_caught_up=True)
    assert await read_back(ledger, server.grpc)
    assert server.stop() == 0
    expect_sound(server.data)
    for watcher in [whole, *watchers]:
        watcher.expect_in_order()
    whole.expect_each_follows()
    watchers[0].expect_each_follows()
    everything = [change for told in whole.connections for change in told.changes]
    assert len(everything) > 100
    assert watchers[0].places == whole.places
    # Every waybill with an acknowledged scan was told of.
    told_of = {change.waybill_number for change in everything}
    assert set(ledger.by_waybill(ledger.acknowledged)) <= told_of
    milestones = {each.position for each in everything if each.milestone in {30, 60}}
    found = {each.position for told in watchers[1].connections for each in told.changes}
    assert found == milestones


async def test_watchers_miss_nothing_when_the_server_is_killed(serve: Serve) -> None:
    """Row 17, I6: in order, gap-free, repeats only after a reconnect; filters the same."""
    await _watched_through_kills(serve, seeded("watched"), rounds=2)


@pytest.mark.torture
async def test_watchers_miss_nothing_in_many_kills(serve: Serve) -> None:
    """Row 17, the long run."""
    rng = seeded("watched, long")
    for _ in range(20):
        await _watched_through_kills(serve, rng, rounds=10)


@asynccontextmanager
async def _watching(watchers: Sequence[Watcher], address: str) -> AsyncIterator[None]:
    """The watchers watch meanwhile, and have heard everything when it is over."""
    tasks = [asyncio.ensure_future(each.keep_watching(address)) for each in watchers]
    try:
        yield
        whole = Watcher()
        await whole.watch(address, until_caught_up=True)
        async with asyncio.timeout(60):
            while any(each.places < whole.places for each in watchers):  # noqa: ASYNC110 (no event)
                await asyncio.sleep(0.05)
        for each in watchers:
            assert each.places == whole.places
            each.expect_in_order()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _deaf_and_not(serve: Serve, deaf: int, reading: int, *, window: int) -> None:
    """Some never read, others do, while scans come in: what each of the former costs the server."""
    server = serve(*_FLAGS)
    fleet = Fleet("DEAF", Ledger(), seeded("deaf"))
    fleet.new_waybills()
    async with fleet.at_work(server.grpc):
        await _told_at_least(server, 5_000)
    watchers = [Watcher() for _ in range(reading)]
    async with _watching(watchers, server.grpc):
        before = server.resident_bytes
        request = WatchChangesRequest(start=earliest())
        with deaf_watchers(server.grpc, request, count=deaf, window=window):
            await _until(lambda: _sum_of(server, "trackd_feed_watches") >= deaf + reading)
            fleet.new_waybills()
            async with fleet.at_work(server.grpc):
                await _told_at_least(server, 7_500)
            grown = server.resident_bytes - before
    assert server.stop() == 0
    # What the scans meanwhile take is part of what grew.
    assert grown < deaf * _DEAF_BYTES_MAX, f"{grown / deaf / 1024:.0f} KiB each"


async def _told_at_least(server: ServerProcess, events: int) -> None:
    """Returns once the server has accepted so many events since its start."""
    await _until(lambda: _sum_of(server, "trackd_store_events_total") >= events)


def _sum_of(server: ServerProcess, metric: str) -> float:
    return sum(value for name, value in server.scrape().items() if name.startswith(metric + "{"))


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("window", [65_535, (1 << 31) - 1])
async def test_who_never_reads_disturbs_nobody(serve: Serve, window: int) -> None:
    """Row 15: 200 that never read take less than 256 KiB each, however much they would take; those
    that do read miss nothing.
    """
    await _deaf_and_not(serve, deaf=200, reading=3, window=window)


@pytest.mark.torture
async def test_who_never_reads_delays_nobody(serve: Serve) -> None:
    """Row 15: how late news are for 20 that read, while 200 others do not, and without those: the
    99th percentile at most a fifth more. The median of nine rounds of each, in turns.
    """
    server = serve(*_FLAGS)
    request = WatchChangesRequest(start=earliest())
    p99_ms: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(18):
        with_deaf = bool(turn % 2)
        maker = BatchMaker(Mix(waybills=100_000, seed=turn, run=run_name(turn)))
        with deaf_watchers(server.grpc, request, count=200 if with_deaf else 0):
            async with subscribers(server.grpc, "--number", "20") as reading:
                (await send(server.grpc, maker, Load(5.0, rate=5_000))).check(repeated=0)
                told = await reading.stop()
        p99_ms[with_deaf].append(told.latency_ms["p99"])
    print(p99_ms)
    assert median(p99_ms[True]) <= 1.2 * median(p99_ms[False]), p99_ms


async def test_watchers_are_told_when_the_server_stops(serve: Serve, tmp_path: Path) -> None:
    """Row 22: UNAVAILABLE at once, with a token that goes on with the next server."""
    server = serve(*_FLAGS)
    fleet = Fleet("STOPPED", Ledger(), seeded("stopped"))
    fleet.new_waybills()
    watcher = Watcher()
    watching = asyncio.ensure_future(watcher.watch(server.grpc))
    async with fleet.at_work(server.grpc):
        await asyncio.sleep(0.3)
    assert await asyncio.to_thread(server.stop) == 0
    await watching
    (told,) = watcher.connections
    assert told.code is not None
    assert told.code.name == "UNAVAILABLE"
    await asyncio.to_thread(server.start)
    await watcher.watch(server.grpc, until_caught_up=True)
    whole = Watcher()
    await whole.watch(server.grpc, until_caught_up=True)
    assert watcher.places == whole.places
    assert server.stop() == 0
