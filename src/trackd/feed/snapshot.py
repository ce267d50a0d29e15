"""The statuses of one partition in order of their keys, from any key on, while they go on changing.

On disk are the rows as they were written back; in memory is what is ahead of them (statuses.py). A
scan takes the list of the rows ahead and a view of the disk at one instant, so that every waybill
of that instant is in one of the two, and merges them. What it holds meanwhile (the list, and files
that the view keeps alive) is given up with `release`, and taken anew when the scan goes on.
"""

import asyncio
from collections.abc import Iterator
from itertools import chain

from trackd.feed.change import LoggedChange, Source
from trackd.store.engine import Engine
from trackd.store.keys import Table
from trackd.store.records import decode_status
from trackd.store.statuses import StatusTable

# Keys are sorted in parts, by their first byte, which is of a hash; and put into those parts so
# many at a time, so that a million of them do not hold up the event loop.
_PARTS = 256
_KEYS_AT_A_TIME = 20_000


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

    async def take(self, *, bytes_max: int) -> list[LoggedChange]:
        """The next statuses, told as changes; `after` is the key of the last one.

        At most so many that all have bytes_max bytes on the wire, but at least one, unless none are
        left. They may be ahead of what is durable. Raises DataDamaged.
        """
        if self._rows is None:
            await self._open()
        assert self._rows is not None
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

    async def _open(self) -> None:
        # At one instant: whatever is written back between the two would be in neither.
        ahead = list(self._statuses.dirty_keys())
        on_disk = self._engine.scan_all(Table.STATUS, self.after + b"\0" if self.after else b"")
        first = next(on_disk, None)
        parts: list[list[bytes]] = [[] for _ in range(_PARTS)]
        for start in range(0, len(ahead), _KEYS_AT_A_TIME):
            for key in ahead[start : start + _KEYS_AT_A_TIME]:
                if key > self.after:
                    parts[key[0]].append(key)
            await asyncio.sleep(0)
        on_disk = chain([first], on_disk) if first else iter(())
        self._rows = self._merged(on_disk, parts)

    def _merged(
        self, on_disk: Iterator[tuple[bytes, bytes]], parts: list[list[bytes]]
    ) -> Iterator[tuple[bytes, bytes]]:
        """Every key of either once, in order, with its latest row."""
        current = self._statuses.rows.get
        disk_key, disk_row = next(on_disk, (None, b""))
        for number, part in enumerate(parts):
            for key in sorted(set(part)):
                while disk_key is not None and disk_key < key:
                    yield disk_key, current(disk_key, disk_row)
                    disk_key, disk_row = next(on_disk, (None, b""))
                if disk_key == key:
                    disk_key, disk_row = next(on_disk, (None, b""))
                row = self._statuses.get(key)
                assert row is not None, "a dirty row stays in memory or goes to disk"
                yield key, row
            parts[number] = []
        while disk_key is not None:
            yield disk_key, current(disk_key, disk_row)
            disk_key, disk_row = next(on_disk, (None, b""))
