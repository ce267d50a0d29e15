"""How long changes are kept: whole blocks of the log, by age and by size, oldest first.

Never what a start after a crash has to lay over the statuses (replay.py): where that is too old,
the tables are written back first. And never the last block, which says what the next position is.
The floor, the first position that is still there, is written with the deletion, all or nothing; a
crash that loses both leaves a longer log, which is trimmed again.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from trackd.feed.partition_feed import PartitionFeed
from trackd.store.engine_contract import Engine
from trackd.store.errors import WriteStalled
from trackd.store.keys import (
    META_LOG_FLOOR,
    META_STATUS_CHECKPOINT,
    Table,
    position_key,
    position_of,
)
from trackd.store.records import block_head
from trackd.store.statuses import StatusTable

# Blocks that are looked at in one go; the event loop has its turn in between.
_BLOCKS_AT_A_TIME = 50
_INTERVAL_S_MAX = 60.0
_INTERVALS_PER_AGE = 20


@dataclass(frozen=True, slots=True)
class KeptLog:
    """How long the log of one partition is kept: so many milliseconds, and about so many bytes."""

    age_ms: int
    bytes_max: int


class LogRetention:
    """Trims the log of one partition."""

    def __init__(
        self,
        engine: Engine,
        feed: PartitionFeed,
        statuses: StatusTable,
        kept: KeptLog,
        *,
        write_back: Callable[[int], Awaitable[None]],
    ) -> None:
        """write_back: brings the checkpoint of the statuses up to a position, if it can now."""
        self._engine = engine
        self._feed = feed
        self._statuses = statuses
        self._kept = kept
        self._write_back = write_back

    async def trim(self, now_ms: int) -> int:
        """Lets go of what is too old or too much; how many positions.

        Raises DataDamaged, StorageFailed.
        """
        oldest = floor = self._feed.oldest_position
        while (further := self._floor_after(floor, now_ms)) > floor:
            if further > self._statuses.checkpoint + 1:
                await self._write_back(further - 1)
            if further > self._statuses.checkpoint + 1:
                break  # a stall, or a full disk: the next turn will
            floor = further
            await asyncio.sleep(0)
        if floor == oldest:
            return 0
        # With the checkpoint, whose own commit may not be written yet: no log begins behind it.
        checkpoint = (META_STATUS_CHECKPOINT, position_key(self._statuses.checkpoint))
        rows = [(META_LOG_FLOOR, position_key(floor)), checkpoint]
        try:
            self._engine.delete_before(Table.LOG, position_key(floor), [(Table.META, rows)])
        except WriteStalled:
            return 0  # the next turn will
        self._feed.trimmed(floor)
        return floor - oldest

    def _floor_after(self, floor: int, now_ms: int) -> int:
        """The floor behind those of the next few blocks that need not be kept."""
        feed = self._feed
        too_old_ms = now_ms - self._kept.age_ms
        room = int(self._kept.bytes_max / feed.mean_entry_bytes)
        too_many = feed.newest_position - room
        blocks = self._engine.scan_all(Table.LOG, position_key(floor))
        for key, block in itertools.islice(blocks, _BLOCKS_AT_A_TIME):
            last = position_of(key)
            recorded_at_ms, _ = block_head(block)
            if last >= feed.newest_position or (recorded_at_ms > too_old_ms and last > too_many):
                break
            floor = last + 1
        return floor


async def keep_trimming(
    retentions: Sequence[LogRetention], age_s: float, now_ms: Callable[[], int]
) -> None:
    """Trims every log now and then, until cancelled. Raises DataDamaged, StorageFailed."""
    while True:
        await asyncio.sleep(min(_INTERVAL_S_MAX, age_s / _INTERVALS_PER_AGE))
        for retention in retentions:
            await retention.trim(now_ms())
