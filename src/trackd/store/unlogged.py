"""Which of the writes past RocksDB's log are on disk.

They are once the memtable that they went into is written out. RocksDB tells nobody, but how many
rows are in the memtable that is written to, and how many others wait for being written out: a
memtable that holds fewer rows than were put into it is a new one, and those that wait go out in
their order. So much is known of each table, seen from one write to the next.
"""

from collections import deque
from collections.abc import Mapping
from typing import Protocol

from trackd.store.keys import Table

_ROWS = "rocksdb.num-entries-active-mem-table"
_WAITING = "rocksdb.num-immutable-mem-table"


class Family(Protocol):
    """What is asked of a column family (rocksdict.Rdict)."""

    def property_int_value(self, name: str) -> int | None:
        """A figure of it."""

    def flush(self, wait: bool = True) -> None:
        """Writes its memtables out."""


class _Memtables:
    """Those of one table."""

    def __init__(self, family: Family) -> None:
        self._family = family
        # Of the one that is written to: its rows, and the last write that went into it.
        self._rows = 0
        self._last = 0
        # The last write into each of those that wait for being written out.
        self._waiting: deque[int] = deque()
        self._kept = 0

    def wrote(self, number: int, rows: int) -> None:
        """The write of that number has put so many rows here."""
        now = self._family.property_int_value(_ROWS) or 0
        if self._last and now < self._rows + rows:
            self._waiting.append(self._last)
        if self._kept == self._last:
            self._kept = number - 1  # none before this one can be lost here
        self._rows, self._last = now, number

    def lost_from(self) -> int | None:
        """A write after which the next one of this table may be lost; None if none may."""
        if self._waiting:
            waiting = self._family.property_int_value(_WAITING) or 0
            while len(self._waiting) > waiting:
                self._kept = max(self._kept, self._waiting.popleft())
        return None if self._kept == self._last else self._kept

    def keep(self) -> None:
        """Returns once all that was written before is on disk."""
        last = self._last
        self._family.flush(True)
        self._kept = max(self._kept, last)


class Unlogged:
    """The writes past the log of one database. One caller, but for `keep`, which may be another."""

    def __init__(self, families: Mapping[Table, Family]) -> None:
        self._families = families
        self._memtables: dict[Table, _Memtables] = {}
        self._number = 0

    def wrote(self, rows: Mapping[Table, int]) -> int:
        """The latest write has put so many rows into tables; its number, from 1 on."""
        self._number += 1
        for table, count in rows.items():
            if count:
                if table not in self._memtables:
                    self._memtables[table] = _Memtables(self._families[table])
                self._memtables[table].wrote(self._number, count)
        return self._number

    def kept(self) -> int:
        """How many of the writes, in their order, are on disk."""
        lost_from = [memtables.lost_from() for memtables in self._memtables.values()]
        return min((each for each in lost_from if each is not None), default=self._number)

    def keep(self) -> None:
        """Returns once all that was written before is on disk."""
        for memtables in list(self._memtables.values()):
            memtables.keep()
