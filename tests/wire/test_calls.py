"""What every call has around it: limits, figures, the register, and answers under overload."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from tests.store.simulated import Faults, SimulatedEngine, SimulatedLoop, SimulatedMark
from tests.wire.caller import scan_event
from trackd import partition as partition_module
from trackd.metrics import CallMetrics
from trackd.partition import Partition, PartitionOptions
from trackd.store.errors import DataDamaged
from trackd.store.space import SpaceGuard
from trackd.v1.ingest_pb2 import AppendEventsRequest, StreamEventsRequest, StreamEventsResponse
from trackd.wire.answers import Answers
from trackd.wire.calls import Calls, Limit
from trackd.wire.errors import CallError
from trackd.wire.ingest import IngestService
from trackd.wire.scans import ScanReader


class Aborted(Exception):
    """What a context's abort raises."""


class Context:
    """A call's context: what was written, and what it was ended with."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self.written: list[bytes] = []

    async def abort(self, code: grpc.StatusCode, *_: object) -> None:
        """See grpc.aio.ServicerContext."""
        self.code = code
        raise Aborted

    async def write(self, data: bytes) -> None:
        """See grpc.aio.ServicerContext."""
        await asyncio.sleep(0)
        self.written.append(data)


@pytest.fixture
def registry() -> CollectorRegistry:
    """Where the figures of calls are."""
    return CollectorRegistry()


@pytest.fixture
def calls(registry: CollectorRegistry) -> Calls:
    """The register of running calls."""
    return Calls(CallMetrics(registry))


def counted(registry: CollectorRegistry, status: str) -> float:
    """How many calls of `Do` ended so."""
    labels = {"grpc_method": "Do", "grpc_status": status}
    return registry.get_sample_value("grpc_server_call_duration_seconds_count", labels) or 0


async def test_each_call_is_told_of_as_it_is_taken_in(registry: CollectorRegistry) -> None:
    """Before it does anything, and also if it is refused: work that is to wait for calls waits."""
    told: list[str] = []
    calls = Calls(CallMetrics(registry), on_call=lambda: told.append("came"))

    async def behaviour(_request: bytes, _context: object) -> bytes:
        told.append("began")
        return b""

    await calls.around("S/M", Limit("calls", 1), behaviour)(b"", Context())
    with pytest.raises(Aborted):
        await calls.around("S/M", Limit("calls", 0), behaviour)(b"", Context())
    assert told == ["came", "began", "came"]


async def test_one_call_too_many_is_told_to_come_back(
    calls: Calls, registry: CollectorRegistry
) -> None:
    """The others go on; once one has ended there is room again."""
    gate = asyncio.Event()

    async def wait(request: bytes, _: object) -> bytes:
        await gate.wait()
        return request

    call = calls.around("Do", Limit("calls", 2), wait)
    running = [asyncio.ensure_future(call(b"%d" % n, Context())) for n in range(2)]
    await asyncio.sleep(0)
    assert calls.running == 2
    context = Context()
    with pytest.raises(Aborted):
        await call(b"3", context)
    assert context.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    gate.set()
    assert await asyncio.gather(*running) == [b"0", b"1"]
    assert await call(b"4", Context()) == b"4"
    assert counted(registry, "OK") == 3
    assert counted(registry, "RESOURCE_EXHAUSTED") == 1


async def test_what_is_answered_at_once_is_a_call_like_any_other(
    calls: Calls, registry: CollectorRegistry
) -> None:
    """It is counted and has its place; what is not answered so, is answered by the behaviour."""
    limit = Limit("calls", 1)
    running: list[int] = []

    def at_once(request: bytes) -> bytes | None:
        running.append(limit.running)
        if request == b"damaged":
            raise DataDamaged("x")
        return b"at once" if request == b"plain" else None

    async def behaviour(*_: object) -> bytes:
        return b"later"

    call = calls.around("Do", limit, behaviour, at_once)
    assert [await call(asked, Context()) for asked in (b"plain", b"odd")] == [b"at once", b"later"]
    context = Context()
    with pytest.raises(Aborted):
        await call(b"damaged", context)
    assert context.code == grpc.StatusCode.DATA_LOSS
    assert running == [1, 1, 1]
    assert (limit.running, calls.running) == (0, 0)
    assert (counted(registry, "OK"), counted(registry, "DATA_LOSS")) == (2, 1)
    calls.stopping.set()
    refused = Context()
    with pytest.raises(Aborted):
        await call(b"plain", refused)
    assert refused.code == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataDamaged("x"), grpc.StatusCode.DATA_LOSS),
        (ZeroDivisionError("x"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_an_error_is_told_counted_and_leaves_nothing_behind(
    calls: Calls, registry: CollectorRegistry, error: Exception, code: grpc.StatusCode
) -> None:
    """The place of the call is free again."""

    async def fail(*_: object) -> Any:
        raise error

    limit = Limit("calls", 1)
    context = Context()
    with pytest.raises(Aborted):
        await calls.around("Do", limit, fail)(b"", context)
    assert context.code == code
    assert counted(registry, code.name) == 1
    assert (limit.running, calls.running) == (0, 0)


async def test_a_call_that_is_cancelled_frees_its_place(
    calls: Calls, registry: CollectorRegistry
) -> None:
    """10,000 times over."""
    limit = Limit("calls", 10)

    async def wait(*_: object) -> Any:
        await asyncio.Event().wait()

    call = calls.around("Do", limit, wait)
    for _ in range(1_000):
        running = [asyncio.ensure_future(call(b"", Context())) for _ in range(10)]
        await asyncio.sleep(0)
        assert limit.running == 10
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert (limit.running, calls.running) == (0, 0)
    assert counted(registry, "CANCELLED") == 10_000


async def test_a_shutdown_waits_for_what_runs_and_lets_nothing_begin(calls: Calls) -> None:
    """`idle` returns once the last call has ended; new ones are told to go elsewhere."""
    gate = asyncio.Event()

    async def wait(*_: object) -> bytes:
        await gate.wait()
        return b""

    call = calls.around("Do", Limit("calls", 10), wait)
    running = asyncio.ensure_future(call(b"", Context()))
    await asyncio.sleep(0)
    calls.stopping.set()
    context = Context()
    with pytest.raises(Aborted):
        await call(b"", context)
    assert context.code == grpc.StatusCode.UNAVAILABLE
    idle = asyncio.ensure_future(calls.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    gate.set()
    await running
    await idle


# Overload, in a made-up world: a disk that is as slow as a test needs.


class Ingest:
    """IngestService on one partition whose engine can be told to stall."""

    def __init__(self, calls: Calls, *, in_flight_max: int, queue_max: int) -> None:
        self.engine = SimulatedEngine(Random(1), Faults())
        self.partition = Partition.open(
            0,
            self.engine,
            PartitionOptions(
                commit_events_max=10,
                waybill_events_max=10_000,
                status_cache_bytes=1 << 20,
                write_back_events=1_000,
            ),
            path=Path(),
            mark_path=Path(),
            data_set_id="set",
            now_ms=lambda: 1_700_000_000_000,
            on_failure=lambda error: None,
        )
        self.space = SpaceGuard()
        self.service = IngestService(
            [self.partition],
            Answers("set"),
            ScanReader(partition_count=1, event_bytes_max=32 << 10, future_tolerance_ms=0),
            self.space,
            calls,
            now_ms=lambda: time.time_ns() // 1_000_000,
            batches_in_flight_max=in_flight_max,
            queue_events_max=queue_max,
        )

    def append(self, name: str, size: int = 1) -> "asyncio.Task[bytes]":
        """A unary call."""
        events = [scan_event(f"{name}-{n}", "SF0001") for n in range(size)]
        request = AppendEventsRequest(events=events).SerializeToString()
        return asyncio.ensure_future(self.service.append_events(request, None))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedLoop]:
    """A loop with a clock of its own, and a mark that is not a file."""
    monkeypatch.setattr(partition_module, "DurableMark", lambda _: SimulatedMark(Random(1)))
    loop = SimulatedLoop(Random(1))
    yield loop
    loop.close()


def test_a_caller_is_told_to_come_back_while_too_much_waits(
    world: SimulatedLoop, calls: Calls
) -> None:
    """RESOURCE_EXHAUSTED, the limit, RetryInfo; what waits is stored once the disk goes on."""

    async def test() -> None:
        ingest = Ingest(calls, in_flight_max=32, queue_max=20)
        ingest.engine.faults.stall = 1
        waiting = [ingest.append("planned", 10)]
        await asyncio.sleep(0.01)
        waiting += [ingest.append(f"{n}", 10) for n in range(3)]
        await asyncio.sleep(0.01)
        assert ingest.partition.committer.queued_events == 30
        with pytest.raises(CallError) as raised:
            await ingest.append("too many")
        assert raised.value.reason == "OVERLOADED"
        assert raised.value.metadata == {"limit": "20"}
        assert raised.value.retry_after_s
        ingest.engine.faults.stall = 0
        assert len(await asyncio.gather(*waiting)) == 4
        await ingest.append("now")
        assert ingest.partition.committer.durable_position == 41

    world.run_until_complete(test())


def test_a_stream_is_not_read_while_too_much_of_it_is_in_flight(
    world: SimulatedLoop, calls: Calls
) -> None:
    """The server stops reading, drops nothing, and answers all in the order sent."""

    async def test() -> None:
        ingest = Ingest(calls, in_flight_max=5, queue_max=1_000)
        read = 0

        async def requests() -> AsyncIterator[bytes]:
            nonlocal read
            for n in range(40):
                read += 1
                event = scan_event(f"{n}", "SF0001")
                yield StreamEventsRequest(batch_id=f"{n}", events=[event]).SerializeToString()

        ingest.engine.faults.stall = 1
        context = Context()
        stream = asyncio.ensure_future(ingest.service.stream_events(requests(), context))
        await asyncio.sleep(1)
        assert read == 6  # five in flight, one in hand
        assert context.written == []
        ingest.engine.faults.stall = 0
        await stream
        answers = [StreamEventsResponse.FromString(data) for data in context.written]
        assert [answer.batch_id for answer in answers] == [f"{n}" for n in range(40)]
        assert all(answer.accepted == 1 for answer in answers)

    world.run_until_complete(test())


def test_streams_share_the_queue_of_their_partition(world: SimulatedLoop, calls: Calls) -> None:
    """However many there are, what waits for a plan stays near the bound."""

    async def test() -> None:
        ingest = Ingest(calls, in_flight_max=1_000, queue_max=50)

        async def requests(name: str) -> AsyncIterator[bytes]:
            for n in range(30):
                events = [scan_event(f"{name}-{n}-{k}", "SF0001") for k in range(5)]
                yield StreamEventsRequest(batch_id=f"{n}", events=events).SerializeToString()

        ingest.engine.faults.stall = 1
        contexts = [Context() for _ in range(8)]
        streams = [
            asyncio.ensure_future(ingest.service.stream_events(requests(f"s{n}"), context))
            for n, context in enumerate(contexts)
        ]
        await asyncio.sleep(1)
        assert 50 <= ingest.partition.committer.queued_events < 50 + 8 * 5
        ingest.engine.faults.stall = 0
        await asyncio.gather(*streams)
        assert [len(context.written) for context in contexts] == [30] * 8
        assert ingest.partition.committer.durable_position == 8 * 30 * 5

    world.run_until_complete(test())


def test_nothing_is_written_while_the_disk_is_nearly_full(
    world: SimulatedLoop, calls: Calls
) -> None:
    """Calls and streams are told; what a stream had sent before is answered first."""

    async def test() -> None:
        ingest = Ingest(calls, in_flight_max=5, queue_max=1_000)
        ingest.space.low = True
        with pytest.raises(CallError) as raised:
            await ingest.append("a")
        assert raised.value.reason == "DISK_NEARLY_FULL"
        ingest.space.low = False

        async def requests() -> AsyncIterator[bytes]:
            event = scan_event("before", "SF0001")
            yield StreamEventsRequest(batch_id="before", events=[event]).SerializeToString()
            ingest.space.low = True
            event = scan_event("after", "SF0001")
            yield StreamEventsRequest(batch_id="after", events=[event]).SerializeToString()

        context = Context()
        with pytest.raises(CallError) as raised:
            await ingest.service.stream_events(requests(), context)
        assert raised.value.reason == "DISK_NEARLY_FULL"
        assert raised.value.retry_after_s
        (answer,) = [StreamEventsResponse.FromString(data) for data in context.written]
        assert (answer.batch_id, answer.accepted) == ("before", 1)
        assert ingest.partition.committer.durable_position == 1

    world.run_until_complete(test())


def test_a_failing_disk_ends_every_stream_with_what_is_true(
    world: SimulatedLoop, calls: Calls
) -> None:
    """UNAVAILABLE, and nothing of what was in flight is acknowledged."""

    async def test() -> None:
        ingest = Ingest(calls, in_flight_max=5, queue_max=1_000)
        ingest.engine.faults.flush = 1

        async def requests() -> AsyncIterator[bytes]:
            for n in range(20):
                event = scan_event(f"{n}", "SF0001")
                yield StreamEventsRequest(batch_id=f"{n}", events=[event]).SerializeToString()

        context = Context()
        with pytest.raises(Aborted):
            await calls.around("Do", Limit("streams", 9), ingest.service.stream_events)(
                requests(), context
            )
        assert context.code == grpc.StatusCode.UNAVAILABLE
        assert context.written == []
        assert calls.running == 0

    world.run_until_complete(test())
