"""A device is killed at random moments while its link goes up and down: no scan it took is lost.

The oracle is the ledger: every event id that `scan` had returned for, written by the device itself.
"""

import asyncio
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.client.conftest import ROOT
from tests.client.fault_server import FaultServer
from tests.client.journeys import numbers_of
from tests.client.link import Link
from trackd.client import Spool


async def live_and_die(
    link: Link, spool: Path, ledger: Path, *, lifetime_s: float, seed: int
) -> None:
    """One life of the device: started, and after a while killed with SIGKILL."""
    device = await start(link.address, spool, ledger, "--seed", str(seed))
    await asyncio.sleep(lifetime_s)
    device.send_signal(signal.SIGKILL)
    assert await device.wait() == -signal.SIGKILL


async def start(*arguments: object) -> asyncio.subprocess.Process:
    """A device process that has opened its spool."""
    device = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.client.device",
        *map(str, arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert device.stdout is not None
    assert await device.stdout.readline() == b"up\n"
    return device


async def sway(link: Link, dice: random.Random) -> None:
    """The link of a van: cut off now and then, down for a while now and then."""
    while True:
        await asyncio.sleep(dice.random() * 0.3)
        if dice.random() < 0.5:
            await link.cut()
        else:
            await link.down()
            await asyncio.sleep(dice.random() * 0.3)
            await link.up()


async def run_campaign(
    server: FaultServer, link: Link, directory: Path, *, rounds: int, seed: int
) -> None:
    """Kills `rounds` devices on one spool, drains it, and compares the server with the ledger."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    server.chaos = random.Random(seed)
    server.late_s, server.retry_after_ms = 0.02, 10
    spool, ledger = directory / "spool.db", directory / "ledger"
    swaying = asyncio.create_task(sway(link, dice))
    for _ in range(rounds):
        lifetime_s = dice.random() * 0.6
        await live_and_die(link, spool, ledger, lifetime_s=lifetime_s, seed=dice.randrange(10**9))
    swaying.cancel()
    await asyncio.wait({swaying})
    await link.up()
    assert await (await start(link.address, spool, ledger, "--drain")).wait() == 0

    taken = ledger.read_text().splitlines()
    arrived = [event.event_id for event in server.shelf.arrived]
    assert len(taken) > 10 * rounds, "the devices hardly scanned: the campaign proves nothing"
    assert set(taken) <= set(arrived), "a scan that was taken is missing"
    assert max(Counter(taken).values()) == 1, "an event id was given twice"
    assert max(Counter(arrived).values()) == 1, "a scan took effect twice"
    numbers = numbers_of(server.shelf.arrived)
    assert numbers == sorted(numbers), "scans arrived out of order"
    with Spool(spool, device_id="gun-1") as left:
        assert (left.level().waiting_events, left.rejected()) == (0, [])


async def test_a_killed_device_loses_and_doubles_nothing(
    server: FaultServer, link: Link, tmp_path: Path
) -> None:
    """Every scan that `scan` returned for arrives, in the order scanned, once in effect."""
    await run_campaign(server, link, tmp_path, rounds=5, seed=20_261_122)


@pytest.mark.torture
@pytest.mark.timeout(3_600)
async def test_many_killed_devices_lose_and_double_nothing(
    server: FaultServer, link: Link, tmp_path: Path, seed: int
) -> None:
    """The same over hundreds of lives."""
    await run_campaign(server, link, tmp_path, rounds=300, seed=seed)
