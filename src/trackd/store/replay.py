"""After a crash: what was not written back is made again from the log.

The tables have everything up to the checkpoint, and of what is behind it they may have any part.
Each entry of the log after it holds its event, and the whole status of its waybill after it, so
nothing is folded: the row is taken as it is and the entries are laid over it.
"""

from collections.abc import Callable, Iterable
from typing import Any

from xxhash import xxh3_64_digest

from trackd import compiled
from trackd.store import records
from trackd.store.ahead import EventRow
from trackd.store.engine_contract import Engine
from trackd.store.errors import DataDamaged
from trackd.store.events import parse_event
from trackd.store.keys import (
    META_LOG_FLOOR,
    META_STATUS_CHECKPOINT,
    META_WAYBILLS,
    Table,
    event_order,
    position_key,
    position_of,
    split_event_key,
    status_key,
)
from trackd.store.records import NO_STATUS, LogEntry, StatusRow
from trackd.store.statuses import StatusTable
from trackd.store.timelines import Timelines
from trackd.v1.event_pb2 import ScanEvent

_compiled = compiled.load("trackd.store._planning")

# Rows are looked up in one go, in order of their keys, for so many blocks of the log: some are
# neighbours then. Bounds the memory of a recovery.
_BLOCKS_AT_A_TIME = 256


def checkpoint_of(engine: Engine) -> int:
    """The position up to which the tables on disk have everything."""
    stored = engine.get(Table.META, META_STATUS_CHECKPOINT)
    return position_of(stored) if stored else 0


def waybill_count(engine: Engine) -> int:
    """How many waybills have an event."""
    stored = engine.get(Table.META, META_WAYBILLS)
    return position_of(stored) if stored else 0


def last_position(engine: Engine) -> int:
    """The position of the last event in the log; 0 if there is none."""
    key = engine.last_key(Table.LOG)
    return position_of(key) if key else 0


def log_floor(engine: Engine) -> int:
    """The first position that the log has, or would have if there were none."""
    stored = engine.get(Table.META, META_LOG_FLOOR)
    return position_of(stored) if stored else 1


def last_recorded_at_ms(engine: Engine) -> int:
    """The recorded time of the last event in the log; 0 if there is none."""
    key = engine.last_key(Table.LOG)
    block = engine.get(Table.LOG, key) if key else None
    return next(records.decode_block(0, block)).recorded_at_ms if block else 0


def replay(engine: Engine, statuses: StatusTable) -> int:
    """Brings all that is read up to date; returns how many log entries it took.

    Raises DataDamaged.
    """
    replayed = _Replay(engine, statuses)
    blocks: list[tuple[int, bytes]] = []
    start = position_key(statuses.checkpoint + 1)
    for key, block in engine.scan_all(Table.LOG, start):
        blocks.append((position_of(key), block))
        if len(blocks) == _BLOCKS_AT_A_TIME:
            replayed.lay_over(blocks)
            blocks = []
    replayed.lay_over(blocks)
    return replayed.taken


