"""Row 1 and 2: the process dies, at a random instant and at every named point."""

import asyncio
import random

from tests.conftest import Serve
from tests.harness.fleet import Fleet
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, read_back
from tests.harness.seeds import seeded

_LOAD_S_MAX = 0.5


async def _killed_again_and_again(serve: Serve, rng: random.Random, rounds: int) -> None:
    ledger = Ledger()
    # A short window makes statuses be written back while scans come in.
    server = serve("--partitions", "2", "--write-back-events-max", "2000", start=False)
    fleet = Fleet("KILL", ledger, rng)
    for number in range(rounds):
        await asyncio.to_thread(server.start)
        # What was there before, and then what this round adds.
        old = sorted(ledger.shown)
        await read_back(ledger, server.grpc, rng.sample(old, min(len(old), 500)))
        fleet.new_waybills()
        async with fleet.at_work(server.grpc):
            await asyncio.sleep(rng.uniform(0.02, _LOAD_S_MAX))
            server.kill()
        if number % 5 == 0:
            expect_sound(server.data)
    await asyncio.to_thread(server.start)
    assert await read_back(ledger, server.grpc)
    assert server.stop() == 0
    expect_sound(server.data)


async def test_kill_at_any_instant_loses_nothing_acknowledged(serve: Serve) -> None:
    """Row 1: whenever the server is killed, I1-I5 and I7 hold, again and again on the same data."""
    await _killed_again_and_again(serve, seeded("kill"), rounds=8)
