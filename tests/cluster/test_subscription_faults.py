"""Named subscriptions over two workers while workers die: nothing skipped, nothing out of order."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cluster.test_workers import append, own_addresses
from tests.conftest import Serve
from tests.harness.campaign import expect_all_seen, make_sure, progress, subscribe
from tests.harness.crew import Crew
from tests.harness.fleet import Fleet, FleetOptions
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound
from tests.harness.scans import waybills_of
from tests.harness.seeds import seeded
from tests.harness.server import ServerProcess
from tests.harness.workers import (
    health,
    kept_down,
    kill_worker,
    wait_for,
    wait_until_whole,
    worker_pids,
)
from tests.wire.caller import refused
from trackd import exits
from trackd.client.consumer import Consumer, ConsumerOptions
from trackd.client.errors import ServerUnavailable
from trackd.client.subscriptions import Subscriptions
from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.keys import Table, partition_of, split_subscription_key, status_key
from trackd.v1 import feed_pb2 as pb
from trackd.v1.feed_pb2_grpc import FeedServiceStub

_FLAGS = ("--partitions", "2", "--workers", "2", "--subscription-window-max", "1000")
_ALL = ConsumerOptions(credits=100, reconnects=False)
_SMALL = FleetOptions(scanners=3, readers=0, batch_events_max=60, pause_s_max=0.02)


async def _workers_killed_with_consumers(
    serve: Serve, rng: random.Random, kills: list[int]
) -> None:
    """kills: which worker, in turn."""
    server = serve(*_FLAGS, start=False)
    await asyncio.to_thread(server.start)
    doors = (server.grpc, *await asyncio.to_thread(own_addresses, server))
    fleet, crew = Fleet("SHARED", Ledger(), rng, _SMALL), Crew("crew", rng)
    await subscribe(server.grpc, crew.name)
    for number in kills:
        fleet.new_waybills()
        async with fleet.at_work(server.grpc):
            async with crew.at_work(*doors, dying=True):
                await asyncio.sleep(rng.uniform(0.1, 0.4))
            await make_sure(server.grpc, crew)
            async with crew.at_work(*doors):
                await asyncio.sleep(rng.uniform(0.05, 0.4))
                pid = kill_worker(server, number)
                # Those of the worker that leads go on with the others' changes meanwhile.
                await asyncio.sleep(rng.uniform(0.05, 0.4))
            crew.server_died()
        assert crew.faults == []
        await asyncio.to_thread(wait_until_whole, server, since={number: pid})
    await expect_all_seen(server.grpc, crew)
    assert crew.redelivered > 0
    assert await asyncio.to_thread(server.stop) == exits.DONE
    expect_sound(server.data)


async def test_whichever_worker_dies_every_change_is_settled_once_and_in_order(
    serve: Serve,
) -> None:
    """The one that leads, and one that owns shares, with consumers at both."""
    await _workers_killed_with_consumers(serve, seeded("shares"), [1, 0, 1])


@pytest.mark.torture
async def test_workers_die_three_hundred_times_under_consumers(serve: Serve) -> None:
    """The same, long: forty directories, eight kills each, of whichever worker."""
    rng = seeded("shares, long")
    for _ in range(40):
        await _workers_killed_with_consumers(serve, rng, rng.choices((0, 1), k=8))


async def test_a_stop_with_consumers_at_both_workers_forgets_nothing(serve: Serve) -> None:
    """Everything that was said before the stop is durable, whichever worker heard it."""
    rng = seeded("shares stop")
    server = serve(*_FLAGS, start=False)
    await asyncio.to_thread(server.start)
    doors = await asyncio.to_thread(own_addresses, server)
    fleet, crew = Fleet("SHSTOP", Ledger(), rng, _SMALL), Crew("crew", rng)
    crew.gentle = True
    await subscribe(server.grpc, crew.name)
    async with fleet.at_work(server.grpc), crew.at_work(*doors):
        await asyncio.sleep(0.3)
    seen = sum(map(len, crew.seen.values()))
    async with crew.at_work(*doors):
        while (await progress(server.grpc, crew.name)).lag:  # noqa: ASYNC110 (only a server knows)
            await asyncio.sleep(0.02)
        assert await asyncio.to_thread(server.stop) == exits.DONE
    crew.sure = set(crew.settled)
    await asyncio.to_thread(server.start)
    assert (await progress(server.grpc, crew.name)).lag == 0
    assert sum(map(len, crew.seen.values())) >= seen > 0
    await expect_all_seen(server.grpc, crew)


async def _subscribed(
    server: ServerProcess, name: str, numbers: list[str]
) -> tuple[list[str], dict[int, int]]:
    """A start, a subscription, a scan of each; the workers' own addresses and processes."""
    await asyncio.to_thread(server.start)
    doors = await asyncio.to_thread(own_addresses, server)
    await subscribe(doors[1], name)
    await asyncio.to_thread(append, server.grpc, numbers)
    return doors, await asyncio.to_thread(worker_pids, server)


