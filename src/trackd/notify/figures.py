"""What the notifier counts. Never a label with an endpoint, a customer or a waybill."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from trackd.notify.outcome import Verdict
from trackd.notify.settings import UNSAFE_FLAGS
from trackd.v1.notification_pb2 import EndpointKind

KINDS = {
    EndpointKind.ENDPOINT_KIND_WEBHOOK: "webhook",
    EndpointKind.ENDPOINT_KIND_MESSAGE: "message",
}
_ATTEMPT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)


class Figures:
    """The metrics of one notifier process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        attempts = Counter(
            "trackd_notify_attempts",
            "Attempts that ended, by the kind of endpoint and what came of them.",
            ("kind", "outcome"),
            registry=registry,
        )
        seconds = Histogram(
            "trackd_notify_attempt_duration_seconds",
            "From the start of an attempt to its end, by the kind of endpoint.",
            ("kind",),
            buckets=_ATTEMPT_BUCKETS_S,
            registry=registry,
        )
        self._attempts = {
            (kind, verdict): attempts.labels(name, verdict.value)
            for kind, name in KINDS.items()
            for verdict in Verdict
        }
        self._seconds = {kind: seconds.labels(name) for kind, name in KINDS.items()}
        self.under_way = Gauge(
            "trackd_notify_attempts_under_way", "Attempts that run now.", registry=registry
        )
        self.endpoints = Gauge(
            "trackd_notify_endpoints", "Endpoints that are told.", registry=registry
        )
        self.resting = Gauge(
            "trackd_notify_endpoints_resting",
            "Endpoints that are left alone for a while: they failed, or asked for it.",
            registry=registry,
        )
        self.lost_links = Counter(
            "trackd_notify_links_lost",
            "Times that the stream of an endpoint's changes broke off.",
            registry=registry,
        )
        self.reports_dropped = Gauge(
            "trackd_notify_reports_dropped",
            "Attempts that are missing in the delivery log, as the server could not take them.",
            registry=registry,
        )
        self.unsafe_flags = Gauge(
            "trackd_notify_unsafe_flags",
            "1 for each unsafe flag in force, 0 for others.",
            ("flag",),
            registry=registry,
        )
        for flag in UNSAFE_FLAGS:
            self.unsafe_flags.labels(flag).set(0)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def attempted(self, kind: EndpointKind.ValueType, verdict: Verdict, seconds: float) -> None:
        """One attempt ended."""
        self._attempts[kind, verdict].inc()
        self._seconds[kind].observe(seconds)
