"""The planner: repeats, conflicts, bounds, positions, and that it equals the fold in any order."""

import itertools
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_digest

from tests.domain.lives import random_life
from tests.harness.seeds import seeded
from tests.store.desk import NOON_MS, Desk, scan, scan_event
from trackd.domain.fold import FoldEvent
from trackd.domain.vocabulary import EventCode, Flag, Milestone, Rejection, flag_mask, flags_of
from trackd.simulator.imperfections import PERFECT
from trackd.simulator.simulation import Simulation
from trackd.simulator.wire import scan_event as simulated
from trackd.store import records
from trackd.store.errors import DataDamaged
from trackd.store.keys import Table, status_key
from trackd.store.memory_engine import MemoryEngine
from trackd.v1.event_pb2 import ScanEvent

pytestmark = pytest.mark.usefixtures("loops")

SORTED, OUT, DELIVERED = EventCode.SORTED, EventCode.OUT_FOR_DELIVERY, EventCode.DELIVERED
PICKED_UP, VOIDED = EventCode.PICKED_UP, EventCode.EVENT_VOIDED


# Repeats and conflicts.


def test_a_repeat_is_recognised_within_a_batch_a_commit_and_for_ever() -> None:
    """In the same submission, in another of the commit, later, and after a reopening."""
    desk = Desk()
    event = scan_event(SORTED, "a")
    first, second = desk.commit([event, event], [event])
    assert (first.accepted, first.duplicates, second.accepted, second.duplicates) == (1, 1, 0, 1)
    assert desk.commit([event])[0].duplicates == 1
    desk.checkpoint()
    again = Desk(desk.engine)
    assert again.commit([event])[0].duplicates == 1
    assert again.planner.position == 1
    again.check()


def test_a_repeat_is_as_fresh_as_what_it_repeats() -> None:
    """A read at the position of the answer sees the event, whoever stored it."""
    desk = Desk()
    desk.commit([scan_event(SORTED, "a")], [scan_event(SORTED, "b")])
    (verdict,) = desk.commit([scan_event(SORTED, "a")])
    assert verdict.position == 2
    first, second = desk.commit([scan_event(SORTED, "c")], [scan_event(SORTED, "c")])
    assert first.position == second.position == 3


@pytest.mark.parametrize(
    "other",
    [
        scan_event(OUT, "a"),
        scan_event(SORTED, "a", NOON_MS + 1),
        scan_event(SORTED, "a", NOON_MS - 1),
        scan_event(SORTED, "a", facility_code="HUB2"),
        scan_event(SORTED, "a", remark="wet"),
        scan_event(SORTED, "a", attributes={"k": "v"}),
    ],
    ids=["code", "later", "earlier", "facility", "remark", "attributes"],
)
def test_the_same_id_with_other_content_is_a_conflict(other: ScanEvent) -> None:
    """The first stays, whether the two meet in one batch or years apart."""
    for commits in ([[scan_event(SORTED, "a"), other]], [[scan_event(SORTED, "a")], [other]]):
        desk = Desk()
        for events in commits:
            *_, verdict = desk.commit(events)
        ((index, fault),) = verdict.rejections
        assert (index, fault.reason, fault.field) == (
            len(commits[-1]) - 1,
            Rejection.CONFLICT,
            "event_id",
        )
        assert "'a'" in fault.message
        assert [int(event.code) for event in desk.timeline()] == [SORTED]
        desk.check()


def test_an_id_belongs_to_its_waybill() -> None:
    """Two waybills may have events of the same id, as one scan of a bag makes."""
    desk = Desk()
    events = [scan_event(SORTED, "bag-7", waybill_number=number) for number in ("SF10", "SF100")]
    (verdict,) = desk.commit(events)
    assert verdict.accepted == 2
    desk.check()


def test_a_repeat_may_be_encoded_in_another_way() -> None:
    """Content is what the fields say, not the bytes that say it; the server's own field aside."""
    desk = Desk()
    event = scan_event(SORTED, "a", facility_code="HUB1")
    wire = event.SerializeToString()
    desk.commit([event])
    ways = [
        ScanEvent(facility_code="HUB1").SerializeToString() + wire,  # a field twice
        wire + ScanEvent(recorded_at_ms=5).SerializeToString(),  # the server's field, made up
        wire + b"\x52\x00",  # an empty remark, said aloud
    ]
    for way in ways:
        one = (*scan(event)[:8], way)
        assert desk.planner.plan([[one]], NOON_MS).verdicts[0].duplicates == 1


