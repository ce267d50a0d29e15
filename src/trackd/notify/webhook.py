"""One webhook: a signed POST, and what its answer means.

Everything that the other side could do to the notifier is bounded here: how long it may take, how
much it may answer, where it may be. What follows from an outcome is the courier's business.
"""

import asyncio
import errno
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from trackd import __version__
from trackd.endpoint_url import UnusableUrl, webhook_url
from trackd.notify.outcome import Notification, Outcome, Verdict
from trackd.notify.payload import body_of, body_of_test, content_type
from trackd.notify.resolver import AddressRefused, CheckedResolver, CheckedSocket
from trackd.notify.retry_after import retry_after_s
from trackd.notify.signing import signed_headers
from trackd.v1.notification_pb2 import Target

# Many receivers close an idle connection after 5 s; one that is just being closed fails its POST.
_KEEPALIVE_S = 4.0
# A checked address is connected to for this long before the name is looked up and checked again.
_ADDRESS_TTL_S = 10
# How long an answer whose status is known may take to end: it only serves to keep the connection.
_DRAIN_TIMEOUT_S = 1.0
_URLS_KEPT_MAX = 2_048
# Interim answers (1xx) before the one that counts; most receivers send none.
_INTERIM_ANSWERS_MAX = 16

_SUCCESS, _REDIRECT = range(200, 300), range(300, 400)
_GONE = 410
_THROTTLED = frozenset({429, 502, 503, 504})


class _InterimWithoutEnd(aiohttp.ClientPayloadError):
    """Answers of 1xx and no other."""


# What an attempt that got no answer is told as; the first kind that fits counts.
_FAILURES: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ConnectionTimeoutError, "no connection in time"),
    (TimeoutError, "no answer in time"),
    (aiohttp.ClientConnectorDNSError, "the name has no address"),
    (aiohttp.ClientConnectorCertificateError, "the certificate is not valid"),
    (aiohttp.ClientSSLError, "no TLS connection"),
    (aiohttp.ClientConnectorError, "no connection"),
    (aiohttp.ServerDisconnectedError, "the connection was closed before an answer"),
    (aiohttp.ClientOSError, "the connection broke"),
    (_InterimWithoutEnd, "interim answers (1xx) without end"),
    (aiohttp.ClientPayloadError, "the answer broke off"),
    (aiohttp.ClientError, "the answer is not HTTP"),
    (OSError, "the connection broke"),
)


