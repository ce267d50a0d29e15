"""`trackd subscriptions`: who works off the changes, how far they are, and what was set aside."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from trackd.cli.endpoint_options import Facilities, Flags, Milestones, Waybills, set_filter
from trackd.cli.server_option import DEFAULT_SERVER, Server, explain, refuse_if_nobody_listens
from trackd.cli.terminal import (
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
    from trackd.client.errors import TrackdError
    from trackd.client.subscriptions import Subscriptions
    from trackd.v1.feed_pb2 import Delivery, Subscription

EPILOG = examples(
    "trackd subscriptions create orders --milestone DELIVERED --max-attempts 5",
    "trackd subscriptions list",
    "trackd subscriptions show orders",
    "trackd subscriptions consume orders --json",
    "trackd subscriptions parked orders",
    "trackd subscriptions redrive orders --all",
)

_Answer = TypeVar("_Answer")
# Reasons that say that the caller asked for something that cannot be.
_USAGE_REASONS = {"INVALID_ARGUMENT", "INVALID_FIELD", "INVALID_POSITION", "INVALID_WAYBILL_NUMBER"}

Name = Annotated[str, typer.Argument(metavar="NAME", help="The subscription's name.")]
Json = Annotated[
    bool, typer.Option("--json", help="JSON, with the field names of the gRPC contract.")
]
AckTimeout = Annotated[
    int | None,
    typer.Option("--ack-timeout-ms", metavar="N", help="How long a consumer has for a delivery."),
]
MaxAttempts = Annotated[
    int | None,
    typer.Option("--max-attempts", metavar="N", help="Failed attempts after which it is parked."),
]
MaxInFlight = Annotated[
    int | None,
    typer.Option("--max-in-flight", metavar="N", help="Deliveries at a time, over all consumers."),
]
RetryBackoff = Annotated[
    str,
    typer.Option("--retry-backoff-ms", metavar="N,N…", help="The waits before further attempts."),
]
Supersede = Annotated[
    bool | None,
    typer.Option(
        "--supersede/--no-supersede", help="Drop what failed once a newer change waits behind it."
    ),
]
Positions = Annotated[
    list[str] | None,
    typer.Argument(metavar="POSITION…", help="Positions, as `parked` shows them."),
]
All = Annotated[bool, typer.Option("--all", help="Every parked change.")]


def command() -> None:
    """Manage named subscriptions: how far each is, what waits, and what was parked.

    A subscription keeps its place on the server. Any number of consumers work it off together; a
    waybill's changes go one at a time and in order, and what keeps failing is parked.
    """


def create(
    name: Name,
    *,
    milestone: Milestones = None,
    flag: Flags = None,
    waybill: Waybills = None,
    facility: Facilities = None,
    earliest: Annotated[
        bool, typer.Option("--earliest", help="Begin with the oldest change that is kept.")
    ] = False,
    ack_timeout_ms: AckTimeout = None,
    max_attempts: MaxAttempts = None,
    max_in_flight: MaxInFlight = None,
    retry_backoff_ms: RetryBackoff = "",
    supersede: Supersede = None,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Make a subscription; it begins with what happens from now on.

    Options are joined: --milestone DELIVERED --facility PEK-03 means both; repeated ones mean any.
    """
    from trackd.v1.feed_pb2 import START_FROM_EARLIEST, FeedStart, Subscription

    asked = Subscription(name=name)
    if earliest:
        asked.start.CopyFrom(FeedStart(**{"from": START_FROM_EARLIEST}))  # type: ignore[arg-type]
    set_filter(asked, milestones=milestone, flags=flag, waybills=waybill, facilities=facility)
    _set(
        asked,
        retry_backoff_ms,
        ack_timeout_ms=ack_timeout_ms,
        max_attempts=max_attempts,
        max_in_flight=max_in_flight,
        supersede=supersede,
    )
    _answer(_ask(server, lambda subscriptions: subscriptions.create(asked)), json=json)


