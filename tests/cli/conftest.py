"""The `trackd` command as people run it: a process of its own, against a real server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson
import pytest
from typer.testing import CliRunner

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
    """Runs a command to its end."""
    ended = subprocess.run(
        [TRACKD, *map(str, words)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=environment(server, **(env or {})),
        timeout=TIMEOUT_S,
        check=False,
    )
    return Ran(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


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
