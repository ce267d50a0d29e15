"""Each code's milestone, the flags it raises and ends, and what may follow the end of a life."""

import pytest

from tests.domain.lives import (
    COUNTED_AFTER_DELIVERY,
    MILESTONE_AFTER,
    RAISES,
    TERMINAL,
    cleared_by,
    event,
    is_expected,
    life,
    raised_by,
    status,
)
from trackd.domain import lifecycle
from trackd.domain.lifecycle import STEP_BITS, TRANSITIONS, step_of
from trackd.domain.vocabulary import EventCode, Flag, Milestone, Reason, flag_mask, flags_of

LIVING = [milestone for milestone in Milestone if milestone not in TERMINAL]
ALL_FLAGS = flag_mask(*Flag)


def after(
    milestone: Milestone, code: EventCode, flags: int = 0, reason: int = 0
) -> tuple[int, int]:
    """Milestone and flags after one event of this code."""
    transition = TRANSITIONS[milestone << STEP_BITS | step_of(code, reason)]
    return transition.milestone, flags & transition.keeps | transition.raises


@pytest.mark.parametrize("code", list(EventCode))
def test_each_code_leads_to_its_milestone(code: EventCode) -> None:
    """From every milestone of a life that has not ended, and as the first event of all."""
    for before in LIVING:
        assert after(before, code)[0] == MILESTONE_AFTER.get(code, before)
    assert status([event(code)])[0] == MILESTONE_AFTER.get(code, Milestone.UNSPECIFIED)


@pytest.mark.parametrize("code", list(EventCode))
def test_each_code_raises_its_flags_and_no_other(code: EventCode) -> None:
    """A shipment without flags has, after it, exactly those that the vocabulary names."""
    for before in LIVING:
        assert set(flags_of(after(before, code)[1])) == (
            {RAISES[code]} if code in RAISES else set()
        )


@pytest.mark.parametrize("code", list(EventCode))
def test_each_code_ends_its_flags_and_no_other(code: EventCode) -> None:
    """Of all flags at once, exactly those are left that the code does not end, or raises itself."""
    left = set(Flag) - cleared_by(code) | raised_by(code, Reason.UNSPECIFIED)
    for before in LIVING:
        assert set(flags_of(after(before, code, ALL_FLAGS)[1])) == left


@pytest.mark.parametrize("reason", list(Reason))
def test_an_attempt_that_failed_for_the_address_says_so(reason: Reason) -> None:
    """ADDRESS_PROBLEM is raised by the two reasons that name the address, and by no other code."""
    failed = event(EventCode.DELIVERY_ATTEMPT_FAILED, reason=reason)
    address = reason in {Reason.ADDRESS_WRONG, Reason.ADDRESS_INCOMPLETE}
    assert (Flag.ADDRESS_PROBLEM in status([failed])[1]) is address
    for code in set(EventCode) - {EventCode.DELIVERY_ATTEMPT_FAILED}:
        assert Flag.ADDRESS_PROBLEM not in status([event(code, reason=reason)])[1]


@pytest.mark.parametrize("code", list(EventCode))
@pytest.mark.parametrize("end", sorted(TERMINAL))
def test_the_end_of_a_life_is_left_only_as_the_vocabulary_says(
    end: Milestone, code: EventCode
) -> None:
    """After DELIVERED only RETURNING moves it; any scan that may not follow is flagged as such."""
    milestone, flags = after(end, code)
    leaves = end == Milestone.DELIVERED and code == EventCode.RETURNING
    assert milestone == (Milestone.RETURNING if leaves else end)
    assert (Flag.UNEXPECTED_SCAN in flags_of(flags)) is not is_expected(code, end)


@pytest.mark.parametrize(
    ("code", "flag"),
    [
        (EventCode.DAMAGED, Flag.DAMAGED),
        (EventCode.LOST, Flag.LOST),
        (EventCode.DELAYED, Flag.DELAYED),
        (EventCode.HELD, Flag.HELD),
    ],
)
def test_problems_after_delivery_are_told(code: EventCode, flag: Flag) -> None:
    """The recipient finds it damaged: DELIVERED stays, the flag is raised, that is expected."""
    assert code in COUNTED_AFTER_DELIVERY
    assert status(life(EventCode.DELIVERED, code)) == (Milestone.DELIVERED, {flag})


def test_a_scan_after_the_end_is_kept_and_flagged() -> None:
    """A second delivery neither moves a delivered shipment nor goes unseen."""
    delivered_twice = life(EventCode.DELIVERED, EventCode.DELIVERED)
    assert status(delivered_twice) == (Milestone.DELIVERED, {Flag.UNEXPECTED_SCAN})


def test_an_unexpected_scan_still_finds_a_lost_parcel() -> None:
    """Whoever scans it has it in hand, whatever else is wrong with the scan."""
    found = life(EventCode.DELIVERED, EventCode.LOST, EventCode.SORTED)
    assert status(found) == (Milestone.DELIVERED, {Flag.UNEXPECTED_SCAN})


def test_a_returned_parcel_may_be_delivered_again_only_while_it_is_on_its_way() -> None:
    """RETURNING is not an end: a delivery after it counts, and one after RETURNED does not."""
    way_back = [EventCode.DELIVERED, EventCode.RETURNING]
    assert status(life(*way_back, EventCode.DELIVERED)) == (Milestone.DELIVERED, set())
    returned = life(*way_back, EventCode.RETURNED, EventCode.DELIVERED)
    assert status(returned) == (Milestone.RETURNED, {Flag.UNEXPECTED_SCAN})


def test_delivery_ends_every_problem_but_damage() -> None:
    """Delivered is delivered: what was late, held, lost or refused no longer is; a dent stays."""
    troubled = life(
        EventCode.DAMAGED,
        EventCode.DELAYED,
        EventCode.HELD,
        EventCode.REFUSED,
        EventCode.LOST,
        EventCode.DELIVERED,
    )
    assert status(troubled[:-1])[1] >= {Flag.DAMAGED, Flag.HELD, Flag.REFUSED, Flag.LOST}
    assert status(troubled) == (Milestone.DELIVERED, {Flag.DAMAGED})


def test_the_table_is_total() -> None:
    """Every step has a row in every milestone, and no row leads out of the milestones."""
    steps = {int(code) for code in EventCode} | {lifecycle.STEP_ATTEMPT_FAILED_FOR_ADDRESS}
    assert set(TRANSITIONS) == {
        before << STEP_BITS | step for before in Milestone for step in steps
    }
    assert {transition.milestone for transition in TRANSITIONS.values()} <= set(Milestone)
    assert max(steps) < 1 << STEP_BITS


def test_terminal_milestones_are_the_four_of_the_vocabulary() -> None:
    """Other rooms ask the table which milestones end a life."""
    assert lifecycle.TERMINAL == TERMINAL
