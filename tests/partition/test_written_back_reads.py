"""Reads of a waybill that was written back together with a scan that is not durable yet."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.store.desk import NOON_MS, scan, scan_event
from trackd.domain.vocabulary import EventCode
from trackd.partition import Partition, PartitionOptions
from trackd.store.errors import StorageFailed
from trackd.store.events import parse_event
from trackd.store.keys import Table, status_key
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


@pytest.fixture(params=[0, 1 << 20], ids=["cold", "cached"])
async def gated(
    tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Partition, _GatedEngine]]:
    """A partition that writes everything back at once, and forgets it then, or does not."""
    engine = _GatedEngine()
    engine.gate.set()
    options = PartitionOptions(
        commit_events_max=10,
        waybill_events_max=100,
        status_cache_bytes=request.param,
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
    """A clean row is shown no sooner than a dirty one: a power cut could still take it back.

    Nor are the events that were written back together with it.
    """
    partition, engine = gated
    first, second = (scan_event(EventCode.SORTED, f"e{n}", NOON_MS + n, "SF0001") for n in range(2))
    await partition.submit([scan(first)])
    engine.gate.clear()
    answer = partition.submit([scan(second)])
    statuses = partition.statuses
    while partition.committer.written_position < 2 or statuses.ahead.count:
        assert not answer.done()
        await asyncio.sleep(0)
    assert not statuses.dirty_count, "void: the row was not written back"
    assert len(list(engine.scan_all(Table.EVENTS))) == 2
    status = asyncio.ensure_future(partition.read_status(_KEY))
    several = asyncio.ensure_future(partition.read_statuses([_KEY]))
    timelines = [
        asyncio.ensure_future(
            partition.read_timeline(
                _KEY, after=None, newest_first=newest_first, limit=1, bytes_max=1_000
            )
        )
        for newest_first in (False, True)
    ]
    await asyncio.sleep(0.01)
    assert not answer.done()
    assert not any(reading.done() for reading in [status, several, *timelines])
    assert partition.status_now(_KEY) is None
    assert partition.timeline_now(_KEY, limit=1, bytes_max=1_000) is None
    engine.gate.set()
    row = await status
    assert row is not None
    assert decode_status(row).event_count == 2
    assert await several == {_KEY: row}
    pages = await asyncio.gather(*timelines)
    assert [parse_event(page.events[0]).event_id for page in pages if page] == ["e0", "e1"]
    await answer
