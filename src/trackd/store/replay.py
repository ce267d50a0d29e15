"""After a crash: the statuses that were not written back are made again from the log.

Every row on disk is current up to the checkpoint or further. Each entry of the log after it carries
the whole status of its waybill after it, so nothing is folded: the row is taken as it is and the
entries are laid over it.
"""

from xxhash import xxh3_64_digest

from trackd import compiled
from trackd.store import records
from trackd.store.engine import Engine
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
    status_key,
)
from trackd.store.records import NO_STATUS, LogEntry, StatusRow
from trackd.store.statuses import StatusTable
from trackd.v1.event_pb2 import ScanEvent

_compiled = compiled.load("trackd.store._planning")

# Rows are looked up in one go for so many blocks of the log; bounds the memory of a recovery.
_BLOCKS_AT_A_TIME = 64


def checkpoint_of(engine: Engine) -> int:
    """The position up to which every status on disk is current."""
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
    """Brings the statuses up to date; returns how many log entries it took. Raises DataDamaged."""
    blocks: list[tuple[int, bytes]] = []
    taken = 0
    start = position_key(statuses.checkpoint + 1)
    for key, block in engine.scan_all(Table.LOG, start):
        blocks.append((position_of(key), block))
        if len(blocks) == _BLOCKS_AT_A_TIME:
            taken += _lay_over(engine, statuses, blocks)
            blocks = []
    return taken + _lay_over(engine, statuses, blocks)


def _lay_over(engine: Engine, statuses: StatusTable, blocks: list[tuple[int, bytes]]) -> int:
    taken = _lay_over_compiled(engine, statuses, blocks) if _compiled else None
    if taken is not None:
        return taken
    decoded = [records.decode_block(position, block) for position, block in blocks]
    parsed = [[(entry, parse_event(entry.event)) for entry in block] for block in decoded]
    keys = {status_key(event.waybill_number) for block in parsed for _, event in block}
    rows = statuses.fetch(key for key in keys if key not in statuses.rows)
    for block in parsed:
        changed: dict[bytes, bytes] = {}
        dirtied = []
        for entry, event in block:
            key = status_key(event.waybill_number)
            row = changed.get(key) or statuses.rows.get(key) or rows.get(key)
            before = records.decode_status(row) if row else NO_STATUS
            if before.position >= entry.position:
                continue  # written back with a later commit than the checkpoint tells
            if before.dirty_since <= statuses.checkpoint:
                before = before._replace(dirty_since=block[0][0].position)
                dirtied.append(key)
            changed[key] = records.encode_status(row_after(engine, before, entry, event, key))
        if block:
            statuses.put(changed, dirtied, block[0][0].position)
    return sum(len(block) for block in parsed)


def _lay_over_compiled(
    engine: Engine, statuses: StatusTable, blocks: list[tuple[int, bytes]]
) -> int | None:
    """The same, compiled; None, and nothing done, if it does not know what is in them."""
    assert _compiled is not None

    def stored_event(key: bytes, order: bytes, position: int) -> tuple[bytes, bytes]:
        stored = _stored_event(engine, key + order, position)
        return stored, parse_event(stored).facility_code.encode()

    keys = [_compiled.keys_of_block(block) for _, block in blocks]
    if None in keys:
        return None
    missing = {key for part in keys for key in part if key not in statuses.rows}
    found = statuses.fetch(missing)
    for (position, block), part in zip(blocks, keys, strict=True):
        changed, dirtied = _compiled.lay_over(
            block, position, part, statuses.rows, found, statuses.checkpoint, stored_event
        )
        statuses.put(changed, dirtied, position - len(part) + 1)
    return sum(map(len, keys))


def _stored_event(engine: Engine, key: bytes, position: int) -> bytes:
    stored = engine.get(Table.EVENTS, key)
    if stored is None:
        raise DataDamaged(f"position {position} refers to an event that is not there")
    return stored


def row_after(
    engine: Engine, row: StatusRow, entry: LogEntry, event: ScanEvent, key: bytes
) -> StatusRow:
    """The status row at key after an entry of the log, which holds event. Raises DataDamaged.

    row: the one before it; NO_STATUS for the waybill's first event.
    """
    order = event_order(event.occurred_at_ms, event.code, event.event_id)
    changed = bool(entry.marks & records.CHANGED)
    last, last_event, facility = row.last, row.last_event, row.facility
    if entry.marks & records.LAST_IS_THIS:
        last, facility = order, event.facility_code.encode()
        last_event = entry.event + records.recorded_at_suffix(entry.recorded_at_ms)
    elif entry.marks & records.LAST_IS_ANOTHER:
        last = entry.last
        last_event = _stored_event(engine, key + last, entry.position)
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
        dirty_since=row.dirty_since,
        position=entry.position,
        facility=facility,
        last_event=last_event,
        fingerprints=row.fingerprints + fingerprint,
    )
