"""Row 7: the disk gets full, by the server's own data and by somebody else's."""

import asyncio
import time
from pathlib import Path

import grpc

from tests.conftest import Serve
from tests.harness.faults import SmallDisk
from tests.harness.fleet import Fleet, FleetOptions
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, read_back
from tests.harness.seeds import seeded
from tests.harness.server import ServerProcess
from trackd import exits

_DISK_BYTES = 48 << 20
_RESERVE_BYTES = _DISK_BYTES // 4
# What the server's own data may take until it is refused; the rest is taken by somebody else.
_ROOM_BYTES = 2 << 20
_LOW_SPACE = "trackd_disk_low_space"
_NOTICED_TIMEOUT_S = 10.0
_FULL_TIMEOUT_S = 60.0


async def _noticed(server: ServerProcess, *, low: bool) -> None:
    """Returns once the server knows whether space is low."""
    until = time.monotonic() + _NOTICED_TIMEOUT_S
    while bool((await asyncio.to_thread(server.scrape))[_LOW_SPACE]) != low:
        assert time.monotonic() < until, server.log_end
        await asyncio.sleep(0.02)


async def _work_until_refused(fleet: Fleet, server: ServerProcess) -> None:
    """Every scanner sends until it is told to come back later, and nothing else ends its call."""
    scanners = fleet.options.scanners
    async with fleet.at_work(server.grpc):
        async with asyncio.timeout(_FULL_TIMEOUT_S):
            while len(fleet.ends) < scanners:  # noqa: ASYNC110 (the fleet tells nobody)
                await asyncio.sleep(0.02)
    assert set(fleet.ends) - {None} == {grpc.StatusCode.RESOURCE_EXHAUSTED}


async def _work(fleet: Fleet, ledger: Ledger, server: ServerProcess) -> None:
    """Scans are taken again."""
    before = len(ledger.acknowledged)
    fleet.new_waybills()
    async with fleet.at_work(server.grpc):
        async with asyncio.timeout(_FULL_TIMEOUT_S):
            while len(ledger.acknowledged) == before:  # noqa: ASYNC110 (the ledger tells nobody)
                await asyncio.sleep(0.02)
    assert set(fleet.ends) == {None}


async def test_a_full_disk_refuses_writes_and_nothing_else(serve: Serve, tmp_path: Path) -> None:
    """Row 7: refused by the guard before the engine sees ENOSPC; reads go on; space heals it."""
    ledger = Ledger()
    fleet = Fleet("FULL", ledger, seeded("disk full"), FleetOptions(scanners=4))
    with SmallDisk(tmp_path, _DISK_BYTES) as disk:
        server = serve(data=disk.path / "data", start=False)
        await asyncio.to_thread(server.start)
        await _work(fleet, ledger, server)
        # By its own data, nearly.
        disk.fill(leave_bytes=_RESERVE_BYTES + _ROOM_BYTES)
        await _work_until_refused(fleet, server)
        assert await read_back(ledger, server.grpc)
        disk.resize(2 * _DISK_BYTES)
        await _noticed(server, low=False)
        await _work(fleet, ledger, server)
        # By somebody else.
        ballast = disk.fill(leave_bytes=1 << 20)
        await _noticed(server, low=True)
        await _work_until_refused(fleet, server)
        assert await read_back(ledger, server.grpc)
        ballast.unlink()
        await _noticed(server, low=False)
        await _work(fleet, ledger, server)

        assert server.running
        assert "No space" not in server.log
        server.kill()
        await _started_when_there_is_space(server, disk)
        assert await read_back(ledger, server.grpc)
        assert server.stop() == 0
        expect_sound(server.data)


async def _started_when_there_is_space(server: ServerProcess, disk: SmallDisk) -> None:
    """A killed server needs space to start: without it, it says so and does no harm."""
    ballast = disk.fill(leave_bytes=0)
    assert await asyncio.to_thread(server.refuse) == exits.FAILED
    assert "No space" in server.log
    ballast.unlink()
    expect_sound(server.data)
    await asyncio.to_thread(server.start)
