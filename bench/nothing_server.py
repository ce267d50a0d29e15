"""A grpc.aio server that does nothing: the most that a Python server of unary calls can do."""

import asyncio
import signal
from typing import Any

import grpc
import uvloop

METHOD = "/bench.Nothing/Do"


async def _do(_request: bytes, _context: object) -> bytes:
    return b""


async def _serve() -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler: Any = grpc.unary_unary_rpc_method_handler(_do)
    _, service, method = METHOD.split("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    await asked.wait()
    await server.stop(1)


if __name__ == "__main__":
    uvloop.run(_serve())
