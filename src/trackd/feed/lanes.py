"""One subscription in one partition: what may be delivered, and what becomes of it. Pure.

Fed with changes in order of position, asked for what is ready, told what consumers say. No I/O, no
asyncio; the clock is handed in. A waybill has a lane, made with its first unfinished change:

| lane    | its head                      | left by                                     |
| ------- | ----------------------------- | ------------------------------------------- |
| READY   | may be delivered              | take                                        |
| FLIGHT  | is with a consumer            | ack, nack, park, a timeout, a gone consumer |
| WAITING | failed; its time has not come | its time, or a newer change that supersedes |

* One change of a lane is in flight at a time, and they go in order of position. Lanes do not know
  of each other.
* A change is finished once: acknowledged, parked, or superseded. Until then it is delivered again.
* A change that failed, and those behind it, are *kept*: they get rows of their own, so that the
  cursor does not wait for them. So is what holds the cursor, when there is no other way to go on.
* What `unsaved` gives is one consistent state: a start from it delivers exactly what was not
  finished in it.
"""

from collections import deque
from collections.abc import Iterable

from trackd.feed.backoff import Backoff
from trackd.feed.change import LoggedChange
from trackd.feed.lane import (
    Item,
    Lane,
    LaneBounds,
    LaneCounts,
    LaneRules,
    LaneState,
    Parked,
    StoredChange,
    Unsaved,
    Wired,
)
from trackd.feed.progress import Progress


