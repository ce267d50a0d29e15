"""A receiver of webhooks on this machine, as `docs/receivers.md` says one should be.

Checks the signature before it reads anything else, knows what it has had before by `webhook-id`,
and what is older than what it knows by `event_count`. Knows no server and no command; what comes is
handed to whoever made it.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError
from standardwebhooks.webhooks import EmptyWebhookSecretError

from trackd.address import Address

BODY_BYTES_MAX = 64 * 1024
"""A webhook of trackd is smaller than 20 KB; a larger body is answered 413."""

_REMEMBERED_MAX = 100_000
_OK, _UNREADABLE, _REFUSED, _FAILED = 204, 400, 401, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A webhook, and what was made of it.

    - verified: None where there was no secret to verify it with.
    - fault: why it was refused; empty if it was taken. document: None if it was refused.
    - repeat: it had been taken before. outdated: newer ones of its waybill had been taken before.
    - status: what was answered.
    """

    webhook_id: str
    status: int
    verified: bool | None
    fault: str = ""
    repeat: bool = False
    outdated: bool = False
    document: Any = None

    @property
    def data(self) -> dict[str, Any]:
        """What it tells; the same in either envelope."""
        data = self.document.get("data") if isinstance(self.document, dict) else None
        return data if isinstance(data, dict) else {}


class Receiver:
    """Listens from `async with` on; one event loop.

    `address` is where, once it listens. `secrets`: any of them may have signed; may be replaced
    while it listens, as a rotation does.
    """

    def __init__(
        self,
        address: Address,
        heard: Callable[[Received], None],
        *,
        secrets: Sequence[str] = (),
        fail_rate: float = 0.0,
        seed: int | None = None,
    ) -> None:
        """heard: who raises OSError could not take it, which is answered 500.

        fail_rate: the share of webhooks that are answered 500, 0 to 1, to see them come again.
        Raises ValueError for a secret that is none.
        """
        self.address = address
        self.secrets = secrets
        self._heard = heard
        self._fail_rate = fail_rate
        self._random = Random(seed)  # noqa: S311  it only decides what to fail
        self._taken: OrderedDict[str, None] = OrderedDict()
        self._counts: OrderedDict[str, int] = OrderedDict()
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_post("/{path:.*}", self._post)
        self._runner = web.AppRunner(application, access_log=None)

    @property
    def secrets(self) -> Sequence[str]:
        """What may have signed."""
        return self._secrets

    @secrets.setter
    def secrets(self, secrets: Sequence[str]) -> None:
        try:
            self._signers = [Webhook(secret) for secret in secrets]
        except EmptyWebhookSecretError:
            raise ValueError("an empty secret") from None
        self._secrets = tuple(secrets)

    async def __aenter__(self) -> Self:
        """Listens. Raises OSError where that is not possible."""
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, self.address.host, self.address.port)
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        host, port = self._runner.addresses[0][:2]
        self.address = Address(host, port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Listens no more."""
        await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.read()
        received = self._received(dict(request.headers), body)
        try:
            self._heard(received)
        except OSError:
            return web.Response(status=_FAILED)
        return web.Response(status=received.status)

    def _received(self, headers: dict[str, str], body: bytes) -> Received:
        headers = {name.lower(): text for name, text in headers.items()}
        webhook_id = headers.get("webhook-id", "")
        verified = self._verified(headers, body) if self._signers else None
        if verified is False:
            fault = "no secret here made its signature, or its time is off by more than 5 minutes"
            return Received(webhook_id=webhook_id, status=_REFUSED, verified=False, fault=fault)
        if self._random.random() < self._fail_rate:
            return Received(
                webhook_id=webhook_id, status=_FAILED, verified=verified, fault="failed on purpose"
            )
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return Received(
                webhook_id=webhook_id, status=_UNREADABLE, verified=verified, fault="no JSON"
            )
        repeat = webhook_id in self._taken
        _remember(self._taken, webhook_id, None)
        received = Received(
            webhook_id=webhook_id, status=_OK, verified=verified, repeat=repeat, document=document
        )
        return received if repeat else replace(received, outdated=self._is_outdated(received.data))

    def _verified(self, headers: dict[str, str], body: bytes) -> bool:
        for signer in self._signers:
            try:
                signer.verify(body, headers, json_parse=False)
            except (WebhookVerificationError, ValueError):
                continue
            return True
        return False

    def _is_outdated(self, data: dict[str, Any]) -> bool:
        waybill, count = data.get("waybill_number"), data.get("event_count")
        if not isinstance(waybill, str) or not isinstance(count, int):
            return False
        newest = self._counts.get(waybill, 0)
        _remember(self._counts, waybill, max(count, newest))
        return count < newest


def _remember(memory: "OrderedDict[str, Any]", key: str, value: object) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _REMEMBERED_MAX:
        memory.popitem(last=False)
