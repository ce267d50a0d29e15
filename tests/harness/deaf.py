"""Watchers that never read: HTTP/2 by hand on a plain socket, as no gRPC library behaves.

A library reads what comes, whether its caller wants it or not, and so takes messages into its own
memory; from one of these the server hears nothing but the request.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from trackd.v1.feed_pb2 import WatchChangesRequest

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _WINDOW_UPDATE = 0, 1, 4, 8
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE = 4
_WINDOW = 65_535
_HEADER_FIELDS = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/trackd.v1.FeedService/WatchChanges"),
    (b":authority", b"localhost"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)
# As little as the kernel gives: what is on its way is the kernel's memory, not the server's.
_RECEIVE_BUFFER = 4_096


@contextmanager
def deaf_watchers(
    address: str, request: WatchChangesRequest, *, count: int, window: int = _WINDOW
) -> Iterator[None]:
    """So many of them meanwhile, each on a connection of its own.

    window: how many bytes each lets the server send before it says more, which it never does.
    """
    host, _, port = address.rpartition(":")
    said = _request(request.SerializeToString(), window)
    with ExitStack() as open_ones:
        for _ in range(count):
            own = open_ones.enter_context(socket.socket())
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            own.connect((host, int(port)))
            own.sendall(said)
        yield


def _request(message: bytes, window: int) -> bytes:
    """All that a client says for one call."""
    # Literal fields without indexing, names and values as they are (RFC 7541, 6.2.2).
    fields = b"".join(
        b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value
        for name, value in _HEADER_FIELDS
    )
    parts = [_PREFACE, _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, window))]
    if window > _WINDOW:
        parts.append(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", window - _WINDOW)))
    parts.append(_frame(_HEADERS, _END_HEADERS, 1, fields))
    framed = b"\x00" + struct.pack(">I", len(message)) + message
    parts.append(_frame(_DATA, _END_STREAM, 1, framed))
    return b"".join(parts)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes((kind, flags)) + struct.pack(">I", stream) + payload
