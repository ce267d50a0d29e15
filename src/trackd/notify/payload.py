"""What a webhook carries: the body, from an allow-list, and its name.

    {"type": "shipment.milestone",
     "timestamp": "2026-11-11T08:00:00.000Z",
     "data": {"waybill_number": "SF1234567890", "previous_milestone": "IN_TRANSIT",
              "milestone": "OUT_FOR_DELIVERY", "flags": ["DELAYED"], "flags_raised": [],
              "flags_cleared": [], "first_occurrence": true, "correction": false,
              "event": {"code": "OUT_FOR_DELIVERY", "occurred_at": "2026-11-11T07:59:58.120Z",
                        "facility_code": "PEK-03"},
              "event_count": 12, "position": "…"}}

- `type`: `shipment.corrected` where an earlier scan was voided, else `shipment.milestone` where the
  milestone changed, else `shipment.flags` where flags did, else `shipment.moved`; of a test
  `trackd.test`.
- `timestamp`: when the change became durable; of a test when it was made.
- `event` has `reason` and `received_by` (SELF, PROXY, LOCKER …) where the scan had them, and
  `next_facility_code`.
- `event_count`: how many scans the waybill had. It only grows: whoever keeps the last one
  can drop what comes again or late. `position`: the place of the change in the feed.
- In the CloudEvents envelope the same `type` and `data`, with `id` (equal to `webhook-id`),
  `source` "/trackd", `subject` (the waybill number), `time` and `specversion` "1.0".

Nothing about people: no names, phones or addresses, no remark, no attributes, no coordinates, no
operator and no device. A field that is added to an event later stays out until it is named here.
The bytes are a function of the change alone, so that every attempt carries the same. Nothing here
sends or signs.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

import orjson
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from trackd.v1 import vocabulary_pb2
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.feed_pb2 import Change
from trackd.v1.notification_pb2 import Envelope

STANDARD_TYPE: Final = "application/json"
CLOUDEVENTS_TYPE: Final = JSONFormat.CONTENT_TYPE
PAYLOAD_BYTES_MAX: Final = 20_000

_SOURCE: Final = "/trackd"
_TEST: Final = "trackd.test"
_CLOUDEVENTS_JSON: Final = JSONFormat()


def _names(enum: Any, prefix: str) -> dict[int, str]:
    return {number: name.removeprefix(prefix) for name, number in enum.items()}


# A waybill whose first scan was voided is nowhere: null.
_MILESTONES: Final = {
    number: name if number else None
    for number, name in _names(vocabulary_pb2.Milestone, "MILESTONE_").items()
}
_FLAGS: Final = _names(vocabulary_pb2.Flag, "FLAG_")
_CODES: Final = _names(vocabulary_pb2.EventCode, "EVENT_CODE_")
_REASONS: Final = _names(vocabulary_pb2.ReasonCode, "REASON_CODE_")
_RECEIVED_BY: Final = _names(vocabulary_pb2.ReceivedBy, "RECEIVED_BY_")


def webhook_id(endpoint_id: str, position: str) -> str:
    """The name of telling an endpoint of a change: the same for every attempt, unlike any other.

    Made from what it names, so that no notifier has to remember it.
    """
    digest = blake2b(f"{endpoint_id}\n{position}".encode(), digest_size=16).hexdigest()
    return f"msg_{digest}"


def body_of(change: Change, *, message_id: str, envelope: Envelope.ValueType) -> bytes:
    """The body that tells of a change: under PAYLOAD_BYTES_MAX, the same bytes every time."""
    kind, data = _type_of(change), _data_of(change)
    if envelope == Envelope.ENVELOPE_CLOUDEVENTS:
        return _cloud_event(
            kind,
            data,
            message_id=message_id,
            subject=change.waybill_number,
            at_ms=change.recorded_at_ms,
        )
    return orjson.dumps({"type": kind, "timestamp": _time(change.recorded_at_ms), "data": data})


def body_of_test(*, message_id: str, envelope: Envelope.ValueType, at_ms: int) -> bytes:
    """The body of a test."""
    data = {"message": "A test of this endpoint. No parcel has moved."}
    if envelope == Envelope.ENVELOPE_CLOUDEVENTS:
        return _cloud_event(_TEST, data, message_id=message_id, subject="", at_ms=at_ms)
    return orjson.dumps({"type": _TEST, "timestamp": _time(at_ms), "data": data})


def content_type(envelope: Envelope.ValueType) -> str:
    """What the body is."""
    return CLOUDEVENTS_TYPE if envelope == Envelope.ENVELOPE_CLOUDEVENTS else STANDARD_TYPE


def _cloud_event(
    kind: str, data: dict[str, Any], *, message_id: str, subject: str, at_ms: int
) -> bytes:
    attributes = {
        "id": message_id,
        "source": _SOURCE,
        "type": kind,
        "specversion": "1.0",
        "time": datetime.fromtimestamp(at_ms / 1000, UTC),
        "datacontenttype": "application/json",
    }
    if subject:
        attributes["subject"] = subject
    return _CLOUDEVENTS_JSON.write(CloudEvent(attributes, data))


def _type_of(change: Change) -> str:
    if change.correction:
        return "shipment.corrected"
    if change.milestone != change.previous_milestone:
        return "shipment.milestone"
    if change.flags_raised or change.flags_cleared:
        return "shipment.flags"
    return "shipment.moved"


def _data_of(change: Change) -> dict[str, Any]:
    status = change.status
    return {
        "waybill_number": change.waybill_number,
        "previous_milestone": _MILESTONES.get(change.previous_milestone),
        "milestone": _MILESTONES.get(change.milestone),
        "flags": _flags(status.flags),
        "flags_raised": _flags(change.flags_raised),
        "flags_cleared": _flags(change.flags_cleared),
        "first_occurrence": change.first_occurrence,
        "correction": change.correction,
        "event": _event(change.event),
        "event_count": status.event_count,
        "position": change.position,
    }


def _event(event: ScanEvent) -> dict[str, Any]:
    told: dict[str, Any] = {
        "code": _CODES.get(event.code),
        "occurred_at": _time(event.occurred_at_ms),
        "facility_code": event.facility_code,
    }
    if event.next_facility_code:
        told["next_facility_code"] = event.next_facility_code
    if event.reason:
        told["reason"] = _REASONS.get(event.reason)
    if event.HasField("receipt") and event.receipt.received_by:
        told["received_by"] = _RECEIVED_BY.get(event.receipt.received_by)
    return told


def _flags(flags: Iterable[int]) -> list[str]:
    return [_FLAGS[flag] for flag in flags if flag in _FLAGS]


def _time(at_ms: int) -> str:
    """RFC 3339 in UTC, to the millisecond. By hand: datetime takes three times as long."""
    seconds, milliseconds = divmod(at_ms, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03}Z"
