"""A partition of another worker, as the servicers of this one see it.

Scans go to the owner over one stream per partition, so that they are committed in the order in
which they came here; reads are calls of their own. While the owner cannot be reached everything
that waits for it, and everything that comes, ends with UNAVAILABLE / PARTITION_UNAVAILABLE:
whether it was stored is not known then, and sending it again does no harm.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import aio

from trackd.domain.validation import Fault
from trackd.domain.vocabulary import Rejection
from trackd.partition import TimelinePage
from trackd.store.planner import ScanTuple, Verdict
from trackd.v1.ingest_pb2 import StreamEventsResponse
from trackd.wire.errors import CallError
from trackd.wire.peer_messages import (
    SERVICE,
    TOKEN_KEY,
    ReachedRequest,
    ReachedResponse,
    ReadStatusesRequest,
    ReadStatusesResponse,
    ReadTimelineRequest,
    ReadTimelineResponse,
)
from trackd.wire.peers import partition_unavailable
from trackd.wire.slices import StreamSlices

# An owner that does not answer a read for so long is as good as gone.
READ_TIMEOUT_S = 10.0
_CHANNEL_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    # A worker that was killed is back within a second: look as often.
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]
_STATUS_DETAILS_KEY = "grpc-status-details-bin"


class PeerChannel:
    """The connection to another worker; one for all of its partitions."""

    def __init__(self, address: str, token: str) -> None:
        """Connects with the first call."""
        self._address = address
        self.metadata = ((TOKEN_KEY, token),)
        self._channel = aio.insecure_channel(address, options=_CHANNEL_OPTIONS)

    def stream_events(self) -> Any:
        """A StreamEvents call; bytes in and out."""
        return self._channel.stream_stream(f"/{SERVICE}/StreamEvents")(metadata=self.metadata)

    async def call(self, method: str, request: bytes) -> bytes:
        """One call. Raises AioRpcError."""
        call: Any = self._channel.unary_unary(f"/{SERVICE}/{method}")
        answer: bytes = await call(request, metadata=self.metadata, timeout=READ_TIMEOUT_S)
        return answer

    async def watch(self, request: bytes, partition: int) -> AsyncIterator[bytes]:
        """The messages of a WatchChanges call over its partitions. Raises CallError.

        partition: one of them, which an error names.
        """
        call: Any = self._channel.unary_stream(f"/{SERVICE}/WatchChanges")
        try:
            async for message in call(request, metadata=self.metadata):
                yield message
        except aio.AioRpcError as failure:
            raise call_error(failure, partition) from None

    async def renew(self) -> None:
        """Connects anew with the next call: the worker was away and is back."""
        old, self._channel = (
            self._channel,
            aio.insecure_channel(self._address, options=_CHANNEL_OPTIONS),
        )
        await old.close()

    async def close(self) -> None:
        """Ends every call that is still running."""
        await self._channel.close()


class _Forwarded(NamedTuple):
    """A batch on its way: its request, which scans it holds by their index, and who waits."""

    request: bytes
    indexes: list[int]
    answer: "asyncio.Future[Verdict]"


class RemotePartition:
    """Answers to wire.access.PartitionAccess for a partition of another worker."""

    def __init__(self, number: int, channel: PeerChannel) -> None:
        self.number = number
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        # Scans that have no answer yet.
        self.queued_events = 0
        self._waiting: deque[_Forwarded] = deque()
        self._in_flight: deque[_Forwarded] = deque()
        self._more = asyncio.Event()
        self._room_waiters: list[asyncio.Future[None]] = []
        self._carrying: asyncio.Task[None] | None = None

    # Writing.

    def submit(self, scans: Sequence[ScanTuple]) -> "asyncio.Future[Verdict]":
        """Hands scans to the owner, to be committed together, after those submitted before."""
        answer: asyncio.Future[Verdict] = self._loop.create_future()
        request = StreamSlices(events=[scan[-1] for scan in scans]).SerializeToString()
        self._waiting.append(_Forwarded(request, [scan[0] for scan in scans], answer))
        self.queued_events += len(scans)
        self._more.set()
        if self._carrying is None:
            self._carrying = asyncio.create_task(self._carry())
        return answer

    async def room(self, events_max: int) -> None:
        """Returns once fewer scans wait for the owner's answer."""
        while self.queued_events > events_max:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._room_waiters.append(waiter)
            await waiter

    async def close(self) -> None:
        """Ends the stream; whoever waits is told that the owner cannot be reached."""
        if self._carrying is not None:
            self._carrying.cancel()
            await asyncio.gather(self._carrying, return_exceptions=True)

    async def _carry(self) -> None:
        """One stream, until it breaks; the next batch begins another."""
        call = self._channel.stream_events()
        sending = asyncio.create_task(self._send(call))
        error: CallError = partition_unavailable(self.number)
        try:
            async for response in call:
                self._settle(StreamEventsResponse.FromString(response))
        except aio.AioRpcError as failure:
            error = call_error(failure, self.number)
        finally:
            sending.cancel()
            call.cancel()
            self._carrying = None
            self._fail(error)

    async def _send(self, call: Any) -> None:
        """Returns when nobody takes anything any more: the reading side says why."""
        while True:
            while not self._waiting:
                self._more.clear()
                await self._more.wait()
            one = self._waiting.popleft()
            self._in_flight.append(one)
            try:
                await call.write(one.request)
            except (aio.AioRpcError, asyncio.InvalidStateError):
                return

    def _settle(self, response: StreamEventsResponse) -> None:
        one = self._in_flight.popleft()
        # "data set/partition.position", or nothing if no scan of it came to be committed.
        _, _, position = response.position.rpartition(".")
        verdict = Verdict(
            accepted=response.accepted,
            duplicates=response.duplicates,
            rejections=[
                (one.indexes[each.index], Fault(Rejection(each.reason), each.field, each.message))
                for each in response.rejections
            ],
            position=int(position or 0),
        )
        if not one.answer.done():
            one.answer.set_result(verdict)
        self._leave(len(one.indexes))

    def _fail(self, error: CallError) -> None:
        failed = [*self._in_flight, *self._waiting]
        self._in_flight.clear()
        self._waiting.clear()
        for one in failed:
            if not one.answer.done():
                # Made anew: one exception raised in many tasks collects all their frames.
                one.answer.set_exception(once_more(error))
                one.answer.exception()  # the caller may be gone by now, which is no news
            self._leave(len(one.indexes))

    def _leave(self, events: int) -> None:
        self.queued_events -= events
        waiters, self._room_waiters = self._room_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Reading.

    async def reached(self, position: int) -> bool:
        """As Partition.reached."""
        request = ReachedRequest(partition=self.number, position=position)
        response = await self._call("Reached", request, ReachedResponse)
        return bool(response.reached)

    async def read_status(self, key: bytes) -> bytes | None:
        """As Partition.read_status; the row has no fingerprints."""
        return (await self.read_statuses((key,))).get(key)

    async def read_statuses(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """As Partition.read_statuses; the rows have no fingerprints."""
        wanted = list(keys)
        request = ReadStatusesRequest(partition=self.number, keys=wanted)
        response = await self._call("ReadStatuses", request, ReadStatusesResponse)
        return {key: row for key, row in zip(wanted, response.rows, strict=True) if row}

    async def read_timeline(
        self,
        key: bytes,
        *,
        after: bytes | None,
        newest_first: bool,
        limit: int,
        bytes_max: int,
    ) -> TimelinePage | None:
        """As Partition.read_timeline; the status row has no fingerprints."""
        request = ReadTimelineRequest(
            partition=self.number,
            key=key,
            after=after or b"",
            newest_first=newest_first,
            limit=limit,
            bytes_max=bytes_max,
        )
        response = await self._call("ReadTimeline", request, ReadTimelineResponse)
        if not response.status:
            return None
        return TimelinePage(response.status, list(response.events), response.next or None)

    async def _call(self, method: str, request: Any, response: Any) -> Any:
        try:
            answer = await self._channel.call(method, request.SerializeToString())
        except aio.AioRpcError as failure:
            raise call_error(failure, self.number) from None
        return response.FromString(answer)


def call_error(failure: aio.AioRpcError, partition: int) -> CallError:
    """What the owner said, for the caller of this worker; or that it cannot be reached."""
    info, retry = ErrorInfo(), RetryInfo()
    for key, value in failure.trailing_metadata() or ():
        if key == _STATUS_DETAILS_KEY and isinstance(value, bytes):
            for detail in Status.FromString(value).details:
                detail.Unpack(info) or detail.Unpack(retry)
    if info.reason:
        return CallError(
            failure.code(),
            info.reason,
            failure.details() or "",
            dict(info.metadata),
            field=info.metadata.get("field", ""),
            retry_after_s=retry.retry_delay.ToMilliseconds() / 1000,
        )
    if failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # gRPC's own, and the only one that it has between two workers.
        return CallError(
            failure.code(),
            "RESPONSE_TOO_LARGE",
            "the answer would be too large; ask for fewer at a time",
        )
    return partition_unavailable(partition)


def once_more(error: CallError) -> CallError:
    """The same, as another exception."""
    return CallError(
        error.code,
        error.reason,
        error.message,
        dict(error.metadata),
        field=error.field,
        retry_after_s=error.retry_after_s,
    )
