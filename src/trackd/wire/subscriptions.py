"""The named subscriptions of FeedService: settings, consumers, parked changes."""

import base64
import binascii
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from struct import Struct
from typing import Any

import grpc

from trackd.feed.change import varint
from trackd.feed.partition_feed import LogBounds
from trackd.feed.share_access import ParkedAct, ShareAccess
from trackd.feed.subscription import ConsumerStopped, Subscription, SubscriptionGone
from trackd.feed.subscription_settings import SubscriptionSettings
from trackd.feed.subscriptions import (
    SubscriptionExists,
    Subscriptions,
    SubscriptionUnknown,
    TooManySubscriptions,
)
from trackd.v1 import feed_pb2
from trackd.wire import positions
from trackd.wire.calls import Behaviour, Calls, Context, to_its_end
from trackd.wire.consuming import FindShare, opening_of, serve_consumer
from trackd.wire.endpoint_rules import endpoint_of
from trackd.wire.errors import CallError, invalid, stopping
from trackd.wire.listing import page
from trackd.wire.requests import parsed
from trackd.wire.subscription_messages import (
    EARLIEST,
    NOW,
    exists,
    name_of,
    not_found,
    of_an_endpoint,
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
# Parked changes that are read at once.
_PARKED_AT_ONCE_BYTES = 96 << 10
# What a page holds beside its changes.
_ANSWER_RESERVE_BYTES = 128 << 10


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

    @property
    def calls(self) -> Mapping[str, Behaviour]:
        """What answers each method that is about subscriptions, but ConsumeChanges."""
        return {
            "CreateSubscription": to_its_end(self.create_subscription),
            "GetSubscription": self.get_subscription,
            "ListSubscriptions": self.list_subscriptions,
            "UpdateSubscription": to_its_end(self.update_subscription),
            "DeleteSubscription": to_its_end(self.delete_subscription),
            "ListParkedChanges": self.list_parked_changes,
            "RedriveParkedChanges": to_its_end(self.redrive_parked_changes),
            "DropParkedChanges": to_its_end(self.drop_parked_changes),
        }

    # Settings.

    async def create_subscription(self, request: bytes, _: Context) -> bytes:
        """CreateSubscription."""
        asked = parsed(feed_pb2.CreateSubscriptionRequest, request).subscription
        _refuse_endpoints(name_of(asked.name, "subscription.name"))
        made = await self.create(asked)
        return feed_pb2.CreateSubscriptionResponse(
            subscription=subscription_message(made.document)
        ).SerializeToString()

    async def create(self, asked: feed_pb2.Subscription) -> Subscription:
        """Makes one, or finds it, made like that before. Raises CallError."""
        settings, start_text = settings_of(asked), start_of(asked)
        try:
            made = self._subscriptions.made_before(settings, start_text)
            if not made:
                start = self._start(start_text, await self._subscriptions.bounds())
                made = await self._subscriptions.create(settings, start, start_text)
        except SubscriptionExists:
            raise exists(settings.name) from None
        except TooManySubscriptions:
            raise too_many(self._subscriptions_max) from None
        return made

    def _start(self, text: str, logs: Mapping[int, LogBounds]) -> tuple[int, ...]:
        """The position to start after, by partition."""
        newest = tuple(logs[number].newest_position for number in range(len(logs)))
        earliest = tuple(logs[number].oldest_position - 1 for number in range(len(logs)))
        if text == NOW:
            return newest
        if text == EARLIEST:
            return earliest
        return self._start_after(text, earliest=earliest, newest=newest)

    def _start_after(
        self, resume_token: str, *, earliest: Sequence[int], newest: Sequence[int]
    ) -> tuple[int, ...]:
        """The positions of a resume token, which must all be in the log, or be its end."""
        field = "subscription.start.resume_token"
        found = positions.parse(resume_token, self._data_set_id, field)
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
            progress=feed_pb2.SubscriptionProgress(**asdict(await found.refreshed())),
        ).SerializeToString()

    async def list_subscriptions(self, request: bytes, _: Context) -> bytes:
        """ListSubscriptions."""
        asked = parsed(feed_pb2.ListSubscriptionsRequest, request)
        items = (
            (each.settings.name, subscription_message(each.document).SerializeToString())
            for each in self._subscriptions
        )
        return page(
            items,
            page_size=asked.page_size,
            page_token=asked.page_token,
            bytes_max=self._response_bytes_max,
        )

    async def update_subscription(self, request: bytes, _: Context) -> bytes:
        """UpdateSubscription."""
        asked = parsed(feed_pb2.UpdateSubscriptionRequest, request).subscription
        self._refuse_what_is_the_endpoints(settings_of(asked))
        updated = await self.update(asked)
        return feed_pb2.UpdateSubscriptionResponse(
            subscription=subscription_message(updated.document)
        ).SerializeToString()

    async def update(self, asked: feed_pb2.Subscription) -> Subscription:
        """Replaces its settings. Raises CallError."""
        settings = settings_of(asked)
        try:
            return await self._subscriptions.update(settings)
        except SubscriptionUnknown:
            raise not_found(settings.name) from None

    def _refuse_what_is_the_endpoints(self, asked: SubscriptionSettings) -> None:
        """An endpoint would be told something else than it shows. Its schedule may be changed."""
        endpoint_id = endpoint_of(asked.name)
        if endpoint_id is None:
            return
        kept = self._named(asked.name).settings
        if (asked.filter, asked.supersede) != (kept.filter, kept.supersede):
            raise of_an_endpoint(asked.name, endpoint_id)

    def message(self, name: str) -> feed_pb2.Subscription | None:
        """The settings of one; None if there is none."""
        try:
            return subscription_message(self._subscriptions.get(name).document)
        except SubscriptionUnknown:
            return None

    async def delete_subscription(self, request: bytes, _: Context) -> bytes:
        """DeleteSubscription."""
        name = name_of(parsed(feed_pb2.DeleteSubscriptionRequest, request).name)
        _refuse_endpoints(name)
        await self.delete(name)
        return feed_pb2.DeleteSubscriptionResponse().SerializeToString()

    async def delete(self, name: str) -> None:
        """Deletes one. Raises CallError."""
        try:
            await self._subscriptions.delete(name)
        except SubscriptionUnknown:
            raise not_found(name) from None

    @property
    def names(self) -> list[str]:
        """Of every subscription, in order."""
        return [each.settings.name for each in self._subscriptions]

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
        shares = {f"{data_set_id}/{each.number}": each for each in subscription.shares}

        def find(text: str, field: str) -> tuple[ShareAccess, int]:
            prefix, _, number = text.rpartition(".")
            share = shares.get(prefix)
            if share is not None and (position := positions.number_of(number)) is not None:
                return share, position
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
        size_max = asked.page_size or PAGE_SIZE_DEFAULT
        bytes_max = self._response_bytes_max - _ANSWER_RESERVE_BYTES
        await found.save()
        parts: list[bytes] = []
        size, token = 0, ""
        last = after
        async for place, message in _parked_from(found.shares, after, count_max=size_max + 1):
            size += len(message)
            if parts and (len(parts) == size_max or size > bytes_max):
                token = _page_token(found.document.id, last)
                break
            parts.append(message)
            last = place
        page = feed_pb2.ListParkedChangesResponse(next_page_token=token).SerializeToString()
        return b"".join([*(b"\x0a" + varint(len(each)) + each for each in parts), page])

    async def redrive_parked_changes(self, request: bytes, _: Context) -> bytes:
        """RedriveParkedChanges."""
        asked = parsed(feed_pb2.RedriveParkedChangesRequest, request)
        count = await self._each_parked(asked, ParkedAct.REDRIVE)
        return feed_pb2.RedriveParkedChangesResponse(redriven=count).SerializeToString()

    async def drop_parked_changes(self, request: bytes, _: Context) -> bytes:
        """DropParkedChanges."""
        asked = parsed(feed_pb2.DropParkedChangesRequest, request)
        count = await self._each_parked(asked, ParkedAct.DROP)
        return feed_pb2.DropParkedChangesResponse(dropped=count).SerializeToString()

    async def _each_parked(self, asked: Any, act: ParkedAct) -> int:
        """Does it to the parked changes that are asked for; to how many. Durable then."""
        found = self._named(asked.name)
        if bool(asked.positions) == asked.all:
            raise invalid("positions", "either positions or all", "INVALID_FIELD")
        within("positions", len(asked.positions), 0, POSITIONS_MAX)
        find = self._share_of(found)
        wanted: dict[ShareAccess, list[int]] = {}
        for text in asked.positions:
            share, position = find(text, "positions")
            wanted.setdefault(share, []).append(position)
        count = 0
        try:
            for share in found.shares if asked.all else wanted:
                count += await share.act_on_parked(act, wanted.get(share))
        finally:
            found.wake()
        return count


def _refuse_endpoints(name: str) -> None:
    """An endpoint without its subscription would be told nothing, and nobody would notice."""
    endpoint_id = endpoint_of(name)
    if endpoint_id is not None:
        raise of_an_endpoint(name, endpoint_id)


async def _parked_from(
    shares: Sequence[ShareAccess], after: tuple[int, int], *, count_max: int
) -> AsyncIterator[tuple[tuple[int, int], bytes]]:
    """The parked changes after (partition, position), by both, as messages.

    count_max: how many are wanted, at most.
    """
    number, position = after
    for share in shares:
        if share.number < number:
            continue
        start, more = position if share.number == number else -1, True
        while more:
            some, more = await share.parked(
                start, count_max=count_max, bytes_max=_PARKED_AT_ONCE_BYTES
            )
            for parked, wire in some:
                start = parked.position
                yield (share.number, start), parked_message(parked, wire)


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
