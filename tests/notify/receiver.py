"""A receiver of webhooks on loopback that behaves as told: well, or in every way that hurts.

Speaks HTTP by hand, so that it can also speak it wrongly. Keeps what it heard, in order.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

HEADER_BYTES_MAX = 64 << 10


@dataclass(slots=True)
class Heard:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)

    @property
    def waybill(self) -> str:
        """Whom it tells of."""
        return str(self.document["data"]["waybill_number"])


Behaviour = Callable[[Heard, asyncio.StreamWriter], Awaitable[bool]]
"""Answers a request; whether the connection may go on."""


def answering(status: int, *headers: str, body: bytes = b"") -> Behaviour:
    """An orderly answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", ""]
    answer = "\r\n".join(lines).encode() + body

    async def answered(_: Heard, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer)
        return True

    return answered


async def hanging(_: Heard, __: asyncio.StreamWriter) -> bool:
    """Takes the request and never answers."""
    await asyncio.sleep(3600)
    return False


async def trickling(_: Heard, writer: asyncio.StreamWriter) -> bool:
    """An answer of which a byte comes now and then, for ever."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 10_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)
    return False


async def resetting(_: Heard, writer: asyncio.StreamWriter) -> bool:
    """The connection breaks before an answer."""
    writer.transport.abort()
    return False


async def babbling(_: Heard, writer: asyncio.StreamWriter) -> bool:
    """What is not HTTP."""
    writer.write(b"\x00\xff no HTTP\r\n" * 100)
    return False


async def flooding(_: Heard, writer: asyncio.StreamWriter) -> bool:
    """200, and a body without end."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    while True:
        writer.write(chunk)
        await writer.drain()


async def flooding_headers(_: Heard, writer: asyncio.StreamWriter) -> bool:
    """200, and headers without end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"y" * 1000 + b"\r\n")
        await writer.drain()


async def announcing(_: Heard, writer: asyncio.StreamWriter) -> bool:
    """An answer that is about to come, without end."""
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
        await writer.drain()


@dataclass(slots=True)
class Receiver:
    """The server. `behaviours[path]` says what a path does; others answer 204."""

    port: int = 0
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    connections: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    open_requests: Counter[str] = field(default_factory=Counter)
    most_open_requests: Counter[str] = field(default_factory=Counter)

    def url(self, path: str) -> str:
        """Where a path is."""
        return f"http://127.0.0.1:{self.port}{path}"

    def at(self, path: str) -> list[Heard]:
        """What a path heard."""
        return [each for each in self.heard if each.path == path]

    async def until(self, done: Callable[[], bool], timeout_s: float = 60) -> None:
        """Returns once `done()`, which is asked after each request."""
        async with asyncio.timeout(timeout_s):
            while not done():
                self.news.clear()
                await self.news.wait()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        heard = Heard(first.split(" ")[1], headers, body)
        path = heard.path
        self.heard.append(heard)
        self.open_requests[path] += 1
        self.most_open_requests[path] = max(self.most_open_requests[path], self.open_requests[path])
        self.news.set()
        try:
            behaviour = self.behaviours.get(path, answering(204))
            goes_on = await behaviour(heard, writer)
            await writer.drain()
            return goes_on
        finally:
            self.open_requests[path] -= 1


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port, gone at the end with its connections."""
    receiver = Receiver()
    tasks: set[asyncio.Task[None]] = set()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(receiver.connected(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, limit=HEADER_BYTES_MAX)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
