"""A change of a waybill's state, as readers of the feed get it: made once, shared by all of them.

Also its wire form, `trackd.v1.Change`, joined from slices: a stored event is its wire bytes, and
everything else of a change is a few short fields, most of them out of tables. 200,000 changes a
second on a part of one core is why no message object is made here. Knows the contract's field
numbers and nothing of who reads.
"""

from collections.abc import Callable

from trackd.store import records
from trackd.store.errors import DataDamaged
from trackd.store.keys import status_key, waybill_of_status_key
from trackd.store.records import LogEntry, StatusRow
from trackd.v1.event_pb2 import ScanEvent

_CONTINUES = 0x80
_SHORT = 1 << 14
_VARINTS = [
    bytes((value,)) if value < _CONTINUES else bytes((value & 0x7F | _CONTINUES, value >> 7))
    for value in range(_SHORT)
]
_INNER_14_BITS = [
    bytes((value & 0x7F | _CONTINUES, value >> 7 | _CONTINUES)) for value in range(_SHORT)
]
_LOWEST_WITH_29_BITS = 1 << 28
_TIME_BITS = 42
_parse = ScanEvent.FromString


def varint(value: int) -> bytes:
    """A number that is not negative, as a varint."""
    if value < _SHORT:
        return _VARINTS[value]
    if _LOWEST_WITH_29_BITS <= value < 1 << _TIME_BITS:  # any time from 1970 to 2109
        low, middle = _INNER_14_BITS[value & 0x3FFF], _INNER_14_BITS[value >> 14 & 0x3FFF]
        return low + middle + _VARINTS[value >> 28]
    out = bytearray()
    while value >= _CONTINUES:
        out.append(value & 0x7F | _CONTINUES)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Fields(dict[int, bytes]):
    """The bytes of a part of a message, by the number it is made of; each is made once."""

    def __init__(self, make: Callable[[int], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: int) -> bytes:
        self[key] = made = self._make(key)
        return made


def _flags_field(tag: bytes) -> _Fields:
    def make(mask: int) -> bytes:
        flags = bytes(flag for flag in range(16) if mask >> flag & 1)
        return tag + bytes((len(flags),)) + flags if flags else b""

    return _Fields(make)


def _number_field(tag: bytes) -> _Fields:
    return _Fields(lambda value: tag + varint(value) if value else b"")


# By field number of Change and of ShipmentStatus: number << 3, and 2 for what has a length.
_MILESTONE_BEFORE = _number_field(b"\x18")
_MILESTONE = _number_field(b"\x20")
_RAISED = _flags_field(b"\x2a")
_CLEARED = _flags_field(b"\x32")
_STATUS_MILESTONE = _number_field(b"\x10")
_STATUS_FLAGS = _flags_field(b"\x1a")
_FIRST_AND_CORRECTION = {0: b"", 1: b"\x48\x01", 2: b"\x50\x01", 3: b"\x48\x01\x50\x01"}


class Source:
    """Where a partition's changes come from: what every one of them needs to be told.

    position_prefix: what stands before the position's number in its text. stored_event: the stored
    bytes of the event with a key; None if it is not there.
    """

    __slots__ = ("position_prefix", "stored_event")

    def __init__(self, position_prefix: str, stored_event: Callable[[bytes], bytes | None]) -> None:
        self.position_prefix = position_prefix.encode()
        self.stored_event = stored_event


class LoggedChange:
    """A change: an entry of the log that changed a status. Immutable to its readers.

    position: its place in its partition. milestone, flags: after it, a mask; `_before`: before it.
    facility_code: where the event that caused it happened. marks: of records.
    """

    __slots__ = (
        "_event",
        "_event_count",
        "_first_event_at_ms",
        "_last",
        "_source",
        "_wire",
        "facility_code",
        "flags",
        "flags_before",
        "marks",
        "milestone",
        "milestone_before",
        "position",
        "recorded_at_ms",
        "waybill_number",
    )

    def __init__(self, source: Source, entry: LogEntry, event: bytes) -> None:
        """event: the entry's event as it is stored, with the server's fields."""
        parsed = _parse(entry.event)
        (
            self.position,
            self.recorded_at_ms,
            self.marks,
            self.milestone_before,
            self.milestone,
            self.flags_before,
            self.flags,
            self._event_count,
            self._first_event_at_ms,
            self._last,
            _,
        ) = entry
        self.waybill_number = parsed.waybill_number
        self.facility_code = parsed.facility_code
        self._event = event
        self._source = source
        self._wire: bytes | None = None

    @classmethod
    def of_status(cls, source: Source, key: bytes, row: StatusRow) -> "LoggedChange":
        """A status told as a change: without a previous milestone, all its flags as raised.

        key: the status key of its waybill. Its event is the last one.
        """
        entry = LogEntry(
            position=row.position,
            recorded_at_ms=row.updated_at_ms,
            marks=records.CHANGED | records.LAST_IS_THIS,
            milestone_before=0,
            milestone=row.milestone,
            flags_before=0,
            flags=row.flags,
            event_count=row.event_count,
            first_event_at_ms=row.first_event_at_ms,
            last=b"",
            event=row.last_event,
        )
        change = cls(source, entry, row.last_event)
        change.waybill_number = waybill_of_status_key(key)
        return change

    @property
    def key(self) -> bytes:
        """The status key of its waybill."""
        return status_key(self.waybill_number)

    @property
    def first_occurrence(self) -> bool:
        """Whether the waybill reached this milestone for the first time."""
        # None at all is no milestone that one reaches: its only scan was voided.
        return bool(self.marks & records.FIRST_OCCURRENCE and self.milestone)

    @property
    def correction(self) -> bool:
        """Whether an event that voids another one caused it."""
        return bool(self.marks & records.CORRECTION)

    def wire(self) -> bytes:
        """The serialised trackd.v1.Change. Raises DataDamaged."""
        if self._wire is None:
            self._wire = self._encoded()
        return self._wire

    def _encoded(self) -> bytes:
        event, flags, before = self._event, self.flags, self.flags_before
        last = event if self.marks & records.LAST_IS_THIS else self._another_last()
        number = self.waybill_number.encode()
        position = b"%b%d" % (self._source.position_prefix, self.position)
        place = _VARINTS[len(position)] + position
        recorded_at = varint(self.recorded_at_ms)
        waybill = _VARINTS[len(number)] + number
        status = b"".join((
            b"\x0a", waybill, _STATUS_MILESTONE[self.milestone], _STATUS_FLAGS[flags],
            b"\x22", varint(len(last)), last, b"\x28", varint(self._event_count),
            b"\x30", varint(self._first_event_at_ms), b"\x38", recorded_at, b"\x42", place,
        ))  # fmt: skip
        told = self.first_occurrence | self.correction << 1
        return b"".join((
            b"\x0a", place, b"\x12", waybill,
            _MILESTONE_BEFORE[self.milestone_before], _MILESTONE[self.milestone],
            _RAISED[flags & ~before], _CLEARED[before & ~flags],
            b"\x3a", varint(len(event)), event, b"\x42", varint(len(status)), status,
            _FIRST_AND_CORRECTION[told], b"\x58", recorded_at,
        ))  # fmt: skip

    def _another_last(self) -> bytes:
        stored = self._source.stored_event(self.key + self._last) if self._last else None
        if stored is None:
            message = f"position {self.position} refers to an event that is not there"
            raise DataDamaged(message)
        return stored
