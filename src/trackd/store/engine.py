"""The one file that imports rocksdict: the Engine (engine_contract.py) on disk.

What RocksDB through rocksdict really does, and what follows:

* `write` holds Python's lock, `flush_wal` releases it: write unsynced, flush from a thread, never
  `sync=True`.
* A written batch can be read at once but is durable only after the next flush: the caller gates its
  readers.
* A stalled write would block inside the lock: `no_slowdown` makes it raise, as WriteStalled, with
  nothing written.
* After any other failure of write or flush the engine is not to be used again: StorageFailed.
* What was written past the log is on disk once its memtable is written out, before which RocksDB
  syncs the logs from before it: so it is never there without what was logged earlier. RocksDB
  tells nobody when; unlogged.py sees it.
* An iterator keeps a raw pointer to its bound, and ends silently at a damaged block: nobody but
  `scan_*` and `read_page` iterates; they use no bounds and ask for the status at the end.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    ColumnFamily,
    DBCompressionType,
    DBRecoveryMode,
    Env,
    Options,
    Rdict,
    ReadOptions,
    SliceTransform,
    WriteBatch,
    WriteOptions,
)

from trackd import compiled
from trackd.store.engine_contract import Rows, Scan
from trackd.store.engine_figures import ENGINE_FIGURES
from trackd.store.errors import DataDamaged, StorageFailed, StoreError, WriteStalled
from trackd.store.keys import HASH_LENGTH, Table
from trackd.store.pages import Page, Row, merged, page_of
from trackd.store.rocks_errors import translated
from trackd.store.unlogged import Unlogged
from trackd.store.wal import defuse, endless_records

_paging = compiled.load("trackd.store._paging")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How much memory and work the engine may take. Bytes, per partition unless said otherwise."""

    write_buffer_bytes: int = 32 << 20
    background_threads: int = 2
    level0_compaction_files: int = 8
    level0_slowdown_files: int = 24
    level0_stop_files: int = 36


_BLOOM_BITS = 10
_BLOCK_BYTES = 8 << 10
# A status is read and rewritten alone, at random, and kept in memory by statuses.py: taking a block
# apart is most of what a cold one costs, and its cache and its compression save little.
_STATUS_BLOCK_BYTES = 4 << 10
# Of a write buffer: some 14 bits for each status in it, and small enough to stay in a cache.
_MEMTABLE_FILTER_RATIO = 0.01
_MAX_WRITE_BUFFERS = 4
# What is written back comes in order of its keys, once around in a few memtables, whose files
# hardly overlap; so those may be small and many. What is in one is replayed after a crash. But a
# status that is not in memory is looked for in every file of level 0.
_PARTS = {Table.EVENTS: 4, Table.STATUS: 2}
_LOG_WRITE_BUFFERS = 8


class SharedCache:
    """The block cache that all partitions of a process share."""

    def __init__(self, capacity_bytes: int) -> None:
        self.cache = Cache(capacity_bytes)


