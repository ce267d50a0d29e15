"""Runs of changes in their wire form: entries of `trackd.v1.ChangeRun`, joined and bounded."""

from collections.abc import Sequence

from trackd import compiled
from trackd.feed.change import LoggedChange, varint

_compiled = compiled.load("trackd.feed._telling")

# A run of changes that is told together, at most; but one change, however large. The larger one is
# the cheaper for each change, and each watch whose reader never reads holds two: so much for all of
# those together, but not less than this for each. With what frames it, it fits into the smallest
# response that a server may be held to (256 KiB).
RUN_BYTES_MAX = 224 << 10
RUN_BYTES_MIN = 64 << 10
_RUNS_BYTES = 2 << 20
_ENTRY = b"\x0a"  # ChangeRun.changes is field 1


def run_bytes_max(watches: int) -> int:
    """How large a run may be while so many watches are open."""
    return max(RUN_BYTES_MIN, min(RUN_BYTES_MAX, _RUNS_BYTES // max(1, watches)))


class Run:
    """A run that is being put together. size: of its changes, without what frames them."""

    __slots__ = ("_bytes_max", "_parts", "size")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, changes: Sequence[LoggedChange]) -> int:
        """Adds changes, in order, until it is full; how many. Raises DataDamaged."""
        room = self._bytes_max - self.size
        entries, size, count = entries_of(changes, room, at_least_one=not self._parts)
        if count:
            self._parts.append(entries)
            self.size += size
        return count

    def wire(self) -> bytes:
        """The serialised ChangeRun; empty without changes."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


def entries_of(
    changes: Sequence[LoggedChange], room: int, *, at_least_one: bool
) -> tuple[bytes, int, int]:
    """The first changes whose bytes fit into `room`, as entries; their bytes, and how many.

    at_least_one: the first one is taken whether it fits or not. Raises DataDamaged.
    """
    if _compiled:
        taken: tuple[bytes, int, int] = _compiled.entries_of(changes, room, at_least_one)
        return taken
    parts: list[bytes] = []
    size = count = 0
    for change in changes:
        wire = change.wire()
        if size + len(wire) > room and (count or not at_least_one):
            break
        size += len(wire)
        count += 1
        parts += (_ENTRY, varint(len(wire)), wire)
    return b"".join(parts), size, count
