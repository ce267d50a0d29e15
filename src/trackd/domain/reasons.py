"""Which party a reason belongs to: one table, for the quality figures.

Nothing here knows which shipments had which reason, or how the figures are made.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from trackd.domain.vocabulary import Reason


class Party(Enum):
    """Whose doing a problem was."""

    CARRIER = "carrier"
    RECIPIENT = "recipient"
    SENDER = "sender"
    CUSTOMS = "customs"
    NATURE = "nature"


PARTY_OF: Final[Mapping[Reason, Party]] = MappingProxyType(
    {
        # What nobody explained counts against the carrier, or leaving the reason out would pay.
        Reason.UNSPECIFIED: Party.CARRIER,
        Reason.OTHER: Party.CARRIER,
        Reason.RECIPIENT_ABSENT: Party.RECIPIENT,
        Reason.RECIPIENT_REFUSED: Party.RECIPIENT,
        Reason.RECIPIENT_UNREACHABLE: Party.RECIPIENT,
        Reason.RECIPIENT_REQUESTED_LATER: Party.RECIPIENT,
        Reason.BUSINESS_CLOSED: Party.RECIPIENT,
        Reason.PAYMENT_DUE: Party.RECIPIENT,
        # The sender writes the address, packs the goods and declares them.
        Reason.ADDRESS_WRONG: Party.SENDER,
        Reason.ADDRESS_INCOMPLETE: Party.SENDER,
        Reason.DOCUMENTS_MISSING: Party.SENDER,
        Reason.PROHIBITED_GOODS: Party.SENDER,
        Reason.PACKAGING: Party.SENDER,
        Reason.CUSTOMS_INSPECTION: Party.CUSTOMS,
        Reason.WEATHER: Party.NATURE,
        # The carrier took the parcel for that address, plans its roads and runs its checks.
        Reason.OUT_OF_SERVICE_AREA: Party.CARRIER,
        Reason.TRAFFIC: Party.CARRIER,
        Reason.CAPACITY: Party.CARRIER,
        Reason.MISSORTED: Party.CARRIER,
        Reason.VEHICLE_BREAKDOWN: Party.CARRIER,
        Reason.SECURITY: Party.CARRIER,
    }
)
"""Total over Reason."""
