"""Two ways to the same answers: the servicers on real partitions, and a server behind a socket.

Both take a request message and give a response message, or the reason why there is none. Knows no
model.
"""

import asyncio
import time
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
from trackd.store.errors import StorageFailed
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


class Refused(Exception):
    """A call that ended with an error; `str` is its reason."""


class Door(Protocol):
    """Where requests go."""

    def call(self, request: Message) -> Any:
        """The response. Raises Refused."""

    def reopen(self, *, orderly: bool) -> None:
        """Ends it, in order or not, and opens it again on the same data."""

    def close(self) -> None:
        """Ends it."""


class InProcess:
    """The servicers called directly, over two partitions of RocksDB with small buffers."""

    def __init__(self, path: Path, options: PartitionOptions) -> None:
        self._path = path
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._open())

    async def _open(self) -> None:
        cache = SharedCache(1 << 20)
        self._partitions = []
        for number in range(2):
            path = self._path / f"{number}"
            engine = RocksEngine(path, SMALL_BUFFERS, cache)
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

    def reopen(self, *, orderly: bool) -> None:
        """See Door. Not in order: the engine alone is closed, nothing is written back."""
        for partition in self._partitions:
            if orderly:
                self._loop.run_until_complete(partition.close())
            else:
                partition.engine.close()
        self._loop.run_until_complete(self._open())

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

    def reopen(self, *, orderly: bool) -> None:
        """See Door."""
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
