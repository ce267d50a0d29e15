"""How many users there are and when, and what is special about them: the load shapes.

Plain functions of a run's progress, from 0 at its start to 1 at its end.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

RAMP_STEPS: Final = 10

# Scans by the hour of the day after the sale began at midnight, as parts of the highest: orders of
# the first minutes are picked up in the morning, and sorted in an evening wave that does not ebb.
_DOUBLE_11: Final = (
    *(0.55, 0.45, 0.35, 0.30, 0.30, 0.35, 0.45, 0.55, 0.60, 0.65, 0.65, 0.60),
    *(0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.88, 0.95, 1.00, 1.00, 0.92, 0.80),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A load shape.

    part: of the users asked for, at a progress. cut: from when until when scanners have no network.
    hot: the part of look-ups, and of scanners' batches, that are about one waybill.
    """

    ask: str
    part: Callable[[float], float]
    cut: tuple[float, float] | None = None
    hot: float = 0.0

    def users(self, progress: float, users: int) -> int:
        """How many there are; at least one."""
        return max(1, round(self.part(progress) * users))

    def is_cut(self, progress: float) -> bool:
        """Whether scanners have no network."""
        return self.cut is not None and self.cut[0] <= progress < self.cut[1]


def _steady(_progress: float) -> float:
    return 1.0


def _ramp(progress: float) -> float:
    return (min(int(progress * RAMP_STEPS), RAMP_STEPS - 1) + 1) / RAMP_STEPS


def _evening_wave(progress: float) -> float:
    """A third of the highest at both ends, the highest in the middle."""
    return 1 / 3 + 2 / 3 * math.sin(math.pi * progress) ** 2


def _double_11(progress: float) -> float:
    """24 hours in one run, straight from hour to hour."""
    place = min(max(progress, 0.0), 1.0) * (len(_DOUBLE_11) - 1)
    hours = list(pairwise(_DOUBLE_11))
    hour = min(int(place), len(hours) - 1)
    before, after = hours[hour]
    return before + (after - before) * (place - hour)


SHAPES: Final = {
    "steady": Shape("The same load all the time: are objectives kept?", _steady),
    "ramp": Shape("Ever more users: where is the knee?", _ramp),
    "evening": Shape("The evening wave of a sorting centre, in one run", _evening_wave),
    "double11": Shape("The 24 hours of the busiest day, compressed into one run", _double_11),
    "reconnect": Shape(
        "All scanners lose the network, and come back at once with what they kept",
        _steady,
        cut=(0.4, 0.6),
    ),
    "hot": Shape("One waybill that everybody asks for, and that is scanned on", _steady, hot=0.8),
}
