"""Who is told: the server's list of endpoints, followed, and a courier kept at work for each.

The list says what should be; `_follow` makes it so. A courier that ended by itself is started again
for as long as the list wants it.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from trackd.client.errors import ServerUnavailable, TrackdError
from trackd.client.notifications import Notifications
from trackd.notify.courier import Courier, attempted, report_of
from trackd.notify.figures import Figures
from trackd.notify.outcome import Notification, Sender, Verdict
from trackd.notify.payload import webhook_id
from trackd.notify.reports import Reports
from trackd.v1.notification_pb2 import (
    EndpointKind,
    EndpointState,
    EndpointTest,
    ListTargetsResponse,
    Target,
)

WAIT_MS = 20_000
_RETRY_S = 1.0

Senders = Mapping[EndpointKind.ValueType, Sender]

_log = structlog.get_logger()


class Roster:
    """The couriers of this process. `follow` until cancelled; then `stop`."""

    def __init__(
        self,
        notifications: Notifications,
        senders: Senders,
        hire: Callable[[Target, Sender, Callable[[str, str], None]], Courier],
        *,
        reports: Reports,
        figures: Figures,
    ) -> None:
        """hire: makes a courier, given whom it is to call when an endpoint is gone."""
        self._notifications = notifications
        self._senders = senders
        self._hire = hire
        self._reports = reports
        self._figures = figures
        self._targets: dict[str, Target] = {}
        self._couriers: dict[str, Courier] = {}
        # By endpoint: the courier's run. A courier that was stopped is here until it has finished.
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        # Set once the list was read for the first time.
        self.known = asyncio.Event()
        self._stopping = False

    async def follow(self) -> None:
        """Asks for the list again and again, and acts on it."""
        revision, answered = "", True
        while True:
            try:
                listed = await self._notifications.targets(known_revision=revision, wait_ms=WAIT_MS)
            except TrackdError as error:
                if answered or not isinstance(error, ServerUnavailable):
                    _log.warning("the list of endpoints cannot be read", reason=error.reason)
                answered = False
                await asyncio.sleep(_RETRY_S)
                continue
            if not answered:
                _log.info("the list of endpoints can be read again")
            revision, answered = listed.revision, True
            self._follow(listed)
            self.known.set()

    async def stop(self) -> None:
        """Stops every courier, and waits until what runs has ended."""
        self._stopping = True
        for courier in self._couriers.values():
            courier.stop()
        await asyncio.gather(*self._runs.values(), *self._chores, return_exceptions=True)

    def _follow(self, listed: ListTargetsResponse) -> None:
        if listed.complete:
            self._targets = {target.endpoint.id: target for target in listed.targets}
        for endpoint_id in self._couriers.keys() - self._targets.keys():
            self._couriers[endpoint_id].stop()
        for endpoint_id, target in self._targets.items():
            self._follow_one(endpoint_id, target)
        for test in listed.tests:
            self._chore(self._test(test))

    def _follow_one(self, endpoint_id: str, target: Target) -> None:
        wanted = target.endpoint.state == EndpointState.ENDPOINT_STATE_ENABLED
        courier = self._couriers.get(endpoint_id)
        if courier and not wanted:
            courier.stop()
        elif courier:
            courier.target = target
        elif wanted and endpoint_id not in self._runs:
            self._start(endpoint_id, target)

    def _start(self, endpoint_id: str, target: Target) -> None:
        sender = self._senders.get(target.endpoint.kind)
        if sender is None:
            return
        courier = self._hire(target, sender, self._gone)
        self._couriers[endpoint_id] = courier
        run = self._runs[endpoint_id] = asyncio.ensure_future(courier.run())
        run.add_done_callback(lambda ended: self._ended(endpoint_id, ended))
        self._figures.endpoints.set(len(self._runs))

    def _ended(self, endpoint_id: str, run: "asyncio.Task[None]") -> None:
        del self._couriers[endpoint_id], self._runs[endpoint_id]
        self._figures.endpoints.set(len(self._runs))
        if run.cancelled():
            return
        if error := run.exception():
            _log.error("a courier failed", endpoint=endpoint_id, exc_info=error)
        # By then the server's list says whether it is still wanted.
        asyncio.get_running_loop().call_later(_RETRY_S, self._revisit, endpoint_id)

    def _revisit(self, endpoint_id: str) -> None:
        target = self._targets.get(endpoint_id)
        if target is not None and not self._stopping:
            self._follow_one(endpoint_id, target)

    # What is done beside.

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def _gone(self, endpoint_id: str, reason: str) -> None:
        self._chore(self._disable(endpoint_id, reason))

    async def _disable(self, endpoint_id: str, reason: str) -> None:
        """The server keeps it so. If it cannot now, the endpoint says 410 to the next attempt."""
        try:
            await self._notifications.disable(endpoint_id, reason=reason)
            _log.warning("an endpoint was disabled", endpoint=endpoint_id, reason=reason)
        except TrackdError as error:
            _log.warning(
                "an endpoint cannot be disabled", endpoint=endpoint_id, reason=error.reason
            )

    async def _test(self, test: EndpointTest) -> None:
        target = self._targets.get(test.endpoint_id)
        sender = self._senders.get(target.endpoint.kind) if target else None
        if target is None or sender is None:
            return
        began_ms, began_s = time.time_ns() // 1_000_000, time.perf_counter()
        notification = Notification(id=webhook_id(test.endpoint_id, test.test_id), change=None)
        outcome = await attempted(sender, target, notification, self._figures)
        seconds = time.perf_counter() - began_s
        report = report_of(notification, outcome, began_ms=began_ms, seconds=seconds)
        if outcome.verdict is Verdict.GONE:
            await self._disable(test.endpoint_id, outcome.error)
        self._reports.add(test.endpoint_id, report, test_id=test.test_id)
