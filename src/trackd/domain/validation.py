"""What a scan event may hold: every limit and every reason to reject one, in one place.

Works on anything that has a scan event's fields, so nothing here knows protobuf. The wire has a
short cut for events of plain shape; it may accept only what `fault_in` accepts.
"""

import re
from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple, Protocol

from trackd.domain.fold import flags_named
from trackd.domain.vocabulary import EventCode, Reason, ReceivedBy, Rejection

BATCH_EVENTS_MAX = 1_000
BATCH_ID_LENGTH_MAX = 64
WAYBILL_NUMBER_LENGTH_MIN = 4
WAYBILL_NUMBER_LENGTH_MAX = 40
EVENT_ID_LENGTH_MAX = 64
SHORT_TEXT_LENGTH_MAX = 32
CONTAINER_NUMBER_LENGTH_MAX = 40
REMARK_LENGTH_MAX = 500
RECEIPT_TEXT_LENGTH_MAX = 64
ATTRIBUTES_MAX = 16
ATTRIBUTE_KEY_LENGTH_MAX = 32
ATTRIBUTE_VALUE_LENGTH_MAX = 200
OCCURRED_AT_MS_MIN = 946_684_800_000  # 2000-01-01T00:00:00Z
LATITUDE_MAX = 90
LONGITUDE_MAX = 180

_WAYBILL_LENGTHS = f"{WAYBILL_NUMBER_LENGTH_MIN},{WAYBILL_NUMBER_LENGTH_MAX}"
# A waybill number as it is sent, the white space around it stripped, and in its normal form; what
# is said of other texts.
_WAYBILL = re.compile(f"[A-Za-z0-9-]{{{_WAYBILL_LENGTHS}}}").fullmatch
NORMAL_WAYBILL_NUMBER = f"[A-Z0-9-]{{{_WAYBILL_LENGTHS}}}"
WAYBILL_NUMBER_RULE = (
    f"must be {WAYBILL_NUMBER_LENGTH_MIN}-{WAYBILL_NUMBER_LENGTH_MAX} of A-Z, 0-9 and -"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]").search
_SHA256 = re.compile(r"[0-9a-fA-F]{64}").fullmatch
_CODES = frozenset(int(code) for code in EventCode)
_REASONS = frozenset(int(reason) for reason in Reason)
_RECEIVERS = frozenset(int(receiver) for receiver in ReceivedBy)
_SHORT_TEXTS = (
    "facility_code",
    "next_facility_code",
    "device_id",
    "operator_id",
    "source_system",
    "source_code",
)


class Fault(NamedTuple):
    """Why an event is rejected: the reason, the field at fault, and a sentence with the limit."""

    reason: Rejection
    field: str
    message: str


class PointFields(Protocol):
    """The fields of a location."""

    @property
    def latitude(self) -> float: ...
    @property
    def longitude(self) -> float: ...


class ReceiptFields(Protocol):
    """The fields of a receipt."""

    @property
    def received_by(self) -> int: ...
    @property
    def consent_reference(self) -> str: ...
    @property
    def proof_sha256(self) -> str: ...
    @property
    def signer(self) -> str: ...


class EventFields(Protocol):
    """The fields of a scan event; unset ones hold zero, "" or nothing."""

    @property
    def event_id(self) -> str: ...
    @property
    def waybill_number(self) -> str: ...
    @property
    def code(self) -> int: ...
    @property
    def occurred_at_ms(self) -> int: ...
    @property
    def reason(self) -> int: ...
    @property
    def remark(self) -> str: ...
    @property
    def location(self) -> PointFields: ...
    @property
    def container_number(self) -> str: ...
    @property
    def receipt(self) -> ReceiptFields: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...


def normal_waybill_number(text: str) -> str | None:
    """The waybill number without white space around it, in upper case; None if it is not one."""
    stripped = text.strip()
    return stripped.upper() if _WAYBILL(stripped) else None


def is_event_id(text: str) -> bool:
    """Whether text is 1-64 printable ASCII characters."""
    return 0 < len(text) <= EVENT_ID_LENGTH_MAX and text.isascii() and text.isprintable()


