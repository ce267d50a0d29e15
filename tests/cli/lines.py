"""Scans as lines of JSON, for tests of the command line."""

from typing import Any

import orjson

AT_MS = 1_763_800_000_000  # 2025-11-22T08:26:40Z


def scan(
    waybill: str, event_id: object, code: object = "PICKED_UP", *, minutes: int = 0, **fields: Any
) -> dict[str, Any]:
    """One scan, `minutes` after 08:26:40 on 22 November 2025."""
    return {
        "event_id": str(event_id),
        "waybill_number": waybill,
        "code": code,
        "occurred_at_ms": AT_MS + minutes * 60_000,
        **fields,
    }


def jsonl(*scans: dict[str, Any] | bytes) -> bytes:
    """A file of scans; bytes are lines as they are."""
    return b"".join(
        (line if isinstance(line, bytes) else orjson.dumps(line)) + b"\n" for line in scans
    )
