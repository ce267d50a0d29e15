"""Stretches of a parcel's life, from which stories are put together.

A leg takes the parcel as the leg before left it, lets time pass, and scans it on the way. It knows
its own stretch only: which legs make a journey, and how often, is in `stories.py`.
"""

from bisect import bisect
from collections.abc import Callable, Sequence
from typing import Final
from zlib import crc32

from trackd.domain.vocabulary import EventCode, Reason, ReceivedBy
from trackd.simulator.network import DAY_MS, MINUTE_MS, Facility, Kind, Lane
from trackd.simulator.parcel import Parcel, Round

# Shops pack during the day and hand over before the evening trucks: the day's wave begins here.
_PICKUP_ROUNDS: Final[tuple[Round, ...]] = (
    (9 * 60 + 30, 11 * 60 + 30),
    (13 * 60 + 30, 16 * 60),
    (16 * 60, 20 * 60 + 30),
)
_PICKUP_SHARES: Final = (0.12, 0.30)  # up to and including the first, the second round
_DELIVERY_ROUNDS: Final[tuple[Round, ...]] = (
    (7 * 60, 9 * 60 + 30),
    (13 * 60 + 30, 15 * 60),
)
_OFFICE_HOURS: Final[tuple[Round, ...]] = ((9 * 60, 18 * 60),)
_COLLECTION_HOURS: Final[tuple[Round, ...]] = ((8 * 60, 10 * 60), (17 * 60, 22 * 60))

_LOADING_MINUTES = 15
_LONG_LANE_KM = 800
_SHARE_TAKEN_IN_PERSON = 0.75

_SURNAMES: Final = "王李张刘陈杨黄赵周吴徐孙马胡朱郭何林罗高"
_ATTEMPT_REMARKS: Final = {
    Reason.RECIPIENT_ABSENT: "家中无人，改日再派",
    Reason.RECIPIENT_UNREACHABLE: "收件人电话无人接听",
    Reason.RECIPIENT_REQUESTED_LATER: "收件人要求改日派送",
    Reason.BUSINESS_CLOSED: "单位已下班",
    Reason.ADDRESS_WRONG: "地址与收件人不符",
    Reason.ADDRESS_INCOMPLETE: "缺少门牌号",
    Reason.PAYMENT_DUE: "到付款未付",
}
_ATTEMPT_REASONS: Final = (
    Reason.RECIPIENT_ABSENT,
    Reason.RECIPIENT_ABSENT,
    Reason.RECIPIENT_ABSENT,
    Reason.RECIPIENT_UNREACHABLE,
    Reason.RECIPIENT_UNREACHABLE,
    Reason.RECIPIENT_REQUESTED_LATER,
    Reason.BUSINESS_CLOSED,
    Reason.ADDRESS_WRONG,
    Reason.ADDRESS_INCOMPLETE,
    Reason.PAYMENT_DUE,
)

# What happens to a parcel at a facility on its way.
Mishap = Callable[[Parcel, Facility], None]


def collected(parcel: Parcel) -> None:
    """Ordered, picked up by a courier, brought to the outlet."""
    outlet = parcel.origin
    parcel.announce()
    parcel.wait(20, 60)
    handed_in = _PICKUP_ROUNDS[bisect(_PICKUP_SHARES, parcel.random())]
    parcel.wait_for_round((handed_in,), outlet)
    parcel.choose_crew(outlet)
    parcel.scan(EventCode.PICKED_UP, outlet, on_the_road=True)
    parcel.wait(20, 120)
    parcel.scan(EventCode.ARRIVED_AT_FACILITY, outlet)


def carried(
    parcel: Parcel,
    lanes: Sequence[Lane],
    mishap: Mishap | None = None,
    *,
    at_lane: int = 0,
) -> None:
    """From the first lane's origin to the last one's destination; `mishap` at the end of one."""
    for index, lane in enumerate(lanes):
        if lane.origin.kind is Kind.HUB:
            sorted_for(parcel, lane)
        ridden(parcel, lane)
        if mishap and index == at_lane:
            mishap(parcel, lane.destination)


def sorted_for(parcel: Parcel, lane: Lane) -> None:
    """Put into the bag for a lane."""
    parcel.wait(15, 100)
    parcel.choose_crew(lane.origin)
    day = parcel.now_ms // DAY_MS % 1_000
    bag = f"B-{lane.origin.city}-{lane.destination.code}-{day:03d}{int(parcel.random() * 40):02d}"
    parcel.scan(EventCode.SORTED, lane.origin, towards=lane.destination.code, container=bag)


