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
from collections.abc import AsyncIterator, Iterator, Sequence

import structlog
from prometheus_client import CollectorRegistry

from trackd import chores, exits, open_files
from trackd.address import Address, parse_address
from trackd.cluster.assignment import Assignment
from trackd.cluster.membership import Membership
from trackd.cluster.neighbours import Neighbours
from trackd.cluster.ports import reachable_host
from trackd.cluster.watching import JoinedFeed
from trackd.giving_up import leaving_after
from trackd.joining import AmongWorkers, neighbours_of
from trackd.leading import Led, led_running
from trackd.metrics import CallMetrics, PartitionCollector, ProcessMetrics
from trackd.metrics_page import metrics_served
from trackd.news import news_running
from trackd.opening import now_ms, open_directory, open_partitions
from trackd.partition import Partition
from trackd.ready import say_ready
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
from trackd.turns import Turns
from trackd.wire.access import ChangeFeed, PartitionAccess
from trackd.wire.admin import AdminService
from trackd.wire.answers import Answers
from trackd.wire.calls import Calls
from trackd.wire.door import Door, DoorLimits, health_of
from trackd.wire.ingest import IngestService
from trackd.wire.peers import PEER_BATCHES_IN_FLIGHT_MAX, PeerService, only_own
from trackd.wire.scans import ScanReader
from trackd.wire.tracking import TrackingService

# Python hands its lock to a waiting thread after this long; the default of 5 ms is how late a flush
# would be seen.
_SWITCH_INTERVAL_S = 0.0005
# Calls leave cycles behind (grpc.aio, exceptions): they are looked for often, or finding them stops
# everything for long (100 ms every 4 s with 50,000 in place of the 2,000).
_GC_THRESHOLDS = (2_000, 10, 50)
# How long callers have to hear of a storage failure before the process is gone.
_FAILURE_GRACE_S = 0.5
# A store that hangs must not keep the process: the crash path loses nothing.
_CLOSE_TIMEOUT_S = 120.0

_log = structlog.get_logger()


async def run(settings: Settings, membership: Membership | None = None) -> int:
    """Serves until told to stop; the exit code. membership: of a worker among several."""
    os.umask(0o077)
    open_files.raise_limit()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    server = Server(settings, membership)
    try:
        async with server.running():
            await server.stop_asked.wait()
    except DirectoryInUse as error:
        _log.error(str(error))
        return exits.IN_USE
    except (DataBehind, DataDamaged) as error:
        _log.error(str(error), advice=exits.DATA_BEHIND_ADVICE)
        return exits.DATA_BEHIND
    except WrongData as error:
        _log.error(str(error))
        return exits.FAILED
    except (StoreError, OSError, RuntimeError) as error:
        _log.error("the server failed", error=str(error))
        return exits.FAILED
    if server.failure:
        return exits.FAILED
    _log.info("stopped")
    return exits.DONE


