"""A receiver of webhooks that is as fast as Python can be: counts them, answers 204, reads nothing.

HTTP/1.1 with kept connections, as much of it as a notifier sends. Verifies no signature: what is
measured is the notifier.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class WrongRequest(Exception):
    """What came is no request with a body of known length."""


@dataclass(slots=True)
class Received:
    """Webhooks so far. enough: set when there are as many as were wanted."""

    wanted: int
    url: str = ""
    count: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def per_s(self) -> float:
        """From the first to the last."""
        return (self.count - 1) / (self.last_at - self.first_at)

    def take(self) -> None:
        """One has come."""
        self.last_at = time.perf_counter()
        self.first_at = self.first_at or self.last_at
        self.count += 1
        if self.count >= self.wanted:
            self.enough.set()


def requests_in(buffer: bytearray) -> int:
    """How many whole requests a buffer begins with; takes them out. Raises WrongRequest."""
    count = 0
    while (head := buffer.find(_END_OF_HEAD)) >= 0:
        length = _LENGTH.search(buffer, 0, head + 2)
        if not length:
            raise WrongRequest(bytes(buffer[:200]))
        end = head + len(_END_OF_HEAD) + int(length[1])
        if len(buffer) < end:
            break
        del buffer[:end]
        count += 1
    return count


class _Connection(asyncio.Protocol):
    def __init__(self, take: Callable[[], None]) -> None:
        self._take = take
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not of asyncio's class.
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for _ in range(requests_in(self._buffer)):
            self._transport.write(_ANSWER)
            self._take()


@asynccontextmanager
async def receiving(wanted: int) -> AsyncIterator[Received]:
    """Listens on a free loopback port; `url` says where."""
    received = Received(wanted)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(received.take), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    received.url = f"http://{host}:{port}/hook"
    try:
        yield received
    finally:
        server.close()
