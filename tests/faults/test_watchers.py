"""Rows 15 and 17: watchers while the server dies, and watchers that never read."""

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from tests.conftest import Serve
from tests.harness.fleet import Fleet
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, read_back
from tests.harness.seeds import seeded
from tests.harness.watchers import Watcher, earliest
from trackd.v1.feed_pb2 import ChangeFilter, WatchChangesRequest
from trackd.v1.feed_pb2_grpc import FeedServiceStub

_FLAGS = ("--partitions", "2", "--write-back-events-max", "2000", "--feed-heartbeat-s", "0.2")
_STUCK_BYTES_MAX = 256 << 10


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
        async with fleet.at_work(server.grpc):
            await asyncio.sleep(rng.uniform(0.1, 0.5))
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


async def _stuck_and_not(serve: Serve, stuck: int, reading: int) -> None:
    server = serve(*_FLAGS)
    ledger = Ledger()
    fleet = Fleet("STUCK", ledger, seeded("stuck"))
    watchers = [Watcher() for _ in range(reading)]
    async with AsyncExitStack() as open_ones:
        fleet.new_waybills()
        async with fleet.at_work(server.grpc):
            await asyncio.sleep(1.0)
        before = server.resident_bytes
        for _ in range(stuck):
            channel = await open_ones.enter_async_context(aio.insecure_channel(server.grpc))
            stub: Any = FeedServiceStub(channel)
            call = stub.WatchChanges(WatchChangesRequest(start=earliest()))
            await call.read()  # once, and never again
            open_ones.callback(call.cancel)
        watching = [asyncio.ensure_future(each.keep_watching(server.grpc)) for each in watchers]
        fleet.new_waybills()
        async with fleet.at_work(server.grpc):
            await asyncio.sleep(1.0)
        grown = server.resident_bytes - before
        whole = Watcher()
        await whole.watch(server.grpc, until_caught_up=True)
        async with asyncio.timeout(20):
            while any(each.places < whole.places for each in watchers):  # noqa: ASYNC110 (no event)
                await asyncio.sleep(0.05)
        for each in watching:
            each.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    for watcher in watchers:
        assert watcher.places == whole.places
        watcher.expect_in_order()
    # What the scans of those two seconds take themselves is part of what grew.
    assert grown < stuck * _STUCK_BYTES_MAX + (48 << 20), grown / stuck
    with suppress(ProcessLookupError):
        assert server.stop() == 0


async def test_who_never_reads_disturbs_nobody(serve: Serve) -> None:
    """Row 15: some that never read take next to no memory, and those that do read miss nothing."""
    await _stuck_and_not(serve, stuck=20, reading=3)


@pytest.mark.torture
async def test_two_hundred_that_never_read(serve: Serve) -> None:
    """Row 15, the long run."""
    await _stuck_and_not(serve, stuck=200, reading=20)


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
