"""Subscriptions and consumers without an event loop, and a consumer over a lost server."""

import asyncio

from tests.conftest import Serve
from trackd.client import SyncFrontEnd, SyncScanner, scan_event
from trackd.client.consumer import Consumer, ConsumerOptions
from trackd.client.subscriptions import Subscriptions
from trackd.client.sync_subscriptions import SyncConsumer, SyncSubscriptions
from trackd.v1.feed_pb2 import Subscription


def test_a_program_without_a_loop_works_a_subscription_off(serve: Serve) -> None:
    """Made, consumed in order, and done."""
    server = serve("--partitions", "2")
    with SyncSubscriptions(server.grpc) as subscriptions, SyncScanner(server.grpc) as scanner:
        subscriptions.create(Subscription(name="sync"))
        for number, code in enumerate(("PICKED_UP", "SORTED", "DELIVERED")):
            event = scan_event(event_id=f"e{number}", waybill_number="SF0001", code=code)
            scanner.append([event])
        with SyncConsumer(server.grpc, "sync") as consumer:
            seen = []
            for delivery in consumer:
                seen.append(delivery.change.event.event_id)
                if delivery.attempt == 1 and not seen[1:]:
                    consumer.nack(delivery.change.position, delay_ms=1)
                    continue
                consumer.ack(delivery.change.position)
                if len(seen) == 4:
                    break
        assert seen == ["e0", "e0", "e1", "e2"]
        progress = subscriptions.get("sync").progress
        assert (progress.lag, progress.acknowledged, progress.waiting) == (0, 3, 0)
        assert subscriptions.redrive("sync") == subscriptions.drop("sync") == 0
        subscriptions.delete("sync")
        assert not subscriptions.list()
    with SyncFrontEnd(server.grpc) as front_end:
        assert front_end.get_status("SF0001").event_count == 3


async def test_a_consumer_outlives_its_server(serve: Serve) -> None:
    """Killed and started again at the same address: the consumer goes on by itself."""
    server = serve("--partitions", "1")
    address = server.grpc
    async with Subscriptions(address) as subscriptions:
        await subscriptions.create(Subscription(name="loyal"))
    async with Consumer(address, "loyal", options=ConsumerOptions(credits=10)) as consumer:
        await asyncio.to_thread(server.kill)
        # Before the address of its own, of which the last one counts.
        await asyncio.to_thread(server.start, "--grpc", address)

        def scan() -> None:
            with SyncScanner(address) as scanner:
                event = scan_event(event_id="e", waybill_number="SF0001", code="SORTED")
                scanner.append([event])

        await asyncio.to_thread(scan)
        delivery = await asyncio.wait_for(anext(aiter(consumer)), 60)
        assert delivery.change.event.event_id == "e"
        assert consumer.reconnections >= 1
