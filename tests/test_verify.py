"""A check of files at rest finds exactly what is wrong with them, and nothing else."""

import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.scans import ScanSource, waybills_of
from tests.store.desk import NOON_MS, scan
from trackd.finding import Finding, Kind, Progress
from trackd.partition import Partition, PartitionOptions
from trackd.store import records
from trackd.store.data_directory import DataDirectory
from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.errors import DirectoryInUse, StorageFailed, WrongData
from trackd.store.events import parse_event
from trackd.store.keys import (
    META_IDENTITY,
    META_STATUS_CHECKPOINT,
    ORDER_LENGTH,
    Table,
    event_order,
    partition_of,
    position_key,
    position_of,
    split_event_key,
    status_key,
)
from trackd.store.mark import DurableMark
from trackd.verify import verify

_PARTITIONS = 2
_BATCHES, _BATCH = 30, 20
_WAYBILLS = 40
_SMALL = EngineOptions(write_buffer_bytes=1 << 20)
_OPTIONS = PartitionOptions(
    commit_events_max=50,
    waybill_events_max=1_000,
    status_cache_bytes=1 << 20,
    write_back_events=100,
)


def _failed(error: StorageFailed) -> None:
    raise AssertionError from error


async def _filled(data: Path, *, orderly: bool) -> None:
    """Scans of every kind; without an orderly end the latest statuses are only in the log."""
    directory = DataDirectory(data, _PARTITIONS, default_count=1)
    source = ScanSource("DEV", waybills_of("CHECK", _WAYBILLS), random.Random(7), late_share=0.3)
    partitions = [
        Partition.open(
            number,
            RocksEngine(directory.partition_path(number), _SMALL, SharedCache(1 << 20)),
            _OPTIONS,
            path=directory.partition_path(number),
            mark_path=directory.mark_path(number),
            data_set_id=directory.manifest.data_set_id,
            now_ms=lambda: NOON_MS,
            on_failure=_failed,
        )
        for number in range(_PARTITIONS)
    ]
    for _ in range(_BATCHES):
        scans = [scan(event) for event in source.batch(_BATCH)]
        for number, partition in enumerate(partitions):
            await partition.submit([one for one in scans if partition_of(one[1], 2) == number])
    for partition in partitions:
        if orderly:
            await partition.close()
        else:
            await partition.committer.close()
            partition.engine.close()
    directory.close()


@pytest.fixture(scope="module")
async def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with nothing wrong, to be copied."""
    data = tmp_path_factory.mktemp("sound") / "data"
    await _filled(data, orderly=True)
    return data


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(sound, tmp_path / "data"))


def _found(data: Path, *, waybills_at_a_time: int = 1_000) -> list[Finding]:
    reports = verify(data, waybills_at_a_time=waybills_at_a_time)
    return [report for report in reports if isinstance(report, Finding)]


@contextmanager
def _opened(data: Path) -> Iterator[RocksEngine]:
    """The engine of partition 0, to do harm with."""
    engine = RocksEngine(data / "partition-0000", _SMALL, SharedCache(1 << 20))
    try:
        yield engine
        engine.flush_wal()
    finally:
        engine.close()


def _rows(engine: RocksEngine, table: Table) -> list[tuple[bytes, bytes]]:
    return list(engine.scan_all(table))


def _put(engine: RocksEngine, table: Table, key: bytes, value: bytes | None) -> None:
    engine.write([(table, [(key, value)])])


# Nothing is wrong.


async def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    """After an orderly end and after a crash; with all waybills at once and with one at a time."""
    for orderly in (True, False):
        data = tmp_path / str(orderly)
        await _filled(data, orderly=orderly)
        assert _found(data) == []
        assert _found(data, waybills_at_a_time=1) == []


def test_a_check_changes_nothing(data: Path) -> None:
    """The files are afterwards what they were before, to the byte.

    Only rocksdict's note of its own options is written anew at every open, in any order.
    """

    def content() -> dict[Path, bytes]:
        files = (file for file in sorted(data.rglob("*")) if file.is_file())
        return {file: file.read_bytes() for file in files if file.name != "rocksdict-config.json"}

    before = content()
    assert _found(data) == []
    assert content() == before


def test_it_says_how_far_it_got(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress goes up to the number of events, step by step."""
    monkeypatch.setattr("trackd.verify._PROGRESS_EVERY", 10)
    progress = [report for report in verify(data) if isinstance(report, Progress)]
    for step in ("log", "events"):
        for partition in range(_PARTITIONS):
            mine = [one for one in progress if (one.partition, one.step) == (partition, step)]
            assert mine, "a partition is told of"
            assert [one.done for one in mine] == sorted({one.done for one in mine})
            assert all(one.done <= one.total for one in mine)
            assert all(one.partition_count == _PARTITIONS for one in mine)


def test_data_that_a_server_has_open_is_left_alone(data: Path, tmp_path: Path) -> None:
    """A directory in use, and one that is none, are refused."""
    directory = DataDirectory(data, None, default_count=1)
    with pytest.raises(DirectoryInUse):
        list(verify(data))
    directory.close()
    with pytest.raises(WrongData):
        list(verify(tmp_path))
    assert not (tmp_path / "manifest.json").exists()


