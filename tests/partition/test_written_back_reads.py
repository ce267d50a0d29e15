"""Reads of a status that was written back together with a scan that is not durable yet."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.store.desk import NOON_MS, scan, scan_event
from trackd.domain.vocabulary import EventCode
from trackd.partition import Partition, PartitionOptions
from trackd.store.errors import StorageFailed
from trackd.store.keys import status_key
from trackd.store.memory_engine import MemoryEngine
from trackd.store.records import decode_status

_KEY = status_key("SF0001")


def _failed(error: StorageFailed) -> None:
    raise AssertionError from error


class _GatedEngine(MemoryEngine):
    """Its flush does not end before the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def flush_wal(self) -> None:
        """See Engine."""
        if self.gate.is_set():
            return super().flush_wal()
        asyncio.run_coroutine_threadsafe(self.gate.wait(), self._loop).result()
        return super().flush_wal()


@pytest.fixture
async def gated(tmp_path: Path) -> AsyncIterator[tuple[Partition, _GatedEngine]]:
    """A partition that writes a status back with the commit after the one that changed it."""
    engine = _GatedEngine()
    engine.gate.set()
    options = PartitionOptions(
        commit_events_max=10,
        waybill_events_max=100,
        status_cache_bytes=1 << 20,
        write_back_events=1,
    )
    partition = Partition.open(
        0,
        engine,
        options,
        path=tmp_path,
        mark_path=tmp_path / "mark",
        data_set_id="set",
        now_ms=lambda: NOON_MS,
        on_failure=_failed,
    )
    yield partition, engine
    engine.gate.set()
    await partition.close()


async def test_a_row_written_back_with_its_latest_scan_waits_for_the_flush(
    gated: tuple[Partition, _GatedEngine],
) -> None:
    """A clean row is shown no sooner than a dirty one: a power cut could still take it back."""
    partition, engine = gated
    first, second = (scan_event(EventCode.SORTED, f"e{n}", NOON_MS + n, "SF0001") for n in range(2))
    await partition.submit([scan(first)])
    engine.gate.clear()
    answer = partition.submit([scan(second)])
    await asyncio.sleep(0)
    assert _KEY not in set(partition.statuses.dirty_keys()), "void: the row was not written back"
    reading = asyncio.ensure_future(partition.read_statuses([_KEY]))
    await asyncio.sleep(0.01)
    assert not answer.done()
    assert not reading.done()
    assert partition.status_now(_KEY) is None
    engine.gate.set()
    assert decode_status((await reading)[_KEY]).event_count == 2
    await answer
