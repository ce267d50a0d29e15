"""The feed of one partition: its log from any position on, from memory near the end.

The committer tells it of every commit that became durable, which costs nothing but a place in a
queue: a block is taken apart when somebody reads it, once, for all who do. What is no longer in
memory is read from the engine. A reader keeps its own position; nobody waits for it.

* Only what is durable is ever told.
* A run is in order of position and without gaps: a missing block is DataDamaged, a trimmed one
  PositionExpired, never silence.
* Memory is bounded in bytes, by forgetting the oldest blocks.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from google.protobuf.message import DecodeError

from trackd import compiled
from trackd.feed.change import LoggedChange, Source
from trackd.store import records
from trackd.store.engine_contract import Engine
from trackd.store.errors import DataDamaged
from trackd.store.keys import Table, position_key, position_of
from trackd.store.records import CHANGED, decode_block, recorded_at_suffix

_compiled = compiled.load("trackd.feed._telling")

# What a change costs in memory once it is taken apart and its wire bytes are made.
_CHANGE_BYTES = 900
# Changes of blocks that were taken apart, for whoever reads the same next. Only so many: memory is
# the cheaper the sooner it is used again, and who comes later takes a block apart once more for
# 0.2 µs a change.
_APART_CHANGES_MAX = 4_096
# Log bytes that one look into the engine takes, and that are kept of such looks for whoever reads
# the same blocks next: readers that are behind often go side by side, and a small run ends within a
# block.
_LOOK_BYTES = 128 << 10
_LOOKED_UP_BYTES_MAX = 256 << 10

# What an entry is taken to have before one was seen.
_ENTRY_BYTES = 110

_position_of_change = attrgetter("position")


class PositionExpired(Exception):
    """What follows a position was trimmed from the log. oldest_position: the first that is kept."""

    def __init__(self, oldest_position: int) -> None:
        super().__init__(f"the log begins at position {oldest_position}")
        self.oldest_position = oldest_position


@dataclass(frozen=True, slots=True)
class LogBounds:
    """Which positions a log holds, as of one moment."""

    oldest_position: int
    newest_position: int


@dataclass(frozen=True, slots=True)
class FeedRun:
    """Changes in order. Everything up to last_position has been looked at.

    newest_position: the last durable one when it was read; the reader is at the end if it equals
    last_position.
    """

    changes: list[LoggedChange]
    last_position: int
    newest_position: int


class _Block:
    """A block of the log: its bytes, and its changes while it is kept taken apart."""

    __slots__ = ("changes", "data", "first", "last", "recorded_at_ms")

    def __init__(self, last: int, data: bytes) -> None:
        self.recorded_at_ms, count = records.block_head(data)
        self.first = last - count + 1
        self.last = last
        self.data = data
        self.changes: list[LoggedChange] | None = None


class PartitionFeed:
    """The feed of one partition. Only the thread of its event loop may call it."""

    def __init__(
        self,
        engine: Engine,
        stored_event: Callable[[bytes], bytes | None],
        *,
        position_prefix: str,
        oldest_position: int,
        newest_position: int,
        memory_bytes: int,
    ) -> None:
        """stored_event, position_prefix: see Source.

        oldest_position: the first one that the log has.
        """
        self._engine = engine
        self._memory_bytes_max = memory_bytes
        # The source knows the engine and not the feed, which keeps changes that know the source.
        self.source = Source(position_prefix, stored_event)
        # Raised by the log's retention only; the second by the committer's settle only.
        self.oldest_position = oldest_position
        self.newest_position = newest_position
        # The newest blocks, without gaps up to newest_position.
        self._tail: deque[_Block] = deque()
        self._tail_bytes = 0
        # Those of any kind that are taken apart, in the order in which they were.
        self._apart: deque[_Block] = deque()
        self._apart_changes = 0
        # Older ones, as they were looked up, in any order.
        self._looked_up: deque[_Block] = deque()
        self._looked_up_bytes = 0
        self._waiters: set[asyncio.Future[None]] = set()
        # Of the blocks seen so far: their bytes and entries, by which the size of the log is told.
        self._seen_bytes = self._seen_entries = 0

    def committed(self, last_position: int, block: bytes) -> None:
        """Takes over the block of a commit that is durable now."""
        taken = _Block(last_position, block)
        self._tail.append(taken)
        self._seen_bytes += len(block)
        self._seen_entries += last_position - taken.first + 1
        self._tail_bytes += len(block)
        self.newest_position = last_position
        while self._tail_bytes > self._memory_bytes_max and len(self._tail) > 1:
            self._tail_bytes -= len(self._tail.popleft().data)
        if self._waiters:
            waiting, self._waiters = self._waiters, set()
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    @property
    def memory_bytes(self) -> int:
        """What the newest blocks and all that are taken apart hold, as an estimate."""
        return self._tail_bytes + self._apart_changes * _CHANGE_BYTES

    @property
    def mean_entry_bytes(self) -> float:
        """What an entry of the log takes, before compression; a guess until one was seen."""
        return self._seen_bytes / self._seen_entries if self._seen_entries else _ENTRY_BYTES

    @property
    def log_bytes(self) -> int:
        """About how large the log is, before compression."""
        entries = self.newest_position - self.oldest_position + 1
        return int(entries * self.mean_entry_bytes)

    def trimmed(self, oldest_position: int) -> None:
        """What stands before oldest_position is no longer in the log."""
        self.oldest_position = max(self.oldest_position, oldest_position)

    def read(self, after: int, *, entries_max: int) -> FeedRun:
        """The changes among the next entries_max entries of the log after the position `after`.

        Raises PositionExpired if they are not kept any more, DataDamaged if they cannot be read.
        """
        if after + 1 < self.oldest_position:
            raise PositionExpired(self.oldest_position)
        newest = self.newest_position
        target = min(after + entries_max, newest)
        changes: list[LoggedChange] = []
        while after < target:
            block = self._block_after(after)
            found = block.changes
            if found is None:
                found = self._taken_apart(block)
            if block.first <= after or block.last > target:
                start = bisect_right(found, after, key=_position_of_change)
                found = found[start : bisect_right(found, target, key=_position_of_change)]
            changes += found
            after = min(block.last, target)
        return FeedRun(changes, max(after, target), newest)

    def recorded_at_ms(self, position: int) -> int | None:
        """When the event at a durable position was recorded; None if it is not kept any more.

        0 for the position before the first one ever. Raises DataDamaged.
        """
        if not position:
            return 0
        if position < self.oldest_position:
            return None
        return self._block_after(position - 1).recorded_at_ms

    async def newer(self, after: int) -> None:
        """Returns once something newer than the position `after` is durable."""
        loop = asyncio.get_running_loop()
        while self.newest_position <= after:
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    def _block_after(self, after: int) -> _Block:
        """The block that holds the position after `after`, which is durable."""
        tail = self._tail
        if tail and tail[0].first <= after + 1:
            if tail[-1].first <= after + 1:
                return tail[-1]
            return tail[bisect_right(tail, after, key=_last_of_block)]
        if (block := self._looked_up_block(after)) is None:
            self._look_up(after)
            block = self._looked_up_block(after)
        if block is None:
            raise DataDamaged(f"position {after + 1} is missing from the log")
        return block

    def _looked_up_block(self, after: int) -> _Block | None:
        for block in self._looked_up:
            if block.first <= after + 1 <= block.last:
                return block
        return None

    def _look_up(self, after: int) -> None:
        """Takes a few durable blocks from the engine, beginning with the one after `after`."""
        taken = 0
        try:
            for key, data in self._engine.scan_all(Table.LOG, position_key(after + 1)):
                block = _Block(position_of(key), data)
                self._looked_up.append(block)
                self._looked_up_bytes += len(data)
                taken += len(data)
                if taken > _LOOK_BYTES or block.last >= self.newest_position:
                    break
        except DataDamaged:
            if not taken:
                raise
            # What stands before the damage is told first.
        while self._looked_up_bytes > max(_LOOKED_UP_BYTES_MAX, taken):
            self._looked_up_bytes -= len(self._looked_up.popleft().data)

    def _taken_apart(self, block: _Block) -> list[LoggedChange]:
        changes = block.changes = changes_of_block(block.data, block.last, self.source)
        self._apart.append(block)
        self._apart_changes += len(changes)
        while self._apart_changes > _APART_CHANGES_MAX and len(self._apart) > 1:
            oldest = self._apart.popleft()
            self._apart_changes -= len(oldest.changes or ())
            oldest.changes = None
        return changes


def changes_of_block(data: bytes, last: int, source: Source) -> list[LoggedChange]:
    """The changes in the log block up to position `last`, in order. Raises DataDamaged.

    `_telling.changes_of_block` is the same, compiled, for blocks that it understands.
    """
    if _compiled:
        changes: list[LoggedChange] | None = _compiled.changes_of_block(data, last, source)
        if changes is not None:
            return changes
    suffix = recorded_at_suffix(records.block_head(data)[0])
    try:
        return [
            LoggedChange(source, entry, entry.event + suffix)
            for entry in decode_block(last, data)
            if entry.marks & CHANGED
        ]
    except DecodeError as error:
        raise DataDamaged(f"the log block up to position {last}: {error}") from error


_last_of_block = attrgetter("last")
