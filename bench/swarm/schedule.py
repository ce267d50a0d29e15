"""When a user is due: places in time that do not move, whatever happened to those before them.

Plain arithmetic; nothing here reads a clock or waits.
"""


class Schedule:
    """`per_s` turns a second from `began_at` on, the first one after `phase` (0-1) of an interval.

    Times are seconds of the caller's clock. A turn that was not taken in time stays due.
    """

    def __init__(self, *, began_at: float, per_s: float, phase: float) -> None:
        if per_s <= 0:
            raise ValueError(f"a schedule needs turns, not {per_s} a second")
        self._began_at = began_at
        self._interval_s = 1 / per_s
        self._phase = phase
        self._taken = 0

    def take(self) -> float:
        """The moment at which the next turn is due; it may have passed."""
        due_at = self._began_at + (self._taken + self._phase) * self._interval_s
        self._taken += 1
        return due_at
