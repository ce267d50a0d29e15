"""The wiring: builds every room once, starts and stops them in order.

Starting and stopping are one nested block; stopping is the block read backwards. A second SIGTERM,
or any storage error, leaves at once: the crash path is the tested path.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator

import structlog
from prometheus_client import CollectorRegistry, start_http_server

from trackd import watches
from trackd.address import Address, parse_address
from trackd.metrics import CallMetrics, PartitionCollector, ProcessMetrics
from trackd.opening import now_ms, open_directory, open_partitions
from trackd.partition import Partition
from trackd.settings import Settings
from trackd.store.data_directory import DataDirectory
from trackd.store.errors import (
    DataBehind,
    DataDamaged,
    DirectoryInUse,
    StorageFailed,
    StoreError,
    WrongData,
)
from trackd.store.space import SpaceGuard
from trackd.wire.admin import AdminService
from trackd.wire.answers import Answers
from trackd.wire.calls import Calls
from trackd.wire.door import Door, DoorLimits
from trackd.wire.ingest import IngestService
from trackd.wire.scans import ScanReader
from trackd.wire.tracking import TrackingService

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_IN_USE = 75
EXIT_DATA_BEHIND = 78

# Python hands its lock to a waiting thread after this long; the default of 5 ms is how late a flush
# would be seen.
_SWITCH_INTERVAL_S = 0.0005
# The second one bounds what failed calls leave behind until it is found: some 20 MB.
_GC_THRESHOLDS = (50_000, 5, 100)
# How long callers have to hear of a storage failure before the process is gone.
_FAILURE_GRACE_S = 0.5
# A store that stalls for ever must not keep the process: the crash path loses nothing.
_CLOSE_TIMEOUT_S = 120.0

_log = structlog.get_logger()


async def run(settings: Settings) -> int:
    """Serves until told to stop; the exit code."""
    os.umask(0o077)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    server = Server(settings)
    try:
        async with server.running():
            await server.stop_asked.wait()
    except DirectoryInUse as error:
        _log.error(str(error))
        return EXIT_IN_USE
    except (DataBehind, DataDamaged) as error:
        _log.error(
            str(error), advice="restore a backup; or start once with --unsafe-accept-data-loss"
        )
        return EXIT_DATA_BEHIND
    except WrongData as error:
        _log.error(str(error))
        return EXIT_FAILED
    except (StoreError, OSError, RuntimeError) as error:
        _log.error("the server failed", error=str(error))
        return EXIT_FAILED
    if server.failure:
        return EXIT_FAILED
    _log.info("stopped")
    return EXIT_DONE


class Server:
    """One server process: every room, once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.stop_asked = asyncio.Event()
        self.failure: StorageFailed | None = None
        self._space = SpaceGuard()
        self._registry = CollectorRegistry()
        self._metrics = ProcessMetrics(self._registry)
        self._calls = Calls(CallMetrics(self._registry))
        self._door: Door | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything started, in order; on the way out stopped, in the reverse order."""
        settings = self._settings
        with self._signals(), open_directory(settings) as directory:
            partitions = open_partitions(
                settings, directory, space=self._space, on_failure=self._storage_failed
            )
            beside = watches.running(
                self._metrics.watch_loop(),
                watches.watch_space(settings, self._space, self._metrics),
                watches.sync_marks(partitions, settings.mark_sync_interval_s),
                on_failure=self._storage_failed,
            )
            async with beside, self._serving(directory, partitions):
                yield
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                for partition in partitions:
                    await partition.close(write_back=not self._space.low)

    # The door.

    @contextlib.asynccontextmanager
    async def _serving(
        self, directory: DataDirectory, partitions: list[Partition]
    ) -> AsyncIterator[None]:
        settings, data_set_id = self._settings, directory.manifest.data_set_id
        answers = Answers(data_set_id)
        admin = AdminService(partitions, data_set_id, directory.path, self._space)
        reader = ScanReader(
            partition_count=len(partitions),
            event_bytes_max=settings.event_bytes_max,
            future_tolerance_ms=settings.future_tolerance_ms,
        )
        door = self._door = Door(
            self._calls,
            IngestService(
                partitions,
                answers,
                reader,
                self._space,
                self._calls,
                now_ms=now_ms,
                batches_in_flight_max=settings.stream_batches_in_flight_max,
                queue_events_max=settings.ingest_queue_events_max,
            ),
            TrackingService(
                partitions,
                answers,
                data_set_id,
                response_bytes_max=settings.response_bytes_max,
            ),
            admin,
            DoorLimits(
                message_bytes_max=settings.message_bytes_max,
                response_bytes_max=settings.response_bytes_max,
                unary_ingest_in_flight_max=settings.unary_ingest_in_flight_max,
                reads_in_flight_max=settings.reads_in_flight_max,
                streams_max=settings.streams_max,
            ),
            with_reflection=settings.reflection,
        )
        with self._metrics_served(partitions) as metrics_address:
            address = parse_address(settings.grpc)
            address = address._replace(port=await door.open(str(address)))
            admin.address = str(address)
            _tidy_garbage_collection()
            await door.set_serving(True)
            print(f"trackd is ready: gRPC on {address}, metrics on {metrics_address}", flush=True)  # noqa: T201 (the line that scripts wait for)
            try:
                yield
            finally:
                await self._stop_serving(door)

    async def _stop_serving(self, door: Door) -> None:
        await door.set_serving(False)
        self._calls.stopping.set()
        if self.failure:
            # The callers have been told by now; whoever has not been is cut off.
            await door.close(_FAILURE_GRACE_S, self._calls.idle())
            return
        _log.info("stopping", running_calls=self._calls.running)
        await door.close(self._settings.shutdown_grace_s, self._calls.idle())

    @contextlib.contextmanager
    def _metrics_served(self, partitions: list[Partition]) -> Iterator[Address]:
        self._registry.register(PartitionCollector(partitions))
        for flag in ("unsafe_plaintext", "unsafe_accept_data_loss"):
            if getattr(self._settings, flag):
                _log.warning("an unsafe flag is in force", flag=flag)
                self._metrics.unsafe_flags.labels(flag).set(1)
        address = parse_address(self._settings.metrics)
        server, thread = start_http_server(address.port, address.host, self._registry)
        try:
            yield address._replace(port=server.server_port)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    # When it ends.

    def _storage_failed(self, error: StorageFailed) -> None:
        """Nothing may be acknowledged any more: tell who waits, and be gone, whatever hangs."""
        if self.failure:
            return
        self.failure = error
        # Whoever comes now is told to come back, not that the disk is full.
        self._calls.stopping.set()
        _log.critical("storage failed", error=str(error))
        loop = asyncio.get_running_loop()
        if self._door:
            loop.create_task(self._door.set_serving(False))  # noqa: RUF006 (the process ends with it)
        loop.call_later(_FAILURE_GRACE_S, os._exit, EXIT_FAILED)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def asked() -> None:
            if self.stop_asked.is_set():
                _log.warning("told twice to stop: leaving at once")
                os._exit(EXIT_FAILED)
            self.stop_asked.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def _tidy_garbage_collection() -> None:
    """What is there now stays; new objects are mostly freed by their counts: few cycles to find."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
