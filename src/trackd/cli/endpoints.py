"""`trackd endpoints`: who is told of changes by webhook or message, and what became of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from trackd.cli.endpoint_options import (
    AllChanges,
    Cap,
    CloudEvents,
    Description,
    Facilities,
    Flags,
    Lang,
    Milestones,
    NoCap,
    NoQuiet,
    Quiet,
    Template,
    Waybills,
    Zone,
    set_filter,
    set_pace,
)
from trackd.cli.server_option import DEFAULT_SERVER, Server, explain, refuse_if_nobody_listens
from trackd.cli.terminal import (
    DONE,
    FAILED,
    INTERRUPTED,
    USAGE,
    examples,
    fail,
    note,
    print_json,
    results,
)

if TYPE_CHECKING:
    from trackd.client.notifications import Notifications
    from trackd.v1.notification_pb2 import Endpoint

EPILOG = examples(
    "trackd endpoints create https://hooks.example.com/trackd --milestone DELIVERED",
    "trackd endpoints create wecombot://KEY --message --lang zh --quiet 22:00-08:00",
    "trackd endpoints list",
    "trackd endpoints test ep_3kq…",
    "trackd endpoints deliveries ep_3kq… --limit 20",
    "trackd endpoints rotate-secret ep_3kq… --overlap-hours 48",
)

_Answer = TypeVar("_Answer")
# Reasons that say that an option names what no endpoint may have.
_USAGE_REASONS = {"INVALID_ENDPOINT", "INVALID_FIELD", "INVALID_WAYBILL_NUMBER"}

Id = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its id, as `list` shows it.")]
Json = Annotated[
    bool, typer.Option("--json", help="JSON, with the field names of the gRPC contract.")
]


def command() -> None:
    """Manage endpoints: who is told of changes by webhook or message.

    An endpoint is told by `trackd notify`, which has to run beside the server. By default it hears
    what is news: a milestone for the first time, problems that come and go, and corrections.
    Webhooks are signed after Standard Webhooks; `create` shows the secret, and nothing shows it
    again.
    """


def create(
    url: Annotated[str, typer.Argument(help="https://HOST/… or, with --message, apprise's URL.")],
    *,
    message: Annotated[
        bool, typer.Option("--message", help="A text to people instead of a webhook.")
    ] = False,
    description: Description = "",
    milestone: Milestones = None,
    flag: Flags = None,
    waybill: Waybills = None,
    facility: Facilities = None,
    all_changes: AllChanges = False,
    cloudevents: CloudEvents = False,
    lang: Lang = "",
    quiet: Quiet = "",
    time_zone: Zone = "",
    cap: Cap = "",
    template: Template = "",
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Make an endpoint; it hears of what happens from now on.

    Options are joined: --milestone DELIVERED --facility PEK-03 means both; repeated ones mean any.
    """
    from trackd.v1.notification_pb2 import Endpoint, EndpointKind, Envelope

    endpoint = Endpoint(
        kind=EndpointKind.ENDPOINT_KIND_MESSAGE if message else EndpointKind.ENDPOINT_KIND_WEBHOOK,
        url=url,
        description=description,
        all_changes=all_changes,
        language=lang,
        template=template,
    )
    if cloudevents:
        endpoint.envelope = Envelope.ENVELOPE_CLOUDEVENTS
    set_filter(endpoint, milestones=milestone, flags=flag, waybills=waybill, facilities=facility)
    set_pace(endpoint, quiet=quiet, time_zone=time_zone, cap=cap)
    made = _ask(server, lambda notifications: notifications.create(endpoint))
    if json:
        from trackd.cli.documents import document

        print_json(document(made))
        return
    _show(made.endpoint)
    if made.secret:
        typer.echo(f"{'secret':<20} {made.secret}")
        note("trackd: keep the secret now; it is not shown again")


