"""Journeys are what a courier's parcels go through: every kind, in time, within bounds."""

from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from tests.simulator.conftest import SEED
from trackd.domain.fold import FoldEvent, flags_named, fold
from trackd.domain.lifecycle import PROBLEM_RESOLVED_CLEARS
from trackd.domain.vocabulary import EventCode, Flag, Milestone, Reason, ReceivedBy, flags_of
from trackd.simulator.network import DAY_MS, Network
from trackd.simulator.places import ABROAD, CITIES
from trackd.simulator.scan import Scan
from trackd.simulator.stories import (
    SAMPLE_START_MS,
    Story,
    journey,
    sample_journeys,
    stories_of,
)
from trackd.simulator.waybills import is_s10

DOMESTIC, CROSS_BORDER = "SF1234567890123", "LX473124829CN"
KINDS = [(story, number) for number in (DOMESTIC, CROSS_BORDER) for story in stories_of(number)]

# How a story ends; every other one ends with the parcel delivered and no flag.
ENDS = {
    Story.REFUSED: (Milestone.RETURNED, [Flag.REFUSED]),
    Story.UNCOLLECTED: (Milestone.RETURNED, []),
    Story.SENT_BACK: (Milestone.RETURNED, []),
    Story.CANCELLED: (Milestone.CANCELLED, [Flag.HELD]),
    Story.DESTROYED: (Milestone.DESTROYED, [Flag.DAMAGED]),
    Story.SEIZED: (Milestone.DESTROYED, [Flag.HELD]),
    Story.LOST: (Milestone.IN_TRANSIT, [Flag.LOST]),
}

# What tells a story from the others: codes in this order, perhaps with others between.
SIGNS = {
    Story.HANDED_OVER: "OUT_FOR_DELIVERY DELIVERED",
    Story.LOCKER: "OUT_FOR_DELIVERY READY_FOR_COLLECTION DELIVERED",
    Story.STATION: "OUT_FOR_DELIVERY READY_FOR_COLLECTION DELIVERED",
    Story.SECOND_ATTEMPT: "OUT_FOR_DELIVERY DELIVERY_ATTEMPT_FAILED OUT_FOR_DELIVERY DELIVERED",
    Story.COUNTER: "DELIVERY_ATTEMPT_FAILED DELIVERY_ATTEMPT_FAILED READY_FOR_COLLECTION DELIVERED",
    Story.REFUSED: "OUT_FOR_DELIVERY REFUSED RETURNING RETURNED",
    Story.UNCOLLECTED: "READY_FOR_COLLECTION RETURNING RETURNED",
    Story.SENT_BACK: "DELIVERED RETURNING RETURNED",
    Story.FORWARDED: "ARRIVED_AT_FACILITY FORWARDED DEPARTED_FACILITY DELIVERED",
    Story.CANCELLED: "PICKED_UP HELD CANCELLED",
    Story.DELAYED: "ARRIVED_AT_FACILITY DELAYED DELIVERED",
    Story.HELD: "HELD PROBLEM_RESOLVED DELIVERED",
    Story.MISSORTED: "DEPARTED_FACILITY DELAYED DEPARTED_FACILITY DELIVERED",
    Story.REPACKED: "DAMAGED PROBLEM_RESOLVED DELIVERED",
    Story.DESTROYED: "DAMAGED DESTROYED",
    Story.FOUND: "LOST ARRIVED_AT_FACILITY PROBLEM_RESOLVED DELIVERED",
    Story.LOST: "DEPARTED_FACILITY LOST",
    Story.VOIDED: "DELIVERED EVENT_VOIDED DELIVERED",
    Story.CLEARED: "CUSTOMS_PRESENTED CUSTOMS_RELEASED CUSTOMS_PRESENTED DELIVERED",
    Story.HELD_OUTWARD: "CUSTOMS_HELD CUSTOMS_RELEASED CUSTOMS_PRESENTED DELIVERED",
    Story.HELD_INWARD: "CUSTOMS_RELEASED CUSTOMS_HELD CUSTOMS_RELEASED DELIVERED",
    Story.DUTY_DUE: "CUSTOMS_RELEASED CUSTOMS_HELD CUSTOMS_RELEASED DELIVERED",
    Story.SEIZED: "CUSTOMS_PRESENTED CUSTOMS_HELD DESTROYED",
    Story.FAILED_ABROAD: "CUSTOMS_RELEASED DELIVERY_ATTEMPT_FAILED OUT_FOR_DELIVERY DELIVERED",
}


