"""Rows of CSV, one at a time: after each the place in the file is the end of that row.

Each event of a row stands alone: one that cannot be made is a fault of its record, the others are
sent. Knows no event: `event_maker.py` makes them.
"""

import codecs
import csv
from collections.abc import Iterator, Sequence

from trackd.cli.files.event_maker import MakeEvent, event_maker
from trackd.cli.files.mapping import OWN_NAMES, Csv, FileMapping, MappingError
from trackd.cli.files.reading import LINE_BYTES_MAX, Lines
from trackd.cli.files.records import NO_EVENT, UNPARSABLE, Fault, Record, UnusableError
from trackd.v1.event_pb2 import ScanEvent


def records(lines: Lines, mapping: FileMapping, *, header: Sequence[str]) -> Iterator[Record]:
    """A record for each row that is not empty. `lines` stands behind the header."""
    makers = [event_maker(event, mapping) for event in mapping.events]
    rows = _Rows(lines, mapping.csv)
    while (cells := rows.read()) is not None:
        text = "".join(rows.text).rstrip("\r\n")
        if isinstance(cells, Fault):
            yield Record(rows.line, text, (), (cells,))
        elif any(cell.strip() for cell in cells):
            yield _record(rows.line, text, cells, header, makers)


def read_header(lines: Lines, mapping: FileMapping) -> list[str]:
    """The names of the columns, from the first row or the mapping.

    MappingError when there is no such row or it lacks a column that the mapping names.
    """
    if mapping.csv.columns is not None:
        header = list(mapping.csv.columns)
    else:
        cells = _Rows(lines, mapping.csv).read()
        if cells is None or isinstance(cells, Fault):
            raise MappingError("the file has no header line to find the columns by")
        header = [cell.strip() for cell in cells]
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise MappingError(f"the file has more than one column {', '.join(map(repr, twice))}")
    missing = sorted(set(mapping.columns_needed()) - set(header) - OWN_NAMES)
    if missing:
        raise MappingError(
            f"the file has no column {', '.join(map(repr, missing))}; it has {', '.join(header)}"
        )
    return header


class _Rows:
    """The rows of a file one by one, each with its first line's number and its text."""

    def __init__(self, lines: Lines, dialect: Csv) -> None:
        self._lines = lines
        self._source = iter(lines)
        self._encoding = dialect.encoding
        self._is_utf_8 = codecs.lookup(dialect.encoding).name == "utf-8"
        self._reader = csv.reader(
            self._decoded(),
            delimiter=dialect.delimiter,
            quotechar=dialect.quote,
            # Without it a quote that never closes would silently swallow the rest of the file.
            strict=True,
        )
        self.line = 0
        self.text: list[str] = []
        self._too_long = False

    def read(self) -> list[str] | Fault | None:
        """The cells of the next row, why there are none, or None at the end of the file."""
        self.line = self._lines.place.line + 1
        self.text.clear()
        self._too_long = False
        try:
            cells = next(self._reader)
        except StopIteration:
            return None
        except csv.Error as error:
            return Fault(UNPARSABLE, "", f"is not CSV: {error}")
        if self._too_long:
            return Fault(UNPARSABLE, "", f"is longer than {LINE_BYTES_MAX} bytes")
        try:
            "".join(cells).encode()
        except UnicodeEncodeError:
            return Fault(UNPARSABLE, "", f"is not {self._encoding}")
        return cells

    def _decoded(self) -> Iterator[str]:
        for line in self._source:
            raw = line
            # Some programs mark a file as UTF-8, before the first quote if there is one.
            if self._lines.place.line == 1 and self._is_utf_8:
                raw = line.removeprefix(codecs.BOM_UTF8)
            self._too_long |= len(raw) > LINE_BYTES_MAX
            text = raw[:LINE_BYTES_MAX].decode(self._encoding, errors="surrogateescape")
            self.text.append(text.encode(errors="replace").decode())
            yield text


def _record(
    line: int, text: str, cells: list[str], header: Sequence[str], makers: Sequence[MakeEvent]
) -> Record:
    if len(cells) != len(header):
        message = f"has {len(cells)} columns, the header names {len(header)}"
        return Record(line, text, (), (Fault(UNPARSABLE, "", message),))
    row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    events: list[ScanEvent] = []
    faults: list[Fault] = []
    for make in makers:
        try:
            event = make(row)
        except UnusableError as error:
            faults.append(error.fault)
        else:
            if event is not None:
                events.append(event)
    if not events and not faults:
        faults.append(Fault(NO_EVENT, "", "no event of the mapping has a time in this row"))
    return Record(line, text, events, faults)
