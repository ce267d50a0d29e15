"""Batches in: what the door accepts is what domain.validation accepts, in whatever encoding."""

from collections.abc import Sequence
from random import Random

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from tests.wire.encodings import (
    DELIMITED,
    NOW_MS,
    VARINT,
    Encoder,
    field,
    group,
    text,
    varint,
)
from trackd.domain.lifecycle import step_of
from trackd.domain.validation import Fault, fault_in, normal_waybill_number
from trackd.domain.vocabulary import EventCode, Rejection
from trackd.store.events import clears_of
from trackd.store.keys import status_key
from trackd.store.planner import ScanTuple
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.feed_pb2 import WatchChangesResponse
from trackd.v1.ingest_pb2 import AppendEventsRequest, StreamEventsRequest
from trackd.wire import scans
from trackd.wire.errors import CallError
from trackd.wire.scans import Batch, ScanReader

pytestmark = pytest.mark.usefixtures("loops")

TOLERANCE_MS = 600_000
EVENT_BYTES_MAX = 1_024


class CountingReader(ScanReader):
    """Counts the events that took the long way."""

    def __init__(self, partition_count: int = 1) -> None:
        super().__init__(
            partition_count=partition_count,
            event_bytes_max=EVENT_BYTES_MAX,
            future_tolerance_ms=TOLERANCE_MS,
        )
        self.read_closely = 0

    def _read_closely(
        self, index: int, event: ScanEvent, wire: bytes, latest_ms: int
    ) -> ScanTuple | Fault:
        self.read_closely += 1
        return super()._read_closely(index, event, wire, latest_ms)


def request(wires: Sequence[bytes]) -> bytes:
    """An AppendEventsRequest of these events."""
    return b"".join(field(1, DELIMITED, wire) for wire in wires)


def expected(wire: bytes) -> ScanEvent | Fault:
    """What the long way makes of an event: protobuf's reading, then domain.validation."""
    try:
        event = ScanEvent.FromString(wire)
    except DecodeError:
        return Fault(Rejection.INVALID_FIELD, "event", "cannot be parsed as a ScanEvent")
    if len(wire) > EVENT_BYTES_MAX:
        limit = f"the event has {len(wire)} bytes, at most {EVENT_BYTES_MAX}"
        return Fault(Rejection.FIELD_TOO_LONG, "event", limit)
    if fault := fault_in(event, NOW_MS + TOLERANCE_MS):
        return fault
    try:
        in_a_change(wire)
    except DecodeError:
        return Fault(Rejection.INVALID_FIELD, "event", "holds fields that are nested too deep")
    return event


def in_a_change(wire: bytes) -> WatchChangesResponse:
    """The event where the contract holds one deepest: last_event of status of a change of a run."""
    for number in (4, 8, 1, 1):
        wire = field(number, DELIMITED, wire)
    return WatchChangesResponse.FromString(wire)


def compare(batch: Batch, wires: Sequence[bytes]) -> int:
    """Holds a batch against what was expected of each event; how many were accepted."""
    rejections = dict(batch.rejections)
    accepted = {scan[0]: scan for part in batch.scans for scan in part}
    assert len(accepted) == sum(map(len, batch.scans))
    assert sorted([*rejections, *accepted]) == list(range(len(wires)))
    for index, wire in enumerate(wires):
        wanted = expected(wire)
        if isinstance(wanted, Fault):
            found = rejections[index]
            assert found.reason == wanted.reason
            assert found.message == wanted.message or "attributes" in wanted.field  # in any order
            continue
        number = normal_waybill_number(wanted.waybill_number)
        assert number is not None
        *rest, stored = accepted[index]
        code = int(wanted.code)
        step, clears = step_of(code, wanted.reason), clears_of(wanted)
        assert tuple(rest) == (
            index,
            status_key(number),
            wanted.event_id,
            code,
            step,
            wanted.occurred_at_ms,
            wanted.facility_code,
            clears,
        )
        wanted.waybill_number = number
        assert ScanEvent.FromString(stored) == wanted
        partition = xxh3_64_intdigest(number.encode()) % len(batch.scans)
        assert accepted[index] in batch.scans[partition]
    return len(accepted)


