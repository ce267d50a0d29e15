"""A fleet at work: scanners that stream scans, pipelined and with repeats, front ends that read.

Everything they do and see goes into the ledger. Speaks the bare contract, so that nothing between
the test and the server tries again, puts in order, or forgives.
"""

import asyncio
import collections
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from tests.harness.ledger import Ledger, SentBatch
from tests.harness.scans import ScanSource, waybills_of
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.ingest_pb2 import StreamEventsRequest
from trackd.v1.ingest_pb2_grpc import IngestServiceStub
from trackd.v1.tracking_pb2 import (
    TIMELINE_ORDER_NEWEST_FIRST,
    BatchGetStatusRequest,
    GetTimelineRequest,
)
from trackd.v1.tracking_pb2_grpc import TrackingServiceStub

if TYPE_CHECKING:  # only the stubs know it
    from trackd.v1.tracking_pb2_grpc import TrackingServiceAsyncStub

PAGE_SIZE = 500
_STATUSES_AT_A_TIME = 20
# A connection of its own for every channel, as separate devices have.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
# After the load was told to end: what is in flight is waited for, and a dead connection noticed.
_END_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """How much of everything. The pauses keep a small machine from being busy with the load."""

    scanners: int = 8
    readers: int = 2
    waybills_each: int = 80
    waybills_shared: int = 40
    batch_events_max: int = 200
    batches_in_flight: int = 6
    repeat_share: float = 0.1
    late_share: float = 0.3
    pause_s_max: float = 0.03


class Fleet:
    """Scanners and front ends of one data set, over as many runs of the server as need be."""

    def __init__(
        self, name: str, ledger: Ledger, rng: random.Random, options: FleetOptions | None = None
    ) -> None:
        self.ledger = ledger
        self.options = options or FleetOptions()
        self.waybills: list[str] = []
        # How each scanner's call ended, in the latest run; None: the test ended it, or the client
        # library did.
        self.ends: list[grpc.StatusCode | None] = []
        self._name = name
        self._rng = rng
        self._pools = itertools.count(1)
        self._sources: list[ScanSource] = []
        self._stopping = asyncio.Event()
        self.new_waybills()

    def new_waybills(self) -> None:
        """From now on the scans are of parcels that were not there before."""
        pool, options = f"{self._name}{next(self._pools)}", self.options
        shared = waybills_of(f"{pool}-ALL", options.waybills_shared)
        self.waybills = list(shared)
        self._sources = []
        for number in range(options.scanners):
            own = waybills_of(f"{pool}-{number}", options.waybills_each)
            self.waybills += own
            device = f"{pool}-dev{number}"
            source = ScanSource(
                device, [*own, *shared], self._fork(), late_share=options.late_share
            )
            self._sources.append(source)

    @contextlib.asynccontextmanager
    async def at_work(self, address: str) -> AsyncIterator[None]:
        """Everybody works for as long as the block runs, or as the server lives."""
        self._stopping = asyncio.Event()
        self.ends = []
        tasks = [asyncio.ensure_future(self._scan(source, address)) for source in self._sources]
        for number in range(self.options.readers):
            # A parcel has one reader, so that what it is shown has an order.
            parcels = self.waybills[number :: self.options.readers]
            tasks.append(asyncio.ensure_future(self._read(parcels, address)))
        try:
            yield
        finally:
            self._stopping.set()
            await asyncio.wait_for(asyncio.gather(*tasks), _END_TIMEOUT_S)

    def _fork(self) -> random.Random:
        return random.Random(self._rng.getrandbits(64))

    # Scanners.

    async def _scan(self, source: ScanSource, address: str) -> None:
        rng = self._fork()
        waiting: collections.deque[tuple[str, SentBatch]] = collections.deque()
        room = asyncio.Semaphore(self.options.batches_in_flight)
        async with grpc.aio.insecure_channel(address, OWN_CONNECTION) as channel:
            call = IngestServiceStub(channel).StreamEvents()

            async def send() -> None:
                sent: list[Sequence[ScanEvent]] = []
                for number in itertools.count():
                    await asyncio.sleep(rng.uniform(0, self.options.pause_s_max))
                    await room.acquire()
                    if self._stopping.is_set():
                        await call.done_writing()
                        return
                    events = self._events(source, sent, rng)
                    waiting.append((str(number), self.ledger.sent(events)))
                    await call.write(StreamEventsRequest(batch_id=str(number), events=events))

            sending = asyncio.ensure_future(send())
            try:
                async for answer in call:
                    batch_id, batch = waiting.popleft()
                    if answer.batch_id != batch_id:
                        fault = f"batch {batch_id!r} was answered as {answer.batch_id!r}"
                        self.ledger.faults.append(fault)
                    self.ledger.acknowledge(batch, answer)
                    room.release()
                self.ends.append(None if self._stopping.is_set() else await call.code())
            except grpc.aio.AioRpcError as error:
                self.ends.append(_end_of(error))
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    def _events(
        self, source: ScanSource, sent: list[Sequence[ScanEvent]], rng: random.Random
    ) -> Sequence[ScanEvent]:
        """A batch: a new one, an earlier one once more, or a part of one among new scans."""
        size = rng.randint(1, rng.choice([1, 20, self.options.batch_events_max]))
        events: Sequence[ScanEvent] = source.batch(size)
        if sent and rng.random() < self.options.repeat_share:
            repeated = rng.choice(sent)
            whole = rng.random() < 0.5
            events = repeated if whole else [*events, *repeated][: self.options.batch_events_max]
        sent.append(events)
        return events

    # Front ends.

    async def _read(self, waybills: Sequence[str], address: str) -> None:
        rng = self._fork()
        async with grpc.aio.insecure_channel(address, OWN_CONNECTION) as channel:
            tracking = TrackingServiceStub(channel)
            while not self._stopping.is_set():
                try:
                    await self._look_up(tracking, waybills, rng)
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.NOT_FOUND:
                        return
                await asyncio.sleep(rng.uniform(0, self.options.pause_s_max))

    async def _look_up(
        self, tracking: "TrackingServiceAsyncStub", waybills: Sequence[str], rng: random.Random
    ) -> None:
        if rng.random() < 0.5:
            some = rng.sample(waybills, min(len(waybills), _STATUSES_AT_A_TIME))
            found = await tracking.BatchGetStatus(BatchGetStatusRequest(waybill_numbers=some))
            for status in found.statuses:
                ids = [status.last_event.event_id]
                self.ledger.show(status.waybill_number, ids, status.event_count)
            return
        request = GetTimelineRequest(
            waybill_number=rng.choice(waybills),
            page_size=PAGE_SIZE,
            order=TIMELINE_ORDER_NEWEST_FIRST,
        )
        page = await tracking.GetTimeline(request)
        status = page.status
        ids = [event.event_id for event in page.events]
        self.ledger.show(status.waybill_number, ids, status.event_count)
        if not page.next_page_token and len(ids) != status.event_count:
            fault = f"{status.waybill_number}: {len(ids)} events, a count of {status.event_count}"
            self.ledger.faults.append(fault)


def _end_of(error: grpc.aio.AioRpcError) -> grpc.StatusCode | None:
    """What the server said; None if a write that crossed its word made grpc.aio forget it."""
    if "Internal error from Core" in (error.details() or ""):
        return None
    return error.code()
