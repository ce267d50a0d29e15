"""A scanner: takes scans from the application and sees to it that the server gets every one.

The public face over the outbox (where scans wait) and the uplink (which carries them); decides only
what is refused before it is kept, and what leaving means.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

import grpc

from trackd.client.channel import Channels, call_with_retries
from trackd.client.dispatch import Dispatch
from trackd.client.errors import InvalidRequest, ScansNotSent, TrackdError
from trackd.client.events import RejectedScan
from trackd.client.options import EVENT_BYTES_MAX, ScannerOptions
from trackd.client.outbox import MemoryOutbox, Outbox, SpoolOutbox
from trackd.client.spool import Spool
from trackd.client.uplink import ScanCounts
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.ingest_pb2 import AppendEventsRequest, AppendEventsResponse
from trackd.v1.ingest_pb2_grpc import IngestServiceStub

_LOG = logging.getLogger("trackd.client")

# How many scans `scan_many` hands to the outbox at a time: one flush to disk, one step of
# back-pressure.
_PUT_EVENTS = 500

# How long the server may take to end a call on which everything is answered.
_GOODBYE_S = 1.0


class Scanner:
    """Sends scans to trackd, in the order in which they were taken.

        async with Scanner("127.0.0.1:50551", spool=spool) as scanner:
            await scanner.scan(event)

    - With a spool, `scan` returns when the scan is on the device's disk: from then on it arrives,
      whatever happens to the link or the process, once in effect. Leaving does not wait for a link
      that is down.
    - Without one, `scan` returns when the scan is in memory, and waits while the memory allowed is
      full. Leaving waits for the answers and raises ScansNotSent when they do not come.
    - What the server rejects is counted, told to `on_rejection`, and with a spool kept there; it
      holds nothing up. What is sent again may be told again. `on_rejection` is called on the event
      loop and must not block.
    - For one event loop. A spool serves one scanner at a time; opening another one on it raises
      SpoolInUse.
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
        """Connects when there is something to send. `server` is HOST:PORT."""
        self._server = server
        self._spool = spool
        self._options = options or ScannerOptions()
        self._credentials = credentials
        self._on_rejection = on_rejection
        self._open: _OpenScanner | None = None

    @property
    def counts(self) -> ScanCounts:
        """What became of the scans since the scanner was opened."""
        return self._opened.uplink.counts

    @property
    def link_error(self) -> TrackdError | None:
        """Why the link is down; None while it is up or nothing was sent yet."""
        return self._opened.uplink.link_error

    async def scan(self, event: ScanEvent) -> None:
        """Takes one scan; later changes of `event` do not change it.

        Raises InvalidRequest for an event over the size limit, SpoolFull and SpoolBroken.
        """
        await self._put([_wire(event)])

    async def scan_many(self, events: Iterable[ScanEvent]) -> None:
        """Takes many scans in order, a part at a time; those before one that raises are taken."""
        part: list[bytes] = []
        try:
            for event in events:
                part.append(_wire(event))
                if len(part) == _PUT_EVENTS:
                    full, part = part, []
                    await self._put(full)
        finally:
            # Also what came before one that cannot be taken, or is never given.
            if part:
                await self._put(part)

    async def flush(self) -> None:
        """Returns when the server has answered for every scan taken before the call.

        Waits for as long as the link is down; use `asyncio.timeout` for less.
        """
        opened = self._opened
        target = opened.outbox.last
        while opened.uplink.settled < target:
            opened.raise_if_stopped()
            await opened.outbox.changed.wait()

    async def append(
        self, events: Sequence[ScanEvent], *, timeout_ms: int | None = None
    ) -> AppendEventsResponse:
        """Stores 1-1,000 scans with one call, past the outbox; tried again until `timeout_ms`.

        Returns when they are durable on the server. Not in order with what `scan` took.
        """
        return await call_with_retries(
            self._opened.append_events,
            AppendEventsRequest(events=events),
            timeout_ms=self._options.deadline_ms if timeout_ms is None else timeout_ms,
            backoff=self._options.backoff,
        )

    async def open(self) -> None:
        """Starts to carry what waits; `async with` does it."""
        if self._open is not None:
            raise RuntimeError("the scanner is open")
        outbox: Outbox
        if self._spool is None:
            outbox = MemoryOutbox(
                events_max=self._options.buffer_events_max,
                bytes_max=self._options.buffer_bytes_max,
            )
        else:
            # Taken first: what another scanner is about to forget is not there to be sent.
            self._spool.lend()
            try:
                outbox = SpoolOutbox(self._spool, level=await asyncio.to_thread(self._spool.level))
            except BaseException:
                self._spool.give_back()
                raise
        channels = Channels(self._server, credentials=self._credentials)
        uplink = Dispatch(
            outbox=outbox,
            channels=channels,
            options=self._options,
            on_rejection=self._on_rejection,
        )
        self._open = _OpenScanner(
            outbox=outbox, uplink=uplink, channels=channels, spool=self._spool
        )

    async def close(self) -> None:
        """Waits for answers, at most `close_timeout_ms`, then ends the link.

        Without a spool ScansNotSent says that scans are lost; with one they wait there for the next
        time. A second call does nothing.
        """
        opened = self._opened
        if opened.ended:
            return
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.close_timeout_ms / 1000):
                    await self._settle_before_leaving(opened)
        finally:
            await opened.end()
        waiting = opened.uplink.counts.waiting
        if waiting and self._spool is None:
            raise ScansNotSent(
                f"{waiting} scans were not answered in time",
                reason="SCANS_NOT_SENT",
                metadata={"unanswered": str(waiting)},
            )

    async def _settle_before_leaving(self, opened: "_OpenScanner") -> None:
        while opened.uplink.counts.waiting:
            opened.raise_if_stopped()
            if self._spool is not None and opened.uplink.link_error is not None:
                return
            await opened.outbox.changed.wait()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
            return
        # The caller has failed: what is wrong there matters more than waiting for answers here.
        if (waiting := self.counts.waiting) and self._spool is None:
            _LOG.warning("%d scans were not answered when the scanner was left", waiting)
        await self._opened.end()

    @property
    def _opened(self) -> "_OpenScanner":
        if self._open is None:
            raise RuntimeError("the scanner is not open: use `async with`")
        return self._open

    async def _put(self, wires: Sequence[bytes]) -> None:
        await self._opened.outbox.put(wires)


