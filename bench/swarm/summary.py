"""A run for people: the table, figures.csv, and the picture of what went over time."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure as Sheet
from rich.console import Console
from rich.table import Table

from bench.swarm.objectives import Verdict
from bench.swarm.outcome import Step, over_time, percentile_ms
from bench.swarm.recordings import Recordings


def print_calls(console: Console, recordings: Recordings) -> None:
    """A row for each kind of call: from when it was due, and from when it was sent."""
    table = Table(
        caption="response: from when a call was due; service: from when it was sent; ms",
        caption_justify="left",
    )
    table.add_column("call")
    for column in (
        "answers",
        "failures",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "service p50",
        "p99",
    ):
        table.add_column(column, justify="right")
    for name, recording in sorted(recordings.names.items()):
        response = [percentile_ms(recording.response, rank) for rank in (50, 90, 99, 99.9, 100)]
        service = [percentile_ms(recording.service, rank) for rank in (50, 99)]
        table.add_row(
            name,
            f"{recording.response.get_total_count():,}",
            ", ".join(f"{n:,} {why}" for why, n in recording.failures.most_common(3)) or "0",
            *(_shown(value) for value in (*response, *service)),
        )
    console.print(table)


def print_steps(console: Console, rows: Sequence[Step], knee: Step | None) -> None:
    """A ramp: what was due and what was answered at each number of users."""
    table = Table()
    for column in ("users", "scans due/s", "answered/s", "p99 ms", ""):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row.users),
            f"{row.offered_per_s:,.0f}",
            f"{row.answered_per_s:,.0f}",
            _shown(row.p99_ms),
            "the knee" if row is knee and row is not rows[-1] else "",
        )
    console.print(table)


def print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """A row for each objective."""
    table = Table()
    table.add_column("objective")
    table.add_column("metric")
    table.add_column("measured", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("")
    for verdict in verdicts:
        objective = verdict.objective
        table.add_row(
            objective.name,
            objective.metric,
            _shown(verdict.value),
            f"{'≤' if objective.at_most else '≥'} {objective.limit:g}",
            "[green]kept[/green]" if verdict.kept else "[red]missed[/red]",
        )
    console.print(table)


def write_csv(file: Path, figures: Mapping[str, float]) -> None:
    """Every figure, one a row."""
    with file.open("w", encoding="utf-8", newline="") as rows:
        writer = csv.writer(rows)
        writer.writerow(("metric", "value"))
        writer.writerows(
            (name, "" if math.isnan(value) else f"{value:.6g}") for name, value in figures.items()
        )


def draw(file: Path, recordings: Recordings, *, title: str) -> None:
    """Scans due and answered, the p99 of each call, and the users, over the seconds of the run."""
    sheet = Sheet(figsize=(10, 8), layout="constrained")
    rates, latencies, users = sheet.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 1]}
    )
    sheet.suptitle(title)
    seconds = range(max([*recordings.offered, *recordings.events, 0]) + 1)
    rates.plot(seconds, [recordings.offered[at] for at in seconds], ":", label="due")
    rates.plot(seconds, [recordings.events[at] for at in seconds], label="answered")
    rates.set_ylabel("scans/s")
    rates.legend(loc="lower right")
    for name in sorted(recordings.names):
        points = list(over_time(recordings, name))
        if points:
            latencies.plot(*zip(*points, strict=True), label=name, linewidth=1)
    latencies.set_yscale("log")
    latencies.set_ylabel("response p99, ms")
    latencies.legend(loc="upper left", fontsize="small")
    told = sorted(recordings.users.items())
    if told:
        users.step(*zip(*told, strict=True), where="post")
    users.set_ylabel("users")
    users.set_xlabel("seconds")
    for panel in (rates, latencies, users):
        panel.set_ylim(bottom=None if panel is latencies else 0)
        panel.grid(visible=True, alpha=0.3)
    sheet.savefig(file)


def _shown(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
