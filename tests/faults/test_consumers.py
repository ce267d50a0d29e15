"""Rows 1 and 2 with consumers: server and consumers die, and every change is settled once.

In effect: what was settled for sure never comes again, what was not does, nothing is skipped, and a
waybill's changes come one at a time and in order (I6).
"""

import asyncio
import random
import signal

import pytest

from tests.conftest import Serve
from tests.harness.campaign import expect_all_seen, make_sure, subscribe
from tests.harness.crew import Crew
from tests.harness.fleet import Fleet, FleetOptions
from tests.harness.ledger import Ledger
from tests.harness.seeds import seeded
from trackd.store import failpoint

_FLAGS = ("--partitions", "2", "--subscription-window-max", "1000")
_SMALL = FleetOptions(scanners=3, readers=0, batch_events_max=60, pause_s_max=0.02)
_POINTS = ("before_cursor_save", "after_cursor_save")
_POINT_TIMEOUT_S = 30.0
_DEATH_TIMEOUT_S = 60.0


async def _killed_with_consumers(serve: Serve, rng: random.Random, rounds: int) -> None:
    server = serve(*_FLAGS, start=False)
    fleet, crew = Fleet("CREW", Ledger(), rng, _SMALL), Crew("crew", rng)
    for number in range(rounds):
        await asyncio.to_thread(server.start)
        if not number:
            await subscribe(server.grpc, crew.name)
        fleet.new_waybills()
        async with fleet.at_work(server.grpc):
            async with crew.at_work(server.grpc, dying=True):
                await asyncio.sleep(rng.uniform(0.1, 0.4))
                async with asyncio.timeout(_DEATH_TIMEOUT_S):
                    while not crew.deaths:  # noqa: ASYNC110 (they die unheard)
                        await asyncio.sleep(0.02)
            await make_sure(server.grpc, crew)
            async with crew.at_work(server.grpc):
                await asyncio.sleep(rng.uniform(0.05, 0.4))
                server.kill()
        crew.server_died()
        assert crew.faults == []
    await asyncio.to_thread(server.start)
    await expect_all_seen(server.grpc, crew)
    assert crew.deaths > 0
    assert crew.redelivered > 0
    assert server.stop() == 0


async def test_whoever_dies_every_change_is_settled_once_and_in_order(serve: Serve) -> None:
    """Server and consumers killed in turn, under load, with rejections and parking."""
    await _killed_with_consumers(serve, seeded("consumers"), rounds=3)


@pytest.mark.torture
async def test_whoever_dies_a_thousand_times(serve: Serve) -> None:
    """The same, long: forty directories, each killed twenty times."""
    rng = seeded("consumers, long")
    for _ in range(40):
        await _killed_with_consumers(serve, rng, rounds=20)


async def _die_at_cursor_saves(serve: Serve, rng: random.Random, rounds: int) -> None:
    server = serve(*_FLAGS, start=False)
    fleet, crew = Fleet("SAVE", Ledger(), rng, _SMALL), Crew("crew", rng)
    await asyncio.to_thread(server.start)
    await subscribe(server.grpc, crew.name)
    assert server.stop() == 0
    for point in _POINTS * rounds:
        server.env = {"TRACKD_FAILPOINT": f"{point}:{rng.choice((0.3, 0.05))}"}
        await asyncio.to_thread(server.start)
        fleet.new_waybills()
        async with fleet.at_work(server.grpc), crew.at_work(server.grpc):
            code = await asyncio.to_thread(server.wait, _POINT_TIMEOUT_S)
        assert code == -signal.SIGKILL, f"{point} was not reached"
        assert crew.faults == []
    server.env = {}
    await asyncio.to_thread(server.start)
    await expect_all_seen(server.grpc, crew)


async def test_a_crash_around_a_save_of_progress_skips_nothing(serve: Serve) -> None:
    """Row 2 for subscriptions: whether the rows are written or not, they are one state."""
    assert set(_POINTS) <= failpoint.NAMES
    await _die_at_cursor_saves(serve, seeded("cursor saves"), rounds=1)


@pytest.mark.torture
async def test_many_crashes_around_saves_of_progress(serve: Serve) -> None:
    """The same, fifty times at each point."""
    await _die_at_cursor_saves(serve, seeded("cursor saves, long"), rounds=50)