def twins() -> tuple[str, str]:
    """Two ids whose hashes begin with the same four bytes: a birthday among 100,000."""
    seen: dict[bytes, str] = {}
    for number in range(1_000_000):
        event_id = f"gun-1:{number}"
        other = seen.setdefault(xxh3_64_digest(event_id.encode())[:4], event_id)
        if other != event_id:
            return other, event_id
    raise AssertionError("no twins")


def test_a_fingerprint_is_a_hint_and_not_an_identity() -> None:
    """Two ids with one fingerprint are two events; each is still recognised when it comes again."""
    one, other = twins()
    desk = Desk()
    events = [scan_event(SORTED, one), scan_event(OUT, other, NOON_MS + 1)]
    assert [desk.commit([event])[0].accepted for event in events] == [1, 1]
    assert [desk.commit([event])[0].duplicates for event in events] == [1, 1]
    desk.check()


# Bounds.


def test_a_waybill_has_a_last_event() -> None:
    """One more is rejected with the limit; repeats of what is there are repeats; others go on."""
    desk = Desk(waybill_events_max=3)
    events = [scan_event(SORTED, f"e{n}", NOON_MS + n) for n in range(4)]
    (verdict,) = desk.commit([*events, events[0], scan_event(SORTED, "x", waybill_number="SF99")])
    assert (verdict.accepted, verdict.duplicates) == (4, 1)
    ((index, fault),) = verdict.rejections
    assert (index, fault.reason, fault.field) == (3, Rejection.INVALID_FIELD, "waybill_number")
    assert "at most 3" in fault.message
    assert desk.commit([events[3]])[0].rejections[0][0] == 0
    desk.check()


def test_a_clock_that_goes_back_does_not_take_recorded_times_back() -> None:
    """They ascend with the positions, within a run and across a reopening."""
    desk = Desk()
    for n, now_ms in enumerate([NOON_MS, NOON_MS - 86_400_000, NOON_MS + 5, NOON_MS + 1]):
        desk.commit([scan_event(SORTED, f"e{n}", NOON_MS + n)], now_ms=now_ms)
    again = Desk(desk.engine)
    again.commit([scan_event(SORTED, "late")], now_ms=1)
    recorded = [entry.recorded_at_ms - NOON_MS for entry in again.log()]
    assert recorded == [0, 0, 5, 5, 5]
    again.check()


def test_what_cannot_be_read_leaves_no_trace() -> None:
    """A plan that fails changes neither positions nor statuses; the next is as if it had not."""
    engine = MemoryEngine()
    desk = Desk(engine)
    desk.commit([scan_event(DELIVERED, "a")])
    desk.checkpoint()
    ((key, whole),) = engine.scan_all(Table.EVENTS)
    engine.write([(Table.EVENTS, [(key, b"\xff")])])
    damaged = scan_event(SORTED, "b", NOON_MS - 1)  # late: needs the timeline
    fine = scan_event(SORTED, "c", waybill_number="SF0002")
    with pytest.raises(DataDamaged):
        desk.commit([fine, damaged])
    assert desk.planner.position == 1
    assert desk.commit([fine])[0].position == 2
    engine.write([(Table.EVENTS, [(key, whole)])])
    assert desk.commit([damaged])[0].accepted == 1
    desk.check()


# What a status says.


def test_the_first_event_makes_a_status() -> None:
    """All of it, whatever the code: also one that moves nothing."""
    desk = Desk()
    desk.commit([scan_event(EventCode.DELAYED, "a", facility_code="HUB1")], now_ms=NOON_MS + 7)
    row = desk.row()
    assert (row.milestone, flags_of(row.flags)) == (Milestone.UNSPECIFIED, [Flag.DELAYED])
    assert (row.event_count, row.first_event_at_ms) == (1, NOON_MS)
    assert (row.updated_at_ms, row.position, row.facility) == (NOON_MS + 7, 1, b"HUB1")
    last = ScanEvent.FromString(row.last_event)
    assert (last.event_id, last.recorded_at_ms) == ("a", NOON_MS + 7)


