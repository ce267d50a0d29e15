"""`python -m bench.subscribing`: subscribers in a process of their own, and what they heard.

Prints `ready` once each of them is told that it is caught up or taken in, then hears until SIGTERM,
or until all that was asked for has come; then what it came to, as JSON. Latencies run from when the
server put a change in order (its `recorded_at_ms`) until it was parsed here: one for each message,
of its oldest change.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop
from grpc import aio

from bench.latency import Latencies
from bench.load import OWN_CONNECTION, WrongAnswer
from bench.process import usage_of
from trackd.v1.feed_pb2 import (
    AcknowledgeChanges,
    ConsumeChangesRequest,
    ConsumeChangesResponse,
    StartFrom,
    WatchChangesRequest,
    WatchChangesResponse,
)

_WATCH_CHANGES = "/trackd.v1.FeedService/WatchChanges"
_CONSUME_CHANGES = "/trackd.v1.FeedService/ConsumeChanges"
_OPTIONS = [*OWN_CONNECTION, ("grpc.max_receive_message_length", 16 << 20)]
_READY = "ready"
_READY_TIMEOUT_S = 60.0
_CREDITS = 2_000
_FACILITIES = 500
# Watchers of one connection: a server takes no more than 128 calls at once on one.
_CONNECTION_WATCHERS = 50


@dataclass(slots=True)
class Heard:
    """What subscribers heard, all together."""

    changes: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    began_at: float = 0.0
    ended_at: float = 0.0

    def take(self, changes: Any, *, count: int) -> None:
        """A message's changes."""
        self.ended_at = time.perf_counter()
        self.changes += count
        self.latencies.add(max(0.0, time.time() - changes[0].recorded_at_ms / 1e3))


@dataclass(frozen=True, slots=True)
class Told:
    """What the process said in the end. seconds: until the last change, from when all were
    ready; where the past is told, from when it was asked for.
    """

    changes: int
    seconds: float
    cpu_s: float
    latency_ms: dict[str, float]

    @property
    def per_s(self) -> float:
        """Changes a second."""
        return self.changes / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Subscribers:
    """A running process of subscribers. `told` is there once it has ended."""

    process: asyncio.subprocess.Process
    told: Told | None = None

    async def ended(self, *, seconds_max: float) -> Told:
        """Waits until it has heard what it was to hear. Raises WrongAnswer if it never does."""
        try:
            text = await asyncio.wait_for(self._rest(), seconds_max)
        except TimeoutError:
            raise WrongAnswer(f"not all changes were heard in {seconds_max:g} s") from None
        if not text:
            raise WrongAnswer("subscribers failed: their reason is above")
        self.told = Told(**json.loads(text))
        return self.told

    async def stop(self) -> Told:
        """Ends it; what it heard."""
        if not self.told:
            self.process.send_signal(signal.SIGTERM)
            await self.ended(seconds_max=_READY_TIMEOUT_S)
        assert self.told
        return self.told

    async def _rest(self) -> str:
        assert self.process.stdout
        return (await self.process.stdout.read()).decode()


