"""Rows 8 and 9: the disk is slow, the engine stalls.

Scans wait; the event loop and those who read what is settled do not.
"""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from tests.conftest import Serve
from tests.harness.faults import StorageFaults
from tests.harness.fleet import OWN_CONNECTION, Fleet, FleetOptions
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, read_back
from tests.harness.seeds import seeded
from tests.harness.server import TINY_ENGINE, ServerProcess
from trackd.v1.tracking_pb2 import GetStatusRequest
from trackd.v1.tracking_pb2_grpc import TrackingServiceStub

_IN_FLIGHT_MAX = 8  # batches of a stream that the server may read ahead
# In order, as from real scanners: a late scan takes the server's time, which is not the question.
_OPTIONS = FleetOptions(
    scanners=4, readers=0, batches_in_flight=40, pause_s_max=0.04, late_share=0.0
)
_WARM_UP_S = 0.4

_TIMERS = "trackd_loop_lag_seconds_count"
_IN_TIME = 'trackd_loop_lag_seconds_bucket{le="0.05"}'
_LATE_SHARE_MAX = 0.01
_HELD_UP_SHARE = 0.25
_LOOK_INTERVAL_S = 0.2
_QUEUED = "trackd_store_queued_events"
_STALLS = "trackd_store_stalls_total"
_WRITE_BACK_SOON = "1000"


class _Watch:
    """Looks at a server at work: its event loop, its queues, and reads of settled parcels."""

    def __init__(self, server: ServerProcess, settled: list[str], rng: random.Random) -> None:
        self._server = server
        self._settled = settled
        self._rng = rng
        self.reads = 0
        self.queued_most = 0.0

    async def late_share(self, seconds: float, read_timeout_s: float) -> float:
        """How many of the event loop's timers were more than 50 ms late in the next seconds."""
        before = await asyncio.to_thread(self._server.scrape)
        async with grpc.aio.insecure_channel(self._server.grpc, OWN_CONNECTION) as channel:
            tracking = TrackingServiceStub(channel)
            until = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < until:
                request = GetStatusRequest(waybill_number=self._rng.choice(self._settled))
                await tracking.GetStatus(request, timeout=read_timeout_s)
                self.reads += 1
                now = await asyncio.to_thread(self._server.scrape)
                queued = sum(value for name, value in now.items() if name.startswith(_QUEUED))
                self.queued_most = max(self.queued_most, queued)
                await asyncio.sleep(_LOOK_INTERVAL_S)
        after = await asyncio.to_thread(self._server.scrape)
        timers = after[_TIMERS] - before[_TIMERS]
        assert timers
        return 1 - (after[_IN_TIME] - before[_IN_TIME]) / timers


async def _expect_an_unhindered_loop(
    serve: Serve,
    folder: Path,
    rng: random.Random,
    slow: Callable[[StorageFaults], None],
    *,
    seconds: float,
    read_timeout_s: float,
    tiny_engine: bool = False,
    stalled: bool = False,
) -> None:
    ledger = Ledger()
    faults = StorageFaults(folder / "faults")
    env = {**faults.env, **(TINY_ENGINE if tiny_engine else {})}
    flags = ["--partitions", "2", "--stream-batches-in-flight-max", str(_IN_FLIGHT_MAX)]
    if tiny_engine:
        flags += ["--write-back-events-max", _WRITE_BACK_SOON]  # as much as is written to the log
    server = serve(*flags, env=env)
    fleet = Fleet("SLOW", ledger, rng, _OPTIONS)
    async with fleet.at_work(server.grpc):
        await asyncio.sleep(_WARM_UP_S)
    watch = _Watch(server, sorted({waybill for waybill, _ in ledger.acknowledged}), rng)

    async def measured(before: Callable[[], None]) -> float:
        fleet.new_waybills()
        async with fleet.at_work(server.grpc):
            before()
            late = await watch.late_share(seconds, read_timeout_s)
            faults.clear()
        return late

    late = await measured(lambda: slow(faults))
    if late >= _LATE_SHARE_MAX:
        # On a busy machine some timers are late by themselves: once more, and then only a loop that
        # waits for storage is a fault. It would be late with most of them.
        late = await measured(lambda: slow(faults))
        assert late < _HELD_UP_SHARE, f"{late:.1%} of the timers were late"
    print(f"{late:.1%} of the timers were late; {watch.reads} reads")
    assert watch.queued_most <= _OPTIONS.scanners * _IN_FLIGHT_MAX * _OPTIONS.batch_events_max
    stalls = await asyncio.to_thread(server.scrape)
    assert bool(sum(v for name, v in stalls.items() if name.startswith(_STALLS))) == stalled
    await read_back(ledger, server.grpc)
    server.kill()
    expect_sound(server.data)


async def test_a_slow_flush_delays_answers_and_nothing_else(serve: Serve, tmp_path: Path) -> None:
    """Row 8: every fsync takes 200 ms more; the loop's timers are in time, reads answer."""
    await _expect_an_unhindered_loop(
        serve,
        tmp_path,
        seeded("slow"),
        lambda faults: faults.arm("sync", "*", "slow", ms=200),
        seconds=2.5,
        read_timeout_s=15,
    )


async def test_a_flush_that_hangs_for_seconds_delays_answers_and_nothing_else(
    serve: Serve, tmp_path: Path
) -> None:
    """Row 8: an fsync takes 4 s more; what is settled is read meanwhile."""
    await _expect_an_unhindered_loop(
        serve,
        tmp_path,
        seeded("very slow"),
        lambda faults: faults.arm("sync", ".log", "slow", ms=4_000),
        seconds=4,
        read_timeout_s=3.5,
    )


async def test_a_stall_delays_answers_and_nothing_else(serve: Serve, tmp_path: Path) -> None:
    """Row 9: tiny buffers and triggers, tables slow to write: writes stall, the loop does not."""
    await _expect_an_unhindered_loop(
        serve,
        tmp_path,
        seeded("stall"),
        lambda faults: faults.arm("sync", ".sst", "slow", ms=500),
        seconds=2.5,
        read_timeout_s=15,
        tiny_engine=True,
        stalled=True,
    )


@pytest.mark.torture
async def test_a_flush_of_ten_seconds_delays_answers_and_nothing_else(
    serve: Serve, tmp_path: Path
) -> None:
    """Row 8, the long run: one fsync of 10 s."""
    await _expect_an_unhindered_loop(
        serve,
        tmp_path,
        seeded("one very slow"),
        lambda faults: faults.arm("sync", ".log", "slow", nth=1, ms=10_000),
        seconds=20,
        read_timeout_s=5,
    )
