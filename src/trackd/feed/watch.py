"""One reader of all partitions: a snapshot if it wants one, then the past, then what comes.

A watch keeps its own place: a position in each partition, and while a snapshot is being told a key.
It is read from when it asks, and holds nothing while what it gave is on its way to its reader but
what the teller gave it meanwhile (live.py), which is bounded.

* What it tells is in order per waybill and without gaps, from its start on.
* `place` is where another watch goes on without missing anything.
* In a snapshot a waybill whose last change is newer than the snapshot's positions is left out if
  the filter is sure to tell that change afterwards; so a status is never followed by older changes
  of its waybill, but for filters that the last change may not match (by flag, by facility, news
  only): those may hear of it twice.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import lt

from trackd.feed.change import LoggedChange
from trackd.feed.filters import Filter
from trackd.feed.live import HELD_CHANGES_MAX, Live
from trackd.feed.runs import RUN_BYTES_MIN, Run
from trackd.feed.snapshot import SnapshotScan

# Log entries that are looked at in one go; the event loop has its turn in between.
_ENTRIES_AT_A_TIME = 1_000
_OTHERS_PAUSE_S = 0.001
# About what a change takes: as many as a run holds are told without waiting for more.
_CHANGE_BYTES = 320
# How long a snapshot's view of the files may be kept without being opened anew.
_VIEW_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a watch is: everything up to these positions, by partition, was told.

    snapshot: the partition whose statuses are being told, and the key up to which they were; the
    changes after the positions follow when all statuses are told.
    """

    positions: Mapping[int, int]
    snapshot: tuple[int, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What a watch has to tell. run: a serialised ChangeRun; empty if it is caught up."""

    run: bytes
    place: Place


class Watch:
    """One reader. One caller at a time; `close` it."""

    def __init__(self, live: Live, wanted: Filter, place: Place) -> None:
        """place: has a position for every partition."""
        self.filter = wanted
        # A status is news to whoever asks for a snapshot.
        self._status_filter = replace(wanted, news_only=False)
        self._live = live
        self._positions = [place.positions[one.number] for one in live.partitions]
        self._turn = 0  # the partition to read next
        self._pause_s = 0.0
        # Of a snapshot: the partition being told, up to which key, and the scan if one is open.
        self._snapshot_of = len(live.partitions)
        self._snapshot_after = b""
        if place.snapshot is not None:
            number, self._snapshot_after = place.snapshot
            self._snapshot_of = [one.number for one in live.partitions].index(number)
        self._scan: SnapshotScan | None = None
        self._scan_at = 0.0
        # At the end: what was heard and not told yet, by partition and with its last position.
        self._is_live = False
        self._heard: deque[tuple[int, Sequence[LoggedChange], int]] = deque()
        self._held = 0
        self.held_since = 0.0
        self._woken = asyncio.Event()
        # What was durable when it began is the past, of which its reader hears when it is told.
        self._past_ends = [one.feed.newest_position for one in live.partitions]
        self._past_is_told = False
        self.told_at = time.monotonic()
        live.watches.add(self)

    # What its reader asks.

    @property
    def place(self) -> Place:
        """Where it is."""
        numbers = [one.number for one in self._live.partitions]
        positions = dict(zip(numbers, self._positions, strict=True))
        if self._snapshot_of < len(numbers):
            return Place(positions, (numbers[self._snapshot_of], self._snapshot_after))
        return Place(positions)

    @property
    def state(self) -> str:
        """Live, behind, or snapshot."""
        if self._snapshot_of < len(self._positions):
            return "snapshot"
        return "live" if self._is_live else "behind"

    @property
    def lag(self) -> int:
        """Log entries that it has not looked at."""
        if self._is_live:
            return 0
        feeds = zip(self._live.partitions, self._positions, strict=True)
        return sum(one.feed.newest_position - position for one, position in feeds)

    async def next(self) -> Told | None:
        """What to tell next, once there is something; None when the server stops.

        Raises PositionExpired, DataDamaged, StorageFailed.
        """
        while not self._live.stopped:
            if self._is_live:
                told = await self._next_live()
            elif self._snapshot_of < len(self._positions):
                told = await self._next_of_snapshot()
                await asyncio.sleep(0)
            else:
                told = self._next_behind()
                if told is None and not self._is_live:
                    await asyncio.sleep(self._pause_s)
            if told is not None:
                self.told_at = time.monotonic()
                self._live.figures.bytes_told += len(told.run)
                return told
        return None

    def close(self) -> None:
        """Is told nothing any more."""
        self._live.leave(self)
        self._live.watches.discard(self)
        self._is_live = False
        self._heard.clear()
        self._scan = None

    # What the teller tells it.

    def hear(self, index: int, changes: Sequence[LoggedChange], last_position: int) -> None:
        """See Listener."""
        if not self._heard:
            # Whatever came before did not concern it.
            self._positions = self._live.positions()
            self.held_since = time.monotonic()
            self._live.wake_in_turn(self)
        self._heard.append((index, changes, last_position))
        self._held += len(changes)
        if self._held > HELD_CHANGES_MAX:
            self.fall_behind()
        elif self._held * _CHANGE_BYTES >= self._live.run_bytes_max:
            self._woken.set()

    def fall_behind(self) -> None:
        """See Listener."""
        self._live.leave(self)
        self._live.figures.fell_behind += 1
        self._is_live = False
        self._drop_heard()
        self._woken.set()

    def wake(self) -> None:
        """See Listener."""
        self._woken.set()

    def tick(self, now: float) -> None:
        """See Listener."""
        if self._scan and now - self._scan_at > _VIEW_S_MAX:
            self._scan.release()
            self._scan_at = now

    def _drop_heard(self) -> None:
        self._heard.clear()
        self._held = 0
        self.held_since = 0.0

    # The past.

    def _next_behind(self) -> Told | None:
        """Looks at a part of the log; joins the others when there is none left."""
        live = self._live
        for _ in self._positions:
            index = self._turn
            position, end = self._positions[index], live.position(index)
            if position < end:
                entries_max = min(_ENTRIES_AT_A_TIME, end - position)
                run = live.partitions[index].feed.read(position, entries_max=entries_max)
                changes: Sequence[LoggedChange] = run.changes
                if not self.filter.wants_all:
                    changes = list(filter(self.filter.matches, changes))
                parts = Run(self._live.run_bytes_max)
                told = self._add(parts, changes)
                self._pause_s = 0.0
                self._positions[index] = run.last_position
                if told < len(changes):
                    self._positions[index] = changes[told - 1].position
                else:
                    self._turn = (index + 1) % len(self._positions)
                return self._told(parts)
            self._turn = (index + 1) % len(self._positions)
        if self._positions != live.positions() or self._lacks_of_the_past:
            # It begins ahead of those at the end, who are still being told what it has no need of;
            # or it is with them, and they are yet to be told of the latest.
            self._pause_s = _OTHERS_PAUSE_S
            return None
        live.join(self)
        self._is_live = True
        return None if self._past_is_told else self._caught_up()

    @property
    def _lacks_of_the_past(self) -> bool:
        return not self._past_is_told and any(map(lt, self._positions, self._past_ends))

    def _add(self, run: Run, changes: Sequence[LoggedChange]) -> int:
        """Adds changes to a run until it is full; how many."""
        count = run.add(changes)
        self._live.figures.changes_told += count
        return count

    def _told(self, run: Run) -> Told | None:
        return Told(run.wire(), self.place) if run.size else None

    def _caught_up(self) -> Told:
        self._past_is_told = True
        return Told(b"", self.place)

    # At the end.

    async def _next_live(self) -> Told | None:
        await self._woken.wait()
        self._woken.clear()
        if self._heard:
            return self._told_of_heard()
        silent = time.monotonic() - self.told_at >= self._live.heartbeat_s
        if silent and self._is_live and self._live.is_caught_up:
            self._positions = self._live.positions()
            return self._caught_up()
        return None

    def _told_of_heard(self) -> Told | None:
        run = Run(self._live.run_bytes_max)
        while self._heard:
            index, changes, last_position = self._heard.popleft()
            told = self._add(run, changes)
            self._held -= told
            if told < len(changes):
                self._heard.appendleft((index, changes[told:], last_position))
                if told:
                    self._positions[index] = changes[told - 1].position
                # There is more to tell than one message holds.
                self._woken.set()
                break
            self._positions[index] = last_position
        if not self._heard:
            self._drop_heard()
            if self._is_live:
                self._positions = self._live.positions()
        return self._told(run)

    # A snapshot.

    async def _next_of_snapshot(self) -> Told | None:
        one = self._live.partitions[self._snapshot_of]
        if self._scan is None:
            self._scan = one.snapshot(self._snapshot_after)
            self._scan_at = time.monotonic()
        statuses = self._scan.take(bytes_max=RUN_BYTES_MIN)
        if not statuses:
            self._scan = None
            self._snapshot_of, self._snapshot_after = self._snapshot_of + 1, b""
            return None
        await one.durable(max(status.position for status in statuses))
        taken_at_ms = one.feed.recorded_at_ms(self._positions[self._snapshot_of])
        wanted = [
            status
            for status in statuses
            if self._status_filter.matches(status) and not self._is_told_later(status, taken_at_ms)
        ]
        # All of them: how much they are was bounded when they were taken.
        parts = Run(sys.maxsize)
        self._add(parts, wanted)
        self._snapshot_after = self._scan.after
        return self._told(parts)

    def _is_told_later(self, status: LoggedChange, taken_at_ms: int | None) -> bool:
        """Whether the change that led to a status is certain to be told after the snapshot."""
        wanted = self.filter
        if wanted.flags or wanted.facility_codes or wanted.news_only or taken_at_ms is None:
            return False
        return status.recorded_at_ms > taken_at_ms
