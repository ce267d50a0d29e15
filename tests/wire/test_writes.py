"""Calls whose answers are written while others are under way."""

import asyncio
from typing import Any

import grpc
import structlog
from prometheus_client import CollectorRegistry

from trackd.metrics import CallMetrics
from trackd.wire.calls import Calls, Limit


async def test_a_write_that_comes_too_soon_is_logged() -> None:
    """It looks as if the caller were gone, who is there: a defect that would never be seen."""
    calls = Calls(CallMetrics(CollectorRegistry()))

    async def cancelling(_requests: object, context: Any) -> None:
        await context.write(b"first")
        writing = asyncio.ensure_future(context.write(bytes(3 << 20)))
        await asyncio.sleep(0)
        writing.cancel()
        await context.write(b"too soon")

    around = calls.around("S/M", Limit("calls", 1), cancelling)
    handlers: dict[str, Any] = {"M": grpc.stream_stream_rpc_method_handler(around)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("S", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with structlog.testing.capture_logs() as logged:
        # The connection takes 64 KiB that nobody has read.
        narrow = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 << 10)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=narrow) as channel:
            call: Any = channel.stream_stream("/S/M")()
            async for _ in call:
                pass
    await server.stop(None)
    assert [(each["event"], each["method"]) for each in logged] == [("call failed", "S/M")]
