"""What runs beside the calls: looks at the disk, at the loop's lag, and syncs the durable marks.

Part of the wiring. A chore that fails is a failure of the server, which the wiring is told of.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

import structlog

from trackd.metrics import ProcessMetrics
from trackd.partition import Partition
from trackd.settings import Settings
from trackd.store.errors import StorageFailed
from trackd.store.space import SpaceGuard, disk_reserve_bytes, free_bytes

# At 100 MB a second the disk fills by 2 MB between two looks.
SPACE_CHECK_INTERVAL_S = 0.02
# The guard lets writes in again only with this much more than the reserve, so that it does not
# flutter.
_SPACE_HYSTERESIS = 1.25

_log = structlog.get_logger()


@contextlib.asynccontextmanager
async def running(
    *chores: Coroutine[None, None, None], on_failure: Callable[[StorageFailed], None]
) -> AsyncIterator[None]:
    """Runs every chore meanwhile. One that fails, whatever the reason, is a storage failure."""

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()):
            on_failure(StorageFailed(f"{task.get_name()} ended: {error!r}"))

    tasks = [asyncio.create_task(each, name=getattr(each, "__name__", "")) for each in chores]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def watch_space(settings: Settings, space: SpaceGuard, metrics: ProcessMetrics) -> None:
    """Tells the guard how the disk is, until cancelled. Raises StorageFailed if it is gone."""
    asked = settings.disk_reserve_bytes
    reserve = disk_reserve_bytes(settings.data) if asked is None else int(asked)
    while True:
        try:
            free = free_bytes(settings.data)
        except OSError as error:
            raise StorageFailed(f"the data directory is gone: {error}") from error
        low = free < reserve * (_SPACE_HYSTERESIS if space.low else 1)
        if low != space.low:
            _log.warning(
                "low disk space" if low else "disk space is back",
                free_bytes=free,
                reserve_bytes=reserve,
            )
        space.low = low
        metrics.low_space.set(low)
        metrics.disk_free_bytes.set(free)
        await asyncio.sleep(SPACE_CHECK_INTERVAL_S)


async def sync_marks(partitions: Sequence[Partition], interval_s: float) -> None:
    """Makes the durable marks themselves durable, until cancelled. Raises StorageFailed."""
    while True:
        await asyncio.sleep(interval_s)
        for partition in partitions:
            await partition.sync_mark()
