"""`trackd stats` shows the figures of each partition, whole, and as those of that partition."""

import io
from unittest.mock import AsyncMock

import pytest
from rich.console import Console

from tests.cli.conftest import run_here
from tests.harness.server import ServerProcess
from trackd.cli import stats
from trackd.client.admin import Admin
from trackd.v1.admin_pb2 import GetStatsResponse, LatencySummary, PartitionStats


def _large(number: int, *, more: int = 0) -> PartitionStats:
    position = 4_123_456_789 + number * 10**9 + more
    latency = LatencySummary(count=9, p50_us=12_345, p99_us=2_345_678)
    return PartitionStats(
        partition=number,
        durable_position=position,
        waybills=312_345_678,
        bytes_on_disk=500 << 30,
        queued_events=12_000,
        stalls=12_345,
        commit_latency=latency,
        fsync_latency=latency,
    )


def test_a_pipe_and_a_narrow_terminal_get_every_figure(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large it is: whole in a pipe, on two lines rather than in part on a terminal."""
    large = GetStatsResponse(partitions=[_large(0)])
    monkeypatch.setattr(Admin, "get_stats", AsyncMock(return_value=large))
    ran = run_here("stats", env={"TRACKD_SERVER": server.grpc, "COLUMNS": "80"})
    assert " 4,123,456,789 " in ran.out, ran
    shown = io.StringIO()
    Console(width=80, file=shown).print(stats._picture(stats._Reading(1.0, large, None)))
    assert "4,123,456" in shown.getvalue()
    assert "…" not in shown.getvalue()


def test_a_rate_is_that_of_its_partition() -> None:
    """Also while another one's worker is away, and when it is back."""
    both = GetStatsResponse(partitions=[_large(0), _large(1)])
    other = GetStatsResponse(partitions=[_large(1, more=500)])
    before = stats._Reading(1.0, both, None)
    away = stats._Reading(2.0, other, before)
    back = stats._Reading(3.0, both, away)
    assert away.events_per_second(other.partitions[0]) == 500
    assert back.events_per_second(both.partitions[0]) is None
