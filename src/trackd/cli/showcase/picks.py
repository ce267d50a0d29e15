"""Which parcels are worth a look: one for each thing that can have become of a parcel."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trackd.client.front_end import FrontEnd
from trackd.domain.vocabulary import Flag, Milestone
from trackd.v1.event_pb2 import ShipmentStatus

_Test = Callable[[ShipmentStatus], bool]


@dataclass(frozen=True, slots=True)
class Pick:
    """A parcel and what has become of it."""

    what: str
    waybill: str


def _at(milestone: Milestone) -> _Test:
    return lambda status: int(status.milestone) == milestone


def _flagged(flag: Flag) -> _Test:
    return lambda status: int(flag) in map(int, status.flags)


_KINDS: tuple[tuple[str, _Test], ...] = (
    ("delivered", _at(Milestone.DELIVERED)),
    ("with the courier now", _at(Milestone.OUT_FOR_DELIVERY)),
    ("waits to be collected", _at(Milestone.READY_FOR_COLLECTION)),
    ("delivery failed", _at(Milestone.DELIVERY_ATTEMPT_FAILED)),
    ("in customs", _at(Milestone.IN_CUSTOMS)),
    ("returned to the sender", _at(Milestone.RETURNED)),
    ("cancelled", _at(Milestone.CANCELLED)),
    ("damaged", _flagged(Flag.DAMAGED)),
    ("delayed", _flagged(Flag.DELAYED)),
    ("held", _flagged(Flag.HELD)),
    ("possibly lost", _flagged(Flag.LOST)),
)


async def pick(server: str, waybills: Iterable[str]) -> list[Pick]:
    """One parcel of each kind that there is, the one with the longest story."""
    async with FrontEnd(server) as front_end:
        statuses = (await front_end.get_statuses(waybills)).found
    picks = []
    taken: set[str] = set()
    for what, test in _KINDS:
        fitting = [
            status for status in statuses if test(status) and status.waybill_number not in taken
        ]
        if fitting:
            longest = max(fitting, key=lambda status: status.event_count)
            taken.add(longest.waybill_number)
            picks.append(Pick(what, longest.waybill_number))
    return picks
