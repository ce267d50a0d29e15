"""Who waits for a number to be reached: a durable position, or less in a queue."""

import asyncio

from trackd.store.errors import StorageFailed


def once_more(error: StorageFailed) -> StorageFailed:
    """The same for another caller: one exception raised in many tasks collects all their frames."""
    return StorageFailed(str(error))


class Waiting:
    """Those who wait. Only the thread of its event loop may call it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    async def until(self, wanted: int) -> None:
        """Returns once `wanted`, or more, is reached. Raises what they are failed with."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append((wanted, waiter))
        await waiter

    def reached(self, number: int) -> None:
        """All numbers up to this one are reached."""
        waiting, self._waiters = self._waiters, []
        for wanted, waiter in waiting:
            if wanted > number:
                self._waiters.append((wanted, waiter))
            elif not waiter.done():
                waiter.set_result(None)

    def fail(self, error: StorageFailed) -> None:
        """None of them will get what they wait for."""
        waiting, self._waiters = self._waiters, []
        for _, waiter in waiting:
            if not waiter.done():
                waiter.set_exception(once_more(error))
