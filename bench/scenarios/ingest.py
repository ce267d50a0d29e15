"""How many new scans a second become durable, what one costs, and what repeats add."""

import asyncio

from bench.batches import EVENT_BYTES, BatchMaker
from bench.figures import Figure, Outcome
from bench.known import verify_counts
from bench.load import Load, Sent, send
from bench.lookups import connected
from bench.plan import Bench
from bench.watch import Cost, Watch

RATE = "rate"
CPU = "server CPU per event"
_REPEATS = 0.05


async def measure(bench: Bench) -> Outcome:
    """New scans only, as many as are taken."""
    return await _measure(bench, "ingest", repeats=0.0, rate_least=200_000, cpu_us_most=5)


async def measure_repeats(bench: Bench) -> Outcome:
    """The same with repeats among them."""
    outcome = await _measure(bench, "repeats", repeats=_REPEATS)
    plain = bench.outcomes["ingest"].value(CPU)
    ratio = Figure("CPU per event, ratio to ingest", outcome.value(CPU) / plain, "×", most=1.2)
    return Outcome([ratio, *outcome.figures], outcome.series)


async def _measure(
    bench: Bench,
    name: str,
    *,
    repeats: float,
    rate_least: float | None = None,
    cpu_us_most: float | None = None,
) -> Outcome:
    scale = bench.scale
    maker = BatchMaker(bench.mix(repeats=repeats))
    with bench.server(name) as server:
        async with Watch(server.pid, maker) as watch:
            sent = await send(server.address, maker, Load(scale.ingest_seconds))
        sent.check(repeated=maker.repeated)
        cost = await watch.cost(sent, settle_seconds_max=scale.settle_seconds_max)
        stalls = await asyncio.to_thread(server.metric, "trackd_store_stalls_total")
        async with connected(server.address) as channels:
            await verify_counts(channels, waybills=scale.waybills, events=sent.accepted)
    figures = [
        Figure(RATE, sent.rate, "events/s", least=rate_least),
        Figure(CPU, cost.server_cpu_settled_us, "µs", most=cpu_us_most),
        *cost_figures(sent, cost),
        Figure("write stalls", stalls, ""),
    ]
    return Outcome(figures, {**watch.series, "ack_p99_ms": sent.ack_p99_ms()})


def cost_figures(sent: Sent, cost: Cost) -> list[Figure]:
    """What every load tells beside its own question."""
    latency = sent.latencies.percentiles_ms()
    return [
        Figure("events accepted", sent.accepted, ""),
        Figure("duplicates", sent.duplicates, ""),
        Figure("server CPU per event until the last ack", cost.server_cpu_us, "µs"),
        Figure("generator CPU per event", cost.generator_cpu_us, "µs"),
        Figure("taken by other processes", cost.others_cores, "cores"),
        Figure("ack p50", latency["p50"], "ms"),
        Figure("ack p99", latency["p99"], "ms"),
        Figure("ack max", latency["max"], "ms"),
        Figure("RSS, highest", cost.rss_bytes_max / 2**20, "MiB"),
        Figure("bytes of one event on the wire", EVENT_BYTES, "bytes"),
        Figure("bytes written per event", cost.written_bytes / sent.answered, "bytes"),
    ]
