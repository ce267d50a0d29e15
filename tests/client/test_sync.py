"""The synchronous classes do what the asynchronous ones do, from threads without an event loop."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.client.conftest import QUICK_BACKOFF, ROOT
from tests.client.journeys import numbered_scan
from trackd.client import (
    RejectedScan,
    ScannerOptions,
    Spool,
    SyncAdmin,
    SyncFrontEnd,
    SyncScanner,
    WaybillNotFound,
)

SCANS = [numbered_scan(number) for number in range(300)]
OPTIONS = ScannerOptions(batch_events_max=20, backoff=QUICK_BACKOFF)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server in a process of its own, as a program without a loop has none to serve from."""
    command = [sys.executable, "-m", "tests.client.fault_server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


def test_scans_go_in_and_come_out(address: str, tmp_path: Path) -> None:
    """A whole day of a synchronous program: scan, flush, look up, page through, ask the operator's
    questions, with a spool.
    """
    told: list[RejectedScan] = []
    with (
        Spool(tmp_path / "spool.db", device_id="gun-1") as spool,
        SyncScanner(address, spool=spool, options=OPTIONS, on_rejection=told.append) as scanner,
        SyncFrontEnd(address) as front_end,
        SyncAdmin(address) as admin,
    ):
        scanner.scan(SCANS[0])
        scanner.scan_many(SCANS[1:])
        scanner.flush(timeout_ms=10_000)
        assert (scanner.counts.accepted, scanner.link_error) == (300, None)
        assert scanner.append(SCANS[:2]).duplicates == 2
        scanner.scan(numbered_scan(7, remark="other content"))
        scanner.flush()
        assert [each.reason_name for each in told] == ["CONFLICT"]
        waybill_number = SCANS[3].waybill_number
        expected = [scan for scan in SCANS if scan.waybill_number == waybill_number]
        assert front_end.get_status(waybill_number).event_count == len(expected)
        assert front_end.timeline(waybill_number) == expected
        pages = list(front_end.get_timeline(waybill_number, page_size=20))
        assert [len(page.events) for page in pages] == [20, 20, 3]
        statuses = front_end.get_statuses([waybill_number, "SF404"])
        assert (len(statuses.found), statuses.missing) == (1, ["SF404"])
        with pytest.raises(WaybillNotFound):
            front_end.get_status("SF404")
        assert admin.get_topology().partition_count == 1
        assert admin.get_stats().server_version == "0"


def test_many_threads_share_a_scanner(address: str) -> None:
    """Threads may call one scanner at the same time; every scan arrives."""
    scans = [numbered_scan(number, device_id="gun-2") for number in range(200)]
    with SyncScanner(address, options=OPTIONS) as scanner:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(scanner.scan, scans))
        scanner.flush()
        assert scanner.counts.accepted == 200


def test_the_background_thread_ends_with_its_last_client(address: str) -> None:
    """Nothing keeps running once every client is closed, and opening again works."""

    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name == "trackd-client"]

    for _ in range(2):
        with SyncFrontEnd(address), SyncFrontEnd(address) as front_end:
            front_end.get_statuses(["SF404"])
            assert len(threads()) == 1
        assert threads() == []


def test_a_client_that_is_not_open_says_so() -> None:
    """A call outside `with` raises, and leaves no coroutine behind."""
    with pytest.raises(RuntimeError, match="not open"):
        SyncFrontEnd("127.0.0.1:1").get_status("SF404")


def test_a_flush_that_takes_too_long_raises() -> None:
    """Nobody listens: `flush` gives up when told to; leaving after an error does not wait."""
    scanner = SyncScanner("127.0.0.1:1", options=OPTIONS)
    scanner.open()
    scanner.scan(SCANS[0])
    with pytest.raises(TimeoutError):
        scanner.flush(timeout_ms=50)
    scanner.__exit__(TimeoutError, TimeoutError(), None)
    assert scanner.counts.waiting == 1
