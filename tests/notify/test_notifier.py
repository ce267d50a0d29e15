"""The whole road: server, notifier and receivers, while endpoints misbehave and processes die."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median

import pytest
from standardwebhooks import Webhook

from tests.conftest import Serve
from tests.harness.server import ServerProcess
from tests.notify import receiver as receivers
from tests.notify.hostile import IMPATIENT, MISBEHAVING, flapping
from tests.notify.receiver import Heard, Receiver, answering, receiving
from tests.notify.stage import SERVER_FLAGS, Stage, scan_of, stage_of, waybills
from trackd.v1.notification_pb2 import DeliveryOutcome, Endpoint, EndpointKind, EndpointState


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver of the test's own."""
    async with receiving() as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all of these tests; each has endpoints of its own."""
    started = ServerProcess(tmp_path_factory.mktemp("notifier") / "data", *SERVER_FLAGS)
    yield started.start()
    assert started.stop() == 0


def files_with(text: bytes, directory: Path) -> list[Path]:
    """The files under a directory in which a text stands."""
    files = [file for file in directory.rglob("*") if file.is_file()]
    return [file for file in files if text in file.read_bytes()]


async def campaign(
    stage: Stage, receiver: Receiver, *, parcels: int, kills: int, server_too: bool = False
) -> None:
    """Endpoints of every kind hear of `parcels` while the notifier is killed `kills` times.

    server_too: every other time it is the server instead.
    """
    receiver.behaviours |= MISBEHAVING | {"/flooding": receivers.flooding, "/flapping": flapping(2)}
    schedule = {"backoff_ms": (20, 40), "max_attempts": 3}
    bad = {path: await stage.endpoint(receiver.url(path), **schedule) for path in MISBEHAVING}  # type: ignore[arg-type] # both kinds in one
    good = {
        path: await stage.endpoint(receiver.url(path), backoff_ms=(20, 40), max_attempts=20)
        for path in ("/good", "/flooding", "/flapping")
    }
    notifier = await stage.notifier(*IMPATIENT)
    wanted = waybills(parcels)
    for part in range(kills + 1):
        await stage.scan(*(scan_of(each, "PICKED_UP") for each in wanted[part :: kills + 1]))
        if part < kills:
            await asyncio.sleep(0.3)
            if server_too and part % 2:
                await asyncio.to_thread(stage.server.kill)
                await asyncio.to_thread(stage.server.start, "--grpc", stage.server.grpc)
            else:
                await notifier.kill()
                await notifier.start()
    await stage.settled([*bad.values(), *good.values()], timeout_s=60 + 5 * parcels)
    for path, endpoint_id in good.items():
        assert {heard.waybill for heard in receiver.at(path)} == set(wanted), path
        assert await stage.parked(endpoint_id) == set(), path
    for path, endpoint_id in bad.items():
        assert await stage.parked(endpoint_id) == set(wanted), path
    assert receiver.at("/elsewhere") == []
    for path in (*good, *bad):
        told = {(heard.headers["webhook-id"], heard.waybill) for heard in receiver.at(path)}
        ids, numbers = {each for each, _ in told}, {each for _, each in told}
        assert len(told) == len(ids) == len(numbers), "one id for each change, in every attempt"


async def test_each_notification_is_delivered_or_parked(stage: Stage, receiver: Receiver) -> None:
    """Endpoints hang, trickle, fail, throttle, redirect, reset, flood; the notifier is killed."""
    await campaign(stage, receiver, parcels=6, kills=2)


@pytest.mark.torture
async def test_each_notification_is_delivered_or_parked_at_length(
    stage: Stage, receiver: Receiver
) -> None:
    """The same with more of everything, and the server is killed, too."""
    await campaign(stage, receiver, parcels=100, kills=25, server_too=True)


async def test_an_endpoint_that_hangs_holds_up_nobody_else(
    stage: Stage, receiver: Receiver
) -> None:
    """Half of them take every request and answer none: the others hear everything meanwhile."""
    receiver.behaviours |= {f"/hanging/{n}": receivers.hanging for n in range(3)}
    for number in range(3):
        await stage.endpoint(receiver.url(f"/hanging/{number}"))
        await stage.endpoint(receiver.url(f"/good/{number}"))
    await stage.notifier("--endpoint-attempts-max", "4")
    wanted = waybills(100)
    await stage.scan(*(scan_of(each, "PICKED_UP") for each in wanted))
    for number in range(3):
        path = f"/good/{number}"
        await receiver.until(lambda path=path: len(receiver.at(path)) == 100)  # type: ignore[misc] # bound now
        assert {heard.waybill for heard in receiver.at(path)} == set(wanted)
    await receiver.until(lambda: sum(receiver.open_requests.values()) == 12)
    for number in range(3):
        path = f"/hanging/{number}"
        assert len(receiver.at(path)) == 4, "its slots, and no answer to any of them"


@pytest.mark.torture
async def test_half_of_the_endpoints_hang_and_the_others_are_as_quick(
    stage: Stage, receiver: Receiver
) -> None:
    """The time until eight endpoints have heard everything, while eight others hang: at most a
    fifth longer than without those. The median of five rounds of each, in turns.
    """
    receiver.behaviours |= {f"/hanging/{n}": receivers.hanging for n in range(8)}
    hanging = [await stage.endpoint(receiver.url(f"/hanging/{n}")) for n in range(8)]
    for number in range(8):
        await stage.endpoint(receiver.url(f"/good/{number}"))
    await stage.notifier()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(10):
        with_hanging = bool(turn % 2)
        for endpoint_id in hanging:
            change = stage.notifications.enable if with_hanging else stage.notifications.disable
            await change(endpoint_id)
        told, wanted = 500 * (turn + 1), waybills(500)
        began_s = time.monotonic()
        await stage.scan(*(scan_of(each, "PICKED_UP") for each in wanted))
        for number in range(8):
            path = f"/good/{number}"
            await receiver.until(lambda path=path, told=told: len(receiver.at(path)) == told)  # type: ignore[misc] # bound now
        seconds[with_hanging].append(time.monotonic() - began_s)
    assert median(seconds[True]) <= 1.2 * median(seconds[False]), seconds


async def test_nobody_hears_of_the_past(stage: Stage, receiver: Receiver) -> None:
    """While an endpoint fails newer news takes the place of older: one webhook, the last."""
    (waybill,) = waybills(1)
    well = asyncio.Event()
    refuse, take = answering(500), answering(204)

    async def answer(heard: Heard, writer: asyncio.StreamWriter) -> bool:
        return await (take if well.is_set() else refuse)(heard, writer)

    receiver.behaviours["/"] = answer
    endpoint_id = await stage.endpoint(receiver.url("/"), backoff_ms=(300,), max_attempts=50)
    await stage.notifier(*IMPATIENT)
    codes = ("PICKED_UP", "ARRIVED_AT_FACILITY", "OUT_FOR_DELIVERY", "DELIVERED")
    for minute, code in enumerate(codes):
        await stage.scan(scan_of(waybill, code, minute))
        await receiver.until(
            lambda code=code: (
                receiver.heard[-1].document["data"]["event"]["code"] == code  # type: ignore[misc] # bound now
                if receiver.heard
                else False
            )
        )
    well.set()
    heard_before = len(receiver.heard)
    await stage.settled([endpoint_id])
    later = [heard.document["data"]["milestone"] for heard in receiver.heard[heard_before:]]
    assert set(later) == {"DELIVERED"}
    assert (await stage.progress(endpoint_id)).superseded >= 1


async def test_an_endpoint_is_told_once_however_often_it_is_scanned(
    stage: Stage, receiver: Receiver
) -> None:
    """News only, unless all changes are asked for; of one waybill in order."""
    (waybill,) = waybills(1)
    await stage.endpoint(receiver.url("/news"))
    asked = Endpoint(
        kind=EndpointKind.ENDPOINT_KIND_WEBHOOK, url=receiver.url("/all"), all_changes=True
    )
    await stage.notifications.create(asked)
    await stage.notifier()
    codes = ["PICKED_UP", "OUT_FOR_DELIVERY", "DELIVERY_ATTEMPT_FAILED"]
    codes += ["OUT_FOR_DELIVERY", "DELIVERY_ATTEMPT_FAILED", "OUT_FOR_DELIVERY", "DELIVERED"]
    for minute, code in enumerate(codes):
        await stage.scan(scan_of(waybill, code, minute))
    await receiver.until(lambda: len(receiver.at("/all")) == len(codes))
    await receiver.until(lambda: len(receiver.at("/news")) == 4)
    told = {
        path: [heard.document["data"]["event"]["code"] for heard in receiver.at(path)]
        for path in ("/news", "/all")
    }
    assert told["/all"] == codes
    assert told["/news"] == [*codes[:3], "DELIVERED"]


async def test_an_endpoint_that_is_gone_is_disabled_and_can_come_back(
    stage: Stage, receiver: Receiver
) -> None:
    """410 disables it; what came meanwhile is told when it is enabled again."""
    first, second = waybills(2)
    receiver.behaviours["/"] = answering(410)
    endpoint_id = await stage.endpoint(receiver.url("/"))
    notifier = await stage.notifier()
    await stage.scan(scan_of(first, "PICKED_UP"))
    async with asyncio.timeout(30):
        while True:
            found = await stage.notifications.get(endpoint_id)
            if found.state == EndpointState.ENDPOINT_STATE_DISABLED:
                break
            await asyncio.sleep(0.02)
    assert found.disabled_reason == "answered 410"
    assert sum(notifier.scrape("trackd_notify_unsafe_flags").values()) == 1
    heard_before = len(receiver.heard)
    await stage.scan(scan_of(second, "PICKED_UP"))
    receiver.behaviours["/"] = answering(204)
    await stage.notifications.enable(endpoint_id)
    await stage.settled([endpoint_id])
    told = [heard.waybill for heard in receiver.heard[heard_before:]]
    assert sorted(told) == [first, second]
    receiver.behaviours["/"] = answering(410)
    tested = await stage.notifications.test(endpoint_id)
    assert tested.outcome == DeliveryOutcome.DELIVERY_OUTCOME_GONE
    found = await stage.notifications.get(endpoint_id)
    assert found.state == EndpointState.ENDPOINT_STATE_DISABLED, "before the test is answered"


async def test_tests_secrets_and_the_log(stage: Stage, receiver: Receiver) -> None:
    """A test is signed and answered; a rotation signs twice until its overlap is over."""
    made = await stage.notifications.create(
        Endpoint(kind=EndpointKind.ENDPOINT_KIND_WEBHOOK, url=receiver.url("/"))
    )
    endpoint_id = made.endpoint.id
    await stage.notifier()

    async def tested() -> Heard:
        result = await stage.notifications.test(endpoint_id)
        assert result.outcome == DeliveryOutcome.DELIVERY_OUTCOME_DELIVERED
        assert (result.status_code, result.test) == (204, True)
        return receiver.heard[-1]

    heard = await tested()
    assert Webhook(made.secret).verify(heard.body, heard.headers)["type"] == "trackd.test"
    rotated = await stage.notifications.rotate_secret(endpoint_id, overlap_ms=60_000)
    heard = await tested()
    for secret in (made.secret, rotated.secret):
        Webhook(secret).verify(heard.body, heard.headers)
    last = await stage.notifications.rotate_secret(endpoint_id, overlap_ms=200)
    async with asyncio.timeout(30):
        while len((heard := await tested()).headers["webhook-signature"].split(" ")) > 1:
            pass
    Webhook(last.secret).verify(heard.body, heard.headers)
    receiver.behaviours["/"] = answering(500)
    failed = await stage.notifications.test(endpoint_id)
    assert (failed.status_code, failed.error) == (500, "answered 500")
    logged = [each async for each in stage.notifications.deliveries(endpoint_id)]
    assert logged[0].status_code == 500
    assert {each.test for each in logged} == {True}
    assert logged == sorted(logged, key=lambda each: -each.started_at_ms)


async def test_several_notifiers_share_the_work_and_stop_in_order(
    stage: Stage, receiver: Receiver
) -> None:
    """SIGTERM finishes what is under way and hands the rest on: everything is told exactly once."""

    async def slowly(heard: Heard, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.05)
        return await answering(204)(heard, writer)

    receiver.behaviours["/"] = slowly
    endpoint_id = await stage.endpoint(receiver.url("/"))
    notifiers = [await stage.notifier("--endpoint-attempts-max", "4") for _ in range(2)]
    wanted = waybills(80)
    await stage.scan(*(scan_of(each, "PICKED_UP") for each in wanted))
    await receiver.until(lambda: len(receiver.heard) >= 20)
    assert await notifiers[0].stop() == 0
    assert '"the notifier stopped"' in notifiers[0].log
    await stage.settled([endpoint_id])
    assert sorted(heard.waybill for heard in receiver.heard) == wanted
    assert await notifiers[1].stop() == 0


async def test_a_server_that_dies_keeps_its_endpoints(
    serve: Serve, receiver: Receiver, tmp_path: Path
) -> None:
    """Killed: the endpoint, its secret and its place are there; what it had made durable of what
    was told does not come again.

    The secret is in no file but the receiver's own: neither in the data nor in the key file.
    """
    first, second = waybills(2)
    server = await asyncio.to_thread(serve, *SERVER_FLAGS)
    async with stage_of(server, tmp_path) as stage:
        made = await stage.notifications.create(
            Endpoint(kind=EndpointKind.ENDPOINT_KIND_WEBHOOK, url=receiver.url("/"))
        )
        endpoint_id = made.endpoint.id
        await stage.notifier()
        await stage.scan(scan_of(first, "PICKED_UP"))
        await stage.settled([endpoint_id])
        # A killed server may have forgotten the last moments; who lists what is parked has all of
        # it saved before.
        assert await stage.parked(endpoint_id) == set()
        await asyncio.to_thread(server.kill)
        address = ("--grpc", server.grpc)
        await asyncio.to_thread(server.start, *address)
        await stage.scan(scan_of(second, "PICKED_UP"))
        await receiver.until(lambda: len(receiver.heard) >= 2)
        await stage.settled([endpoint_id])
        assert [heard.waybill for heard in receiver.heard] == [first, second]
        for heard in receiver.heard:
            Webhook(made.secret).verify(heard.body, heard.headers)
    key = server.data.with_name(f"{server.data.name}.key")
    assert key.stat().st_mode & 0o777 == 0o600
    secret = made.secret.removeprefix("whsec_").encode()
    assert await asyncio.to_thread(files_with, secret, tmp_path) == []
    assert await asyncio.to_thread(files_with, b"trackd-key-1", tmp_path) == [key]
