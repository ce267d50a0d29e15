"""After a loss that the operator accepted: everything is built again from the events that are left.

Those are the ones in the events table, and those that the log has and the table does not yet.
Positions start anew, in the order of the table, so what holds for any data holds for this:
positions without gaps, statuses that are the fold of their timelines. The caller gives the data a
new identity.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from trackd.domain.lifecycle import step_of
from trackd.store import records
from trackd.store.ahead import EventRow
from trackd.store.engine_contract import Engine, Rows
from trackd.store.errors import DataDamaged
from trackd.store.events import clears_of, parse_event
from trackd.store.keys import (
    META_LOG_FLOOR,
    META_STATUS_CHECKPOINT,
    META_WAYBILLS,
    Table,
    position_key,
    position_of,
    split_event_key,
    status_key,
)
from trackd.store.planner import Planner, ScanTuple
from trackd.store.replay import checkpoint_of, event_row
from trackd.store.stalls import until_taken
from trackd.store.statuses import StatusTable

_EVENTS_AT_A_TIME = 1_000


class _Replanner(Planner):
    """Plans events that were accepted once: none of them is a repeat, a conflict or one too many.

    Their rows are there already, so that each would be taken for its own repeat, and be folded
    together with those that have not had their turn.
    """

    def _is_no_news(self, *_: object, **__: object) -> bool:
        return False

    def _timeline(self, key: bytes) -> dict[bytes, bytes]:
        # Planned in the order of the table: what stands behind the latest is still to come.
        latest = split_event_key(self._events[-1][0])[1]
        timeline = super()._timeline(key)
        return {order: value for order, value in timeline.items() if order <= latest}


def rebuild(engine: Engine, now_ms: int) -> int:
    """Builds log and statuses from the events; returns how many there are.

    Interrupted, it is simply run again: it begins by deleting what it builds. Raises DataDamaged,
    StorageFailed.
    """
    _save_events(engine)
    until_taken(lambda: engine.delete_all(Table.LOG))
    until_taken(lambda: engine.delete_all(Table.STATUS))
    built = (META_STATUS_CHECKPOINT, META_WAYBILLS, META_LOG_FLOOR)
    _write(engine, [(Table.META, [(name, None) for name in built])])
    statuses = StatusTable(engine, cache_bytes=0, write_back_events=1, checkpoint=0)
    planner = _Replanner(
        engine,
        statuses,
        position=0,
        recorded_at_ms=0,
        waybill_events_max=0,
    )
    scans: list[ScanTuple] = []
    for _, stored in engine.scan_all(Table.EVENTS):
        scans.append(_scan(stored))
        if len(scans) == _EVENTS_AT_A_TIME:
            _commit(engine, statuses, planner, scans, now_ms)
            scans = []
    _commit(engine, statuses, planner, scans, now_ms)
    engine.keep_unlogged()
    if checkpoint := planner.plan_checkpoint():
        _write(engine, checkpoint.batch)
    engine.flush_wal()
    return planner.position


def _save_events(engine: Engine) -> None:
    """Has the table hold the events of the log, as far as that can be read, for good."""
    with suppress(DataDamaged):
        for key, block in engine.scan_all(Table.LOG, position_key(checkpoint_of(engine) + 1)):
            rows: list[EventRow] = []
            with suppress(DataDamaged):  # what is behind it may be whole
                rows.extend(_event_rows(position_of(key), block))
            until_taken(partial(engine.write_unlogged, [(Table.EVENTS, rows)]))
    engine.keep_unlogged()


def _event_rows(position: int, block: bytes) -> Iterator[EventRow]:
    for entry in records.decode_block(position, block):
        event = parse_event(entry.event)
        yield event_row(status_key(event.waybill_number), entry, event)


def _scan(stored: bytes) -> ScanTuple:
    event = parse_event(stored)
    event.ClearField("recorded_at_ms")
    step = step_of(event.code, event.reason)
    return (0, status_key(event.waybill_number), event.event_id, int(event.code), step,
            event.occurred_at_ms, event.facility_code, clears_of(event),
            event.SerializeToString())  # fmt: skip


def _commit(
    engine: Engine,
    statuses: StatusTable,
    planner: Planner,
    scans: list[ScanTuple],
    now_ms: int,
) -> None:
    _write(engine, planner.plan([scans], now_ms).batch)
    while part := statuses.everything(planner.position, _EVENTS_AT_A_TIME):
        statuses.written_back(part, until_taken(partial(engine.write_unlogged, part.batch)))


def _write(engine: Engine, batch: Sequence[tuple[Table, Rows]]) -> None:
    until_taken(lambda: engine.write(batch))
