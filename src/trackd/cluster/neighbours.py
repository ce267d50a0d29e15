"""The other workers of this server, as this one reaches them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

from grpc import aio

from trackd.cluster.assignment import Assignment
from trackd.cluster.forwarding import led_by
from trackd.cluster.remote import PeerChannel, RemotePartition
from trackd.cluster.remote_branch import RemoteOwner, bounds_of
from trackd.cluster.watching import OwnPartitions, WatchSource
from trackd.partition import Partition
from trackd.wire.access import PartitionAccess
from trackd.wire.admin import StatsOfOthers
from trackd.wire.calls import Calls
from trackd.wire.errors import CallError
from trackd.wire.feed import FeedService
from trackd.wire.led_calls import LedCalls
from trackd.wire.resume_tokens import KeptLog

# Who asks for figures waits a few seconds, and is better served without those of one that hangs.
_STATS_TIMEOUT_S = 2.0


class Neighbours:
    """A connection to each other worker, made when it is first needed."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._channels = {
            worker: PeerChannel(address, assignment.token, partition=worker)
            for worker, address in enumerate(assignment.addresses)
            if worker != assignment.worker
        }
        self._remote: list[RemotePartition] = []
        self._serving = [False] * assignment.workers
        self._serves = [asyncio.Event() for _ in self._serving]

    def beside(self, own: Sequence[Partition], partition_count: int) -> list[PartitionAccess]:
        """All partitions in order: the own ones, and the others where they are."""
        here = {partition.number: partition for partition in own}
        partitions: list[PartitionAccess] = []
        for number in range(partition_count):
            if number in here:
                partitions.append(here[number])
            else:
                channel = self._channels[self._assignment.owner(number)]
                self._remote.append(RemotePartition(number, channel))
                partitions.append(self._remote[-1])
        return partitions

    @property
    def stats(self) -> list[StatsOfOthers]:
        """What asks each of them for its GetStats answer."""
        return [_stats_of(channel) for channel in self._channels.values()]

    def watched_with(self, feed: FeedService, own: Sequence[Partition]) -> list[WatchSource]:
        """Every worker as a source of changes, this one with what answers for its partitions."""
        mine = OwnPartitions(feed, {partition.number: partition.feed for partition in own})
        return [mine, *(PeerPartitions(channel) for channel in self._channels.values())]

    async def are_serving(self, serving: Sequence[bool]) -> None:
        """Reaches a worker that has come back at once, not when its connection is tried next."""
        for worker, channel in self._channels.items():
            if serving[worker] and not self._serving[worker]:
                await channel.renew()
        self._serving = list(serving)
        for serves, event in zip(serving, self._serves, strict=True):
            (event.set if serves else event.clear)()

    @property
    def leads(self) -> bool:
        """Whether this worker leads subscriptions and endpoints."""
        return self._assignment.leads

    def to_leader(self, calls: Calls) -> LedCalls:
        """What hands calls on to the worker that leads, which is another one."""
        return led_by(self._channels[self._assignment.leader], calls)

    def owners(self, partition_count: int) -> list[RemoteOwner]:
        """Every other worker as an owner of shares."""
        return [
            RemoteOwner(
                channel,
                [one for one in range(partition_count) if self._assignment.owner(one) == worker],
                self._serves[worker].wait,
            )
            for worker, channel in self._channels.items()
        ]

    async def close(self) -> None:
        """Ends what is still under way to them."""
        for partition in self._remote:
            await partition.close()
        for channel in self._channels.values():
            await channel.close()


class PeerPartitions:
    """Another worker as a source of changes; answers to watching.WatchSource."""

    def __init__(self, channel: PeerChannel) -> None:
        self._channel = channel

    async def bounds(self) -> Mapping[int, KeptLog]:
        """See WatchSource."""
        return await bounds_of(self._channel)

    def watch(self, request: bytes) -> AsyncGenerator[bytes, None]:
        """See WatchSource."""
        return self._channel.watch(request)


def _stats_of(channel: PeerChannel) -> StatsOfOthers:
    async def ask() -> bytes | None:
        try:
            async with asyncio.timeout(_STATS_TIMEOUT_S):
                return await channel.call("GetStats", b"")
        except (aio.AioRpcError, CallError, TimeoutError):
            return None

    return ask
