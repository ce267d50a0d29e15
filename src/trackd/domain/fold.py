"""How a shipment's status follows from its events.

The status is a function of the set of events, whatever order they arrived in: they are folded in
event time, ties broken by rank (the code's number, as codes are numbered along a parcel's way) and
then by the hash of the event id. `fold` is the definition. The partition has two short cuts, which
tests hold equal to it: an event newer than all others is one row of `lifecycle.TRANSITIONS`, and a
late one that is not in EVENTFUL_STEPS changes nothing on a PLAIN course. Nothing here knows how
events are encoded or kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from trackd.domain.lifecycle import (
    PROBLEM_RESOLVED_CLEARS,
    RULES,
    STEP_BITS,
    TRANSITIONS,
    step_of,
)
from trackd.domain.vocabulary import EventCode, Flag, flag_mask

# A rank is one byte of an event's key.
RANKS_MAX = 256


class Course(IntEnum):
    """How much of a journey must be known to count one more event in.

    PLAIN: every event so far carried a milestone, raised no flag and ended nothing.
    EVENTFUL: something happened, so an event that is not the newest needs the whole timeline.
    VOIDED: an event of the waybill voids another, so any event needs the whole timeline.
    """

    PLAIN = 0
    EVENTFUL = 1
    VOIDED = 2


class FoldEvent(NamedTuple):
    """What the fold needs of an event.

    order: sorts by event time, then rank, then hash of the id; unique within a waybill.
    clears: mask of the flags a PROBLEM_RESOLVED clears. voids: the event id an EVENT_VOIDED names.
    """

    order: bytes
    event_id: str
    code: int
    reason: int = 0
    clears: int = PROBLEM_RESOLVED_CLEARS
    voids: str = ""


@dataclass(frozen=True, slots=True)
class Folded:
    """The fold of a timeline. `last`: order of the event that put the shipment where it is."""

    milestone: int
    flags: int
    last: bytes
    course: Course


# Steps that end the PLAIN course wherever in the journey they happen.
EVENTFUL_STEPS = frozenset(
    key for key, transition in TRANSITIONS.items() if not key >> STEP_BITS and transition.eventful
)


def flags_named(names: str) -> int:
    """The mask of flags in a PROBLEM_RESOLVED's `clears`: names, comma separated.

    Raises ValueError with the first name that is no flag.
    """
    flags = []
    for part in names.split(","):
        name = part.strip().upper()
        if name not in Flag.__members__:
            raise ValueError(name)
        flags.append(Flag[name])
    return flag_mask(*flags)


def fold(events: Sequence[FoldEvent]) -> Folded:
    """Folds a whole timeline, given in ascending `order`; at least one event."""
    voided = _voided(events)
    milestone = flags = 0
    last = b""
    course = Course.PLAIN
    for event in events:
        if event.code == EventCode.EVENT_VOIDED:
            course = Course.VOIDED
        if event.event_id in voided:
            continue
        step = step_of(event.code, event.reason)
        transition = TRANSITIONS[milestone << STEP_BITS | step]
        if transition.eventful and course == Course.PLAIN:
            course = Course.EVENTFUL
        milestone = transition.milestone
        flags = flags & transition.keeps | transition.raises
        if event.code == EventCode.PROBLEM_RESOLVED:
            flags &= ~event.clears
        if transition.moves:
            last = event.order
    # Every event was voided: the latest one is the one to show.
    return Folded(milestone, flags, last or events[-1].order, course)


def _voided(events: Iterable[FoldEvent]) -> frozenset[str]:
    """The ids that are voided. A void that is itself voided by a later one does nothing."""
    voids = [event for event in events if event.code == EventCode.EVENT_VOIDED]
    voided: set[str] = set()
    for event in reversed(voids):
        if event.event_id not in voided:
            voided.add(event.voids)
    return frozenset(voided)


def rank_of(code: int) -> int:
    """Where an event stands among those of the same millisecond: along a parcel's way."""
    return code


assert all(rank_of(code) < RANKS_MAX for code in RULES)
