"""NotificationService: what an endpoint may be, what is kept of it, and its delivery log."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from tests.conftest import Serve
from tests.harness.seeds import seeded
from tests.harness.server import ServerProcess
from tests.notify.stage import SERVER_FLAGS, Stage, stage_of
from trackd.client.errors import InvalidRequest, TrackdError
from trackd.client.notifications import Notifications
from trackd.client.subscriptions import Subscriptions
from trackd.feed.change import varint
from trackd.v1 import feed_pb2
from trackd.v1 import notification_pb2 as pb
from trackd.v1.feed_pb2_grpc import FeedServiceStub
from trackd.v1.notification_pb2_grpc import NotificationServiceStub
from trackd.v1.vocabulary_pb2 import Milestone

WEBHOOK, MESSAGE = pb.ENDPOINT_KIND_WEBHOOK, pb.ENDPOINT_KIND_MESSAGE
WECOM = "wecombot://11112222-3333-4444-5555-666677778888"
HTTPS = "https://hooks.example.com/trackd"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all of these tests but those that stop it."""
    started = ServerProcess(
        tmp_path_factory.mktemp("endpoints") / "data",
        *("--workers", "1", "--partitions", "2", "--deliveries-kept-max", "100"),
    )
    yield started.start()
    assert started.stop() == 0


def webhook(**more: object) -> pb.Endpoint:
    """A webhook endpoint."""
    return pb.Endpoint(kind=WEBHOOK, url=HTTPS, **more)  # type: ignore[arg-type] # any field


def message(**more: object) -> pb.Endpoint:
    """A message endpoint."""
    return pb.Endpoint(kind=MESSAGE, url=WECOM, **more)  # type: ignore[arg-type] # any field


def quiet(from_minute: int, until_minute: int, zone: str = "") -> pb.QuietHours:
    """Quiet hours."""
    return pb.QuietHours(from_minute=from_minute, until_minute=until_minute, time_zone=zone)


def wanted(**fields: Any) -> feed_pb2.ChangeFilter:
    """A filter, which need not be one that can be used."""
    return feed_pb2.ChangeFilter(**fields)


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [
        (pb.Endpoint(url=HTTPS), "endpoint.kind"),
        (pb.Endpoint(kind=WEBHOOK, url="http://hooks.example.com/"), "endpoint.url"),
        (pb.Endpoint(kind=WEBHOOK, url="https://127.0.0.1/"), "endpoint.url"),
        (pb.Endpoint(kind=WEBHOOK, url="http://127.0.0.1:80/"), "endpoint.url"),
        (pb.Endpoint(kind=WEBHOOK), "endpoint.url"),
        (webhook(description="x" * 201), "endpoint.description"),
        (webhook(description="a\nb"), "endpoint.description"),
        (webhook(language="en"), "endpoint.language"),
        (webhook(template="short"), "endpoint.template"),
        (webhook(quiet_hours=quiet(0, 1)), "endpoint.quiet_hours"),
        (webhook(rate_cap=pb.RateCap(messages=1, per_ms=1_000)), "endpoint.rate_cap"),
        (pb.Endpoint(kind=MESSAGE, url=HTTPS), "endpoint.url"),
        (pb.Endpoint(kind=MESSAGE, url="json://127.0.0.1/"), "endpoint.url"),
        (message(envelope=pb.ENVELOPE_CLOUDEVENTS), "endpoint.envelope"),
        (message(language="de"), "endpoint.language"),
        (message(template="No Template"), "endpoint.template"),
        (message(quiet_hours=quiet(-1, 60)), "endpoint.quiet_hours.from_minute"),
        (message(quiet_hours=quiet(0, 1440)), "endpoint.quiet_hours.until_minute"),
        (message(quiet_hours=quiet(60, 60)), "endpoint.quiet_hours"),
        (message(quiet_hours=quiet(0, 60, "Mars/Base")), "endpoint.quiet_hours.time_zone"),
        (message(quiet_hours=quiet(0, 60, "../../etc")), "endpoint.quiet_hours.time_zone"),
        (message(rate_cap=pb.RateCap(messages=0, per_ms=1_000)), "endpoint.rate_cap.messages"),
        (message(rate_cap=pb.RateCap(messages=1, per_ms=1)), "endpoint.rate_cap.per_ms"),
    ],
)
async def test_what_no_endpoint_may_be(stage: Stage, endpoint: pb.Endpoint, field: str) -> None:
    """Refused with the field, and nothing is made."""
    with pytest.raises(InvalidRequest) as refused:
        await stage.notifications.create(endpoint)
    assert (refused.value.reason, refused.value.metadata["field"]) == ("INVALID_ENDPOINT", field)
    assert list(await stage.notifications.list()) == []


