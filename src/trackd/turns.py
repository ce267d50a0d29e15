"""Turns: long work waits for short calls, on the one event loop of a process.

Reading a batch and planning a commit are pieces of work that take their turn here; look-ups do not.
grpc.aio needs some six turns of the loop to take in one call, so work that came in every turn kept
each call waiting for six pieces of it: at 60,000 events/s on 2 cores it took in fewer than 500
calls a second, and half of them waited for longer than a second. So while calls come in, work waits
after each half a millisecond of itself until the loop has turned some times without a new one.
Without calls nothing waits, and a scan costs what it did. Among work, batches that have arrived are
read before a commit is planned, for a few milliseconds at most: a larger commit is cheaper.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

# Work that may be done before calls are looked for.
_WORK_S = 0.0005
# Turns of the loop without a new call after which none is waiting: one more than taking one in has.
_QUIET_TURNS = 7
# Turns of the loop after which work goes on all the same: calls slow scans down, and never stop
# them.
_WAITING_TURNS_MAX = 64
# How long work that is patient lets other work go first: a part of the 20 ms within which a scan is
# to be acknowledged.
_PATIENCE_S = 0.003
# How long after a call another one is expected.
_EXPECTING_S = 0.25


class Turns:
    """Who is next on one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Callable[[], None]] = deque()
        # Work that goes behind all other, and since when each waits.
        self._patient: deque[tuple[float, Callable[[], None]]] = deque()
        self._is_due = False
        # Work done since calls were looked for.
        self._worked_s = 0.0
        self._call_came_at = 0.0
        # Of the present look for calls: turns without one, and turns in all.
        self._quiet_turns = 0
        self._turns = 0

    def soon(self, work: Callable[[], None]) -> None:
        """Calls `work`, in a turn of its own."""
        self._waiting.append(work)
        self._be_due()

    def patiently(self, work: Callable[[], None]) -> None:
        """Calls `work`, in a turn of its own, once no other work waits, or for _PATIENCE_S.

        For work that is the cheaper the more has come before it.
        """
        self._patient.append((time.monotonic(), work))
        self._be_due()

    async def mine(self) -> None:
        """Returns when it is the caller's turn, who works until its next `await`."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self.soon(lambda: None if turn.done() else turn.set_result(None))
        await turn

    def call_came(self) -> None:
        """A call was taken in that work is to wait for."""
        self._call_came_at = time.monotonic()
        self._quiet_turns = 0

    def _be_due(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._next)

    def _is_patience_over(self, now: float) -> bool:
        return not self._waiting or now - self._patient[0][0] > _PATIENCE_S

    def _next(self) -> None:
        began_at = time.monotonic()
        try:
            if self._patient and self._is_patience_over(began_at):
                self._patient.popleft()[1]()
            elif self._waiting:
                self._waiting.popleft()()
        finally:
            # What `mine` lets go on works in the next turn, so the time runs until then.
            self._loop.call_soon(self._worked, began_at)

    def _worked(self, began_at: float) -> None:
        now = time.monotonic()
        self._worked_s += now - began_at
        if self._worked_s >= _WORK_S and now - self._call_came_at < _EXPECTING_S:
            self._worked_s = 0.0
            self._turns = self._quiet_turns = 0
            self._look_for_calls()
        else:
            self._go_on()

    def _look_for_calls(self) -> None:
        self._turns += 1
        self._quiet_turns += 1
        if self._quiet_turns > _QUIET_TURNS or self._turns > _WAITING_TURNS_MAX:
            self._go_on()
        else:
            self._loop.call_soon(self._look_for_calls)

    def _go_on(self) -> None:
        if self._waiting or self._patient:
            self._next()
        else:
            self._is_due = False
