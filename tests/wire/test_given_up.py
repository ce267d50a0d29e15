"""Calls whose callers give up while something that is kept is being changed."""

import asyncio

from prometheus_client import CollectorRegistry

from trackd.metrics import CallMetrics
from trackd.wire.calls import Calls, Limit, to_its_end


async def test_what_has_begun_is_finished_though_the_caller_is_gone() -> None:
    """And the call is at work until then, so that a stop waits for it."""
    calls = Calls(CallMetrics(CollectorRegistry()))
    may_end = asyncio.Event()
    done = []

    async def behaviour(_request: bytes, _context: object) -> bytes:
        await may_end.wait()
        done.append("durable")
        return b""

    handler = calls.around("Do", Limit("calls", 1), to_its_end(behaviour))
    call = asyncio.ensure_future(handler(b"", None))
    await asyncio.sleep(0)
    call.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert calls.running == 1
    may_end.set()
    await asyncio.gather(call, return_exceptions=True)
    assert done == ["durable"]
    assert calls.running == 0
