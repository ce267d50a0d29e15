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
from trackd.store.stalls import STALL_RETRY_S
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
        position: Callable[[], int | None],
        on_written: Callable[[], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """rows_max: events in one write.

        position: up to where the log is written; None while nothing may be written, and whoever
        lets it be written again calls `soon`. on_written: called after each write.
        """
        self._engine = engine
        self._statuses = statuses
        self._rows_max = rows_max
        self._turns = turns
        self._position = position
        self._on_written = on_written
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="keep")
        # Whether a turn was asked for, or will be once the engine may take more.
        self.is_waiting = False

    def soon(self) -> None:
        """Writes what is due, in a turn of its own."""
        if self._statuses.is_due and not self.is_waiting:
            self.is_waiting = True
            self._turns.soon(self._turn)

    def _turn(self) -> None:
        self.is_waiting = False
        if self._position() is None:
            return
        if self.write():
            self.soon()
        elif self._statuses.is_due and self._position() is not None:
            self.is_waiting = True  # a stall
            self._loop.call_later(STALL_RETRY_S, self._turn)

    def write(self, *, everything: bool = False) -> bool:
        """Writes a part of what is due, or of everything; whether it did.

        False as well where the engine stalls or fails. There must be a position.
        """
        position = self._position()
        assert position is not None
        try:
            choose = self._statuses.everything if everything else self._statuses.due
            part = choose(position, self._rows_max)
            if part is None:
                return False
            failpoint.reach("in_checkpoint")
            unlogged = self._engine.write_unlogged(part.batch)
        except WriteStalled:
            return False
        except Exception as error:
            # What is ahead of the disk could not be written any more: it is the end.
            self._on_failure(error)
            return False
        self._statuses.written_back(part, unlogged)
        self._on_written()
        return True

    async def keep(self) -> None:
        """Has no crash lose what was written back before. Raises StorageFailed."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._keeper, self._engine.keep_unlogged)

    async def close(self) -> None:
        """Ends its thread."""
        await asyncio.to_thread(self._keeper.shutdown)
