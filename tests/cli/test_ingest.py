"""`trackd ingest` sends every line once in effect, whatever interrupts it."""

import gzip
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.conftest import TIMEOUT_S, TRACKD, Trackd, environment, run_here
from tests.cli.lines import jsonl, scan
from tests.harness.server import ServerProcess
from trackd.cli.files.records import Fault, Record
from trackd.cli.files.rejects import Rejects

MAPPING = 'waybill_number = "{number}"\n[time]\nzone = "UTC"\n' + "".join(
    f'[[events]]\ncode = "{code}"\ntime = "at"\nevent_id = "{{@code}}"\n'
    'remark = "{note}"\nfacility_code = "{note}"\n'
    for code in ("PICKED_UP", "SORTED", "DELIVERED")
)


def counts(document: dict[str, Any]) -> tuple[int, int, int]:
    """Accepted, duplicates, rejected."""
    return document["accepted"], document["duplicates"], document["rejected"]


def listed(path: Path) -> list[dict[str, Any]]:
    """What a list of refusals holds."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def slow_ingest(server: ServerProcess, tmp_path: Path) -> Iterator["SlowIngest"]:
    """Runs that can be interrupted on the way."""
    slow = SlowIngest(server, tmp_path)
    yield slow
    slow.end()


class SlowIngest:
    """An ingest of one event at a time, so that there is time to interrupt it."""

    def __init__(self, server: ServerProcess, cwd: Path) -> None:
        self._server = server
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    def interrupt(self, file: Path, number: int) -> tuple[int, str]:
        """Sends a file, signals as soon as a checkpoint is there; exit code and what was said."""
        self._process = subprocess.Popen(
            [TRACKD, "ingest", file.name, "--batch-events", "1", "--in-flight", "1"],
            cwd=self._cwd,
            env=environment(self._server.grpc),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + TIMEOUT_S
        while not file.with_name(file.name + ".checkpoint").exists():
            assert self._process.poll() is None, "ended before it could be interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(self._process.pid, number)
        said, _ = self._process.communicate(timeout=TIMEOUT_S)
        return self._process.returncode, said.decode()

    def end(self) -> None:
        """Leaves nothing behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def test_good_lines_are_stored_and_bad_ones_listed(trackd: Trackd, tmp_path: Path) -> None:
    """Bad lines, whether unreadable or refused by the server, hold nothing up."""
    (tmp_path / "scans.jsonl").write_bytes(
        jsonl(
            scan("INGEST-1", 1),
            b"",
            b"not json",
            scan("INGEST-1", "", "DELIVERED"),
            scan("INGEST-1", 2, "SOLD"),
            scan("INGEST-1", 3, "DELIVERED", minutes=5),
            scan("INGEST-1", 3, "DELIVERED", minutes=6),
            scan("no!", 4),
        )
    )
    ran = trackd("ingest", "scans.jsonl", "--json")
    assert (ran.code, counts(ran.document)) == (0, (2, 0, 5))
    assert ran.document["lines"] == 8
    found = listed(tmp_path / "scans.jsonl.rejected.jsonl")
    assert [(entry["line"], entry["reason"]) for entry in found] == [
        (3, "UNPARSABLE"),
        (4, "INVALID_EVENT_ID"),
        (5, "UNKNOWN_CODE"),
        (7, "CONFLICT"),
        (8, "INVALID_WAYBILL_NUMBER"),
    ]
    assert found[0]["input"] == "not json"
    assert found[3]["event_id"] == "3"
    assert all(entry["message"] for entry in found)
    status = trackd("track", "INGEST-1", "--json").document["status"]
    assert (status["milestone"], status["event_count"]) == ("DELIVERED", 2)


