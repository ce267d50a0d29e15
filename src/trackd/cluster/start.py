"""From settings to a running supervisor: the data directory, its lock, how many workers there are.

Knows no gRPC, like everything that the supervisor's process loads.
"""

import asyncio
import os

import structlog

from trackd import exits, logs
from trackd.cluster import supervisor
from trackd.cluster.assignment import worker_count
from trackd.settings import Settings
from trackd.store.data_directory import DataDirectory
from trackd.store.errors import DataBehind, DirectoryInUse, StoreError

_log = structlog.get_logger()


def serve_with_workers(settings: Settings) -> int | None:
    """Serves with as many workers as the settings, the cores and the partitions allow.

    The exit code; None if that is one: then nothing was started, and one process is to serve.
    """
    os.umask(0o077)
    cores = os.cpu_count() or 1
    try:
        directory = DataDirectory(settings.data, settings.partitions, default_count=cores)
    except DirectoryInUse as error:
        _log.error(str(error))
        return exits.IN_USE
    except StoreError as error:
        _log.error(str(error))
        return exits.FAILED
    try:
        partition_count = directory.manifest.partition_count
        workers = worker_count(settings.workers, cores=cores, partition_count=partition_count)
        if workers == 1:
            return None
        directory.begin(accept_data_loss=settings.unsafe_accept_data_loss)
        if settings.unsafe_accept_data_loss:
            _log.warning("data loss accepted", data_set_id=directory.manifest.data_set_id)
        logs.salt_waybills(directory.manifest.data_set_id)
        _log.info("starting workers", workers=workers, partitions=partition_count)
        return asyncio.run(supervisor.run(settings, directory, workers))
    except DataBehind as error:
        _log.error(str(error), advice=exits.DATA_BEHIND_ADVICE)
        return exits.DATA_BEHIND
    except (OSError, StoreError) as error:
        _log.error("the server failed", error=str(error))
        return exits.FAILED
    finally:
        directory.close()
