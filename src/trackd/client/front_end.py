"""A front end's look-ups: statuses and timelines, with deadlines and retries of reads.

Reads only. Nothing here takes scans in; which channel serves a waybill is decided in channel.py.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc import aio

from trackd.client.channel import call_with_retries
from trackd.client.errors import RESPONSE_TOO_LARGE, InvalidRequest
from trackd.client.life import Client
from trackd.client.options import LOOKUP_WAYBILLS_LIMIT, PAGE_EVENTS_LIMIT, FrontEndOptions
from trackd.client.pages import pages
from trackd.domain.validation import normal_waybill_number
from trackd.v1.event_pb2 import ScanEvent, ShipmentStatus
from trackd.v1.tracking_pb2 import (
    BatchGetStatusRequest,
    BatchGetStatusResponse,
    GetStatusRequest,
    GetTimelineRequest,
    GetTimelineResponse,
    TimelineOrder,
)
from trackd.v1.tracking_pb2_grpc import TrackingServiceStub

if TYPE_CHECKING:
    from trackd.v1.tracking_pb2_grpc import TrackingServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Statuses:
    """The answer to a look-up of many waybills; in the order of the request, repeats once."""

    found: list[ShipmentStatus]
    missing: list[str]


class FrontEnd(Client):
    """Asks trackd where shipments are.

        async with FrontEnd("127.0.0.1:50551") as front_end:
            status = await front_end.get_status("SF1234567890")

    - Every read sees what was acknowledged before it began.
    - `timeout_ms` bounds a call with its retries: per call, or per page of a timeline.
    - Calls raise a TrackdError: WaybillNotFound, InvalidRequest, ServerUnavailable,
      DeadlineExceeded …
    """

    _called = "front end"

    def __init__(
        self,
        server: str,
        *,
        options: FrontEndOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Connects with the first call. `server` is HOST:PORT."""
        super().__init__(server, credentials=credentials)
        self._options = options or FrontEndOptions()
        self._stubs: dict[aio.Channel, TrackingServiceAsyncStub] = {}

    async def get_status(
        self, waybill_number: str, *, min_position: str = "", timeout_ms: int | None = None
    ) -> ShipmentStatus:
        """Where one shipment is; WaybillNotFound where no scan of it was ever accepted."""
        response = await call_with_retries(
            lambda request, timeout: self._stub(waybill_number).GetStatus(request, timeout=timeout),
            GetStatusRequest(waybill_number=waybill_number, min_position=min_position),
            timeout_ms=self._timeout_ms(timeout_ms),
            backoff=self._options.backoff,
        )
        return response.status

    async def get_statuses(
        self,
        waybill_numbers: Iterable[str],
        *,
        min_position: str = "",
        timeout_ms: int | None = None,
    ) -> Statuses:
        """Where any number of shipments are: calls of 500, several at a time, and of fewer where an
        answer would be too large. All of it, or it raises.

        `timeout_ms` bounds the whole look-up.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._timeout_ms(timeout_ms) / 1000
        turns = asyncio.Semaphore(self._options.parallel_calls_max)

        async def ask(part: Sequence[str]) -> BatchGetStatusResponse:
            async with turns:
                return await call_with_retries(
                    lambda request, timeout: self._stub(part[0]).BatchGetStatus(
                        request, timeout=timeout
                    ),
                    BatchGetStatusRequest(waybill_numbers=part, min_position=min_position),
                    timeout_ms=round((ends_at - loop.time()) * 1000),
                    backoff=self._options.backoff,
                )

        async def look_up(part: Sequence[str]) -> list[BatchGetStatusResponse]:
            try:
                return [await ask(part)]
            except InvalidRequest as error:
                if error.reason != RESPONSE_TOO_LARGE or len(part) == 1:
                    raise
            middle = len(part) // 2
            return [*await look_up(part[:middle]), *await look_up(part[middle:])]

        numbers = list(dict.fromkeys(waybill_numbers))
        parts = _parts(numbers, self._channels.owner_of)
        look_ups = [asyncio.create_task(look_up(part)) for part in parts]
        try:
            answers = await asyncio.gather(*look_ups)
            return _merged(numbers, [response for each in answers for response in each])
        finally:
            # After a failure the rest of the answers is of no use to anybody.
            for each in look_ups:
                each.cancel()

    async def get_timeline(
        self,
        waybill_number: str,
        *,
        order: TimelineOrder.ValueType = TimelineOrder.TIMELINE_ORDER_OLDEST_FIRST,
        page_size: int = 0,
        min_position: str = "",
        timeout_ms: int | None = None,
    ) -> AsyncIterator[GetTimelineResponse]:
        """The history of one shipment in event time, page by page, each asked for when wanted."""
        async for page in pages(
            lambda token: self.timeline_page(
                waybill_number,
                order=order,
                page_size=page_size,
                page_token=token,
                min_position=min_position,
                timeout_ms=timeout_ms,
            )
        ):
            yield page

    async def timeline_page(
        self,
        waybill_number: str,
        *,
        order: TimelineOrder.ValueType = TimelineOrder.TIMELINE_ORDER_OLDEST_FIRST,
        page_size: int = 0,
        page_token: str = "",
        min_position: str = "",
        timeout_ms: int | None = None,
    ) -> GetTimelineResponse:
        """One page: `page_size` of 1-500 events, 0 for the server's default of 100."""
        return await call_with_retries(
            lambda request, timeout: self._stub(waybill_number).GetTimeline(
                request, timeout=timeout
            ),
            GetTimelineRequest(
                waybill_number=waybill_number,
                order=order,
                page_size=page_size,
                page_token=page_token,
                min_position=min_position,
            ),
            timeout_ms=self._timeout_ms(timeout_ms),
            backoff=self._options.backoff,
        )

    async def timeline(
        self,
        waybill_number: str,
        *,
        order: TimelineOrder.ValueType = TimelineOrder.TIMELINE_ORDER_OLDEST_FIRST,
        min_position: str = "",
        timeout_ms: int | None = None,
    ) -> list[ScanEvent]:
        """The whole history of one shipment."""
        pages = self.get_timeline(
            waybill_number,
            order=order,
            page_size=PAGE_EVENTS_LIMIT,
            min_position=min_position,
            timeout_ms=timeout_ms,
        )
        return [event async for page in pages for event in page.events]

    def _stub(self, waybill_number: str) -> "TrackingServiceAsyncStub":
        channel = self._channels.for_waybill(waybill_number)
        if channel not in self._stubs:
            self._stubs[channel] = TrackingServiceStub(channel)
        return self._stubs[channel]

    def _timeout_ms(self, timeout_ms: int | None) -> int:
        return self._options.deadline_ms if timeout_ms is None else timeout_ms


