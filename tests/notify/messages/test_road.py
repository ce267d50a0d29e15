"""Messages on the whole road: from a scan, through server and notifier, to a real web server."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.harness.server import ServerProcess
from tests.notify.messages.conftest import WebServer
from tests.notify.stage import SERVER_FLAGS, Stage, scan_of, stage_of
from trackd.client.errors import TrackdError
from trackd.v1.notification_pb2 import (
    DeliveryAttempt,
    DeliveryOutcome,
    Endpoint,
    EndpointKind,
    EndpointState,
    QuietHours,
    RateCap,
)

SCHEMES = ("--message-schemes", "json,wecombot")
PASSWORD = "HUNTER2-in-a-url"
DELIVERED = DeliveryOutcome.DELIVERY_OUTCOME_DELIVERED
_MINUTES_OF_DAY = 24 * 60


FLAGS = (*SERVER_FLAGS, *SCHEMES)


@pytest.fixture
async def stage(serve: Serve, tmp_path: Path) -> AsyncIterator[Stage]:
    """A server that takes apprise's JSON service for messages; the test's own."""
    server = await asyncio.to_thread(serve, *FLAGS)
    async with stage_of(server, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Such a server with a notifier."""
    home = tmp_path_factory.mktemp("road")
    server = ServerProcess(home / "data", *FLAGS)
    await asyncio.to_thread(server.start)
    async with stage_of(server, home) as made:
        await made.notifier(*SCHEMES)
        yield made
    await asyncio.to_thread(server.kill)


@pytest.fixture
async def shared(running: Stage) -> AsyncIterator[Stage]:
    """The same one for tests that leave server and notifier alone; their endpoints go."""
    yield running
    for each in await running.notifications.list():
        await running.notifications.delete(each.id)


def numbered(name: str, count: int) -> list[str]:
    """So many waybill numbers of a test's own."""
    return [f"{name}{number:06}" for number in range(count)]


async def endpoint(stage: Stage, web: WebServer, path: str = "/hook", **settings: object) -> str:
    """An endpoint for messages at the web server; its id."""
    asked = Endpoint(
        kind=EndpointKind.ENDPOINT_KIND_MESSAGE,
        url=f"json://me:{PASSWORD}@{web.place}{path}",
        **settings,  # type: ignore[arg-type]
    )
    made = await stage.notifications.create(asked)
    assert made.endpoint.url == "json://…"
    assert made.secret == ""
    return made.endpoint.id


async def until(done: Callable[[], Awaitable[object]]) -> None:
    """Returns once `done` says so."""
    async with asyncio.timeout(60):
        while True:
            if await done():
                return
            await asyncio.sleep(0.05)


async def attempts(
    stage: Stage, endpoint_id: str, count: int, outcome: DeliveryOutcome.ValueType
) -> list[DeliveryAttempt]:
    """The delivery log's attempts that ended so, once there are so many; the newest first."""
    found: list[DeliveryAttempt] = []

    async def enough() -> bool:
        found[:] = [
            each
            async for each in stage.notifications.deliveries(endpoint_id)
            if each.outcome == outcome
        ]
        return len(found) >= count

    await until(enough)
    return found


def files_with(text: str, directory: Path) -> list[Path]:
    """The files under a directory in which a text stands; there are files."""
    files = [file for file in directory.rglob("*") if file.is_file()]
    assert files
    return [file for file in files if text.encode() in file.read_bytes()]


async def test_news_become_messages_and_nothing_of_a_url_is_told(
    stage: Stage, web: WebServer, tmp_path: Path
) -> None:
    """Once a milestone, in the endpoint's language; the URL is in no log, no file and no answer."""
    endpoint_id = await endpoint(stage, web, language="en", template="short")
    notifier = await stage.notifier(*SCHEMES)
    (waybill,) = numbered("ONE", 1)
    await stage.scan(
        scan_of(waybill, "PICKED_UP", 1),
        scan_of(waybill, "OUT_FOR_DELIVERY", 2),
        scan_of(waybill, "OUT_FOR_DELIVERY", 3),
        scan_of(waybill, "DAMAGED", 4),
        scan_of(waybill, "DELIVERED", 5),
    )
    await stage.settled([endpoint_id])
    assert [each.document["title"] for each in web.received] == [
        f"Parcel {waybill}: Picked up",
        f"Parcel {waybill}: Out for delivery",
        f"Parcel {waybill}: Problem (Damaged)",
        f"Parcel {waybill}: Delivered",
    ]
    log = await attempts(stage, endpoint_id, 4, DELIVERED)
    assert {each.status_code for each in log} == {200}
    shown = await stage.notifications.get(endpoint_id)
    assert PASSWORD not in f"{shown}{log}{notifier.log}{stage.server.log}"
    await notifier.stop()
    await asyncio.to_thread(stage.server.stop)
    assert files_with(PASSWORD, tmp_path) == []


