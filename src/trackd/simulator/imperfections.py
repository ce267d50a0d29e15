"""How scans reach a server: mostly in seconds, sometimes late, twice, in the wrong order, or wrong.

Every arrival says what is odd about it, so that a test knows what to expect of the server. Nothing
here knows how journeys come about; `simulation.py` puts the arrivals of all parcels in order.
"""

from bisect import bisect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from operator import itemgetter
from random import Random
from typing import Final, NamedTuple

from trackd.domain.vocabulary import Reason, ReceivedBy, Rejection
from trackd.simulator.network import DAY_MS, HOUR_MS, MINUTE_MS
from trackd.simulator.scan import Receipt, Scan

OFFLINE_SPELL_MS: Final = 2 * HOUR_MS

_UPLOAD_MS_MIN, _UPLOAD_MS_MAX = 150, 3_000
_OVERTAKEN_MS_MIN, _OVERTAKEN_MS_MAX = 2 * _UPLOAD_MS_MAX, 60_000
_PATIENCE_MS = ((_UPLOAD_MS_MAX, MINUTE_MS), (MINUTE_MS, HOUR_MS), (DAY_MS, 30 * HOUR_MS))
_PATIENCE_SHARES = (0.7, 0.95)  # up to and including the first, the second; the rest is the third
_BACKLOG_MS = 30_000  # how long a device takes to send what it kept while it was offline


class Oddity(Enum):
    """What is odd about an arrival."""

    NONE = "nothing: seconds after the scan"
    LATE = "kept by a device that was offline"
    OVERTAKEN = "after the next scan of the same parcel"
    REPEAT = "sent before, the same in every field"
    CONFLICT = "the identity of a scan sent before, with other content"
    INVALID = "not an event the server may store"


