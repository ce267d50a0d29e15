"""How late answers are at half of the maximal load: acks of scans, and reads beside them.

The maximal rate is that of the run's minute of ingest, or of the seconds before if that is less: on
a shared machine it changes by a half within minutes, and half of what it took a while ago may be
nearly all that it takes now.
"""

import asyncio
import time

from bench.batches import BatchMaker
from bench.figures import Figure, Outcome
from bench.known import Questions, make_known
from bench.load import Load, send
from bench.lookups import connected, open_loop
from bench.plan import Bench
from bench.process import settle
from bench.scenarios.disk import P50
from bench.scenarios.ingest import RATE, cost_figures
from bench.together import together
from bench.watch import Watch

# As many front ends: a server takes no more than 128 calls at once from one connection, and an open
# loop goes on asking while it stands still.
_CONNECTIONS = 16
# How long it is seen what all is, of the time at half load.
_FULL_PART = 1 / 3


async def measure(bench: Bench) -> Outcome:
    """Both open-loop: latencies run from when a batch or a call was due."""
    scale = bench.scale
    maker = BatchMaker(bench.mix())
    questions = Questions(waybills=scale.known_waybills, seed=bench.seed)
    with bench.server("half") as server:
        await make_known(
            server.address,
            bench.mix(waybills=scale.waybills),
            waybills=scale.known_waybills,
            now_ms=time.time_ns() // 1_000_000,
        )
        full = await send(server.address, maker, Load(scale.half_seconds * _FULL_PART))
        full.check(repeated=maker.repeated)
        await settle(server.pid, seconds_max=scale.settle_seconds_max)
        rate = min(full.rate, bench.outcomes["ingest"].value(RATE)) / 2
        async with connected(server.address, connections=_CONNECTIONS) as channels:
            begun = asyncio.Event()
            reading = open_loop(
                channels,
                questions.get_status,
                rate=scale.reads_per_s,
                seconds=scale.half_seconds,
                after=begun,
            )
            load = Load(scale.half_seconds, rate=rate)
            async with Watch(server.pid, maker) as watch:
                sent, reads = await together(
                    send(server.address, maker, load, begun=begun), reading
                )
        sent.check(repeated=maker.repeated)
        cost = await watch.cost(sent, settle_seconds_max=scale.settle_seconds_max)
    fdatasync_ms = bench.outcomes["disk"].value(P50)
    acks, answers = sent.latencies.percentiles_ms(), reads.latencies.percentiles_ms()
    beside = [
        f for f in cost_figures(sent, cost) if f.name not in {"ack p50", "ack p99", "duplicates"}
    ]
    figures = [
        Figure("ack p99", acks["p99"], "ms", most=20),
        Figure(f"GetStatus p99 at {scale.reads_per_s}/s", answers["p99"], "ms", most=10),
        Figure("ack p50", acks["p50"], "ms"),
        Figure("ack p50, ratio to a bare fdatasync", acks["p50"] / fdatasync_ms, "×"),
        Figure("GetStatus p50", answers["p50"], "ms"),
        Figure("GetStatus max", answers["max"], "ms"),
        Figure("GetStatus calls turned away", reads.refused, ""),
        Figure("client late p99", sent.lateness.percentiles_ms()["p99"], "ms"),
        Figure("maximal rate before", full.rate, "events/s"),
        Figure("rate asked for", rate, "events/s"),
        Figure("rate", sent.rate, "events/s"),
        *beside,
    ]
    return Outcome(figures, {**watch.series, "ack_p99_ms": sent.ack_p99_ms()})
