"""The server that a command talks to: its option, and what is said when it does not answer."""

import socket
from typing import TYPE_CHECKING, Annotated

import typer

from trackd.address import parse_address
from trackd.cli.terminal import fail

if TYPE_CHECKING:
    from trackd.client.errors import TrackdError

DEFAULT_SERVER = "127.0.0.1:50551"

_PROBE_TIMEOUT_S = 2.0
_NOBODY = (
    "no server answers at {server} ({why}); start one with `trackd serve`, or name another with"
    " --server HOST:PORT"
)


def _checked(server: str) -> str:
    try:
        return str(parse_address(server))
    except ValueError as error:
        raise typer.BadParameter(f"{server!r} {error}") from None


Server = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="TRACKD_SERVER",
        metavar="HOST:PORT",
        help="The server's gRPC address.",
        callback=_checked,
    ),
]


def refuse_if_nobody_listens(server: str) -> None:
    """Ends the command at once where nothing listens: the client would try for seconds."""
    address = parse_address(server)
    try:
        socket.create_connection(address, timeout=_PROBE_TIMEOUT_S).close()
    except ConnectionRefusedError:
        fail(_NOBODY.format(server=server, why="connection refused"))
    except OSError:
        pass  # perhaps a slow network: the client is more patient, and says what it is


def explain(error: "TrackdError", *, server: str) -> str:
    """One line for a call that failed."""
    from trackd.client.errors import DeadlineExceeded, ServerOverloaded, ServerUnavailable

    if isinstance(error, ServerOverloaded):
        return f"the server at {server} cannot do it now: {error}"
    if isinstance(error, DeadlineExceeded):
        return f"the server at {server} did not answer in time"
    if isinstance(error, ServerUnavailable):
        # gRPC names every address it tried and how; the last part is the reason,
        # which for a name that is unknown ends a list.
        why = str(error).rsplit(": ", 1)[-1].removesuffix("]")
        return _NOBODY.format(server=server, why=why)
    return f"the server at {server} refused: {error} ({error.reason})"
