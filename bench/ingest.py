"""`python -m bench.ingest`: one load of scans against one server, and what it cost.

Without --server it starts a server of its own on an empty data directory and ends it afterwards.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from bench.batches import BatchMaker, Mix, run_name
from bench.load import Load, Sent, send
from bench.process import Usage, usage_of
from bench.server import trackd_server

_PROGRESS_INTERVAL_S = 5.0
_SETTLE_INTERVAL_S = 1.0
_SETTLED_CPU = 0.03


async def settle(pid: int, *, seconds_max: float) -> Usage:
    """Waits until the background work of a server has ended; its usage then.

    Compactions that are still to be done belong to the events that caused them.
    """
    before = usage_of(pid)
    ends_at = time.perf_counter() + seconds_max
    while time.perf_counter() < ends_at:
        await asyncio.sleep(_SETTLE_INTERVAL_S)
        now = usage_of(pid)
        if now.cpu_s - before.cpu_s <= _SETTLED_CPU * _SETTLE_INTERVAL_S:
            return now
        before = now
    return before


async def show_progress(pid: int, maker: BatchMaker) -> None:
    """Prints a line at intervals, until cancelled."""
    began_at = last_at = time.perf_counter()
    made, cpu_s = maker.made, usage_of(pid).cpu_s
    while True:
        await asyncio.sleep(_PROGRESS_INTERVAL_S)
        now, usage = time.perf_counter(), usage_of(pid)
        events, cpu = maker.made - made, usage.cpu_s - cpu_s
        print(
            f"{now - began_at:6.1f} s  {events / (now - last_at):9,.0f} events/s"
            f"  server {cpu / max(events, 1) * 1e6:6.2f} CPU µs/event"
            f"  {cpu / (now - last_at) * 100:4.0f} % CPU  RSS {usage.rss_bytes / 2**20:6.0f} MiB",
            flush=True,
        )
        last_at, made, cpu_s = now, maker.made, usage.cpu_s


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.ingest", description=__doc__)
    parser.add_argument("--server", help="HOST:PORT of a running server on this machine")
    parser.add_argument("--pid", type=int, help="its process id, to measure it")
    parser.add_argument("--data-dir", type=Path, help="where a server of its own keeps its data")
    parser.add_argument("--events-per-batch", type=int, default=200)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--waybills", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--events", type=int, help="end after this many events")
    parser.add_argument("--in-flight", type=int, default=16, help="unanswered batches a connection")
    parser.add_argument("--rate", default="max", help="events per second, or max")
    parser.add_argument("--repeats", type=float, default=0.0, help="part that was sent before")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--settle", type=float, default=20, help="seconds to wait for background work to end"
    )
    return parser.parse_args()


@contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[tuple[str, int | None]]:
    if arguments.server:
        yield arguments.server, arguments.pid
        return
    with (
        tempfile.TemporaryDirectory(prefix="trackd-bench-", dir=arguments.data_dir) as directory,
        trackd_server(Path(directory) / "data") as server,
    ):
        yield server.address, server.pid


def _print_outcome(sent: Sent, maker: BatchMaker) -> None:
    latency = sent.latencies.percentiles_ms()
    print(
        f"{sent.answered:,} events answered in {sent.seconds:.2f} s: {sent.rate:,.0f} events/s\n"
        f"accepted {sent.accepted:,}, duplicates {sent.duplicates:,} (sent {maker.repeated:,}),"
        f" rejected {sent.rejected:,}\n"
        f"ack latency ms: p50 {latency['p50_ms']:.2f}, p99 {latency['p99_ms']:.2f},"
        f" max {latency['max_ms']:.2f} over {len(sent.latencies):,} batches\n"
        f"generator {sent.generator_cpu_s / sent.answered * 1e6:.2f} CPU µs/event,"
        f" {sent.generator_cpu_s / sent.seconds * 100:.0f} % of a core"
    )


async def _run(arguments: argparse.Namespace) -> None:
    maker = BatchMaker(
        Mix(
            events_per_batch=arguments.events_per_batch,
            waybills=arguments.waybills,
            repeats=arguments.repeats,
            seed=arguments.seed,
            run=run_name(time.time_ns() // 1_000_000_000),
        )
    )
    load = Load(
        seconds=arguments.seconds,
        connections=arguments.connections,
        in_flight=arguments.in_flight,
        rate=None if arguments.rate == "max" else float(arguments.rate),
        events=arguments.events,
    )
    with _server(arguments) as (address, pid):
        print(f"server {address}, pid {pid}; generator pid {os.getpid()}", flush=True)
        before = usage_of(pid) if pid else None
        progress = asyncio.ensure_future(show_progress(pid, maker)) if pid else None
        try:
            sent = await send(address, maker, load)
        finally:
            if progress:
                progress.cancel()
        _print_outcome(sent, maker)
        if pid and before:
            after = usage_of(pid)
            settled = await settle(pid, seconds_max=arguments.settle)
            print(
                f"server {(after.cpu_s - before.cpu_s) / sent.answered * 1e6:.2f} CPU µs/event,"
                f" {(settled.cpu_s - before.cpu_s) / sent.answered * 1e6:.2f} with the background"
                f" work that was left; RSS {settled.rss_bytes / 2**20:.0f} MiB,"
                f" at most {settled.rss_bytes_max / 2**20:.0f} MiB;"
                f" wrote {(settled.written_bytes - before.written_bytes) / sent.answered:.0f}"
                f" bytes/event"
            )
        sent.check(repeated=maker.repeated)


if __name__ == "__main__":
    uvloop.run(_run(_arguments()))
