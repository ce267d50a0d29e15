"""The client and a real `trackd serve`: the whole road of a scan, through kills of either side."""

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.client.device import WAYBILLS as DEVICE_WAYBILLS
from tests.client.journeys import numbered_scan
from tests.client.link import Link
from tests.client.test_kill import live_and_die, start
from tests.conftest import Serve
from tests.harness.server import ServerProcess
from trackd.client import (
    Admin,
    FrontEnd,
    InvalidRequest,
    ScanCounts,
    Scanner,
    ScannerOptions,
    Spool,
    SyncFrontEnd,
    SyncScanner,
    WaybillNotFound,
    scan_event,
)

SCANS = [numbered_scan(number) for number in range(300)]
WAYBILLS = sorted({scan.waybill_number for scan in SCANS})


def port_of(server: ServerProcess) -> int:
    """Where it listens now."""
    return int(server.grpc.rpartition(":")[2])


async def test_scans_go_in_and_come_out(
    serve: Serve, tmp_path: Path, quick: ScannerOptions
) -> None:
    """Acknowledged scans are in statuses and timelines; sent again they are duplicates."""
    server = await asyncio.to_thread(serve)
    with Spool(tmp_path / "spool.db", device_id="gun-1") as spool:
        for expected in [
            ScanCounts(accepted=300, duplicates=0, rejected=0, waiting=0),
            ScanCounts(accepted=0, duplicates=300, rejected=0, waiting=0),
        ]:
            async with Scanner(server.grpc, spool=spool, options=quick) as scanner:
                await scanner.scan_many(SCANS)
                await scanner.flush()
                assert scanner.counts == expected
    async with FrontEnd(server.grpc) as front_end, Admin(server.grpc) as admin:
        statuses = await front_end.get_statuses([*WAYBILLS, "SF404404"])
        assert [status.waybill_number for status in statuses.found] == WAYBILLS
        assert statuses.missing == ["SF404404"]
        for status in statuses.found:
            taken = [scan for scan in SCANS if scan.waybill_number == status.waybill_number]
            pages = front_end.get_timeline(status.waybill_number, page_size=20)
            timeline = [event async for page in pages for event in page.events]
            assert timeline == await front_end.timeline(status.waybill_number)
            assert all(event.recorded_at_ms > 0 for event in timeline)
            for event in timeline:
                event.ClearField("recorded_at_ms")
            assert timeline == taken
            assert status.event_count == len(taken)
        with pytest.raises(WaybillNotFound):
            await front_end.get_status("SF404404")
        fresh = await front_end.get_status(WAYBILLS[0], min_position=statuses.found[0].position)
        assert fresh.waybill_number == WAYBILLS[0]
        topology = await admin.get_topology()
        assert len(topology.partitions) == topology.partition_count > 0
        assert sum(each.durable_position for each in (await admin.get_stats()).partitions) == 300


async def test_what_trackd_rejects_is_listed_with_its_reason(
    serve: Serve, tmp_path: Path, quick: ScannerOptions
) -> None:
    """One bad scan of each kind among good ones: the good are stored, the bad listed in order."""
    server = await asyncio.to_thread(serve)
    tomorrow_ms = (int(time.time()) + 86_400) * 1_000
    bad = [
        scan_event(event_id="b:1", waybill_number="!", code="SORTED"),
        scan_event(event_id="", waybill_number="SF0000000001", code="SORTED"),
        scan_event(event_id="b:3", waybill_number="SF0000000001", code=77),
        scan_event(
            event_id="b:4", waybill_number="SF0000000001", code="SORTED", occurred_at=tomorrow_ms
        ),
        numbered_scan(305, remark="r" * 501),
        numbered_scan(306, remark="bell \a"),
        numbered_scan(3, remark="the same id with other content"),
    ]
    with Spool(tmp_path / "spool.db", device_id="gun-1") as spool:
        async with Scanner(server.grpc, spool=spool, options=quick) as scanner:
            for number, scan in enumerate(bad):
                await scanner.scan_many(SCANS[number * 40 : number * 40 + 40])
                await scanner.scan(scan)
            await scanner.flush()
            counts = scanner.counts
        listed = [scan for _, scan in spool.rejected()]
    assert counts == ScanCounts(accepted=280, duplicates=0, rejected=7, waiting=0)
    assert [scan.event for scan in listed] == bad
    assert [scan.reason_name for scan in listed] == [
        "INVALID_WAYBILL_NUMBER",
        "INVALID_EVENT_ID",
        "UNKNOWN_CODE",
        "TIME_OUT_OF_RANGE",
        "FIELD_TOO_LONG",
        "INVALID_FIELD",
        "CONFLICT",
    ]


