"""What an engine says of itself: the names of its figures, and where RocksDB has them."""

from trackd.store.keys import Table

# What `figures` reports, and RocksDB's name for it. Summed over all tables where None stands, else
# of the table named.
ENGINE_FIGURES: dict[str, tuple[str, Table | None]] = {
    "events_estimate": ("rocksdb.estimate-num-keys", Table.EVENTS),
    "waybills_estimate": ("rocksdb.estimate-num-keys", Table.STATUS),
    "memtable_bytes": ("rocksdb.cur-size-all-mem-tables", None),
    "table_readers_bytes": ("rocksdb.estimate-table-readers-mem", None),
    "immutable_memtables": ("rocksdb.num-immutable-mem-table", None),
    "sst_bytes": ("rocksdb.total-sst-files-size", None),
    "pending_compaction_bytes": ("rocksdb.estimate-pending-compaction-bytes", None),
    "running_compactions": ("rocksdb.num-running-compactions", Table.EVENTS),
    "running_flushes": ("rocksdb.num-running-flushes", Table.EVENTS),
    "write_stopped": ("rocksdb.is-write-stopped", Table.EVENTS),
    "delayed_write_rate": ("rocksdb.actual-delayed-write-rate", Table.EVENTS),
    "background_errors": ("rocksdb.background-errors", Table.EVENTS),
    "block_cache_bytes": ("rocksdb.block-cache-usage", Table.EVENTS),
}
