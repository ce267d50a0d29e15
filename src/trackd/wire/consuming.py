"""One consumer's call: what it says to its subscription, what it is given by it."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trackd.feed.consumer import CREDITS_MAX, Consumer, Given
from trackd.feed.share_access import ShareAccess
from trackd.feed.subscription import ConsumerStopped, Subscription
from trackd.v1 import feed_pb2
from trackd.wire.calls import Context
from trackd.wire.errors import invalid
from trackd.wire.requests import parsed
from trackd.wire.subscription_messages import (
    CREDITS,
    DELAY_MS_MAX,
    delivery_runs,
    reason_of,
    single_deliveries,
    subscription_message,
    within,
)

_NOTHING = feed_pb2.ConsumeChangesResponse().SerializeToString()

FindShare = Callable[[str, str], tuple[ShareAccess, int]]
"""The share and the position that a change's position text names; the second is the name of the
field that it stands in. Raises CallError."""


async def opening_of(reader: Any) -> feed_pb2.OpenConsumer:
    """The first message of a call. Raises CallError if it is another one, or none comes."""
    async for request in reader:
        asked = parsed(feed_pb2.ConsumeChangesRequest, request)
        if asked.WhichOneof("kind") != "open":
            break
        within("open.credits", asked.open.credits, *CREDITS)
        opening: feed_pb2.OpenConsumer = asked.open
        return opening
    raise _not_first()


async def serve_consumer(
    subscription: Subscription,
    opening: feed_pb2.OpenConsumer,
    reader: Any,
    context: Context,
    *,
    find: FindShare,
    stopping_told: asyncio.Event,
) -> None:
    """One task listens, one gives out; returns when the caller has no more to say.

    Raises CallError, ConsumerStopped, SubscriptionGone.
    """
    opened = feed_pb2.ConsumerOpened(subscription=subscription_message(subscription.document))
    await context.write(feed_pb2.ConsumeChangesResponse(opened=opened).SerializeToString())
    consumer = subscription.join(opening.credits)
    told = _Told(subscription, consumer, find)
    messages = delivery_runs if opening.runs else single_deliveries
    writing = asyncio.Lock()
    tasks = [
        asyncio.ensure_future(each)
        for each in (
            _listen(reader, told),
            _give(context, writing, consumer, messages),
            _stopped(stopping_told),
        )
    ]
    in_order = False
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        listening, giving, stopped = tasks
        if _is_well(listening):
            # A write that is cancelled stays under way, and gRPC takes no other meanwhile.
            async with writing:
                giving.cancel()
                # Who has no more to say, and who is gone, look alike until something is sent.
                await context.write(_NOTHING)
        in_order = _is_well(listening) or stopped.done() or consumer.ended is not None
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()
    finally:
        subscription.leave(consumer, in_order=in_order)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_well(task: "asyncio.Task[None]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


async def _listen(reader: Any, told: "_Told") -> None:
    async for request in reader:
        asked = parsed(feed_pb2.ConsumeChangesRequest, request)
        kind = asked.WhichOneof("kind")
        if kind == "ack":
            told.ack(asked.ack.positions)
        elif kind == "nack":
            told.nack(asked.nack)
        elif kind == "park":
            told.park(asked.park)
        elif kind == "credits":
            told.credit(asked.credits)
        elif kind == "open":
            raise _not_first()
        else:
            raise invalid("kind", "must be one of open, ack, nack, park and credits")


async def _stopped(stopping_told: asyncio.Event) -> None:
    await stopping_told.wait()
    raise ConsumerStopped


def _not_first() -> Exception:
    return invalid("open", "must be the first message, and only the first", "INVALID_FIELD")


class _Told:
    """What one consumer says, handed on to its subscription. Raises CallError."""

    def __init__(
        self,
        subscription: Subscription,
        consumer: Consumer,
        find: FindShare,
    ) -> None:
        self._subscription = subscription
        self._consumer = consumer
        self._find = find

    def ack(self, texts: Sequence[str]) -> None:
        """These are done."""
        by_share: dict[ShareAccess, list[int]] = {}
        find = self._find
        for text in texts:
            share, position = find(text, "ack.positions")
            by_share.setdefault(share, []).append(position)
        for share, done in by_share.items():
            self._subscription.ack(self._consumer, share, done)

    def nack(self, asked: feed_pb2.RejectChange) -> None:
        """This failed."""
        share, position = self._find(asked.position, "nack.position")
        delay_ms = within("nack.delay_ms", asked.delay_ms, 0, DELAY_MS_MAX)
        self._subscription.nack(
            self._consumer,
            share,
            position,
            delay_ms=delay_ms,
            reason=reason_of(asked.reason, "nack.reason"),
            untried=asked.untried,
        )

    def park(self, asked: feed_pb2.ParkChange) -> None:
        """This will never succeed."""
        share, position = self._find(asked.position, "park.position")
        reason = reason_of(asked.reason, "park.reason")
        self._subscription.park(self._consumer, share, position, reason=reason)

    def credit(self, more: int) -> None:
        """So many more at a time."""
        within("credits", more, *CREDITS)
        within("credits", self._consumer.limit + more, 1, CREDITS_MAX)
        self._subscription.add_credit(self._consumer, more)


async def _give(
    context: Context,
    writing: asyncio.Lock,
    consumer: Consumer,
    messages: Callable[[Sequence[Given]], Iterator[bytes]],
) -> None:
    while True:
        for message in messages(await consumer.given()):
            async with writing:
                await context.write(message)
