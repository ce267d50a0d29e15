"""The options that say what an endpoint hears and when, and how they become an Endpoint.

Knows no action of `trackd endpoints`, and asks no server.
"""

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trackd.cli.terminal import USAGE, fail

if TYPE_CHECKING:
    from trackd.v1.feed_pb2 import Subscription
    from trackd.v1.notification_pb2 import Endpoint

Milestones = Annotated[
    list[str] | None,
    typer.Option("--milestone", metavar="NAME", help="Only this milestone; may be repeated."),
]
Flags = Annotated[
    list[str] | None,
    typer.Option("--flag", metavar="NAME", help="Only this flag, raised or cleared; repeatable."),
]
Waybills = Annotated[
    list[str] | None,
    typer.Option("--waybill", metavar="NUMBER", help="Only this waybill; may be repeated."),
]
Facilities = Annotated[
    list[str] | None,
    typer.Option("--facility", metavar="CODE", help="Only scans at this place; repeatable."),
]
Description = Annotated[str, typer.Option(metavar="TEXT", help="A note for people.")]
AllChanges = Annotated[
    bool,
    typer.Option(
        "--all-changes",
        help="Every change, also a milestone for the second time and moves between places.",
    ),
]
CloudEvents = Annotated[
    bool, typer.Option("--cloudevents", help="Webhooks in the CloudEvents 1.0 envelope.")
]
Lang = Annotated[str, typer.Option(metavar="zh|en", help="Messages: their language.")]
Quiet = Annotated[
    str,
    typer.Option(metavar="HH:MM-HH:MM", help="Messages: what comes between waits until the end."),
]
Zone = Annotated[
    str, typer.Option("--time-zone", metavar="ZONE", help="Messages: the zone that --quiet is in.")
]
Cap = Annotated[
    str,
    typer.Option("--cap", metavar="N/hour|N/day", help="Messages: no more than so many."),
]
NoQuiet = Annotated[bool, typer.Option("--no-quiet", help="Messages: at any hour.")]
NoCap = Annotated[bool, typer.Option("--no-cap", help="Messages: as many as there are.")]
Template = Annotated[
    str,
    typer.Option(
        metavar="default|short", help="Messages: every fact that may be told, or what is new."
    ),
]


def set_filter(
    endpoint: "Endpoint | Subscription",
    *,
    milestones: list[str] | None,
    flags: list[str] | None,
    waybills: list[str] | None,
    facilities: list[str] | None,
) -> None:
    """Replaces the filter by what was asked for, if anything was."""
    from trackd.v1.vocabulary_pb2 import Flag, Milestone

    if not (milestones or flags or waybills or facilities):
        return
    endpoint.ClearField("filter")
    endpoint.filter.milestones.extend(
        _word("--milestone", name, Milestone, "MILESTONE_") for name in milestones or ()
    )
    endpoint.filter.flags.extend(_word("--flag", name, Flag, "FLAG_") for name in flags or ())
    endpoint.filter.waybill_numbers.extend(waybills or ())
    endpoint.filter.facility_codes.extend(facilities or ())


def _word(option: str, name: str, enum: Any, prefix: str) -> Any:
    full = prefix + name.strip().upper().replace("-", "_")
    numbers = dict(enum.items())
    if not numbers.get(full):
        known = ", ".join(each.removeprefix(prefix) for each, number in numbers.items() if number)
        fail(f"{option} {name}: must be one of {known}", code=USAGE)
    return numbers[full]


def set_pace(
    endpoint: "Endpoint",
    *,
    quiet: str,
    time_zone: str,
    cap: str,
    no_quiet: bool = False,
    no_cap: bool = False,
) -> None:
    """Sets quiet hours and a cap, or takes them away, where that was asked for."""
    if no_quiet and (quiet or time_zone):
        fail("--no-quiet: there is no --quiet or --time-zone beside it", code=USAGE)
    if no_cap and cap:
        fail("--no-cap: there is no --cap beside it", code=USAGE)
    if no_quiet:
        endpoint.ClearField("quiet_hours")
    if no_cap:
        endpoint.ClearField("rate_cap")
    if quiet:
        match = re.fullmatch(r"(\d\d?):(\d\d)-(\d\d?):(\d\d)", quiet)
        if not match:
            fail(f"--quiet {quiet}: must be like 22:00-08:00", code=USAGE)
        hours = [int(part) for part in match.groups()]
        endpoint.quiet_hours.from_minute = hours[0] * 60 + hours[1]
        endpoint.quiet_hours.until_minute = hours[2] * 60 + hours[3]
    if time_zone:
        endpoint.quiet_hours.time_zone = time_zone
    if cap:
        match = re.fullmatch(r"(\d{1,5})/(hour|day)", cap)
        if not match:
            fail(f"--cap {cap}: must be like 5/hour or 20/day", code=USAGE)
        endpoint.rate_cap.messages = int(match[1])
        endpoint.rate_cap.per_ms = 3_600_000 if match[2] == "hour" else 86_400_000
