"""The feed of a partition: the same changes from memory and from disk, in order, without gaps."""

import asyncio
import random
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict

from tests.feed.clocked import Clocked
from tests.store.desk import NOON_MS, scan_event
from trackd.domain.vocabulary import EventCode, Flag, Milestone
from trackd.feed.change import LoggedChange, varint
from trackd.store.errors import DataDamaged
from trackd.store.keys import Table, status_key
from trackd.store.records import CHANGED, decode_block, decode_status
from trackd.v1.feed_pb2 import Change

pytestmark = pytest.mark.usefixtures("loops")


def told(change: LoggedChange) -> Change:
    """What a reader gets."""
    return Change.FromString(change.wire())


def all_of(clocked: Clocked, *, entries_max: int) -> list[Change]:
    """Everything from the beginning, so many log entries at a time."""
    feed = clocked.partition.feed
    after, found = 0, []
    while after < feed.newest_position:
        run = feed.read(after, entries_max=entries_max)
        assert after < run.last_position <= after + entries_max
        assert all(after < each.position <= run.last_position for each in run.changes)
        found += [told(each) for each in run.changes]
        after = run.last_position
    assert feed.read(after, entries_max=entries_max).changes == []
    return found


async def test_a_change_says_everything(clocked: Clocked) -> None:
    """Before and after, the event as it was recorded, and the status as a read would tell it."""
    await clocked.scans(scan_event(EventCode.PICKED_UP, "a", facility_code="A"))
    await clocked.scans(
        scan_event(EventCode.DAMAGED, "b", NOON_MS + 1, facility_code="B", remark="破" * 100),
        scan_event(EventCode.SORTED, "c", NOON_MS + 2, facility_code="C"),
        scan_event(EventCode.SORTED, "d", NOON_MS + 3, facility_code="C"),
    )
    first, second, third = all_of(clocked, entries_max=10)
    assert [each.position for each in (first, second, third)] == ["d/0.1", "d/0.2", "d/0.3"]
    assert [first.previous_milestone, first.milestone] == [0, int(Milestone.PICKED_UP)]
    assert first.first_occurrence
    assert not first.correction
    assert first.recorded_at_ms == first.event.recorded_at_ms == clocked.now_ms
    assert [second.previous_milestone, second.milestone] == [20, 20]
    assert list(second.flags_raised) == list(second.status.flags) == [int(Flag.DAMAGED)]
    assert not second.first_occurrence
    assert (second.event.event_id, second.status.last_event.event_id) == ("b", "a")
    assert second.event.remark == "破" * 100
    # Damage stays, whatever comes; the same facility again is no change.
    assert list(third.flags_cleared) == []
    assert third.status.last_event == third.event
    assert third.status.event_count == 3
    assert third.status.first_event_at_ms == NOON_MS
    assert third.status.updated_at_ms == clocked.now_ms
    assert third.status.position == third.position
    assert third.waybill_number == third.status.waybill_number == "SF1234567890"


async def test_a_correction_back_to_nothing_is_no_first_occurrence(clocked: Clocked) -> None:
    """The only milestone was voided: nobody reaches "unspecified"."""
    await clocked.scans(scan_event(EventCode.PICKED_UP, "a"))
    void = scan_event(EventCode.EVENT_VOIDED, "v", NOON_MS + 1, attributes={"voids": "a"})
    await clocked.scans(void)
    *_, change = all_of(clocked, entries_max=10)
    assert [change.previous_milestone, change.milestone] == [int(Milestone.PICKED_UP), 0]
    assert change.correction
    assert not change.first_occurrence


async def test_a_status_told_as_a_change(clocked: Clocked) -> None:
    """Without a previous milestone, all flags as raised, the last event as the event."""
    await clocked.scans(
        scan_event(EventCode.PICKED_UP, "a"), scan_event(EventCode.LOST, "b", NOON_MS + 1)
    )
    key = status_key("SF1234567890")
    row = await clocked.partition.read_status(key)
    assert row is not None
    source = clocked.partition.feed.source
    change = told(LoggedChange.of_status(source, key, decode_status(row)))
    *_, latest = all_of(clocked, entries_max=10)
    assert MessageToDict(change.status) == MessageToDict(latest.status)
    assert change.previous_milestone == 0
    assert list(change.flags_raised) == [int(Flag.LOST)]
    assert change.event.event_id == "a"
    assert not change.first_occurrence


