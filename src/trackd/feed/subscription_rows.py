"""What a subscription keeps in a partition, as bytes. Everything is big-endian.

    cursor row = version u8 · cursor u64 · expired u64 · gap{0,}
    gap        = varint: how far the next finished position is above the one before it, the first
                 above the cursor
    change row = version u8 · attempts u16 · at_ms u64 · waybill_length u8 · reason_length u16 ·
                 waybill · reason · change

`change` is the serialised trackd.v1.Change; at_ms is when a kept change may go out, or when a
parked one was parked. The keys are in store/keys.py.
"""

from collections.abc import Sequence
from struct import Struct

from trackd.feed.change import varint
from trackd.feed.lane import StoredChange
from trackd.store.records import UnreadableRecord

FORMAT_VERSION = 1

_CURSOR_HEAD = Struct(">BQQ")
_CHANGE_HEAD = Struct(">BHQBH")
_CONTINUES = 0x80
ATTEMPTS_LIMIT = 0xFFFF


class StoredWire:
    """A change as its row has it."""

    __slots__ = ("_wire",)

    def __init__(self, wire: bytes) -> None:
        self._wire = wire

    def wire(self) -> bytes:
        """See lane.Wired."""
        return self._wire


def encode_cursor(cursor: int, done: Sequence[int], expired: int) -> bytes:
    """done: positions above the cursor, in order."""
    gaps = []
    before = cursor
    for position in done:
        gaps.append(varint(position - before))
        before = position
    return _CURSOR_HEAD.pack(FORMAT_VERSION, cursor, expired) + b"".join(gaps)


def decode_cursor(row: bytes) -> tuple[int, list[int], int]:
    """Cursor, done, expired. Raises UnreadableRecord."""
    if len(row) < _CURSOR_HEAD.size or row[0] != FORMAT_VERSION:
        raise UnreadableRecord(f"cursor of format {row[:1].hex() or 'nothing'}")
    _, cursor, expired = _CURSOR_HEAD.unpack_from(row)
    done = []
    position, gap, shift = cursor, 0, 0
    for byte in row[_CURSOR_HEAD.size :]:
        gap |= (byte & ~_CONTINUES) << shift
        if byte & _CONTINUES:
            shift += 7
            continue
        position += gap
        done.append(position)
        gap = shift = 0
    if shift:
        raise UnreadableRecord("cursor ends within a number")
    return cursor, done, expired


def encode_change(change: StoredChange, wire: bytes) -> bytes:
    """A change with a row of its own."""
    number, reason = change.waybill_number.encode(), change.reason.encode()
    attempts = min(change.attempts, ATTEMPTS_LIMIT)
    head = _CHANGE_HEAD.pack(FORMAT_VERSION, attempts, change.at_ms, len(number), len(reason))
    return head + number + reason + wire


def decode_change(position: int, row: bytes) -> tuple[StoredChange, bytes]:
    """The change at position, and its wire bytes. Raises UnreadableRecord."""
    if len(row) < _CHANGE_HEAD.size or row[0] != FORMAT_VERSION:
        raise UnreadableRecord(f"kept change of format {row[:1].hex() or 'nothing'}")
    _, attempts, at_ms, number_length, reason_length = _CHANGE_HEAD.unpack_from(row)
    reason_start = _CHANGE_HEAD.size + number_length
    end = reason_start + reason_length
    if len(row) < end:
        raise UnreadableRecord("kept change ends within its head")
    number = row[_CHANGE_HEAD.size : reason_start].decode()
    reason = row[reason_start:end].decode()
    return StoredChange(position, number, attempts, at_ms, reason), row[end:]
