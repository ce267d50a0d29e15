"""A network link between a client and a server that can be cut: a TCP relay on loopback.

Knows bytes only.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class Link:
    """Relays to `target_port`. While it is down nothing gets through and nobody is accepted."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0

    @property
    def address(self) -> str:
        """HOST:PORT of the near end."""
        return f"127.0.0.1:{self.port}"

    async def up(self) -> None:
        """Accepts, at the same port each time."""
        if self._server is None:
            self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Cuts every connection off and refuses new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut()

    async def cut(self) -> None:
        """Cuts every connection off."""
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.down()

    def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        relay = asyncio.create_task(self._carry(reader, writer))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)
        # An abort, not a goodbye: what was under way is lost, as on a real cut. Here, because a
        # relay that is cancelled before its first step never runs its own clean-up.
        relay.add_done_callback(lambda _: writer.transport.abort())

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        try:
            with contextlib.suppress(OSError):
                far_reader, far = await asyncio.open_connection("127.0.0.1", self.target_port)
                there = asyncio.create_task(_pump(reader, far))
                back = asyncio.create_task(_pump(far_reader, writer))
                try:
                    await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    there.cancel()
                    back.cancel()
                    await asyncio.gather(there, back, return_exceptions=True)
        finally:
            if far is not None:
                far.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(64 * 1024):
            writer.write(chunk)
            await writer.drain()
