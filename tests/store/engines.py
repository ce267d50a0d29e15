"""Engines for tests: both kinds behind one name, with the way to close and open them again.

Knows nothing of scans.
"""

from pathlib import Path
from typing import Protocol

from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.engine_contract import Engine
from trackd.store.memory_engine import MemoryEngine

# The least that RocksDB takes: a few hundred rows fill it, so that tests reach files and levels.
SMALL_BUFFERS = EngineOptions(write_buffer_bytes=64 << 10, level0_compaction_files=2)


class Kept(Protocol):
    """An engine and how to reopen it."""

    @property
    def engine(self) -> Engine: ...
    def reopen(self) -> Engine:
        """Closes it in order and opens it again."""


class KeptOnDisk:
    """RocksDB in a directory, with write buffers so small that rows soon move to files."""

    def __init__(self, path: Path, options: EngineOptions = SMALL_BUFFERS) -> None:
        self.path = path
        self._options = options
        self._cache = SharedCache(1 << 20)
        self.engine: Engine = self._opened()

    def _opened(self) -> RocksEngine:
        return RocksEngine(self.path, self._options, self._cache)

    def reopen(self) -> Engine:
        """See Kept."""
        self.engine.close()
        self.engine = self._opened()
        return self.engine


class KeptInMemory:
    """MemoryEngine, whose files are what it hands to its successor."""

    def __init__(self) -> None:
        self._memory = MemoryEngine()

    @property
    def engine(self) -> Engine:
        """See Kept."""
        return self._memory

    def reopen(self) -> Engine:
        """See Kept."""
        self._memory.flush_wal()
        self._memory.close()
        self._memory = self._memory.crash()
        return self._memory
