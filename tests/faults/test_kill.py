"""Rows 1 and 2: the process dies, at a random instant and at every named point."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.harness.fleet import Fleet
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, findings, read_back
from tests.harness.seeds import seeded
from tests.harness.server import TINY_ENGINE
from trackd.finding import Kind
from trackd.store import failpoint, records, replay
from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.events import parse_event
from trackd.store.keys import Table, position_of, status_key

_LOAD_S_MAX = 0.5
_OLD_WAYBILLS = 300
_VERIFY_EVERY = 5
# A short window makes statuses be written back while scans come in.
_FLAGS = ("--partitions", "2", "--write-back-events-max", "2000")
# With small ones a part of what was written back is on disk already, of each table another.
_BUFFERS = ((), ("--write-buffer-bytes", "1MiB"))

_CHECKPOINT = 'trackd_store_status_checkpoint{partition="0"}'
_LOOK_INTERVAL_S = 0.05

# Reached for every commit, and only on the way out.
_IN_COMMITS = ("before_write", "after_write", "after_flush", "before_ack")
_IN_THE_END = ("in_checkpoint", "in_shutdown")
# Reached when a subscription saves its progress: see test_consumers.py.
_IN_SAVES = ("before_cursor_save", "after_cursor_save")
# A point is reached ten to a thousand times a second; it is to happen in the midst of the load.
_COMMIT_PROBABILITIES = (0.3, 0.1, 0.03)
_POINT_TIMEOUT_S = 30.0


async def _killed_again_and_again(serve: Serve, rng: random.Random, rounds: int) -> None:
    ledger = Ledger()
    server = serve(*_FLAGS, start=False)
    fleet = Fleet("KILL", ledger, rng)
    for number in range(rounds):
        server.flags = (*_FLAGS, *_BUFFERS[number % 2])
        await asyncio.to_thread(server.start)
        old = sorted(ledger.shown)
        latest = fleet.waybills
        some = rng.sample(old, min(len(old), _OLD_WAYBILLS))
        await read_back(ledger, server.grpc, {*latest, *some} if number else ())
        fleet.new_waybills()
        async with fleet.at_work(server.grpc):
            await asyncio.sleep(rng.uniform(0.02, _LOAD_S_MAX))
            server.kill()
        if number % _VERIFY_EVERY == 0:
            expect_sound(server.data)
    await asyncio.to_thread(server.start)
    assert await read_back(ledger, server.grpc)
    assert server.stop() == 0
    expect_sound(server.data)


async def test_a_kill_at_any_instant_loses_nothing_acknowledged(serve: Serve) -> None:
    """Row 1: whenever the server is killed, I1-I5 and I7 hold, again and again on the same data."""
    await _killed_again_and_again(serve, seeded("kill"), rounds=4)


@pytest.mark.torture
async def test_a_thousand_kills_lose_nothing_acknowledged(serve: Serve) -> None:
    """Row 1, the long run: fifty directories, each killed twenty times."""
    rng = seeded("kill, long")
    for _ in range(50):
        await _killed_again_and_again(serve, rng, rounds=20)


async def test_a_check_sees_what_the_tables_lack_of_what_they_had_at_a_kill(serve: Serve) -> None:
    """Killed with a part of the tables on disk, and more of them in the log: all is well.

    Until an event is taken out of the part that is to be on disk, of which the log says the rest.
    """
    ledger = Ledger()
    server = serve("--partitions", "1", "--write-back-events-max", "1000", env=TINY_ENGINE)
    fleet = Fleet("CHECK", ledger, seeded("check"))
    async with fleet.at_work(server.grpc):
        kept = 0.0
        while not kept:
            await asyncio.sleep(_LOOK_INTERVAL_S)
            kept = (await asyncio.to_thread(server.scrape))[_CHECKPOINT]
        server.kill()
    expect_sound(server.data)
    with _opened(server.data) as engine:
        checkpoint = replay.checkpoint_of(engine)
        assert 0 < checkpoint < replay.last_position(engine)
        logged = [
            replay.event_row(status_key(event.waybill_number), entry, event)[0]
            for key, block in engine.scan_all(Table.LOG)
            for entry in records.decode_block(position_of(key), block)
            for event in [parse_event(entry.event)]
        ]
        stored = {key for key, _ in engine.scan_all(Table.EVENTS)}
        assert set(logged[:checkpoint]) <= stored < set(logged)
        engine.write([(Table.EVENTS, [(logged[checkpoint // 2], None)])])
        engine.flush_wal()
    # Damage if a later entry of the log refers to it.
    assert {finding.kind for finding in findings(server.data)} & {Kind.MISMATCH, Kind.DAMAGED}


@contextlib.contextmanager
def _opened(data: Path) -> Iterator[RocksEngine]:
    """The engine of the only partition, with nothing replayed."""
    engine = RocksEngine(data / "partition-0000", EngineOptions(), SharedCache(1 << 20))
    try:
        yield engine
    finally:
        engine.close()


async def _die_at_every_point(serve: Serve, rng: random.Random, rounds: int) -> None:
    ledger = Ledger()
    server = serve(*_FLAGS, start=False)
    fleet = Fleet("POINT", ledger, rng)
    for point in (*_IN_COMMITS, *_IN_THE_END) * rounds:
        in_commits = point in _IN_COMMITS
        probability = rng.choice(_COMMIT_PROBABILITIES) if in_commits else 1
        server.env = {"TRACKD_FAILPOINT": f"{point}:{probability}"}
        await asyncio.to_thread(server.start)
        # The point is not reached by reading: first, what is left of the crash before.
        await read_back(ledger, server.grpc, fleet.waybills)
        fleet.new_waybills()
        async with fleet.at_work(server.grpc):
            if not in_commits:
                await asyncio.sleep(rng.uniform(0.05, _LOAD_S_MAX))
                server.signal(signal.SIGTERM)
            code = await asyncio.to_thread(server.wait, _POINT_TIMEOUT_S)
        assert code == -signal.SIGKILL, f"{point} was not reached"
        expect_sound(server.data)
    server.env = {}
    await asyncio.to_thread(server.start)
    assert await read_back(ledger, server.grpc)


async def test_a_crash_at_each_named_point_loses_nothing_acknowledged(serve: Serve) -> None:
    """Row 2: wherever in a commit or a shutdown the process dies, I1-I5 and I7 hold."""
    assert {*_IN_COMMITS, *_IN_THE_END, *_IN_SAVES} == failpoint.NAMES
    await _die_at_every_point(serve, seeded("points"), rounds=1)


@pytest.mark.torture
async def test_many_crashes_at_each_named_point_lose_nothing_acknowledged(serve: Serve) -> None:
    """Row 2, the long run: fifty times at each point."""
    await _die_at_every_point(serve, seeded("points, long"), rounds=50)
