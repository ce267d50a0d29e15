"""`trackd serve`: reads the settings and runs the server until it stops.

Knows nothing of what it serves.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
import typer

from trackd import logs, open_files
from trackd.cli.setting_flags import given, with_setting_flags
from trackd.cli.terminal import USAGE, examples, fail
from trackd.configuration import load
from trackd.setting_file import SettingsError
from trackd.settings import Settings

EPILOG = examples(
    "trackd serve",
    "trackd serve --data /var/lib/trackd --partitions 4",
    "trackd serve --config /etc/trackd.toml --log-format json",
    "TRACKD_STATUS_CACHE_BYTES=1GiB trackd serve",
)


@with_setting_flags
def command(**flags: Any) -> None:
    """Start the server.

    It takes scans in and answers status and timeline over gRPC, keeps them in a directory of its
    own, says on standard output when it is ready, and stops in order on SIGTERM or Ctrl-C.

    Every setting is a flag, a variable of the environment and a key of a TOML file:
    --commit-events-max is TRACKD_COMMIT_EVENTS_MAX and commit_events_max. The flag goes first, then
    the environment, then the file. [bold]trackd config[/bold] shows what comes out.

    Exit codes: 0 stopped in order, 1 failed, 2 usage, 75 the data directory is in use, 78 the data
    is behind what was acknowledged.
    """
    try:
        settings = load(given(flags))
    except SettingsError as error:
        fail(str(error), code=USAGE)
    if refusal := open_files.too_few():
        fail(refusal)
    logs.set_up(level=settings.log_level, log_format=settings.log_format)
    _say_what_has_no_effect(settings)
    raise typer.Exit(run(settings))


def _say_what_has_no_effect(settings: Settings) -> None:
    log = structlog.get_logger()
    if settings.http != Settings.model_fields["http"].default:
        log.warning("web pages are not served in this version", http=settings.http)


def run(settings: Settings) -> int:
    """Runs the server, in one process or in several; its exit code."""
    if settings.workers == 1:
        return _serve_alone(settings)
    from trackd.cluster.start import serve_with_workers

    code = serve_with_workers(settings)
    return _serve_alone(settings) if code is None else code


def _serve_alone(settings: Settings) -> int:
    from trackd import server

    with asyncio.Runner(loop_factory=loop_factory(settings)) as runner:
        return runner.run(server.run(settings))


def loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop that was asked for; None for Python's own."""
    if settings.loop != "uvloop":
        return None
    import uvloop

    return uvloop.new_event_loop
