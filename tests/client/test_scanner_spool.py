"""A scanner with a spool: what `scan` returned for outlives link, server and scanner."""

import asyncio
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.client.fault_server import Fault, FaultServer
from tests.client.journeys import numbered_scan
from tests.client.link import Link
from trackd.client import (
    RejectedScan,
    ScanCounts,
    Scanner,
    ScannerOptions,
    Spool,
    SpoolBroken,
    SpoolFull,
    SpoolInUse,
    SpoolOptions,
)
from trackd.client.window import RejectedEntry

SCANS = [numbered_scan(number) for number in range(300)]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty one."""
    with Spool(tmp_path / "spool.db", device_id="gun-1") as opened:
        yield opened


async def test_scans_taken_offline_are_sent_by_the_next_scanner(
    server: FaultServer, link: Link, quick: ScannerOptions, tmp_path: Path
) -> None:
    """Scans taken while the link is down wait on the device through a restart, then arrive in
    order, before the new ones; afterwards the spool is empty.
    """
    path = tmp_path / "spool.db"
    await link.down()
    with Spool(path, device_id="gun-1") as spool:
        async with Scanner(link.address, spool=spool, options=quick) as scanner:
            await scanner.scan_many(SCANS[:200])
        assert scanner.counts == ScanCounts(accepted=0, duplicates=0, rejected=0, waiting=200)
    await link.up()
    with Spool(path, device_id="gun-1") as spool:
        async with Scanner(link.address, spool=spool, options=quick) as scanner:
            assert scanner.counts.waiting == 200
            await scanner.scan_many(SCANS[200:])
            await scanner.flush()
        level = spool.level()
        assert (level.waiting_events, level.held_bytes) == (0, 0)
    assert server.shelf.arrived == SCANS


async def test_leaving_does_not_wait_for_a_link_that_is_down(
    link: Link, spool: Spool, quick: ScannerOptions
) -> None:
    """With a spool nothing is lost by leaving, so a dead link does not hold the device up."""
    await link.down()
    options = replace(quick, close_timeout_ms=3_600_000)
    async with asyncio.timeout(30), Scanner(link.address, spool=spool, options=options) as scanner:
        await scanner.scan_many(SCANS)
    assert spool.level().waiting_events == 300


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE_STORE, Fault.LOST_AFTER_STORE])
async def test_a_fault_loses_and_doubles_nothing(
    fault: Fault, server: FaultServer, spool: Spool, quick: ScannerOptions
) -> None:
    """A scan leaves the spool only when the server has answered for it."""
    server.faults.extend([fault] * 5)
    async with Scanner(server.address, spool=spool, options=quick) as scanner:
        await scanner.scan_many(SCANS)
        await scanner.flush()
        assert scanner.counts.accepted + scanner.counts.duplicates == 300
    assert server.shelf.arrived == SCANS
    assert spool.level().waiting_events == 0


async def test_a_spool_can_be_given_to_one_scanner_after_another(
    server: FaultServer, link: Link, spool: Spool, quick: ScannerOptions
) -> None:
    """A second scanner on the same open spool goes on where the first one stopped."""
    for start in range(0, 300, 100):
        async with Scanner(link.address, spool=spool, options=quick) as scanner:
            await scanner.scan_many(SCANS[start : start + 100])
            await link.down()
        await link.up()
    async with Scanner(link.address, spool=spool, options=quick) as scanner:
        await scanner.flush()
    assert server.shelf.arrived == SCANS


async def test_rejected_scans_are_kept_in_the_spool(
    server: FaultServer, spool: Spool, quick: ScannerOptions
) -> None:
    """Scans that the server rejects, alone or by refusing their batch, stay listed with the reason
    until they are cleared; all others arrive.
    """
    server.shelf.rejected_ids = {"gun-1:5"}
    server.shelf.poison_ids = {"gun-1:150"}
    async with Scanner(server.address, spool=spool, options=quick) as scanner:
        await scanner.scan_many(SCANS)
        await scanner.flush()
        assert scanner.counts == ScanCounts(accepted=298, duplicates=0, rejected=2, waiting=0)
    assert server.shelf.arrived == SCANS[:5] + SCANS[6:150] + SCANS[151:]
    listed = spool.rejected()
    assert [scan.event for _, scan in listed] == [SCANS[5], SCANS[150]]
    assert [scan.reason_name for _, scan in listed] == ["INVALID_FIELD", "UNSPECIFIED"]
    assert "batch_malformed" in listed[1][1].message
    assert spool.clear_rejected(through=listed[-1][0]) == 2
    assert spool.level().held_bytes == 0


async def test_a_full_spool_is_told_and_recovers(
    server: FaultServer, link: Link, tmp_path: Path, quick: ScannerOptions
) -> None:
    """When the bound is reached `scan` raises SpoolFull and keeps what it has; when the link is
    back the spool drains and takes again.
    """
    large = [numbered_scan(number, remark="r" * 5_000) for number in range(20)]
    await link.down()
    options = SpoolOptions(bytes_max=70_000)
    with Spool(tmp_path / "spool.db", device_id="gun-1", options=options) as spool:
        async with Scanner(link.address, spool=spool, options=quick) as scanner:
            for scan in large[:13]:
                await scanner.scan(scan)
            with pytest.raises(SpoolFull):
                await scanner.scan(large[13])
            await link.up()
            await scanner.flush()
            for scan in large[13:]:
                await scanner.scan(scan)
            await scanner.flush()
    assert server.shelf.arrived == large


async def test_a_rejection_that_finds_no_room_is_asked_for_again(
    server: FaultServer, spool: Spool, quick: ScannerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the device's disk is too full to keep a rejection, the scan stays waiting."""
    server.shelf.rejected_ids = {"gun-1:5"}
    settle = spool._file.settle
    full_for = [True, True]

    def settle_on_a_full_disk(*, through: int, rejected: list[RejectedEntry]) -> None:
        if rejected and full_for:
            full_for.pop()
            raise SpoolFull("the disk of the spool is full")
        settle(through=through, rejected=rejected)

    monkeypatch.setattr(spool._file, "settle", settle_on_a_full_disk)
    async with Scanner(server.address, spool=spool, options=quick) as scanner:
        await scanner.scan_many(SCANS[:20])
        await scanner.flush()
        assert scanner.counts.rejected == 1
    assert [scan.event for _, scan in spool.rejected()] == [SCANS[5]]
    assert server.shelf.arrived == SCANS[:5] + SCANS[6:20]


