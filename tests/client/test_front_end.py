"""Look-ups: merged in order, bounded in number and time, retried where that does no harm."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.client.conftest import QUICK_BACKOFF
from tests.client.fault_server import Fault, FaultServer
from tests.client.journeys import numbered_scan
from trackd.client import (
    Admin,
    DeadlineExceeded,
    FrontEnd,
    FrontEndOptions,
    InvalidRequest,
    PositionUnknown,
    ServerUnavailable,
    WaybillNotFound,
    scan_event,
)
from trackd.v1.tracking_pb2 import TimelineOrder

QUICK = FrontEndOptions(backoff=QUICK_BACKOFF)
KNOWN = "SF0000000003"


@pytest.fixture
async def front_end(server: FaultServer) -> AsyncIterator[FrontEnd]:
    """A front end of a server that has scans of seven waybills."""
    server.shelf.store([numbered_scan(number) for number in range(700)])
    async with FrontEnd(server.address, options=QUICK) as opened:
        yield opened


async def test_one_status(front_end: FrontEnd) -> None:
    """A known waybill's status; an unknown one is told apart from every other failure."""
    assert (await front_end.get_status(KNOWN)).event_count == 100
    with pytest.raises(WaybillNotFound) as unknown:
        await front_end.get_status("SF404")
    assert unknown.value.reason == "WAYBILL_NOT_FOUND"


async def test_many_statuses_come_in_the_order_of_the_request(
    front_end: FrontEnd, server: FaultServer
) -> None:
    """1,700 numbers go out in calls of at most 500; found and missing keep the order; repeats, also
    spelt differently and far apart, are answered once.
    """
    numbers = [f"SF{number:010d}" for number in range(1_700)][::-1]
    asked = [*numbers, *numbers[:100], " sf0000000003 ", "sf404"]
    statuses = await front_end.get_statuses(asked)
    assert sum(server.lookups) == 1_702
    assert max(server.lookups) == 500
    found = [status.waybill_number for status in statuses.found]
    assert found == [f"SF{number:010d}" for number in range(7)][::-1]
    assert statuses.missing == [*numbers[:-7], "SF404"]


async def test_an_answer_that_would_be_too_large_is_asked_for_in_parts(
    front_end: FrontEnd, server: FaultServer
) -> None:
    """As often as it takes, in the same order; where one status alone is too large it raises."""
    numbers = [f"SF{number:010d}" for number in range(20)]
    server.statuses_max = 2
    statuses = await front_end.get_statuses(numbers)
    assert [status.waybill_number for status in statuses.found] == numbers[:7]
    assert statuses.missing == numbers[7:]
    server.statuses_max = 0
    with pytest.raises(InvalidRequest) as raised:
        await front_end.get_statuses(numbers)
    assert raised.value.reason == "RESPONSE_TOO_LARGE"


async def test_no_numbers_need_no_call(front_end: FrontEnd, server: FaultServer) -> None:
    """An empty look-up is answered without the server."""
    statuses = await front_end.get_statuses([])
    assert (statuses.found, statuses.missing, server.reads) == ([], [], 0)


async def test_a_look_up_that_fails_in_part_fails(server: FaultServer) -> None:
    """There is no half answer: when one call fails for good the look-up raises."""
    server.faults.extend([Fault.LOST_BEFORE_STORE] * 100)
    async with FrontEnd(server.address, options=QUICK) as front_end:
        with pytest.raises(ServerUnavailable):
            await front_end.get_statuses([f"SF{n:010d}" for n in range(1_200)], timeout_ms=100)


async def test_a_timeline_is_read_page_by_page(front_end: FrontEnd, server: FaultServer) -> None:
    """Pages are asked for one by one as they are wanted; all together they are the timeline."""
    pages = front_end.get_timeline(KNOWN, page_size=30)
    first = await anext(pages)
    assert server.reads == 1
    sizes = [len(first.events)] + [len(page.events) async for page in pages]
    assert sizes == [30, 30, 30, 10]
    timeline = await front_end.timeline(KNOWN)
    assert timeline == server.shelf.timeline(KNOWN)
    newest = await front_end.timeline(KNOWN, order=TimelineOrder.TIMELINE_ORDER_NEWEST_FIRST)
    assert newest == timeline[::-1]


async def test_a_long_timeline_is_read_to_its_end(server: FaultServer) -> None:
    """More events than a page may have come back in one list."""
    events = [
        scan_event(event_id=f"e:{n}", waybill_number="W1234", code="SORTED", occurred_at=n + 1)
        for n in range(1_234)
    ]
    server.shelf.store(events)
    async with FrontEnd(server.address) as front_end:
        assert await front_end.timeline("W1234") == events


async def test_reads_outlast_a_server_that_is_away(
    front_end: FrontEnd, server: FaultServer
) -> None:
    """UNAVAILABLE and overload are tried again, more often than a gRPC retry policy would."""
    server.faults.extend([Fault.LOST_BEFORE_STORE] * 6 + [Fault.OVERLOADED])
    assert (await front_end.get_status(KNOWN)).event_count == 100
    assert server.reads == 8


async def test_a_read_ends_with_its_deadline(front_end: FrontEnd, server: FaultServer) -> None:
    """A late answer is a DeadlineExceeded; a server that stays away is told as what it is."""
    server.faults.append(Fault.LATE)
    with pytest.raises(DeadlineExceeded):
        await front_end.get_status(KNOWN, timeout_ms=50)
    server.faults.extend([Fault.LOST_BEFORE_STORE] * 1_000)
    with pytest.raises(ServerUnavailable) as away:
        await front_end.get_status(KNOWN, timeout_ms=100)
    assert away.value.reason == "STARTING"


async def test_what_a_retry_cannot_mend_is_not_retried(
    front_end: FrontEnd, server: FaultServer
) -> None:
    """A position of another data set is told after one call, with the server's metadata."""
    with pytest.raises(PositionUnknown) as foreign:
        await front_end.get_status(KNOWN, min_position="foreign")
    assert foreign.value.metadata == {"data_set_id": "d1"}
    assert server.reads == 1


async def test_a_call_that_runs_while_its_client_is_closed_says_so(
    front_end: FrontEnd, server: FaultServer
) -> None:
    """It was not cancelled, and does not look like it to whoever waits for its task."""
    server.faults.append(Fault.NEVER_ANSWERED)
    asking = asyncio.create_task(front_end.get_status(KNOWN, timeout_ms=60_000))
    while server.faults:  # noqa: ASYNC110 (the server tells nobody)
        await asyncio.sleep(0)
    await front_end.close()
    with pytest.raises(RuntimeError, match="closed"):
        await asking


async def test_a_server_that_was_never_there(server: FaultServer) -> None:
    """Nobody listens: the caller is told within its deadline."""
    await server.stop()
    async with FrontEnd(server.address, options=QUICK) as front_end:
        with pytest.raises(ServerUnavailable):
            await front_end.get_status(KNOWN, timeout_ms=100)


async def test_operators_questions(server: FaultServer) -> None:
    """Topology and stats come back as the server gave them."""
    async with Admin(server.address) as admin:
        topology = await admin.get_topology()
        assert [each.address for each in topology.partitions] == [server.address]
        assert (await admin.get_stats()).server_version == "0"