def test_a_scan_that_changes_nothing_does_not_touch_the_time_of_the_change() -> None:
    """Two sorts in one hub are one piece of news."""
    desk = Desk()
    desk.commit([scan_event(SORTED, "a", facility_code="HUB1")], now_ms=NOON_MS)
    desk.commit([scan_event(SORTED, "b", NOON_MS + 1, facility_code="HUB1")], now_ms=NOON_MS + 1)
    assert desk.row().updated_at_ms == NOON_MS
    desk.commit([scan_event(SORTED, "c", NOON_MS + 2, facility_code="HUB2")], now_ms=NOON_MS + 2)
    assert desk.row().updated_at_ms == NOON_MS + 2
    changes = [bool(entry.marks & records.CHANGED) for entry in desk.log()]
    assert changes == [True, False, True]
    desk.check()


def test_a_milestone_occurs_for_the_first_time_once() -> None:
    """Out for delivery again after a failed attempt is a change and no first occurrence."""
    desk = Desk()
    codes = [OUT, EventCode.DELIVERY_ATTEMPT_FAILED, OUT, DELIVERED]
    desk.commit([scan_event(code, f"e{n}", NOON_MS + n) for n, code in enumerate(codes)])
    firsts = [bool(entry.marks & records.FIRST_OCCURRENCE) for entry in desk.log()]
    assert firsts == [True, True, False, True]
    assert all(entry.marks & records.CHANGED for entry in desk.log())
    desk.check()


def test_a_correction_is_a_change_like_any_other() -> None:
    """A void of a delivery: marked, with the milestone back and the event that now counts."""
    desk = Desk()
    desk.commit([scan_event(OUT, "a"), scan_event(DELIVERED, "b", NOON_MS + 1)])
    desk.commit([scan_event(VOIDED, "c", NOON_MS + 2, attributes={"voids": "b"})])
    *_, entry = desk.log()
    expected = records.CORRECTION | records.CHANGED | records.LAST_IS_ANOTHER
    assert entry.marks & 31 == expected
    assert (entry.milestone_before, entry.milestone) == (DELIVERED, Milestone.OUT_FOR_DELIVERY)
    assert ScanEvent.FromString(desk.row().last_event).event_id == "a"
    desk.check()


def test_a_resolved_problem_ends_the_flags_it_names() -> None:
    """As the newest event, and as a late one that makes the timeline be folded again."""
    for at_ms in (NOON_MS + 2, NOON_MS + 1):
        desk = Desk()
        resolved = scan_event(
            EventCode.PROBLEM_RESOLVED, "c", at_ms, attributes={"clears": "held,damaged"}
        )
        for event in (
            scan_event(EventCode.DAMAGED, "a", NOON_MS - 1),
            scan_event(EventCode.HELD, "b", NOON_MS),
            scan_event(EventCode.DELAYED, "d", NOON_MS + 1),
            resolved,
        ):
            desk.commit([event])
        assert flags_of(desk.row().flags) == [Flag.DELAYED]
        desk.check()


def test_a_void_may_come_before_the_event_it_voids() -> None:
    """The event is kept in the timeline and never counts."""
    desk = Desk()
    desk.commit([scan_event(VOIDED, "v", NOON_MS + 2, attributes={"voids": "b"})])
    desk.commit([scan_event(OUT, "a"), scan_event(DELIVERED, "b", NOON_MS + 1)])
    row = desk.row()
    assert (row.milestone, row.event_count) == (Milestone.OUT_FOR_DELIVERY, 3)
    assert [event.event_id for event in desk.timeline()] == ["a", "b", "v"]
    desk.check()


# Any order of arrival.


def as_scan_event(event: FoldEvent, waybill_number: str, facility_code: str) -> ScanEvent:
    """An event of a random life, as a scanner would send it."""
    attributes = {}
    if event.code == EventCode.EVENT_VOIDED:
        attributes["voids"] = event.voids
    if event.code == EventCode.PROBLEM_RESOLVED:
        attributes["clears"] = ",".join(flag.name for flag in flags_of(event.clears))
    return scan_event(
        EventCode(event.code),
        event.event_id,
        int.from_bytes(event.order[:8], "big"),
        waybill_number,
        reason=event.reason,
        facility_code=facility_code,
        attributes=attributes,
    )


