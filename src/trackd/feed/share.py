"""One subscription in one partition, with its I/O: reads the feed, saves what its lanes decide.

The lanes decide and this acts: a run of the feed in, rows out. What consumers said is in the log
of the engine within SAVE_DELAY_S and a commit, so a killed process forgets that much at most; the
rows of one save are written together, so what a start finds is one consistent state.
Answers to `ShareAccess`.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import structlog

from trackd.feed.consumer import Consumer, Given
from trackd.feed.filters import ALL, Filter
from trackd.feed.lane import Item, LaneBounds, LaneRules, StoredChange
from trackd.feed.lanes import Lanes
from trackd.feed.partition_feed import PartitionFeed, PositionExpired
from trackd.feed.progress import Progress
from trackd.feed.share_access import ParkedAct, ParkedRows, ShareFigures
from trackd.feed.subscription_rows import (
    StoredWire,
    decode_change,
    decode_cursor,
    encode_change,
    encode_cursor,
)
from trackd.store import failpoint
from trackd.store.committer import Committer
from trackd.store.engine_contract import Engine, Rows
from trackd.store.errors import DataDamaged
from trackd.store.keys import (
    SubscriptionRow,
    Table,
    split_subscription_key,
    subscription_key,
    subscription_prefix,
)

# A start before everything that is kept when the share is made.
OLDEST_KEPT = -1
# Entries of the log that are looked at in one go: about a millisecond.
READ_ENTRIES = 512
# How long acknowledgements are collected before they are written.
SAVE_DELAY_S = 0.015
# How often a cursor is written that only read on: a restart then reads so much again.
IDLE_SAVE_INTERVAL_S = 1.0
# Parked changes that are looked at between two saves.
_PARKED_AT_ONCE = 500

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
        name: str,
        start: int,
        now_ms: Callable[[], int],
    ) -> None:
        """Reads what was saved; without anything, begins after the position `start`.

        name: of the subscription, for the log. start: before everything that is kept, if it is
        OLDEST_KEPT. Raises DataDamaged.
        """
        self.home = home
        self.number = home.number
        self._id = subscription_id
        self._name = name
        self._now_ms = now_ms
        # Set by whoever changes something that is to be saved soon.
        self.unsaved = asyncio.Event()
        self.expired = 0
        # Whether the log is about to be trimmed up to the cursor; its branch looks.
        self.is_near = False
        self._recorded_at_ms = 0
        saved = home.engine.get(Table.SUBSCRIPTIONS, self._key(SubscriptionRow.CURSOR))
        done: list[int] = []
        if saved is not None:
            start, done, self.expired = decode_cursor(saved)
        elif start == OLDEST_KEPT:
            start = home.feed.oldest_position - 1
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
                name=self._name,
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

    # What goes out, and what consumers say of it.

    @property
    def ready(self) -> int:
        """See ShareAccess."""
        return self.lanes.ready

    @property
    def in_flight(self) -> int:
        """See ShareAccess."""
        return self.lanes.in_flight

    def take(self, count: int, consumer: Consumer, now_ms: int) -> int:
        """See ShareAccess; what it gives is given at once."""
        items, wires = self.taken(count, consumer.number, now_ms)
        given: list[Given] = [
            (wire, item.attempts) for item, wire in zip(items, wires, strict=True) if wire
        ]
        consumer.credit -= len(given)
        if given:
            consumer.give(given)
        return len(items)

    def taken(self, count: int, consumer: int, now_ms: int) -> tuple[list[Item], list[bytes]]:
        """Up to count changes, in flight with a consumer from now on, and their wire bytes.

        Bytes are empty where the change cannot be read: then this attempt failed already.
        """
        items = self.lanes.take(count, consumer, now_ms)
        wires = []
        for item in items:
            try:
                wires.append(item.change.wire() if item.change is not None else self.wire_of(item))
            except DataDamaged as error:
                _log.error(
                    "a change cannot be read",
                    name=self._name,
                    partition=self.number,
                    position=item.position,
                    error=str(error),
                )
                reason = "the stored change cannot be read"
                self.lanes.nack(item.position, consumer, now_ms, delay_ms=0, reason=reason)
                self.said()
                wires.append(b"")
        return items, wires

    def ack(self, consumer: Consumer, positions: Sequence[int]) -> int:
        """See ShareAccess."""
        ack, number, now_ms = self.lanes.ack, consumer.number, self._now_ms()
        done = sum(ack(position, number, now_ms) for position in positions)
        self.said()
        return done

    def nack(
        self, consumer: Consumer, position: int, *, delay_ms: int, reason: str, untried: bool
    ) -> bool:
        """See ShareAccess."""
        was = self.lanes.nack(
            position,
            consumer.number,
            self._now_ms(),
            delay_ms=delay_ms,
            reason=reason,
            untried=untried,
        )
        self.said()
        return was

    def park(self, consumer: Consumer, position: int, *, reason: str) -> bool:
        """See ShareAccess."""
        was = self.lanes.park(position, consumer.number, self._now_ms(), reason=reason)
        self.said()
        return was

    def gone(self, consumer: Consumer, *, untried: bool) -> None:
        """See ShareAccess."""
        if self.lanes.gone(consumer.number, self._now_ms(), untried=untried):
            self.said()

    def said(self) -> None:
        """Has what its lanes were told saved soon."""
        if self.lanes.is_dirty:
            self.unsaved.set()

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

    @property
    def figures(self) -> ShareFigures:
        """See ShareAccess; of this moment."""
        lanes, counts = self.lanes, self.lanes.counts
        return ShareFigures(
            lag=self.lag,
            lag_ms=self.lag_ms,
            in_flight=lanes.in_flight,
            waiting=lanes.waiting,
            parked=lanes.parked,
            acknowledged=counts.acknowledged,
            redelivered=counts.redelivered,
            superseded=counts.superseded,
            expired=self.expired,
            is_near=self.is_near,
        )

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

    # Parked changes: on disk once they are saved.

    async def parked(self, after: int, *, count_max: int, bytes_max: int) -> ParkedRows:
        """See ShareAccess."""
        found: list[tuple[StoredChange, bytes]] = []
        size = 0
        for position, row in self._rows(SubscriptionRow.PARKED, after):
            size += len(row)
            if found and (len(found) >= count_max or size > bytes_max):
                return found, True
            found.append(decode_change(position, row))
        return found, False

    async def act_on_parked(self, act: ParkedAct, positions: Sequence[int] | None) -> int:
        """See ShareAccess. All are those that were parked when it began, until one is refused."""
        await self.save()
        try:
            if positions is not None:
                return sum(self._act(act, position) for position in dict.fromkeys(positions))
            return await self._act_on_all(act)
        finally:
            await self.save()

    async def _act_on_all(self, act: ParkedAct) -> int:
        count, after, end = 0, -1, self.home.feed.newest_position
        while True:
            rows = itertools.islice(self._rows(SubscriptionRow.PARKED, after), _PARKED_AT_ONCE)
            some = [position for position, _ in rows]
            for position in some:
                if position > end or not self._act(act, position):
                    return count
                count += 1
                after = position
            if not some:
                return count
            await self.save()

    def _act(self, act: ParkedAct, position: int) -> bool:
        """Whether it was parked, and there was room for it."""
        row = self.home.engine.get(Table.SUBSCRIPTIONS, self._key(SubscriptionRow.PARKED, position))
        if row is None:
            return False
        done = True
        if act is ParkedAct.DROP:
            self.lanes.drop_parked(position)
        else:
            parked, wire = decode_change(position, row)
            done = self.lanes.redrive(parked, StoredWire(wire))
        self.unsaved.set()
        return done
