"""The life of a shipment, as one table.

Every rule that moves a milestone or raises or clears a flag is here; no other file compares
milestones. Nothing here knows where events come from, where they are kept, or what time it is.
`fold.py` applies the table to a whole timeline, the partition applies one row of it to one new
event.
"""

from dataclasses import dataclass
from typing import NamedTuple

from trackd.domain.vocabulary import EventCode, Flag, Milestone, Reason, flag_mask

ALL_FLAGS = flag_mask(*Flag)

# What an event can be to the table: its code, or this one for an attempt that failed for the
# address. Codes are below 100, so a step fits 7 bits and a milestone and a step make one small
# integer.
STEP_ATTEMPT_FAILED_FOR_ADDRESS = 100
STEP_BITS = 7

ADDRESS_REASONS = frozenset({Reason.ADDRESS_WRONG, Reason.ADDRESS_INCOMPLETE})

TERMINAL = frozenset(
    {Milestone.DELIVERED, Milestone.RETURNED, Milestone.CANCELLED, Milestone.DESTROYED}
)


@dataclass(frozen=True, slots=True)
class CodeRule:
    """What a code does to a shipment whose life has not ended.

    milestone: the milestone after it; None leaves it as it is.
    raises, clears: masks of flags; what a code raises wins over what it clears.
    physical: somebody had the parcel in hand, so it is not LOST.
    """

    milestone: Milestone | None = None
    raises: int = 0
    clears: int = 0
    physical: bool = True


# Progress ends a delay; a new attempt ends a refusal.
_PROGRESS = flag_mask(Flag.DELAYED, Flag.STALLED)
_ATTEMPT = _PROGRESS | flag_mask(Flag.REFUSED)
_ALL_BUT_DAMAGED = ALL_FLAGS & ~flag_mask(Flag.DAMAGED)
_ON_THE_WAY = CodeRule(Milestone.IN_TRANSIT, clears=_PROGRESS)

RULES: dict[EventCode, CodeRule] = {
    EventCode.REGISTERED: CodeRule(Milestone.REGISTERED, physical=False),
    EventCode.PICKED_UP: CodeRule(Milestone.PICKED_UP, clears=_PROGRESS),
    EventCode.ARRIVED_AT_FACILITY: _ON_THE_WAY,
    EventCode.SORTED: _ON_THE_WAY,
    EventCode.DEPARTED_FACILITY: _ON_THE_WAY,
    EventCode.IN_TRANSIT: _ON_THE_WAY,
    EventCode.CUSTOMS_PRESENTED: CodeRule(Milestone.IN_CUSTOMS, clears=_PROGRESS),
    EventCode.CUSTOMS_HELD: CodeRule(Milestone.IN_CUSTOMS, raises=flag_mask(Flag.HELD)),
    EventCode.CUSTOMS_RELEASED: CodeRule(
        Milestone.IN_TRANSIT, clears=_PROGRESS | flag_mask(Flag.HELD)
    ),
    EventCode.OUT_FOR_DELIVERY: CodeRule(Milestone.OUT_FOR_DELIVERY, clears=_ATTEMPT),
    EventCode.DELIVERY_ATTEMPT_FAILED: CodeRule(Milestone.DELIVERY_ATTEMPT_FAILED, clears=_ATTEMPT),
    EventCode.READY_FOR_COLLECTION: CodeRule(Milestone.READY_FOR_COLLECTION, clears=_ATTEMPT),
    EventCode.DELIVERED: CodeRule(Milestone.DELIVERED, clears=_ALL_BUT_DAMAGED),
    EventCode.REFUSED: CodeRule(
        Milestone.DELIVERY_ATTEMPT_FAILED, raises=flag_mask(Flag.REFUSED), clears=_PROGRESS
    ),
    EventCode.RETURNING: CodeRule(Milestone.RETURNING, clears=_PROGRESS),
    EventCode.RETURNED: CodeRule(Milestone.RETURNED, clears=_PROGRESS),
    EventCode.FORWARDED: _ON_THE_WAY,
    EventCode.CANCELLED: CodeRule(Milestone.CANCELLED, physical=False),
    EventCode.DESTROYED: CodeRule(Milestone.DESTROYED),
    EventCode.DAMAGED: CodeRule(raises=flag_mask(Flag.DAMAGED)),
    EventCode.LOST: CodeRule(raises=flag_mask(Flag.LOST), physical=False),
    EventCode.DELAYED: CodeRule(raises=flag_mask(Flag.DELAYED), physical=False),
    EventCode.HELD: CodeRule(raises=flag_mask(Flag.HELD), physical=False),
    # What these two do depends on their attributes; see fold.py.
    EventCode.PROBLEM_RESOLVED: CodeRule(physical=False),
    EventCode.EVENT_VOIDED: CodeRule(physical=False),
}

