"""A supervisor that is told to stop at an awkward moment of its workers' lives."""

import asyncio
import errno
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.workers import wait_for
from trackd import exits
from trackd.cluster.supervisor import Supervisor, signalled
from trackd.settings import Settings
from trackd.store.data_directory import DataDirectory

_WORKERS = 2
# Far from the 130 s after which a worker that was not told is killed.
_TIMEOUT_S = 90


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a directory and ports of its own."""
    return Settings(data=tmp_path / "data", grpc="127.0.0.1:0", metrics="127.0.0.1:0")


async def _nothing() -> None:
    pass


async def _served(
    supervisor: Supervisor,
    settings: Settings,
    *,
    meanwhile: Callable[[], Awaitable[None]] = _nothing,
) -> None:
    """Everybody started, and stopped once that is asked for."""
    directory = DataDirectory(settings.data, _WORKERS, default_count=1)
    try:
        directory.begin(accept_data_loss=False)
        async with asyncio.timeout(_TIMEOUT_S), supervisor.started(directory, _WORKERS):
            await meanwhile()
            await supervisor.ended.wait()
    finally:
        directory.close()


async def test_told_before_the_first_worker_is_started(settings: Settings) -> None:
    """Then none is."""
    supervisor = Supervisor(settings)
    supervisor.end(exits.DONE)
    await _served(supervisor, settings)
    assert supervisor.exit_code == exits.DONE
    assert not (settings.data / "partition-0000" / "CURRENT").exists()


async def test_told_while_a_worker_is_being_started(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no line to be told by yet, and stops in order all the same."""
    supervisor, start = Supervisor(settings), asyncio.create_subprocess_exec

    async def started_late(*command: str, **how: Any) -> asyncio.subprocess.Process:
        supervisor.end(exits.DONE)
        for _ in range(100):  # everybody has been told meanwhile
            await asyncio.sleep(0)
        return await start(*command, **how)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started_late)
    await _served(supervisor, settings)
    assert supervisor.exit_code == exits.DONE


async def test_a_worker_that_died_before_does_not_spoil_the_stop(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for its next life; those who are there are stopped in order, and that is told."""
    monkeypatch.setattr("trackd.cluster.supervisor._RESTART_PAUSE_S_MIN", _TIMEOUT_S)
    supervisor = Supervisor(settings)

    async def kill_one() -> None:
        workers = supervisor.workers
        await asyncio.to_thread(wait_for, lambda: all(worker.serving for worker in workers))
        workers[1].signal(signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: workers[1].is_dead)
        supervisor.end(exits.DONE)

    await _served(supervisor, settings, meanwhile=kill_one)
    assert supervisor.exit_code == exits.DONE


class _Starts:
    """Starts of processes, some of which the system refuses."""

    def __init__(self, *refused: int) -> None:
        self._start, self._refused, self.count = asyncio.create_subprocess_exec, refused, 0

    async def __call__(self, *command: str, **how: Any) -> asyncio.subprocess.Process:
        self.count += 1
        if self.count in self._refused:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return await self._start(*command, **how)


async def test_a_worker_that_cannot_be_started_is_a_failed_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with a word, where it would never have been ready."""
    monkeypatch.setattr(asyncio, "create_subprocess_exec", _Starts(2))
    supervisor = Supervisor(settings)
    await _served(supervisor, settings)
    assert supervisor.exit_code == exits.FAILED


async def test_a_worker_that_cannot_be_started_again_is_tried_once_more(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is short a worker is killed, and for a moment there is none for the next."""
    starts = _Starts(3, 4)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", starts)
    supervisor = Supervisor(settings)

    async def kill_one() -> None:
        workers = supervisor.workers
        await asyncio.to_thread(wait_for, lambda: all(worker.serving for worker in workers))
        workers[1].signal(signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: starts.count > 4 and workers[1].serving)
        supervisor.end(exits.DONE)

    await _served(supervisor, settings, meanwhile=kill_one)
    assert supervisor.exit_code == exits.DONE


async def test_one_signal_does_not_cut_a_stop_short(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever says stop while all are stopped for another reason has said it once.

    The exit code says that reason: 78 must not become 1.
    """
    left: list[int] = []
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    monkeypatch.setattr(os, "_exit", left.append)
    loop.add_signal_handler(signal.SIGUSR1, over.set)
    supervisor = Supervisor(settings)
    with signalled(supervisor):
        supervisor.end(exits.DATA_BEHIND)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR1)  # it is heard after the one before
        await over.wait()
    loop.remove_signal_handler(signal.SIGUSR1)
    assert (left, supervisor.exit_code) == ([], exits.DATA_BEHIND)
