"""The values of a subscription's lanes: what is held of a change until it is finished. Pure."""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class LaneState(Enum):
    """Where the head of a lane is; the table at the top of lanes.py."""

    READY = "ready"
    FLIGHT = "flight"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class LaneRules:
    """The settings of a subscription that its lanes follow. retry_backoff_ms: at least one."""

    ack_timeout_ms: int
    max_attempts: int
    retry_backoff_ms: tuple[int, ...]
    supersede: bool


@dataclass(frozen=True, slots=True)
class LaneBounds:
    """What may be held of one partition; reading pauses beyond it.

    ahead_max: unfinished changes in memory. window_max: changes between the cursor and what was
    read, finished or not. kept_max: changes with rows of their own. parked_max: parked changes.
    """

    ahead_max: int
    window_max: int
    kept_max: int
    parked_max: int


class Wired(Protocol):
    """A change as it was logged, or as it was read back from a row of its own."""

    def wire(self) -> bytes:
        """The serialised trackd.v1.Change."""


@dataclass(slots=True, eq=False)
class Item:
    """A change that is not finished. change: None if only its row has it."""

    position: int
    lane: "Lane"
    change: Wired | None
    # How often it went out, why it failed the last time, and when it may go out again.
    attempts: int = 0
    reason: str = ""
    not_before_ms: int = 0
    # While it is in flight: with whom, and until when. 0 is nobody.
    consumer: int = 0
    deadline_ms: int = 0
    # Whether it has a row of its own.
    kept: bool = False


@dataclass(slots=True, eq=False)
class Lane:
    """The unfinished changes of a waybill, in order of position behind what is in flight.

    failed: its head failed and is to be tried again.
    """

    waybill_number: str
    state: LaneState
    items: deque[Item] = field(default_factory=deque)
    failed: bool = False

    def settle(self) -> None:
        """What was in flight takes its place: older ones may have been redriven meanwhile."""
        if len(self.items) > 1 and self.items[1].position < self.items[0].position:
            self.items = deque(sorted(self.items, key=lambda item: item.position))


@dataclass(frozen=True, slots=True)
class StoredChange:
    """What a row of its own tells of a change.

    at_ms: of one that waits, when it may go out; of one that is parked, when it was parked.
    """

    position: int
    waybill_number: str
    attempts: int
    at_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A change that is set aside for good."""

    item: Item
    parked_at_ms: int


@dataclass(frozen=True, slots=True)
class Unsaved:
    """What has to be written together. Rows by position; None: the row goes."""

    cursor: int
    done: list[int]
    kept: dict[int, Item | None]
    parked: dict[int, Parked | None]


@dataclass(slots=True)
class LaneCounts:
    """What happened since the start."""

    acknowledged: int = 0
    redelivered: int = 0
    superseded: int = 0
