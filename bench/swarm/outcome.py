"""What a run came to: figures by name, and rows over time. Plain arithmetic on recordings."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.swarm.recordings import Recording, Recordings
from bench.swarm.shapes import RAMP_STEPS

TIMES: Final = ("response", "service", "lateness")
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
# A step of a ramp is past the knee when less of what was due than this was answered in its time.
_ANSWERED_SHARE_LEAST = 0.9


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a run. Rates are scans a second; p99_ms: of the scanners' responses."""

    began_s: int
    users: int
    offered_per_s: float
    answered_per_s: float
    p99_ms: float


def figures(recordings: Recordings) -> dict[str, float]:
    """Every figure by the name that objectives use."""
    found: dict[str, float] = {}
    for name, recording in sorted(recordings.names.items()):
        found.update(_figures_of(name, recording))
    offered, answered = _total(recordings.offered), _total(recordings.events)
    answers = sum(recording.response.get_total_count() for recording in recordings.names.values())
    failures = sum(_total(recording.failures) for recording in recordings.names.values())
    lateness = Recording().lateness
    for recording in recordings.names.values():
        lateness.add(recording.lateness)
    seconds = max(recordings.offered, default=0) + 1
    found |= {
        "all.answers": answers,
        "all.failures": failures,
        "all.failure_share": failures / max(1, answers + failures),
        "all.events": answered,
        "all.events_per_s": answered / seconds,
        "all.answered_share": answered / offered if offered else math.nan,
        "all.backlog_events_at_end": offered - answered,
        "all.lateness_ms.p99": percentile_ms(lateness, 99.0),
    }
    return found


def steps(recordings: Recordings, *, parts: int = RAMP_STEPS) -> list[Step]:
    """A run in so many parts of one length; the seconds that are left over belong to the last."""
    seconds = max(recordings.offered, default=-1) + 1
    length = max(1, seconds // parts)
    return [_step(recordings, began_s, length) for began_s in range(0, length * parts, length)]


def knee(rows: list[Step]) -> Step | None:
    """The last step at which what was due was answered in its time; None if there is none."""
    kept = None
    for row in rows:
        if row.answered_per_s < _ANSWERED_SHARE_LEAST * row.offered_per_s:
            break
        kept = row
    return kept


def over_time(recordings: Recordings, name: str) -> Iterator[tuple[int, float]]:
    """The p99 of a name's responses in ms, second by second."""
    for tick, histogram in sorted(recordings.names[name].ticks.items()):
        yield tick, percentile_ms(histogram, 99.0)


def percentile_ms(histogram: Any, percentile: float) -> float:
    """NaN where nothing was recorded."""
    if not histogram.get_total_count():
        return math.nan
    return float(histogram.get_value_at_percentile(percentile)) / 1e3


def _figures_of(name: str, recording: Recording) -> dict[str, float]:
    found: dict[str, float] = {
        f"{name}.answers": recording.response.get_total_count(),
        f"{name}.failures": _total(recording.failures),
    }
    for time in TIMES:
        histogram = getattr(recording, time)
        for percentile in PERCENTILES:
            found[f"{name}.{time}_ms.p{percentile:g}"] = percentile_ms(histogram, percentile)
        found[f"{name}.{time}_ms.max"] = percentile_ms(histogram, 100.0)
    return found


def _step(recordings: Recordings, began_s: int, length: int) -> Step:
    within = range(began_s, began_s + length)
    responses = Recording().response
    for recording in recordings.names.values():
        if recording.events:
            for second in within:
                if second in recording.ticks:
                    responses.add(recording.ticks[second])
    return Step(
        began_s=began_s,
        users=max((recordings.users.get(second, 0) for second in within), default=0),
        offered_per_s=sum(recordings.offered[second] for second in within) / length,
        answered_per_s=sum(recordings.events[second] for second in within) / length,
        p99_ms=percentile_ms(responses, 99.0),
    )


def _total(counts: Any) -> int:
    return sum(counts.values())
