"""A mapping turns rows into exactly the events it describes, and says what it cannot use."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from trackd.cli.files import csv_rows
from trackd.cli.files.mapping import FileMapping, MappingError, read_mapping
from trackd.cli.files.reading import Lines
from trackd.cli.files.records import Place, Record
from trackd.domain.vocabulary import EventCode
from trackd.v1 import vocabulary_pb2 as words
from trackd.v1.event_pb2 import GeoPoint, Receipt, ScanEvent

MINIMAL = """
waybill_number = "{number}"
[time]
zone = "America/Sao_Paulo"
[[events]]
code = "REGISTERED"
time = "at"
event_id = "{@code}:{@time_ms}"
"""

Mapped = Callable[[str], FileMapping]


@pytest.fixture
def mapped(tmp_path: Path) -> Mapped:
    """A mapping from its text."""

    def read(text: str) -> FileMapping:
        path = tmp_path / "mapping.toml"
        path.write_text(text)
        return read_mapping(path)

    return read


def records(mapping: FileMapping, content: str | bytes) -> list[Record]:
    """What the rows of a file become."""
    data = content.encode() if isinstance(content, str) else content
    lines = Lines(io.BufferedReader(io.BytesIO(data)))
    header = csv_rows.read_header(lines, mapping)
    return list(csv_rows.records(lines, mapping, header=header))


def events(mapping: FileMapping, content: str) -> list[ScanEvent]:
    """The events of a file in which nothing is wrong."""
    found = records(mapping, content)
    assert not any(record.faults for record in found)
    return [event for record in found for event in record.events]


def codes(record: Record) -> list[int]:
    """The codes of a record's events."""
    return [int(event.code) for event in record.events]


def test_a_row_gives_each_event_whose_time_is_there(mapped: Mapped) -> None:
    """No more and no fewer, in the order of the mapping."""
    mapping = mapped(
        MINIMAL + '[[events]]\ncode = "DELIVERED"\ntime = "done"\nevent_id = "delivered"\n'
    )
    both, one = records(
        mapping,
        "number,at,done\nA-1,2017-10-02T10:56,2017-10-05T08:00\nA-2,2017-10-02T10:56,\n",
    )
    assert codes(both) == [EventCode.REGISTERED, EventCode.DELIVERED]
    assert [event.event_id for event in both.events] == ["REGISTERED:1506952560000", "delivered"]
    assert codes(one) == [EventCode.REGISTERED]
    assert (both.line, one.line) == (2, 3)


@pytest.mark.parametrize(
    ("style", "text", "at_ms"),
    [
        ("iso", "2017-10-02T10:56", 1_506_952_560_000),  # UTC-3
        ("iso", "2017-11-18T19:28", 1_511_040_480_000),  # daylight saving: UTC-2
        ("iso", "2017-10-02T13:56:00.5Z", 1_506_952_560_500),
        ("iso", "2017-10-02T15:56+02:00", 1_506_952_560_000),
        ("%d.%m.%Y %H:%M", "02.10.2017 10:56", 1_506_952_560_000),
        ("%d.%m.%Y %H:%M %z", "02.10.2017 13:56 +0000", 1_506_952_560_000),
        ("unix_s", "1506952560.25", 1_506_952_560_250),
        ("unix_ms", "1506952560001", 1_506_952_560_001),
        # Clocks went back at midnight: 23:30 was there twice, and the first is taken.
        ("iso", "2018-02-17T23:30", 1_518_917_400_000),
    ],
)
def test_times_are_read_in_their_format_and_zone(
    mapped: Mapped, style: str, text: str, at_ms: int
) -> None:
    """A local time becomes the moment it was in its zone, daylight saving included."""
    mapping = mapped(MINIMAL.replace("[time]", f'[time]\nformat = "{style}"'))
    assert [event.occurred_at_ms for event in events(mapping, f"number,at\nA-1,{text}\n")] == [
        at_ms
    ]


