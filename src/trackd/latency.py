"""Latencies as histograms of fixed buckets.

For /metrics since the start, for people over the last minutes. Nothing here knows what was timed.
"""

from bisect import bisect_left
from dataclasses import dataclass

# Upper bounds of the buckets in microseconds: 50 us to 10 s, each at most twice the one before; the
# last one has none.
BUCKETS_US = (
    50, 75, 100, 150, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000,
    15_000, 20_000, 30_000, 50_000, 75_000, 100_000, 150_000, 200_000, 300_000, 500_000, 750_000,
    1_000_000, 1_500_000, 2_000_000, 3_000_000, 5_000_000, 10_000_000,
)  # fmt: skip
_WINDOW_S = 120.0


@dataclass(frozen=True, slots=True)
class Latencies:
    """A summary of the last two to four minutes, in microseconds.

    Quantiles are upper bounds of their bucket.
    """

    count: int
    p50_us: int
    p99_us: int
    max_us: int


class LatencyHistogram:
    """Counts latencies. One writer."""

    __slots__ = (
        "_current",
        "_current_max",
        "_previous",
        "_previous_max",
        "_turned_at",
        "counts",
        "sum_s",
    )

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_US) + 1)
        self.sum_s = 0.0
        self._current = [0] * len(self.counts)
        self._previous = [0] * len(self.counts)
        self._current_max = self._previous_max = 0
        self._turned_at = 0.0

    def observe(self, seconds: float, now_s: float) -> None:
        """Counts one latency; now_s is a monotonic clock."""
        self._turn(now_s)
        micros = int(seconds * 1e6)
        bucket = bisect_left(BUCKETS_US, micros)
        self.counts[bucket] += 1
        self._current[bucket] += 1
        self._current_max = max(self._current_max, micros)
        self.sum_s += seconds

    def _turn(self, now_s: float) -> None:
        """Begins a new window, if it is time."""
        age_s = now_s - self._turned_at
        if age_s <= _WINDOW_S:
            return
        fresh = age_s <= 2 * _WINDOW_S
        self._previous = self._current if fresh else [0] * len(self.counts)
        self._previous_max = self._current_max if fresh else 0
        self._current, self._current_max = [0] * len(self.counts), 0
        self._turned_at = now_s

    def summary(self, now_s: float) -> Latencies:
        """The last minutes before now_s, on the writer's clock. Changes nothing."""
        age_s = now_s - self._turned_at
        windows = []
        if age_s <= 2 * _WINDOW_S:
            windows.append((self._current, self._current_max))
        if age_s <= _WINDOW_S:
            windows.append((self._previous, self._previous_max))
        counts = [0] * len(self.counts)
        longest = 0
        for window, window_max in windows:
            counts = [a + b for a, b in zip(counts, window, strict=True)]
            longest = max(longest, window_max)
        total = sum(counts)

        def quantile(share: float) -> int:
            seen = 0
            for bound, count in zip((*BUCKETS_US, longest), counts, strict=True):
                seen += count
                if count and seen >= share * total:
                    return min(bound, longest)
            return 0

        return Latencies(total, quantile(0.5), quantile(0.99), longest)
