"""RocksDB's log files, as far as they must be known before RocksDB reads them.

    file   = block{0,} of 32 KiB, the last one shorter
    block  = record{0,} · less bytes than a record's head
    record = crc u32 · length u16 · type u8 · payload{length}      (little-endian)

There are types for logs that are used again, which trackd never has RocksDB do. RocksDB 10.4
reads a record of such a type for ever, in a log that did not begin with one
(facebook/rocksdb#13333): one flipped bit, or noise behind a torn write, and it never opens again.
Here such a record is given a type that nobody knows: RocksDB finds it damaged, as it is.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from trackd.store.errors import StorageFailed

_BLOCK_BYTES = 32 << 10
_HEAD_BYTES = 7
_LENGTH_OFFSET = 4
_TYPE_OFFSET = 6
# Full, first, middle, last.
_WRITTEN_TYPES = frozenset({1, 2, 3, 4})
# The same in logs that are used again; a size of timestamps; the log before this one.
_ENDLESS_TYPES = frozenset({5, 6, 7, 8, 11, 131})
_UNKNOWN_TYPE = b"\xff"

_log = structlog.get_logger()


def endless_records(partition: Path) -> list[tuple[Path, int]]:
    """The log files of a RocksDB directory with the offsets of types that are read for ever.

    They are found where RocksDB would look, or in what it drops with the damage before them.
    Raises StorageFailed.
    """
    found = []
    try:
        for path in sorted(partition.glob("*.log")):
            if path.stat().st_size < _HEAD_BYTES:
                continue
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                found += [(path, offset) for offset in _endless_types(content)]
    except OSError as error:
        raise StorageFailed(f"{partition}: {error}") from error
    return found


def _endless_types(content: mmap.mmap) -> Iterator[int]:
    for block in range(0, len(content), _BLOCK_BYTES):
        end = min(block + _BLOCK_BYTES, len(content))
        record = block
        while record + _HEAD_BYTES <= end:
            low, high, kind = content[record + _LENGTH_OFFSET : record + _HEAD_BYTES]
            length = low | high << 8
            if kind in _ENDLESS_TYPES:
                yield record + _TYPE_OFFSET
            if kind not in _WRITTEN_TYPES:
                break  # filler, or damage, with which RocksDB drops the rest of the block
            record += _HEAD_BYTES + length


def defuse(partition: Path) -> int:
    """Makes every such record a damaged one, durably; how many there were. Raises StorageFailed.

    Nothing that could be read is lost: with a record that is damaged RocksDB drops the rest of its
    block.
    """
    count = 0
    for path, offset in endless_records(partition):
        try:
            with path.open("r+b") as file:
                file.seek(offset)
                file.write(_UNKNOWN_TYPE)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageFailed(f"{path}: {error}") from error
        count += 1
    if count:
        _log.warning(
            "noise in RocksDB's log was marked as damaged", path=str(partition), count=count
        )
    return count
