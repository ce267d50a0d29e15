"""Endpoints and subscriptions: how many there may be, what is whose, and which filters are none."""

from collections.abc import Awaitable, Iterator
from typing import Any

import pytest

from tests.harness.server import ServerProcess
from tests.notify.stage import Stage
from trackd.client.errors import InvalidRequest, TrackdError
from trackd.client.subscriber import Subscriber
from trackd.client.subscriptions import Subscriptions
from trackd.v1 import feed_pb2
from trackd.v1 import notification_pb2 as pb


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that bounds both."""
    started = ServerProcess(
        tmp_path_factory.mktemp("bounds") / "data",
        *("--workers", "1", "--partitions", "2"),
        *("--endpoints-max", "3", "--subscriptions-max", "1"),
    )
    yield started.start()
    assert started.stop() == 0


def webhook(**more: Any) -> pb.Endpoint:
    """A webhook endpoint."""
    return pb.Endpoint(
        kind=pb.ENDPOINT_KIND_WEBHOOK, url="https://hooks.example.com/trackd", **more
    )


async def test_there_are_no_more_than_the_bound(stage: Stage) -> None:
    """One more is refused; one less makes room."""
    made = [(await stage.notifications.create(webhook())).endpoint for _ in range(3)]
    with pytest.raises(TrackdError) as refused:
        await stage.notifications.create(webhook())
    assert refused.value.reason == "TOO_MANY_ENDPOINTS"
    await stage.notifications.delete(made[1].id)
    await stage.notifications.create(webhook())


async def test_endpoints_leave_others_their_subscriptions(stage: Stage) -> None:
    """As many as subscriptions_max says beside those of endpoints, which endpoints_max bounds."""
    for _ in range(3):
        await stage.notifications.create(webhook())
    async with Subscriptions(stage.server.grpc) as subscriptions:
        await subscriptions.create(feed_pb2.Subscription(name="orders"))
        with pytest.raises(TrackdError) as refused:
            await subscriptions.create(feed_pb2.Subscription(name="invoices"))
        assert refused.value.reason == "TOO_MANY_SUBSCRIPTIONS"
        assert "subscriptions_max" in str(refused.value)
        endpoint = (await stage.notifications.list())[0]
        await stage.notifications.enable(endpoint.id, from_now=True)
        await subscriptions.delete("orders")


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"waybill_numbers": ["!"]}, "waybill_numbers", "INVALID_WAYBILL_NUMBER"),
        ({"waybill_numbers": ["SF12"] * 1_001}, "waybill_numbers", "INVALID_FIELD"),
        ({"facility_codes": ["x" * 33]}, "facility_codes", "INVALID_FIELD"),
        ({"milestones": [7]}, "milestones", "INVALID_FIELD"),
        ({"account_ids": ["a"]}, "account_ids", "INVALID_FIELD"),
    ],
)
async def test_a_filter_is_refused_alike_wherever_it_stands(
    stage: Stage, fields: dict[str, Any], field: str, reason: str
) -> None:
    """In an endpoint, in a subscription and in a watch: the same reason, field and limit."""
    asked = feed_pb2.ChangeFilter(**fields)
    async with Subscriptions(stage.server.grpc) as named, Subscriber(stage.server.grpc) as watching:
        refusals = []
        for call in (
            stage.notifications.create(webhook(filter=asked)),
            named.create(feed_pb2.Subscription(name="refused", filter=asked)),
            anext(aiter(watching.watch(asked))),
        ):
            with pytest.raises(InvalidRequest) as refused:
                await call
            refusals.append(refused.value)
    assert {each.reason for each in refusals} == {reason}
    places = [f"endpoint.filter.{field}", f"subscription.filter.{field}", f"filter.{field}"]
    assert [each.metadata["field"] for each in refusals] == places
    assert len({each.metadata.get("limit") for each in refusals}) == 1
    assert list(await stage.notifications.list()) == []


async def test_a_subscription_of_an_endpoint_keeps_its_schedule(stage: Stage) -> None:
    """Its waits and attempts are its own, whatever becomes of the endpoint; the rest is not."""
    made = (await stage.notifications.create(webhook(description="before"))).endpoint
    async with Subscriptions(stage.server.grpc) as subscriptions:
        asked = (await subscriptions.get(f"endpoint/{made.id}")).subscription
        asked.retry_backoff_ms[:] = [1_000]
        asked.max_attempts = 3
        await subscriptions.update(asked)
        made.description, made.url, made.all_changes = "after", "", True
        await stage.notifications.update(made)
        await stage.notifications.enable(made.id, from_now=True)
        kept = (await subscriptions.get(asked.name)).subscription
        assert (list(kept.retry_backoff_ms), kept.max_attempts) == ([1_000], 3)
        assert not kept.filter.news_only
        kept.supersede = False
        await _is_the_endpoints(subscriptions.update(kept))
        kept.supersede = True
        kept.filter.facility_codes.append("A")
        await _is_the_endpoints(subscriptions.update(kept))


async def _is_the_endpoints(call: Awaitable[object]) -> None:
    with pytest.raises(TrackdError) as refused:
        await call
    assert refused.value.reason == "SUBSCRIPTION_OF_ENDPOINT"
