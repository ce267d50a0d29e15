"""What a run found, as a table for people and as JSON for whoever compares runs."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from bench.comparison import Reference
from bench.figures import Figure, Outcome


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """One line a fact."""
    for name, value in facts.items():
        console.print(f"[dim]{name:>12}[/dim]  {value}")


def print_table(
    console: Console,
    outcomes: Mapping[str, Outcome],
    failures: Mapping[str, str],
    *,
    reference: Reference,
    caption: str,
) -> None:
    """Every figure, with its floor where it has one, and by what it was in the reference."""
    table = Table(caption=caption, caption_justify="left")
    table.add_column("scenario")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("floor", justify="right")
    table.add_column("")
    table.add_column("× before", justify="right")
    for name, outcome in outcomes.items():
        table.add_section()
        for place, figure in enumerate(outcome.figures):
            style = None if figure.met is None else "bold"
            cells = (name if not place else "", figure.name, shown(figure.value, figure.unit))
            ratio = _ratio(reference.ratio(name, figure.name, figure.value))
            table.add_row(*cells, _floor(figure), _met(figure), ratio, style=style)
    for name, failure in failures.items():
        table.add_section()
        table.add_row(name, failure, "", "", "[bold red]FAILED[/bold red]", "")
    console.print(table)


def write_json(
    file: Path,
    *,
    began_at: datetime,
    run: Mapping[str, Any],
    outcomes: Mapping[str, Outcome],
    failures: Mapping[str, str],
) -> None:
    """Everything, figures without rounding. A figure that could not be measured is null."""
    document = {
        "began_at": began_at.astimezone(UTC).isoformat(timespec="seconds"),
        **run,
        "scenarios": {
            name: {
                "figures": [
                    {
                        "name": figure.name,
                        "value": figure.value if math.isfinite(figure.value) else None,
                        "unit": figure.unit,
                        "least": figure.least,
                        "most": figure.most,
                        "met": figure.met,
                    }
                    for figure in outcome.figures
                ],
                "series": outcome.series,
            }
            for name, outcome in outcomes.items()
        },
        "failures": dict(failures),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def shown(value: float, unit: str) -> str:
    """A number with as many digits as tell something."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else "never"
    digits = 0 if value == int(value) or abs(value) >= 1_000 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def _ratio(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else ""


def _floor(figure: Figure) -> str:
    if figure.least is not None:
        return f"≥ {shown(figure.least, figure.unit)}"
    if figure.most is not None:
        return f"≤ {shown(figure.most, figure.unit)}"
    return ""


def _met(figure: Figure) -> str:
    return {None: "", True: "[green]met[/green]", False: "[red]missed[/red]"}[figure.met]
