"""Reads a whole data directory back and says what is wrong with it.

One partition after the other, and of a partition a part of the waybills at a time, so that memory
stays bounded. Changes nothing, and needs no right to: what is found can still be looked at, and
saved. Holds every waybill's status against two tellers that know nothing of
each other: the fold of its timeline, and its entries in the log from the first one on. Nothing here
knows who asks, or how findings are shown.
"""

import heapq
import itertools
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from xxhash import xxh3_64_intdigest

from trackd.domain.fold import fold
from trackd.finding import Finding, Kind, Progress
from trackd.store import records, replay
from trackd.store.at_rest import links_to
from trackd.store.data_directory import DataDirectory
from trackd.store.engine import Engine, EngineOptions, RocksEngine, SharedCache
from trackd.store.errors import DataDamaged, StoreError, WrongData
from trackd.store.events import fold_event, parse_event
from trackd.store.keys import (
    HASH_LENGTH,
    META_IDENTITY,
    Table,
    event_order,
    partition_of,
    position_of,
    split_event_key,
    status_key,
    waybill_of_status_key,
)
from trackd.store.mark import read_mark
from trackd.store.records import LogEntry, StatusRow
from trackd.store.statuses import StatusTable
from trackd.v1.event_pb2 import ScanEvent

# The log is read once for so many waybills; about 500 bytes of memory each.
WAYBILLS_AT_A_TIME = 500_000
_PROGRESS_EVERY = 20_000
_CACHE_BYTES = 32 << 20
_HASHES = 1 << 64
# What comes of bytes that are not what they should be.
_UNREADABLE = (StoreError, struct.error, LookupError, ValueError)

# Parts of a status: its meaning, what else follows from the timeline, and what only the log knows.
_MEANING = ("milestone", "flags", "last")
_OF_TIMELINE = ["course", "event_count", "first_event_at_ms", "newest", "facility", "last_event"]
_OF_LOG = ["announced", "updated_at_ms", "position", "fingerprints"]


Report = Iterator[Finding | Progress]


def verify(data: Path, *, waybills_at_a_time: int = WAYBILLS_AT_A_TIME) -> Report:
    """Verifies the data directory `data`, which no server may have open.

    Yields what is wrong as it is found, and in between how far it got; without a Finding all is
    well. Raises DirectoryInUse, WrongData, DataBehind or StorageFailed.
    """
    if not (data / "manifest.json").exists():
        raise WrongData(f"{data} is not a data directory: it has no manifest.json")
    directory = DataDirectory(data, None, default_count=1, read_only=True)
    try:
        directory.refuse_if_incomplete()
        for number in range(directory.manifest.partition_count):
            yield from _verify_partition(number, directory, waybills_at_a_time)
    finally:
        directory.close()


def _verify_partition(number: int, directory: DataDirectory, waybills_at_a_time: int) -> Report:
    path, acknowledged = directory.partition_path(number), read_mark(directory.mark_path(number))
    if not (path / "CURRENT").exists():
        # A server that died in its first start may have left nothing more.
        if acknowledged:
            lost = f"{acknowledged} was acknowledged, but there are no files"
            yield Finding(number, Kind.BEHIND, f"positions 1 to {acknowledged}", lost)
        return
    with ExitStack() as held:
        links = held.enter_context(links_to(path))
        try:
            engine = RocksEngine(links, EngineOptions(), SharedCache(_CACHE_BYTES), read_only=True)
        except StoreError as error:
            found = Finding(number, Kind.DAMAGED, "files", f"cannot be opened: {error}")
            yield found.seen_through(links, path)
            return
        held.callback(engine.close)
        check = PartitionCheck(
            number,
            engine,
            partition_count=directory.manifest.partition_count,
            identity=f"{directory.manifest.data_set_id}/{number}",
            acknowledged=acknowledged,
            waybills_at_a_time=waybills_at_a_time,
        )
        for item in check.run():
            yield item.seen_through(links, path) if isinstance(item, Finding) else item


@dataclass(slots=True)
class _Told:
    """What the log tells of a waybill: the row after its last entry, and a sum over its events."""

    row: StatusRow | None = None
    content: int = 0
    # Its first entries are not kept any more: only what does not build on them can be judged.
    is_partial: bool = False


