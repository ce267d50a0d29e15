"""Where scans wait for the server, in order: in memory, or in the spool on the device's disk.

Two kinds with one contract. Nothing here knows gRPC, batches in flight or reconnects.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from trackd.client.spool import Spool
from trackd.client.spool_file import SpoolLevel
from trackd.client.wakeup import Wakeup
from trackd.client.window import Entry, RejectedEntry


class Outbox(Protocol):
    """Scans between `scan` and the server's answer.

    - Sequences rise by one; a scan that waits is returned by `take` until it is settled.
    - `settled` is the sequence up to which nothing waits when the outbox is opened.
    - `last` is the newest scan that is kept; it rises only when keeping it is done.
    - A `put` that failed or was cancelled may have kept the first of its scans.
    - `changed` fires when a scan is kept and when scans are settled.
    """

    changed: Wakeup
    settled: int
    last: int

    async def put(self, wires: Sequence[bytes]) -> None:
        """Keeps scans; returns when they are kept as safely as this outbox can."""

    async def take(self, *, after: int, events_max: int, bytes_max: int) -> list[Entry]:
        """The scans behind `after`, within the bounds but at least one; `after` is below `last`."""

    async def settle(self, *, through: int, rejected: Sequence[RejectedEntry]) -> None:
        """Forgets the scans up to and including `through`.

        Returns when the `rejected` ones among them are kept as such.
        """

    def stop(self, why: Exception) -> None:
        """Takes no more: every `put` raises `why`, those that wait for room included."""


class MemoryOutbox:
    """Keeps scans in memory, within bounds: `put` waits for room. They end with the process."""

    def __init__(self, *, events_max: int, bytes_max: int) -> None:
        """Empty."""
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self.changed = Wakeup()
        self._stopped: Exception | None = None
        self.settled = 0
        self.last = 0

    async def put(self, wires: Sequence[bytes]) -> None:
        """Keeps scans one by one, each as soon as there is room."""
        for wire in wires:
            while self._stopped is None and self._is_full(len(wire)):
                await self.changed.wait()
            if self._stopped is not None:
                raise self._stopped
            self.last += 1
            self._bytes += len(wire)
            self._entries.append(Entry(sequence=self.last, wire=wire))
            self.changed.fire()

    async def take(self, *, after: int, events_max: int, bytes_max: int) -> list[Entry]:
        """Reads from memory."""
        skipped = after - self._entries[0].sequence + 1
        taken: list[Entry] = []
        taken_bytes = 0
        for entry in islice(self._entries, skipped, skipped + events_max):
            taken_bytes += len(entry.wire)
            if taken and taken_bytes > bytes_max:
                break
            taken.append(entry)
        return taken

    async def settle(
        self,
        *,
        through: int,
        rejected: Sequence[RejectedEntry],  # noqa: ARG002 - the contract of both kinds
    ) -> None:
        """Forgets; a rejected scan lives on only in what the caller was told."""
        while self._entries and self._entries[0].sequence <= through:
            self._bytes -= len(self._entries.popleft().wire)
        self.changed.fire()

    def stop(self, why: Exception) -> None:
        """Wakes those who wait for room."""
        self._stopped = why
        self.changed.fire()

    def _is_full(self, wire_bytes: int) -> bool:
        return len(self._entries) >= self._events_max or self._bytes + wire_bytes > self._bytes_max


class SpoolOutbox:
    """Keeps scans in the spool: what `put` has returned for outlives the process and the power."""

    def __init__(self, spool: Spool, *, level: SpoolLevel) -> None:
        """Continues with what the spool holds: `level` is that of now."""
        self._spool = spool
        self.changed = Wakeup()
        self._stopped: Exception | None = None
        self.settled = level.settled
        self.last = level.last

    async def put(self, wires: Sequence[bytes]) -> None:
        """Returns when the scans are on disk by fsync; raises SpoolFull or SpoolBroken."""
        if self._stopped is not None:
            raise self._stopped
        keeping = asyncio.wrap_future(self._spool.put(wires))
        keeping.add_done_callback(self._kept)
        # A caller that gives up does not undo what is on its way to the disk: it is sent all the
        # same.
        await asyncio.shield(keeping)

    async def take(self, *, after: int, events_max: int, bytes_max: int) -> list[Entry]:
        """Reads from the file."""
        return await asyncio.wrap_future(
            self._spool.read(after=after, events_max=events_max, bytes_max=bytes_max)
        )

    async def settle(self, *, through: int, rejected: Sequence[RejectedEntry]) -> None:
        """Waits for the disk only where a rejection would be lost: what is forgotten too late is
        sent again, which does no harm.
        """
        settled = self._spool.settle(through=through, rejected=rejected)
        if rejected:
            await asyncio.wrap_future(settled)
        self.changed.fire()

    def stop(self, why: Exception) -> None:
        """What is on its way to the disk is still kept."""
        self._stopped = why
        self.changed.fire()

    def _kept(self, keeping: "asyncio.Future[int]") -> None:
        if keeping.exception() is None:
            self.last = max(self.last, keeping.result())
            self.changed.fire()
