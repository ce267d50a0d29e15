"""Lives of parcels for the tests of the fold: events by code, one a second, with ids e1, e2, e3.

Also the rules of the vocabulary a second time, written from its text as sentences over sets and
not as a table: what the fold is compared with. Nothing here is imported from `lifecycle`.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from random import Random

from trackd.domain.fold import FoldEvent, fold
from trackd.domain.vocabulary import EventCode, Flag, Milestone, Reason, flag_mask, flags_of

START_MS = 1_700_000_000_000

Life = Sequence[FoldEvent]


def event(
    code: EventCode,
    second: float = 1,
    event_id: str = "",
    *,
    reason: Reason = Reason.UNSPECIFIED,
    clears: Iterable[Flag] | None = None,
    voids: str = "",
) -> FoldEvent:
    """An event at that second; without an id it is named after its second."""
    event_id = event_id or f"e{second:g}"
    at_ms = START_MS + int(second * 1000)
    order = at_ms.to_bytes(8, "big") + bytes((code,)) + sha256(event_id.encode()).digest()[:8]
    if clears is None:
        return FoldEvent(order, event_id, code, reason, voids=voids)
    return FoldEvent(order, event_id, code, reason, flag_mask(*clears), voids)


def life(*codes: EventCode) -> list[FoldEvent]:
    """Events e1, e2 … of these codes, a second apart."""
    return [event(code, second) for second, code in enumerate(codes, 1)]


def status(events: Iterable[FoldEvent]) -> tuple[Milestone, set[Flag]]:
    """Milestone and flags of a timeline, given in any order."""
    folded = fold(sorted(events))
    return Milestone(folded.milestone), set(flags_of(folded.flags))


# The vocabulary's sentences.

MILESTONE_AFTER = {
    EventCode.REGISTERED: Milestone.REGISTERED,
    EventCode.PICKED_UP: Milestone.PICKED_UP,
    EventCode.ARRIVED_AT_FACILITY: Milestone.IN_TRANSIT,
    EventCode.SORTED: Milestone.IN_TRANSIT,
    EventCode.DEPARTED_FACILITY: Milestone.IN_TRANSIT,
    EventCode.IN_TRANSIT: Milestone.IN_TRANSIT,
    EventCode.CUSTOMS_PRESENTED: Milestone.IN_CUSTOMS,
    EventCode.CUSTOMS_HELD: Milestone.IN_CUSTOMS,
    EventCode.CUSTOMS_RELEASED: Milestone.IN_TRANSIT,
    EventCode.OUT_FOR_DELIVERY: Milestone.OUT_FOR_DELIVERY,
    EventCode.DELIVERY_ATTEMPT_FAILED: Milestone.DELIVERY_ATTEMPT_FAILED,
    EventCode.READY_FOR_COLLECTION: Milestone.READY_FOR_COLLECTION,
    EventCode.DELIVERED: Milestone.DELIVERED,
    EventCode.REFUSED: Milestone.DELIVERY_ATTEMPT_FAILED,
    EventCode.RETURNING: Milestone.RETURNING,
    EventCode.RETURNED: Milestone.RETURNED,
    EventCode.FORWARDED: Milestone.IN_TRANSIT,
    EventCode.CANCELLED: Milestone.CANCELLED,
    EventCode.DESTROYED: Milestone.DESTROYED,
}
"""The codes that move a shipment; the others leave the milestone as it is."""

RAISES = {
    EventCode.CUSTOMS_HELD: Flag.HELD,
    EventCode.REFUSED: Flag.REFUSED,
    EventCode.DAMAGED: Flag.DAMAGED,
    EventCode.LOST: Flag.LOST,
    EventCode.DELAYED: Flag.DELAYED,
    EventCode.HELD: Flag.HELD,
}

# Said or written by somebody who did not have the parcel in hand.
NOT_PHYSICAL = {
    EventCode.REGISTERED,
    EventCode.CANCELLED,
    EventCode.LOST,
    EventCode.DELAYED,
    EventCode.HELD,
    EventCode.PROBLEM_RESOLVED,
    EventCode.EVENT_VOIDED,
}
ATTEMPTS = {
    EventCode.OUT_FOR_DELIVERY,
    EventCode.DELIVERY_ATTEMPT_FAILED,
    EventCode.READY_FOR_COLLECTION,
}
# It went on its way; being announced, kept by customs, called off or destroyed is no progress.
PROGRESS = set(MILESTONE_AFTER) - {
    EventCode.REGISTERED,
    EventCode.CUSTOMS_HELD,
    EventCode.CANCELLED,
    EventCode.DESTROYED,
}
TERMINAL = {Milestone.DELIVERED, Milestone.RETURNED, Milestone.CANCELLED, Milestone.DESTROYED}
ALWAYS_COUNTED = {EventCode.PROBLEM_RESOLVED, EventCode.EVENT_VOIDED}
COUNTED_AFTER_DELIVERY = ALWAYS_COUNTED | {
    EventCode.RETURNING,
    EventCode.DAMAGED,
    EventCode.LOST,
    EventCode.DELAYED,
    EventCode.HELD,
}


def is_expected(code: EventCode, milestone: Milestone) -> bool:
    """Whether a scan of this code may follow the milestone."""
    if milestone == Milestone.DELIVERED:
        return code in COUNTED_AFTER_DELIVERY
    return milestone not in TERMINAL or code in ALWAYS_COUNTED


def cleared_by(code: EventCode) -> set[Flag]:
    """The flags that an expected scan of this code ends."""
    if code == EventCode.DELIVERED:
        return set(Flag) - {Flag.DAMAGED}
    cleared = set() if code in NOT_PHYSICAL else {Flag.LOST}
    if code in PROGRESS:
        cleared |= {Flag.DELAYED, Flag.STALLED}
    if code in ATTEMPTS:
        cleared |= {Flag.REFUSED}
    if code == EventCode.CUSTOMS_RELEASED:
        cleared |= {Flag.HELD}
    return cleared


def raised_by(code: EventCode, reason: int) -> set[Flag]:
    """The flags that an expected scan of this code and reason begins."""
    raised = {RAISES[code]} if code in RAISES else set()
    if code == EventCode.DELIVERY_ATTEMPT_FAILED and reason in {
        Reason.ADDRESS_WRONG,
        Reason.ADDRESS_INCOMPLETE,
    }:
        raised.add(Flag.ADDRESS_PROBLEM)
    return raised


def told_by_the_vocabulary(events: Iterable[FoldEvent]) -> tuple[Milestone, set[Flag], FoldEvent]:
    """Milestone, flags and the event that moved it last, by the sentences above."""
    timeline = sorted(events)
    voided = set()
    for each in reversed(timeline):
        if each.code == EventCode.EVENT_VOIDED and each.event_id not in voided:
            voided.add(each.voids)
    milestone, flags, mover = Milestone.UNSPECIFIED, set[Flag](), None
    for each in timeline:
        if each.event_id in voided:
            continue
        code = EventCode(each.code)
        if not is_expected(code, milestone):
            flags -= set() if code in NOT_PHYSICAL else {Flag.LOST}
            flags |= {Flag.UNEXPECTED_SCAN}
            continue
        if code in MILESTONE_AFTER or milestone == Milestone.UNSPECIFIED:
            mover = each
        milestone = MILESTONE_AFTER.get(code, milestone)
        flags = flags - cleared_by(code) | raised_by(code, each.reason)
        if code == EventCode.PROBLEM_RESOLVED:
            flags -= set(flags_of(each.clears))
    return milestone, flags, mover or timeline[-1]


# Lives of any shape.


def random_life(rng: Random, length_max: int = 12) -> list[FoldEvent]:
    """A life of any codes in any order, possible or not; its voids may name what is not there."""
    events = []
    length = rng.randint(1, length_max)
    for number in range(1, length + 1):
        code = rng.choice(list(EventCode))
        events.append(
            event(
                code,
                rng.randint(1, length),  # ties are frequent
                f"e{number}",
                reason=rng.choice([Reason.UNSPECIFIED, Reason.ADDRESS_WRONG, Reason.WEATHER]),
                clears=rng.sample(list(Flag), 2) if rng.random() < 0.5 else None,
                voids=f"e{rng.randint(1, length + 1)}" if code == EventCode.EVENT_VOIDED else "",
            )
        )
    return events
