"""Named subscriptions over two workers while workers die: nothing skipped, nothing out of order."""

import asyncio
import random

import pytest

from tests.cluster.test_workers import own_addresses
from tests.conftest import Serve
from tests.harness.campaign import expect_all_seen, make_sure, progress, subscribe
from tests.harness.crew import Crew
from tests.harness.fleet import Fleet, FleetOptions
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound
from tests.harness.seeds import seeded
from tests.harness.workers import kill_worker, wait_until_whole
from trackd import exits

_FLAGS = ("--partitions", "2", "--workers", "2", "--subscription-window-max", "1000")
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
async def test_workers_die_two_hundred_times_under_consumers(serve: Serve) -> None:
    """The same, long: ten directories, twenty kills each, of whichever worker."""
    rng = seeded("shares, long")
    for _ in range(10):
        await _workers_killed_with_consumers(serve, rng, rng.choices((0, 1), k=20))


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