def test_a_local_time_without_a_zone_is_refused(mapped: Mapped) -> None:
    """A local time is not a moment, so nothing is guessed from the machine's own zone."""
    mapping = mapped(MINIMAL.replace('zone = "America/Sao_Paulo"', ""))
    (record,) = records(mapping, "number,at\nA-1,2017-10-02T10:56\n")
    assert "names no zone" in record.faults[0].message


@pytest.mark.parametrize(
    ("rule", "at_ms"),
    [
        ("first", 1_506_952_560_000),
        ("latest", 1_507_125_360_000),
    ],
)
def test_a_time_may_come_from_several_columns(mapped: Mapped, rule: str, at_ms: int) -> None:
    """The first that is there, or the latest of those that are."""
    mapping = mapped(MINIMAL.replace('time = "at"', f'time.{rule} = ["a", "b", "c"]'))
    row = "A-1,,2017-10-02T10:56,2017-10-04T10:56"
    assert [event.occurred_at_ms for event in events(mapping, f"number,a,b,c\n{row}\n")] == [at_ms]


FULL = """
waybill_number = "{number}"
[every_event]
source_system = "old"
attributes.batch = "7"
[[events]]
code = { column = "status", map = { PU = "PICKED_UP", OK = "DELIVERED", PING = "skip" } }
time = { column = "at", format = "unix_ms" }
event_id = "{scanner}-{@time_ms}"
when.country = ["BR", "AR"]
facility_code = "BR-{state}"
reason = { column = "why", map = { rain = "WEATHER" }, other = "skip" }
latitude = "{lat}"
longitude = "{lon}"
remark = "{{{note}}}"
source_code = "{status}"
attributes.state = "{state}"
receipt = { received_by = "LOCKER", signer = "{who}" }
"""
COLUMNS = "number,country,status,at,scanner,state,why,lat,lon,note,who"


def test_every_field_can_be_filled(mapped: Mapped) -> None:
    """Words by a table, texts by a template, places by two columns, constants for every event."""
    row = "A-1,BR,OK,1506952560000,S7,SP,rain,-23.5,-46.6,left at door,M***"
    assert events(mapped(FULL), f"{COLUMNS}\n{row}\n") == [
        ScanEvent(
            event_id="S7-1506952560000",
            waybill_number="A-1",
            code=words.EVENT_CODE_DELIVERED,
            occurred_at_ms=1_506_952_560_000,
            facility_code="BR-SP",
            reason=words.REASON_CODE_WEATHER,
            location=GeoPoint(latitude=-23.5, longitude=-46.6),
            remark="{left at door}",
            receipt=Receipt(received_by=words.RECEIVED_BY_LOCKER, signer="M***"),
            source_system="old",
            source_code="OK",
            attributes={"batch": "7", "state": "SP"},
        )
    ]


def test_what_comes_out_empty_is_not_sent(mapped: Mapped) -> None:
    """An empty column leaves its field out; "BR-" never becomes a facility."""
    row = "A-1,AR,PU,1506952560000,S7,,sun,,,,"
    assert events(mapped(FULL), f"{COLUMNS}\n{row}\n") == [
        ScanEvent(
            event_id="S7-1506952560000",
            waybill_number="A-1",
            code=words.EVENT_CODE_PICKED_UP,
            occurred_at_ms=1_506_952_560_000,
            receipt=Receipt(received_by=words.RECEIVED_BY_LOCKER),
            source_system="old",
            source_code="PU",
            attributes={"batch": "7"},
        )
    ]


