"""A caller of a server over a real socket, and what an error tells it.

The bare contract: generated stubs, and raw bytes where a test sends what no stub would.
"""

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from trackd.domain.vocabulary import EventCode
from trackd.v1.admin_pb2_grpc import AdminServiceStub
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.ingest_pb2 import (
    AppendEventsRequest,
    AppendEventsResponse,
    StreamEventsRequest,
    StreamEventsResponse,
)
from trackd.v1.ingest_pb2_grpc import IngestServiceStub
from trackd.v1.tracking_pb2 import BatchGetStatusRequest, GetStatusRequest, GetTimelineRequest
from trackd.v1.tracking_pb2_grpc import TrackingServiceStub

if TYPE_CHECKING:  # only the stubs know them
    from trackd.v1.admin_pb2_grpc import AdminServiceAsyncStub
    from trackd.v1.ingest_pb2_grpc import IngestServiceAsyncStub
    from trackd.v1.tracking_pb2_grpc import TrackingServiceAsyncStub

NOON_MS = 1_700_000_000_000
INGEST = "/trackd.v1.IngestService"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as its receiver sees it. `fields` are those of BadRequest."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]
    fields: list[str]
    retry_after_s: float | None


def refusal_of(error: Any) -> Refusal:
    """Takes an error apart; it must have the shape that every error has."""
    details = cast(Iterable[tuple[str, bytes]], error.trailing_metadata())
    (data,) = [value for key, value in details if key == "grpc-status-details-bin"]
    status = Status.FromString(data)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    first, *more = status.details
    assert first.Unpack(info)
    assert info.domain == "trackd"
    assert info.reason
    assert info.reason == info.reason.upper()
    for detail in more:
        assert detail.Unpack(bad) or detail.Unpack(retry)
    return Refusal(
        error.code(),
        info.reason,
        status.message,
        dict(info.metadata),
        [violation.field for violation in bad.field_violations],
        retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None,
    )


def stream_at_once(
    address: str, batches: Iterable[StreamEventsRequest]
) -> tuple[list[StreamEventsResponse], Refusal]:
    """Sends batches without looking, as a stream that must end with an error. Blocks.

    By the synchronous API: a write of grpc.aio to a call that has ended hides what it ended with.
    """
    answers = []
    with grpc.insecure_channel(address) as channel:
        try:
            for answer in IngestServiceStub(channel).StreamEvents(iter(batches), timeout=60):
                answers.append(answer)  # noqa: PERF402 (the error must not take them along)
        except grpc.RpcError as error:
            return answers, refusal_of(error)
    raise AssertionError("ended without an error")


async def outcome(call: Awaitable[Any]) -> "Any | Refusal":
    """What a call ends with, whichever it is."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)


async def refused(call: Awaitable[Any]) -> Refusal:
    """The error that a call must end with."""
    result = await outcome(call)
    assert isinstance(result, Refusal), f"not refused, but answered with {result}"
    return result


def scan_event(event_id: str, waybill_number: str, **fields: Any) -> ScanEvent:
    """A valid event, by default sorted at noon."""
    named = {"code": int(EventCode.SORTED), "occurred_at_ms": NOON_MS, **fields}
    return ScanEvent(event_id=event_id, waybill_number=waybill_number, **named)


class Caller:
    """Stubs on a channel, and the calls that tests make most."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address)
        self.ingest: IngestServiceAsyncStub = cast("Any", IngestServiceStub(self.channel))
        self.tracking: TrackingServiceAsyncStub = cast("Any", TrackingServiceStub(self.channel))
        self.admin: AdminServiceAsyncStub = cast("Any", AdminServiceStub(self.channel))

    async def append(self, *events: ScanEvent) -> AppendEventsResponse:
        """One batch."""
        return await self.ingest.AppendEvents(AppendEventsRequest(events=events))

    async def append_bytes(self, request: bytes) -> AppendEventsResponse:
        """A request as it is."""
        call: Any = self.channel.unary_unary(f"{INGEST}/AppendEvents")
        answer: bytes = await call(request)
        return AppendEventsResponse.FromString(answer)

    async def status(self, number: str, min_position: str = "") -> Any:
        """One status."""
        request = GetStatusRequest(waybill_number=number, min_position=min_position)
        return (await self.tracking.GetStatus(request)).status

    async def event_ids(self, number: str) -> list[str]:
        """The ids of a timeline's first page; none if the waybill is unknown."""
        try:
            timeline = await self.tracking.GetTimeline(GetTimelineRequest(waybill_number=number))
        except grpc.aio.AioRpcError as error:
            if refusal_of(error).reason != "WAYBILL_NOT_FOUND":
                raise
            return []
        return [event.event_id for event in timeline.events]

    def stream(self) -> "EventStream":
        """An ingest stream."""
        return EventStream(self.ingest.StreamEvents())


class EventStream:
    """One ingest stream."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def send(self, batch_id: str, *events: ScanEvent) -> None:
        """Sends a batch and waits for nothing."""
        await self.call.write(StreamEventsRequest(batch_id=batch_id, events=events))

    async def answer(self) -> StreamEventsResponse:
        """The next answer."""
        answer = await self.call.read()
        assert answer is not grpc.aio.EOF
        return cast(StreamEventsResponse, answer)

    async def end(self) -> list[StreamEventsResponse]:
        """Says that no more comes; all answers that are left."""
        await self.call.done_writing()
        return await self.rest()

    async def rest(self) -> list[StreamEventsResponse]:
        """All answers that are left. Raises what the call ends with."""
        answers = []
        while (answer := await self.call.read()) is not grpc.aio.EOF:
            answers.append(answer)
        return answers

    async def refusal(self) -> tuple[list[StreamEventsResponse], Refusal]:
        """The answers that are left, and the error that the call must end with."""
        answers = []
        try:
            while (answer := await self.call.read()) is not grpc.aio.EOF:
                answers.append(answer)
        except grpc.aio.AioRpcError as error:
            return answers, refusal_of(error)
        raise AssertionError("ended without an error")


def reads(caller: Caller, number: str, min_position: str = "") -> dict[str, Any]:
    """Every read of a waybill, by name."""
    tracking = caller.tracking
    return {
        "GetStatus": tracking.GetStatus(
            GetStatusRequest(waybill_number=number, min_position=min_position)
        ),
        "BatchGetStatus": tracking.BatchGetStatus(
            BatchGetStatusRequest(waybill_numbers=[number], min_position=min_position)
        ),
        "GetTimeline": tracking.GetTimeline(
            GetTimelineRequest(waybill_number=number, min_position=min_position)
        ),
    }
