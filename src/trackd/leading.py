"""Who answers about named subscriptions and endpoints: this process, or the worker that leads.

Part of the wiring. They are led by whoever has partition 0, where their documents are; the shares
of a subscription stay with the owners of their partitions.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from trackd.cluster.neighbours import Neighbours
from trackd.news import homes_of, subscriptions_running
from trackd.opening import now_ms
from trackd.partition import Partition
from trackd.settings import Settings
from trackd.store.documents import Documents
from trackd.telling import notifications_running
from trackd.wire.calls import Calls
from trackd.wire.led_calls import LedCalls
from trackd.wire.share_work import ShareService
from trackd.wire.subscriptions import SubscriptionService


@dataclass(frozen=True, slots=True)
class Led:
    """What a process has of them.

    calls: what answers, here or by handing on. shares: what answers the worker that leads, where
    that is another one. settle: ends all consumers and saves what they said, where this one leads.
    """

    calls: LedCalls
    shares: ShareService | None
    settle: Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def led_running(
    settings: Settings,
    partitions: Sequence[Partition],
    neighbours: Neighbours | None,
    *,
    data_set_id: str,
    calls: Calls,
    peer_calls: Calls,
    registry: CollectorRegistry,
    partition_count: int,
) -> AsyncIterator[Led]:
    """Leads, or follows the worker that does. Raises DataDamaged or StorageFailed."""
    homes = homes_of(settings, partitions, partition_count=partition_count)
    if neighbours and not neighbours.leads:
        shares = ShareService(homes, peer_calls, now_ms=now_ms)
        yield Led(neighbours.to_leader(calls), shares, _nothing)
        return
    documents = Documents(partitions[0].engine, partitions[0].committer)
    owners = neighbours.owners(partition_count) if neighbours else []
    running = subscriptions_running(
        settings,
        [homes, *owners],
        documents,
        data_set_id,
        registry,
        partition_count=partition_count,
    )
    async with running as subscriptions:
        service = SubscriptionService(
            subscriptions,
            data_set_id,
            calls,
            subscriptions_max=settings.subscriptions_max,
            response_bytes_max=settings.response_bytes_max,
        )
        async with notifications_running(settings, documents, service, calls) as notifications:
            led = LedCalls(service.calls, service.consume_changes, notifications.calls)
            yield Led(led, None, subscriptions.settle)


async def _nothing() -> None:
    """Where another worker leads there is nothing to settle."""
