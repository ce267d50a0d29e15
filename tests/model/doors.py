"""Two ways to the same answers: the servicers on real partitions, and a server behind a socket.

Both take a request message and give a response message, or the reason why there is none. Knows no
model.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from prometheus_client import CollectorRegistry

from tests.harness.server import ServerProcess
from tests.store.engines import SMALL_BUFFERS
from trackd.metrics import CallMetrics
from trackd.partition import Partition, PartitionOptions
from trackd.store.engine import RocksEngine, SharedCache
from trackd.store.engine_contract import Engine
from trackd.store.errors import StorageFailed
from trackd.store.keys import Table
from trackd.store.memory_engine import MemoryEngine
from trackd.store.space import SpaceGuard
from trackd.v1.ingest_pb2 import AppendEventsRequest, AppendEventsResponse
from trackd.v1.ingest_pb2_grpc import IngestServiceStub
from trackd.v1.tracking_pb2 import (
    BatchGetStatusRequest,
    BatchGetStatusResponse,
    GetStatusRequest,
    GetStatusResponse,
    GetTimelineRequest,
    GetTimelineResponse,
)
from trackd.v1.tracking_pb2_grpc import TrackingServiceStub
from trackd.wire.answers import Answers
from trackd.wire.calls import Calls
from trackd.wire.errors import CallError
from trackd.wire.ingest import IngestService
from trackd.wire.scans import ScanReader
from trackd.wire.tracking import TrackingService

Kept = Mapping[Table, int]
"""How many writes past the log a crash leaves in each table, beyond what it must leave."""


class Refused(Exception):
    """A call that ended with an error; `str` is its reason."""


class Door(Protocol):
    """Where requests go."""

    def call(self, request: Message) -> Any:
        """The response. Raises Refused."""

    def reopen(self, *, orderly: bool, kept: Kept) -> None:
        """Ends it, in order or by a crash, and opens it again on the same data.

        kept: for doors that can choose what a crash leaves.
        """

    def close(self) -> None:
        """Ends it."""


class Engines(Protocol):
    """Where partitions are kept: how their engines are opened, and again after an end."""

    def new(self, path: Path) -> Engine:
        """An empty one at path."""

    def stopped(self, path: Path, engine: Engine) -> Engine:
        """Another one at path, after that one was closed."""

    def crashed(self, path: Path, engine: Engine, kept: Kept) -> Engine:
        """Another one, on what a crash has left of that one."""


class OnDisk:
    """On RocksDB with small buffers. A crash closes the engine alone, nothing is written back."""

    def new(self, path: Path) -> Engine:
        """See Engines."""
        return RocksEngine(path, SMALL_BUFFERS, SharedCache(1 << 20))

    def stopped(self, path: Path, engine: Engine) -> Engine:
        """See Engines."""
        del engine
        return self.new(path)

    def crashed(self, path: Path, engine: Engine, kept: Kept) -> Engine:
        """See Engines. Closing it writes its memtables out: everything is kept."""
        del kept
        engine.close()
        return self.new(path)


class InMemory:
    """On engines in memory. A crash leaves of what was written back what it is told to."""

    def new(self, path: Path) -> Engine:
        """See Engines."""
        path.mkdir(parents=True)
        return MemoryEngine()

    def stopped(self, path: Path, engine: Engine) -> Engine:
        """See Engines."""
        del path
        return engine

    def crashed(self, path: Path, engine: Engine, kept: Kept) -> Engine:
        """See Engines."""
        del path
        assert isinstance(engine, MemoryEngine)
        return engine.crash(keep_unlogged=kept)


class InProcess:
    """The servicers called directly, over two partitions."""

    def __init__(self, path: Path, options: PartitionOptions, engines: Engines) -> None:
        """path: where nothing is yet."""
        self._paths = [path / f"{number}" for number in range(2)]
        self._options = options
        self._engines = engines
        self._loop = asyncio.new_event_loop()
        self._partitions: list[Partition] = []
        self._loop.run_until_complete(self._open([engines.new(path) for path in self._paths]))

    async def _open(self, engines: list[Engine]) -> None:
        self._partitions = []
        for number, (path, engine) in enumerate(zip(self._paths, engines, strict=True)):
            self._partitions.append(
                Partition.open(
                    number,
                    engine,
                    self._options,
                    path=path,
                    mark_path=path.with_suffix(".mark"),
                    data_set_id="model",
                    now_ms=lambda: time.time_ns() // 1_000_000,
                    on_failure=self._failed,
                )
            )
        answers = Answers("model")
        reader = ScanReader(
            partition_count=2, event_bytes_max=32 << 10, future_tolerance_ms=600_000
        )
        ingest = IngestService(
            self._partitions,
            answers,
            reader,
            SpaceGuard(),
            Calls(CallMetrics(CollectorRegistry())),
            now_ms=lambda: time.time_ns() // 1_000_000,
            batches_in_flight_max=32,
            queue_events_max=50_000,
        )
        tracking = TrackingService(self._partitions, answers, "model", response_bytes_max=4 << 20)
        self._methods: dict[type[Message], tuple[Any, Any]] = {
            AppendEventsRequest: (ingest.append_events, AppendEventsResponse),
            GetStatusRequest: (tracking.get_status, GetStatusResponse),
            BatchGetStatusRequest: (tracking.batch_get_status, BatchGetStatusResponse),
            GetTimelineRequest: (tracking.get_timeline, GetTimelineResponse),
        }

    @staticmethod
    def _failed(error: StorageFailed) -> None:
        raise AssertionError from error

    def call(self, request: Message) -> Any:
        """See Door."""
        method, response = self._methods[type(request)]
        try:
            answer = self._loop.run_until_complete(method(request.SerializeToString(), None))
        except CallError as error:
            raise Refused(error.reason) from error
        return response.FromString(answer)

    def reopen(self, *, orderly: bool, kept: Kept) -> None:
        """See Door."""
        left = list(zip(self._paths, self._partitions, strict=True))
        if orderly:
            for _, partition in left:
                self._loop.run_until_complete(partition.close())
            engines = [self._engines.stopped(path, one.engine) for path, one in left]
        else:
            self._loop.close()  # what was due in it never comes
            self._loop = asyncio.new_event_loop()
            engines = [self._engines.crashed(path, one.engine, kept) for path, one in left]
        self._loop.run_until_complete(self._open(engines))

    def close(self) -> None:
        """See Door."""
        for partition in self._partitions:
            self._loop.run_until_complete(partition.close())
        self._loop.close()


class OverASocket:
    """A server process; out of order means kill -9."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._connect()

    def _connect(self) -> None:
        self._channel = grpc.insecure_channel(self._server.grpc)
        ingest, tracking = IngestServiceStub(self._channel), TrackingServiceStub(self._channel)
        self._methods: dict[type[Message], Any] = {
            AppendEventsRequest: ingest.AppendEvents,
            GetStatusRequest: tracking.GetStatus,
            BatchGetStatusRequest: tracking.BatchGetStatus,
            GetTimelineRequest: tracking.GetTimeline,
        }

    def call(self, request: Message) -> Any:
        """See Door."""
        try:
            return self._methods[type(request)](request, timeout=60)
        except grpc.RpcError as error:
            raise Refused(reason_of(error)) from error

    def reopen(self, *, orderly: bool, kept: Kept) -> None:
        """See Door. A kill leaves what it likes."""
        del kept
        self._channel.close()
        if orderly:
            assert self._server.stop() == 0
        else:
            self._server.kill()
        self._server.start()
        self._connect()

    def close(self) -> None:
        """See Door. The server is whoever started it's."""
        self._channel.close()


def reason_of(error: grpc.RpcError) -> str:
    """The reason in a call's ErrorInfo."""
    for key, value in cast(grpc.Call, error).trailing_metadata():
        if key == "grpc-status-details-bin":
            packed: Packed = Status.FromString(value).details[0]
            info = ErrorInfo()
            assert packed.Unpack(info)
            assert info.domain == "trackd"
            reason: str = info.reason
            return reason
    return str(error)
