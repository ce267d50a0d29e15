"""One partition: a store, its committer, its reader, its feed. The unit of everything.

A partition has its own directory, its own order of events (positions 1, 2, 3 …) and its own
statuses, and never talks to another one. Reads see every acknowledged scan, and no scan that could
still vanish: what is newer than the durable position is waited for.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from trackd.feed.live import WatchedPartition
from trackd.feed.partition_feed import PartitionFeed
from trackd.feed.retention import KeptLog, LogRetention
from trackd.feed.snapshot import SnapshotScan
from trackd.store import failpoint, rebuild, replay
from trackd.store.commit_figures import CommitFigures
from trackd.store.committer import Committer
from trackd.store.engine_contract import Engine
from trackd.store.errors import DataBehind, StorageFailed, WrongData
from trackd.store.keys import META_IDENTITY, ORDER_LENGTH, Table
from trackd.store.mark import DurableMark
from trackd.store.pages import Page, page_of
from trackd.store.planner import Planner, ScanTuple, Verdict
from trackd.store.records import status_position
from trackd.store.space import SpaceGuard
from trackd.store.stalls import until_taken
from trackd.store.statuses import StatusTable
from trackd.store.timelines import Timelines
from trackd.turns import Turns


@dataclass(frozen=True, slots=True)
class PartitionOptions:
    """The bounds of one partition; see settings.py for what is beyond them."""

    commit_events_max: int
    waybill_events_max: int
    status_cache_bytes: int
    write_back_events: int
    feed_memory_bytes: int = 16 << 20


class TimelinePage(NamedTuple):
    """A part of a waybill's history. `next` is the order to go on after; None on the last page."""

    status: bytes
    events: list[bytes]
    next: bytes | None


