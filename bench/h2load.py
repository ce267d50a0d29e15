"""`python -m bench.h2load`: GetStatus by h2load and by our own generator, a check of the latter.

A gRPC unary call is an HTTP/2 POST whose body is a byte (0: not compressed), the length of the
message in four, and the message. h2load (of nghttp2) knows nothing of gRPC or Python; where it asks
for more a second than our generator, the difference is the generator's.
"""

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.batches import Mix, run_name, waybill_number
from bench.known import make_known
from bench.lookups import GET_STATUS, Ask, closed_loop, connected
from bench.server import trackd_server
from trackd.v1.tracking_pb2 import GetStatusRequest, GetStatusResponse

_ABSENT = (
    "h2load is not installed. On Debian it is in the package nghttp2-client:"
    " apt-get install nghttp2-client"
)
_KNOWN_WAYBILLS = 5_000
_PREFIX_BYTES = 5
_TIMEOUT_S = 60.0


class H2loadFailed(Exception):
    """h2load could not ask, or was not answered; the message says what it printed."""


@dataclass(frozen=True, slots=True)
class Told:
    """What h2load printed. failed: calls without an HTTP 200."""

    calls_per_s: float
    succeeded: int
    failed: int


def grpc_body(message: bytes) -> bytes:
    """A message as the body of a unary call."""
    return b"\0" + len(message).to_bytes(_PREFIX_BYTES - 1, "big") + message


def command(
    address: str, method: str, body: Path, *, calls: int, clients: int, streams: int
) -> list[str]:
    """How h2load is called: `calls` in all, `streams` at a time on each of `clients`."""
    return [
        "h2load",
        *("--requests", str(calls)),
        *("--clients", str(clients)),
        *("--max-concurrent-streams", str(streams)),
        *("--threads", "1"),
        *("--header", "content-type: application/grpc"),
        *("--header", "te: trailers"),
        *("--data", os.fspath(body)),
        f"http://{address}{method}",
    ]


def read_output(text: str) -> Told:
    """What h2load says. Raises H2loadFailed where that cannot be read."""
    rate = re.search(r"finished in [^,]+, ([0-9.]+) req/s", text)
    counts = re.search(r"requests: .* (\d+) succeeded, (\d+) failed", text)
    if not rate or not counts:
        raise H2loadFailed(f"h2load printed no figures: {text[-2000:]}")
    return Told(float(rate[1]), int(counts[1]), int(counts[2]))


def run(address: str, request: bytes, *, calls: int, clients: int, streams: int) -> Told:
    """Asks GetStatus so many times. Raises H2loadFailed."""
    if not shutil.which("h2load"):
        raise H2loadFailed(_ABSENT)
    with tempfile.NamedTemporaryFile(prefix="trackd-h2load-") as body:
        body.write(grpc_body(request))
        body.flush()
        words = command(
            address, GET_STATUS, Path(body.name), calls=calls, clients=clients, streams=streams
        )
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    told = read_output(done.stdout + done.stderr)
    if told.failed or told.succeeded != calls:
        raise H2loadFailed(f"{told.succeeded} of {calls} calls succeeded")
    return told


async def _own_rate(
    address: str, request: bytes, *, calls: int, clients: int, streams: int
) -> float:
    """The rate of our own generator, with as many calls at a time."""
    number = GetStatusRequest.FromString(request).waybill_number

    def check(_: bytes, answer: bytes) -> None:
        if number.encode() not in answer:
            raise H2loadFailed(f"GetStatus of {number} answers without it")

    async with connected(address, connections=clients) as channels:
        ask = Ask(GET_STATUS, lambda: request, check)
        answers, took = await closed_loop(
            channels, ask, concurrency=clients * streams, seconds=max(1.0, calls / 4_000)
        )
    return answers / took


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.h2load", description=__doc__)
    parser.add_argument("--server", help="HOST:PORT of a running server; needs --waybill")
    parser.add_argument("--waybill", help="a waybill that it knows")
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=4, help="connections")
    parser.add_argument("--streams", type=int, default=8, help="calls at a time on each")
    arguments = parser.parse_args()
    if bool(arguments.server) != bool(arguments.waybill):
        parser.error("--server and --waybill go together")
    return arguments


async def _compare(address: str, waybill: str, arguments: argparse.Namespace) -> None:
    request = GetStatusRequest(waybill_number=waybill).SerializeToString()
    sizes = {name: getattr(arguments, name) for name in ("calls", "clients", "streams")}
    async with connected(address, connections=1) as (channel,):
        method: Any = channel.unary_unary(GET_STATUS)
        answer = await method(request)
        if GetStatusResponse.FromString(answer).status.waybill_number != waybill:
            raise H2loadFailed(f"GetStatus of {waybill} answers something else")
    # In turns, so that whatever else the machine does hits both.
    for number in (1, 2):
        told = await asyncio.to_thread(run, address, request, **sizes)
        own = await _own_rate(address, request, **sizes)
        print(
            f"turn {number}: h2load {told.calls_per_s:,.0f} calls/s, our generator {own:,.0f}"
            f" calls/s, ratio {own / told.calls_per_s:.2f}",
            flush=True,
        )


async def _main(arguments: argparse.Namespace) -> None:
    if not shutil.which("h2load"):
        raise H2loadFailed(_ABSENT)
    if arguments.server:
        await _compare(arguments.server, arguments.waybill, arguments)
        return
    with (
        tempfile.TemporaryDirectory(prefix="trackd-h2load-") as directory,
        trackd_server(Path(directory) / "data") as server,
    ):
        now_ms = time.time_ns() // 1_000_000
        mix = Mix(run=run_name(now_ms))
        await make_known(server.address, mix, waybills=_KNOWN_WAYBILLS, now_ms=now_ms)
        await _compare(server.address, waybill_number(1), arguments)


if __name__ == "__main__":
    try:
        uvloop.run(_main(_arguments()))
    except H2loadFailed as error:
        sys.exit(str(error))
