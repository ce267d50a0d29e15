"""A consumer of a subscription: what was given to it and not yet sent, and how much more it takes.

Whoever serves it takes what is given and sends it; the subscription never waits for that.
"""

import asyncio

CREDITS_MAX = 100_000

Given = tuple[bytes, int]  # the serialised trackd.v1.Change, and which attempt it is


class Consumer:
    """One consumer, as long as it is connected."""

    def __init__(self, number: int, credit: int) -> None:
        self.number = number
        # How many it takes at a time, and how many more now; the subscription alone counts them.
        self.limit = credit
        self.credit = credit
        # Set once, when the subscription is no more.
        self.ended: Exception | None = None
        self._given: list[Given] = []
        self._news = asyncio.Event()

    @property
    def takes(self) -> bool:
        """Whether it may be given more.

        Not while more waits for it than it takes at a time: deliveries that time out give their
        credit back, and one that never reads would collect them without end.
        """
        return self.credit > 0 and len(self._given) < self.limit

    def give(self, deliveries: list[Given]) -> None:
        """Deliveries to be sent."""
        self._given += deliveries
        self._news.set()

    def end(self, reason: Exception) -> None:
        """Whoever serves it gets the reason instead of more deliveries."""
        self.ended = reason
        self._news.set()

    async def given(self) -> list[Given]:
        """What was given since the last time; waits until there is something. Raises `ended`."""
        await self._news.wait()
        self._news.clear()
        if self.ended:
            raise self.ended
        given, self._given = self._given, []
        return given
