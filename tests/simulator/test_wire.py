"""A scan and its message say the same, and the server's rules see in spoiled ones what they are."""

from collections.abc import Iterator
from random import Random

import pytest

from tests.simulator.conftest import SEED
from trackd.domain.validation import fault_in
from trackd.domain.vocabulary import ReceivedBy, Rejection
from trackd.simulator.imperfections import SPOILERS, Arrival, Oddity, conflicting, spoiled
from trackd.simulator.scan import Receipt, Scan
from trackd.simulator.wire import scan_event, stream_requests
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.ingest_pb2 import StreamEventsRequest

SPOILING = [(why, nth) for why, ways in SPOILERS.items() for nth in range(len(ways))]


def read_back(event: ScanEvent) -> Scan:
    """The scan that a message says, built from the message alone."""
    there = event.HasField("location")
    receipt = None
    if event.HasField("receipt"):
        receipt = Receipt(
            ReceivedBy(event.receipt.received_by),
            event.receipt.consent_reference,
            event.receipt.proof_sha256,
            event.receipt.signer,
        )
    return Scan(
        event.event_id,
        event.waybill_number,
        event.code,
        event.occurred_at_ms,
        event.facility_code,
        event.next_facility_code,
        event.device_id,
        event.operator_id,
        event.reason,
        event.remark,
        event.location.latitude if there else None,
        event.location.longitude if there else None,
        event.container_number,
        receipt,
        event.source_system,
        event.source_code,
        dict(event.attributes),
    )


def test_message_says_what_the_scan_says(journeys: list[list[Scan]]) -> None:
    """No field is lost or changed on the way into a message and over the wire."""
    for scans in journeys[:300]:
        for scan in scans:
            assert read_back(ScanEvent.FromString(scan_event(scan).SerializeToString())) == scan


def test_batches_hold_all_scans_in_order(journeys: list[list[Scan]]) -> None:
    """Batches are of the size asked for, numbered, complete, and the last holds the rest."""
    scans = [scan for some in journeys[:30] for scan in some]
    batches = [
        StreamEventsRequest.FromString(batch) for batch in stream_requests(scans, batch_events=70)
    ]
    sizes = [len(batch.events) for batch in batches]
    assert sizes == [*[70] * (len(scans) // 70), *([len(scans) % 70] if len(scans) % 70 else [])]
    assert [batch.batch_id for batch in batches] == [str(n) for n in range(len(batches))]
    sent = [(event.waybill_number, event.event_id) for batch in batches for event in batch.events]
    assert sent == [(scan.waybill_number, scan.event_id) for scan in scans]


def test_batches_are_made_as_they_are_asked_for() -> None:
    """An endless stream of scans gives batches without being drawn further than needed."""
    drawn = []

    def endless() -> Iterator[Scan]:
        while True:
            drawn.append(1)
            yield Scan("id", "SF1234567890123", 10, 1)

    next(stream_requests(endless(), batch_events=5))
    assert len(drawn) == 5


def test_good_scans_are_valid(arrivals: list[Arrival]) -> None:
    """Whatever is not marked invalid may be stored, conflicts included, at the time it arrives."""
    for arrival in arrivals:
        if arrival.oddity is not Oddity.INVALID:
            assert fault_in(scan_event(arrival.scan), arrival.at_ms) is None


def test_spoiled_arrivals_are_rejected_as_marked(arrivals: list[Arrival]) -> None:
    """The server's rules find in every invalid arrival the fault that it is marked with."""
    for arrival in arrivals:
        if arrival.oddity is Oddity.INVALID:
            fault = fault_in(scan_event(arrival.scan), arrival.at_ms)
            assert fault is not None
            assert fault.reason is arrival.rejection


@pytest.mark.parametrize(("why", "nth"), SPOILING)
def test_every_way_to_spoil_a_scan_is_found_out(
    journeys: list[list[Scan]], why: Rejection, nth: int
) -> None:
    """Each single way gives a fault of its kind, whatever scan it is used on."""
    for scan in {scan.code: scan for some in journeys[:500] for scan in some}.values():
        fault = fault_in(scan_event(SPOILERS[why][nth](scan)), 4_102_444_800_000)
        assert fault is not None
        assert fault.reason is why


def test_spoiling_and_contradicting_leave_the_original_alone(journeys: list[list[Scan]]) -> None:
    """A conflict keeps the identity and changes the content; poison never has a real scan's id."""
    rng = Random(SEED)
    for scan in journeys[0]:
        for _ in range(5):
            other = conflicting(scan, rng)
            assert (other.waybill_number, other.event_id) == (scan.waybill_number, scan.event_id)
            assert scan_event(other) != scan_event(scan)
        for why in SPOILERS:
            bad = spoiled(scan, why, rng)
            assert (bad.waybill_number, bad.event_id) != (scan.waybill_number, scan.event_id)
