"""Row 3: the power goes, on a file system of its own that forgets what was not flushed."""

import asyncio
import random
import re
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.harness.faults import LoopDisk, StorageFaults
from tests.harness.fleet import Fleet
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, look, read_back
from tests.harness.seeds import seeded
from tests.harness.server import ServerProcess
from trackd import exits

_DISK_BYTES = 512 << 20
_LOAD_S = (0.1, 0.7)
_LOST_POSITIONS = re.compile(r"positions (\d+) to (\d+) are lost")
# Default buffers keep everything in the log; small ones have tables written and logs dropped while
# the power goes.
_BUFFERS = ((), ("--write-buffer-bytes", "1MiB", "--write-back-events-max", "1000"))


async def _cut_under_load(
    disk: LoopDisk, server: ServerProcess, fleet: Fleet, rng: random.Random
) -> None:
    """Cuts the power while everybody works, and mounts the disk again."""
    fleet.new_waybills()
    async with fleet.at_work(server.grpc):
        await asyncio.sleep(rng.uniform(*_LOAD_S))
        disk.cut_power()
        if rng.random() < 0.5:
            server.kill()
        else:
            code = await asyncio.to_thread(server.wait)
            assert code == exits.FAILED, "on a dead disk the server has to give up by itself"
    disk.unmount()
    disk.mount()


async def _cut_again_and_again(serve: Serve, folder: Path, rng: random.Random, rounds: int) -> None:
    ledger = Ledger()
    fleet = Fleet("POWER", ledger, rng)
    with LoopDisk(folder, _DISK_BYTES) as disk:
        server = serve(data=disk.path / "data", start=False)
        for number in range(rounds):
            server.flags = ("--partitions", "2", *_BUFFERS[number % 2])
            await asyncio.to_thread(server.start)
            await read_back(ledger, server.grpc, fleet.waybills if number else ())
            await _cut_under_load(disk, server, fleet, rng)
            expect_sound(server.data)
        await asyncio.to_thread(server.start)
        assert await read_back(ledger, server.grpc)
        assert server.stop() == 0
        expect_sound(server.data)


async def _lost_when_nothing_is_flushed(serve: Serve, folder: Path, rng: random.Random) -> int:
    """The same with a log whose flush only claims to have flushed: how many scans are lost."""
    ledger = Ledger()
    fleet = Fleet("LIE", ledger, rng)
    faults = StorageFaults(folder / "faults")
    with LoopDisk(folder, _DISK_BYTES) as disk:
        server = serve("--partitions", "2", data=disk.path / "data", env=faults.env, start=False)
        await asyncio.to_thread(server.start)
        faults.arm("sync", ".log", "lie")
        await _cut_under_load(disk, server, fleet, rng)
        assert ledger.acknowledged, "void: nothing was acknowledged before the cut"
        faults.clear()
        try:
            await asyncio.to_thread(server.start)
        except AssertionError:
            assert server.exit_code == exits.DATA_BEHIND, server.log
            lost = _LOST_POSITIONS.search(server.log)
            assert lost, server.log
            return int(lost[2]) - int(lost[1]) + 1
        read = await look(ledger, server.grpc)
        server.kill()
        return len(read.lost)


async def _campaign(serve: Serve, folder: Path, rng: random.Random, rounds: int) -> None:
    lost = await _lost_when_nothing_is_flushed(serve, folder / "control", rng)
    assert lost, "void: without a flush nothing was lost, so this cut proves nothing"
    await _cut_again_and_again(serve, folder / "real", rng, rounds)


async def test_a_power_cut_loses_nothing_acknowledged(serve: Serve, tmp_path: Path) -> None:
    """Row 3: what was acknowledged survives a cut, and would not without the flush."""
    await _campaign(serve, tmp_path, seeded("power cut"), rounds=3)


@pytest.mark.torture
async def test_many_power_cuts_lose_nothing_acknowledged(serve: Serve, tmp_path: Path) -> None:
    """Row 3, the long run: five hundred cuts, ten on each file system."""
    rng = seeded("power cut, long")
    for number in range(50):
        await _campaign(serve, tmp_path / str(number), rng, rounds=10)
