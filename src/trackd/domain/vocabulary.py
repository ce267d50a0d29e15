"""The words of trackd as enumerations: codes, milestones, flags, reasons.

The numbers are those of `proto/trackd/v1/vocabulary.proto` (a test holds the two equal) and of the
stored format: they are never reused. What the words mean for a shipment is in `lifecycle.py`; what
they are called in Chinese and English is in `catalogue.py`.
"""

from enum import IntEnum


class EventCode(IntEnum):
    """What a scan was."""

    REGISTERED = 10
    PICKED_UP = 20
    ARRIVED_AT_FACILITY = 30
    SORTED = 31
    DEPARTED_FACILITY = 32
    IN_TRANSIT = 33
    CUSTOMS_PRESENTED = 40
    CUSTOMS_HELD = 41
    CUSTOMS_RELEASED = 42
    OUT_FOR_DELIVERY = 50
    DELIVERY_ATTEMPT_FAILED = 51
    READY_FOR_COLLECTION = 52
    DELIVERED = 60
    REFUSED = 70
    RETURNING = 71
    RETURNED = 72
    FORWARDED = 73
    CANCELLED = 80
    DESTROYED = 81
    DAMAGED = 90
    LOST = 91
    DELAYED = 92
    HELD = 93
    PROBLEM_RESOLVED = 94
    EVENT_VOIDED = 99


class Milestone(IntEnum):
    """Where a shipment is in its life; 0 until an event has moved it."""

    UNSPECIFIED = 0
    REGISTERED = 10
    PICKED_UP = 20
    IN_TRANSIT = 30
    IN_CUSTOMS = 40
    OUT_FOR_DELIVERY = 50
    DELIVERY_ATTEMPT_FAILED = 51
    READY_FOR_COLLECTION = 52
    DELIVERED = 60
    RETURNING = 71
    RETURNED = 72
    CANCELLED = 80
    DESTROYED = 81


class Flag(IntEnum):
    """What is wrong with a shipment right now. A set of flags is a bit mask, bit n for flag n."""

    DAMAGED = 1
    LOST = 2
    DELAYED = 3
    HELD = 4
    REFUSED = 5
    ADDRESS_PROBLEM = 6
    UNEXPECTED_SCAN = 7
    STALLED = 8
    OVERDUE = 9
    MISROUTED = 10
    IMPLAUSIBLE = 11


class Reason(IntEnum):
    """Why something did not go as planned; 0 when nothing was said."""

    UNSPECIFIED = 0
    RECIPIENT_ABSENT = 1
    RECIPIENT_REFUSED = 2
    RECIPIENT_UNREACHABLE = 3
    RECIPIENT_REQUESTED_LATER = 4
    BUSINESS_CLOSED = 5
    ADDRESS_WRONG = 6
    ADDRESS_INCOMPLETE = 7
    OUT_OF_SERVICE_AREA = 8
    PAYMENT_DUE = 9
    DOCUMENTS_MISSING = 10
    PROHIBITED_GOODS = 11
    CUSTOMS_INSPECTION = 12
    WEATHER = 13
    TRAFFIC = 14
    CAPACITY = 15
    MISSORTED = 16
    PACKAGING = 17
    VEHICLE_BREAKDOWN = 18
    SECURITY = 19
    OTHER = 20


class ReceivedBy(IntEnum):
    """Who took a delivered shipment; 0 when nothing was said."""

    UNSPECIFIED = 0
    SELF = 1
    PROXY = 2
    LOCKER = 3
    STATION = 4
    COUNTER = 5


class Rejection(IntEnum):
    """Why an event is not stored."""

    INVALID_WAYBILL_NUMBER = 1
    INVALID_EVENT_ID = 2
    UNKNOWN_CODE = 3
    TIME_OUT_OF_RANGE = 4
    FIELD_TOO_LONG = 5
    INVALID_FIELD = 6
    CONFLICT = 7


def flag_mask(*flags: Flag) -> int:
    """The bit mask that holds `flags`."""
    mask = 0
    for flag in flags:
        mask |= 1 << flag
    return mask


def flags_of(mask: int) -> list[Flag]:
    """The flags in a bit mask, in ascending order."""
    return [flag for flag in Flag if mask >> flag & 1]
