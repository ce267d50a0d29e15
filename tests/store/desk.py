"""A planner at work without a committer: plans, writes and settles at once, on any engine.

Also what must hold of any store, read back from its tables: `Desk.check`. What a status must be is
taken from domain.fold over the timeline, what a log entry must say from the two statuses around it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from trackd.domain.fold import fold
from trackd.domain.lifecycle import step_of
from trackd.domain.vocabulary import EventCode
from trackd.store import records, replay
from trackd.store.ahead import SLOTS
from trackd.store.engine_contract import Engine
from trackd.store.events import clears_of, fold_event, parse_event
from trackd.store.keys import Table, event_order, split_event_key, status_key
from trackd.store.memory_engine import MemoryEngine
from trackd.store.pages import merged
from trackd.store.planner import Planner, ScanTuple, Verdict
from trackd.store.records import LogEntry, StatusRow
from trackd.store.statuses import StatusTable
from trackd.store.timelines import Timelines
from trackd.v1.event_pb2 import ScanEvent

NOON_MS = 1_700_000_000_000


def scan_event(
    code: EventCode,
    event_id: str,
    occurred_at_ms: int = NOON_MS,
    waybill_number: str = "SF1234567890",
    **fields: object,
) -> ScanEvent:
    """An event of that code."""
    return ScanEvent(
        event_id=event_id,
        waybill_number=waybill_number,
        code=int(code),  # type: ignore[arg-type]
        occurred_at_ms=occurred_at_ms,
        **fields,  # type: ignore[arg-type]
    )


def scan(event: ScanEvent, index: int = 0) -> ScanTuple:
    """What the door makes of a valid event."""
    return (
        index,
        status_key(event.waybill_number),
        event.event_id,
        int(event.code),
        step_of(event.code, event.reason),
        event.occurred_at_ms,
        event.facility_code,
        clears_of(event),
        event.SerializeToString(),
    )


@dataclass(slots=True)
class Journal:
    """What the log of a waybill must say, followed entry by entry."""

    events: list[tuple[bytes, ScanEvent]] = field(default_factory=list)
    milestone: int = 0
    flags: int = 0
    facility: str = ""
    last: bytes = b""
    announced: set[int] = field(default_factory=set)
    updated_at_ms: int = 0

    def take(self, entry: LogEntry) -> None:
        """Compares an entry with the statuses before and after its event."""
        event = parse_event(entry.event)
        order = event_order(event.occurred_at_ms, event.code, event.event_id)
        self.events = sorted([*self.events, (order, event)], key=lambda item: item[0])
        folded = fold([fold_event(at, each) for at, each in self.events])
        facility = dict(self.events)[folded.last].facility_code
        changed = (folded.milestone, folded.flags, facility) != (
            self.milestone,
            self.flags,
            self.facility,
        )
        first = changed and folded.milestone not in {self.milestone, *self.announced}
        marks = records.CHANGED * changed | records.FIRST_OCCURRENCE * first
        marks |= records.CORRECTION * (int(event.code) == EventCode.EVENT_VOIDED)
        if changed or folded.last != self.last:
            marks |= records.LAST_IS_THIS if folded.last == order else records.LAST_IS_ANOTHER
        assert entry.marks & ((1 << records.COURSE_SHIFT) - 1) == marks, entry
        assert entry.course == folded.course, entry
        assert (entry.milestone_before, entry.flags_before) == (self.milestone, self.flags), entry
        assert (entry.milestone, entry.flags) == (folded.milestone, folded.flags), entry
        assert entry.event_count == len(self.events), entry
        assert entry.first_event_at_ms == min(each.occurred_at_ms for _, each in self.events)
        assert entry.last == (folded.last if marks & records.LAST_IS_ANOTHER else b""), entry
        if changed:
            self.announced.add(folded.milestone)
        if changed or not self.updated_at_ms:
            self.updated_at_ms = entry.recorded_at_ms
        self.milestone, self.flags, self.facility = folded.milestone, folded.flags, facility
        self.last = folded.last


class Desk:
    """One partition's planner, statuses and engine."""

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        write_back_events: int = 1_000_000,
        cache_bytes: int = 1 << 20,
        waybill_events_max: int = 10_000,
        write_back_rows_max: int = 2_000,
    ) -> None:
        self.engine: Engine = engine or MemoryEngine()
        self.statuses = StatusTable(
            self.engine,
            cache_bytes=cache_bytes,
            write_back_events=write_back_events,
            checkpoint=replay.checkpoint_of(self.engine),
        )
        self.timelines = Timelines(self.engine, self.statuses.ahead)
        self.replayed = replay.replay(self.engine, self.statuses)
        self.planner = Planner(
            self.engine,
            self.statuses,
            position=replay.last_position(self.engine),
            recorded_at_ms=replay.last_recorded_at_ms(self.engine),
            waybills=replay.waybill_count(self.engine),
            waybill_events_max=waybill_events_max,
        )
        self._write_back_rows_max = write_back_rows_max

    def commit(self, *submissions: Sequence[ScanEvent], now_ms: int = NOON_MS) -> list[Verdict]:
        """Plans, writes and settles one commit."""
        scans = [[scan(event, n) for n, event in enumerate(events)] for events in submissions]
        plan = self.planner.plan(scans, now_ms)
        self.engine.write(plan.batch)
        self.engine.flush_wal()
        if part := self.statuses.due(self.planner.position, self._write_back_rows_max):
            self.statuses.written_back(part, self.engine.write_unlogged(part.batch))
        return plan.verdicts

    def checkpoint(self) -> None:
        """Writes everything back, as a shutdown does."""
        while part := self.statuses.everything(self.planner.position, self._write_back_rows_max):
            self.statuses.written_back(part, self.engine.write_unlogged(part.batch))
        self.engine.keep_unlogged()
        if plan := self.planner.plan_checkpoint():
            self.engine.write(plan.batch)
        self.engine.flush_wal()

    # What is there.

    def row(self, waybill_number: str = "SF1234567890") -> StatusRow:
        """The status of a waybill that has one."""
        row = self.statuses.get(status_key(waybill_number))
        assert row is not None
        return records.decode_status(row)

    def contents(self) -> list[list[tuple[bytes, bytes]]]:
        """Everything that is on disk."""
        return [list(self.engine.scan_all(table)) for table in Table]

    def rows(self) -> dict[bytes, bytes]:
        """Every status, by its key, as a reader finds it: what is dirty goes before the disk."""
        return dict(self.engine.scan_all(Table.STATUS)) | {
            key: self.statuses.rows[key] for key in self.statuses.rows
        }

    def timeline(self, waybill_number: str = "SF1234567890") -> list[ScanEvent]:
        """A waybill's events, oldest first."""
        return [parse_event(value) for _, value in self.timelines.rows(status_key(waybill_number))]

    def events(self) -> list[tuple[bytes, bytes]]:
        """Every event row, as a reader finds it."""
        ahead, _, _ = self.statuses.ahead.take(0, SLOTS, 1 << 60)
        return list(merged(self.engine.scan_all(Table.EVENTS), ahead))

    def log(self) -> Iterator[LogEntry]:
        """Every entry of the log."""
        for key, block in self.engine.scan_all(Table.LOG):
            yield from records.decode_block(int.from_bytes(key, "big"), block)

    # What must hold.

    def check_statuses(self) -> None:
        """Each status is the fold of its timeline."""
        timelines: defaultdict[bytes, list[tuple[bytes, ScanEvent]]] = defaultdict(list)
        for key, stored in self.events():
            waybill_key, order = split_event_key(key)
            timelines[waybill_key].append((order, parse_event(stored)))
        rows = self.rows()
        assert rows.keys() == timelines.keys()
        assert self.planner.waybills == replay.waybill_count(self.engine) == len(rows)
        for waybill_key, timeline in timelines.items():
            folded = fold([fold_event(order, event) for order, event in timeline])
            row = records.decode_status(rows[waybill_key])
            assert (row.milestone, row.flags, row.course) == (
                folded.milestone,
                folded.flags,
                folded.course,
            )
            assert (row.last, row.newest) == (folded.last, timeline[-1][0])
            assert (row.event_count, row.first_event_at_ms) == (
                len(timeline),
                timeline[0][1].occurred_at_ms,
            )
            assert row.facility.decode() == dict(timeline)[folded.last].facility_code

    def check(self) -> None:
        """Log without gaps; the same events in both tables; each entry and status as folded."""
        journals: defaultdict[bytes, Journal] = defaultdict(Journal)
        positions: dict[bytes, int] = {}
        recorded_at_ms = position = 0
        for position, entry in enumerate(self.log(), 1):
            assert entry.position == position
            assert entry.recorded_at_ms >= recorded_at_ms
            recorded_at_ms = entry.recorded_at_ms
            event = parse_event(entry.event)
            key = status_key(event.waybill_number)
            journals[key].take(entry)
            positions[key] = position
            order = event_order(event.occurred_at_ms, event.code, event.event_id)
            stored = self.timelines.get(key + order)
            assert stored == entry.event + records.recorded_at_suffix(entry.recorded_at_ms)
        assert position == self.planner.position
        assert len(self.events()) == position
        rows = self.rows()
        assert rows.keys() == journals.keys()
        assert self.planner.waybills == replay.waybill_count(self.engine) == len(rows)
        for key, journal in journals.items():
            self._check_row(key, records.decode_status(rows[key]), journal, positions[key])

    def _check_row(self, key: bytes, row: StatusRow, journal: Journal, position: int) -> None:
        assert (row.milestone, row.flags, row.last) == (
            journal.milestone,
            journal.flags,
            journal.last,
        )
        assert row.position == position
        assert row.event_count == len(journal.events)
        assert row.first_event_at_ms == journal.events[0][1].occurred_at_ms
        assert row.newest == journal.events[-1][0]
        assert row.facility.decode() == journal.facility
        assert row.updated_at_ms == journal.updated_at_ms
        assert row.last_event == self.timelines.get(key + row.last)
        announced = {
            milestone for milestone, bit in records.MILESTONE_BITS.items() if row.announced & bit
        }
        assert announced == journal.announced
        assert len(row.fingerprints) == records.FINGERPRINT_LENGTH * row.event_count

    def check_checkpoint(self) -> None:
        """The tables on disk have every event up to the checkpoint on disk, counted and stored."""
        checkpoint = replay.checkpoint_of(self.engine)
        assert checkpoint <= replay.last_position(self.engine)
        events = dict(self.engine.scan_all(Table.EVENTS))
        statuses = dict(self.engine.scan_all(Table.STATUS))
        for entry in self.log():
            if entry.position <= checkpoint:
                event = parse_event(entry.event)
                key = status_key(event.waybill_number)
                event_key, stored = replay.event_row(key, entry, event)
                assert events.get(event_key) == stored, (event, checkpoint)
                assert records.status_position(statuses[key]) >= entry.position, (key, checkpoint)
