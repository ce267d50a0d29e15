"""The life of a client: made, opened, closed; and its connection meanwhile.

Nothing here knows what is asked: each kind of client is a file of its own.
"""

from types import TracebackType
from typing import ClassVar, Self

import grpc

from trackd.client.channel import Channels


class Client:
    """A client of one server, from `open` or `async with` on; of the event loop that it runs on."""

    # What it is called where it is used in a wrong way.
    _called: ClassVar[str]

    def __init__(self, server: str, *, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Connects with the first call. `server` is HOST:PORT."""
        self._server = server
        self._credentials = credentials
        self._opened: Channels | None = None

    async def open(self) -> None:
        """Gets ready to call; `async with` does it."""
        if self._opened is not None:
            raise RuntimeError(f"the {self._called} is open")
        self._opened = Channels(self._server, credentials=self._credentials)

    async def close(self) -> None:
        """Ends every call that is still running."""
        if self._opened is not None:
            await self._opened.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def _channels(self) -> Channels:
        if self._opened is None:
            raise RuntimeError(f"the {self._called} is not open: use `async with`")
        return self._opened
