"""Endpoints that hear of changes by webhook or message: for those who keep them, and for notifiers.

The calls of NotificationService, each once; what their messages mean is in the contract.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc
from grpc import aio

from trackd.client.channel import call_with_retries
from trackd.client.errors import error_of
from trackd.client.life import Client
from trackd.client.options import PAGE_EVENTS_LIMIT, FrontEndOptions
from trackd.client.pages import pages
from trackd.v1 import notification_pb2 as pb
from trackd.v1.notification_pb2_grpc import NotificationServiceStub

if TYPE_CHECKING:
    from trackd.v1.notification_pb2_grpc import NotificationServiceAsyncStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

# The server waits for the result of a test for 25 s.
TEST_TIMEOUT_MS = 30_000


class Notifications(Client):
    """Keeps the endpoints of one server; bounds and errors as of a FrontEnd.

    - What makes something new (`create`, `rotate_secret`) is sent once: a repeat after a lost
      answer would make a second one.
    """

    _called = "client of endpoints"

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

    async def create(self, endpoint: pb.Endpoint) -> pb.CreateEndpointResponse:
        """A new endpoint, and the only sight of its secret."""
        return await self._once(
            self._stub.CreateEndpoint, pb.CreateEndpointRequest(endpoint=endpoint)
        )

    async def get(self, endpoint_id: str) -> pb.Endpoint:
        """An endpoint."""
        response = await self._call(self._stub.GetEndpoint, pb.GetEndpointRequest(id=endpoint_id))
        return response.endpoint

    async def list(self) -> Sequence[pb.Endpoint]:
        """All endpoints, in the order in which they were made."""

        async def page(token: str) -> pb.ListEndpointsResponse:
            request = pb.ListEndpointsRequest(page_token=token)
            return await self._call(self._stub.ListEndpoints, request)

        return [one async for each in pages(page) for one in each.endpoints]

    async def update(self, endpoint: pb.Endpoint) -> pb.Endpoint:
        """Other settings, all of them; an empty URL stays."""
        request = pb.UpdateEndpointRequest(endpoint=endpoint)
        return (await self._call(self._stub.UpdateEndpoint, request)).endpoint

    async def rotate_secret(
        self, endpoint_id: str, *, overlap_ms: int = 0
    ) -> pb.RotateEndpointSecretResponse:
        """A new secret, shown here only; the old one signs as well for a while."""
        return await self._once(
            self._stub.RotateEndpointSecret,
            pb.RotateEndpointSecretRequest(id=endpoint_id, overlap_ms=overlap_ms),
        )

    async def test(self, endpoint_id: str) -> pb.DeliveryAttempt:
        """What came of a test message that a notifier delivered just now."""
        response = await self._once(
            self._stub.TestEndpoint,
            pb.TestEndpointRequest(id=endpoint_id),
            timeout_ms=TEST_TIMEOUT_MS,
        )
        return response.delivery

    async def disable(self, endpoint_id: str, *, reason: str = "") -> pb.Endpoint:
        """Not told until it is enabled."""
        request = pb.DisableEndpointRequest(id=endpoint_id, reason=reason)
        return (await self._call(self._stub.DisableEndpoint, request)).endpoint

    async def enable(self, endpoint_id: str, *, from_now: bool = False) -> pb.Endpoint:
        """Told again, of what came meanwhile too unless `from_now`."""
        request = pb.EnableEndpointRequest(id=endpoint_id, from_now=from_now)
        return (await self._call(self._stub.EnableEndpoint, request)).endpoint

    async def delete(self, endpoint_id: str) -> None:
        """Gone, with what waits for it."""
        await self._once(self._stub.DeleteEndpoint, pb.DeleteEndpointRequest(id=endpoint_id))

    async def deliveries(self, endpoint_id: str) -> AsyncIterator[pb.DeliveryAttempt]:
        """The latest attempts, the newest first, page by page."""

        async def page(token: str) -> pb.ListDeliveriesResponse:
            request = pb.ListDeliveriesRequest(
                id=endpoint_id, page_size=PAGE_EVENTS_LIMIT, page_token=token
            )
            return await self._call(self._stub.ListDeliveries, request)

        async for each in pages(page):
            for delivery in each.deliveries:
                yield delivery

    # For notifiers.

    async def targets(self, *, known_revision: str, wait_ms: int) -> pb.ListTargetsResponse:
        """The endpoints with their secrets, once they are not those of the known revision."""
        return await self._once(
            self._stub.ListTargets,
            pb.ListTargetsRequest(known_revision=known_revision, wait_ms=wait_ms),
            timeout_ms=wait_ms + self._options.deadline_ms,
        )

    async def record(self, deliveries: Sequence[pb.RecordedDelivery]) -> None:
        """Attempts that were made."""
        request = pb.RecordDeliveriesRequest(deliveries=deliveries)
        await self._once(self._stub.RecordDeliveries, request)

    # How it asks.

    @property
    def _stub(self) -> "NotificationServiceAsyncStub":
        return NotificationServiceStub(self._channels.any())

    async def _call(
        self, method: "aio.UnaryUnaryMultiCallable[_Request, _Response]", request: _Request
    ) -> _Response:
        """With retries: for what does no harm when repeated."""
        return await call_with_retries(
            method,
            request,
            timeout_ms=self._options.deadline_ms,
            backoff=self._options.backoff,
        )

    async def _once(
        self,
        method: "aio.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        *,
        timeout_ms: int | None = None,
    ) -> _Response:
        timeout_s = (timeout_ms or self._options.deadline_ms) / 1000
        try:
            return await method(request, timeout=timeout_s)
        except aio.AioRpcError as failure:
            raise error_of(failure) from failure