class PartitionCheck:
    """The check of one partition, whose engine is open and at rest."""

    def __init__(
        self,
        number: int,
        engine: Engine,
        *,
        partition_count: int,
        identity: str,
        acknowledged: int | None,
        waybills_at_a_time: int,
    ) -> None:
        self._number = number
        self._engine = engine
        self._partition_count = partition_count
        self._identity = identity
        self._acknowledged = acknowledged
        self._waybills_at_a_time = waybills_at_a_time
        self._floor = replay.log_floor(engine)
        self._last_position = 0
        # Whether the log could be read to its end; without it only timelines can be judged.
        self._log_is_whole = True
        self._statuses: StatusTable | None = None
        # Whether every event and status could be read, and how many waybills had events.
        self._tables_are_whole = True
        self._waybills_found = 0

    def run(self) -> Report:
        """Everything that is wrong with the partition."""
        yield from self._identified()
        yield from self._log_blocks()
        yield from self._acknowledged_is_there()
        yield from self._statuses_as_served()
        waybills = replay.waybill_count(self._engine)
        parts = max(1, -(-waybills // self._waybills_at_a_time))
        for part in range(parts):
            first, end = part * _HASHES // parts, (part + 1) * _HASHES // parts
            yield from self._waybills(first, end)
        if self._tables_are_whole and self._waybills_found != waybills:
            message = f"is {waybills}, but {self._waybills_found} waybills have events"
            yield self._finding(Kind.DERIVED, "count of waybills", message)

    def _finding(self, kind: Kind, where: str, message: str) -> Finding:
        return Finding(self._number, kind, where, message)

    def _progress(self, step: str, done: int) -> Progress:
        total = max(self._last_position, done)
        return Progress(self._number, self._partition_count, step, done, total)

    # The log by itself.

    def _identified(self) -> Report:
        stored = self._engine.get(Table.META, META_IDENTITY)
        if stored is not None and stored != self._identity.encode():
            message = f"belongs to {stored.decode(errors='replace')}, not to {self._identity}"
            yield self._finding(Kind.FOREIGN, "partition", message)

    def _log_blocks(self) -> Report:
        self._last_position = self._floor - 1
        try:
            for key, block in self._engine.scan_all(Table.LOG):
                last = position_of(key)
                first = last - records.block_count(block) + 1
                before = self._last_position
                if first != before + 1:
                    kind = "are missing" if first > before + 1 else "are there twice"
                    low, high = sorted((before + 1, first))
                    yield self._finding(Kind.GAP, f"positions {low} to {high - 1}", kind)
                self._last_position = last
        except _UNREADABLE as error:
            yield self._damaged_log(self._last_position, error)

    def _damaged_log(self, after: int, error: Exception) -> Finding:
        self._log_is_whole = False
        message = f"the log cannot be read on: {error}"
        return self._finding(Kind.DAMAGED, f"positions from {after + 1} on", message)

    def _acknowledged_is_there(self) -> Report:
        if self._acknowledged is None and self._last_position:
            message = "the durable mark is missing or damaged: later ones may have been there"
            yield self._finding(Kind.BEHIND, f"positions after {self._last_position}", message)
        elif self._log_is_whole and (self._acknowledged or 0) > self._last_position:
            where = f"positions {self._last_position + 1} to {self._acknowledged}"
            yield self._finding(Kind.BEHIND, where, "were acknowledged and are not there")

    def _statuses_as_served(self) -> Report:
        """What a server would answer: the rows on disk, and the end of the log laid over them."""
        checkpoint = replay.checkpoint_of(self._engine)
        if checkpoint > self._last_position and self._log_is_whole:
            message = f"is {checkpoint}, but the log ends at {self._last_position}"
            yield self._finding(Kind.DERIVED, "status checkpoint", message)
        statuses = StatusTable(
            self._engine, cache_bytes=0, write_back_events=0, checkpoint=checkpoint
        )
        try:
            replay.replay(self._engine, statuses)
        except _UNREADABLE as error:
            if self._log_is_whole:
                yield self._damaged_log(checkpoint, error)
            return
        self._statuses = statuses

    # Waybill by waybill: those whose hash is first or greater and below end.

    def _waybills(self, first: int, end: int) -> Report:
        told: dict[bytes, _Told] = {}
        if self._log_is_whole:
            yield from self._read_log(first, end, told)
        done = 0
        try:
            for key, events, row in self._joined(first, end):
                self._waybills_found += bool(events)
                yield from self._waybill(key, events, row, told.pop(key, None))
                if (done % _PROGRESS_EVERY) + len(events) >= _PROGRESS_EVERY:
                    yield self._progress("events", done)
                done += len(events)
        except _UNREADABLE as error:
            self._tables_are_whole = False
            message = f"events or statuses cannot be read on: {error}"
            yield self._finding(Kind.DAMAGED, f"after {done} events", message)
            return
        for key, entry in told.items():
            if self._log_is_whole and entry.row:
                message = f"the log has {entry.row.event_count} events, the events table none"
                yield self._finding(Kind.MISMATCH, _waybill(key), message)

    def _read_log(self, first: int, end: int, told: dict[bytes, _Told]) -> Report:
        position = 0
        try:
            for block_key, block in self._engine.scan_all(Table.LOG):
                for entry in records.decode_block(position_of(block_key), block):
                    position = entry.position
                    event = parse_event(entry.event)
                    key = status_key(event.waybill_number)
                    if first <= int.from_bytes(key[:HASH_LENGTH], "big") < end:
                        yield from self._tell(key, entry, event, told.setdefault(key, _Told()))
                    if position % _PROGRESS_EVERY == 0:
                        yield self._progress("log", position)
        except _UNREADABLE as error:
            yield self._damaged_log(position, error)

    def _tell(self, key: bytes, entry: LogEntry, event: ScanEvent, told: _Told) -> Report:
        before = told.row or records.NO_STATUS
        said = (entry.event_count - 1, entry.milestone_before, entry.flags_before)
        if told.row is None and self._floor > 1 and entry.event_count > 1:
            told.is_partial = True
        elif said != (before.event_count, before.milestone, before.flags):
            message = f"position {entry.position} does not follow from the entry before it"
            yield self._finding(Kind.DERIVED, _waybill(key), message)
        order = event_order(event.occurred_at_ms, event.code, event.event_id)
        stored = entry.event + records.recorded_at_suffix(entry.recorded_at_ms)
        told.content = (told.content + xxh3_64_intdigest(order + stored)) % _HASHES
        try:
            told.row = replay.row_after(self._engine, before, entry, event, key)
        except DataDamaged as error:
            yield self._finding(Kind.MISMATCH, _waybill(key), str(error))

    def _joined(
        self, first: int, end: int
    ) -> Iterator[tuple[bytes, list[tuple[bytes, bytes]], bytes | None]]:
        """Key, events as (order, bytes), and row on disk of every waybill that has either."""
        start = first.to_bytes(HASH_LENGTH, "big")

        def within(row: tuple[bytes, bytes]) -> bool:
            return int.from_bytes(row[0][:HASH_LENGTH], "big") < end

        stored = itertools.takewhile(within, self._engine.scan_all(Table.EVENTS, start))
        rows = itertools.takewhile(within, self._engine.scan_all(Table.STATUS, start))
        events = ((*split_event_key(key), value) for key, value in stored)
        statuses = ((key, b"", value) for key, value in rows)
        merged = heapq.merge(events, statuses, key=itemgetter(0))
        for key, group in itertools.groupby(merged, itemgetter(0)):
            timeline, row = [], None
            for _, order, value in group:
                if order:
                    timeline.append((order, value))
                else:
                    row = value
            yield key, timeline, row

    def _waybill(
        self, key: bytes, events: list[tuple[bytes, bytes]], row: bytes | None, told: _Told | None
    ) -> Report:
        """Everything that is wrong with one waybill."""
        where = _waybill(key)
        try:
            parsed = [(order, parse_event(value), value) for order, value in events]
            if self._statuses:
                yield from self._written_back(where, row)
                row = self._statuses.rows.get(key, row)
            status = records.decode_status(row) if row else None
        except _UNREADABLE as error:
            yield self._finding(Kind.DAMAGED, where, str(error))
            return
        yield from self._events_in_place(key, parsed)
        if self._log_is_whole:
            content = sum(xxh3_64_intdigest(order + value) for order, value in events) % _HASHES
            yield from self._in_the_log(where, len(events), content, told)
        if not self._statuses:
            return
        if status is None or not events:
            missing = "a status but no events" if status else "events but no status"
            yield self._finding(Kind.STATUS, where, f"has {missing}")
            return
        folded = _folded(parsed)
        yield from self._differences(Kind.STATUS, where, status, folded, _MEANING)
        yield from self._differences(Kind.DERIVED, where, status, folded, _OF_TIMELINE)
        if told and told.row and self._log_is_whole:
            names = ["position"] if told.is_partial else _OF_LOG
            yield from self._differences(Kind.DERIVED, where, status, told.row._asdict(), names)

    def _written_back(self, where: str, row: bytes | None) -> Report:
        """A row that says that it is ahead of the disk is never written to disk."""
        if row and self._statuses:
            dirty_since = records.decode_status(row).dirty_since
            if dirty_since > self._statuses.checkpoint:
                message = f"dirty_since is {dirty_since}, after the status checkpoint"
                yield self._finding(Kind.DERIVED, where, message)

    def _events_in_place(self, key: bytes, events: list[tuple[bytes, ScanEvent, bytes]]) -> Report:
        where, seen = _waybill(key), set()
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

    def _in_the_log(self, where: str, count: int, content: int, told: _Told | None) -> Report:
        if told is None and self._floor > 1:
            return
        logged = told.row.event_count if told and told.row else 0
        if logged != count:
            message = f"the log has {logged} events, the events table {count}"
            yield self._finding(Kind.MISMATCH, where, message)
        elif told and not told.is_partial and told.content != content:
            yield self._finding(Kind.MISMATCH, where, "the log's events are not those of the table")

    def _differences(
        self,
        kind: Kind,
        where: str,
        status: StatusRow,
        expected: dict[str, object],
        names: Sequence[str],
    ) -> Report:
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


def _waybill(key: bytes) -> str:
    try:
        return f"waybill {waybill_of_status_key(key)}"
    except UnicodeDecodeError:
        return f"key {key.hex()}"
