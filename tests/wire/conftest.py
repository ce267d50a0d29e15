"""What the tests of the door share: a server on each event loop, a caller, waybill numbers."""

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.harness.server import ServerProcess
from tests.wire.caller import Caller

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, ServerProcess]]:
    """A server on each loop that was asked for, by its name, until all tests are over."""
    running: dict[str, ServerProcess] = {}
    yield running
    assert [server.stop() for server in running.values()] == [0] * len(running)


@pytest.fixture(scope="session", params=["uvloop", "asyncio"])
def server(
    request: pytest.FixtureRequest,
    servers: dict[str, ServerProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> ServerProcess:
    """A server with the settings that everybody gets, on one loop and on the other.

    All tests share it: each has waybill numbers of its own.
    """
    loop = request.param
    if loop not in servers:
        data = tmp_path_factory.mktemp(loop) / "data"
        servers[loop] = ServerProcess(data, "--partitions", "3", "--loop", loop).start()
    return servers[loop]


@pytest.fixture(scope="session")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose bounds are so small that a test reaches them."""
    directory = tmp_path_factory.mktemp("small")
    running = ServerProcess(
        directory / "data",
        *("--partitions", "1", "--reflection"),
        *("--unary-ingest-in-flight-max", "1", "--streams-max", "2"),
        *("--response-bytes-max", "256KiB", "--event-bytes-max", "60KiB"),
        *("--waybill-events-max", "100"),
    )
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture
async def caller(server: ServerProcess) -> AsyncIterator[Caller]:
    """A caller of the server."""
    one = Caller(server.grpc)
    yield one
    await one.channel.close()


@pytest.fixture
async def small_caller(small_server: ServerProcess) -> AsyncIterator[Caller]:
    """A caller of the server with small bounds."""
    one = Caller(small_server.grpc)
    yield one
    await one.channel.close()


@pytest.fixture
def waybill() -> str:
    """A waybill number that no other test has."""
    return f"SF{next(_numbers):08}"
