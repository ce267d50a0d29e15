"""The client for programs without an event loop: every call runs on one loop in a background
thread.

Facades only: what is sent, retried or refused is decided in the asynchronous classes.
gRPC's asyncio side serves one event loop per process well and several badly, so all objects of this
module share one; a program with a loop of its own uses the asynchronous classes on that one
instead.
"""

import asyncio
import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from trackd.client.admin import Admin
from trackd.client.errors import TrackdError
from trackd.client.events import RejectedScan
from trackd.client.front_end import FrontEnd, Statuses
from trackd.client.options import FrontEndOptions, ScannerOptions
from trackd.client.scanner import Scanner
from trackd.client.spool import Spool
from trackd.client.subscriber import Heard, Subscriber, SubscriberOptions
from trackd.client.uplink import ScanCounts
from trackd.v1.admin_pb2 import GetStatsResponse, GetTopologyResponse
from trackd.v1.event_pb2 import ScanEvent, ShipmentStatus
from trackd.v1.feed_pb2 import ChangeFilter, StartFrom
from trackd.v1.ingest_pb2 import AppendEventsResponse
from trackd.v1.tracking_pb2 import GetTimelineResponse, TimelineOrder

_Result = TypeVar("_Result")


class _BackgroundLoop:
    """The one event loop of this module; runs while at least one client is open."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        with self._starting:
            self._users += 1
            if self._users == 1:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="trackd-client", daemon=True
                )
                self._thread.start()

    def release(self) -> None:
        with self._starting:
            self._users -= 1
            if self._users > 0 or self._loop is None or self._thread is None:
                return
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """The coroutine's result; an interrupt of the waiting thread cancels it."""
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("the client is not open: use `with`")
        running = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise


_LOOP = _BackgroundLoop()


