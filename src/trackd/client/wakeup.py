"""A change that several tasks of one event loop wait for.

Knows nothing of what changed.
"""

import asyncio


class Wakeup:
    """Wakes everybody who waits for the next change.

    Used as `while not condition: await wakeup.wait()`: nothing runs between the check and the wait,
    so no change is missed.
    """

    def __init__(self) -> None:
        """Nobody waits."""
        self._next = asyncio.Event()

    def fire(self) -> None:
        """Something changed."""
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self) -> None:
        """Returns after the next `fire`."""
        await self._next.wait()
