"""A real `trackd serve`, as a process of its own: started, watched, stopped and killed.

Talks to it only as any operator can: flags, environment, signals, exit code, what it prints and
/metrics. Knows nothing of what the server stores.
"""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.harness.forked import ForkedProcess

READY = re.compile(r"trackd is ready: gRPC on (\S+), metrics on (\S+)")
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
_POLL_S = 0.005
_STACKS = {"PYTHONFAULTHANDLER": "1"}
_STACKS_TIMEOUT_S = 5.0
_LOG_END_CHARACTERS = 4_000
_PATHS = (str(Path(__file__).with_name("tiny_engine")), os.environ.get("PYTHONPATH", ""))
# The environment of a server whose engine has tiny buffers; see tiny_engine/.
TINY_ENGINE = {"PYTHONPATH": os.pathsep.join(filter(None, _PATHS))}


class ServerFailed(AssertionError):
    """The server did not do as the test needs; the message ends with its log."""


class ServerProcess:
    """One run of `trackd serve` after the other on one data directory.

    - `grpc` and `metrics` are host:port, new with every start.
    - Every method blocks; none of them is for the event loop while it has to answer the server.
    """

    def __init__(
        self,
        data: Path,
        *flags: str,
        env: Mapping[str, str] | None = None,
        logs: Path | None = None,
        through: Sequence[str] = (),
    ) -> None:
        """through: a command that becomes the one behind it, in other circumstances."""
        self.data = data
        self.flags = flags
        self.env = dict(env or {})
        self.grpc = ""
        self.metrics = ""
        self._logs = logs or data.parent
        self._through = through
        self._process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self._runs = 0

    # Life.

    def start(self, *more_flags: str, timeout_s: float = START_TIMEOUT_S) -> "ServerProcess":
        """Starts it and returns when it can answer; ServerFailed if it ends or hangs before."""
        self.launch(*more_flags)
        if not self.became_ready(timeout_s):
            raise ServerFailed(f"ended with {self.exit_code} before it was ready\n{self.log_end}")
        return self

    def became_ready(self, timeout_s: float = START_TIMEOUT_S) -> bool:
        """Waits until it can answer, or has ended without; ServerFailed if it does neither."""
        deadline = time.monotonic() + timeout_s
        while not (ready := READY.search(self._read("out"))):
            if not self.running:
                return False
            if time.monotonic() > deadline:
                raise ServerFailed(f"not ready within {timeout_s:g} s\n{self._put_down()}")
            time.sleep(_POLL_S)
        self.grpc, self.metrics = ready.groups()
        return True

    def launch(self, *more_flags: str) -> None:
        """Starts it without waiting for anything."""
        assert not self.running, "one run at a time"
        self._runs += 1
        self._logs.mkdir(parents=True, exist_ok=True)
        arguments = [
            "serve",
            *("--data", str(self.data)),
            *("--grpc", "127.0.0.1:0"),
            *("--metrics", "127.0.0.1:0"),
            # One process, unless a test asks for another number: it starts faster.
            *("--workers", "1"),
            *self.flags,
            *more_flags,
        ]
        own = {name: text for name, text in os.environ.items() if not name.startswith("TRACKD_")}
        env = own | _STACKS | self.env
        with self._path("out").open("wb") as out, self._path("err").open("wb") as err:
            # Anything else may act while a program is loaded.
            if not self._through and self.env.keys() <= {"TRACKD_FAILPOINT"}:
                self._process = ForkedProcess(arguments, env=env, out=out, err=err)
                return
            self._process = subprocess.Popen(
                [*self._through, str(Path(sys.executable).with_name("trackd")), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=env,
            )

    def refuse(self, *more_flags: str, timeout_s: float = START_TIMEOUT_S) -> int:
        """Starts it where it has to end by itself; the exit code."""
        self.launch(*more_flags)
        code = self.wait(timeout_s)
        if READY.search(self._read("out")):
            raise ServerFailed(f"said that it was ready, then ended with {code}\n{self.log_end}")
        return code

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone. Nothing if it is gone already."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, and waits for the end; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def logged(self, text: str, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Returns when its log holds the text; ServerFailed if it never comes."""
        deadline = time.monotonic() + timeout_s
        while text not in self.log:
            if time.monotonic() > deadline:
                raise ServerFailed(f"no {text!r} within {timeout_s:g} s\n{self.log_end}")
            time.sleep(_POLL_S)

    def signal(self, number: int) -> None:
        """Sends a signal, if there is anybody to get it."""
        if self.running:
            self._running_process().send_signal(number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Waits for its end; the exit code. Killed, and ServerFailed, if there is none in time."""
        try:
            return self._running_process().wait(timeout_s)
        except subprocess.TimeoutExpired:
            message = f"still there after {timeout_s:g} s\n{self._put_down()}"
            raise ServerFailed(message) from None

    # What can be seen of it.

    @property
    def launched(self) -> bool:
        """Whether it was ever started."""
        return self._process is not None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._running_process().poll()

    @property
    def pid(self) -> int:
        """The process id of the latest run."""
        return self._running_process().pid

    @property
    def log(self) -> str:
        """What the latest run wrote on stderr."""
        return self._read("err")

    @property
    def log_end(self) -> str:
        """The end of it, for a message."""
        return self.log[-_LOG_END_CHARACTERS:]

    @property
    def resident_bytes(self) -> int:
        """The memory that the process holds now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def peak_resident_bytes(self) -> int:
        """The most memory that the process has held so far."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
        raise AssertionError("the kernel tells no VmHWM")

    def scrape(self) -> dict[str, float]:
        """/metrics now: sample line without its value, as printed (`name{label="x"}`) -> value."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return dict(_samples(text))

    def _put_down(self) -> str:
        """Ends a process that hangs; where it hung, thread by thread, and its log."""
        states = []
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(OSError):
                state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
                states.append(f"{state} {(thread / 'wchan').read_text()}")
        process = self._running_process()
        process.send_signal(signal.SIGABRT)  # Python then writes its stacks to the log
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STACKS_TIMEOUT_S)
        process.kill()
        process.wait()
        return f"threads: {', '.join(states)}\n{self.log_end}"

    def _running_process(self) -> subprocess.Popen[bytes] | ForkedProcess:
        assert self._process is not None, "not started"
        return self._process

    def _path(self, stream: str) -> Path:
        return self._logs / f"{self.data.name}.{self._runs}.{stream}"

    def _read(self, stream: str) -> str:
        path = self._path(stream)
        return path.read_text(errors="replace") if path.exists() else ""


def _samples(text: str) -> Iterator[tuple[str, float]]:
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            yield name, float(value)
