"""Metrics: what the process counts, on its own /metrics.

Calls as gRFC A66 names them; the rooms' own figures are read where they are kept, at the time of a
scrape, so that counting costs the hot path nothing. Never a label with a waybill, a customer or a
device.
"""

import asyncio
import itertools
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

import trackd
from trackd.latency import BUCKETS_US, LatencyHistogram

_CALL_BUCKETS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
    10, 60, 600, 3600,
)  # fmt: skip
_LAG_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
LAG_INTERVAL_S = 0.05


class CommitterCounts(Protocol):
    """What a committer counts, as far as it is shown."""

    commits: int
    events: int
    duplicates: int
    rejections: int
    stalls: int
    stalled_s: float
    batch_sizes: dict[int, int]
    commit_latency: LatencyHistogram
    fsync_latency: LatencyHistogram


class PartitionFigures(Protocol):
    """What a partition shows of itself."""

    @property
    def number(self) -> int: ...
    @property
    def counts(self) -> CommitterCounts: ...
    def gauges(self) -> dict[str, float]:
        """Name (without prefix, with unit) to value."""


class CallMetrics:
    """RED per method: rate, errors and duration are one histogram by method and status.

    Counted by hand, in one thread: prometheus_client's own takes 3.6 us of each call, this 0.4.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        # Calls by bucket, and their seconds in all, by method and status.
        self._calls: dict[tuple[str, str], tuple[list[int], list[float]]] = {}
        registry.register(self)

    def observer(self, method: str) -> Callable[[str, float], None]:
        """A function that counts one call of a method, given its status and seconds."""
        known: dict[str, tuple[list[int], list[float]]] = {}

        def observe(status: str, seconds: float) -> None:
            counted = known.get(status)
            if counted is None:
                counted = self._calls.setdefault(
                    (method, status), ([0] * (len(_CALL_BUCKETS_S) + 1), [0.0])
                )
                known[status] = counted
            counted[0][bisect_left(_CALL_BUCKETS_S, seconds)] += 1
            counted[1][0] += seconds

        return observe

    def collect(self) -> Iterator[Metric]:
        """The histogram, when Prometheus asks."""
        family = HistogramMetricFamily(
            "grpc_server_call_duration_seconds",
            "From the start of a call to its end, by method and status.",
            labels=("grpc_method", "grpc_status"),
        )
        bounds = [*(str(float(bound)) for bound in _CALL_BUCKETS_S), "+Inf"]
        for labels, (counts, seconds) in list(self._calls.items()):
            up_to = map(float, itertools.accumulate(counts))
            family.add_metric(labels, list(zip(bounds, up_to, strict=True)), seconds[0])
        yield family


class PartitionCollector:
    """Reads the partitions' figures when Prometheus asks."""

    def __init__(self, partitions: Iterable[PartitionFigures]) -> None:
        self._partitions = list(partitions)

    def collect(self) -> Iterator[Metric]:
        """Every figure of every partition."""
        counters = {
            "events": "Events accepted and made durable.",
            "duplicates": "Events that were there already.",
            "rejections": "Events rejected when they were put into order (conflicts).",
            "commits": "Commits made durable.",
            "stalls": "Writes that had to wait for the engine's background work.",
        }
        for name, text in counters.items():
            counter = CounterMetricFamily(f"trackd_store_{name}", text, labels=["partition"])
            for partition in self._partitions:
                counter.add_metric([str(partition.number)], getattr(partition.counts, name))
            yield counter
        stalled = CounterMetricFamily(
            "trackd_store_stalled_seconds", "Time spent in stalls.", labels=["partition"]
        )
        for partition in self._partitions:
            stalled.add_metric([str(partition.number)], partition.counts.stalled_s)
        yield stalled
        yield self._latency(
            "trackd_store_commit_duration_seconds",
            "From arrival in the queue until durable, for the first event of each commit.",
            lambda counts: counts.commit_latency,
        )
        yield self._latency(
            "trackd_store_fsync_duration_seconds",
            "How long the flush to disk took.",
            lambda counts: counts.fsync_latency,
        )
        yield self._batch_sizes()
        yield from self._gauges()

    def _latency(
        self, name: str, text: str, of: Callable[[CommitterCounts], LatencyHistogram]
    ) -> Metric:
        family = HistogramMetricFamily(name, text, labels=["partition"])
        for partition in self._partitions:
            histogram = of(partition.counts)
            total, buckets = 0, []
            for bound, count in zip((*BUCKETS_US, None), list(histogram.counts), strict=True):
                total += count
                buckets.append(("+Inf" if bound is None else str(bound / 1e6), float(total)))
            family.add_metric([str(partition.number)], buckets, histogram.sum_s)
        return family

    def _batch_sizes(self) -> Metric:
        family = HistogramMetricFamily(
            "trackd_store_commit_events", "Events in a commit.", labels=["partition"]
        )
        for partition in self._partitions:
            sizes = dict(partition.counts.batch_sizes)
            total, buckets = 0, []
            for bound in (1 << exponent for exponent in range(14)):
                total += sizes.get(bound, 0)
                buckets.append((str(float(bound)), float(total)))
            buckets.append(("+Inf", float(sum(sizes.values()))))
            family.add_metric([str(partition.number)], buckets, partition.counts.events)
        return family

    def _gauges(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for partition in self._partitions:
            for name, value in partition.gauges().items():
                if name not in families:
                    text = f"{name.replace('_', ' ').capitalize()}, by partition."
                    families[name] = GaugeMetricFamily(
                        f"trackd_store_{name}", text, labels=["partition"]
                    )
                families[name].add_metric([str(partition.number)], value)
        yield from families.values()


class ProcessMetrics:
    """What belongs to no partition; set by the wiring."""

    def __init__(self, registry: CollectorRegistry) -> None:
        build = Gauge(
            "trackd_build_info", "The version that runs.", ("version",), registry=registry
        )
        build.labels(trackd.__version__).set(1)
        self.unsafe_flags = Gauge(
            "trackd_unsafe_flags",
            "Flags in force that give up a safety.",
            ("flag",),
            registry=registry,
        )
        self.low_space = Gauge(
            "trackd_disk_low_space",
            "1 while writes are refused for want of space.",
            registry=registry,
        )
        self.disk_free_bytes = Gauge(
            "trackd_disk_free_bytes",
            "Free bytes on the file system of the data.",
            registry=registry,
        )
        self.loop_lag = Histogram(
            "trackd_loop_lag_seconds",
            "How late the event loop runs what is due.",
            buckets=_LAG_BUCKETS_S,
            registry=registry,
        )
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    async def watch_loop(self) -> None:
        """Measures the lag of the event loop, until cancelled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(LAG_INTERVAL_S)
            self.loop_lag.observe(max(0.0, time.perf_counter() - began - LAG_INTERVAL_S))
