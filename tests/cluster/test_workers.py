"""Several workers on one data directory: one address for everything, and what each one shows."""

import itertools
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.conftest import Serve
from tests.harness.oracle import expect_sound
from tests.harness.scans import waybills_of
from tests.harness.server import ServerProcess
from tests.harness.workers import (
    hanging,
    health,
    kept_down,
    wait_for,
    wait_until_whole,
    worker_pids,
)
from trackd import exits
from trackd.client import SyncAdmin, SyncFrontEnd
from trackd.cluster.assignment import worker_count
from trackd.settings import Settings
from trackd.store.keys import partition_of, status_key
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.ingest_pb2 import AppendEventsRequest, AppendEventsResponse
from trackd.v1.ingest_pb2_grpc import IngestServiceStub
from trackd.v1.tracking_pb2 import BatchGetStatusRequest, GetStatusRequest, GetTimelineRequest
from trackd.v1.tracking_pb2_grpc import TrackingServiceStub
from trackd.v1.vocabulary_pb2 import EventCode
from trackd.wire import peer_messages

PARTITIONS = 4
FLAGS = ("--partitions", str(PARTITIONS), "--workers", "2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Two workers over four partitions, for the tests that leave it as they found it."""
    server = ServerProcess(tmp_path_factory.mktemp("cluster") / "data", *FLAGS).start()
    yield server
    assert server.stop() == exits.DONE
    expect_sound(server.data)


@pytest.fixture(scope="module")
def workers(server: ServerProcess) -> list[str]:
    """The own address of each worker."""
    return own_addresses(server)


def own_addresses(server: ServerProcess) -> list[str]:
    """The own address of each of two workers, as the topology tells it."""
    with SyncAdmin(server.grpc) as admin:
        topology = admin.get_topology()
    return [topology.partitions[number].address for number in range(2)]


def picked_up(numbers: list[str], event_id: str = "one") -> AppendEventsRequest:
    """One scan for each of the waybills."""
    code = EventCode.EVENT_CODE_PICKED_UP
    return AppendEventsRequest(
        events=[
            ScanEvent(event_id=event_id, waybill_number=one, code=code, occurred_at_ms=10**12)
            for one in numbers
        ]
    )


def append(address: str, numbers: list[str], event_id: str = "one") -> AppendEventsResponse:
    """One batch with one scan for each of the waybills."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        answer: AppendEventsResponse = IngestServiceStub(channel).AppendEvents(
            picked_up(numbers, event_id), timeout=60
        )
    return answer


def of_partition(partition: int, numbers: list[str]) -> list[str]:
    """Which of the waybill numbers belong to a partition."""
    return [one for one in numbers if partition_of(status_key(one), PARTITIONS) == partition]


def test_every_worker_answers_for_every_partition(
    server: ServerProcess, workers: list[str]
) -> None:
    """A plain client reaches everything through whichever worker it happens to be connected to."""
    numbers = waybills_of("EVERY", 40)
    assert len({server.grpc, *workers}) == 3
    answer = append(workers[0], [*numbers, "!"])
    assert (answer.accepted, [each.index for each in answer.rejections]) == (40, [40])
    # A position for each partition: the batch is answered when all of its parts are durable.
    assert len(answer.position.split(",")) == PARTITIONS
    for address in (server.grpc, *workers):
        assert append(address, numbers).duplicates == 40
        with grpc.insecure_channel(address) as channel:
            tracking = TrackingServiceStub(channel)
            request = BatchGetStatusRequest(waybill_numbers=[*numbers, "NEVER-SEEN"])
            found = tracking.BatchGetStatus(request)
            assert [status.waybill_number for status in found.statuses] == numbers
            assert list(found.missing_waybill_numbers) == ["NEVER-SEEN"]
            for partition in range(PARTITIONS):
                (number, *_) = of_partition(partition, numbers)
                status = tracking.GetStatus(
                    GetStatusRequest(waybill_number=number, min_position=answer.position)
                ).status
                assert status == found.statuses[numbers.index(number)]
                page = tracking.GetTimeline(GetTimelineRequest(waybill_number=number))
                assert [event.event_id for event in page.events] == ["one"]
                assert page.status == status


def test_what_an_owner_says_reaches_the_caller_of_another_worker(workers: list[str]) -> None:
    """Conflicts, unknown waybills and positions from the future are told as if asked directly."""
    numbers = waybills_of("SAYS", 40)
    append(workers[0], numbers)
    other = picked_up(numbers)
    for event in other.events:
        event.remark = "other content"
    for address in workers:
        with grpc.insecure_channel(address) as channel:
            refused = IngestServiceStub(channel).AppendEvents(other)
            assert [each.index for each in refused.rejections] == list(range(40))
            tracking = TrackingServiceStub(channel)
            beyond = 1_000_000, 1 << 63  # the second is more than an int64 between workers holds
            for partition, position in itertools.product(range(PARTITIONS), beyond):
                future = f"{_data_set(refused)}/{partition}.{position}"
                request = GetStatusRequest(waybill_number=numbers[0], min_position=future)
                with pytest.raises(grpc.RpcError) as told:
                    tracking.GetStatus(request)
                assert "from the future" in str(told.value)
            for number in waybills_of("UNKNOWN", 8):
                with pytest.raises(grpc.RpcError) as told:
                    tracking.GetStatus(GetStatusRequest(waybill_number=number))
                assert "no event of this waybill number is known" in str(told.value)


def _data_set(answer: AppendEventsResponse) -> str:
    return answer.position.partition("/")[0]


def test_topology_and_stats_span_the_workers(server: ServerProcess, workers: list[str]) -> None:
    """Whoever is asked names the owner of each partition, and the figures of all of them."""
    numbers = waybills_of("SPAN", 40)
    with SyncAdmin(server.grpc) as admin:
        before = sum(one.events for one in admin.get_stats().partitions)
    append(server.grpc, numbers)
    for address in (server.grpc, *workers):
        with SyncAdmin(address) as admin:
            topology, stats = admin.get_topology(), admin.get_stats()
        assert topology.partition_count == PARTITIONS
        assert [one.address for one in topology.partitions] == workers * 2
        assert [one.partition for one in stats.partitions] == [0, 1, 2, 3]
        assert sum(one.events for one in stats.partitions) == before + len(numbers)


def test_one_page_of_metrics_shows_every_worker(server: ServerProcess) -> None:
    """Samples of all partitions, each with the worker that owns it, and how the workers are."""
    numbers = waybills_of("PAGE", 40)
    before = server.scrape()
    append(server.grpc, numbers)
    samples = server.scrape()
    for partition in range(PARTITIONS):
        name = f'trackd_store_events_total{{partition="{partition}",worker="{partition % 2}"}}'
        assert samples[name] - before[name] == len(of_partition(partition, numbers))
    for worker in range(2):
        assert samples[f'trackd_cluster_worker_up{{worker="{worker}"}}'] == 1
        assert samples[f'trackd_cluster_worker_starts_total{{worker="{worker}"}}'] == 1


def test_the_service_between_workers_is_for_workers(workers: list[str]) -> None:
    """Without the token of this run it refuses, so that nobody goes round the contract."""
    with grpc.insecure_channel(workers[0]) as channel:
        for method in ("ReadStatuses", "ReadTimeline", "Reached", "GetStats"):
            call: Any = channel.unary_unary(f"/{peer_messages.SERVICE}/{method}")
            with pytest.raises(grpc.RpcError) as told:
                call(b"")
            assert told.value.code() is grpc.StatusCode.PERMISSION_DENIED
        stream: Any = channel.stream_stream(f"/{peer_messages.SERVICE}/StreamEvents")
        with pytest.raises(grpc.RpcError) as told:
            next(stream(iter([b""]), metadata=((peer_messages.TOKEN_KEY, "guessed"),)))
        assert told.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_there_is_a_worker_for_each_core_but_one_unless_told_otherwise() -> None:
    """That one is the engine's. Never more than partitions, and one worker at least."""
    assert Settings().workers is None
    assert worker_count(None, cores=1, partition_count=4) == 1
    assert worker_count(None, cores=2, partition_count=4) == 1
    assert worker_count(None, cores=4, partition_count=4) == 3
    assert worker_count(None, cores=8, partition_count=4) == 4
    assert worker_count(3, cores=1, partition_count=4) == 3
    assert worker_count(None, cores=8, partition_count=1) == 1


def test_data_opens_with_any_number_of_workers(serve: Serve) -> None:
    """Up to its partitions; more than those are not started."""
    numbers = waybills_of("ANY", 40)
    server = serve("--partitions", "3", start=False)
    for run, workers in enumerate((1, 200)):
        server.start("--workers", str(workers))
        assert len(worker_pids(server)) == (0 if workers == 1 else min(workers, 3))
        assert append(server.grpc, numbers, f"run-{run}").accepted == len(numbers)
        with SyncFrontEnd(server.grpc) as front_end:
            found = front_end.get_statuses(numbers).found
        assert {status.event_count for status in found} == {run + 1}
        assert server.stop() == exits.DONE
    expect_sound(server.data)


def test_a_directory_with_workers_is_in_use(server: ServerProcess, serve: Serve) -> None:
    """Row 23: a second server exits with 75, with workers or without; the first does not notice."""
    numbers = waybills_of("INUSE", 40)
    for workers in ("1", "2"):
        second = serve("--workers", workers, data=server.data, start=False)
        assert second.refuse() == exits.IN_USE
    assert append(server.grpc, numbers).accepted == len(numbers)


def test_an_address_with_workers_is_taken(server: ServerProcess, serve: Serve) -> None:
    """Another server cannot join the workers on their port and take a share of the callers."""
    for workers in ("1", "2"):
        second = serve("--grpc", server.grpc, "--workers", workers, start=False)
        assert second.refuse() == exits.FAILED
    assert append(server.grpc, waybills_of("TAKEN", 8)).accepted == 8


def test_health_tells_the_whole_truth(serve: Serve) -> None:
    """While a worker is down the server is not whole, the names say what is, and so do metrics."""
    numbers = waybills_of("TRUTH", 40)
    server = serve(*FLAGS)
    workers = own_addresses(server)
    assert health(server.grpc)
    assert health(server.grpc, "partition-1")
    old = worker_pids(server)
    with kept_down(server, 1):
        wait_for(lambda: not health(workers[0], "partition-1"))
        assert not health(server.grpc)
        assert not health(workers[0])
        assert health(server.grpc, "partition-0")
        assert health(server.grpc, "trackd.v1.TrackingService")
        assert server.scrape()['trackd_cluster_worker_up{worker="1"}'] == 0
        assert append(workers[0], of_partition(0, numbers)).accepted == len(
            of_partition(0, numbers)
        )
        with pytest.raises(grpc.RpcError) as told:
            append(workers[0], numbers, "two")
        assert told.value.code() is grpc.StatusCode.UNAVAILABLE
        with SyncAdmin(server.grpc) as admin:
            assert [one.partition for one in admin.get_stats().partitions] == [0, 2]
    wait_until_whole(server, since={1: old[1]})
    assert worker_pids(server)[0] == old[0]
    assert health(workers[1], "partition-1")
    assert append(workers[0], numbers, "three").accepted == len(numbers)
    with SyncAdmin(workers[0]) as admin, hanging(server, 1):
        # Sooner than who asks gives up, which by the command line's deadline is after 5 s.
        found = admin.get_stats(timeout_ms=9_000).partitions
        assert [one.partition for one in found] == [0, 2]
