"""Changes and targets as the tests of the notifier need them."""

import base64

from trackd.v1.event_pb2 import GeoPoint, Receipt, ScanEvent, ShipmentStatus
from trackd.v1.feed_pb2 import Change
from trackd.v1.notification_pb2 import Endpoint, EndpointKind, Envelope, Target
from trackd.v1.vocabulary_pb2 import EventCode, Flag, Milestone, ReasonCode, ReceivedBy

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLD_SECRET = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()

# Everything of a scan that is about people, or might be.
PERSONAL = {
    "remark": "left with Wang Fang, 13800138000",
    "operator_id": "operator-4711",
    "device_id": "device-0815",
    "signer": "W**g",
    "consent_reference": "consent-99",
    "attribute": "Chaoyang Rd 88, flat 1203",
    "container_number": "CAGE-31",
    "source_system": "legacy-oms",
}


def delivered_change() -> Change:
    """A delivery with every field of a scan filled in."""
    return Change(
        position="abc/0.17",
        waybill_number="SF1234567890",
        previous_milestone=Milestone.MILESTONE_OUT_FOR_DELIVERY,
        milestone=Milestone.MILESTONE_DELIVERED,
        flags_raised=[Flag.FLAG_DAMAGED],
        flags_cleared=[Flag.FLAG_DELAYED],
        first_occurrence=True,
        recorded_at_ms=1_794_000_000_123,
        event=ScanEvent(
            event_id="device-0815:17",
            waybill_number="SF1234567890",
            code=EventCode.EVENT_CODE_DELIVERED,
            occurred_at_ms=1_793_999_999_005,
            facility_code="PEK-03",
            next_facility_code="PEK-04",
            device_id=PERSONAL["device_id"],
            operator_id=PERSONAL["operator_id"],
            reason=ReasonCode.REASON_CODE_WEATHER,
            remark=PERSONAL["remark"],
            location=GeoPoint(latitude=39.9042, longitude=116.4074),
            container_number=PERSONAL["container_number"],
            receipt=Receipt(
                received_by=ReceivedBy.RECEIVED_BY_LOCKER,
                signer=PERSONAL["signer"],
                consent_reference=PERSONAL["consent_reference"],
            ),
            source_system=PERSONAL["source_system"],
            attributes={"address": PERSONAL["attribute"]},
        ),
        status=ShipmentStatus(flags=[Flag.FLAG_DAMAGED], event_count=9),
    )


def target(
    url: str,
    *,
    envelope: Envelope.ValueType = Envelope.ENVELOPE_STANDARD,
    secrets: tuple[str, ...] = (SECRET,),
) -> Target:
    """A webhook endpoint as a notifier gets it."""
    return Target(
        endpoint=Endpoint(
            id="ep_test", kind=EndpointKind.ENDPOINT_KIND_WEBHOOK, url=url, envelope=envelope
        ),
        secrets=secrets,
        subscription="endpoint/ep_test",
    )