def list_(*, json: Json = False, server: Server = DEFAULT_SERVER) -> None:
    """List all subscriptions and how far they are, by name; --json: a line for each."""
    from trackd.cli.documents import document

    async def read(subscriptions: "Subscriptions") -> list[Any]:
        return [await subscriptions.get(each.name) for each in await subscriptions.list()]

    found = _ask(server, read)
    if json:
        for each in found:
            print_json(document(each, zeros=True))
        return
    if not found:
        note("trackd: there is no subscription; `trackd subscriptions create` makes one")
        return
    table = _table("name", "lag", "behind", "in flight", "waiting", "parked", "consumers", "")
    for each in found:
        far = each.progress
        table.add_row(
            each.subscription.name,
            f"{far.lag:,}",
            f"{far.lag_ms / 1000:,.1f} s",
            f"{far.in_flight:,}",
            f"{far.waiting:,}",
            f"{far.parked:,}",
            str(far.consumers),
            f"{far.expired:,} expired" if far.expired else "ALARM" if far.lag_alarm else "",
        )
    results().print(table)


def show(name: Name, *, json: Json = False, server: Server = DEFAULT_SERVER) -> None:
    """Show a subscription's settings and how far it is."""
    from trackd.cli.documents import document

    found = _ask(server, lambda subscriptions: subscriptions.get(name))
    if json:
        print_json(document(found, zeros=True))
        return
    _show(document(found.subscription))
    _show(document(found.progress, zeros=True))


