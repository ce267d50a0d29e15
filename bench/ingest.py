"""`python -m bench.ingest`: one load of scans against one server, and what it cost.

Without --server it starts a server of its own on an empty data directory and ends it afterwards.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import uvloop

from bench.batches import BatchMaker, Mix, run_name
from bench.load import Load, Sent, send
from bench.server import trackd_server
from bench.watch import Watch


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
        f"ack latency ms: p50 {latency['p50']:.2f}, p99 {latency['p99']:.2f},"
        f" max {latency['max']:.2f} over {len(sent.latencies):,} batches\n"
        f"of it in this client: p99 {sent.lateness.percentiles_ms()['p99']:.2f}\n"
        f"generator {sent.generator_cpu_s / sent.answered * 1e6:.2f} CPU µs/event,"
        f" {sent.generator_cpu_s / sent.seconds * 100:.0f} % of a core"
    )


async def _print_cost(watch: Watch, sent: Sent, *, settle_seconds_max: float) -> None:
    cost = await watch.cost(sent, settle_seconds_max=settle_seconds_max)
    print(
        f"server {cost.server_cpu_us:.2f} CPU µs/event, {cost.server_cpu_settled_us:.2f} with the"
        f" background work that was left\n"
        f"RSS {cost.rss_bytes / 2**20:,.0f} MiB, at most {cost.rss_bytes_max / 2**20:,.0f} MiB;"
        f" wrote {cost.written_bytes / sent.answered:.0f} bytes/event\n"
        f"everything else on the machine took {cost.others_cores:.2f} cores"
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
        watch = Watch(pid, maker) if pid else None
        async with watch or nullcontext():
            sent = await send(address, maker, load)
        _print_outcome(sent, maker)
        if watch:
            await _print_cost(watch, sent, settle_seconds_max=arguments.settle)
        sent.check(repeated=maker.repeated)


if __name__ == "__main__":
    uvloop.run(_run(_arguments()))
