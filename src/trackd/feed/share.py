"""One subscription in one partition, with its I/O: reads the feed, saves what its lanes decide.

The lanes decide and this acts: a run of the feed in, rows out. What consumers said is in the log
of the engine within SAVE_DELAY_S and a commit, so a killed process forgets that much at most; the
rows of one save are written together, so what a start finds is one consistent state.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from trackd.feed.filters import ALL, Filter
from trackd.feed.lane import Item, LaneBounds, LaneRules, StoredChange
from trackd.feed.lanes import Lanes
from trackd.feed.partition_feed import PartitionFeed, PositionExpired
from trackd.feed.progress import Progress
from trackd.feed.subscription_rows import (
    StoredWire,
    decode_change,
    decode_cursor,
    encode_change,
    encode_cursor,
)
from trackd.store import failpoint
from trackd.store.committer import Committer
from trackd.store.engine import Engine, Rows
from trackd.store.errors import DataDamaged
from trackd.store.keys import (
    SubscriptionRow,
    Table,
    split_subscription_key,
    subscription_key,
    subscription_prefix,
)

# Entries of the log that are looked at in one go: about a millisecond.
READ_ENTRIES = 512
# How long acknowledgements are collected before they are written.
SAVE_DELAY_S = 0.015
# How often a cursor is written that only read on: a restart then reads so much again.
IDLE_SAVE_INTERVAL_S = 1.0
# Rows that are deleted in one batch.
_DELETED_AT_ONCE = 1_000

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Home:
    """A partition, as far as subscriptions know one."""

    number: int
    feed: PartitionFeed
    engine: Engine
    committer: Committer


class Share:
    """See above. Only the thread of the partition's event loop may call it."""

    def __init__(
        self,
        home: Home,
        subscription_id: bytes,
        rules: LaneRules,
        bounds: LaneBounds,
        *,
        start: int,
        now_ms: Callable[[], int],
    ) -> None:
        """Reads what was saved; without anything, begins after the position `start`.

        Raises DataDamaged.
        """
        self.home = home
        self._id = subscription_id
        self._now_ms = now_ms
        # Set by whoever changes something that is to be saved soon.
        self.unsaved = asyncio.Event()
        self.expired = 0
        self._recorded_at_ms = 0
        saved = home.engine.get(Table.SUBSCRIPTIONS, self._key(SubscriptionRow.CURSOR))
        done: list[int] = []
        if saved is not None:
            start, done, self.expired = decode_cursor(saved)
        self._saved_cursor = start if saved is not None else -1
        parked = sum(1 for _ in self._rows(SubscriptionRow.PARKED))
        self.lanes = Lanes(rules, bounds, Progress(start, done), parked=parked)
        kept = (
            decode_change(position, row)[0] for position, row in self._rows(SubscriptionRow.KEPT)
        )
        self.lanes.restore(kept, now_ms())

    def _key(self, kind: SubscriptionRow, position: int = 0) -> bytes:
        return subscription_key(self._id, kind, position)

    def _rows(self, kind: SubscriptionRow, after: int = -1) -> Iterator[tuple[int, bytes]]:
        prefix = subscription_prefix(self._id, kind)
        start = self._key(kind, after + 1)
        for key, row in self.home.engine.scan_prefix(Table.SUBSCRIPTIONS, prefix, start):
            yield split_subscription_key(key)[2], row

    # Reading.

    def may_read(self) -> bool:
        """Whether there is something to read, and room for it, which is made if need be."""
        newest = self.home.feed.newest_position
        if self.lanes.progress.read_position >= newest or self.home.committer.space_is_low:
            return False
        self.lanes.make_room()
        return self.lanes.wants_more

    def read(self, wanted: Filter) -> None:
        """Reads a run of the feed into the lanes. Raises DataDamaged."""
        lanes = self.lanes
        try:
            run = self.home.feed.read(lanes.progress.read_position, entries_max=READ_ENTRIES)
        except PositionExpired:
            self.let_go()
            return
        changes = run.changes
        if changes:
            self._recorded_at_ms = changes[-1].recorded_at_ms
        if wanted is not ALL:
            matches = wanted.matches
            changes = [change for change in changes if matches(change)]
        lanes.feed(changes, run.last_position)
        if lanes.is_dirty:
            self.unsaved.set()

    def let_go(self) -> None:
        """What went out of retention before it was read is counted, and told."""
        if lost := self.lanes.expire(self.home.feed.oldest_position):
            self.expired += lost
            self.unsaved.set()
            _log.error(
                "events went out of retention before a subscription read them",
                partition=self.home.number,
                expired=lost,
            )

    def wire_of(self, item: Item) -> bytes:
        """The serialised Change. Raises DataDamaged."""
        if item.change is not None:
            return item.change.wire()
        key = self._key(SubscriptionRow.KEPT, item.position)
        row = self.home.engine.get(Table.SUBSCRIPTIONS, key)
        if row is None:
            raise DataDamaged(f"the kept change of position {item.position} is not there")
        return decode_change(item.position, row)[1]

    # How far it is.

    @property
    def lag(self) -> int:
        """Events that were not looked at, and changes that were and are not finished."""
        progress = self.lanes.progress
        return self.home.feed.newest_position - progress.read_position + progress.unfinished

    @property
    def lag_ms(self) -> int:
        """How old the oldest of those is, or a little more."""
        oldest = self.lanes.oldest_open
        if oldest is not None:
            since = getattr(oldest.change, "recorded_at_ms", 0)
        elif self.lag:
            since = self._recorded_at_ms
        else:
            return 0
        return max(0, self._now_ms() - since) if since else 0

    # Saving.

    async def keep_saving(self) -> None:
        """Saves what happens, until cancelled. Raises StorageFailed."""
        while True:
            try:
                async with asyncio.timeout(IDLE_SAVE_INTERVAL_S):
                    await self.unsaved.wait()
                await asyncio.sleep(SAVE_DELAY_S)
            except TimeoutError:
                if self.lanes.progress.cursor == self._saved_cursor:
                    continue
            await self.save()

    async def save(self) -> None:
        """Writes everything that is not saved; returns once it is durable. Raises StorageFailed."""
        self.unsaved.clear()
        lanes = self.lanes
        state = lanes.unsaved()
        rows: list[tuple[bytes, bytes | None]] = [
            (
                self._key(SubscriptionRow.CURSOR),
                encode_cursor(state.cursor, state.done, self.expired),
            )
        ]
        for position, parked in state.parked.items():
            key = self._key(SubscriptionRow.PARKED, position)
            row = self._row_of(parked.item, parked.parked_at_ms) if parked else None
            rows.append((key, row))
        for position, item in state.kept.items():
            key = self._key(SubscriptionRow.KEPT, position)
            row = self._row_of(item, item.not_before_ms) if item else None
            rows.append((key, row))
        failpoint.reach("before_cursor_save")
        await self._written(rows)
        failpoint.reach("after_cursor_save")
        self._saved_cursor = state.cursor
        for item in state.kept.values():
            if item is not None:
                item.change = None  # its row has it

    async def _written(self, rows: list[tuple[bytes, bytes | None]]) -> None:
        batch: list[tuple[Table, Rows]] = [(Table.SUBSCRIPTIONS, rows)]
        await self.home.committer.put_aside(batch)

    def _row_of(self, item: Item, at_ms: int) -> bytes:
        number = item.lane.waybill_number
        stored = StoredChange(item.position, number, item.attempts, at_ms, item.reason)
        return encode_change(stored, self.wire_of(item))

    async def forget(self) -> None:
        """Deletes every row. Raises StorageFailed."""
        for kind in SubscriptionRow:
            rows = [(self._key(kind, position), None) for position, _ in self._rows(kind)]
            for first in range(0, len(rows), _DELETED_AT_ONCE):
                await self._written(list(rows[first : first + _DELETED_AT_ONCE]))

    # Parked changes; `save` has to have returned since the last one was parked.

    def parked(self, after: int) -> Iterator[tuple[StoredChange, bytes]]:
        """The parked changes after a position, in order, and their wire bytes."""
        for position, row in self._rows(SubscriptionRow.PARKED, after):
            yield decode_change(position, row)

    def parked_at(self, position: int) -> tuple[StoredChange, bytes] | None:
        """A parked change, if it is one."""
        key = self._key(SubscriptionRow.PARKED, position)
        row = self.home.engine.get(Table.SUBSCRIPTIONS, key)
        return None if row is None else decode_change(position, row)

    def redrive(self, parked: StoredChange, wire: bytes) -> bool:
        """Delivers it again; False if there is no room."""
        done = self.lanes.redrive(parked, StoredWire(wire))
        self.unsaved.set()
        return done

    def drop(self, parked: StoredChange) -> None:
        """Forgets it."""
        self.lanes.drop_parked(parked.position)
        self.unsaved.set()
