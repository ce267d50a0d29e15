"""What every test may ask for: a running server."""

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
from grpc import aio
from hypothesis import settings

from tests.harness.loops import loops
from tests.harness.server import ServerProcess

__all__ = ["loops"]  # pytest finds a fixture by its name here

# Nothing here is a timed test: on a busy machine any example may take long.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")

# A shell has what it starts in the background ignore Ctrl-C, and what tests start would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# gRPC ends its poller with the last channel of a process, and waits for ever if a call of a loop
# that was closed is still under way; so there is always one more.
aio.init_grpc_aio()

# The folders of the long campaigns.
_LONG = {"faults", "cluster"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long campaigns go first, so that none is left for one process while the other is idle."""
    items.sort(key=lambda item: item.path.parent.name not in _LONG)


class Serve(Protocol):
    """Starts a server of the test's own; it is gone when the test is over."""

    def __call__(
        self,
        *flags: str,
        data: Path | None = None,
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> ServerProcess: ...


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve("--partitions", "1", env={...})`: a started server, by default on a new directory."""
    servers: list[ServerProcess] = []

    def started(
        *flags: str,
        data: Path | None = None,
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> ServerProcess:
        number = len(servers)
        server = ServerProcess(
            data or tmp_path / f"data-{number}", *flags, env=env, logs=tmp_path / f"logs-{number}"
        )
        servers.append(server)
        return server.start() if start else server

    yield started
    for server in servers:
        if server.launched:
            server.kill()
            # Shown by pytest only if the test failed.
            print(f"-- {server.data.name}: exit code {server.exit_code}\n{server.log_end}")