def list_(*, json: Json = False, server: Server = DEFAULT_SERVER) -> None:
    """List all endpoints, in the order in which they were made; --json: a line for each."""
    from rich.table import Table

    from trackd.cli.documents import document

    endpoints = _ask(server, lambda notifications: notifications.list())
    if json:
        for endpoint in endpoints:
            print_json(document(endpoint))
        return
    if not endpoints:
        note("trackd: there is no endpoint; `trackd endpoints create` makes one")
        return
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in ("id", "kind", "state", "url", "description"):
        table.add_column(name, overflow="fold")
    for endpoint in endpoints:
        shown = document(endpoint)
        state = "disabled" if shown["state"] == "DISABLED" else "enabled"
        table.add_row(endpoint.id, shown["kind"].lower(), state, endpoint.url, endpoint.description)
    results().print(table)


def show(endpoint: Id, *, json: Json = False, server: Server = DEFAULT_SERVER) -> None:
    """Show an endpoint; its secret is never shown again."""
    found = _ask(server, lambda notifications: notifications.get(endpoint))
    _answer(found, json=json)


def update(
    endpoint: Id,
    *,
    url: Annotated[str, typer.Option(metavar="URL", help="Another place.")] = "",
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="Another note.")] = None,
    milestone: Milestones = None,
    flag: Flags = None,
    waybill: Waybills = None,
    facility: Facilities = None,
    any_change: Annotated[
        bool, typer.Option("--no-filter", help="No filter by milestone, flag, waybill or place.")
    ] = False,
    all_changes: Annotated[
        bool | None,
        typer.Option("--all-changes/--news-only", help="Every change, or only what is news."),
    ] = None,
    lang: Lang = "",
    quiet: Quiet = "",
    no_quiet: NoQuiet = False,
    time_zone: Zone = "",
    cap: Cap = "",
    no_cap: NoCap = False,
    template: Template = "",
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Change settings of an endpoint; what is not named stays.

    A filter option replaces the whole filter. Its secret and what waits for it stay.
    """

    async def change(notifications: "Notifications") -> "Endpoint":
        found = await notifications.get(endpoint)
        found.url = url
        if description is not None:
            found.description = description
        if any_change:
            found.ClearField("filter")
        set_filter(found, milestones=milestone, flags=flag, waybills=waybill, facilities=facility)
        if all_changes is not None:
            found.all_changes = all_changes
        found.language = lang or found.language
        found.template = template or found.template
        set_pace(found, quiet=quiet, time_zone=time_zone, cap=cap, no_quiet=no_quiet, no_cap=no_cap)
        return await notifications.update(found)

    _answer(_ask(server, change), json=json)


def rotate_secret(
    endpoint: Id,
    *,
    overlap_hours: Annotated[
        float,
        typer.Option(min=0, max=168, metavar="N", help="Hours that the old one signs as well."),
    ] = 24.0,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Make a new secret and show it, once.

    Until the overlap is over webhooks carry two signatures, one by each secret, so that the
    receiver can change over at any time between.
    """
    overlap_ms = round(overlap_hours * 3_600_000) or -1
    made = _ask(
        server, lambda notifications: notifications.rotate_secret(endpoint, overlap_ms=overlap_ms)
    )
    if json:
        from trackd.cli.documents import document

        print_json(document(made))
        return
    typer.echo(f"{'secret':<20} {made.secret}")
    note("trackd: keep the secret now; it is not shown again")


def try_out(endpoint: Id, *, json: Json = False, server: Server = DEFAULT_SERVER) -> None:
    """Have a notifier deliver a signed test message now, and show what came of it.

    Exit codes: 0 it was delivered, 1 it was not.
    """
    from trackd.cli.documents import document

    attempt = _ask(server, lambda notifications: notifications.test(endpoint))
    shown = document(attempt, zeros=True)
    delivered = shown["outcome"] == "DELIVERED"
    if json:
        print_json(shown)
    elif delivered:
        typer.echo(f"delivered in {attempt.duration_ms} ms{_status(attempt.status_code)}")
    else:
        typer.echo(f"{shown['outcome'].lower()} after {attempt.duration_ms} ms: {attempt.error}")
    raise typer.Exit(DONE if delivered else FAILED)


