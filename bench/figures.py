"""What a scenario found: figures, each with its floor if it has one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Series = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `least` and `most` are the bounds it ought to keep, if any."""

    name: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bounds are kept; None if there are none, or nothing was measured."""
        if (self.least is None and self.most is None) or math.isnan(self.value):
            return None
        least = float("-inf") if self.least is None else self.least
        most = float("inf") if self.most is None else self.most
        return least <= self.value <= most


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of one scenario, in the order in which they are read; and what went over time."""

    figures: list[Figure]
    series: Series = field(default_factory=dict)

    def value(self, name: str) -> float:
        """The value of a figure, for a ratio."""
        return next(figure.value for figure in self.figures if figure.name == name)
