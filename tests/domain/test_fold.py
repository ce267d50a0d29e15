"""The fold: one status for one set of events, corrections, ties, and when a short cut is right."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.domain.lives import event, life, random_life, status, told_by_the_vocabulary
from trackd.domain.fold import (
    EVENTFUL_STEPS,
    Course,
    flags_named,
    fold,
    rank_of,
)
from trackd.domain.lifecycle import STEP_BITS, TRANSITIONS, step_of
from trackd.domain.vocabulary import EventCode, Flag, Milestone, flag_mask, flags_of

OUT, DELIVERED, VOIDED = EventCode.OUT_FOR_DELIVERY, EventCode.DELIVERED, EventCode.EVENT_VOIDED


def test_the_fold_says_what_the_vocabulary_says() -> None:
    """10,000 random lives, possible or not: milestone, flags and mover as its sentences have it."""
    rng = Random(7)
    for _ in range(10_000):
        timeline = sorted(random_life(rng))
        folded = fold(timeline)
        milestone, flags, mover = told_by_the_vocabulary(timeline)
        assert (folded.milestone, set(flags_of(folded.flags))) == (milestone, flags), timeline
        assert folded.last == mover.order, timeline


# Ties.


def test_events_of_one_millisecond_are_folded_along_a_parcels_way() -> None:
    """Scanned within one tick, it is picked up after it was announced and delivered after that."""
    tick = [event(code, 1, f"e{code}") for code in (EventCode.REGISTERED, EventCode.PICKED_UP, OUT)]
    assert status(tick)[0] == Milestone.OUT_FOR_DELIVERY
    assert status([*tick, event(DELIVERED, 1, "e")]) == (Milestone.DELIVERED, set())
    assert [rank_of(code) for code in EventCode] == sorted(rank_of(code) for code in EventCode)


def test_no_two_events_share_a_place() -> None:
    """Events of one time and one code are told apart by their ids, so every order is strict."""
    assert event(OUT, 1, "a").order != event(OUT, 1, "b").order


# Late events.


def test_a_late_event_does_not_move_the_status_back() -> None:
    """A scan that happened before the newest is in the timeline and changes nothing about now."""
    timely = [event(EventCode.PICKED_UP, 1), event(OUT, 3)]
    assert status([*timely, event(EventCode.SORTED, 2)]) == status(timely)


def test_a_late_terminal_event_ends_the_life_where_it_happened() -> None:
    """A delivery that arrives late makes the scans after it unexpected."""
    timely = [event(OUT, 1), event(EventCode.SORTED, 3)]
    assert status([*timely, event(DELIVERED, 2)]) == (Milestone.DELIVERED, {Flag.UNEXPECTED_SCAN})


# Corrections.


def test_voiding_a_delivery_brings_back_what_was_before_it() -> None:
    """Milestone and the event to show are those of the timeline without the voided event."""
    timeline = [event(OUT, 1), event(DELIVERED, 2), event(VOIDED, 3, voids="e2")]
    folded = fold(timeline)
    assert folded.milestone == Milestone.OUT_FOR_DELIVERY
    assert folded.last == timeline[0].order
    assert folded.course == Course.VOIDED


def test_voiding_a_void_counts_its_event_again() -> None:
    """A correction can be corrected, to any depth."""
    timeline = [event(OUT, 1), event(DELIVERED, 2)]
    expected = [Milestone.DELIVERED, Milestone.OUT_FOR_DELIVERY]
    for depth in range(6):
        assert status(timeline)[0] == expected[depth % 2]
        timeline.append(event(VOIDED, 3 + depth, voids=f"e{2 + depth}"))


def test_a_void_does_not_depend_on_being_the_later_one() -> None:
    """A void counts whether it happened before or after the event that it names."""
    assert status([event(VOIDED, 1, voids="e2"), event(DELIVERED, 2)])[0] == Milestone.UNSPECIFIED


def test_of_two_voids_that_name_each_other_the_later_one_counts() -> None:
    """Somebody has the last word, in every order of arrival."""
    first = event(VOIDED, 2, "a", voids="b")
    second = event(VOIDED, 3, "b", voids="a")
    delivered = event(DELIVERED, 1, "c")
    third = event(VOIDED, 1.5, "d", voids="c")
    assert status([delivered, third, first, second])[0] == Milestone.UNSPECIFIED
    # The earlier of the two names the void of the delivery: it is voided and does nothing.
    rescue = event(VOIDED, 2, "a", voids="d")
    assert status([delivered, third, rescue, second])[0] == Milestone.UNSPECIFIED
    assert status([delivered, third, rescue])[0] == Milestone.DELIVERED


def test_a_void_of_an_unknown_event_does_nothing() -> None:
    """It may be of an event that has not arrived, or of a typing error."""
    assert (
        status([event(OUT, 1), event(VOIDED, 2, voids="nobody")])[0] == Milestone.OUT_FOR_DELIVERY
    )


def test_voided_problems_are_gone() -> None:
    """A flag that only a voided event had raised is not there, and one it had ended is again."""
    damaged = [event(EventCode.DAMAGED, 1), event(VOIDED, 2, voids="e1")]
    assert status(damaged) == (Milestone.UNSPECIFIED, set())
    found = [event(EventCode.LOST, 1), event(EventCode.SORTED, 2), event(VOIDED, 3, voids="e2")]
    assert status(found) == (Milestone.UNSPECIFIED, {Flag.LOST})


def test_a_timeline_of_voided_events_shows_its_latest() -> None:
    """Nothing moved the shipment: UNSPECIFIED, with the newest event to show."""
    timeline = [event(EventCode.PICKED_UP, 1), event(VOIDED, 2, voids="e1")]
    folded = fold(timeline)
    assert (folded.milestone, folded.last) == (Milestone.UNSPECIFIED, timeline[-1].order)


def test_an_unexpected_scan_can_be_voided() -> None:
    """The flag goes with the scan that raised it."""
    timeline = [*life(DELIVERED, EventCode.SORTED), event(VOIDED, 3, voids="e2")]
    assert status(timeline) == (Milestone.DELIVERED, set())


# Problems resolved.


def test_a_resolved_problem_without_names_ends_all_flags_but_damage() -> None:
    """`clears` is optional."""
    troubled = life(EventCode.DAMAGED, EventCode.HELD, EventCode.LOST, EventCode.DELAYED)
    resolved = [*troubled, event(EventCode.PROBLEM_RESOLVED, 9)]
    assert status(resolved) == (Milestone.UNSPECIFIED, {Flag.DAMAGED})


@pytest.mark.parametrize("flag", list(Flag))
def test_a_resolved_problem_ends_just_the_flags_it_names(flag: Flag) -> None:
    """DAMAGED too, when it is named."""
    troubled = life(EventCode.DAMAGED, EventCode.HELD, EventCode.LOST, EventCode.DELAYED)
    resolved = [*troubled, event(EventCode.PROBLEM_RESOLVED, 9, clears=[flag])]
    assert status(resolved)[1] == {Flag.DAMAGED, Flag.HELD, Flag.LOST, Flag.DELAYED} - {flag}


def test_problems_are_resolved_after_the_end_of_a_life_too() -> None:
    """It moves nothing, ends what it names, and is not unexpected."""
    for end in (DELIVERED, EventCode.RETURNED, EventCode.CANCELLED, EventCode.DESTROYED):
        ended = life(EventCode.DAMAGED, end)
        resolved = [*ended, event(EventCode.PROBLEM_RESOLVED, 9, clears=[Flag.DAMAGED])]
        assert status(resolved) == (status(ended)[0], set())


def test_flags_are_named_in_any_case_and_with_spaces() -> None:
    """People write `clears`."""
    assert flags_named(" held, Delayed,LOST ") == flag_mask(Flag.HELD, Flag.DELAYED, Flag.LOST)
    for flag in Flag:
        assert flags_named(flag.name) == flag_mask(flag)


@pytest.mark.parametrize("names", ["", ",", "HELD,", "HELD;LOST", "FLAG_HELD", "held lost", "7"])
def test_what_is_no_flag_is_told_by_name(names: str) -> None:
    """ValueError carries the first name that is no flag."""
    with pytest.raises(ValueError, match=r".*") as raised:
        flags_named(names)
    assert raised.value.args[0] not in Flag.__members__
    assert raised.value.args[0] in names.upper()


# The courses, on which the partition's short cuts rest.

PLAIN_CODES = [code for code in EventCode if code not in EVENTFUL_STEPS]


def test_plain_codes_are_those_that_only_move() -> None:
    """Whatever raises a flag, ends a life or depends on other events is eventful, at any place."""
    assert {EventCode.PROBLEM_RESOLVED, VOIDED, DELIVERED, EventCode.REFUSED}.isdisjoint(
        PLAIN_CODES
    )
    assert {EventCode.REGISTERED, EventCode.SORTED, OUT}.issubset(PLAIN_CODES)
    assert {step for step in EVENTFUL_STEPS if step > 99} == {100}


@given(
    st.lists(st.tuples(st.sampled_from(PLAIN_CODES), st.integers(0, 20)), min_size=2, max_size=10)
)
def test_a_late_plain_event_changes_nothing_on_a_plain_course(
    steps: list[tuple[EventCode, int]],
) -> None:
    """The planner does not fold such an event at all: without it the fold must be the same."""
    timeline = sorted(event(code, second, f"e{n}") for n, (code, second) in enumerate(steps))
    whole = fold(timeline)
    assert whole.course == Course.PLAIN
    for late in timeline[:-1]:
        assert fold([each for each in timeline if each is not late]) == whole


@given(st.randoms(use_true_random=False))
def test_the_newest_event_is_one_row_of_the_table(rng: Random) -> None:
    """The planner counts an event newer than all others into the status without the timeline."""
    *earlier, newest = sorted(random_life(rng))
    if not earlier or newest.code == VOIDED or fold(earlier).course == Course.VOIDED:
        return
    before, whole = fold(earlier), fold([*earlier, newest])
    row = TRANSITIONS[before.milestone << STEP_BITS | step_of(newest.code, newest.reason)]
    cleared = newest.clears if newest.code == EventCode.PROBLEM_RESOLVED else 0
    assert whole.milestone == row.milestone
    assert whole.flags == (before.flags & row.keeps | row.raises) & ~cleared
    assert whole.last == (newest.order if row.moves else before.last)
    assert whole.course == (Course.EVENTFUL if row.eventful else before.course)
