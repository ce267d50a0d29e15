"""A real server, a real `trackd notify` and what a test does with them."""

import asyncio
import itertools
import os
import signal
import urllib.request
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from tests.harness.forked import ForkedProcess
from tests.harness.server import ServerProcess
from trackd.client import Scanner, scan_event
from trackd.client.notifications import Notifications
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.feed_pb2 import (
    GetSubscriptionRequest,
    ListParkedChangesRequest,
    SubscriptionProgress,
    UpdateSubscriptionRequest,
)
from trackd.v1.feed_pb2_grpc import FeedServiceStub
from trackd.v1.notification_pb2 import Endpoint, EndpointKind

SERVER_FLAGS = ("--workers", "1", "--partitions", "2", "--unsafe-allow-local-webhooks")
BEGAN_AT_MS = 1_794_000_000_000
_START_TIMEOUT_S = 30.0
_POLL_S = 0.01
_numbers = itertools.count(1)


class NotifierProcess:
    """One run of `trackd notify` after the other. Its methods are for the event loop."""

    def __init__(self, server: str, logs: Path, *flags: str) -> None:
        self._server = server
        self._logs = logs
        self._flags = flags
        self._process: ForkedProcess | None = None
        self.runs = 0

    async def start(self) -> "NotifierProcess":
        """Starts it, and returns when it knows its endpoints."""
        self.runs += 1
        out = self._logs / f"notify-{id(self)}.{self.runs}.out"
        with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
            self._process = ForkedProcess(
                [
                    *("notify", "--server", self._server, "--metrics", "127.0.0.1:0"),
                    *("--unsafe-allow-local-webhooks", *self._flags),
                ],
                out=stdout,
                err=stderr,
                env={k: text for k, text in os.environ.items() if not k.startswith("TRACKD_")},
            )
        async with asyncio.timeout(_START_TIMEOUT_S):
            while b"is ready" not in out.read_bytes():
                assert self._process.poll() is None, self.log
                await asyncio.sleep(_POLL_S)
        return self

    async def kill(self) -> None:
        """SIGKILL."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(number)
        return await asyncio.to_thread(self._process.wait, 30)

    def scrape(self, family: str) -> dict[str, float]:
        """The samples of a metric, as its page has them now. Blocks."""
        told = (self._logs / f"notify-{id(self)}.{self.runs}.out").read_text()
        address = told.rpartition("metrics on ")[2].strip()
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        parts = [line.rpartition(" ") for line in lines if line.startswith(family)]
        return {name: float(value) for name, _, value in parts}

    @property
    def log(self) -> str:
        """What its latest run logged."""
        file = self._logs / f"notify-{id(self)}.{self.runs}.err"
        return file.read_text(errors="replace")


class Stage:
    """A server with endpoints, seen from outside."""

    def __init__(self, server: ServerProcess, logs: Path) -> None:
        self.server = server
        self.notifications = Notifications(server.grpc)
        self._channel = grpc.aio.insecure_channel(server.grpc)
        self._feed = FeedServiceStub(self._channel)
        self._logs = logs
        self._notifiers: list[NotifierProcess] = []

    async def notifier(self, *flags: str) -> NotifierProcess:
        """A notifier of the test's own, gone when the test is over."""
        made = NotifierProcess(self.server.grpc, self._logs, *flags)
        self._notifiers.append(made)
        return await made.start()

    async def endpoint(
        self, url: str, *, backoff_ms: Sequence[int] = (), max_attempts: int = 0
    ) -> str:
        """A webhook endpoint, with a schedule that a test has the time for; its id."""
        asked = Endpoint(kind=EndpointKind.ENDPOINT_KIND_WEBHOOK, url=url)
        made = (await self.notifications.create(asked)).endpoint
        if backoff_ms:
            name = f"endpoint/{made.id}"
            found = await self._feed.GetSubscription(GetSubscriptionRequest(name=name))
            settings = found.subscription
            del settings.retry_backoff_ms[:]
            settings.retry_backoff_ms.extend(backoff_ms)
            settings.max_attempts = max_attempts or settings.max_attempts
            await self._feed.UpdateSubscription(UpdateSubscriptionRequest(subscription=settings))
        return made.id

    async def progress(self, endpoint_id: str) -> SubscriptionProgress:
        """How far an endpoint's subscription is."""
        name = f"endpoint/{endpoint_id}"
        found = await self._feed.GetSubscription(GetSubscriptionRequest(name=name))
        return found.progress

    async def parked(self, endpoint_id: str) -> set[str]:
        """The waybills of the changes that were parked."""
        name = f"endpoint/{endpoint_id}"
        page = await self._feed.ListParkedChanges(
            ListParkedChangesRequest(name=name, page_size=500)
        )
        return {each.change.waybill_number for each in page.parked_changes}

    async def settled(self, endpoint_ids: Iterable[str], *, timeout_s: float = 60.0) -> None:
        """Returns once nothing of these endpoints is waiting, under way or unread."""
        async with asyncio.timeout(timeout_s):
            for endpoint_id in endpoint_ids:
                while True:
                    now = await self.progress(endpoint_id)
                    if not (now.lag or now.in_flight or now.waiting):
                        break
                    await asyncio.sleep(0.05)

    async def scan(self, *scans: ScanEvent) -> None:
        """Appends scans; durable when it returns."""
        async with Scanner(self.server.grpc) as scanner:
            await scanner.append(list(scans))

    async def close(self) -> None:
        """Ends every notifier, and every call."""
        for notifier in self._notifiers:
            await notifier.kill()
        await self.notifications.close()
        await self._channel.close()


@asynccontextmanager
async def stage_of(server: ServerProcess, logs: Path) -> AsyncIterator[Stage]:
    """A stage for a running server."""
    stage = Stage(server, logs)
    await stage.notifications.open()
    try:
        yield stage
    finally:
        await stage.close()


def scan_of(waybill: str, code: str, minute: int = 0) -> ScanEvent:
    """A scan, so many minutes after the beginning."""
    return scan_event(
        event_id=f"t:{minute}:{code}",
        waybill_number=waybill,
        code=code,
        occurred_at=BEGAN_AT_MS + minute * 60_000,
        facility_code="PEK-03",
    )


def waybills(count: int) -> list[str]:
    """So many waybill numbers that nobody has had, in order."""
    return [f"SF{next(_numbers):010}" for _ in range(count)]