class _OpenScanner:
    """What exists from `open` on, and the task that carries."""

    def __init__(
        self, *, outbox: Outbox, uplink: Dispatch, channels: Channels, spool: Spool | None
    ) -> None:
        self.outbox = outbox
        self.uplink = uplink
        self.append_events = IngestServiceStub(channels.any()).AppendEvents
        self._channels = channels
        self._spool = spool
        self._stopped: Exception | None = None
        self.ended = False
        self._carrying = asyncio.create_task(uplink.run(), name="trackd-uplink")
        self._carrying.add_done_callback(self._carried)

    def raise_if_stopped(self) -> None:
        """Raises why nothing is carried any more, if so."""
        if self._stopped is not None:
            raise self._stopped

    async def end(self) -> None:
        """Ends the link: politely when everything is answered, at once otherwise."""
        self.ended = True
        try:
            if self.uplink.counts.waiting == 0:
                self.uplink.finish()
                await asyncio.wait({self._carrying}, timeout=_GOODBYE_S)
        finally:
            # Also where the caller gives up waiting: nothing carries on behind its back.
            self._carrying.cancel()
            await asyncio.wait({self._carrying})
            if self._spool is not None:
                self._spool.give_back()
            await self._channels.close()

    def _carried(self, carrying: "asyncio.Task[None]") -> None:
        """Tells whoever waits for the outbox that nothing will move any more."""
        failure = None if carrying.cancelled() else carrying.exception()
        if isinstance(failure, Exception):
            _LOG.error("nothing is sent any more: %s", failure)
            self._stopped = failure
        else:
            self._stopped = RuntimeError("the scanner is closed")
        self.outbox.stop(self._stopped)


def _wire(event: ScanEvent) -> bytes:
    wire = event.SerializeToString(deterministic=True)
    if len(wire) > EVENT_BYTES_MAX:
        raise InvalidRequest(
            f"the event has {len(wire)} bytes, the limit is {EVENT_BYTES_MAX}",
            reason="EVENT_TOO_LARGE",
            metadata={"bytes_max": str(EVENT_BYTES_MAX)},
        )
    return wire
