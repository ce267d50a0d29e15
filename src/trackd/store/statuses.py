"""The table of statuses: in memory while hot, on disk when cold, written back behind the log.

A status row is overwritten by every scan of its waybill, at a random key: the most expensive row of
the store, and derived data. So a changed row stays here, dirty, until the log has moved on by
`write_back_events`; then it is written with a commit, together with the checkpoint: *every row on
disk is current up to that position*. After a crash the entries of the log after the checkpoint
bring the rows up to date (replay.py).

* `dirty` is ahead of the disk: rows that the disk does not have yet. Bounded by write_back_events
  rows.
* The clean cache holds what the disk has, in two generations: what is not used while the younger
  one fills half of cache_bytes is forgotten with the older one.
* Rows change with a plan (or its replay) only, and are clean once it is written; readers see
  planned rows and wait until their position is durable.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trackd.store.engine import Engine
from trackd.store.keys import Table

# What a cached row costs beside its bytes: a dict slot, two object headers, the key.
ROW_OVERHEAD_BYTES = 240


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
        self, engine: Engine, *, cache_bytes: int, write_back_events: int, checkpoint: int
    ) -> None:
        self._engine = engine
        self._generation_bytes_max = cache_bytes // 2
        self._write_back_events = write_back_events
        # Written by the planner only (put, written_back).
        self.dirty: dict[bytes, bytes] = {}
        self._groups: deque[tuple[int, list[bytes]]] = deque()
        self.checkpoint = checkpoint
        # The clean cache.
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._young_bytes = 0
        self._old_bytes = 0

    @property
    def cached_bytes(self) -> int:
        """An estimate of the memory of the clean cache."""
        return self._young_bytes + self._old_bytes

    def get(self, key: bytes) -> bytes | None:
        """The row of a waybill; None if it has no event. Raises DataDamaged."""
        row = self.dirty.get(key)
        if row is None:
            row = self.fetch([key]).get(key)
        return row

    def fetch(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The rows of waybills that are not dirty, those that are there; one look at the disk."""
        found: dict[bytes, bytes] = {}
        missing = []
        young, old = self._young, self._old
        for key in keys:
            row = young.get(key)
            if row is None:
                row = old.get(key)
                if row is None:
                    missing.append(key)
                    continue
                self._remember(key, row)
            found[key] = row
        if missing:
            rows = self._engine.get_many(Table.STATUS, missing)
            for key, row in zip(missing, rows, strict=True):
                if row is not None:
                    found[key] = row
                    self._remember(key, row)
        return found

    def _remember(self, key: bytes, row: bytes) -> None:
        self._young[key] = row
        self._young_bytes += len(row) + ROW_OVERHEAD_BYTES
        if self._young_bytes > self._generation_bytes_max:
            self._old, self._old_bytes = self._young, self._young_bytes
            self._young, self._young_bytes = {}, 0

    def put(
        self, changed: Mapping[bytes, bytes], clean: Iterable[bytes], first_position: int
    ) -> None:
        """Takes over the rows that a plan changed; the plan's first event has first_position.

        clean: every key that was not dirty before, each once; it may name keys that did not change.
        """
        new = [key for key in clean if key in changed]
        self.dirty.update(changed)
        self._groups.append((first_position, new))

    def due(self, position: int, rows_max: int) -> WriteBack | None:
        """The dirty rows to write with the commit that ends at position; None without any yet.

        About as many as were dirtied by one commit, so that the work is spread evenly; at most
        rows_max, but at least one group. The rows stay dirty until `written_back`.
        """
        keys: list[bytes] = []
        groups = 0
        for first_position, group in self._groups:
            due = first_position + self._write_back_events <= position
            if not due or (groups and len(keys) + len(group) > rows_max):
                break
            keys += group
            groups += 1
        if not groups:
            return None
        checkpoint = self._groups[groups][0] - 1 if groups < len(self._groups) else position
        rows: list[tuple[bytes, bytes | None]] = [(key, self.dirty[key]) for key in keys]
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
        for key in write_back.keys:
            self._remember(key, self.dirty.pop(key))
        for _ in range(write_back.groups):
            self._groups.popleft()
        self.checkpoint = write_back.checkpoint
