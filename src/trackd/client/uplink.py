"""The link of a scanner to the server: carries what waits in the outbox, for as long as it runs.

Sends batches over one StreamEvents call, settles them as they are answered, and connects again when
the link is lost. What is sent and in which order is decided in window.py; where scans are kept, in
outbox.py.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from trackd.client.backoff import Backoff
from trackd.client.errors import MESSAGE_TOO_LARGE, SpoolFull, TrackdError, error_of
from trackd.client.events import RejectedScan, kept_event
from trackd.client.options import STRAIGHT_AGAIN_S, ScannerOptions
from trackd.client.outbox import Outbox
from trackd.client.window import AnswerMismatch, Batch, RejectedEntry, Window
from trackd.v1 import ingest_pb2
from trackd.v1.ingest_pb2 import StreamEventsResponse
from trackd.v1.vocabulary_pb2 import RejectionReason

_LOG = logging.getLogger("trackd.client")

_SERVICE = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name

_Call = aio.StreamStreamCall[bytes, StreamEventsResponse]


@dataclass(frozen=True, slots=True)
class ScanCounts:
    """What became of the scans since the scanner was opened.

    `duplicates` were stored before: by an earlier scan of the same id and content, or by a batch
    whose answer was lost. `waiting` are kept and not answered yet, those of an earlier process
    included.
    """

    accepted: int
    duplicates: int
    rejected: int
    waiting: int


class _LinkLost(Exception):
    """The call ended, or should, without a status that says why."""


class _Moved(Exception):
    """The call was given up for a better way to the same place."""


# What another try may mend. An answer that cannot be read counts among them: nothing was settled by
# it.
_LINK_FAILURES = (
    aio.AioRpcError,
    aio.InternalError,
    AnswerMismatch,
    DecodeError,
    SpoolFull,
    _LinkLost,
    _Moved,
)


class Uplink:
    """One link, used by one scanner.

    - A scan is forgotten by the outbox only when the server has answered for it.
    - The scans arrive in the order of the outbox; what was not answered is sent again from the
      oldest.
    - A link that fails is tried again without end; `link_error` says why it is down.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        channel: Callable[[], aio.Channel],
        options: ScannerOptions,
        on_rejection: Callable[[RejectedScan], None] | None,
        on_link_lost: Callable[[], None],
    ) -> None:
        """Idle until `run`. channel: which one to take, asked for each attempt."""
        self._outbox = outbox
        self._options = options
        self._on_rejection = on_rejection
        self._window = Window(
            settled=outbox.settled,
            batch_events_max=options.batch_events_max,
            batches_in_flight_max=options.batches_in_flight_max,
        )
        self._backoff = Backoff(options.backoff)
        self._channel = channel
        self._on_link_lost = on_link_lost
        self._accepted = self._duplicates = self._rejected = 0
        self._finishing = False
        self._overdue: asyncio.Timeout | None = None
        self.link_error: TrackdError | None = None

    @property
    def settled(self) -> int:
        """The sequence up to which every scan has its answer."""
        return self._window.settled

    @property
    def counts(self) -> ScanCounts:
        """What became of the scans so far."""
        return ScanCounts(
            accepted=self._accepted,
            duplicates=self._duplicates,
            rejected=self._rejected,
            waiting=self._outbox.last - self._window.settled,
        )

    def finish(self) -> None:
        """Lets `run` return once nothing waits."""
        self._finishing = True
        self._outbox.changed.fire()

    async def run(self) -> None:
        """Carries until `finish`; raises only what trying again cannot mend, as a SpoolBroken."""
        while True:
            while self._outbox.last <= self._window.settled:
                if self._finishing:
                    return
                await self._outbox.changed.wait()
            try:
                await self._carry_over_one_call()
            except _LINK_FAILURES as failure:
                await asyncio.sleep(await self._after(failure))

    async def _carry_over_one_call(self) -> None:
        # Bytes out, as they were taken: a scan that is sent again is the same to the last byte.
        channel = self._channel()
        stream_events: aio.StreamStreamMultiCallable[bytes, StreamEventsResponse]
        stream_events = channel.stream_stream(
            f"/{_SERVICE}/StreamEvents",
            request_serializer=None,
            response_deserializer=StreamEventsResponse.FromString,
        )
        call: _Call = stream_events()
        another_way = asyncio.create_task(self._another_way(channel))
        sending = asyncio.create_task(self._send(call))
        settling = asyncio.create_task(self._settle_answers(call))
        try:
            await _until_over({sending, settling}, another_way)
            moves = another_way.done()
        finally:
            call.cancel()
            for task in (sending, settling, another_way):
                task.cancel()
            outcomes = await asyncio.gather(settling, sending, another_way, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        if moves:
            raise _Moved
        if not self._finishing:
            raise _LinkLost("the call was cancelled")

    async def _another_way(self, taken: aio.Channel) -> None:
        """Returns when another channel is to be taken than the one that is."""
        while self._channel() is taken:  # noqa: ASYNC110 (gRPC tells nobody that it is up again)
            await asyncio.sleep(STRAIGHT_AGAIN_S)

    async def _send(self, call: _Call) -> None:
        """Returns when nothing more is to be sent, or to nobody: the answers then say why."""
        while await self._something_to_send():
            batch = await self._next_batch()
            if self._window.in_flight == 1:
                self._expect_answer()
            try:
                await call.write(batch.encode())
            except (aio.AioRpcError, asyncio.InvalidStateError):
                return
        await call.done_writing()

    async def _something_to_send(self) -> bool:
        while self._outbox.last <= self._window.sent or not self._window.has_room:
            if self._finishing and self._outbox.last <= self._window.sent:
                return False
            await self._outbox.changed.wait()
        return True

    async def _next_batch(self) -> Batch:
        if self._outbox.last - self._window.sent < self._window.events_max:
            await asyncio.sleep(self._options.batch_delay_ms_max / 1000)
        entries = await self._outbox.take(
            after=self._window.sent,
            events_max=self._window.events_max,
            bytes_max=self._options.batch_bytes_max,
        )
        return self._window.send(entries)

    async def _settle_answers(self, call: _Call) -> None:
        """Returns when the server has answered for everything and ended the call as asked."""
        answers = aiter(call)
        while (response := await self._next_answer(answers)) is not None:
            await _to_its_end(self._settle_answer(response))
            if self.link_error is not None:
                _LOG.info("the link is up again")
            self.link_error = None
            self._backoff.reset()
        if not self._finishing or self._window.in_flight:
            raise _LinkLost("the server ended the call")

    async def _next_answer(
        self, answers: AsyncIterator[StreamEventsResponse]
    ) -> StreamEventsResponse | None:
        try:
            async with asyncio.timeout(None) as self._overdue:
                if self._window.in_flight:
                    self._expect_answer()
                return await anext(answers, None)
        except TimeoutError:
            raise _LinkLost(f"no answer for {self._options.answer_timeout_ms} ms") from None
        finally:
            self._overdue = None

    def _expect_answer(self) -> None:
        """Starts the clock of the next answer; while one is being settled it starts after that."""
        if self._overdue is not None:
            due_at = asyncio.get_running_loop().time() + self._options.answer_timeout_ms / 1000
            self._overdue.reschedule(due_at)

    async def _settle_answer(self, response: StreamEventsResponse) -> None:
        batch, rejected = self._window.match(response)
        await self._settle(batch, rejected)
        self._accepted += response.accepted
        self._duplicates += response.duplicates

    async def _settle(self, batch: Batch, rejected: Sequence[RejectedEntry]) -> None:
        await self._outbox.settle(through=batch.last, rejected=rejected)
        self._window.settle(batch)
        self._outbox.changed.fire()
        self._rejected += len(rejected)
        if rejected and self._on_rejection is None:
            _LOG.warning(
                "%d scans were rejected, the first is %s: %s",
                len(rejected),
                (first := _rejected_scan(rejected[0])).event.event_id,
                first.reason_name,
            )
            return
        for each in rejected:
            self._tell(_rejected_scan(each))

    def _tell(self, scan: RejectedScan) -> None:
        assert self._on_rejection is not None, "somebody listens"
        try:
            self._on_rejection(scan)
        except Exception:
            # The caller's mistake must not stop its other scans.
            _LOG.exception("on_rejection failed for scan %s", scan.event.event_id)

    async def _after(self, failure: Exception) -> float:
        """Puts the window right after a failure; returns how many seconds to wait."""
        if isinstance(failure, _Moved):
            self._window.link_lost()
            return 0.0
        error = _as_trackd_error(failure)
        if _is_refusal(failure, error) and self._window.in_flight:
            # Not a fault of the link: look for the scan at fault without growing pauses.
            if (batch := self._window.refused()) is not None:
                await self._reject_refused(batch, error)
            return self._backoff.first_s()
        if self.link_error is None:
            _LOG.warning("the link is down: %s", error)
        self.link_error = error
        self._window.link_lost()
        self._outbox.changed.fire()
        self._on_link_lost()
        return self._backoff.next_s(at_least_ms=error.retry_after_ms)

    async def _reject_refused(self, batch: Batch, error: TrackdError) -> None:
        rejected = RejectedEntry(
            entry=batch.entries[0],
            reason=RejectionReason.REJECTION_REASON_UNSPECIFIED,
            field="",
            message=f"refused by the server: {error}",
        )
        try:
            await _to_its_end(self._settle(batch, [rejected]))
        except SpoolFull as full:
            # It stays where it is and is refused again once there is room to say so.
            self.link_error = full


async def _until_over(
    working: "set[asyncio.Task[None]]", another_way: "asyncio.Task[None]"
) -> None:
    """Returns when all work is done, one of it has failed, or there is another way."""
    while working and not another_way.done():
        done, _ = await asyncio.wait({*working, another_way}, return_when=asyncio.FIRST_COMPLETED)
        if any(not task.cancelled() and task.exception() for task in done):
            return
        working = working - done


async def _to_its_end(settling: Coroutine[Any, Any, None]) -> None:
    """Finishes what has begun, though the link is given up meanwhile.

    What the outbox forgets goes on being forgotten: a window that did not know of it would ask the
    outbox for scans that are no more.
    """
    work = asyncio.ensure_future(settling)
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _rejected_scan(rejected: RejectedEntry) -> RejectedScan:
    return RejectedScan(
        event=kept_event(rejected.entry.wire),
        reason=rejected.reason,
        field=rejected.field,
        message=rejected.message,
    )


def _is_refusal(failure: Exception, error: TrackdError) -> bool:
    """Whether the server refused a batch as a whole: sending it again as it is cannot succeed."""
    if not isinstance(failure, aio.AioRpcError):
        return False
    return failure.code() is grpc.StatusCode.INVALID_ARGUMENT or error.reason == MESSAGE_TOO_LARGE


def _as_trackd_error(failure: Exception) -> TrackdError:
    if isinstance(failure, aio.AioRpcError):
        return error_of(failure)
    if isinstance(failure, TrackdError):
        return failure
    return TrackdError(str(failure), reason="LINK_LOST")
