"""What the rest of the trade calls our words: one table, one way out.

The names are those of 17TRACK (sub-statuses), AfterShip (sub-status codes), Kuaidi100 (advanced
states), UPU EMS (EMSEVT events), GS1 EPCIS (Core Business Vocabulary) and SF Express (route op
codes). Nothing is ever read back through this table: an imported event keeps its original code in
`source_code`. Nothing here knows how a name is sent, or to whom.

A cell is names apart by spaces: the first is the one to send, the others fit as well. `~` before
them means that the scheme has nothing closer; an empty cell, that it has no word for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from trackd.domain.vocabulary import EventCode, Reason, ReceivedBy


class Scheme(Enum):
    """Whose words; in the order of the columns of the table."""

    SEVENTEEN_TRACK = "17track"
    AFTERSHIP = "aftership"
    KUAIDI100 = "kuaidi100"
    UPU_EMS = "upu-ems"
    EPCIS_BIZ_STEP = "epcis-biz-step"
    EPCIS_DISPOSITION = "epcis-disposition"
    EPCIS_ELEMENT = "epcis-element"
    SF_OP = "sf-op"


class Exactness(Enum):
    """How well a name says what the event says."""

    EXACT = "exact"
    APPROXIMATE = "approximate"
    NONE = "none"


class Circumstance(Enum):
    """What some schemes want to know of an event that our code does not say."""

    OUTWARD_EXCHANGE = "at the office of exchange of the origin country"
    TRANSIT_EXCHANGE = "at an office of exchange between the two"
    INWARD_EXCHANGE = "at the office of exchange of the destination country"
    DESTINATION_CITY = "in the recipient's city"
    DELIVERY_OUTLET = "at the outlet that delivers it"
    AFTER_EXCEPTION = "after a failed attempt or another problem"


@dataclass(frozen=True, slots=True)
class OutwardName:
    """A name in a scheme, `also` the others that fit; "" and nothing when exactness is NONE."""

    name: str
    exactness: Exactness
    also: tuple[str, ...] = ()


NO_NAME: Final = OutwardName("", Exactness.NONE)

# fmt: off
# 17TRACK, AfterShip, Kuaidi100, UPU EMS,
#     EPCIS business step, EPCIS disposition, EPCIS element, SF op code
_USUALLY: Final[Mapping[EventCode, tuple[str, str, str, str, str, str, str, str]]] = {
    EventCode.REGISTERED: (
        "InfoReceived", "InfoReceived_001", "101 102", "",
        "commissioning", "~active", "", ""),
    EventCode.PICKED_UP: (
        "InTransit_PickedUp", "InTransit_002", "103 1", "EMA",
        "accepting", "in_progress", "", "50 54"),
    EventCode.ARRIVED_AT_FACILITY: (
        "InTransit_Other", "InTransit_003", "0", "EDD",
        "arriving", "in_progress", "", "31"),
    EventCode.SORTED: (
        "InTransit_Other", "~InTransit_001", "~0 1002", "~EDE",
        "~staging_outbound", "in_progress", "", "30"),
    EventCode.DEPARTED_FACILITY: (
        "InTransit_Other", "InTransit_007", "0 1002", "EDE",
        "departing", "in_transit", "", "36 407"),
    EventCode.IN_TRANSIT: (
        "InTransit_Other", "InTransit_001", "0 1002", "",
        "transporting", "in_transit", "", "501"),
    EventCode.CUSTOMS_PRESENTED: (
        "InTransit_CustomsProcessing", "InTransit_006", "8 10 11", "EDB",
        "~inspecting", "in_progress", "", ""),
    EventCode.CUSTOMS_HELD: (
        "InTransit_CustomsRequiringInformation", "Exception_004", "13", "EME EDA",
        "holding", "~non_conformant", "", ""),
    EventCode.CUSTOMS_RELEASED: (
        "InTransit_CustomsReleased", "InTransit_005", "12", "EDC",
        "~inspecting", "~conformant", "", ""),
    EventCode.OUT_FOR_DELIVERY: (
        "OutForDelivery_Other", "OutForDelivery_001", "5", "EDG",
        "~shipping", "in_transit", "", "204 44"),
    EventCode.DELIVERY_ATTEMPT_FAILED: (
        "DeliveryFailure_Other", "AttemptFail_001", "204", "EMH",
        "other", "in_progress", "", ""),
    EventCode.READY_FOR_COLLECTION: (
        "AvailableForPickup_Other", "AvailableForPickup_001", "501", "EDH",
        "storing", "~available", "", ""),
    EventCode.DELIVERED: (
        "Delivered_Other", "Delivered_001", "3", "EMI",
        "accepting", "", "", "80 8000"),
    EventCode.REFUSED: (
        "DeliveryFailure_Rejected", "Exception_003", "203 14", "EMH",
        "other", "", "", ""),
    EventCode.RETURNING: (
        "Exception_Returning", "Exception_010", "6", "EMH",
        "shipping", "returned", "", ""),
    EventCode.RETURNED: (
        "Exception_Returned", "Exception_011", "4", "EMI",
        "receiving", "returned", "", "631"),
    EventCode.FORWARDED: (
        "InTransit_Other", "InTransit_009", "1003 7", "",
        "shipping", "in_transit", "", ""),
    EventCode.CANCELLED: (
        "Exception_Cancel", "", "210 401", "EXX",
        "void_shipping", "", "", ""),
    EventCode.DESTROYED: (
        "Exception_Destroyed", "", "", "",
        "destroying", "destroyed", "", ""),
    EventCode.DAMAGED: (
        "Exception_Damage", "Exception_012", "209", "",
        "inspecting", "damaged", "", ""),
    EventCode.LOST: (
        "Exception_Lost", "Exception_013", "~2", "",
        "", "~unknown", "", ""),
    EventCode.DELAYED: (
        "Exception_Delayed", "Exception_005", "202 201 205 208", "EDF",
        "holding", "in_progress", "", ""),
    EventCode.HELD: (
        "Exception_Other", "~Exception_001", "208", "EDA",
        "holding", "in_progress", "", ""),
    EventCode.PROBLEM_RESOLVED: (
        "", "InTransit_008", "", "",
        "", "", "persistentDisposition/unset", ""),
    EventCode.EVENT_VOIDED: (
        "", "", "~updateall", "",
        "", "", "errorDeclaration", ""),
}

_Condition = Circumstance | ReceivedBy | Reason

_ARRIVED, _DEPARTED = EventCode.ARRIVED_AT_FACILITY, EventCode.DEPARTED_FACILITY
_PRESENTED, _RELEASED = EventCode.CUSTOMS_PRESENTED, EventCode.CUSTOMS_RELEASED
_SEIZED, _FAILED = EventCode.CUSTOMS_HELD, EventCode.DELIVERY_ATTEMPT_FAILED
_DELIVERED, _DELAYED, _HELD = EventCode.DELIVERED, EventCode.DELAYED, EventCode.HELD

# What decides, and the cell it puts in place of the usual one. The first that holds wins.
_BUT: Final[tuple[tuple[EventCode, Scheme, tuple[_Condition, ...], str], ...]] = (
    (_ARRIVED, Scheme.SEVENTEEN_TRACK, (Circumstance.INWARD_EXCHANGE,), "InTransit_Arrival"),
    (_ARRIVED, Scheme.AFTERSHIP, (Circumstance.INWARD_EXCHANGE,), "InTransit_004"),
    (_ARRIVED, Scheme.KUAIDI100,
     (Circumstance.DESTINATION_CITY, Circumstance.DELIVERY_OUTLET), "1001"),
    (_ARRIVED, Scheme.UPU_EMS, (Circumstance.OUTWARD_EXCHANGE,), "EMB"),
    (_ARRIVED, Scheme.UPU_EMS, (Circumstance.TRANSIT_EXCHANGE,), "EMJ"),
    (_ARRIVED, Scheme.UPU_EMS, (Circumstance.INWARD_EXCHANGE,), "EMD"),
    (_ARRIVED, Scheme.UPU_EMS, (Circumstance.DELIVERY_OUTLET,), "EMG"),
    (_ARRIVED, Scheme.SF_OP, (Circumstance.DELIVERY_OUTLET,), "130"),
    (_DEPARTED, Scheme.SEVENTEEN_TRACK, (Circumstance.OUTWARD_EXCHANGE,), "InTransit_Departure"),
    (_DEPARTED, Scheme.UPU_EMS, (Circumstance.OUTWARD_EXCHANGE,), "EMC"),
    (_DEPARTED, Scheme.UPU_EMS, (Circumstance.TRANSIT_EXCHANGE,), "EMK"),
    (_DEPARTED, Scheme.UPU_EMS, (Circumstance.INWARD_EXCHANGE,), "EMF"),
    (_PRESENTED, Scheme.UPU_EMS, (Circumstance.OUTWARD_EXCHANGE,), "EXA"),
    (_RELEASED, Scheme.UPU_EMS, (Circumstance.OUTWARD_EXCHANGE,), "EXC"),
    (_SEIZED, Scheme.SEVENTEEN_TRACK,
     (Reason.SECURITY, Reason.PROHIBITED_GOODS, Reason.PAYMENT_DUE), "Exception_Security"),
    (_SEIZED, Scheme.AFTERSHIP, (Reason.DOCUMENTS_MISSING,), "Exception_018"),
    (_SEIZED, Scheme.AFTERSHIP, (Reason.PAYMENT_DUE,), "Exception_006"),
    (_SEIZED, Scheme.UPU_EMS, (Circumstance.OUTWARD_EXCHANGE,), "EXB"),
    (_FAILED, Scheme.SEVENTEEN_TRACK,
     (Reason.RECIPIENT_ABSENT, Reason.RECIPIENT_UNREACHABLE), "DeliveryFailure_NoBody"),
    (_FAILED, Scheme.SEVENTEEN_TRACK,
     (Reason.ADDRESS_WRONG, Reason.ADDRESS_INCOMPLETE), "DeliveryFailure_InvalidAddress"),
    (_FAILED, Scheme.SEVENTEEN_TRACK,
     (Reason.SECURITY, Reason.PAYMENT_DUE, Reason.PROHIBITED_GOODS, Reason.DOCUMENTS_MISSING,
      Reason.CUSTOMS_INSPECTION), "DeliveryFailure_Security"),
    (_FAILED, Scheme.SEVENTEEN_TRACK, (Reason.RECIPIENT_REFUSED,), "DeliveryFailure_Rejected"),
    (_FAILED, Scheme.AFTERSHIP,
     (Reason.RECIPIENT_ABSENT, Reason.RECIPIENT_UNREACHABLE), "AttemptFail_002"),
    (_FAILED, Scheme.AFTERSHIP, (Reason.BUSINESS_CLOSED,), "AttemptFail_003"),
    (_FAILED, Scheme.KUAIDI100, (Reason.RECIPIENT_UNREACHABLE,), "206"),
    (_FAILED, Scheme.KUAIDI100, (Reason.OUT_OF_SERVICE_AREA,), "207"),
    (_DELIVERED, Scheme.AFTERSHIP, (ReceivedBy.SELF,), "Delivered_003"),
    (_DELIVERED, Scheme.AFTERSHIP, (ReceivedBy.PROXY,), "Delivered_005"),
    (_DELIVERED, Scheme.AFTERSHIP, (ReceivedBy.LOCKER, ReceivedBy.STATION), "Delivered_002"),
    (_DELIVERED, Scheme.KUAIDI100, (Circumstance.AFTER_EXCEPTION,), "302"),
    (_DELIVERED, Scheme.KUAIDI100, (ReceivedBy.SELF,), "301"),
    (_DELIVERED, Scheme.KUAIDI100, (ReceivedBy.PROXY,), "303"),
    (_DELIVERED, Scheme.KUAIDI100, (ReceivedBy.LOCKER, ReceivedBy.STATION), "304"),
    (_DELAYED, Scheme.AFTERSHIP, (Reason.WEATHER,), "Exception_017"),
    (_DELAYED, Scheme.AFTERSHIP,
     (Reason.MISSORTED, Reason.VEHICLE_BREAKDOWN, Reason.CAPACITY, Reason.PACKAGING),
     "Exception_016"),
    (_DELAYED, Scheme.KUAIDI100, (Circumstance.DELIVERY_OUTLET,), "201"),
    (_DELAYED, Scheme.UPU_EMS, (Circumstance.OUTWARD_EXCHANGE,), "EXD"),
    (_HELD, Scheme.AFTERSHIP, (Reason.PAYMENT_DUE,), "Exception_006"),
    (_HELD, Scheme.AFTERSHIP, (Reason.DOCUMENTS_MISSING,), "Exception_018"),
)
# fmt: on


def _outward_name(cell: str) -> OutwardName:
    names = cell.removeprefix("~").split()
    if not names:
        return NO_NAME
    exactness = Exactness.APPROXIMATE if cell.startswith("~") else Exactness.EXACT
    return OutwardName(names[0], exactness, tuple(names[1:]))


_Row = tuple[tuple[_Condition, ...], OutwardName]

TABLE: Final[Mapping[tuple[EventCode, Scheme], tuple[_Row, ...]]] = MappingProxyType(
    {
        (code, scheme): (
            *((when, _outward_name(but)) for c, s, when, but in _BUT if (c, s) == (code, scheme)),
            ((), _outward_name(usual)),
        )
        for code, cells in _USUALLY.items()
        for scheme, usual in zip(Scheme, cells, strict=True)
    }
)
"""Total over EventCode and Scheme: rows in order, the last with no condition."""


def outward_name(
    code: EventCode,
    scheme: Scheme,
    *,
    received_by: ReceivedBy = ReceivedBy.UNSPECIFIED,
    reason: Reason = Reason.UNSPECIFIED,
    circumstances: frozenset[Circumstance] = frozenset(),
) -> OutwardName:
    """What `scheme` calls an event; without what decides, the scheme's most general name for it."""
    for conditions, name in TABLE[code, scheme]:
        # By identity: members of ReceivedBy and Reason with the same number are equal.
        if not conditions or any(
            c is received_by or c is reason or c in circumstances for c in conditions
        ):
            return name
    raise AssertionError("the last row of every cell has no condition")
