"""gRPC under gevent: one connection, raw bytes in and out, failures as one exception.

Importing this file turns gRPC over to gevent, which has to happen after locust has forked its
processes: users import it when they start, never before.
"""

from collections.abc import Iterator
from typing import Any

import grpc
import grpc.experimental.gevent

grpc.experimental.gevent.init_gevent()

_READY_TIMEOUT_S = 10.0
_CALL_TIMEOUT_S = 30.0
_OPTIONS = [
    # Without it channels to one address share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class CallFailed(Exception):
    """A call ended without an answer. `code` is the status's name."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code


class Connection:
    """A connection of its own, opened when it is made. Raises CallFailed where that fails."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        try:
            grpc.channel_ready_future(self._channel).result(timeout=_READY_TIMEOUT_S)
        except grpc.FutureTimeoutError:
            self._channel.close()
            raise CallFailed("UNAVAILABLE", f"no connection to {address}") from None

    def ask(self, method: str, request: bytes) -> bytes:
        """One unary call. Raises CallFailed."""
        try:
            call: Any = self._channel.unary_unary(method)
            answer: bytes = call(request, timeout=_CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise _failed(error) from None
        return answer

    def stream(self, method: str, requests: Iterator[bytes]) -> Iterator[bytes]:
        """The answers of a stream; it ends when the requests have, or by CallFailed."""
        call: Any = self._channel.stream_stream(method)
        return _answers(call(requests))

    def watch(self, method: str, request: bytes) -> Iterator[bytes]:
        """The messages of a call that is asked once. Raises CallFailed."""
        call: Any = self._channel.unary_stream(method)
        return _answers(call(request))

    def close(self) -> None:
        """Ends every call and the connection, at once."""
        self._channel.close()


def _answers(call: Any) -> Iterator[bytes]:
    try:
        yield from call
    except grpc.RpcError as error:
        raise _failed(error) from None


def _failed(error: Any) -> CallFailed:
    return CallFailed(error.code().name, error.details() or "")
