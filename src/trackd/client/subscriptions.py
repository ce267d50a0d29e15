"""Named subscriptions and their parked changes: for those who keep them. Consuming: consumer.py."""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc
from grpc import aio

from trackd.client.channel import call_with_retries
from trackd.client.life import Client
from trackd.client.options import PAGE_EVENTS_LIMIT, FrontEndOptions
from trackd.client.pages import pages
from trackd.v1 import feed_pb2 as pb
from trackd.v1.feed_pb2_grpc import FeedServiceStub

if TYPE_CHECKING:
    from trackd.v1.feed_pb2_grpc import FeedServiceAsyncStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Subscriptions(Client):
    """Keeps the named subscriptions of one server; bounds and errors as of a FrontEnd.

    Every call may be repeated without harm, and is, while the server cannot be reached.
    """

    _called = "client of subscriptions"

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

    async def create(self, subscription: pb.Subscription) -> pb.Subscription:
        """A new one, or the one that is there with the same settings."""
        request = pb.CreateSubscriptionRequest(subscription=subscription)
        return (await self._call(self._stub.CreateSubscription, request)).subscription

    async def get(self, name: str) -> pb.GetSubscriptionResponse:
        """Its settings, and how far it is."""
        return await self._call(self._stub.GetSubscription, pb.GetSubscriptionRequest(name=name))

    async def list(self) -> Sequence[pb.Subscription]:
        """All of them, by name."""

        async def page(token: str) -> pb.ListSubscriptionsResponse:
            request = pb.ListSubscriptionsRequest(page_token=token)
            return await self._call(self._stub.ListSubscriptions, request)

        return [one async for each in pages(page) for one in each.subscriptions]

    async def update(self, subscription: pb.Subscription) -> pb.Subscription:
        """Other settings, all of them; its place stays."""
        request = pb.UpdateSubscriptionRequest(subscription=subscription)
        return (await self._call(self._stub.UpdateSubscription, request)).subscription

    async def delete(self, name: str) -> None:
        """Gone, with its place and its parked changes."""
        request = pb.DeleteSubscriptionRequest(name=name)
        await self._call(self._stub.DeleteSubscription, request)

    async def parked(self, name: str, *, page_size: int = 0) -> AsyncIterator[pb.ParkedChange]:
        """The parked changes, by partition and position."""

        async def page(token: str) -> pb.ListParkedChangesResponse:
            request = pb.ListParkedChangesRequest(
                name=name, page_size=page_size or PAGE_EVENTS_LIMIT, page_token=token
            )
            return await self._call(self._stub.ListParkedChanges, request)

        async for each in pages(page):
            for parked in each.parked_changes:
                yield parked

    async def redrive(self, name: str, positions: Sequence[str] | None = None) -> int:
        """Delivers parked changes again, all of them or those; how many."""
        request = pb.RedriveParkedChangesRequest(
            name=name, positions=positions or (), all=positions is None
        )
        return (await self._call(self._stub.RedriveParkedChanges, request)).redriven

    async def drop(self, name: str, positions: Sequence[str] | None = None) -> int:
        """Forgets parked changes, all of them or those; how many."""
        request = pb.DropParkedChangesRequest(
            name=name, positions=positions or (), all=positions is None
        )
        return (await self._call(self._stub.DropParkedChanges, request)).dropped

    @property
    def _stub(self) -> "FeedServiceAsyncStub":
        return FeedServiceStub(self._channels.any())

    async def _call(
        self, method: aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request
    ) -> _Response:
        return await call_with_retries(
            method,
            request,
            timeout_ms=self._options.deadline_ms,
            backoff=self._options.backoff,
        )
