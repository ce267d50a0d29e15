"""A scanner delivers what it took: in order, once in effect, whatever link and server do."""

import asyncio
import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.client.conftest import QUICK_BACKOFF
from tests.client.fault_server import Fault, FaultServer
from tests.client.journeys import numbered_scan, numbers_of
from tests.client.link import Link
from trackd.client import (
    InvalidRequest,
    RejectedScan,
    ScanCounts,
    ScanEvent,
    Scanner,
    ScannerOptions,
    ScansNotSent,
    ServerUnavailable,
    TrackdError,
)
from trackd.v1.vocabulary_pb2 import RejectionReason

SCANS = [numbered_scan(number) for number in range(300)]


async def link_failure(scanner: Scanner) -> TrackdError:
    """Why the link is down, as soon as the scanner has noticed."""
    while (error := scanner.link_error) is None:
        await scanner._opened.outbox.changed.wait()
    return error


async def test_every_scan_arrives_in_order(server: FaultServer, quick: ScannerOptions) -> None:
    """After `flush` the server has every scan, in the order taken, each once."""
    async with Scanner(server.address, options=quick) as scanner:
        await scanner.scan_many(SCANS)
        await scanner.flush()
        assert server.shelf.arrived == SCANS
        assert scanner.counts == ScanCounts(accepted=300, duplicates=0, rejected=0, waiting=0)


async def test_batches_keep_their_limits(server: FaultServer) -> None:
    """No batch exceeds the bound in events or the bound in bytes, and both are made use of."""
    options = ScannerOptions(batch_events_max=50, batch_bytes_max=64 * 1024)
    small = [numbered_scan(number) for number in range(100)]
    large = [numbered_scan(100 + number, remark="r" * 4_000) for number in range(100)]
    async with Scanner(server.address, options=options) as scanner:
        await scanner.scan_many(small)
        await scanner.scan_many(large)
        await scanner.flush()
    sizes = server.shelf.batch_sizes
    assert max(sizes) == 50
    assert 10 <= max(sizes[-5:]) <= 16
    assert server.shelf.arrived == small + large


async def test_an_event_over_the_limit_is_refused_unsent(server: FaultServer) -> None:
    """An event that no batch could carry is refused by `scan`; the others are not held up."""
    async with Scanner(server.address) as scanner:
        with pytest.raises(InvalidRequest) as refusal:
            await scanner.scan(numbered_scan(1, remark="r" * 70_000))
        await scanner.scan(numbered_scan(2))
    assert refusal.value.reason == "EVENT_TOO_LARGE"
    assert numbers_of(server.shelf.arrived) == [2]


async def test_scans_before_one_that_cannot_be_taken_are_taken(
    server: FaultServer, quick: ScannerOptions
) -> None:
    """Whether it is refused, or never comes: who goes on behind it has lost nothing."""

    def breaks_off() -> Iterator[ScanEvent]:
        yield from SCANS[3:5]
        raise OSError("the reader was unplugged")

    async with Scanner(server.address, options=quick) as scanner:
        with pytest.raises(InvalidRequest):
            await scanner.scan_many([*SCANS[:3], numbered_scan(3, remark="r" * 70_000), SCANS[99]])
        with pytest.raises(OSError, match="unplugged"):
            await scanner.scan_many(breaks_off())
        await scanner.flush()
        assert server.shelf.arrived == SCANS[:5]


async def test_several_batches_are_in_flight(server: FaultServer, quick: ScannerOptions) -> None:
    """Batches go out before earlier ones are answered, up to the bound and no further."""
    server.answering.clear()
    async with Scanner(server.address, options=quick) as scanner:
        await scanner.scan_many(SCANS)
        await asyncio.sleep(0.2)
        # The server reads one batch at a time; what the others wait in is the connection.
        assert server.received == 1
        assert scanner.counts.waiting == 300
        assert scanner._opened.uplink._uplinks[0]._window.in_flight == quick.batches_in_flight_max
        server.answering.set()
        await scanner.flush()
    assert server.shelf.arrived == SCANS


