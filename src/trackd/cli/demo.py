"""`trackd demo`: a server with parcels in it, webhooks about them, and commands to look them up."""

import asyncio
import secrets
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trackd.cli.server_option import DEFAULT_SERVER
from trackd.cli.terminal import DONE, USAGE, examples, fail, note, results

if TYPE_CHECKING:
    from trackd.cli.showcase.child import Child
    from trackd.cli.showcase.courier import Courier
    from trackd.cli.showcase.picks import Pick
    from trackd.cli.showcase.pushes import Pushes
    from trackd.settings import Settings

EPILOG = examples(
    "trackd demo",
    "trackd demo --parcels 50000 --rate 20000",
    "trackd demo --data demo-data --grpc 127.0.0.1:60551 --metrics 127.0.0.1:0",
)

# The demo's receiver is on this machine.
_LOCAL_WEBHOOKS = "--unsafe-allow-local-webhooks"

Data = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Where the server keeps its data. [dim]Default: trackd-data[/dim]"
    ),
]
Grpc = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="Where the server listens. [dim]Default: 127.0.0.1:50551[/dim]"
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="Where its metrics are. [dim]Default: 127.0.0.1:9551[/dim]"
    ),
]
Parcels = Annotated[
    int, typer.Option(min=100, metavar="N", help="Parcels of the last days, about 15 scans each.")
]
ScanRate = Annotated[
    int, typer.Option(min=10, metavar="N", help="Scans a second while it catches up with them.")
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Makes the same network again, on new data. [dim]Default: random[/dim]"
    ),
]


def command(
    *,
    data: Data = None,
    grpc: Grpc = None,
    metrics: Metrics = None,
    parcels: Parcels = 4_000,
    rate: ScanRate = 2_000,
    seed: Seed = None,
) -> None:
    """Start a server and stream a courier network's scans into it.

    The network first makes the scans of its last six days, at a steady rate: parcels picked up,
    sorted, delivered, returned, held by customs, damaged; some scans late, some twice. Then it
    prints the commands to look such parcels up, and goes on as time goes by until Ctrl-C. Beside
    it a notifier delivers the news by signed webhooks, which a receiver in the demo verifies.

    Run it again on the same data, and more parcels are added.
    """
    given = {"data": data, "grpc": grpc, "metrics": metrics}
    flags = {name: value for name, value in given.items() if value is not None}
    settings = _settings(flags)
    _refuse_taken_ports(settings)
    number = secrets.randbelow(1 << 32) if seed is None else seed
    raise typer.Exit(_run(flags, settings, seed=number, parcels=parcels, rate=rate))


def _run(flags: dict[str, str], settings: "Settings", *, seed: int, parcels: int, rate: int) -> int:
    """Starts server and notifier, streams until told to stop, stops them; the server's exit code.

    Both are started before gRPC is used here.
    """
    from trackd.cli.showcase import child
    from trackd.cli.showcase.child import ChildEndedError

    log = settings.data.with_name(settings.data.name + ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    children = [child.server([*words, _LOCAL_WEBHOOKS], log=log)]
    code = DONE
    try:
        grpc, _ = children[0].wait_until_ready().places
        note(f"The server is ready at {grpc}: data in {settings.data}, its log in {log}")
        children.append(child.notifier(grpc, [_LOCAL_WEBHOOKS], log=log))
        children[1].wait_until_ready()
        asyncio.run(_stream(children, seed=seed, parcels=parcels, rate=rate))
        note("The network has stopped. Stopping the notifier and the server ...")
    except ChildEndedError as error:
        fail(str(error), code=error.code)
    except KeyboardInterrupt:
        note("Stopping ...")
    finally:
        for each in reversed(children):
            code = each.stop()
    return code


def _settings(flags: dict[str, str]) -> "Settings":
    """The settings that the server will come to: by the same flags, environment and file."""
    from trackd.configuration import load
    from trackd.setting_file import SettingsError

    try:
        return load(flags)
    except SettingsError as error:
        fail(str(error), code=USAGE)


def _refuse_taken_ports(settings: "Settings") -> None:
    from trackd.address import parse_address
    from trackd.cli.showcase.child import is_taken

    for name in ("grpc", "metrics"):
        address = parse_address(getattr(settings, name))
        if address.port and is_taken(address):
            fail(
                f"{address} is taken, perhaps by another trackd; choose another place with"
                f" --{name} HOST:PORT (port 0 takes a free one)"
            )


async def _stream(children: "list[Child]", *, seed: int, parcels: int, rate: int) -> None:
    """Streams until told to stop; ChildEndedError if the server or the notifier goes away."""
    from trackd.cli.showcase.courier import Courier
    from trackd.cli.showcase.pushes import Pushes

    loop = asyncio.get_running_loop()
    grpc = children[0].places[0]
    courier = Courier(grpc, seed=seed, parcels=parcels, rate=rate)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, courier.stop)
    work = asyncio.create_task(_show(courier, Pushes(grpc), children[0], seed=seed))
    watch = asyncio.create_task(_watch(children))
    await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
    unfinished = work if watch.done() else watch
    unfinished.cancel()
    with suppress(asyncio.CancelledError):
        await unfinished
    # Whichever ended says why, if it failed.
    (watch if watch.done() and not watch.cancelled() else work).result()


