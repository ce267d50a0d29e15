"""A line of JSON becomes exactly the event it says, or a fault that names the field."""

import codecs
import io

import orjson
import pytest
from google.protobuf import json_format

from tests.cli.lines import scan
from trackd.cli.documents import document
from trackd.cli.files.json_lines import event_of, records
from trackd.cli.files.reading import Lines
from trackd.cli.files.records import UnusableError
from trackd.domain.vocabulary import EventCode, Reason, ReceivedBy
from trackd.simulator.simulation import Simulation
from trackd.simulator.wire import scan_event
from trackd.v1.event_pb2 import Receipt, ScanEvent


def test_what_track_prints_is_what_ingest_reads() -> None:
    """Events written as documents come back the same, whatever a courier network puts in."""
    seen: set[str] = set()
    for arrival in Simulation(7, 1_762_704_000_000, 200, parcels=200).arrivals():
        event = scan_event(arrival.scan)
        assert event_of(orjson.dumps(document(event))) == event
        seen.update(field.name for field, _ in event.ListFields())
    assert {"receipt", "location", "reason", "attributes", "container_number"} <= seen


@pytest.mark.parametrize("code", EventCode)
def test_a_code_goes_by_name_or_number(code: EventCode) -> None:
    """With and without the prefix of the contract."""
    for word in (code.name, f"EVENT_CODE_{code.name}", int(code)):
        assert int(event_of(orjson.dumps(scan("SF1234567890", 1, word))).code) == code


def test_the_other_words_go_by_name_or_number() -> None:
    """Reasons and receivers as codes."""
    for reason, receiver in (("WEATHER", "LOCKER"), (13, 3), ("REASON_CODE_WEATHER", 3)):
        event = event_of(
            orjson.dumps(
                scan("SF1234567890", 1, 60, reason=reason, receipt={"received_by": receiver})
            )
        )
        assert int(event.reason) == Reason.WEATHER
        assert int(event.receipt.received_by) == ReceivedBy.LOCKER


def test_numbers_may_be_texts_and_null_is_absent() -> None:
    """As protobuf's own JSON writes 64-bit numbers, and as other programs write nothing."""
    line = b'{"event_id":"1","occurred_at_ms":"1763800000000","remark":null,"recorded_at_ms":5}'
    assert event_of(line) == ScanEvent(event_id="1", occurred_at_ms=1_763_800_000_000)
    assert event_of(line.replace(b'"1763800000000"', b"1763800000000.0")) == event_of(line)


@pytest.mark.parametrize(
    ("line", "reason", "field"),
    [
        (b"{", "UNPARSABLE", ""),
        (b"[]", "UNPARSABLE", ""),
        (b'{"eventID":"1"}', "UNPARSABLE", "eventID"),
        (b'{"receipt":{"by":1}}', "UNPARSABLE", "receipt.by"),
        (b'{"receipt":[]}', "UNPARSABLE", "receipt"),
        (b'{"code":"SOLD"}', "UNKNOWN_CODE", "code"),
        (b'{"code":true}', "UNKNOWN_CODE", "code"),
        (b'{"code":-1}', "UNKNOWN_CODE", "code"),
        (b'{"reason":"BECAUSE"}', "INVALID_FIELD", "reason"),
        (b'{"event_id":1}', "INVALID_FIELD", "event_id"),
        (b'{"occurred_at_ms":1.5}', "INVALID_FIELD", "occurred_at_ms"),
        (b'{"occurred_at_ms":1e30}', "INVALID_FIELD", "occurred_at_ms"),
        (b'{"occurred_at_ms":"soon"}', "INVALID_FIELD", "occurred_at_ms"),
        (b'{"occurred_at_ms":"' + b"9" * 5_000 + b'"}', "INVALID_FIELD", "occurred_at_ms"),
        (b'{"occurred_at_ms":"-9223372036854775809"}', "INVALID_FIELD", "occurred_at_ms"),
        (b'{"occurred_at_ms":9223372036854775808}', "INVALID_FIELD", "occurred_at_ms"),
        (b'{"location":{"latitude":"north"}}', "INVALID_FIELD", "location.latitude"),
        (b'{"attributes":{"a":1}}', "INVALID_FIELD", 'attributes["a"]'),
        (b'{"event_id":"\xff"}', "UNPARSABLE", ""),
        (b'{"remark":"' + b"x" * 300_000 + b'"}', "UNPARSABLE", ""),
    ],
)
def test_a_fault_names_the_field(line: bytes, reason: str, field: str) -> None:
    """Whoever has to mend a file finds the place."""
    with pytest.raises(UnusableError) as unusable:
        event_of(line)
    assert (unusable.value.fault.reason, unusable.value.fault.field) == (reason, field)
    assert unusable.value.fault.message


def test_names_may_be_as_protobuf_writes_them() -> None:
    """What json_format makes of an event is read back as the same event."""
    event = ScanEvent(
        event_id="1",
        waybill_number="SF1234567890",
        code=EventCode.DELIVERED,  # type: ignore[arg-type] # a number of the enum
        occurred_at_ms=1_763_800_000_000,
        next_facility_code="SHA-02",
        receipt=Receipt(proof_sha256="0" * 64),
        attributes={"someKey": "kept as it is"},
    )
    assert event_of(json_format.MessageToJson(event).encode()) == event
    assert event_of(orjson.dumps(document(event))) == event


def test_a_file_marked_as_utf_8_is_read_from_its_first_line_on() -> None:
    """The mark is no part of the first event, and is none anywhere else."""
    line = orjson.dumps(scan("SF1234567890", 1)) + b"\n"
    marked = Lines(io.BufferedReader(io.BytesIO(codecs.BOM_UTF8 + line + codecs.BOM_UTF8 + line)))
    first, second = records(marked)
    assert (len(first.events), first.faults) == (1, ())
    assert second.faults[0].reason == "UNPARSABLE"