def told(network: Network, story: Story, number: str, seed: int) -> list[Scan]:
    return journey(network, Random(seed), number, SAMPLE_START_MS, story)


def test_same_seed_gives_the_same_journeys(journeys: list[list[Scan]]) -> None:
    """Journeys are a function of the seed, and of nothing else."""
    again = sample_journeys(SEED, 200)
    assert again == journeys[:200]
    assert sample_journeys(SEED + 1, 200) != again


def test_journeys_have_8_to_30_scans_in_ascending_time(journeys: list[list[Scan]]) -> None:
    """A courier scans a parcel 8 to 30 times, never twice at once, over hours to weeks."""
    for scans in journeys:
        assert 8 <= len(scans) <= 30
        assert all(a.occurred_at_ms < b.occurred_at_ms for a, b in pairwise(scans))
        assert scans[-1].occurred_at_ms - scans[0].occurred_at_ms < 40 * DAY_MS
        assert {scan.waybill_number for scan in scans} == {scans[0].waybill_number}
        assert len({scan.event_id for scan in scans}) == len(scans)
    average = sum(map(len, journeys)) / len(journeys)
    assert 14 < average < 22


@pytest.mark.parametrize(("story", "number"), KINDS)
def test_every_story_stays_within_bounds(network: Network, story: Story, number: str) -> None:
    """8-30 scans and ascending times hold for every kind of journey, however rare."""
    for seed in range(60):
        scans = told(network, story, number, seed)
        assert 8 <= len(scans) <= 30
        assert all(a.occurred_at_ms < b.occurred_at_ms for a, b in pairwise(scans))


def test_bounds_hold_on_the_smallest_network() -> None:
    """Two cities and one abroad give whole journeys of every kind."""
    small = Network.build(SEED, CITIES[:2], ABROAD[:1])
    for story, number in KINDS:
        assert 8 <= len(told(small, story, number, SEED)) <= 30


@pytest.mark.parametrize(("story", "number"), KINDS)
def test_every_story_shows_in_its_scans(network: Network, story: Story, number: str) -> None:
    """Each kind of journey has the scans that its name promises, in their order."""
    codes = iter([EventCode(scan.code).name for scan in told(network, story, number, SEED)])
    assert all(sign in codes for sign in SIGNS[story].split())


@pytest.mark.parametrize(("story", "number"), KINDS)
def test_every_story_ends_as_the_fold_says(network: Network, story: Story, number: str) -> None:
    """Folded by the rules of the domain, each kind comes to its end, and no scan is unexpected."""
    expected = ENDS.get(story, (Milestone.DELIVERED, []))
    for seed in range(20):
        folded = fold([fold_event(scan) for scan in told(network, story, number, seed)])
        assert (folded.milestone, flags_of(folded.flags)) == expected


def fold_event(scan: Scan) -> FoldEvent:
    clears = scan.attributes.get("clears")
    return FoldEvent(
        order=scan.occurred_at_ms.to_bytes(8, "big"),
        event_id=scan.event_id,
        code=scan.code,
        reason=scan.reason,
        clears=flags_named(clears) if clears else PROBLEM_RESOLVED_CLEARS,
        voids=scan.attributes.get("voids", ""),
    )


def test_every_code_reason_of_an_attempt_and_receiver_occurs(journeys: list[list[Scan]]) -> None:
    """A big enough sample holds the whole vocabulary that scanners use."""
    scans = [scan for journey_ in journeys for scan in journey_]
    assert {scan.code for scan in scans} == set(EventCode)
    failed = {s.reason for s in scans if s.code == EventCode.DELIVERY_ATTEMPT_FAILED}
    assert {Reason.RECIPIENT_ABSENT, Reason.ADDRESS_WRONG, Reason.BUSINESS_CLOSED} <= failed
    assert Reason.UNSPECIFIED not in failed
    receivers = {scan.receipt.received_by for scan in scans if scan.receipt}
    assert receivers == set(ReceivedBy) - {ReceivedBy.UNSPECIFIED}


