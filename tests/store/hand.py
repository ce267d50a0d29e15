"""A table of statuses by hand: its rows, the events of a plan, and what is written back."""

from collections.abc import Sequence

from trackd.store.ahead import EventRow, slot_of
from trackd.store.keys import ORDER_LENGTH, Table, position_key
from trackd.store.memory_engine import MemoryEngine
from trackd.store.records import NO_STATUS, encode_status, status_position
from trackd.store.statuses import StatusTable


def waybill(slot: int, number: int = 0) -> bytes:
    """The status key of a waybill that belongs into a slot."""
    return slot.to_bytes(2, "big") + bytes(6) + b"SF%04d" % number


A, B, C = waybill(100, 1), waybill(30_000, 2), waybill(60_000, 3)


class CountingEngine(MemoryEngine):
    """Counts the look-ups on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        """See Engine."""
        self.asked += keys
        return super().get_many(table, keys)


def table(engine: MemoryEngine, *, cache_bytes: int = 1 << 20, window: int = 10) -> StatusTable:
    """A table of statuses that writes everything back once in `window` events."""
    return StatusTable(engine, cache_bytes=cache_bytes, write_back_events=window, checkpoint=0)


def row(text: bytes, position: int = 0) -> bytes:
    """A status row that can be told from others by its text."""
    return encode_status(NO_STATUS._replace(last_event=text, position=position))


def event(key: bytes, position: int, size: int = 10) -> EventRow:
    """The row of an event of a waybill."""
    return key + position_key(position).rjust(ORDER_LENGTH, b"\0"), bytes(size)


def is_dirty(statuses: StatusTable, key: bytes) -> bool:
    """Whether the row of this key, which is in memory, is ahead of the disk."""
    return status_position(statuses.rows[key]) > statuses.ahead.written[slot_of(key)]


def change(
    statuses: StatusTable, position: int, *keys: bytes, size: int = 10
) -> dict[bytes, bytes]:
    """One event for each of these waybills from position on, as a plan puts it; the rows."""
    changed: dict[bytes, bytes] = {}
    events = []
    dirtied = 0
    for at, key in enumerate(keys, position):
        if key not in changed:
            dirtied += key not in statuses.rows or not is_dirty(statuses, key)
        changed[key] = row(b"%d" % at, at)
        events.append(event(key, at, size))
    statuses.put(changed, dirtied, events)
    return changed


def write_back(
    statuses: StatusTable, engine: MemoryEngine, position: int, rows_max: int = 1_000
) -> list[bytes]:
    """Writes back what is due at position; the keys of the statuses."""
    part = statuses.due(position, rows_max)
    if part is None:
        return []
    statuses.written_back(part, engine.write_unlogged(part.batch))
    return part.keys
