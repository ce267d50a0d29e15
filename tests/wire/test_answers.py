"""Answers out: bytes joined by hand are what protobuf would have made."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.desk import NOON_MS
from trackd.domain.validation import Fault, normal_waybill_number
from trackd.domain.vocabulary import Flag, Milestone, Rejection, flag_mask
from trackd.store.keys import ORDER_LENGTH, partition_of, status_key
from trackd.store.planner import Verdict
from trackd.store.records import NO_STATUS, UnreadableRecord, encode_status
from trackd.v1.event_pb2 import ScanEvent, ShipmentStatus
from trackd.v1.ingest_pb2 import AppendEventsResponse, StreamEventsResponse
from trackd.v1.tracking_pb2 import (
    BatchGetStatusResponse,
    GetStatusRequest,
    GetStatusResponse,
    GetTimelineRequest,
    GetTimelineResponse,
)
from trackd.wire import answers, positions
from trackd.wire.answers import Answers

pytestmark = pytest.mark.usefixtures("loops")

# The lengths at which a varint grows, and what lies between them.
LENGTHS = st.one_of(st.sampled_from([0, 1, 90, 126, 127, 128, 16_000, 16_400]), st.integers(0, 300))
EVENTS = st.builds(
    lambda event_id, length: ScanEvent(event_id=event_id, remark="x" * length),
    st.text("ab", min_size=1, max_size=3),
    LENGTHS,
)
NUMBERS = st.from_regex(re.compile(r"[A-Z0-9-]{4,40}"), fullmatch=True)


@given(
    number=NUMBERS,
    milestone=st.sampled_from(Milestone),
    flags=st.sets(st.sampled_from(Flag)),
    event=EVENTS,
    count=st.integers(1, 2**31),
    position=st.integers(0, 2**64 - 1),
    facility=st.binary(max_size=128),
)
def test_a_status_is_its_row(
    *,
    number: str,
    milestone: Milestone,
    flags: set[Flag],
    event: ScanEvent,
    count: int,
    position: int,
    facility: bytes,
) -> None:
    """Every field; flags in ascending order, those too that only a later version raises."""
    row = NO_STATUS._replace(
        milestone=milestone,
        flags=flag_mask(*flags),
        event_count=count,
        first_event_at_ms=NOON_MS,
        newest=bytes(ORDER_LENGTH),
        updated_at_ms=NOON_MS + 5,
        position=position,
        facility=facility,
        last_event=event.SerializeToString(),
    )
    expected = ShipmentStatus(
        waybill_number=number,
        milestone=int(milestone),  # type: ignore[arg-type]
        flags=sorted(map(int, flags)),  # type: ignore[arg-type]
        last_event=event,
        event_count=count,
        first_event_at_ms=NOON_MS,
        updated_at_ms=NOON_MS + 5,
        position=f"set/3.{position}",
    )
    encode, stored = Answers("set"), encode_status(row)
    status = encode.status(3, number, stored)
    assert ShipmentStatus.FromString(status) == expected
    assert GetStatusResponse.FromString(answers.one_status(status)).status == expected
    assert encode.status_of(3, status_key(number), stored) == answers.one_status(status)
    both = answers.many_statuses([status, status], ["A", number])
    assert BatchGetStatusResponse.FromString(both) == BatchGetStatusResponse(
        statuses=[expected, expected], missing_waybill_numbers=["A", number]
    )


@pytest.mark.parametrize("row", [b"", b"\x02" + bytes(200), encode_status(NO_STATUS)[:-1]])
def test_what_is_no_row_is_not_answered(row: bytes) -> None:
    """A row that is damaged, or of another format, is an error and not a status."""
    with pytest.raises(UnreadableRecord):
        Answers("set").status(0, "SF0001", row)
    with pytest.raises(UnreadableRecord):
        Answers("set").status_of(0, status_key("SF0001"), row)
    with pytest.raises(UnreadableRecord):
        Answers("set").timeline(0, status_key("SF0001"), row, [], b"")


@given(events=st.lists(EVENTS, max_size=5), token=st.text("ab=", max_size=200))
def test_a_timeline_is_its_rows(events: list[ScanEvent], token: str) -> None:
    """Joined as they are stored, whatever their lengths."""
    wire = [event.SerializeToString() for event in events]
    last = b"".join(wire[:1])
    row = encode_status(NO_STATUS._replace(first_event_at_ms=NOON_MS, last_event=last))
    encode = Answers("set")
    status = ShipmentStatus.FromString(encode.status(0, "SF0001", row))
    answer = encode.timeline(0, status_key("SF0001"), row, wire, token.encode())
    found = GetTimelineResponse.FromString(answer)
    assert found == GetTimelineResponse(events=events, next_page_token=token, status=status)


def test_rejections_come_in_the_order_of_the_batch() -> None:
    """Whichever partition they come from."""
    verdict = Verdict(accepted=3, duplicates=2)
    for index in (7, 1, 4):
        verdict.rejections.append((index, Fault(Rejection.CONFLICT, "event_id", f"of {index}")))
    append = AppendEventsResponse.FromString(Answers("set").append(verdict, "set/0.1"))
    stream = StreamEventsResponse.FromString(Answers("set").stream("b", verdict, "set/0.1"))
    assert stream.batch_id == "b"
    for answer in (append, stream):
        assert (answer.accepted, answer.duplicates, answer.position) == (3, 2, "set/0.1")
        assert [each.index for each in answer.rejections] == [1, 4, 7]
        assert [each.message for each in answer.rejections] == ["of 1", "of 4", "of 7"]


@given(st.dictionaries(st.integers(0, 255), st.integers(0, 2**63 - 1), min_size=1))
def test_a_position_comes_back(parts: dict[int, int]) -> None:
    """A token of any partitions, up to all of them."""
    token = Answers("set").position(parts.items())
    assert positions.parse(token, "set") == parts


@given(number=NUMBERS, partitions=st.integers(1, 64))
def test_a_look_up_that_names_a_waybill_and_nothing_else_is_located(
    number: str, partitions: int
) -> None:
    """GetStatus and GetTimeline begin alike."""
    place = partition_of(status_key(number), partitions), status_key(number)
    for message in (GetStatusRequest, GetTimelineRequest):
        request = message(waybill_number=number).SerializeToString()
        assert answers.located(request, partitions) == place


@given(
    st.one_of(
        st.binary(max_size=50),
        st.text("Aa9- \n\0", max_size=45).map(
            lambda text: GetStatusRequest(waybill_number=text).SerializeToString()
        ),
        st.builds(
            lambda number, extra: b"\n" + bytes((len(number) + extra,)) + number.encode(),
            NUMBERS,
            st.integers(-2, 2),
        ),
        st.builds(
            lambda number, position: GetStatusRequest(
                waybill_number=number, min_position=position
            ).SerializeToString(),
            NUMBERS,
            st.text("set/0.1", max_size=3),
        ),
    )
)
def test_what_is_located_is_what_protobuf_reads(request: bytes) -> None:
    """Any other shape is left to protobuf: a number to be corrected, more fields, no message."""
    place = answers.located(request, 7)
    if place is not None:
        read = GetStatusRequest.FromString(request)
        assert normal_waybill_number(read.waybill_number) == read.waybill_number
        assert read == GetStatusRequest(waybill_number=read.waybill_number)
        key = status_key(read.waybill_number)
        assert place == (partition_of(key, 7), key)
