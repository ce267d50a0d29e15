"""`trackd notify`: reads the notifier's settings and delivers until it is stopped.

Knows nothing of what it delivers.
"""

import asyncio
from typing import Any

import typer

from trackd import logs
from trackd.cli.setting_flags import given, with_flags_of
from trackd.cli.terminal import USAGE, examples, fail
from trackd.notify.settings import NotifySettings, load
from trackd.setting_file import SettingsError

EPILOG = examples(
    "trackd notify",
    "trackd notify --server tracking:50551 --log-format json",
    "trackd notify --unsafe-allow-local-webhooks   [dim](to try things out)[/dim]",
)


def _command(**flags: Any) -> None:
    """Deliver webhooks and messages to the endpoints of a server.

    Takes every endpoint's changes from the server, delivers them signed, tries again what fails and
    reports each attempt, which `trackd endpoints deliveries` shows. It keeps nothing of its own: it
    can be killed at any time, and any number may run and share the work. Stops in order on SIGTERM
    or Ctrl-C.

    Every setting is a flag and a variable of the environment: --connect-timeout-s is
    TRACKD_NOTIFY_CONNECT_TIMEOUT_S; --server is TRACKD_SERVER.

    Exit codes: 0 stopped in order, 1 failed, 2 usage.
    """
    try:
        settings = load(given(flags))
    except SettingsError as error:
        fail(str(error), code=USAGE)
    logs.set_up(level=settings.log_level, log_format=settings.log_format)
    raise typer.Exit(_run(settings))


def _run(settings: NotifySettings) -> int:
    from trackd.notify import process

    factory = None
    if settings.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(process.run(settings))


command = with_flags_of(NotifySettings, _command)
