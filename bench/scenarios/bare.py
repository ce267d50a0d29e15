"""What part of the rate is left of what the bare engine does with the same rows."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from bench.bare_store import COMMIT_EVENTS
from bench.figures import Figure, Outcome
from bench.plan import Bench
from bench.scenarios.ingest import CPU, RATE

_TIMEOUT_S = 600.0


async def measure(bench: Bench) -> Outcome:
    """Records the rows of a load, and replays them into an empty engine."""
    scale, file = bench.scale, bench.directory / "recording"
    try:
        options = ("--waybills", str(scale.waybills), "--seed", str(bench.seed))
        await _run("record", file, "--events", str(scale.bare_events), *options)
        recorded_bytes = file.stat().st_size
        told = json.loads(await _run("replay", file))
    finally:
        file.unlink(missing_ok=True)
    events = told["commits"] * COMMIT_EVENTS
    rate, cpu_us = events / told["seconds"], told["cpu_s"] / events * 1e6
    ingest = bench.outcomes["ingest"]
    return Outcome(
        [
            Figure(
                "ingest rate, ratio to the bare engine", ingest.value(RATE) / rate, "×", least=0.45
            ),
            Figure("CPU per event, ratio to the bare engine", ingest.value(CPU) / cpu_us, "×"),
            Figure("bare engine", rate, "events/s"),
            Figure("bare engine, CPU per event", cpu_us, "µs"),
            Figure("rows per event", told["rows"] / events, ""),
            Figure("bytes of rows per event", recorded_bytes / events, "bytes"),
        ]
    )


async def _run(job: str, file: Path, *options: str) -> str:
    command = [sys.executable, "-m", "bench.bare_store", job, str(file), *options]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"bench.bare_store {job} failed: {done.stderr[-2000:]}")
    return done.stdout
