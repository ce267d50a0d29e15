"""Row 6: one call to the disk fails."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conftest import Serve
from tests.harness.faults import StorageFaults
from tests.harness.fleet import Fleet
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, read_back
from tests.harness.seeds import seeded
from tests.harness.server import ServerProcess
from trackd import exits

# Two seconds by its promise; the rest is for a machine that is busy with other things.
_GONE_S_MAX = 6.0
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True, slots=True)
class _Error:
    """A call that fails once: which call, on which file, how, and the how-manieth from then on."""

    call: str
    suffix: str
    action: str
    nth_max: int


_ERRORS = (
    _Error("sync", ".log", "eio", 10),
    _Error("write", ".log", "eio", 10),
    _Error("write", ".log", "enospc", 10),
    _Error("write", ".mark", "eio", 10),
    _Error("sync", ".mark", "eio", 1),
)


async def _fail_under_load(
    server: ServerProcess, faults: StorageFaults, fleet: Fleet, error: _Error, rng: random.Random
) -> None:
    async with _health(server.grpc) as told, fleet.at_work(server.grpc):
        await asyncio.sleep(rng.uniform(0.05, 0.3))
        faults.arm(error.call, error.suffix, error.action, nth=rng.randint(1, error.nth_max))
        await asyncio.to_thread(server.logged, "storage failed")
        code = await asyncio.to_thread(server.wait, _GONE_S_MAX)
    assert code == exits.FAILED, server.log_end
    assert "storage failed" in server.log_end
    assert set(fleet.ends) - {None} == {grpc.StatusCode.UNAVAILABLE}
    assert told == [_SERVING, _NOT_SERVING]


@asynccontextmanager
async def _health(address: str) -> AsyncIterator[list[int]]:
    """What health has said so far, from SERVING on; the watch ends with the server."""
    told: list[int] = []
    began = asyncio.Event()
    async with grpc.aio.insecure_channel(address) as channel:
        stub = cast(Any, health_pb2_grpc.HealthStub(channel))  # its stubs know no Watch
        watch = stub.Watch(health_pb2.HealthCheckRequest())

        async def listen() -> None:
            try:
                async for answer in watch:
                    told.append(answer.status)
                    began.set()
            except grpc.aio.AioRpcError:
                pass

        listening = asyncio.ensure_future(listen())
        await began.wait()
        yield told
        await listening


async def _errors(serve: Serve, folder: Path, rng: random.Random, errors: list[_Error]) -> None:
    ledger = Ledger()
    faults = StorageFaults(folder / "faults")
    server = serve("--partitions", "2", env=faults.env, start=False)
    fleet = Fleet("ERROR", ledger, rng)
    for error in errors:
        await asyncio.to_thread(server.start)
        await read_back(ledger, server.grpc, fleet.waybills)
        fleet.new_waybills()
        await _fail_under_load(server, faults, fleet, error, rng)
        faults.clear()
        expect_sound(server.data)
    await asyncio.to_thread(server.start)
    assert await read_back(ledger, server.grpc)


async def test_nothing_is_acknowledged_after_a_storage_error(serve: Serve, tmp_path: Path) -> None:
    """Row 6: one failed write or fsync ends the server, callers are told to come back, I1-I7 hold.

    A failed fsync loses what it was to flush, so whoever tries it again and answers is found out.
    """
    await _errors(serve, tmp_path, seeded("errors"), list(_ERRORS))


@pytest.mark.torture
async def test_nothing_is_acknowledged_after_any_of_many_storage_errors(
    serve: Serve, tmp_path: Path
) -> None:
    """Row 6, the long run: two hundred errors."""
    rng = seeded("errors, long")
    for number in range(20):
        errors = rng.choices(_ERRORS, k=10)
        await _errors(serve, tmp_path / str(number), rng, errors)


def test_a_server_whose_directory_is_taken_away_stops(serve: Serve, tmp_path: Path) -> None:
    """Row 6: what it would acknowledge from now on, nobody would find at the next start."""
    server = serve()
    server.data.rename(tmp_path / "elsewhere")
    assert server.wait() == exits.FAILED
    assert "storage failed" in server.log
    expect_sound(tmp_path / "elsewhere")
