"""`trackd track`: where parcels are and what happened to them."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from trackd.cli.server_option import DEFAULT_SERVER, Server, explain, refuse_if_nobody_listens
from trackd.cli.terminal import DONE, FAILED, examples, note, print_json, results

if TYPE_CHECKING:
    from trackd.client.errors import TrackdError
    from trackd.client.front_end import FrontEnd
    from trackd.domain.catalogue import Language
    from trackd.v1.event_pb2 import ScanEvent, ShipmentStatus

EPILOG = examples(
    "trackd track SF1234567890",
    "trackd track SF1234567890 SF1234567891 --lang zh",
    "trackd track SF1234567890 --all --json | jq .status.milestone",
)

_EVENTS_SHOWN = 15
_PAGE_EVENTS = 500
_LOOK_UPS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class _Found:
    status: "ShipmentStatus"
    events: "list[ScanEvent]"  # the newest first


def command(
    waybills: Annotated[list[str], typer.Argument(metavar="WAYBILL...", help="Waybill numbers.")],
    *,
    lang: Annotated[
        str,
        typer.Option(metavar="zh|en", help="[dim]Default: the machine's language[/dim]"),
    ] = "",
    whole: Annotated[
        bool,
        typer.Option("--all", help=f"Every scan, not only the latest {_EVENTS_SHOWN}."),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="A line of JSON for each waybill, in the order given.")
    ] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show where parcels are and what happened to them, the newest scan first.

    Times are in the zone of this machine; TZ=Asia/Shanghai trackd track ... takes another.

    A waybill that could not be asked for does not keep back the others; with --json its line has
    an `error`.

    Exit codes: 0 all were found, 1 one was not, or the server did not answer, 2 usage.
    """
    from trackd.client.errors import TrackdError

    language = _language(lang)
    refuse_if_nobody_listens(server)
    found = asyncio.run(_look_up(server, waybills, whole=whole))
    for number, (waybill, parcel) in enumerate(zip(waybills, found, strict=True)):
        if json:
            _print_document(waybill, parcel)
        elif isinstance(parcel, _Found):
            _print_picture(parcel, language, first=number == 0)
        if isinstance(parcel, TrackdError):
            note(f"trackd: {waybill}: {explain(parcel, server=server)}")
        elif parcel is None:
            note(f"trackd: no scan of {waybill} is known; check the number")
    raise typer.Exit(DONE if all(isinstance(one, _Found) for one in found) else FAILED)


def _language(asked: str) -> "Language":
    from trackd.cli.words import language_of_the_machine
    from trackd.domain.catalogue import Language

    try:
        return Language(asked) if asked else language_of_the_machine()
    except ValueError:
        raise typer.BadParameter(f"{asked!r} is not zh or en", param_hint="--lang") from None


async def _look_up(
    server: str, waybills: list[str], *, whole: bool
) -> "list[_Found | TrackdError | None]":
    """What is known of each: None of one never scanned, an error where nobody could say."""
    from trackd.client.errors import TrackdError
    from trackd.client.front_end import FrontEnd

    async with FrontEnd(server) as front_end:
        at_once = asyncio.Semaphore(_LOOK_UPS_AT_ONCE)

        async def look_up(waybill: str) -> "_Found | TrackdError | None":
            async with at_once:
                try:
                    return await _look_up_one(front_end, waybill, whole=whole)
                except TrackdError as error:
                    return error

        return await asyncio.gather(*(look_up(waybill) for waybill in waybills))


async def _look_up_one(front_end: "FrontEnd", waybill: str, *, whole: bool) -> _Found | None:
    from trackd.client.errors import InvalidRequest, WaybillNotFound
    from trackd.v1.tracking_pb2 import TimelineOrder

    events: list[ScanEvent] = []
    pages = front_end.get_timeline(
        waybill,
        order=TimelineOrder.TIMELINE_ORDER_NEWEST_FIRST,
        page_size=_PAGE_EVENTS if whole else _EVENTS_SHOWN,
    )
    try:
        async for page in pages:
            events += page.events
            if not whole or not page.next_page_token:
                return _Found(page.status, events)
    except WaybillNotFound:
        return None
    except InvalidRequest as error:
        # What is no waybill number was never scanned.
        if error.reason != "INVALID_WAYBILL_NUMBER":
            raise
    return None


def _print_document(waybill: str, parcel: "_Found | TrackdError | None") -> None:
    from trackd.cli.documents import document

    if not isinstance(parcel, _Found):
        why = {"error": parcel.reason} if parcel else {}
        print_json({"waybill_number": waybill, "status": None, "events": [], **why})
        return
    print_json(
        {
            "waybill_number": parcel.status.waybill_number,
            "status": document(parcel.status),
            "events": [document(event) for event in parcel.events],
        }
    )


def _print_picture(parcel: _Found, language: "Language", *, first: bool) -> None:
    from trackd.cli.timeline import Timeline

    console = results()
    if not first:
        console.print()
    console.print(
        Timeline(
            parcel.status, parcel.events, language=language, now_ms=time.time_ns() // 1_000_000
        )
    )