def _table_options(table: Table, options: EngineOptions, cache: SharedCache) -> Options:
    """The options of one column family; measured in docs/ARCHITECTURE.md."""
    family = Options(raw_mode=True)
    blocks = BlockBasedOptions()
    blocks.set_block_cache(cache.cache)
    is_status = table is Table.STATUS
    blocks.set_block_size(_STATUS_BLOCK_BYTES if is_status else _BLOCK_BYTES)
    blocks.set_bloom_filter(_BLOOM_BITS, False)
    # Those of statuses stay in memory, 2 bytes for each waybill: each scan of a cold one asks all.
    blocks.set_cache_index_and_filter_blocks(not is_status)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    blocks.set_format_version(5)
    parts = _PARTS.get(table, 1)
    if table in {Table.EVENTS, Table.STATUS}:
        family.set_prefix_extractor(SliceTransform.create_fixed_prefix(HASH_LENGTH))
    if is_status:
        # Most waybills that are not in memory are not in a memtable either.
        family.set_memtable_prefix_bloom_ratio(_MEMTABLE_FILTER_RATIO)
    family.set_block_based_table_factory(blocks)
    family.set_write_buffer_size(options.write_buffer_bytes // parts)
    family.set_max_write_buffer_number(_MAX_WRITE_BUFFERS * parts)
    family.set_compression_type(DBCompressionType.none() if is_status else DBCompressionType.lz4())
    family.set_level_zero_file_num_compaction_trigger(options.level0_compaction_files * parts)
    family.set_level_zero_slowdown_writes_trigger(options.level0_slowdown_files * parts)
    family.set_level_zero_stop_writes_trigger(options.level0_stop_files * parts)
    family.set_target_file_size_base(options.write_buffer_bytes)
    family.set_max_bytes_for_level_base(
        options.write_buffer_bytes * options.level0_compaction_files
    )
    return family


def _database_options(options: EngineOptions, recovery: DBRecoveryMode) -> Options:
    database = Options(raw_mode=True)
    database.create_if_missing(True)
    database.create_missing_column_families(True)
    # There is one writer, and a memtable that knows it finds the place of a row that follows the
    # one before it at once.
    database.set_allow_concurrent_memtable_write(False)
    database.set_max_background_jobs(options.background_threads)
    database.set_avoid_unnecessary_blocking_io(True)
    database.set_recycle_log_file_num(0)
    database.set_wal_recovery_mode(recovery)
    # A table that gets few rows would keep every log since its first one, and the next start would
    # read gigabytes of them again: beyond this its rows are written out too.
    database.set_max_total_wal_size(options.write_buffer_bytes * _LOG_WRITE_BUFFERS)
    database.set_bytes_per_sync(1 << 20)
    database.set_max_log_file_size(16 << 20)
    database.set_keep_log_file_num(4)
    # The default preallocates as much as a write buffer per log: too much for a small file system.
    database.set_manifest_preallocation_size(64 << 10)
    environment = Env()
    environment.set_background_threads(options.background_threads)
    environment.lower_thread_pool_cpu_priority()
    environment.lower_high_priority_thread_pool_cpu_priority()  # flushes, which nobody waits for
    database.set_env(environment)
    return database


def _open(
    path: Path,
    options: EngineOptions,
    cache: SharedCache,
    *,
    recovery: DBRecoveryMode,
    read_only: bool,
) -> Rdict:
    access = AccessType.read_only(False) if read_only else AccessType.read_write()
    try:
        # Data of an earlier version lacks the newer tables, and a reader makes none.
        there = Rdict.list_cf(os.fspath(path)) if read_only else [table.value for table in Table]
        tables = [table for table in Table if table.value in there]
        return Rdict(
            os.fspath(path),
            options=_database_options(options, recovery),
            column_families={each.value: _table_options(each, options, cache) for each in tables},
            access_type=access,
        )
    except Exception as error:
        raise translated(error) from error


class RocksEngine:
    """The Engine on disk: one RocksDB directory."""

    def __init__(
        self,
        path: Path,
        options: EngineOptions,
        cache: SharedCache,
        *,
        salvage: bool = False,
        read_only: bool = False,
    ) -> None:
        """Opens or makes the directory, holding Python's lock meanwhile.

        salvage: of a damaged log, take what can be read behind the damage too, as far as RocksDB
        can: not behind a record that is damaged in its middle (facebook/rocksdb#15007).
        read_only: make and change nothing; a log is read, but kept as it is. Raises
        DirectoryInUse, DataDamaged or StorageFailed.
        """
        if not read_only:
            defuse(path)
        elif endless := endless_records(path):
            log, offset = endless[0]
            raise DataDamaged(f"{log}: noise at {offset}, which a start of the server would clear")
        if salvage:
            try:
                skipping = DBRecoveryMode.skip_any_corrupted_record()
                self._database = _open(path, options, cache, recovery=skipping, read_only=read_only)
            except DataDamaged:
                salvage = False
        if not salvage:
            in_order = DBRecoveryMode.point_in_time()
            self._database = _open(path, options, cache, recovery=in_order, read_only=read_only)
        self._families: dict[Table, Rdict] = {}
        self._handles: dict[Table, ColumnFamily] = {}
        for table in Table:
            with suppress(Exception):  # a table that is not there: see _open
                self._families[table] = self._database.get_column_family(table.value)
                self._handles[table] = self._database.get_column_family_handle(table.value)
        self._write_options = WriteOptions()
        self._write_options.no_slowdown = True
        self._unlogged_options = WriteOptions()
        self._unlogged_options.no_slowdown = True
        self._unlogged_options.disable_wal = True  # type: ignore[method-assign,assignment] # the stub forgot that it is a property
        self._unlogged = Unlogged(self._families)
        self._same_prefix = ReadOptions()
        self._same_prefix.set_prefix_same_as_start(True)

    def write(self, batch: Sequence[tuple[Table, Rows]]) -> None:
        """See Engine."""
        self._write(self._batch(batch), self._write_options)

    def write_unlogged(self, batch: Sequence[tuple[Table, Rows]]) -> int:
        """See Engine."""
        self._write(self._batch(batch), self._unlogged_options)
        return self._unlogged.wrote({table: len(rows) for table, rows in batch})

    def kept_unlogged(self) -> int:
        """See Engine."""
        return self._unlogged.kept()

    def keep_unlogged(self) -> None:
        """See Engine."""
        try:
            self._unlogged.keep()
        except Exception as error:
            raise self._of_a_write(error) from error

    def _batch(self, batch: Sequence[tuple[Table, Rows]]) -> WriteBatch:
        rocks_batch = WriteBatch(raw_mode=True)
        put = rocks_batch.put
        for table, rows in batch:
            handle = self._handles[table]
            for key, value in rows:
                if value is None:
                    rocks_batch.delete(key, handle)
                else:
                    put(key, value, handle)
        return rocks_batch

    def _write(self, rocks_batch: WriteBatch, options: WriteOptions) -> None:
        try:
            self._database.write(rocks_batch, options)
        except Exception as error:
            raise self._of_a_write(error) from error

    def flush_wal(self) -> None:
        """See Engine."""
        try:
            self._database.flush_wal(True)
        except Exception as error:
            raise self._of_a_write(error) from error

    @staticmethod
    def _of_a_write(error: Exception) -> StoreError:
        told = translated(error)
        return told if isinstance(told, WriteStalled) else StorageFailed(str(error))

    def get(self, table: Table, key: bytes) -> bytes | None:
        """See Engine."""
        try:
            value: bytes | None = self._families[table].get(key)
        except Exception as error:
            raise DataDamaged(f"{table.value}: {error}") from error
        return value

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        """See Engine."""
        try:
            values: list[bytes | None] = self._families[table].get(list(keys)) or []
        except Exception as error:
            raise DataDamaged(f"{table.value}: {error}") from error
        return values

    def scan_prefix(self, table: Table, prefix: bytes, start: bytes = b"") -> Scan:
        """See Engine."""
        return self._scan(table, self._same_prefix, max(start, prefix), prefix)

    def read_page(
        self,
        table: Table,
        prefix: bytes,
        start: bytes = b"",
        *,
        beside: Sequence[Row] = (),
        rows_max: int,
        bytes_max: int,
    ) -> Page:
        """See Engine."""
        if _paging is None:
            rows = merged(self.scan_prefix(table, prefix, start), beside)
            return page_of(rows, rows_max=rows_max, bytes_max=bytes_max)
        iterator, start = self._families[table].iter(self._same_prefix), max(start, prefix)
        try:
            page: Page = _paging.page_of(iterator, start, prefix, list(beside), rows_max, bytes_max)
        except Exception as error:
            raise DataDamaged(f"{table.value}: {error}") from error
        return page

    def scan_all(self, table: Table, start: bytes = b"") -> Scan:
        """See Engine."""
        if table not in self._families:
            return iter(())
        read_options = ReadOptions()
        read_options.set_total_order_seek(True)
        return self._scan(table, read_options, start, b"")

    def _scan(self, table: Table, options: ReadOptions, start: bytes, prefix: bytes) -> Scan:
        """The rows from start on that begin with prefix; its frame keeps the options alive."""
        iterator = self._families[table].iter(options)
        iterator.seek(start)
        # Looked up once: a timeline is read row by row, and this is much of what a row costs.
        is_valid, key_of, value_of = iterator.valid, iterator.key, iterator.value
        move = iterator.next
        while is_valid():
            key: bytes = key_of()
            if not key.startswith(prefix):
                break
            yield key, value_of()
            move()
        self._ended_well(table, iterator)

    @staticmethod
    def _ended_well(table: Table, iterator: Any) -> None:
        try:
            iterator.status()
        except Exception as error:
            raise DataDamaged(f"{table.value}: {error}") from error

    def last_key(self, table: Table) -> bytes | None:
        """See Engine."""
        read_options = ReadOptions()
        read_options.set_total_order_seek(True)
        iterator = self._families[table].iter(read_options)
        iterator.seek_to_last()
        self._ended_well(table, iterator)
        key: bytes | None = iterator.key() if iterator.valid() else None
        return key

    def delete_all(self, table: Table) -> None:
        """See Engine."""
        if last := self.last_key(table):
            self.delete_before(table, last + b"\0", [])

    def delete_before(self, table: Table, key: bytes, batch: Sequence[tuple[Table, Rows]]) -> None:
        """See Engine."""
        rocks_batch = self._batch(batch)
        rocks_batch.delete_range(b"", key, self._handles[table])
        self._write(rocks_batch, self._write_options)

    def figures(self) -> Mapping[str, int]:
        """See Engine."""
        figures = {}
        for name, (rocks_name, only) in ENGINE_FIGURES.items():
            tables = [only] if only else list(Table)
            figures[name] = sum(
                self._families[table].property_int_value(rocks_name) or 0 for table in tables
            )
        return figures

    def close(self) -> None:
        """See Engine."""
        self._families.clear()
        self._handles.clear()
        self._unlogged = Unlogged({})  # whoever holds a table keeps the database open
        with suppress(Exception):  # nothing can be done about it, and everything is in the log
            self._database.close()
