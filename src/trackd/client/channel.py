"""The connection to trackd: which channel serves a waybill, with which options, and one retried
call.

Every gRPC option of the client is here. Nothing here knows a scan, a status or a spool.
"""

import asyncio
from collections.abc import Awaitable, Callable
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
    TOPOLOGY_AGE_S,
    TOPOLOGY_TIMEOUT_S,
    BackoffOptions,
)
from trackd.client.topology import Topology
from trackd.v1.admin_pb2 import GetTopologyRequest
from trackd.v1.admin_pb2_grpc import AdminServiceStub

_Response = TypeVar("_Response")

# With fewer owners there is nothing to choose.
_SEVERAL = 2

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

    The place where a waybill finds its server. `server` takes any waybill and hands on what is
    another's; where it tells (GetTopology) that several servers share the waybills, those of each
    go straight to their owner for as long as that one can be reached.
    """

    def __init__(self, server: str, *, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Opens lazily: connects with the first call. `server` is HOST:PORT."""
        self._credentials = credentials
        self._channel = self._made(server)
        self._direct: dict[str, aio.Channel] = {}
        self._out_of_reach: set[str] = set()
        # None until a server has told it.
        self._topology: Topology | None = None
        # When it was last asked for, on the loop's clock; long ago at first.
        self._asked_at = -TOPOLOGY_AGE_S
        self._asking: asyncio.Task[Topology] | None = None

    def _made(self, address: str) -> aio.Channel:
        if self._credentials is None:
            return aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        return aio.secure_channel(address, self._credentials, options=CHANNEL_OPTIONS)

    def any(self) -> aio.Channel:
        """A channel for what belongs to no single waybill."""
        return self._channel

    def nearest_to(self, owner: str) -> aio.Channel:
        """The channel to an owner of the topology; the one to all while that cannot be reached.

        An owner that could not be reached is called again once its channel is up, which is tried
        meanwhile.
        """
        if owner not in self._direct:
            self._direct[owner] = self._made(owner)
        channel = self._direct[owner]
        state = channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            self._out_of_reach.add(owner)
        elif state is grpc.ChannelConnectivity.READY:
            self._out_of_reach.discard(owner)
        return self._channel if owner in self._out_of_reach else channel

    def for_waybill(self, waybill_number: str) -> aio.Channel:
        """The channel to the owner of a waybill, as far as it is known and can be reached.

        What is known is asked for beside the calls: the first ones go where all may go.
        """
        owner = self.owner_of(waybill_number)
        channel = self.nearest_to(owner) if owner else self._channel
        if self._topology is None or (owner and channel is self._channel):
            self._ask_beside()
        return channel

    def owner_of(self, waybill_number: str) -> str:
        """The address of a waybill's owner; empty while there is nothing to choose."""
        if self._topology is None or len(self._topology.owners) < _SEVERAL:
            return ""
        return self._topology.owner_of(waybill_number)

    async def topology(self) -> Topology:
        """How the data is laid out now, as the server tells it. Raises AioRpcError.

        A server that does not know the call owns everything.
        """
        self._asked_at = asyncio.get_running_loop().time()
        try:
            response = await AdminServiceStub(self._channel).GetTopology(
                GetTopologyRequest(), timeout=TOPOLOGY_TIMEOUT_S
            )
        except aio.AioRpcError as failure:
            if failure.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            told = Topology()
        else:
            told = Topology.told(response)
        self._topology = told
        return told

    def _ask_beside(self) -> None:
        age_s = asyncio.get_running_loop().time() - self._asked_at
        if age_s >= TOPOLOGY_AGE_S and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self.topology())
            # That it failed is no news: the calls beside it say so.
            self._asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())

    async def close(self) -> None:
        """Ends every call that is still running."""
        if self._asking is not None:
            self._asking.cancel()
        for channel in (self._channel, *self._direct.values()):
            await channel.close()

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
    method: Callable[..., Awaitable[_Response]],
    request: object,
    *,
    timeout_ms: int,
    backoff: BackoffOptions,
) -> _Response:
    """One answer, within `timeout_ms` over all attempts; raises a TrackdError.

    method: called as `method(request, timeout=seconds)` for each attempt; may choose another
    channel each time.

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
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            # gRPC's way to say so; whoever waits for this task would take it for cancelled.
            raise RuntimeError("the client was closed meanwhile") from None
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
