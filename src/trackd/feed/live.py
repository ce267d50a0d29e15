"""One teller for all who are at the end of the feed: each change is matched once, not by everybody.

Watches at the end are kept by what they want (wanted.py). A watch holds what it was given until it
tells it; one that holds too much or for too long is sent away, and reads on from its own place by
itself until it is at the end again. So a stuck reader costs nobody anything.

With many watches it is the messages that cost, and more so those that come alone. So whoever hears
often is told in waves, all at once: the more watches, the further apart. A watch that was told
nothing since the wave before, or that holds what goes into a message, is told at once.

While nobody is at the end, nothing is read or taken apart here.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trackd.feed.change import LoggedChange
from trackd.feed.filters import Filter
from trackd.feed.partition_feed import FeedRun, PartitionFeed, PositionExpired
from trackd.feed.runs import run_bytes_max
from trackd.feed.snapshot import SnapshotScan
from trackd.feed.wanted import Wanted
from trackd.store.errors import StoreError

# Log entries that are told in one go; the event loop has its turn in between.
_ENTRIES_AT_A_TIME = 1_000
# Changes that a watch may hold, and for how long, before it is sent away.
HELD_CHANGES_MAX = 8_192
HELD_S_MAX = 1.0
# How far waves are apart: so much for each watch at the end, up to the most.
_WAVE_S_PER_WATCH = 0.0005
WAVE_S_MAX = 0.1
# How long the teller waits after it told something, so that several commits are told together: so
# long, and a part of a wave.
_PAUSE_S = 0.008
_PAUSES_PER_WAVE = 10
# Watches that are woken in one turn of the event loop.
_WOKEN_AT_A_TIME = 50
_TICK_S_MAX = 0.5


@dataclass(frozen=True, slots=True)
class WatchedPartition:
    """What a watch needs of a partition. durable: returns once a position of it is."""

    number: int
    feed: PartitionFeed
    snapshot: Callable[[bytes], SnapshotScan]
    durable: Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class FeedFigures:
    """What is counted of all watches; written by them alone."""

    changes_told: int = 0
    bytes_told: int = 0
    fell_behind: int = 0
    position_expired: int = 0


class Listener(Protocol):
    """A watch, as the teller knows it."""

    filter: Filter
    # When something was told last; when the first change that it holds was given (0: none held).
    told_at: float
    held_since: float

    def hear(self, index: int, changes: Sequence[LoggedChange], last_position: int) -> None:
        """Takes changes of the partition at index, up to last_position."""

    def fall_behind(self) -> None:
        """Is at the end no longer: reads on from its own place."""

    def wake(self) -> None:
        """Looks again whether there is something to do."""

    @property
    def state(self) -> str:
        """Live, behind, or snapshot."""

    @property
    def lag(self) -> int:
        """Log entries that it has not looked at."""

    def tick(self, now: float) -> None:
        """Gives up what it need not hold."""


class Live:
    """The end of the feed of every partition of this process. One event loop."""

    def __init__(self, partitions: Sequence[WatchedPartition], *, heartbeat_s: float) -> None:
        self.partitions = partitions
        self.heartbeat_s = heartbeat_s
        self.figures = FeedFigures()
        self.stopped = False
        # All that are open, and those of them at the end; by what they want.
        self.watches: set[Listener] = set()
        self._at_end: set[Listener] = set()
        self._wanted: Wanted[Listener] = Wanted()
        # Those who wait for the next wave, in order; its timer, if there is one; the last one.
        self._waiting: dict[Listener, None] = {}
        self._wave: asyncio.Handle | None = None
        self._wave_at = 0.0
        # Up to where everybody at the end has heard, by partition; meaningless without anybody.
        self._positions: list[int] = []
        self._anybody = asyncio.Event()

    # What a watch asks.

    @property
    def at_end(self) -> int:
        """How many watches are at the end."""
        return len(self._at_end)

    def position(self, index: int) -> int:
        """Up to where a watch has to be to be at the end of the partition at index."""
        if self._at_end:
            return self._positions[index]
        return self.partitions[index].feed.newest_position

    def positions(self) -> list[int]:
        """The same of all partitions."""
        if self._at_end:
            return self._positions.copy()
        return [one.feed.newest_position for one in self.partitions]

    @property
    def run_bytes_max(self) -> int:
        """How large a run that a watch tells may be now."""
        return run_bytes_max(len(self.watches))

    @property
    def _apart_s(self) -> float:
        """How far waves are apart."""
        return min(len(self._at_end) * _WAVE_S_PER_WATCH, WAVE_S_MAX)

    @property
    def is_caught_up(self) -> bool:
        """Whether everything durable so far was given to whoever is at the end."""
        return all(
            self.position(index) == one.feed.newest_position
            for index, one in enumerate(self.partitions)
        )

    def join(self, watch: Listener) -> None:
        """Takes in a watch that has told everything up to `positions`."""
        if not self._at_end:
            self._positions = self.positions()
            self._anybody.set()
        self._at_end.add(watch)
        self._wanted.add(watch, watch.filter)

    def leave(self, watch: Listener) -> None:
        """Lets a watch go, at the end or not."""
        if watch not in self._at_end:
            return
        self._at_end.discard(watch)
        self._waiting.pop(watch, None)
        self._wanted.remove(watch, watch.filter)
        if not self._at_end:
            self._anybody.clear()

    def wake_in_turn(self, watch: Listener) -> None:
        """Wakes a watch that holds something now: at once, or with the next wave."""
        apart_s, now = self._apart_s, time.monotonic()
        if now - watch.told_at > apart_s:
            watch.wake()
            return
        self._waiting[watch] = None
        if self._wave is None:
            wait = max(0.0, self._wave_at + apart_s - now)
            self._wave = asyncio.get_running_loop().call_later(wait, self._wave_now)

    def stop(self) -> None:
        """Every watch ends."""
        self.stopped = True
        for watch in list(self.watches):
            watch.wake()

    # Telling.

    async def run(self) -> None:
        """Tells whoever is at the end, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for index in range(len(self.partitions)):
                tasks.create_task(self._tell(index))
            tasks.create_task(self._tick())

    async def _tell(self, index: int) -> None:
        feed = self.partitions[index].feed
        while True:
            await self._anybody.wait()
            await feed.newer(self._positions[index])
            if not self._at_end:
                continue
            try:
                run = feed.read(self._positions[index], entries_max=_ENTRIES_AT_A_TIME)
            except (StoreError, PositionExpired):
                # Each will meet the same by itself, and end with it.
                for watch in list(self._at_end):
                    watch.fall_behind()
                continue
            if run.changes:
                self._dispatch(index, run)
            if self._at_end:
                self._positions[index] = run.last_position
            is_at_end = run.last_position == run.newest_position
            pause = max(_PAUSE_S, self._apart_s / _PAUSES_PER_WAVE)
            await asyncio.sleep(pause if run.changes and is_at_end else 0)

    def _dispatch(self, index: int, run: FeedRun) -> None:
        for watch in list(self._wanted.everything):
            watch.hear(index, run.changes, run.last_position)
        if len(self._wanted.everything) == len(self._at_end):
            return
        for watch, changes in self._wanted.matched(run.changes).items():
            watch.hear(index, changes, run.last_position)

    def _wave_now(self) -> None:
        """Wakes those who wait, some in each turn, so that other calls have theirs."""
        self._wave, self._wave_at = None, time.monotonic()
        for watch in list(itertools.islice(self._waiting, _WOKEN_AT_A_TIME)):
            del self._waiting[watch]
            watch.wake()
        if self._waiting:
            self._wave = asyncio.get_running_loop().call_soon(self._wave_now)

    async def _tick(self) -> None:
        """Looks after those that hold something for long, and those that were told nothing."""
        while True:
            await asyncio.sleep(min(_TICK_S_MAX, self.heartbeat_s / 4))
            now = time.monotonic()
            caught_up = self.is_caught_up
            for watch in list(self.watches):
                watch.tick(now)
            for watch in list(self._at_end):
                if watch.held_since and now - watch.held_since > HELD_S_MAX:
                    watch.fall_behind()
                elif caught_up and now - watch.told_at >= self.heartbeat_s:
                    watch.wake()
