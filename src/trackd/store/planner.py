"""Plan: what a commit will write, decided without I/O but reads.

The planner is the hot path of trackd: for every scan it recognises repeats, folds the scan into its
waybill's status, and encodes the event row, the log entry and the status row. It is narrower than
the rest is elegant, because a microsecond here is a tenth of the machine; the figures are in
docs/ARCHITECTURE.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from xxhash import xxh3_64_digest

from trackd import compiled
from trackd.domain.fold import EVENTFUL_STEPS, Course, FoldEvent, fold
from trackd.domain.lifecycle import STEP_BITS, TRANSITIONS
from trackd.domain.validation import Fault
from trackd.domain.vocabulary import EventCode, Rejection
from trackd.store import records
from trackd.store.engine_contract import Engine, Rows
from trackd.store.events import fold_event, is_same_scan, parse_event
from trackd.store.keys import (
    ID_LENGTH,
    META_STATUS_CHECKPOINT,
    META_WAYBILLS,
    Table,
    pack_order,
    position_key,
    split_event_key,
)
from trackd.store.statuses import StatusTable
from trackd.store.timelines import Timelines

ScanTuple = tuple[int, bytes, str, int, int, int, str, int, bytes]
"""A validated scan: index in its batch, status key of its waybill, event id, code, step
(lifecycle.step_of), occurred_at_ms, facility code, mask of the flags it clears by name
(events.clears_of), and the event's wire bytes without server fields. A plain tuple: a named one
costs four times as much to make, and one is made per scan."""


@dataclass(slots=True)
class Verdict:
    """What became of one submission's scans. `rejections` are (index, fault).

    position: a read that is as fresh as this sees every scan of it, repeats included.
    """

    accepted: int = 0
    duplicates: int = 0
    rejections: list[tuple[int, Fault]] = field(default_factory=list)
    position: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A commit to be written: all of it or nothing."""

    batch: list[tuple[Table, Rows]]
    verdicts: list[Verdict]
    last_position: int
    events: int
    log_block: bytes = b""


_compiled = compiled.load("trackd.store._planning")

NOTHING = records.encode_status(records.NO_STATUS)
_VOIDED = int(Course.VOIDED)
_PLAIN = int(Course.PLAIN)
_EVENTFUL = int(Course.EVENTFUL)
_EVENT_VOIDED = int(EventCode.EVENT_VOIDED)
_HEAD_LENGTH = records.STATUS_HEAD.size
_unpack_head = records.STATUS_HEAD.unpack_from
_pack_head = records.STATUS_HEAD.pack
_pack_entry = records.ENTRY_HEAD.pack
_CHANGED = records.CHANGED
_FIRST_OCCURRENCE = records.FIRST_OCCURRENCE
_CORRECTION = records.CORRECTION
_LAST_IS_THIS = records.LAST_IS_THIS
_LAST_IS_ANOTHER = records.LAST_IS_ANOTHER
_BIT = records.MILESTONE_BITS


