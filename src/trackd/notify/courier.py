"""One endpoint's courier: takes its changes from its subscription, has them told, and says what
became of each.

The order within a waybill, retries, parking and what a newer change supersedes are the server's:
this decides only what follows from an outcome (the table is `_settle`), how many attempts run at
once, and when the endpoint is left alone. Nothing is remembered that would be missed: what is not
acknowledged comes again, to this courier or another one.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import structlog

from trackd.client.errors import ServerUnavailable, TrackdError
from trackd.notify.breaker import Breaker, BreakerOptions, BreakerState
from trackd.notify.figures import Figures
from trackd.notify.outcome import (
    ERROR_CHARACTERS_MAX,
    Notification,
    Outcome,
    Sender,
    Verdict,
)
from trackd.notify.payload import webhook_id
from trackd.notify.reports import Reports
from trackd.v1.feed_pb2 import Delivery, Subscription
from trackd.v1.notification_pb2 import DeliveryAttempt, DeliveryOutcome, Target

# Attempts of one moment must not come back at one moment.
JITTER = 0.2
# How much more than what can be tried at once is taken from the server, so that a slot that comes
# free has something to do.
CREDITS_PER_SLOT = 2
# A hair more than nothing: 0 would mean "as the schedule says".
_AT_ONCE_MS = 1
# The longest that a delivery may be put off in one go, by the contract.
_DELAY_MS_MAX = 604_800_000
_LINK_PAUSES_S = (0.1, 5.0)

_OUTCOMES = {
    Verdict.DELIVERED: DeliveryOutcome.DELIVERY_OUTCOME_DELIVERED,
    Verdict.FAILED: DeliveryOutcome.DELIVERY_OUTCOME_FAILED,
    Verdict.THROTTLED: DeliveryOutcome.DELIVERY_OUTCOME_FAILED,
    Verdict.GONE: DeliveryOutcome.DELIVERY_OUTCOME_GONE,
    Verdict.HOPELESS: DeliveryOutcome.DELIVERY_OUTCOME_PARKED,
    Verdict.POSTPONED: DeliveryOutcome.DELIVERY_OUTCOME_POSTPONED,
    Verdict.DROPPED: DeliveryOutcome.DELIVERY_OUTCOME_DROPPED,
}

_log = structlog.get_logger()


class Consumer(Protocol):
    """A part in working off a subscription; ends with the `async with` that opened it.

    Iterating gives deliveries until the server ends it, and raises a TrackdError. What is said of a
    delivery is sent in batches, the rest of it when the consumer is closed.
    """

    @property
    def subscription(self) -> Subscription: ...
    def __aiter__(self) -> AsyncIterator[Delivery]: ...
    def ack(self, position: str) -> None: ...
    def nack(
        self, position: str, *, delay_ms: int = 0, reason: str = "", untried: bool = False
    ) -> None: ...
    def park(self, position: str, *, reason: str = "") -> None: ...
    def add_credits(self, count: int) -> None: ...


Consume = Callable[[str, int], AbstractAsyncContextManager[Consumer]]
"""Opens a consumer of a subscription by name, with so many credits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CourierOptions:
    """slots: attempts of one endpoint at once."""

    slots: int
    breaker: BreakerOptions


