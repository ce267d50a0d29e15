"""The entry point: which commands there are, and which file holds each.

Only the command that was asked for is imported; the others are here as a name and a sentence, which
is all that `trackd --help` shows of them. Knows no option of any command.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from trackd import __version__
from trackd.cli.terminal import FAILED, INTERRUPTED, USAGE

SERVER = "The server"
PARCELS = "Parcels"
NEWS = "News"


@dataclass(frozen=True, slots=True)
class Command:
    """A command. Its file `trackd/cli/<name>.py` defines `command` and, for its help, `EPILOG`.

    One with actions of its own (`trackd endpoints list`) defines `ACTIONS`, by name; its `command`
    does nothing but carry the help.
    """

    name: str
    panel: str
    summary: str


COMMANDS = (
    Command("demo", SERVER, "Start a server and stream a courier network's scans into it."),
    Command("serve", SERVER, "Start the server."),
    Command("config", SERVER, "Show every setting, its value and where it came from."),
    Command("check", SERVER, "Read a whole data directory back and verify it."),
    Command("health", SERVER, "Ask whether a server answers; exit code 0 only if it does."),
    Command("stats", SERVER, "Show the figures of a running server."),
    Command("track", PARCELS, "Show where parcels are and what happened to them."),
    Command("watch", PARCELS, "Show changes as they happen, from now on or from the past."),
    Command("ingest", PARCELS, "Send scans from a file: JSON lines, or CSV with a mapping."),
    Command(
        "subscriptions",
        NEWS,
        "Manage named subscriptions: how far each is, what was parked.",
    ),
    Command("endpoints", NEWS, "Manage endpoints: who is told of changes by webhook or message."),
    Command("notify", NEWS, "Deliver webhooks and messages to the endpoints of a server."),
    Command("receive", NEWS, "Receive webhooks, verify and print them, to try endpoints out."),
)

HELP = """
A parcel tracking event store and query server: scans in, status and timeline out.

New here? [bold]trackd demo[/bold] starts a server with parcels in it, and says how to look one up.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command of the process's arguments and exits.

    Exit codes: 0 done, 1 the work failed, 2 usage, 75 the data directory is in use, 78 the data is
    behind what was acknowledged, 130 interrupted.
    """
    _open_standard_streams()
    # Else gRPC's core writes lines of its own into the log at every stop of several workers.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows a question mark, and the rest.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    # The command is the first word: no option before it takes a value.
    wanted = next((word for word in words if not word.startswith("-")), None)
    try:
        application(wanted)(args=words, prog_name="trackd")
    except UnicodeEncodeError:
        # What a terminal of another encoding makes of a name; file names may be so, and are not.
        print("trackd: what was asked for is not UTF-8", file=sys.stderr)
        sys.exit(USAGE)
    except OSError as error:
        # Nobody can write there, or the directory that it was called in is gone.
        print(f"trackd: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)  # before the command had begun, or where it has nothing to tidy up


def _open_standard_streams() -> None:
    """Has what was closed by whoever started this lead nowhere.

    Else the next files would get those numbers, and what is printed would go into the data.
    """
    nowhere = Path(os.devnull)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(nowhere, os.O_RDWR)  # takes the lowest number that is free: this one
            os.set_inheritable(number, True)
    # Python has none for what was closed.
    sys.stdout = sys.stdout or nowhere.open("w")
    sys.stderr = sys.stderr or nowhere.open("w")


def application(wanted: str | None) -> typer.Typer:
    """The command line with the command `wanted` loaded."""
    app = typer.Typer(
        help=HELP,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for command in COMMANDS:
        if command.name == wanted:
            module = import_module(f"trackd.cli.{command.name}")
            help_text = _paragraphs(module.command.__doc__)
            if actions := getattr(module, "ACTIONS", None):
                group = _group(actions)
                group.callback()(module.command)
                app.add_typer(group, name=command.name, help=help_text, epilog=module.EPILOG)
            else:
                app.command(command.name, help=help_text, epilog=module.EPILOG)(module.command)
        else:
            app.command(command.name, help=command.summary, rich_help_panel=command.panel)(
                _unloaded
            )
    return app


def _group(actions: Mapping[str, Callable[..., None]]) -> typer.Typer:
    """A command that has actions: `trackd endpoints list`."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    for name, action in actions.items():
        group.command(name, help=_paragraphs(action.__doc__ or ""))(action)
    return group


def _paragraphs(docstring: str) -> str:
    """A docstring with one line a paragraph: typer would keep the line breaks of the source."""
    return "\n\n".join(" ".join(part.split()) for part in cleandoc(docstring).split("\n\n"))


def _unloaded() -> None:
    raise AssertionError("a command runs only when it was loaded")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"trackd {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass
