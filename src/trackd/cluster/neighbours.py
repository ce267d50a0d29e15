"""The other workers of this server, as this one reaches them."""

from collections.abc import AsyncGenerator, Mapping, Sequence

from grpc import aio

from trackd.cluster.assignment import Assignment
from trackd.cluster.remote import PeerChannel, RemotePartition
from trackd.cluster.watching import OwnPartitions, WatchSource
from trackd.partition import Partition
from trackd.wire.access import PartitionAccess
from trackd.wire.admin import StatsOfOthers
from trackd.wire.errors import CallError
from trackd.wire.feed import FeedService
from trackd.wire.peer_messages import GetLogBoundsResponse
from trackd.wire.resume_tokens import KeptLog, LogBounds


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
        try:
            answer = await self._channel.call("GetLogBounds", b"")
        except aio.AioRpcError as failure:
            raise self._channel.error(failure) from None
        told = GetLogBoundsResponse.FromString(answer)
        logs = zip(told.partitions, told.oldest, told.newest, strict=True)
        return {number: LogBounds(oldest, newest) for number, oldest, newest in logs}

    def watch(self, request: bytes) -> AsyncGenerator[bytes, None]:
        """See WatchSource."""
        return self._channel.watch(request)


def _stats_of(channel: PeerChannel) -> StatsOfOthers:
    async def ask() -> bytes | None:
        try:
            return await channel.call("GetStats", b"")
        except (aio.AioRpcError, CallError):
            return None

    return ask
