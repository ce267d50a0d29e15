"""Stops at awkward moments: a disk that is full or hangs, and callers who would stay for ever."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conftest import Serve
from tests.faults.test_disk_full import _DISK_BYTES, _noticed, _work
from tests.harness.faults import SmallDisk, StorageFaults
from tests.harness.fleet import Fleet, FleetOptions
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, read_back
from tests.harness.seeds import seeded
from tests.harness.server import ServerProcess
from trackd import exits
from trackd.client import SyncScanner, scan_event

# `trackd` with less patience than two minutes.
_IMPATIENT = """
import sys, trackd.giving_up, trackd.server
from trackd.cli.main import main
trackd.server._CLOSE_TIMEOUT_S = trackd.giving_up._MARGIN_S = 0.5
main(sys.argv[2:])
"""
# Far beyond what the harness waits for an end.
_HANGS_MS = 600_000


async def test_a_stop_on_a_full_disk_is_orderly(serve: Serve, tmp_path: Path) -> None:
    """It writes nothing that the log has already: exit 0, and the next start has everything."""
    ledger = Ledger()
    fleet = Fleet("FULL", ledger, seeded("full stop"), FleetOptions(scanners=2))
    with SmallDisk(tmp_path, _DISK_BYTES) as disk:
        server = serve(data=disk.path / "data", start=False)
        await asyncio.to_thread(server.start)
        await _work(fleet, ledger, server)
        ballast = disk.fill(leave_bytes=1 << 20)
        await _noticed(server, low=True)
        disk.fill(leave_bytes=0)
        assert await asyncio.to_thread(server.stop) == 0
        assert "No space" not in server.log
        disk.resize(2 * _DISK_BYTES)
        ballast.unlink()
        await asyncio.to_thread(server.start)
        assert await read_back(ledger, server.grpc)
        assert server.stop() == 0
        expect_sound(server.data)


async def test_a_watch_of_health_does_not_keep_a_stop_waiting(serve: Serve) -> None:
    """It hears NOT_SERVING and is ended; the grace, here ten minutes, is for calls at work."""
    server = serve("--shutdown-grace-s", "600")
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stubs know no Watch
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert await asyncio.to_thread(server.stop) == 0


@pytest.mark.parametrize("suffix", [".log", ".sst"])
def test_a_disk_that_hangs_does_not_keep_the_process(tmp_path: Path, suffix: str) -> None:
    """It is given up with exit code 1, in a thread that waits and where Python's lock is held."""
    faults = StorageFaults(tmp_path)
    impatient = (sys.executable, "-c", _IMPATIENT)
    server = ServerProcess(tmp_path / "data", env=faults.env, through=impatient).start()
    try:
        with SyncScanner(server.grpc) as scanner:
            scanner.append([scan_event(event_id="1", waybill_number="HANG-1", code="PICKED_UP")])
        faults.arm("sync", suffix, "slow", ms=_HANGS_MS)
        assert server.stop() == exits.FAILED
    finally:
        server.kill()