def test_sending_a_file_again_changes_nothing(trackd: Trackd, tmp_path: Path) -> None:
    """The second run finds only duplicates, and the parcels are as they were."""
    (tmp_path / "scans.jsonl").write_bytes(
        jsonl(*(scan(f"AGAIN-{n % 10}", n, minutes=n) for n in range(2_000)))
    )
    first = trackd("ingest", "scans.jsonl", "--json")
    before = trackd("track", "AGAIN-3", "--all", "--json").out
    second = trackd("ingest", "scans.jsonl", "--json")
    assert counts(first.document) == (2_000, 0, 0)
    assert counts(second.document) == (0, 2_000, 0)
    assert trackd("track", "AGAIN-3", "--all", "--json").out == before
    assert sorted(path.name for path in tmp_path.glob("scans*")) == ["scans.jsonl"]


def test_an_interrupted_run_says_how_to_go_on_and_is_gone_on_with(
    trackd: Trackd, slow_ingest: SlowIngest, tmp_path: Path
) -> None:
    """Ctrl-C loses nothing and repeats nothing: what was on its way is waited for."""
    file = tmp_path / "scans.jsonl"
    file.write_bytes(jsonl(*(scan(f"INTR-{n % 50}", n, minutes=n) for n in range(10_000)), b"x"))
    code, said = slow_ingest.interrupt(file, signal.SIGINT)
    assert code == 130
    assert "Traceback" not in said
    assert "the same command goes on" in said
    ran = trackd("ingest", "scans.jsonl", "--json")
    assert "going on behind line" in ran.err
    assert (ran.code, counts(ran.document)) == (0, (10_000, 0, 1))
    assert not file.with_name("scans.jsonl.checkpoint").exists()


def test_a_killed_run_is_gone_on_with(
    trackd: Trackd, slow_ingest: SlowIngest, tmp_path: Path
) -> None:
    """After kill -9 all is there once; only what was sent after the last checkpoint is repeated."""
    file = tmp_path / "scans.jsonl"
    file.write_bytes(
        jsonl(b"bad", *(scan(f"KILL-{n % 100:02}", n, minutes=n) for n in range(10_000)))
    )
    code, _ = slow_ingest.interrupt(file, signal.SIGKILL)
    assert code == -signal.SIGKILL
    ran = trackd("ingest", "scans.jsonl", "--json")
    accepted, duplicates, rejected = counts(ran.document)
    assert (accepted + duplicates, rejected) == (10_000, 1)
    assert "going on behind line" in ran.err
    assert [entry["line"] for entry in listed(tmp_path / "scans.jsonl.rejected.jsonl")] == [1]
    for line in trackd("track", "KILL-00", "KILL-99", "--all", "--json").out.splitlines():
        document = orjson.loads(line)
        assert document["status"]["event_count"] == len(document["events"]) == 100


def test_a_server_that_was_set_up_anew_gets_the_whole_file(
    trackd: Trackd, slow_ingest: SlowIngest, tmp_path: Path
) -> None:
    """A checkpoint of another data set would leave a hole, so it is not used."""
    file = tmp_path / "scans.jsonl"
    file.write_bytes(jsonl(*(scan(f"ANEW-{n % 50}", n, minutes=n) for n in range(10_000))))
    slow_ingest.interrupt(file, signal.SIGINT)
    checkpoint = file.with_name("scans.jsonl.checkpoint")
    kept = orjson.loads(checkpoint.read_bytes())
    checkpoint.write_bytes(orjson.dumps(kept | {"data_set_id": "another"}))
    ran = trackd("ingest", "scans.jsonl", "--json")
    assert "from the beginning" in ran.err
    accepted, duplicates, _ = counts(ran.document)
    assert accepted + duplicates == 10_000
    assert duplicates > 0


def test_standard_input_plain_or_compressed(trackd: Trackd, tmp_path: Path) -> None:
    """A pipe is read to its end; gzip is recognised by its content."""
    content = jsonl(*(scan("PIPE-1", n, minutes=n) for n in range(700)))
    assert counts(trackd("ingest", "-", "--json", stdin=content).document) == (700, 0, 0)
    again = trackd("ingest", "-", "--json", stdin=gzip.compress(content))
    assert counts(again.document) == (0, 700, 0)


