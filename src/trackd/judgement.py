"""What is wrong with one waybill, judged from all that is kept of it.

Its status is held against two tellers that know nothing of each other: the fold of its timeline,
and its entries in the log from the first one on. Knows no table and no file: verify.py reads.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from trackd.domain.fold import fold
from trackd.finding import Finding, Kind
from trackd.store import records, replay
from trackd.store.errors import DataDamaged, StoreError
from trackd.store.events import fold_event, parse_event
from trackd.store.keys import (
    event_order,
    partition_of,
    split_event_key,
    status_key,
    waybill_of_status_key,
)
from trackd.store.records import LogEntry, StatusRow
from trackd.v1.event_pb2 import ScanEvent

# What comes of bytes that are not what they should be.
UNREADABLE = (StoreError, struct.error, LookupError, ValueError)

_HASHES = 1 << 64
# Parts of a status: its meaning, what else follows from the timeline, and what only the log knows.
_MEANING = ("milestone", "flags", "last")
_OF_TIMELINE = ("course", "event_count", "first_event_at_ms", "newest", "facility", "last_event")
_OF_LOG = ("announced", "updated_at_ms", "position", "fingerprints")


@dataclass(slots=True)
class Told:
    """What the log tells of a waybill: the row after its last entry, and a sum over its events."""

    row: StatusRow | None = None
    content: int = 0
    # Its first entries are not kept any more: only what does not build on them can be judged.
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class Waybill:
    """A waybill as it is served: its events as (order, bytes), and its status row."""

    key: bytes
    events: list[tuple[bytes, bytes]]
    row: bytes | None


class Judge:
    """Judges the waybills of one partition."""

    def __init__(self, number: int, *, partition_count: int, log_floor: int) -> None:
        """log_floor: the first position that the log has."""
        self._number = number
        self._partition_count = partition_count
        self._log_floor = log_floor

    def _finding(self, kind: Kind, where: str, message: str) -> Finding:
        return Finding(self._number, kind, where, message)

    def entry(
        self,
        key: bytes,
        entry: LogEntry,
        event: ScanEvent,
        told: Told,
        stored_event: Callable[[bytes], bytes | None],
    ) -> Iterator[Finding]:
        """What is wrong with a waybill's next entry in the log, which holds event; told goes on.

        stored_event: looks an event up by its key.
        """
        before = told.row or records.NO_STATUS
        said = (entry.event_count - 1, entry.milestone_before, entry.flags_before)
        if told.row is None and self._log_floor > 1 and entry.event_count > 1:
            told.is_partial = True
        elif said != (before.event_count, before.milestone, before.flags):
            message = f"position {entry.position} does not follow from the entry before it"
            yield self._finding(Kind.DERIVED, name_of(key), message)
        event_key, stored = replay.event_row(key, entry, event)
        content = xxh3_64_intdigest(split_event_key(event_key)[1] + stored)
        told.content = (told.content + content) % _HASHES
        try:
            told.row = replay.row_after(stored_event, before, entry, event, key)
        except DataDamaged as error:
            yield self._finding(Kind.MISMATCH, name_of(key), str(error))

    def waybill(
        self, waybill: Waybill, told: Told | None, *, by_log: bool, by_status: bool
    ) -> Iterator[Finding]:
        """Everything that is wrong with a waybill; told: what the log tells of it.

        by_log, by_status: whether the log, and the statuses, could be read as far as there are any.
        """
        where = name_of(waybill.key)
        try:
            parsed = [(order, parse_event(value), value) for order, value in waybill.events]
            status = records.decode_status(waybill.row) if waybill.row else None
        except UNREADABLE as error:
            yield self._finding(Kind.DAMAGED, where, str(error))
            return
        yield from self._events_in_place(waybill.key, parsed)
        if by_log:
            yield from self._in_the_log(where, waybill.events, told)
        if not by_status:
            return
        if status is None or not waybill.events:
            missing = "a status but no events" if status else "events but no status"
            yield self._finding(Kind.STATUS, where, f"has {missing}")
            return
        folded = _folded(parsed)
        yield from self._differences(Kind.STATUS, where, status, folded, _MEANING)
        yield from self._differences(Kind.DERIVED, where, status, folded, _OF_TIMELINE)
        if told and told.row and by_log:
            names = ("position",) if told.is_partial else _OF_LOG
            yield from self._differences(Kind.DERIVED, where, status, told.row._asdict(), names)

    def _events_in_place(
        self, key: bytes, events: list[tuple[bytes, ScanEvent, bytes]]
    ) -> Iterator[Finding]:
        where, seen = name_of(key), set()
        if events and partition_of(key, self._partition_count) != self._number:
            owner = partition_of(key, self._partition_count)
            yield self._finding(Kind.FOREIGN, where, f"belongs to partition {owner}")
        for order, event, _ in events:
            own = event_order(event.occurred_at_ms, event.code, event.event_id)
            if (status_key(event.waybill_number), own) != (key, order):
                message = f"event {event.event_id!r} stands under a key that is not its own"
                yield self._finding(Kind.FOREIGN, where, message)
            if event.event_id in seen:
                yield self._finding(Kind.REPEAT, where, f"has event {event.event_id!r} twice")
            seen.add(event.event_id)

    def _in_the_log(
        self, where: str, events: list[tuple[bytes, bytes]], told: Told | None
    ) -> Iterator[Finding]:
        if told is None and self._log_floor > 1:
            return
        logged = told.row.event_count if told and told.row else 0
        if logged != len(events):
            message = f"the log has {logged} events, the events table {len(events)}"
            yield self._finding(Kind.MISMATCH, where, message)
        elif told and not told.is_partial:
            content = sum(xxh3_64_intdigest(order + value) for order, value in events) % _HASHES
            if told.content != content:
                message = "the log's events are not those of the table"
                yield self._finding(Kind.MISMATCH, where, message)

    def _differences(
        self,
        kind: Kind,
        where: str,
        status: StatusRow,
        expected: dict[str, object],
        names: Sequence[str],
    ) -> Iterator[Finding]:
        for name in names:
            if getattr(status, name) != expected[name]:
                message = f"{name} is {getattr(status, name)!r}, should be {expected[name]!r}"
                yield self._finding(kind, where, message)


def _folded(events: list[tuple[bytes, ScanEvent, bytes]]) -> dict[str, object]:
    """The parts of a status that follow from a timeline, by their names in StatusRow."""
    folded = fold([fold_event(order, event) for order, event, _ in events])
    event, value = next((event, value) for order, event, value in events if order == folded.last)
    return {
        "milestone": folded.milestone,
        "flags": folded.flags,
        "last": folded.last,
        "course": int(folded.course),
        "event_count": len(events),
        "first_event_at_ms": min(event.occurred_at_ms for _, event, _ in events),
        "newest": events[-1][0],
        "facility": event.facility_code.encode(),
        "last_event": value,
    }


def name_of(key: bytes) -> str:
    """A waybill in words, by its status key, whatever stands there."""
    try:
        return f"waybill {waybill_of_status_key(key)}"
    except UnicodeDecodeError:
        return f"key {key.hex()}"
