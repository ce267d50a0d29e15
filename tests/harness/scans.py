"""Scans for a campaign: valid, of every kind, out of order, on few enough waybills to get long.

A function of the random source alone. Knows no server.
"""

import itertools
import random
import time

from trackd.domain.vocabulary import EventCode, Reason
from trackd.v1.event_pb2 import ScanEvent

_HUBS = [f"HUB-{number:03}" for number in range(40)]
_DAYS_MS = 5 * 86_400_000
# Most of a journey is being sorted; the rest is what makes a timeline worth folding.
_CODES = [
    *[EventCode.ARRIVED_AT_FACILITY, EventCode.SORTED, EventCode.DEPARTED_FACILITY] * 8,
    *EventCode,
]
_REASONS = [Reason.RECIPIENT_ABSENT, Reason.ADDRESS_WRONG, Reason.WEATHER]


class ScanSource:
    """Scans of one device. No two of them have the same waybill and event id.

    late_share: how many of them happened before others that were sent earlier.
    """

    def __init__(
        self, device: str, waybills: list[str], rng: random.Random, *, late_share: float
    ) -> None:
        self._device = device
        self._waybills = waybills
        self._rng = rng
        self._counter = itertools.count(1)
        self._ids: dict[str, list[str]] = {waybill: [] for waybill in waybills}
        self._late_share = late_share
        self._began_at_ms = int(time.time() * 1000) - _DAYS_MS
        self._now_ms = self._began_at_ms

    def batch(self, size: int) -> list[ScanEvent]:
        """The next scans."""
        return [self._scan() for _ in range(size)]

    def _scan(self) -> ScanEvent:
        rng = self._rng
        waybill = rng.choice(self._waybills)
        earlier = self._ids[waybill]
        code = rng.choice(_CODES)
        event = ScanEvent(
            event_id=f"{self._device}:{next(self._counter)}",
            waybill_number=waybill,
            code=int(code),  # type: ignore[arg-type] # a number of the enum
            occurred_at_ms=self._occurred_at_ms(),
            facility_code=rng.choice(_HUBS),
            device_id=self._device,
        )
        if code == EventCode.EVENT_VOIDED:
            event.attributes["voids"] = rng.choice(earlier) if earlier else "nobody:0"
        elif code == EventCode.DELIVERY_ATTEMPT_FAILED:
            event.reason = int(rng.choice(_REASONS))  # type: ignore[assignment] # as above
        if rng.random() < 0.1:
            event.remark = "x" * rng.randrange(200) + "包裹"
        earlier.append(event.event_id)
        return event

    def _occurred_at_ms(self) -> int:
        # Steps of a second, so that some times are equal.
        if self._rng.random() < self._late_share:
            return self._rng.randrange(self._began_at_ms, self._now_ms + 1, 1000)
        self._now_ms += 1000 * self._rng.randrange(2)
        return self._now_ms


def waybills_of(name: str, count: int) -> list[str]:
    """Waybill numbers that no other name has."""
    return [f"{name}-{number:05}" for number in range(count)]
