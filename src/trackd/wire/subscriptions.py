"""The named subscriptions of FeedService: settings, consumers, parked changes."""

import base64
import binascii
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from struct import Struct
from typing import Any

import grpc

from trackd.feed.change import varint
from trackd.feed.share import Share
from trackd.feed.subscription import ConsumerStopped, Subscription, SubscriptionGone
from trackd.feed.subscriptions import (
    SubscriptionExists,
    Subscriptions,
    SubscriptionUnknown,
    TooManySubscriptions,
)
from trackd.v1 import feed_pb2
from trackd.wire import positions
from trackd.wire.calls import Calls, Context
from trackd.wire.consuming import FindShare, opening_of, parsed, serve_consumer
from trackd.wire.errors import CallError, invalid, stopping
from trackd.wire.subscription_messages import (
    EARLIEST,
    NOW,
    exists,
    name_of,
    not_found,
    parked_message,
    settings_of,
    start_of,
    subscription_message,
    too_many,
    within,
)

PAGE_SIZE_MAX = 500
PAGE_SIZE_DEFAULT = 100
POSITIONS_MAX = 1_000
# What a page holds beside its changes.
_ANSWER_RESERVE_BYTES = 128 << 10
# Parked changes that are looked at between two saves.
_PARKED_AT_ONCE = 500


_Act = Callable[[Share, int], bool]  # what is done to a parked change; whether it was


class SubscriptionService:
    """Answers for the subscriptions of this process."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        data_set_id: str,
        calls: Calls,
        *,
        subscriptions_max: int,
        response_bytes_max: int,
    ) -> None:
        self._subscriptions = subscriptions
        self._data_set_id = data_set_id
        self._calls = calls
        self._subscriptions_max = subscriptions_max
        self._response_bytes_max = response_bytes_max

    # Settings.

    async def create_subscription(self, request: bytes, _: Context) -> bytes:
        """CreateSubscription."""
        asked = parsed(feed_pb2.CreateSubscriptionRequest, request).subscription
        settings, start_text = settings_of(asked), start_of(asked)
        if start_text == NOW:
            start = self._subscriptions.newest()
        elif start_text == EARLIEST:
            start = self._subscriptions.earliest()
        else:
            start = self._start_after(start_text)
        try:
            made = await self._subscriptions.create(settings, start, start_text)
        except SubscriptionExists:
            raise exists(settings.name) from None
        except TooManySubscriptions:
            raise too_many(self._subscriptions_max) from None
        return feed_pb2.CreateSubscriptionResponse(
            subscription=subscription_message(made.document)
        ).SerializeToString()

    def _start_after(self, resume_token: str) -> tuple[int, ...]:
        """The positions of a resume token, which must all be in the log, or be its end."""
        field = "subscription.start.resume_token"
        found = positions.parse(resume_token, self._data_set_id, field)
        newest, earliest = self._subscriptions.newest(), self._subscriptions.earliest()
        if sorted(found) != list(range(len(newest))):
            raise invalid(field, "is not a resume token of this server", "INVALID_POSITION")
        start = tuple(found[number] for number in range(len(newest)))
        if any(position > last for position, last in zip(start, newest, strict=True)):
            raise positions.future(field)
        if any(position < first for position, first in zip(start, earliest, strict=True)):
            raise CallError(
                grpc.StatusCode.OUT_OF_RANGE,
                "POSITION_EXPIRED",
                f"{field}: what follows it is not kept any more",
                {"oldest_resume_token": positions.token(self._data_set_id, enumerate(earliest))},
            )
        return start

    async def get_subscription(self, request: bytes, _: Context) -> bytes:
        """GetSubscription."""
        found = self._named(parsed(feed_pb2.GetSubscriptionRequest, request).name)
        return feed_pb2.GetSubscriptionResponse(
            subscription=subscription_message(found.document),
            progress=feed_pb2.SubscriptionProgress(**asdict(found.figures())),
        ).SerializeToString()

    async def list_subscriptions(self, _request: bytes, _: Context) -> bytes:
        """ListSubscriptions."""
        return feed_pb2.ListSubscriptionsResponse(
            subscriptions=[subscription_message(each.document) for each in self._subscriptions]
        ).SerializeToString()

    async def update_subscription(self, request: bytes, _: Context) -> bytes:
        """UpdateSubscription."""
        asked = parsed(feed_pb2.UpdateSubscriptionRequest, request).subscription
        settings = settings_of(asked)
        try:
            updated = await self._subscriptions.update(settings)
        except SubscriptionUnknown:
            raise not_found(settings.name) from None
        return feed_pb2.UpdateSubscriptionResponse(
            subscription=subscription_message(updated.document)
        ).SerializeToString()

    async def delete_subscription(self, request: bytes, _: Context) -> bytes:
        """DeleteSubscription."""
        name = name_of(parsed(feed_pb2.DeleteSubscriptionRequest, request).name)
        try:
            await self._subscriptions.delete(name)
        except SubscriptionUnknown:
            raise not_found(name) from None
        return feed_pb2.DeleteSubscriptionResponse().SerializeToString()

    def _named(self, name: str) -> Subscription:
        try:
            return self._subscriptions.get(name_of(name))
        except SubscriptionUnknown:
            raise not_found(name) from None

    # Consumers.

    async def consume_changes(self, requests: Any, context: Context) -> None:
        """ConsumeChanges."""
        reader = aiter(requests)
        opening = await opening_of(reader)
        subscription = self._named(opening.name)
        try:
            await serve_consumer(
                subscription,
                opening,
                reader,
                context,
                find=self._share_of(subscription),
                stopping_told=self._calls.stopping,
            )
        except ConsumerStopped:
            raise stopping() from None
        except SubscriptionGone:
            raise not_found(opening.name) from None

    def _share_of(self, subscription: Subscription) -> FindShare:
        """A function that finds the share and the position in a change's position text."""
        data_set_id = self._data_set_id
        shares = {f"{data_set_id}/{each.home.number}": each for each in subscription.shares}

        def find(text: str, field: str) -> tuple[Share, int]:
            prefix, _, number = text.rpartition(".")
            share = shares.get(prefix)
            if share is not None and number.isascii() and number.isdigit():
                return share, int(number)
            positions.parse(text, data_set_id, field)
            raise invalid(field, "is not the position of a change", "INVALID_POSITION")

        return find

    # Parked changes.

    async def list_parked_changes(self, request: bytes, _: Context) -> bytes:
        """ListParkedChanges."""
        asked = parsed(feed_pb2.ListParkedChangesRequest, request)
        found = self._named(asked.name)
        within("page_size", asked.page_size, 0, PAGE_SIZE_MAX)
        after = _place_in(asked.page_token, found.document.id) if asked.page_token else (0, -1)
        await found.save()
        parts: list[bytes] = []
        size, token = 0, ""
        last = after
        for place, message in _parked_from(found.shares, after):
            size += len(message)
            full = len(parts) == (asked.page_size or PAGE_SIZE_DEFAULT)
            if parts and (full or size > self._response_bytes_max - _ANSWER_RESERVE_BYTES):
                token = _page_token(found.document.id, last)
                break
            parts.append(message)
            last = place
        page = feed_pb2.ListParkedChangesResponse(next_page_token=token).SerializeToString()
        return b"".join([*(b"\x0a" + varint(len(each)) + each for each in parts), page])

    async def redrive_parked_changes(self, request: bytes, _: Context) -> bytes:
        """RedriveParkedChanges."""
        asked = parsed(feed_pb2.RedriveParkedChangesRequest, request)
        count = await self._each_parked(asked, _redrive)
        return feed_pb2.RedriveParkedChangesResponse(redriven=count).SerializeToString()

    async def drop_parked_changes(self, request: bytes, _: Context) -> bytes:
        """DropParkedChanges."""
        asked = parsed(feed_pb2.DropParkedChangesRequest, request)
        count = await self._each_parked(asked, _drop)
        return feed_pb2.DropParkedChangesResponse(dropped=count).SerializeToString()

    async def _each_parked(self, asked: Any, act: _Act) -> int:
        """Does it to the parked changes that are asked for; to how many. Durable then."""
        found = self._named(asked.name)
        if bool(asked.positions) == asked.all:
            raise invalid("positions", "either positions or all", "INVALID_FIELD")
        within("positions", len(asked.positions), 0, POSITIONS_MAX)
        find = self._share_of(found)
        wanted = [find(text, "positions") for text in asked.positions]
        await found.save()
        count = 0
        try:
            for share, position in dict.fromkeys(wanted):
                count += act(share, position)
            for share in found.shares if asked.all else ():
                count += await _all_parked(share, act)
        finally:
            await found.save()
            found.wake()
        return count


