"""The Engine in memory: for tests and simulations, where a crash is a call.

Keeps what was flushed apart from what was only written, and what was written past the log apart
from both, so that `crash` can lose exactly what a power cut may.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence

from trackd.store.engine_contract import Rows
from trackd.store.engine_figures import ENGINE_FIGURES
from trackd.store.keys import Table
from trackd.store.pages import Page, Row, merged, page_of

_Rows = list[tuple[Table, bytes, bytes | None]]
# Unlogged writes that wait for being kept, as in a memtable.
_UNLOGGED_MAX = 4


class MemoryEngine:
    """The Engine in sorted lists."""

    def __init__(self) -> None:
        self._values: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
        self._keys: dict[Table, list[bytes]] = {table: [] for table in Table}
        self._unflushed: list[_Rows] = []
        self._flushed: list[_Rows] = []
        # Each with the number of batches that were written before it.
        self._unlogged: list[tuple[int, _Rows]] = []
        self._kept = 0

    def write(self, batch: Sequence[tuple[Table, Rows]]) -> None:
        """See Engine."""
        rows = rows_of(batch)
        self._unflushed.append(rows)
        self._apply(rows)

    def write_unlogged(self, batch: Sequence[tuple[Table, Rows]]) -> int:
        """See Engine. As into a memtable: now and then all that came before is kept."""
        rows = rows_of(batch)
        if len(self._unlogged) - self._kept >= _UNLOGGED_MAX:
            self._keep(len(self._unlogged))
        self._unlogged.append((self.batches, rows))
        self._apply(rows)
        return len(self._unlogged)

    def kept_unlogged(self) -> int:
        """See Engine."""
        return self._kept

    def keep_unlogged(self) -> None:
        """See Engine."""
        self._keep(len(self._unlogged))

    @property
    def batches(self) -> int:
        """How many batches were written, flushed or not."""
        return len(self._flushed) + len(self._unflushed)

    def _keep(self, number: int) -> None:
        """The first unlogged writes are on disk, and so is every batch before them."""
        if number > self._kept:
            self._flush(self._unlogged[number - 1][0])
            self._kept = number

    def _apply(self, rows: _Rows) -> None:
        for table, key, value in rows:
            values, keys = self._values[table], self._keys[table]
            if value is None:
                if values.pop(key, None) is not None:
                    del keys[bisect_left(keys, key)]
            else:
                if key not in values:
                    insort(keys, key)
                values[key] = value

    def flush_wal(self) -> None:
        """See Engine."""
        self._flush(self.batches)

    def _flush(self, batches: int) -> None:
        """The first batches are durable, and no others: another thread may write meanwhile."""
        count = max(batches - len(self._flushed), 0)
        self._flushed += self._unflushed[:count]
        del self._unflushed[:count]

    def crash(
        self, keep_unflushed: int = 0, keep_unlogged: Mapping[Table, int] | None = None
    ) -> "MemoryEngine":
        """A new engine with what was flushed, and the first few batches of what was not.

        keep_unlogged: of a table, how many more unlogged writes are kept than `kept_unlogged` says,
        as far as all batches before them are.
        """
        survivor = MemoryEngine()
        self._leave_to(survivor, keep_unflushed, keep_unlogged or {})
        return survivor

    def _leave_to(
        self, survivor: "MemoryEngine", keep_unflushed: int, keep_unlogged: Mapping[Table, int]
    ) -> None:
        """What is left is flushed there, in the order in which it was written."""
        batches = self._flushed + self._unflushed[:keep_unflushed]
        unlogged = [
            (before, [row for row in rows if number < self._kept + keep_unlogged.get(row[0], 0)])
            for number, (before, rows) in enumerate(self._unlogged)
            if before <= len(batches)
        ]
        place = 0
        for before, rows in unlogged:
            survivor._flushed += [*batches[place:before], rows]
            place = before
        survivor._flushed += batches[place:]
        for rows in survivor._flushed:
            survivor._apply(rows)

    def get(self, table: Table, key: bytes) -> bytes | None:
        """See Engine."""
        return self._values[table].get(key)

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        """See Engine."""
        return [self._values[table].get(key) for key in keys]

    def scan_prefix(
        self, table: Table, prefix: bytes, start: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """See Engine."""
        keys, values = self._keys[table], self._values[table]
        found = []
        for place in range(bisect_left(keys, max(start, prefix)), len(keys)):
            if not keys[place].startswith(prefix):
                break
            found.append((keys[place], values[keys[place]]))
        yield from found

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
        rows = merged(self.scan_prefix(table, prefix, start), beside)
        return page_of(rows, rows_max=rows_max, bytes_max=bytes_max)

    def scan_all(self, table: Table, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """See Engine."""
        keys, values = self._keys[table], self._values[table]
        yield from [(key, values[key]) for key in keys[bisect_left(keys, start) :]]

    def last_key(self, table: Table) -> bytes | None:
        """See Engine."""
        return self._keys[table][-1] if self._keys[table] else None

    def delete_all(self, table: Table) -> None:
        """See Engine."""
        self.write([(table, [(key, None) for key in self._keys[table]])])

    def delete_before(self, table: Table, key: bytes, batch: Sequence[tuple[Table, Rows]]) -> None:
        """See Engine."""
        keys = self._keys[table]
        dropped = keys[: bisect_left(keys, key)]
        self.write([(table, [(each, None) for each in dropped]), *batch])

    def figures(self) -> Mapping[str, int]:
        """See Engine."""
        figures = dict.fromkeys(ENGINE_FIGURES, 0)
        figures["events_estimate"] = len(self._keys[Table.EVENTS])
        figures["waybills_estimate"] = len(self._keys[Table.STATUS])
        return figures

    def close(self) -> None:
        """See Engine."""


def rows_of(batch: Sequence[tuple[Table, Rows]]) -> _Rows:
    """The rows of a batch, each with its table."""
    return [(table, key, value) for table, rows in batch for key, value in rows]