def fault_in(event: EventFields, latest_ms: int) -> Fault | None:
    """The first fault of an event, which may not have occurred after latest_ms; None if fine."""
    if normal_waybill_number(event.waybill_number) is None:
        return Fault(Rejection.INVALID_WAYBILL_NUMBER, "waybill_number", WAYBILL_NUMBER_RULE)
    if not is_event_id(event.event_id):
        return Fault(
            Rejection.INVALID_EVENT_ID,
            "event_id",
            f"must be 1-{EVENT_ID_LENGTH_MAX} printable ASCII characters",
        )
    if event.code not in _CODES:
        return Fault(Rejection.UNKNOWN_CODE, "code", f"{event.code} is not an EventCode")
    if not OCCURRED_AT_MS_MIN <= event.occurred_at_ms <= latest_ms:
        return Fault(
            Rejection.TIME_OUT_OF_RANGE,
            "occurred_at_ms",
            f"{event.occurred_at_ms} is not between {OCCURRED_AT_MS_MIN} (2000-01-01) and"
            f" {latest_ms} (a little after the server's clock)",
        )
    return _fault_in_texts(event) or _fault_in_values(event) or _fault_in_meaning(event)


# People write these; the others are codes and must be printable throughout (no exotic space, say).
_PROSE = frozenset({"remark", "receipt.signer"})


def _fault_in_text(field: str, text: str, length_max: int) -> Fault | None:
    if len(text) > length_max:
        return Fault(
            Rejection.FIELD_TOO_LONG, field, f"has {len(text)} characters, at most {length_max}"
        )
    prose = field in _PROSE or field.endswith("]")
    if _CONTROL(text) if prose else not text.isprintable():
        return Fault(Rejection.INVALID_FIELD, field, "holds a character that cannot be printed")
    return None


def _fault_in_texts(event: EventFields) -> Fault | None:
    receipt = event.receipt
    texts = [(field, getattr(event, field), SHORT_TEXT_LENGTH_MAX) for field in _SHORT_TEXTS]
    texts += [
        ("remark", event.remark, REMARK_LENGTH_MAX),
        ("container_number", event.container_number, CONTAINER_NUMBER_LENGTH_MAX),
        ("receipt.consent_reference", receipt.consent_reference, RECEIPT_TEXT_LENGTH_MAX),
        ("receipt.signer", receipt.signer, RECEIPT_TEXT_LENGTH_MAX),
    ]
    if len(event.attributes) > ATTRIBUTES_MAX:
        return Fault(
            Rejection.FIELD_TOO_LONG,
            "attributes",
            f"has {len(event.attributes)} entries, at most {ATTRIBUTES_MAX}",
        )
    for key, value in event.attributes.items():
        texts.append(("attributes", key, ATTRIBUTE_KEY_LENGTH_MAX))
        texts.append((f'attributes["{key}"]', value, ATTRIBUTE_VALUE_LENGTH_MAX))
    for field, text, length_max in texts:
        if fault := _fault_in_text(field, text, length_max):
            return fault
    return None


def _fault_in_values(event: EventFields) -> Fault | None:
    def invalid(field: str, message: str) -> Fault:
        return Fault(Rejection.INVALID_FIELD, field, message)

    if event.reason not in _REASONS:
        return invalid("reason", f"{event.reason} is not a ReasonCode")
    point = event.location
    if not (isfinite(point.latitude) and abs(point.latitude) <= LATITUDE_MAX):
        return invalid("location.latitude", f"must be -{LATITUDE_MAX} to {LATITUDE_MAX} degrees")
    if not (isfinite(point.longitude) and abs(point.longitude) <= LONGITUDE_MAX):
        return invalid("location.longitude", f"must be -{LONGITUDE_MAX} to {LONGITUDE_MAX} degrees")
    if event.receipt.received_by not in _RECEIVERS:
        return invalid("receipt.received_by", f"{event.receipt.received_by} is not a ReceivedBy")
    if event.receipt.proof_sha256 and not _SHA256(event.receipt.proof_sha256):
        return invalid("receipt.proof_sha256", "must be 64 hexadecimal digits")
    if "" in event.attributes:
        return invalid("attributes", "has an empty key")
    return None


def _fault_in_meaning(event: EventFields) -> Fault | None:
    """What PROBLEM_RESOLVED and EVENT_VOIDED must say in their attributes."""
    if event.code == EventCode.PROBLEM_RESOLVED and event.attributes.get("clears"):
        try:
            flags_named(event.attributes["clears"])
        except ValueError as error:
            return Fault(
                Rejection.INVALID_FIELD, 'attributes["clears"]', f"{error.args[0]!r} is not a Flag"
            )
    if event.code == EventCode.EVENT_VOIDED:
        voids = event.attributes.get("voids", "")
        if not is_event_id(voids) or voids == event.event_id:
            return Fault(
                Rejection.INVALID_FIELD,
                'attributes["voids"]',
                f"must be the id of another event, 1-{EVENT_ID_LENGTH_MAX} printable ASCII"
                " characters",
            )
    return None
