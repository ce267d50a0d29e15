"""Endpoints of a server with two workers: made at any of them, told of the partitions of both."""

import asyncio
from pathlib import Path

from tests.cluster.test_workers import own_addresses
from tests.conftest import Serve
from tests.harness.workers import kill_worker, wait_until_whole
from tests.notify.receiver import receiving
from tests.notify.stage import scan_of, stage_of, waybills
from trackd import exits
from trackd.client.notifications import Notifications
from trackd.v1.notification_pb2 import DeliveryOutcome

_FLAGS = ("--partitions", "2", "--workers", "2", "--unsafe-allow-local-webhooks")


async def test_an_endpoint_hears_of_everything_whichever_worker_dies(
    serve: Serve, tmp_path: Path
) -> None:
    """One notifier goes through it all; what was made before a death of the leader is there."""
    server = serve(*_FLAGS, start=False)
    await asyncio.to_thread(server.start)
    async with receiving() as receiver, stage_of(server, tmp_path) as stage:
        schedule = {"backoff_ms": (20, 40), "max_attempts": 50}
        endpoint = await stage.endpoint(receiver.url("/hook"), **schedule)  # type: ignore[arg-type] # both kinds in one
        await stage.notifier()
        told: set[str] = set()

        def has_heard_all() -> bool:
            return {each.waybill for each in receiver.heard} == told

        for number in (None, 0, 1):
            if number is not None:
                pid = kill_worker(server, number)
                await asyncio.to_thread(wait_until_whole, server, since={number: pid})
            wanted = waybills(20)
            told.update(wanted)
            await stage.scan(*(scan_of(each, "PICKED_UP") for each in wanted))
            await receiver.until(has_heard_all)
        for door in await asyncio.to_thread(own_addresses, server):
            async with Notifications(door) as notifications:
                attempt = await notifications.test(endpoint)
                assert attempt.outcome == DeliveryOutcome.DELIVERY_OUTCOME_DELIVERED
        await stage.settled([endpoint])
        assert await stage.parked(endpoint) == set()
    assert await asyncio.to_thread(server.stop) == exits.DONE