async def _watch(children: "list[Child]") -> None:
    while True:
        for child in children:
            child.check()
        await asyncio.sleep(0.5)


async def _show(courier: "Courier", pushes: "Pushes", child: "Child", *, seed: int) -> None:
    from trackd.cli.showcase.courier import DAYS
    from trackd.cli.showcase.picks import pick
    from trackd.cli.showcase.screen import pushes_summary, screen, summary

    shown = screen()
    async with pushes, courier:
        note(f"A courier network (seed {seed}) catches up with its last {DAYS} days.")
        with shown:
            await courier.catch_up(lambda figures: shown.catching_up(figures, pushes.figures()))
        note(summary(courier.figures()))
        if not courier.stopped:
            await pushes.settle()
            note(pushes_summary(pushes.figures()))
            _print_webhooks(pushes)
            _print_commands(child, await pick(child.places[0], courier.waybills))
            with shown:
                await courier.go_on(lambda figures: shown.going_on(figures, pushes.figures()))


def _print_webhooks(pushes: "Pushes") -> None:
    """The latest ones, as `trackd receive` would print them."""
    from trackd.cli.receive import line_of
    from trackd.domain.catalogue import Language

    lines = ["", "The latest webhooks, as their receiver saw them:", ""]
    lines += [f"  {line_of(received, Language.EN)}" for received in pushes.figures().latest]
    results().print("\n".join(lines), soft_wrap=True)


def _print_commands(child: "Child", picks: "list[Pick]") -> None:
    trackd = _own_command()
    grpc, metrics = child.places
    server = "" if grpc == DEFAULT_SERVER else f" --server {grpc}"
    width = max(len(pick.what) for pick in picks)
    lines = ["", "Look parcels up, in another terminal:", ""]
    lines += [
        f"  [dim]{pick.what:{width}}[/dim]  {trackd} track {pick.waybill}{server}" for pick in picks
    ]
    lines += [
        "",
        f"  [dim]{'in Chinese':{width}}[/dim]  {trackd} track {picks[0].waybill}{server} --lang zh",
        f"  [dim]{'figures':{width}}[/dim]  {trackd} stats --watch{server}",
        f"  [dim]{'endpoints':{width}}[/dim]  {trackd} endpoints list{server}",
        f"  [dim]{'metrics':{width}}[/dim]  curl http://{metrics}/metrics",
        "",
        "The server keeps running and the network goes on. Ctrl-C stops both.",
    ]
    results().print("\n".join(lines), soft_wrap=True)


def _own_command() -> str:
    """How this very `trackd` is called from here: by its name, or by its path."""
    own = Path(sys.executable).with_name("trackd")
    on_path = shutil.which("trackd")
    if on_path and Path(on_path).resolve() == own.resolve():
        return "trackd"
    with suppress(ValueError):
        return str(own.relative_to(Path.cwd()))
    return str(own)