class Courier:
    """One endpoint's. `run` until cancelled or `stop`; `target` may be replaced at any time."""

    def __init__(
        self,
        target: Target,
        sender: Sender,
        consume: Consume,
        *,
        reports: Reports,
        figures: Figures,
        options: CourierOptions,
        on_gone: Callable[[str, str], None],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """on_gone: is told the endpoint's id, and why it wants nothing any more."""
        self.target = target
        self._sender = sender
        self._consume = consume
        self._reports = reports
        self._figures = figures
        self._options = options
        self._on_gone = on_gone
        self._clock_s = clock_s
        self._credits = options.slots * CREDITS_PER_SLOT
        self.breaker = Breaker(options.breaker)
        self._stopped = asyncio.Event()
        # Of the consumer that is open.
        self._waiting: deque[Delivery] = deque()
        self._attempts: set[asyncio.Task[None]] = set()
        self._pause = asyncio.Event()
        self._probing = False

    def stop(self) -> None:
        """Takes nothing more; what waits goes back, what runs is finished, then `run` returns."""
        self._stopped.set()
        self._pause.set()

    async def run(self) -> None:
        """Delivers until stopped."""
        pause_s, longest_s = _LINK_PAUSES_S
        while not self._stopped.is_set():
            await self._rest()
            if self._stopped.is_set():
                return
            try:
                await self._work()
                pause_s = _LINK_PAUSES_S[0]
            except TrackdError as error:
                if self._stopped.is_set():
                    return
                self._figures.lost_links.inc()
                if not isinstance(error, ServerUnavailable):
                    _log.warning(
                        "an endpoint's changes cannot be read",
                        endpoint=self.target.endpoint.id,
                        reason=error.reason,
                    )
                await self._sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load
                pause_s = min(pause_s * 2, longest_s)

    async def _rest(self) -> None:
        """Leaves the endpoint alone while its breaker is open."""
        rest_s = self.breaker.rest_s(self._clock_s())
        if not rest_s:
            return
        with self._figures.resting.track_inprogress():
            while rest_s and not self._stopped.is_set():
                await self._sleep(rest_s)
                rest_s = self.breaker.rest_s(self._clock_s())

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            pass

    # While a consumer is open.

    async def _work(self) -> None:
        """One consumer, until it breaks off, the breaker opens or the courier is stopped."""
        self._probing = self.breaker.state is BreakerState.PROBING
        most = 1 if self._probing else self._credits
        if not self._stopped.is_set():
            self._pause.clear()
        async with self._consume(self.target.subscription, most) as consumer:
            reading = asyncio.ensure_future(self._read(consumer))
            pausing = asyncio.ensure_future(self._pause.wait())
            try:
                await asyncio.wait({reading, pausing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                pausing.cancel()
                if reading.done():
                    # The link is gone, and with it what waits: the server gives it out again.
                    self._waiting.clear()
                reading.cancel()
                self._hand_back(consumer)
                await self._finished()
                await asyncio.gather(reading, pausing, return_exceptions=True)
            if not reading.cancelled():
                reading.result()

    async def _read(self, consumer: Consumer) -> None:
        async for delivery in consumer:
            self._waiting.append(delivery)
            self._fill_slots(consumer)

    def _fill_slots(self, consumer: Consumer) -> None:
        while self._waiting and len(self._attempts) < self._options.slots:
            if self._pause.is_set():
                return
            delivery = self._waiting.popleft()
            task = asyncio.ensure_future(self._attempt(consumer, delivery))
            self._attempts.add(task)

    def _hand_back(self, consumer: Consumer) -> None:
        """What was taken and not tried; it costs no attempt, and waits for the breaker."""
        rest_s = self.breaker.rest_s(self._clock_s()) if not self._stopped.is_set() else 0.0
        delay_ms = max(int(rest_s * 1000), _AT_ONCE_MS)
        while self._waiting:
            position = self._waiting.popleft().change.position
            consumer.nack(position, delay_ms=min(delay_ms, _DELAY_MS_MAX), untried=True)

    async def _finished(self) -> None:
        """Waits for the attempts that run; each ends by itself, in bounded time."""
        while self._attempts:
            await asyncio.wait(set(self._attempts))
            await asyncio.sleep(0)

    async def _attempt(self, consumer: Consumer, delivery: Delivery) -> None:
        began_ms, began_s = time.time_ns() // 1_000_000, time.perf_counter()
        change, target = delivery.change, self.target
        notification = Notification(
            id=webhook_id(target.endpoint.id, change.position),
            change=change,
            attempt=delivery.attempt,
        )
        outcome = await attempted(self._sender, target, notification, self._figures)
        seconds = time.perf_counter() - began_s
        task = asyncio.current_task()
        assert task is not None
        self._attempts.discard(task)
        delay_ms = self._settle(consumer, delivery, outcome)
        report = report_of(notification, outcome, began_ms=began_ms, seconds=seconds)
        if delay_ms:
            report.next_attempt_at_ms = began_ms + int(seconds * 1000) + delay_ms
        self._reports.add(target.endpoint.id, report)
        if self.breaker.state is BreakerState.OPEN:
            self._pause.set()
        elif self._probing and self.breaker.state is BreakerState.CLOSED:
            self._probing = False
            consumer.add_credits(self._credits - 1)
        self._fill_slots(consumer)

    def _settle(self, consumer: Consumer, delivery: Delivery, outcome: Outcome) -> int:
        """What follows from an outcome; milliseconds to the next attempt, 0 if there is none."""
        position, verdict = delivery.change.position, outcome.verdict
        reason, breaker = outcome.error[:ERROR_CHARACTERS_MAX], self.breaker
        if verdict in (Verdict.DELIVERED, Verdict.DROPPED):
            breaker.succeeded()
            consumer.ack(position)
            return 0
        if verdict is Verdict.HOPELESS:
            consumer.park(position, reason=reason)
            return 0
        if verdict is Verdict.POSTPONED:
            delay_ms = _bounded_ms(outcome.after_s)
            consumer.nack(position, delay_ms=delay_ms, reason=reason, untried=True)
            return delay_ms
        if verdict is Verdict.GONE:
            consumer.nack(position, delay_ms=_AT_ONCE_MS, reason=reason, untried=True)
            self._on_gone(self.target.endpoint.id, reason)
            self.stop()
            return 0
        if verdict is Verdict.THROTTLED:
            breaker.throttled(self._clock_s(), outcome.after_s)
        else:
            breaker.failed(self._clock_s())
        delay_ms = max(
            retry_delay_ms(consumer.subscription, delivery.attempt),
            _bounded_ms(outcome.after_s),
        )
        consumer.nack(position, delay_ms=delay_ms, reason=reason)
        return 0 if delivery.attempt >= consumer.subscription.max_attempts else delay_ms


async def attempted(
    sender: Sender, target: Target, notification: Notification, figures: Figures
) -> Outcome:
    """One attempt, counted; a defect of a sender is a failure like others, and logged."""
    began_s = time.perf_counter()
    with figures.under_way.track_inprogress():
        try:
            outcome = await sender.send(target, notification)
        except Exception as error:
            _log.error("a sender failed", endpoint=target.endpoint.id, exc_info=error)
            outcome = Outcome(verdict=Verdict.FAILED, error="a defect of the notifier; see its log")
    figures.attempted(target.endpoint.kind, outcome.verdict, time.perf_counter() - began_s)
    return outcome


def report_of(
    notification: Notification, outcome: Outcome, *, began_ms: int, seconds: float
) -> DeliveryAttempt:
    """An attempt as the delivery log has it."""
    change = notification.change
    return DeliveryAttempt(
        webhook_id=notification.id,
        waybill_number=change.waybill_number if change else "",
        position=change.position if change else "",
        attempt=notification.attempt,
        started_at_ms=began_ms,
        duration_ms=round(seconds * 1000),
        status_code=outcome.status_code,
        outcome=_OUTCOMES[outcome.verdict],
        error=outcome.error[:ERROR_CHARACTERS_MAX],
        test=change is None,
    )


def retry_delay_ms(subscription: Subscription, attempt: int) -> int:
    """The wait after a failed attempt: as the subscription says, give or take a fifth."""
    waits = subscription.retry_backoff_ms
    wait_ms = waits[min(attempt, len(waits)) - 1]
    return max(round(wait_ms * random.uniform(1 - JITTER, 1 + JITTER)), _AT_ONCE_MS)  # noqa: S311 - spreads load


def _bounded_ms(seconds: float | None) -> int:
    return min(max(round((seconds or 0) * 1000), _AT_ONCE_MS), _DELAY_MS_MAX)