async def test_a_worker_that_is_told_to_stop_lets_its_consumers_go_in_order(
    serve: Serve,
) -> None:
    """They are told to come back, and nothing that they or its partitions had counts as tried."""
    server = serve(*_FLAGS, start=False)
    numbers = waybills_of("LEAVE", 20)
    doors, old = await _subscribed(server, "leaving", numbers)
    async with Consumer(doors[1], "leaving", options=_ALL) as consumer:
        deliveries = aiter(consumer)
        assert {(await anext(deliveries)).attempt for _ in numbers} == {1}
        os.kill(old[1], signal.SIGTERM)
        with pytest.raises(ServerUnavailable) as told:
            await anext(deliveries)
        assert told.value.reason == "STOPPING"
    await asyncio.to_thread(wait_until_whole, server, since={1: old[1]})
    async with Consumer(doors[0], "leaving", options=_ALL) as consumer:
        deliveries = aiter(consumer)
        assert {(await anext(deliveries)).attempt for _ in numbers} == {1}


async def test_a_worker_that_stops_in_the_midst_of_a_message_to_the_leader_leaves_in_order(
    serve: Serve,
) -> None:
    """What is being handed on then is handed on first; nothing that was given out was tried."""
    server = serve(*_FLAGS, start=False)
    numbers = waybills_of("MIDST", 20)
    doors, old = await _subscribed(server, "leaving", numbers)
    async with grpc.aio.insecure_channel(doors[1]) as channel:
        call: Any = FeedServiceStub(channel).ConsumeChanges()
        await call.write(
            pb.ConsumeChangesRequest(open=pb.OpenConsumer(name="leaving", credits=100))
        )
        assert (await call.read()).HasField("opened")
        given = [(await call.read()).delivery for _ in numbers]
        acks = pb.AcknowledgeChanges(positions=[given[0].change.position] * 4_000)
        os.kill(old[0], signal.SIGSTOP)
        # Nobody takes them there: sooner or later a message is neither here nor there.
        stuck: set[asyncio.Task[None]] = set()
        while not stuck:
            writing = asyncio.create_task(call.write(pb.ConsumeChangesRequest(ack=acks)))
            written, stuck = await asyncio.wait([writing], timeout=0.5)
            await asyncio.gather(*written)
        os.kill(old[1], signal.SIGTERM)
        await asyncio.to_thread(server.logged, '"stopping"')
        os.kill(old[0], signal.SIGCONT)
        assert (await refused(_read_on(call))).reason == "STOPPING"
        await asyncio.gather(*stuck, return_exceptions=True)
    await asyncio.to_thread(wait_until_whole, server, since={1: old[1]})
    async with Consumer(doors[0], "leaving", options=_ALL) as consumer:
        deliveries = aiter(consumer)
        assert {(await anext(deliveries)).attempt for _ in numbers[1:]} == {1}


