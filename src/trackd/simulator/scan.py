"""A scan as a courier network makes it, before it is put into any encoding.

The fields are those of the contract's scan event, as plain values; `wire.py` alone knows the
encoding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from trackd.domain.vocabulary import Reason, ReceivedBy

# One for all scans that have none: most of them.
NO_ATTRIBUTES: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Receipt:
    """Who took a parcel, and what proves it; "" where there is none."""

    received_by: ReceivedBy
    consent_reference: str = ""
    proof_sha256: str = ""
    signer: str = ""


class Scan(NamedTuple):
    """One scan of one parcel; "" where nothing is known. Times in milliseconds since the epoch.

    code and reason are plain integers: a spoiled scan holds one that is not in the vocabulary. A
    tuple and not a dataclass: one is made for every scan, in 0.4 µs and not 1.6.
    """

    event_id: str
    waybill_number: str
    code: int
    occurred_at_ms: int
    facility_code: str = ""
    next_facility_code: str = ""
    device_id: str = ""
    operator_id: str = ""
    reason: int = Reason.UNSPECIFIED
    remark: str = ""
    latitude: float | None = None
    longitude: float | None = None
    container_number: str = ""
    receipt: Receipt | None = None
    source_system: str = ""
    source_code: str = ""
    attributes: Mapping[str, str] = NO_ATTRIBUTES


Itinerary = tuple[Any, ...]
"""A parcel's waybill number, then the fields of each of its scans to come, all in one row.

One row of texts and numbers, because the garbage collector does not look into those: with a Scan
for each it takes most of the time once 100,000 parcels are under way. SCAN_FIELDS values make a
scan, in the order of Scan's from `code` on; a receipt is a tuple, attributes are key, value, …
"""

SCAN_FIELDS: Final = 15
_OCCURRED_AT_MS, _DEVICE_ID, _RECEIPT, _ATTRIBUTES = 1, 4, 11, 14


def scans_in(itinerary: Itinerary) -> int:
    """How many scans an itinerary holds."""
    return len(itinerary) // SCAN_FIELDS


def occurred_at_ms(itinerary: Itinerary, nth: int) -> int:
    """When the nth scan happens, from 0."""
    moment: int = itinerary[1 + nth * SCAN_FIELDS + _OCCURRED_AT_MS]
    return moment


def event_id(device_id: str, at_ms: int) -> str:
    """`device:time`, as no two scans of a parcel share a time; `order:time` without a device."""
    return f"{device_id or 'order'}:{at_ms}"


def scan_of(itinerary: Itinerary, nth: int) -> Scan:
    """The nth scan, from 0."""
    start = 1 + nth * SCAN_FIELDS
    fields = itinerary[start : start + _ATTRIBUTES]
    scan = Scan(event_id(fields[_DEVICE_ID], fields[_OCCURRED_AT_MS]), itinerary[0], *fields)
    if receipt := fields[_RECEIPT]:
        scan = scan._replace(receipt=_receipt(*receipt))
    if attributes := itinerary[start + _ATTRIBUTES]:
        scan = scan._replace(attributes=_pairs(attributes))
    return scan


def _receipt(received_by: int, consent_reference: str, proof_sha256: str, signer: str) -> Receipt:
    return Receipt(ReceivedBy(received_by), consent_reference, proof_sha256, signer)


def _pairs(row: tuple[str, ...]) -> Mapping[str, str]:
    return dict(zip(row[::2], row[1::2], strict=True))
