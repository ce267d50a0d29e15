"""The friendly constructor writes the same scan as the contract's message."""

from datetime import UTC, datetime

import pytest

from trackd.client import ScanEvent, receipt, scan_event
from trackd.v1.event_pb2 import GeoPoint, Receipt
from trackd.v1.vocabulary_pb2 import EventCode, ReasonCode, ReceivedBy


def test_every_field_can_be_given() -> None:
    """Names, numbers and dates become the fields of the message, and no field is out of reach."""
    moment = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
    event = scan_event(
        event_id="gun-1:7",
        waybill_number="SF1234567890",
        code="DELIVERED",
        occurred_at=moment,
        facility_code="HUB1",
        next_facility_code="HUB2",
        device_id="gun-1",
        operator_id="op-9",
        reason="RECIPIENT_ABSENT",
        remark="门卫代收",
        location=(31.2, 121.5),
        container_number="BAG-1",
        receipt=receipt("PROXY", consent_reference="c", proof_sha256="00" * 32, signer="王*"),
        source_system="legacy",
        source_code="80",
        attributes={"voids": "x"},
    )
    assert event == ScanEvent(
        event_id="gun-1:7",
        waybill_number="SF1234567890",
        code=EventCode.EVENT_CODE_DELIVERED,
        occurred_at_ms=1_795_348_800_250,
        facility_code="HUB1",
        next_facility_code="HUB2",
        device_id="gun-1",
        operator_id="op-9",
        reason=ReasonCode.REASON_CODE_RECIPIENT_ABSENT,
        remark="门卫代收",
        location=GeoPoint(latitude=31.2, longitude=121.5),
        container_number="BAG-1",
        receipt=Receipt(
            received_by=ReceivedBy.RECEIVED_BY_PROXY,
            consent_reference="c",
            proof_sha256="00" * 32,
            signer="王*",
        ),
        source_system="legacy",
        source_code="80",
        attributes={"voids": "x"},
    )
    set_by_server = {"recorded_at_ms"}
    given = {field.name for field, _ in event.ListFields()}
    assert given | set_by_server == {field.name for field in ScanEvent.DESCRIPTOR.fields}


@pytest.mark.parametrize("code", ["SORTED", "EVENT_CODE_SORTED", 31])
def test_codes_are_names_or_numbers(code: str | int) -> None:
    """With prefix, without, or as a number; a number is passed on as it is."""
    event = scan_event(event_id="e", waybill_number="W123", code=code)
    assert event.code == EventCode.EVENT_CODE_SORTED


def test_unknown_names_and_zoneless_dates_are_refused() -> None:
    """A name that does not exist and a local time are told at once, not by the server."""
    with pytest.raises(ValueError, match="LOST_IN_SPACE"):
        scan_event(event_id="e", waybill_number="W123", code="LOST_IN_SPACE")
    with pytest.raises(ValueError, match="zone"):
        scan_event(
            event_id="e",
            waybill_number="W123",
            code="SORTED",
            occurred_at=datetime(2026, 11, 22),  # noqa: DTZ001 - the mistake under test
        )
