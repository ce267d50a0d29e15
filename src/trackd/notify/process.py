"""The notifier's process: builds what it is made of, runs until told to stop, and stops in order.

Stopping: the list is followed no more, couriers hand back what they have not tried and finish what
they have, their reports go out, connections close. A second SIGTERM leaves at once, which loses
nothing but time: what was not acknowledged is delivered again.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator

import structlog
from prometheus_client import CollectorRegistry

from trackd import exits, open_files
from trackd.address import parse_address
from trackd.client.consumer import Consumer, ConsumerOptions
from trackd.client.notifications import Notifications
from trackd.metrics_page import metrics_served
from trackd.notify.breaker import BreakerOptions
from trackd.notify.courier import Courier, CourierOptions
from trackd.notify.figures import Figures
from trackd.notify.message_options import message_options
from trackd.notify.messages.sender import MessageSender
from trackd.notify.outcome import Sender
from trackd.notify.reports import Reports, going_out
from trackd.notify.roster import Roster, Senders
from trackd.notify.settings import UNSAFE_FLAGS, NotifySettings
from trackd.notify.sms_account import sms_provider
from trackd.notify.webhook import WebhookOptions, WebhookSender
from trackd.ready import say_ready
from trackd.v1.notification_pb2 import EndpointKind, Target

_log = structlog.get_logger()


async def run(settings: NotifySettings) -> int:
    """Delivers until told to stop; the exit code."""
    os.umask(0o077)
    # Every attempt has a connection: a hundred endpoints that hang have more than a thousand.
    open_files.raise_limit()
    try:
        return await _run(settings)
    except OSError as error:
        _log.error("the notifier failed", error=str(error))
        return exits.FAILED
    except ModuleNotFoundError as error:
        # Of an extra, which an account with an SMS provider needs.
        _log.error("the notifier failed", error=f"{error}; pip install 'trackd[sms]'")
        return exits.FAILED


async def _run(settings: NotifySettings) -> int:
    registry = CollectorRegistry()
    figures = Figures(registry)
    stop_asked = asyncio.Event()
    notifications = Notifications(settings.server)
    for flag in UNSAFE_FLAGS:
        if getattr(settings, flag):
            _log.warning("an unsafe flag is in force", flag=flag)
            figures.unsafe_flags.labels(flag).set(1)
    address = parse_address(settings.metrics)
    with _signals(stop_asked), metrics_served(address, registry) as metrics:
        async with notifications, _senders(settings) as senders:
            reports = Reports(notifications.record)
            figures.reports_dropped.set_function(lambda: reports.dropped)
            roster = Roster(
                notifications,
                senders,
                _hire(settings, reports, figures),
                reports=reports,
                figures=figures,
            )
            async with _following(roster, stop_asked):
                if roster.known.is_set():
                    say_ready(
                        f"trackd notify is ready: server {settings.server}, metrics on {metrics}"
                    )
                async with going_out(reports):
                    await stop_asked.wait()
                    await _stop(roster, settings)
    _log.info("the notifier stopped")
    return exits.DONE


def _hire(
    settings: NotifySettings, reports: Reports, figures: Figures
) -> Callable[[Target, Sender, Callable[[str, str], None]], Courier]:
    options = CourierOptions(
        slots=settings.endpoint_attempts_max,
        breaker=BreakerOptions(
            failures_max=settings.breaker_failures_max,
            pause_s=settings.breaker_pause_s,
            pause_s_max=settings.breaker_pause_s_max,
        ),
    )

    def consume(subscription: str, deliveries_max: int) -> Consumer:
        # The courier opens a new one itself, when its breaker lets it.
        taking = ConsumerOptions(credits=deliveries_max, reconnects=False)
        return Consumer(settings.server, subscription, options=taking)

    def hired(target: Target, sender: Sender, on_gone: Callable[[str, str], None]) -> Courier:
        return Courier(
            target,
            sender,
            consume,
            reports=reports,
            figures=figures,
            options=options,
            on_gone=on_gone,
        )

    return hired


@contextlib.asynccontextmanager
async def _senders(settings: NotifySettings) -> AsyncIterator[Senders]:
    webhooks = WebhookSender(
        WebhookOptions(
            connect_timeout_s=settings.connect_timeout_s,
            total_timeout_s=settings.total_timeout_s,
            answer_bytes_max=settings.answer_bytes_max,
            allow_local=settings.unsafe_allow_local_webhooks,
        )
    )
    messages = MessageSender(message_options(settings), sms=sms_provider(settings))
    try:
        yield {
            EndpointKind.ENDPOINT_KIND_WEBHOOK: webhooks,
            EndpointKind.ENDPOINT_KIND_MESSAGE: messages,
        }
    finally:
        await webhooks.close()
        await messages.close()


@contextlib.asynccontextmanager
async def _following(roster: Roster, stop_asked: asyncio.Event) -> AsyncIterator[None]:
    """The list is followed until the stop is asked for, whatever is done meanwhile."""
    following = asyncio.ensure_future(roster.follow())
    # A defect of it ends the process: it would deliver to a list that is never read again.
    following.add_done_callback(lambda _: stop_asked.set())
    stopping = asyncio.ensure_future(stop_asked.wait())
    stopping.add_done_callback(lambda _: following.cancel())
    known = asyncio.ensure_future(roster.known.wait())
    await asyncio.wait({known, stopping}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        for task in (known, stopping, following):
            task.cancel()
        await asyncio.gather(known, stopping, following, return_exceptions=True)
    if not following.cancelled():
        following.result()


async def _stop(roster: Roster, settings: NotifySettings) -> None:
    _log.info("the notifier stops")
    try:
        async with asyncio.timeout(settings.shutdown_grace_s):
            await roster.stop()
    except TimeoutError:
        _log.warning("attempts did not end in time: they will be made again")


@contextlib.contextmanager
def _signals(stop_asked: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    # Not whether it is stopping: that may be a defect's doing.
    once = asyncio.Event()

    def asked() -> None:
        if once.is_set():
            _log.warning("told twice to stop: leaving at once")
            os._exit(exits.FAILED)
        once.set()
        stop_asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
