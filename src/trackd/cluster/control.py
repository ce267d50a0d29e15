"""The line between the supervisor and a worker: one JSON object a line, over a socket pair.

    to the worker     {"told": "states", "serving": [true, false, …]}   by worker
                      {"told": "stop"}     take no more calls from outside; answer the other workers
                      {"told": "close"}    all others have stopped too: answer nobody, close
    from the worker   {"told": "serving", "metrics": "HOST:PORT"}
                      {"told": "drained"}  no call from outside is at work any more

The end of the line is the end of the other side: a worker whose supervisor is gone leaves at once.
Knows nothing of what is served.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

# A supervisor's answer to a worker that is slow to read is to go on: lines are short and few.
_LINE_BYTES_MAX = 1 << 20


class ControlLine:
    """One end of the line, on the event loop that opened it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> "ControlLine":
        """Takes over one end of a socket pair."""
        end.setblocking(False)
        return cls(*await asyncio.open_connection(sock=end, limit=_LINE_BYTES_MAX))

    def tell(self, told: str, **more: Any) -> None:
        """Sends one line; nothing if the other side is gone, which `heard` then says."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"told": told, **more}).encode() + b"\n")

    def send(self, line: bytes) -> None:
        """Sends a line as it is."""
        self._writer.write(line)

    async def heard(self) -> AsyncIterator[dict[str, Any]]:
        """What the other side tells, until it is gone."""
        while True:
            try:
                line = await self._reader.readline()
            except OSError:
                return
            if not line.endswith(b"\n"):
                return
            yield json.loads(line)

    def close(self) -> None:
        """Ends the line."""
        self._writer.close()


def read_first_line(end: socket.socket) -> bytes:
    """The first line, read before there is an event loop, and not a byte more."""
    line = bytearray()
    while not line.endswith(b"\n"):
        part = end.recv(1)
        if not part:
            raise EOFError("the supervisor is gone")
        line += part
    return bytes(line)
