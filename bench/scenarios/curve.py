"""How late answers are at which load: acks of scans and reads beside them, step by step.

The last step sends as much as the server takes: reads still have to be answered then.
"""

import asyncio
import time

from bench.batches import BatchMaker
from bench.figures import Figure, Outcome
from bench.known import Questions, make_known
from bench.load import Load, send
from bench.lookups import connected, open_loop
from bench.plan import Bench
from bench.scenarios.ingest import RATE
from bench.together import together

_PARTS = (0.1, 0.25, 0.5, 0.75, 0.9)
_CONNECTIONS = 16
_ACK, _READ = "ack_p99_ms_by_rate", "get_status_p99_ms_by_rate"


async def measure(bench: Bench) -> Outcome:
    """Parts of the highest rate of the same run, one after the other on one server, then all."""
    scale = bench.scale
    highest = bench.outcomes["ingest"].value(RATE)
    questions = Questions(waybills=scale.known_waybills, seed=bench.seed)
    figures: list[Figure] = []
    series: dict[str, list[tuple[float, float]]] = {_ACK: [], _READ: []}
    with bench.server("curve") as server:
        mix = bench.mix(waybills=scale.waybills)
        now_ms = time.time_ns() // 1_000_000
        await make_known(server.address, mix, waybills=scale.known_waybills, now_ms=now_ms)
        async with connected(server.address, connections=_CONNECTIONS) as channels:
            for part in (*_PARTS, None):
                rate = part and part * highest
                maker = BatchMaker(bench.mix(waybills=scale.waybills))
                begun = asyncio.Event()
                reading = open_loop(
                    channels,
                    questions.get_status,
                    rate=scale.reads_per_s,
                    seconds=scale.curve_seconds,
                    after=begun,
                )
                load = Load(scale.curve_seconds, rate=rate)
                sent, reads = await together(
                    send(server.address, maker, load, begun=begun), reading
                )
                sent.check(repeated=0)
                ack_ms = sent.latencies.percentiles_ms()
                read_ms = reads.latencies.percentiles_ms()["p99"]
                series[_ACK].append((sent.rate, ack_ms["p99"]))
                series[_READ].append((sent.rate, read_ms))
                figures += _figures(part, sent.rate, ack_ms=ack_ms, read_ms=read_ms)
    return Outcome(figures, series)


def _figures(
    part: float | None, rate: float, *, ack_ms: dict[str, float], read_ms: float
) -> list[Figure]:
    if part is None:
        return [
            Figure("GetStatus p99 at full rate", read_ms, "ms", most=100),
            Figure("ack p50 at full rate", ack_ms["p50"], "ms"),
            Figure("ack p99 at full rate", ack_ms["p99"], "ms"),
            Figure("rate with reads beside it", rate, "events/s"),
        ]
    return [
        Figure(f"ack p50 at {part:.0%} of the rate", ack_ms["p50"], "ms"),
        Figure(f"ack p99 at {part:.0%} of the rate", ack_ms["p99"], "ms"),
        Figure(f"GetStatus p99 at {part:.0%} of the rate", read_ms, "ms"),
    ]
