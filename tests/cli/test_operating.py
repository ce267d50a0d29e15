"""What operators type: serve, config, health, stats and check, and what scripts read from them."""

import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import TRACKD, Trackd, run_here
from tests.cli.lines import jsonl, scan
from tests.conftest import Serve
from tests.harness.faults import ReadOnlyView
from tests.harness.server import ServerProcess
from tests.harness.workers import health, kept_down, wait_for, worker_pids
from trackd.settings import Settings


def test_config_prints_a_file_that_config_reads(tmp_path: Path) -> None:
    """Every setting with its origin; what was printed gives the same settings again."""
    flags = ("--partitions", "3", "--block-cache-bytes", "1GiB")
    printed = run_here("config", *flags, env={"TRACKD_LOOP": "asyncio"}).out
    assert "partitions = 3  # flag --partitions\n" in printed
    assert 'block_cache_bytes = "1GiB"  # flag --block-cache-bytes\n' in printed
    assert 'loop = "asyncio"  # environment TRACKD_LOOP\n' in printed
    assert all(name in printed for name in Settings.model_fields)
    file = tmp_path / "trackd.toml"
    file.write_text(printed)
    again = run_here("config", "--config", file).out
    assert tomllib.loads(again) == tomllib.loads(printed)
    assert f"partitions = 3  # file {file}\n" in again


@pytest.mark.parametrize("name", ['a "b"\\', "two\nlines", "tab\tand\x7fmore", "包裹"])
def test_config_prints_any_name(name: str) -> None:
    """A directory may be called anything."""
    assert tomllib.loads(run_here("config", "--data", name).out)["data"] == name


@pytest.mark.parametrize("command", [["config", "--check"], ["serve"]])
def test_settings_that_cannot_be_used_are_named(command: list[str]) -> None:
    """Exit code 2, all of them at once, and no traceback."""
    ran = run_here(*command, "--partitions", "0", env={"TRACKD_LOOP": "trio"})
    assert (ran.code, ran.out) == (2, "")
    assert "partitions = 0 (flag --partitions): must be a number, 1 to 256" in ran.err
    assert "loop = trio (environment TRACKD_LOOP): must be 'uvloop' or 'asyncio'" in ran.err


def test_valid_settings_are_said_to_be() -> None:
    """For a script that starts a server later."""
    assert run_here("config", "--check").out == "the settings are valid\n"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_server_says_what_has_no_effect_and_stops_in_order(serve: Serve, loop: str) -> None:
    """Settings for later versions are taken and named in the log, on either event loop."""
    server = serve("--workers", "2", "--partitions", "2", "--http", "127.0.0.1:0", "--loop", loop)
    for pid in worker_pids(server).values():
        # Nor does gRPC write lines of its own between them.
        assert b"\0GRPC_VERBOSITY=ERROR\0" in Path(f"/proc/{pid}/environ").read_bytes()
    assert server.stop() == 0
    events = [orjson.loads(line)["event"] for line in server.log.splitlines()]
    assert "web pages are not served in this version" in events


def test_closed_standard_streams_are_not_taken_by_files(tmp_path: Path) -> None:
    """Whoever starts a server without them must not have its log in the data."""
    script = (
        "import os, sys\n"
        "from trackd.cli.main import _open_standard_streams\n"
        "_open_standard_streams()\n"
        "print('lost'), print('lost', file=sys.stderr)\n"
        "file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
        "os.write(2, b'lost')\n"
        "os.write(file, b'kept' if file > 2 else b'among them')\n"
    )
    kept = tmp_path / "kept"
    command = [sys.executable, "-c", script, str(kept)]
    subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], check=True, timeout=60)
    assert kept.read_text() == "kept"


