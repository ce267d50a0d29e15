"""Named subscriptions over two workers: what holds in one process holds here, whoever is asked.

The tests of tests/wire/test_subscriptions.py run here once more, through each of the workers.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from tests.cluster.test_watching import Watcher, place
from tests.cluster.test_workers import append, of_partition, own_addresses
from tests.harness.oracle import expect_sound
from tests.harness.scans import waybills_of
from tests.harness.server import ServerProcess
from tests.harness.workers import wait_for
from tests.wire.caller import Caller
from tests.wire.conftest import waybill
from tests.wire.test_subscriptions import (
    name,
    stub,
    test_a_consumer_that_says_nonsense_is_told,
    test_a_deleted_subscription_ends_its_consumers,
    test_a_field_out_of_its_range_is_named,
    test_a_filter_and_a_start_are_kept,
    test_a_waybill_goes_in_order_and_others_pass_it_by,
    test_parked_changes_are_listed_redriven_and_dropped,
    test_settings_come_back_with_their_defaults,
    test_what_is_unacknowledged_comes_again,
)
from trackd import exits
from trackd.client.consumer import Consumer, ConsumerOptions
from trackd.client.subscriptions import Subscriptions
from trackd.v1 import feed_pb2 as pb

__all__ = [
    "name",
    "stub",
    "test_a_consumer_that_says_nonsense_is_told",
    "test_a_deleted_subscription_ends_its_consumers",
    "test_a_field_out_of_its_range_is_named",
    "test_a_filter_and_a_start_are_kept",
    "test_a_waybill_goes_in_order_and_others_pass_it_by",
    "test_parked_changes_are_listed_redriven_and_dropped",
    "test_settings_come_back_with_their_defaults",
    "test_what_is_unacknowledged_comes_again",
    "waybill",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Two workers over four partitions, for the tests that leave it as they found it."""
    data = tmp_path_factory.mktemp("shared") / "data"
    server = ServerProcess(data, "--partitions", "4", "--workers", "2").start()
    yield server
    assert server.stop() == exits.DONE
    expect_sound(server.data)


@pytest.fixture(params=[0, 1], ids=["asking the leader", "asking another worker"])
async def caller(server: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    """A caller of the worker that leads, or of the other one."""
    one = Caller(own_addresses(server)[request.param])
    yield one
    await one.channel.close()


class Holders:
    """Consumers at both workers that hold each delivery for a moment, and how many were held."""

    def __init__(self, wanted: int) -> None:
        self.held = self.most_held = 0
        self.told: list[str] = []
        self.enough = asyncio.Event()
        self._wanted = wanted

    async def work(self, address: str, name: str, *, credits_each: int) -> None:
        """One consumer, until it is cancelled; it never holds more than its credits."""
        mine = 0
        options = ConsumerOptions(credits=credits_each, reconnects=False)
        async with Consumer(address, name, options=options) as consumer:
            async for delivery in consumer:
                mine, self.held = mine + 1, self.held + 1
                assert mine <= credits_each
                self.most_held = max(self.most_held, self.held)
                await asyncio.sleep(0)
                self.told.append(delivery.change.waybill_number)
                mine, self.held = mine - 1, self.held - 1
                consumer.ack(delivery.change.position)
                if len(self.told) == self._wanted:
                    self.enough.set()


@pytest.mark.parametrize(("max_in_flight", "credits_each"), [(1, 5), (100, 1), (3, 2)])
async def test_no_bound_is_exceeded_by_workers_together(
    server: ServerProcess, name: str, max_in_flight: int, credits_each: int
) -> None:
    """What is in flight over all partitions, and with each consumer, wherever it is connected."""
    doors = own_addresses(server)
    numbers = waybills_of(f"BOUND{max_in_flight}", 60)
    async with Subscriptions(doors[1]) as subscriptions:
        wanted = pb.ChangeFilter(waybill_numbers=numbers)
        await subscriptions.create(
            pb.Subscription(name=name, filter=wanted, max_in_flight=max_in_flight)
        )
        await asyncio.to_thread(append, server.grpc, numbers)
        holders = Holders(len(numbers))
        working = [
            asyncio.create_task(holders.work(door, name, credits_each=credits_each))
            for door in doors * 2
        ]
        enough = asyncio.create_task(holders.enough.wait())
        done, _ = await asyncio.wait(
            {enough, *working}, return_when=asyncio.FIRST_COMPLETED, timeout=60
        )
        assert done == {enough}, done
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        progress = (await subscriptions.get(name)).progress
    assert sorted(holders.told) == sorted(numbers)
    assert holders.most_held <= min(max_in_flight, credits_each * len(working))
    assert (progress.acknowledged, progress.redelivered) == (len(numbers), 0)


async def _told(address: str, name: str, count: int) -> list[tuple[str, int]]:
    """The waybill and the attempt of so many deliveries; all acknowledged."""
    told = []
    options = ConsumerOptions(credits=1_000)
    async with Consumer(address, name, options=options) as consumer, asyncio.timeout(60):
        async for delivery in consumer:
            told.append((delivery.change.waybill_number, delivery.attempt))
            consumer.ack(delivery.change.position)
            if len(told) == count:
                break
    return told


def starting(name: str, numbers: Sequence[str], start: pb.FeedStart) -> pb.Subscription:
    """A subscription of these waybills that begins there."""
    return pb.Subscription(name=name, filter=pb.ChangeFilter(waybill_numbers=numbers), start=start)


async def test_a_start_is_a_place_in_every_partition(server: ServerProcess, name: str) -> None:
    """Now, the earliest, and a token of a watch, over the partitions of both workers."""
    door = own_addresses(server)[1]
    before, after = waybills_of(f"BEFORE{name[5:]}", 20), waybills_of(f"AFTER{name[5:]}", 20)
    await asyncio.to_thread(append, server.grpc, before)
    watcher = Watcher()
    await watcher.until(door, watcher.is_caught_up, start=place(pb.START_FROM_NOW))
    starts = {
        "earliest": (place(pb.START_FROM_EARLIEST), [*before, *after]),
        "now": (place(pb.START_FROM_NOW), after),
        "token": (pb.FeedStart(resume_token=watcher.token), after),
    }
    async with Subscriptions(door) as subscriptions:
        for which, (start, _) in starts.items():
            await subscriptions.create(starting(f"{name}/{which}", [*before, *after], start))
        await asyncio.to_thread(append, server.grpc, after)
        for which, (_, numbers) in starts.items():
            told = await _told(server.grpc, f"{name}/{which}", len(numbers))
            assert sorted(told) == sorted((number, 1) for number in numbers), which
            assert (await subscriptions.get(f"{name}/{which}")).progress.lag == 0


async def test_the_leader_shows_figures_over_all_partitions(
    server: ServerProcess, name: str
) -> None:
    """On the page of all workers: one sample for each subscription."""
    numbers = waybills_of("FIGURES", 40)
    async with Subscriptions(server.grpc) as subscriptions:
        start = place(pb.START_FROM_NOW)
        await subscriptions.create(starting(name, numbers, start))
        await asyncio.to_thread(append, server.grpc, numbers)
        assert all(of_partition(each, numbers) for each in range(4))
        sample = f'trackd_subscription_lag{{subscription="{name}",worker="0"}}'
        await asyncio.to_thread(wait_for, lambda: server.scrape().get(sample) == len(numbers))
        assert (await subscriptions.get(name)).progress.lag == len(numbers)