@pytest.mark.parametrize(
    "fault",
    [
        Fault.LOST_BEFORE_STORE,
        Fault.LOST_AFTER_STORE,
        Fault.OVERLOADED,
        Fault.LATE,
        Fault.WRONG_BATCH_ID,
        Fault.WRONG_COUNT,
        Fault.CALL_ENDED,
    ],
)
async def test_a_fault_loses_and_doubles_nothing(
    fault: Fault, server: FaultServer, quick: ScannerOptions
) -> None:
    """Whatever happens to one batch, all scans arrive in order and once; repeats are counted."""
    server.faults.extend([fault, fault])
    async with Scanner(server.address, options=quick) as scanner:
        await scanner.scan_many(SCANS)
        await scanner.flush()
        counts = scanner.counts
    assert not server.faults
    assert server.shelf.arrived == SCANS
    assert counts.accepted + counts.duplicates == 300
    stored_unheard = {Fault.LOST_AFTER_STORE, Fault.WRONG_BATCH_ID, Fault.WRONG_COUNT}
    assert (counts.duplicates > 0) == (fault in stored_unheard)


async def test_a_batch_without_an_answer_is_sent_again(
    server: FaultServer, quick: ScannerOptions
) -> None:
    """A server that takes a batch and never answers is left for a new call."""
    server.faults.append(Fault.NEVER_ANSWERED)
    options = replace(quick, answer_timeout_ms=100)
    async with Scanner(server.address, options=options) as scanner:
        await scanner.scan_many(SCANS[:5])
        await scanner.flush()
    assert server.shelf.arrived == SCANS[:5]
    assert server.calls == 2


async def test_a_cut_link_is_tried_again(
    server: FaultServer, link: Link, quick: ScannerOptions
) -> None:
    """Connections that are cut under load cost nothing but repeats."""
    async with Scanner(link.address, options=quick) as scanner:
        for start in range(0, 300, 30):
            await scanner.scan_many(SCANS[start : start + 30])
            await asyncio.sleep(0.01)
            await link.cut()
        await scanner.flush()
    assert link.accepted > 1
    assert server.shelf.arrived == SCANS


async def test_a_restarted_server_is_found_again(
    server: FaultServer, quick: ScannerOptions
) -> None:
    """While the server is away the link says why; when it is back everything arrives."""
    async with Scanner(server.address, options=quick) as scanner:
        await scanner.scan_many(SCANS[:100])
        await scanner.flush()
        await server.stop()
        await scanner.scan_many(SCANS[100:])
        assert isinstance(await link_failure(scanner), ServerUnavailable)
        await server.start()
        await scanner.flush()
        assert scanner.link_error is None
        # The next failure starts with a short pause again.
        assert scanner._opened.uplink._backoff._ceiling_ms == quick.backoff.ms_initial
    assert server.shelf.arrived == SCANS


async def test_a_long_row_of_faults_loses_and_doubles_nothing(
    server: FaultServer, link: Link, quick: ScannerOptions
) -> None:
    """A server that keeps failing, over a link that keeps breaking, gets every scan in order."""
    seed = 20_261_122
    print(f"seed {seed}")
    dice = random.Random(seed)
    server.chaos = dice
    server.late_s = 0.01
    server.retry_after_ms = 5
    async with Scanner(link.address, options=quick) as scanner:
        for start in range(0, 300, 10):
            await scanner.scan_many(SCANS[start : start + 10])
            if dice.random() < 0.3:
                await link.cut()
            await asyncio.sleep(dice.random() * 0.02)
        await scanner.flush()
        assert scanner.counts.accepted + scanner.counts.duplicates == 300
    assert server.shelf.arrived == SCANS


