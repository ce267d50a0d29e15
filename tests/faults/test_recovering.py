"""Row 2: what a crash left in the logs of several partitions is taken in by several processes."""

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.harness.fleet import Fleet, FleetOptions
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, read_back
from tests.harness.seeds import seeded
from tests.harness.server import ServerProcess
from trackd import exits
from trackd.recovering import recovering_ahead
from trackd.store.data_directory import DataDirectory
from trackd.store.engine import EngineOptions

_SCANS = 2_000


@pytest.fixture(scope="module")
async def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ledger]:
    """The data of three partitions as a killed server left it, and what it had acknowledged."""
    ledger = Ledger()
    fleet = Fleet("RECOVER", ledger, seeded("recovering"), FleetOptions(scanners=4, readers=0))
    server = ServerProcess(tmp_path_factory.mktemp("killed") / "data", "--partitions", "3")
    await asyncio.to_thread(server.start)
    async with fleet.at_work(server.grpc):
        while len(ledger.acknowledged) < _SCANS:  # noqa: ASYNC110 (the ledger tells nobody)
            await asyncio.sleep(0.02)
    server.kill()
    return server.data, ledger


@pytest.fixture(autouse=True)
def _worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small logs are taken in by others, too, on a machine with one core as well."""
    monkeypatch.setattr("trackd.recovering._WORTH_BYTES", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})


def _logs(data: Path, number: int) -> list[bytes]:
    return [log.read_bytes() for log in sorted((data / f"partition-{number:04}").glob("*.log"))]


def _recover(data: Path) -> list[int]:
    directory = DataDirectory(data, None, default_count=1)
    try:
        with recovering_ahead(directory, range(3), EngineOptions()) as in_turn:
            return list(in_turn)
    finally:
        directory.close()


async def test_logs_are_taken_in_beside(
    serve: Serve, killed: tuple[Path, Ledger], tmp_path: Path
) -> None:
    """Nothing is left in the logs of those, the others are as they were, and nothing is lost."""
    left, ledger = killed
    data = shutil.copytree(left, tmp_path / "data")
    assert await asyncio.to_thread(_recover, data) == [0, 1, 2]
    assert _logs(data, 0) == _logs(left, 0)
    for number in (1, 2):
        assert sum(map(len, _logs(left, number))) > 10_000
        assert not any(_logs(data, number))
    server = serve(data=data)
    assert await read_back(ledger, server.grpc)
    assert server.stop() == exits.DONE
    expect_sound(data)


async def test_a_log_that_is_damaged_is_left_as_it_is(
    serve: Serve, killed: tuple[Path, Ledger], tmp_path: Path
) -> None:
    """What can still be saved of it is there, and the server tells why it does not start."""
    left, _ = killed
    data = shutil.copytree(left, tmp_path / "data")
    log = max((data / "partition-0001").glob("*.log"), key=lambda file: file.stat().st_size)
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 0xFF
    log.write_bytes(content)
    before = _logs(data, 1)
    assert await asyncio.to_thread(_recover, data) == [0, 1, 2]
    assert _logs(data, 1) == before
    server = serve(data=data, start=False)
    server.launch()
    assert server.wait() == exits.DATA_BEHIND
    assert "partition 1 holds positions up to" in server.log


async def test_a_process_without_the_one_that_started_it_ends(
    killed: tuple[Path, Ledger], tmp_path: Path
) -> None:
    """It would hold the partition against the next start."""
    left, _ = killed
    data = shutil.copytree(left, tmp_path / "data")
    paths = [str(data / "partition-0001"), str(data / "partition-0001.mark")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trackd.recovering", "1", "{}", "1", *paths
    )
    assert await process.wait() == exits.FAILED
    assert _logs(data, 1) == _logs(left, 1)
