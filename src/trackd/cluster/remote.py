"""A partition of another worker, as the servicers of this one see it.

Scans go to the owner over one stream per partition, so that they are committed in the order in
which they came here; reads are calls of their own. While the owner cannot be reached everything
that waits for it, and everything that comes, ends with UNAVAILABLE / PARTITION_UNAVAILABLE:
whether it was stored is not known then, and sending it again does no harm.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
    # How long an attempt to connect may take: a busy worker answers late.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A worker that was killed is back within a second: look as often.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]
# A server takes 128 (`grpc.max_concurrent_streams`).
_STREAMS_PER_CONNECTION_MAX = 100
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_STATUS_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(slots=True)
class _Connection:
    """A connection, and how many streams are open on it."""

    channel: aio.Channel
    streams: int = 0


class PeerChannel:
    """The way to another worker; one for all of its partitions.

    Calls share one connection. Streams stay, and a server takes so many on one connection only, so
    they have others, as many as it takes: else many watches would keep the look-ups waiting.
    """

    def __init__(self, address: str, token: str, *, partition: int) -> None:
        """Connects with the first call. partition: one of the worker's, which errors name."""
        self._address = address
        self._partition = partition
        self._metadata = ((TOKEN_KEY, token),)
        self._calls = self._connected()
        # A burst on a new connection is sent before its bound is known, and refused beyond it.
        self._turns = asyncio.Semaphore(_STREAMS_PER_CONNECTION_MAX)
        self._streams: list[_Connection] = []

    def _connected(self) -> aio.Channel:
        return aio.insecure_channel(self._address, options=_CHANNEL_OPTIONS)

    async def call(self, method: str, request: bytes) -> bytes:
        """One call. Raises AioRpcError, or CallError if the connection was renewed meanwhile."""
        async with self._turns:
            call: Any = self._calls.unary_unary(f"/{SERVICE}/{method}")
            try:
                answer: bytes = await call(request, metadata=self._metadata, timeout=READ_TIMEOUT_S)
            except asyncio.CancelledError:
                if _cancelled():
                    raise
                raise partition_unavailable(self._partition) from None
        return answer

    async def forward(self, method: str, request: bytes, timeout_s: float | None) -> bytes:
        """A call that may take its time, as it came from outside. Raises CallError."""
        with self._for_a_stream() as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/{method}")
            try:
                answer: bytes = await call(request, metadata=self._metadata, timeout=timeout_s)
            except aio.AioRpcError as failure:
                raise self.error(failure) from None
            except asyncio.CancelledError:
                if _cancelled():
                    raise
                raise partition_unavailable(self._partition) from None
        return answer

    @contextmanager
    def stream(self, method_name: str) -> Iterator[Any]:
        """A call that streams both ways, ended with the block; bytes in and out."""
        with self._for_a_stream() as channel:
            method: Any = channel.stream_stream(f"/{SERVICE}/{method_name}")
            call = method(metadata=self._metadata)
            try:
                yield call
            finally:
                call.cancel()

    async def watch(self, request: bytes) -> AsyncGenerator[bytes, None]:
        """The messages of a WatchChanges call over its partitions. Raises CallError."""
        with self._for_a_stream() as channel:
            method: Any = channel.unary_stream(f"/{SERVICE}/WatchChanges")
            async for message in self.messages(method(request, metadata=self._metadata)):
                yield message

    async def messages(self, call: Any) -> AsyncGenerator[bytes, None]:
        """What comes on a call. Raises CallError."""
        try:
            async for message in call:
                yield message
        except aio.AioRpcError as failure:
            raise self.error(failure) from None
        except asyncio.CancelledError:
            if _cancelled():
                raise
            raise partition_unavailable(self._partition) from None

    @contextmanager
    def _for_a_stream(self) -> Iterator[aio.Channel]:
        free = (each for each in self._streams if each.streams < _STREAMS_PER_CONNECTION_MAX)
        connection = next(free, None)
        if connection is None:
            connection = _Connection(self._connected())
            self._streams.append(connection)
        connection.streams += 1
        try:
            yield connection.channel
        finally:
            connection.streams -= 1

    def error(self, failure: aio.AioRpcError) -> CallError:
        """What a caller is told of a failed call."""
        return call_error(failure, self._partition)

    async def renew(self) -> None:
        """Connects at once where gRPC would wait before it tries again: the worker is back."""
        if _waits(self._calls):
            old, self._calls = self._calls, self._connected()
            await old.close()
        waiting = [each for each in self._streams if _waits(each.channel)]
        self._streams = [each for each in self._streams if each not in waiting]
        for each in waiting:
            await each.channel.close()

    async def close(self) -> None:
        """Ends every call that is still running."""
        for channel in (self._calls, *(each.channel for each in self._streams)):
            await channel.close()


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
        error: CallError = partition_unavailable(self.number)
        try:
            with self._channel.stream("StreamEvents") as call:
                sending = asyncio.create_task(self._send(call))
                try:
                    async for response in call:
                        self._settle(StreamEventsResponse.FromString(response))
                finally:
                    sending.cancel()
        except aio.AioRpcError as failure:
            error = call_error(failure, self.number)
        finally:
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

    def status_now(self, key: bytes) -> bytes | None:  # noqa: ARG002
        """Nothing is known at once of another worker's partition."""
        return None

    def timeline_now(self, key: bytes, **_: object) -> TimelinePage | None:  # noqa: ARG002
        """Nothing is known at once of another worker's partition."""
        return None

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


def _waits(channel: aio.Channel) -> bool:
    return channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE


def _cancelled() -> bool:
    """Whether this task was cancelled; else gRPC ended a call whose channel was closed."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def call_error(failure: aio.AioRpcError, partition: int) -> CallError:
    """What the owner said, for the caller of this worker; or that it cannot be reached."""
    for key, value in failure.trailing_metadata() or ():
        if key == _STATUS_DETAILS_KEY and isinstance(value, bytes):
            told = error_of_status(Status.FromString(value))
            if told.reason:
                return told
    if failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # gRPC's own, and the only one that it has between two workers.
        return CallError(
            failure.code(),
            "RESPONSE_TOO_LARGE",
            "the answer would be too large; ask for fewer at a time",
        )
    return partition_unavailable(partition)


def error_of_status(status: Status) -> CallError:
    """The error that a worker told; without a reason if it is none of ours."""
    info, retry = ErrorInfo(), RetryInfo()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(retry)
    return CallError(
        _CODES.get(status.code, grpc.StatusCode.UNKNOWN),
        info.reason,
        status.message,
        dict(info.metadata),
        field=info.metadata.get("field", ""),
        retry_after_s=retry.retry_delay.ToMilliseconds() / 1000,
    )


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
