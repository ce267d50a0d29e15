"""PeerService: what a worker answers to the other workers of its server, for its own partitions.

It never asks another worker, so that nothing is forwarded twice: what is not its own answers
UNAVAILABLE / NOT_OWNER.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc

from trackd.partition import Partition, TimelinePage
from trackd.store.planner import ScanTuple, Verdict
from trackd.store.records import without_fingerprints
from trackd.wire.access import PartitionAccess
from trackd.wire.calls import Context
from trackd.wire.errors import CallError
from trackd.wire.peer_messages import (
    TOKEN_KEY,
    GetLogBoundsResponse,
    ReachedRequest,
    ReachedResponse,
    ReadStatusesRequest,
    ReadStatusesResponse,
    ReadTimelineRequest,
    ReadTimelineResponse,
)
from trackd.wire.requests import parsed

# Batches of one worker for one partition that wait for their commit; the worker that sends them
# waits beyond it.
PEER_BATCHES_IN_FLIGHT_MAX = 1_024
# More than all callers of one worker can have at work: their own bounds come first.
PEER_CALLS_MAX = 20_000


class PeerService:
    """Reads the partitions of this process for other workers."""

    def __init__(self, partitions: Sequence[Partition], token: str) -> None:
        self._partitions = {partition.number: partition for partition in partitions}
        self._token = token

    def for_peers(
        self, behaviour: Callable[[Any, Context], Awaitable[Any]]
    ) -> Callable[[Any, Context], Awaitable[Any]]:
        """The same behaviour, for callers that carry the token of this run."""

        async def checked(request: Any, context: Context) -> Any:
            told = dict(context.invocation_metadata() or ()).get(TOKEN_KEY, "")
            if not hmac.compare_digest(str(told), self._token):
                raise CallError(
                    grpc.StatusCode.PERMISSION_DENIED,
                    "NOT_A_PEER",
                    "this service is for the workers of this server",
                )
            return await behaviour(request, context)

        return checked

    async def read_statuses(self, request: bytes, _: Context) -> bytes:
        """ReadStatuses."""
        asked = parsed(ReadStatusesRequest, request)
        rows = await self._own(asked.partition).read_statuses(asked.keys)
        kept = [without_fingerprints(rows[key]) if key in rows else b"" for key in asked.keys]
        return _bytes(ReadStatusesResponse(rows=kept))

    async def read_timeline(self, request: bytes, _: Context) -> bytes:
        """ReadTimeline."""
        asked = parsed(ReadTimelineRequest, request)
        page = await self._own(asked.partition).read_timeline(
            asked.key,
            after=asked.after or None,
            newest_first=asked.newest_first,
            limit=asked.limit,
            bytes_max=asked.bytes_max,
        )
        if page is None:
            return b""
        status, following = without_fingerprints(page.status), page.next or b""
        return _bytes(ReadTimelineResponse(status=status, events=page.events, next=following))

    async def reached(self, request: bytes, _: Context) -> bytes:
        """Reached."""
        asked = parsed(ReachedRequest, request)
        reached = await self._own(asked.partition).reached(asked.position)
        return _bytes(ReachedResponse(reached=reached))

    async def get_log_bounds(self, _request: bytes, _: Context) -> bytes:
        """GetLogBounds."""
        own = sorted(self._partitions.items())
        return _bytes(
            GetLogBoundsResponse(
                partitions=[number for number, _ in own],
                oldest=[partition.feed.oldest_position for _, partition in own],
                newest=[partition.feed.newest_position for _, partition in own],
            )
        )

    def _own(self, number: int) -> Partition:
        partition = self._partitions.get(number)
        if partition is None:
            raise not_owner(number)
        return partition


class ElsewherePartition:
    """Stands for a partition of another worker where nothing may be forwarded."""

    def __init__(self, number: int) -> None:
        self.number = number

    @property
    def queued_events(self) -> int:
        """None wait here."""
        return 0

    def submit(self, scans: Sequence[ScanTuple]) -> "asyncio.Future[Verdict]":  # noqa: ARG002
        """Refuses."""
        raise not_owner(self.number)

    async def room(self, events_max: int) -> None:  # noqa: ARG002
        """Refuses, before a batch is taken in part."""
        raise not_owner(self.number)

    def status_now(self, key: bytes) -> bytes | None:  # noqa: ARG002
        """Nothing is here."""
        return None

    def timeline_now(self, key: bytes, **_: object) -> TimelinePage | None:  # noqa: ARG002
        """Nothing is here."""
        return None

    async def reached(self, position: int) -> bool:  # noqa: ARG002
        """Refuses."""
        raise not_owner(self.number)

    async def read_status(self, key: bytes) -> bytes | None:  # noqa: ARG002
        """Refuses."""
        raise not_owner(self.number)

    async def read_statuses(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:  # noqa: ARG002
        """Refuses."""
        raise not_owner(self.number)

    async def read_timeline(self, key: bytes, **_: object) -> TimelinePage | None:  # noqa: ARG002
        """Refuses."""
        raise not_owner(self.number)


def only_own(own: Sequence[Partition], partition_count: int) -> list[PartitionAccess]:
    """All partitions in order, those of other workers as what refuses."""
    here = {partition.number: partition for partition in own}
    return [here.get(number) or ElsewherePartition(number) for number in range(partition_count)]


def not_owner(partition: int) -> CallError:
    """A call that was forwarded came to the wrong worker."""
    return CallError(
        grpc.StatusCode.UNAVAILABLE,
        "NOT_OWNER",
        f"partition {partition} belongs to another worker: ask GetTopology, then try again",
        {"partition": str(partition)},
        retry_after_s=0.1,
    )


def partition_unavailable(partition: int) -> CallError:
    """The worker that owns a partition cannot be reached."""
    return CallError(
        grpc.StatusCode.UNAVAILABLE,
        "PARTITION_UNAVAILABLE",
        f"the worker of partition {partition} cannot be reached: send again what was not"
        " acknowledged; other partitions go on",
        {"partition": str(partition)},
        retry_after_s=0.1,
    )


def _bytes(message: Any) -> bytes:
    serialised: bytes = message.SerializeToString()
    return serialised
