"""Where what blocks is run: a bounded pool of threads beside the event loop.

One endpoint gets a few of them at most, so that a mail server that never ends its sentences holds
up nobody but itself; and what takes too long loses its connections. Nothing here knows what is run.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from trackd.notify.messages.watch import Watch, watching

PER_ENDPOINT_MAX = 4
_Result = TypeVar("_Result")


class NoThread(Exception):
    """No thread came free in time: nothing was tried."""


@dataclass(slots=True)
class _Desk:
    """The threads that one endpoint may use, and how many calls want or have one."""

    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PER_ENDPOINT_MAX))
    callers: int = 0


class Threads:
    """Runs work in threads, on behalf of endpoints. For one event loop."""

    def __init__(self, *, count: int, timeout_s: float) -> None:
        """count: threads, all endpoints together. timeout_s: to find one, and then for a work."""
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="message")
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(count)
        self._desks: dict[str, _Desk] = {}
        self._running: set[Watch] = set()

    async def run(self, endpoint_id: str, work: Callable[[], _Result], watch: Watch) -> _Result:
        """What `work` returns.

        Raises NoThread, or TimeoutError when the work takes too long; it is then aborted.
        """

        def watched() -> _Result:
            with watching(watch):
                return work()

        await self._begin(endpoint_id)
        self._running.add(watch)
        future = asyncio.get_running_loop().run_in_executor(self._pool, watched)
        # Not when the caller gives up: only when the thread is free again.
        future.add_done_callback(lambda _: self._ended(endpoint_id, watch))
        try:
            done, _ = await asyncio.wait({future}, timeout=self._timeout_s)
        except asyncio.CancelledError:
            watch.abort()
            raise
        if not done:
            watch.abort()
            raise TimeoutError
        return future.result()

    async def close(self) -> None:
        """Aborts what still runs; returns at once."""
        for watch in list(self._running):
            watch.abort()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _begin(self, endpoint_id: str) -> None:
        """A place at the endpoint's desk, and a thread; or neither."""
        desk = self._desks.setdefault(endpoint_id, _Desk())
        desk.callers += 1
        seated = False
        try:
            async with asyncio.timeout(self._timeout_s):
                seated = await desk.places.acquire()
                await self._free.acquire()
        except BaseException as error:
            self._leave(endpoint_id, seated=seated)
            if isinstance(error, TimeoutError):
                raise NoThread from None
            raise

    def _ended(self, endpoint_id: str, watch: Watch) -> None:
        self._running.discard(watch)
        self._free.release()
        self._leave(endpoint_id, seated=True)

    def _leave(self, endpoint_id: str, *, seated: bool) -> None:
        desk = self._desks[endpoint_id]
        if seated:
            desk.places.release()
        desk.callers -= 1
        if not desk.callers:
            del self._desks[endpoint_id]
