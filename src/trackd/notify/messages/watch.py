"""What a thread that sends a message may connect to, and what it was answered.

apprise and the SDKs of SMS providers open their own connections and tell little of how it went.
Two places see it all the same: Python's audit events name the address of every connection before
it is made (PEP 578), so that a name which leads inside a network is refused at the last moment,
whatever it looked like before; and `requests`, which all of them use, hands every answer through
one method. Both look at threads that watch, and at nothing else in the process.
"""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final

import requests

from trackd.endpoint_url import address_allowed
from trackd.notify.retry_after import retry_after_s

_ANSWER_BYTES_MAX = 64 * 1024
_CONNECTS: Final = frozenset({"socket.connect", "socket.sendto"})


class ConnectionRefused(OSError):
    """A thread that watches wanted to connect inside a network, or after its time."""


class Watch:
    """What one thread does between `watching` and its end. One writer, that thread; `abort` may be
    called from any.
    """

    def __init__(self, *, anywhere: bool, allow_local: bool) -> None:
        """anywhere: it may connect inside a network; allow_local: to this machine, at least."""
        self.refused = False  # whether it wanted to connect where it must not
        self.status_code = 0  # of the last answer over HTTP; 0 when there was none
        self.retry_after_s: float | None = None
        self.answer = b""  # its body, if it is short
        self._anywhere = anywhere
        self._allow_local = allow_local
        self._aborted = False
        self._connections: list[socket.socket] = []

    def abort(self) -> None:
        """Ends its connections, whatever the thread waits for there, and allows no new ones."""
        self._aborted = True
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _connects(self, connection: socket.socket, address: Any) -> None:
        host = str(address[0]) if isinstance(address, tuple) else ""
        allowed = self._anywhere or address_allowed(host, allow_local=self._allow_local)
        if not allowed:
            self.refused = True
        if not allowed or self._aborted:
            raise ConnectionRefused("this thread may not connect there")
        # Another handle on the same connection: TLS takes the thread's own away.
        self._connections.append(connection.dup())

    def _ends(self) -> None:
        for connection in self._connections:
            connection.close()

    def _saw(self, response: requests.Response) -> None:
        self.status_code = response.status_code
        self.retry_after_s = retry_after_s(response.headers.get("Retry-After"), now_s=time.time())
        self.answer = response.content if len(response.content) <= _ANSWER_BYTES_MAX else b""


class _Thread(threading.local):
    watch: Watch | None = None


_thread = _Thread()


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Watches this thread."""
    _install()
    _thread.watch = watch
    try:
        yield
    finally:
        _thread.watch = None
        watch._ends()


@cache
def _install() -> None:
    """Once in a process: an audit hook cannot be taken away again."""
    sys.addaudithook(_audit)
    send = requests.Session.send

    def watched_send(
        self: requests.Session, request: requests.PreparedRequest, **options: Any
    ) -> requests.Response:
        response = send(self, request, **options)
        if _thread.watch is not None:
            _thread.watch._saw(response)
        return response

    requests.Session.send = watched_send  # type: ignore[method-assign]


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _CONNECTS and _thread.watch is not None:
        _thread.watch._connects(*arguments)
