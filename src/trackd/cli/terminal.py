"""What every command needs of the terminal: exit codes, how a failure is told, where it writes.

Results go to standard output, everything else to standard error. Knows no command.
"""

import sys
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

DONE = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130  # what a shell reports for a command that Ctrl-C ended


def fail(message: str, *, code: int = FAILED) -> NoReturn:
    """Tells in one place why the work cannot be done, and ends the command."""
    typer.echo(f"trackd: {message}", err=True)
    raise typer.Exit(code)


def note(message: str) -> None:
    """Tells something beside the result."""
    typer.echo(message, err=True)


def results() -> "Console":
    """Where results are written: colours on a terminal, plain text in a pipe."""
    from rich.console import Console

    return Console(highlight=False)


def progress() -> "Console":
    """Where progress is shown."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """One JSON document, a line of its own."""
    import orjson

    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


def examples(*lines: str) -> str:
    """The end of a help text: commands to copy, one a line."""
    return "\n".join(("[bold]Examples[/bold]", *(f"  {line}" for line in lines)))
