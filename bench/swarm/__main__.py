"""`python -m bench.swarm --shape steady`, `make load`: one load shape, judged by objectives.

Without --target it starts a server of its own on an empty data directory and ends it afterwards.
Exits with 1 when an objective was missed, with 2 when it was asked for something that is not there.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench.server import ServerFailed, ServerProcess, trackd_server
from bench.swarm.objectives import ObjectivesInvalid, judge, read
from bench.swarm.outcome import figures, knee, steps
from bench.swarm.recordings import Recordings
from bench.swarm.shapes import SHAPES
from bench.swarm.summary import (
    draw,
    print_calls,
    print_steps,
    print_verdicts,
    write_csv,
)

_BENCH = Path(__file__).parent.parent
_USAGE = 2
# Starting, the scans that are sent beforehand, and the last answers.
_OVERHEAD_S_MAX = 120
_STOP_TIMEOUT_S = 10
# A shape has to have time for its steps.
_DURATION_S_MIN = 1.0


class LocustFailed(Exception):
    """Locust ended without figures; the message says where its log is."""


def _at_least_one(text: str) -> int:
    with suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if _DURATION_S_MIN <= (number := float(text)) < float("inf"):
            return number
    raise argparse.ArgumentTypeError(f"{text!r} must be a number, {_DURATION_S_MIN:g} or more")


def _arguments(console: Console) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.swarm", description=__doc__)
    parser.add_argument("--shape", default="steady", help=f"one of {', '.join(SHAPES)}")
    parser.add_argument("--target", default="", help="HOST:PORT of a server, instead of one's own")
    parser.add_argument("--users", type=_at_least_one, default=24, help="at the highest")
    parser.add_argument("--duration", type=_seconds, default=60.0, help="seconds")
    parser.add_argument("--processes", type=_at_least_one, default=1, help="of locust")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--objectives", type=Path, default=_BENCH / "objectives.toml")
    parser.add_argument("--report", type=Path, help="directory for the report")
    parser.add_argument("--data-dir", type=Path, help="where a server of its own keeps its data")
    arguments = parser.parse_args()
    if arguments.shape not in SHAPES:
        console.print(f"There is no load shape {arguments.shape!r}. There are:")
        for name, shape in SHAPES.items():
            console.print(f"  {name:<10} {shape.ask}", markup=False)
        sys.exit(_USAGE)
    return arguments


@contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[ServerProcess | None]:
    if arguments.target:
        yield None
        return
    with (
        tempfile.TemporaryDirectory(prefix="trackd-load-", dir=arguments.data_dir) as directory,
        trackd_server(Path(directory) / "data") as server,
    ):
        yield server


def _command(arguments: argparse.Namespace, report: Path, address: str) -> list[str]:
    """How locust is called."""
    processes = ["--processes", str(arguments.processes)] if arguments.processes > 1 else []
    return [
        *(sys.executable, "-m", "locust", "-f", os.fspath(_BENCH / "swarm" / "locustfile.py")),
        *("--headless", "--only-summary", "--host", address, *processes),
        *("--load-shape", arguments.shape, "--users", str(arguments.users)),
        *("--seconds", str(arguments.duration), "--seed", str(arguments.seed)),
        *("--stop-timeout", str(_STOP_TIMEOUT_S), "--exit-code-on-error", "0"),
        *("--figures", os.fspath(report / "recordings.json")),
        *("--html", os.fspath(report / "locust.html"), "--csv", os.fspath(report / "locust")),
    ]


def _swarm(arguments: argparse.Namespace, report: Path, address: str) -> Recordings:
    """Runs locust; what it recorded."""
    log = report / "locust.log"
    with log.open("wb") as told:
        ended = subprocess.run(
            _command(arguments, report, address),
            stdout=told,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.fspath(_BENCH.parent)},
            timeout=arguments.duration + _OVERHEAD_S_MAX,
            check=False,
        )
    file = report / "recordings.json"
    if not file.exists():
        raise LocustFailed(f"locust ended with {ended.returncode} and no figures: see {log}")
    recordings = Recordings()
    recordings.add(json.loads(file.read_text(encoding="utf-8")))
    if not recordings.names:
        raise LocustFailed(f"nothing was answered: see {log}")
    return recordings


def _run(arguments: argparse.Namespace, console: Console) -> int:
    objectives = read(arguments.objectives)
    name = f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}-{arguments.shape}"
    report = arguments.report or _BENCH / "reports" / name
    report.mkdir(parents=True, exist_ok=True)
    console.print(f"[bold]{arguments.shape}[/bold]  {SHAPES[arguments.shape].ask}")
    with _server(arguments) as server:
        address = server.address if server else arguments.target
        console.print(
            f"{arguments.users} users for {arguments.duration:g} s on {address}, seed"
            f" {arguments.seed}, {arguments.processes} processes"
        )
        began_at, before = time.perf_counter(), server.usage() if server else None
        recordings = _swarm(arguments, report, address)
        seconds, after = time.perf_counter() - began_at, server.usage() if server else None
    found = figures(recordings)
    if before and after:
        found["server.cores"] = (after.cpu_s - before.cpu_s) / seconds
        found["server.rss_mib"] = after.rss_bytes / 2**20
    print_calls(console, recordings)
    if arguments.shape == "ramp":
        rows = steps(recordings)
        top = knee(rows)
        found["ramp.knee_events_per_s"] = top.answered_per_s if top else 0.0
        print_steps(console, rows, top)
    shown = {name: value for name, value in found.items() if name.startswith(("all.", "server."))}
    console.print("  ".join(f"{name} {value:,.4g}" for name, value in shown.items()))
    verdicts = judge(objectives, found, shape=arguments.shape)
    print_verdicts(console, verdicts)
    write_csv(report / "figures.csv", found)
    draw(report / "load.png", recordings, title=f"{arguments.shape}, {arguments.users} users")
    console.print(f"The report is in {report}: load.png, figures.csv, locust.html")
    return 0 if all(verdict.kept for verdict in verdicts) else 1


def _main() -> int:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    arguments = _arguments(console)
    try:
        return _run(arguments, console)
    except (ObjectivesInvalid, LocustFailed, ServerFailed, OSError) as error:
        console.print(str(error), style="red", markup=False)
        return _USAGE if isinstance(error, ObjectivesInvalid) else 1
    except subprocess.TimeoutExpired as error:
        console.print(f"locust did not end within {error.timeout:g} s", style="red")
        return 1


if __name__ == "__main__":
    sys.exit(_main())
