"""What only an engine on disk can do: stall, be in use, be damaged."""

import random
import shutil
from pathlib import Path

import pytest
from rocksdict import Options

from tests.harness.seeds import seeded
from tests.store.engines import SMALL_BUFFERS, KeptOnDisk
from trackd.store import engine as engine_module
from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.errors import DataDamaged, DirectoryInUse, StorageFailed, StoreError, WriteStalled
from trackd.store.keys import Table


def opened(path: Path, options: EngineOptions = SMALL_BUFFERS) -> RocksEngine:
    """An engine on that directory."""
    return RocksEngine(path, options, SharedCache(1 << 20))


def test_a_stalled_write_has_written_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    """Written without pause until the background work is behind: the refused batch is not there."""
    engine = opened(tmp_path / "rocks")
    stalls = 0
    for n in range(2_000):
        batch = [(table, [(b"%012d" % n, bytes(1_000))]) for table in Table]
        while True:
            try:
                engine.write(batch)
            except WriteStalled:
                stalls += 1
                assert all(engine.get(table, b"%012d" % n) is None for table in Table)
                assert engine.get(Table.LOG, b"%012d" % (n - 1)) == bytes(1_000)
                engine.flush_wal()  # takes its time, without the interpreter's lock
            else:
                break
        if stalls >= 20:
            break
    assert stalls, "nothing stalled"
    assert len(list(engine.scan_all(Table.STATUS))) == n + 1
    engine.close()


def test_a_directory_has_one_engine(tmp_path: Path) -> None:
    """The second to open it is told, the first is not disturbed, and later it is free again."""
    engine = opened(tmp_path / "rocks")
    with pytest.raises(DirectoryInUse):
        opened(tmp_path / "rocks")
    engine.write([(Table.META, [(b"a", b"b")])])
    engine.close()
    again = opened(tmp_path / "rocks")
    assert again.get(Table.META, b"a") == b"b"
    again.close()


def test_a_directory_that_cannot_be_made_is_a_failure_of_storage(tmp_path: Path) -> None:
    """A file stands where the directory should be."""
    (tmp_path / "rocks").write_bytes(b"")
    with pytest.raises(StorageFailed):
        opened(tmp_path / "rocks")


# Bit rot.

ROWS = {b"%012d" % n: random.Random(n).randbytes(200) for n in range(3_000)}


@pytest.fixture(scope="module")
def table_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed directory whose rows of all tables are in table files, none in the log."""
    kept = KeptOnDisk(tmp_path_factory.mktemp("rot") / "rocks")
    for table in Table:
        for start in range(0, len(ROWS), 500):
            batch = [(table, list(ROWS.items())[start : start + 500])]
            while True:
                try:
                    kept.engine.write(batch)
                except WriteStalled:
                    kept.engine.flush_wal()
                else:
                    break
    kept.reopen().close()
    assert sum(file.stat().st_size for file in kept.path.glob("*.sst")) > 1 << 20
    return kept.path


def read_everything(engine: RocksEngine) -> int:
    """Reads every row in every way; how many reads were refused. A wrong row is a failed test."""
    refused = 0
    keys = list(ROWS)
    for table in Table:
        try:
            assert dict(engine.scan_all(table)) == ROWS, table
        except DataDamaged:
            refused += 1
        for start in range(0, len(keys), 100):
            asked = keys[start : start + 100]
            try:
                assert engine.get_many(table, asked) == [ROWS[key] for key in asked]
            except DataDamaged:
                refused += 1
            prefix = asked[0][:10]  # of a hundred rows
            try:
                found = dict(engine.scan_prefix(table, prefix))
            except DataDamaged:
                refused += 1
            else:
                assert found == {key: ROWS[key] for key in keys if key.startswith(prefix)}
    return refused


def flip_bits(table_files: Path, tmp_path: Path, seed: int, rounds: int) -> None:
    """Flips one bit in each table file of a copy and reads everything; again and again."""
    rng = random.Random(seed)
    closed = refused = 0
    for round_number in range(rounds):
        path = tmp_path / f"{round_number}"
        shutil.copytree(table_files, path)
        for file in sorted(path.glob("*.sst")):
            data = bytearray(file.read_bytes())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            file.write_bytes(data)
        try:
            engine = opened(path)
        except StoreError:
            closed += 1  # noticed even before the first read
        else:
            refused += read_everything(engine)
            engine.close()
        shutil.rmtree(path)
    assert refused, f"no flipped bit was ever read; {closed} times the engine did not open"


def test_a_flipped_bit_is_never_read_as_data(table_files: Path, tmp_path: Path) -> None:
    """One bit of each table file flipped: every read is right or DataDamaged, never short."""
    flip_bits(table_files, tmp_path, seed=10, rounds=3)


@pytest.mark.torture
def test_many_flipped_bits_are_never_read_as_data(table_files: Path, tmp_path: Path) -> None:
    """The same, long."""
    flip_bits(table_files, tmp_path, seeded("flipped bits").randrange(1 << 60), rounds=1_000)


def test_data_from_before_a_table_was_there_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For reading, without making anything, and for writing, with the table made."""
    monkeypatch.setattr(
        engine_module, "Table", [Table.EVENTS, Table.STATUS, Table.LOG, Table.META], raising=True
    )
    monkeypatch.setattr(engine_module, "_table_options", lambda *_: Options(raw_mode=True))
    old = opened(tmp_path / "rocks")
    old.write([(Table.META, [(b"a", b"b")])])
    old.close()
    monkeypatch.undo()
    for _ in range(2):
        reader = RocksEngine(
            tmp_path / "rocks", SMALL_BUFFERS, SharedCache(1 << 20), read_only=True
        )
        assert reader.get(Table.META, b"a") == b"b"
        assert list(reader.scan_all(Table.DOCUMENTS)) == []
        reader.close()
    engine = opened(tmp_path / "rocks")
    engine.write([(Table.DOCUMENTS, [(b"c", b"d")])])
    assert (engine.get(Table.META, b"a"), engine.get(Table.DOCUMENTS, b"c")) == (b"b", b"d")
    engine.close()
