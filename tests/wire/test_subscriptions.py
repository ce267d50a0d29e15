"""Named subscriptions as a caller sees them: settings, deliveries, parked changes, refusals."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc import aio

from tests.wire.caller import Caller, refused, scan_event
from trackd.client.consumer import Consumer, ConsumerOptions
from trackd.client.errors import InvalidRequest
from trackd.client.subscriptions import Subscriptions
from trackd.domain.vocabulary import EventCode
from trackd.v1 import feed_pb2 as pb
from trackd.v1.feed_pb2_grpc import FeedServiceStub
from trackd.v1.vocabulary_pb2 import MILESTONE_DELIVERED

_names = itertools.count(1)
FROM_SNAPSHOT = pb.FeedStart(**{"from": pb.START_FROM_SNAPSHOT})  # type: ignore[arg-type]
CREDITS = ConsumerOptions(credits=100, reconnects=False)
# A connection that takes no more than 64 KiB which nobody has read.
NARROW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 << 10)]


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"test/{next(_names)}"


@pytest.fixture
def stub(caller: Caller) -> Any:
    """The bare calls."""
    return FeedServiceStub(caller.channel)


def only(name: str, *waybills: str, **settings: Any) -> pb.Subscription:
    """A subscription of these waybills, so that no other test is in its way."""
    wanted = pb.ChangeFilter(waybill_numbers=waybills)
    return pb.Subscription(name=name, filter=wanted, **settings)


async def next_of(deliveries: Any) -> tuple[str, int, str]:
    """Event id, attempt and position of the next delivery."""
    delivery = await asyncio.wait_for(anext(deliveries), 30)
    return delivery.change.event.event_id, delivery.attempt, delivery.change.position


async def test_settings_come_back_with_their_defaults(caller: Caller, name: str) -> None:
    """A repeat is answered as it is; other settings are refused; an update replaces all."""
    async with Subscriptions(caller.address) as subscriptions:
        made = await subscriptions.create(pb.Subscription(name=name))
        assert (made.ack_timeout_ms, made.max_attempts, made.max_in_flight) == (30_000, 10, 1_000)
        assert list(made.retry_backoff_ms) == [1_000, 5_000, 30_000, 120_000, 600_000]
        assert await subscriptions.create(pb.Subscription(name=name)) == made
        with pytest.raises(InvalidRequest) as error:
            await subscriptions.create(pb.Subscription(name=name, max_attempts=3))
        assert error.value.reason == "SUBSCRIPTION_EXISTS"
        asked = only(name, "SF1234", max_attempts=3, retry_backoff_ms=[0, 7], supersede=True)
        updated = await subscriptions.update(asked)
        assert (updated.max_attempts, updated.supersede) == (3, True)
        assert (await subscriptions.get(name)).subscription == updated
        assert updated in await subscriptions.list()
        await subscriptions.delete(name)
        with pytest.raises(InvalidRequest) as error:
            await subscriptions.get(name)
        assert error.value.reason == "SUBSCRIPTION_NOT_FOUND"


async def test_a_waybill_goes_in_order_and_others_pass_it_by(
    caller: Caller, name: str, waybill: str
) -> None:
    """The next of a waybill comes when the one before it is acknowledged; attempts are counted."""
    other = f"{waybill}-B"
    async with Subscriptions(caller.address) as subscriptions:
        await subscriptions.create(only(name, waybill, other))
        for number, code in enumerate((EventCode.PICKED_UP, EventCode.SORTED)):
            await caller.append(scan_event(f"a{number}", waybill, code=int(code)))
            await caller.append(scan_event(f"b{number}", other, code=int(code)))
        async with Consumer(caller.address, name, options=CREDITS) as consumer:
            deliveries = aiter(consumer)
            first = {await next_of(deliveries), await next_of(deliveries)}
            assert {event_id for event_id, _, _ in first} == {"a0", "b0"}
            places = {event_id: position for event_id, _, position in first}
            consumer.nack(places["a0"], delay_ms=1, reason="busy")
            consumer.ack(places["b0"])
            later = {await next_of(deliveries), await next_of(deliveries)}
            assert {each[:2] for each in later} == {("a0", 2), ("b1", 1)}
            for _, _, position in later:
                consumer.ack(position)
            event_id, attempt, position = await next_of(deliveries)
            assert (event_id, attempt) == ("a1", 1)
            consumer.ack(position)
        progress = (await subscriptions.get(name)).progress
        assert (progress.acknowledged, progress.redelivered) == (4, 1)
        assert (progress.lag, progress.in_flight, progress.waiting) == (0, 0, 0)


async def test_what_is_unacknowledged_comes_again(caller: Caller, name: str, waybill: str) -> None:
    """After its time, or when its consumer goes; an orderly leave is no attempt."""
    async with Subscriptions(caller.address) as subscriptions:
        await subscriptions.create(only(name, waybill, ack_timeout_ms=100))
        await caller.append(scan_event("a", waybill))
        async with Consumer(caller.address, name, options=CREDITS) as consumer:
            deliveries = aiter(consumer)
            assert (await next_of(deliveries))[:2] == ("a", 1)
            assert (await next_of(deliveries))[:2] == ("a", 2)
            await subscriptions.update(only(name, waybill, ack_timeout_ms=60_000))
            seen = (await next_of(deliveries))[1]
        for _ in range(3):
            async with Consumer(caller.address, name, options=CREDITS) as consumer:
                assert (await next_of(aiter(consumer)))[1] == seen
        abrupt = Consumer(caller.address, name, options=CREDITS)
        await abrupt.open()
        await next_of(aiter(abrupt))
        await abrupt.abandon()
        async with Consumer(caller.address, name, options=CREDITS) as consumer:
            assert (await next_of(aiter(consumer)))[1] == seen + 1


async def test_a_leave_in_the_midst_of_a_message_is_in_order(
    caller: Caller, name: str, waybill: str
) -> None:
    """Who says no more while a delivery is still being written to him had no attempt."""
    numbers = [f"{waybill}-{n}" for n in range(100)]
    wide = {str(n): "x" * 200 for n in range(16)}
    async with Subscriptions(caller.address) as subscriptions:
        await subscriptions.create(only(name, *numbers))
        scans = [scan_event("a", number, attributes=wide) for number in numbers]
        assert (await caller.append(*scans)).accepted == len(numbers)
        async with aio.insecure_channel(caller.address, options=NARROW) as channel:
            call: Any = FeedServiceStub(channel).ConsumeChanges()
            opening = pb.OpenConsumer(name=name, credits=len(numbers))
            await call.write(pb.ConsumeChangesRequest(open=opening))
            seen: list[int] = []
            # All is given out at once: five times what the connection takes while nobody reads.
            while not seen or seen[-1] < len(numbers):
                await asyncio.sleep(0.02)
                seen.append((await subscriptions.get(name)).progress.in_flight)
            await call.done_writing()
            await _to_its_end(call)
            assert await call.code() is grpc.StatusCode.OK
        async with Consumer(caller.address, name, options=CREDITS) as consumer:
            deliveries = aiter(consumer)
            assert {(await next_of(deliveries))[1] for _ in numbers} == {1}


async def test_runs_fit_into_the_smallest_response(
    small_caller: Caller, name: str, waybill: str
) -> None:
    """Whatever is told together, to consumers and to watches: this server sends 256 KiB at most."""
    numbers = [f"{waybill}-{n}" for n in range(30)]
    wide = {str(n): "字" * 200 for n in range(16)}
    async with Subscriptions(small_caller.address) as subscriptions:
        await subscriptions.create(only(name, *numbers))
        for number in numbers:
            assert (await small_caller.append(scan_event("a", number, attributes=wide))).accepted
        async with Consumer(small_caller.address, name, options=CREDITS) as consumer:
            deliveries = aiter(consumer)
            assert {(await next_of(deliveries))[0] for _ in numbers} == {"a"}
    start = pb.FeedStart(**{"from": pb.START_FROM_EARLIEST})  # type: ignore[arg-type]
    asked = pb.WatchChangesRequest(start=start)
    found: set[str] = set()
    async for message in FeedServiceStub(small_caller.channel).WatchChanges(asked):
        found |= {change.waybill_number for change in message.changes.changes}
        if message.HasField("caught_up"):
            break
    assert found >= set(numbers)


async def test_parked_changes_are_listed_redriven_and_dropped(
    caller: Caller, name: str, waybill: str
) -> None:
    """With why and how often; by page; by position or all; the lane moves on meanwhile."""
    others = [f"{waybill}-{n}" for n in range(4)]
    async with Subscriptions(caller.address) as subscriptions:
        await subscriptions.create(only(name, *others, max_attempts=1))
        for number in others:
            await caller.append(scan_event("a", number))
        async with Consumer(caller.address, name, options=CREDITS) as consumer:
            deliveries = aiter(consumer)
            for n in range(4):
                _, _, position = await next_of(deliveries)
                if n % 2:
                    consumer.park(position, reason="never")
                else:
                    consumer.nack(position, reason="not now")
        parked = [each async for each in subscriptions.parked(name, page_size=3)]
        assert {each.change.waybill_number for each in parked} == set(others)
        assert {(each.attempts, each.reason) for each in parked} == {(1, "never"), (1, "not now")}
        assert all(each.parked_at_ms for each in parked)
        positions = [each.change.position for each in parked]
        assert await subscriptions.redrive(name, positions[:1]) == 1
        assert await subscriptions.drop(name, positions[:2]) == 1
        assert (await subscriptions.get(name)).progress.parked == 2
        async with Consumer(caller.address, name, options=CREDITS) as consumer:
            deliveries = aiter(consumer)
            assert (await next_of(deliveries))[1:] == (1, positions[0])
            consumer.ack(positions[0])
            assert await subscriptions.redrive(name) == 2
            again = {await next_of(deliveries), await next_of(deliveries)}
            assert {position for _, _, position in again} == set(positions[2:])
            consumer.ack(*positions[2:])
        assert [each async for each in subscriptions.parked(name)] == []
        assert (await subscriptions.get(name)).progress.waiting == 0


async def test_a_filter_and_a_start_are_kept(caller: Caller, name: str, waybill: str) -> None:
    """From the earliest on, only what matches."""
    for number, code in enumerate((EventCode.PICKED_UP, EventCode.DELIVERED)):
        await caller.append(scan_event(f"a{number}", waybill, code=int(code)))
    asked = only(name, waybill)
    asked.filter.milestones.append(MILESTONE_DELIVERED)
    asked.start.CopyFrom(pb.FeedStart(**{"from": pb.START_FROM_EARLIEST}))  # type: ignore[arg-type]
    async with Subscriptions(caller.address) as subscriptions:
        await subscriptions.create(asked)
        async with Consumer(caller.address, name, options=CREDITS) as consumer:
            assert (await next_of(aiter(consumer)))[0] == "a1"


async def test_a_deleted_subscription_ends_its_consumers(caller: Caller, name: str) -> None:
    """They are told that it is gone, and one of the same name begins anew."""
    async with Subscriptions(caller.address) as subscriptions:
        await subscriptions.create(pb.Subscription(name=name))
        async with Consumer(caller.address, name) as consumer:
            await subscriptions.delete(name)
            with pytest.raises(InvalidRequest) as error:
                await next_of(aiter(consumer))
            assert error.value.reason == "SUBSCRIPTION_NOT_FOUND"
        assert not (await subscriptions.create(pb.Subscription(name=name))).supersede


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda asked: asked.__setattr__("name", "Upper"), "subscription.name"),
        (lambda asked: asked.__setattr__("name", "a" * 65), "subscription.name"),
        (lambda asked: asked.__setattr__("ack_timeout_ms", 99), "subscription.ack_timeout_ms"),
        (lambda asked: asked.__setattr__("max_attempts", 1_001), "subscription.max_attempts"),
        (lambda asked: asked.__setattr__("max_in_flight", -1), "subscription.max_in_flight"),
        (lambda asked: asked.retry_backoff_ms.append(-1), "subscription.retry_backoff_ms"),
        (lambda asked: asked.retry_backoff_ms.extend([1] * 101), "subscription.retry_backoff_ms"),
        (lambda asked: asked.filter.account_ids.append("x"), "subscription.filter.account_ids"),
        (lambda asked: asked.filter.milestones.append(3), "subscription.filter.milestones"),
        (
            lambda asked: asked.filter.waybill_numbers.append("no"),
            "subscription.filter.waybill_numbers",
        ),
        (
            lambda asked: asked.start.CopyFrom(FROM_SNAPSHOT),
            "subscription.start.from",
        ),
        (
            lambda asked: asked.start.CopyFrom(pb.FeedStart(resume_token="x")),
            "subscription.start.resume_token",
        ),
    ],
)
async def test_a_field_out_of_its_range_is_named(
    stub: Any, name: str, change: Callable[[Any], None], field: str
) -> None:
    """Nothing is made, and the same for an update of what it can update."""
    asked = pb.Subscription(name=name)
    change(asked)
    refusal = await refused(
        stub.CreateSubscription(pb.CreateSubscriptionRequest(subscription=asked))
    )
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.metadata["field"] == field


async def test_positions_of_any_length_are_answered(stub: Any, caller: Caller, name: str) -> None:
    """What no change has is passed over by an acknowledgement, or refused; never a defect."""
    made = pb.CreateSubscriptionRequest(subscription=pb.Subscription(name=name))
    await stub.CreateSubscription(made)
    await caller.append(scan_event("a", "SF7654321"))
    data_set_id = (await caller.status("SF7654321")).position.partition("/")[0]
    opening = pb.ConsumeChangesRequest(open=pb.OpenConsumer(name=name, credits=1))
    for digits in (18, 19, 20, 5_000):
        position = f"{data_set_id}/0." + "9" * digits
        said = [
            pb.ConsumeChangesRequest(ack=pb.AcknowledgeChanges(positions=[position])),
            pb.ConsumeChangesRequest(nack=pb.RejectChange(position=position)),
            pb.ConsumeChangesRequest(park=pb.ParkChange(position=position)),
        ]
        asked: list[Any] = [stub.ConsumeChanges(iter([opening, each])) for each in said]
        calls = [_to_its_end(each) for each in asked]
        of_it: dict[str, Any] = {"name": name, "positions": [position]}
        calls += [
            _answered(stub.RedriveParkedChanges(pb.RedriveParkedChangesRequest(**of_it))),
            _answered(stub.DropParkedChanges(pb.DropParkedChangesRequest(**of_it))),
        ]
        if digits == 18:
            await asyncio.gather(*calls)
            continue
        for call in calls:
            refusal = await refused(call)
            told = (refusal.code, refusal.reason)
            assert told == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_POSITION")


async def _to_its_end(call: Any) -> None:
    async for _ in call:
        pass


async def _answered(call: Any) -> None:
    await call


async def test_a_consumer_that_says_nonsense_is_told(stub: Any, name: str) -> None:
    """Its call ends, with the field that is at fault."""
    await stub.CreateSubscription(
        pb.CreateSubscriptionRequest(subscription=pb.Subscription(name=name))
    )
    opening = pb.ConsumeChangesRequest(open=pb.OpenConsumer(name=name, credits=1))
    said = {
        "open": [pb.ConsumeChangesRequest(credits=1)],
        "open.credits": [pb.ConsumeChangesRequest(open=pb.OpenConsumer(name=name))],
        "name": [pb.ConsumeChangesRequest(open=pb.OpenConsumer(name="", credits=1))],
        "kind": [opening, pb.ConsumeChangesRequest()],
        "ack.positions": [
            opening,
            pb.ConsumeChangesRequest(ack=pb.AcknowledgeChanges(positions=["x"])),
        ],
        "nack.position": [opening, pb.ConsumeChangesRequest(nack=pb.RejectChange(position="/0"))],
        "credits": [opening, pb.ConsumeChangesRequest(credits=100_001)],
    }
    for field, messages in said.items():
        call = stub.ConsumeChanges(iter(messages))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            async for _ in call:
                pass
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT, field
        assert (error.value.details() or "").startswith(f"{field}:"), error.value.details()