@pytest.mark.parametrize("workers", [1, 2])
def test_nobody_has_to_hear_that_it_is_ready(tmp_path: Path, workers: int) -> None:
    """It serves, and workers go on hearing of each other, though its output's disk is full."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    server = ServerProcess(
        tmp_path / "data",
        *("--partitions", "2", "--workers", str(workers), "--grpc", address),
        through=("sh", "-c", 'exec "$@" >/dev/full', "sh"),
    )
    server.launch()
    try:
        server.logged("nobody hears that it is ready")
        assert health(address)
        if workers > 1:
            with kept_down(server, 1):
                wait_for(lambda: not health(address, "partition-1"))
            wait_for(lambda: health(address))
        else:
            assert server.stop() == 0
    finally:
        server.kill()


def test_output_that_cannot_be_written_is_one_clear_line() -> None:
    """A full disk is no defect of ours."""
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [TRACKD, "config"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert (ran.returncode, ran.stderr) == (1, b"trackd: [Errno 28] No space left on device\n")


def test_a_directory_in_use_has_its_own_exit_code(serve: Serve, trackd: Trackd) -> None:
    """75 for a second server and for a check beside a running one, which both name it."""
    server = serve()
    second = trackd("serve", "--data", server.data, "--grpc", "127.0.0.1:0")
    checked = trackd("check", server.data)
    assert (second.code, checked.code) == (75, 75)
    assert str(server.data) in second.err
    assert "stop the server first" in checked.err


def test_health_is_for_scripts(trackd: Trackd) -> None:
    """SERVING and exit code 0 where a server answers; 1 and one line where none does."""
    here = trackd("health")
    nowhere = trackd("health", "--server", "127.0.0.1:1", "--timeout-s", "10")
    assert (here.code, here.out) == (0, "SERVING\n")
    assert (nowhere.code, nowhere.out) == (1, "")
    assert nowhere.err.startswith("trackd: no server answers at 127.0.0.1:1")
    assert len(nowhere.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["trackd.v1.FeedService", "partition-1"])
def test_health_of_one_name(trackd: Trackd, name: str) -> None:
    """A service, or a partition, however many processes there are."""
    assert trackd("health", "--service", name).out == "SERVING\n"


def test_health_of_a_name_that_is_not_there(trackd: Trackd) -> None:
    """One line that says so, and exit code 1: a probe with a slip must not pass."""
    ran = trackd("health", "--service", "partition-2")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith("has nothing of the name 'partition-2'\n")


def test_stats_show_each_partition(trackd: Trackd, server: ServerProcess) -> None:
    """As a table for people and, with every field, as a document for programs."""
    assert trackd("ingest", "-", stdin=jsonl(scan("STATS-1", 1))).code == 0
    document, table = trackd("stats", "--json").document, trackd("stats").out
    assert [entry["partition"] for entry in document["partitions"]] == [0, 1]
    for entry in document["partitions"]:
        assert f"{entry['durable_position']:,}" in table
        assert {"queued_events", "stalls", "bytes_on_disk"} <= entry.keys()
    assert sum(entry["durable_position"] for entry in document["partitions"]) > 0
    assert document["low_space"] is False


@pytest.mark.parametrize("command", [["track", "ABCD"], ["stats"], ["stats", "--watch"]])
def test_a_server_that_is_not_there_is_one_clear_line(command: list[str]) -> None:
    """Exit code 1 at once, and what to do about it."""
    ran = run_here(*command, "--server", "127.0.0.1:1")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("trackd: no server answers at 127.0.0.1:1")
    assert "trackd serve" in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.fixture
def stopped(serve: Serve, trackd: Trackd) -> ServerProcess:
    """A server that has stored something and stopped."""
    server = serve("--partitions", "2")
    scans = jsonl(*(scan(f"CHECK-{n % 20}", n, minutes=n) for n in range(500)))
    assert trackd("ingest", "-", "--server", server.grpc, stdin=scans).code == 0
    assert server.stop() == 0
    return server


def test_check_finds_nothing_where_all_is_well(trackd: Trackd, stopped: ServerProcess) -> None:
    """Exit code 0, for people and for programs."""
    assert trackd("check", stopped.data).out == f"{stopped.data}: all is well\n"
    ran = trackd("check", stopped.data, "--json")
    assert (ran.code, ran.document) == (0, {"data": str(stopped.data), "findings": 0})


def test_check_finds_the_directory_as_serve_does(trackd: Trackd, stopped: ServerProcess) -> None:
    """By flag, environment or file; named twice, it is a slip."""
    well, data = f"{stopped.data}: all is well\n", stopped.data
    file = data.parent / "check.toml"
    file.write_text(f'data = "{data}"\n')
    assert trackd("check", "--data", data).out == well
    assert trackd("check", env={"TRACKD_DATA": str(data)}).out == well
    assert trackd("check", "--config", file).out == well
    assert run_here("check", data, "--data", data).code == 2
    assert "/nowhere.toml" in run_here("check", "--config", "/nowhere.toml").err


def test_check_reads_what_it_may_not_write(
    trackd: Trackd, stopped: ServerProcess, tmp_path: Path
) -> None:
    """A backup that is mounted read-only, files of the server's own that it would make included."""
    (stopped.data / "lock").unlink()
    for file in stopped.data.glob("*/rocksdict-config.json"):
        file.unlink()
    with ReadOnlyView(stopped.data, tmp_path) as view:
        ran = trackd("check", view.path)
    assert (ran.code, ran.out) == (0, f"{view.path}: all is well\n")


