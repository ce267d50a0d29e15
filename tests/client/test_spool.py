"""The spool keeps what it took: in one file, for one process, within its bound."""

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.client.journeys import numbered_scan
from trackd.client import Spool, SpoolBroken, SpoolFull, SpoolInUse, SpoolOptions
from trackd.client.spool_file import FORMAT_VERSION
from trackd.client.window import Entry, RejectedEntry
from trackd.v1.vocabulary_pb2 import RejectionReason

WIRES = [numbered_scan(number).SerializeToString() for number in range(10)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's spool is."""
    return tmp_path / "spool.db"


def everything(spool: Spool) -> list[Entry]:
    """What waits in the spool."""
    return spool.read(after=0, events_max=1_000, bytes_max=1 << 30).result()


def test_scans_are_there_after_reopening(path: Path) -> None:
    """What `put` has resolved for is in the file, in order, with its bytes unchanged."""
    with Spool(path, device_id="gun-1") as spool:
        assert spool.put(WIRES[:4]).result() == 4
        assert spool.put(WIRES[4:]).result() == 10
    with Spool(path, device_id="gun-1") as spool:
        assert [entry.wire for entry in everything(spool)] == WIRES
        assert spool.level().waiting_events == 10
        assert spool.put(WIRES[:1]).result() == 11


def test_reads_keep_their_bounds(path: Path) -> None:
    """A read goes on behind what was read, within the bounds, and is never empty for size."""
    with Spool(path, device_id="gun-1") as spool:
        spool.put(WIRES)
        first = spool.read(after=0, events_max=3, bytes_max=1 << 30).result()
        assert [entry.sequence for entry in first] == [1, 2, 3]
        rest = spool.read(after=3, events_max=100, bytes_max=2 * len(WIRES[4])).result()
        assert [entry.sequence for entry in rest] == [4, 5]
        assert len(spool.read(after=5, events_max=100, bytes_max=1).result()) == 1


def test_settled_scans_are_forgotten_and_rejected_ones_kept(path: Path) -> None:
    """After settling, the answered scans are gone and the rejected ones listed, until cleared."""
    with Spool(path, device_id="gun-1") as spool:
        spool.put(WIRES)
        entries = everything(spool)
        conflict = RejectionReason.REJECTION_REASON_CONFLICT
        rejected = [RejectedEntry(entry=entries[2], reason=conflict, field="f", message="m")]
        spool.settle(through=6, rejected=rejected)
    with Spool(path, device_id="gun-1") as spool:
        assert everything(spool) == entries[6:]
        level = spool.level()
        assert (level.settled, level.last) == (6, 10)
        assert (level.waiting_events, level.rejected_events) == (4, 1)
        ((sequence, scan),) = spool.rejected()
        assert (sequence, scan.event) == (3, numbered_scan(2))
        assert (scan.reason_name, scan.field, scan.message) == ("CONFLICT", "f", "m")
        assert spool.rejected(after=sequence) == []
        assert spool.clear_rejected(through=2) == 0
        assert spool.clear_rejected(through=sequence) == 1
        assert spool.rejected() == []


def test_the_bound_counts_what_is_held_and_no_more(path: Path) -> None:
    """A full spool refuses with SpoolFull, keeps what it has, and takes again once scans are
    settled; reopening counts the same.
    """
    large = numbered_scan(1, remark="r" * 60_000).SerializeToString()
    options = SpoolOptions(bytes_max=200_000)
    with Spool(path, device_id="gun-1", options=options) as spool:
        spool.put([large] * 3).result()
        with pytest.raises(SpoolFull) as full:
            spool.put([large]).result()
        assert full.value.reason == "SPOOL_FULL"
        assert spool.put(WIRES[:1]).result() == 4
        held = spool.level()
    with Spool(path, device_id="gun-1", options=options) as spool:
        assert spool.level() == held
        entries = everything(spool)
        spool.settle(through=2, rejected=[RejectedEntry(entries[0], 1, "", "")])
        with pytest.raises(SpoolFull):
            spool.put([large, large]).result()
        spool.clear_rejected(through=1)
        assert spool.put([large, large]).result() == 6
        spool.settle(through=6, rejected=[])
        assert spool.level().held_bytes == 0


def test_one_refusal_does_not_fail_the_group(path: Path) -> None:
    """Scans that share a flush with one that did not fit are kept."""
    large = numbered_scan(1, remark="r" * 60_000).SerializeToString()
    with Spool(path, device_id="gun-1", options=SpoolOptions(bytes_max=100_000)) as spool:
        futures = [spool.put([wire]) for wire in [WIRES[0], large, large, WIRES[1]]]
        wait(futures)
        assert [type(future.exception()) for future in futures] == [
            type(None),
            type(None),
            SpoolFull,
            type(None),
        ]
        assert [entry.wire for entry in everything(spool)] == [WIRES[0], large, WIRES[1]]


def test_event_ids_never_repeat(path: Path) -> None:
    """Every id is new: across blocks, restarts and processes that were killed with ids in hand."""
    options = SpoolOptions(event_ids_reserved=10)
    seen: list[str] = []
    for _ in range(3):
        with Spool(path, device_id="gun-1", options=options) as spool:
            seen += [spool.event_id() for _ in range(25)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WITH_IDS, path], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -9
    seen += killed.stdout.split()
    with Spool(path, device_id="gun-1", options=options) as spool:
        seen += [spool.event_id() for _ in range(25)]
    assert len(seen) == 125
    assert len(set(seen)) == len(seen)
    assert all(event_id.startswith("gun-1:") for event_id in seen)
    counters = [int(event_id.partition(":")[2]) for event_id in seen]
    assert counters == sorted(counters)


KILLED_WITH_IDS = """
import os, sys
from trackd.client import Spool, SpoolOptions
spool = Spool(sys.argv[1], device_id="gun-1", options=SpoolOptions(event_ids_reserved=10))
print(*[spool.event_id() for _ in range(25)], flush=True)
os.kill(os.getpid(), 9)
"""

OPENS = """
import sys
from trackd.client import Spool, SpoolInUse
try:
    Spool(sys.argv[1], device_id="gun-2")
except SpoolInUse as error:
    print("in use:", error.reason)
else:
    print("opened")
"""


def test_a_second_process_is_told_that_the_spool_is_in_use(path: Path) -> None:
    """One process at a time; a second handle in the same process is refused as well; after closing
    the file is free.
    """
    with Spool(path, device_id="gun-1") as spool:
        with pytest.raises(SpoolInUse):
            Spool(path, device_id="gun-2")
        assert opened_elsewhere(path) == "in use: SPOOL_IN_USE"
        spool.put(WIRES).result()
    assert opened_elsewhere(path) == "opened"


def opened_elsewhere(path: Path) -> str:
    """What another process finds."""
    return subprocess.run(
        [sys.executable, "-c", OPENS, path], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    """Neither the spool nor its log can be read by others, whatever the umask."""
    before = os.umask(0)
    try:
        with Spool(path, device_id="gun-1") as spool:
            spool.put(WIRES).result()
            for file in path.parent.iterdir():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    finally:
        os.umask(before)


def test_foreign_and_newer_files_are_refused_and_left_alone(path: Path, tmp_path: Path) -> None:
    """What is not a spool this client knows is refused with SpoolBroken and not changed."""
    text = tmp_path / "notes.txt"
    text.write_text("these are notes and no database " * 100)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE notes (note TEXT)")
    database.close()
    with Spool(path, device_id="gun-1"):
        pass
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    database.close()
    for file, reason in [
        (text, "SPOOL_BROKEN"),
        (other, "NOT_A_SPOOL"),
        (path, "SPOOL_TOO_NEW"),
        (tmp_path / "nowhere" / "spool.db", "SPOOL_BROKEN"),
    ]:
        with pytest.raises(SpoolBroken) as refusal:
            Spool(file, device_id="gun-1")
        assert refusal.value.reason == reason
    assert text.read_text().startswith("these are notes")
    with sqlite3.connect(other) as database:
        assert database.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    database.close()


def test_a_damaged_file_is_refused(path: Path) -> None:
    """A file with a damaged page in the middle is not opened as if it held less."""
    with Spool(path, device_id="gun-1") as spool:
        spool.put([numbered_scan(n, remark="r" * 3_000).SerializeToString() for n in range(200)])
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(damaged)
    with pytest.raises(SpoolBroken):
        Spool(path, device_id="gun-1")


def test_after_a_disk_error_nothing_more_is_taken(path: Path) -> None:
    """An error of SQLite that is not for want of room refuses its group and all that follows."""
    with Spool(path, device_id="gun-1") as spool:
        spool.put(WIRES[:1]).result()
        broken = spool._submit(lambda file: file._connection.execute("SELECT nothing"))
        assert isinstance(broken.exception(), SpoolBroken)
        with pytest.raises(SpoolBroken):
            spool.put(WIRES).result()
    with Spool(path, device_id="gun-1") as spool:
        assert [entry.wire for entry in everything(spool)] == WIRES[:1]


def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """When SQLite finds the disk full the scan is refused with SpoolFull; with room it goes on."""
    with Spool(tmp_path / "spool.db", device_id="gun-1") as spool:
        spool.put(WIRES).result()
        spool._submit(lambda file: file._connection.execute("PRAGMA max_page_count = 1")).result()
        large = [numbered_scan(n, remark="r" * 60_000).SerializeToString() for n in range(20)]
        with pytest.raises(SpoolFull) as full:
            spool.put(large).result()
        assert full.value.reason == "DISK_FULL"
        spool._submit(lambda file: file._connection.execute("PRAGMA max_page_count = 99999"))
        assert spool.put(large).result() == 30
        assert len(everything(spool)) == 30


def test_what_needs_no_room_is_done_on_a_full_disk(path: Path) -> None:
    """A scan that finds no room fails alone, not with whatever was asked for beside it."""
    go = threading.Event()
    with Spool(path, device_id="gun-1") as spool:
        spool.put(WIRES).result()
        spool._submit(lambda file: file._connection.execute("PRAGMA max_page_count = 1")).result()
        blocked = spool._submit(lambda _: go.wait())
        large = spool.put([numbered_scan(1, remark="r" * 60_000).SerializeToString()])
        settled = spool.settle(through=4, rejected=[])
        read = spool.read(after=0, events_max=1_000, bytes_max=1 << 30)
        go.set()
        assert blocked.result()
        with pytest.raises(SpoolFull):
            large.result()
        settled.result()
        assert [entry.sequence for entry in read.result()] == [5, 6, 7, 8, 9, 10]


def test_the_disk_is_never_filled(tmp_path: Path) -> None:
    """Beside what it keeps the spool leaves room to forget it; its own free room counts."""
    free = shutil.disk_usage(tmp_path).free
    options = SpoolOptions(disk_spare_bytes=2 * free)
    with Spool(tmp_path / "refused", device_id="gun-1", options=options) as spool:
        with pytest.raises(SpoolFull) as full:
            spool.put(WIRES).result()
        assert full.value.reason == "DISK_FULL"
        assert everything(spool) == []


def test_a_spool_that_filled_its_disk_goes_on_once_it_is_sent(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file does not shrink when scans are forgotten, and need not."""
    large = [numbered_scan(n, remark="r" * 60_000).SerializeToString() for n in range(20)]
    disk_bytes = 16 << 20

    def usage(_: Path) -> SimpleNamespace:
        held = sum(each.stat().st_size for each in path.parent.iterdir())
        return SimpleNamespace(free=disk_bytes - held)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with Spool(path, device_id="gun-1") as spool:
        last = 0
        with contextlib.suppress(SpoolFull):
            while last < 10_000:
                last = spool.put(large).result()
        assert 0 < last < 10_000
        spool.settle(through=last, rejected=[]).result()
        assert spool.put(large).result() == last + len(large)


def test_a_spool_whose_file_was_taken_away_takes_nothing(path: Path) -> None:
    """SQLite would go on writing into a file that ends with the process; what waits is sent."""
    with Spool(path, device_id="gun-1") as spool:
        spool.put(WIRES).result()
        path.unlink()
        with pytest.raises(SpoolBroken, match="gone"):
            spool.put(WIRES).result()
        assert len(everything(spool)) == len(WIRES)


def test_whatever_damage_does_is_told(path: Path) -> None:
    """Nobody waits for an answer that a damaged file has no place for."""
    with Spool(path, device_id="gun-1") as spool:
        spool._submit(lambda file: file._connection.execute("DELETE FROM event_counter")).result()
        with pytest.raises(SpoolBroken):
            spool._reserve(1).result(60)
        with pytest.raises(SpoolBroken):
            spool.put(WIRES).result(60)


def test_a_rejected_scan_that_was_damaged_is_listed(path: Path) -> None:
    """As far as it can be told, which is that and why it was refused."""
    with Spool(path, device_id="gun-1") as spool:
        spool.put([b"\xff" * 40]).result()
        refused = RejectedEntry(entry=everything(spool)[0], reason=0, field="", message="why")
        spool.settle(through=1, rejected=[refused]).result()
        ((sequence, scan),) = spool.rejected()
        assert (sequence, scan.event.event_id, scan.message) == (1, "", "why")


def test_a_closed_spool_takes_nothing(path: Path) -> None:
    """Closing finishes what was asked for; asking afterwards raises; closing twice is fine."""
    spool = Spool(path, device_id="gun-1")
    kept = spool.put(WIRES)
    spool.close()
    spool.close()
    assert kept.result() == 10
    with pytest.raises(SpoolBroken):
        spool.put(WIRES)


def test_a_put_cannot_be_cancelled(path: Path) -> None:
    """A future of `put` refuses to be cancelled: the scan may be on disk already."""
    with Spool(path, device_id="gun-1") as spool:
        kept = spool.put(WIRES)
        assert not kept.cancel()
        assert kept.result() == 10
