"""Server processes that are measured: started on free loopback ports, ended with the bench."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.process import Usage, usage_of

_READY_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 60.0


class ServerFailed(Exception):  # noqa: N818 - what happened
    """A server did not start, or did not end as it should; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server. address: HOST:PORT of its gRPC API."""

    pid: int
    address: str

    def usage(self) -> Usage:
        """What it has used so far."""
        return usage_of(self.pid)


@contextmanager
def trackd_server(data: Path, *options: str) -> Iterator[ServerProcess]:
    """`trackd serve` as a user starts it, on a data directory; stopped in order on the way out."""
    command = [
        os.fspath(Path(sys.executable).with_name("trackd")), "serve", "--data", os.fspath(data),
        "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-level", "warning", *options,
    ]  # fmt: skip
    with _running(command, data.with_name(f"{data.name}.log")) as (process, line):
        # "trackd is ready: gRPC on HOST:PORT, metrics on HOST:PORT"
        yield ServerProcess(process.pid, line.partition("gRPC on ")[2].partition(",")[0])


@contextmanager
def module_server(module: str, log: Path) -> Iterator[ServerProcess]:
    """A server of the bench itself, which prints its address as its first line."""
    with _running([sys.executable, "-m", module], log) as (process, line):
        yield ServerProcess(process.pid, line)


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield process, _first_line(process, log)
        process.send_signal(signal.SIGTERM)
        if process.wait(_STOP_TIMEOUT_S) not in {0, -signal.SIGTERM}:
            raise ServerFailed(f"{command[:3]} ended with {process.returncode}: {_end_of(log)}")
    finally:
        process.kill()
        process.wait()


def _first_line(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    ends_at = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < ends_at and process.poll() is None:
        if select.select([process.stdout], [], [], 0.1)[0]:
            line = process.stdout.readline().strip()
            if line:
                return line
    raise ServerFailed(f"the server was not ready in {_READY_TIMEOUT_S:.0f} s: {_end_of(log)}")


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