class _Facade:
    """Opens and closes on the background loop; the calls are in the classes below."""

    def __init__(self, client: AbstractAsyncContextManager[object]) -> None:
        self._client = client

    def open(self) -> None:
        """Gets ready to call; `with` does it."""
        _LOOP.acquire()
        try:
            _LOOP.run(_enter(self._client))
        except BaseException:
            _LOOP.release()
            raise

    def close(self) -> None:
        """As `close` of the asynchronous class."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            _LOOP.run(_leave(self._client, kind, error, traceback))
        finally:
            _LOOP.release()


async def _enter(client: AbstractAsyncContextManager[object]) -> None:
    await client.__aenter__()


async def _leave(
    client: AbstractAsyncContextManager[object],
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
) -> None:
    await client.__aexit__(kind, error, traceback)


class SyncScanner(_Facade):
    """A Scanner for programs without an event loop; promises and errors are the same.

    `on_rejection` is called on the background thread and must not call the scanner.
    """

    def __init__(
        self,
        server: str,
        *,
        spool: Spool | None = None,
        options: ScannerOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        on_rejection: Callable[[RejectedScan], None] | None = None,
    ) -> None:
        """As Scanner."""
        self._scanner = Scanner(
            server,
            spool=spool,
            options=options,
            credentials=credentials,
            on_rejection=on_rejection,
        )
        super().__init__(self._scanner)

    @property
    def counts(self) -> ScanCounts:
        """As Scanner.counts."""
        return self._scanner.counts

    @property
    def link_error(self) -> TrackdError | None:
        """As Scanner.link_error."""
        return self._scanner.link_error

    def scan(self, event: ScanEvent) -> None:
        """As Scanner.scan."""
        _LOOP.run(self._scanner.scan(event))

    def scan_many(self, events: Iterable[ScanEvent]) -> None:
        """As Scanner.scan_many; the events are read on the background thread."""
        _LOOP.run(self._scanner.scan_many(events))

    def flush(self, *, timeout_ms: int | None = None) -> None:
        """As Scanner.flush; raises TimeoutError after `timeout_ms`, forgetting nothing."""
        _LOOP.run(self._flush(timeout_ms))

    def append(
        self, events: Sequence[ScanEvent], *, timeout_ms: int | None = None
    ) -> AppendEventsResponse:
        """As Scanner.append."""
        return _LOOP.run(self._scanner.append(events, timeout_ms=timeout_ms))

    async def _flush(self, timeout_ms: int | None) -> None:
        async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
            await self._scanner.flush()


class SyncFrontEnd(_Facade):
    """A FrontEnd for programs without an event loop; promises and errors are the same."""

    def __init__(
        self,
        server: str,
        *,
        options: FrontEndOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """As FrontEnd."""
        self._front_end = FrontEnd(server, options=options, credentials=credentials)
        super().__init__(self._front_end)

    def get_status(
        self, waybill_number: str, *, min_position: str = "", timeout_ms: int | None = None
    ) -> ShipmentStatus:
        """As FrontEnd.get_status."""
        return _LOOP.run(
            self._front_end.get_status(
                waybill_number, min_position=min_position, timeout_ms=timeout_ms
            )
        )

    def get_statuses(
        self,
        waybill_numbers: Iterable[str],
        *,
        min_position: str = "",
        timeout_ms: int | None = None,
    ) -> Statuses:
        """As FrontEnd.get_statuses."""
        return _LOOP.run(
            self._front_end.get_statuses(
                waybill_numbers, min_position=min_position, timeout_ms=timeout_ms
            )
        )

    def get_timeline(
        self,
        waybill_number: str,
        *,
        order: TimelineOrder.ValueType = TimelineOrder.TIMELINE_ORDER_OLDEST_FIRST,
        page_size: int = 0,
        min_position: str = "",
        timeout_ms: int | None = None,
    ) -> Iterator[GetTimelineResponse]:
        """As FrontEnd.get_timeline."""
        pages = self._front_end.get_timeline(
            waybill_number,
            order=order,
            page_size=page_size,
            min_position=min_position,
            timeout_ms=timeout_ms,
        )
        while (page := _LOOP.run(_next(pages))) is not None:
            yield page

    def timeline(
        self,
        waybill_number: str,
        *,
        order: TimelineOrder.ValueType = TimelineOrder.TIMELINE_ORDER_OLDEST_FIRST,
        min_position: str = "",
        timeout_ms: int | None = None,
    ) -> list[ScanEvent]:
        """As FrontEnd.timeline."""
        return _LOOP.run(
            self._front_end.timeline(
                waybill_number, order=order, min_position=min_position, timeout_ms=timeout_ms
            )
        )


class SyncAdmin(_Facade):
    """An Admin for programs without an event loop; promises and errors are the same."""

    def __init__(
        self,
        server: str,
        *,
        options: FrontEndOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """As Admin."""
        self._admin = Admin(server, options=options, credentials=credentials)
        super().__init__(self._admin)

    def get_topology(self, *, timeout_ms: int | None = None) -> GetTopologyResponse:
        """As Admin.get_topology."""
        return _LOOP.run(self._admin.get_topology(timeout_ms=timeout_ms))

    def get_stats(self, *, timeout_ms: int | None = None) -> GetStatsResponse:
        """As Admin.get_stats."""
        return _LOOP.run(self._admin.get_stats(timeout_ms=timeout_ms))


class SyncSubscriber(_Facade):
    """A Subscriber for programs without an event loop; promises and errors are the same."""

    def __init__(
        self,
        server: str,
        *,
        options: SubscriberOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """As Subscriber."""
        self._subscriber = Subscriber(server, options=options, credentials=credentials)
        super().__init__(self._subscriber)

    def watch(
        self,
        wanted: ChangeFilter | None = None,
        *,
        start: StartFrom.ValueType = StartFrom.START_FROM_NOW,
        resume_token: str = "",
    ) -> Iterator[Heard]:
        """As Subscriber.watch."""
        messages = self._subscriber.watch(wanted, start=start, resume_token=resume_token)
        while (heard := _LOOP.run(_next(messages))) is not None:
            yield heard


async def _next(messages: AsyncIterator[_Result]) -> _Result | None:
    return await anext(messages, None)
