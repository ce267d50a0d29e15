"""When an endpoint is left alone: a circuit breaker. Pure; the clock is handed in.

| state   | deliveries      | left by                                                         |
| ------- | --------------- | --------------------------------------------------------------- |
| CLOSED  | as many as fit  | failures_max failures in a row, or the endpoint asks for a rest |
| OPEN    | none            | the end of the pause                                            |
| PROBING | one at a time   | its success: CLOSED; its failure: OPEN, for twice as long       |

A rest that the endpoint asks for (429, 503 with Retry-After) is as long as it says, at least a
tenth of a second; the pauses after failures double, up to a bound, so that an endpoint that is down
for a day is asked once in a while.
"""

from dataclasses import dataclass
from enum import Enum

# An endpoint that answers "429, come back at once" would have its courier take leave of the server
# and join again with every attempt.
REST_S_MIN = 0.1


class BreakerState(Enum):
    """The table above."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOptions:
    """failures_max: in a row. pause_s: the first; pause_s_max: the longest that we choose."""

    failures_max: int
    pause_s: float
    pause_s_max: float


class Breaker:
    """The breaker of one endpoint. Times in seconds of one clock that never goes back."""

    def __init__(self, options: BreakerOptions) -> None:
        """Closed."""
        self._options = options
        self._failures = 0
        self._pause_s = options.pause_s
        self._open_until_s = 0.0
        self.state = BreakerState.CLOSED

    def rest_s(self, now_s: float) -> float:
        """How long nothing may be delivered; 0 when something may. Ends a pause that is over."""
        if self.state is not BreakerState.OPEN:
            return 0.0
        if now_s < self._open_until_s:
            return self._open_until_s - now_s
        self.state = BreakerState.PROBING
        return 0.0

    def succeeded(self) -> None:
        """An attempt got through. While it is open only a probe can close it."""
        self._failures = 0
        if self.state is not BreakerState.OPEN:
            self.state = BreakerState.CLOSED
            self._pause_s = self._options.pause_s

    def failed(self, now_s: float) -> None:
        """An attempt failed. Those that were under way when it opened count no more."""
        if self.state is BreakerState.OPEN:
            return
        self._failures += 1
        if self.state is BreakerState.PROBING or self._failures >= self._options.failures_max:
            self._open(now_s + self._pause_s)
            self._pause_s = min(self._pause_s * 2, self._options.pause_s_max)

    def throttled(self, now_s: float, after_s: float | None) -> None:
        """The endpoint asks for a rest: of after_s, or of the pause that is due."""
        if after_s is None:
            if self.state is BreakerState.OPEN:
                return
            after_s = self._pause_s
            self._pause_s = min(self._pause_s * 2, self._options.pause_s_max)
        self._open(max(now_s + max(after_s, REST_S_MIN), self._open_until_s))

    def _open(self, until_s: float) -> None:
        self.state = BreakerState.OPEN
        self._open_until_s = until_s
        self._failures = 0
