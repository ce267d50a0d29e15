"""Consumers of one named subscription at work, and everything they saw: order, repeats, gaps.

They come and go, reject and park at random. What must hold is checked as it happens: a change is
delivered only when every earlier one of its waybill is settled, and nothing that was settled for
sure is ever delivered again.
"""

import asyncio
import contextlib
import itertools
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

from trackd.client.consumer import Consumer, ConsumerOptions
from trackd.client.errors import TrackdError
from trackd.v1.feed_pb2 import Delivery

_CONSUMERS = 3
_NACK_SHARE = 0.03
_PARK_SHARE = 0.005
# Deliveries that are worked on for a while, so that some are open whenever a server dies.
_SLOW_SHARE = 0.3
_SLOW_S_MAX = 0.15


class Crew:
    """The consumers of a subscription, over as many runs of the server as need be."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.faults: list[str] = []
        # Positions that were told to be done, or parked; those of them that nobody may have heard,
        # as who told it died; and those that no crash can undo.
        self.settled: set[str] = set()
        self.unheard: set[str] = set()
        self.sure: set[str] = set()
        self._told: defaultdict[Consumer, set[str]] = defaultdict(set)
        # Every waybill's positions in the order of their first delivery.
        self.seen: defaultdict[str, list[str]] = defaultdict(list)
        self._known: set[str] = set()
        self._rng = rng
        # Whether everything is acknowledged at once.
        self.gentle = False
        self.redelivered = self.deaths = 0
        self._consumers: list[Consumer] = []
        self._is_over = True

    @contextlib.asynccontextmanager
    async def at_work(self, *addresses: str, dying: bool = False) -> AsyncIterator[None]:
        """Consumers work for as long as the block runs, or as the server lives; in turn at each
        of its addresses.

        dying: one at a time goes abruptly, and another comes. Those that are left leave in order,
        so that the server has heard everything they said.
        """
        self._consumers, self._is_over = [], False
        doors = itertools.cycle(addresses)
        tasks = [asyncio.create_task(self._work(next(doors))) for _ in range(_CONSUMERS)]
        killing = asyncio.ensure_future(self._die(tasks, doors)) if dying else None
        try:
            yield
        finally:
            if killing:
                killing.cancel()
            self._is_over = True
            leaving, self._consumers = self._consumers, []
            await asyncio.gather(*(each.close() for each in leaving))
            await asyncio.gather(*tasks, return_exceptions=True)

    def server_died(self) -> None:
        """Whether it heard what it was told last nobody knows; until told again it is no matter."""
        self.unheard |= self.settled - self.sure

    async def _die(self, tasks: "list[asyncio.Task[None]]", doors: Iterator[str]) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(0.05, 0.2))
            self.deaths += 1
            if self._consumers:
                dying = self._consumers.pop(0)
                self.unheard |= self._told.pop(dying, set())
                await dying.abandon()
            tasks.append(asyncio.create_task(self._work(next(doors))))

    async def _work(self, address: str) -> None:
        options = ConsumerOptions(credits=self._rng.choice([3, 50, 500]), reconnects=False)
        loop = asyncio.get_running_loop()
        consumer = Consumer(address, self.name, options=options)
        with contextlib.suppress(TrackdError):  # the server is gone
            await consumer.open()
            if self._is_over:  # it came when the others had left
                await consumer.close()
                return
            self._consumers.append(consumer)
            async for delivery in consumer:
                self._look(delivery.change.waybill_number, delivery.change.position)
                if self.gentle or self._rng.random() > _SLOW_SHARE:
                    self._settle(consumer, delivery)
                else:
                    slow_s = self._rng.uniform(0, _SLOW_S_MAX)
                    loop.call_later(slow_s, self._settle, consumer, delivery)

    def _settle(self, consumer: Consumer, delivery: Delivery) -> None:
        if consumer not in self._consumers:
            return  # it died or left meanwhile
        position = delivery.change.position
        self.unheard.discard(position)
        self._told[consumer].add(position)
        chance = 1.0 if self.gentle else self._rng.random()
        if chance < _PARK_SHARE:
            consumer.park(position, reason="at random")
            self.settled.add(position)
        elif chance < _NACK_SHARE:
            consumer.nack(position, delay_ms=self._rng.randint(1, 30), reason="at random")
        else:
            consumer.ack(position)
            self.settled.add(position)

    def _look(self, waybill: str, position: str) -> None:
        seen = self.seen[waybill]
        if position in self.sure:
            self.faults.append(f"{waybill}: {position} was settled for sure and came again")
        if position not in self._known:
            self._known.add(position)
            if seen and place_of(seen[-1]) > place_of(position):
                self.faults.append(f"{waybill}: {position} came after {seen[-1]}")
            open_ones = [each for each in seen if each not in self.settled]
            if open_ones:
                self.faults.append(f"{waybill}: {position} came while {open_ones} were open")
            seen.append(position)
        else:
            self.redelivered += 1
            self.settled.discard(position)


def place_of(position: str) -> tuple[int, int]:
    """Partition and position of a change's token."""
    partition, _, number = position.rpartition("/")[2].partition(".")
    return int(partition), int(number)