def _redrive(share: Share, position: int) -> bool:
    parked = share.parked_at(position)
    return parked is not None and share.redrive(*parked)


def _drop(share: Share, position: int) -> bool:
    parked = share.parked_at(position)
    if parked is None:
        return False
    share.drop(parked[0])
    return True


async def _all_parked(share: Share, act: _Act) -> int:
    """Does it to every change that was parked when it began, until one is refused."""
    count, after, end = 0, -1, share.home.feed.newest_position
    while True:
        rows = itertools.islice(share.parked(after), _PARKED_AT_ONCE)
        some = [parked.position for parked, _ in rows]
        for position in some:
            if position > end or not act(share, position):
                return count
            count += 1
            after = position
        if not some:
            return count
        await share.save()


def _parked_from(
    shares: Sequence[Share], after: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], bytes]]:
    """The parked changes after (partition, position), by both, as messages."""
    number, position = after
    for share in shares:
        if share.home.number < number:
            continue
        start = position if share.home.number == number else -1
        for parked, wire in share.parked(start):
            yield (share.home.number, parked.position), parked_message(parked, wire)


# A page token is base64 of: the subscription's id, and the partition and position to go on after.
_PLACE = Struct(">HQ")


def _page_token(subscription_id: bytes, place: tuple[int, int]) -> str:
    return base64.urlsafe_b64encode(subscription_id + _PLACE.pack(*place)).decode()


def _place_in(token: str, subscription_id: bytes) -> tuple[int, int]:
    try:
        decoded = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != len(subscription_id) + _PLACE.size:
        raise invalid("page_token", "is not a page token of this server", "INVALID_PAGE_TOKEN")
    if not decoded.startswith(subscription_id):
        raise invalid("page_token", "belongs to another subscription", "INVALID_PAGE_TOKEN")
    number, position = _PLACE.unpack_from(decoded, len(subscription_id))
    return number, position
