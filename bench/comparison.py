"""A run beside the last one that was committed: which figures are other than they were, and by how
much.

Ratios only tell something between runs of one machine; where machines or versions differ the reader
is told so.
"""

import math
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

Key = tuple[str, str]
"""Scenario and figure."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An earlier run. `name` of its file; `differs`: what its machine or versions had otherwise."""

    name: str = ""
    values: Mapping[Key, float] = field(default_factory=dict)
    differs: tuple[str, ...] = ()

    def ratio(self, scenario: str, figure: str, value: float) -> float:
        """A value by what it was; NaN where there is nothing to compare with."""
        before = self.values.get((scenario, figure), math.nan)
        return value / before if before else math.nan


def last_committed(results: Path, *, facts: Mapping[str, str]) -> Reference:
    """The newest result in a directory that is committed; an empty one if there is none.

    facts: of this machine, as they are in a result.
    """
    try:
        told = subprocess.run(
            ["git", "ls-files", "-z", "*.json"],
            cwd=results,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        ).stdout
    except OSError:
        return Reference()
    files = sorted(results / name for name in told.split("\0") if name)
    files = [file for file in files if file.exists()]
    return read(files[-1], facts=facts) if files else Reference()


def read(file: Path, *, facts: Mapping[str, str]) -> Reference:
    """A result as something to compare with."""
    document: Mapping[str, Any] = orjson.loads(file.read_bytes())
    values = {
        (scenario, figure["name"]): float(figure["value"])
        for scenario, outcome in document["scenarios"].items()
        for figure in outcome["figures"]
        if figure["value"] is not None
    }
    before = {**document["machine"], **document["versions"]}
    differs = tuple(
        f"{name} {before.get(name, '-')} → {now}"
        for name, now in facts.items()
        if name != "load before" and before.get(name) != now
    )
    return Reference(file.name, values, differs)
