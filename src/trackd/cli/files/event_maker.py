"""One event of a mapping to a function that makes it from a row.

The mapping is taken apart once, so that a row costs only look-ups. Knows nothing of files.
"""

from collections.abc import Callable, Mapping
from typing import Any

from trackd.cli.files.json_lines import CODES, REASONS, RECEIVERS
from trackd.cli.files.mapping import (
    CODE,
    TIME_MS,
    EventMapping,
    Fields,
    FileMapping,
    Lookup,
    ReceiptMapping,
    Template,
    Time,
    TimeStyle,
    template,
)
from trackd.cli.files.records import UNPARSABLE, Fault, UnusableError
from trackd.cli.files.times import ReadTime, time_reader
from trackd.domain.vocabulary import EventCode
from trackd.v1.event_pb2 import GeoPoint, Receipt, ScanEvent

Row = Mapping[str, str]  # a column's name to its value in the row, without white space around it
MakeEvent = Callable[[Row], ScanEvent | None]
"""The event, or None where the row has none of the kind; UnusableError where it cannot be made."""

_Fill = Callable[[Row], Any]

_SKIP = "skip"
_TEXT_FIELDS = (
    "facility_code",
    "next_facility_code",
    "device_id",
    "operator_id",
    "remark",
    "container_number",
    "source_system",
    "source_code",
)


def event_maker(event: EventMapping, mapping: FileMapping) -> MakeEvent:
    """Makes one event of the mapping from a row."""
    waybill_number = template(mapping.waybill_number)
    event_id = template(event.event_id)
    code = _word(event.code, CODES, "code")
    time = _time(event.when_and_from, mapping.time)
    fields = _fillers(_merged(mapping.every_event, event))
    conditions = [(column, frozenset(values)) for column, values in event.when.items()]

    def make(row: Row) -> ScanEvent | None:
        if any(row[column] not in values for column, values in conditions):
            return None
        occurred_at_ms = time(row)
        number = None if occurred_at_ms is None else code(row)
        if occurred_at_ms is None or number is None:
            return None
        known = {**row, CODE: EventCode(number).name, TIME_MS: str(occurred_at_ms)}
        values = {
            "waybill_number": _needed(waybill_number, known, "waybill_number"),
            "event_id": _needed(event_id, known, "event_id"),
            "code": number,
            "occurred_at_ms": occurred_at_ms,
            **{name: fill(known) for name, fill in fields.items()},
        }
        return ScanEvent(**{name: value for name, value in values.items() if value})

    return make


def _needed(text: Template, row: Row, field: str) -> str:
    value = text.fill(row)
    if not value:
        empty = next((name for name in text.names if not row[name]), "")
        message = f"column {empty!r} is empty" if empty else "is empty"
        raise UnusableError(Fault(f"INVALID_{field.upper()}", field, message))
    return value


def _time(time: Time, style: TimeStyle) -> Callable[[Row], int | None]:
    read = time_reader(style=time.format or style.format, zone=time.zone or style.zone)
    columns = time.columns

    def of(row: Row) -> int | None:
        known = [(column, row[column]) for column in columns if row[column]]
        if not known:
            return None
        if time.latest is None:
            return _read(read, *known[0])
        return max(_read(read, column, text) for column, text in known)

    return of


def _read(read: ReadTime, column: str, text: str) -> int:
    try:
        return read(text)
    except (ValueError, OverflowError) as error:
        message = f"column {column!r}: {text!r}: {error}"
        raise UnusableError(Fault(UNPARSABLE, "occurred_at_ms", message)) from None


def _word(word: str | Lookup, names: Mapping[str, int], field: str) -> Callable[[Row], int | None]:
    if isinstance(word, str):
        return lambda _: names[word]

    def look_up(row: Row) -> int | None:
        name = word.map.get(row[word.column], word.other)
        if name is None:
            message = f"column {word.column!r}: the mapping has no word for {row[word.column]!r}"
            reason = "UNKNOWN_CODE" if field == "code" else "INVALID_FIELD"
            raise UnusableError(Fault(reason, field, message))
        return None if name == _SKIP else names[name]

    return look_up


def _merged(every: Fields, event: Fields) -> Fields:
    """What an event says, and for the rest what every event says; attributes are put together."""
    values = {name: getattr(event, name) or getattr(every, name) for name in Fields.model_fields}
    values["attributes"] = {**every.attributes, **event.attributes}
    return Fields.model_construct(**values)


def _fillers(fields: Fields) -> dict[str, _Fill]:
    """What fills each field beside the identity. An empty result means that it is not sent."""
    fills: dict[str, _Fill] = {}
    for name in _TEXT_FIELDS:
        text = getattr(fields, name)
        if text is not None:
            fills[name] = template(text).fill
    if fields.reason is not None:
        fills["reason"] = _word(fields.reason, REASONS, "reason")
    if fields.latitude and fields.longitude:
        fills["location"] = _location(template(fields.latitude), template(fields.longitude))
    if fields.attributes:
        fills["attributes"] = _attributes(fields.attributes)
    if fields.receipt:
        fills["receipt"] = _receipt(fields.receipt)
    return fills


def _location(latitude: Template, longitude: Template) -> _Fill:
    def fill(row: Row) -> GeoPoint | None:
        texts = latitude.fill(row), longitude.fill(row)
        if not all(texts):
            return None
        try:
            return GeoPoint(latitude=float(texts[0]), longitude=float(texts[1]))
        except ValueError:
            message = f"{texts[0]!r}, {texts[1]!r} are not degrees"
            raise UnusableError(Fault("INVALID_FIELD", "location", message)) from None

    return fill


def _attributes(texts: Mapping[str, str]) -> _Fill:
    templates = {key: template(text) for key, text in texts.items()}

    def fill(row: Row) -> dict[str, str]:
        values = {key: text.fill(row) for key, text in templates.items()}
        return {key: value for key, value in values.items() if value}

    return fill


def _receipt(receipt: ReceiptMapping) -> _Fill:
    texts = {
        name: template(text)
        for name in ("consent_reference", "proof_sha256", "signer")
        if (text := getattr(receipt, name)) is not None
    }
    received_by = _word(receipt.received_by, RECEIVERS, "receipt") if receipt.received_by else None

    def fill(row: Row) -> Receipt | None:
        values: dict[str, Any] = {name: text.fill(row) for name, text in texts.items()}
        values["received_by"] = received_by(row) if received_by else None
        return Receipt(**values) if any(values.values()) else None

    return fill
