"""The mapping of a CSV file: a TOML file that says which columns become which events.

`examples/olist.toml` is one, with comments. What is wrong with a mapping is said before a row is
read. A text in a mapping is a template: `{column}` stands for the column's value in the row,
`{@code}` for the name of the event's code, `{@time_ms}` for its time in milliseconds; a brace is
written twice. Knows nothing of rows: `csv_rows.py` applies it.
"""

import codecs
import string
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from trackd.cli.files.json_lines import CODES, REASONS, RECEIVERS
from trackd.client.options import BATCH_EVENTS_LIMIT

CODE, TIME_MS = "@code", "@time_ms"
OWN_NAMES = frozenset({CODE, TIME_MS})


class MappingError(ValueError):
    """The mapping cannot be used; the message names the key and what is wrong."""


@dataclass(frozen=True, slots=True)
class Template:
    """Literal text and the names of columns, in turn: `("BR-", "state", "")`."""

    parts: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns it needs."""
        return self.parts[1::2]

    def fill(self, values: Mapping[str, str]) -> str:
        """The text for a row; empty when a column it needs is, so that no half text is sent."""
        texts = list(self.parts)
        for place in range(1, len(texts), 2):
            value = values[texts[place]]
            if not value:
                return ""
            texts[place] = value
        return "".join(texts)


def template(text: str) -> Template:
    """The template that a text of the mapping is; ValueError for one that cannot be read."""
    parts = [""]
    for literal, name, spec, conversion in string.Formatter().parse(text):
        parts[-1] += literal
        if name is None:
            continue
        if not name or spec or conversion:
            raise ValueError("in braces there must be the name of a column and nothing else")
        if name.startswith("@") and name not in OWN_NAMES:
            raise ValueError(f"there is no {{{name}}}, only {{{CODE}}} and {{{TIME_MS}}}")
        parts += [name, ""]
    return Template(tuple(parts))


def _checked_template(text: str) -> str:
    template(text)
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError(f"there is no time zone named {name!r}") from None
    return name


def _encoding(name: str) -> str:
    try:
        if codecs.lookup(name).name == "utf-8-sig":
            return "utf-8"  # whose mark is passed over anyway
        plain = "\n".encode(name) == b"\n"
        # Some cannot pass over what they do not know, which is a fault of its row.
        b"\n".decode(name, errors="surrogateescape")
    except LookupError:
        raise ValueError(f"there is no encoding named {name!r}") from None
    except UnicodeError:
        plain = False
    if not plain:
        raise ValueError(f"{name} cannot be read line by line; convert the file to UTF-8 first")
    return name


Text = Annotated[str, AfterValidator(_checked_template)]
Character = Annotated[str, Field(min_length=1, max_length=1)]
Zone = Annotated[str, AfterValidator(_zone)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Csv(_Table):
    """How the file is written. `columns` names the columns of a file without a header line."""

    delimiter: Character = ","
    quote: Character = '"'
    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"
    columns: tuple[str, ...] | None = None


class TimeStyle(_Table):
    """How times are written: `iso`, `unix_s`, `unix_ms`, or a format of strptime.

    `zone` is the IANA zone of times that carry no offset. Where clocks went back, a time that was
    there twice is taken as the first; where they went forward, as if they had not.
    """

    format: str = "iso"
    zone: Zone | None = None


class Time(_Table):
    """The time of an event: one column, the first of several that is there, or their latest."""

    column: str | None = None
    first: tuple[str, ...] | None = None
    latest: tuple[str, ...] | None = None
    format: str | None = None
    zone: Zone | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Time":
        given = [source for source in (self.column, self.first, self.latest) if source]
        if len(given) != 1:
            raise ValueError("give one of column, first and latest")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it may come from."""
        return (self.column,) if self.column else (self.first or self.latest or ())


class Lookup(_Table):
    """A word of the contract by a column's value: `map` from value to word, `other` for the rest.

    Without `other` a value that is not in the map makes the event unusable; the word `skip` leaves
    the event out.
    """

    column: str
    map: dict[str, str]
    other: str | None = None


