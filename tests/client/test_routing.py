"""A client of several workers: straight to the owner, round about where it cannot be reached."""

import asyncio
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.harness.scans import waybills_of
from tests.harness.server import ServerProcess
from tests.harness.workers import kept_down, wait_for, wait_until_whole, worker_pids
from trackd.client import FrontEnd, RejectedScan, Scanner, ScannerOptions, Spool, SyncAdmin
from trackd.client.options import BackoffOptions
from trackd.client.topology import Topology
from trackd.store.keys import partition_of, status_key
from trackd.v1.admin_pb2 import GetTopologyResponse, PartitionAddress
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.vocabulary_pb2 import EventCode

FLAGS = ("--partitions", "4", "--workers", "2")
QUICK = ScannerOptions(
    batch_events_max=20, batch_delay_ms_max=2, backoff=BackoffOptions(ms_initial=5, ms_max=100)
)


@pytest.fixture
def server(serve: Serve) -> ServerProcess:
    """Two workers over four partitions."""
    return serve(*FLAGS)


def scans(numbers: list[str], rounds: int = 3) -> list[ScanEvent]:
    """Some scans of every waybill, each waybill's in order."""
    return [
        ScanEvent(
            event_id=f"{number}-{each}",
            waybill_number=number,
            code=EventCode.EVENT_CODE_ARRIVED_AT_FACILITY,
            occurred_at_ms=10**12 + each,
        )
        for each in range(rounds)
        for number in numbers
    ]


def of_worker(worker: int, numbers: list[str]) -> list[str]:
    """Which of the waybill numbers belong to a worker of two."""
    return [one for one in numbers if partition_of(status_key(one), 4) % 2 == worker]


def served(server: ServerProcess, method: str) -> list[float]:
    """How many calls of a method each of two workers has ended with OK."""
    samples = server.scrape()
    name = "grpc_server_call_duration_seconds_count"
    labels = 'grpc_method="{}",grpc_status="OK",worker="{}"'
    return [samples.get(f"{name}{{{labels.format(method, worker)}}}", 0) for worker in range(2)]


def test_the_client_finds_the_owner_as_the_server_does() -> None:
    """The hash of the contract, over the number in its normal form; doubtful layouts are none."""
    for count in (1, 2, 3, 7):
        parts = [PartitionAddress(partition=each, address=f"host:{each}") for each in range(count)]
        told = Topology.told(GetTopologyResponse(partition_count=count, partitions=parts))
        for number in waybills_of("OWNER", 50):
            owner = f"host:{partition_of(status_key(number), count)}"
            assert told.owner_of(number) == owner
            assert told.owner_of(f" {number.lower()} ") == owner
        assert told.owner_of("no waybill number!") in told.owners
    parts = [PartitionAddress(partition=1, address="host:1")]
    doubtful = GetTopologyResponse(partition_count=2, partitions=parts)
    assert Topology.told(doubtful) == Topology()


async def test_scans_and_look_ups_go_straight_to_their_owner(server: ServerProcess) -> None:
    """Nothing is forwarded: each worker is sent what it owns, in its own batches."""
    numbers = waybills_of("STRAIGHT", 60)
    async with Scanner(server.grpc, options=QUICK) as scanner:
        await scanner.scan_many(scans(numbers))
        await scanner.flush()
        assert scanner.counts.accepted == 180
        assert scanner.counts.waiting == 0
    async with FrontEnd(server.grpc) as front_end:
        await front_end.get_status(numbers[0])
        # What it asked for beside that call.
        await (front_end._channels._asking or asyncio.sleep(0))
        found = await front_end.get_statuses([*numbers, "NEVER-SEEN"])
        assert [status.waybill_number for status in found.found] == numbers
        assert found.missing == ["NEVER-SEEN"]
        for number in numbers:
            assert [event.event_id for event in await front_end.timeline(number)] == [
                f"{number}-{each}" for each in range(3)
            ]
    samples = await asyncio.to_thread(server.scrape)
    forwarded = [
        (name, count)
        for name, count in samples.items()
        if "PeerService" in name and name.startswith("grpc_server_call_duration_seconds_count")
    ]
    # The first look-up may be: the layout was asked for beside it.
    assert sum(count for _, count in forwarded) <= 1, forwarded
    assert served(server, "trackd.v1.IngestService/StreamEvents") == [1, 1]
    look_ups = served(server, "trackd.v1.TrackingService/BatchGetStatus")
    assert min(look_ups) == 1


