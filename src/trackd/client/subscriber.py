"""A subscriber: the changes of every waybill, or of those that match, over lost links.

Keeps the place of the last message that was taken and goes on from there, however often the link is
lost. Nothing here keeps it beyond the process: `Heard.resume_token` is for the caller to keep.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from trackd.client.backoff import Backoff
from trackd.client.errors import ServerUnavailable, TrackdError, error_of
from trackd.client.life import Client
from trackd.client.options import BackoffOptions
from trackd.v1.feed_pb2 import (
    Change,
    ChangeFilter,
    FeedStart,
    StartFrom,
    WatchChangesRequest,
    WatchChangesResponse,
)

_METHOD = "/trackd.v1.FeedService/WatchChanges"
_Call = aio.UnaryStreamCall[WatchChangesRequest, WatchChangesResponse]


@dataclass(frozen=True, slots=True)
class Heard:
    """What came in one message. Without changes: everything durable so far has been told.

    resume_token: hand it back to go on after it; keep it once the changes are worked off.
    """

    changes: list[Change]
    resume_token: str

    @property
    def caught_up(self) -> bool:
        """Whether it is the news that there is none."""
        return not self.changes


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriberOptions:
    """The bounds of a Subscriber.

    With `reconnects` a lost link is opened again for as long as it takes; without, iterating raises
    what ended it.
    """

    reconnects: bool = True
    backoff: BackoffOptions = field(default_factory=BackoffOptions)


class Subscriber(Client):
    """Hears of changes as they become durable.

        async with Subscriber("127.0.0.1:50551") as subscriber:
            async for heard in subscriber.watch(resume_token=kept):
                for change in heard.changes:
                    …
                kept = heard.resume_token

    - Of one waybill in order, without gaps, at least once: after a lost link some may come again.
    - It has no deadline. It raises a TrackdError where going on would miss something or is no use:
      PositionExpired, PositionUnknown, InvalidRequest …
    """

    _called = "subscriber"

    def __init__(
        self,
        server: str,
        *,
        options: SubscriberOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Connects with the first watch. `server` is HOST:PORT."""
        super().__init__(server, credentials=credentials)
        self._options = options or SubscriberOptions()
        # Why the link of a watch is down, while it is.
        self.link_error: TrackdError | None = None

    async def watch(
        self,
        wanted: ChangeFilter | None = None,
        *,
        start: StartFrom.ValueType = StartFrom.START_FROM_NOW,
        resume_token: str = "",
    ) -> AsyncIterator[Heard]:
        """Everything that is heard, message by message; a resume token goes before `start`."""
        backoff = Backoff(self._options.backoff)
        place = FeedStart(resume_token=resume_token) if resume_token else _origin(start)
        while True:
            call = self._call(WatchChangesRequest(filter=wanted, start=place))
            try:
                async for message in call:
                    self.link_error = None
                    backoff.reset()
                    place = FeedStart(resume_token=message.resume_token)
                    yield Heard(list(message.changes.changes), message.resume_token)
                error = ServerUnavailable("the server ended the watch", reason="LINK_LOST")
            except (aio.AioRpcError, DecodeError) as failure:
                error = _as_lost_link(failure)
            finally:
                call.cancel()
            if not self._options.reconnects:
                raise error
            self.link_error = error
            await asyncio.sleep(backoff.next_s(at_least_ms=error.retry_after_ms))

    def _call(self, request: WatchChangesRequest) -> _Call:
        method: aio.UnaryStreamMultiCallable[WatchChangesRequest, WatchChangesResponse]
        method = self._channels.any().unary_stream(
            _METHOD,
            request_serializer=WatchChangesRequest.SerializeToString,
            response_deserializer=WatchChangesResponse.FromString,
        )
        return method(request)


def _origin(start: StartFrom.ValueType) -> FeedStart:
    return FeedStart(**{"from": start})  # type: ignore[arg-type] # a name that Python keeps


def _as_lost_link(failure: aio.AioRpcError | DecodeError) -> ServerUnavailable:
    """What another try may mend; raises what it cannot."""
    if isinstance(failure, DecodeError):
        return ServerUnavailable(str(failure), reason="LINK_LOST")
    error = error_of(failure)
    if not isinstance(error, ServerUnavailable):
        raise error from failure
    return error
