"""Lanes against a model that is nothing but lists: whatever happens, in any order, with restarts.

The model knows a waybill's unfinished changes in order and nothing of cursors, windows or rows.
"""

from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.feed.counter import BOUNDS, RULES, Counter

WAYBILLS = "ABC"
CONSUMERS = (1, 2)
CHOICE = st.integers(0, 1 << 30)


@dataclass(slots=True)
class Unfinished:
    """A change that is not finished."""

    position: int
    attempts: int = 0
    consumer: int = 0
    deadline_ms: int = 0
    not_before_ms: int = 0


@dataclass(slots=True)
class Model:
    """All that must be true of a subscription in one partition."""

    lanes: dict[str, list[Unfinished]] = field(default_factory=lambda: {w: [] for w in WAYBILLS})
    failed: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(WAYBILLS, False))
    parked: dict[int, str] = field(default_factory=dict)

    def unfinished(self) -> set[int]:
        """Every position that is still to be delivered."""
        return {one.position for lane in self.lanes.values() for one in lane}

    def flight(self) -> list[tuple[str, Unfinished]]:
        """What is with a consumer."""
        return [(w, one) for w, lane in self.lanes.items() for one in lane if one.consumer]


class LanesMachine(RuleBasedStateMachine):
    """Steps of readers, consumers, the clock, and the machine's power."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.saved = Model()
        self.acknowledged: set[int] = set()
        self.superseded: set[int] = set()

    @initialize(supersede=st.booleans(), max_attempts=st.integers(1, 4), window=st.integers(4, 20))
    def begin(self, supersede: bool, max_attempts: int, window: int) -> None:
        """A new subscription."""
        self.lane_rules = replace(RULES, supersede=supersede, max_attempts=max_attempts)
        bounds = replace(BOUNDS, ahead_max=window, window_max=2 * window)
        self.counter = Counter(self.lane_rules, bounds)

    # What happens.

    @rule(waybills=st.text(WAYBILLS + ".", min_size=1, max_size=5))
    def feed(self, waybills: str) -> None:
        """New changes."""
        first = self.counter.end + 1
        self.counter.feed(waybills)
        for position, waybill in enumerate(waybills, first):
            if waybill == ".":
                continue
            lane = self.model.lanes[waybill]
            lane.append(Unfinished(position))
            if self.lane_rules.supersede and self.model.failed[waybill] and not lane[0].consumer:
                self.supersede(waybill)

    @rule(count=st.integers(1, 4), consumer=st.sampled_from(CONSUMERS))
    def take(self, count: int, consumer: int) -> None:
        """What goes out is the head of a lane whose head may go out; as much as is asked for."""
        model, now_ms = self.model, self.counter.now_ms
        self.counter.lanes.tick(now_ms)
        heads = {
            lane[0].position: lane[0]
            for lane in model.lanes.values()
            if lane and not lane[0].consumer and lane[0].not_before_ms <= now_ms
        }
        items = self.counter.items(count, consumer)
        assert len(items) == min(count, len(heads))
        for item in items:
            head = heads.pop(item.position)
            head.attempts += 1
            head.consumer = consumer
            head.deadline_ms = now_ms + self.lane_rules.ack_timeout_ms
            assert item.attempts == head.attempts

    @precondition(lambda self: self.model.flight())
    @rule(choice=CHOICE, consumer=st.sampled_from(CONSUMERS))
    def ack(self, choice: int, consumer: int) -> None:
        """Counts if it comes from whom it is with."""
        waybill, one = self.pick(choice)
        was = self.counter.ack(one.position, consumer=consumer)
        assert was == [one.consumer == consumer]
        if was == [True]:
            self.acknowledged.add(one.position)
            self.finish_head(waybill)

    @precondition(lambda self: self.model.flight())
    @rule(choice=CHOICE, delay_ms=st.sampled_from([0, 1, 700]), untried=st.booleans())
    def nack(self, choice: int, delay_ms: int, untried: bool) -> None:
        """A failed attempt, or none at all."""
        waybill, one = self.pick(choice)
        assert self.counter.nack(one.position, delay_ms, consumer=one.consumer, untried=untried)
        if untried:
            one.attempts -= 1
            self.fail(waybill, delay_ms)
            return
        waits = self.lane_rules.retry_backoff_ms
        wait_ms = delay_ms or waits[min(one.attempts, len(waits)) - 1]
        self.fail(waybill, wait_ms)

    @precondition(lambda self: self.model.flight())
    @rule(choice=CHOICE)
    def park(self, choice: int) -> None:
        """Set aside."""
        waybill, one = self.pick(choice)
        assert self.counter.park(one.position, consumer=one.consumer)
        self.park_head(waybill)

    @rule(consumer=st.sampled_from(CONSUMERS), untried=st.booleans())
    def gone(self, consumer: int, untried: bool) -> None:
        """A consumer goes away, in order or not."""
        lost = [(w, one) for w, one in self.model.flight() if one.consumer == consumer]
        assert self.counter.gone(consumer, untried=untried) == len(lost)
        for waybill, one in lost:
            one.consumer = 0
            one.attempts -= untried
            if one.attempts >= self.lane_rules.max_attempts:
                self.park_head(waybill)
            else:
                self.land(waybill)

    @rule(ms=st.sampled_from([1, 699, 5_000, 30_000]))
    def pass_time(self, ms: int) -> None:
        """Deliveries time out."""
        late = self.counter.pass_time(ms)
        found = [(w, o) for w, o in self.model.flight() if o.deadline_ms <= self.counter.now_ms]
        assert sorted(late) == sorted(one.consumer for _, one in found)
        for waybill, _ in found:
            self.fail(waybill, 0)

    @rule()
    def make_room(self) -> None:
        """Changes nothing of what is to be delivered."""
        self.counter.lanes.make_room()

    @rule()
    def save(self) -> None:
        """What is true now is what a restart finds."""
        self.counter.save()
        self.saved = Model(
            {w: [replace(one) for one in lane] for w, lane in self.model.lanes.items()},
            dict(self.model.failed),
            dict(self.model.parked),
        )
        assert self.counter.rows.parked.keys() == self.model.parked.keys()

    @rule()
    def restart(self) -> None:
        """What was not finished when it was saved is to be delivered, and what came later."""
        known = self.saved.unfinished()
        saved_up_to = self.counter.rows.cursor
        self.counter.restart()
        finished_then = {
            change.position
            for change in self.counter.log
            if change.position not in known
            and (change.position <= saved_up_to or change.position in self.counter.rows.done)
        }
        model = Model(parked=dict(self.saved.parked))
        kept = self.counter.rows.kept
        for change in self.counter.log:
            position, waybill = change.position, change.waybill_number
            if position in finished_then:
                continue
            one = Unfinished(position)
            if position in kept:
                one.attempts, one.not_before_ms = kept[position].attempts, kept[position].at_ms
            model.lanes[waybill].append(one)
        assert known <= model.unfinished(), "forgotten"
        for waybill, lane in model.lanes.items():
            model.failed[waybill] = bool(lane) and lane[0].attempts > 0
            if self.lane_rules.supersede and model.failed[waybill]:
                fresh = [n for n, one in enumerate(lane) if one.position not in kept]
                if fresh:
                    # The first that is read again is newer than what failed.
                    del lane[: fresh[0]]
                    model.failed[waybill] = False
        self.model = self.saved = model
        self.save()

    @precondition(lambda self: self.model.parked)
    @rule(choice=CHOICE)
    def redrive(self, choice: int) -> None:
        """It goes to its place among what is not in flight, and is as new."""
        self.save()
        position = sorted(self.model.parked)[choice % len(self.model.parked)]
        if not self.counter.redrive(position):
            return
        waybill = self.model.parked.pop(position)
        lane = self.model.lanes[waybill]
        fixed, rest = (lane[:1], lane[1:]) if lane and lane[0].consumer else ([], lane[:])
        rest.append(Unfinished(position))
        lane[:] = fixed + sorted(rest, key=lambda one: one.position)

    # What becomes of a change.

    def pick(self, choice: int) -> tuple[str, Unfinished]:
        """One that is in flight."""
        flight = self.model.flight()
        return flight[choice % len(flight)]

    def fail(self, waybill: str, wait_ms: int) -> None:
        """The head of a lane failed."""
        lane = self.model.lanes[waybill]
        lane[0].consumer = 0
        newer_waits = lane[-1].position > lane[0].position
        if self.lane_rules.supersede and lane[0].attempts and newer_waits:
            self.supersede(waybill)
        elif lane[0].attempts >= self.lane_rules.max_attempts:
            self.park_head(waybill)
        else:
            lane[0].not_before_ms = self.counter.now_ms + wait_ms
            self.land(waybill)

    def land(self, waybill: str) -> None:
        """What was in flight takes its place again."""
        lane = self.model.lanes[waybill]
        lane.sort(key=lambda one: one.position)
        self.model.failed[waybill] = lane[0].attempts > 0

    def supersede(self, waybill: str) -> None:
        """Only the newest stays."""
        lane = self.model.lanes[waybill]
        self.superseded |= {one.position for one in lane[:-1]}
        del lane[:-1]
        self.model.failed[waybill] = False

    def park_head(self, waybill: str) -> None:
        """The head of a lane is set aside."""
        self.model.parked[self.model.lanes[waybill][0].position] = waybill
        self.finish_head(waybill)

    def finish_head(self, waybill: str) -> None:
        """The next one is the head."""
        lane = self.model.lanes[waybill]
        lane.pop(0)
        self.model.failed[waybill] = bool(lane) and lane[0].attempts > 0

    # What must be true at any time.

    @invariant()
    def figures_agree(self) -> None:
        """In flight, parked, and nothing is finished that is not, nor the other way round."""
        lanes, model = self.counter.lanes, self.model
        assert lanes.in_flight == len(model.flight())
        assert lanes.parked == len(model.parked)
        unfinished = model.unfinished()
        progress = lanes.progress
        held = {item.position for lane in lanes._lanes.values() for item in lane.items}
        assert held == unfinished
        assert {p for p in held if p not in lanes._kept} == lanes._open.keys()
        assert all(position > progress.cursor for position in lanes._open)
        assert not set(progress.done()) & lanes._open.keys()


LanesMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestLanes = LanesMachine.TestCase
