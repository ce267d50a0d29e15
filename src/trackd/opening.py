"""Opening what is kept: the data directory, and its partitions brought up to date.

Part of the wiring: turns settings into the options of each room. Serves nothing.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence

import structlog

from trackd import compiled, logs
from trackd.partition import Partition, PartitionOptions
from trackd.recovering import look_first, recovering_ahead
from trackd.settings import Settings
from trackd.store.data_directory import DataDirectory, sync_directory
from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.errors import StorageFailed
from trackd.store.space import SpaceGuard
from trackd.turns import Turns

_log = structlog.get_logger()


@contextlib.contextmanager
def open_directory(
    settings: Settings, inherited_lock: int | None = None
) -> Iterator[DataDirectory]:
    """The data directory, which this process has to itself meanwhile.

    inherited_lock: of a supervisor, which then has it, and has done all that is done once. Raises
    DirectoryInUse, WrongData, DataBehind or StorageFailed.
    """
    directory = DataDirectory(
        settings.data,
        settings.partitions,
        default_count=os.cpu_count() or 1,
        inherited_lock=inherited_lock,
    )
    try:
        if inherited_lock is None:
            directory.begin(accept_data_loss=settings.unsafe_accept_data_loss)
            if settings.unsafe_accept_data_loss:
                _log.warning("data loss accepted", data_set_id=directory.manifest.data_set_id)
        logs.salt_waybills(directory.manifest.data_set_id)
        yield directory
    finally:
        directory.close()


def open_partitions(
    settings: Settings,
    directory: DataDirectory,
    *,
    space: SpaceGuard,
    turns: Turns,
    on_failure: Callable[[StorageFailed], None],
    own: Sequence[int] | None = None,
) -> list[Partition]:
    """The partitions `own`, by default every one, in order.

    Their part of the settings that are for all partitions together goes with them. Raises
    DataBehind, WrongData, DataDamaged or StorageFailed.
    """
    count = directory.manifest.partition_count
    numbers = range(count) if own is None else own
    cache = SharedCache(settings.block_cache_bytes * len(numbers) // count)
    options = _partition_options(settings, count)
    engine_options = _engine_options(settings, len(numbers), count)
    began = time.monotonic()
    _log.info("opening", data=str(directory.path), partitions=len(numbers))
    accept_data_loss = settings.unsafe_accept_data_loss

    def opened(number: int) -> Partition:
        path, mark_path = directory.partition_path(number), directory.mark_path(number)
        if not accept_data_loss:
            look_first(number, path, mark_path, engine_options)
        return Partition.open(
            number,
            RocksEngine(path, engine_options, cache, salvage=accept_data_loss),
            options,
            path=path,
            mark_path=mark_path,
            data_set_id=directory.manifest.data_set_id,
            now_ms=now_ms,
            on_failure=on_failure,
            space=space,
            turns=turns,
            accept_data_loss=accept_data_loss,
        )

    recovering = recovering_ahead(directory, numbers, engine_options)
    # Salvage reads logs in its own way.
    with contextlib.nullcontext(numbers) if accept_data_loss else recovering as in_turn:
        partitions = [opened(number) for number in in_turn]
    sync_directory(directory.path)
    _log.info(
        "opened",
        data=str(directory.path),
        data_set_id=directory.manifest.data_set_id,
        partitions=len(partitions),
        events=sum(partition.committer.durable_position for partition in partitions),
        replayed_events=sum(partition.replayed_events for partition in partitions),
        seconds=round(time.monotonic() - began, 3),
        compiled=compiled.is_compiled(),
    )
    return partitions


def _partition_options(settings: Settings, count: int) -> PartitionOptions:
    """What one of so many partitions may take of what is for all together."""
    return PartitionOptions(
        commit_events_max=settings.commit_events_max,
        waybill_events_max=settings.waybill_events_max,
        status_cache_bytes=settings.status_cache_bytes // count,
        write_back_events=max(settings.write_back_events_max // count, 1),
        feed_memory_bytes=settings.feed_memory_bytes // count,
    )


def _engine_options(settings: Settings, owned: int, count: int) -> EngineOptions:
    """What the engines of `owned` partitions of all may take."""
    return EngineOptions(
        write_buffer_bytes=settings.write_buffer_bytes,
        background_threads=max(settings.background_threads * owned // count, 1),
    )


def now_ms() -> int:
    """The server's clock."""
    return time.time_ns() // 1_000_000