# Harm, and the kinds of findings it must lead to: these and no others.


def _event_deleted(engine: RocksEngine) -> None:
    # Not the newest of its waybill, nor the one that its status shows.
    shown = {records.decode_status(row).last for _, row in _rows(engine, Table.STATUS)}
    keys = [key for key, _ in _rows(engine, Table.EVENTS)]
    for key, following in itertools.pairwise(keys):
        waybill, order = split_event_key(key)
        if split_event_key(following)[0] == waybill and order not in shown:
            return _put(engine, Table.EVENTS, key, None)
    raise AssertionError("every event is shown")


def _event_altered(engine: RocksEngine) -> None:
    shown = {records.decode_status(row).last for _, row in _rows(engine, Table.STATUS)}
    for key, value in _rows(engine, Table.EVENTS):
        if split_event_key(key)[1] not in shown:
            event = parse_event(value)
            event.operator_id = "MALLORY"
            return _put(engine, Table.EVENTS, key, event.SerializeToString())
    raise AssertionError("every event is shown")


def _event_twice(engine: RocksEngine) -> None:
    key, value = _rows(engine, Table.EVENTS)[0]
    event = parse_event(value)
    event.occurred_at_ms += 1
    order = event_order(event.occurred_at_ms, event.code, event.event_id)
    waybill, _ = split_event_key(key)
    _put(engine, Table.EVENTS, waybill + order, event.SerializeToString())


def _event_under_another_key(engine: RocksEngine) -> None:
    (key, value), (other, _) = _rows(engine, Table.EVENTS)[0], _rows(engine, Table.EVENTS)[-1]
    _, order = split_event_key(key)
    waybill, _ = split_event_key(other)
    _put(engine, Table.EVENTS, key, None)
    _put(engine, Table.EVENTS, waybill + order, value)


def _event_unreadable(engine: RocksEngine) -> None:
    key, _ = _rows(engine, Table.EVENTS)[0]
    _put(engine, Table.EVENTS, key, b"\xff\xff")


def _status_deleted(engine: RocksEngine) -> None:
    _put(engine, Table.STATUS, _rows(engine, Table.STATUS)[0][0], None)


def _status_of_nobody(engine: RocksEngine) -> None:
    _put(engine, Table.STATUS, status_key("NOBODY-1"), _rows(engine, Table.STATUS)[0][1])


def _status_unreadable(engine: RocksEngine) -> None:
    _put(engine, Table.STATUS, _rows(engine, Table.STATUS)[0][0], b"\x01")


def _log_block_deleted(engine: RocksEngine) -> None:
    _put(engine, Table.LOG, _rows(engine, Table.LOG)[3][0], None)


def _log_block_twice(engine: RocksEngine) -> None:
    key, block = _rows(engine, Table.LOG)[3]
    _put(engine, Table.LOG, position_key(position_of(key) + 1), block)


def _log_block_unreadable(engine: RocksEngine) -> None:
    key, block = _rows(engine, Table.LOG)[3]
    _put(engine, Table.LOG, key, block[:-1])


def _log_block_of_another_format(engine: RocksEngine) -> None:
    key, block = _rows(engine, Table.LOG)[3]
    _put(engine, Table.LOG, key, b"\x07" + block[1:])


def _log_end_deleted(engine: RocksEngine) -> None:
    _put(engine, Table.LOG, _rows(engine, Table.LOG)[-1][0], None)


def _entry_that_does_not_follow(engine: RocksEngine) -> None:
    key, block = _rows(engine, Table.LOG)[3]
    head, offset = records.ENTRY_HEAD, records.BLOCK_HEAD.size
    length, marks, before, *rest = head.unpack_from(block, offset)
    entry = head.pack(length, marks, before ^ 1, *rest)
    _put(engine, Table.LOG, key, block[:offset] + entry + block[offset + head.size :])


def _checkpoint_ahead(engine: RocksEngine) -> None:
    _put(engine, Table.META, META_STATUS_CHECKPOINT, position_key(10**6))


def _other_identity(engine: RocksEngine) -> None:
    _put(engine, Table.META, META_IDENTITY, b"0011223344556677/0")


Harm = Callable[[RocksEngine], None]
_HARM: dict[Harm, set[Kind]] = {
    _event_deleted: {Kind.MISMATCH, Kind.DERIVED},
    _event_altered: {Kind.MISMATCH},
    _event_twice: {Kind.REPEAT, Kind.MISMATCH},
    _event_under_another_key: {Kind.FOREIGN, Kind.MISMATCH},
    _event_unreadable: {Kind.DAMAGED},
    _status_deleted: {Kind.STATUS},
    _status_of_nobody: {Kind.STATUS},
    _status_unreadable: {Kind.DAMAGED},
    _log_block_deleted: {Kind.GAP, Kind.MISMATCH, Kind.DERIVED},
    _log_block_twice: {Kind.GAP},
    _log_block_unreadable: {Kind.DAMAGED},
    _log_block_of_another_format: {Kind.DAMAGED},
    _log_end_deleted: {Kind.BEHIND, Kind.MISMATCH, Kind.DERIVED},
    _entry_that_does_not_follow: {Kind.DERIVED},
    _checkpoint_ahead: {Kind.DERIVED},
    _other_identity: {Kind.FOREIGN},
}
# What follows from the harm in some waybills and not in others: the status is folded without an
# event, or with one twice; a row is replayed with an event twice.
_MAY_FOLLOW: dict[Harm, set[Kind]] = {
    _event_deleted: {Kind.STATUS},
    _event_twice: {Kind.STATUS, Kind.DERIVED},
    _event_under_another_key: {Kind.STATUS, Kind.DERIVED},
    _log_block_twice: {Kind.MISMATCH, Kind.DERIVED, Kind.BEHIND},
}


