"""How many waybills a second BatchGetStatus answers, a hundred at a time."""

import time

from bench.figures import Figure, Outcome
from bench.known import BATCH_WAYBILLS, Questions, make_known
from bench.lookups import closed_loop, connected
from bench.plan import Bench

_CONCURRENCY = 8


async def measure(bench: Bench) -> Outcome:
    """A closed loop of random batches of known waybills."""
    scale = bench.scale
    questions = Questions(waybills=scale.known_waybills, seed=bench.seed)
    with bench.server("batch_reads") as server:
        await make_known(
            server.address,
            bench.mix(),
            waybills=scale.known_waybills,
            now_ms=time.time_ns() // 1_000_000,
        )
        async with connected(server.address) as channels:
            before = server.usage().cpu_s
            calls, seconds = await closed_loop(
                channels,
                questions.batch_get_status,
                concurrency=_CONCURRENCY,
                seconds=scale.batch_reads_seconds,
            )
            cpu_s = server.usage().cpu_s - before
    waybills = calls * BATCH_WAYBILLS
    return Outcome(
        [
            Figure("BatchGetStatus of 100", waybills / seconds, "waybills/s", least=250_000),
            Figure("server CPU per waybill", cpu_s / waybills * 1e6, "µs"),
            Figure("server CPU", cpu_s / seconds, "cores"),
        ]
    )