class Server:
    """One server process: every room, once."""

    def __init__(self, settings: Settings, membership: Membership | None = None) -> None:
        self._settings = settings
        self._membership = membership
        self.stop_asked = membership.stop_told if membership else asyncio.Event()
        self.failure: StorageFailed | None = None
        self._space = SpaceGuard()
        self._turns = Turns()
        self._registry = CollectorRegistry()
        self._metrics = ProcessMetrics(self._registry)
        call_metrics = CallMetrics(self._registry)
        self._calls = Calls(call_metrics, on_call=self._turns.call_came)
        # Calls of other workers, which are answered for a while longer when all are stopped.
        self._peer_calls = Calls(call_metrics, on_call=self._turns.call_came)
        self._door: Door | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything started, in order; on the way out stopped, in the reverse order."""
        settings, assignment = self._settings, self._assignment
        lock = assignment.lock if assignment else None
        with self._signals(), open_directory(settings, lock) as directory:
            partitions = open_partitions(
                settings,
                directory,
                space=self._space,
                turns=self._turns,
                on_failure=self._storage_failed,
                own=assignment.own(directory.manifest.partition_count) if assignment else None,
            )
            beside = chores.running(
                self._metrics.watch_loop(),
                chores.watch_space(settings, self._space, self._metrics),
                chores.sync_marks(partitions, settings.mark_sync_interval_s),
                on_failure=self._storage_failed,
            )
            async with beside, self._serving(directory, partitions):
                yield
            with leaving_after(_CLOSE_TIMEOUT_S):
                for partition in partitions:
                    await partition.close(write_back=not self._space.low)

    # The door.

    @contextlib.asynccontextmanager
    async def _serving(
        self, directory: DataDirectory, partitions: list[Partition]
    ) -> AsyncIterator[None]:
        count, data_set_id = directory.manifest.partition_count, directory.manifest.data_set_id
        news = news_running(
            self._settings,
            partitions,
            data_set_id,
            self._calls,
            self._registry,
            partition_count=count,
            on_failure=self._storage_failed,
        )
        async with (
            neighbours_of(self._membership) as neighbours,
            news as feed,
            self._led(directory, partitions, neighbours) as led,
        ):
            everywhere = neighbours.beside(partitions, count) if neighbours else list(partitions)
            stats = neighbours.stats if neighbours else ()
            admin = AdminService(partitions, data_set_id, directory.path, self._space, stats)
            door = self._door = self._built_door(directory, everywhere, admin)
            everything: ChangeFeed = feed
            if neighbours:
                sources = neighbours.watched_with(feed, partitions)
                everything = JoinedFeed(sources, self._calls, data_set_id)
            door.add_feed(self._calls, everything)
            door.add_led(self._calls, led.calls)
            if neighbours:
                self._add_peers(door, directory, partitions, feed, led)
            with self._metrics_served(partitions) as metrics:
                if neighbours:
                    opened = self._open_among(neighbours, door, admin, count, metrics, led=led)
                else:
                    opened = self._open_to_all(door, admin, count, metrics)
                async with opened:
                    yield

    def _led(
        self,
        directory: DataDirectory,
        partitions: Sequence[Partition],
        neighbours: Neighbours | None,
    ) -> contextlib.AbstractAsyncContextManager[Led]:
        return led_running(
            self._settings,
            partitions,
            neighbours,
            data_set_id=directory.manifest.data_set_id,
            calls=self._calls,
            peer_calls=self._peer_calls,
            registry=self._registry,
            partition_count=directory.manifest.partition_count,
        )

    def _built_door(
        self, directory: DataDirectory, partitions: Sequence[PartitionAccess], admin: AdminService
    ) -> Door:
        settings, data_set_id = self._settings, directory.manifest.data_set_id
        return Door(
            self._calls,
            self._ingest(directory, partitions, self._calls),
            TrackingService(
                partitions,
                Answers(data_set_id),
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
                watches_max=settings.feed_watches_max,
                consumers_max=settings.consumers_max,
                connections_max=open_files.connections_max(),
                among_workers=self._membership is not None,
            ),
            with_reflection=settings.reflection,
        )

    def _ingest(
        self,
        directory: DataDirectory,
        partitions: Sequence[PartitionAccess],
        calls: Calls,
        *,
        batches_in_flight_max: int | None = None,
    ) -> IngestService:
        settings = self._settings
        return IngestService(
            partitions,
            Answers(directory.manifest.data_set_id),
            ScanReader(
                partition_count=len(partitions),
                event_bytes_max=settings.event_bytes_max,
                future_tolerance_ms=settings.future_tolerance_ms,
            ),
            self._space,
            calls,
            now_ms=now_ms,
            batches_in_flight_max=batches_in_flight_max or settings.stream_batches_in_flight_max,
            queue_events_max=settings.ingest_queue_events_max,
            turns=self._turns,
        )

    @contextlib.asynccontextmanager
    async def _open_to_all(
        self, door: Door, admin: AdminService, partition_count: int, metrics: Address
    ) -> AsyncIterator[None]:
        address = parse_address(self._settings.grpc)
        address = address._replace(port=await door.open(str(address)))
        host = self._settings.advertise_host or reachable_host(address.host)
        admin.addresses = [str(address._replace(host=host))] * partition_count
        _tidy_garbage_collection()
        await door.tell_health(health_of([True], partition_count, taking=True))
        say_ready(f"trackd is ready: gRPC on {address}, metrics on {metrics}")
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

    # Among workers.

    def _add_peers(
        self,
        door: Door,
        directory: DataDirectory,
        partitions: Sequence[Partition],
        feed: ChangeFeed,
        led: Led,
    ) -> None:
        assert self._membership, "only a worker has peers"
        count, data_set_id = directory.manifest.partition_count, directory.manifest.data_set_id
        ingest = self._ingest(
            directory,
            only_own(partitions, count),
            self._peer_calls,
            batches_in_flight_max=PEER_BATCHES_IN_FLIGHT_MAX,
        )
        admin = AdminService(partitions, data_set_id, directory.path, self._space)
        peers = PeerService(partitions, self._membership.assignment.token)
        door.add_peers(self._peer_calls, peers, ingest, admin, feed)
        if led.shares:
            door.add_shares(self._peer_calls, peers, led.shares)
        else:
            door.add_led_for_peers(self._peer_calls, peers, led.calls)

    @contextlib.asynccontextmanager
    async def _open_among(
        self,
        neighbours: Neighbours,
        door: Door,
        admin: AdminService,
        partition_count: int,
        metrics: Address,
        *,
        led: Led,
    ) -> AsyncIterator[None]:
        assert self._membership, "only a worker has neighbours"
        among = AmongWorkers(
            self._membership,
            neighbours,
            door,
            calls=self._calls,
            peer_calls=self._peer_calls,
            settle=led.settle,
            grace_s=self._settings.shutdown_grace_s,
        )
        admin.addresses = among.addresses(partition_count)
        await among.open()
        _tidy_garbage_collection()
        async with among.serving(metrics, partition_count):
            yield

    @property
    def _assignment(self) -> Assignment | None:
        return self._membership.assignment if self._membership else None

    @contextlib.contextmanager
    def _metrics_served(self, partitions: list[Partition]) -> Iterator[Address]:
        self._registry.register(PartitionCollector(partitions))
        for flag in (name for name in Settings.model_fields if name.startswith("unsafe_")):
            if getattr(self._settings, flag):
                _log.warning("an unsafe flag is in force", flag=flag)
                self._metrics.unsafe_flags.labels(flag).set(1)
        assignment = self._assignment
        address = parse_address(assignment.metrics if assignment else self._settings.metrics)
        with metrics_served(address, self._registry) as served:
            yield served

    # When it ends.

    def _storage_failed(self, error: StorageFailed) -> None:
        """Nothing may be acknowledged any more: tell who waits, and be gone, whatever hangs."""
        if self.failure:
            return
        self.failure = error
        # Whoever comes now is told to come back, not that the disk is full.
        self._calls.stopping.set()
        self._peer_calls.stopping.set()
        _log.critical("storage failed", error=str(error))
        loop = asyncio.get_running_loop()
        if self._door:
            loop.create_task(self._door.set_serving(False))  # noqa: RUF006 (the process ends with it)
        loop.call_later(_FAILURE_GRACE_S, os._exit, exits.FAILED)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        # Not whether it is stopping: a worker may be told by its supervisor and by a signal.
        signalled = asyncio.Event()

        def asked() -> None:
            if signalled.is_set():
                _log.warning("told twice to stop: leaving at once")
                os._exit(exits.FAILED)
            signalled.set()
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
