"""What a change says to a person: its kind, and the few facts that a message may tell.

The facts are chosen by an allow-list: nothing of a change that could be personal data (remark,
signer, operator, device, exact place) gets past this file. Nothing here knows how it is worded,
when it is told, or to whom.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TypeVar

from trackd.domain.vocabulary import Flag, Milestone, Reason, ReceivedBy
from trackd.v1.feed_pb2 import Change

_Word = TypeVar("_Word", bound=IntEnum)


class Kind(StrEnum):
    """What is new about a change. One that is several is the first of them in this order."""

    # An earlier scan was voided: what was told before may have been wrong.
    CORRECTION = "correction"
    # The waybill reached a milestone for the first time.
    MILESTONE = "milestone"
    # A flag was raised.
    PROBLEM = "problem"
    # A flag was cleared.
    RESOLVED = "resolved"
    # Nothing of that: another facility, or a milestone once more.
    STATUS = "status"


class UnknownWord(ValueError):
    """A milestone that this version has no word for: the server is newer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a message may tell. Flags in ascending order.

    flags: those that are up after the change, whenever they were raised: where older news of the
    waybill waited and was overtaken by this, nothing that still counts is left untold.
    """

    waybill_number: str
    kind: Kind
    milestone: Milestone
    flags: tuple[Flag, ...]
    raised: tuple[Flag, ...]
    cleared: tuple[Flag, ...]
    reason: Reason
    received_by: ReceivedBy
    occurred_at_ms: int
    facility_code: str


def news_of(change: Change) -> News:
    """What a change says. Raises UnknownWord."""
    milestone = _known(Milestone, change.milestone)
    if milestone is None:
        raise UnknownWord(f"milestone {change.milestone} is not known to this version")
    event = change.event
    delivered = milestone is Milestone.DELIVERED
    return News(
        waybill_number=change.waybill_number,
        kind=kind_of(change),
        milestone=milestone,
        flags=_all_known(Flag, change.status.flags),
        raised=_all_known(Flag, change.flags_raised),
        cleared=_all_known(Flag, change.flags_cleared),
        reason=_known(Reason, event.reason) or Reason.UNSPECIFIED,
        received_by=(
            (_known(ReceivedBy, event.receipt.received_by) if delivered else None)
            or ReceivedBy.UNSPECIFIED
        ),
        occurred_at_ms=event.occurred_at_ms or change.recorded_at_ms,
        facility_code=event.facility_code,
    )


def kind_of(change: Change) -> Kind:
    """What is new about a change."""
    if change.correction:
        return Kind.CORRECTION
    if change.first_occurrence:
        return Kind.MILESTONE
    if change.flags_raised:
        return Kind.PROBLEM
    if change.flags_cleared:
        return Kind.RESOLVED
    return Kind.STATUS


def _known(words: type[_Word], number: int) -> _Word | None:
    try:
        return words(number)
    except ValueError:
        return None


def _all_known(words: type[_Word], numbers: Iterable[int]) -> tuple[_Word, ...]:
    known = (_known(words, number) for number in numbers)
    return tuple(word for word in known if word is not None)
