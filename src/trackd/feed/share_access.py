"""What a subscription asks of its shares, wherever they are: here or with another worker.

A share is one subscription in one partition; a branch is all shares of one subscription with one
worker; an owner is a worker, as the owner of partitions. Two things answer to each: `Share`,
`OwnBranch` and `OwnHomes` in this room, and their remote counterparts in `cluster/`.
"""

import enum
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trackd.feed.consumer import Consumer
from trackd.feed.lane import StoredChange
from trackd.feed.partition_feed import LogBounds
from trackd.feed.subscription_settings import SubscriptionDocument


class ParkedAct(enum.IntEnum):
    """What is done to parked changes."""

    REDRIVE = 1
    DROP = 2


@dataclass(frozen=True, slots=True)
class ShareFigures:
    """How far a share is, at one moment. Counts are of its life in its process.

    is_near: whether the log is about to be trimmed up to its cursor.
    """

    lag: int = 0
    lag_ms: int = 0
    in_flight: int = 0
    waiting: int = 0
    parked: int = 0
    acknowledged: int = 0
    redelivered: int = 0
    superseded: int = 0
    expired: int = 0
    is_near: bool = False


ParkedRows = tuple[list[tuple[StoredChange, bytes]], bool]
"""Parked changes with their wire bytes, in order; and whether there are more."""


class ShareAccess(Protocol):
    """One subscription in one partition.

    What goes wrong with another worker is told as its CallError; see Share for the rest.
    """

    @property
    def number(self) -> int:
        """The partition."""

    @property
    def ready(self) -> int:
        """How many changes may be taken."""

    @property
    def in_flight(self) -> int:
        """How many are with a consumer, or on their way to one."""

    def take(self, count: int, consumer: Consumer, now_ms: int) -> int:
        """Gives a consumer up to count changes, now or soon; how many of its credit that took, or
        would take: none is ready when it is 0."""

    def ack(self, consumer: Consumer, positions: Sequence[int]) -> int:
        """Done; how many of them were in flight with that consumer. The others are passed over."""

    def nack(
        self, consumer: Consumer, position: int, *, delay_ms: int, reason: str, untried: bool
    ) -> bool:
        """Failed; whether it was in flight with that consumer. If not, nothing happens."""

    def park(self, consumer: Consumer, position: int, *, reason: str) -> bool:
        """Will never succeed; whether it was in flight with that consumer."""

    def gone(self, consumer: Consumer, *, untried: bool) -> None:
        """The consumer is gone; what it had goes out again. untried: that is no attempt."""

    @property
    def figures(self) -> ShareFigures:
        """How far it is, as far as is known here."""

    async def parked(self, after: int, *, count_max: int, bytes_max: int) -> ParkedRows:
        """The first parked changes after a position, at least one, of those that are saved."""

    async def act_on_parked(self, act: ParkedAct, positions: Sequence[int] | None) -> int:
        """Does it to these parked changes, or to all; to how many. Durable then."""


Late = Sequence[tuple[int, int]]  # position and consumer of deliveries that timed out


class Branch(Protocol):
    """The shares of one subscription with one worker."""

    @property
    def shares(self) -> Sequence[ShareAccess]:
        """In order of their partitions."""

    def work(
        self, wake: Callable[[], None], late: Callable[[int, Late], None]
    ) -> list[Coroutine[Any, Any, None]]:
        """What has to run for as long as the subscription works; once.

        wake is called when something may be ready that was not; late with a partition, and what
        timed out there and was in flight until now. A coroutine that raises is the end of the
        subscription's work.
        """

    def follow(self, document: SubscriptionDocument) -> None:
        """Other settings; what is in flight keeps those it went out under."""

    def read_on(self, now_ms: int) -> bool:
        """Does what is due and reads a run of each partition; whether there is more to read."""

    def set_timer(self, now_ms: int) -> None:
        """Has itself woken when something is due next."""

    def look(self) -> None:
        """About once a second: looks at how near the end of the log is."""

    async def refresh(self) -> None:
        """Returns once `figures` of its shares are of this moment."""

    async def save(self) -> None:
        """Returns once everything that happened so far is durable."""

    async def close(self) -> None:
        """After the work was cancelled: what its own shares were told is durable then."""


class Owner(Protocol):
    """A worker, as far as its partitions have shares. Failures are as of ShareAccess."""

    def branch(self, document: SubscriptionDocument) -> Branch:
        """The shares of a subscription, not at work yet. Raises DataDamaged."""

    async def bounds(self) -> Mapping[int, LogBounds]:
        """What the log of each of its partitions holds, by number."""

    async def forget(self, subscription_id: bytes) -> None:
        """Deletes every row of a subscription, which is not at work any more."""

    async def keep_only(self, known: Callable[[], Iterable[bytes]]) -> None:
        """Deletes the rows of all subscriptions whose ids are not known.

        They were deleted. With another worker that is done whenever it comes back, as it may have
        been away meanwhile.
        """
