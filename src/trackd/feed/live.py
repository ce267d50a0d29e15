"""One teller for all who are at the end of the feed: each change is matched once, not by everybody.

Watches at the end are kept by what they want (an inverted index: waybill numbers, facilities,
milestones, flags), so that 200 filters cost little more than one. A watch holds what it was given
until it tells it; one that holds too much or for too long is sent away, and reads on from its own
place by itself until it is at the end again. So a stuck reader costs nobody anything.

While nobody is at the end, nothing is read or taken apart here.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol

from trackd.feed.change import LoggedChange
from trackd.feed.filters import Filter
from trackd.feed.partition_feed import FeedRun, PartitionFeed, PositionExpired
from trackd.feed.snapshot import SnapshotScan
from trackd.store.errors import StoreError

# Log entries that are told in one go; the event loop has its turn in between.
_ENTRIES_AT_A_TIME = 1_000
# Changes that a watch may hold, and for how long, before it is sent away.
HELD_CHANGES_MAX = 8_192
HELD_S_MAX = 1.0
# Messages to many watches are what costs then, so each waits a little for more to tell: so long per
# watch, up to the most. A watch that was not told anything lately does not wait.
_GATHER_S_PER_WATCH = 0.001
GATHER_S_MAX = 0.25
_TICK_S_MAX = 0.5

_waybill_number = attrgetter("waybill_number")
_facility_code = attrgetter("facility_code")
_milestone = attrgetter("milestone")


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
        self._everything: dict[Listener, None] = {}
        self._unindexed: dict[Listener, None] = {}
        self._by_waybill: dict[str, dict[Listener, None]] = {}
        self._by_facility: dict[str, dict[Listener, None]] = {}
        self._by_milestone: dict[int, dict[Listener, None]] = {}
        self._by_flag: dict[int, dict[Listener, None]] = {}
        # Up to where everybody at the end has heard, by partition; meaningless without anybody.
        self._positions: list[int] = []
        self._anybody = asyncio.Event()

    # What a watch asks.

    @property
    def at_end(self) -> int:
        """How many watches are at the end."""
        return len(self._at_end)

    @property
    def gather_s(self) -> float:
        """How long a watch waits after it told something, so that more comes together."""
        return min(len(self._at_end) * _GATHER_S_PER_WATCH, GATHER_S_MAX)

    def position(self, index: int) -> int:
        """Up to where a watch has to be to be at the end of the partition at index."""
        if self._at_end:
            return self._positions[index]
        return self.partitions[index].feed.newest_position

    def positions(self) -> list[int]:
        """The same of all partitions."""
        return [self.position(index) for index in range(len(self.partitions))]

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
        for wanted in self._places_of(watch.filter):
            wanted[watch] = None

    def leave(self, watch: Listener) -> None:
        """Lets a watch go, at the end or not."""
        if watch not in self._at_end:
            return
        self._at_end.discard(watch)
        for wanted in self._places_of(watch.filter):
            del wanted[watch]
        if not self._at_end:
            self._anybody.clear()
        for by in (self._by_waybill, self._by_facility):
            self._drop_empty(by, watch.filter)

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
            await asyncio.sleep(0)

    def _dispatch(self, index: int, run: FeedRun) -> None:
        for watch in list(self._everything):
            watch.hear(index, run.changes, run.last_position)
        if len(self._everything) == len(self._at_end):
            return
        heard: defaultdict[Listener, list[LoggedChange]] = defaultdict(list)
        # What nobody asks for is not looked up: each look-up is made for every change.
        indexes: list[tuple[Mapping[Any, dict[Listener, None]], Callable[[LoggedChange], Any]]] = [
            (by, value_of)
            for by, value_of in (
                (self._by_waybill, _waybill_number),
                (self._by_facility, _facility_code),
                (self._by_milestone, _milestone),
            )
            if by
        ]
        for change in run.changes:
            # A filter stands in one index only, so nobody is found twice.
            for by, value_of in indexes:
                for watch in by.get(value_of(change), ()):
                    if watch.filter.matches(change):
                        heard[watch].append(change)
            for watch in self._others(change):
                if watch.filter.matches(change):
                    heard[watch].append(change)
        for watch, changes in heard.items():
            watch.hear(index, changes, run.last_position)

    def _others(self, change: LoggedChange) -> Iterable[Listener]:
        """Those at the end with a filter by flag that the change may match, or in no index."""
        flags = change.flags ^ change.flags_before
        if not (flags and self._by_flag):
            return self._unindexed
        found = dict(self._unindexed)
        for flag, watches in self._by_flag.items():
            if flags >> flag & 1:
                found |= watches
        return found

    def _places_of(self, wanted: Filter) -> list[dict[Listener, None]]:
        """Where a filter stands in the index: under the field that leaves the least to match."""
        if wanted.waybill_numbers:
            return [self._by_waybill.setdefault(each, {}) for each in wanted.waybill_numbers]
        if wanted.facility_codes:
            return [self._by_facility.setdefault(each, {}) for each in wanted.facility_codes]
        if wanted.milestones:
            return [self._by_milestone.setdefault(each, {}) for each in wanted.milestones]
        if not wanted.wants_all and not wanted.flags:
            return [self._unindexed]
        if wanted.flags:
            flags = [flag for flag in range(16) if wanted.flags >> flag & 1]
            return [self._by_flag.setdefault(flag, {}) for flag in flags]
        return [self._everything]

    @staticmethod
    def _drop_empty(by: dict[str, dict[Listener, None]], wanted: Filter) -> None:
        for value in wanted.waybill_numbers | wanted.facility_codes:
            if value in by and not by[value]:
                del by[value]

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
