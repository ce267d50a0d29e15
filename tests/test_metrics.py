"""What is on /metrics: calls by method and status, and figures read at the time of a scrape."""

from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from trackd.latency import BUCKETS_US
from trackd.metrics import CallMetrics, PartitionCollector, ProcessMetrics
from trackd.store.commit_figures import CommitFigures


@dataclass(slots=True)
class Partition:
    """A partition as far as it is shown."""

    number: int
    counts: CommitFigures = field(default_factory=CommitFigures)
    shown: dict[str, float] = field(default_factory=dict)

    def gauges(self) -> dict[str, float]:
        """See PartitionFigures."""
        return self.shown


@pytest.fixture
def registry() -> CollectorRegistry:
    """An empty registry."""
    return CollectorRegistry()


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """One sample of a scrape."""
    return registry.get_sample_value(name, labels)


def test_calls_are_counted_by_method_and_status(registry: CollectorRegistry) -> None:
    """Rate, errors and duration are one histogram."""
    metrics = CallMetrics(registry)
    observe, other = metrics.observer("a/B"), metrics.observer("a/C")
    for seconds in (0.002, 0.2):
        observe("OK", seconds)
    observe("NOT_FOUND", 0.001)
    other("OK", 1)
    name = "grpc_server_call_duration_seconds"
    ok = {"grpc_method": "a/B", "grpc_status": "OK"}
    assert sample(registry, f"{name}_count", **ok) == 2
    assert sample(registry, f"{name}_sum", **ok) == pytest.approx(0.202)
    assert sample(registry, f"{name}_bucket", **ok, le="0.0025") == 1
    assert sample(registry, f"{name}_bucket", **ok, le="+Inf") == 2
    not_found = {"grpc_method": "a/B", "grpc_status": "NOT_FOUND"}
    assert sample(registry, f"{name}_count", **not_found) == 1


def test_a_partitions_figures_are_those_of_the_moment(registry: CollectorRegistry) -> None:
    """Read when Prometheus asks, each with its partition."""
    one, two = Partition(0), Partition(1)
    registry.register(PartitionCollector([one, two]))
    one.counts.events = 7
    two.counts.stalls, two.counts.stalled_s = 3, 0.25
    one.shown, two.shown = {"queued_events": 5.0}, {"queued_events": 6.0}
    assert sample(registry, "trackd_store_events_total", partition="0") == 7
    assert sample(registry, "trackd_store_events_total", partition="1") == 0
    assert sample(registry, "trackd_store_stalls_total", partition="1") == 3
    assert sample(registry, "trackd_store_stalled_seconds_total", partition="1") == 0.25
    assert sample(registry, "trackd_store_queued_events", partition="1") == 6
    one.counts.events = 8
    assert sample(registry, "trackd_store_events_total", partition="0") == 8


def test_latencies_are_histograms_in_seconds(registry: CollectorRegistry) -> None:
    """Cumulative buckets; the last one has all."""
    partition = Partition(0)
    registry.register(PartitionCollector([partition]))
    for seconds in (0.00004, 0.0009, 20.0):
        partition.counts.fsync_latency.observe(seconds, 0)
    name = "trackd_store_fsync_duration_seconds"
    found = [
        sample(registry, f"{name}_bucket", partition="0", le=le)
        for le in ("5e-05", "0.00075", "0.001", "10.0", "+Inf")
    ]
    assert found == [1, 1, 2, 2, 3]
    assert sample(registry, f"{name}_sum", partition="0") == pytest.approx(20.00094)
    assert sample(registry, f"{name}_count", partition="0") == 3
    assert len(BUCKETS_US) + 1 == sum(
        each.name == f"{name}_bucket"
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for each in family.samples
    )


def test_commits_are_counted_by_their_size(registry: CollectorRegistry) -> None:
    """Powers of two, cumulative."""
    partition = Partition(0)
    registry.register(PartitionCollector([partition]))
    partition.counts.batch_sizes.update({1: 2, 4: 3, 8_192: 1})
    partition.counts.events = 6_000
    name = "trackd_store_commit_events"
    found = [
        sample(registry, f"{name}_bucket", partition="0", le=le)
        for le in ("1.0", "2.0", "4.0", "4096.0", "8192.0", "+Inf")
    ]
    assert found == [2, 2, 5, 5, 6, 6]
    assert sample(registry, f"{name}_sum", partition="0") == 6_000


def test_a_partition_that_is_closing_disturbs_no_scrape(registry: CollectorRegistry) -> None:
    """It has no gauges any more; the others keep theirs."""
    registry.register(PartitionCollector([Partition(0), Partition(1, shown={"a_bytes": 1.0})]))
    assert sample(registry, "trackd_store_a_bytes", partition="0") is None
    assert sample(registry, "trackd_store_a_bytes", partition="1") == 1


def test_every_family_has_a_unit_a_help_and_no_forbidden_label(
    registry: CollectorRegistry,
) -> None:
    """Prometheus reads it back; no label could name a waybill, a customer or a device."""
    CallMetrics(registry).observer("a/B")("OK", 0.1)
    ProcessMetrics(registry)
    registry.register(PartitionCollector([Partition(0, shown={"dirty_statuses": 1.0})]))
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    ours = [each for each in families if each.name.startswith(("trackd_", "grpc_"))]
    assert len(ours) > 12
    allowed = {"partition", "le", "grpc_method", "grpc_status", "version", "flag"}
    for family in ours:
        assert family.documentation.endswith("."), family.name
        for each in family.samples:
            assert set(each.labels) <= allowed, each
