"""A worker's end of the line to its supervisor, and what it hears there.

Runs in the worker, on its event loop. Whoever loses the supervisor leaves at once: the lock of the
data directory would otherwise be held by processes that nobody stops.
"""

import asyncio
import ctypes
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from trackd import exits
from trackd.cluster.assignment import Assignment
from trackd.cluster.control import ControlLine

_PR_SET_PDEATHSIG = 1

_log = structlog.get_logger()


class Membership:
    """This worker among the others."""

    def __init__(self, assignment: Assignment, end: socket.socket) -> None:
        self.assignment = assignment
        # By worker; as the supervisor last told.
        self.serving = [False] * assignment.workers
        self.stop_told = asyncio.Event()
        self.close_told = asyncio.Event()
        # Whether all workers are being stopped, not only this one.
        self.together = False
        self._end = end
        self._line: ControlLine | None = None

    @asynccontextmanager
    async def joined(self, on_states: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Listens to the supervisor meanwhile; on_states is called when a worker came or went."""
        line = self._line = await ControlLine.open(self._end)
        listening = asyncio.create_task(self._listen(line, on_states))
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            line.close()

    def tell(self, told: str, **more: object) -> None:
        """Tells the supervisor."""
        assert self._line is not None, "not joined"
        self._line.tell(told, **more)

    async def _listen(self, line: ControlLine, on_states: Callable[[], Awaitable[None]]) -> None:
        async for heard in line.heard():
            if heard["told"] == "states":
                self.serving = heard["serving"]
                await on_states()
            elif heard["told"] == "stop":
                self.together = True
                self.stop_told.set()
            elif heard["told"] == "close":
                self.stop_told.set()
                self.close_told.set()
        _log.critical("the supervisor is gone: leaving at once")
        os._exit(exits.FAILED)


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when the one that started it is gone, whatever hangs here.

    parent: who that is; if it is gone already, this ends at once.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(exits.FAILED)
