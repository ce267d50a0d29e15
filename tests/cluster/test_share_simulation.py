"""A subscription over two workers in a made-up world: every delay and every break from one seed.

The leader's and the owner's code as they are, with a stream between them that takes its time in
each direction and breaks when the seed says so; no network, no process, no waiting.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from random import Random
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from tests.harness.seeds import SEED
from tests.store.desk import NOON_MS, scan, scan_event
from tests.store.office import Office
from tests.store.simulated import SimulatedLoop
from trackd.cluster.remote import PeerChannel
from trackd.cluster.remote_branch import RemoteOwner
from trackd.cluster.remote_share import RemoteShare
from trackd.domain.vocabulary import EventCode
from trackd.feed.branch import AlarmRules, OwnHomes, SubscriptionBounds
from trackd.feed.consumer import Consumer
from trackd.feed.partition_feed import PartitionFeed
from trackd.feed.share import Home, Share
from trackd.feed.share_access import Branch
from trackd.feed.subscription import Subscription
from trackd.feed.subscription_settings import (
    FilterFields,
    SubscriptionDocument,
    SubscriptionSettings,
)
from trackd.metrics import CallMetrics
from trackd.v1.feed_pb2 import Change
from trackd.wire.calls import Calls
from trackd.wire.peers import partition_unavailable
from trackd.wire.share_work import ShareService

_JOURNEY = (EventCode.PICKED_UP, EventCode.DAMAGED, EventCode.OUT_FOR_DELIVERY)
_WAYBILLS = 15
_CHANGES = 2 * _WAYBILLS * len(_JOURNEY)
_MAX_IN_FLIGHT = 7
_CREDITS = 3
# Of a world in which deliveries time out.
_ACK_TIMEOUT_MS = 200
_BOUNDS = SubscriptionBounds(window_max=1_000, waiting_max=1_000, parked_max=1_000)
_SETTINGS = SubscriptionSettings(
    name="simulated",
    filter=FilterFields(),
    ack_timeout_ms=60_000,
    max_attempts=1_000,
    max_in_flight=_MAX_IN_FLIGHT,
    retry_backoff_ms=(5, 50),
    supersede=False,
)
_GENTLE = SubscriptionDocument(b"12345678", "set", (0, 0), "earliest", NOON_MS, _SETTINGS)
_ROUGH = replace(_GENTLE, settings=replace(_SETTINGS, ack_timeout_ms=_ACK_TIMEOUT_MS))


def now_ms() -> int:
    """The time of this world."""
    return NOON_MS + int(asyncio.get_running_loop().time() * 1000)


async def home(number: int) -> Home:
    """A partition with journeys in it."""
    office = Office()
    for step, code in enumerate(_JOURNEY):
        for n in range(_WAYBILLS):
            event = scan_event(code, f"e{step}", NOON_MS + step, f"SF{number}{n:04}")
            await office.committer.submit([scan(event)])
    newest = office.committer.durable_position
    feed = PartitionFeed(
        office.engine,
        office.desk.timelines.get,
        position_prefix=f"set/{number}.",
        oldest_position=1,
        newest_position=newest,
        memory_bytes=0,
    )
    return Home(number, feed, office.engine, office.committer)


def homes_of(*homes: Home) -> OwnHomes:
    """What a worker owns."""
    return OwnHomes(homes, _BOUNDS, AlarmRules(0.1, None), partition_count=2, now_ms=now_ms)


class Pipe:
    """One direction of a stream: what goes in comes out in order, some time later."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._sent: asyncio.Queue[bytes] = asyncio.Queue()

    async def write(self, message: bytes) -> None:
        """Takes a message."""
        await asyncio.sleep(self._rng.uniform(0, 0.002))
        self._sent.put_nowait(message)

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """What was sent."""
        while True:
            message = await self._sent.get()
            await asyncio.sleep(self._rng.choice((0, 0.001, 0.03)))
            yield message


class Stream:
    """A stream between the two, with a handler at its other end."""

    def __init__(self, service: ShareService, rng: Random) -> None:
        self.there, self.back = Pipe(rng), Pipe(rng)
        self.handler = asyncio.create_task(service.work_shares(self.there.messages(), self.back))
        self.handler.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def write(self, message: bytes) -> None:
        """From the leader."""
        await self.there.write(message)


class Channel:
    """In the place of a PeerChannel."""

    def __init__(self, service: ShareService, rng: Random) -> None:
        self._service = service
        self._rng = rng
        self.open: Stream | None = None
        self.breaks = 0

    async def call(self, _: str, request: bytes) -> bytes:
        """ForgetShares."""
        await asyncio.sleep(self._rng.uniform(0, 0.05))
        return await self._service.forget_shares(request, None)

    @contextlib.contextmanager
    def stream(self, _: str) -> Iterator[Stream]:
        """WorkShares."""
        self.open = stream = Stream(self._service, self._rng)
        try:
            yield stream
        finally:
            stream.handler.cancel()

    async def messages(self, stream: Stream) -> AsyncGenerator[bytes, None]:
        """Until the other end is gone."""
        messages = stream.back.messages()
        while True:
            getting = asyncio.ensure_future(anext(messages))
            try:
                await asyncio.wait({getting, stream.handler}, return_when=asyncio.FIRST_COMPLETED)
                if stream.handler.done():
                    raise partition_unavailable(1)
                yield getting.result()
            finally:
                getting.cancel()

    def break_off(self) -> None:
        """The owner loses the leader, and the other way round."""
        if self.open:
            self.breaks += 1
            self.open.handler.cancel()


