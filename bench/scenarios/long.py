"""Whether memory stays bounded over many events in a row, and what goes to disk for each."""

import asyncio
import math
import os
from pathlib import Path

from bench.batches import EVENT_BYTES, BatchMaker
from bench.figures import Figure, Outcome
from bench.known import verify_counts
from bench.load import Load, send
from bench.lookups import connected
from bench.plan import Bench
from bench.scenarios.ingest import CPU, RATE, cost_figures
from bench.watch import Watch

_RSS_MIB_MOST = 1_536
_BLOCK_BYTES = 512
_PART_S = 60.0


async def measure(bench: Bench) -> Outcome:
    """As many as are taken, until all are; RSS is printed at intervals."""
    scale, data = bench.scale, bench.directory / "long"
    maker = BatchMaker(bench.mix(waybills=scale.long_waybills))
    with bench.server(data.name) as server:
        async with Watch(server.pid, maker) as watch:
            load = Load(seconds=float("inf"), events=scale.long_events)
            sent = await send(server.address, maker, load)
        sent.check(repeated=maker.repeated)
        cost = await watch.cost(sent, settle_seconds_max=scale.settle_seconds_max)
        stalls = await asyncio.to_thread(server.metric, "trackd_store_stalls_total")
        disk_bytes = bytes_on_disk(data)
        async with connected(server.address) as channels:
            await verify_counts(channels, waybills=scale.long_waybills, events=sent.accepted)
    beside = [f for f in cost_figures(sent, cost) if f.name != "RSS, highest"]
    amplification = cost.written_bytes / (sent.accepted * EVENT_BYTES)
    figures = [
        Figure("RSS, highest", cost.rss_bytes_max / 2**20, "MiB", most=_RSS_MIB_MOST),
        Figure("RSS at the end", cost.rss_bytes / 2**20, "MiB"),
        Figure("bytes on disk per event", disk_bytes / sent.accepted, "bytes"),
        Figure("write amplification", amplification, "×", most=8),
        Figure(RATE, sent.rate, "events/s"),
        Figure("rate at the end, ratio to the beginning", _kept(watch), "×", least=0.75),
        Figure("write stalls", stalls, ""),
        Figure(CPU, cost.server_cpu_settled_us, "µs"),
        *beside,
    ]
    return Outcome(figures, {**watch.series, "ack_p99_ms": sent.ack_p99_ms()})


def _kept(watch: Watch) -> float:
    """The mean rate of the last minute by that of the first; NaN for a run of a few seconds."""
    rates = watch.series["events_per_s"]
    if not rates:
        return math.nan
    first = [rate for at, rate in rates if at <= _PART_S]
    last = [rate for at, rate in rates if at > rates[-1][0] - _PART_S]
    return (sum(last) / len(last)) / (sum(first) / len(first)) if first else math.nan


def bytes_on_disk(directory: Path) -> int:
    """What a directory takes on its disk. Files may come and go meanwhile."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(folder) / name).stat().st_blocks * _BLOCK_BYTES
            except FileNotFoundError:
                continue
    return total