def random_commits(rng: Random, events: list[ScanEvent]) -> list[list[list[ScanEvent]]]:
    """The events in any order, in commits of a few submissions of a few events, some repeated."""
    arrivals = events + rng.choices(events, k=len(events) // 4)
    rng.shuffle(arrivals)
    commits = []
    while arrivals:
        commit = []
        for _ in range(rng.randint(1, 3)):
            size = rng.randint(1, 12)
            if arrivals[:size]:
                commit.append(arrivals[:size])
            del arrivals[:size]
        commits.append(commit)
    return commits


def test_every_order_of_arrival_of_a_small_journey_has_one_status() -> None:
    """All 5,040 permutations of seven events, a void and problems among them, one by one."""
    ends = set()
    for number, arrival in enumerate(itertools.permutations(range(7))):
        waybill = f"SF{number:08}"
        journey = [
            scan_event(PICKED_UP, "1", NOON_MS + 1, waybill, facility_code="A"),
            scan_event(EventCode.LOST, "2", NOON_MS + 2, waybill),
            scan_event(SORTED, "3", NOON_MS + 3, waybill, facility_code="B"),
            scan_event(DELIVERED, "4", NOON_MS + 4, waybill, facility_code="C"),
            scan_event(VOIDED, "5", NOON_MS + 5, waybill, attributes={"voids": "4"}),
            scan_event(EventCode.HELD, "6", NOON_MS + 6, waybill),
            scan_event(EventCode.DAMAGED, "7", NOON_MS + 7, waybill),
        ]
        if number % 500 == 0:
            desk = Desk()
        for place in arrival:
            desk.commit([journey[place]])
        row = desk.row(waybill)
        ends.add((row.milestone, row.flags, row.facility, row.first_event_at_ms, row.newest))
        assert [event.event_id for event in desk.timeline(waybill)] == list("1234567")
    ((milestone, flags, facility, *_),) = ends
    assert (milestone, flags) == (Milestone.IN_TRANSIT, flag_mask(Flag.HELD, Flag.DAMAGED))
    assert facility == b"B"


def shuffle_journeys(seed: int, count: int) -> None:
    """Real-looking journeys in any order of arrival; everything that comes out is compared."""
    arrivals = Simulation(seed, NOON_MS, 20 * count, PERFECT, parcels=count).arrivals()
    journeys: dict[str, list[ScanEvent]] = {}
    for arrival in arrivals:
        journeys.setdefault(arrival.scan.waybill_number, []).append(simulated(arrival.scan))
    assert len(journeys) == count
    rng = Random(seed)
    everything = list(journeys.values())
    for start in range(0, count, 250):
        desk = Desk(write_back_events=rng.choice([1, 100, 10_000]))
        events = [event for journey in everything[start : start + 250] for event in journey]
        for commit in random_commits(rng, events):
            desk.commit(*commit)
        assert desk.planner.position == len(events)
        desk.check_statuses()
        if start % 2_500 == 0:
            desk.check()  # every entry too, which takes ten times as long


def test_shuffled_journeys_have_one_status() -> None:
    """2,500 journeys of the simulator, with repeats: statuses, timelines and log as folded."""
    shuffle_journeys(11, 2_500)


@pytest.mark.torture
def test_many_shuffled_journeys_have_one_status() -> None:
    """The same with 100,000."""
    shuffle_journeys(seeded("journeys").randrange(1 << 60), 100_000)


@settings(max_examples=60)
@given(st.randoms(use_true_random=False))
def test_any_lives_in_any_order_of_arrival(rng: Random) -> None:
    """Lives no parcel leads: after each commit every entry, status and table is as folded."""
    desk = Desk(
        write_back_events=rng.choice([1, 3, 10, 1_000]), cache_bytes=rng.choice([0, 500, 1 << 20])
    )
    events = []
    for number in range(rng.randint(1, 4)):
        waybill = f"SF{number:0{rng.randint(2, 5)}}"
        events += [
            as_scan_event(event, waybill, rng.choice(["", "HUB1", "HUB2"]))
            for event in random_life(rng)
        ]
    for commit in random_commits(rng, events):
        desk.commit(*commit)
        desk.check()
        desk.check_checkpoint()
        assert isinstance(desk.engine, MemoryEngine)
        again = Desk(desk.engine.crash())
        assert again.rows() == desk.rows(), (
            "what is made again from the log is the same to the byte"
        )
        if rng.random() < 0.2:
            desk = again
    desk.checkpoint()
    desk.check_checkpoint()
    assert not desk.statuses.dirty_count
    assert Desk(desk.engine).replayed == 0
    assert status_key("SF0") not in desk.rows()
