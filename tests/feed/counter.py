"""A subscription's lanes at a counter, for their tests: a log, rows that are saved, a clock."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from trackd.feed.change import LoggedChange
from trackd.feed.lane import Item, LaneBounds, LaneRules, StoredChange
from trackd.feed.lanes import Lanes
from trackd.feed.progress import Progress

RULES = LaneRules(
    ack_timeout_ms=30_000, max_attempts=3, retry_backoff_ms=(1_000, 5_000), supersede=False
)
BOUNDS = LaneBounds(ahead_max=100, window_max=400, kept_max=100, parked_max=100)


@dataclass(frozen=True, slots=True)
class Scan:
    """What lanes want to know of a change."""

    position: int
    waybill_number: str

    def wire(self) -> bytes:
        """Its bytes; lanes never ask for them."""
        raise AssertionError


def changes(first: int, waybills: str) -> list[LoggedChange]:
    """Changes from that position on, one for each letter; a dot is an event without a change."""
    scans = [Scan(first + n, waybill) for n, waybill in enumerate(waybills) if waybill != "."]
    return cast(list[LoggedChange], scans)


@dataclass(slots=True)
class Rows:
    """What is on disk of a subscription in one partition."""

    cursor: int = 0
    done: list[int] = field(default_factory=list)
    kept: dict[int, StoredChange] = field(default_factory=dict)
    parked: dict[int, StoredChange] = field(default_factory=dict)


class Counter:
    """Lanes, the log that they read, and the rows that they leave."""

    def __init__(self, rules: LaneRules = RULES, bounds: LaneBounds = BOUNDS) -> None:
        self.now_ms = 0
        self.log: list[LoggedChange] = []
        self.end = 0
        self.rows = Rows()
        self._bounds = bounds
        self.lanes = Lanes(rules, bounds, Progress(0))

    def feed(self, waybills: str) -> None:
        """The next events of the log, and the lanes read them."""
        self.log += changes(self.end + 1, waybills)
        self.end += len(waybills)
        self.read()

    def read(self) -> None:
        """The lanes read to the end of the log."""
        after = self.lanes.progress.read_position
        self.lanes.feed([each for each in self.log if each.position > after], self.end)

    def take(self, count: int = 1_000, consumer: int = 1) -> list[int]:
        """Positions that go out."""
        return [item.position for item in self.items(count, consumer)]

    def items(self, count: int = 1_000, consumer: int = 1) -> Sequence[Item]:
        """What goes out."""
        return self.lanes.take(count, consumer, self.now_ms)

    def ack(self, *positions: int, consumer: int = 1) -> list[bool]:
        """Whether each was in flight."""
        return [self.lanes.ack(position, consumer, self.now_ms) for position in positions]

    def nack(
        self,
        position: int,
        delay_ms: int = 0,
        *,
        consumer: int = 1,
        reason: str = "no",
        untried: bool = False,
    ) -> bool:
        """Whether it was in flight."""
        return self.lanes.nack(
            position, consumer, self.now_ms, delay_ms=delay_ms, reason=reason, untried=untried
        )

    def park(self, position: int, consumer: int = 1, reason: str = "never") -> bool:
        """Whether it was in flight."""
        return self.lanes.park(position, consumer, self.now_ms, reason=reason)

    def gone(self, consumer: int = 1, *, untried: bool = False) -> int:
        """How much it had."""
        return self.lanes.gone(consumer, self.now_ms, untried=untried)

    def pass_time(self, ms: int) -> list[int]:
        """The consumers whose deliveries timed out."""
        self.now_ms += ms
        return [consumer for _, consumer in self.lanes.tick(self.now_ms)]

    def wants_more(self) -> bool:
        """Whether the lanes have room."""
        return self.lanes.wants_more

    def is_dirty(self) -> bool:
        """Whether there is something to save."""
        return self.lanes.is_dirty

    def save(self) -> None:
        """Writes what is unsaved."""
        unsaved, rows = self.lanes.unsaved(), self.rows
        rows.cursor, rows.done = unsaved.cursor, unsaved.done
        for position, item in unsaved.kept.items():
            rows.kept.pop(position, None)
            if item:
                rows.kept[position] = _stored(item, item.not_before_ms)
        for position, parked in unsaved.parked.items():
            rows.parked.pop(position, None)
            if parked:
                rows.parked[position] = _stored(parked.item, parked.parked_at_ms)

    def restart(self) -> None:
        """Everything in memory is gone; reads again from what is saved."""
        rows = self.rows
        progress = Progress(rows.cursor, rows.done)
        self.lanes = Lanes(self.lanes.rules, self._bounds, progress, parked=len(rows.parked))
        self.lanes.restore([rows.kept[position] for position in sorted(rows.kept)], self.now_ms)
        self.read()

    def redrive(self, position: int) -> bool:
        """Redrives a parked change, which is saved."""
        parked = self.rows.parked[position]
        return self.lanes.redrive(parked, Scan(position, parked.waybill_number))


def _stored(item: Item, at_ms: int) -> StoredChange:
    number = item.lane.waybill_number
    return StoredChange(item.position, number, item.attempts, at_ms, item.reason)
