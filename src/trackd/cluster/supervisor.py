"""The process that starts the workers, keeps them running, and stops them in order.

Holds the lock of the data directory for all of them, and the ports. Serves one metrics page over
everybody. Answers no call and knows no scan: it never loads gRPC, so that what it starts is clean.

What follows from the end of a worker:

* ended by a signal (killed, out of memory, a fault in native code), or in order without having
  been asked to: it is started again, after a pause that doubles up to 10 s; the others go on
* ended with an exit code that says why (78: its data is behind; 1: its storage failed; 75): all
  are stopped in order, and the supervisor ends with that code; nothing is guessed
* ended before it ever served: a start that failed, all are stopped
"""

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator

import structlog

from trackd import exits
from trackd.address import Address, parse_address
from trackd.cluster.assignment import Assignment
from trackd.cluster.figures import ClusterFigures
from trackd.cluster.ports import near_host, reachable_host, reserved
from trackd.cluster.workers import WorkerProcess
from trackd.metrics_page import metrics_served
from trackd.ready import say_ready
from trackd.settings import Settings
from trackd.store.data_directory import DataDirectory

_RESTART_PAUSE_S_MIN = 0.1
_RESTART_PAUSE_S_MAX = 10.0
# A worker that has served for so long is started again as fast as the first time.
_STEADY_S = 60.0
# Beyond the grace of its calls: what a worker may take to write back and close (server.py: 120 s).
_CLOSE_TIMEOUT_S = 130.0

_log = structlog.get_logger()


async def run(settings: Settings, directory: DataDirectory, workers: int) -> int:
    """Serves with so many workers until told to stop, or until one says why it cannot go on.

    The exit code. Raises OSError if an address is taken.
    """
    supervisor = Supervisor(settings)
    with signalled(supervisor):
        async with supervisor.started(directory, workers):
            await supervisor.ended.wait()
    _log.info("stopped", exit_code=supervisor.exit_code)
    return supervisor.exit_code


