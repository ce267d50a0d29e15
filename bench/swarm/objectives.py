"""What a load test is held to, read from a TOML file, and whether it was kept.

A metric that was not measured is an objective missed: nothing is kept that nobody looked at.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FIELDS: Final = {"name", "metric", "limit", "shapes"}


class ObjectivesInvalid(Exception):
    """The file cannot be read as objectives; the message says where."""


@dataclass(frozen=True, slots=True)
class Objective:
    """at_most: whether the limit is the highest value, or the lowest. shapes: empty means all."""

    name: str
    metric: str
    at_most: bool
    limit: float
    shapes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """An objective and what was measured; NaN if nothing was."""

    objective: Objective
    value: float

    @property
    def kept(self) -> bool:
        """Whether the value is within the limit."""
        limit = self.objective.limit
        return self.value <= limit if self.objective.at_most else self.value >= limit


def read(file: Path) -> list[Objective]:
    """The objectives of a file. Raises ObjectivesInvalid or OSError."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8")).get("objective", [])
    except tomllib.TOMLDecodeError as error:
        raise ObjectivesInvalid(f"{file}: {error}") from error
    return [_objective(file, number, table) for number, table in enumerate(tables, 1)]


def judge(
    objectives: list[Objective], figures: Mapping[str, float], *, shape: str
) -> list[Verdict]:
    """The objectives of a shape, each with what was measured."""
    return [
        Verdict(objective, figures.get(objective.metric, math.nan))
        for objective in objectives
        if not objective.shapes or shape in objective.shapes
    ]


def _objective(file: Path, number: int, table: Mapping[str, object]) -> Objective:
    where = f"{file}: objective {number}"
    for unknown in set(table) - _FIELDS:
        raise ObjectivesInvalid(f"{where}: {unknown} is none of {', '.join(sorted(_FIELDS))}")
    texts = {}
    for field in ("name", "metric", "limit"):
        text = table.get(field)
        if not isinstance(text, str) or not text:
            raise ObjectivesInvalid(f"{where}: {field} has to be a text")
        texts[field] = text
    sign, _, number_text = texts["limit"].partition(" ")
    try:
        limit = float(number_text)
    except ValueError:
        limit = math.nan
    if sign not in {"<=", ">="} or math.isnan(limit):
        raise ObjectivesInvalid(f'{where}: limit has to be "<= number" or ">= number"')
    shapes = table.get("shapes", [])
    if not isinstance(shapes, list) or not all(isinstance(shape, str) for shape in shapes):
        raise ObjectivesInvalid(f"{where}: shapes has to be a list of texts")
    return Objective(texts["name"], texts["metric"], sign == "<=", limit, frozenset(shapes))