@pytest.mark.parametrize("memory", [1, 2_000, 1 << 20])
async def test_every_road_tells_the_same(tmp_path: Path, memory: int) -> None:
    """From memory, from disk, or partly; in runs of any size; after a restart: equal to the log."""
    clocked = Clocked(tmp_path, memory=memory)
    chance = random.Random(memory)
    for number in range(60):
        codes = chance.choices(
            [EventCode.SORTED, EventCode.DAMAGED, EventCode.DELIVERED, EventCode.DEPARTED_FACILITY],
            k=chance.randint(1, 8),
        )
        await clocked.scans(
            *(
                scan_event(
                    code,
                    f"{number}-{step}",
                    NOON_MS + chance.randint(0, 500),
                    f"SF{chance.randint(0, 5):010}",
                    facility_code=chance.choice("ABC"),
                )
                for step, code in enumerate(codes)
            )
        )
    expected = [
        entry.position
        for key, block in clocked.partition.engine.scan_all(Table.LOG)
        for entry in decode_block(int.from_bytes(key, "big"), block)
        if entry.marks & CHANGED
    ]
    found = all_of(clocked, entries_max=7)
    assert [each.position for each in found] == [f"d/0.{each}" for each in expected]
    for entries_max in (1, 3, 1_000):
        assert all_of(clocked, entries_max=entries_max) == found
    # What is kept taken apart has a bound of its own.
    assert clocked.partition.feed.memory_bytes <= max(memory, 2_000) + 900 * len(expected)
    latest = {each.waybill_number: each.status for each in found}
    for waybill, status in latest.items():
        row = await clocked.partition.read_status(status_key(waybill))
        assert row is not None
        kept = decode_status(row)
        told_of = (status.milestone, sum(1 << flag for flag in status.flags))
        assert told_of == (kept.milestone, kept.flags)
        assert status.last_event.facility_code.encode() == kept.facility
    await clocked.again()
    assert all_of(clocked, entries_max=5) == found
    await clocked.partition.close()


async def test_only_what_is_durable_is_told(clocked: Clocked) -> None:
    """What is written and not flushed yet is not there, and a waiter is woken when it is."""
    feed = clocked.partition.feed
    waiting = asyncio.ensure_future(feed.newer(0))
    submitted = clocked.partition.submit([])  # an empty commit moves nothing
    await submitted
    assert not waiting.done()
    answer = asyncio.ensure_future(clocked.scans(scan_event(EventCode.PICKED_UP, "a")))
    while not clocked.partition.committer.written_position:
        assert feed.newest_position == 0
        assert feed.read(0, entries_max=10).changes == []
        await asyncio.sleep(0)
    await answer
    await waiting
    assert feed.newest_position == 1


async def test_waiters_that_leave_leave_nothing(clocked: Clocked) -> None:
    """Ten thousand that were cancelled, and no commit meanwhile."""
    for _ in range(100):
        waiting = [asyncio.ensure_future(clocked.partition.feed.newer(0)) for _ in range(100)]
        await asyncio.sleep(0)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert clocked.partition.feed._waiters == set()


async def test_a_hole_in_the_log_is_damage_not_silence(clocked: Clocked) -> None:
    """A missing block, or one that cannot be read, ends the reading with an error."""
    await clocked.journeys(3)
    engine = clocked.partition.engine
    keys = [key for key, _ in engine.scan_all(Table.LOG)]
    engine.write([(Table.LOG, [(keys[4], None), (keys[8], b"\xff")])])
    await clocked.again()
    feed = clocked.partition.feed
    assert len(feed.read(0, entries_max=4).changes) == 4
    with pytest.raises(DataDamaged):
        feed.read(4, entries_max=4)
    with pytest.raises(DataDamaged):
        feed.read(6, entries_max=4)


def test_varints_are_protobufs() -> None:
    """At every length, and at its edges."""
    from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[attr-defined]

    edges = {1 << bits for bits in range(63)}
    for value in sorted({0} | edges | {each - 1 for each in edges} | {1_700_000_000_000}):
        assert varint(value) == _VarintBytes(value)
