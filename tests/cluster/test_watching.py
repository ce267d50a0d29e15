"""WatchChanges across workers: one stream of everything, whichever worker answers it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from functools import partial

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from prometheus_client import CollectorRegistry

from tests.conftest import Serve
from tests.harness.scans import waybills_of
from tests.harness.server import ServerProcess
from tests.harness.workers import kill_worker, wait_until_whole, worker_pids
from trackd import exits
from trackd.client import SyncAdmin
from trackd.cluster.watching import JoinedFeed
from trackd.feed.partition_feed import LogBounds
from trackd.metrics import CallMetrics
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.feed_pb2 import (
    START_FROM_EARLIEST,
    START_FROM_NOW,
    START_FROM_SNAPSHOT,
    Change,
    ChangeFilter,
    FeedStart,
    StartFrom,
    WatchChangesRequest,
    WatchChangesResponse,
)
from trackd.v1.feed_pb2_grpc import FeedServiceStub
from trackd.v1.ingest_pb2 import AppendEventsRequest
from trackd.v1.ingest_pb2_grpc import IngestServiceStub
from trackd.v1.vocabulary_pb2 import EventCode
from trackd.wire import resume_tokens
from trackd.wire.calls import Calls
from trackd.wire.errors import CallError

DATA_SET_ID = "0123456789abcdef"
FLAGS = ("--partitions", "4", "--workers", "2", "--feed-heartbeat-s", "1")
JOURNEY = (
    EventCode.EVENT_CODE_PICKED_UP,
    EventCode.EVENT_CODE_ARRIVED_AT_FACILITY,
    EventCode.EVENT_CODE_OUT_FOR_DELIVERY,
    EventCode.EVENT_CODE_DELIVERED,
)


async def scanned(address: str, numbers: Sequence[str], step: int) -> None:
    """Every one of the waybills has gone a step further."""
    events = [
        ScanEvent(
            event_id=f"{number}-{step}",
            waybill_number=number,
            code=JOURNEY[step],
            occurred_at_ms=10**12 + step,
        )
        for number in numbers
    ]
    async with grpc.aio.insecure_channel(address) as channel:
        await IngestServiceStub(channel).AppendEvents(AppendEventsRequest(events=events))


class Watcher:
    """What one watch heard: the steps of each waybill in the order told, and the last token."""

    def __init__(self) -> None:
        self.told: defaultdict[str, list[int]] = defaultdict(list)
        self.token = ""
        self.caught_up = 0

    def hear(self, response: WatchChangesResponse) -> None:
        """One message."""
        self.token = response.resume_token
        self.caught_up += response.HasField("caught_up")
        for change in response.changes.changes:
            self.told[change.waybill_number].append(step_of(change))

    def is_caught_up(self) -> bool:
        """Whether everything that was durable was told, at least once."""
        return self.caught_up > 0

    def has_told(self, waybills: int) -> bool:
        """Whether it told of so many waybills."""
        return len(self.told) == waybills

    async def until(
        self,
        address: str,
        enough: Callable[[], bool],
        *,
        start: FeedStart | None = None,
        filter_: ChangeFilter | None = None,
    ) -> None:
        """Watches, from where it stopped or from `start`, until it has heard enough."""
        place = start or FeedStart(resume_token=self.token)
        async with asyncio.timeout(60):
            async for response in _responses(address, place, filter_):
                self.hear(response)
                if enough():
                    return


def step_of(change: Change) -> int:
    """Which step of the journey a change tells."""
    return int(change.event.event_id.rpartition("-")[2])


async def _responses(
    address: str, start: FeedStart, filter_: ChangeFilter | None
) -> AsyncIterator[WatchChangesResponse]:
    async with grpc.aio.insecure_channel(
        address, [("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        request = WatchChangesRequest(start=start, filter=filter_)
        async for response in FeedServiceStub(channel).WatchChanges(request):
            yield response


def place(start: StartFrom.ValueType) -> FeedStart:
    """A start without a token."""
    return FeedStart(**{"from": start})  # type: ignore[arg-type] # a word of Python


def own_addresses(server: ServerProcess) -> list[str]:
    """The own address of each of two workers."""
    with SyncAdmin(server.grpc) as admin:
        topology = admin.get_topology()
    return [topology.partitions[number].address for number in range(2)]


async def test_a_watch_hears_of_every_partition(serve: Serve) -> None:
    """The past, then what comes, in order per waybill, through whichever worker is asked."""
    server = serve(*FLAGS)
    numbers = waybills_of("WATCH", 40)
    for step in (0, 1):
        await scanned(server.grpc, numbers, step)
    for address in (server.grpc, *await asyncio.to_thread(own_addresses, server)):
        watcher = Watcher()
        await watcher.until(address, watcher.is_caught_up, start=place(START_FROM_EARLIEST))
        assert dict(watcher.told) == {number: [0, 1] for number in numbers}
    live = Watcher()
    await live.until(server.grpc, live.is_caught_up, start=place(START_FROM_NOW))
    assert not live.told
    await scanned(server.grpc, numbers, 2)
    # From the token on: nothing missing, nothing twice, and a heartbeat when it is silent again.
    live.caught_up = 0
    await live.until(server.grpc, lambda: live.caught_up > 1)
    assert dict(live.told) == {number: [2] for number in numbers}
    some = Watcher()
    await some.until(
        server.grpc,
        some.is_caught_up,
        start=place(START_FROM_EARLIEST),
        filter_=ChangeFilter(waybill_numbers=numbers[:3]),
    )
    assert dict(some.told) == {number: [0, 1, 2] for number in numbers[:3]}


async def test_a_snapshot_tells_every_waybill_once(serve: Serve) -> None:
    """The latest status of all partitions, then what comes; its token holds for any workers."""
    server = serve(*FLAGS)
    numbers = waybills_of("SNAP", 40)
    for step in (0, 1):
        await scanned(server.grpc, numbers, step)
    watcher = Watcher()
    await watcher.until(server.grpc, watcher.is_caught_up, start=place(START_FROM_SNAPSHOT))
    assert dict(watcher.told) == {number: [1] for number in numbers}
    assert await asyncio.to_thread(server.stop) == exits.DONE
    await asyncio.to_thread(server.start, "--workers", "1")
    await scanned(server.grpc, numbers, 2)
    watcher.caught_up = 0
    await watcher.until(server.grpc, watcher.is_caught_up)
    assert dict(watcher.told) == {number: [1, 2] for number in numbers}


class _Worker:
    """A worker of one partition, whose log is kept from a position on; a watch of it is before."""

    def __init__(self, number: int, oldest_position: int, *, silent: bool = False) -> None:
        self._asked = 0
        self._silent = silent
        self._own = {number: LogBounds(oldest_position=oldest_position, newest_position=90)}

    async def bounds(self) -> Mapping[int, LogBounds]:
        """Nothing is gone yet when the watch begins."""
        self._asked += 1
        if self._asked > 1:
            return self._own
        return {number: LogBounds(1, log.newest_position) for number, log in self._own.items()}

    async def watch(self, request: bytes) -> AsyncGenerator[bytes, None]:
        """Tells nothing; ends with what the place is told by now."""
        if self._silent:
            await asyncio.Event().wait()
        token = WatchChangesRequest.FromString(request).start.resume_token
        resume_tokens.parse(token, DATA_SET_ID, list(self._own.items()))
        await asyncio.Event().wait()
        yield b""


async def test_what_expired_at_one_worker_names_a_token_of_all() -> None:
    """A watch goes on from it, whichever worker says so first, and whatever expired at others."""
    calls = Calls(CallMetrics(CollectorRegistry()))
    feed = JoinedFeed(
        [_Worker(0, 31, silent=True), _Worker(1, 61), _Worker(2, 1)], calls, DATA_SET_ID
    )
    request = WatchChangesRequest(start=place(START_FROM_EARLIEST)).SerializeToString()
    with pytest.raises(CallError) as expired:
        await feed.watch_changes(request, None)
    assert (expired.value.code, expired.value.reason) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "POSITION_EXPIRED",
    )
    assert expired.value.metadata["oldest_resume_token"] == f"{DATA_SET_ID}/0.30,1.60,2.0"


async def test_a_watch_outlives_a_worker(serve: Serve) -> None:
    """A worker dies and comes back: the watch of another goes on, without a gap or a repeat."""
    server = serve(*FLAGS)
    numbers = waybills_of("OUTLIVE", 40)
    near = (await asyncio.to_thread(own_addresses, server))[0]
    watcher = Watcher()
    watching = asyncio.create_task(
        watcher.until(
            near,
            lambda: sum(map(len, watcher.told.values())) >= 3 * len(numbers),
            start=place(START_FROM_EARLIEST),
        )
    )
    await scanned(near, numbers, 0)
    for step in (1, 2):
        old = await asyncio.to_thread(worker_pids, server)
        kill_worker(server, 1)
        await asyncio.to_thread(wait_until_whole, server, since={1: old[1]})
        await scanned(near, numbers, step)
    await watching
    assert dict(watcher.told) == {number: [0, 1, 2] for number in numbers}


async def test_watches_are_told_where_to_go_on_when_all_workers_stop(serve: Serve) -> None:
    """SIGTERM: UNAVAILABLE with the resume token, exit code 0, and the token works afterwards."""
    server = serve(*FLAGS)
    numbers = waybills_of("STOPPED", 20)
    watcher = Watcher()
    codes: list[asyncio.Task[int]] = []

    def stop_once_heard() -> bool:
        codes.append(asyncio.create_task(asyncio.to_thread(server.stop)))
        return False

    with pytest.raises(grpc.aio.AioRpcError) as told:
        await watcher.until(server.grpc, stop_once_heard, start=place(START_FROM_NOW))
    assert await codes[0] == exits.DONE
    assert told.value.code() is grpc.StatusCode.UNAVAILABLE
    details = dict(told.value.trailing_metadata() or ())["grpc-status-details-bin"]
    info = ErrorInfo()
    assert isinstance(details, bytes)
    Status.FromString(details).details[0].Unpack(info)
    assert info.reason == "STOPPING"
    await asyncio.to_thread(server.start)
    await scanned(server.grpc, numbers, 0)
    watcher.token = info.metadata["resume_token"]
    await watcher.until(server.grpc, lambda: len(watcher.told) == len(numbers))


async def test_many_watches_leave_room_for_calls(serve: Serve) -> None:
    """More watches than a connection takes streams: all hear of everything, look-ups go on."""
    server = serve(*FLAGS)
    numbers = waybills_of("MANY", 20)
    near = (await asyncio.to_thread(own_addresses, server))[0]
    watchers = [Watcher() for _ in range(240)]
    start = place(START_FROM_EARLIEST)
    await asyncio.gather(*(each.until(near, each.is_caught_up, start=start) for each in watchers))
    watching = [
        asyncio.create_task(each.until(near, partial(each.has_told, 20))) for each in watchers
    ]
    await scanned(near, numbers, 0)
    await asyncio.gather(*watching)
    assert all(dict(each.told) == {one: [0] for one in numbers} for each in watchers)
