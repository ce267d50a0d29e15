"""What operators ask a server: how its data is laid out, and how it is doing.

Reads only.
"""

from types import TracebackType
from typing import Self

import grpc

from trackd.client.channel import Channels, call_with_retries
from trackd.client.options import FrontEndOptions
from trackd.v1.admin_pb2 import (
    GetStatsRequest,
    GetStatsResponse,
    GetTopologyRequest,
    GetTopologyResponse,
)
from trackd.v1.admin_pb2_grpc import AdminServiceStub


class Admin:
    """Asks one server about itself; bounds and errors as of a FrontEnd."""

    def __init__(
        self,
        server: str,
        *,
        options: FrontEndOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Connects with the first call. `server` is HOST:PORT."""
        self._server = server
        self._credentials = credentials
        self._options = options or FrontEndOptions()
        self._opened: Channels | None = None

    async def get_topology(self, *, timeout_ms: int | None = None) -> GetTopologyResponse:
        """Which address owns which partition."""
        return await call_with_retries(
            AdminServiceStub(self._channels.any()).GetTopology,
            GetTopologyRequest(),
            timeout_ms=self._options.deadline_ms if timeout_ms is None else timeout_ms,
            backoff=self._options.backoff,
        )

    async def get_stats(self, *, timeout_ms: int | None = None) -> GetStatsResponse:
        """The figures of each partition."""
        return await call_with_retries(
            AdminServiceStub(self._channels.any()).GetStats,
            GetStatsRequest(),
            timeout_ms=self._options.deadline_ms if timeout_ms is None else timeout_ms,
            backoff=self._options.backoff,
        )

    async def open(self) -> None:
        """Gets ready to call; `async with` does it."""
        if self._opened is not None:
            raise RuntimeError("the admin client is open")
        self._opened = Channels(self._server, credentials=self._credentials)

    async def close(self) -> None:
        """Ends every call that is still running."""
        await self._channels.close()

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
            raise RuntimeError("the admin client is not open: use `async with`")
        return self._opened
