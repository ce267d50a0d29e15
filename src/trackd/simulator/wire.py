"""Scans as the contract's messages: the one file of the simulator that knows protobuf.

Nothing here knows gRPC: a client sends what comes out.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from trackd.simulator.scan import Scan
from trackd.v1.event_pb2 import GeoPoint, Receipt, ScanEvent
from trackd.v1.ingest_pb2 import StreamEventsRequest


def scan_event(scan: Scan) -> ScanEvent:
    """The scan as a message, spoiled ones included."""
    event = ScanEvent(
        event_id=scan.event_id,
        waybill_number=scan.waybill_number,
        code=scan.code,  # type: ignore[arg-type]
        occurred_at_ms=scan.occurred_at_ms,
        facility_code=scan.facility_code,
        next_facility_code=scan.next_facility_code,
        device_id=scan.device_id,
        operator_id=scan.operator_id,
        reason=scan.reason,  # type: ignore[arg-type]
        remark=scan.remark,
        container_number=scan.container_number,
        source_system=scan.source_system,
        source_code=scan.source_code,
        attributes=scan.attributes,
    )
    if scan.latitude is not None and scan.longitude is not None:
        event.location.CopyFrom(GeoPoint(latitude=scan.latitude, longitude=scan.longitude))
    if scan.receipt is not None:
        event.receipt.CopyFrom(
            Receipt(
                received_by=scan.receipt.received_by,  # type: ignore[arg-type]
                consent_reference=scan.receipt.consent_reference,
                proof_sha256=scan.receipt.proof_sha256,
                signer=scan.receipt.signer,
            )
        )
    return event


def stream_requests(scans: Iterable[Scan], *, batch_events: int) -> Iterator[bytes]:
    """Serialised StreamEventsRequests of `batch_events` scans each, the last of what is left.

    A batch's id is its number, from 0. Lazy: takes from `scans` as batches are asked for.
    """
    waiting = iter(scans)
    batch_id = 0
    while batch := [scan_event(scan) for scan in islice(waiting, batch_events)]:
        request = StreamEventsRequest(batch_id=str(batch_id), events=batch)
        # Maps in the order of their keys, not of a salted hash: one seed gives one row of bytes.
        yield request.SerializeToString(deterministic=True)
        batch_id += 1
