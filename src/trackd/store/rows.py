"""The rows of a partition's statuses that are in memory, by status key.

`_planning.pyx` has the same class compiled, which looks many keys up at once without waiting for
memory key by key.
"""

from collections.abc import Sequence
from typing import Any

from trackd.store.records import STATUS_HEAD, status_position


class Rows(dict[bytes, bytes]):
    """A dict that looks many keys up at once."""

    def __init__(self, expected: int = 0) -> None:  # noqa: ARG002 (a dict cannot be told)
        """expected: rows that it has room for from the beginning; growing stops the process."""
        super().__init__()

    def get_all(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of these keys; None where there is none."""
        return list(map(self.get, keys))

    def get_each(self, scans: Sequence[tuple[Any, ...]]) -> list[bytes | None]:
        """The rows of these scans' waybills (planner.ScanTuple); None where there is none."""
        get = self.get
        return [get(scan[1]) for scan in scans]

    def forget(self, keys: Sequence[bytes], position: int) -> None:
        """Lets go of those rows of these keys that have not changed since position."""
        for key in keys:
            row = self.get(key)
            if row is None:
                continue
            is_damaged = len(row) < STATUS_HEAD.size
            if is_damaged or status_position(row) <= position:
                del self[key]
