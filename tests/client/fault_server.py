"""A small trackd server over a dict that can be told to misbehave: the other end of the client's
tests.

A real grpc.aio server on a loopback port. It keeps what a batch stores before it answers, and knows
no fold, no disk and no limits but those of the contract.
"""

# ruff: noqa: N802 - the contract names the methods

import argparse
import asyncio
import enum
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import NoReturn, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import aio

from trackd.v1.admin_pb2 import (
    GetStatsRequest,
    GetStatsResponse,
    GetTopologyRequest,
    GetTopologyResponse,
    PartitionAddress,
)
from trackd.v1.admin_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from trackd.v1.event_pb2 import ScanEvent, ShipmentStatus
from trackd.v1.ingest_pb2 import (
    AppendEventsRequest,
    AppendEventsResponse,
    Rejection,
    StreamEventsRequest,
    StreamEventsResponse,
)
from trackd.v1.ingest_pb2_grpc import IngestServiceServicer, add_IngestServiceServicer_to_server
from trackd.v1.tracking_pb2 import (
    BatchGetStatusRequest,
    BatchGetStatusResponse,
    GetStatusRequest,
    GetStatusResponse,
    GetTimelineRequest,
    GetTimelineResponse,
    TimelineOrder,
)
from trackd.v1.tracking_pb2_grpc import (
    TrackingServiceServicer,
    add_TrackingServiceServicer_to_server,
)
from trackd.v1.vocabulary_pb2 import RejectionReason

Context = aio.ServicerContext[object, object]


class Fault(enum.Enum):
    """What happens to one batch or one read."""

    LOST_BEFORE_STORE = enum.auto()
    LOST_AFTER_STORE = enum.auto()
    OVERLOADED = enum.auto()
    LATE = enum.auto()
    NEVER_ANSWERED = enum.auto()
    WRONG_BATCH_ID = enum.auto()
    WRONG_COUNT = enum.auto()
    CALL_ENDED = enum.auto()


async def refuse(
    context: Context,
    code: grpc.StatusCode,
    *,
    reason: str,
    metadata: dict[str, str] | None = None,
    retry_after_ms: int | None = None,
) -> NoReturn:
    """Ends the call as trackd does: a status with an ErrorInfo, and with RetryInfo where given."""
    status = Status(code=code.value[0], message=reason.lower())
    status.details.add().Pack(ErrorInfo(domain="trackd", reason=reason, metadata=metadata or {}))
    if retry_after_ms is not None:
        delay = Duration()
        delay.FromMilliseconds(retry_after_ms)
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    packed = ("grpc-status-details-bin", status.SerializeToString())
    await context.abort(code, status.message, (packed,))
    raise AssertionError("abort raises")


class Shelf:
    """What the server holds: every event once, in the order of its first arrival."""

    def __init__(self) -> None:
        self.arrived: list[ScanEvent] = []
        self.batch_sizes: list[int] = []
        self.rejected_ids: set[str] = set()
        self.poison_ids: set[str] = set()
        self._events: dict[tuple[str, str], ScanEvent] = {}

    def store(self, events: Sequence[ScanEvent]) -> AppendEventsResponse:
        """Stores what is new."""
        self.batch_sizes.append(len(events))
        answer = AppendEventsResponse(position="0")
        for index, event in enumerate(events):
            key = (event.waybill_number, event.event_id)
            reason = RejectionReason.REJECTION_REASON_INVALID_FIELD
            if key in self._events:
                if self._events[key] == event:
                    answer.duplicates += 1
                    continue
                reason = RejectionReason.REJECTION_REASON_CONFLICT
            elif event.event_id not in self.rejected_ids:
                self._events[key] = event
                self.arrived.append(event)
                answer.accepted += 1
                continue
            rejection = Rejection(index=index, reason=reason, field="remark", message="no good")
            answer.rejections.append(rejection)
        return answer

    def timeline(self, waybill_number: str) -> list[ScanEvent]:
        """A waybill's events in event time."""
        events = [event for event in self.arrived if event.waybill_number == waybill_number]
        return sorted(events, key=lambda event: event.occurred_at_ms)