def test_a_directory_that_takes_no_files_is_sent_from_all_the_same(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would stand beside the file stands in the working directory."""
    there = tmp_path / "there"
    there.mkdir()
    (there / "scans.jsonl").write_bytes(jsonl(scan("RO-1", 1), b"x"))
    monkeypatch.chdir(tmp_path)
    writable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != there and writable(path, mode))
    ran = run_here("ingest", there / "scans.jsonl", env={"TRACKD_SERVER": server.grpc})
    assert (ran.code, "1 accepted" in ran.out) == (0, True), ran
    assert [path.name for path in there.iterdir()] == ["scans.jsonl"]
    assert [each["line"] for each in listed(tmp_path / "scans.jsonl.rejected.jsonl")] == [2]


def test_what_is_no_file_is_not_replaced_by_one(trackd: Trackd, tmp_path: Path) -> None:
    """`--rejected /dev/null`, by somebody who may write in /dev."""
    (tmp_path / "scans.jsonl").write_bytes(jsonl(scan("NOFILE-1", 1)) + b"none\n")
    os.mkfifo(tmp_path / "refused")
    reading = os.open(tmp_path / "refused", os.O_RDONLY | os.O_NONBLOCK)
    try:
        ran = trackd("ingest", "scans.jsonl", "--rejected", "refused", "--json")
        assert (ran.code, counts(ran.document)) == (0, (1, 0, 1)), ran
        assert (tmp_path / "refused").is_fifo()
        assert orjson.loads(os.read(reading, 4_096))["line"] == 2
    finally:
        os.close(reading)


def test_a_file_that_was_corrected_on_the_way_is_sent_from_its_beginning(
    trackd: Trackd, slow_ingest: SlowIngest, tmp_path: Path
) -> None:
    """The corrected line is sent, and none is cut in two."""
    file = tmp_path / "scans.jsonl"
    lines = [scan(f"FIXED-{n % 50}", n, minutes=n) for n in range(10_000)]
    file.write_bytes(jsonl(b"x" * 100_000, b"slip", *lines))
    slow_ingest.interrupt(file, signal.SIGTERM)
    file.write_bytes(jsonl(b"x" * 100_000, *lines))
    ran = trackd("ingest", "scans.jsonl", "--json")
    assert "the file has changed" in ran.err
    assert (ran.code, ran.document["rejected"]) == (0, 1)
    assert ran.document["accepted"] + ran.document["duplicates"] == 10_000


def test_a_list_of_refusals_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    """What a run goes on with is the list as it is, without a gap where the rest was."""
    path, fault = tmp_path / "refused", Fault("UNPARSABLE", "", "is not JSON")
    for _ in range(2):
        with Rejects(path, keep_bytes=5_000) as rejects:
            rejects.add(Record(7, "x", (), (fault,)), fault, event_id="")
        assert rejects.bytes == path.stat().st_size
    assert [entry["line"] for entry in listed(path)] == [7, 7]


@pytest.mark.parametrize("mapped", [False, True])
def test_a_damaged_archive_is_one_clear_line(
    trackd: Trackd, tmp_path: Path, *, mapped: bool
) -> None:
    """Wherever it is damaged."""
    packed = bytearray(gzip.compress(jsonl(*(scan(f"DAMAGE-{n}", n) for n in range(300)))))
    packed[20] ^= 0xFF
    packed[30] ^= 0xFF
    (tmp_path / "scans.gz").write_bytes(packed)
    (tmp_path / "mapping.toml").write_text(MAPPING)
    ran = trackd("ingest", "scans.gz", *(["--mapping", "mapping.toml"] if mapped else []))
    assert ran.code == 1
    assert "while decompressing" in ran.err
    assert "Traceback" not in ran.err


def test_rows_of_several_events_keep_to_what_the_server_takes(
    trackd: Trackd, tmp_path: Path
) -> None:
    """However many events a batch may have, and however large a row is."""
    (tmp_path / "mapping.toml").write_text(MAPPING)
    rows = [f"ROWS-{n},2026-01-02T03:04,x" for n in range(700)]
    rows[300] += "y" * 100_000
    (tmp_path / "rows.CSV").write_text("\n".join(("number,at,note", *rows)))
    ran = trackd(
        "ingest", "rows.CSV", "--mapping", "mapping.toml", "--batch-events", 1000, "--json"
    )
    assert (ran.code, counts(ran.document)) == (0, (3 * 699, 0, 1)), ran.err
    (listed_row,) = listed(tmp_path / "rows.CSV.rejected.jsonl")
    assert (listed_row["line"], listed_row["reason"]) == (302, "FIELD_TOO_LONG")


def test_what_cannot_be_written_is_named(trackd: Trackd, tmp_path: Path) -> None:
    """Not the file that is read, which has nothing."""
    (tmp_path / "scans.jsonl").write_bytes(jsonl(scan("FULL-1", 1), b"slip"))
    ran = trackd("ingest", "scans.jsonl", "--rejected", "/dev/full")
    assert (ran.code, "trackd: /dev/full: No space left" in ran.err) == (1, True), ran.err


def test_a_truncated_archive_fails_after_what_could_be_read(trackd: Trackd, tmp_path: Path) -> None:
    """Half a file is never taken for a whole one."""
    content = jsonl(*(scan(f"TRUNC-{n}", n, minutes=n) for n in range(3_000)))
    packed = gzip.compress(content)
    (tmp_path / "scans.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    ran = trackd("ingest", "scans.jsonl.gz", "--json")
    assert (ran.code, ran.document["complete"]) == (1, False)
    assert 0 < ran.document["accepted"] < 3_000
    assert "cannot be read any further" in ran.err
    assert "Traceback" not in ran.err
    (tmp_path / "scans.jsonl.gz").write_bytes(packed)
    ran = trackd("ingest", "scans.jsonl.gz", "--json")
    assert (ran.code, counts(ran.document)) == (0, (3_000, 0, 0))


def test_a_server_that_cannot_be_reached_is_one_clear_line(tmp_path: Path, trackd: Trackd) -> None:
    """Exit code 1, and no traceback."""
    (tmp_path / "scans.jsonl").write_bytes(jsonl(scan("LINE-1", 1)))
    ran = trackd("ingest", "scans.jsonl", "--server", "127.0.0.1:1")
    assert ran.code == 1
    assert ran.err.startswith("trackd: no server answers at 127.0.0.1:1")
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("shipments.csv", 2, "--mapping FILE has to say"),
        ("SHIPMENTS.CSV", 2, "--mapping FILE has to say"),
        ("wide.jsonl", 1, "wide.jsonl: is UTF-16; convert it"),
        ("nowhere.jsonl", 1, "No such file"),
        ("./", 1, "trackd: .: Is a directory"),
        ("scans.jsonl --mapping nowhere.toml", 2, "cannot be read"),
        ("scans.jsonl --mapping scans.jsonl", 2, "is not TOML"),
        ("scans.jsonl --batch-events 1001", 2, "--batch-events"),
        ("scans.jsonl --server nowhere", 2, "HOST:PORT"),
        ("scans.jsonl --rejected ./scans.jsonl", 2, "the file that is to be sent"),
    ],
)
def test_a_slip_is_told_before_anything_is_sent(
    in_a_directory_with_scans: None, server: ServerProcess, *, words: str, code: int, told: str
) -> None:
    """With the exit code of a usage error where it is one."""
    ran = run_here("ingest", *words.split(), env={"TRACKD_SERVER": server.grpc})
    assert ran.code == code
    assert told in ran.err
    assert Path("scans.jsonl").stat().st_size > 0


@pytest.fixture
def in_a_directory_with_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory holds a file of scans."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans.jsonl").write_bytes(jsonl(scan("SLIP-1", 1)))
    (tmp_path / "wide.jsonl").write_text("{}", encoding="utf-16")


def test_refusals_can_fail_the_run(trackd: Trackd) -> None:
    """With --strict any refusal does; without it only a file in which nothing was good."""
    mixed, bad = jsonl(scan("STRICT-1", 1), b"x"), jsonl(b"x", b"y")
    assert trackd("ingest", "-", "--strict", stdin=mixed).code == 1
    assert trackd("ingest", "-", stdin=bad).code == 1
