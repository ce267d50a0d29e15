"""The connection to trackd: which channel serves a waybill, with which options, and one retried
call.

Every gRPC option of the client is here. Nothing here knows a scan, a status or a spool.
"""

import asyncio
from types import TracebackType
from typing import Self, TypeVar

import grpc
from grpc import aio

from trackd import __version__
from trackd.client.backoff import Backoff
from trackd.client.errors import DeadlineExceeded, ServerUnavailable, error_of
from trackd.client.options import (
    CONNECT_TIMEOUT_MS,
    KEEPALIVE_MS,
    KEEPALIVE_TIMEOUT_MS,
    RECONNECT_MS_INITIAL,
    RECONNECT_MS_MAX,
    REQUEST_BYTES_LIMIT,
    RESPONSE_BYTES_LIMIT,
    BackoffOptions,
)

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.primary_user_agent", f"trackd-python/{__version__}"),
    ("grpc.max_send_message_length", REQUEST_BYTES_LIMIT),
    ("grpc.max_receive_message_length", RESPONSE_BYTES_LIMIT),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    # Without it gRPC stops pinging an open stream on which nothing is sent, and a dead link goes
    # unnoticed.
    ("grpc.http2.max_pings_without_data", 0),
    # The name is misleading: it is how long an attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS_INITIAL),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
    # Channels with equal options share one connection unless told not to; a scanner's burst must
    # not fill the flow-control window of a front end in the same process.
    ("grpc.use_local_subchannel_pool", 1),
]


class Channels:
    """The channels of one client object; closed with it.

    The place where a waybill finds its server: today there is one address and any server takes any
    waybill; the owner of its partition is `xxh3_64(upper-cased waybill number) mod
    partition_count`.
    """

    def __init__(self, server: str, *, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Opens lazily: connects with the first call. `server` is HOST:PORT."""
        if credentials is None:
            self._channel = aio.insecure_channel(server, options=CHANNEL_OPTIONS)
        else:
            self._channel = aio.secure_channel(server, credentials, options=CHANNEL_OPTIONS)

    def any(self) -> aio.Channel:
        """A channel for what belongs to no single waybill."""
        return self._channel

    def for_waybill(self, waybill_number: str) -> aio.Channel:  # noqa: ARG002 - one server owns all
        """The channel to the server that owns the waybill."""
        return self._channel

    async def close(self) -> None:
        """Ends every call that is still running."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def call_with_retries(
    method: aio.UnaryUnaryMultiCallable[_Request, _Response],
    request: _Request,
    *,
    timeout_ms: int,
    backoff: BackoffOptions,
) -> _Response:
    """One answer, within `timeout_ms` over all attempts; raises a TrackdError.

    Only for calls that do no harm when repeated. Retried here and not by gRPC's `retryPolicy`: that
    one stops after five attempts, which a restarting server outlasts, and does not read RetryInfo.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + timeout_ms / 1000
    pauses = Backoff(backoff)
    unavailable: ServerUnavailable | None = None
    while True:
        remaining_s = ends_at - loop.time()
        if remaining_s <= 0:
            raise unavailable or DeadlineExceeded(
                "the deadline has passed", reason="DEADLINE_EXCEEDED"
            )
        try:
            return await method(request, timeout=remaining_s)
        except aio.AioRpcError as failure:
            error = error_of(failure)
            if isinstance(error, DeadlineExceeded):
                # The attempt before it says more than the clock does.
                raise (unavailable or error) from failure
            if not isinstance(error, ServerUnavailable):
                raise error from failure
            unavailable = error
            pause_s = pauses.next_s(at_least_ms=error.retry_after_ms)
            if pause_s >= ends_at - loop.time():
                raise error from failure
        await asyncio.sleep(pause_s)