async def test_an_owner_that_is_away_holds_up_its_own_scans_only(
    server: ServerProcess, tmp_path: Path
) -> None:
    """The others go on, the spool keeps what has no answer, and all of it arrives, in order."""
    numbers = waybills_of("AWAY", 60)
    near, far = of_worker(0, numbers), of_worker(1, numbers)
    assert near
    assert far
    rejected: list[RejectedScan] = []
    old = worker_pids(server)
    with Spool(tmp_path / "spool", device_id="D1") as spool:
        async with Scanner(
            server.grpc, spool=spool, options=QUICK, on_rejection=rejected.append
        ) as scanner:
            await scanner.scan_many(scans([far[0]]))
            await scanner.flush()
            with kept_down(server, 1):
                bad = ScanEvent(event_id="bad", waybill_number=near[0])
                await scanner.scan_many([*scans(numbers), bad])
                await asyncio.to_thread(
                    wait_for,
                    lambda: scanner.counts.accepted >= 3 + 3 * len(near) and len(rejected) > 0,
                )
                assert scanner.counts.waiting >= 3 * len(far) - 3
                assert spool.level().waiting_events >= 3 * len(far) - 3
            await asyncio.wait_for(scanner.flush(), 60)
            assert scanner.link_error is None
        assert spool.level().waiting_events == 0
        assert [each.event.event_id for _, each in spool.rejected()] == ["bad"]
    await asyncio.to_thread(wait_until_whole, server, since={1: old[1]})
    async with FrontEnd(server.grpc) as front_end:
        for number in numbers:
            status = await front_end.get_status(number)
            assert (status.event_count, status.last_event.event_id) == (3, f"{number}-2")


async def test_where_no_owner_can_be_reached_the_known_address_takes_all(serve: Serve) -> None:
    """Owners behind a wall: everything is forwarded, and nobody has to be told."""
    server = serve(*FLAGS, "--advertise-host", "192.0.2.1", "--unsafe-plaintext")
    with SyncAdmin(server.grpc) as admin:
        assert admin.get_topology().partitions[0].address.startswith("192.0.2.1:")
    numbers = waybills_of("WALL", 20)
    async with Scanner(server.grpc, options=QUICK) as scanner:
        await scanner.scan_many(scans(numbers))
        await asyncio.wait_for(scanner.flush(), 60)
        assert scanner.counts.accepted == 60
    async with FrontEnd(server.grpc) as front_end:
        assert len((await front_end.get_statuses(numbers, timeout_ms=30_000)).found) == 20


async def test_a_server_that_comes_back_with_other_workers_is_found(serve: Serve) -> None:
    """Another number of workers, other owners: the scanner asks again and loses nothing."""
    server = serve("--partitions", "4", "--workers", "2")
    port = server.grpc.rpartition(":")[2]
    numbers = waybills_of("OTHERS", 40)
    async with Scanner(server.grpc, options=QUICK) as scanner:
        for workers in ("3",):
            await scanner.scan_many(scans(numbers))
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(
                server.start, "--grpc", f"127.0.0.1:{port}", "--workers", workers
            )
            await asyncio.wait_for(scanner.flush(), 60)
            assert scanner.counts.waiting == 0
        counts = scanner.counts
        assert counts.accepted + counts.duplicates >= 120
    async with FrontEnd(server.grpc) as front_end:
        found = await front_end.get_statuses(numbers)
        assert {status.event_count for status in found.found} == {3}
