"""AdminService: how the data is laid out and how the server is doing."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trackd
from trackd.latency import Latencies
from trackd.partition import Partition
from trackd.store.space import SpaceGuard
from trackd.v1.admin_pb2 import (
    GetStatsRequest,
    GetStatsResponse,
    GetTopologyRequest,
    GetTopologyResponse,
    LatencySummary,
    PartitionAddress,
    PartitionStats,
)
from trackd.wire.calls import Context
from trackd.wire.requests import parsed

# Asks another worker for its GetStats answer; None if it cannot be reached.
StatsOfOthers = Callable[[], Awaitable[bytes | None]]


class AdminService:
    """Reports on the partitions of this process, and on those of the workers beside it."""

    def __init__(
        self,
        partitions: Sequence[Partition],
        data_set_id: str,
        data: Path,
        space: SpaceGuard,
        others: Sequence[StatsOfOthers] = (),
    ) -> None:
        self._partitions = partitions
        self._data_set_id = data_set_id
        self._data = data
        self._space = space
        self._others = others
        self._started_at_ms = time.time_ns() // 1_000_000
        # Of every partition's owner, in order; known once the server listens.
        self.addresses: list[str] = []

    async def get_topology(self, request: bytes, _: Context) -> bytes:
        """GetTopology."""
        parsed(GetTopologyRequest, request)  # nothing is asked in it, and noise is refused
        return GetTopologyResponse(
            data_set_id=self._data_set_id,
            partition_count=len(self.addresses),
            partitions=[
                PartitionAddress(partition=number, address=address)
                for number, address in enumerate(self.addresses)
            ],
        ).SerializeToString()

    async def get_stats(self, request: bytes, _: Context) -> bytes:
        """GetStats; without the partitions of a worker that cannot be reached."""
        parsed(GetStatsRequest, request)
        stats = [await asyncio.to_thread(_stats, partition) for partition in self._partitions]
        for answer in await asyncio.gather(*(ask() for ask in self._others)):
            if answer is not None:
                stats += GetStatsResponse.FromString(answer).partitions
        return GetStatsResponse(
            partitions=sorted(stats, key=lambda one: one.partition),
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