async def test_an_endpoint_is_made_and_found_with_its_defaults(stage: Stage) -> None:
    """In the order in which they were made; a secret is shown once; URLs to people never are."""
    first = await stage.notifications.create(webhook(description="shop 7"))
    second = await stage.notifications.create(
        message(quiet_hours=quiet(22 * 60, 8 * 60), rate_cap=pb.RateCap(messages=3, per_ms=60_000))
    )
    assert first.secret.startswith("whsec_")
    assert second.secret == ""
    found = await stage.notifications.list()
    assert list(found) == [first.endpoint, second.endpoint]
    assert found[0].envelope == pb.ENVELOPE_STANDARD
    assert found[0].state == pb.ENDPOINT_STATE_ENABLED
    assert (found[1].url, found[1].language, found[1].template) == ("wecombot://…", "zh", "default")
    assert found[1].quiet_hours.time_zone == "Asia/Shanghai"
    assert await stage.notifications.get(first.endpoint.id) == first.endpoint
    targets = (await stage.notifications.targets(known_revision="", wait_ms=0)).targets
    assert [target.endpoint.url for target in targets] == [HTTPS, WECOM]
    assert [list(target.secrets) for target in targets] == [[first.secret], []]


async def test_an_endpoint_has_a_subscription_of_its_own(stage: Stage) -> None:
    """Made, changed and deleted with it; for news only unless all changes are asked for."""
    only_delivered = feed_pb2.ChangeFilter(milestones=[Milestone.MILESTONE_DELIVERED])
    made = (await stage.notifications.create(webhook(filter=only_delivered))).endpoint
    name = f"endpoint/{made.id}"
    async with grpc.aio.insecure_channel(stage.server.grpc) as channel:
        feed = FeedServiceStub(channel)

        async def subscription() -> feed_pb2.Subscription:
            asked = feed_pb2.GetSubscriptionRequest(name=name)
            return (await feed.GetSubscription(asked)).subscription

        found = await subscription()
        assert found.filter.news_only
        assert list(found.filter.milestones) == [Milestone.MILESTONE_DELIVERED]
        assert (found.supersede, found.max_attempts) == (True, 11)
        assert list(found.retry_backoff_ms)[:2] == [5_000, 30_000]
        assert list(found.retry_backoff_ms)[-1] == 86_400_000
        made.all_changes = True
        made.ClearField("filter")
        made.url = ""
        changed = await stage.notifications.update(made)
        assert (changed.url, changed.all_changes) == (HTTPS, True)
        assert not (await subscription()).filter.news_only
        await stage.notifications.delete(made.id)
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await subscription()
        assert gone.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_subscription_of_an_endpoint_is_the_endpoints(stage: Stage) -> None:
    """It is neither made nor deleted by itself: an endpoint would be told nothing, unnoticed."""
    made = (await stage.notifications.create(webhook())).endpoint
    async with Subscriptions(stage.server.grpc) as subscriptions:
        for call in (
            subscriptions.delete(f"endpoint/{made.id}"),
            subscriptions.create(feed_pb2.Subscription(name="endpoint/ep_abcdefghijklmnop")),
        ):
            with pytest.raises(TrackdError) as refused:
                await call
            assert refused.value.reason == "SUBSCRIPTION_OF_ENDPOINT"
        assert (await subscriptions.get(f"endpoint/{made.id}")).subscription.supersede
        await subscriptions.create(feed_pb2.Subscription(name="endpoint/of-mine"))
        await subscriptions.delete("endpoint/of-mine")


async def test_a_filter_is_shown_as_it_is_understood(stage: Stage) -> None:
    """Waybills in their normal form, each value once."""
    asked = wanted(
        waybill_numbers=[" sf1234567890", "SF1234567890"], facility_codes=["B", "A", "B"]
    )
    made = (await stage.notifications.create(webhook(filter=asked))).endpoint
    assert made.filter == wanted(waybill_numbers=["SF1234567890"], facility_codes=["A", "B"])


