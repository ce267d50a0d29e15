"""JSON lines to scan events: one object a line, with the field names of ScanEvent.

Names may also be as protobuf's own JSON has them (`eventId`). Enumerations go by name (`DELIVERED`
or `EVENT_CODE_DELIVERED`) or number, 64-bit numbers may be texts as protobuf writes them or end in
`.0`, null is the same as absent. What a field may hold is the server's to say; here only what
cannot be put into the message is refused. By hand, as protobuf's own JSON reader is slow.
"""

import codecs
import re
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import Any, TypeVar

import orjson

from trackd.cli.files.reading import LINE_BYTES_MAX, Lines
from trackd.cli.files.records import UNPARSABLE, Fault, Record, UnusableError
from trackd.domain.vocabulary import EventCode, Reason, ReceivedBy
from trackd.v1.event_pb2 import GeoPoint, Receipt, ScanEvent

_INT64 = 1 << 63
# Up to here a float is the number that was written: 1763800000000.0 is how tables write integers.
_FLOAT_EXACT_MAX = 1 << 53
# A sign and 19 digits. Python itself refuses to read texts of more than 4,300.
_is_int64_text = re.compile(r"-?[0-9]{1,19}").fullmatch

_Made = TypeVar("_Made", ScanEvent, GeoPoint, Receipt)
_Reader = Callable[[str, Any], Any]


def records(lines: Lines) -> Iterator[Record]:
    """A record for each line that is not blank."""
    for line in lines:
        # Some editors mark a file as UTF-8, and JSON has no place for that.
        raw = line.removeprefix(codecs.BOM_UTF8) if lines.place.line == 1 else line
        text = raw.decode(errors="replace").strip()
        if not text:
            continue
        try:
            yield Record(lines.place.line, text, (event_of(raw),), ())
        except UnusableError as error:
            yield Record(lines.place.line, text, (), (error.fault,))


def event_of(line: bytes) -> ScanEvent:
    """The event of one line; UnusableError when it is none."""
    if len(line) > LINE_BYTES_MAX:
        raise UnusableError(Fault(UNPARSABLE, "", f"is longer than {LINE_BYTES_MAX} bytes"))
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UnusableError(Fault(UNPARSABLE, "", f"is not JSON: {error}")) from None
    return _message(ScanEvent, _SCAN_EVENT, value, "")


def _names(words: type[IntEnum], prefix: str) -> dict[str, int]:
    return {name: word.value for word in words for name in (word.name, prefix + word.name)}


CODES = _names(EventCode, "EVENT_CODE_")
REASONS = _names(Reason, "REASON_CODE_")
RECEIVERS = _names(ReceivedBy, "RECEIVED_BY_")


def _message(kind: type[_Made], readers: Mapping[str, _Reader], value: object, where: str) -> _Made:
    if not isinstance(value, dict):
        raise UnusableError(Fault(UNPARSABLE, where.rstrip("."), "is not a JSON object"))
    fields: dict[str, Any] = {}
    for given, part in value.items():
        name = str(given)
        if name not in readers:
            name = _SNAKE_CASE.get(name, name)
        reader = readers.get(name)
        if reader is None:
            raise UnusableError(Fault(UNPARSABLE, where + name, "is not a field of a scan event"))
        if part is not None:
            fields[name] = reader(where + name, part)
    # The server says when it recorded an event, whatever a file says.
    fields.pop("recorded_at_ms", None)
    return kind(**fields)


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UnusableError(Fault("INVALID_FIELD", where, "must be a text"))
    return value


def _integer(where: str, value: Any) -> int:
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= _FLOAT_EXACT_MAX
    if is_whole or (isinstance(value, str) and _is_int64_text(value)):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -_INT64 <= value < _INT64:
        raise UnusableError(Fault("INVALID_FIELD", where, "must be a whole number of 64 bits"))
    return value


def _degrees(where: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UnusableError(Fault("INVALID_FIELD", where, "must be a number"))
    return float(value)


def _word(names: Mapping[str, int], *, reason: str) -> _Reader:
    def read(where: str, value: Any) -> int:
        number = names.get(value) if isinstance(value, str) else value
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 31:
            raise UnusableError(Fault(reason, where, f"there is no {where} named {value!r}"))
        return number

    return read


def _texts(where: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise UnusableError(Fault("INVALID_FIELD", where, "must be an object of texts"))
    return {key: _text(f'{where}["{key}"]', text) for key, text in value.items()}


def _part(kind: type[_Made], readers: Mapping[str, _Reader]) -> _Reader:
    return lambda where, value: _message(kind, readers, value, where + ".")


_SCAN_EVENT: dict[str, _Reader] = {
    "event_id": _text,
    "waybill_number": _text,
    "code": _word(CODES, reason="UNKNOWN_CODE"),
    "occurred_at_ms": _integer,
    "facility_code": _text,
    "next_facility_code": _text,
    "device_id": _text,
    "operator_id": _text,
    "reason": _word(REASONS, reason="INVALID_FIELD"),
    "remark": _text,
    "location": _part(GeoPoint, {"latitude": _degrees, "longitude": _degrees}),
    "container_number": _text,
    "receipt": _part(
        Receipt,
        {
            "received_by": _word(RECEIVERS, reason="INVALID_FIELD"),
            "consent_reference": _text,
            "proof_sha256": _text,
            "signer": _text,
        },
    ),
    "source_system": _text,
    "source_code": _text,
    "attributes": _texts,
    "recorded_at_ms": _integer,
}

# What protobuf's own JSON calls a field -> its name.
_SNAKE_CASE: dict[str, str] = {
    str(field.json_name): field.name
    for kind in (ScanEvent, GeoPoint, Receipt)
    for field in kind.DESCRIPTOR.fields
}