@asynccontextmanager
async def subscribers(address: str, *options: str) -> AsyncIterator[Subscribers]:
    """Subscribers with these options of the command line, ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.subscribing", "--server", address, *options,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout
        line = await asyncio.wait_for(process.stdout.readline(), _READY_TIMEOUT_S)
        if line.decode().strip() != _READY:
            raise WrongAnswer("subscribers could not begin: their reason is above")
        yield Subscribers(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _watch(
    channel: aio.Channel, number: int, arguments: Any, heard: Heard, ready: Any
) -> None:
    """One watcher; with --filtered of one facility."""
    request = WatchChangesRequest()
    start = StartFrom.START_FROM_EARLIEST if arguments.earliest else StartFrom.START_FROM_NOW
    setattr(request.start, "from", start)
    if arguments.filtered:
        request.filter.facility_codes.append(f"HUB{number % _FACILITIES:04d}")
    method: Any = channel.unary_stream(_WATCH_CHANGES)
    call = method(request.SerializeToString())
    if arguments.earliest:
        ready()
    async for data in call:
        answer = WatchChangesResponse.FromString(data)
        if answer.WhichOneof("kind") == "caught_up":
            ready()
            if arguments.earliest:
                return
        else:
            changes = answer.changes.changes
            heard.take(changes, count=len(changes))


async def _consume(channel: aio.Channel, arguments: Any, heard: Heard, ready: Any) -> None:
    """One consumer of a named subscription: acknowledges what it gets, and looks at the order."""
    method: Any = channel.stream_stream(_CONSUME_CHANGES)
    call = method()
    request = ConsumeChangesRequest()
    request.open.name, request.open.credits, request.open.runs = arguments.consume, _CREDITS, True
    await call.write(request.SerializeToString())
    last: dict[str, int] = {}
    async for data in _messages(call):
        answer = ConsumeChangesResponse.FromString(data)
        kind = answer.WhichOneof("kind")
        if kind == "opened":
            ready()
            continue
        deliveries = answer.deliveries.deliveries if kind == "deliveries" else [answer.delivery]
        changes = [delivery.change for delivery in deliveries]
        for change in changes:
            count = change.status.event_count
            if count <= last.get(change.waybill_number, 0):
                raise WrongAnswer(f"{change.waybill_number} was told out of order")
            last[change.waybill_number] = count
        positions = [change.position for change in changes]
        ack = ConsumeChangesRequest(ack=AcknowledgeChanges(positions=positions))
        await call.write(ack.SerializeToString())
        heard.take(changes, count=len(changes))
        if arguments.changes and heard.changes >= arguments.changes:
            return


async def _messages(call: Any) -> AsyncIterator[bytes]:
    # Reading and writing do not mix with the call's own iterator.
    while (data := await call.read()) is not aio.EOF:
        yield data


async def _run(arguments: argparse.Namespace) -> None:
    heard = Heard()
    waiting = arguments.number
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)

    def ready() -> None:
        nonlocal waiting
        waiting -= 1
        if waiting == 0:
            if not (arguments.consume or arguments.earliest):
                heard.began_at = heard.ended_at = time.perf_counter()
            print(_READY, flush=True)

    per = _CONNECTION_WATCHERS if arguments.filtered else 1
    channels = [
        aio.insecure_channel(arguments.server, options=_OPTIONS)
        for _ in range(-(-arguments.number // per))
    ]
    # What is there already begins to come before all are ready.
    heard.began_at = heard.ended_at = time.perf_counter()
    work = [
        asyncio.ensure_future(
            _consume(channels[number // per], arguments, heard, ready)
            if arguments.consume
            else _watch(channels[number // per], number, arguments, heard, ready)
        )
        for number in range(arguments.number)
    ]
    stopping = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({stopping, *work}, return_when=asyncio.FIRST_COMPLETED)
    for task in work:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    told = {
        "changes": heard.changes,
        "seconds": heard.ended_at - heard.began_at,
        "cpu_s": usage_of(os.getpid()).cpu_s,
        "latency_ms": heard.latencies.percentiles_ms(),
    }
    print(json.dumps(told), flush=True)
    stopping.cancel()
    for channel in channels:
        await channel.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.subscribing", description=__doc__)
    parser.add_argument("--server", required=True, help="HOST:PORT")
    parser.add_argument("--number", type=int, default=1, help="of subscribers")
    parser.add_argument("--filtered", action="store_true", help="each watches one facility")
    parser.add_argument("--earliest", action="store_true", help="from the first, until caught up")
    parser.add_argument("--consume", metavar="NAME", help="a named subscription, instead of all")
    parser.add_argument("--changes", type=int, default=0, help="end after so many")
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(_run(_arguments()))