@pytest.mark.parametrize(
    ("row", "reason", "told"),
    [
        ("A-1,BR,LOST,1506952560000,S7,,,,,,", "UNKNOWN_CODE", "'LOST'"),
        ("A-1,BR,OK,soon,S7,,,,,,", "UNPARSABLE", "'soon'"),
        ("A-1,BR,OK,1e400,S7,,,,,,", "UNPARSABLE", "'1e400'"),
        ("A-1,BR,OK,1506952560000,,,,,,,", "INVALID_EVENT_ID", "column 'scanner' is empty"),
        (",BR,OK,1506952560000,S7,,,,,,", "INVALID_WAYBILL_NUMBER", "column 'number' is empty"),
        ("A-1,BR,OK,1506952560000,S7,,,north,0,,", "INVALID_FIELD", "not degrees"),
        ("A-1,BR,OK,,S7,,,,,,", "NO_EVENT", "no event of the mapping"),
        ("A-1,US,OK,1506952560000,S7,,,,,,", "NO_EVENT", "no event of the mapping"),
        ("A-1,BR,PING,1506952560000,S7,,,,,,", "NO_EVENT", "no event of the mapping"),
        ("A-1,BR", "UNPARSABLE", "has 2 columns, the header names 11"),
        ('A-1,"B"R,OK,1,S7,,,,,,', "UNPARSABLE", "is not CSV"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(
    mapped: Mapped, row: str, reason: str, told: str
) -> None:
    """And the rows around it are not touched by it."""
    good = "A-9,BR,OK,1506952560000,S7,,,,,,"
    before, bad, after = records(mapped(FULL), f"{COLUMNS}\n{good}\n{row}\n{good}\n")
    assert [fault.reason for fault in bad.faults] == [reason]
    assert told in bad.faults[0].message
    assert (bad.line, bad.text, list(bad.events)) == (3, row, [])
    assert before.events == after.events
    assert len(after.events) == 1


def test_one_bad_event_does_not_take_the_others_of_its_row_along(mapped: Mapped) -> None:
    """Each event stands alone."""
    mapping = mapped(
        MINIMAL + '[[events]]\ncode = "DELIVERED"\ntime = "done"\nevent_id = "delivered"\n'
    )
    (record,) = records(mapping, "number,at,done\nA-1,2017-10-02T10:56,yesterday\n")
    assert codes(record) == [EventCode.REGISTERED]
    assert [fault.field for fault in record.faults] == ["occurred_at_ms"]


def test_quotes_line_breaks_and_other_dialects(mapped: Mapped) -> None:
    """A quoted cell may hold the delimiter and line breaks; lines are counted as editors do."""
    text = MINIMAL + 'remark = "{note}"\n[csv]\ndelimiter = ";"\nquote = "\'"\n'
    content = "\ufeffnumber;at;note\r\nA-1;2017-10-02T10:56;'a;\r\nb'\r\n\r\nA-2;2017-10-02;c\r\n"
    first, second = records(mapped(text), content)
    assert [event.remark for event in first.events] == ["a;\r\nb"]
    assert (first.line, second.line) == (2, 5)


def test_a_file_without_a_header_gets_its_columns_from_the_mapping(mapped: Mapped) -> None:
    """The first line is a row then."""
    mapping = mapped(MINIMAL + '[csv]\ncolumns = ["number", "at"]\n')
    assert len(events(mapping, "A-1,2017-10-02T10:56\n")) == 1


def test_other_encodings(mapped: Mapped) -> None:
    """A file is read in the mapping's encoding; bytes that are none are a fault of their row."""
    text = MINIMAL + 'remark = "{note}"\n[csv]\nencoding = "gb18030"\n'
    content = "number,at,note\nA-1,2017-10-02T10:56,已签收\n".encode("gb18030")
    bad, good = records(mapped(text), content + b"A-2,2017-10-02T10:56,\xff\nA-3,2017-10-02,x\n")[
        1:
    ]
    assert [event.remark for event in records(mapped(text), content)[0].events] == ["已签收"]
    assert [fault.message for fault in bad.faults] == ["is not gb18030"]
    assert len(good.events) == 1


@pytest.mark.parametrize("dialect", ["", '[csv]\nencoding = "utf-8-sig"\n'])
def test_a_file_marked_as_utf_8_is_read_like_any_other(mapped: Mapped, dialect: str) -> None:
    """With a header in quotes, as some programs write each, and with none at all."""
    rows = "A-1,2017-10-02T10:56\r\n"
    (marked,) = events(mapped(MINIMAL + dialect), f'\ufeff"number","at"\r\n{rows}')
    assert marked.waybill_number == "A-1"
    bare = mapped(MINIMAL + (dialect or "[csv]\n") + 'columns = ["number", "at"]\n')
    assert events(bare, f"\ufeff{rows}") == [marked]
    assert events(bare, '\ufeff"A-1",2017-10-02T10:56\n') == [marked]


def test_an_overlong_line_is_a_fault_of_its_own(mapped: Mapped) -> None:
    """Memory stays bounded whatever a file holds, and the next row is read as if nothing were."""
    long = "A-1,2017-10-02T10:56," + "x" * 1_000_000
    bad, good = records(mapped(MINIMAL), f"number,at,note\n{long}\nA-2,2017-10-02T10:56,y\n")
    assert bad.faults
    assert len(bad.text) < 300_000
    assert (good.line, len(good.events)) == (3, 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("[time]", "[times]"), "times: is not a key of a mapping"),
        (("America/Sao_Paulo", "Brazil/Nowhere"), "no time zone named 'Brazil/Nowhere'"),
        (('"REGISTERED"', '"SOLD"'), "no word 'SOLD'"),
        (('"{number}"', '"{number"'), "waybill_number"),
        (('"{number}"', '"{number:>8}"'), "the name of a column and nothing else"),
        (("{@code}", "{@row}"), "there is no {@row}"),
        (('time = "at"', "time = {}"), "give one of column, first and latest"),
        (('event_id = "{@code}:{@time_ms}"', ""), "events.0.event_id"),
        (("[[events]]", '[csv]\nencoding = "utf-16"\n[[events]]'), "read line by line"),
        (("[[events]]", '[csv]\nencoding = "idna"\n[[events]]'), "read line by line"),
        (("[[events]]", '[csv]\nencoding = "hex"\n[[events]]'), "no encoding named 'hex'"),
        (("[[events]]", '[csv]\ndelimiter = ";;"\n[[events]]'), "csv.delimiter"),
        (("waybill_number", "waybill number"), "is not TOML"),
    ],
)
def test_a_fault_in_the_mapping_is_told_before_a_row_is_read(
    mapped: Mapped, change: tuple[str, str], told: str
) -> None:
    """With the key at fault."""
    assert change[0] in MINIMAL
    with pytest.raises(MappingError) as refused:
        mapped(MINIMAL.replace(*change, 1))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("number,time\n", "no column 'at'; it has number, time"),
        ("number,at,at\n", "more than one column 'at'"),
        ("", "no header line"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(mapped: Mapped, content: str, told: str) -> None:
    """Rather than every row of the file."""
    with pytest.raises(MappingError) as refused:
        records(mapped(MINIMAL), content)
    assert told in str(refused.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_reading_goes_on_from_the_end_of_any_row(
    mapped: Mapped, pack: Callable[[bytes], bytes]
) -> None:
    """Wherever an earlier run stopped, the rest of the rows and their numbers are the same."""
    mapping = mapped(MINIMAL + 'remark = "{note}"\n')
    rows = "".join(f'A-{number},2017-10-02T10:56,"a\nß{number}"\n' for number in range(1000, 1020))
    data = pack(f"number,at,note\n{rows}".encode())

    def read(place: Place | None) -> tuple[list[Place], list[Record]]:
        lines = Lines(io.BufferedReader(io.BytesIO(data)))
        header = csv_rows.read_header(lines, mapping)
        if place is not None:
            lines.go_to(place)
        places, found = [], []
        for record in csv_rows.records(lines, mapping, header=header):
            places.append(lines.place)
            found.append(record)
        return places, found

    places, whole = read(None)
    assert len(whole) == 20
    for number, place in enumerate(places, start=1):
        assert read(place) == (places[number:], whole[number:])
