"""How long the file system takes for a write of one commit's size and fdatasync."""

import os
import time

from bench.figures import Figure, Outcome
from bench.latency import Latencies
from bench.plan import Bench

P50 = "fdatasync of 200 kB, p50"
# About a commit of 1,000 events in the log of the store.
_WRITE_BYTES = 200_000


async def measure(bench: Bench) -> Outcome:
    """Appends and flushes, one after the other, on the disk of the data."""
    latencies = Latencies()
    data = os.urandom(_WRITE_BYTES)
    file = os.open(bench.directory / "flushes", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(bench.scale.flushes):
            os.write(file, data)
            began_at = time.perf_counter()
            os.fdatasync(file)
            latencies.add(time.perf_counter() - began_at)
    finally:
        os.close(file)
    return Outcome(
        [
            Figure(f"fdatasync of {_WRITE_BYTES // 1000} kB, {rank}", value, "ms")
            for rank, value in latencies.percentiles_ms().items()
        ]
    )
