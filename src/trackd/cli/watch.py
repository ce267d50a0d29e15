"""`trackd watch`: changes as they happen, a line each, for as long as it is let.

Knows what people are shown of a change; the client knows how to hear of it.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trackd.cli.server_option import DEFAULT_SERVER, Server, explain, refuse_if_nobody_listens
from trackd.cli.terminal import INTERRUPTED, USAGE, examples, fail, note

if TYPE_CHECKING:
    from trackd.client.subscriber import Heard
    from trackd.domain.catalogue import Language
    from trackd.v1.feed_pb2 import Change, ChangeFilter, StartFrom

EPILOG = examples(
    "trackd watch",
    "trackd watch --milestone delivered --facility SHA-HUB",
    "trackd watch --from earliest --json | jq .waybill_number",
    "trackd watch --token-file watch.token --json >> changes.jsonl",
)


Waybills = Annotated[
    list[str] | None, typer.Option("--waybill", help="Only this waybill; may be repeated.")
]
Milestones = Annotated[
    list[str] | None,
    typer.Option("--milestone", help="Only changes to this milestone, such as delivered."),
]
Flags = Annotated[
    list[str] | None,
    typer.Option("--flag", help="Only changes that raise or clear this flag, such as damaged."),
]
Facilities = Annotated[
    list[str] | None, typer.Option("--facility", help="Only what happened at this facility.")
]
Origin = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="now|earliest|snapshot",
        help="Where to begin: snapshot shows the latest status of every waybill first.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File to keep the place in; what is in it goes before --from. A change may be"
        " shown again after an interruption, none is left out."
    ),
]
UntilCaughtUp = Annotated[
    bool, typer.Option("--until-caught-up", help="End when everything so far was shown.")
]
NewsOnly = Annotated[
    bool,
    typer.Option(
        "--news-only",
        help="Only news: a milestone for the first time, flags that come and go, corrections.",
    ),
]
Lang = Annotated[
    str, typer.Option(metavar="zh|en", help="[dim]Default: the machine's language[/dim]")
]


def command(
    *,
    waybills: Waybills = None,
    milestones: Milestones = None,
    flags: Flags = None,
    facilities: Facilities = None,
    news_only: NewsOnly = False,
    origin: Origin = "now",
    token_file: TokenFile = None,
    until_caught_up: UntilCaughtUp = False,
    lang: Lang = "",
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each change.")] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show changes of parcels as they happen, the newest last, until Ctrl-C.

    A lost server is waited for, and nothing is missed meanwhile. Times are in the zone of this
    machine.

    Exit codes: 0 caught up, 1 the server refused (the place expired, say), 2 usage, 130 Ctrl-C.
    """
    from trackd.cli.words import language_of_the_machine
    from trackd.client.errors import TrackdError
    from trackd.domain.catalogue import Language

    try:
        language = Language(lang) if lang else language_of_the_machine()
    except ValueError:
        raise typer.BadParameter(f"{lang!r} is not zh or en", param_hint="--lang") from None
    wanted = _filter(waybills or [], milestones or [], flags or [], facilities or [], news_only)
    start = _start(origin)
    token = _kept(token_file)
    refuse_if_nobody_listens(server)
    show = _Shown(language, json, token_file, until_caught_up)
    try:
        asyncio.run(_watch(server, wanted, start, token, show))
    except TrackdError as error:
        fail(explain(error, server=server))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Shown:
    """Prints what is heard, then keeps the place: in this order, so that nothing is left out."""

    def __init__(
        self, language: "Language", as_json: bool, token_file: Path | None, until_caught_up: bool
    ) -> None:
        self._language = language
        self._as_json = as_json
        self._token_file = token_file
        self._until_caught_up = until_caught_up

    def take(self, heard: "Heard") -> bool:
        """Whether to go on."""
        for change in heard.changes:
            sys.stdout.write(self._line(change) + "\n")
        sys.stdout.flush()
        if self._token_file:
            _keep(heard.resume_token, self._token_file)
        return not (self._until_caught_up and heard.caught_up)

    def _line(self, change: "Change") -> str:
        if self._as_json:
            import orjson

            from trackd.cli.documents import document

            return orjson.dumps(document(change)).decode()
        return change_line(change, self._language)


def change_line(change: "Change", language: "Language") -> str:
    """A change as people read it: when, which parcel, from where to where in its life, and why."""
    from trackd.cli.words import code_text, flag_text, local_time, milestone_text

    at = local_time(change.event.occurred_at_ms)
    milestone = milestone_text(change.milestone, language)
    if change.previous_milestone not in {change.milestone, 0}:
        milestone = f"{milestone_text(change.previous_milestone, language)} → {milestone}"
    parts = [f"{at:%Y-%m-%d %H:%M:%S}", change.waybill_number, milestone]
    parts += ["⚑ " + flag_text(flag, language) for flag in change.flags_raised]
    parts += ["⚐ " + flag_text(flag, language) for flag in change.flags_cleared]
    parts.append(f"({code_text(change.event.code, language)})")
    if change.event.facility_code:
        parts.append(change.event.facility_code)
    if change.correction:
        parts.append({"zh": "更正", "en": "correction"}[language.value])
    return "  ".join(parts)


async def _watch(
    server: str,
    wanted: "ChangeFilter",
    start: "StartFrom.ValueType",
    token: str,
    show: _Shown,
) -> None:
    from trackd.client.subscriber import Subscriber

    async with Subscriber(server) as subscriber:
        async for heard in subscriber.watch(wanted, start=start, resume_token=token):
            if not show.take(heard):
                return


def _filter(
    waybills: list[str],
    milestones: list[str],
    flags: list[str],
    facilities: list[str],
    news_only: bool,
) -> "ChangeFilter":
    from trackd.v1.feed_pb2 import ChangeFilter
    from trackd.v1.vocabulary_pb2 import Flag, Milestone

    return ChangeFilter(
        waybill_numbers=waybills,
        milestones=[_number(Milestone, each, "--milestone") for each in milestones],
        flags=[_number(Flag, each, "--flag") for each in flags],
        facility_codes=facilities,
        news_only=news_only,
    )


def _number(enum: Any, text: str, option: str) -> Any:
    prefix = f"{enum.DESCRIPTOR.name.upper()}_"
    numbers = {name.removeprefix(prefix).lower(): number for name, number in enum.items() if number}
    number = numbers.get(text.strip().lower().replace("-", "_").replace(" ", "_"))
    if number is None:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(numbers)}", param_hint=option)
    return number


def _start(origin: str) -> "StartFrom.ValueType":
    from trackd.v1.feed_pb2 import StartFrom

    if origin not in {"now", "earliest", "snapshot"}:
        message = f"{origin!r} is not now, earliest or snapshot"
        raise typer.BadParameter(message, param_hint="--from")
    return StartFrom.Value(f"START_FROM_{origin.upper()}")


def _kept(token_file: Path | None) -> str:
    """The place in the file; empty where there is none yet."""
    if token_file is None:
        return ""
    try:
        return token_file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        fail(f"{token_file}: cannot be read: {error}", code=USAGE)


def _keep(token: str, token_file: Path) -> None:
    """Replaces the file's content, wholly or not at all."""
    new = token_file.with_name(token_file.name + ".new")
    try:
        new.write_text(token + "\n", encoding="ascii")
        if token_file.is_file() or not token_file.exists():
            new.replace(token_file)
        else:  # /dev/null, say, is not to become a file
            new.unlink()
    except OSError as error:
        note(f"trackd: {token_file}: {error.strerror}")
        raise typer.Exit(1) from None
