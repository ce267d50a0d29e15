"""Retention under a named subscription that nobody works off: an alarm first, then a counted loss.

One server over two runs: in the first the log is kept for as long as the alarm takes, in the second
it is trimmed at once. There are many more events than a subscription reads ahead, so most of them
go before it has seen them, however soon it reads.
"""

import asyncio
from typing import Any

from tests.conftest import Serve
from tests.wire.caller import Caller, scan_event
from trackd.client.consumer import Consumer, ConsumerOptions
from trackd.client.subscriptions import Subscriptions
from trackd.v1 import feed_pb2 as pb

_NAME = "idle"
_BATCHES, _BATCH = 10, 1_000
_ONE_PARTITION = ("--partitions", "1", "--subscription-window-max", "1000")
# The alarm is due when a tenth of the age has passed, long before the loss.
_ALARMED = ("--feed-retention-age-s", "20", "--subscription-alarm-share", "0.9")
_LOSING = ("--feed-retention-age-s", "1")


async def _progress(subscriptions: Subscriptions, wanted: Any) -> pb.SubscriptionProgress:
    """The first progress that is as wanted."""
    async with asyncio.timeout(60):
        while not wanted(found := (await subscriptions.get(_NAME)).progress):  # noqa: ASYNC110 (only a server knows)
            await asyncio.sleep(0.05)
    return found


async def _delivered(address: str, last: int) -> list[int]:
    """The positions of all deliveries up to the last one, acknowledged."""
    positions: list[int] = []
    options = ConsumerOptions(credits=100)
    async with asyncio.timeout(60), Consumer(address, _NAME, options=options) as consumer:
        async for delivery in consumer:
            positions.append(int(delivery.change.position.rpartition(".")[2]))
            consumer.ack(delivery.change.position)
            if positions[-1] == last:
                break
    return positions


async def test_retention_under_an_idle_subscription(serve: Serve) -> None:
    """It is alarmed before anything is lost; what is lost is counted; what it had read and what
    is kept are delivered in order, and it goes on with what comes.
    """
    server = await asyncio.to_thread(serve, *_ONE_PARTITION, start=False)
    await asyncio.to_thread(server.start, *_ALARMED)
    caller = Caller(server.grpc)
    async with Subscriptions(server.grpc) as subscriptions:
        start = pb.FeedStart(**{"from": pb.START_FROM_EARLIEST})  # type: ignore[arg-type]
        await subscriptions.create(pb.Subscription(name=_NAME, start=start))
        for batch in range(_BATCHES):
            numbers = range(batch * _BATCH, (batch + 1) * _BATCH)
            await caller.append(*(scan_event("a", f"IDLE-{number}") for number in numbers))
        alarmed = await _progress(subscriptions, lambda found: found.lag_alarm)
        assert (alarmed.lag, alarmed.expired) == (_BATCHES * _BATCH, 0)
    await caller.channel.close()
    assert await asyncio.to_thread(server.stop) == 0

    await asyncio.to_thread(server.start, *_LOSING)
    caller = Caller(server.grpc)
    async with Subscriptions(server.grpc) as subscriptions:
        lost = await _progress(subscriptions, lambda found: found.expired > 0)
        assert lost.lag_alarm
        await caller.append(scan_event("a", "IDLE-NEW"))
        newest = _BATCHES * _BATCH + 1
        found = await _delivered(server.grpc, newest)
        assert found == sorted(set(found))
        worked_off = await _progress(subscriptions, lambda found: not found.lag)
        assert worked_off.expired >= lost.expired
        assert len(found) + worked_off.expired == newest, "delivered or counted, each once"
    assert "events went out of retention before a subscription read them" in server.log
    await caller.channel.close()
    assert await asyncio.to_thread(server.stop) == 0
