"""Reads a whole data directory back and says what is wrong with it.

One partition after the other, and of a partition a part of the waybills at a time, so that memory
stays bounded. Changes nothing, and needs no right to: what is found can still be looked at, and
saved. What a waybill must be is judged in judgement.py. Nothing here knows who asks, or how
findings are shown.
"""

import heapq
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path

from trackd.finding import Finding, Kind, Progress
from trackd.judgement import UNREADABLE, Judge, Told, Waybill, name_of
from trackd.store import records, replay
from trackd.store.ahead import SLOT_BITS, SLOTS, slot_of
from trackd.store.at_rest import links_to
from trackd.store.data_directory import DataDirectory
from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.engine_contract import Engine
from trackd.store.errors import StoreError, WrongData
from trackd.store.events import parse_event
from trackd.store.keys import (
    HASH_LENGTH,
    META_IDENTITY,
    Table,
    position_of,
    split_event_key,
    status_key,
)
from trackd.store.mark import read_mark
from trackd.store.pages import Row
from trackd.store.statuses import StatusTable
from trackd.store.timelines import Timelines

# The log is read once for so many waybills; about 500 bytes of memory each.
WAYBILLS_AT_A_TIME = 500_000
_PROGRESS_EVERY = 20_000
_CACHE_BYTES = 32 << 20
_HASHES = 1 << 64

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
        self._judge = Judge(number, partition_count=partition_count, log_floor=self._floor)
        self._last_position = 0
        # Whether the log could be read to its end; without it only timelines can be judged.
        self._log_is_whole = True
        self._statuses: StatusTable | None = None
        self._timelines: Timelines
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
        except UNREADABLE as error:
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
            self._engine, cache_bytes=0, write_back_events=1, checkpoint=checkpoint
        )
        self._timelines = Timelines(self._engine, statuses.ahead)
        try:
            replay.replay(self._engine, statuses)
        except UNREADABLE as error:
            if self._log_is_whole:
                yield self._damaged_log(checkpoint, error)
            return
        self._statuses = statuses

    # Waybill by waybill: those whose hash is first or greater and below end.

    def _waybills(self, first: int, end: int) -> Report:
        told: dict[bytes, Told] = {}
        if self._log_is_whole:
            yield from self._read_log(first, end, told)
        done = 0
        try:
            for waybill in self._joined(first, end):
                self._waybills_found += bool(waybill.events)
                yield from self._judge.waybill(
                    waybill,
                    told.pop(waybill.key, None),
                    by_log=self._log_is_whole,
                    by_status=self._statuses is not None,
                )
                if (done % _PROGRESS_EVERY) + len(waybill.events) >= _PROGRESS_EVERY:
                    yield self._progress("events", done)
                done += len(waybill.events)
        except UNREADABLE as error:
            self._tables_are_whole = False
            message = f"events or statuses cannot be read on: {error}"
            yield self._finding(Kind.DAMAGED, f"after {done} events", message)
            return
        for key, entry in told.items():
            if self._log_is_whole and entry.row:
                message = f"the log has {entry.row.event_count} events, the events table none"
                yield self._finding(Kind.MISMATCH, name_of(key), message)

    def _read_log(self, first: int, end: int, told: dict[bytes, Told]) -> Report:
        position = 0
        try:
            for block_key, block in self._engine.scan_all(Table.LOG):
                for entry in records.decode_block(position_of(block_key), block):
                    position = entry.position
                    event = parse_event(entry.event)
                    key = status_key(event.waybill_number)
                    if first <= int.from_bytes(key[:HASH_LENGTH], "big") < end:
                        mine = told.setdefault(key, Told())
                        yield from self._judge.entry(key, entry, event, mine, self._timelines.get)
                    if position % _PROGRESS_EVERY == 0:
                        yield self._progress("log", position)
        except UNREADABLE as error:
            yield self._damaged_log(position, error)

    def _joined(self, first: int, end: int) -> Iterator[Waybill]:
        """Every waybill that has events or a status, as they are served, from the log as well."""
        start = first.to_bytes(HASH_LENGTH, "big")

        def within(row: tuple[bytes, bytes]) -> bool:
            return int.from_bytes(row[0][:HASH_LENGTH], "big") < end

        table = itertools.takewhile(within, self._engine.scan_all(Table.EVENTS, start))
        # What is in both is the same; if not, it counts twice, and the log has it once.
        stored = (row for row, _ in itertools.groupby(heapq.merge(table, self._ahead(first, end))))
        rows = itertools.takewhile(within, self._engine.scan_all(Table.STATUS, start))
        events = ((*split_event_key(key), value) for key, value in stored)
        statuses = ((key, b"", value) for key, value in rows)
        both = heapq.merge(events, statuses, key=itemgetter(0))
        for key, group in itertools.groupby(both, itemgetter(0)):
            timeline, row = [], None
            for _, order, value in group:
                if order:
                    timeline.append((order, value))
                else:
                    row = value
            if self._statuses:
                row = self._statuses.rows.get(key, row)
            yield Waybill(key, timeline, row)

    def _ahead(self, first: int, end: int) -> Iterator[Row]:
        """The events that only the log has yet, of waybills whose hash is in that range."""
        slot = slot_of(first.to_bytes(HASH_LENGTH, "big"))
        while self._statuses and slot < SLOTS:
            rows, _, slot = self._statuses.ahead.take(slot, 1, 0)
            for row in rows:
                if first <= int.from_bytes(row[0][:HASH_LENGTH], "big") < end:
                    yield row
            if slot << (64 - SLOT_BITS) >= end:
                break