@pytest.mark.parametrize("harm", _HARM)
def test_harm_is_found_for_what_it_is(data: Path, harm: Harm) -> None:
    """Each kind of harm is found, as that kind, in that partition; one waybill at a time too."""
    with _opened(data) as engine:
        harm(engine)
    found = _found(data)
    kinds = {finding.kind for finding in found}
    assert _HARM[harm] <= kinds <= _HARM[harm] | _MAY_FOLLOW.get(harm, set()), found
    assert {finding.partition for finding in found} == {0}
    assert {finding.kind for finding in _found(data, waybills_at_a_time=1)} == kinds


_OTHER_VALUES: dict[str, Any] = {
    "milestone": 99,
    "flags": 0xFFFF,
    "announced": 0xFFFF,
    "course": 7,
    "event_count": 10_000,
    "first_event_at_ms": 1,
    "newest": bytes(ORDER_LENGTH),
    "last": bytes(ORDER_LENGTH),
    "updated_at_ms": 1,
    "position": 1,
    "facility": b"NOWHERE",
    "last_event": b"",
    "fingerprints": b"abcd",
}


@pytest.mark.parametrize("field", records.StatusRow._fields)
def test_every_part_of_a_status_is_held_against_its_events(data: Path, field: str) -> None:
    """One part of one status that is not what it should be is one finding, which names it."""
    with _opened(data) as engine:
        key, row = _rows(engine, Table.STATUS)[-1]
        status = records.decode_status(row)._replace(**{field: _OTHER_VALUES[field]})
        _put(engine, Table.STATUS, key, records.encode_status(status))
    (finding,) = _found(data)
    meaning = {"milestone", "flags", "last"}
    assert finding.kind == (Kind.STATUS if field in meaning else Kind.DERIVED)
    assert finding.message.startswith(f"{field} is ")
    assert finding.where.startswith("waybill CHECK-")


def test_a_waybill_in_the_wrong_partition_is_foreign(data: Path) -> None:
    """Where a waybill lives follows from its number."""
    one, other = data / "partition-0000", data / "partition-0001"
    with _opened(data) as engine:
        identity = engine.get(Table.META, META_IDENTITY)
    one.rename(data / "kept")
    other.rename(one)
    (data / "kept").rename(other)
    marks = [data / f"partition-000{number}.mark" for number in range(2)]
    contents = [mark.read_bytes() for mark in marks]
    for mark, content in zip(marks, reversed(contents), strict=True):
        mark.write_bytes(content)
    with _opened(data) as engine:
        _put(engine, Table.META, META_IDENTITY, identity)
    found = _found(data)
    assert {finding.kind for finding in found} == {Kind.FOREIGN}
    assert {finding.partition for finding in found} == {0, 1}


def test_what_was_acknowledged_and_is_not_there_is_told(data: Path) -> None:
    """A mark that is ahead, or missing beside data, or alone."""
    path = data / "partition-0000.mark"
    held = DurableMark(path).read()
    assert held
    mark = DurableMark(path)
    mark.write(held + 3)
    mark.close()
    (finding,) = _found(data)
    assert finding.kind is Kind.BEHIND
    assert finding.where == f"positions {held + 1} to {held + 3}"
    path.unlink()
    (finding,) = _found(data)
    assert finding.kind is Kind.BEHIND
    assert "mark is missing" in finding.message


def test_files_that_cannot_be_opened_or_are_gone_are_findings(data: Path) -> None:
    """The other partitions are checked all the same."""
    current = data / "partition-0000" / "CURRENT"
    current.write_bytes(b"MANIFEST-999999\n")
    (finding,) = _found(data)
    assert (finding.partition, finding.kind) == (0, Kind.DAMAGED)
    current.unlink()
    (finding,) = _found(data)
    assert (finding.partition, finding.kind) == (0, Kind.BEHIND)


def test_a_flipped_bit_in_a_table_file_is_found(data: Path) -> None:
    """Every block of every table is read, and its checksum with it."""
    files = sorted((data / "partition-0000").glob("*.sst"), key=lambda file: file.stat().st_size)
    with files[-1].open("r+b") as file:
        # A table file begins with its rows.
        file.seek(100)
        byte = file.read(1)[0]
        file.seek(100)
        file.write(bytes([byte ^ 4]))
    found = _found(data)
    assert Kind.DAMAGED in {finding.kind for finding in found}
    assert {finding.partition for finding in found} == {0}
