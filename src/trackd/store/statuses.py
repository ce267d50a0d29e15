"""The table of statuses: in memory while hot, on disk when cold, written back behind the log.

A status row is overwritten by every scan of its waybill, at a random key: the most expensive row of
the store, and derived data. So a changed row stays here, dirty, until the log has moved on by
`write_back_events`; then it is written with a commit, together with the checkpoint: *every row on
disk is current up to that position*. After a crash the entries of the log after the checkpoint
bring the rows up to date (replay.py).

* `rows` is one table for dirty and clean rows, because looking a cold key up is most of what a scan
  costs. Which rows are dirty stands in the rows: a row is ahead of the disk if, and only if, its
  `dirty_since` is after the checkpoint.
* Dirty rows are bounded by write_back_events. Clean rows are bounded in bytes: what was cleaned (or
  read) first and not dirtied since is forgotten first.
* Rows change with a plan (or its replay) only, and are clean once it is written; readers see
  planned rows and wait until their position is durable.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from trackd import compiled
from trackd.store import rows as plain
from trackd.store.engine import Engine
from trackd.store.keys import Table
from trackd.store.records import STATUS_HEAD, status_dirty_since

Rows = (compiled.load("trackd.store._planning") or plain).Rows

# What a cached row costs beside its bytes: a dict slot, two object headers, the key.
ROW_OVERHEAD_BYTES = 240
# The weight of the latest group in the mean length of a row.
_MEAN_WEIGHT = 1 / 16
# Rows that were dirtied again stay on the list of what to forget; it may be so many times longer
# than the rows that may stay.
_CLEAN_LIST_FACTOR = 2


@dataclass(frozen=True, slots=True)
class WriteBack:
    """Dirty rows due to be written, and the checkpoint that holds once they are."""

    keys: list[bytes]
    rows: list[tuple[bytes, bytes | None]]
    groups: int
    checkpoint: int


class StatusTable:
    """The statuses of one partition, by status key. Rows are bytes (records.encode_status)."""

    def __init__(
        self,
        engine: Engine,
        *,
        cache_bytes: int,
        write_back_events: int,
        checkpoint: int,
        presized: bool = False,
    ) -> None:
        """presized: the table has room for all that it may hold, and never stops to grow."""
        self._engine = engine
        self._cache_bytes = cache_bytes
        self._write_back_events = write_back_events
        # The rows in memory; others read it, and change it through the methods only.
        rows_max = write_back_events + cache_bytes // (STATUS_HEAD.size + ROW_OVERHEAD_BYTES)
        self.rows: plain.Rows = Rows(rows_max if presized else 0)
        self.checkpoint = checkpoint
        # Keys by the plan that dirtied them: its first position. Tuples of bytes are nothing to the
        # garbage collector; a million keys in lists stopped everything for 40 ms now and then.
        self._dirty: deque[tuple[int, tuple[bytes, ...]]] = deque()
        self.dirty_count = 0
        # Keys in the order in which to forget them, with the checkpoint when they were clean.
        self._clean: deque[tuple[int, tuple[bytes, ...]]] = deque()
        self._clean_listed = 0
        self._mean_length = float(STATUS_HEAD.size)

    @property
    def cached_bytes(self) -> int:
        """An estimate of the memory of the clean rows."""
        return int((len(self.rows) - self.dirty_count) * (self._mean_length + ROW_OVERHEAD_BYTES))

    def dirty_keys(self) -> Iterator[bytes]:
        """The keys of the rows that are ahead of the disk, each once; a plan ends the iteration."""
        for _, keys in self._dirty:
            yield from keys

    def get(self, key: bytes) -> bytes | None:
        """The row of a waybill; None if it has no event. Raises DataDamaged."""
        row = self.rows.get(key)
        if row is None:
            row = self.fetch([key]).get(key)
        return row

    def fetch(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The rows of waybills that are not in `rows`, those that are there; one look at the disk.

        Raises DataDamaged.
        """
        missing = list(keys)
        found = {
            key: row
            for key, row in zip(missing, self._engine.get_many(Table.STATUS, missing), strict=True)
            if row is not None
        }
        if found:
            self.rows.update(found)
            self._cleaned(list(found), sum(map(len, found.values())))
        return found

    def put(
        self, changed: Mapping[bytes, bytes], dirtied: list[bytes], first_position: int
    ) -> None:
        """Takes over the rows that a plan changed; the plan's first event has first_position.

        dirtied: the keys of those that were clean before, each once; first_position is their
        `dirty_since`.
        """
        self.rows.update(changed)
        self._dirty.append((first_position, tuple(dirtied)))
        self.dirty_count += len(dirtied)

    def due(self, position: int, rows_max: int) -> WriteBack | None:
        """The dirty rows to write with the commit that ends at position; None without any yet.

        About as many as were dirtied by one commit, so that the work is spread evenly; at most
        rows_max, but at least one group. The rows stay dirty until `written_back`.
        """
        keys: list[bytes] = []
        groups = 0
        for first_position, group in self._dirty:
            due = first_position + self._write_back_events <= position
            if not due or (groups and len(keys) + len(group) > rows_max):
                break
            keys += group
            groups += 1
        if not groups:
            return None
        checkpoint = self._dirty[groups][0] - 1 if groups < len(self._dirty) else position
        rows = list(zip(keys, self.rows.get_all(keys), strict=True))
        return WriteBack(keys, rows, groups, checkpoint)

    def everything(self, position: int, rows_max: int) -> WriteBack | None:
        """Like `due`, for a shutdown: whatever is dirty, a part at a time."""
        window, self._write_back_events = self._write_back_events, 0
        try:
            return self.due(position, rows_max)
        finally:
            self._write_back_events = window

    def written_back(self, write_back: WriteBack) -> None:
        """The rows of a WriteBack are in the engine: they are clean now."""
        for _ in range(write_back.groups):
            self._dirty.popleft()
        self.dirty_count -= len(write_back.keys)
        self.checkpoint = write_back.checkpoint
        if write_back.keys:
            self._cleaned(write_back.keys, sum(len(row or b"") for _, row in write_back.rows))

    def _cleaned(self, keys: list[bytes], length: int) -> None:
        """These rows may be forgotten, once others are colder no more."""
        self._mean_length += (length / len(keys) - self._mean_length) * _MEAN_WEIGHT
        self._clean.append((self.checkpoint, tuple(keys)))
        self._clean_listed += len(keys)
        rows_max = int(self._cache_bytes / (self._mean_length + ROW_OVERHEAD_BYTES))
        listed_max = rows_max * _CLEAN_LIST_FACTOR
        while self._clean and (
            len(self.rows) - self.dirty_count > rows_max or self._clean_listed > listed_max
        ):
            self._forget(*self._clean.popleft())

    def _forget(self, checkpoint: int, keys: tuple[bytes, ...]) -> None:
        """Forgets those of these rows that were not dirtied since the checkpoint was there."""
        self._clean_listed -= len(keys)
        for key, row in zip(keys, self.rows.get_all(list(keys)), strict=True):
            if row is not None and status_dirty_since(row) <= checkpoint:
                del self.rows[key]
