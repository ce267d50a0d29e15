"""A run as a picture: what went over time, latency against load, cost against the data's size.

Drawn from the run's series; a panel that has none is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Sheet

from bench.figures import Outcome

_LONGEST_FIRST = ("long", "ingest", "repeats", "half")
Points = Sequence[tuple[float, float]]
Lines = Mapping[str, Points]


def draw(file: Path, outcomes: Mapping[str, Outcome], *, title: str) -> bool:
    """Writes a picture; False, and no file, if there is nothing to draw."""
    panels = [(draw_panel, lines) for draw_panel, lines in _panels(outcomes) if any(lines.values())]
    if not panels:
        return False
    rows = (len(panels) + 1) // 2
    sheet = Sheet(figsize=(12, 3.6 * rows), layout="constrained")
    sheet.suptitle(title)
    grid = sheet.subplots(rows, 2, squeeze=False)
    for place, (draw_panel, lines) in enumerate(panels):
        panel = grid[place // 2][place % 2]
        draw_panel(panel, lines)
        panel.grid(visible=True, alpha=0.3)
        panel.legend(fontsize="small")
    if len(panels) % 2:
        grid[-1][-1].set_visible(False)
    sheet.savefig(file)
    return True


def _panels(outcomes: Mapping[str, Outcome]) -> list[tuple[Callable[[Any, Lines], None], Lines]]:
    def over(series: str) -> Lines:
        return {
            name: outcomes[name].series.get(series, ())
            for name in _LONGEST_FIRST
            if name in outcomes
        }

    curve = outcomes["curve"].series if "curve" in outcomes else {}
    against_load = {
        "ack p99": curve.get("ack_p99_ms_by_rate", ()),
        "GetStatus p99": curve.get("get_status_p99_ms_by_rate", ()),
    }
    return [
        (_throughput, over("events_per_s")),
        (_latency, over("ack_p99_ms")),
        (_latency_by_load, against_load),
        (_cost_by_size, over("cpu_us_by_events")),
        (_memory, over("rss_bytes")),
    ]


def _throughput(panel: Any, lines: Lines) -> None:
    _plot(panel, lines, x="seconds", y="events/s", title="Throughput over time")
    panel.set_ylim(bottom=0)


def _latency(panel: Any, lines: Lines) -> None:
    _plot(panel, lines, x="seconds", y="ack p99, ms", title="Latency over time")
    panel.set_yscale("log")


def _latency_by_load(panel: Any, lines: Lines) -> None:
    _plot(panel, lines, x="events/s", y="p99, ms", title="Latency against load", marker="o")
    panel.set_yscale("log")


def _cost_by_size(panel: Any, lines: Lines) -> None:
    _plot(panel, lines, x="events stored", y="server CPU µs/event", title="Cost against data size")
    panel.set_ylim(bottom=0)


def _memory(panel: Any, lines: Lines) -> None:
    scaled = {name: [(at, size / 2**20) for at, size in points] for name, points in lines.items()}
    _plot(panel, scaled, x="seconds", y="RSS, MiB", title="Memory over time")
    panel.set_ylim(bottom=0)


def _plot(panel: Any, lines: Lines, *, x: str, y: str, title: str, marker: str = "") -> None:
    for name, points in lines.items():
        if points:
            panel.plot(*zip(*points, strict=True), label=name, marker=marker, linewidth=1.2)
    panel.set_xlim(left=0)
    panel.set_title(title, fontsize="medium")
    panel.set_xlabel(x)
    panel.set_ylabel(y)