def test_check_changes_nothing(trackd: Trackd, stopped: ServerProcess) -> None:
    """No file is made or written, so that root may check what is another user's."""

    def files() -> dict[Path, tuple[int, int]]:
        found = {path: path.stat() for path in stopped.data.rglob("*")}
        return {path: (how.st_mtime_ns, how.st_ino) for path, how in found.items()}

    before = files()
    assert trackd("check", stopped.data).code == 0
    assert files() == before


def test_check_names_what_is_wrong(trackd: Trackd, stopped: ServerProcess) -> None:
    """Exit code 1, a line for each finding, and the same as documents."""
    tables = list((stopped.data / "partition-0000").glob("*.sst"))
    assert tables
    for table in tables:
        table.unlink()
    (stopped.data / "partition-0001.mark").unlink()
    ran = trackd("check", stopped.data)
    documents = [
        orjson.loads(line) for line in trackd("check", stopped.data, "--json").out.splitlines()
    ]
    *lines, last = ran.out.splitlines()
    assert (ran.code, last) == (1, f"{stopped.data}: {len(lines)} findings")
    assert documents.pop() == {"data": str(stopped.data), "findings": len(lines)}
    assert {finding["kind"] for finding in documents} >= {"damaged", "behind"}
    assert {finding["partition"] for finding in documents} == {0, 1}
    assert str(tables[0].parent) in ran.out, "files are named as they are known"
    for line, finding in zip(lines, documents, strict=True):
        assert line == (
            f"partition {finding['partition']}, {finding['kind']}:"
            f" {finding['where']}: {' '.join(finding['message'].split())}"
        )


def test_a_finding_is_one_line(trackd: Trackd, stopped: ServerProcess) -> None:
    """What RocksDB says of a table that is too short has two."""
    (table, *_) = (stopped.data / "partition-0000").glob("*.sst")
    table.write_bytes(table.read_bytes()[:100])
    *lines, last = trackd("check", stopped.data).out.splitlines()
    assert last == f"{stopped.data}: {len(lines)} finding{'s' if len(lines) > 1 else ''}"
    assert all(line.startswith("partition 0, damaged: ") for line in lines)


def test_check_of_what_is_no_data_directory(trackd: Trackd, tmp_path: Path) -> None:
    """Exit code 1, and it makes none."""
    ran = trackd("check", tmp_path / "nowhere")
    assert ran.code == 1
    assert "is not a data directory" in ran.err
    assert not (tmp_path / "nowhere").exists()