def update(
    name: Name,
    *,
    milestone: Milestones = None,
    flag: Flags = None,
    waybill: Waybills = None,
    facility: Facilities = None,
    any_change: Annotated[
        bool, typer.Option("--no-filter", help="No filter by milestone, flag, waybill or place.")
    ] = False,
    ack_timeout_ms: AckTimeout = None,
    max_attempts: MaxAttempts = None,
    max_in_flight: MaxInFlight = None,
    retry_backoff_ms: RetryBackoff = "",
    supersede: Supersede = None,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Change settings of a subscription; what is not named stays, and so does its place.

    A filter option replaces the whole filter.
    """

    async def change(subscriptions: "Subscriptions") -> "Subscription":
        asked = (await subscriptions.get(name)).subscription
        if any_change:
            asked.ClearField("filter")
        set_filter(asked, milestones=milestone, flags=flag, waybills=waybill, facilities=facility)
        _set(
            asked,
            retry_backoff_ms,
            ack_timeout_ms=ack_timeout_ms,
            max_attempts=max_attempts,
            max_in_flight=max_in_flight,
            supersede=supersede,
        )
        return await subscriptions.update(asked)

    _answer(_ask(server, change), json=json)


def delete(name: Name, *, server: Server = DEFAULT_SERVER) -> None:
    """Delete a subscription, with its place and its parked changes."""
    _ask(server, lambda subscriptions: subscriptions.delete(name))


def parked(
    name: Name,
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many at most.")] = 100,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show the changes that failed for good; --json: a line for each."""
    from trackd.cli.documents import document
    from trackd.cli.words import local_time

    async def read(subscriptions: "Subscriptions") -> list[Any]:
        found: list[Any] = []
        async for each in subscriptions.parked(name, page_size=min(limit, 500)):
            found.append(each)
            if len(found) == limit:
                break
        return found

    found = _ask(server, read)
    if json:
        for each in found:
            print_json(document(each))
        return
    table = _table("parked", "waybill", "milestone", "attempts", "reason", "position")
    for each in found:
        table.add_row(
            f"{local_time(each.parked_at_ms):%m-%d %H:%M:%S}",
            each.change.waybill_number,
            document(each.change, zeros=True)["milestone"],
            str(each.attempts),
            each.reason,
            each.change.position,
        )
    results().print(table)


def redrive(
    name: Name, positions: Positions = None, *, all_: All = False, server: Server = DEFAULT_SERVER
) -> None:
    """Deliver parked changes again, with fresh attempts."""
    wanted = _wanted(positions, all_)
    count = _ask(server, lambda subscriptions: subscriptions.redrive(name, wanted))
    typer.echo(f"{count} delivered again")


def drop(
    name: Name, positions: Positions = None, *, all_: All = False, server: Server = DEFAULT_SERVER
) -> None:
    """Forget parked changes."""
    wanted = _wanted(positions, all_)
    count = _ask(server, lambda subscriptions: subscriptions.drop(name, wanted))
    typer.echo(f"{count} forgotten")


def consume(
    name: Name,
    *,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="How many; 0: no end.")] = 0,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Print changes as they are delivered, and acknowledge each that is printed.

    Takes part beside other consumers, until Ctrl-C. A lost server is waited for.
    """
    from trackd.client.consumer import Consumer
    from trackd.client.errors import TrackdError

    async def work() -> None:
        count = 0
        async with Consumer(server, name) as consumer:
            async for delivery in consumer:
                _print(delivery, json=json)
                consumer.ack(delivery.change.position)
                count += 1
                if count == limit:
                    return

    refuse_if_nobody_listens(server)
    try:
        asyncio.run(work())
    except TrackdError as error:
        _refused(error, server)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


ACTIONS = {
    "list": list_,
    "create": create,
    "show": show,
    "update": update,
    "delete": delete,
    "consume": consume,
    "parked": parked,
    "redrive": redrive,
    "drop": drop,
}


def _set(asked: "Subscription", retry_backoff_ms: str, **settings: int | None) -> None:
    """Takes over the settings that were named."""
    for field, value in settings.items():
        if value is not None:
            setattr(asked, field, value)
    if retry_backoff_ms:
        try:
            waits = [int(wait) for wait in retry_backoff_ms.split(",")]
        except ValueError:
            fail(f"--retry-backoff-ms {retry_backoff_ms}: must be like 1000,5000", code=USAGE)
        asked.retry_backoff_ms[:] = waits


def _wanted(positions: list[str] | None, every: bool) -> list[str] | None:
    if bool(positions) == every:
        fail("name positions, or say --all", code=USAGE)
    return None if every else positions


def _ask(server: str, what: "Callable[[Subscriptions], Awaitable[_Answer]]") -> _Answer:
    """Asks the server; ends the command where it says no."""
    from trackd.client.errors import TrackdError
    from trackd.client.subscriptions import Subscriptions

    async def asked() -> _Answer:
        async with Subscriptions(server) as subscriptions:
            return await what(subscriptions)

    refuse_if_nobody_listens(server)
    try:
        return asyncio.run(asked())
    except TrackdError as error:
        _refused(error, server)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _refused(error: "TrackdError", server: str) -> NoReturn:
    from trackd.client.errors import InvalidRequest

    if isinstance(error, InvalidRequest):
        fail(str(error), code=USAGE if error.reason in _USAGE_REASONS else FAILED)
    fail(explain(error, server=server))


def _table(*names: str) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _print(delivery: "Delivery", *, json: bool) -> None:
    from trackd.cli.documents import document
    from trackd.cli.words import local_time

    if json:
        print_json(document(delivery))
        return
    change = document(delivery.change, zeros=True)
    when = f"{local_time(change['recorded_at_ms']):%H:%M:%S}"
    place = delivery.change.event.facility_code
    again = f"  attempt {delivery.attempt}" if delivery.attempt > 1 else ""
    typer.echo(f"{when}  {change['waybill_number']:<20} {change['milestone']:<24} {place}{again}")


def _answer(subscription: "Subscription", *, json: bool) -> None:
    from trackd.cli.documents import document

    if json:
        print_json(document(subscription))
    else:
        _show(document(subscription))


def _show(shown: dict[str, Any]) -> None:
    from trackd.cli.words import local_time

    for name, value in shown.items():
        text = value
        if isinstance(value, dict):
            text = ", ".join(f"{key}={part}" for key, part in value.items())
        elif isinstance(value, list):
            text = ", ".join(map(str, value))
        elif name.endswith("_at_ms"):
            text = f"{local_time(value):%Y-%m-%d %H:%M:%S %z}"
        typer.echo(f"{name:<20} {text}")
