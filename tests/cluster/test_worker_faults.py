"""What happens to one worker, or to the supervisor, and what everybody else notices of it."""

import asyncio
import os
import random
import signal
from pathlib import Path

import grpc
import pytest

from tests.conftest import Serve
from tests.harness.faults import StorageFaults
from tests.harness.fleet import Fleet, FleetOptions
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, read_back
from tests.harness.seeds import seeded
from tests.harness.server import ServerProcess
from tests.harness.workers import (
    kill_worker,
    wait_until_gone,
    wait_until_whole,
    worker_pids,
)
from trackd import exits

# A short window makes statuses be written back while scans come in.
FLAGS = ("--partitions", "4", "--workers", "2", "--write-back-events-max", "2000")
OPTIONS = FleetOptions(scanners=4, readers=1, batch_events_max=100)
LOAD_S = (0.05, 0.4)
_OLD_WAYBILLS = 300


async def _workers_killed_again_and_again(serve: Serve, rng: random.Random, rounds: int) -> None:
    ledger = Ledger()
    server = serve(*FLAGS, start=False)
    await asyncio.to_thread(server.start)
    fleet = Fleet("WORKER", ledger, rng, OPTIONS)
    for _ in range(rounds):
        fleet.new_waybills()
        async with fleet.at_work(server.grpc):
            await asyncio.sleep(rng.uniform(*LOAD_S))
            number = rng.randrange(2)
            pid = kill_worker(server, number)
            # Some go on meanwhile, and some come to a worker that is not back yet.
            await asyncio.sleep(rng.uniform(*LOAD_S))
        await asyncio.to_thread(wait_until_whole, server, since={number: pid})
        old = sorted(ledger.shown)
        some = rng.sample(old, min(len(old), _OLD_WAYBILLS))
        await read_back(ledger, server.grpc, {*fleet.waybills, *some})
    assert await read_back(ledger, server.grpc)
    assert await asyncio.to_thread(server.stop) == exits.DONE
    expect_sound(server.data)


async def test_a_worker_killed_under_load_loses_nothing_acknowledged(serve: Serve) -> None:
    """Row 1 across workers: whichever dies, whenever, it is back soon, and I1-I5 and I7 hold."""
    await _workers_killed_again_and_again(serve, seeded("workers"), rounds=2)


@pytest.mark.torture
async def test_fifty_kills_of_workers_lose_nothing_acknowledged(serve: Serve) -> None:
    """Row 1 across workers, the long run."""
    await _workers_killed_again_and_again(serve, seeded("workers, long"), rounds=50)


async def _stopped_again_and_again(serve: Serve, rng: random.Random, rounds: int) -> None:
    ledger = Ledger()
    fleet = Fleet("WSTOP", ledger, rng, OPTIONS)
    server = serve(*FLAGS, start=False)
    for _ in range(rounds):
        await asyncio.to_thread(server.start)
        await read_back(ledger, server.grpc, fleet.waybills)
        fleet.new_waybills()
        async with fleet.at_work(server.grpc):
            await asyncio.sleep(rng.uniform(*LOAD_S))
            server.signal(signal.SIGTERM)
            code = await asyncio.to_thread(server.wait)
        assert code == exits.DONE, server.log_end
        assert set(fleet.ends) - {None} == {grpc.StatusCode.UNAVAILABLE}
    expect_sound(server.data)
    await asyncio.to_thread(server.start)
    assert await read_back(ledger, server.grpc)


async def test_a_stop_of_all_workers_under_load_is_orderly(serve: Serve) -> None:
    """Row 22 across workers: exit code 0, no loss, callers told to come back."""
    await _stopped_again_and_again(serve, seeded("workers stop"), rounds=1)


@pytest.mark.torture
async def test_thirty_stops_of_all_workers_under_load_are_orderly(serve: Serve) -> None:
    """Row 22 across workers, the long run."""
    await _stopped_again_and_again(serve, seeded("workers stop, long"), rounds=30)


