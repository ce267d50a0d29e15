"""How far a subscription is in one partition: a cursor, and what is done above it. Pure.

* Every position at or below the cursor is done: finished, passed over by the filter, or kept
  elsewhere (as a row of its own).
* `done` holds the positions above the cursor that are done as well.
* A start from (cursor, done) delivers exactly what was not done.
"""

from collections import deque
from collections.abc import Iterable


class Progress:
    """The positions of one subscription in one partition."""

    def __init__(self, cursor: int, done: Iterable[int] = ()) -> None:
        # What was read up to here is in `_order` or was passed over.
        self.read_position = cursor
        self._order: deque[int] = deque()
        self._done = {position for position in done if position > cursor}
        # How many positions of `_order` are done.
        self._done_in_order = 0

    @property
    def cursor(self) -> int:
        """Everything at or below it is done."""
        return self._order[0] - 1 if self._order else self.read_position

    @property
    def window(self) -> int:
        """How many changes stand between the cursor and what was read, done or not."""
        return len(self._order)

    @property
    def unfinished(self) -> int:
        """How many changes that were read are not done."""
        return len(self._order) - self._done_in_order

    @property
    def first_unfinished(self) -> int | None:
        """The position that holds the cursor; None if nothing does."""
        return self._order[0] if self._order else None

    def done(self) -> list[int]:
        """The positions above the cursor that are done, in order."""
        cursor = self.cursor
        return sorted(position for position in self._done if position > cursor)

    def read(self, position: int) -> bool:
        """A change was read, the next in order; whether it is still to be delivered."""
        self._order.append(position)
        if position in self._done:
            self._done_in_order += 1
            return False
        return True

    def read_up_to(self, position: int) -> None:
        """Everything up to position was read; what `read` did not name is passed over."""
        self.read_position = position
        self._advance()

    def finish(self, position: int) -> None:
        """A change that was read is done."""
        self._done.add(position)
        self._done_in_order += 1
        self._advance()

    def _advance(self) -> None:
        order, done = self._order, self._done
        while order and order[0] in done:
            done.discard(order.popleft())
            self._done_in_order -= 1
        if done and not order:
            # Done before a restart, and not told by the filter of today.
            self._done = {position for position in done if position > self.read_position}
