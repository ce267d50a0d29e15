"""What goes wrong with parcels, and at borders: short stretches at one facility.

Like a leg, a mishap takes the parcel as it comes, lets time pass, and scans it. How often each
happens, and to which parcels, is in `stories.py`.
"""

from typing import Final

from trackd.domain.vocabulary import EventCode, Reason
from trackd.simulator import legs
from trackd.simulator.network import Facility
from trackd.simulator.parcel import Parcel

_DELAY_REASONS: Final = (
    Reason.WEATHER,
    Reason.TRAFFIC,
    Reason.CAPACITY,
    Reason.VEHICLE_BREAKDOWN,
)


def delayed(parcel: Parcel, here: Facility) -> None:
    """Kept waiting by weather, traffic, volume or a breakdown."""
    parcel.wait(20, 90)
    reason = _DELAY_REASONS[int(parcel.random() * len(_DELAY_REASONS))]
    parcel.scan(EventCode.DELAYED, here, reason=reason)
    parcel.wait(4 * 60, 30 * 60)


def held(parcel: Parcel, here: Facility) -> None:
    """Kept back for a check, then let go."""
    kept_back(parcel, here, Reason.SECURITY)
    parcel.wait(2 * 60, 24 * 60)
    parcel.scan(EventCode.PROBLEM_RESOLVED, here, attributes=("clears", "HELD"))


def kept_back(parcel: Parcel, here: Facility, reason: Reason) -> None:
    """Set aside."""
    parcel.wait(20, 90)
    parcel.scan(EventCode.HELD, here, reason=reason)


def damaged(parcel: Parcel, here: Facility) -> None:
    """Found damaged."""
    parcel.wait(10, 60)
    parcel.scan(EventCode.DAMAGED, here, reason=Reason.PACKAGING, remark="外包装破损")


def damaged_and_repacked(parcel: Parcel, here: Facility) -> None:
    """Found damaged on the outside only, and packed anew."""
    damaged(parcel, here)
    parcel.wait(60, 5 * 60)
    parcel.scan(
        EventCode.PROBLEM_RESOLVED, here, remark="已重新包装", attributes=("clears", "DAMAGED")
    )


def lost_and_found(parcel: Parcel, here: Facility) -> None:
    """Missed for days, then found where it was."""
    parcel.wait(24 * 60, 72 * 60)
    parcel.scan(EventCode.LOST, here)
    parcel.wait(6 * 60, 72 * 60)
    parcel.scan(EventCode.ARRIVED_AT_FACILITY, here, remark="清仓找到")
    resolved(parcel, here)


def resolved(parcel: Parcel, here: Facility) -> None:
    """Whatever was wrong is over."""
    parcel.wait(5, 30)
    parcel.scan(EventCode.PROBLEM_RESOLVED, here)


def missorted(parcel: Parcel, here: Facility) -> None:
    """Loaded onto the wrong truck, noticed at its end, and sent back."""
    lane = parcel.network.lane_astray(here, parcel.rng)
    legs.ridden(parcel, lane)
    parcel.wait(5, 30)
    parcel.scan(EventCode.DELAYED, lane.destination, reason=Reason.MISSORTED, remark="错分件")
    back = parcel.network.lanes[lane.destination.code, here.code]
    legs.ridden(parcel, back)


def presented_to_customs(parcel: Parcel, here: Facility, held_for: Reason) -> None:
    """Shown to customs, and held if there is a reason."""
    parcel.wait(20, 180)
    parcel.scan(EventCode.CUSTOMS_PRESENTED, here)
    if held_for:
        parcel.wait(60, 8 * 60)
        parcel.scan(EventCode.CUSTOMS_HELD, here, reason=held_for)
        parcel.wait(24 * 60, 96 * 60)


def through_customs(parcel: Parcel, here: Facility, held_for: Reason) -> None:
    """Shown to customs, perhaps held, and let go."""
    presented_to_customs(parcel, here, held_for)
    parcel.wait(60, 12 * 60)
    parcel.scan(EventCode.CUSTOMS_RELEASED, here)


def voided(parcel: Parcel, here: Facility) -> None:
    """The scan before taken back by whoever made it."""
    wrong = parcel.event_id(here)
    parcel.wait(3, 40)
    parcel.scan(EventCode.EVENT_VOIDED, here, remark="误操作", attributes=("voids", wrong))
