"""What operators ask a server: how its data is laid out, and how it is doing.

Reads only.
"""

import grpc

from trackd.client.channel import call_with_retries
from trackd.client.life import Client
from trackd.client.options import FrontEndOptions
from trackd.v1.admin_pb2 import (
    GetStatsRequest,
    GetStatsResponse,
    GetTopologyRequest,
    GetTopologyResponse,
)
from trackd.v1.admin_pb2_grpc import AdminServiceStub


class Admin(Client):
    """Asks one server about itself; bounds and errors as of a FrontEnd."""

    _called = "admin client"

    def __init__(
        self,
        server: str,
        *,
        options: FrontEndOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Connects with the first call. `server` is HOST:PORT."""
        super().__init__(server, credentials=credentials)
        self._options = options or FrontEndOptions()

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
