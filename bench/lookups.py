"""The clients that read: closed loops for rates, an open loop for latencies.

Requests and answers are raw bytes, as cheap for the client as grpc.aio can be; a check looks at
every answer, or parses some of them.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc import aio

from bench.latency import Latencies
from bench.load import OWN_CONNECTION, WrongAnswer
from bench.together import together

GET_STATUS = "/trackd.v1.TrackingService/GetStatus"
BATCH_GET_STATUS = "/trackd.v1.TrackingService/BatchGetStatus"
GET_TIMELINE = "/trackd.v1.TrackingService/GetTimeline"

_LATE_ANSWERS_TIMEOUT_S = 30.0
# How a server that is behind turns calls away: by its own limits, or by those of gRPC's core, which
# refuses a connection's 129th call and cancels what finds 1,000 calls waiting.
_NO_ROOM = {
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
}

Channels = Sequence[aio.Channel]
Request = Callable[[], bytes]
"""Draws the next request."""
Check = Callable[[bytes, bytes], None]
"""Takes a request and its answer; raises WrongAnswer."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of read."""

    method: str
    request: Request
    check: Check


@asynccontextmanager
async def connected(address: str, *, connections: int = 4) -> AsyncIterator[Channels]:
    """Connections to a server, open."""
    options = [*OWN_CONNECTION, ("grpc.max_receive_message_length", 16 << 20)]
    channels = [aio.insecure_channel(address, options=options) for _ in range(connections)]
    try:
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        yield channels
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


async def closed_loop(
    channels: Channels, ask: Ask, *, concurrency: int, seconds: float
) -> tuple[int, float]:
    """Asks again as soon as an answer is there. How many answers came, in how many seconds.

    Raises WrongAnswer or aio.AioRpcError.
    """
    began_at = time.perf_counter()
    ends_at = began_at + seconds

    async def asking(number: int) -> int:
        method: Any = channels[number % len(channels)].unary_unary(ask.method)
        answers = 0
        while time.perf_counter() < ends_at:
            request = ask.request()
            ask.check(request, await method(request))
            answers += 1
        return answers

    counts = await together(*(asking(number) for number in range(concurrency)))
    return sum(counts), time.perf_counter() - began_at


@dataclass(slots=True)
class Asked:
    """What came of an open loop. A refused call's latency is infinite: it has no answer yet."""

    latencies: Latencies = field(default_factory=Latencies)
    refused: int = 0


async def open_loop(
    channels: Channels,
    ask: Ask,
    *,
    rate: float,
    seconds: float,
    after: asyncio.Event | None = None,
) -> Asked:
    """Asks at a given rate whatever is still unanswered; latencies run from when a call was due.

    after: begins once it is set. Raises WrongAnswer, or aio.AioRpcError unless the server only had
    no room for a call.
    """
    if after:
        await after.wait()
    asked = Asked()
    methods: list[Any] = [channel.unary_unary(ask.method) for channel in channels]
    began_at = time.perf_counter()
    running: set[asyncio.Task[None]] = set()
    failed: list[asyncio.Task[None]] = []

    async def asking(method: Any, due_at: float) -> None:
        request = ask.request()
        try:
            answer = await method(request)
        except aio.AioRpcError as error:
            if error.code() not in _NO_ROOM:
                raise
            asked.refused += 1
            asked.latencies.add(float("inf"))
        else:
            asked.latencies.add(time.perf_counter() - due_at)
            ask.check(request, answer)

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        if task.cancelled() or task.exception():
            failed.append(task)

    for number in range(int(rate * seconds)):
        due_at = began_at + number / rate
        while (left := due_at - time.perf_counter()) > 0:  # noqa: ASYNC110 (a moment is awaited)
            await asyncio.sleep(left)
        task = asyncio.ensure_future(asking(methods[number % len(methods)], due_at))
        running.add(task)
        task.add_done_callback(ended)
    if running:
        await asyncio.wait(running, timeout=_LATE_ANSWERS_TIMEOUT_S)
    for task in failed:
        task.result()
    if running:
        raise WrongAnswer(f"{len(running)} reads were never answered")
    return asked
