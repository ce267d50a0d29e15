"""What a campaign with a crew asks a server: a subscription, what is sure, and that all was seen.

Knows no process: whoever kills what is the test's affair.
"""

import asyncio
from collections import defaultdict

import grpc

from tests.harness.crew import Crew, place_of
from trackd.client.consumer import Consumer, ConsumerOptions
from trackd.v1 import feed_pb2
from trackd.v1.feed_pb2_grpc import FeedServiceStub

_DRAIN_TIMEOUT_S = 60.0
_SETTINGS = feed_pb2.Subscription(
    max_attempts=1_000,
    max_in_flight=400,
    retry_backoff_ms=[5, 20],
    start=feed_pb2.FeedStart(**{"from": feed_pb2.START_FROM_EARLIEST}),  # type: ignore[arg-type]
)


async def subscribe(address: str, name: str) -> None:
    """Makes a subscription of everything."""
    async with grpc.aio.insecure_channel(address) as channel:
        asked = feed_pb2.Subscription()
        asked.CopyFrom(_SETTINGS)
        asked.name = name
        request = feed_pb2.CreateSubscriptionRequest(subscription=asked)
        await FeedServiceStub(channel).CreateSubscription(request)


async def make_sure(address: str, crew: Crew) -> None:
    """What the server has heard is durable once it has listed the parked changes."""
    heard = crew.settled - crew.unheard
    async with grpc.aio.insecure_channel(address) as channel:
        request = feed_pb2.ListParkedChangesRequest(name=crew.name, page_size=1)
        await FeedServiceStub(channel).ListParkedChanges(request)
    crew.sure |= heard


async def progress(address: str, name: str) -> feed_pb2.SubscriptionProgress:
    """How far a subscription is."""
    async with grpc.aio.insecure_channel(address) as channel:
        request = feed_pb2.GetSubscriptionRequest(name=name)
        return (await FeedServiceStub(channel).GetSubscription(request)).progress


async def expect_all_seen(address: str, crew: Crew) -> None:
    """Everything is worked off; the crew has seen every change of the log, in order, and settled
    it."""
    await _drain(address, crew)
    assert crew.faults == []
    truth = await _all_changes(address)
    assert len(truth) > 20
    for waybill, positions in truth.items():
        assert positions == sorted(positions, key=place_of)
        assert crew.seen[waybill] == positions, waybill
        assert crew.settled.issuperset(positions)
    assert crew.seen.keys() == truth.keys()


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
            left = await progress(address, crew.name)
            if not (left.lag or left.waiting or left.in_flight or left.parked):
                break
            await asyncio.sleep(0.05)


async def _all_changes(address: str) -> dict[str, list[str]]:
    """Every change that the log has, by waybill, told to one that nothing happened to."""
    await subscribe(address, "witness")
    told: defaultdict[str, list[str]] = defaultdict(list)
    async with Consumer(address, "witness", options=ConsumerOptions(credits=10_000)) as witness:

        async def read() -> None:
            async for delivery in witness:
                told[delivery.change.waybill_number].append(delivery.change.position)
                witness.ack(delivery.change.position)

        reading = asyncio.ensure_future(read())
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            while (await progress(address, "witness")).lag:  # noqa: ASYNC110 (only a server knows)
                await asyncio.sleep(0.05)
        reading.cancel()
    return told
