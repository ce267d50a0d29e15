"""The table of statuses: in memory while hot, on disk when cold, written back behind the log.

A status row is overwritten by every scan of its waybill, at a random key: the most expensive row of
the store, and derived data. So a changed row stays here, dirty, until the log has moved on by
`write_back_events`; then it is written with a commit, together with the checkpoint: *every row on
disk is current up to that position*. After a crash the entries of the log after the checkpoint
bring the rows up to date (replay.py).

* `dirty` is ahead of the disk: rows that the disk does not have yet. Bounded by write_back_events
  rows.
* The clean cache holds what the disk has, in two generations: what is not used while the younger
  one fills half of
  cache_bytes is forgotten with the older one.
* Only the planner changes rows, only between a plan and its write; readers see planned rows and
  wait until their
  position is durable.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trackd.store.engine import Engine
from trackd.store.keys import Table, status_key

# What a cached row costs beside its bytes: a dict slot, the str of the waybill number, two object
# headers.
ROW_OVERHEAD_BYTES = 240


@dataclass(frozen=True, slots=True)
class WriteBack:
    """Dirty rows due to be written, and the checkpoint that holds once they are."""

    waybills: list[str]
    rows: list[tuple[bytes, bytes | None]]
    groups: int
    checkpoint: int


class StatusTable:
    """The statuses of one partition. Rows are bytes (records.encode_status)."""

    def __init__(
        self, engine: Engine, *, cache_bytes: int, write_back_events: int, checkpoint: int
    ) -> None:
        self._engine = engine
        self._generation_bytes_max = cache_bytes // 2
        self._write_back_events = write_back_events
        # Written by the planner only (put, written_back).
        self.dirty: dict[str, bytes] = {}
        self._groups: deque[tuple[int, list[str]]] = deque()
        self.checkpoint = checkpoint
        # The clean cache.
        self._young: dict[str, bytes] = {}
        self._old: dict[str, bytes] = {}
        self._young_bytes = 0
        self._old_bytes = 0

    @property
    def cached_bytes(self) -> int:
        """An estimate of the memory of the clean cache."""
        return self._young_bytes + self._old_bytes

    def get(self, waybill_number: str) -> bytes | None:
        """The row of a waybill; None if it has no event. Raises DataDamaged."""
        row = self.dirty.get(waybill_number)
        if row is None:
            row = self.fetch([waybill_number]).get(waybill_number)
        return row

    def fetch(self, waybill_numbers: Iterable[str]) -> dict[str, bytes]:
        """The rows of waybills that are not dirty, as far as there are any; one look at the disk for all."""
        found: dict[str, bytes] = {}
        missing = []
        young, old = self._young, self._old
        for waybill_number in waybill_numbers:
            row = young.get(waybill_number)
            if row is None:
                row = old.get(waybill_number)
                if row is None:
                    missing.append(waybill_number)
                    continue
                self._remember(waybill_number, row)
            found[waybill_number] = row
        if missing:
            keys = [status_key(waybill_number) for waybill_number in missing]
            rows = self._engine.get_many(Table.STATUS, keys)
            for waybill_number, row in zip(missing, rows, strict=True):
                if row is not None:
                    found[waybill_number] = row
                    self._remember(waybill_number, row)
        return found

    def _remember(self, waybill_number: str, row: bytes) -> None:
        self._young[waybill_number] = row
        self._young_bytes += len(row) + ROW_OVERHEAD_BYTES
        if self._young_bytes > self._generation_bytes_max:
            self._old, self._old_bytes = self._young, self._young_bytes
            self._young, self._young_bytes = {}, 0

    def put(self, changed: Mapping[str, bytes], first_position: int) -> None:
        """Takes over the rows that a plan changed; the plan's first event has first_position."""
        new = [waybill_number for waybill_number in changed if waybill_number not in self.dirty]
        self.dirty.update(changed)
        self._groups.append((first_position, new))

    def due(self, position: int, rows_max: int) -> WriteBack | None:
        """The dirty rows to write with the commit that ends at position; None if there are none
        yet.

        About as many as were dirtied by one commit, so that the work is spread evenly; at most
        rows_max, but at least one group. The rows stay dirty until `written_back`.
        """
        waybills: list[str] = []
        groups = 0
        for first_position, group in self._groups:
            due = first_position + self._write_back_events <= position
            if not due or (groups and len(waybills) + len(group) > rows_max):
                break
            waybills += group
            groups += 1
        if not groups:
            return None
        checkpoint = self._groups[groups][0] - 1 if groups < len(self._groups) else position
        rows: list[tuple[bytes, bytes | None]] = [
            (status_key(waybill_number), self.dirty[waybill_number]) for waybill_number in waybills
        ]
        return WriteBack(waybills, rows, groups, checkpoint)

    def everything(self, position: int, rows_max: int) -> WriteBack | None:
        """Like `due`, for a shutdown: whatever is dirty, a part at a time."""
        window, self._write_back_events = self._write_back_events, 0
        try:
            return self.due(position, rows_max)
        finally:
            self._write_back_events = window

    def written_back(self, write_back: WriteBack) -> None:
        """The rows of a WriteBack are in the engine: they are clean now."""
        for waybill_number in write_back.waybills:
            self._remember(waybill_number, self.dirty.pop(waybill_number))
        for _ in range(write_back.groups):
            self._groups.popleft()
        self.checkpoint = write_back.checkpoint
