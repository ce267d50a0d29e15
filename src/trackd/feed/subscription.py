"""A named subscription at work: brings what is ready and who takes it together.

Its shares (one for each partition, in this process or with another worker) say what is ready, its
consumers how much more they take; a turn brings the two together, in turns over consumers and
partitions, so that none of either goes first. Nothing here waits for a consumer: what it does not
take stays in the log.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from trackd.feed.consumer import Consumer
from trackd.feed.share_access import Branch, Late, ShareAccess
from trackd.feed.subscription_settings import SubscriptionDocument, SubscriptionSettings

# Deliveries that a consumer is given at once: with more, the first would wait for the last.
RUN_MAX = 256
# How often the alarm is looked at.
_ALARM_INTERVAL_S = 1.0

_log = structlog.get_logger()


class SubscriptionGone(Exception):
    """The subscription was deleted."""


class ConsumerStopped(Exception):
    """The server stops."""


@dataclass(frozen=True, slots=True)
class SubscriptionFigures:
    """How far a subscription is; the names of the contract's SubscriptionProgress."""

    lag: int
    lag_ms: int
    in_flight: int
    waiting: int
    parked: int
    consumers: int
    acknowledged: int
    redelivered: int
    superseded: int
    lag_alarm: bool
    expired: int


class Subscription:
    """See above. Only the thread of its event loop may call it."""

    def __init__(
        self,
        document: SubscriptionDocument,
        branches: Sequence[Branch],
        *,
        now_ms: Callable[[], int],
    ) -> None:
        """branches: over all partitions together."""
        self.document = document
        self._branches = list(branches)
        shares = [share for branch in self._branches for share in branch.shares]
        # In order of their partitions.
        self.shares: list[ShareAccess] = sorted(shares, key=lambda share: share.number)
        self._now_ms = now_ms
        self._consumers: dict[int, Consumer] = {}
        self._numbers = itertools.count(1)
        # Who is first in the next turn.
        self._turns = 0
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        # Who is told of it: the log and the metrics, which ask from another thread.
        self._is_near = False
        self.latest_figures = self.figures()

    @property
    def settings(self) -> SubscriptionSettings:
        """What it was told to do."""
        return self.document.settings

    # Life.

    def start(self) -> None:
        """Begins to work."""
        work = [self._run(), self._watch_alarm()]
        for branch in self._branches:
            work += branch.work(self._wake.set, self._timed_out)
        self._tasks = [asyncio.create_task(each) for each in work]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def stop(self, reason: Exception) -> None:
        """Ends the work and its consumers, who get the reason. What they said is not saved yet."""
        self.end_consumers(reason)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """After `stop`: what the shares of this process were told is durable. Raises
        StorageFailed."""
        await asyncio.gather(*(branch.close() for branch in self._branches))

    def end_consumers(self, reason: Exception) -> None:
        """Whoever serves one gets the reason instead of more deliveries."""
        for consumer in self._consumers.values():
            consumer.end(reason)

    async def save(self) -> None:
        """Returns once everything that happened so far is durable. Raises as ShareAccess does."""
        await asyncio.gather(*(branch.save() for branch in self._branches))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        self.end_consumers(error if isinstance(error, Exception) else RuntimeError(repr(error)))
        _log.error("a subscription cannot go on", name=self.settings.name, error=str(error))

    def update(self, document: SubscriptionDocument) -> None:
        """Other settings; what is in flight keeps those it went out under."""
        self.document = document
        for branch in self._branches:
            branch.follow(document)
        self._wake.set()

    # Consumers.

    def join(self, credit: int) -> Consumer:
        """A consumer comes."""
        consumer = Consumer(next(self._numbers), credit)
        self._consumers[consumer.number] = consumer
        self._wake.set()
        return consumer

    def leave(self, consumer: Consumer, *, in_order: bool) -> None:
        """A consumer goes; what it had goes out again, and was not tried if it went in order."""
        self._consumers.pop(consumer.number, None)
        for share in self.shares:
            share.gone(consumer, untried=in_order)
        self._wake.set()

    def ack(self, consumer: Consumer, share: ShareAccess, positions: Sequence[int]) -> None:
        """These deliveries are done; those that are not in flight with it are passed over."""
        consumer.credit += share.ack(consumer, positions)
        self._wake.set()

    def nack(
        self,
        consumer: Consumer,
        share: ShareAccess,
        position: int,
        *,
        delay_ms: int,
        reason: str,
        untried: bool,
    ) -> None:
        """This delivery failed."""
        consumer.credit += share.nack(
            consumer, position, delay_ms=delay_ms, reason=reason, untried=untried
        )
        self._wake.set()

    def park(self, consumer: Consumer, share: ShareAccess, position: int, *, reason: str) -> None:
        """This delivery will never succeed."""
        consumer.credit += share.park(consumer, position, reason=reason)
        self._wake.set()

    def add_credit(self, consumer: Consumer, credit: int) -> None:
        """It takes so many more."""
        consumer.limit += credit
        consumer.credit += credit
        self._wake.set()

    def wake(self) -> None:
        """Something may be ready that was not."""
        self._wake.set()

    @property
    def consumers(self) -> int:
        """How many are connected."""
        return len(self._consumers)

    def _timed_out(self, _: int, late: Late) -> None:
        for _, number in late:
            if consumer := self._consumers.get(number):
                consumer.credit += 1

    # Turns.

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._turn():
                self._wake.set()
                # Others of this loop have their turn, ingest first of all.
                await asyncio.sleep(0)

    def _turn(self) -> bool:
        """Reads a run of each partition and gives out what is ready; whether there is more."""
        now_ms = self._now_ms()
        more = False
        for branch in self._branches:
            more = branch.read_on(now_ms) or more
        self._give_out(now_ms)
        for branch in self._branches:
            branch.set_timer(now_ms)
        return more

    def _give_out(self, now_ms: int) -> None:
        room = self.settings.max_in_flight - sum(share.in_flight for share in self.shares)
        takers = [one for one in self._consumers.values() if one.takes]
        while room > 0 and takers:
            ready = sum(share.ready for share in self.shares)
            run = max(1, min(RUN_MAX, -(-min(ready, room) // len(takers))))
            self._turns += 1
            first = self._turns % len(takers)
            for consumer in takers[first:] + takers[:first]:
                given = self._take(min(run, room, consumer.credit), consumer, now_ms)
                if not given:
                    return
                room -= given
                if room <= 0:
                    return
            takers = [one for one in takers if one.takes]

    def _take(self, count: int, consumer: Consumer, now_ms: int) -> int:
        """Gives a consumer up to count deliveries, of every partition in turn; how many."""
        taken = 0
        self._turns += 1
        first = self._turns % len(self.shares)
        for share in self.shares[first:] + self.shares[:first]:
            taken += share.take(count - taken, consumer, now_ms)
            if taken == count:
                break
        return taken

    # How far it is.

    async def _watch_alarm(self) -> None:
        while True:
            for branch in self._branches:
                branch.look()
            near = any(share.figures.is_near for share in self.shares)
            if near and not self._is_near:
                _log.warning(
                    "a subscription is close to losing changes to retention",
                    name=self.settings.name,
                    lag=sum(share.figures.lag for share in self.shares),
                )
            self._is_near = near
            self.latest_figures = self.figures()
            await asyncio.sleep(_ALARM_INTERVAL_S)

    async def refreshed(self) -> SubscriptionFigures:
        """How far it is now. Raises as ShareAccess does."""
        await asyncio.gather(*(branch.refresh() for branch in self._branches))
        return self.figures()

    def figures(self) -> SubscriptionFigures:
        """How far it is, as far as is known here."""
        shares = [share.figures for share in self.shares]
        expired = sum(each.expired for each in shares)
        return SubscriptionFigures(
            lag=sum(each.lag for each in shares),
            lag_ms=max(each.lag_ms for each in shares),
            in_flight=sum(each.in_flight for each in shares),
            waiting=sum(each.waiting for each in shares),
            parked=sum(each.parked for each in shares),
            consumers=len(self._consumers),
            acknowledged=sum(each.acknowledged for each in shares),
            redelivered=sum(each.redelivered for each in shares),
            superseded=sum(each.superseded for each in shares),
            lag_alarm=self._is_near or expired > 0,
            expired=expired,
        )