class Arrival(NamedTuple):
    """A scan and when it reaches the server. A tuple: made for every scan, in 0.3 µs and not 1."""

    at_ms: int
    scan: Scan
    oddity: Oddity = Oddity.NONE
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True)
class Imperfections:
    """Rates, each a share of all scans, 0-1.

    late: of the spells of two hours in which a device is offline; it sends its scans at their end.
    overtaken: arrive after the parcel's next scan. repeated: are sent again, soon or a day later.
    conflicting, invalid: are followed by another one, which the server must reject.
    """

    late: float = 0.02
    overtaken: float = 0.01
    repeated: float = 0.03
    conflicting: float = 0.0
    invalid: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for a rate that is none, or more to follow than there are scans."""
        for rate in fields(self):
            if not 0 <= getattr(self, rate.name) <= 1:
                raise ValueError(f"{rate.name} must be 0-1, not {getattr(self, rate.name)}")
        if self.repeated + self.conflicting + self.invalid > 1:
            raise ValueError("repeated, conflicting and invalid must be 1 at most together")


PERFECT: Final = Imperfections(late=0, overtaken=0, repeated=0)


class Uplink:
    """The way of scans to the server, minute by minute.

    All scans of a minute are sent before what is received in it is asked for, and minutes ascend.
    under_way: arrivals to come, by their minute; the few that are late or sent again wait longest.
    """

    def __init__(self, imperfections: Imperfections, rng: Random) -> None:
        self._rates = imperfections
        self._rng = rng
        self._random = rng.random
        self._extra = imperfections.repeated + imperfections.conflicting + imperfections.invalid
        # Of the current spell only, so as many entries as there are devices at most.
        self._spell = 0
        self._offline: dict[str, bool] = {}
        self.under_way: defaultdict[int, list[Arrival]] = defaultdict(list)

    def send(self, scan: Scan, next_ms: int | None) -> None:
        """Sends a scan; next_ms is when the parcel's next one happens, None if it was the last."""
        first = self._first(scan, next_ms)
        self.under_way[first.at_ms // MINUTE_MS].append(first)
        if self._extra and self._random() < self._extra:
            more = self._extra_arrival(first)
            self.under_way[more.at_ms // MINUTE_MS].append(more)

    def received_in(self, minute: int) -> list[Arrival]:
        """What arrives in a minute, the earliest first."""
        return sorted(self.under_way.pop(minute, ()), key=itemgetter(0))

    def _first(self, scan: Scan, next_ms: int | None) -> Arrival:
        random = self._random
        upload_ms = _UPLOAD_MS_MIN + int(random() * (_UPLOAD_MS_MAX - _UPLOAD_MS_MIN))
        if self._rates.late and self._is_offline(scan):
            spell_end_ms = (self._spell + 1) * OFFLINE_SPELL_MS
            # In the order in which they were made, as a device sends them.
            kept_ms = spell_end_ms - scan.occurred_at_ms
            backlog_ms = _BACKLOG_MS - _BACKLOG_MS * kept_ms // OFFLINE_SPELL_MS
            return Arrival(spell_end_ms + backlog_ms + upload_ms, scan, Oddity.LATE)
        if next_ms is not None and random() < self._rates.overtaken:
            span_ms = _OVERTAKEN_MS_MAX - _OVERTAKEN_MS_MIN
            behind_ms = _OVERTAKEN_MS_MIN + int(random() * span_ms)
            return Arrival(next_ms + behind_ms, scan, Oddity.OVERTAKEN)
        return Arrival(scan.occurred_at_ms + upload_ms, scan)

    def _is_offline(self, scan: Scan) -> bool:
        spell = scan.occurred_at_ms // OFFLINE_SPELL_MS
        if spell != self._spell:
            self._spell = spell
            self._offline.clear()
        device = scan.device_id
        if device not in self._offline:
            self._offline[device] = bool(device) and self._random() < self._rates.late
        return self._offline[device]

    def _extra_arrival(self, first: Arrival) -> Arrival:
        chance = self._random() * self._extra
        if chance < self._rates.repeated:
            return Arrival(first.at_ms + self._patience_ms(), first.scan, Oddity.REPEAT)
        at_ms = first.at_ms + self._patience_ms()
        if chance < self._rates.repeated + self._rates.conflicting:
            other = conflicting(first.scan, self._rng)
            return Arrival(at_ms, other, Oddity.CONFLICT, Rejection.CONFLICT)
        rejection = self._rng.choice(tuple(SPOILERS))
        return Arrival(at_ms, spoiled(first.scan, rejection, self._rng), Oddity.INVALID, rejection)

    def _patience_ms(self) -> int:
        """How long after a scan something more is sent: seconds, minutes, or the next day."""
        least_ms, most_ms = _PATIENCE_MS[bisect(_PATIENCE_SHARES, self._random())]
        return least_ms + int(self._random() * (most_ms - least_ms))


def conflicting(scan: Scan, rng: Random) -> Scan:
    """A valid scan with the waybill and id of `scan` and other content."""
    changes: tuple[Callable[[], Scan], ...] = (
        lambda: scan._replace(occurred_at_ms=scan.occurred_at_ms - 1_000),
        lambda: scan._replace(remark=f"{scan.remark}更正"),
        lambda: scan._replace(operator_id="000000"),
    )
    return rng.choice(changes)()


def spoiled(scan: Scan, rejection: Rejection, rng: Random) -> Scan:
    """What the server must reject as `rejection`, made of a good scan; KeyError for CONFLICT."""
    return rng.choice(SPOILERS[rejection])(scan._replace(event_id=f"{scan.event_id}!"))


_Spoiler = Callable[[Scan], Scan]
_YEAR_1999_MS, _YEAR_2200_MS = 946_684_799_999, 7_258_118_400_000
_LONG, _NOT_PRINTABLE = "x" * 501, "\x07"

SPOILERS: Final[dict[Rejection, tuple[_Spoiler, ...]]] = {
    Rejection.INVALID_WAYBILL_NUMBER: (
        lambda scan: scan._replace(waybill_number=""),
        lambda scan: scan._replace(waybill_number="SF1"),
        lambda scan: scan._replace(waybill_number=scan.waybill_number * 4),
        lambda scan: scan._replace(waybill_number="运单" + scan.waybill_number),
        lambda scan: scan._replace(waybill_number=scan.waybill_number.replace("1", "_") + "_"),
    ),
    Rejection.INVALID_EVENT_ID: (
        lambda scan: scan._replace(event_id=""),
        lambda scan: scan._replace(event_id="x" * 65),
        lambda scan: scan._replace(event_id=f"扫描:{scan.occurred_at_ms}"),
        lambda scan: scan._replace(event_id=f"{scan.event_id}\n"),
    ),
    Rejection.UNKNOWN_CODE: (
        lambda scan: scan._replace(code=0),
        lambda scan: scan._replace(code=77),
        lambda scan: scan._replace(code=-1),
    ),
    Rejection.TIME_OUT_OF_RANGE: (
        lambda scan: scan._replace(occurred_at_ms=0),
        lambda scan: scan._replace(occurred_at_ms=_YEAR_1999_MS),
        lambda scan: scan._replace(occurred_at_ms=_YEAR_2200_MS),
    ),
    Rejection.FIELD_TOO_LONG: (
        lambda scan: scan._replace(facility_code=_LONG[:33]),
        lambda scan: scan._replace(device_id=_LONG[:33]),
        lambda scan: scan._replace(remark=_LONG),
        lambda scan: scan._replace(container_number=_LONG[:41]),
        lambda scan: scan._replace(attributes={"note": _LONG[:201]}),
        lambda scan: scan._replace(attributes={_LONG[:33]: "note"}),
        lambda scan: scan._replace(attributes={str(n): "" for n in range(17)}),
    ),
    Rejection.INVALID_FIELD: (
        lambda scan: scan._replace(facility_code=_NOT_PRINTABLE),
        lambda scan: scan._replace(remark=_NOT_PRINTABLE),
        lambda scan: scan._replace(reason=max(Reason) + 1),
        lambda scan: scan._replace(latitude=91.0, longitude=0.0),
        lambda scan: scan._replace(latitude=0.0, longitude=-180.5),
        lambda scan: scan._replace(receipt=Receipt(ReceivedBy.SELF, proof_sha256="not a hash")),
    ),
}
"""Ways to spoil a scan, by what the server says; not CONFLICT, which takes a first scan."""
