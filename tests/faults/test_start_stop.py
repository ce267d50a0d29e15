"""Rows 22 and 23: told to stop in the midst of work; started twice on one directory."""

import asyncio
import random
import signal
from typing import Any

import grpc
import pytest

from tests.conftest import Serve
from tests.harness.fleet import Fleet
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, read_back
from tests.harness.seeds import seeded
from trackd import exits

_LOAD_S = (0.05, 0.5)


async def _stopped_again_and_again(serve: Serve, rng: random.Random, rounds: int) -> None:
    ledger = Ledger()
    fleet = Fleet("STOP", ledger, rng)
    server = serve("--partitions", "2", start=False)
    for _ in range(rounds):
        await asyncio.to_thread(server.start)
        await read_back(ledger, server.grpc, fleet.waybills)
        fleet.new_waybills()
        async with fleet.at_work(server.grpc):
            await asyncio.sleep(rng.uniform(*_LOAD_S))
            server.signal(signal.SIGTERM)
            code = await asyncio.to_thread(server.wait)
        assert code == exits.DONE, server.log_end
        # Told to come back, never cut off in silence.
        assert set(fleet.ends) - {None} == {grpc.StatusCode.UNAVAILABLE}
    expect_sound(server.data)
    await asyncio.to_thread(server.start)
    assert await read_back(ledger, server.grpc)


async def test_a_stop_under_load_is_orderly(serve: Serve) -> None:
    """Row 22: SIGTERM in the midst of work: exit code 0, no loss, callers told to come back."""
    await _stopped_again_and_again(serve, seeded("stop"), rounds=3)


@pytest.mark.torture
async def test_thirty_stops_under_load_are_orderly(serve: Serve) -> None:
    """Row 22, the long run."""
    await _stopped_again_and_again(serve, seeded("stop, long"), rounds=30)


def test_a_second_sigterm_leaves_at_once(serve: Serve) -> None:
    """Row 22: a server that takes long to stop can be told to leave now; the crash path is safe."""
    server = serve("--shutdown-grace-s", "60")
    # A call that is still open keeps an orderly stop waiting.
    channel = grpc.insecure_channel(server.grpc)
    watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")
    next(watch(b""))
    server.signal(signal.SIGTERM)
    server.logged("stopping")
    server.signal(signal.SIGTERM)
    assert server.wait() == exits.FAILED
    channel.close()
    expect_sound(server.data)


def test_a_second_server_on_the_same_directory_is_refused(serve: Serve) -> None:
    """Row 23: it exits with 75 and says why; the first one does not notice."""
    first = serve()
    second = serve(data=first.data, start=False)
    assert second.refuse() == exits.IN_USE
    assert "in use" in second.log
    assert first.stop() == exits.DONE
    assert second.start().stop() == exits.DONE


def test_of_servers_started_together_one_wins(serve: Serve) -> None:
    """Row 23: also when the directory is new and everybody comes at once."""
    first = serve(start=False)
    servers = [first, *(serve(data=first.data, start=False) for _ in range(2))]
    for server in servers:
        server.launch()
    losers = [server for server in servers if not server.became_ready()]
    assert [server.exit_code for server in losers] == [exits.IN_USE] * 2
    (winner,) = (server for server in servers if server.running)
    assert winner.stop() == exits.DONE
