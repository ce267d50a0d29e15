"""The `trackd` command as people run it: a process of its own, against a real server."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Protocol

import orjson
import pytest
from typer.testing import CliRunner

from tests.harness.forked import ForkedProcess
from tests.harness.server import ServerProcess
from trackd.cli.main import application

ROOT = Path(__file__).parents[2]
TRACKD = Path(sys.executable).with_name("trackd")
TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its only line of output, as JSON."""
        return orjson.loads(self.out)


class Trackd(Protocol):
    """Runs `trackd WORDS` against the server of the tests, in a directory of its own."""

    def __call__(
        self, *words: object, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> Ran: ...


def environment(server: str, **more: str) -> dict[str, str]:
    """An environment in which nothing of the machine's own settings takes part."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("TRACKD_")}
    return own | {"TRACKD_SERVER": server, "TZ": "UTC", "LANG": "C.UTF-8", "COLUMNS": "200"} | more


def run(
    *words: object, server: str, cwd: Path, stdin: bytes = b"", env: dict[str, str] | None = None
) -> Ran:
    """Runs a command to its end, in a process of its own."""
    arguments, variables = list(map(str, words)), environment(server, **(env or {}))
    if any(name.startswith("PYTHON") for name in env or ()):  # read while Python itself starts
        ended = subprocess.run(
            [TRACKD, *arguments],
            input=stdin,
            capture_output=True,
            cwd=cwd,
            env=variables,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Ran(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
    with TemporaryFile() as out, TemporaryFile() as err:
        with _pipe_with(stdin) as read:
            process = ForkedProcess(arguments, env=variables, read=read, out=out, err=err, cwd=cwd)
        try:
            code = process.wait(TIMEOUT_S)
        finally:
            process.kill()
        for file in (out, err):
            file.seek(0)
        return Ran(code, out.read().decode(), err.read().decode())


@contextmanager
def _pipe_with(content: bytes) -> Iterator[BinaryIO]:
    """The end of a pipe from which the content is read, by whoever keeps it when the block ends."""
    read, write = os.pipe()

    def fill() -> None:
        # It may end before it has read all.
        with suppress(BrokenPipeError), os.fdopen(write, "wb") as pipe:
            pipe.write(content)

    with os.fdopen(read, "rb") as kept:
        threading.Thread(target=fill, daemon=True).start()
        yield kept


def run_here(*words: object, env: dict[str, str | None] | None = None) -> Ran:
    """Runs a command that ends before it talks to a server, without the cost of a process."""
    own: dict[str, str | None] = {name: None for name in os.environ if name.startswith("TRACKD_")}
    arguments = [str(word) for word in words]
    runner = CliRunner(env=own | {"COLUMNS": "200", "TERM": "dumb"} | (env or {}))
    ended = runner.invoke(application(arguments[0]), arguments)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return Ran(ended.exit_code, ended.stdout, ended.stderr)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that only add parcels of their own."""
    started = ServerProcess(tmp_path_factory.mktemp("server") / "data", "--partitions", "2")
    yield started.start()
    started.kill()


@pytest.fixture
def trackd(server: ServerProcess, tmp_path: Path) -> Trackd:
    """The command, with the server named in the environment."""

    def ran(*words: object, stdin: bytes = b"", env: dict[str, str] | None = None) -> Ran:
        return run(*words, server=server.grpc, cwd=tmp_path, stdin=stdin, env=env)

    return ran
