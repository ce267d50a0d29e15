"""What the tests of messages share: changes, endpoints, and a web server that answers as told."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from trackd.domain.vocabulary import Flag, Milestone, Reason
from trackd.notify.outcome import Notification
from trackd.v1.event_pb2 import ScanEvent, ShipmentStatus
from trackd.v1.feed_pb2 import Change
from trackd.v1.notification_pb2 import ENDPOINT_KIND_MESSAGE, Endpoint, Target

NOON_MS = 1_795_320_000_000
"""2026-11-22 12:00 in Shanghai."""
HOUR_MS = 3_600_000
WAYBILL = "SF1234567890"


def change(
    milestone: Milestone = Milestone.OUT_FOR_DELIVERY,
    *,
    waybill: str = WAYBILL,
    first: bool = True,
    raised: tuple[Flag, ...] = (),
    cleared: tuple[Flag, ...] = (),
    correction: bool = False,
    reason: Reason = Reason.UNSPECIFIED,
    event: ScanEvent | None = None,
    now: tuple[Flag, ...] = (),
) -> Change:
    """A change at noon. now: the flags that are up after it."""
    made = event or ScanEvent(facility_code="SHA-D07")
    made.occurred_at_ms = made.occurred_at_ms or NOON_MS
    made.waybill_number = waybill
    if reason:
        made.reason = int(reason)  # type: ignore[assignment]
    return Change(
        position="p1",
        waybill_number=waybill,
        milestone=int(milestone),  # type: ignore[arg-type]
        flags_raised=list(map(int, raised)),  # type: ignore[arg-type]
        flags_cleared=list(map(int, cleared)),  # type: ignore[arg-type]
        event=made,
        status=ShipmentStatus(flags=list(map(int, now or raised))),  # type: ignore[arg-type]
        first_occurrence=first,
        correction=correction,
        recorded_at_ms=NOON_MS,
    )


def target(url: str, **settings: Any) -> Target:
    """An endpoint for messages."""
    endpoint = Endpoint(id="ep_1", kind=ENDPOINT_KIND_MESSAGE, url=url, **settings)
    return Target(endpoint=endpoint, subscription="endpoint/ep_1")


def notification(of: Change | None) -> Notification:
    """The first attempt to tell of a change."""
    return Notification(id="msg_1", change=of)


@dataclass(frozen=True, slots=True)
class Received:
    """A request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body, as JSON."""
        return json.loads(self.body)


@dataclass(slots=True)
class WebServer:
    """Listens on this machine; answers POSTs with what `answers` holds in turn, the last again."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    # status, headers, body
    answers: list[tuple[int, dict[str, str], bytes]] = field(
        default_factory=lambda: [(200, {}, b"")]
    )
    hold: threading.Event | None = None  # answers only once it is set
    news: threading.Condition = field(default_factory=threading.Condition)

    @property
    def place(self) -> str:
        """HOST:PORT."""
        return self.url.removeprefix("http://")

    async def until(self, count: int, path: str = "/hook") -> None:
        """Returns once a path has got so many requests."""

        def enough() -> bool:
            return sum(each.path == path for each in self.received) >= count

        def waited() -> bool:
            with self.news:
                return self.news.wait_for(enough, timeout=60)

        assert await asyncio.to_thread(waited)


class _Requests(BaseHTTPRequestHandler):
    state: WebServer

    def do_POST(self) -> None:
        """Notes it and answers."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): text for name, text in self.headers.items()}
        with self.state.news:
            self.state.received.append(Received(self.path, headers, body))
            self.state.news.notify_all()
        if self.state.hold is not None:
            self.state.hold.wait(30)
        answers = self.state.answers
        status, more, text = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in more.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        with suppress(OSError):  # hung up on, as a test may want
            self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
        """Says nothing."""


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server of the test's own."""
    state = WebServer()
    answering = type("Answering", (_Requests,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), answering) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        if state.hold is not None:
            state.hold.set()
        server.shutdown()
        thread.join()
