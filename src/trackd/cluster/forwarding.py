"""Calls that another worker answers for all, handed on to it as they came.

Once, never further: it is called by a service that only the worker that leads has. What it says
comes back as it is, errors with their reasons; while it cannot be reached its callers are told
UNAVAILABLE, and nobody else notices.
"""

import asyncio
from contextlib import suppress
from typing import Any

from grpc import aio

from trackd.cluster.remote import PeerChannel
from trackd.wire.calls import Behaviour, Calls, Context
from trackd.wire.errors import stopping
from trackd.wire.led_calls import (
    CONSUME,
    NOTIFICATION_METHODS,
    SUBSCRIPTION_METHODS,
    LedCalls,
)

# A message that says nothing, by which a caller that is gone is told from one that has said all.
_NOTHING = b""
# Calls that wait for news.
_WAITING = {"ListTargets"}
# How long the worker that leads has to let a consumer go when this one stops.
_STOP_GRACE_S = 5.0


def led_by(channel: PeerChannel, calls: Calls) -> LedCalls:
    """What hands the calls on. channel: to the worker that leads; calls: those from outside."""
    consumers = _Consumers(channel, calls)
    return LedCalls(
        {method: _handed_on(channel, method) for method in SUBSCRIPTION_METHODS},
        consumers.consume_changes,
        {
            method: _handed_on(channel, method, calls.stopping if method in _WAITING else None)
            for method in NOTIFICATION_METHODS
        },
    )


def _handed_on(
    channel: PeerChannel, method: str, ends_with: asyncio.Event | None = None
) -> Behaviour:
    """ends_with: what a call does not outlast, if it waits for something that may never come."""

    async def forwarded(request: bytes, context: Context) -> bytes:
        return await channel.forward(method, request, context.time_remaining())

    async def until_then(request: bytes, context: Context) -> bytes:
        assert ends_with
        answer = asyncio.ensure_future(forwarded(request, context))
        end = asyncio.ensure_future(ends_with.wait())
        try:
            await asyncio.wait([answer, end], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise stopping()
            return answer.result()
        finally:
            answer.cancel()
            end.cancel()
            await asyncio.gather(answer, end, return_exceptions=True)

    return until_then if ends_with else forwarded


class _Consumers:
    """ConsumeChanges calls."""

    def __init__(self, channel: PeerChannel, calls: Calls) -> None:
        self._channel = channel
        self._calls = calls

    async def consume_changes(self, requests: Any, context: Context) -> None:
        """ConsumeChanges. Ends as the leader ends it; abruptly there if the caller is gone."""
        with self._channel.stream(CONSUME) as call:
            # Two may write: what is heard, and the question whether somebody is there.
            writing = asyncio.Lock()
            # Held for a message to the leader: a write that is cancelled ends its call.
            handing_on = asyncio.Lock()
            speaking = asyncio.ensure_future(_speak(requests, call, handing_on, context, writing))
            hearing = asyncio.ensure_future(self._hear(call, context, writing))
            stopped = asyncio.ensure_future(self._calls.stopping.wait())
            tasks = [speaking, hearing, stopped]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if speaking.done() and not hearing.done():
                    speaking.result()
                    await asyncio.wait([hearing, stopped], return_when=asyncio.FIRST_COMPLETED)
                if not hearing.done():
                    await _leave(call, handing_on, speaking, hearing)
                    raise stopping()
                hearing.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear(self, call: Any, context: Context, writing: asyncio.Lock) -> None:
        async for message in self._channel.messages(call):
            async with writing:
                await context.write(message)


async def _speak(
    requests: Any, call: Any, handing_on: asyncio.Lock, context: Context, writing: asyncio.Lock
) -> None:
    """Returns when the caller has no more to say, or nobody listens: the hearing side says why."""
    try:
        async for request in requests:
            async with handing_on:
                await call.write(request)
        async with writing:
            await context.write(_NOTHING)
        await call.done_writing()
    except (aio.AioRpcError, asyncio.InvalidStateError):
        return


async def _leave(
    call: Any,
    handing_on: asyncio.Lock,
    speaking: "asyncio.Future[None]",
    hearing: "asyncio.Future[None]",
) -> None:
    """This worker stops: its consumers leave in order, and nothing of theirs was tried."""
    with suppress(TimeoutError, aio.AioRpcError, asyncio.InvalidStateError):
        async with asyncio.timeout(_STOP_GRACE_S):
            async with handing_on:
                speaking.cancel()
                await call.done_writing()
            await asyncio.wait([hearing])
