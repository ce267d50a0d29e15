"""What RocksDB keeps of a long run: as little as the options say, however few a table's rows."""

from contextlib import suppress
from pathlib import Path

import pytest

from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.errors import WriteStalled
from trackd.store.keys import Table, position_key, status_key

_BUFFER_BYTES = 1 << 20
_ROW_BYTES = 1_000


def _engine(path: Path) -> RocksEngine:
    return RocksEngine(path, EngineOptions(write_buffer_bytes=_BUFFER_BYTES), SharedCache(1 << 20))


def _log_bytes(path: Path) -> int:
    size = 0
    for log in path.glob("*.log"):
        with suppress(FileNotFoundError):  # the engine has just dropped it
            size += log.stat().st_size
    return size


@pytest.mark.parametrize("unlogged", [False, True], ids=["logged", "unlogged"])
def test_a_table_with_few_rows_does_not_keep_every_log(tmp_path: Path, unlogged: bool) -> None:
    """The logs, which a start after a crash reads again, are bounded by the write buffers.

    The rows of meta are few and never fill a buffer; a log is kept as long as one of them is only
    there. Nor do rows past the log keep one, though they are few.
    """
    engine = _engine(tmp_path / "rocks")
    most = 0
    for number in range(40_000):
        row = status_key(f"W{number:08}"), number.to_bytes(4, "big") * (_ROW_BYTES // 4)
        batch = [(Table.LOG, [(position_key(number), row[1])])]
        if not unlogged:
            batch.append((Table.EVENTS, [row]))
        elif number % 1_000 == 0:
            with suppress(WriteStalled):
                engine.write_unlogged([(Table.EVENTS, [row]), (Table.STATUS, [row])])
        if number % 1_000 == 0:
            batch.append((Table.META, [(b"checkpoint", position_key(number))]))
        while True:
            try:
                engine.write(batch)
                break
            except WriteStalled:
                continue
        if number % 1_000 == 0:
            most = max(most, _log_bytes(tmp_path / "rocks"))
    engine.close()
    # Two tables of which each fills four buffers, and what is written while they are flushed.
    assert most < 24 * _BUFFER_BYTES


def test_a_small_write_buffer_holds_rows(tmp_path: Path) -> None:
    """A hashed memtable's own array does not fill the buffer: a few rows stay in memory."""
    engine = _engine(tmp_path / "rocks")
    for number in range(100):
        row = status_key(f"W{number:08}"), bytes(_ROW_BYTES)
        engine.write([(Table.EVENTS, [row]), (Table.STATUS, [row])])
    engine.flush_wal()
    figures = engine.figures()
    assert figures["immutable_memtables"] == 0
    assert figures["sst_bytes"] == 0
    engine.close()
