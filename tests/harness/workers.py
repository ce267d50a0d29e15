"""The worker processes of a `trackd serve --workers N`, as the operating system shows them.

Knows the supervisor only by its process id, and the workers by the name in their command line.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.harness.server import ServerFailed, ServerProcess

# A bound on a hang: on a busy disk a start alone has taken half a minute.
_TIMEOUT_S = 100.0
_POLL_S = 0.01


def worker_pids(server: ServerProcess) -> dict[int, int]:
    """The process id of each worker that is alive, by its number."""
    found = {}
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    for pid in map(int, children.read_text().split()):
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_text()
            if name := re.search(r"\0worker-(\d+)\0", command):
                found[int(name[1])] = pid
    return found


def kill_worker(server: ServerProcess, number: int) -> int:
    """SIGKILL to one worker; its process id, which it had until now."""
    pid = worker_pids(server)[number]
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return pid


def gone(pid: int) -> bool:
    """Whether the process has ended: a zombie has, once its last thread has.

    Until then its files are open and its locks are held, whatever its first thread shows.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z" and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except OSError:
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; ServerFailed if it never does."""
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise ServerFailed("what was waited for did not happen")
        time.sleep(_POLL_S)


def wait_until_gone(*pids: int) -> None:
    """Returns when all of the processes have ended."""
    wait_for(lambda: all(map(gone, pids)))


@contextmanager
def kept_down(server: ServerProcess, number: int) -> Iterator[None]:
    """One worker dies, and dies again as soon as it is started, for as long as the block runs."""
    over = threading.Event()

    def kill_again() -> None:
        while not over.wait(_POLL_S):
            if number in worker_pids(server):
                kill_worker(server, number)

    killing = threading.Thread(target=kill_again)
    kill_worker(server, number)
    killing.start()
    try:
        yield
    finally:
        over.set()
        killing.join()


@contextmanager
def hanging(server: ServerProcess, number: int) -> Iterator[None]:
    """One worker does nothing at all for as long as the block runs, and is not gone."""
    pid = worker_pids(server)[number]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def health(address: str, service: str = "") -> bool:
    """Whether health says SERVING of a name; False, too, if nobody answers."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            stub: Any = HealthStub(channel)
            answer = stub.Check(HealthCheckRequest(service=service), timeout=5)
        except grpc.RpcError:
            return False
    return bool(answer.status == HealthCheckResponse.SERVING)


def wait_until_whole(server: ServerProcess, *, since: dict[int, int] | None = None) -> None:
    """Returns when every worker serves; `since`: with another process than these."""
    old = since or {}

    def is_whole() -> bool:
        now = worker_pids(server)
        back = all(now.get(number, pid) != pid for number, pid in old.items())
        return back and health(server.grpc)

    try:
        wait_for(is_whole)
    except ServerFailed:
        workers = worker_pids(server)
        for pid in workers.values():
            os.kill(pid, signal.SIGABRT)  # Python then writes its stacks to the log
        wait_until_gone(*workers.values())
        raise ServerFailed(f"not whole: {workers} after {old}\n{server.log_end}") from None