class Partition:
    """A partition that is open, on one event loop."""

    def __init__(
        self,
        number: int,
        *,
        path: Path,
        engine: Engine,
        mark: DurableMark,
        statuses: StatusTable,
        timelines: Timelines,
        committer: Committer,
        feed: PartitionFeed,
        replayed_events: int,
    ) -> None:
        self.number = number
        self._path = path
        self.engine = engine
        self.statuses = statuses
        self._timelines = timelines
        self.committer = committer
        self.feed = feed
        self.replayed_events = replayed_events
        self._mark = mark
        self._closed = False

    @classmethod
    def open(
        cls,
        number: int,
        engine: Engine,
        options: PartitionOptions,
        *,
        path: Path,
        mark_path: Path,
        data_set_id: str,
        now_ms: Callable[[], int],
        on_failure: Callable[[StorageFailed], None],
        space: SpaceGuard | None = None,
        turns: Turns | None = None,
        accept_data_loss: bool = False,
    ) -> "Partition":
        """Takes over an open engine and brings its statuses up to date.

        Raises DataBehind if the engine holds less than the mark says was acknowledged (unless
        accept_data_loss: then everything derived is built again), WrongData, DataDamaged or
        StorageFailed.
        """
        mark = DurableMark(mark_path)
        if accept_data_loss:
            rebuild.rebuild(engine, now_ms())
            until_taken(lambda: engine.write([(Table.META, [(META_IDENTITY, None)])]))
        else:
            refuse_if_behind(number, engine, mark.read())
        _check_identity(engine, f"{data_set_id}/{number}")
        engine.flush_wal()
        statuses = _statuses_of(engine, options)
        replayed_events = replay.replay(engine, statuses)
        timelines = Timelines(engine, statuses.ahead)
        feed = _feed_of(engine, timelines, f"{data_set_id}/{number}.", options.feed_memory_bytes)
        mark.reset(feed.newest_position)
        committer = Committer(
            engine,
            _planner_of(engine, statuses, options),
            statuses,
            mark,
            commit_events_max=options.commit_events_max,
            now_ms=now_ms,
            on_failure=on_failure,
            space=space,
            turns=turns,
            on_durable=feed.committed,
        )
        return cls(
            number,
            path=path,
            engine=engine,
            mark=mark,
            statuses=statuses,
            timelines=timelines,
            committer=committer,
            feed=feed,
            replayed_events=replayed_events,
        )

    # Writing.

    def submit(self, scans: Sequence[ScanTuple]) -> asyncio.Future[Verdict]:
        """Commits scans together; see Committer.submit."""
        return self.committer.submit(scans)

    @property
    def queued_events(self) -> int:
        """How many scans wait for their commit."""
        return self.committer.queued_events

    async def room(self, events_max: int) -> None:
        """Returns once fewer than events_max scans wait. Raises StorageFailed."""
        await self.committer.room(events_max)

    # Reading.

    async def reached(self, position: int) -> bool:
        """Returns once all up to position is durable; False if it was never given to anybody.

        Raises StorageFailed.
        """
        if position > self.committer.planned_position:
            return False
        await self.committer.durable(position)
        return True

    async def read_status(self, key: bytes) -> bytes | None:
        """The status row of the waybill with this status key; None if it has no event.

        Raises DataDamaged, StorageFailed.
        """
        row = self.statuses.get(key)
        if row is not None and status_position(row) > self.committer.durable_position:
            await self.committer.durable(status_position(row))
        return row

    async def read_statuses(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The status rows, by status key, of those waybills that have one.

        Raises DataDamaged, StorageFailed.
        """
        wanted = list(keys)
        cached = self.statuses.rows.get_all(wanted)
        rows = {key: row for key, row in zip(wanted, cached, strict=True) if row is not None}
        if len(rows) < len(wanted):
            rows.update(self.statuses.fetch([key for key in wanted if key not in rows]))
        if self.committer.planned_position <= self.committer.durable_position:
            return rows
        # A clean row too may be newer than the last flush: it was written with its latest scan.
        newest = max(map(status_position, rows.values()), default=0)
        if newest > self.committer.durable_position:
            await self.committer.durable(newest)
        return rows

    async def read_timeline(
        self,
        key: bytes,
        *,
        after: bytes | None,
        newest_first: bool,
        limit: int,
        bytes_max: int,
    ) -> TimelinePage | None:
        """A page of a waybill's history, from behind the order `after`; None if it has no event.

        key: the waybill's status key. The page ends after limit events, or before the event that
        would make it larger than bytes_max, but holds at least one. Raises DataDamaged,
        StorageFailed.
        """
        row = self.statuses.get(key)
        if row is None:
            return None
        if newest_first:
            # The engine only scans forward, and a waybill's events are bounded.
            rows = list(self._timelines.rows(key))
            found = (row for row in reversed(rows) if after is None or row[0] < key + after)
            page = page_of(found, rows_max=limit, bytes_max=bytes_max)
        else:
            start = b"" if after is None else key + after + b"\0"
            page = self._timelines.page(key, start, rows_max=limit, bytes_max=bytes_max)
        # Waited for after the scan, so that the scan holds nothing that is not waited for.
        await self.committer.durable(status_position(row))
        return _timeline_page(row, page)

    # Both ways of reading at once give None where something would have to be waited for, or where
    # there is nothing; the ways above say which. They raise DataDamaged.

    def status_now(self, key: bytes) -> bytes | None:
        """The status row of a waybill, if it is durable."""
        row = self.statuses.get(key)
        if row is None or status_position(row) > self.committer.durable_position:
            return None
        return row

    def timeline_now(self, key: bytes, *, limit: int, bytes_max: int) -> TimelinePage | None:
        """The first page of a waybill's history, if all of it is durable."""
        row = self.status_now(key)
        if row is None:
            return None
        # The row counts every event that was planned, so all that is read is durable, too.
        page = self._timelines.page(key, rows_max=limit, bytes_max=bytes_max)
        return _timeline_page(row, page)

    def watched(self) -> WatchedPartition:
        """What a watch of its changes needs."""

        def snapshot(after: bytes) -> SnapshotScan:
            return SnapshotScan(self.engine, self.statuses, self.feed.source, after=after)

        return WatchedPartition(self.number, self.feed, snapshot, self.committer.durable)

    def retention(self, kept: KeptLog) -> LogRetention:
        """What trims its log."""

        async def write_back(position: int) -> None:
            committer = self.committer
            while self.statuses.written_position < position and not committer.space_is_low:
                if not committer.write_back():
                    break
                await asyncio.sleep(0)
            if not committer.space_is_low:
                await committer.keep()

        return LogRetention(self.engine, self.feed, self.statuses, kept, write_back=write_back)

    def bytes_on_disk(self) -> int:
        """The size of the partition's files. Blocks: call it from a thread."""
        size = 0
        for file in self._path.iterdir():
            with suppress(FileNotFoundError):  # a compaction may have deleted it by now
                size += file.stat().st_size
        return size

    # What it shows of itself; may be asked from another thread.

    @property
    def counts(self) -> CommitFigures:
        """What the committer counts."""
        return self.committer.figures

    def gauges(self) -> dict[str, float]:
        """The figures of this moment, by name."""
        if self._closed:
            return {}
        return {
            "queued_events": self.committer.queued_events,
            "waybills": self.committer.waybills,
            "durable_position": self.committer.durable_position,
            "planned_position": self.committer.planned_position,
            "status_checkpoint": self.statuses.checkpoint,
            "log_oldest_position": self.feed.oldest_position,
            "log_bytes": self.feed.log_bytes,
            "feed_memory_bytes": self.feed.memory_bytes,
            "dirty_statuses": self.statuses.dirty_count,
            "ahead_events": self.statuses.ahead.count,
            "ahead_bytes": self.statuses.ahead.size,
            "status_cache_bytes": self.statuses.cached_bytes,
            **{f"engine_{name}": value for name, value in self.engine.figures().items()},
        }

    # The end.

    async def sync_mark(self) -> None:
        """Makes the durable mark itself durable. Raises StorageFailed."""
        await asyncio.to_thread(self._mark.sync)

    async def close(self, *, write_back: bool = True) -> None:
        """Commits what waits, writes back the statuses and closes the files.

        write_back: whether to; the next start makes from the log what is not written back. Raises
        StorageFailed.
        """
        if write_back:
            await self.committer.checkpoint()
        else:
            await self.committer.drain()
        failpoint.reach("in_shutdown")
        self._closed = True
        await self.committer.close()
        await asyncio.to_thread(self.engine.close)
        await asyncio.to_thread(self._mark.close)


def _timeline_page(row: bytes, page: Page) -> TimelinePage:
    values, last_key = page
    return TimelinePage(row, values, None if last_key is None else last_key[-ORDER_LENGTH:])


def refuse_if_behind(number: int, engine: Engine, acknowledged: int | None) -> None:
    """Raises DataBehind if a partition's engine holds less than was acknowledged.

    acknowledged: what its mark says; None if the mark is missing or damaged.
    """
    held = replay.last_position(engine)
    if acknowledged is None and held:
        raise DataBehind(
            f"partition {number} holds positions up to {held}, but its durable mark is missing or"
            " damaged: nobody knows whether later ones were acknowledged"
        )
    if acknowledged is not None and held < acknowledged:
        raise DataBehind(
            f"partition {number} holds positions up to {held}, but {acknowledged} was acknowledged:"
            f" positions {held + 1} to {acknowledged} are lost"
        )


def _statuses_of(engine: Engine, options: PartitionOptions) -> StatusTable:
    """The statuses as the tables of an engine have them."""
    return StatusTable(
        engine,
        cache_bytes=options.status_cache_bytes,
        write_back_events=options.write_back_events,
        checkpoint=replay.checkpoint_of(engine),
        presized=True,
    )


def _planner_of(engine: Engine, statuses: StatusTable, options: PartitionOptions) -> Planner:
    """Who goes on behind the log that an engine holds."""
    return Planner(
        engine,
        statuses,
        position=replay.last_position(engine),
        recorded_at_ms=replay.last_recorded_at_ms(engine),
        waybills=replay.waybill_count(engine),
        waybill_events_max=options.waybill_events_max,
    )


def _feed_of(
    engine: Engine, timelines: Timelines, position_prefix: str, memory_bytes: int
) -> PartitionFeed:
    """The feed of everything that an engine holds, which is durable."""
    return PartitionFeed(
        engine,
        timelines.get,
        position_prefix=position_prefix,
        oldest_position=replay.log_floor(engine),
        newest_position=replay.last_position(engine),
        memory_bytes=memory_bytes,
    )


def _check_identity(engine: Engine, identity: str) -> None:
    stored = engine.get(Table.META, META_IDENTITY)
    if stored is None:
        rows = [(META_IDENTITY, identity.encode())]
        until_taken(lambda: engine.write([(Table.META, rows)]))
    elif stored != identity.encode():
        raise WrongData(
            f"the partition belongs to {stored.decode()}, not to {identity}; if a start with"
            " --unsafe-accept-data-loss was interrupted, start with it once more"
        )