class FaultServer(IngestServiceServicer, TrackingServiceServicer, AdminServiceServicer):
    """Serves from a Shelf. Faults are taken from `faults` first, then drawn from `chaos`."""

    def __init__(self, *, port: int = 0, receive_bytes_max: int = 1024 * 1024) -> None:
        self.shelf = Shelf()
        self.faults: deque[Fault] = deque()
        self.chaos: random.Random | None = None
        self.chaos_probability = 0.05
        self.retry_after_ms = 50
        self.late_s = 0.2
        self.calls = 0
        self.reads = 0
        self.lookups: list[int] = []
        # Beyond it an answer to a look-up would be too large.
        self.statuses_max = 500
        self.answering = asyncio.Event()
        self.answering.set()
        self.received = 0
        self._receive_bytes_max = receive_bytes_max
        self.port = port
        self._server: aio.Server | None = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listens; on the same port as before where there was one."""
        self._server = aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", self._receive_bytes_max),
            ]
        )
        add_IngestServiceServicer_to_server(self, self._server)
        add_TrackingServiceServicer_to_server(self, self._server)
        add_AdminServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Cuts every call off."""
        assert self._server is not None
        await self._server.stop(None)
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            await self.stop()

    async def AppendEvents(
        self, request: AppendEventsRequest, context: Context
    ) -> AppendEventsResponse:
        """Stores one batch, or fails."""
        self.calls += 1
        await self._refuse_poison(request.events, context)
        fault = self._next_fault()
        if fault is Fault.OVERLOADED:
            await self._refuse_overload(context)
        if fault is Fault.LOST_BEFORE_STORE:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, reason="STORAGE_FAILED")
        answer = self.shelf.store(request.events)
        if fault is Fault.LOST_AFTER_STORE:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, reason="STORAGE_FAILED")
        return answer

    async def StreamEvents(
        self, request_iterator: AsyncIterator[StreamEventsRequest], context: Context
    ) -> AsyncIterator[StreamEventsResponse]:
        """Stores batches, or fails."""
        self.calls += 1
        async for request in request_iterator:
            self.received += 1
            fault = self._next_fault()
            if fault is Fault.CALL_ENDED:
                return
            answer = await self._answer(request, fault, context)
            await self.answering.wait()
            if answer is not None:
                yield answer

    async def _answer(
        self, request: StreamEventsRequest, fault: Fault | None, context: Context
    ) -> StreamEventsResponse | None:
        await self._refuse_poison(request.events, context)
        if fault is Fault.OVERLOADED:
            await self._refuse_overload(context)
        if fault is Fault.LOST_BEFORE_STORE:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, reason="STORAGE_FAILED")
        stored = self.shelf.store(request.events)
        if fault is Fault.LOST_AFTER_STORE:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, reason="STORAGE_FAILED")
        if fault is Fault.LATE:
            await asyncio.sleep(self.late_s)
        answer = StreamEventsResponse(
            batch_id=request.batch_id,
            accepted=stored.accepted,
            duplicates=stored.duplicates,
            rejections=stored.rejections,
            position=stored.position,
        )
        if fault is Fault.WRONG_BATCH_ID:
            answer.batch_id += "x"
        if fault is Fault.WRONG_COUNT:
            answer.accepted += 1
        return None if fault is Fault.NEVER_ANSWERED else answer

    async def _refuse_poison(self, events: Iterable[ScanEvent], context: Context) -> None:
        if any(event.event_id in self.shelf.poison_ids for event in events):
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, reason="BATCH_MALFORMED")

    async def _refuse_overload(self, context: Context) -> None:
        await refuse(
            context,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            reason="OVERLOADED",
            retry_after_ms=self.retry_after_ms,
        )

    def _next_fault(self) -> Fault | None:
        if self.faults:
            return self.faults.popleft()
        if self.chaos is not None and self.chaos.random() < self.chaos_probability:
            return self.chaos.choice(
                [Fault.LOST_BEFORE_STORE, Fault.LOST_AFTER_STORE, Fault.OVERLOADED, Fault.LATE]
            )
        return None

    async def _fail_read(self, context: Context) -> None:
        self.reads += 1
        fault = self._next_fault()
        if fault is Fault.LATE:
            await asyncio.sleep(self.late_s)
        elif fault is Fault.OVERLOADED:
            await self._refuse_overload(context)
        elif fault is not None:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, reason="STARTING")

    def _status(self, waybill_number: str) -> ShipmentStatus | None:
        events = self.shelf.timeline(waybill_number)
        if not events:
            return None
        return ShipmentStatus(
            waybill_number=waybill_number, event_count=len(events), last_event=events[-1]
        )

    async def GetStatus(self, request: GetStatusRequest, context: Context) -> GetStatusResponse:
        """The status, without milestone."""
        await self._fail_read(context)
        if request.min_position == "foreign":
            code = grpc.StatusCode.FAILED_PRECONDITION
            await refuse(context, code, reason="POSITION_UNKNOWN", metadata={"data_set_id": "d1"})
        status = self._status(request.waybill_number)
        if status is None:
            await refuse(context, grpc.StatusCode.NOT_FOUND, reason="WAYBILL_NOT_FOUND")
        return GetStatusResponse(status=status)

    async def BatchGetStatus(
        self, request: BatchGetStatusRequest, context: Context
    ) -> BatchGetStatusResponse:
        """Statuses in the order of the request."""
        await self._fail_read(context)
        self.lookups.append(len(request.waybill_numbers))
        if not 1 <= len(request.waybill_numbers) <= 500:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, reason="TOO_MANY_WAYBILLS")
        answer = BatchGetStatusResponse()
        for number in dict.fromkeys(n.strip().upper() for n in request.waybill_numbers):
            status = self._status(number)
            if status is None:
                answer.missing_waybill_numbers.append(number)
            else:
                answer.statuses.append(status)
        if len(answer.statuses) > self.statuses_max:
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, reason="RESPONSE_TOO_LARGE")
        return answer

    async def GetTimeline(
        self, request: GetTimelineRequest, context: Context
    ) -> GetTimelineResponse:
        """Pages whose token is the number of events before them."""
        await self._fail_read(context)
        events = self.shelf.timeline(request.waybill_number)
        if request.order == TimelineOrder.TIMELINE_ORDER_NEWEST_FIRST:
            events.reverse()
        start = int(request.page_token or 0)
        end = start + (request.page_size or 100)
        return GetTimelineResponse(
            events=events[start:end], next_page_token=str(end) if end < len(events) else ""
        )

    async def GetTopology(
        self, request: GetTopologyRequest, context: Context
    ) -> GetTopologyResponse:
        """One partition, here."""
        partitions = [PartitionAddress(partition=0, address=self.address)]
        return GetTopologyResponse(data_set_id="d1", partition_count=1, partitions=partitions)

    async def GetStats(self, request: GetStatsRequest, context: Context) -> GetStatsResponse:
        """Hardly any."""
        return GetStatsResponse(server_version="0")


async def _serve() -> None:
    async with FaultServer() as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    asyncio.run(_serve())
