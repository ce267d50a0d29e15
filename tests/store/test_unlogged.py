"""What is known of writes past RocksDB's log: never more is counted than a crash would leave.

Held against memtables that a model switches and writes out as it likes, and against RocksDB itself,
whose process is killed.
"""

import signal
import subprocess
import sys
from collections import deque
from functools import partial
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.seeds import seeded
from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.keys import Table, status_key
from trackd.store.stalls import until_taken
from trackd.store.unlogged import Unlogged

TABLES = [Table.EVENTS, Table.STATUS]


class Memtables:
    """Those of a column family: writes go into one, others wait, the oldest goes out first."""

    def __init__(self) -> None:
        self._active: list[int] = []  # the write of each row; 0: one that was logged
        self._waiting: deque[list[int]] = deque()
        self.on_disk: set[int] = set()

    def put(self, number: int, rows: int) -> None:
        """The rows of a write."""
        self._active += [number] * rows

    def switch(self) -> None:
        """A new one; RocksDB switches an empty one too, to let go of a log."""
        self._waiting.append(self._active)
        self._active = []

    def write_out(self) -> None:
        """The oldest is on disk."""
        if self._waiting:
            self.on_disk.update(self._waiting.popleft())

    @property
    def in_memory(self) -> set[int]:
        """The writes that a crash would take rows of."""
        return {number for each in (self._active, *self._waiting) for number in each} - {0}

    # What is asked of it.

    def property_int_value(self, name: str) -> int | None:
        """See Family."""
        if name == "rocksdb.num-entries-active-mem-table":
            return len(self._active)
        assert name == "rocksdb.num-immutable-mem-table"
        return len(self._waiting)

    def flush(self, wait: bool = True) -> None:
        """See Family."""
        assert wait
        if self._active:
            self.switch()
        while self._waiting:
            self.write_out()


def live(rng: Random) -> int:
    """A life of writes and memtables; checks what is counted at each step; how much ever was."""
    families = {table: Memtables() for table in Table}
    unlogged = Unlogged(families)
    number = most = 0
    for _ in range(rng.randint(1, 80)):
        family = families[rng.choice(TABLES)]
        match rng.choice(["write", "write", "switch", "switch", "out", "out", "logged", "keep"]):
            case "write":
                rows = {table: rng.choice([0, 1, 1, 2, 30]) for table in TABLES}
                for table, count in rows.items():
                    if rng.random() < 0.2:
                        families[table].switch()  # it was full
                    families[table].put(number + 1, count)
                    if rng.random() < 0.1:
                        families[table].switch()  # by a flush in another thread
                        if rng.random() < 0.5:
                            families[table].write_out()
                number += 1
                assert unlogged.wrote(rows) == number
            case "switch":
                family.switch()
            case "out":
                family.write_out()
            case "logged":
                family.put(0, rng.randint(1, 9))
            case "keep":
                if rng.random() < 0.3:
                    unlogged.keep()
                    assert unlogged.kept() == number
        kept = unlogged.kept()
        assert most <= kept <= number, "what was counted once cannot be lost again"
        most = kept
        for table in TABLES:
            may_be_lost = min(families[table].in_memory, default=number + 1)
            assert kept < may_be_lost, (table, kept)
    return most


@settings(max_examples=500)
@given(st.integers(0, 2**64 - 1))
def test_no_write_is_counted_that_a_crash_could_lose(seed: int) -> None:
    """Whenever memtables are switched and written out, by whatever, many or none waiting."""
    live(Random(seed))


def test_writes_are_counted_soon() -> None:
    """The control: nothing is lost by counting nothing, but the log would grow for ever."""
    assert sum(live(Random(seed)) for seed in range(100)) > 200
    families = {table: Memtables() for table in Table}
    unlogged = Unlogged(families)
    for number in range(1, 100):
        if number % 10 == 0:  # full: this write begins a new one
            for table in TABLES:
                families[table].switch()
        for table in TABLES:
            families[table].put(number, 3)
        unlogged.wrote(dict.fromkeys(TABLES, 3))
        for table in TABLES:
            families[table].write_out()
        assert unlogged.kept() >= number // 10 * 10 - 1


def test_a_table_that_a_write_has_no_rows_of_does_not_hold_it_back() -> None:
    """Of a slot all statuses may be on disk while its events are not, and the other way round."""
    families = {table: Memtables() for table in Table}
    unlogged = Unlogged(families)
    families[Table.STATUS].put(1, 2)
    unlogged.wrote({Table.EVENTS: 0, Table.STATUS: 2})
    assert unlogged.kept() == 0
    families[Table.STATUS].switch()
    families[Table.STATUS].put(2, 1)
    unlogged.wrote({Table.STATUS: 1})
    assert unlogged.kept() == 0
    families[Table.STATUS].write_out()
    assert unlogged.kept() == 1
    families[Table.EVENTS].put(3, 1)
    unlogged.wrote({Table.EVENTS: 1})
    assert unlogged.kept() == 1, "the second is in memory"
    unlogged.keep()
    assert unlogged.kept() == 3


# RocksDB itself.

OPTIONS = EngineOptions(write_buffer_bytes=256 << 10)
WRITER = """
import sys
from pathlib import Path
from tests.store.test_unlogged import write_for_ever
write_for_ever(Path(sys.argv[1]), sys.argv[2] == "keep")
"""


def rows_of(number: int, table: Table) -> list[tuple[bytes, bytes]]:
    """The rows of an unlogged write: of statuses few, so that its memtable is full more rarely."""
    rng = Random(number)
    count = rng.randint(0, 12) if table is Table.EVENTS else rng.randint(0, 2)
    return [(status_key(f"{number}-{n}"), rng.randbytes(900)) for n in range(count)]


def write_for_ever(path: Path, keep: bool) -> None:
    """Writes to an engine, and tells after each write how many are counted as kept."""
    engine = RocksEngine(path, OPTIONS, SharedCache(1 << 20))
    for number in range(1, 1 << 30):
        logged = [(Table.LOG, [(b"%012d" % number, bytes(200))])]
        until_taken(partial(engine.write, logged))
        batch = [(table, rows_of(number, table)) for table in TABLES]
        assert until_taken(partial(engine.write_unlogged, batch)) == number
        if keep and number % 50 == 0:
            engine.keep_unlogged()
        print(number, engine.kept_unlogged(), flush=True)


@pytest.mark.parametrize("keep", ["", "keep"])
def test_what_rocksdb_was_seen_to_have_is_there_after_a_kill(tmp_path: Path, keep: str) -> None:
    """A process is killed at any moment: what it had counted is whole, and so is the log before."""
    path = tmp_path / "rocks"
    command = [sys.executable, "-c", WRITER, str(path), keep]
    kept = number = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        wanted = 300 + seeded("unlogged writes").randrange(300)
        for line in writer.stdout:
            number, kept = map(int, line.split())
            if kept >= wanted:
                break
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout:
            if line.endswith("\n"):
                number, kept = map(int, line.split())
    assert kept >= 300
    engine = RocksEngine(path, OPTIONS, SharedCache(1 << 20))
    for table in TABLES:
        for each in range(1, kept + 1):
            for key, value in rows_of(each, table):
                assert engine.get(table, key) == value, (table, each, kept)
    last = engine.last_key(Table.LOG)
    assert last is not None
    assert int(last) >= number
    # A write that is there at all was preceded by its batch of the log, which is there too.
    for table in TABLES:
        for each in range(kept, kept + 10_000):
            rows = rows_of(each, table)
            if rows and engine.get(table, rows[0][0]) is not None:
                assert int(last) >= each
    engine.close()