class _Replay:
    """A replay under way."""

    def __init__(self, engine: Engine, statuses: StatusTable) -> None:
        self._statuses = statuses
        self._timelines = Timelines(engine, statuses.ahead)
        # The waybills that have entries after the checkpoint, by status key.
        self._dirty: set[bytes] = set()
        self.taken = 0

    def lay_over(self, blocks: list[tuple[int, bytes]]) -> None:
        """Takes the next blocks, each with its last position."""
        keys: list[Any] = [None]
        if _compiled:
            keys = [_compiled.keys_of_block(block) for _, block in blocks]
        if None in keys:  # it does not know what is in them
            self._lay_over(blocks)
        else:
            self._lay_over_compiled(blocks, keys)

    def _lay_over(self, blocks: list[tuple[int, bytes]]) -> None:
        decoded = [records.decode_block(position, block) for position, block in blocks]
        parsed = [[(entry, parse_event(entry.event)) for entry in block] for block in decoded]
        waybills = (event.waybill_number for part in parsed for _, event in part)
        found = self._fetch(map(status_key, waybills))
        for part in parsed:
            changed: dict[bytes, bytes] = {}
            events: list[EventRow] = []
            for entry, event in part:
                key = status_key(event.waybill_number)
                events.append(event_row(key, entry, event))
                row = changed.get(key) or self._statuses.rows.get(key) or found.get(key)
                before = records.decode_status(row) if row else NO_STATUS
                if before.position >= entry.position:
                    continue  # the table had it
                after = row_after(self._stored_among(events), before, entry, event, key)
                changed[key] = records.encode_status(after)
            keys = [status_key(event.waybill_number) for _, event in part]
            self._put(keys, changed, events)

    def _lay_over_compiled(self, blocks: list[tuple[int, bytes]], keys: list[list[bytes]]) -> None:
        """The same, compiled. keys: the status keys of each block's entries."""
        assert _compiled is not None

        def stored_event(key: bytes, position: int, events: list[EventRow]) -> tuple[bytes, bytes]:
            stored = stored_or_damaged(self._stored_among(events), key, position)
            return stored, parse_event(stored).facility_code.encode()

        found = self._fetch(key for part in keys for key in part)
        for (position, block), part in zip(blocks, keys, strict=True):
            changed, events = _compiled.lay_over(
                block, position, part, self._statuses.rows, found, stored_event
            )
            self._put(part, changed, events)

    def _fetch(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        rows = self._statuses.rows
        return self._statuses.fetch(sorted({key for key in keys if key not in rows}))

    def _put(self, keys: list[bytes], changed: dict[bytes, bytes], events: list[EventRow]) -> None:
        before = len(self._dirty)
        self._dirty.update(keys)
        self._statuses.put(changed, len(self._dirty) - before, events)
        self.taken += len(events)

    def _stored_among(self, events: list[EventRow]) -> Callable[[bytes], bytes | None]:
        """Looks events up by key: in the tables, and among those of a block that is under way."""

        def stored_event(key: bytes) -> bytes | None:
            return self._timelines.get(key) or next(
                (value for each, value in reversed(events) if each == key), None
            )

        return stored_event


def event_row(key: bytes, entry: LogEntry, event: ScanEvent) -> EventRow:
    """The row in the events table of a log entry, which holds event; key: of its waybill."""
    order = event_order(event.occurred_at_ms, event.code, event.event_id)
    return key + order, entry.event + records.recorded_at_suffix(entry.recorded_at_ms)


def stored_or_damaged(
    stored_event: Callable[[bytes], bytes | None], key: bytes, position: int
) -> bytes:
    """The event with a key that an entry of the log names. Raises DataDamaged without one."""
    stored = stored_event(key)
    if stored is None:
        raise DataDamaged(f"position {position} refers to an event that is not there")
    return stored


def row_after(
    stored_event: Callable[[bytes], bytes | None],
    row: StatusRow,
    entry: LogEntry,
    event: ScanEvent,
    key: bytes,
) -> StatusRow:
    """The status row at key after an entry of the log, which holds event. Raises DataDamaged.

    stored_event: looks an event up by its key. row: the one before it; NO_STATUS for the waybill's
    first event.
    """
    event_key, stored = event_row(key, entry, event)
    order = split_event_key(event_key)[1]
    changed = bool(entry.marks & records.CHANGED)
    last, last_event, facility = row.last, row.last_event, row.facility
    if entry.marks & records.LAST_IS_THIS:
        last, last_event, facility = order, stored, event.facility_code.encode()
    elif entry.marks & records.LAST_IS_ANOTHER:
        last = entry.last
        last_event = stored_or_damaged(stored_event, key + last, entry.position)
        facility = parse_event(last_event).facility_code.encode()
    fingerprint = xxh3_64_digest(event.event_id.encode())[: records.FINGERPRINT_LENGTH]
    return StatusRow(
        milestone=entry.milestone,
        flags=entry.flags,
        announced=row.announced | (records.MILESTONE_BITS[entry.milestone] if changed else 0),
        course=entry.course,
        event_count=entry.event_count,
        first_event_at_ms=entry.first_event_at_ms,
        newest=max(row.newest, order),
        last=last,
        updated_at_ms=entry.recorded_at_ms
        if changed
        else row.updated_at_ms or entry.recorded_at_ms,
        position=entry.position,
        facility=facility,
        last_event=last_event,
        fingerprints=row.fingerprints + fingerprint,
    )
