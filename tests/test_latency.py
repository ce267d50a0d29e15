"""Latencies in fixed buckets: counted since the start, summarised over the last minutes."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackd.latency import BUCKETS_US, Latencies, LatencyHistogram

MINUTE_S = 60.0


def histogram(*seconds: float, now_s: float = 1_000.0) -> LatencyHistogram:
    """These latencies, all of one moment."""
    counted = LatencyHistogram()
    for each in seconds:
        counted.observe(each, now_s)
    return counted


def test_nothing_measured_is_said_as_nothing() -> None:
    """Zeros, not an error."""
    assert LatencyHistogram().summary(5) == Latencies(count=0, p50_us=0, p99_us=0, max_us=0)


@pytest.mark.parametrize("bound_us", BUCKETS_US)
def test_a_bucket_includes_its_upper_bound(bound_us: int) -> None:
    """One microsecond more is in the next one; the last one has no bound."""
    place = BUCKETS_US.index(bound_us)
    on_it, above = histogram((bound_us + 0.5) / 1e6), histogram((bound_us + 1.5) / 1e6)
    assert on_it.counts.index(1) == place
    assert above.counts.index(1) == place + 1


def test_the_buckets_ascend() -> None:
    """Each is at most twice the one before, so that a quantile is worth reading."""
    assert all(lower < upper <= 2 * lower for lower, upper in pairwise(BUCKETS_US))


@given(st.lists(st.integers(0, 20_000_000), min_size=1, max_size=60))
def test_quantiles_are_upper_bounds_of_the_true_ones(micros: list[int]) -> None:
    """And within their bucket; the longest is exact, and nothing is said to be longer."""
    summary = histogram(*(each / 1e6 + 1e-9 for each in micros)).summary(1_000.0)
    ordered = sorted(micros)
    assert summary.count == len(micros)
    assert summary.max_us == ordered[-1]
    for share, told in ((0.5, summary.p50_us), (0.99, summary.p99_us)):
        rank = next(n for n in range(1, len(ordered) + 1) if n >= share * len(ordered))
        true = ordered[rank - 1]
        bucket = next((bound for bound in BUCKETS_US if bound >= true), ordered[-1])
        assert true <= told <= min(bucket, ordered[-1])


def test_a_summary_is_of_the_last_minutes() -> None:
    """Two to four of them; what is counted since the start stays."""
    start_s = 1_000.0
    counted = histogram(3.0, now_s=start_s)
    counted.observe(0.001, start_s + 1.9 * MINUTE_S)
    assert counted.summary(start_s + 1.9 * MINUTE_S).max_us == 3_000_000
    counted.observe(0.002, start_s + 2.1 * MINUTE_S)
    assert counted.summary(start_s + 2.1 * MINUTE_S).count == 3
    counted.observe(0.002, start_s + 4.2 * MINUTE_S)
    only_two = Latencies(count=2, p50_us=2_000, p99_us=2_000, max_us=2_000)
    assert counted.summary(start_s + 4.2 * MINUTE_S) == only_two
    assert sum(counted.counts) == 4
    assert counted.sum_s == pytest.approx(3.005)


def test_a_quiet_time_is_said_to_be_quiet() -> None:
    """What was measured an hour ago is not of the last minutes, whether more follows or not."""
    counted = histogram(3.0, now_s=1_000)
    assert counted.summary(1_000 + 60 * MINUTE_S).count == 0
    counted = histogram(3.0, now_s=1_000)
    counted.observe(0.001, 1_000 + 60 * MINUTE_S)
    assert counted.summary(1_000 + 60 * MINUTE_S).max_us == 1_000


def test_the_counts_are_those_of_all_latencies() -> None:
    """Whatever the time between them."""
    rng = Random(1)
    counted, now_s = LatencyHistogram(), 0.0
    for _ in range(500):
        now_s += rng.choice([0.001, 1, 200, 10_000])
        counted.observe(rng.expovariate(100), now_s)
    assert sum(counted.counts) == 500
