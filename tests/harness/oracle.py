"""The oracle: holds a server, and the files that it left, to everything in the ledger.

I1 every acknowledged scan is there; I2 none twice; I4 a status is the fold of its timeline; I7 an
unacknowledged batch is there wholly or not at all, partition by partition; nothing that a read has
shown vanishes; nothing is there that was not sent. I2 to I5 of the files themselves: verify.py.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from tests.harness.ledger import Ledger, ScanKey, content_of, key_of
from trackd.domain.fold import fold
from trackd.domain.vocabulary import flags_of
from trackd.finding import Finding
from trackd.store.events import fold_event
from trackd.store.keys import event_order, partition_of, status_key
from trackd.v1.admin_pb2 import GetTopologyRequest
from trackd.v1.admin_pb2_grpc import AdminServiceStub
from trackd.v1.event_pb2 import ScanEvent, ShipmentStatus
from trackd.v1.tracking_pb2 import GetTimelineRequest
from trackd.v1.tracking_pb2_grpc import TrackingServiceStub
from trackd.verify import verify

if TYPE_CHECKING:  # only the stubs know it
    from trackd.v1.tracking_pb2_grpc import TrackingServiceAsyncStub

_READS_AT_ONCE = 16
_PAGE_SIZE = 500
_FAULTS_SHOWN = 12


class BrokenPromise(AssertionError):
    """The server did not keep what it promises; the message begins with the first faults."""


def findings(data: Path) -> list[Finding]:
    """What is wrong with the files of a data directory that no server has open."""
    return [report for report in verify(data) if isinstance(report, Finding)]


def expect_sound(data: Path) -> None:
    """Raises BrokenPromise if anything is wrong with the files."""
    _expect_none([str(finding) for finding in findings(data)])


def _expect_none(faults: Sequence[str]) -> None:
    if faults:
        shown = "\n".join(faults[:_FAULTS_SHOWN])
        raise BrokenPromise(f"{len(faults)} faults\n{shown}")


@dataclass(slots=True)
class ReadBack:
    """What a server had of the ledger's scans."""

    data_set_id: str = ""
    waybills: set[str] = field(default_factory=set)
    present: set[ScanKey] = field(default_factory=set)
    # Acknowledged, or shown by a read, and not there.
    lost: set[ScanKey] = field(default_factory=set)
    vanished: set[ScanKey] = field(default_factory=set)
    # What is wrong with what is there.
    faults: list[str] = field(default_factory=list)


async def read_back(ledger: Ledger, address: str, waybills: Iterable[str] | None = None) -> int:
    """Reads waybills, by default all of the ledger, and holds them against it.

    Returns how many scans are there. Raises BrokenPromise. What it was shown is in the ledger from
    then on.
    """
    read = await look(ledger, address, waybills)
    faults = [f"{scan} was acknowledged and is lost" for scan in sorted(read.lost)]
    faults += [f"{scan} was shown by a read and vanished" for scan in sorted(read.vanished)]
    _expect_none([*faults, *read.faults, *ledger.faults])
    for waybill, ids in ledger.by_waybill(read.present).items():
        ledger.show(waybill, ids, len(ids))
    return len(read.present)


async def look(ledger: Ledger, address: str, waybills: Iterable[str] | None = None) -> ReadBack:
    """Reads waybills, by default all of the ledger, and says what is there and what is not."""
    read = ReadBack()
    numbers = {waybill for waybill, _ in ledger.content} if waybills is None else set(waybills)
    acknowledged = ledger.by_waybill(ledger.acknowledged)
    gate = asyncio.Semaphore(_READS_AT_ONCE)
    async with grpc.aio.insecure_channel(address) as channel:
        tracking = TrackingServiceStub(channel)

        async def one(waybill: str) -> None:
            async with gate:
                events, status = await _timeline(tracking, waybill)
            ids = {event.event_id for event in events}
            lost = acknowledged.get(waybill, set()) - ids
            vanished = ledger.shown.get(waybill, set()) - ids
            read.waybills.add(waybill)
            read.present.update(map(key_of, events))
            read.lost.update((waybill, event_id) for event_id in lost)
            read.vanished.update((waybill, event_id) for event_id in vanished)
            faults = _event_faults(ledger, events) + _status_faults(events, status)
            read.faults += [f"{waybill}: {fault}" for fault in faults]

        await asyncio.gather(*map(one, numbers))
        topology = await AdminServiceStub(channel).GetTopology(GetTopologyRequest())
    read.data_set_id = topology.data_set_id
    _whole_or_not_at_all(ledger, read, topology.partition_count)
    return read


def _event_faults(ledger: Ledger, events: Sequence[ScanEvent]) -> list[str]:
    faults = []
    if len({event.event_id for event in events}) != len(events):
        faults.append("holds a scan twice")
    for event in events:
        if ledger.content.get(key_of(event)) != content_of(event):
            faults.append(f"holds a scan that was not sent so: {event}")
        if not event.recorded_at_ms:
            faults.append(f"{event.event_id} has no recorded time")
    return faults


async def _timeline(
    tracking: "TrackingServiceAsyncStub", waybill: str
) -> tuple[list[ScanEvent], ShipmentStatus | None]:
    events: list[ScanEvent] = []
    token = ""
    while True:
        request = GetTimelineRequest(waybill_number=waybill, page_size=_PAGE_SIZE, page_token=token)
        try:
            page = await tracking.GetTimeline(request)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            return [], None
        events += page.events
        token = page.next_page_token
        if not token:
            return events, page.status


def _status_faults(events: Sequence[ScanEvent], status: ShipmentStatus | None) -> list[str]:
    if status is None:
        return []
    orders = [event_order(event.occurred_at_ms, event.code, event.event_id) for event in events]
    if orders != sorted(orders):
        return ["the timeline is out of order"]
    folded = fold([fold_event(*pair) for pair in zip(orders, events, strict=True)])
    expected = ShipmentStatus(
        waybill_number=events[0].waybill_number,
        milestone=folded.milestone,  # type: ignore[arg-type] # a number of the enum
        flags=flags_of(folded.flags),  # type: ignore[arg-type]
        last_event=events[orders.index(folded.last)],
        event_count=len(events),
        first_event_at_ms=events[0].occurred_at_ms,
        updated_at_ms=status.updated_at_ms,
        position=status.position,
    )
    if status != expected:
        return [f"the status is not the fold of the timeline: {status} instead of {expected}"]
    return []


def _whole_or_not_at_all(ledger: Ledger, read: ReadBack, partition_count: int) -> None:
    for batch in ledger.unacknowledged():
        parts: dict[int, set[bool]] = {}
        for event in batch.events:
            # What was sent in another batch too may be there because of that one.
            if event.waybill_number in read.waybills and ledger.times_sent[key_of(event)] == 1:
                partition = partition_of(status_key(event.waybill_number), partition_count)
                parts.setdefault(partition, set()).add(key_of(event) in read.present)
        if any(len(there) == 2 for there in parts.values()):
            fault = f"an unacknowledged batch of {len(batch.events)} scans is there in part"
            read.faults.append(fault)
