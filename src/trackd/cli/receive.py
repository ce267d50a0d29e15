"""`trackd receive`: a receiver of webhooks for developers, which verifies and prints what comes."""

import os
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trackd.address import parse_address
from trackd.cli.terminal import INTERRUPTED, USAGE, examples, fail, note, print_json

if TYPE_CHECKING:
    from trackd.cli.receiver import Received
    from trackd.domain.catalogue import Language

DEFAULT_LISTEN = "127.0.0.1:8600"

EPILOG = examples(
    "trackd receive --secret whsec_…",
    "trackd receive --listen 127.0.0.1:0 --json",
    "trackd receive --secret whsec_NEW… --secret whsec_OLD…   [dim](during a rotation)[/dim]",
    "trackd receive --fail-rate 0.2   [dim](to see them come again)[/dim]",
)


def _checked(listen: str) -> str:
    try:
        return str(parse_address(listen))
    except ValueError as error:
        raise typer.BadParameter(f"{listen!r} {error}") from None


def command(
    *,
    listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", callback=_checked, help="Where to listen; port 0 takes a free one."
        ),
    ] = DEFAULT_LISTEN,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            envvar="TRACKD_RECEIVE_SECRET",
            metavar="whsec_…",
            help="A secret that may have signed; more than one during a rotation. Without any,"
            " nothing is verified.",
        ),
    ] = None,
    fail_rate: Annotated[
        float, typer.Option(min=0.0, max=1.0, metavar="N", help="The share to answer with 500.")
    ] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document a line.")] = False,
) -> None:
    """Receive webhooks, verify their signatures and print them, until Ctrl-C.

    For trying endpoints out: make one with the URL http://HOST:PORT/ on a server that runs with
    --unsafe-allow-local-webhooks, and start this with the secret that is shown then. Says of each
    webhook whether it is new, a repeat or outdated; one whose signature is wrong is answered 401.
    """
    import asyncio

    try:
        asyncio.run(_receive(listen, secret or [], fail_rate=fail_rate, json=json))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _receive(listen: str, secrets: list[str], *, fail_rate: float, json: bool) -> None:
    import asyncio

    from trackd.cli.receiver import Receiver
    from trackd.cli.words import language_of_the_machine

    language = language_of_the_machine()
    unseen: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def heard(received: "Received") -> None:
        try:
            if json:
                print_json(document_of(received))
            else:
                typer.echo(line_of(received, language))
        except OSError as error:
            if not unseen.done():
                unseen.set_exception(error)
            raise

    try:
        receiver = Receiver(parse_address(listen), heard, secrets=secrets, fail_rate=fail_rate)
    except ValueError:
        fail("a secret is whsec_ and base64, as the server showed it", code=USAGE)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(receiver)
        except OSError as error:
            fail(f"cannot listen on {listen}: {error.strerror}")
        note(f"trackd receive is ready: http://{receiver.address}/")
        if not secrets:
            note("There is no --secret: signatures are not verified.")
        await unseen


def document_of(received: "Received") -> dict[str, Any]:
    """A webhook as JSON."""
    return {
        "webhook_id": received.webhook_id,
        "status": received.status,
        "verified": received.verified,
        "fault": received.fault,
        "repeat": received.repeat,
        "outdated": received.outdated,
        "body": received.document,
    }


def line_of(received: "Received", language: "Language") -> str:
    """A webhook as a line for people."""
    mark = {True: "verified", False: "REFUSED", None: "unverified"}[received.verified]
    if received.fault:
        told = received.fault
    elif not received.data.get("waybill_number"):
        told = str(received.data.get("message", ""))
    else:
        told = f"{received.data['waybill_number']}  {_news(received.data, language)}"
    notes = [word for word in ("repeat", "outdated") if getattr(received, word)]
    about = f" ({', '.join(notes)})" if notes else ""
    return f"{received.status} {mark:10} {told}{about}"


def _news(data: dict[str, Any], language: "Language") -> str:
    """What is new, by the words of the catalogue; a name that is not in it stays a name."""
    from trackd.domain.catalogue import CATALOGUE
    from trackd.domain.vocabulary import Flag, Milestone

    def called(kind: type[Flag | Milestone], name: object) -> str:
        entry = CATALOGUE[kind].get(str(name))
        return str(name) if entry is None else str(getattr(entry, language.value))

    parts = [called(Milestone, data.get("milestone"))]
    for sign, field in (("+", "flags_raised"), ("-", "flags_cleared")):
        parts += [f"{sign}{called(Flag, flag)}" for flag in data.get(field) or ()]
    if data.get("correction"):
        parts.append("(corrected)")
    return "  ".join(parts)
