"""The shares of a subscription in the partitions of this process, at work: read on, timed, saved.

What is done here is the same for a subscription of this process and for one that another worker
leads: only who takes what is ready differs. Answers to `Branch` and `Owner` of share_access.py.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trackd.feed.filters import ALL
from trackd.feed.lane import LaneBounds
from trackd.feed.partition_feed import LogBounds
from trackd.feed.share import Home, Share
from trackd.feed.share_access import Late
from trackd.feed.subscription_settings import SubscriptionDocument, SubscriptionSettings
from trackd.store.keys import SUBSCRIPTION_ID_LENGTH, Table, split_subscription_key

# Beside what may be in flight, so that there is always something ready to go out.
_AHEAD_CHANGES = 1_024
# Rows that are deleted in one batch.
_DELETED_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class SubscriptionBounds:
    """The bounds of one subscription; see settings.py."""

    window_max: int
    waiting_max: int
    parked_max: int


@dataclass(frozen=True, slots=True)
class AlarmRules:
    """When a subscription is close to losing changes: share of what is kept that is left to it.

    retention_ms: how long the log is kept by age; None if it is not trimmed by age.
    """

    share: float
    retention_ms: int | None


class OwnHomes:
    """The partitions of this process. Only the thread of their event loop may call it."""

    def __init__(
        self,
        homes: Sequence[Home],
        bounds: SubscriptionBounds,
        alarm: AlarmRules,
        *,
        partition_count: int,
        now_ms: Callable[[], int],
    ) -> None:
        """partition_count: of the data; what a subscription may hold is shared out over all."""
        self.homes = list(homes)
        self._bounds = bounds
        self._alarm = alarm
        self._partition_count = partition_count
        self._now_ms = now_ms

    def branch(self, document: SubscriptionDocument) -> "OwnBranch":
        """See Owner."""
        settings = document.settings
        bounds = self._lane_bounds(settings)
        shares = [
            Share(
                home,
                document.id,
                settings.rules,
                bounds,
                name=settings.name,
                start=document.start[home.number],
                now_ms=self._now_ms,
            )
            for home in self.homes
        ]
        return OwnBranch(shares, document, self._alarm)

    def _lane_bounds(self, settings: SubscriptionSettings) -> LaneBounds:
        bounds = self._bounds
        return LaneBounds(
            ahead_max=2 * settings.max_in_flight + _AHEAD_CHANGES,
            window_max=max(bounds.window_max, 4 * settings.max_in_flight),
            kept_max=max(bounds.waiting_max // self._partition_count, 1),
            parked_max=max(bounds.parked_max // self._partition_count, 1),
        )

    async def bounds(self) -> Mapping[int, LogBounds]:
        """See Owner."""
        return {
            home.number: LogBounds(home.feed.oldest_position, home.feed.newest_position)
            for home in self.homes
        }

    async def forget(self, subscription_id: bytes) -> None:
        """See Owner. Raises StorageFailed."""
        for home in self.homes:
            await _forget(home, subscription_id)

    async def keep_only(self, known: Callable[[], Iterable[bytes]]) -> None:
        """See Owner. Raises StorageFailed."""
        kept = frozenset(known())
        for home in self.homes:
            start = b""
            while first := next(home.engine.scan_all(Table.SUBSCRIPTIONS, start), None):
                found, _, _ = split_subscription_key(first[0])
                if found not in kept:
                    await _forget(home, found)
                following = int.from_bytes(found, "big") + 1
                if following >> 8 * SUBSCRIPTION_ID_LENGTH:
                    break
                start = following.to_bytes(SUBSCRIPTION_ID_LENGTH, "big")


async def _forget(home: Home, subscription_id: bytes) -> None:
    rows = home.engine.scan_prefix(Table.SUBSCRIPTIONS, subscription_id)
    keys: list[tuple[bytes, bytes | None]] = [(key, None) for key, _ in rows]
    for first in range(0, len(keys), _DELETED_AT_ONCE):
        some = keys[first : first + _DELETED_AT_ONCE]
        await home.committer.put_aside([(Table.SUBSCRIPTIONS, some)])


class OwnBranch:
    """See above. Only the thread of the partitions' event loop may call it."""

    def __init__(
        self, shares: Sequence[Share], document: SubscriptionDocument, alarm: AlarmRules
    ) -> None:
        self.shares = list(shares)
        self._alarm = alarm
        self._wanted = ALL
        self.follow(document)
        self._read_to_the_end = [asyncio.Event() for _ in self.shares]
        self._wake: Callable[[], None] = _nobody
        self._late: Callable[[int, Late], None] = _nobody
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ms: int | None = None

    def work(
        self, wake: Callable[[], None], late: Callable[[int, Late], None]
    ) -> list[Coroutine[Any, Any, None]]:
        """See Branch."""
        self._wake, self._late = wake, late
        work = []
        for share, read_to_the_end in zip(self.shares, self._read_to_the_end, strict=True):
            work += [share.keep_saving(), self._watch(share, read_to_the_end)]
        return work

    def follow(self, document: SubscriptionDocument) -> None:
        """See Branch."""
        made = document.settings.filter.made()
        self._wanted = ALL if made.wants_all else made
        for share in self.shares:
            share.lanes.rules = document.settings.rules

    async def save(self) -> None:
        """See Branch. Raises StorageFailed."""
        await asyncio.gather(*(share.save() for share in self.shares))

    async def close(self) -> None:
        """See Branch. Raises StorageFailed."""
        if self._timer:
            self._timer.cancel()
        await self.save()

    async def refresh(self) -> None:
        """See Branch."""

    # Turns.

    async def _watch(self, share: Share, read_to_the_end: asyncio.Event) -> None:
        """Wakes when there is something newer in a partition than was read."""
        while True:
            self._wake()
            await read_to_the_end.wait()
            await share.home.feed.newer(share.lanes.progress.read_position)
            read_to_the_end.clear()

    def read_on(self, now_ms: int) -> bool:
        """See Branch. Raises DataDamaged."""
        more = False
        for share, read_to_the_end in zip(self.shares, self._read_to_the_end, strict=True):
            if late := share.lanes.tick(now_ms):
                self._late(share.number, late)
            if share.lanes.is_dirty:
                share.unsaved.set()
            if share.may_read():
                share.read(self._wanted)
                more = more or share.may_read()
            if share.lanes.progress.read_position >= share.home.feed.newest_position:
                read_to_the_end.set()
        return more

    def set_timer(self, now_ms: int) -> None:
        """Has a turn when the next delivery times out, or the next attempt is due."""
        due = [share.lanes.next_due_ms() for share in self.shares]
        soonest = min((each for each in due if each is not None), default=None)
        if soonest == self._timer_at_ms:
            return
        self._timer_at_ms = soonest
        if self._timer:
            self._timer.cancel()
        if soonest is not None:
            delay_s = max(soonest - now_ms, 1) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._timer_rang)

    def _timer_rang(self) -> None:
        self._timer_at_ms = None
        self._wake()

    # How near the end of the log it is.

    def look(self) -> None:
        """See Branch."""
        for share in self.shares:
            share.let_go()
            share.is_near = self._near_the_end(share)

    def _near_the_end(self, share: Share) -> bool:
        feed, rules = share.home.feed, self._alarm
        cursor = share.lanes.progress.cursor
        if cursor >= feed.newest_position:
            return False
        if rules.retention_ms and share.lag_ms > rules.retention_ms * (1 - rules.share):
            return True
        kept = feed.newest_position - feed.oldest_position + 1
        trimmed = feed.oldest_position > 1
        return trimmed and cursor + 1 - feed.oldest_position < kept * rules.share


def _nobody(*_: object) -> None:
    """Before the work begins there is nobody to tell."""
