"""AdminService: how the data is laid out and how the server is doing."""

import asyncio
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import trackd
from trackd.latency import Latencies
from trackd.partition import Partition
from trackd.store.space import SpaceGuard
from trackd.v1.admin_pb2 import (
    GetStatsResponse,
    GetTopologyResponse,
    LatencySummary,
    PartitionAddress,
    PartitionStats,
)
from trackd.wire.calls import Context


class AdminService:
    """Reports on the partitions of this process."""

    def __init__(
        self, partitions: Sequence[Partition], data_set_id: str, data: Path, space: SpaceGuard
    ) -> None:
        self._partitions = partitions
        self._data_set_id = data_set_id
        self._data = data
        self._space = space
        self._started_at_ms = time.time_ns() // 1_000_000
        # Known once the server listens.
        self.address = ""

    async def get_topology(self, _request: bytes, _: Context) -> bytes:
        """GetTopology."""
        return GetTopologyResponse(
            data_set_id=self._data_set_id,
            partition_count=len(self._partitions),
            partitions=[
                PartitionAddress(partition=partition.number, address=self.address)
                for partition in self._partitions
            ],
        ).SerializeToString()

    async def get_stats(self, _request: bytes, _: Context) -> bytes:
        """GetStats."""
        stats = [await asyncio.to_thread(_stats, partition) for partition in self._partitions]
        return GetStatsResponse(
            partitions=stats,
            server_version=trackd.__version__,
            started_at_ms=self._started_at_ms,
            disk_free_bytes=(await asyncio.to_thread(shutil.disk_usage, self._data)).free,
            low_space=self._space.low,
        ).SerializeToString()


def _stats(partition: Partition) -> PartitionStats:
    committer, now_s = partition.committer, time.monotonic()
    return PartitionStats(
        partition=partition.number,
        durable_position=committer.durable_position,
        planned_position=committer.planned_position,
        events=committer.durable_position,
        waybills=committer.waybills,
        bytes_on_disk=partition.bytes_on_disk(),
        stalls=committer.figures.stalls,
        commits=committer.figures.commits,
        commit_latency=_summary(committer.figures.commit_latency.summary(now_s)),
        fsync_latency=_summary(committer.figures.fsync_latency.summary(now_s)),
        queued_events=committer.queued_events,
    )


def _summary(latencies: Latencies) -> LatencySummary:
    return LatencySummary(
        count=latencies.count,
        p50_us=latencies.p50_us,
        p99_us=latencies.p99_us,
        max_us=latencies.max_us,
    )
