"""The statuses of one partition in order of their keys, from any key on, while they go on changing.

On disk are the rows as they were written back; in memory is what is ahead of them (statuses.py). A
scan merges the two. What is written back meanwhile is in memory no more, and not in the scan's view
of the disk, so it takes a new one then: every waybill is always in one of the two. The view, which
keeps files alive, is given up with `release`.
"""

from collections.abc import Iterator

from trackd.feed.change import LoggedChange, Source
from trackd.store.engine_contract import Engine
from trackd.store.keys import Table
from trackd.store.records import decode_status
from trackd.store.statuses import StatusTable


class SnapshotScan:
    """A scan over the statuses of one partition, in order of their keys."""

    def __init__(
        self, engine: Engine, statuses: StatusTable, source: Source, *, after: bytes
    ) -> None:
        """after: the key after which to begin; empty for the first."""
        self._engine = engine
        self._statuses = statuses
        self._source = source
        self.after = after
        self._rows: Iterator[tuple[bytes, bytes]] | None = None
        self._written_back_count = 0

    def take(self, *, bytes_max: int) -> list[LoggedChange]:
        """The next statuses, told as changes; `after` is the key of the last one.

        At most so many that all have bytes_max bytes on the wire, but at least one, unless none are
        left. They may be ahead of what is durable. Raises DataDamaged.
        """
        if self._rows is None or self._written_back_count != self._statuses.written_back_count:
            self._rows = self._merged()
            self._written_back_count = self._statuses.written_back_count
        taken = []
        size = 0
        for key, row in self._rows:
            taken.append(LoggedChange.of_status(self._source, key, decode_status(row)))
            self.after = key
            size += 2 * len(row)  # it has its last event twice on the wire, and a row has more
            if size > bytes_max:
                break
        return taken

    def release(self) -> None:
        """Gives up what it holds; it goes on after `after`."""
        self._rows = None

    def _merged(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key after `after` of either, once, in order, with its latest row."""
        current = self._statuses.rows.get
        on_disk = self._engine.scan_all(Table.STATUS, self.after + b"\0" if self.after else b"")
        disk_key, disk_row = next(on_disk, (None, b""))
        for key in self._ahead():
            while disk_key is not None and disk_key < key:
                yield disk_key, current(disk_key, disk_row)
                disk_key, disk_row = next(on_disk, (None, b""))
            if disk_key == key:
                disk_key, disk_row = next(on_disk, (None, b""))
            row = current(key)
            assert row is not None, "a row that is ahead of the disk stays in memory"
            yield key, row
        while disk_key is not None:
            yield disk_key, current(disk_key, disk_row)
            disk_key, disk_row = next(on_disk, (None, b""))

    def _ahead(self) -> Iterator[bytes]:
        """The keys after `after` of the rows that are ahead of the disk, in order."""
        key = self.after
        while keys := self._statuses.ahead.waybills_after(key):
            yield from keys
            key = keys[-1]
