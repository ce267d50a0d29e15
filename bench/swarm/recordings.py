"""What was measured: HDR histograms by the name of a call, and what went over time.

Two times of each answer: response, from when the call was due, and service, from when it was sent.
Recordings of several processes add up. Nothing here knows gRPC, locust or a clock.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hdrh.histogram import HdrHistogram

TICK_S: Final = 1.0
_US_MIN, _US_MAX = 1, 3_600_000_000
_DIGITS, _DIGITS_OVER_TIME = 3, 2


def _histogram() -> HdrHistogram:
    return HdrHistogram(_US_MIN, _US_MAX, _DIGITS)


def _histogram_over_time() -> HdrHistogram:
    return HdrHistogram(_US_MIN, _US_MAX, _DIGITS_OVER_TIME)


@dataclass(slots=True)
class Recording:
    """The answers of one name. Histograms are in µs; lateness: from due to sent.

    events: scans in answers that stored them. ticks: responses by the second in which they came.
    """

    response: Any = field(default_factory=_histogram)
    service: Any = field(default_factory=_histogram)
    lateness: Any = field(default_factory=_histogram)
    failures: Counter[str] = field(default_factory=Counter)
    events: int = 0
    ticks: dict[int, Any] = field(default_factory=lambda: defaultdict(_histogram_over_time))


@dataclass(slots=True)
class Recordings:
    """All names. began_at: of the run, in the clock of the times that are recorded.

    offered, events: scans due and scans answered, by second. users: how many, by second.
    """

    began_at: float = 0.0
    names: dict[str, Recording] = field(default_factory=lambda: defaultdict(Recording))
    offered: Counter[int] = field(default_factory=Counter)
    events: Counter[int] = field(default_factory=Counter)
    users: dict[int, int] = field(default_factory=dict)

    def offer(self, due_at: float, events: int) -> None:
        """Scans were due."""
        self.offered[self._tick(due_at)] += events

    def answered(
        self, name: str, *, due_at: float, sent_at: float, answered_at: float, events: int = 0
    ) -> None:
        """An answer came."""
        recording = self.names[name]
        response_us = _us(answered_at - due_at)
        tick = self._tick(answered_at)
        recording.response.record_value(response_us)
        recording.service.record_value(_us(answered_at - sent_at))
        recording.lateness.record_value(_us(sent_at - due_at))
        recording.ticks[tick].record_value(response_us)
        recording.events += events
        self.events[tick] += events

    def failed(self, name: str, why: str) -> None:
        """No answer, or a wrong one."""
        self.names[name].failures[why] += 1

    def _tick(self, at: float) -> int:
        return int((at - self.began_at) / TICK_S)

    def taken(self) -> dict[str, Any]:
        """Everything as plain values, to be sent or kept; what is here begins anew."""
        told = {
            "names": {name: _told(recording) for name, recording in self.names.items()},
            "offered": dict(self.offered),
            "events": dict(self.events),
            "users": dict(self.users),
        }
        self.names.clear()
        self.offered.clear()
        self.events.clear()
        self.users.clear()
        return told

    def add(self, told: Mapping[str, Any]) -> None:
        """Adds what `taken` of another, or a file, tells."""
        for name, one in told["names"].items():
            recording = self.names[name]
            for kind in ("response", "service", "lateness"):
                getattr(recording, kind).decode_and_add(one[kind])
            recording.failures.update(one["failures"])
            recording.events += one["events"]
            for tick, encoded in one["ticks"].items():
                recording.ticks[int(tick)].decode_and_add(encoded)
        for kind in ("offered", "events"):
            getattr(self, kind).update({int(tick): n for tick, n in told[kind].items()})
        self.users.update({int(tick): n for tick, n in told["users"].items()})


def _told(recording: Recording) -> dict[str, Any]:
    return {
        "response": recording.response.encode().decode(),
        "service": recording.service.encode().decode(),
        "lateness": recording.lateness.encode().decode(),
        "failures": dict(recording.failures),
        "events": recording.events,
        "ticks": {str(tick): one.encode().decode() for tick, one in recording.ticks.items()},
    }


def _us(seconds: float) -> int:
    return max(_US_MIN, min(_US_MAX, round(seconds * 1e6)))
