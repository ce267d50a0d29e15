"""What can happen to a parcel from order to end, and how often: the tables of stories.

A story is a sequence of legs. Every one of them comes to 8-30 scans, and its times ascend. Nothing
here knows when or in which order the scans reach a server.
"""

from bisect import bisect
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import accumulate
from random import Random
from typing import Final

from trackd.domain.vocabulary import EventCode, Reason, ReceivedBy
from trackd.simulator import legs, mishaps
from trackd.simulator.network import Kind, Lane, Network
from trackd.simulator.parcel import Parcel
from trackd.simulator.scan import Itinerary, Scan, scan_of, scans_in
from trackd.simulator.waybills import WaybillNumbers, is_s10

# The eve of Singles' Day 2025, midnight in China: where samples begin unless told otherwise.
SAMPLE_START_MS: Final = 1_762_704_000_000

Telling = Callable[[Parcel], None]


class Story(Enum):
    """The kinds of journey."""

    HANDED_OVER = "delivered at the door"
    LOCKER = "collected from a locker"
    STATION = "collected from a station"
    SECOND_ATTEMPT = "delivered at the second attempt"
    COUNTER = "collected from the counter after two attempts"
    REFUSED = "refused and returned"
    UNCOLLECTED = "never collected, returned"
    SENT_BACK = "delivered, then sent back by the recipient"
    FORWARDED = "sent on to another address"
    CANCELLED = "called off by the sender on the way"
    DELAYED = "delayed on the way"
    HELD = "held for a check, then let go"
    MISSORTED = "sent the wrong way and back"
    REPACKED = "damaged, repacked, delivered"
    DESTROYED = "damaged beyond repair"
    FOUND = "lost and found"
    LOST = "lost"
    VOIDED = "marked as delivered by mistake"
    CLEARED = "abroad, through customs at once"
    HELD_OUTWARD = "abroad, held by customs on the way out"
    HELD_INWARD = "abroad, held by customs there for papers"
    DUTY_DUE = "abroad, held by customs there for duty"
    SEIZED = "abroad, seized and destroyed by customs"
    FAILED_ABROAD = "abroad, delivered at the second attempt"


def _delivered(parcel: Parcel) -> None:
    legs.out_for_delivery(parcel)
    legs.handed_over(parcel)


def _way(parcel: Parcel) -> tuple[Lane, ...]:
    return parcel.network.way(parcel.origin, parcel.destination)


def _to_the_door(parcel: Parcel, mishap: legs.Mishap | None = None) -> None:
    """Out for delivery at its outlet; `mishap` at one of the hubs on the way."""
    lanes = _way(parcel)
    legs.collected(parcel)
    at_lane = int(parcel.random() * (len(lanes) - 1))
    legs.carried(parcel, lanes, mishap, at_lane=at_lane)
    legs.out_for_delivery(parcel)


def _handed_over(mishap: legs.Mishap | None = None) -> Telling:
    def tell(parcel: Parcel) -> None:
        _to_the_door(parcel, mishap)
        legs.handed_over(parcel)

    return tell


def _left_at(received_by: ReceivedBy) -> Telling:
    def tell(parcel: Parcel) -> None:
        _to_the_door(parcel)
        legs.left_to_collect(parcel, received_by)
        legs.picked_out(parcel, received_by)

    return tell


def _second_attempt(parcel: Parcel) -> None:
    _to_the_door(parcel)
    legs.attempt_failed(parcel)
    _delivered(parcel)


def _counter(parcel: Parcel) -> None:
    _to_the_door(parcel)
    legs.attempt_failed(parcel)
    legs.out_for_delivery(parcel)
    legs.attempt_failed(parcel)
    legs.left_to_collect(parcel, ReceivedBy.COUNTER)
    legs.picked_out(parcel, ReceivedBy.COUNTER)


def _refused(parcel: Parcel) -> None:
    _to_the_door(parcel)
    legs.refused(parcel)
    legs.returned(parcel, _way(parcel))


def _uncollected(parcel: Parcel) -> None:
    _to_the_door(parcel)
    legs.left_to_collect(parcel, ReceivedBy.STATION)
    parcel.wait(5 * 24 * 60, 7 * 24 * 60)
    legs.returned(parcel, _way(parcel))


