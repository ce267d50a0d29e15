"""A consumer of a named subscription: deliveries in, what became of them out, over lost links.

Nothing here decides what is delivered or when it comes again: the server does. What is said of a
delivery is collected while the message before it is under way, so that many share one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc
from grpc import aio

from trackd.client.backoff import Backoff
from trackd.client.channel import Channels
from trackd.client.errors import ServerUnavailable, TrackdError, error_of
from trackd.client.options import BackoffOptions
from trackd.v1.feed_pb2 import (
    AcknowledgeChanges,
    ConsumeChangesRequest,
    ConsumeChangesResponse,
    Delivery,
    OpenConsumer,
    ParkChange,
    RejectChange,
    Subscription,
)

# Positions of one acknowledgement: about 100 KB.
_ACKS_PER_MESSAGE = 4_000

_METHOD = "/trackd.v1.FeedService/ConsumeChanges"
_Call = aio.StreamStreamCall[ConsumeChangesRequest, ConsumeChangesResponse]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """The bounds of a Consumer.

    - At most `credits` deliveries are with it at a time.
    - Opening it ends with the last error after `open_timeout_ms`; leaving it waits at most
      `close_timeout_ms` until the server has heard everything.
    - With `reconnects` a lost link is opened again for as long as it takes; without, iterating
      raises what ended it.
    """

    credits: int = 1_000
    open_timeout_ms: int = 10_000
    close_timeout_ms: int = 5_000
    reconnects: bool = True
    backoff: BackoffOptions = field(default_factory=BackoffOptions)


class Consumer:
    """Takes part in working off a named subscription.

        async with Consumer("127.0.0.1:50551", "orders") as consumer:
            async for delivery in consumer:
                …
                consumer.ack(delivery.change.position)

    - A waybill's changes come one at a time and in order: the next comes when this one is settled.
    - Every delivery wants one of `ack`, `nack` or `park`; what gets none comes again, to whoever is
      there, after the subscription's `ack_timeout_ms`.
    - After a lost link, what was not heard of comes again: be ready for repeats.
    - Leaving it tells the server everything that was said; of what else it had, the server takes it
      that nothing was tried.
    - Iterating ends with `close`, and raises a TrackdError when the subscription is gone.
    """

    def __init__(
        self,
        server: str,
        name: str,
        *,
        options: ConsumerOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Connects when it is opened. `server` is HOST:PORT, `name` the subscription's."""
        self._server = server
        self._name = name
        self._options = options or ConsumerOptions()
        self._credentials = credentials
        self._credits = self._options.credits
        # What the server said, until the link was lost.
        self.subscription = Subscription()
        self.reconnections = 0
        self._channels: Channels | None = None
        self._call: _Call | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        # What came and nobody has looked at; why nothing comes any more; whether either is new.
        self._waiting: deque[Delivery] = deque()
        self._error: TrackdError | None = None
        self._arrived = asyncio.Event()
        # What is to be said, and whether there is something.
        self._acks: list[str] = []
        self._others: list[ConsumeChangesRequest] = []
        self._news = asyncio.Event()

    # What is delivered.

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        """Every delivery, until `close`. Raises TrackdError."""
        while await self._something_waits():
            while self._waiting:
                yield self._waiting.popleft()

    async def runs(self) -> AsyncIterator[list[Delivery]]:
        """Deliveries as they come, several at once, each of another waybill. Raises TrackdError."""
        while await self._something_waits():
            run = list(self._waiting)
            self._waiting.clear()
            yield run

    async def _something_waits(self) -> bool:
        """Waits for deliveries; False when the consumer is closed. Raises TrackdError."""
        while not self._waiting:
            if self._closing:
                return False
            if self._error:
                raise self._error
            await self._arrived.wait()
            self._arrived.clear()
        return True

    # What becomes of it.

    def ack(self, *positions: str) -> None:
        """Done: the `position` of each change."""
        self._acks += positions
        self._news.set()

    def nack(
        self, position: str, *, delay_ms: int = 0, reason: str = "", untried: bool = False
    ) -> None:
        """Failed: to be tried again after delay_ms, or as the subscription says.

        untried: nothing was tried, so it does not count as an attempt.
        """
        reject = RejectChange(position=position, delay_ms=delay_ms, reason=reason, untried=untried)
        self._say(ConsumeChangesRequest(nack=reject))

    def park(self, position: str, *, reason: str = "") -> None:
        """Will never succeed."""
        self._say(ConsumeChangesRequest(park=ParkChange(position=position, reason=reason)))

    def add_credits(self, count: int) -> None:
        """So many more deliveries at a time."""
        self._credits += count
        self._say(ConsumeChangesRequest(credits=count))

    def _say(self, message: ConsumeChangesRequest) -> None:
        self._others.append(message)
        self._news.set()

    # Life.

    async def open(self) -> None:
        """Takes part; `async with` does it. Raises TrackdError."""
        if self._channels:
            raise RuntimeError("the consumer is open")
        self._channels = Channels(self._server, credentials=self._credentials)
        try:
            await self._open_call(None, timeout_ms=self._options.open_timeout_ms)
        except BaseException:
            await self._channels.close()
            self._channels = None
            raise
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._speak())]

    async def close(self) -> None:
        """Says what is left to say, and ends when the server has heard it."""
        if not self._channels or self._closing:
            return
        self._closing = True
        self._arrived.set()
        self._waiting.clear()
        self._news.set()
        timeout_s = self._options.close_timeout_ms / 1000 if self._call else 0.0
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channels.close()

    async def abandon(self) -> None:
        """Cuts the link at once: to the server it is as if the process had died."""
        self._closing = True
        self._arrived.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._channels:
            await self._channels.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # The link. Nobody else reads or writes: a call whose reader is cancelled is cancelled with it.

    async def _listen(self) -> None:
        while call := self._call:
            try:
                message = await call.read()
            except aio.AioRpcError as failure:
                error: TrackdError = error_of(failure)
            else:
                if isinstance(message, ConsumeChangesResponse):
                    self._came(message)
                    continue
                error = await _end_of(call)
            if self._closing:
                return
            if not (self._options.reconnects and isinstance(error, ServerUnavailable)):
                self._end(error)
                return
            try:
                await self._open_call(error, timeout_ms=None)
            except TrackdError as final:
                self._end(final)
                return
            self.reconnections += 1

    def _came(self, message: ConsumeChangesResponse) -> None:
        if not self._closing:
            self._waiting.extend(_deliveries(message))
            self._arrived.set()

    def _end(self, error: TrackdError) -> None:
        self._error = error
        self._arrived.set()

    async def _open_call(self, error: TrackdError | None, *, timeout_ms: int | None) -> None:
        """Opens a call, again and again; without timeout_ms for as long as it takes."""
        loop = asyncio.get_running_loop()
        ends_at = None if timeout_ms is None else loop.time() + timeout_ms / 1000
        pauses = Backoff(self._options.backoff)
        self._call = None
        self._waiting.clear()
        while True:
            if error:
                pause_s = pauses.next_s(at_least_ms=error.retry_after_ms)
                if ends_at is not None and loop.time() + pause_s > ends_at:
                    raise error
                await asyncio.sleep(pause_s)
            try:
                self._call = await self._opened_call()
            except ServerUnavailable as unavailable:
                error = unavailable
            else:
                self._news.set()
                return

    async def _opened_call(self) -> _Call:
        assert self._channels
        method = self._channels.any().stream_stream(
            _METHOD,
            request_serializer=ConsumeChangesRequest.SerializeToString,
            response_deserializer=ConsumeChangesResponse.FromString,
        )
        call: _Call = method()  # type: ignore[assignment] # the stub takes any message
        opening = OpenConsumer(name=self._name, credits=self._credits, runs=True)
        try:
            await call.write(ConsumeChangesRequest(open=opening))
            message = await call.read()
        except (aio.AioRpcError, asyncio.InvalidStateError):
            raise await _end_of(call) from None
        if message is aio.EOF:
            raise await _end_of(call)
        assert isinstance(message, ConsumeChangesResponse)
        self.subscription = message.opened.subscription
        return call

    async def _speak(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            # Without a call it is said when the link is back. The reader sees to a lost link; what
            # was not heard comes again.
            if call := self._call:
                with suppress(aio.AioRpcError, asyncio.InvalidStateError):
                    await self._say_all(call)
                    if self._closing:
                        await call.done_writing()
            if self._closing:
                return

    async def _say_all(self, call: _Call) -> None:
        while self._acks or self._others:
            acks, self._acks = self._acks[:_ACKS_PER_MESSAGE], self._acks[_ACKS_PER_MESSAGE:]
            others, self._others = self._others, []
            if acks:
                await call.write(ConsumeChangesRequest(ack=AcknowledgeChanges(positions=acks)))
            for message in others:
                await call.write(message)


def _deliveries(message: ConsumeChangesResponse) -> list[Delivery]:
    if message.WhichOneof("kind") == "deliveries":
        return list(message.deliveries.deliveries)
    return [message.delivery] if message.HasField("delivery") else []


async def _end_of(call: _Call) -> TrackdError:
    """Why a call ended. One that the server ended in order is as good as lost."""
    code = await call.code()
    if code is grpc.StatusCode.OK:
        return ServerUnavailable("the server ended the call", reason="LINK_LOST")
    return error_of(
        aio.AioRpcError(
            code,
            await call.initial_metadata(),
            await call.trailing_metadata(),
            details=await call.details(),
        )
    )
