"""One worker as its supervisor sees it: the process, the line to it, what it last said.

Starts with exec, never by a fork that goes on: a process that has gRPC in it cannot be forked.
Decides nothing; what follows from an end is decided in supervisor.py.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from trackd.cluster.assignment import Assignment
from trackd.cluster.control import ControlLine
from trackd.settings import Settings, env_of

WORKER_MODULE = "trackd.cli.worker"


@dataclass(slots=True)
class WorkerProcess:
    """A worker over its lives. Written by the supervisor's loop only."""

    assignment: Assignment
    on_change: Callable[[], None]
    serving: bool = False
    served_once: bool = False
    drained: bool = False
    metrics: str = ""
    starts: int = 0
    process: asyncio.subprocess.Process | None = None
    # What every life is told at its begin: one that is being started has no line yet.
    _orders: list[str] = field(default_factory=list, repr=False)
    _line: ControlLine | None = field(default=None, repr=False)

    @property
    def number(self) -> int:
        """Which worker it is, from 0."""
        return self.assignment.worker

    @property
    def is_dead(self) -> bool:
        """Whether its latest life is over."""
        return self.process is not None and self.process.returncode is not None

    async def live(self, settings: Settings) -> int:
        """One life: started, listened to, its end; the exit code, negative for a signal.

        Raises OSError if it cannot be started.
        """
        ours, its = socket.socketpair()
        with ExitStack() as unless_started, its:
            unless_started.callback(ours.close)
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", WORKER_MODULE),
                *(str(its.fileno()), str(os.getpid()), f"worker-{self.number}"),
                stdin=asyncio.subprocess.DEVNULL,
                env=_environment(),
                pass_fds=(its.fileno(), self.assignment.lock),
                # Ctrl-C in a terminal is for the supervisor, which stops everybody in order.
                start_new_session=True,
            )
            unless_started.pop_all()
        self.starts += 1
        self.drained = False
        line = self._line = await ControlLine.open(ours)
        try:
            line.send(self.assignment.encode(settings.model_dump(mode="json")))
            for order in self._orders:
                line.tell(order)
            await self._listen(line)
            return await self.process.wait()
        finally:
            # Also when this is cancelled: nobody would ever end it.
            self.signal(signal.SIGKILL)
            line.close()
            self._line = None
            if self.serving:
                self.serving = False
                self.on_change()

    def tell(self, told: str, **more: object) -> None:
        """Tells the process, if there is one."""
        if self._line is not None:
            self._line.tell(told, **more)

    def order(self, told: str) -> None:
        """Tells the process, and one that is being started just now: there is no way back."""
        self._orders.append(told)
        self.tell(told)

    def signal(self, number: int) -> None:
        """Signals the process, if there is one."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def _listen(self, line: ControlLine) -> None:
        """Returns when the worker's end is closed, which its death does."""
        async for heard in line.heard():
            if heard["told"] == "serving":
                self.metrics = heard["metrics"]
                self.serving = self.served_once = True
            elif heard["told"] == "drained":
                self.drained = True
            self.on_change()


def _environment() -> dict[str, str]:
    """Ours without the settings, which the worker gets as they came out here."""
    told = {env_of(name) for name in Settings.model_fields}
    return {name: text for name, text in os.environ.items() if name.upper() not in told}