def ridden(parcel: Parcel, lane: Lane) -> None:
    """Loaded shortly before a departure, perhaps seen on a long way, unloaded after the arrival."""
    here, there = lane.origin, lane.destination
    haul = lane.next_haul(parcel.now_ms + _LOADING_MINUTES * MINUTE_MS)
    parcel.wait_until(haul.depart_ms - int(parcel.random() * (_LOADING_MINUTES - 1) * MINUTE_MS))
    parcel.scan(EventCode.DEPARTED_FACILITY, here, towards=there.code, container=haul.number)
    if lane.km > _LONG_LANE_KM:
        parcel.wait_until((parcel.now_ms + haul.arrive_ms) // 2)
        parcel.scan_aboard(lane, haul)
    parcel.wait_until(haul.arrive_ms + int((5 + 40 * parcel.random()) * MINUTE_MS))
    parcel.choose_crew(there)
    parcel.scan(EventCode.ARRIVED_AT_FACILITY, there, container=haul.number)


def out_for_delivery(parcel: Parcel) -> None:
    """Taken along by a courier on the next round."""
    outlet = parcel.destination
    parcel.wait(15, 45)
    parcel.wait_for_round(_DELIVERY_ROUNDS, outlet)
    parcel.choose_crew(outlet)
    parcel.scan(EventCode.OUT_FOR_DELIVERY, outlet)
    parcel.wait(20, 260)


def attempt_failed(parcel: Parcel) -> None:
    """The courier could not hand it over."""
    reason = _ATTEMPT_REASONS[int(parcel.random() * len(_ATTEMPT_REASONS))]
    parcel.scan(
        EventCode.DELIVERY_ATTEMPT_FAILED,
        parcel.destination,
        reason=reason,
        remark=_ATTEMPT_REMARKS[reason],
        on_the_road=True,
    )
    parcel.wait(6 * 60, 10 * 60)


def handed_over(parcel: Parcel) -> None:
    """Given to the recipient, or to somebody for them."""
    proof = f"{parcel.rng.getrandbits(256):064x}"
    signer = parcel.one_of(_SURNAMES) + "**"
    if parcel.random() < _SHARE_TAKEN_IN_PERSON:
        receipt = (int(ReceivedBy.SELF), "", proof, signer)
    else:
        receipt = (int(ReceivedBy.PROXY), _consent(parcel), proof, signer)
    parcel.scan(EventCode.DELIVERED, parcel.destination, receipt=receipt, on_the_road=True)


def _consent(parcel: Parcel) -> str:
    return f"CONSENT-{parcel.rng.getrandbits(40):010X}"


def left_to_collect(parcel: Parcel, received_by: ReceivedBy) -> None:
    """Put into a locker, station or counter; a later leg says whether it was collected there."""
    parcel.scan(
        EventCode.READY_FOR_COLLECTION,
        parcel.destination,
        place=_collection_point(parcel, received_by),
    )


def _collection_point(parcel: Parcel, received_by: ReceivedBy) -> str:
    outlet = parcel.destination
    if received_by is ReceivedBy.COUNTER:
        return outlet.counter
    # By its number, so that two legs of one parcel mean the same locker without telling each other.
    points = outlet.lockers if received_by is ReceivedBy.LOCKER else outlet.stations
    return points[crc32(parcel.waybill.encode()) % len(points)]


def picked_out(parcel: Parcel, received_by: ReceivedBy) -> None:
    """Collected by the recipient where it was left, within two days."""
    parcel.wait(30, 36 * 60)
    parcel.wait_for_round(_COLLECTION_HOURS, parcel.destination)
    parcel.scan(
        EventCode.DELIVERED,
        parcel.destination,
        place=_collection_point(parcel, received_by),
        receipt=(int(received_by), _consent(parcel), "", ""),
    )


def refused(parcel: Parcel) -> None:
    """Not taken by the recipient."""
    parcel.scan(
        EventCode.REFUSED,
        parcel.destination,
        reason=Reason.RECIPIENT_REFUSED,
        remark="收件人拒收",
        on_the_road=True,
    )
    parcel.wait(3 * 60, 20 * 60)


def returned(parcel: Parcel, lanes: Sequence[Lane]) -> None:
    """Back the way it came, scanned as a return wherever it arrives, and given to the sender."""
    _going_back(parcel, parcel.destination, towards=lanes[-1].origin.code)
    for lane in reversed(lanes):
        parcel.wait(3 * 60, 8 * 60)
        parcel.wait_until(parcel.now_ms + lane.run_ms)
        parcel.choose_crew(lane.origin)
        _going_back(parcel, lane.origin)
    parcel.wait_for_round(_OFFICE_HOURS, parcel.origin)
    parcel.scan(
        EventCode.RETURNED,
        parcel.origin,
        receipt=(int(ReceivedBy.SELF), "", "", ""),
        on_the_road=True,
    )


def _going_back(parcel: Parcel, here: Facility, towards: str = "") -> None:
    parcel.scan(EventCode.RETURNING, here, towards=towards, remark="退回寄件人")