class ReceiptMapping(_Table):
    """Who took it; for DELIVERED."""

    received_by: str | Lookup | None = None
    consent_reference: Text | None = None
    proof_sha256: Text | None = None
    signer: Text | None = None


class Fields(_Table):
    """The fields of an event beside its identity. What comes out empty is not sent."""

    facility_code: Text | None = None
    next_facility_code: Text | None = None
    device_id: Text | None = None
    operator_id: Text | None = None
    reason: str | Lookup | None = None
    remark: Text | None = None
    container_number: Text | None = None
    source_system: Text | None = None
    source_code: Text | None = None
    latitude: Text | None = None
    longitude: Text | None = None
    attributes: dict[str, Text] = {}
    receipt: ReceiptMapping | None = None


class EventMapping(Fields):
    """One event that a row may give. `when` lists, by column, the values with which it does."""

    code: str | Lookup
    time: str | Time
    event_id: Text
    when: dict[str, tuple[str, ...]] = {}

    @property
    def when_and_from(self) -> Time:
        """Its time, the short form written out."""
        return self.time if isinstance(self.time, Time) else Time(column=self.time)


class FileMapping(_Table):
    """A whole mapping: each row gives, for one waybill, every event whose time is there."""

    csv: Csv = Csv()
    waybill_number: Text
    time: TimeStyle = TimeStyle()
    every_event: Fields = Fields()
    events: tuple[EventMapping, ...] = Field(min_length=1, max_length=BATCH_EVENTS_LIMIT)

    @model_validator(mode="after")
    def _words_exist(self) -> "FileMapping":
        for event in self.events:
            _check_word(event.code, CODES, "code")
            for fields in (self.every_event, event):
                _check_word(fields.reason, REASONS, "reason")
                if fields.receipt:
                    _check_word(fields.receipt.received_by, RECEIVERS, "receipt.received_by")
        return self

    def columns_needed(self) -> Iterator[str]:
        """Every column that it names."""
        yield from template(self.waybill_number).names
        for event in self.events:
            yield from event.when_and_from.columns
            yield from event.when
            for fields in (self.every_event, event):
                yield from _columns_of(fields)


def read_mapping(path: Path) -> FileMapping:
    """The mapping in a file; MappingError when it is none."""
    try:
        return FileMapping.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise MappingError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        lines = [f"{path}: {_place(dict(fault))}: {_said(dict(fault))}" for fault in error.errors()]
        raise MappingError("\n".join(lines)) from None
    except ValueError as error:
        raise MappingError(f"{path} is not TOML: {error}") from None


def _check_word(word: str | Lookup | None, names: Mapping[str, int], key: str) -> None:
    if word is None:
        return
    words = [word]
    if isinstance(word, Lookup):
        words = [*word.map.values(), *([word.other] if word.other else [])]
    for name in words:
        if name not in names and not (name == "skip" and isinstance(word, Lookup)):
            raise ValueError(f"{key}: there is no word {name!r} in the contract")


def _columns_of(fields: Fields) -> Iterator[str]:
    values = [getattr(fields, name) for name in type(fields).model_fields]
    values += fields.attributes.values()
    if fields.receipt:
        values += [getattr(fields.receipt, name) for name in ReceiptMapping.model_fields]
    for value in values:
        if isinstance(value, Lookup):
            yield value.column
        elif isinstance(value, str):
            yield from (name for name in template(value).names if name not in OWN_NAMES)


def _place(fault: Mapping[str, object]) -> str:
    location = fault["loc"]
    assert isinstance(location, tuple)
    return ".".join(str(part) for part in location) or "the mapping"


def _said(fault: Mapping[str, object]) -> str:
    if fault["type"] == "extra_forbidden":
        return "is not a key of a mapping"
    return str(fault["msg"]).removeprefix("Value error, ")