class World:
    """Consumers at work, and what they saw."""

    def __init__(self, subscription: Subscription, rng: Random, *, gentle: bool) -> None:
        self.subscription = subscription
        self._rng = rng
        self._gentle = gentle
        self._shares = {f"set/{share.number}": share for share in subscription.shares}
        self.seen: defaultdict[str, list[str]] = defaultdict(list)
        self.settled: set[str] = set()
        # Acknowledged in time, with nobody away meanwhile: never to be seen again.
        self.sure: set[str] = set()
        self.faults: list[str] = []
        self.consumers: set[Consumer] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def consume(self) -> None:
        """Consumers that come and go, until this is cancelled."""
        while True:
            consumer = self.subscription.join(_CREDITS)
            self.consumers.add(consumer)
            in_order = self._rng.random() < 0.5
            stays_s = self._rng.uniform(0.1, 3)
            try:
                async with asyncio.timeout(stays_s):
                    while True:
                        for wire, _ in await consumer.given():
                            self._work_on(consumer, Change.FromString(wire))
            except TimeoutError:
                self.consumers.discard(consumer)
                self.subscription.leave(consumer, in_order=in_order)

    def _work_on(self, consumer: Consumer, change: Change) -> None:
        flying = sum(share.in_flight for share in self.subscription.shares)
        if flying > _MAX_IN_FLIGHT:
            self.faults.append(f"{flying} in flight")
        for one in self.consumers:
            if one.credit < 0 or one.credit + self._held(one) != one.limit:
                self.faults.append(f"credit {one.credit}, {self._held(one)} in flight with it")
        self._look(change.waybill_number, change.position)
        task = asyncio.create_task(self._settle(consumer, change.position))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _held(self, consumer: Consumer) -> int:
        """How many are in flight with a consumer, or on their way to it."""
        own, remote = cast("tuple[Share, RemoteShare]", self.subscription.shares)
        number = consumer.number
        return (
            sum(item.consumer == number for item in own.lanes._flight.values())
            + sum(held is consumer for held, _ in remote._flight.values())
            + remote._asked[number]
        )

    def _look(self, waybill: str, position: str) -> None:
        seen = self.seen[waybill]
        if position in self.sure:
            self.faults.append(f"{position} came again")
        if position in seen:
            # Where deliveries time out, this one may have been acknowledged before it was seen.
            if self._gentle:
                self.settled.discard(position)
            return
        if not self.settled.issuperset(seen):
            self.faults.append(f"{position} came while {seen} were not all settled")
        if seen and _number(seen[-1]) > _number(position):
            self.faults.append(f"{position} came after {seen[-1]}")
        seen.append(position)

    async def _settle(self, consumer: Consumer, position: str) -> None:
        hold_s = (
            _ACK_TIMEOUT_MS / 1000 * self._rng.choice((0, 0.1, 0.4, *(1, 1.2) * (not self._gentle)))
        )
        await asyncio.sleep(hold_s)
        prefix, _, number = position.rpartition(".")
        share, chance = self._shares[prefix], self._rng.random()
        if chance < 0.1:
            self.subscription.nack(
                consumer,
                share,
                int(number),
                delay_ms=self._rng.choice((0, 20)),
                reason="no",
                untried=chance < 0.05,
            )
        elif chance < 0.15 and not self._gentle:
            return  # it times out
        else:
            self.settled.add(position)
            credit = consumer.credit
            self.subscription.ack(consumer, share, [int(number)])
            if self._gentle and consumer.credit > credit:
                self.sure.add(position)


def _number(position: str) -> int:
    return int(position.rpartition(".")[2])


async def _simulate(rng: Random, *, gentle: bool) -> None:
    own, others = await home(0), await home(1)
    service = ShareService(homes_of(others), Calls(CallMetrics(CollectorRegistry())), now_ms=now_ms)
    channel = Channel(service, rng)

    async def served() -> None:
        await asyncio.sleep(0)

    owner = RemoteOwner(cast(PeerChannel, channel), [1], served)
    document = _GENTLE if gentle else _ROUGH
    branches: list[Branch] = [homes_of(own).branch(document), owner.branch(document)]
    subscription = Subscription(document, branches, now_ms=now_ms)
    subscription.start()
    world = World(subscription, rng, gentle=gentle)
    consuming = [asyncio.create_task(world.consume()) for _ in range(4)]
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(rng.uniform(0.1, 2))
        assert world.faults == []
        assert loop.time() < 3_000, subscription.figures()
        if not gentle and rng.random() < 0.5:
            channel.break_off()
            continue
        with contextlib.suppress(Exception):  # away
            figures = await subscription.refreshed()
            if not (figures.lag or figures.in_flight or figures.waiting):
                break
    for task in consuming:
        task.cancel()
    await asyncio.gather(*consuming, return_exceptions=True)
    told = [position for positions in world.seen.values() for position in positions]
    assert len(told) == _CHANGES
    assert world.settled.issuperset(told)
    await subscription.stop(RuntimeError("over"))
    await subscription.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.mark.parametrize("gentle", [True, False], ids=["well", "with breaks and timeouts"])
def test_bounds_order_and_credit_hold_whatever_the_delays(*, gentle: bool) -> None:
    """In every turn; at the end everything was settled, and every credit is back."""
    print(f"TRACKD_TEST_SEED={SEED}")
    for number in range(8):
        rng = Random(f"{SEED}/{number}")
        loop = SimulatedLoop(rng)
        try:
            loop.run_until_complete(_simulate(rng, gentle=gentle))
        finally:
            loop.close()
