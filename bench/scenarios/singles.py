"""How many scans a second become durable when each is a message of its own.

The client takes about as much CPU for a message as the server, so the rate over both is what one
machine does; per core of the server is what a server alone would.
"""

from dataclasses import replace

from bench.batches import BatchMaker
from bench.figures import Figure, Outcome
from bench.load import Load, send
from bench.plan import Bench
from bench.watch import Watch

_IN_FLIGHT = 128


async def measure(bench: Bench) -> Outcome:
    """Streams of messages with one scan each, as many as are taken."""
    scale = bench.scale
    maker = BatchMaker(replace(bench.mix(), events_per_batch=1))
    with bench.server("singles") as server:
        async with Watch(server.pid, maker) as watch:
            load = Load(scale.singles_seconds, in_flight=_IN_FLIGHT)
            sent = await send(server.address, maker, load)
        sent.check(repeated=0)
        cost = await watch.cost(sent, settle_seconds_max=scale.settle_seconds_max)
    latency = sent.latencies.percentiles_ms()
    return Outcome(
        [
            Figure("per core of the server", 1e6 / cost.server_cpu_us, "events/s", least=20_000),
            Figure("rate", sent.rate, "events/s"),
            Figure("server CPU per event", cost.server_cpu_us, "µs"),
            Figure("generator CPU per event", cost.generator_cpu_us, "µs"),
            Figure("ack p50", latency["p50"], "ms"),
            Figure("ack p99", latency["p99"], "ms"),
        ]
    )
