"""What is shown of the watches of this process; read where it is kept when Prometheus asks."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from trackd.feed.live import Live

_COUNTERS = {
    "changes_told": "Changes told to watches.",
    "bytes_told": "Bytes of the changes told to watches.",
    "fell_behind": "Watches that were sent away from the end, for they did not read.",
    "position_expired": "Watches that were told POSITION_EXPIRED.",
}


class FeedCollector:
    """Reads the figures of all watches."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def collect(self) -> Iterator[Metric]:
        """Every figure."""
        for name, text in _COUNTERS.items():
            count = getattr(self._live.figures, name)
            yield CounterMetricFamily(f"trackd_feed_{name}", text, value=count)
        states = {"live": 0, "behind": 0, "snapshot": 0}
        lag = 0
        # A copy: this is another thread.
        for watch in list(self._live.watches):
            states[watch.state] += 1
            lag = max(lag, watch.lag)
        watches = GaugeMetricFamily("trackd_feed_watches", "Watches, by state.", labels=["state"])
        for state, count in states.items():
            watches.add_metric([state], count)
        yield watches
        text = "Log entries that the watch furthest behind has not looked at."
        yield GaugeMetricFamily("trackd_feed_watch_lag_max", text, value=lag)
