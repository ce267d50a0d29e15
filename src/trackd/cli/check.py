"""`trackd check`: a whole data directory read back, and what is wrong with it.

Shows what `trackd.verify` finds; knows no rule itself.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer

from trackd import exits
from trackd.cli.terminal import DONE, FAILED, USAGE, examples, fail, note, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from trackd.finding import Finding, Progress

EPILOG = examples(
    "trackd check",
    "trackd check /var/lib/trackd --json | jq -r .message",
    "trackd check --config /etc/trackd.toml",
)

_STEPS = ("log", "events")
_NAMED_MAX = 100


Directory = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DIR]", show_default=False, help="The data directory of a server; as --data."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        show_default=False,
        help="The same. Without either: TRACKD_DATA, the file, or trackd-data.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", show_default=False, help="TOML file with the server's settings."),
]


def command(
    directory: Directory = None,
    *,
    data: Data = None,
    config: Config = None,
    json: Annotated[
        bool, typer.Option("--json", help="A line of JSON for each finding, and one at the end.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help=f"Name every finding, not only the first {_NAMED_MAX}.")
    ] = False,
) -> None:
    """Read a whole data directory back and verify it.

    No event is stored twice, positions have no gaps, nothing acknowledged is missing, log and
    timelines hold the same events, and each status is what its timeline says. Changes nothing. The
    server must be stopped first. Which directory is found as [bold]trackd serve[/bold] finds it.

    Exit codes: 0 all is well, 1 something is wrong or cannot be read, 2 usage, 75 a server has the
    directory open.
    """
    from trackd.store.errors import DirectoryInUse, StoreError

    most = None if every or json else _NAMED_MAX
    where = _data_directory(directory, data, config)
    try:
        found = _check(where, _tell_document if json else _tell_line, most=most)
    except DirectoryInUse as error:
        fail(f"{error}; stop the server first", code=exits.IN_USE)
    except (StoreError, OSError) as error:
        fail(str(error))
    if json:
        print_json({"data": str(where), "findings": found})
    else:
        told = f"{found:,} finding{'s' if found > 1 else ''}" if found else "all is well"
        typer.echo(f"{where}: {told}")
    raise typer.Exit(FAILED if found else DONE)


def _data_directory(directory: Path | None, data: Path | None, config: Path | None) -> Path:
    """The directory that was named, or the one that a server of the same settings would open."""
    from trackd.configuration import load
    from trackd.setting_file import SettingsError

    if directory is not None and data is not None:
        fail("the directory is named twice: as DIR and with --data", code=USAGE)
    named = directory or data
    if named is not None:
        return named.expanduser()
    try:
        return load({"config": config} if config else {}).data
    except SettingsError as error:
        fail(str(error), code=USAGE)


def _check(data: Path, tell: "Callable[[Finding], None]", *, most: int | None) -> int:
    """Shows progress, and findings as they come, `most` of them; how many there are."""
    from trackd.finding import Finding
    from trackd.verify import verify

    found = 0
    with _Bar() as bar:
        for item in verify(data):
            if not isinstance(item, Finding):
                bar.show(item)
                continue
            found += 1
            if most is None or found <= most:
                tell(item)
    if most is not None and found > most:
        note(f"... and {found - most:,} more; --all names them")
    return found


def _tell_line(finding: "Finding") -> None:
    # RocksDB's messages have several lines at times.
    message = " ".join(finding.message.split())
    typer.echo(f"partition {finding.partition}, {finding.kind}: {finding.where}: {message}")


def _tell_document(finding: "Finding") -> None:
    print_json(asdict(finding))


class _Bar:
    """A bar on a terminal; nothing elsewhere, as findings are what is worth a line."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            # Findings in a pipe must not end up on the terminal with the bar.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._progress.add_task("reading", total=1.0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, progress: "Progress") -> None:
        """Moves the bar: each partition has two steps, the log and the events."""
        step = _STEPS.index(progress.step) + progress.done / max(1, progress.total)
        self._progress.update(
            self._task,
            completed=(progress.partition + step / len(_STEPS)) / progress.partition_count,
            description=f"partition {progress.partition}, {progress.step}: {progress.done:,}",
        )
