"""One partition: what a start refuses, what reads show and wait for, and clocks that jump."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.desk import NOON_MS, scan, scan_event
from tests.store.simulated import Faults, SimulatedEngine
from trackd.domain.vocabulary import EventCode
from trackd.partition import Partition, PartitionOptions
from trackd.store.engine_contract import Engine
from trackd.store.errors import DataBehind, DataDamaged, StorageFailed, WrongData
from trackd.store.events import parse_event
from trackd.store.keys import META_IDENTITY, Table, position_key, status_key
from trackd.store.memory_engine import MemoryEngine
from trackd.store.records import decode_block, decode_status
from trackd.v1.event_pb2 import ScanEvent

SORTED = EventCode.SORTED
HOUR_MS = 3_600_000
OPTIONS = PartitionOptions(
    commit_events_max=100, waybill_events_max=1_000, status_cache_bytes=1 << 20, write_back_events=8
)
KEY = status_key("SF0001")


def failed(error: StorageFailed) -> None:
    """No storage fails in these tests."""
    raise AssertionError from error


def opened(
    engine: Engine,
    directory: Path,
    *,
    now_ms: Callable[[], int] = lambda: NOON_MS,
    data_set_id: str = "set",
    accept_data_loss: bool = False,
    write_back_events: int = OPTIONS.write_back_events,
) -> Partition:
    """The partition on that engine; its mark is in the directory."""
    return Partition.open(
        3,
        engine,
        replace(OPTIONS, write_back_events=write_back_events),
        path=directory,
        mark_path=directory / "mark",
        data_set_id=data_set_id,
        now_ms=now_ms,
        on_failure=failed,
        accept_data_loss=accept_data_loss,
    )


@pytest.fixture
def engine() -> MemoryEngine:
    """An empty engine."""
    return MemoryEngine()


@pytest.fixture
async def partition(engine: MemoryEngine, tmp_path: Path) -> AsyncIterator[Partition]:
    """An open partition."""
    one = opened(engine, tmp_path)
    yield one
    await one.close()


async def send(partition: Partition, *events: ScanEvent) -> None:
    """Sends events of which each must be accepted."""
    verdict = await partition.submit([scan(event, n) for n, event in enumerate(events)])
    assert verdict.accepted == len(events), verdict


def sorts(count: int, *, remark: str = "") -> list[ScanEvent]:
    """That many events of one parcel, a millisecond apart."""
    return [scan_event(SORTED, f"e{n}", NOON_MS + n, "SF0001", remark=remark) for n in range(count)]


async def pages(
    partition: Partition, *, newest_first: bool, limit: int, bytes_max: int = 1 << 20
) -> list[list[str]]:
    """The event ids of every page of the parcel's timeline."""
    found = []
    after = None
    while True:
        page = await partition.read_timeline(
            KEY, after=after, newest_first=newest_first, limit=limit, bytes_max=bytes_max
        )
        assert page is not None
        if after is None and not newest_first:
            assert partition.timeline_now(KEY, limit=limit, bytes_max=bytes_max) == page
        found.append([parse_event(stored).event_id for stored in page.events])
        after = page.next
        if after is None:
            return found


# Reading.


async def test_who_has_no_event_has_no_status(partition: Partition) -> None:
    """Neither in a look-up nor as a timeline."""
    await send(partition, *sorts(1))
    assert (await partition.read_statuses([KEY, status_key("SF00010")])).keys() == {KEY}
    assert await partition.read_statuses([]) == {}
    page = await partition.read_timeline(
        status_key("SF000"), after=None, newest_first=False, limit=10, bytes_max=1_000
    )
    assert page is None


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 10, 11, 500])
async def test_pages_hold_the_whole_timeline_once(
    partition: Partition, newest_first: bool, limit: int
) -> None:
    """In both orders, with any page size; no page but the last is short, and none is empty."""
    await send(partition, *sorts(10))
    found = await pages(partition, newest_first=newest_first, limit=limit)
    ids = [f"e{n}" for n in range(10)]
    assert [event_id for page in found for event_id in page] == (ids[::-1] if newest_first else ids)
    assert all(len(page) == limit for page in found[:-1])
    assert found[-1]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("bytes_max", [-1, 0, 1, 400, 401, 900, 1 << 20])
