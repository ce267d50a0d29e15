"""The named subscriptions of a process: made, changed, deleted, and found again by a start.

A subscription exists by its document; its rows in the partitions follow. So a deletion removes the
document first, and rows whose document is gone are cleared away by the next start. The partitions
may be those of several workers: each is an `Owner`, and one process leads all subscriptions.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import structlog

from trackd.feed.partition_feed import LogBounds
from trackd.feed.share import OLDEST_KEPT
from trackd.feed.share_access import Owner
from trackd.feed.subscription import ConsumerStopped, Subscription, SubscriptionGone
from trackd.feed.subscription_settings import (
    DOCUMENT_KIND,
    SubscriptionDocument,
    SubscriptionSettings,
)
from trackd.store.documents import Documents
from trackd.store.errors import DataDamaged
from trackd.store.keys import SUBSCRIPTION_ID_LENGTH

# How often is looked whether all consumers that were told to go have gone.
_LEAVING_POLL_S = 0.005

_log = structlog.get_logger()


class SubscriptionExists(Exception):
    """There is one of that name with other settings."""


class SubscriptionUnknown(Exception):
    """There is none of that name."""


class TooManySubscriptions(Exception):
    """There are as many as may be."""


class Subscriptions:
    """See above. Only the thread of the event loop may call it."""

    def __init__(
        self,
        owners: Sequence[Owner],
        documents: Documents,
        data_set_id: str,
        *,
        partition_count: int,
        subscriptions_max: int,
        bounded_elsewhere: Callable[[str], bool],
        now_ms: Callable[[], int],
    ) -> None:
        """owners: of all partitions together, this process first.

        bounded_elsewhere: whether subscriptions_max leaves one of this name out, as something else
        bounds them.
        """
        self._owners = list(owners)
        self._documents = documents
        self._data_set_id = data_set_id
        self._partition_count = partition_count
        self._subscriptions_max = subscriptions_max
        self._bounded_elsewhere = bounded_elsewhere
        self._now_ms = now_ms
        self._subscriptions: dict[str, Subscription] = {}
        # The id of each: rows of all others are of deleted ones.
        self._known: set[bytes] = set()
        # One change of the documents at a time.
        self._changing = asyncio.Lock()

    def __iter__(self) -> Iterator[Subscription]:
        """Every subscription, by name. Of this moment: others may come and go meanwhile."""
        return iter([each for _, each in sorted(self._subscriptions.items())])

    def __len__(self) -> int:
        return len(self._subscriptions)

    def get(self, name: str) -> Subscription:
        """The subscription of that name. Raises SubscriptionUnknown."""
        if (found := self._subscriptions.get(name)) is None:
            raise SubscriptionUnknown(name)
        return found

    # Life.

    async def open(self) -> None:
        """Takes up every subscription where it was. Raises DataDamaged, StorageFailed."""
        documents = []
        for name, document in self._documents.list(DOCUMENT_KIND):
            try:
                subscription = SubscriptionDocument.decoded(document)
            except (ValueError, KeyError, TypeError) as error:
                raise DataDamaged(f"the document of subscription {name!r}: {error}") from error
            if subscription.data_set_id != self._data_set_id:
                subscription = await self._taken_over(subscription)
            documents.append(subscription)
        self._known = {each.id for each in documents}
        for owner in self._owners:
            await owner.keep_only(lambda: self._known)
        for each in documents:
            self._begin(each)

    async def _taken_over(self, document: SubscriptionDocument) -> SubscriptionDocument:
        """Data was lost, so positions mean something else now: everything that is kept again."""
        _log.warning(
            "a subscription begins anew: its positions are of another data set",
            name=document.settings.name,
        )
        anew = replace(
            document,
            id=secrets.token_bytes(SUBSCRIPTION_ID_LENGTH),
            data_set_id=self._data_set_id,
            start=(OLDEST_KEPT,) * self._partition_count,
        )
        await self._documents.put(DOCUMENT_KIND, {anew.settings.name: anew.encoded()})
        return anew

    async def close(self) -> None:
        """Ends every subscription and saves what its consumers said. Raises StorageFailed."""
        for subscription in self:
            await subscription.stop(ConsumerStopped())
            await subscription.close()

    async def settle(self) -> None:
        """Ends all consumers, who are told that the server stops, and saves what they said.

        Raises as ShareAccess does.
        """
        for subscription in self:
            subscription.end_consumers(ConsumerStopped())
        while any(subscription.consumers for subscription in self):  # noqa: ASYNC110 (they see to it at once)
            await asyncio.sleep(_LEAVING_POLL_S)
        for subscription in self:
            await subscription.save()

    def _begin(self, document: SubscriptionDocument) -> Subscription:
        branches = [owner.branch(document) for owner in self._owners]
        subscription = Subscription(document, branches, now_ms=self._now_ms)
        self._subscriptions[document.settings.name] = subscription
        subscription.start()
        return subscription

    async def bounds(self) -> Mapping[int, LogBounds]:
        """What the logs of all partitions hold. Raises as Owner does."""
        found = await asyncio.gather(*(owner.bounds() for owner in self._owners))
        return {number: bounds for each in found for number, bounds in sorted(each.items())}

    # Changes.

    async def create(
        self, settings: SubscriptionSettings, start: Sequence[int], start_text: str
    ) -> Subscription:
        """Makes one that begins after the positions `start`; or finds it, made like that before.

        start_text: how the caller said where, by which a repeat is known. Raises
        SubscriptionExists, TooManySubscriptions, SpaceLow, StorageFailed.
        """
        async with self._changing:
            if found := self.made_before(settings, start_text):
                return found
            if self._is_full_for(settings.name):
                raise TooManySubscriptions
            document = SubscriptionDocument(
                id=secrets.token_bytes(SUBSCRIPTION_ID_LENGTH),
                data_set_id=self._data_set_id,
                start=tuple(start),
                start_text=start_text,
                created_at_ms=self._now_ms(),
                settings=settings,
            )
            await self._documents.put(DOCUMENT_KIND, {settings.name: document.encoded()})
            self._known.add(document.id)
            return self._begin(document)

    def _is_full_for(self, name: str) -> bool:
        if self._bounded_elsewhere(name):
            return False
        counted = sum(not self._bounded_elsewhere(each) for each in self._subscriptions)
        return counted >= self._subscriptions_max

    def made_before(self, settings: SubscriptionSettings, start_text: str) -> Subscription | None:
        """The one that was made like that. Raises SubscriptionExists."""
        found = self._subscriptions.get(settings.name)
        if found and (found.settings, found.document.start_text) != (settings, start_text):
            raise SubscriptionExists(settings.name)
        return found

    async def update(self, settings: SubscriptionSettings) -> Subscription:
        """Replaces all settings. Raises SubscriptionUnknown, SpaceLow, StorageFailed."""
        async with self._changing:
            found = self.get(settings.name)
            document = replace(found.document, settings=settings)
            await self._documents.put(DOCUMENT_KIND, {settings.name: document.encoded()})
            found.update(document)
            return found

    async def delete(self, name: str) -> None:
        """Deletes one, with its place and its parked changes.

        Raises SubscriptionUnknown, StorageFailed.
        """
        async with self._changing:
            found = self.get(name)
            await self._documents.put(DOCUMENT_KIND, {name: None})
            del self._subscriptions[name]
            self._known.discard(found.document.id)
            await found.stop(SubscriptionGone())
            for owner in self._owners:
                await owner.forget(found.document.id)