def enable(
    endpoint: Id,
    *,
    from_now: Annotated[
        bool, typer.Option("--from-now", help="Forget what came while it was disabled.")
    ] = False,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Tell an endpoint again, of what came meanwhile too."""
    _answer(
        _ask(server, lambda notifications: notifications.enable(endpoint, from_now=from_now)),
        json=json,
    )


def disable(
    endpoint: Id,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with it.")] = "",
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Tell an endpoint nothing until it is enabled; what comes meanwhile waits."""
    _answer(
        _ask(server, lambda notifications: notifications.disable(endpoint, reason=reason)),
        json=json,
    )


def delete(endpoint: Id, *, server: Server = DEFAULT_SERVER) -> None:
    """Delete an endpoint, with everything that waits for it."""
    _ask(server, lambda notifications: notifications.delete(endpoint))


def deliveries(
    endpoint: Id,
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many at most.")] = 50,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show the latest attempts of an endpoint, the newest first; --json: a line for each."""
    from rich.table import Table

    from trackd.cli.documents import document
    from trackd.cli.words import local_time

    async def read(notifications: "Notifications") -> list[Any]:
        found: list[Any] = []
        async for attempt in notifications.deliveries(endpoint):
            found.append(attempt)
            if len(found) == limit:
                break
        return found

    found = _ask(server, read)
    if json:
        for attempt in found:
            print_json(document(attempt))
        return
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in ("time", "waybill", "attempt", "outcome", "status", "ms", "error"):
        table.add_column(name)
    for attempt in found:
        table.add_row(
            f"{local_time(attempt.started_at_ms):%m-%d %H:%M:%S}",
            attempt.waybill_number or "(test)",
            str(attempt.attempt),
            document(attempt, zeros=True)["outcome"].lower(),
            str(attempt.status_code or "–"),
            str(attempt.duration_ms),
            attempt.error,
        )
    results().print(table)


ACTIONS = {
    "create": create,
    "list": list_,
    "show": show,
    "update": update,
    "rotate-secret": rotate_secret,
    "test": try_out,
    "enable": enable,
    "disable": disable,
    "delete": delete,
    "deliveries": deliveries,
}


def _ask(server: str, what: "Callable[[Notifications], Awaitable[_Answer]]") -> _Answer:
    """Asks the server; ends the command where it says no."""
    from trackd.client.errors import InvalidRequest, TrackdError
    from trackd.client.notifications import Notifications

    async def asked() -> _Answer:
        async with Notifications(server) as notifications:
            return await what(notifications)

    refuse_if_nobody_listens(server)
    try:
        return asyncio.run(asked())
    except InvalidRequest as error:
        fail(str(error), code=USAGE if error.reason in _USAGE_REASONS else FAILED)
    except TrackdError as error:
        if error.reason in {"NO_TEST_RESULT", "TOO_MANY_ENDPOINTS"}:
            fail(str(error))
        fail(explain(error, server=server))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _answer(endpoint: "Endpoint", *, json: bool) -> None:
    if json:
        from trackd.cli.documents import document

        print_json(document(endpoint))
    else:
        _show(endpoint)


def _show(endpoint: "Endpoint") -> None:
    from trackd.cli.documents import document
    from trackd.cli.words import local_time

    for name, value in document(endpoint).items():
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{key}={part}" for key, part in value.items())
        elif name.endswith("_ms"):
            shown = f"{local_time(value):%Y-%m-%d %H:%M:%S %z}"
        typer.echo(f"{name:<20} {shown}")


def _status(code: int) -> str:
    return f", answered {code}" if code else ""