@settings(max_examples=300)
@given(st.integers(0, 2**64 - 1), st.sampled_from([1, 2, 3, 4, 7, 256]))
def test_the_short_cut_accepts_just_what_validation_accepts(
    seed: int, partition_count: int
) -> None:
    """And makes the same scan of it: over odd encodings, before and after it has learnt texts."""
    rng = Random(seed)
    reader, encoder = CountingReader(partition_count), Encoder(rng)
    for _ in range(4):
        wires = [
            encoder.odd() if rng.random() < 0.7 else encoder.plain().SerializeToString()
            for _ in range(rng.randint(1, 30))
        ]
        accepted = compare(reader.read_append(request(wires), NOW_MS), wires)
        again = reader.read_stream(
            text(1, "batch") + b"".join(field(2, DELIMITED, wire) for wire in wires), NOW_MS
        )
        assert compare(again, wires) == accepted
        assert again.batch_id == "batch"


def test_plain_events_take_the_short_cut_once_their_texts_are_known() -> None:
    """In any order of fields; without that the property above would say nothing."""
    rng = Random(1)
    encoder, reader = Encoder(rng), CountingReader()
    wires = [encoder.plain().SerializeToString() for _ in range(500)]
    reader.read_append(request(wires), NOW_MS)
    assert reader.read_closely < 20
    reader.read_closely = 0
    assert compare(reader.read_append(request(wires), NOW_MS), wires) == 500
    event = encoder.plain()
    backwards = b"".join(
        [
            text(5, event.facility_code),
            field(4, 0, varint(event.occurred_at_ms)),
            field(3, 0, varint(int(event.code))),
            text(2, event.waybill_number),
            text(1, event.event_id),
        ]
    )
    compare(reader.read_append(request([backwards]), NOW_MS), [backwards])
    assert reader.read_closely == 0


@pytest.mark.parametrize(
    "more",
    [
        field(9, 0, varint(6)),
        text(10, ""),
        text(18, "from the future"),
        field(17, 0, varint(5)),
        field(3, 0, varint(31)),
        text(5, "HUB1"),
        group(19, 1),
    ],
    ids=["reason", "empty remark", "unknown", "recorded", "code twice", "facility twice", "group"],
)
def test_whatever_else_an_event_holds_is_looked_at(more: bytes) -> None:
    """One field more, and it takes the long way: nothing is stored that nobody validated."""
    reader = CountingReader()
    event = ScanEvent(
        event_id="gun-1:1",
        waybill_number="SF0002",
        code=int(EventCode.DELIVERY_ATTEMPT_FAILED),  # type: ignore[arg-type]
        occurred_at_ms=NOW_MS,
        facility_code="HUB1",
    ).SerializeToString()
    reader.read_append(request([event]), NOW_MS)
    learnt = reader.read_closely
    assert learnt <= 1
    reader.read_append(request([event]), NOW_MS)
    assert reader.read_closely == learnt
    assert compare(reader.read_append(request([event + more]), NOW_MS), [event + more]) == 1
    assert reader.read_closely == learnt + 1


@pytest.mark.parametrize(
    "more",
    [
        field(0, DELIMITED, b""),
        field(0, VARINT, b"\x00"),
        group(19, 95),
        group(19, 100),
        field(11, DELIMITED, group(19, 97)),
        field(16, DELIMITED, text(1, "k") + text(2, "v") + group(19, 97)),
    ],
    ids=["field 0", "field 0, varint", "deep", "deepest", "deep inside", "deep in a map"],
)
def test_what_is_stored_can_be_read_wherever_answers_hold_it(more: bytes) -> None:
    """Else one sender could make a waybill unreadable, or a log that no start can replay."""
    reader = CountingReader()
    event = Encoder(Random(1)).plain().SerializeToString()
    reader.read_append(request([event]), NOW_MS)
    batch = reader.read_append(request([event, event + more]), NOW_MS)
    assert [scan[0] for scan in batch.scans[0]] == [0]
    assert [(index, fault.reason) for index, fault in batch.rejections] == [
        (1, Rejection.INVALID_FIELD)
    ]