async def test_a_damaged_scan_holds_nothing_up(
    serve: Serve, tmp_path: Path, quick: ScannerOptions
) -> None:
    """Of one or of several owners: what cannot be read any more is refused and listed."""
    for workers in ("1", "2"):
        server = await asyncio.to_thread(serve, "--partitions", "2", "--workers", workers)
        with Spool(tmp_path / f"spool-{workers}", device_id="gun-1") as spool:
            wires = [scan.SerializeToString() for scan in SCANS[:20]]
            wires[7] = b"\xff" * len(wires[7])
            spool.put(wires).result()
            async with Scanner(server.grpc, spool=spool, options=quick) as scanner:
                await scanner.flush()
                counts = scanner.counts
            assert counts == ScanCounts(accepted=19, duplicates=0, rejected=1, waiting=0)
            assert [sequence for sequence, _ in spool.rejected()] == [8]


async def test_a_batch_over_the_limit_is_the_callers_mistake(serve: Serve) -> None:
    """`append` of more than 1,000 scans, or none, raises InvalidRequest and stores nothing."""
    server = await asyncio.to_thread(serve)
    async with Scanner(server.grpc) as scanner, Admin(server.grpc) as admin:
        for scans in [[], [numbered_scan(number) for number in range(1_001)]]:
            with pytest.raises(InvalidRequest):
                await scanner.append(scans)
        assert sum(each.durable_position for each in (await admin.get_stats()).partitions) == 0
        assert (await scanner.append(SCANS)).accepted == 300


def test_a_synchronous_program(serve: Serve, tmp_path: Path) -> None:
    """The synchronous classes talk to the same server."""
    server = serve()
    with (
        Spool(tmp_path / "spool.db", device_id="gun-1") as spool,
        SyncScanner(server.grpc, spool=spool) as scanner,
        SyncFrontEnd(server.grpc) as front_end,
    ):
        scanner.scan_many(SCANS)
        scanner.flush(timeout_ms=30_000)
        assert [s.waybill_number for s in front_end.get_statuses(WAYBILLS).found] == WAYBILLS


async def run_campaign(serve: Serve, directory: Path, *, rounds: int, seed: int) -> None:
    """Kills a device and the server in each round, then compares the ledger with the timelines."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    # One partition: several record the parts of a batch each on its own.
    server = await asyncio.to_thread(serve, "--partitions", "1")
    spool, ledger = directory / "spool.db", directory / "ledger"
    async with Link(port_of(server)) as link:
        for _ in range(rounds):
            lifetime_s = 0.3 + dice.random() * 0.4
            life = live_and_die(
                link, spool, ledger, lifetime_s=lifetime_s, seed=dice.randrange(10**9)
            )
            device = asyncio.create_task(life)
            await asyncio.sleep(lifetime_s * dice.random())
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            link.target_port = port_of(server)
            await device
        assert await (await start(link.address, spool, ledger, "--drain")).wait() == 0
    taken = ledger.read_text().split()
    async with FrontEnd(server.grpc) as front_end:
        found = (await front_end.get_statuses(DEVICE_WAYBILLS)).found
        timelines = [await front_end.timeline(status.waybill_number) for status in found]
    events = [event for timeline in timelines for event in timeline]
    assert len(taken) > 10 * rounds, "the devices hardly scanned: the campaign proves nothing"
    assert set(taken) <= {event.event_id for event in events}, "a scan that was taken is missing"
    assert max(Counter(event.event_id for event in events).values()) == 1, "one took effect twice"
    events.sort(key=lambda event: int(event.event_id.rpartition(":")[2]))
    recorded = [event.recorded_at_ms for event in events]
    assert recorded == sorted(recorded), "scans were recorded out of order"


async def test_device_and_server_are_killed_in_turns(serve: Serve, tmp_path: Path) -> None:
    """Whatever is killed, every scan that `scan` returned for is in its timeline once, and the
    server recorded the device's scans in the order in which they were taken.
    """
    await run_campaign(serve, tmp_path, rounds=3, seed=20_261_122)


@pytest.mark.torture
@pytest.mark.timeout(3_600)
async def test_devices_and_servers_are_killed_over_and_over(
    serve: Serve, tmp_path: Path, seed: int
) -> None:
    """The same over a hundred lives of each."""
    await run_campaign(serve, tmp_path, rounds=100, seed=seed)