async def test_workers_go_with_their_supervisor(serve: Serve) -> None:
    """The supervisor is killed under load: no worker stays, a new start loses nothing."""
    ledger = Ledger()
    fleet = Fleet("ORPHAN", ledger, seeded("orphans"), OPTIONS)
    server = serve(*FLAGS, start=False)
    await asyncio.to_thread(server.start)
    async with fleet.at_work(server.grpc):
        await asyncio.sleep(0.3)
        workers = worker_pids(server).values()
        server.kill()
        await asyncio.to_thread(wait_until_gone, *workers)
    await asyncio.to_thread(server.start)
    assert await read_back(ledger, server.grpc)
    assert await asyncio.to_thread(server.stop) == exits.DONE
    expect_sound(server.data)


async def _with_scans(server: ServerProcess, ledger: Ledger) -> None:
    """Something of each partition is durable."""
    fleet = Fleet("SOME", ledger, seeded("some"), OPTIONS)
    async with fleet.at_work(server.grpc):
        await asyncio.sleep(0.3)


async def test_a_worker_whose_data_is_behind_ends_the_server(serve: Serve) -> None:
    """Row 5 across workers: 78 comes out as 78 when a dead worker comes back, and at a start."""
    server = serve(*FLAGS)
    await _with_scans(server, Ledger())
    (server.data / "partition-0001.mark").unlink()
    kill_worker(server, 1)
    assert await asyncio.to_thread(server.wait) == exits.DATA_BEHIND
    assert "a worker cannot go on" in server.log
    assert "restore a backup" in server.log
    assert await asyncio.to_thread(server.refuse) == exits.DATA_BEHIND
    with_loss = "--unsafe-accept-data-loss"
    await asyncio.to_thread(server.start, with_loss)
    # The loss was accepted once: a worker that dies later comes back without another one.
    old = {0: kill_worker(server, 0)}
    await asyncio.to_thread(wait_until_whole, server, since=old)
    assert await asyncio.to_thread(server.stop) == exits.DONE
    expect_sound(server.data)


async def test_a_storage_failure_of_a_worker_ends_the_server(serve: Serve, tmp_path: Path) -> None:
    """Row 6 across workers: nothing is guessed, exit code 1; what was acknowledged is there."""
    faults = StorageFaults(tmp_path / "faults")
    ledger = Ledger()
    server = serve(*FLAGS, env=faults.env)
    fleet = Fleet("EIO", ledger, seeded("worker eio"), OPTIONS)
    async with fleet.at_work(server.grpc):
        await asyncio.sleep(0.3)
        faults.arm("sync", ".log", "eio", nth=3)
        assert await asyncio.to_thread(server.wait) == exits.FAILED
    assert "storage failed" in server.log
    assert "a worker cannot go on" in server.log
    faults.clear()
    await asyncio.to_thread(server.start)
    assert await read_back(ledger, server.grpc)


def test_a_worker_that_is_told_to_stop_is_started_again(serve: Serve) -> None:
    """A SIGTERM to one worker restarts it in order; the supervisor says that it ended with 0."""
    server = serve("--partitions", "2", "--workers", "2")
    old = worker_pids(server)
    os.kill(old[1], signal.SIGTERM)
    wait_until_gone(old[1])
    wait_until_whole(server, since={1: old[1]})
    assert worker_pids(server)[0] == old[0]
    assert server.stop() == exits.DONE


def test_a_second_sigterm_kills_everybody(serve: Serve) -> None:
    """Row 22: workers that do not stop are gone at once; the crash path is safe."""
    server = serve("--partitions", "2", "--workers", "2")
    workers = worker_pids(server).values()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    server.signal(signal.SIGTERM)
    server.logged("stopping")
    server.signal(signal.SIGTERM)
    assert server.wait() == exits.FAILED
    wait_until_gone(*workers)
    expect_sound(server.data)