class Lanes:
    """See above. One caller at a time."""

    def __init__(
        self, rules: LaneRules, bounds: LaneBounds, progress: Progress, *, parked: int = 0
    ) -> None:
        """parked: how many changes are set aside already."""
        self.rules = rules
        self._bounds = bounds
        self.progress = progress
        self.parked = parked
        self.counts = LaneCounts()
        self._lanes: dict[str, Lane] = {}
        self._ready: deque[Lane] = deque()
        self._flight: dict[int, Item] = {}
        # Not later than the first deadline of what is in flight.
        self._next_deadline_ms = 0
        self._backoff = Backoff()
        # The unfinished changes between the cursor and what was read, and those that are kept.
        self._open: dict[int, Item] = {}
        self._kept: dict[int, Item] = {}
        # What was not saved yet; and whether it is more than having read on.
        self.is_dirty = False
        self._kept_unsaved: dict[int, Item | None] = {}
        self._parked_unsaved: dict[int, Parked | None] = {}

    # What it shows.

    @property
    def ready(self) -> int:
        """Lanes whose head may be delivered."""
        return len(self._ready)

    @property
    def in_flight(self) -> int:
        """Deliveries that are with a consumer."""
        return len(self._flight)

    def attempt(self, position: int) -> int:
        """Which attempt is with a consumer; 0: none."""
        item = self._flight.get(position)
        return item.attempts if item else 0

    @property
    def waiting(self) -> int:
        """Changes that wait for another attempt, or behind one that does."""
        return len(self._kept) - sum(item.kept for item in list(self._flight.values()))

    @property
    def wants_more(self) -> bool:
        """Whether there is room for more changes."""
        bounds = self._bounds
        return (
            len(self._open) < bounds.ahead_max
            and self.progress.window < bounds.window_max
            and len(self._kept) < bounds.kept_max
            and self.parked < bounds.parked_max
        )

    @property
    def oldest_open(self) -> Item | None:
        """The unfinished change that holds the cursor."""
        position = self.progress.first_unfinished
        return None if position is None else self._open[position]

    def next_due_ms(self) -> int | None:
        """When `tick` has something to do at the earliest; None: never, as things are."""
        deadline_ms = self._next_deadline_ms if self._flight else None
        due = [each for each in (deadline_ms, self._backoff.next_due_ms) if each is not None]
        return min(due, default=None)

    # What is read, and what was there before.

    def feed(self, changes: Iterable[LoggedChange], last_position: int) -> None:
        """Takes over the next changes in order; everything up to last_position was looked at."""
        progress, lanes, still_open = self.progress, self._lanes, self._open
        for change in changes:
            position = change.position
            if not progress.read(position):
                continue
            number = change.waybill_number
            lane = lanes.get(number)
            if lane is None:
                lane = lanes[number] = Lane(number, LaneState.READY)
                self._ready.append(lane)
            still_open[position] = item = Item(position, lane, change)
            lane.items.append(item)
            if lane.failed or lane.state is LaneState.WAITING:
                self._join_failed(item)
        progress.read_up_to(last_position)

    def restore(self, stored: Iterable[StoredChange], now_ms: int) -> None:
        """Takes back what was kept before a restart. Nothing may have been fed yet."""
        for change in stored:
            item = self._enter(change, None)
            item.attempts, item.reason = change.attempts, change.reason
            item.not_before_ms = change.at_ms
        for lane in self._lanes.values():
            self._next_head(lane, now_ms)

    def redrive(self, parked: StoredChange, change: Wired) -> bool:
        """Delivers a parked change again, with fresh attempts; False if there is no room for it."""
        if len(self._kept) >= self._bounds.kept_max:
            return False
        self.drop_parked(parked.position)
        item = self._enter(parked, change)
        self._kept_unsaved[item.position] = item
        lane = item.lane
        if len(lane.items) == 1:
            lane.state = LaneState.READY
            self._ready.append(lane)
        elif lane.items[0] is item:
            self._wake(lane)
        return True

    def drop_parked(self, position: int) -> None:
        """A parked change is parked no more."""
        self.is_dirty = True
        self._parked_unsaved[position] = None
        self.parked -= 1

    def expire(self, oldest_position: int) -> int:
        """The log begins at oldest_position: goes on there; how many positions were lost."""
        lost = oldest_position - 1 - self.progress.read_position
        if lost > 0:
            self.progress.read_up_to(oldest_position - 1)
            self.is_dirty = True
        return max(0, lost)

    def make_room(self) -> None:
        """Keeps what holds the cursor, when too much is finished behind it or nothing can go out.

        What is ready is not kept: it goes out as soon as somebody takes it.
        """
        bounds, progress = self._bounds, self.progress
        starves = not self._ready and len(self._open) >= bounds.ahead_max
        enough = bounds.ahead_max * 3 // 4 if starves else bounds.ahead_max
        while len(self._open) > enough or progress.window > bounds.window_max // 2:
            item, is_full = self.oldest_open, len(self._kept) >= bounds.kept_max
            if item is None or item.lane.state is LaneState.READY or is_full:
                return
            self._keep(item)

    def _enter(self, change: StoredChange, wired: Wired | None) -> Item:
        """A change from before takes its place in its lane; behind what is in flight."""
        lane = self._lanes.get(change.waybill_number)
        if lane is None:
            lane = Lane(change.waybill_number, LaneState.FLIGHT)  # until its head is seen to
            self._lanes[change.waybill_number] = lane
        item = Item(change.position, lane, wired, kept=True)
        self._kept[item.position] = item
        items = lane.items
        fixed = 1 if items and items[0].consumer else 0
        behind = []
        while len(items) > fixed and items[-1].position > item.position:
            behind.append(items.pop())
        items.append(item)
        items.extend(reversed(behind))
        return item

    def _join_failed(self, item: Item) -> None:
        """A change arrives in a lane whose head failed, or was handed back."""
        lane = item.lane
        if self.rules.supersede and lane.failed and lane.state is not LaneState.FLIGHT:
            self._supersede(lane)
        elif lane.items[-2].kept:  # or it would go before that one after a restart
            self._keep(item)

    # What goes out.

    def take(self, count: int, consumer: int, now_ms: int) -> list[Item]:
        """Up to count changes for a consumer; they are in flight from now on."""
        ready, flight = self._ready, self._flight
        deadline_ms = now_ms + self.rules.ack_timeout_ms
        if not flight or deadline_ms < self._next_deadline_ms:
            self._next_deadline_ms = deadline_ms
        given = []
        for _ in range(min(count, len(ready))):
            lane = ready.popleft()
            lane.state = LaneState.FLIGHT
            item = lane.items[0]
            item.attempts += 1
            if item.attempts > 1:
                self.counts.redelivered += 1
            item.consumer = consumer
            item.deadline_ms = deadline_ms
            flight[item.position] = item
            given.append(item)
        return given

    # What consumers say. Each returns whether the delivery was in flight with that consumer: if
    # not, it came too late and nothing happens.

    def ack(self, position: int, consumer: int, now_ms: int) -> bool:
        """Done."""
        item = self._flight.get(position)
        if item is None or item.consumer != consumer:
            return False
        del self._flight[position]
        self.counts.acknowledged += 1
        self._finish_head(item, now_ms)
        return True

    def nack(
        self,
        position: int,
        consumer: int,
        now_ms: int,
        *,
        delay_ms: int,
        reason: str,
        untried: bool = False,
    ) -> bool:
        """Failed; to be tried again after delay_ms, or, if that is 0, as the rules say.

        untried: it does not count as an attempt, and without a delay it goes out again at once.
        """
        item = self._landed(position, consumer)
        if item is None:
            return False
        item.reason = reason
        if untried:
            item.attempts -= 1
        elif not delay_ms:
            waits = self.rules.retry_backoff_ms
            delay_ms = waits[min(item.attempts, len(waits)) - 1]
        self._failed(item, now_ms, delay_ms)
        return True

    def park(self, position: int, consumer: int, now_ms: int, *, reason: str) -> bool:
        """Will never succeed."""
        item = self._landed(position, consumer)
        if item is None:
            return False
        item.reason = reason
        self._park(item, now_ms)
        return True

    def gone(self, consumer: int, now_ms: int, *, untried: bool = False) -> int:
        """The consumer is gone; what it had goes out again, first of all. How much that was.

        untried: it left in order, which is no failed attempt.
        """
        lost = [item for item in self._flight.values() if item.consumer == consumer]
        for item in reversed(lost):
            self._landed(item.position, consumer)
            item.attempts -= untried
            if item.attempts >= self.rules.max_attempts:
                item.reason = "the consumer went away"
                self._park(item, now_ms)
            else:
                item.lane.settle()
                self._next_head(item.lane, now_ms, goes_first=True)
        return len(lost)

    def tick(self, now_ms: int) -> list[tuple[int, int]]:
        """Does what is due; the position and the consumer of each delivery that timed out."""
        self._ready.extend(self._backoff.due(now_ms))
        if not self._flight or self._next_deadline_ms > now_ms:
            return []
        late = [item for item in self._flight.values() if item.deadline_ms <= now_ms]
        told = [(item.position, item.consumer) for item in late]
        for item in late:
            self._landed(item.position, item.consumer)
            item.reason = "not acknowledged in time"
            self._failed(item, now_ms, 0)
        self._next_deadline_ms = min((i.deadline_ms for i in self._flight.values()), default=0)
        return told

    def _landed(self, position: int, consumer: int) -> Item | None:
        """Takes a delivery out of flight, if it is with that consumer."""
        item = self._flight.get(position)
        if item is None or item.consumer != consumer:
            return None
        del self._flight[position]
        item.consumer = 0
        return item

    # What becomes of a change that has landed.

    def _failed(self, item: Item, now_ms: int, delay_ms: int) -> None:
        lane = item.lane
        if self.rules.supersede and item.attempts and lane.items[-1].position > item.position:
            lane.state = LaneState.READY
            self._ready.append(lane)
            self._supersede(lane)
        elif item.attempts >= self.rules.max_attempts:
            self._park(item, now_ms)
        else:
            item.not_before_ms = now_ms + delay_ms
            for each in lane.items:
                if each is item or not each.kept:
                    self._keep(each)
            lane.settle()
            self._next_head(lane, now_ms)

    def _park(self, item: Item, now_ms: int) -> None:
        self._parked_unsaved[item.position] = Parked(item, now_ms)
        self.parked += 1
        self._finish_head(item, now_ms)

    def _finish_head(self, item: Item, now_ms: int) -> None:
        """The head of a lane is finished, and the lane moves on."""
        lane = item.lane
        lane.items.popleft()
        self._finish(item)
        if lane.items:
            self._next_head(lane, now_ms)
        else:
            del self._lanes[lane.waybill_number]

    def _next_head(self, lane: Lane, now_ms: int, *, goes_first: bool = False) -> None:
        """A lane that is in no list has a head, which goes out, or waits for its time."""
        head = lane.items[0]
        lane.failed = head.attempts > 0
        if head.not_before_ms > now_ms:
            self._backoff.add(lane)
            return
        lane.state = LaneState.READY
        (self._ready.appendleft if goes_first else self._ready.append)(lane)

    def _wake(self, lane: Lane) -> None:
        """A lane that waited is ready."""
        if self._backoff.leave(lane):
            self._ready.append(lane)

    def _supersede(self, lane: Lane) -> None:
        """Only the newest change of a lane that failed stays; it goes out at once."""
        self._wake(lane)
        while len(lane.items) > 1:
            self._finish(lane.items.popleft())
            self.counts.superseded += 1
        lane.failed = False

    def _finish(self, item: Item) -> None:
        self.is_dirty = True
        if item.kept:
            del self._kept[item.position]
            self._kept_unsaved[item.position] = None
        else:
            del self._open[item.position]
            self.progress.finish(item.position)

    def _keep(self, item: Item) -> None:
        """It gets a row of its own, or a newer one."""
        self.is_dirty = True
        self._kept_unsaved[item.position] = item
        if not item.kept:
            item.kept = True
            self._kept[item.position] = item
            del self._open[item.position]
            self.progress.finish(item.position)

    # What is to be saved.

    def unsaved(self) -> Unsaved:
        """What changed since the last time, to be written at once and together."""
        kept, parked = self._kept_unsaved, self._parked_unsaved
        self._kept_unsaved, self._parked_unsaved, self.is_dirty = {}, {}, False
        return Unsaved(self.progress.cursor, self.progress.done(), kept, parked)