async def test_what_may_not_be_made_is_refused_with_its_field(
    shared: Stage, web: WebServer
) -> None:
    """A scheme that is not listed, options that read files, a template or language that is not."""
    for url, more in (
        (f"xml://{web.place}/", {}),
        (f"json://{web.place}/?template=/etc/passwd", {}),
        ("json://10.0.0.1/", {}),
        ("wecombot://", {}),
        (f"json://{web.place}/", {"template": "loud"}),
        (f"json://{web.place}/", {"language": "tlh"}),
    ):
        asked = Endpoint(kind=EndpointKind.ENDPOINT_KIND_MESSAGE, url=url, **more)  # type: ignore[arg-type]
        with pytest.raises(TrackdError) as refused:
            await shared.notifications.create(asked)
        assert refused.value.reason == "INVALID_ENDPOINT"
    assert url not in [each.url for each in await shared.notifications.list()]


async def test_quiet_hours_and_caps_cost_no_attempt(shared: Stage, web: WebServer) -> None:
    """At night nothing comes, and the log says until when; what a cap held back comes once."""
    minute = int(time.time() // 60) % _MINUTES_OF_DAY
    quiet = QuietHours(
        from_minute=(minute - 60) % _MINUTES_OF_DAY,
        until_minute=(minute + 120) % _MINUTES_OF_DAY,
        time_zone="UTC",
    )
    sleeping = await endpoint(shared, web, "/sleeping", quiet_hours=quiet)
    capped = await endpoint(shared, web, "/capped", rate_cap=RateCap(messages=2, per_ms=1_000))
    numbers = numbered("CAP", 6)
    await shared.scan(*(scan_of(waybill, "DELIVERED", 1) for waybill in numbers))
    await shared.settled([capped])
    assert len([each for each in web.received if each.path == "/capped"]) == 6
    log = await attempts(shared, capped, 6, DELIVERED)
    assert sorted(each.waybill_number for each in log) == numbers
    assert {each.attempt for each in log} == {1}
    postponed = await attempts(shared, sleeping, 6, DeliveryOutcome.DELIVERY_OUTCOME_POSTPONED)
    end_ms = (int(time.time() // 60) + 120) * 60_000
    for each in postponed:
        assert abs(each.next_attempt_at_ms - end_ms) <= 2 * 60_000
    assert not [each for each in web.received if each.path == "/sleeping"]
    assert (await shared.progress(sleeping)).waiting == 6


async def test_what_can_never_be_delivered_is_parked_and_a_robot_that_is_gone_disables(
    shared: Stage, web: WebServer
) -> None:
    """400 parks the one text; 410 stops the endpoint, and nothing is lost: enabled, it hears it."""
    endpoint_id = await endpoint(shared, web)
    first, second = numbered("GONE", 2)
    web.answers = [(400, {}, b""), (410, {}, b""), (200, {}, b"")]
    await shared.scan(scan_of(first, "DELIVERED", 1))

    async def parked() -> bool:
        return await shared.parked(endpoint_id) == {first}

    async def disabled() -> bool:
        state = (await shared.notifications.get(endpoint_id)).state
        return state == EndpointState.ENDPOINT_STATE_DISABLED

    await until(parked)
    await shared.scan(scan_of(second, "DELIVERED", 1))
    await until(disabled)
    await shared.notifications.enable(endpoint_id)
    await web.until(3)
    assert second in web.received[-1].document["title"]


async def test_a_killed_notifier_loses_no_message(stage: Stage, web: WebServer) -> None:
    """Every waybill's news arrives at least once, whatever was being sent when it died."""
    endpoint_id = await endpoint(stage, web)
    numbers = numbered("KILL", 60)
    notifier = await stage.notifier(*SCHEMES)
    await stage.scan(*(scan_of(waybill, "DELIVERED", 1) for waybill in numbers))
    await web.until(10)
    await notifier.kill()
    await notifier.start()
    await stage.settled([endpoint_id])
    # What was being sent when it died may have come in part.
    whole = [each for each in web.received if len(each.body) == int(each.headers["content-length"])]
    told = " ".join(str(each.document["title"]) for each in whole)
    assert [waybill for waybill in numbers if waybill not in told] == []


async def test_a_trial_is_told_at_once(shared: Stage, web: WebServer) -> None:
    """The test of an endpoint is a text that says what it is; the answer is what came of it."""
    endpoint_id = await endpoint(shared, web)
    attempt = await shared.notifications.test(endpoint_id)
    assert attempt.outcome == DeliveryOutcome.DELIVERY_OUTCOME_DELIVERED
    assert "测试" in web.received[0].document["title"]
