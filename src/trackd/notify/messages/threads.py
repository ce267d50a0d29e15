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


@dataclass(slots=True)
class _Desk:
    """The threads that one endpoint may use, and how many calls want one."""

    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PER_ENDPOINT_MAX))
    callers: int = 0


class Threads:
    """Runs work in threads, on behalf of endpoints. For one event loop."""

    def __init__(self, *, count: int, timeout_s: float) -> None:
        """count: threads, all endpoints together; what finds none waits. timeout_s: for a work."""
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="message")
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(count)
        self._desks: dict[str, _Desk] = {}
        self._running: set[Watch] = set()

    async def run(self, endpoint_id: str, work: Callable[[], _Result], watch: Watch) -> _Result:
        """What `work` returns. Raises TimeoutError when it takes too long; it is then aborted."""
        desk = self._desks.setdefault(endpoint_id, _Desk())
        desk.callers += 1
        try:
            async with desk.places:
                return await self._run(work, watch)
        finally:
            desk.callers -= 1
            if not desk.callers:
                self._desks.pop(endpoint_id, None)

    async def close(self) -> None:
        """Aborts what still runs; returns at once."""
        for watch in list(self._running):
            watch.abort()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], _Result], watch: Watch) -> _Result:
        def watched() -> _Result:
            with watching(watch):
                return work()

        await self._free.acquire()
        self._running.add(watch)
        future = asyncio.get_running_loop().run_in_executor(self._pool, watched)
        # Not when the caller gives up: only when the thread is free again.
        future.add_done_callback(lambda _: self._ended(watch))
        try:
            done, _ = await asyncio.wait({future}, timeout=self._timeout_s)
        except asyncio.CancelledError:
            watch.abort()
            raise
        if not done:
            watch.abort()
            raise TimeoutError
        return future.result()

    def _ended(self, watch: Watch) -> None:
        self._running.discard(watch)
        self._free.release()
