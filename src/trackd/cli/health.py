"""`trackd health`: asks whether a server answers, for containers and scripts."""

from typing import Annotated

import typer

from trackd.cli.server_option import DEFAULT_SERVER, Server, explain
from trackd.cli.terminal import DONE, FAILED, examples, fail

EPILOG = examples(
    "trackd health",
    "trackd health --server tracking:50551 --timeout-s 1",
    "trackd health --service trackd.v1.TrackingService",
    "trackd health --service partition-1",
    "HEALTHCHECK CMD trackd health   [dim](in a Dockerfile)[/dim]",
)


def command(
    *,
    service: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Of what: a service of the contract, or a partition. Default: the whole server.",
        ),
    ] = "",
    timeout_s: Annotated[
        float, typer.Option(min=0.1, metavar="N", help="Seconds to wait for an answer.")
    ] = 3.0,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Ask whether a server answers, or one of its services, or whether a partition is served.

    Prints SERVING and exits with 0 when it does. Prints NOT_SERVING and exits with 1 while it
    stops, has a storage failure, or one of several workers is away; exits with 1, too, when nobody
    answers, as while it starts, or when nothing there has that name.
    """
    import asyncio

    from trackd.client.errors import TrackdError
    from trackd.client.health import Health, check_health

    timeout_ms = round(timeout_s * 1000)
    try:
        health = asyncio.run(check_health(server, service=service, timeout_ms=timeout_ms))
    except TrackdError as error:
        if error.reason == "NOT_FOUND":
            fail(f"the server at {server} has nothing of the name {service!r}")
        fail(explain(error, server=server))
    typer.echo(health.value)
    raise typer.Exit(DONE if health is Health.SERVING else FAILED)