def _parts(numbers: Sequence[str], owner_of: Callable[[str], str]) -> list[list[str]]:
    """The numbers by owner, in calls of the size allowed; one channel serves a call."""
    by_owner: dict[str, list[str]] = {}
    for number in numbers:
        by_owner.setdefault(owner_of(number), []).append(number)
    return [
        of_owner[start : start + LOOKUP_WAYBILLS_LIMIT]
        for of_owner in by_owner.values()
        for start in range(0, len(of_owner), LOOKUP_WAYBILLS_LIMIT)
    ]


def _merged(numbers: Sequence[str], responses: Sequence[BatchGetStatusResponse]) -> Statuses:
    """One answer. Two spellings of a number in different calls are one waybill: it is kept once."""
    found: dict[str, ShipmentStatus] = {}
    missing: dict[str, None] = {}
    for response in responses:
        for status in response.statuses:
            found.setdefault(status.waybill_number, status)
        missing |= dict.fromkeys(response.missing_waybill_numbers)
    if len(responses) > 1:
        # The calls were cut by owner: back into the order of the request.
        order = [normal_waybill_number(number) or number for number in numbers]
        found = {number: found[number] for number in order if number in found}
        missing = {number: None for number in order if number in missing}
    return Statuses(found=list(found.values()), missing=list(missing))
