"""Events wherever they may be: in memory only, in the tables only, or after a crash in both."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.partition.test_partition import KEY, opened, send
from tests.store.desk import NOON_MS, scan, scan_event
from trackd.domain.vocabulary import EventCode, Flag, Milestone, Rejection
from trackd.finding import Finding
from trackd.partition import Partition
from trackd.store.events import parse_event
from trackd.store.keys import Table
from trackd.store.memory_engine import MemoryEngine
from trackd.store.records import decode_status
from trackd.v1.event_pb2 import ScanEvent
from trackd.verify import PartitionCheck

_NEVER = 1_000_000  # events; none of these tests writes anything back by itself
_ALL = 1_000  # writes past the log, all of which a crash may keep
_JOURNEY = [
    scan_event(EventCode.PICKED_UP, "a", NOON_MS, "SF0001"),
    scan_event(EventCode.OUT_FOR_DELIVERY, "b", NOON_MS + 10, "SF0001"),
    scan_event(EventCode.DELIVERED, "c", NOON_MS + 20, "SF0001"),
]
_OTHERS = [scan_event(EventCode.SORTED, "x", NOON_MS, f"SF1{n:03}") for n in range(20)]

# What a crash keeps of each table, beyond what it must; and where the events are then.
_KEPT = {
    "both": {Table.EVENTS: _ALL, Table.STATUS: _ALL},
    "both, the status in memory": {Table.EVENTS: _ALL},
    "memory, the status in both": {Table.STATUS: _ALL},
    "memory, after a crash": {},
}
PLACES = ["memory", "tables", "tables, of an earlier start", *_KEPT]


def _findings(partition: Partition) -> list[Finding]:
    """What `trackd check` says of it."""
    check = PartitionCheck(
        0,
        partition.engine,
        partition_count=1,
        identity="set/3",
        acknowledged=partition.committer.durable_position,
        waybills_at_a_time=1_000,
    )
    return [each for each in check.run() if isinstance(each, Finding)]


Place = Callable[..., Awaitable[Partition]]


@pytest.fixture
async def placed(tmp_path: Path) -> AsyncIterator[Place]:
    """Makes a partition that has these events at such a place."""
    partitions = []

    async def made(place: str, *events: ScanEvent) -> Partition:
        engine = MemoryEngine()
        partition = opened(engine, tmp_path, write_back_events=_NEVER)
        for event in events:
            await send(partition, event)
        await send(partition, *_OTHERS)
        if place.startswith("tables"):
            await partition.committer.checkpoint()
            assert not partition.statuses.ahead.count
        if place == "tables, of an earlier start":
            await partition.close()
            partition = opened(engine, tmp_path, write_back_events=_NEVER)
            assert not partition.replayed_events
        if place in _KEPT:
            partition = await _crashed(partition, engine, place, tmp_path)
        partitions.append(partition)
        return partition

    yield made
    for partition in partitions:
        await partition.close()


async def _crashed(partition: Partition, engine: MemoryEngine, place: str, path: Path) -> Partition:
    """Everything was written back, and the process died before anything of it was kept."""
    while partition.committer.write_back():
        pass
    left = engine.crash(keep_unlogged=_KEPT[place])
    again = opened(left, path, write_back_events=_NEVER)
    assert again.replayed_events == again.statuses.ahead.count == partition.feed.newest_position
    assert bool(list(left.scan_all(Table.EVENTS))) == place.startswith("both")
    return again


async def _ids(partition: Partition, *, newest_first: bool = False) -> list[str]:
    page = await partition.read_timeline(
        KEY, after=None, newest_first=newest_first, limit=1_000, bytes_max=1 << 20
    )
    assert page is not None
    return [parse_event(stored).event_id for stored in page.events]


@pytest.mark.parametrize("place", PLACES)
async def test_a_repeat_a_conflict_and_a_late_scan_are_recognised(
    placed: Place, place: str, loops: None
) -> None:
    """Whatever has become of the events before: all are looked up, and folded anew if need be."""
    partition = await placed(place, *_JOURNEY)
    repeats = await partition.submit([scan(event, n) for n, event in enumerate(_JOURNEY)])
    assert (repeats.accepted, repeats.duplicates, repeats.rejections) == (0, 3, [])
    other_time = scan_event(EventCode.OUT_FOR_DELIVERY, "b", NOON_MS + 11, "SF0001")
    other_remark = scan_event(EventCode.OUT_FOR_DELIVERY, "b", NOON_MS + 10, "SF0001", remark="?")
    conflicts = await partition.submit([scan(other_time, 0), scan(other_remark, 1)])
    assert (conflicts.accepted, conflicts.duplicates) == (0, 0)
    reasons = [(index, fault.reason) for index, fault in conflicts.rejections]
    assert reasons == [(0, Rejection.CONFLICT), (1, Rejection.CONFLICT)]
    await send(partition, scan_event(EventCode.DAMAGED, "late", NOON_MS + 5, "SF0001"))
    await send(
        partition,
        scan_event(EventCode.EVENT_VOIDED, "v", NOON_MS + 30, "SF0001", attributes={"voids": "c"}),
    )
    row = await partition.read_status(KEY)
    assert row is not None
    status = decode_status(row)
    assert (status.milestone, status.event_count) == (int(Milestone.OUT_FOR_DELIVERY), 5)
    assert status.flags == 1 << Flag.DAMAGED
    assert parse_event(status.last_event).event_id == "b"
    ids = ["a", "late", "b", "c", "v"]
    assert await _ids(partition) == ids
    assert await _ids(partition, newest_first=True) == ids[::-1]
    assert _findings(partition) == []


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("place", PLACES)
async def test_pages_are_whole_while_events_move_to_the_table(
    placed: Place, place: str, limit: int, newest_first: bool
) -> None:
    """Each event once, in order, wherever it was at the page before."""
    events = [scan_event(EventCode.SORTED, f"e{n:02}", NOON_MS + n, "SF0001") for n in range(12)]
    partition = await placed(place, *events[:9])
    for event in events[9:]:
        await send(partition, event)
    found: list[str] = []
    after = None
    for number in range(20):
        page = await partition.read_timeline(
            KEY, after=after, newest_first=newest_first, limit=limit, bytes_max=1 << 20
        )
        assert page is not None
        found += [parse_event(stored).event_id for stored in page.events]
        after = page.next
        if after is None:
            break
        if number == 1:
            assert partition.committer.write_back()
        if number == 2:
            # One that is behind every page comes, and is in memory while the others are not.
            at = NOON_MS - 1 if newest_first else NOON_MS + 100
            await send(partition, scan_event(EventCode.SORTED, "more", at, "SF0001"))
    ids = sorted((event.event_id for event in events), reverse=newest_first)
    assert found == [*ids, "more"]
    assert _findings(partition) == []
