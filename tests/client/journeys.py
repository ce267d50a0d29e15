"""Scans for the client's tests: numbered, of one device, over a few waybills."""

from trackd.client import ScanEvent, scan_event

NOON_MS = 1_763_812_800_000


def numbered_scan(number: int, *, device_id: str = "gun-1", remark: str = "") -> ScanEvent:
    """The scan with that number; its event id ends with it."""
    return scan_event(
        event_id=f"{device_id}:{number}",
        waybill_number=f"SF{number % 7:010d}",
        code="SORTED",
        occurred_at=NOON_MS + number,
        facility_code="HUB1",
        device_id=device_id,
        remark=remark,
    )


def numbers_of(events: list[ScanEvent], *, device_id: str = "gun-1") -> list[int]:
    """The numbers of one device's scans, in the order given."""
    return [int(e.event_id.rpartition(":")[2]) for e in events if e.device_id == device_id]