async def test_while_a_worker_is_away_its_part_waits_and_the_rest_goes_on(serve: Serve) -> None:
    """Consumers stay; what needs everybody is told to come back; nothing is left of a deletion."""
    server = serve(*_FLAGS, start=False)
    await asyncio.to_thread(server.start)
    doors = await asyncio.to_thread(own_addresses, server)
    numbers = waybills_of("AWAY", 40)
    mine, others = (
        [one for one in numbers if partition_of(status_key(one), 2) == number]
        for number in range(2)
    )
    for name in ("kept", "deleted"):
        await subscribe(server.grpc, name)
    await asyncio.to_thread(append, server.grpc, numbers)
    async with Subscriptions(doors[0]) as subscriptions:
        # It has rows with the other worker.
        for delivery in await _deliveries(doors[1], "deleted", len(numbers)):
            assert delivery.attempt == 1
        assert len([each async for each in subscriptions.parked("deleted")]) == len(numbers)
    options = ConsumerOptions(credits=1, reconnects=False)
    async with Consumer(doors[0], "kept", options=options) as consumer:
        deliveries = aiter(consumer)
        told: list[str] = []
        with kept_down(server, 1):
            await asyncio.to_thread(wait_for, lambda: not health(doors[0], "partition-1"))
            while len(told) < len(mine):
                told += await _next_of(deliveries, consumer, set(mine), told)
            async with grpc.aio.insecure_channel(doors[0]) as channel:
                stub = FeedServiceStub(channel)
                for call in (
                    stub.CreateSubscription(
                        pb.CreateSubscriptionRequest(subscription=pb.Subscription(name="new"))
                    ),
                    stub.GetSubscription(pb.GetSubscriptionRequest(name="kept")),
                    stub.ListParkedChanges(pb.ListParkedChangesRequest(name="kept")),
                ):
                    away = await refused(call)
                    assert away.reason == "PARTITION_UNAVAILABLE"
                    assert away.code is grpc.StatusCode.UNAVAILABLE
                    assert away.retry_after_s
                await stub.DeleteSubscription(pb.DeleteSubscriptionRequest(name="deleted"))
        while len(set(told)) < len(numbers):
            told += await _next_of(deliveries, consumer, {*mine, *others}, [])
    with kept_down(server, 0):
        await asyncio.to_thread(wait_for, lambda: not health(doors[1], "partition-0"))
        async with grpc.aio.insecure_channel(doors[1]) as channel:
            stub = FeedServiceStub(channel)
            away = await refused(stub.ListSubscriptions(pb.ListSubscriptionsRequest()))
            assert (away.reason, away.code) == (
                "PARTITION_UNAVAILABLE",
                grpc.StatusCode.UNAVAILABLE,
            )
            assert away.retry_after_s
        answer = await asyncio.to_thread(append, doors[1], others, "two")
        assert answer.accepted == len(others)
    await asyncio.to_thread(wait_until_whole, server)
    await progress(server.grpc, "kept")
    assert await asyncio.to_thread(server.stop) == exits.DONE
    for number in range(2):
        assert len(_subscriptions_with_rows(server.data / f"partition-{number:04}")) == 1


async def _read_on(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def _deliveries(address: str, name: str, count: int) -> list[pb.Delivery]:
    """So many deliveries, all parked."""
    found = []
    async with Consumer(address, name, options=_ALL) as consumer:
        deliveries = aiter(consumer)
        for _ in range(count):
            found.append(await anext(deliveries))
            consumer.park(found[-1].change.position, reason="never")
    return found


async def _next_of(
    deliveries: AsyncIterator[pb.Delivery], consumer: Consumer, wanted: set[str], told: list[str]
) -> list[str]:
    """The waybill of the next delivery, acknowledged, if it is wanted and was not told before."""
    async with asyncio.timeout(60):
        delivery = await anext(deliveries)
    consumer.ack(delivery.change.position)
    waybill = delivery.change.waybill_number
    return [waybill] if waybill in wanted and waybill not in told else []


def _subscriptions_with_rows(path: Path) -> set[bytes]:
    """The ids of the subscriptions that have rows in a partition that no server has open."""
    engine = RocksEngine(path, EngineOptions(), SharedCache(1 << 20))
    try:
        rows = engine.scan_all(Table.SUBSCRIPTIONS)
        return {split_subscription_key(key)[0] for key, _ in rows}
    finally:
        engine.close()
