"""Named subscriptions for programs without an event loop: facades as in sync.py, on its loop."""

from collections.abc import Callable, Iterator, Sequence

import grpc

from trackd.client.consumer import Consumer, ConsumerOptions
from trackd.client.options import FrontEndOptions
from trackd.client.subscriptions import Subscriptions
from trackd.client.sync import _LOOP, _Facade, _next
from trackd.v1.feed_pb2 import Delivery, GetSubscriptionResponse, Subscription


class SyncSubscriptions(_Facade):
    """Subscriptions for programs without an event loop; promises and errors are the same."""

    def __init__(
        self,
        server: str,
        *,
        options: FrontEndOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """As Subscriptions."""
        self._subscriptions = Subscriptions(server, options=options, credentials=credentials)
        super().__init__(self._subscriptions)

    def create(self, subscription: Subscription) -> Subscription:
        """As Subscriptions.create."""
        return _LOOP.run(self._subscriptions.create(subscription))

    def get(self, name: str) -> GetSubscriptionResponse:
        """As Subscriptions.get."""
        return _LOOP.run(self._subscriptions.get(name))

    def list(self) -> Sequence[Subscription]:
        """As Subscriptions.list."""
        return _LOOP.run(self._subscriptions.list())

    def update(self, subscription: Subscription) -> Subscription:
        """As Subscriptions.update."""
        return _LOOP.run(self._subscriptions.update(subscription))

    def delete(self, name: str) -> None:
        """As Subscriptions.delete."""
        _LOOP.run(self._subscriptions.delete(name))

    def redrive(self, name: str, positions: Sequence[str] | None = None) -> int:
        """As Subscriptions.redrive."""
        return _LOOP.run(self._subscriptions.redrive(name, positions))

    def drop(self, name: str, positions: Sequence[str] | None = None) -> int:
        """As Subscriptions.drop."""
        return _LOOP.run(self._subscriptions.drop(name, positions))


class SyncConsumer(_Facade):
    """A Consumer for programs without an event loop; promises and errors are the same."""

    def __init__(
        self,
        server: str,
        name: str,
        *,
        options: ConsumerOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """As Consumer."""
        self._consumer = Consumer(server, name, options=options, credentials=credentials)
        super().__init__(self._consumer)

    def __iter__(self) -> Iterator[Delivery]:
        """As iterating a Consumer."""
        runs = self._consumer.runs()
        while (run := _LOOP.run(_next(runs))) is not None:
            yield from run

    def ack(self, *positions: str) -> None:
        """As Consumer.ack."""
        _LOOP.run(_said(lambda: self._consumer.ack(*positions)))

    def nack(
        self, position: str, *, delay_ms: int = 0, reason: str = "", untried: bool = False
    ) -> None:
        """As Consumer.nack."""
        _LOOP.run(
            _said(
                lambda: self._consumer.nack(
                    position, delay_ms=delay_ms, reason=reason, untried=untried
                )
            )
        )

    def park(self, position: str, *, reason: str = "") -> None:
        """As Consumer.park."""
        _LOOP.run(_said(lambda: self._consumer.park(position, reason=reason)))


async def _said(what: Callable[[], None]) -> None:
    what()