class Supervisor:
    """The workers of one data directory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.workers: list[WorkerProcess] = []
        self._changed = asyncio.Event()
        self._ready = False
        # Set when all are to be stopped, by a signal or by the end of a worker.
        self.ended = asyncio.Event()
        self.exit_code = exits.DONE

    @contextlib.asynccontextmanager
    async def started(self, directory: DataDirectory, workers: int) -> AsyncIterator[None]:
        """Everybody started, in order; on the way out stopped."""
        with contextlib.ExitStack() as held:
            assignments = self._assign(directory, workers, held)
            self.workers = [WorkerProcess(each, self._on_change) for each in assignments]
            address = parse_address(self._settings.metrics)
            figures = ClusterFigures(self.workers)
            metrics = held.enter_context(metrics_served(address, figures.registry))
            lives = [asyncio.create_task(self._keep(worker)) for worker in self.workers]
            telling = asyncio.create_task(self._tell_states(assignments[0].public, metrics))
            try:
                yield
            finally:
                await self._stop(lives)
                telling.cancel()
                await asyncio.gather(telling, *lives, return_exceptions=True)

    def leave_at_once(self) -> None:
        """Kills everybody: the crash path is the tested path."""
        for worker in self.workers:
            worker.signal(signal.SIGKILL)

    def end(self, exit_code: int) -> None:
        """Has everybody stopped; the first exit code that says why counts."""
        if not self.ended.is_set():
            self.exit_code = exit_code
            self.ended.set()

    # Before the start.

    def _assign(
        self, directory: DataDirectory, workers: int, held: contextlib.ExitStack
    ) -> list[Assignment]:
        settings = self._settings
        public = held.enter_context(reserved(parse_address(settings.grpc)))
        first = settings.worker_port_first
        own = [
            held.enter_context(reserved(public._replace(port=first and first + number)))
            for number in range(workers)
        ]
        host = settings.advertise_host or reachable_host(public.host)
        metrics = parse_address(settings.metrics)._replace(port=0)
        token = secrets.token_hex(16)
        return [
            Assignment(
                worker=number,
                addresses=tuple(str(Address(near_host(each.host), each.port)) for each in own),
                advertised=tuple(str(Address(host, each.port)) for each in own),
                public=str(public),
                metrics=str(metrics),
                token=token,
                lock=directory.lock_descriptor,
            )
            for number in range(workers)
        ]

    # While they run.

    async def _keep(self, worker: WorkerProcess) -> None:
        """Life after life, until all are to stop."""
        loop = asyncio.get_running_loop()
        pause_s, settings = _RESTART_PAUSE_S_MIN, self._settings
        while not self.ended.is_set():
            began = loop.time()
            try:
                code = await worker.live(settings)
            except OSError as error:
                # No memory or open file for one more process, which may be over in a moment.
                _log.error("a worker cannot be started", of_worker=worker.number, error=str(error))
                code = exits.DONE
            if self.ended.is_set():
                return
            if loop.time() - began > _STEADY_S:
                pause_s = _RESTART_PAUSE_S_MIN
            if not worth_another_life(code, served_once=worker.served_once):
                _log.critical("a worker cannot go on", of_worker=worker.number, exit_code=code)
                self.end(code if code > 0 else exits.FAILED)
                return
            _log.error("a worker died", of_worker=worker.number, exit_code=code, pause_s=pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), pause_s)
                return
            pause_s = min(2 * pause_s, _RESTART_PAUSE_S_MAX)
            # A loss is accepted once: what was lost meanwhile is another one.
            settings = settings.model_copy(update={"unsafe_accept_data_loss": False})

    async def _tell_states(self, public: str, metrics: Address) -> None:
        """Tells every worker how all are, whenever that changes; and says once that all serve."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            serving = [worker.serving for worker in self.workers]
            for worker in self.workers:
                worker.tell("states", serving=serving)
            if all(serving) and not self._ready and not self.ended.is_set():
                self._ready = True
                say_ready(f"trackd is ready: gRPC on {public}, metrics on {metrics}")

    def _on_change(self) -> None:
        self._changed.set()

    # The end.

    async def _stop(self, lives: "list[asyncio.Task[None]]") -> None:
        """First nobody takes calls from outside any more, then nobody answers the others."""
        _log.info("stopping", workers=len(self.workers))
        # Of a worker that was being started again there is nothing to stop.
        dead = [worker.number for worker in self.workers if worker.is_dead]
        grace_s = self._settings.shutdown_grace_s
        for worker in self.workers:
            worker.order("stop")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s + 1):
                while not all(self._is_drained(worker) for worker in self.workers):
                    self._changed.clear()
                    await self._changed.wait()
        for worker in self.workers:
            worker.order("close")
        _, late = await asyncio.wait(lives, timeout=_CLOSE_TIMEOUT_S)
        if late:
            _log.error("workers did not stop in time: they are killed", workers=len(late))
            self.leave_at_once()
            self.exit_code = self.exit_code or exits.FAILED
            await asyncio.wait(late)
        stopped = [worker for worker in self.workers if worker.number not in dead]
        codes = [worker.process.returncode for worker in stopped if worker.process]
        if self.exit_code == exits.DONE and any(codes):
            self.exit_code = next((code for code in codes if code and code > 0), exits.FAILED)

    @staticmethod
    def _is_drained(worker: WorkerProcess) -> bool:
        gone = worker.process is None or worker.is_dead
        return gone or worker.drained or not worker.serving


def worth_another_life(exit_code: int, *, served_once: bool) -> bool:
    """Whether a worker that ended without having been asked to is started again."""
    return served_once and exit_code <= exits.DONE


@contextlib.contextmanager
def signalled(supervisor: Supervisor) -> Iterator[None]:
    """A signal has everybody stopped meanwhile; a second one kills them."""
    loop = asyncio.get_running_loop()
    # Not whether it is stopping: that may be a worker's doing, and its exit code must get out.
    once = asyncio.Event()

    def asked() -> None:
        if once.is_set():
            _log.warning("told twice to stop: leaving at once")
            supervisor.leave_at_once()
            os._exit(exits.FAILED)
        once.set()
        supervisor.end(exits.DONE)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
