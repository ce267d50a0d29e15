"""How many messages a recipient gets in a time: who may go now, and when the others may.

What may not go now is promised a time of its own, in the order of asking, so that a hundred
messages that wait do not come back all at once and wait again. Plain arithmetic on times that are
handed in; nothing here knows the time, or waits.
"""

from bisect import bisect_left, bisect_right, insort

PROMISES_MAX = 10_000
"""Messages of one recipient that are promised a time. What asks beyond it is told to ask again
when the last of them has gone."""


class RateCap:
    """At most `messages` in any `per_ms`, over what was sent and what is promised.

    - Before a time that it gave, a key is answered that time again; from then on it may go.
    - A key may go once for each time that it was given; `took` or `gave_back` follows.
    - What goes later than promised counts as gone when it was promised.
    - Times are milliseconds of one clock, and never go back by more than `per_ms`.
    """

    __slots__ = ("_messages", "_per_ms", "_promised", "_times")

    def __init__(self, *, messages: int, per_ms: int) -> None:
        """messages, per_ms: at least 1."""
        self._messages = messages
        self._per_ms = per_ms
        self._times: list[int] = []  # ascending: sent or promised
        self._promised: dict[str, int] = {}

    def time_for(self, key: str, *, now_ms: int, not_before_ms: int) -> int:
        """The time that is kept for a key from now on: `not_before_ms` if there is room then."""
        self._forget(now_ms)
        earliest = max(now_ms, not_before_ms)
        if (promised := self._promised.get(key)) is not None:
            if max(promised, now_ms) >= not_before_ms:
                return max(promised, now_ms)
            self.gave_back(key)  # quiet hours have begun since
        at_ms = earliest if self._has_room(earliest) else self._end(earliest)
        if at_ms <= now_ms or len(self._promised) < PROMISES_MAX:
            self._promised[key] = at_ms
            insort(self._times, at_ms)
        return at_ms

    def took(self, key: str) -> None:
        """The message went: its time counts, and the key has none any more."""
        self._promised.pop(key, None)

    def gave_back(self, key: str) -> None:
        """The message did not go, and will not at that time: others may have it."""
        at_ms = self._promised.pop(key, None)
        if at_ms is not None and (index := bisect_left(self._times, at_ms)) < len(self._times):
            del self._times[index]

    @property
    def idle(self) -> bool:
        """Whether it remembers nothing, as of when it was asked last."""
        return not self._times

    def _forget(self, now_ms: int) -> None:
        """What is too old to count, and promises that nobody came back for."""
        old = bisect_right(self._times, now_ms - self._per_ms)
        if old:
            del self._times[:old]
            bound = now_ms - self._per_ms
            late = [key for key, at_ms in self._promised.items() if at_ms <= bound]
            for key in late:
                del self._promised[key]

    def _has_room(self, at_ms: int) -> bool:
        """Whether no `per_ms` around a time would hold more than `messages`."""
        first = bisect_right(self._times, at_ms - self._per_ms)
        last = bisect_left(self._times, at_ms + self._per_ms)
        near = self._times[first:last]
        insort(near, at_ms)
        reach = self._messages
        return all(near[n + reach] - near[n] >= self._per_ms for n in range(len(near) - reach))

    def _end(self, earliest_ms: int) -> int:
        """The first time behind all others at which there is room."""
        after = max(earliest_ms, self._times[-1])
        if len(self._times) >= self._messages:
            after = max(after, self._times[-self._messages] + self._per_ms)
        return after
