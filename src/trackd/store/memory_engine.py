"""The Engine in memory: for tests and simulations, where a crash is a call.

Keeps what was flushed apart from what was only written, so that `crash` can lose exactly what a
power cut may.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence

from trackd.store.engine import Rows
from trackd.store.engine_figures import ENGINE_FIGURES
from trackd.store.keys import Table
from trackd.store.pages import Page, page_of


class MemoryEngine:
    """The Engine in sorted lists."""

    def __init__(self) -> None:
        self._values: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
        self._keys: dict[Table, list[bytes]] = {table: [] for table in Table}
        self._unflushed: list[list[tuple[Table, bytes, bytes | None]]] = []
        self._flushed: list[list[tuple[Table, bytes, bytes | None]]] = []

    def write(self, batch: Sequence[tuple[Table, Rows]]) -> None:
        """See Engine."""
        rows = [(table, key, value) for table, rows in batch for key, value in rows]
        self._unflushed.append(rows)
        self._apply(rows)

    def _apply(self, rows: list[tuple[Table, bytes, bytes | None]]) -> None:
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
        # Only what was there when the flush began: another thread may write meanwhile.
        count = len(self._unflushed)
        self._flushed += self._unflushed[:count]
        del self._unflushed[:count]

    def crash(self, keep_unflushed: int = 0) -> "MemoryEngine":
        """A new engine with what was flushed, and the first few batches of what was not."""
        survivor = MemoryEngine()
        for rows in self._flushed + self._unflushed[:keep_unflushed]:
            survivor._flushed.append(rows)
            survivor._apply(rows)
        return survivor

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
        self, table: Table, prefix: bytes, start: bytes = b"", *, rows_max: int, bytes_max: int
    ) -> Page:
        """See Engine."""
        rows = self.scan_prefix(table, prefix, start)
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
