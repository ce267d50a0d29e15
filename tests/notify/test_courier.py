"""What a courier makes of each outcome, with a consumer and a sender that are made up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from tests.notify.changes import target
from trackd.client.errors import ServerUnavailable
from trackd.notify.breaker import BreakerOptions
from trackd.notify.courier import JITTER, Courier, CourierOptions, retry_delay_ms
from trackd.notify.figures import Figures
from trackd.notify.outcome import Notification, Outcome, Verdict
from trackd.notify.reports import Reports, going_out
from trackd.v1.feed_pb2 import Change, Delivery, Subscription
from trackd.v1.notification_pb2 import (
    DeliveryAttempt,
    DeliveryOutcome,
    RecordedDelivery,
    Target,
)

BACKOFF_MS = (5_000, 30_000, 120_000)
SUBSCRIPTION = Subscription(name="endpoint/ep", retry_backoff_ms=BACKOFF_MS, max_attempts=4)
OK = Outcome(verdict=Verdict.DELIVERED, status_code=200)
FAILED = Outcome(verdict=Verdict.FAILED, error="answered 500", status_code=500)


def delivery(number: int, *, attempt: int = 1) -> Delivery:
    """A delivery, the number its position."""
    change = Change(position=str(number), waybill_number=f"SF{number:010}")
    return Delivery(change=change, attempt=attempt)


async def eventually(done: Callable[[], bool]) -> None:
    """Returns once it is so."""
    async with asyncio.timeout(60):
        while not done():  # noqa: ASYNC110 - it is asked of what knows no event
            await asyncio.sleep(0.001)


@dataclass
class FakeServer:
    """Deliveries to give out, and what was said of them; one consumer at a time."""

    deliveries: list[Delivery] = field(default_factory=list)
    said: dict[str, tuple[object, ...]] = field(default_factory=dict)
    credits: list[int] = field(default_factory=list)
    unanswered: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    breaks: int = 0
    subscription: Subscription = field(default_factory=lambda: SUBSCRIPTION)

    @asynccontextmanager
    async def consume(self, name: str, most: int) -> AsyncIterator["FakeServer"]:
        assert name == "endpoint/ep_test"
        self.credits.append(most)
        if self.breaks:
            self.breaks -= 1
            raise ServerUnavailable("gone", reason="UNAVAILABLE")
        yield self

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        while True:
            while self.deliveries and self.unanswered < self.credits[-1]:
                self.unanswered += 1
                yield self.deliveries.pop(0)
            self.news.clear()
            await self.news.wait()

    def _say(self, position: str, *what: object) -> None:
        assert position not in self.said, "a delivery is answered once"
        self.said[position] = what
        self.unanswered -= 1
        self.news.set()

    def ack(self, position: str) -> None:
        self._say(position, "ack")

    def nack(
        self, position: str, *, delay_ms: int = 0, reason: str = "", untried: bool = False
    ) -> None:
        self._say(position, "nack", delay_ms, reason, untried)

    def park(self, position: str, *, reason: str = "") -> None:
        self._say(position, "park", reason)

    def add_credits(self, count: int) -> None:
        self.credits[-1] += count
        self.news.set()


@dataclass
class FakeSender:
    """Answers each attempt as the test says."""

    answer: Callable[[Notification], Outcome] = lambda _: OK
    sent: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, _: Target, notification: Notification) -> Outcome:
        assert notification.change is not None
        self.sent.append(notification.change.position)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.go_on.wait()
            return self.answer(notification)
        finally:
            self.at_once -= 1

    async def close(self) -> None: ...


@dataclass
class Bench:
    """A courier and everything around it; the clock stands still unless it is moved."""

    server: FakeServer = field(default_factory=FakeServer)
    sender: FakeSender = field(default_factory=FakeSender)
    reported: list[RecordedDelivery] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)
    now_s: float = 1_000.0

    def __post_init__(self) -> None:
        async def record(batch: Sequence[RecordedDelivery]) -> None:
            self.reported.extend(batch)

        self.reports = Reports(record)
        self.sender.go_on.set()
        self.courier = Courier(
            target("http://127.0.0.1:1/"),
            self.sender,
            self.server.consume,
            reports=self.reports,
            figures=Figures(CollectorRegistry()),
            options=CourierOptions(
                slots=4, breaker=BreakerOptions(failures_max=3, pause_s=0.01, pause_s_max=0.02)
            ),
            on_gone=lambda *told: self.gone.append(told),
            clock_s=lambda: self.now_s,
        )

    async def until(self, done: Callable[[], bool]) -> None:
        """Runs the courier until then, then stops it in order."""
        running = asyncio.ensure_future(self.courier.run())
        async with asyncio.timeout(60):
            await eventually(lambda: done() or running.done())
            self.courier.stop()
            await running
        await self.reports.send_rest()


async def test_what_is_delivered_is_acknowledged() -> None:
    """Once each, and each is reported."""
    bench = Bench()
    bench.server.deliveries = [delivery(number) for number in range(20)]
    await bench.until(lambda: len(bench.server.said) == 20)
    assert set(bench.server.said.values()) == {("ack",)}
    assert len(bench.reported) == 20
    first = bench.reported[0].delivery
    assert first.outcome == DeliveryOutcome.DELIVERY_OUTCOME_DELIVERED
    assert (first.status_code, first.attempt, first.waybill_number) == (200, 1, "SF0000000000")


@pytest.mark.parametrize("attempt", [1, 2, 3])
async def test_what_fails_is_tried_again_by_the_schedule(attempt: int) -> None:
    """The wait after the first, second, third failure, give or take a fifth; the reason is told."""
    bench = Bench()
    bench.sender.answer = lambda _: FAILED
    bench.server.deliveries = [delivery(7, attempt=attempt)]
    await bench.until(lambda: bool(bench.server.said))
    kind, delay_ms, reason, untried = bench.server.said["7"]
    wait_ms = BACKOFF_MS[attempt - 1]
    assert (kind, reason, untried) == ("nack", "answered 500", False)
    assert isinstance(delay_ms, int)
    assert wait_ms * (1 - JITTER) <= delay_ms <= wait_ms * (1 + JITTER)
    assert bench.reported[0].delivery.next_attempt_at_ms > 0


def test_attempts_of_one_moment_do_not_come_back_at_one_moment() -> None:
    """The jitter spreads them over two fifths of the wait."""
    delays = {retry_delay_ms(SUBSCRIPTION, 2) for _ in range(200)}
    assert len(delays) > 100
    assert min(delays) >= 24_000
    assert max(delays) <= 36_000


async def test_the_last_failure_says_that_nothing_follows() -> None:
    """It is rejected like the others, and the server parks it."""
    bench = Bench()
    bench.sender.answer = lambda _: FAILED
    bench.server.deliveries = [delivery(7, attempt=4)]
    await bench.until(lambda: bool(bench.server.said))
    assert bench.server.said["7"][0] == "nack"
    assert bench.reported[0].delivery.next_attempt_at_ms == 0


async def test_a_rest_that_is_asked_for_holds_the_whole_endpoint() -> None:
    """429 with Retry-After: nothing more is sent, and what was taken goes back untried."""
    bench = Bench()
    bench.sender.answer = lambda _: Outcome(
        verdict=Verdict.THROTTLED, error="answered 429", status_code=429, after_s=600.0
    )
    bench.sender.go_on.clear()
    bench.server.deliveries = [delivery(number) for number in range(8)]
    running = asyncio.ensure_future(bench.until(lambda: len(bench.server.said) == 8))
    await eventually(lambda: len(bench.sender.sent) == 4)
    bench.sender.go_on.set()
    await running
    tried = [bench.server.said[position] for position in bench.sender.sent]
    back = [said for position, said in bench.server.said.items() if said not in tried]
    assert len(tried) == len(back) == 4
    assert all(said[1:] == (600_000, "answered 429", False) for said in tried)
    assert all(said[1:] == (600_000, "", True) for said in back)


async def test_an_endpoint_that_fails_is_left_alone_and_then_probed() -> None:
    """While the breaker is open no attempt is wasted; then one goes first, the rest after it."""
    bench = Bench()
    well = asyncio.Event()
    bench.sender.answer = lambda _: OK if well.is_set() else FAILED
    bench.server.deliveries = [delivery(number) for number in range(4)]
    running = asyncio.ensure_future(bench.until(lambda: "ack" in str(bench.server.said.get("19"))))
    await eventually(lambda: len(bench.server.said) == 4)
    assert len(bench.sender.sent) == 4
    await asyncio.sleep(0.03)
    assert bench.server.credits == [8], "it rests: the clock stands still"
    well.set()
    bench.server.deliveries = [delivery(number) for number in range(10, 20)]
    bench.now_s += 60
    await running
    assert bench.server.credits == [8, 1 + 7]
    acked = [position for position, said in bench.server.said.items() if said == ("ack",)]
    assert acked == [str(number) for number in range(10, 20)]


async def test_an_endpoint_that_is_gone_is_disabled() -> None:
    """410: it is told so, nothing is lost, and the courier ends."""
    bench = Bench()
    bench.sender.answer = lambda _: Outcome(
        verdict=Verdict.GONE, error="answered 410", status_code=410
    )
    bench.server.deliveries = [delivery(1)]
    await bench.until(lambda: False)
    assert bench.gone == [("ep_test", "answered 410")]
    assert bench.server.said["1"] == ("nack", 1, "answered 410", True)
    assert bench.reported[0].delivery.outcome == DeliveryOutcome.DELIVERY_OUTCOME_GONE


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome(verdict=Verdict.DROPPED), ("ack",)),
        (Outcome(verdict=Verdict.HOPELESS, error="too long"), ("park", "too long")),
        (
            Outcome(verdict=Verdict.POSTPONED, error="quiet hours", after_s=28_800.0),
            ("nack", 28_800_000, "quiet hours", True),
        ),
    ],
)
async def test_the_wishes_of_people(outcome: Outcome, said: tuple[object, ...]) -> None:
    """Left out is done; what can never be said is parked; what is put off costs no attempt."""
    bench = Bench()
    bench.sender.answer = lambda _: outcome
    bench.server.deliveries = [delivery(1)]
    await bench.until(lambda: bool(bench.server.said))
    assert bench.server.said["1"] == said


async def test_no_more_than_its_slots_run_at_once() -> None:
    """However much there is to do, and however long it takes."""
    bench = Bench()
    bench.sender.go_on.clear()
    bench.server.deliveries = [delivery(number) for number in range(50)]
    running = asyncio.ensure_future(bench.until(lambda: len(bench.server.said) == 50))
    await eventually(lambda: bench.server.unanswered == 8)
    assert len(bench.sender.sent) == 4
    bench.sender.go_on.set()
    await running
    assert bench.sender.most_at_once == 4


async def test_a_stop_finishes_what_runs_and_hands_back_the_rest() -> None:
    """What was taken and not tried goes back at once, and costs no attempt."""
    bench = Bench()
    bench.sender.go_on.clear()
    bench.server.deliveries = [delivery(number) for number in range(8)]
    running = asyncio.ensure_future(bench.courier.run())
    await eventually(lambda: bench.server.unanswered == 8)
    bench.courier.stop()
    await asyncio.sleep(0.01)
    assert not running.done()
    bench.sender.go_on.set()
    await running
    said = list(bench.server.said.values())
    assert said.count(("ack",)) == 4
    assert said.count(("nack", 1, "", True)) == 4


async def test_a_lost_link_is_taken_up_again() -> None:
    """Without an end, and without a word to the endpoint."""
    bench = Bench()
    bench.server.breaks = 2
    bench.server.deliveries = [delivery(1)]
    await bench.until(lambda: bool(bench.server.said))
    assert bench.server.said == {"1": ("ack",)}
    assert len(bench.server.credits) == 3


async def test_a_defect_of_a_sender_is_a_failure() -> None:
    """The change is tried again; the courier lives on."""
    bench = Bench()

    def broken(_: Notification) -> Outcome:
        raise RuntimeError("a defect")

    bench.sender.answer = broken
    bench.server.deliveries = [delivery(1)]
    await bench.until(lambda: bool(bench.server.said))
    assert bench.server.said["1"][2] == "a defect of the notifier; see its log"


async def test_reports_wait_for_nobody() -> None:
    """While the server takes none the oldest are dropped and counted, and nobody waits."""
    refused = [True]
    told: list[RecordedDelivery] = []

    async def record(batch: Sequence[RecordedDelivery]) -> None:
        if refused:
            raise ServerUnavailable("gone", reason="UNAVAILABLE")
        told.extend(batch)

    reports = Reports(record)
    for number in range(20_100):
        reports.add(f"ep_{number}", report())
    assert reports.dropped == 100
    await reports.send_rest()
    refused.clear()
    await reports.send_rest()
    assert [each.endpoint_id for each in told] == [f"ep_{n}" for n in range(100, 20_100)]


async def test_reports_that_are_under_way_at_the_end_are_told_once() -> None:
    """A stop waits for what is being sent, and then sends the rest."""
    told: list[RecordedDelivery] = []
    began, answered = asyncio.Event(), asyncio.Event()

    async def record(batch: Sequence[RecordedDelivery]) -> None:
        began.set()
        await answered.wait()
        told.extend(batch)

    reports = Reports(record)
    reports.add("ep_1", report())
    async with going_out(reports):
        await began.wait()
        reports.add("ep_2", report())
        asyncio.get_running_loop().call_soon(answered.set)
    assert [each.endpoint_id for each in told] == ["ep_1", "ep_2"]


def report() -> DeliveryAttempt:
    """An attempt."""
    return DeliveryAttempt(attempt=1)
