"""Rows that are not events, while they wait to be written: they ride on the next commit.

Nothing here writes: the committer takes what waits when it writes a commit, or alone if none comes
soon. Later rows of the same key stand behind earlier ones, so the last one counts.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from trackd.store.engine_contract import Rows
from trackd.store.errors import StorageFailed
from trackd.store.keys import Table

# How long rows wait for a commit to ride on: under load one comes every few milliseconds.
ASIDE_DELAY_S = 0.003


@dataclass(slots=True)
class Aside:
    """Rows, and who wants to know when they are durable."""

    rows: list[tuple[Table, Rows]] = field(default_factory=list)
    waiters: list["asyncio.Future[None]"] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.waiters)

    def add(self, rows: Sequence[tuple[Table, Rows]], done: "asyncio.Future[None]") -> None:
        """Adds rows behind those that wait."""
        self.rows += rows
        self.waiters.append(done)

    def take(self, other: "Aside") -> None:
        """Adds everything that waits in other, which is empty then."""
        self.rows += other.rows
        self.waiters += other.waiters
        other.rows, other.waiters = [], []

    def settle(self) -> None:
        """Everything is durable."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, error: StorageFailed) -> None:
        """Nothing of it is known to be durable, and never will be."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(StorageFailed(str(error)))
                waiter.exception()  # who put it aside may not wait, which is no news for the log
        self.rows, self.waiters = [], []
