"""The events that the tables do not have yet, by the place of their waybill among all keys.

A commit writes its events into the log alone. Their rows of the events table gather here, and are
written later together with those of their neighbours, in order of their keys (write_back.py). They
stand in slots by the first bits of their key, which are of a hash; a slot is so small that what
is asked of it is looked for from one end to the other.

`_ahead.pyx` has the same class compiled.
"""

from array import array
from collections.abc import Iterable

from trackd.store.keys import split_event_key

EventRow = tuple[bytes, bytes]

SLOT_BITS = 16
SLOTS = 1 << SLOT_BITS
# Rows of a slot beyond which it is looked through too long, and written out of its turn. A sender
# can choose waybills that meet in a slot, or send one of them without end.
CROWDED_ROWS = 1_000


def slot_of(key: bytes) -> int:
    """The slot of a status key, or of an event's key."""
    return key[0] << 8 | key[1]


class Ahead:
    """Event rows that are not in their table yet, by slot.

    written: for each slot the position up to which the tables have all that belongs there. A status
    row whose position is greater is ahead of its table, and so are events of its waybill.
    """

    def __init__(self, checkpoint: int) -> None:
        """checkpoint: the position up to which the tables have everything."""
        self.written = array("Q", [checkpoint]) * SLOTS
        self._slots: dict[int, list[EventRow]] = {}
        # Of all rows that are here: how many, and the bytes of their keys and values.
        self.count = 0
        self.size = 0
        # Slots that have CROWDED_ROWS or more, in the order in which they came to them.
        self.crowded: dict[int, None] = {}

    def put(self, rows: Iterable[EventRow]) -> None:
        """Takes rows over; none with a key that is here already."""
        for row in rows:
            slot = self._slots.setdefault(slot_of(row[0]), [])
            slot.append(row)
            if len(slot) == CROWDED_ROWS:
                self.crowded[slot_of(row[0])] = None
            self.count += 1
            self.size += len(row[0]) + len(row[1])

    def of(self, prefix: bytes) -> list[EventRow]:
        """The rows whose key begins with prefix, in order of their keys."""
        return sorted(
            row for row in self._slots.get(slot_of(prefix), ()) if row[0].startswith(prefix)
        )

    def get(self, key: bytes) -> bytes | None:
        """The value of the row with this key."""
        for each, value in self._slots.get(slot_of(key), ()):
            if each == key:
                return value
        return None

    def take(self, slot: int, slots: int, rows_max: int) -> tuple[list[EventRow], list[bytes], int]:
        """The rows of the slots from slot on, in order; the status keys of their waybills; the end.

        Of so many slots, or of fewer: those whose rows are not more than rows_max, at least one.
        The rows stay.
        """
        rows = sorted(self._slots.get(slot, ()))
        end = slot + 1 if len(rows) > rows_max else min(slot + slots, SLOTS)
        for each in sorted(each for each in self._slots if slot < each < end):
            part = self._slots[each]
            if len(rows) + len(part) > rows_max:
                end = each
                break
            rows += sorted(part)
        return rows, list(dict.fromkeys(split_event_key(key)[0] for key, _ in rows)), end

    def written_out(self, slot: int, end: int, position: int) -> None:
        """The tables have all rows of the slots from slot to end, which are all up to position."""
        for each in [each for each in self._slots if slot <= each < end]:
            self.crowded.pop(each, None)
            for key, value in self._slots.pop(each):
                self.count -= 1
                self.size -= len(key) + len(value)
        self.written[slot:end] = array("Q", [position]) * (end - slot)

    def waybills_after(self, key: bytes) -> list[bytes]:
        """The status keys greater than key of the first slot that has any, in order; empty: none.

        An empty key is less than all.
        """
        first = slot_of(key) if key else 0
        for slot in sorted(slot for slot in self._slots if slot >= first):
            found = {split_event_key(each)[0] for each, _ in self._slots[slot]}
            if after := sorted(each for each in found if each > key):
                return after
        return []
