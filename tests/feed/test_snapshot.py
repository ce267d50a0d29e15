"""A scan over all statuses, while they change and are written back again and again."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.store.desk import NOON_MS, scan, scan_event
from tests.store.engines import SMALL_BUFFERS
from trackd.domain.vocabulary import EventCode
from trackd.partition import Partition, PartitionOptions
from trackd.store.engine import RocksEngine, SharedCache
from trackd.store.engine_contract import Engine
from trackd.store.errors import StorageFailed
from trackd.store.keys import status_key
from trackd.store.memory_engine import MemoryEngine
from trackd.v1.feed_pb2 import Change

_WAYBILLS = [f"SF{n:04}" for n in range(150)]


def _failed(error: StorageFailed) -> None:
    raise AssertionError from error


@pytest.fixture(params=["memory", "disk"])
async def partition(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Partition]:
    """A partition that forgets rows as soon as they are clean, and writes few back by itself."""
    engine: Engine = MemoryEngine()
    path = tmp_path / "data"
    if request.param == "disk":
        engine = RocksEngine(path, SMALL_BUFFERS, SharedCache(1 << 20))
    options = PartitionOptions(
        commit_events_max=10, waybill_events_max=1_000, status_cache_bytes=0, write_back_events=500
    )
    partition = Partition.open(
        0,
        engine,
        options,
        path=path,
        mark_path=tmp_path / "mark",
        data_set_id="set",
        now_ms=lambda: NOON_MS,
        on_failure=_failed,
    )
    yield partition
    await partition.close()


class _Traffic:
    """Scans of any waybills, and writing back, a little or all."""

    def __init__(self, partition: Partition, rng: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self._partition = partition
        self._rng = rng

    async def scans(self, waybills: list[str]) -> None:
        """One of each."""
        events = []
        for waybill in waybills:
            at = NOON_MS + self._rng.randrange(1_000)
            events.append(scan_event(EventCode.SORTED, f"e{self.counts[waybill]}", at, waybill))
            self.counts[waybill] += 1
        verdict = await self._partition.submit([scan(event) for event in events])
        assert verdict.accepted == len(waybills)

    async def something(self) -> None:
        """Something happens, or nothing."""
        chance = self._rng.random()
        if chance < 0.5:
            await self.scans(self._rng.sample(_WAYBILLS, self._rng.randint(1, 5)))
        elif chance < 0.8:
            self._partition.committer.write_back()
        elif chance < 0.85:
            await self._partition.committer.checkpoint()


@pytest.mark.parametrize("seed", range(3))
async def test_a_scan_that_runs_while_statuses_are_written_back_loses_none(
    partition: Partition, seed: int
) -> None:
    """Each waybill once, in order of the keys, with its status of that moment.

    Whether it is in memory only, was written back before the scan or during it, or again and again.
    """
    rng = random.Random(seed)
    traffic = _Traffic(partition, rng)
    for _ in range(6):
        await traffic.scans(rng.sample(_WAYBILLS, 40))
        await traffic.something()
    there, written_back = set(traffic.counts), partition.statuses.written_back_count
    snapshot = partition.watched().snapshot(b"")
    keys, found = [], set()
    while taken := snapshot.take(bytes_max=rng.choice([0, 0, 3_000])):
        for each in taken:
            change = Change.FromString(each.wire())
            assert change.status.event_count == traffic.counts[change.waybill_number]
            keys.append(each.key)
            found.add(change.waybill_number)
        assert snapshot.after == keys[-1]
        await traffic.something()
        if rng.random() < 0.1:
            snapshot.release()
    assert keys == sorted(set(keys))
    assert set(keys) == set(map(status_key, found))
    assert there <= found <= set(traffic.counts)
    assert partition.statuses.written_back_count > written_back + 5, "void: little was written"
