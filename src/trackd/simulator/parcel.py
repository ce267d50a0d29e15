"""One parcel under way: what time it has become for it, who has it in hand, and its scans so far.

The only file that makes scans. What happens to a parcel is decided in `legs.py` and `stories.py`;
nothing here knows what comes next.
"""

from collections.abc import Sequence
from random import Random
from typing import Any, Final

from trackd.domain.outward import Circumstance, Scheme, outward_name
from trackd.domain.vocabulary import EventCode, Reason
from trackd.simulator.network import (
    DAY_MS,
    MINUTE_MS,
    Facility,
    Haul,
    Kind,
    Lane,
    Network,
)
from trackd.simulator.scan import Itinerary, event_id

_STEP_MS_MIN: Final = 1_000

# What the post of another country calls its scans, by code and kind of office.
_POSTAL_SYSTEM: Final = "UPU-EMSEVT"
_POSTAL: Final = {
    (code, kind): outward_name(code, Scheme.UPU_EMS, circumstances=frozenset({where})).name
    for kind, where in (
        (Kind.EXCHANGE, Circumstance.INWARD_EXCHANGE),
        (Kind.OUTLET, Circumstance.DELIVERY_OUTLET),
    )
    for code in EventCode
}

# Minutes of the local day: from, until.
Round = tuple[int, int]
# Who took it, consent reference, hash of the proof, signer.
ReceiptRow = tuple[int, str, str, str]


class Parcel:
    """State of one parcel. `now_ms` only ever goes forward, so scans come in order of time."""

    __slots__ = (
        "crew",
        "destination",
        "network",
        "now_ms",
        "origin",
        "random",
        "rng",
        "row",
        "waybill",
    )

    def __init__(
        self,
        *,
        network: Network,
        rng: Random,
        waybill: str,
        start_ms: int,
        origin: Facility,
        destination: Facility,
    ) -> None:
        self.network = network
        self.rng = rng
        self.random = rng.random
        self.waybill = waybill
        self.now_ms = start_ms
        self.origin = origin
        self.destination = destination
        self.crew = 0
        self.row: list[Any] = [waybill]

    def wait(self, minutes_min: float, minutes_max: float) -> None:
        """Lets some time between the two pass."""
        minutes = minutes_min + (minutes_max - minutes_min) * self.random()
        self.now_ms += _STEP_MS_MIN + int(minutes * MINUTE_MS)

    def wait_until(self, moment_ms: int) -> None:
        """Lets time pass to `moment_ms`, or a second if that has gone by."""
        self.now_ms = max(self.now_ms + _STEP_MS_MIN, moment_ms)

    def wait_for_round(self, rounds: Sequence[Round], at: Facility) -> None:
        """Lets time pass to some moment of the next round of the day that has not ended yet."""
        midnight_ms = self.now_ms - (self.now_ms + at.utc_offset_ms) % DAY_MS
        for day_ms in (midnight_ms, midnight_ms + DAY_MS):
            for start, end in rounds:
                start_ms = max(self.now_ms, day_ms + start * MINUTE_MS)
                left_ms = day_ms + end * MINUTE_MS - start_ms
                if left_ms > 0:
                    self.now_ms = start_ms + _STEP_MS_MIN + int(self.random() * left_ms)
                    return

    def choose_crew(self, at: Facility) -> None:
        """Hands the parcel to one of a facility's people, who makes the next scans there."""
        self.crew = int(self.random() * len(at.devices))

    def event_id(self, at: Facility) -> str:
        """The id of a scan made now by the current crew of `at`."""
        return event_id(at.devices[self.crew], self.now_ms)

    def one_of(self, choices: Sequence[str]) -> str:
        """One of the choices, each as likely as the others."""
        return choices[int(self.random() * len(choices))]

    def scan(
        self,
        code: EventCode,
        at: Facility,
        *,
        place: str = "",
        towards: str = "",
        container: str = "",
        reason: Reason = Reason.UNSPECIFIED,
        remark: str = "",
        receipt: ReceiptRow | None = None,
        on_the_road: bool = False,
        attributes: tuple[str, ...] = (),
    ) -> None:
        """Scans it now, by the current crew of `at`.

        place: the locker or station, where that is not the facility. on_the_road: scanned by a
        courier outside, whose device knows where it is. attributes: key, value, key, value …
        """
        latitude = longitude = None
        if on_the_road:
            latitude = round(at.latitude + 0.03 * self.random() - 0.015, 6)
            longitude = round(at.longitude + 0.03 * self.random() - 0.015, 6)
        self.row += (
            int(code),
            self.now_ms,
            place or at.code,
            towards,
            at.devices[self.crew],
            at.operators[self.crew],
            int(reason),
            remark,
            latitude,
            longitude,
            container,
            receipt,
            _POSTAL_SYSTEM if at.abroad else "",
            _POSTAL[code, at.kind] if at.abroad else "",
            attributes,
        )

    def scan_aboard(self, lane: Lane, haul: Haul) -> None:
        """Scans it now by a position its truck or flight reports: at no facility, by nobody."""
        here, there = lane.origin, lane.destination
        self._scan_elsewhere(
            EventCode.IN_TRANSIT,
            towards=there.code,
            device=f"GPS-{haul.number}",
            latitude=round((here.latitude + there.latitude) / 2, 5),
            longitude=round((here.longitude + there.longitude) / 2, 5),
            container=haul.number,
        )

    def announce(self) -> None:
        """Registers the order: by the sender's system, at no place and by nobody."""
        grams = 100 + int(9_900 * self.random() ** 3)
        self._scan_elsewhere(
            EventCode.REGISTERED,
            towards=self.origin.code,
            attributes=("weight_g", str(grams), "pieces", "1"),
        )

    def _scan_elsewhere(
        self,
        code: EventCode,
        *,
        towards: str,
        device: str = "",
        latitude: float | None = None,
        longitude: float | None = None,
        container: str = "",
        attributes: tuple[str, ...] = (),
    ) -> None:
        here = ("", towards, device, "", 0, "", latitude, longitude, container)
        self.row += (int(code), self.now_ms, *here, None, "", "", attributes)

    def itinerary(self) -> Itinerary:
        """Its scans so far."""
        return tuple(self.row)
