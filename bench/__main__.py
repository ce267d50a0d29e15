"""`python -m bench`: runs the scenarios and prints what they found, with the floors.

Exits with 1 when something failed, an acknowledged scan was lost or an answer was wrong; never
because of speed.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from grpc import aio
from rich.console import Console

from bench.comparison import last_committed
from bench.load import WrongAnswer
from bench.machine import machine_facts, version_facts
from bench.picture import draw
from bench.plan import SHORT, Bench, Scale
from bench.report import print_facts, print_table, write_json
from bench.scenarios import SCENARIOS
from bench.server import ServerFailed
from trackd.client.errors import TrackdError

_RESULTS = Path(__file__).parent / "results"
_FAILURES = (
    WrongAnswer,
    ServerFailed,
    TrackdError,
    aio.AioRpcError,
    OSError,
    RuntimeError,
    subprocess.SubprocessError,
)
_SHORT_CAPTION = "A short run shows that the load path works; it is too brief for the floors."


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="under a minute: does it work at all?")
    parser.add_argument(
        "--only",
        action="append",
        choices=sorted(SCENARIOS),
        metavar="NAME",
        help=f"one scenario, and those it compares with; may be repeated: {', '.join(SCENARIOS)}",
    )
    parser.add_argument(
        "--long", action="store_true", help="also 20 million events in a row: minutes"
    )
    parser.add_argument("--long-events", type=int, help="of --long and recovery, in all")
    parser.add_argument("--long-waybills", type=int, help="that they are of")
    parser.add_argument("--seconds", type=float, help="how long scans are sent; 60 by default")
    parser.add_argument("--workers", type=int, help="of every server; its default by default")
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="of every server, such as status_cache_bytes=4GiB; may be repeated",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, help="where servers keep their data meanwhile")
    parser.add_argument(
        "--results",
        type=Path,
        help="directory for the figures as JSON; bench/results by default, none in a short run",
    )
    return parser.parse_args()


def _scale(arguments: argparse.Namespace) -> Scale:
    scale = SHORT if arguments.short else Scale()
    if arguments.seconds:
        scale = replace(scale, ingest_seconds=arguments.seconds, half_seconds=arguments.seconds / 2)
    if arguments.long_events:
        events = arguments.long_events
        scale = replace(scale, long_events=events, recovery_events=events)
    if arguments.long_waybills:
        scale = replace(scale, long_waybills=arguments.long_waybills)
    return scale


def _server_options(arguments: argparse.Namespace) -> tuple[str, ...]:
    settings: list[tuple[str, str]] = list(arguments.setting)
    if arguments.workers:
        settings.append(("workers", str(arguments.workers)))
    return tuple(f"--{name.replace('_', '-')}={value}" for name, value in settings)


def _chosen(arguments: argparse.Namespace) -> list[str]:
    """The scenarios to run, in their order."""
    wanted: Iterable[str] = arguments.only or [name for name in SCENARIOS if name != "long"]
    chosen = set(wanted) | {need for name in wanted for need in SCENARIOS[name].needs}
    if arguments.long:
        chosen.add("long")
    return [name for name in SCENARIOS if name in chosen]


async def _measure(bench: Bench, chosen: Iterable[str], console: Console) -> dict[str, str]:
    """Runs the scenarios; what failed, and why. What they found is in bench.outcomes."""
    failures: dict[str, str] = {}
    for name in chosen:
        scenario = SCENARIOS[name]
        console.print(f"[bold]{name}[/bold]  {scenario.ask}")
        missing = [need for need in scenario.needs if need not in bench.outcomes]
        if missing:
            failures[name] = f"needs {', '.join(missing)}"
            continue
        try:
            bench.outcomes[name] = await scenario.measure(bench)
        except _FAILURES as error:
            failures[name] = _told(error)
            console.print(failures[name], style="red", markup=False)
    return failures


def _told(error: Exception) -> str:
    if isinstance(error, aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return f"{type(error).__name__}: {error}"


async def _until_done_or_told(bench: Bench, chosen: list[str], console: Console) -> dict[str, str]:
    """`_measure`, ended in order by SIGTERM too, so that no server outlives the bench."""
    measuring = asyncio.ensure_future(_measure(bench, chosen, console))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, measuring.cancel)
    try:
        return await measuring
    except asyncio.CancelledError:
        return {"the run": "was ended by a signal"}


def _main() -> int:
    arguments = _arguments()
    began_at = datetime.now(UTC)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory(prefix="trackd-bench-", dir=arguments.data_dir) as name:
        options = _server_options(arguments)
        bench = Bench(_scale(arguments), Path(name), arguments.seed, server_options=options)
        machine, versions = machine_facts(bench.directory), version_facts()
        print_facts(console, {**machine, "versions": ", ".join(map(" ".join, versions.items()))})
        print_facts(console, {"seed": str(bench.seed), "command": " ".join(sys.argv[1:]) or "-"})
        failures = uvloop.run(_until_done_or_told(bench, _chosen(arguments), console))
    caption = _SHORT_CAPTION if arguments.short else ""
    reference = last_committed(_RESULTS, facts={**machine, **versions})
    if reference.name:
        caption += f"\n× before: by the value in bench/results/{reference.name}. "
        if reference.differs:
            caption += f"Not the same then: {'; '.join(reference.differs)}"
    print_table(console, bench.outcomes, failures, reference=reference, caption=caption.strip())
    results = arguments.results or (None if arguments.short else _RESULTS)
    if results:
        file = results / f"{began_at:%Y-%m-%dT%H%M%SZ}.json"
        run = {
            "arguments": sys.argv[1:],
            "seed": bench.seed,
            "machine": machine,
            "versions": versions,
        }
        write_json(file, began_at=began_at, run=run, outcomes=bench.outcomes, failures=failures)
        console.print(f"written to {file}")
        title = f"trackd {versions['trackd']}, {began_at:%Y-%m-%d}, {machine['CPU']}"
        if draw(file.with_suffix(".png"), bench.outcomes, title=title):
            console.print(f"drawn in {file.with_suffix('.png')}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(_main())
