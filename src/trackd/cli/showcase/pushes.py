"""The demo's endpoint: a receiver in this very process, to which the notifier delivers webhooks.

What comes is verified as any receiver should; the screen shows how many, and which came last.
"""

import asyncio
import secrets
import time
from base64 import b64encode
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from trackd.address import Address
from trackd.cli.receiver import Received, Receiver
from trackd.client.errors import TrackdError
from trackd.client.notifications import Notifications
from trackd.v1.notification_pb2 import Endpoint, EndpointKind

_DESCRIPTION = "the receiver of trackd demo"
_LATENCIES_KEPT = 5_000
_LATEST_KEPT = 3
# Behind the network the notifier has little to do: nothing for so long means that it has caught up.
_SETTLED_S = 0.5
_SETTLE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Pushed:
    """How it goes. delay: from a change being on disk to its webhook being here."""

    verified: int
    refused: int
    repeats: int
    delay_p50_ms: float
    latest: tuple[Received, ...]  # the oldest first


class Pushes:
    """An endpoint of a running server, from `async with` on; it is deleted at the end."""

    def __init__(self, server: str) -> None:
        self._notifications = Notifications(server)
        # Until the server has told the secret, nothing that comes is genuine.
        nobody = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
        self._receiver = Receiver(Address("127.0.0.1", 0), self._heard, secrets=[nobody])
        self._endpoint_id = ""
        self._verified = 0
        self._refused = 0
        self._repeats = 0
        self._delays_ms: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._latest: deque[Received] = deque(maxlen=_LATEST_KEPT)
        self._heard_at = 0.0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Listens, and makes the endpoint; one that a run before left behind goes."""
        await self._stack.enter_async_context(self._receiver)
        await self._stack.enter_async_context(self._notifications)
        for endpoint in await self._notifications.list():
            if endpoint.description == _DESCRIPTION:
                await self._notifications.delete(endpoint.id)
        made = await self._notifications.create(
            Endpoint(
                kind=EndpointKind.ENDPOINT_KIND_WEBHOOK,
                url=f"http://{self._receiver.address}/",
                description=_DESCRIPTION,
            )
        )
        self._endpoint_id = made.endpoint.id
        self._receiver.secrets = [made.secret]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Deletes the endpoint; where the server has gone, the next run does."""
        try:
            await self._notifications.delete(self._endpoint_id)
        except TrackdError:
            pass
        finally:
            await self._stack.aclose()

    async def settle(self) -> None:
        """Returns when nothing more comes, or after a while."""
        deadline = time.monotonic() + _SETTLE_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._heard_at and time.monotonic() - self._heard_at > _SETTLED_S:
                return
            await asyncio.sleep(_SETTLED_S / 5)

    def figures(self) -> Pushed:
        """How it goes by now."""
        delays = sorted(self._delays_ms) or [0.0]
        return Pushed(
            verified=self._verified,
            refused=self._refused,
            repeats=self._repeats,
            delay_p50_ms=delays[len(delays) // 2],
            latest=tuple(self._latest),
        )

    def _heard(self, received: Received) -> None:
        if not received.verified or received.document is None:
            self._refused += 1
            return
        self._heard_at = time.monotonic()
        self._verified += 1
        self._repeats += received.repeat
        self._latest.append(received)
        stored_at = datetime.fromisoformat(str(received.document["timestamp"]))
        self._delays_ms.append(time.time() * 1000 - stored_at.timestamp() * 1000)
