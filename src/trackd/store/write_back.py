"""Writing back: what is ahead of the disk goes into the engine, a part in a turn of its own.

For one partition, beside its committer, which has to be told what fails. Only the thread of its
event loop may call it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from trackd.store import failpoint
from trackd.store.engine_contract import Engine
from trackd.store.errors import WriteStalled
from trackd.store.statuses import StatusTable
from trackd.turns import Turns


class WritingBack:
    """The writing back of one partition."""

    def __init__(
        self,
        engine: Engine,
        statuses: StatusTable,
        *,
        rows_max: int,
        turns: Turns,
        on_failure: Callable[[Exception], None],
    ) -> None:
        """rows_max: events in one write."""
        self._engine = engine
        self._statuses = statuses
        self._rows_max = rows_max
        self._turns = turns
        self._on_failure = on_failure
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="keep")
        self.is_due = False

    def soon(self, position: Callable[[], int | None]) -> None:
        """Writes what is due, in a turn of its own.

        position: asked then, up to where the log is written; None if nothing may be written now,
        and what comes next finds more due.
        """
        if self._statuses.is_due and not self.is_due:
            self.is_due = True
            self._turns.soon(lambda: self._turn(position()))

    def _turn(self, position: int | None) -> None:
        self.is_due = False
        if position is not None:
            self.write(position)

    def write(self, position: int, *, everything: bool = False) -> bool:
        """Writes a part of what is due, or of everything; whether it did.

        False as well where the engine stalls. position: up to where the log is written.
        """
        choose = self._statuses.everything if everything else self._statuses.due
        part = choose(position, self._rows_max)
        if part is None:
            return False
        failpoint.reach("in_checkpoint")
        try:
            unlogged = self._engine.write_unlogged(part.batch)
        except WriteStalled:
            return False
        except Exception as error:
            self._on_failure(error)
            return False
        self._statuses.written_back(part, unlogged)
        return True

    async def keep(self) -> None:
        """Has no crash lose what was written back before. Raises StorageFailed."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._keeper, self._engine.keep_unlogged)

    async def close(self) -> None:
        """Ends its thread."""
        await asyncio.to_thread(self._keeper.shutdown)