async def test_an_unknown_endpoint(stage: Stage) -> None:
    """Every call about one says so, however long the id."""
    ask = stage.notifications
    for call in (
        ask.get("x" * 100_000),
        ask.get("ep_x"),
        ask.update(pb.Endpoint(id="ep_x", url=HTTPS)),
        ask.rotate_secret("ep_x"),
        ask.test("ep_x"),
        ask.disable("ep_x"),
        ask.enable("ep_x"),
        ask.delete("ep_x"),
        anext(ask.deliveries("ep_x")),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await call
        assert refused.value.reason == "ENDPOINT_NOT_FOUND"


async def test_the_list_is_told_when_it_changes(stage: Stage) -> None:
    """A notifier that knows it waits; whatever it has to know wakes it, and nothing else."""
    known = await stage.notifications.targets(known_revision="", wait_ms=0)
    assert known.complete
    same = await stage.notifications.targets(known_revision=known.revision, wait_ms=0)
    assert (same.complete, same.revision) == (False, known.revision)
    waiting = asyncio.ensure_future(
        stage.notifications.targets(known_revision=known.revision, wait_ms=30_000)
    )
    made = await stage.notifications.create(webhook())
    told = await waiting
    assert [target.endpoint.id for target in told.targets] == [made.endpoint.id]
    await stage.notifications.disable(made.endpoint.id, reason="moved")
    told = await stage.notifications.targets(known_revision=told.revision, wait_ms=30_000)
    assert told.targets[0].endpoint.disabled_reason == "moved"
    again = await stage.notifications.disable(made.endpoint.id, reason="again")
    assert again.disabled_reason == "moved", "the first reason stays"


async def test_the_log_is_bounded_and_read_in_pages(stage: Stage) -> None:
    """The newest first; the oldest made room; endpoints that are gone are ignored."""
    endpoint = (await stage.notifications.create(webhook())).endpoint
    attempts = [
        pb.RecordedDelivery(endpoint_id=each, delivery=pb.DeliveryAttempt(attempt=number + 1))
        for number in range(250)
        for each in (endpoint.id, "ep_gone")
    ]
    await stage.notifications.record(attempts)
    found = [each.attempt async for each in stage.notifications.deliveries(endpoint.id)]
    assert found == list(range(250, 150, -1))
    async with grpc.aio.insecure_channel(stage.server.grpc) as channel:
        stub = channel.unary_unary(
            "/trackd.v1.NotificationService/ListDeliveries",
            request_serializer=pb.ListDeliveriesRequest.SerializeToString,
            response_deserializer=pb.ListDeliveriesResponse.FromString,
        )
        pages, token = [], ""
        while True:
            asked = pb.ListDeliveriesRequest(id=endpoint.id, page_size=30, page_token=token)
            page = await stub(asked)
            pages.append([each.attempt for each in page.deliveries])
            token = page.next_page_token
            if not token:
                break
        assert [len(page) for page in pages] == [30, 30, 30, 10]
        assert [attempt for page in pages for attempt in page] == found
        for bad in (
            {"page_size": 501},
            {"page_size": -1},
            {"page_token": "x"},
            {"page_token": "0"},
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub(pb.ListDeliveriesRequest(id=endpoint.id, **bad))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub(pb.ListDeliveriesRequest(id=endpoint.id, page_token="9" * 5_000))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_this_version_does_not_know_is_not_kept(stage: Stage) -> None:
    """Of an endpoint as of an attempt, as it has no bound; the log of attempts can be saved."""
    unknown = b"\x9a\x06" + varint(300_000) + b"z" * 300_000  # field 99
    hours = pb.QuietHours(from_minute=1, until_minute=5).SerializeToString()
    made = message().SerializeToString() + _field(9, hours + unknown)
    attempt = pb.DeliveryAttempt(attempt=1).SerializeToString() + unknown
    async with grpc.aio.insecure_channel(stage.server.grpc) as channel:
        service = "/trackd.v1.NotificationService"
        call: Any = channel.unary_unary
        answer = await call(f"{service}/CreateEndpoint")(_field(1, made))
        assert len(answer) < 1_000
        endpoint = pb.CreateEndpointResponse.FromString(answer).endpoint
        assert endpoint.quiet_hours.until_minute == 5
        recorded = _field(1, endpoint.id.encode()) + _field(2, attempt)
        await call(f"{service}/RecordDeliveries")(_field(1, recorded))
    assert [each.attempt async for each in stage.notifications.deliveries(endpoint.id)] == [1]
    server = stage.server
    assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(server.start, "--grpc", server.grpc)
    assert [each.attempt async for each in stage.notifications.deliveries(endpoint.id)] == [1]


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


async def test_calls_that_are_given_up_leave_memory_and_disk_agreed(serve: Serve) -> None:
    """Whether it was done or not, it is so before a restart as it is after it."""
    server = await asyncio.to_thread(serve, *SERVER_FLAGS)
    rng = seeded("calls are given up")

    async def shown() -> list[Message]:
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            feed, ask = FeedServiceStub(channel), NotificationServiceStub(channel)
            named = await feed.ListSubscriptions(feed_pb2.ListSubscriptionsRequest())
            endpoints = await ask.ListEndpoints(pb.ListEndpointsRequest())
            return [*named.subscriptions, *endpoints.endpoints]

    async with grpc.aio.insecure_channel(server.grpc) as channel:
        feed: Any = FeedServiceStub(channel)
        ask: Any = NotificationServiceStub(channel)
        made = [
            (await ask.CreateEndpoint(pb.CreateEndpointRequest(endpoint=webhook()))).endpoint.id
            for _ in range(8)
        ]
        named = [feed_pb2.Subscription(name=f"given-up/{number}") for number in range(12)]
        for each in named[:8]:
            await feed.CreateSubscription(feed_pb2.CreateSubscriptionRequest(subscription=each))
        given_up = 0
        for call, request in (
            *((ask.DeleteEndpoint, pb.DeleteEndpointRequest(id=each)) for each in made[:3]),
            *((ask.DisableEndpoint, pb.DisableEndpointRequest(id=each)) for each in made[3:6]),
            *(
                (ask.EnableEndpoint, pb.EnableEndpointRequest(id=each, from_now=True))
                for each in made[6:]
            ),
            *(
                (feed.DeleteSubscription, feed_pb2.DeleteSubscriptionRequest(name=each.name))
                for each in named[:4]
            ),
            *((feed.UpdateSubscription, _update(each.name)) for each in named[4:8]),
            *(
                (feed.CreateSubscription, feed_pb2.CreateSubscriptionRequest(subscription=each))
                for each in named[8:]
            ),
        ):
            try:
                await call(request, timeout=rng.uniform(0.0005, 0.004))
            except grpc.aio.AioRpcError as error:
                given_up += error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert given_up, "void: every call was quicker than its caller"
    # What was given up is still under way; a call of the same kind comes after it.
    async with stage_of(server, server.data.parent) as stage:
        await stage.notifications.create(webhook())
    before = await shown()
    assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(server.start)
    assert await shown() == before


def _update(name: str) -> feed_pb2.UpdateSubscriptionRequest:
    changed = feed_pb2.Subscription(name=name, max_attempts=77)
    return feed_pb2.UpdateSubscriptionRequest(subscription=changed)


async def test_without_a_notifier_and_without_the_key(serve: Serve) -> None:
    """A test says at once that nobody is there to make it.

    Endpoints and their log outlive a stop and the key; what needs a secret says that it is gone.
    """
    server = await asyncio.to_thread(serve, *SERVER_FLAGS)
    async with Notifications(server.grpc) as notifications:
        made = await notifications.create(webhook())
        with pytest.raises(InvalidRequest) as refused:
            await notifications.test(made.endpoint.id)
        assert refused.value.reason == "NO_NOTIFIER"
        attempt = pb.DeliveryAttempt(attempt=1, error="answered 500")
        await notifications.record(
            [pb.RecordedDelivery(endpoint_id=made.endpoint.id, delivery=attempt)]
        )
    assert await asyncio.to_thread(server.stop) == 0
    server.data.with_name(f"{server.data.name}.key").unlink()
    await asyncio.to_thread(server.start)
    async with Notifications(server.grpc) as notifications:
        assert list(await notifications.list()) == [made.endpoint]
        assert [each async for each in notifications.deliveries(made.endpoint.id)] == [attempt]
        calls = (
            notifications.targets(known_revision="", wait_ms=0),
            notifications.create(webhook()),
            notifications.rotate_secret(made.endpoint.id),
        )
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [getattr(each, "reason", each) for each in answers] == ["KEY_UNAVAILABLE"] * 3
        await notifications.delete(made.endpoint.id)


def test_the_key_may_not_lie_with_the_data(serve: Serve, tmp_path: Path) -> None:
    """A copy of the data must not hold it."""
    data = tmp_path / "data"
    server = serve("--secrets-key-file", str(data / "key"), data=data, start=False)
    assert server.refuse() == 2
    assert "must not be in the data directory" in server.log
