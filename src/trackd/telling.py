"""The endpoints of a server: built from its settings, served by its door, their log saved.

Part of the wiring: started when the subscriptions are there, stopped when nobody calls any more.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from trackd.opening import now_ms
from trackd.sealing import Seal
from trackd.settings import Settings
from trackd.store.documents import Documents
from trackd.wire.calls import Calls
from trackd.wire.delivery_log import DeliveryLog
from trackd.wire.endpoint_rules import UrlRules
from trackd.wire.endpoints import Endpoints, SubscriptionCalls
from trackd.wire.errors import CallError
from trackd.wire.notification import NotificationService
from trackd.wire.subscriptions import SubscriptionService

# How soon it is tried again to make subscriptions and endpoints agree.
_RECONCILE_INTERVAL_S = 0.5


@contextlib.asynccontextmanager
async def notifications_running(
    settings: Settings,
    documents: Documents,
    subscriptions: SubscriptionService,
    calls: Calls,
) -> AsyncIterator[NotificationService]:
    """What answers for the endpoints. Raises DataDamaged or StorageFailed."""
    log = DeliveryLog(documents, kept_max=settings.deliveries_kept_max)
    endpoints = Endpoints(
        documents,
        Seal(key_file(settings)),
        _calls_of(subscriptions),
        UrlRules(
            allow_local=settings.unsafe_allow_local_webhooks,
            message_schemes=tuple(settings.message_schemes.split(",")),
        ),
        endpoints_max=settings.endpoints_max,
        now_ms=now_ms,
    )
    beside = [log.keep_saving()]
    try:
        await endpoints.reconcile()
    except CallError:
        # A subscription has to be made, and a worker that it needs is not there yet.
        beside.append(_reconciled(endpoints))
    tasks = [asyncio.create_task(each) for each in beside]
    try:
        yield NotificationService(
            endpoints, log, calls, response_bytes_max=settings.response_bytes_max
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await log.save()


async def _reconciled(endpoints: Endpoints) -> None:
    """Reconciles them, however often it takes."""
    while True:
        await asyncio.sleep(_RECONCILE_INTERVAL_S)
        with contextlib.suppress(CallError):
            await endpoints.reconcile()
            return


def key_file(settings: Settings) -> Path:
    """Where the key of the endpoints' secrets is: never inside the data directory."""
    if settings.secrets_key_file is not None:
        return settings.secrets_key_file
    data = settings.data.absolute()
    return data.with_name(f"{data.name}.key")


def _calls_of(subscriptions: SubscriptionService) -> SubscriptionCalls:
    """The subscriptions as endpoints need them, which are theirs to make and to delete."""
    return SubscriptionCalls(
        names=lambda: subscriptions.names,
        find=subscriptions.message,
        create=subscriptions.create,
        update=subscriptions.update,
        delete=subscriptions.delete,
    )
