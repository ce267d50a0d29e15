"""The value formats: what is written comes back, and what is not a record is said to be none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.desk import NOON_MS, Desk, scan_event
from trackd.domain.fold import Course
from trackd.domain.vocabulary import EventCode, Flag, Milestone, flag_mask
from trackd.store import records
from trackd.store.errors import DataDamaged
from trackd.store.keys import ORDER_LENGTH, Table, position_of
from trackd.store.records import (
    MILESTONE_BITS,
    STATUS_HEAD,
    LogEntry,
    StatusRow,
    UnreadableRecord,
    block_count,
    decode_block,
    decode_status,
    encode_status,
    recorded_at_suffix,
    status_position,
)
from trackd.v1.event_pb2 import ScanEvent

ORDERS = st.binary(min_size=ORDER_LENGTH, max_size=ORDER_LENGTH)
MASKS = st.integers(0, 2**16 - 1)
U64 = st.integers(0, 2**64 - 1)
ROWS = st.builds(
    StatusRow,
    milestone=st.sampled_from([int(milestone) for milestone in Milestone]),
    flags=MASKS,
    announced=MASKS,
    course=st.sampled_from([int(course) for course in Course]),
    event_count=st.integers(0, 2**32 - 1),
    first_event_at_ms=U64,
    newest=ORDERS,
    last=ORDERS,
    updated_at_ms=U64,
    position=U64,
    facility=st.binary(max_size=128),
    last_event=st.binary(max_size=300),
    fingerprints=st.binary(max_size=10).map(lambda data: data * 4),
)


@given(ROWS)
def test_a_status_row_comes_back(row: StatusRow) -> None:
    """Every field, at its extremes too; its position without taking the row apart."""
    data = encode_status(row)
    assert decode_status(data) == row
    assert status_position(data) == row.position


@given(ROWS, st.binary(min_size=8, max_size=8))
def test_what_stands_where_nothing_is_kept_is_passed_over(row: StatusRow, noise: bytes) -> None:
    """Data of an earlier version has a number there."""
    data = encode_status(row)
    place = STATUS_HEAD.size - 8 - 8 - 3  # position, and the two lengths, come after it
    assert data[place : place + 8] == bytes(8)
    old = data[:place] + noise + data[place + 8 :]
    assert decode_status(old) == row
    assert status_position(old) == row.position


def test_the_largest_of_everything_fits_a_status_row() -> None:
    """A facility of 32 characters of 4 bytes, all flags, all milestones, the largest event."""
    row = records.NO_STATUS._replace(
        flags=flag_mask(*Flag),
        announced=sum(MILESTONE_BITS.values()),
        facility=b"\xf0\xa0\x80\x80" * 32,
        last_event=bytes(records.EVENT_BYTES_LIMIT),
        fingerprints=bytes(4 * 10_000),
    )
    assert decode_status(encode_status(row)) == row


def test_every_milestone_has_its_own_bit() -> None:
    """The mask of those that were announced can tell them apart."""
    assert MILESTONE_BITS.keys() == {int(milestone) for milestone in Milestone}
    assert len(set(MILESTONE_BITS.values())) == len(Milestone)


def a_block() -> tuple[int, bytes]:
    """A block of the log with entries of every shape, and the position of its last event."""
    desk = Desk()
    events = [
        scan_event(EventCode.OUT_FOR_DELIVERY, "a", facility_code="HUB1"),
        scan_event(EventCode.DELIVERED, "b", NOON_MS + 1),
        scan_event(EventCode.SORTED, "c", NOON_MS + 2, remark="x" * 300),
        scan_event(EventCode.EVENT_VOIDED, "d", NOON_MS + 3, attributes={"voids": "b"}),
        scan_event(EventCode.SORTED, "late", NOON_MS - 1),
    ]
    desk.commit(events, now_ms=NOON_MS + 9)
    ((key, block),) = desk.engine.scan_all(Table.LOG)
    return position_of(key), block


def test_a_block_of_the_log_holds_one_commit() -> None:
    """Positions without gaps up to the block's own, one recorded time, the events' own bytes."""
    last, block = a_block()
    entries = list(decode_block(last, block))
    assert block_count(block) == 5
    assert [entry.position for entry in entries] == [1, 2, 3, 4, 5]
    assert {entry.recorded_at_ms for entry in entries} == {NOON_MS + 9}
    assert [ScanEvent.FromString(entry.event).event_id for entry in entries] == [
        *("a", "b", "c", "d", "late")
    ]
    assert [bool(entry.last) for entry in entries] == [False, False, True, True, False]


def test_a_block_cut_short_anywhere_is_unreadable() -> None:
    """Never a shorter commit, never another error."""
    last, block = a_block()
    for length in range(len(block)):
        with pytest.raises(UnreadableRecord):
            list(decode_block(last, block[:length]))


def test_records_of_another_format_are_unreadable() -> None:
    """And so is nothing at all. For a caller that is damaged data, not a defect."""
    last, block = a_block()
    row = encode_status(records.NO_STATUS)
    assert issubclass(UnreadableRecord, DataDamaged)
    for data in (b"", b"\x00" + block[1:], b"\x02" + block[1:]):
        with pytest.raises(UnreadableRecord):
            list(decode_block(last, data))
    for data in (b"", row[:-1], b"\x00" + row[1:], b"\x02" + row[1:]):
        with pytest.raises(UnreadableRecord):
            decode_status(data)


def test_entries_say_which_course_the_journey_is_on() -> None:
    """In the marks' upper bits, beside all others."""
    everything = records.CHANGED | records.FIRST_OCCURRENCE | records.CORRECTION
    everything |= records.LAST_IS_THIS | records.LAST_IS_ANOTHER
    for course in Course:
        marks = everything | course << records.COURSE_SHIFT
        assert marks <= 255
        entry = LogEntry(1, 0, marks, 0, 0, 0, 0, 1, 0, b"", b"")
        assert entry.course == course
    assert everything < 1 << records.COURSE_SHIFT


@given(st.integers(1, 2**63 - 1), st.integers(1, 2**63 - 1))
def test_the_recorded_time_is_appended_and_counts(sent: int, recorded: int) -> None:
    """Concatenation is merge: the event parses with the server's time, whatever the sender said."""
    event = scan_event(EventCode.SORTED, "a", recorded_at_ms=sent)
    merged = ScanEvent.FromString(event.SerializeToString() + recorded_at_suffix(recorded))
    assert merged.recorded_at_ms == recorded
    event.recorded_at_ms = recorded
    assert merged == event
