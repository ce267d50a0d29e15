"""The value formats: the status row and the log block. Everything is big-endian.

    status row   = head · facility · last_event · fingerprints
    head         = version u8 · milestone u8 · flags u16 · announced u16 · course u8 ·
                   event_count u32 · first_event_at_ms u64 · newest (18, an order) ·
                   last (18, an order) · updated_at_ms u64 · unused (8) · position u64 ·
                   facility_length u8 · last_event_length u16
    fingerprints = 4 bytes for each event of the waybill, the first half of its id's hash, in
                   order of arrival

    log block    = version u8 · recorded_at_ms u64 · count u16 · entry{count}
    entry        = event_length u16 · marks u8 · milestone_before u8 · milestone u8 ·
                   flags_before u16 · flags u16 · event_count u32 · first_event_at_ms u64 ·
                   [last (18), if LAST_IS_ANOTHER] · event

`event` in the log is the event's wire bytes as accepted; `last_event` and the rows of the events
table have `recorded_at_ms` appended, which protobuf reads as the same message with that field set.

The row's first part (milestone … last) is a function of the waybill's events; announced,
updated_at_ms and position follow from the log. An entry carries the whole status after it, so a
status that was not written back before a crash is made again from the log alone, without folding.
"""

import functools
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from trackd.store.errors import DataDamaged
from trackd.store.keys import ORDER_LENGTH

FORMAT_VERSION = 1
FINGERPRINT_LENGTH = 4

STATUS_HEAD = Struct(">BBHHBIQ18s18sQ8xQBH")
BLOCK_HEAD = Struct(">BQH")
ENTRY_HEAD = Struct(">HBBBHHIQ")
# Set in every byte of a varint but its last.
_VARINT_CONTINUES = 0x80

# marks of an entry
CHANGED = 1  # milestone, facility or flags differ from before
FIRST_OCCURRENCE = 2  # the milestone was never announced before
CORRECTION = 4  # an event was voided
# One of these two, if CHANGED or if the last event is another than before.
LAST_IS_THIS = 8  # this event put the shipment where it is
LAST_IS_ANOTHER = 16  # another one did: its order follows
COURSE_SHIFT = 5  # the upper bits: fold.Course

# Numbers up to here fit the records; the settings are bounded by them.
EVENT_BYTES_LIMIT = 0xFFFF


class StatusRow(NamedTuple):
    """The status row, taken apart.

    newest: the order of the waybill's newest event; last: of the one that put it where it is.
    announced: the mask of MILESTONE_BITS that changes have told of.
    """

    milestone: int
    flags: int
    announced: int
    course: int
    event_count: int
    first_event_at_ms: int
    newest: bytes
    last: bytes
    updated_at_ms: int
    position: int
    facility: bytes
    last_event: bytes
    fingerprints: bytes


NO_STATUS = StatusRow(
    milestone=0,
    flags=0,
    announced=0,
    course=0,
    event_count=0,
    first_event_at_ms=0xFFFF_FFFF_FFFF_FFFF,
    newest=b"\0" * ORDER_LENGTH,
    last=b"\0" * ORDER_LENGTH,
    updated_at_ms=0,
    position=0,
    facility=b"",
    last_event=b"",
    fingerprints=b"",
)
"""The row of a waybill that has no event yet; never stored."""


class LogEntry(NamedTuple):
    """An entry of the log: an accepted event, and the status of its waybill after it."""

    position: int
    recorded_at_ms: int
    marks: int
    milestone_before: int
    milestone: int
    flags_before: int
    flags: int
    event_count: int
    first_event_at_ms: int
    last: bytes
    event: bytes

    @property
    def course(self) -> int:
        """The fold.Course after it."""
        return self.marks >> COURSE_SHIFT


# The bit of each milestone in `announced`.
MILESTONE_BITS = {
    number: 1 << bit
    for bit, number in enumerate((0, 10, 20, 30, 40, 50, 51, 52, 60, 71, 72, 80, 81))
}


class UnreadableRecord(DataDamaged):
    """A record of a format that this version does not know, or that is damaged."""


def encode_status(row: StatusRow) -> bytes:
    """The bytes of a status row."""
    head = STATUS_HEAD.pack(FORMAT_VERSION, *row[:10], len(row.facility), len(row.last_event))
    return head + row.facility + row.last_event + row.fingerprints


def decode_status(data: bytes) -> StatusRow:
    """The status row in data; UnreadableRecord if it is not one."""
    if len(data) < STATUS_HEAD.size or data[0] != FORMAT_VERSION:
        raise UnreadableRecord(f"status row of format {data[:1].hex() or 'nothing'}")
    head = STATUS_HEAD.unpack_from(data)
    facility_end = STATUS_HEAD.size + head[11]
    last_end = facility_end + head[12]
    tail = (data[STATUS_HEAD.size : facility_end], data[facility_end:last_end], data[last_end:])
    return StatusRow._make(head[1:11] + tail)


def decode_block(last_position: int, data: bytes) -> Iterator[LogEntry]:
    """The entries of the block whose last event has last_position, in order of position."""
    recorded_at_ms, count = block_head(data)
    position = last_position - count
    offset = BLOCK_HEAD.size
    for _ in range(count):
        if offset + ENTRY_HEAD.size > len(data):
            raise UnreadableRecord(f"log block ends before position {position + 1}")
        length, marks, *status = ENTRY_HEAD.unpack_from(data, offset)
        offset += ENTRY_HEAD.size
        last = b""
        if marks & LAST_IS_ANOTHER:
            last = data[offset : offset + ORDER_LENGTH]
            offset += ORDER_LENGTH
        position += 1
        event = data[offset : offset + length]
        offset += length
        if len(event) != length:
            raise UnreadableRecord(f"log block ends within position {position}")
        yield LogEntry._make((position, recorded_at_ms, marks, *status, last, event))


def block_head(data: bytes) -> tuple[int, int]:
    """When a block was recorded, and how many events it holds."""
    if len(data) < BLOCK_HEAD.size or data[0] != FORMAT_VERSION:
        raise UnreadableRecord(f"log block of format {data[:1].hex() or 'nothing'}")
    _, recorded_at_ms, count = BLOCK_HEAD.unpack_from(data)
    return recorded_at_ms, count


def block_count(data: bytes) -> int:
    """How many events a block holds."""
    return block_head(data)[1]


def without_fingerprints(row: bytes) -> bytes:
    """A status row without its last part, which nobody outside the partition can use."""
    fingerprints = decode_status(row).fingerprints
    return row[: len(row) - len(fingerprints)]


@functools.lru_cache(maxsize=4)  # all events of a commit have one
def recorded_at_suffix(recorded_at_ms: int) -> bytes:
    """What is appended to an event's wire bytes to set `recorded_at_ms` (field 17, a varint)."""
    out = bytearray(b"\x88\x01")
    value = recorded_at_ms
    while value >= _VARINT_CONTINUES:
        out.append(value & 0x7F | _VARINT_CONTINUES)
        value >>= 7
    out.append(value)
    return bytes(out)


_POSITION = Struct(">Q")
# It stands before facility_length and last_event_length.
_POSITION_OFFSET = STATUS_HEAD.size - _POSITION.size - 3


def status_position(row: bytes) -> int:
    """The position of the last event counted into a status row."""
    position: int = _POSITION.unpack_from(row, _POSITION_OFFSET)[0]
    return position
