"""Scans as the application writes and reads them: a constructor with plain values, and a rejected
scan.

Translates only; what an event may hold is decided by the server. Nothing here sends or keeps.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import DecodeError

from trackd.v1.event_pb2 import GeoPoint, Receipt, ScanEvent
from trackd.v1.vocabulary_pb2 import EventCode, ReasonCode, ReceivedBy, RejectionReason


@dataclass(frozen=True, slots=True)
class RejectedScan:
    """A scan that was not stored, and why: `reason` is a RejectionReason.

    `reason` is UNSPECIFIED where the server refused the scan without one; `message` then holds its
    words. `event` is empty where its bytes were damaged on the device's disk.
    """

    event: ScanEvent
    reason: int
    field: str
    message: str

    @property
    def reason_name(self) -> str:
        """The reason without its prefix, e.g. `CONFLICT`; a number that is new to this client."""
        if self.reason not in RejectionReason.values():
            return str(self.reason)
        name = RejectionReason.Name(RejectionReason.ValueType(self.reason))
        return name.removeprefix("REJECTION_REASON_")


def kept_event(wire: bytes) -> ScanEvent:
    """The scan that was kept as these bytes; an empty one where the disk made nonsense of them."""
    try:
        return ScanEvent.FromString(wire)
    except DecodeError:
        return ScanEvent()


def scan_event(
    *,
    event_id: str,
    waybill_number: str,
    code: int | str,
    occurred_at: datetime | int | None = None,
    facility_code: str = "",
    next_facility_code: str = "",
    device_id: str = "",
    operator_id: str = "",
    reason: int | str = 0,
    remark: str = "",
    location: tuple[float, float] | None = None,
    container_number: str = "",
    receipt: Receipt | None = None,
    source_system: str = "",
    source_code: str = "",
    attributes: Mapping[str, str] | None = None,
) -> ScanEvent:
    """One scan from plain values; every field as in `trackd.v1.ScanEvent`.

    `code` and `reason` are numbers or names (`"DELIVERED"`, `"RECIPIENT_ABSENT"`); `occurred_at` is
    a datetime with a zone, milliseconds since the epoch, or now; `location` is (latitude,
    longitude). Raises ValueError for a name that does not exist and for a datetime without a zone.
    """
    event = ScanEvent(
        event_id=event_id,
        waybill_number=waybill_number,
        code=EventCode.ValueType(_number(EventCode.DESCRIPTOR, "EVENT_CODE_", code)),
        occurred_at_ms=_milliseconds(occurred_at),
        facility_code=facility_code,
        next_facility_code=next_facility_code,
        device_id=device_id,
        operator_id=operator_id,
        reason=ReasonCode.ValueType(_number(ReasonCode.DESCRIPTOR, "REASON_CODE_", reason)),
        remark=remark,
        container_number=container_number,
        receipt=receipt,
        source_system=source_system,
        source_code=source_code,
        attributes=attributes,
    )
    if location is not None:
        event.location.CopyFrom(GeoPoint(latitude=location[0], longitude=location[1]))
    return event


def receipt(
    received_by: int | str,
    *,
    consent_reference: str = "",
    proof_sha256: str = "",
    signer: str = "",
) -> Receipt:
    """Who took a delivered shipment; `received_by` is a number or a name (`"LOCKER"`)."""
    return Receipt(
        received_by=ReceivedBy.ValueType(
            _number(ReceivedBy.DESCRIPTOR, "RECEIVED_BY_", received_by)
        ),
        consent_reference=consent_reference,
        proof_sha256=proof_sha256,
        signer=signer,
    )


def _number(words: EnumDescriptor, prefix: str, word: int | str) -> int:
    if isinstance(word, int):
        return word
    value = words.values_by_name.get(prefix + word.removeprefix(prefix))
    if value is None:
        raise ValueError(f"{words.name} has no {word!r}")
    return int(value.number)


def _milliseconds(when: datetime | int | None) -> int:
    if when is None:
        return time.time_ns() // 1_000_000
    if isinstance(when, int):
        return when
    if when.tzinfo is None:
        raise ValueError("occurred_at needs a zone: a local time is not a moment")
    return round(when.timestamp() * 1000)