def _sent_back(parcel: Parcel) -> None:
    _handed_over()(parcel)
    parcel.wait(24 * 60, 5 * 24 * 60)
    legs.returned(parcel, _way(parcel))


def _forwarded(parcel: Parcel) -> None:
    legs.collected(parcel)
    legs.carried(parcel, _way(parcel))
    first = parcel.destination
    others = [o for o in parcel.network.outlets[first.city] if o is not first]
    parcel.destination = others[int(parcel.random() * len(others))]
    parcel.wait(30, 6 * 60)
    parcel.scan(
        EventCode.FORWARDED, first, towards=parcel.destination.code, remark="收件人更改地址"
    )
    back = parcel.network.lanes[first.code, parcel.network.hubs[first.city].code]
    onward = parcel.network.lanes[back.destination.code, parcel.destination.code]
    legs.carried(parcel, (back, onward))
    _delivered(parcel)


def _to_the_first_hub(parcel: Parcel) -> None:
    """As far as the origin's hub, and sorted there: six scans."""
    legs.collected(parcel)
    lanes = _way(parcel)
    legs.carried(parcel, lanes[:1])
    legs.sorted_for(parcel, lanes[1])


def _cancelled(parcel: Parcel) -> None:
    _to_the_first_hub(parcel)
    hub = _way(parcel)[0].destination
    mishaps.kept_back(parcel, hub, Reason.OTHER)
    parcel.wait(10, 120)
    parcel.scan(EventCode.CANCELLED, hub, remark="寄件人要求截回")


def _destroyed(parcel: Parcel) -> None:
    _to_the_first_hub(parcel)
    hub = _way(parcel)[0].destination
    mishaps.damaged(parcel, hub)
    parcel.wait(24 * 60, 72 * 60)
    parcel.scan(EventCode.DESTROYED, hub, reason=Reason.PACKAGING, remark="无法修复")


def _lost(parcel: Parcel) -> None:
    legs.collected(parcel)
    lanes = _way(parcel)
    legs.carried(parcel, lanes[:2])
    here = lanes[1].destination
    parcel.wait(48 * 60, 120 * 60)
    parcel.scan(EventCode.LOST, here)


def _voided(parcel: Parcel) -> None:
    _to_the_door(parcel)
    parcel.scan(EventCode.DELIVERED, parcel.destination, on_the_road=True)
    mishaps.voided(parcel, parcel.destination)
    parcel.wait(20, 180)
    legs.handed_over(parcel)


def _abroad(
    out: Reason = Reason.UNSPECIFIED,
    inward: Reason = Reason.UNSPECIFIED,
    *,
    attempts: int = 1,
) -> Telling:
    """Through customs on both sides, held on either for a reason given."""

    def tell(parcel: Parcel) -> None:
        lanes, flight = _way_abroad(parcel)
        legs.collected(parcel)
        legs.carried(parcel, lanes[:flight])
        mishaps.through_customs(parcel, lanes[flight].origin, out)
        legs.carried(parcel, lanes[flight : flight + 1])
        mishaps.through_customs(parcel, lanes[flight].destination, inward)
        legs.carried(parcel, lanes[flight + 1 :])
        for _ in range(1, attempts):
            legs.out_for_delivery(parcel)
            legs.attempt_failed(parcel)
        _delivered(parcel)

    return tell


def _way_abroad(parcel: Parcel) -> tuple[tuple[Lane, ...], int]:
    """The lanes, and which of them is the flight from one office of exchange to the other."""
    lanes = _way(parcel)
    return lanes, next(n for n, lane in enumerate(lanes) if lane.origin.kind is Kind.EXCHANGE)


def _seized(parcel: Parcel) -> None:
    lanes, flight = _way_abroad(parcel)
    here = lanes[flight].origin
    legs.collected(parcel)
    legs.carried(parcel, lanes[:flight])
    mishaps.presented_to_customs(parcel, here, Reason.PROHIBITED_GOODS)
    parcel.scan(EventCode.DESTROYED, here, reason=Reason.PROHIBITED_GOODS, remark="海关没收销毁")