class _Answer(aiohttp.ClientResponse):
    """An answer that must come to the point: aiohttp reads interim ones (1xx) without end, and who
    sends nothing else keeps the process busy for as long as an attempt may take.
    """

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Raises _InterimWithoutEnd, and what aiohttp does."""
        protocol, left = connection.protocol, _INTERIM_ANSWERS_MAX + 1
        assert protocol is not None
        read = protocol.read

        async def counted() -> Any:
            nonlocal left
            if not left:
                raise _InterimWithoutEnd
            left -= 1
            return await read()

        protocol.read = counted  # type: ignore[method-assign] # of this one answer
        try:
            return await super().start(connection)
        finally:
            del protocol.read


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOptions:
    """The bounds of an attempt; see settings.py."""

    connect_timeout_s: float
    total_timeout_s: float
    answer_bytes_max: int
    allow_local: bool


@dataclass(slots=True)
class _Link:
    """What an attempt goes over. was_kept: a connection of an attempt before it."""

    was_kept: bool = False


async def _is_kept(_: aiohttp.ClientSession, context: Any, __: Any) -> None:
    context.trace_request_ctx.was_kept = True


def _tracing() -> aiohttp.TraceConfig:
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(_is_kept)
    return tracing


class WebhookSender:
    """Sends webhooks. Made and closed within a running event loop."""

    def __init__(self, options: WebhookOptions, *, now_s: Callable[[], float] = time.time) -> None:
        self._options = options
        self._now_s = now_s
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=CheckedResolver(allow_local=options.allow_local),
                socket_factory=CheckedSocket(allow_local=options.allow_local),
                # The courier of each endpoint bounds its own; one bound for all would let an
                # endpoint that hangs take the others' turns.
                limit=0,
                ttl_dns_cache=_ADDRESS_TTL_S,
                keepalive_timeout=_KEEPALIVE_S,
            ),
            trace_configs=[_tracing()],
            headers={"User-Agent": f"trackd/{__version__}", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=_Answer,
            # A few compressed bytes can stand for gigabytes.
            auto_decompress=False,
            read_bufsize=options.answer_bytes_max,
            trust_env=False,
        )

    async def send(self, target: Target, notification: Notification) -> Outcome:
        """One attempt."""
        endpoint, now_s = target.endpoint, self._now_s()
        if notification.change is None:
            body = body_of_test(
                message_id=notification.id, envelope=endpoint.envelope, at_ms=int(now_s * 1000)
            )
        else:
            body = body_of(
                notification.change, message_id=notification.id, envelope=endpoint.envelope
            )
        headers = signed_headers(
            message_id=notification.id, body=body, secrets=target.secrets, now_s=int(now_s)
        )
        headers["Content-Type"] = content_type(endpoint.envelope)
        try:
            url = _url(endpoint.url, self._options.allow_local)
        except UnusableUrl as error:
            return Outcome(verdict=Verdict.FAILED, error=f"the URL cannot be used: {error}")
        try:
            return await self._answered(url, body, headers)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Outcome(verdict=Verdict.FAILED, error=_failure(error))

    async def _answered(self, url: URL, body: bytes, headers: dict[str, str]) -> Outcome:
        """What the answer says.

        A receiver may close a connection that was kept, at any time and unannounced: what was being
        sent over it then goes over another one, in the time of the same attempt. Should it have
        been taken all the same, it comes twice, by the same webhook-id.
        """
        clock_s = asyncio.get_running_loop().time
        ends_at_s = clock_s() + self._options.total_timeout_s
        while True:
            link = _Link()
            timeout = aiohttp.ClientTimeout(
                total=ends_at_s - clock_s(), connect=self._options.connect_timeout_s
            )
            try:
                async with self._session.post(
                    url,
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    timeout=timeout,
                    trace_request_ctx=link,
                ) as answer:
                    await self._drain(answer)
                    return self._outcome(answer)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not link.was_kept or clock_s() >= ends_at_s:
                    raise

    async def close(self) -> None:
        """Closes every connection."""
        await self._session.close()

    async def _drain(self, answer: aiohttp.ClientResponse) -> None:
        """Reads the rest of an answer, so that its connection can be used again.

        What is too long or too slow costs the connection, not the success: the status is known.
        """
        left = self._options.answer_bytes_max
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            if answer.content.at_eof():
                return
            async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                while left > 0 and (chunk := await answer.content.readany()):
                    left -= len(chunk)
            if answer.content.at_eof():
                return
        answer.close()

    def _outcome(self, answer: aiohttp.ClientResponse) -> Outcome:
        status = answer.status
        if status in _SUCCESS:
            return Outcome(verdict=Verdict.DELIVERED, status_code=status)
        told = f"answered {status}"
        if status == _GONE:
            return Outcome(verdict=Verdict.GONE, error=told, status_code=status)
        if status in _THROTTLED:
            after_s = retry_after_s(answer.headers.get("Retry-After"), now_s=self._now_s())
            return Outcome(
                verdict=Verdict.THROTTLED, error=told, status_code=status, after_s=after_s
            )
        if status in _REDIRECT:
            told += ": redirects are not followed"
        return Outcome(verdict=Verdict.FAILED, error=told, status_code=status)


@lru_cache(_URLS_KEPT_MAX)
def _url(text: str, allow_local: bool) -> URL:
    return webhook_url(text, allow_local=allow_local)


def _failure(error: BaseException) -> str:
    """What is told: never what the other side wrote, nor an address of the inside."""
    if _refused(error):
        return "the address is inside a network"
    if isinstance(error, OSError) and error.errno == errno.ECONNREFUSED:
        return "the connection was refused"
    return next((told for kind, told in _FAILURES if isinstance(error, kind)), "no valid answer")


def _refused(error: BaseException | None) -> bool:
    """Whether one of our own gates refused, however deep aiohttp has wrapped it."""
    while error is not None:
        if isinstance(error, AddressRefused) or isinstance(
            getattr(error, "os_error", None), AddressRefused
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
