"""Processes that have loaded trackd, and fork commands from themselves: starts without the imports.

    tests  -- arguments, environment, its files --> forking process -- fork --> trackd serve
    tests  <-- process id, exit code --------------

One has loaded what a server needs, and nothing else; another one what the supervisor of workers
needs, which has no gRPC in it; a third one what all other commands do.

What is forked is the command with its arguments, from `main` to the end of the interpreter; its
signals, files and environment are those of a new process. What takes effect while a program is
loaded (LD_PRELOAD) needs a process of its own: see ServerProcess.

Knows nothing of what the commands do. When the tests are gone, so is everything forked here.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

from trackd.cli.main import COMMANDS, main
from trackd.store import failpoint

_REQUEST_BYTES_MAX = 1 << 17
_ANSWER_BYTES_MAX = 64
_FILES = 4
_SERVER = "trackd.cli.serve trackd.server uvloop"
_SUPERVISOR = "trackd.cli.serve trackd.cluster.start"
_OTHERS = " ".join(
    [
        *(f"trackd.cli.{each.name}" for each in COMMANDS if each.name != "serve"),
        *("trackd.client", "trackd.notify.process", "uvloop"),
    ]
)
_ROOT = Path(__file__).parents[2]


class ForkedProcess:
    """One run of `trackd ARGUMENTS`; as much of subprocess.Popen as its life needs.

    read: what it reads as standard input, by default nothing.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        out: BinaryIO,
        err: BinaryIO,
        read: BinaryIO | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._telling = threading.Lock()
        self._code: int | None = None
        folder, open_files_max = str(cwd or Path.cwd()), resource.getrlimit(resource.RLIMIT_NOFILE)
        request = json.dumps([list(arguments), dict(env), folder, open_files_max])
        way = _forking(_loaded_for(arguments))
        with theirs, Path(os.devnull).open("rb") as nothing:
            files = [theirs.fileno(), (read or nothing).fileno(), out.fileno(), err.fileno()]
            socket.send_fds(way, [request.encode()], files)
        self.pid = self._hear()

    def poll(self) -> int | None:
        """The exit code, None while it runs; negative: the signal that ended it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; the exit code. subprocess.TimeoutExpired if there is none in time."""
        with selectors.PollSelector() as selector:
            selector.register(self._told, selectors.EVENT_READ)
            if self._code is None and not selector.select(timeout):
                raise subprocess.TimeoutExpired("trackd", timeout or 0)
        with self._telling:  # another thread may have waited too
            if self._code is None:
                self._code = self._hear()
        return self._code

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def _hear(self) -> int:
        answer = self._told.recv(_ANSWER_BYTES_MAX)
        assert answer, "the forking process is gone"
        return int(answer)


def _loaded_for(arguments: Sequence[str]) -> str:
    if arguments[0] != "serve":
        return _OTHERS
    ends = [number for number, word in enumerate(arguments, 1) if word == "--workers"]
    return _SERVER if ends and arguments[ends[-1]] == "1" else _SUPERVISOR


@functools.cache
def _forking(loaded: str) -> socket.socket:
    """The way to the forking process that has loaded this, started when it is first needed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.forked", loaded, str(theirs.fileno())],
            cwd=_ROOT,
            env=os.environ | {"PYTHONFAULTHANDLER": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# In the forking process.


def _load(loaded: str) -> None:
    """Everything that the commands import, and nothing that runs."""
    for name in ("trackd.cli.main", *loaded.split()):
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "what has threads cannot be forked"
    gc.collect()
    gc.freeze()


def _fork_on_request(control: socket.socket) -> list[str]:
    """Forks whatever is asked for until nobody asks any more, and ends what is left then.

    Returns in a forked process only: the arguments of its command.
    """
    children: dict[int, socket.socket] = {}
    woken, waking = socket.socketpair()
    woken.setblocking(False)
    waking.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, and for the servers
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking.fileno())
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if woken in ready:
            woken.recv(_REQUEST_BYTES_MAX)
            _tell_ends(children)
        if control in ready:
            request, files, _, _ = socket.recv_fds(control, _REQUEST_BYTES_MAX, _FILES)
            if not request:
                _end(children)
            if pid := os.fork():
                children[pid] = socket.socket(fileno=files[0])
                children[pid].send(str(pid).encode())
                for file in files[1:]:
                    os.close(file)
            else:
                signal.set_wakeup_fd(-1)
                # One by one: an object that still held a number would close whoever has it later.
                selector.close()
                for each in (control, woken, waking, *children.values()):
                    each.close()
                return _begin(request, files[1:])


def _tell_ends(children: dict[int, socket.socket]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with children.pop(pid) as told, contextlib.suppress(OSError):  # nobody may want to know
            told.send(str(os.waitstatus_to_exitcode(status)).encode())


def _end(children: dict[int, socket.socket]) -> NoReturn:
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _begin(request: bytes, files: Sequence[int]) -> list[str]:
    """Makes the forked process as if it had just been started; its arguments."""
    arguments, env, folder, open_files_max = json.loads(request)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    resource.setrlimit(resource.RLIMIT_NOFILE, open_files_max)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    importlib.reload(failpoint)
    return list(arguments)


if __name__ == "__main__":
    _load(sys.argv[1])
    sys.argv = ["trackd", *_fork_on_request(socket.socket(fileno=int(sys.argv[2])))]
    main()