_DOMESTIC: Final[Mapping[Story, tuple[float, Telling]]] = {
    Story.HANDED_OVER: (0.500, _handed_over()),
    Story.LOCKER: (0.140, _left_at(ReceivedBy.LOCKER)),
    Story.STATION: (0.220, _left_at(ReceivedBy.STATION)),
    Story.SECOND_ATTEMPT: (0.040, _second_attempt),
    Story.COUNTER: (0.006, _counter),
    Story.REFUSED: (0.012, _refused),
    Story.UNCOLLECTED: (0.006, _uncollected),
    Story.SENT_BACK: (0.012, _sent_back),
    Story.FORWARDED: (0.008, _forwarded),
    Story.CANCELLED: (0.008, _cancelled),
    Story.DELAYED: (0.020, _handed_over(mishaps.delayed)),
    Story.HELD: (0.005, _handed_over(mishaps.held)),
    Story.MISSORTED: (0.006, _handed_over(mishaps.missorted)),
    Story.REPACKED: (0.004, _handed_over(mishaps.damaged_and_repacked)),
    Story.DESTROYED: (0.002, _destroyed),
    Story.FOUND: (0.003, _handed_over(mishaps.lost_and_found)),
    Story.LOST: (0.002, _lost),
    Story.VOIDED: (0.006, _voided),
}

_CROSS_BORDER: Final[Mapping[Story, tuple[float, Telling]]] = {
    Story.CLEARED: (0.80, _abroad()),
    Story.HELD_OUTWARD: (0.04, _abroad(out=Reason.CUSTOMS_INSPECTION)),
    Story.HELD_INWARD: (0.07, _abroad(inward=Reason.DOCUMENTS_MISSING)),
    Story.DUTY_DUE: (0.04, _abroad(inward=Reason.PAYMENT_DUE)),
    Story.SEIZED: (0.01, _seized),
    Story.FAILED_ABROAD: (0.04, _abroad(attempts=2)),
}


class _Choice:
    """Picks a story as often as its share says."""

    def __init__(self, table: Mapping[Story, tuple[float, Telling]]) -> None:
        self._stories = tuple(table)
        self._shares = tuple(accumulate(share for share, _ in table.values()))

    def __call__(self, chance: float) -> Story:
        return self._stories[bisect(self._shares, chance * self._shares[-1])]


_choose_domestic, _choose_cross_border = _Choice(_DOMESTIC), _Choice(_CROSS_BORDER)


def stories_of(waybill: str) -> Mapping[Story, float]:
    """Which stories a parcel of this number can have, each with its share."""
    table = _CROSS_BORDER if is_s10(waybill) else _DOMESTIC
    return {story: share for story, (share, _) in table.items()}


def itinerary(
    network: Network, rng: Random, waybill: str, start_ms: int, story: Story | None = None
) -> Itinerary:
    """The scans to come of one parcel ordered at `start_ms`: 8-30, each later than the one before.

    A number of UPU S10 form goes abroad, any other stays in the country. Raises KeyError for a
    story that such a parcel cannot have; without a story, draws one.
    """
    abroad = is_s10(waybill)
    if story is None:
        story = (_choose_cross_border if abroad else _choose_domestic)(rng.random())
    _, tell = (_CROSS_BORDER if abroad else _DOMESTIC)[story]
    parcel = Parcel(
        network=network,
        rng=rng,
        waybill=waybill,
        start_ms=start_ms,
        origin=network.outlet(rng),
        destination=network.outlet_abroad(rng) if abroad else network.outlet(rng),
    )
    tell(parcel)
    return parcel.itinerary()


def journey(
    network: Network, rng: Random, waybill: str, start_ms: int, story: Story | None = None
) -> list[Scan]:
    """All scans of one parcel, as `itinerary` plans them."""
    plan = itinerary(network, rng, waybill, start_ms, story)
    return [scan_of(plan, nth) for nth in range(scans_in(plan))]


def sample_journeys(
    seed: int, count: int, *, start_ms: int = SAMPLE_START_MS, cross_border_share: float = 0.05
) -> list[list[Scan]]:
    """Whole journeys of `count` parcels, ordered a second apart; equal for equal arguments."""
    network = Network.build(seed)
    rng = Random(f"sample {seed}")
    numbers = WaybillNumbers(rng, cross_border_share=cross_border_share)
    return [journey(network, rng, numbers.issue(), start_ms + nth * 1_000) for nth in range(count)]
