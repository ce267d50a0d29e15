"""Rows 1 and 2 with consumers: server and consumers die, and every change is settled once.

In effect: what was settled for sure never comes again, what was not does, nothing is skipped, and a
waybill's changes come one at a time and in order (I6).
"""

import asyncio
import random
import signal
from collections import defaultdict

import grpc
import pytest

from tests.conftest import Serve
from tests.harness.crew import Crew, place_of
from tests.harness.fleet import Fleet, FleetOptions
from tests.harness.ledger import Ledger
from tests.harness.seeds import seeded
from tests.harness.server import ServerProcess
from trackd.client.consumer import Consumer, ConsumerOptions
from trackd.store import failpoint
from trackd.v1 import feed_pb2
from trackd.v1.feed_pb2_grpc import FeedServiceStub

_FLAGS = ("--partitions", "2", "--subscription-window-max", "1000")
_SMALL = FleetOptions(scanners=3, readers=0, batch_events_max=60, pause_s_max=0.02)
_POINTS = ("before_cursor_save", "after_cursor_save")
_DRAIN_TIMEOUT_S = 60.0
_POINT_TIMEOUT_S = 30.0
_SETTINGS = feed_pb2.Subscription(
    name="crew",
    max_attempts=1_000,
    max_in_flight=400,
    retry_backoff_ms=[5, 20],
    start=feed_pb2.FeedStart(**{"from": feed_pb2.START_FROM_EARLIEST}),  # type: ignore[arg-type]
)


async def _subscribe(address: str, name: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        asked = feed_pb2.Subscription()
        asked.CopyFrom(_SETTINGS)
        asked.name = name
        request = feed_pb2.CreateSubscriptionRequest(subscription=asked)
        await FeedServiceStub(channel).CreateSubscription(request)


async def _make_sure(address: str, crew: Crew) -> None:
    """What the server has heard is durable once it has listed the parked changes."""
    heard = crew.settled - crew.unheard
    async with grpc.aio.insecure_channel(address) as channel:
        request = feed_pb2.ListParkedChangesRequest(name=crew.name, page_size=1)
        await FeedServiceStub(channel).ListParkedChanges(request)
    crew.sure |= heard


async def _progress(address: str, name: str) -> feed_pb2.SubscriptionProgress:
    async with grpc.aio.insecure_channel(address) as channel:
        request = feed_pb2.GetSubscriptionRequest(name=name)
        return (await FeedServiceStub(channel).GetSubscription(request)).progress


async def _drain(address: str, crew: Crew) -> None:
    """Everything is delivered and settled, the parked ones at last."""
    crew.gentle = True
    async with grpc.aio.insecure_channel(address) as channel:
        stub = FeedServiceStub(channel)
        crew.sure.clear()  # parked ones were settled, and come again now
        await stub.RedriveParkedChanges(
            feed_pb2.RedriveParkedChangesRequest(name=crew.name, all=True)
        )
    async with crew.at_work(address), asyncio.timeout(_DRAIN_TIMEOUT_S):
        while True:
            left = await _progress(address, crew.name)
            if not (left.lag or left.waiting or left.in_flight or left.parked):
                break
            await asyncio.sleep(0.05)


async def _all_changes(address: str) -> dict[str, list[str]]:
    """Every change that the log has, by waybill, told to one that nothing happened to."""
    await _subscribe(address, "witness")
    told: defaultdict[str, list[str]] = defaultdict(list)
    async with Consumer(address, "witness", options=ConsumerOptions(credits=10_000)) as witness:

        async def read() -> None:
            async for delivery in witness:
                told[delivery.change.waybill_number].append(delivery.change.position)
                witness.ack(delivery.change.position)

        reading = asyncio.ensure_future(read())
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            while (await _progress(address, "witness")).lag:  # noqa: ASYNC110 (only a server knows)
                await asyncio.sleep(0.05)
        reading.cancel()
    return told


async def _expect_all_seen(server: ServerProcess, crew: Crew) -> None:
    await _drain(server.grpc, crew)
    assert crew.faults == []
    truth = await _all_changes(server.grpc)
    assert len(truth) > 20
    for waybill, positions in truth.items():
        assert positions == sorted(positions, key=place_of)
        assert crew.seen[waybill] == positions, waybill
        assert crew.settled.issuperset(positions)
    assert crew.seen.keys() == truth.keys()


async def _killed_with_consumers(serve: Serve, rng: random.Random, rounds: int) -> None:
    server = serve(*_FLAGS, start=False)
    fleet, crew = Fleet("CREW", Ledger(), rng, _SMALL), Crew("crew", rng)
    for number in range(rounds):
        await asyncio.to_thread(server.start)
        if not number:
            await _subscribe(server.grpc, crew.name)
        fleet.new_waybills()
        async with fleet.at_work(server.grpc):
            async with crew.at_work(server.grpc, dying=True):
                await asyncio.sleep(rng.uniform(0.1, 0.4))
                async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                    while not crew.deaths:  # noqa: ASYNC110 (they die unheard)
                        await asyncio.sleep(0.02)
            await _make_sure(server.grpc, crew)
            async with crew.at_work(server.grpc):
                await asyncio.sleep(rng.uniform(0.05, 0.4))
                server.kill()
        crew.server_died()
        assert crew.faults == []
    await asyncio.to_thread(server.start)
    await _expect_all_seen(server, crew)
    assert crew.deaths > 0
    assert crew.redelivered > 0
    assert server.stop() == 0


async def test_whoever_dies_every_change_is_settled_once_and_in_order(serve: Serve) -> None:
    """Server and consumers killed in turn, under load, with rejections and parking."""
    await _killed_with_consumers(serve, seeded("consumers"), rounds=3)


@pytest.mark.torture
async def test_whoever_dies_a_thousand_times(serve: Serve) -> None:
    """The same, long: forty directories, each killed twenty times."""
    rng = seeded("consumers, long")
    for _ in range(40):
        await _killed_with_consumers(serve, rng, rounds=20)


async def _die_at_cursor_saves(serve: Serve, rng: random.Random, rounds: int) -> None:
    server = serve(*_FLAGS, start=False)
    fleet, crew = Fleet("SAVE", Ledger(), rng, _SMALL), Crew("crew", rng)
    await asyncio.to_thread(server.start)
    await _subscribe(server.grpc, crew.name)
    assert server.stop() == 0
    for point in _POINTS * rounds:
        server.env = {"TRACKD_FAILPOINT": f"{point}:{rng.choice((0.3, 0.05))}"}
        await asyncio.to_thread(server.start)
        fleet.new_waybills()
        async with fleet.at_work(server.grpc), crew.at_work(server.grpc):
            code = await asyncio.to_thread(server.wait, _POINT_TIMEOUT_S)
        assert code == -signal.SIGKILL, f"{point} was not reached"
        assert crew.faults == []
    server.env = {}
    await asyncio.to_thread(server.start)
    await _expect_all_seen(server, crew)


async def test_a_crash_around_a_save_of_progress_skips_nothing(serve: Serve) -> None:
    """Row 2 for subscriptions: whether the rows are written or not, they are one state."""
    assert set(_POINTS) <= failpoint.NAMES
    await _die_at_cursor_saves(serve, seeded("cursor saves"), rounds=1)


@pytest.mark.torture
async def test_many_crashes_around_saves_of_progress(serve: Serve) -> None:
    """The same, fifty times at each point."""
    await _die_at_cursor_saves(serve, seeded("cursor saves, long"), rounds=50)