async def test_a_page_is_no_larger_than_allowed_but_never_empty(
    partition: Partition, newest_first: bool, bytes_max: int
) -> None:
    """An event that is larger than the whole page comes alone."""
    await send(partition, *sorts(5, remark="x" * 300))
    found = await pages(partition, newest_first=newest_first, limit=100, bytes_max=bytes_max)
    assert sum(map(len, found)) == 5
    size = len(sorts(1, remark="x" * 300)[0].SerializeToString()) + 8  # with its recorded time
    assert max(map(len, found)) == min(5, max(1, bytes_max // size))


async def test_a_read_waits_for_what_it_would_show(engine: MemoryEngine, tmp_path: Path) -> None:
    """While the flush runs neither status nor timeline is told, and nobody else waits for it."""
    gate = asyncio.Event()
    partition = opened(engine, tmp_path)
    await send(partition, scan_event(SORTED, "a", waybill_number="SF0002"))
    loop, flush = asyncio.get_running_loop(), engine.flush_wal

    def slow_flush() -> None:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        flush()

    engine.flush_wal = slow_flush  # type: ignore[method-assign]
    answer = partition.submit([scan(sorts(1)[0])])
    await asyncio.sleep(0)
    assert partition.committer.written_position == 2
    status = asyncio.ensure_future(partition.read_statuses([KEY]))
    timeline = asyncio.ensure_future(pages(partition, newest_first=False, limit=10))
    assert await partition.read_statuses([status_key("SF0002")])
    await asyncio.sleep(0.01)
    assert not status.done()
    assert not timeline.done()
    assert not answer.done()
    assert partition.status_now(KEY) is None
    assert partition.timeline_now(KEY, limit=10, bytes_max=1_000) is None
    assert partition.status_now(status_key("SF0002")) is not None
    gate.set()
    assert await status == {KEY: partition.status_now(KEY)}
    assert await timeline == [["e0"]]
    assert (await answer).position == 2
    await partition.close()


async def test_a_row_that_cannot_be_read_is_damage_and_not_absence(
    partition: Partition, engine: MemoryEngine
) -> None:
    """A timeline that cannot be read is an error for whoever asks, not a shorter one."""

    def damaged(*_: object) -> object:
        raise DataDamaged("simulated")

    await send(partition, *sorts(3))
    scan_prefix, engine.scan_prefix = engine.scan_prefix, damaged  # type: ignore[method-assign,assignment]
    with pytest.raises(DataDamaged):
        await pages(partition, newest_first=False, limit=10)
    engine.scan_prefix = scan_prefix  # type: ignore[method-assign]
    assert await pages(partition, newest_first=False, limit=10) == [["e0", "e1", "e2"]]


# What a start refuses.


def rolled_back(engine: MemoryEngine, last: int) -> MemoryEngine:
    """The engine without what stands behind a position."""
    survivor = engine.crash()
    lost = [key for key, _ in survivor.scan_all(Table.LOG) if key > position_key(last)]
    survivor.write([(Table.LOG, [(key, None) for key in lost])])
    return survivor


async def test_a_start_behind_what_was_acknowledged_is_refused(
    engine: MemoryEngine, tmp_path: Path
) -> None:
    """Naming the positions that are lost; with the loss accepted it starts on what is left."""
    partition = opened(engine, tmp_path)
    for event in sorts(5):
        await send(partition, event)
    await partition.close()
    with pytest.raises(DataBehind, match=r"up to 4, but 5 was acknowledged.* 5 to 5 are lost"):
        opened(rolled_back(engine, 4), tmp_path)
    short = rolled_back(engine, 3)
    with pytest.raises(DataBehind, match=r"up to 3, but 5 was acknowledged.* 4 to 5 are lost"):
        opened(short, tmp_path)
    left = opened(short, tmp_path, accept_data_loss=True, data_set_id="another")
    assert left.committer.durable_position == 5, "the events themselves were all there"
    await left.close()


@pytest.mark.parametrize("seed", range(8))
async def test_an_accepted_loss_is_taken_over_although_the_engine_stalls(
    seed: int, tmp_path: Path
) -> None:
    """Every write of the rebuild, and of who the partition is, is tried until it is taken."""
    engine = SimulatedEngine(Random(seed), Faults())
    partition = opened(engine, tmp_path)
    await send(partition, *sorts(5))
    await partition.close()
    engine.faults.stall = 0.6
    left = opened(engine, tmp_path, accept_data_loss=True, data_set_id="another")
    engine.faults.stall = 0
    assert left.committer.durable_position == 5
    await left.close()


async def test_a_missing_mark_is_not_taken_for_a_new_partition(
    engine: MemoryEngine, tmp_path: Path
) -> None:
    """Nobody knows whether more was acknowledged; without any events there is nothing to lose."""
    await opened(engine, tmp_path).close()
    (tmp_path / "mark").unlink()
    partition = opened(engine, tmp_path)
    await send(partition, *sorts(1))
    await partition.close()
    for damage in (b"", b"\x00" * 1024):
        (tmp_path / "mark").write_bytes(damage)
        with pytest.raises(DataBehind, match="durable mark is missing or damaged"):
            opened(engine, tmp_path)


async def test_a_partition_of_other_data_is_refused(engine: MemoryEngine, tmp_path: Path) -> None:
    """Directories that were swapped are noticed before the first read."""
    await opened(engine, tmp_path).close()
    with pytest.raises(WrongData, match="belongs to set/3, not to other/3"):
        opened(engine, tmp_path, data_set_id="other")
    assert engine.get(Table.META, META_IDENTITY) == b"set/3"


async def test_an_orderly_end_leaves_nothing_to_replay(
    engine: MemoryEngine, tmp_path: Path
) -> None:
    """A crash leaves what was not written back, or not kept for good: a part."""
    partition = opened(engine, tmp_path)
    for n in range(100):
        await send(partition, scan_event(SORTED, f"e{n}", NOON_MS + n, f"SF{n % 3:04}"))
    crashed = opened(engine.crash(), tmp_path)
    assert 0 < crashed.replayed_events < 100
    rows = await crashed.read_statuses([KEY])
    assert rows == await partition.read_statuses([KEY])
    await partition.close()
    again = opened(engine, tmp_path)
    assert again.replayed_events == 0
    assert await again.read_statuses([KEY]) == rows
    await again.close()


# What it shows of itself.


async def test_gauges_are_of_this_moment_and_end_with_the_partition(
    engine: MemoryEngine, tmp_path: Path
) -> None:
    """A scrape during the shutdown finds nothing rather than a closed engine."""
    partition = opened(engine, tmp_path, write_back_events=1_000)
    await send(partition, *sorts(3))
    gauges = partition.gauges()
    assert gauges["durable_position"] == gauges["planned_position"] == 3
    assert (gauges["queued_events"], gauges["dirty_statuses"]) == (0, 1)
    assert (gauges["ahead_events"], gauges["engine_events_estimate"]) == (3, 0)
    assert gauges["ahead_bytes"] > sum(len(event.SerializeToString()) for event in sorts(3))
    await partition.committer.checkpoint()
    gauges = partition.gauges()
    assert (gauges["dirty_statuses"], gauges["ahead_events"], gauges["ahead_bytes"]) == (0, 0, 0)
    assert (gauges["engine_events_estimate"], gauges["status_checkpoint"]) == (3, 3)
    assert partition.counts.events == 3
    await partition.close()
    assert partition.gauges() == {}


async def test_its_size_is_that_of_files_that_may_go_at_any_time(
    partition: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compaction deletes files between their being listed and being looked at."""
    before = partition.bytes_on_disk()
    (tmp_path / "1.sst").write_bytes(bytes(1_000))
    assert partition.bytes_on_disk() == before + 1_000
    gone = tmp_path / "2.sst"
    monkeypatch.setattr(Path, "iterdir", lambda _: iter([tmp_path / "1.sst", gone]))
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    assert partition.bytes_on_disk() == 1_000


# Clocks that jump (row 11 of the promises).

JUMPS = st.sampled_from([-24 * HOUR_MS, -HOUR_MS, -1_000, -1, 0, 1, 1_000, HOUR_MS, 24 * HOUR_MS])


def recorded(engine: Engine) -> Sequence[int]:
    """The recorded times of the log, in its order."""
    return [
        entry.recorded_at_ms
        for key, block in engine.scan_all(Table.LOG)
        for entry in decode_block(int.from_bytes(key, "big"), block)
    ]


@settings(max_examples=25)
@given(jumps=st.lists(JUMPS, min_size=2, max_size=12), seed=st.integers(0, 2**32))
def test_a_clock_that_jumps_moves_nothing(
    tmp_path_factory: pytest.TempPathFactory, jumps: list[int], seed: int
) -> None:
    """An hour or a day, to and fro: order, repeats and statuses hold, recorded times ascend."""
    asyncio.run(_under_a_jumping_clock(tmp_path_factory.mktemp("clock"), jumps, Random(seed)))


async def _under_a_jumping_clock(directory: Path, jumps: list[int], rng: Random) -> None:
    clock = [NOON_MS]
    engine = MemoryEngine()
    partition = opened(engine, directory, now_ms=lambda: clock[0])
    for n, jump in enumerate(jumps):
        clock[0] += jump
        await send(partition, scan_event(SORTED, f"e{n}", NOON_MS - n, "SF0001"))
        repeat = scan_event(SORTED, f"e{rng.randint(0, n)}", NOON_MS - n, "SF0001")
        repeat.occurred_at_ms = NOON_MS - int(repeat.event_id[1:])
        verdict = await partition.submit([scan(repeat)])
        assert (verdict.accepted, verdict.duplicates) == (0, 1)
        if rng.random() < 0.3:
            await partition.close()
            partition = opened(engine, directory, now_ms=lambda: clock[0])
    times = recorded(engine)
    assert len(times) == len(jumps)
    assert list(times) == sorted(times)
    assert max(times) <= NOON_MS + sum(jump for jump in jumps if jump > 0)
    (found,) = await pages(partition, newest_first=True, limit=100)
    assert found == [f"e{n}" for n in range(len(jumps))]
    row = decode_status((await partition.read_statuses([KEY]))[KEY])
    assert row.event_count == len(jumps)
    assert parse_event(row.last_event).event_id == "e0", "the newest by event time, not by arrival"
    await partition.close()
