"""Logs that RocksDB would never finish reading are made into ones that it finds damaged."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.errors import DataDamaged
from trackd.store.keys import Table, position_key
from trackd.store.wal import defuse, endless_records

_ROWS = 500
_ENDLESS = (5, 6, 7, 8, 11, 131)
# What a start does, in a process that can be given up.
_OPEN = """
import sys
from pathlib import Path
from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.replay import last_position
engine = RocksEngine(Path(sys.argv[1]), EngineOptions(), SharedCache(1 << 20))
print(last_position(engine))
engine.close()
"""


def _engine(path: Path, *, read_only: bool = False) -> RocksEngine:
    return RocksEngine(path, EngineOptions(), SharedCache(1 << 20), read_only=read_only)


@pytest.fixture
def partition(tmp_path: Path) -> Path:
    """A directory whose rows are all in its log, of several blocks, as after a kill."""
    path = tmp_path / "rocks"
    code = _OPEN.split("print", maxsplit=1)[0] + (
        "import os, random\n"
        "from trackd.store.keys import Table, position_key\n"
        f"for n in range(1, {_ROWS} + 1):\n"
        "    row = position_key(n), random.Random(n).randbytes(random.Random(n).randrange(2_000))\n"
        "    engine.write([(Table.LOG, [row])])\n"
        "engine.flush_wal()\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    return path


def _log(partition: Path) -> Path:
    return max(partition.glob("*.log"), key=lambda file: file.stat().st_size)


def _last_position(partition: Path) -> int:
    command = [sys.executable, "-c", _OPEN, str(partition)]
    opened = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    return int(opened.stdout.splitlines()[-1])


def test_a_whole_log_is_left_alone(partition: Path) -> None:
    """Nothing is found in it, and nothing is changed."""
    before = _log(partition).read_bytes()
    assert endless_records(partition) == []
    assert defuse(partition) == 0
    assert _log(partition).read_bytes() == before
    assert _last_position(partition) == _ROWS


@pytest.mark.parametrize("kind", _ENDLESS)
def test_noise_behind_the_last_record_is_cleared(partition: Path, kind: int) -> None:
    """The directory opens with every row; a look that may change nothing says why it cannot."""
    with _log(partition).open("ab") as log:
        log.write((b"sum!" + bytes((0, 0, kind))) * 3)
    with pytest.raises(DataDamaged):
        _engine(partition, read_only=True)
    assert len(endless_records(partition)) == 1
    assert _last_position(partition) == _ROWS


def test_one_flipped_bit_of_a_type_ends_the_log_there(partition: Path) -> None:
    """What stands before the damaged record is there, as with any other damage."""
    with _log(partition).open("r+b") as log:
        log.seek(6)
        kind = log.read(1)[0]
        log.seek(6)
        log.write(bytes([kind | 4]))
    assert _last_position(partition) == 0


@pytest.mark.torture
def test_a_log_that_ends_in_anything_opens(partition: Path, tmp_path: Path) -> None:
    """Pieces of the log itself, which look most like records, and noise: a thousand of them."""
    rng = random.Random(1)
    whole = _log(partition).read_bytes()
    for _ in range(1_000):
        begin = rng.randrange(len(whole))
        piece = whole[begin : begin + rng.randrange(1, 100_000)]
        # The byte keeps a piece that begins with a whole record from being one: that would be a
        # log that goes back, and is refused by the mark.
        tail = b"\xfe" + piece if rng.random() < 0.7 else rng.randbytes(rng.randrange(1, 100_000))
        _log(partition).write_bytes(whole + tail)
        defuse(partition)
        assert endless_records(partition) == []
        engine = _engine(partition, read_only=True)
        rows = sum(1 for _ in engine.scan_all(Table.LOG))
        assert rows == _ROWS
        assert engine.get(Table.LOG, position_key(_ROWS)) is not None
        engine.close()