PROBLEM_RESOLVED_CLEARS = _ALL_BUT_DAMAGED

# What still counts once a shipment's life has ended. Every other scan is kept and raises
# UNEXPECTED_SCAN.
AFTER_THE_END: dict[Milestone, frozenset[EventCode]] = {
    Milestone.DELIVERED: frozenset(
        {
            EventCode.RETURNING,
            EventCode.DAMAGED,
            EventCode.LOST,
            EventCode.DELAYED,
            EventCode.HELD,
            EventCode.PROBLEM_RESOLVED,
            EventCode.EVENT_VOIDED,
        }
    ),
    **{
        milestone: frozenset({EventCode.PROBLEM_RESOLVED, EventCode.EVENT_VOIDED})
        for milestone in TERMINAL - {Milestone.DELIVERED}
    },
}


class Transition(NamedTuple):
    """What one step does in one milestone. A tuple, as the hot path takes it apart once per event.

    milestone: after it. keeps, raises: the flags after it are `flags & keeps | raises`.
    moves: it becomes the event that put the shipment where it is; so does any event before the
    first milestone. eventful: after it, a late event needs the whole timeline (see `fold.Course`).
    """

    milestone: int
    keeps: int
    raises: int
    moves: bool
    eventful: bool


def step_of(code: int, reason: int) -> int:
    """What an event of this code and reason is to the table."""
    if code == EventCode.DELIVERY_ATTEMPT_FAILED and reason in ADDRESS_REASONS:
        return STEP_ATTEMPT_FAILED_FOR_ADDRESS
    return code


def _transition(before: Milestone, code: EventCode, also_raises: int = 0) -> Transition:
    rule = RULES[code]
    lost = flag_mask(Flag.LOST) if rule.physical else 0
    if before in TERMINAL and code not in AFTER_THE_END[before]:
        return Transition(
            milestone=before,
            keeps=ALL_FLAGS & ~lost,
            raises=flag_mask(Flag.UNEXPECTED_SCAN),
            moves=False,
            eventful=True,
        )
    after = before if rule.milestone is None else rule.milestone
    raises = rule.raises | also_raises
    return Transition(
        milestone=after,
        keeps=ALL_FLAGS & ~(rule.clears | lost),
        raises=raises,
        moves=rule.milestone is not None or not after,
        eventful=rule.milestone is None or bool(raises) or after in TERMINAL,
    )


def _transitions() -> dict[int, Transition]:
    table = {
        before << STEP_BITS | code: _transition(before, code)
        for before in Milestone
        for code in EventCode
    }
    for before in Milestone:
        table[before << STEP_BITS | STEP_ATTEMPT_FAILED_FOR_ADDRESS] = _transition(
            before, EventCode.DELIVERY_ATTEMPT_FAILED, flag_mask(Flag.ADDRESS_PROBLEM)
        )
    return table


# The whole life: (milestone << STEP_BITS | step) -> what happens.
TRANSITIONS = _transitions()