def test_texts_are_learnt_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound it begins anew, and is as right as before."""
    monkeypatch.setattr(scans, "_SHORT_TEXTS_MAX", 1_000)
    reader = CountingReader()
    for start in range(0, 10_000, 250):
        events = [
            ScanEvent(
                event_id="e",
                waybill_number="SF0002",
                code=31,  # type: ignore[arg-type]
                occurred_at_ms=NOW_MS,
                facility_code=f"HUB{n}",
            ).SerializeToString()
            for n in range(start, start + 250)
        ]
        batch = reader.read_append(request(events), NOW_MS)
        assert not batch.rejections
    assert len(reader._short_texts) <= 1_001
    assert compare(batch, events) == 250


# What ends the call.


@pytest.mark.parametrize("count", [0, 1_001])
def test_a_batch_has_1_to_1000_events(count: int) -> None:
    """Otherwise the caller is told the limit, the number and the field."""
    event = Encoder(Random(1)).plain()
    append = AppendEventsRequest(events=[event] * count).SerializeToString()
    stream = StreamEventsRequest(batch_id="b", events=[event] * count).SerializeToString()
    for read, data in ((ScanReader.read_append, append), (ScanReader.read_stream, stream)):
        with pytest.raises(CallError) as raised:
            read(CountingReader(), data, NOW_MS)
        assert raised.value.reason == "INVALID_ARGUMENT"
        assert raised.value.field == "events"
        assert f"1-1000 events, not {count}" in raised.value.message


def test_a_batch_of_1000_is_read() -> None:
    """The limit belongs to what is allowed."""
    events = [Encoder(Random(1)).plain()] * 1_000
    batch = CountingReader().read_append(
        AppendEventsRequest(events=events).SerializeToString(), NOW_MS
    )
    assert len(batch.scans[0]) == 1_000


def test_a_batch_id_has_64_characters_at_most() -> None:
    """One more ends the call."""
    event = Encoder(Random(1)).plain()
    longest = StreamEventsRequest(batch_id="包" * 64, events=[event])
    batch = CountingReader().read_stream(longest.SerializeToString(), NOW_MS)
    assert batch.batch_id == "包" * 64
    longest.batch_id += "x"
    with pytest.raises(CallError, match="64") as raised:
        CountingReader().read_stream(longest.SerializeToString(), NOW_MS)
    assert raised.value.field == "batch_id"


@pytest.mark.parametrize("events", [[], [b"\xff"]], ids=["good events", "a bad event"])
def test_a_batch_id_is_utf_8(events: list[bytes]) -> None:
    """Else it could not be handed back as it was sent."""
    good = Encoder(Random(1)).plain().SerializeToString()
    data = field(1, DELIMITED, b"\xff-7")
    data += b"".join(field(2, DELIMITED, wire) for wire in [good, *events])
    with pytest.raises(CallError, match="UTF-8") as raised:
        CountingReader().read_stream(data, NOW_MS)
    assert raised.value.field == "batch_id"


@pytest.mark.parametrize("data", [b"\x0a\xff", b"\xff", b"\x0b", b"\x0a\x05abc"])
def test_what_is_no_request_is_malformed(data: bytes) -> None:
    """Not a batch with bad events in it: there is no telling where the events are."""
    for read in (ScanReader.read_append, ScanReader.read_stream):
        with pytest.raises(CallError) as raised:
            read(CountingReader(), data, NOW_MS)
        assert raised.value.reason == "MALFORMED_REQUEST"


def test_a_refusal_does_not_pile_up() -> None:
    """The same error told a thousand times holds no more than told once."""
    depths = []
    for _ in range(1_000):
        try:
            CountingReader().read_append(b"\xff", NOW_MS)
        except CallError as error:
            traceback, depth = error.__traceback__, 0
            while traceback:
                traceback, depth = traceback.tb_next, depth + 1
            depths.append(depth)
    assert max(depths) == depths[0]
