"""The feed of a server and its named subscriptions: built from settings, served by its door.

Part of the wiring: started when the partitions are open, stopped when nobody calls any more.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from trackd import chores
from trackd.feed.branch import AlarmRules, OwnHomes, SubscriptionBounds
from trackd.feed.live import Live
from trackd.feed.retention import KeptLog, keep_trimming
from trackd.feed.share import Home
from trackd.feed.share_access import Owner
from trackd.feed.subscriptions import Subscriptions
from trackd.feed_metrics import FeedCollector
from trackd.opening import now_ms
from trackd.partition import Partition
from trackd.settings import Settings
from trackd.store.documents import Documents
from trackd.store.errors import StorageFailed
from trackd.wire.calls import Calls
from trackd.wire.endpoint_rules import endpoint_of
from trackd.wire.feed import FeedService

_GAUGES = {
    "lag": "Events that a subscription has not looked at or not finished with.",
    "lag_ms": "How old the oldest of those is, in milliseconds.",
    "in_flight": "Deliveries of a subscription that are not acknowledged yet.",
    "waiting": "Changes of a subscription that wait for another attempt, or behind one that does.",
    "parked": "Parked changes of a subscription.",
    "consumers": "Consumers of a subscription that are connected.",
    "lag_alarm": "1 when a subscription is close to losing changes to retention, or already did.",
}
_COUNTERS = {
    "acknowledged": "Acknowledged changes of a subscription.",
    "redelivered": "Deliveries of a subscription that were made again.",
    "superseded": "Changes dropped because a newer one of the same waybill waited.",
    "expired": "Events that went out of retention before a subscription looked at them.",
}


class SubscriptionCollector:
    """Reads the subscriptions' figures when Prometheus asks; they are a second old at most."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions

    def collect(self) -> Iterator[Metric]:
        """Every figure of every subscription, by its name."""
        figures = [(each.settings.name, each.latest_figures) for each in self._subscriptions]
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"trackd_subscription_{name}", text, labels=["subscription"])
            for subscription, each in figures:
                gauge.add_metric([subscription], getattr(each, name))
            yield gauge
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(
                f"trackd_subscription_{name}", text, labels=["subscription"]
            )
            for subscription, each in figures:
                counter.add_metric([subscription], getattr(each, name))
            yield counter


@contextlib.asynccontextmanager
async def news_running(
    settings: Settings,
    partitions: Sequence[Partition],
    data_set_id: str,
    calls: Calls,
    registry: CollectorRegistry,
    *,
    partition_count: int,
    on_failure: Callable[[StorageFailed], None],
) -> AsyncIterator[FeedService]:
    """What answers for watches of these partitions."""
    live = Live([one.watched() for one in partitions], heartbeat_s=settings.feed_heartbeat_s)
    registry.register(FeedCollector(live))
    feed = FeedService(live, calls, data_set_id)
    kept = KeptLog(
        age_ms=settings.feed_retention_age_s * 1000,
        bytes_max=settings.feed_retention_bytes // partition_count,
    )
    trimming = keep_trimming(
        [one.retention(kept) for one in partitions], settings.feed_retention_age_s, now_ms
    )
    beside = chores.running(live.run(), trimming, on_failure=on_failure)
    async with beside, feed.ending():
        yield feed


def homes_of(
    settings: Settings, partitions: Sequence[Partition], *, partition_count: int
) -> OwnHomes:
    """The partitions of this process, as far as subscriptions know them."""
    return OwnHomes(
        [
            Home(partition.number, partition.feed, partition.engine, partition.committer)
            for partition in partitions
        ],
        SubscriptionBounds(
            window_max=settings.subscription_window_max,
            waiting_max=settings.subscription_waiting_max,
            parked_max=settings.subscription_parked_max,
        ),
        AlarmRules(settings.subscription_alarm_share, settings.feed_retention_age_s * 1000),
        partition_count=partition_count,
        now_ms=now_ms,
    )


@contextlib.asynccontextmanager
async def subscriptions_running(
    settings: Settings,
    owners: Sequence[Owner],
    documents: Documents,
    data_set_id: str,
    registry: CollectorRegistry,
    *,
    partition_count: int,
) -> AsyncIterator[Subscriptions]:
    """The subscriptions over all partitions; they are saved at the end.

    owners: of the partitions, this process first. Raises DataDamaged or StorageFailed.
    """
    subscriptions = Subscriptions(
        owners,
        documents,
        data_set_id,
        partition_count=partition_count,
        subscriptions_max=settings.subscriptions_max,
        # Each belongs to an endpoint, of which there are endpoints_max.
        bounded_elsewhere=lambda name: endpoint_of(name) is not None,
        now_ms=now_ms,
    )
    await subscriptions.open()
    registry.register(SubscriptionCollector(subscriptions))
    try:
        yield subscriptions
    finally:
        await subscriptions.close()
