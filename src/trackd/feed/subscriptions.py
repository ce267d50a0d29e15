"""The named subscriptions of a process: made, changed, deleted, and found again by a start.

A subscription exists by its document; its rows in the partitions follow. So a deletion removes the
document first, and rows whose document is gone are cleared away by the next start.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import structlog

from trackd.feed.lane import LaneBounds
from trackd.feed.share import Home, Share
from trackd.feed.subscription import (
    AlarmRules,
    ConsumerStopped,
    Subscription,
    SubscriptionGone,
)
from trackd.feed.subscription_settings import (
    DOCUMENT_KIND,
    SubscriptionDocument,
    SubscriptionSettings,
)
from trackd.store.documents import Documents
from trackd.store.errors import DataDamaged
from trackd.store.keys import SUBSCRIPTION_ID_LENGTH, Table, split_subscription_key

# Beside what may be in flight, so that there is always something ready to go out.
_AHEAD_CHANGES = 1_024

_log = structlog.get_logger()


class SubscriptionExists(Exception):
    """There is one of that name with other settings."""


class SubscriptionUnknown(Exception):
    """There is none of that name."""


class TooManySubscriptions(Exception):
    """There are as many as may be."""


@dataclass(frozen=True, slots=True)
class SubscriptionBounds:
    """The bounds of subscriptions; see settings.py. All but the first are of one subscription."""

    subscriptions_max: int
    window_max: int
    waiting_max: int
    parked_max: int


class Subscriptions:
    """See above. Only the thread of the event loop may call it."""

    def __init__(
        self,
        homes: Sequence[Home],
        documents: Documents,
        data_set_id: str,
        bounds: SubscriptionBounds,
        alarm: AlarmRules,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self.homes = list(homes)
        self._documents = documents
        self._data_set_id = data_set_id
        self._bounds = bounds
        self._alarm = alarm
        self._now_ms = now_ms
        self._subscriptions: dict[str, Subscription] = {}
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
        known = set()
        for name, document in self._documents.list(DOCUMENT_KIND):
            try:
                subscription = SubscriptionDocument.decoded(document)
            except (ValueError, KeyError, TypeError) as error:
                raise DataDamaged(f"the document of subscription {name!r}: {error}") from error
            if subscription.data_set_id != self._data_set_id:
                subscription = await self._taken_over(subscription)
            known.add(subscription.id)
            self._begin(subscription)
        await self._clear_away_rows_of_others(known)

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
            start=self.earliest(),
        )
        await self._documents.put(DOCUMENT_KIND, {anew.settings.name: anew.encoded()})
        return anew

    async def _clear_away_rows_of_others(self, known: set[bytes]) -> None:
        for home in self.homes:
            start = b""
            while first := next(home.engine.scan_all(Table.SUBSCRIPTIONS, start), None):
                found, _, _ = split_subscription_key(first[0])
                if found not in known:
                    rows = home.engine.scan_prefix(Table.SUBSCRIPTIONS, found)
                    await home.committer.put_aside(
                        [(Table.SUBSCRIPTIONS, [(key, None) for key, _ in rows])]
                    )
                following = int.from_bytes(found, "big") + 1
                if following >> 8 * SUBSCRIPTION_ID_LENGTH:
                    break
                start = following.to_bytes(SUBSCRIPTION_ID_LENGTH, "big")

    async def close(self) -> None:
        """Ends every subscription and saves what its consumers said. Raises StorageFailed."""
        for subscription in self:
            await subscription.stop(ConsumerStopped())
            await subscription.save()

    def stop_consumers(self) -> None:
        """Ends the consumers of every subscription: the server stops."""
        for subscription in self:
            subscription.end_consumers(ConsumerStopped())

    def _begin(self, document: SubscriptionDocument) -> Subscription:
        settings = document.settings
        bounds = LaneBounds(
            ahead_max=2 * settings.max_in_flight + _AHEAD_CHANGES,
            window_max=max(self._bounds.window_max, 4 * settings.max_in_flight),
            kept_max=max(self._bounds.waiting_max // len(self.homes), 1),
            parked_max=max(self._bounds.parked_max // len(self.homes), 1),
        )
        shares = [
            Share(
                home,
                document.id,
                settings.rules,
                bounds,
                start=document.start[home.number],
                now_ms=self._now_ms,
            )
            for home in self.homes
        ]
        subscription = Subscription(document, shares, self._alarm, now_ms=self._now_ms)
        self._subscriptions[settings.name] = subscription
        subscription.start()
        return subscription

    # Where one may start.

    def newest(self) -> tuple[int, ...]:
        """After everything that is durable now."""
        return tuple(home.feed.newest_position for home in self.homes)

    def earliest(self) -> tuple[int, ...]:
        """Before everything that is kept."""
        return tuple(home.feed.oldest_position - 1 for home in self.homes)

    # Changes.

    async def create(
        self, settings: SubscriptionSettings, start: Sequence[int], start_text: str
    ) -> Subscription:
        """Makes one that begins after the positions `start`; or finds it, made like that before.

        start_text: how the caller said where, by which a repeat is known. Raises
        SubscriptionExists, TooManySubscriptions, SpaceLow, StorageFailed.
        """
        async with self._changing:
            found = self._subscriptions.get(settings.name)
            if found:
                if (found.settings, found.document.start_text) != (settings, start_text):
                    raise SubscriptionExists(settings.name)
                return found
            if len(self._subscriptions) >= self._bounds.subscriptions_max:
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
            return self._begin(document)

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
            await found.stop(SubscriptionGone())
            for share in found.shares:
                await share.forget()