async def test_a_rejection_that_is_being_kept_while_the_way_changes_is_kept(
    server: FaultServer, spool: Spool, quick: ScannerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spool forgets what it was told to, whoever waits for it; the scanner knows of that."""
    server.shelf.rejected_ids = {"gun-1:5"}
    told: list[RejectedScan] = []
    settle, go, begun = spool._file.settle, threading.Event(), threading.Event()

    def settle_slowly(*, through: int, rejected: list[RejectedEntry]) -> None:
        begun.set()
        go.wait()
        settle(through=through, rejected=rejected)

    monkeypatch.setattr(spool._file, "settle", settle_slowly)
    options = replace(quick, batch_delay_ms_max=1_000)
    async with Scanner(
        server.address, spool=spool, options=options, on_rejection=told.append
    ) as scanner:
        await scanner.scan_many(SCANS[:20])
        await asyncio.to_thread(begun.wait)
        scanner._opened.uplink._layout_changed.set()
        await asyncio.sleep(0)
        while scanner._opened.uplink._layout_changed.is_set() and not told:
            go.set()
            await asyncio.sleep(0)
        await scanner.scan_many(SCANS[20:40])
        await scanner.flush()
        assert scanner.counts == ScanCounts(accepted=39, duplicates=0, rejected=1, waiting=0)
    assert [scan.event for scan in told] == [SCANS[5]]
    assert spool.level().waiting_events == 0
    assert server.shelf.arrived == SCANS[:5] + SCANS[6:40]


async def test_a_second_scanner_on_a_spool_is_refused(
    server: FaultServer, spool: Spool, quick: ScannerOptions
) -> None:
    """Each would look for what the other one has made the spool forget."""
    async with Scanner(server.address, spool=spool, options=quick) as scanner:
        second = Scanner(server.address, spool=spool, options=quick)
        with pytest.raises(SpoolInUse):
            await second.open()
        await scanner.scan_many(SCANS)
        await scanner.flush()
    async with second:
        assert second.counts.waiting == 0
    assert server.shelf.arrived == SCANS


async def test_a_broken_spool_stops_the_scanner_loudly(
    link: Link, spool: Spool, quick: ScannerOptions
) -> None:
    """After a disk error `scan` raises, and `flush` does not wait for what will never be sent."""
    await link.down()
    scanner = Scanner(link.address, spool=spool, options=quick)
    await scanner.open()
    await scanner.scan(SCANS[0])
    spool._submit(lambda file: file._connection.execute("SELECT nothing"))
    with pytest.raises(SpoolBroken):
        await scanner.scan(SCANS[1])
    await link.up()
    with pytest.raises(SpoolBroken):
        await scanner.flush()
    with pytest.raises(SpoolBroken):
        await scanner.close()


async def test_a_caller_that_gives_up_does_not_lose_the_scan(
    server: FaultServer, spool: Spool, quick: ScannerOptions
) -> None:
    """A `scan` that is cancelled on its way to the disk is kept and sent all the same."""
    async with Scanner(server.address, spool=spool, options=quick) as scanner:
        for scan in SCANS[:50]:
            taking = asyncio.create_task(scanner.scan(scan))
            await asyncio.sleep(0)
            taking.cancel()
        await asyncio.to_thread(spool.level)
        await scanner.flush()
    assert server.shelf.arrived == SCANS[:50]


async def test_many_callers_share_flushes_to_disk(
    server: FaultServer, spool: Spool, quick: ScannerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 scans at once take a few commits, not 300."""
    commits = 0
    commit = spool._file.commit

    def counted_commit() -> None:
        nonlocal commits
        commits += 1
        commit()

    monkeypatch.setattr(spool._file, "commit", counted_commit)
    async with Scanner(server.address, spool=spool, options=quick) as scanner:
        await asyncio.gather(*map(scanner.scan, SCANS))
        await scanner.flush()
    assert server.shelf.arrived == SCANS
    # About 15 batches are read and settled as well, each in a commit of its own at worst.
    assert commits < 100


async def test_memory_does_not_grow_with_the_spool(
    link: Link, spool: Spool, quick: ScannerOptions
) -> None:
    """30 MB of scans taken while the link is down are on disk, not in memory."""
    await link.down()
    async with Scanner(link.address, spool=spool, options=quick) as scanner:
        await scanner.scan(SCANS[0])
        tracemalloc.start()
        try:
            for start in range(1, 3_001, 100):
                part = (numbered_scan(n, remark="r" * 10_000) for n in range(start, start + 100))
                await scanner.scan_many(part)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert spool.level().held_bytes > 30_000_000
    assert peak < 10_000_000
