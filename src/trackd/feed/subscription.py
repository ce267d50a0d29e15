"""A named subscription at work: reads on in every partition, and gives out what is ready.

Its shares (one for each partition) say what is ready, its consumers how much more they take; a turn
brings the two together, in turns over consumers and partitions, so that none of either goes first.
Nothing here waits for a consumer: what it does not take stays in the log.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from trackd.feed.consumer import Consumer, Given
from trackd.feed.filters import ALL, Filter
from trackd.feed.lane import Item
from trackd.feed.share import Share
from trackd.feed.subscription_settings import SubscriptionDocument, SubscriptionSettings
from trackd.store.errors import DataDamaged

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
class AlarmRules:
    """When a subscription is close to losing changes: share of what is kept that is left to it.

    retention_ms: how long the log is kept by age; None if it is not trimmed by age.
    """

    share: float
    retention_ms: int | None


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
        shares: Sequence[Share],
        alarm: AlarmRules,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self.document = document
        self.shares = list(shares)
        self._filter = self._made_filter()
        self._alarm_rules = alarm
        self._now_ms = now_ms
        self._consumers: dict[int, Consumer] = {}
        self._numbers = itertools.count(1)
        # Who is first in the next turn.
        self._turns = 0
        self._wake = asyncio.Event()
        self._read_to_the_end = [asyncio.Event() for _ in self.shares]
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ms: int | None = None
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
        for index, share in enumerate(self.shares):
            work += [share.keep_saving(), self._watch(share, self._read_to_the_end[index])]
        self._tasks = [asyncio.create_task(each) for each in work]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def stop(self, reason: Exception) -> None:
        """Ends the work and its consumers, who get the reason. What they said is not saved yet."""
        self.end_consumers(reason)
        if self._timer:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def end_consumers(self, reason: Exception) -> None:
        """Whoever serves one gets the reason instead of more deliveries."""
        for consumer in self._consumers.values():
            consumer.end(reason)

    async def save(self) -> None:
        """Returns once everything that happened so far is durable. Raises StorageFailed."""
        await asyncio.gather(*(share.save() for share in self.shares))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        self.end_consumers(error if isinstance(error, Exception) else RuntimeError(repr(error)))
        _log.error("a subscription cannot go on", name=self.settings.name, error=str(error))

    def update(self, document: SubscriptionDocument) -> None:
        """Other settings; what is in flight keeps those it went out under."""
        self.document = document
        self._filter = self._made_filter()
        for share in self.shares:
            share.lanes.rules = document.settings.rules
        self._wake.set()

    def _made_filter(self) -> Filter:
        made = self.settings.filter.made()
        return ALL if made.wants_all else made

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
        now_ms = self._now_ms()
        for share in self.shares:
            if share.lanes.gone(consumer.number, now_ms, untried=in_order):
                self._said(share)

    def ack(self, consumer: Consumer, share: Share, positions: Sequence[int]) -> None:
        """These deliveries are done; those that are not in flight with it are passed over."""
        lanes, number, now_ms = share.lanes, consumer.number, self._now_ms()
        consumer.credit += sum(lanes.ack(position, number, now_ms) for position in positions)
        self._said(share)

    def nack(
        self,
        consumer: Consumer,
        share: Share,
        position: int,
        *,
        delay_ms: int,
        reason: str,
        untried: bool,
    ) -> None:
        """This delivery failed."""
        consumer.credit += share.lanes.nack(
            position,
            consumer.number,
            self._now_ms(),
            delay_ms=delay_ms,
            reason=reason,
            untried=untried,
        )
        self._said(share)

    def park(self, consumer: Consumer, share: Share, position: int, *, reason: str) -> None:
        """This delivery will never succeed."""
        consumer.credit += share.lanes.park(
            position, consumer.number, self._now_ms(), reason=reason
        )
        self._said(share)

    def add_credit(self, consumer: Consumer, credit: int) -> None:
        """It takes so many more."""
        consumer.limit += credit
        consumer.credit += credit
        self._wake.set()

    def wake(self) -> None:
        """Something may be ready that was not."""
        self._wake.set()

    def _said(self, share: Share) -> None:
        if share.lanes.is_dirty:
            share.unsaved.set()
        self._wake.set()

    # Turns.

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._turn():
                self._wake.set()
                # Others of this loop have their turn, ingest first of all.
                await asyncio.sleep(0)

    async def _watch(self, share: Share, read_to_the_end: asyncio.Event) -> None:
        """Wakes it when there is something newer in a partition than it has read."""
        while True:
            self._wake.set()
            await read_to_the_end.wait()
            await share.home.feed.newer(share.lanes.progress.read_position)
            read_to_the_end.clear()

    def _turn(self) -> bool:
        """Reads a run of each partition and gives out what is ready; whether there is more."""
        now_ms = self._now_ms()
        more = False
        for share, read_to_the_end in zip(self.shares, self._read_to_the_end, strict=True):
            for number in share.lanes.tick(now_ms):
                if late := self._consumers.get(number):
                    late.credit += 1
            if share.lanes.is_dirty:
                share.unsaved.set()
            if share.may_read():
                share.read(self._filter)
                more = more or share.may_read()
            if share.lanes.progress.read_position >= share.home.feed.newest_position:
                read_to_the_end.set()
        self._give_out(now_ms)
        self._set_timer(now_ms)
        return more

    def _give_out(self, now_ms: int) -> None:
        room = self.settings.max_in_flight - sum(share.lanes.in_flight for share in self.shares)
        takers = [one for one in self._consumers.values() if one.takes]
        while room > 0 and takers:
            ready = sum(share.lanes.ready for share in self.shares)
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
        deliveries: list[Given] = []
        taken = 0
        self._turns += 1
        first = self._turns % len(self.shares)
        for share in self.shares[first:] + self.shares[:first]:
            items = share.lanes.take(count - taken, consumer.number, now_ms)
            taken += len(items)
            deliveries += [
                (wire, item.attempts)
                for item in items
                if (wire := self._wire_of(share, item, consumer, now_ms)) is not None
            ]
            if taken == count:
                break
        consumer.credit -= len(deliveries)
        if deliveries:
            consumer.give(deliveries)
        return taken

    def _wire_of(self, share: Share, item: Item, consumer: Consumer, now_ms: int) -> bytes | None:
        """None if it cannot be read: then this attempt failed, and the others go on."""
        try:
            return share.wire_of(item)
        except DataDamaged as error:
            _log.error("a change cannot be read", name=self.settings.name, error=str(error))
            reason = "the stored change cannot be read"
            share.lanes.nack(item.position, consumer.number, now_ms, delay_ms=0, reason=reason)
            self._said(share)
            return None

    def _set_timer(self, now_ms: int) -> None:
        """Has a turn when the next delivery times out, or the next attempt is due."""
        due = [share.lanes.next_due_ms() for share in self.shares]
        soonest = min((each for each in due if each is not None), default=None)
        if soonest == self._timer_at_ms:
            return
        self._timer_at_ms = soonest
        if self._timer:
            self._timer.cancel()
        if soonest is not None:
            delay_s = max(soonest - now_ms, 1) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._timer_rang)

    def _timer_rang(self) -> None:
        self._timer_at_ms = None
        self._wake.set()

    # How far it is.

    async def _watch_alarm(self) -> None:
        while True:
            for share in self.shares:
                share.let_go()
            near = any(self._near_the_end(share) for share in self.shares)
            if near and not self._is_near:
                _log.warning(
                    "a subscription is close to losing changes to retention",
                    name=self.settings.name,
                    lag=sum(share.lag for share in self.shares),
                )
            self._is_near = near
            self.latest_figures = self.figures()
            await asyncio.sleep(_ALARM_INTERVAL_S)

    def _near_the_end(self, share: Share) -> bool:
        """Whether the log is about to be trimmed up to the cursor."""
        feed, rules = share.home.feed, self._alarm_rules
        cursor = share.lanes.progress.cursor
        if cursor >= feed.newest_position:
            return False
        if rules.retention_ms and share.lag_ms > rules.retention_ms * (1 - rules.share):
            return True
        kept = feed.newest_position - feed.oldest_position + 1
        trimmed = feed.oldest_position > 1
        return trimmed and cursor + 1 - feed.oldest_position < kept * rules.share

    def figures(self) -> SubscriptionFigures:
        """How far it is."""
        shares = self.shares
        lanes = [share.lanes for share in shares]
        expired = sum(share.expired for share in shares)
        return SubscriptionFigures(
            lag=sum(share.lag for share in shares),
            lag_ms=max(share.lag_ms for share in shares),
            in_flight=sum(each.in_flight for each in lanes),
            waiting=sum(each.waiting for each in lanes),
            parked=sum(each.parked for each in lanes),
            consumers=len(self._consumers),
            acknowledged=sum(each.counts.acknowledged for each in lanes),
            redelivered=sum(each.counts.redelivered for each in lanes),
            superseded=sum(each.counts.superseded for each in lanes),
            lag_alarm=self._is_near or expired > 0,
            expired=expired,
        )