def test_stories_come_as_often_as_their_shares_say(journeys: list[list[Scan]]) -> None:
    """The common and the rare occur about as often as the table says."""
    count = Counter[str]()
    at_home = [scans for scans in journeys if not is_s10(scans[0].waybill_number)]
    for scans in at_home:
        codes = {scan.code for scan in scans}
        receivers = {scan.receipt.received_by for scan in scans if scan.receipt}
        count["locker"] += ReceivedBy.LOCKER in receivers
        count["station"] += ReceivedBy.STATION in receivers
        count["second attempt"] += EventCode.DELIVERY_ATTEMPT_FAILED in codes
        count["returned"] += EventCode.RETURNED in codes
    assert count["locker"] / len(at_home) == pytest.approx(0.14, rel=0.15)
    assert count["station"] / len(at_home) == pytest.approx(0.22, rel=0.15)
    assert count["second attempt"] / len(at_home) == pytest.approx(0.046, rel=0.25)
    assert count["returned"] / len(at_home) == pytest.approx(0.03, rel=0.3)


def test_s10_numbers_and_only_they_go_through_customs(journeys: list[list[Scan]]) -> None:
    """A parcel's number says whether it goes abroad; the post there gives its own codes."""
    for scans in journeys:
        customs = any(scan.code == EventCode.CUSTOMS_PRESENTED for scan in scans)
        assert customs is is_s10(scans[0].waybill_number)
        assert all(customs and scan.source_code for scan in scans if scan.source_system)
    abroad = [s for scans in journeys for s in scans if s.source_system]
    assert {"EMD", "EDB", "EMG", "EMI"} <= {scan.source_code for scan in abroad}


def test_collected_parcels_are_taken_out_where_they_were_left(
    journeys: list[list[Scan]],
) -> None:
    """The locker, station or counter of READY_FOR_COLLECTION is that of DELIVERED."""
    pairs = 0
    for scans in journeys:
        for left, taken in pairwise(scans):
            if (left.code, taken.code) == (EventCode.READY_FOR_COLLECTION, EventCode.DELIVERED):
                pairs += 1
                assert left.facility_code == taken.facility_code != ""
                assert taken.receipt is not None
                assert taken.receipt.consent_reference
    assert pairs > 100


def test_loaded_and_unloaded_from_the_same_truck(journeys: list[list[Scan]]) -> None:
    """What leaves in a haul arrives from it, where its departure said."""
    for scans in journeys:
        rides = [
            scan
            for scan in scans
            if scan.code in (EventCode.DEPARTED_FACILITY, EventCode.ARRIVED_AT_FACILITY)
            and scan.container_number
        ]
        for departed, arrived in zip(rides[::2], rides[1::2], strict=False):
            assert departed.container_number == arrived.container_number
            assert departed.next_facility_code == arrived.facility_code


def test_a_void_names_an_earlier_scan_of_the_parcel(journeys: list[list[Scan]]) -> None:
    """EVENT_VOIDED takes back a DELIVERED that was made before it."""
    voids = 0
    for scans in journeys:
        for nth, scan in enumerate(scans):
            if scan.code == EventCode.EVENT_VOIDED:
                voids += 1
                before = {s.event_id: s.code for s in scans[:nth]}
                assert before[scan.attributes["voids"]] == EventCode.DELIVERED
    assert voids > 0


def test_a_parcel_cannot_have_a_story_of_the_other_kind(network: Network) -> None:
    """Asking a domestic parcel to be held by customs is the caller's mistake, and said so."""
    with pytest.raises(KeyError):
        told(network, Story.SEIZED, DOMESTIC, SEED)
    with pytest.raises(KeyError):
        told(network, Story.LOCKER, CROSS_BORDER, SEED)
