"""How long a server takes to serve again after kill -9 under full load."""

import asyncio
import os
import signal
import time
from contextlib import suppress

from grpc import aio

from bench.batches import BatchMaker
from bench.figures import Figure, Outcome
from bench.known import verify_counts
from bench.load import Load, Sent, WrongAnswer, send
from bench.lookups import connected
from bench.plan import Bench
from bench.server import ServerFailed, ServerProcess

_SERVING_S_MOST = 10
_POLL_S = 0.05


async def measure(bench: Bench) -> Outcome:
    """Scans as many as are taken; when enough are stored, SIGKILL; then the start is timed."""
    scale = bench.scale
    maker = BatchMaker(bench.mix(waybills=scale.long_waybills))
    with suppress(ServerFailed), bench.server("recovery") as server:
        await _killed_under_load(server, maker, events=scale.recovery_events)
    began_at = time.perf_counter()
    with bench.server("recovery") as server:
        seconds = time.perf_counter() - began_at
        replayed = await asyncio.to_thread(server.metric, "trackd_store_durable_position")
        behind = await asyncio.to_thread(server.metric, "trackd_store_status_checkpoint")
        async with connected(server.address) as channels:
            # As many as the log holds: no status is behind its timeline, none ahead.
            await verify_counts(channels, waybills=scale.long_waybills, events=int(replayed))
    return Outcome(
        [
            Figure("from start to ready, after kill -9", seconds, "s", most=_SERVING_S_MOST),
            Figure("events on disk", replayed, ""),
            Figure("events that were replayed", replayed - behind, ""),
        ]
    )


async def _killed_under_load(server: ServerProcess, maker: BatchMaker, *, events: int) -> None:
    sending: asyncio.Task[Sent] = asyncio.ensure_future(
        send(server.address, maker, Load(seconds=float("inf")))
    )
    while maker.made < events and not sending.done():  # noqa: ASYNC110 (a count is awaited)
        await asyncio.sleep(_POLL_S)
    os.kill(server.pid, signal.SIGKILL)
    with suppress(aio.AioRpcError, WrongAnswer, asyncio.InvalidStateError):
        await sending
