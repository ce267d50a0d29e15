"""The lanes that wait for their time, soonest first. Pure."""

import heapq
import itertools

from trackd.feed.lane import Lane, LaneState

_SPARE_TIMERS = 64
_Timer = tuple[int, int, int, Lane]  # when, the position of its head, which timer, the lane


class Backoff:
    """A heap of lanes. One that does not wait any more is passed over when its time comes."""

    def __init__(self) -> None:
        self._timers: list[_Timer] = []
        self._numbers = itertools.count()
        # How many lanes wait; the other timers are swept out when they are too many.
        self._waiting = 0

    @property
    def next_due_ms(self) -> int | None:
        """When `due` may have something; None: nothing waits."""
        return self._timers[0][0] if self._timers else None

    def add(self, lane: Lane) -> None:
        """A lane waits from now on until its head may go out."""
        lane.state = LaneState.WAITING
        self._waiting += 1
        head = lane.items[0]
        timer = (head.not_before_ms, head.position, next(self._numbers), lane)
        heapq.heappush(self._timers, timer)
        if len(self._timers) > 2 * self._waiting + _SPARE_TIMERS:
            still = {timer[:2]: timer for timer in self._timers if _still_waits(timer)}
            self._timers = list(still.values())
            heapq.heapify(self._timers)

    def leave(self, lane: Lane) -> bool:
        """A lane waits no more, for whatever reason; whether it did."""
        if lane.state is not LaneState.WAITING:
            return False
        self._waiting -= 1
        lane.state = LaneState.READY
        return True

    def due(self, now_ms: int) -> list[Lane]:
        """The lanes whose time has come; they wait no more."""
        found = []
        while self._timers and self._timers[0][0] <= now_ms:
            timer = heapq.heappop(self._timers)
            if _still_waits(timer) and self.leave(timer[3]):
                found.append(timer[3])
        return found


def _still_waits(timer: _Timer) -> bool:
    when, position, _, lane = timer
    if lane.state is not LaneState.WAITING:
        return False
    head = lane.items[0]
    return (head.not_before_ms, head.position) == (when, position)