async def test_rejections_are_told_and_hold_nothing_up(
    server: FaultServer, quick: ScannerOptions
) -> None:
    """Rejected scans reach the callback with their reason; the rest is stored; a callback that
    raises stops nothing.
    """
    server.shelf.rejected_ids = {"gun-1:3", "gun-1:25"}
    told: list[RejectedScan] = []

    def listen(rejected: RejectedScan) -> None:
        told.append(rejected)
        raise ValueError("the listener's own mistake")

    async with Scanner(server.address, options=quick, on_rejection=listen) as scanner:
        await scanner.scan_many(SCANS[:40])
        await scanner.scan(numbered_scan(5, remark="other content, same id"))
        await scanner.flush()
        assert scanner.counts == ScanCounts(accepted=38, duplicates=0, rejected=3, waiting=0)
    assert [each.event.event_id for each in told] == ["gun-1:3", "gun-1:25", "gun-1:5"]
    assert [each.reason_name for each in told] == ["INVALID_FIELD", "INVALID_FIELD", "CONFLICT"]
    assert (told[0].field, told[0].message) == ("remark", "no good")


async def test_a_batch_refused_as_a_whole_is_split_until_the_scan_at_fault_is_found(
    server: FaultServer, quick: ScannerOptions
) -> None:
    """Only the scans that the server refuses alone are given up; all others arrive in order."""
    server.shelf.poison_ids = {"gun-1:0", "gun-1:41", "gun-1:42", "gun-1:299"}
    told: list[RejectedScan] = []
    async with Scanner(server.address, options=quick, on_rejection=told.append) as scanner:
        await scanner.scan_many(SCANS)
        await scanner.flush()
        assert scanner.counts == ScanCounts(accepted=296, duplicates=0, rejected=4, waiting=0)
    assert {each.event.event_id for each in told} == server.shelf.poison_ids
    assert {each.reason for each in told} == {RejectionReason.REJECTION_REASON_UNSPECIFIED}
    good = [scan for scan in SCANS if scan.event_id not in server.shelf.poison_ids]
    assert server.shelf.arrived == good
    # Found by halving: the whole takes a few dozen batches, not one for each scan.
    assert server.received < 100


async def test_a_server_with_a_smaller_message_limit_is_served() -> None:
    """Batches over the server's own limit are split, and an event over it is rejected alone."""
    told: list[RejectedScan] = []
    scans = [numbered_scan(number, remark="r" * 500) for number in range(20)]
    scans[5] = numbered_scan(5, remark="r" * 20_000)
    options = ScannerOptions(backoff=QUICK_BACKOFF)
    async with FaultServer(receive_bytes_max=8_000) as server:
        async with Scanner(server.address, options=options, on_rejection=told.append) as scanner:
            await scanner.scan_many(scans)
            await scanner.flush()
        assert server.shelf.arrived == scans[:5] + scans[6:]
    assert [each.event for each in told] == [scans[5]]


async def test_a_full_buffer_makes_scan_wait(server: FaultServer, quick: ScannerOptions) -> None:
    """Without a spool, no more than the bound is kept: `scan` waits until there is room."""
    server.answering.clear()
    options = replace(quick, buffer_events_max=50)
    async with Scanner(server.address, options=options) as scanner:
        taking = asyncio.create_task(scanner.scan_many(SCANS))
        await asyncio.sleep(0.1)
        assert scanner.counts.waiting == 50
        assert not taking.done()
        server.answering.set()
        await taking
        await scanner.flush()
    assert server.shelf.arrived == SCANS


async def test_leaving_tells_what_was_not_sent(link: Link, quick: ScannerOptions) -> None:
    """A scanner without a spool that is left while the link is down raises, with the number."""
    await link.down()
    scanner = Scanner(link.address, options=replace(quick, close_timeout_ms=50))
    await scanner.open()
    await scanner.scan_many(SCANS[:7])
    with pytest.raises(ScansNotSent) as unsent:
        await scanner.close()
    assert unsent.value.metadata == {"unanswered": "7"}


async def test_leaving_waits_for_the_answers(server: FaultServer, quick: ScannerOptions) -> None:
    """Leaving the block without `flush` loses nothing while the link is up."""
    async with Scanner(server.address, options=quick) as scanner:
        await scanner.scan_many(SCANS)
    assert server.shelf.arrived == SCANS
    assert scanner.counts.waiting == 0