class Planner:
    """Decides what a partition's next commit writes.

    One caller, one plan at a time; the plans are written in their order.
    """

    def __init__(
        self,
        engine: Engine,
        statuses: StatusTable,
        *,
        position: int,
        recorded_at_ms: int,
        waybill_events_max: int,
        waybills: int = 0,
    ) -> None:
        self._engine = engine
        self._statuses = statuses
        self._timelines = Timelines(engine, statuses.ahead)
        self._waybill_events_max = waybill_events_max
        self._missing = _compiled.missing if _compiled else _missing
        self.plan_scans = partial(_compiled.plan_scans, self) if _compiled else self._plan_scans
        self.position = position
        # How many waybills have an event.
        self.waybills = waybills
        self._recorded_at_ms = recorded_at_ms
        # Of the plan being made: the event rows, and the status rows by key.
        self._events: list[tuple[bytes, bytes]] = []
        self._changed: dict[bytes, bytes] = {}
        # Of those, how many were not ahead of the disk before, and how many are their waybill's
        # first.
        self._dirtied = 0
        self._new_waybills = 0
        # What slow paths have looked up for it: its events by waybill and order, as far as they are
        # indexed; stored timelines; and events parsed for the fold.
        self._indexed = 0
        self._by_waybill: dict[bytes, dict[bytes, bytes]] = {}
        self._stored: dict[bytes, dict[bytes, bytes]] = {}
        self._parsed: dict[bytes, dict[bytes, FoldEvent]] = {}

    def plan(self, submissions: Sequence[Sequence[ScanTuple]], now_ms: int) -> Plan:
        """Plans one commit for the scans of submissions, in order.

        Raises DataDamaged, and then planned nothing.
        """
        # A clock that goes back must not make recorded times go back.
        recorded_at_ms = max(now_ms, self._recorded_at_ms)
        self._forget()
        rows = [self._statuses.rows.get_each(scans) for scans in submissions]
        missing = self._missing(submissions, rows)
        known = self._statuses.fetch(missing) if missing else {}
        entries: list[bytes] = []
        verdicts = []
        for scans, found in zip(submissions, rows, strict=True):
            verdict = Verdict()
            self.plan_scans(scans, verdict, found, known, entries, recorded_at_ms)
            verdicts.append(verdict)
        checkpoint = self._checkpoint_row()
        # From here on nothing can fail.
        for verdict in verdicts:
            verdict.position = self.position + len(entries)
        self._recorded_at_ms = recorded_at_ms
        batch: list[tuple[Table, Rows]] = []
        block = b""
        if entries:
            self.position += len(entries)
            head = records.BLOCK_HEAD.pack(records.FORMAT_VERSION, recorded_at_ms, len(entries))
            block = head + b"".join(entries)
            batch.append((Table.LOG, [(position_key(self.position), block)]))
            self._statuses.put(self._changed, self._dirtied, self._events)
            if self._new_waybills:
                self.waybills += self._new_waybills
                batch.append((Table.META, [(META_WAYBILLS, position_key(self.waybills))]))
        batch += checkpoint
        return Plan(batch, verdicts, self.position, len(entries), block)

    def plan_checkpoint(self) -> Plan | None:
        """Plans to write how far the tables are on disk; None when the log says it already."""
        row = self._checkpoint_row()
        return Plan(row, [], self.position, 0) if row else None

    def _checkpoint_row(self) -> list[tuple[Table, Rows]]:
        """The checkpoint, if it has moved on."""
        if not self._statuses.kept(self._engine.kept_unlogged()):
            return []
        return [(Table.META, [(META_STATUS_CHECKPOINT, position_key(self._statuses.checkpoint))])]

    def _plan_scans(  # noqa: PLR0912, PLR0915, PLR0917 (hot: a call per scan costs too much)
        self,
        scans: Sequence[ScanTuple],
        verdict: Verdict,
        rows: Sequence[bytes | None],
        known: Mapping[bytes, bytes],
        entries: list[bytes],
        recorded_at_ms: int,
    ) -> None:
        """Plans one submission's scans, each with the row that is in memory of its waybill.

        known: rows that were not. entries: those of the log block, to which it adds.
        `_planning.plan_scans` is the same, compiled.
        """
        suffix = records.recorded_at_suffix(recorded_at_ms)
        events, changed, count_max = self._events, self._changed, self._waybill_events_max
        position = self.position + len(entries)
        written = self._statuses.ahead.written
        for scan, cached_row in zip(scans, rows, strict=True):
            index, key, event_id, code, step, occurred_at_ms, facility, clears, wire = scan
            row = changed.get(key) or cached_row or known.get(key) or NOTHING
            (_, before, flags_before, announced, course, count, first_at, newest, last, updated_at,
             row_position, place_length, last_length) = _unpack_head(row)  # fmt: skip
            place_end = _HEAD_LENGTH + place_length
            last_end = place_end + last_length
            if len(row) < last_end:
                raise records.UnreadableRecord("status row ends within what its head names")
            place = place_before = row[_HEAD_LENGTH:place_end]
            fingerprints = row[last_end:]
            id_hash = xxh3_64_digest(event_id.encode())
            order = pack_order(occurred_at_ms, code, id_hash)
            may_repeat = id_hash[:4] in fingerprints
            if (may_repeat or count >= count_max) and self._is_no_news(
                verdict,
                key=key,
                order=order,
                index=index,
                event_id=event_id,
                wire=wire,
                may_repeat=may_repeat,
                count=count,
            ):
                continue
            stored = wire + suffix
            events.append((key + order, stored))
            milestone, flags, marks, last_before = before, flags_before, 0, last
            if order > newest and course != _VOIDED and step != _EVENT_VOIDED:
                # The usual case: the newest event so far is one row of the table of life.
                milestone, keeps, raises, moves, eventful = TRANSITIONS[before << STEP_BITS | step]
                flags = (flags & keeps | raises) & ~clears
                course = _EVENTFUL if eventful else course
                newest = order
                if moves:
                    last, last_event, place = order, stored, facility.encode()
                else:
                    last_event = row[place_end:last_end]
            elif course == _PLAIN and step not in EVENTFUL_STEPS:
                # Late, on a journey on which nothing has happened: it moves nothing.
                last_event = row[place_end:last_end]
            else:
                milestone, flags, course, newest, last, place, last_event = self._refold(key)
                marks = _CORRECTION if step == _EVENT_VOIDED else 0
            if milestone != before or flags != flags_before or place != place_before:
                updated_at = recorded_at_ms
                marks |= _CHANGED
                if milestone != before and not announced & _BIT[milestone]:
                    marks |= _FIRST_OCCURRENCE
                announced |= _BIT[milestone]
            if marks & _CHANGED or last != last_before:
                marks |= _LAST_IS_THIS if last == order else _LAST_IS_ANOTHER
            if row_position <= written[key[0] << 8 | key[1]]:  # ahead.slot_of
                self._dirtied += 1
                self._new_waybills += not count
            count += 1
            if occurred_at_ms < first_at:  # noqa: PLR1730 (min() takes three times as long)
                first_at = occurred_at_ms
            position += 1
            marks |= course << records.COURSE_SHIFT
            entry = _pack_entry(
                len(wire), marks, before, milestone, flags_before, flags, count, first_at
            )
            entries.append(entry + last + wire if marks & _LAST_IS_ANOTHER else entry + wire)
            head = _pack_head(
                1, milestone, flags, announced, course, count, first_at, newest, last,
                updated_at or recorded_at_ms, position, len(place), len(last_event),
            )  # fmt: skip
            changed[key] = head + place + last_event + fingerprints + id_hash[:4]
            verdict.accepted += 1

    def _is_no_news(
        self,
        verdict: Verdict,
        *,
        key: bytes,
        order: bytes,
        index: int,
        event_id: str,
        wire: bytes,
        may_repeat: bool,
        count: int,
    ) -> bool:
        """Whether a scan is a repeat, a conflict or one too many; counted in the verdict if so.

        may_repeat: the waybill may have an event of this id. If not, nothing is looked up: a
        waybill that is full must not cost more than one that is not.
        """
        earlier = self._earlier(key, order) if may_repeat else None
        if earlier is not None and is_same_scan(earlier, wire):
            verdict.duplicates += 1
            return True
        if earlier is not None:
            message = f"the waybill has an event {event_id!r} with other content; the first stays"
            fault = Fault(Rejection.CONFLICT, "event_id", message)
        elif count >= self._waybill_events_max:
            message = f"the waybill has {count} events, at most {self._waybill_events_max}"
            fault = Fault(Rejection.INVALID_FIELD, "waybill_number", message)
        else:
            return False
        verdict.rejections.append((index, fault))
        return True

    # The slow paths. What they look up is kept for the rest of the plan: a thousand late scans of
    # one waybill must not read and parse its timeline a thousand times.

    def _earlier(self, key: bytes, order: bytes) -> bytes | None:
        """The waybill's event with the id of the one at order; None if it has none."""
        same = self._pending(key).get(order) or self._timelines.get(key + order)
        if same is not None:
            return same
        # Another time or code under the same id, or only the same four bytes of its hash.
        for earlier, value in self._timeline(key).items():
            if earlier[-ID_LENGTH:] == order[-ID_LENGTH:]:
                return value
        return None

    def _pending(self, key: bytes) -> dict[bytes, bytes]:
        """The waybill's events in the plan being made, by order."""
        for event_key, value in self._events[self._indexed :]:
            waybill, order = split_event_key(event_key)
            self._by_waybill.setdefault(waybill, {})[order] = value
        self._indexed = len(self._events)
        return self._by_waybill.get(key, {})

    def _timeline(self, key: bytes) -> dict[bytes, bytes]:
        """A waybill's events by order, those of the plan being made included."""
        stored = self._stored.get(key)
        if stored is None:
            rows = self._timelines.rows(key)
            stored = {split_event_key(event_key)[1]: value for event_key, value in rows}
            self._stored[key] = stored
        return stored | self._pending(key)

    def _refold(self, key: bytes) -> tuple[int, int, int, bytes, bytes, bytes, bytes]:
        """Folds a waybill's timeline: milestone, flags, course, newest, last, place, last_event."""
        timeline = self._timeline(key)
        orders = sorted(timeline)
        parsed = self._parsed.setdefault(key, {})
        for order in orders:
            if order not in parsed:
                parsed[order] = fold_event(order, parse_event(timeline[order]))
        folded = fold([parsed[order] for order in orders])
        value = timeline[folded.last]
        place = parse_event(value).facility_code.encode()
        course = int(folded.course)
        return folded.milestone, folded.flags, course, orders[-1], folded.last, place, value

    def _forget(self) -> None:
        """Nothing is known of the next plan yet."""
        self._events = []
        self._changed = {}
        self._dirtied = 0
        self._new_waybills = 0
        self._indexed = 0
        self._by_waybill = {}
        self._stored = {}
        self._parsed = {}


def _missing(
    submissions: Sequence[Sequence[ScanTuple]], rows: Sequence[Sequence[bytes | None]]
) -> dict[bytes, None]:
    """The keys of those scans that have no row in memory, each once."""
    return {
        scan[1]: None
        for scans, found in zip(submissions, rows, strict=True)
        for scan, row in zip(scans, found, strict=True)
        if row is None
    }
