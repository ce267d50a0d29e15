"""Server processes that are measured: started on free loopback ports, ended with the bench."""

import os
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.process import Usage, usage_of

_READY_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 60.0
_ENDING_S = 1.0


class ServerFailed(Exception):
    """A server did not start, or did not end as it should; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server. Addresses are HOST:PORT; only trackd has metrics."""

    pid: int
    address: str
    metrics: str = ""

    def usage(self) -> Usage:
        """What it has used so far."""
        return usage_of(self.pid)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels. Blocks."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=30) as response:
            families = text_string_to_metric_families(response.read().decode())
        return sum(
            sample.value for family in families for sample in family.samples if sample.name == name
        )


@contextmanager
def trackd_server(data: Path, *options: str) -> Iterator[ServerProcess]:
    """`trackd serve` as a user starts it, on a data directory; stopped in order on the way out."""
    command = [
        os.fspath(Path(sys.executable).with_name("trackd")), "serve", "--data", os.fspath(data),
        "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-level", "warning", *options,
    ]  # fmt: skip
    with _running(command, data.with_name(f"{data.name}.log")) as (process, line):
        # "trackd is ready: gRPC on HOST:PORT, metrics on HOST:PORT"
        address, _, metrics = line.partition("gRPC on ")[2].partition(", metrics on ")
        yield ServerProcess(process.pid, address, metrics)


@contextmanager
def notifier(server: str, log: Path, *options: str) -> Iterator[ServerProcess]:
    """`trackd notify` as a user starts it; its address is that of its metrics."""
    command = [
        os.fspath(Path(sys.executable).with_name("trackd")), "notify", "--server", server,
        "--metrics", "127.0.0.1:0", "--log-level", "warning", *options,
    ]  # fmt: skip
    with _running(command, log) as (process, line):
        # "trackd notify is ready: server HOST:PORT, metrics on HOST:PORT"
        metrics = line.rpartition("metrics on ")[2]
        yield ServerProcess(process.pid, metrics, metrics)


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
        line = _first_line(process, log)
        try:
            yield process, line
        except Exception as error:
            if not _has_ended(process):
                raise
            raise ServerFailed(
                f"{command[:3]} ended with {process.returncode}: {_end_of(log)}"
            ) from error
        process.send_signal(signal.SIGTERM)
        if process.wait(_STOP_TIMEOUT_S) not in {0, -signal.SIGTERM}:
            raise ServerFailed(f"{command[:3]} ended with {process.returncode}: {_end_of(log)}")
    finally:
        process.kill()
        process.wait()


def _has_ended(process: subprocess.Popen[str]) -> bool:
    """Whether a process has ended; its connections may be gone a moment before it is."""
    try:
        process.wait(_ENDING_S)
    except subprocess.TimeoutExpired:
        return False
    return True


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