async def test_who_gives_up_leaving_leaves_nothing_behind(
    server: FaultServer, quick: ScannerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A close that is cancelled while the call says goodbye has ended all the same."""
    scanner = Scanner(server.address, options=quick)
    await scanner.open()
    await scanner.scan(SCANS[0])
    await scanner.flush()
    saying_goodbye = asyncio.Event()
    monkeypatch.setattr(scanner._opened.uplink, "finish", saying_goodbye.set)
    closing = asyncio.create_task(scanner.close())
    await saying_goodbye.wait()
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert closing.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        await scanner.scan(SCANS[1])


async def test_leaving_while_the_link_is_down_ends_every_task(
    link: Link, quick: ScannerOptions
) -> None:
    """None is left to be destroyed with its loop."""
    before = asyncio.all_tasks()
    scanner = Scanner(link.address, options=replace(quick, close_timeout_ms=1))
    await scanner.open()
    await scanner.scan(SCANS[0])
    await scanner.flush()
    await link.cut()
    await scanner.scan(SCANS[1])
    await link_failure(scanner)
    with contextlib.suppress(ScansNotSent):
        await scanner.close()
    ours = [task for task in asyncio.all_tasks() - before if "trackd/client" in repr(task)]
    assert ours == []


async def test_a_failure_of_the_caller_is_not_replaced(link: Link, quick: ScannerOptions) -> None:
    """An exception in the block comes through as it is, without waiting for the link."""
    await link.down()
    with pytest.raises(ZeroDivisionError):
        await scan_and_fail(link, quick)


async def scan_and_fail(link: Link, options: ScannerOptions) -> None:
    """Fails in the block with a scan unsent."""
    async with Scanner(link.address, options=options) as scanner:
        await scanner.scan(SCANS[0])
        raise ZeroDivisionError


async def test_a_closed_scanner_takes_nothing(server: FaultServer, link: Link) -> None:
    """After closing, `scan` raises; a scan that waited for room is woken and raises too."""
    await link.down()
    options = ScannerOptions(buffer_events_max=1, close_timeout_ms=50, backoff=QUICK_BACKOFF)
    scanner = Scanner(link.address, options=options)
    await scanner.open()
    taking = asyncio.create_task(scanner.scan_many(SCANS))
    await asyncio.sleep(0.01)
    with contextlib.suppress(ScansNotSent):
        await scanner.close()
    with pytest.raises(RuntimeError, match="closed"):
        await taking
    with pytest.raises(RuntimeError, match="closed"):
        await scanner.scan(SCANS[0])
    await scanner.close()


async def test_later_changes_of_an_event_do_not_change_the_scan(server: FaultServer) -> None:
    """What is sent is the event as it was when `scan` was called."""
    event = numbered_scan(1, remark="as scanned")
    async with Scanner(server.address) as scanner:
        await scanner.scan(event)
        event.remark = "changed later"
    assert server.shelf.arrived[0].remark == "as scanned"


async def test_append_is_tried_again_and_stores_once(server: FaultServer) -> None:
    """A unary append outlasts lost answers and overload within its deadline."""
    server.faults.extend([Fault.LOST_AFTER_STORE, Fault.OVERLOADED, Fault.LOST_BEFORE_STORE])
    async with Scanner(server.address, options=ScannerOptions(backoff=QUICK_BACKOFF)) as scanner:
        answer = await scanner.append(SCANS[:3])
    assert (answer.accepted, answer.duplicates) == (0, 3)
    assert server.shelf.arrived == SCANS[:3]


async def test_append_ends_with_its_deadline(server: FaultServer) -> None:
    """A server that stays overloaded ends an append with its reason, not with silence."""
    server.faults.extend([Fault.OVERLOADED] * 100)
    async with Scanner(server.address, options=ScannerOptions(backoff=QUICK_BACKOFF)) as scanner:
        with pytest.raises(ServerUnavailable) as overload:
            await scanner.append(SCANS[:3], timeout_ms=150)
    assert overload.value.reason == "OVERLOADED"
    assert overload.value.retry_after_ms == server.retry_after_ms
