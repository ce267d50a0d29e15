"""A command of trackd as a child process: started, known to be ready, stopped in order.

Knows only what `trackd serve` and `trackd notify` print, and their exit codes.
"""

import ctypes
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from trackd.address import Address

_SERVER_READY = re.compile(rb"trackd is ready: gRPC on (\S+), metrics on (\S+)")
_NOTIFIER_READY = re.compile(rb"trackd notify is ready: server \S+, metrics on (\S+)")
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_LOG_TAIL_LINES = 5
_PR_SET_PDEATHSIG = 1


class ChildEndedError(Exception):
    """A child has gone, or never came up; `code` is its exit code."""

    def __init__(self, message: str, *, code: int) -> None:
        """Keeps the exit code for ours."""
        super().__init__(message)
        self.code = code


def is_taken(address: Address) -> bool:
    """Whether somebody listens there already."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            return True
    return False


class Child:
    """One run of a command; its logs go to a file, which is kept.

    name: what people call it. places: the addresses that it told when it was ready.
    """

    def __init__(
        self, name: str, words: Sequence[str], ready: "re.Pattern[bytes]", *, log: Path
    ) -> None:
        """Starts it. Called before gRPC is used in this process, which a fork would upset."""
        self.name = name
        self.log = log
        self.places: tuple[str, ...] = ()
        self._ready = ready
        self._logged_before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603  our own command
                [sys.executable, "-m", "trackd", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                # Ctrl-C at the terminal is for us: the network stops first, then its servers.
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  no threads yet
            )

    def wait_until_ready(self) -> Self:
        """Returns when it answers; ChildEndedError when it does not come up."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            self.check()
            readable, _, _ = select.select([self._process.stdout], [], [], 0.1)
            if not readable:
                continue
            ready = self._ready.search(self._process.stdout.readline())
            if ready:
                self.places = tuple(part.decode() for part in ready.groups())
                return self
        raise ChildEndedError(f"the {self.name} did not get ready in time", code=1)

    def check(self) -> None:
        """ChildEndedError if it has gone."""
        code = self._process.poll()
        if code is not None:
            logged = self.log.read_bytes()[self._logged_before :].decode(errors="replace")
            tail = logged.splitlines()[-_LOG_TAIL_LINES:]
            told = "\n  ".join([f"the {self.name} ended with exit code {code}; its log:", *tail])
            raise ChildEndedError(told, code=code if code > 0 else 1)

    def stop(self) -> int:
        """Has it stop in order; its exit code. By force if it takes too long."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def server(flags: Sequence[str], *, log: Path) -> Child:
    """Starts a server; `places` are those of gRPC and of its metrics."""
    return Child("server", ["serve", *flags], _SERVER_READY, log=log)


def notifier(grpc: str, flags: Sequence[str], *, log: Path) -> Child:
    """Starts a notifier for a server; `places` is that of its metrics."""
    words = ["notify", "--server", grpc, "--metrics", "127.0.0.1:0", *flags]
    return Child("notifier", words, _NOTIFIER_READY, log=log)


def _die_with_parent() -> None:
    """In the child: if the demo is killed, the server stops, too, and frees its directory."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
