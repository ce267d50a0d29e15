"""Poison: invalid events of every kind among many good ones (row 14 of the promises).

What the simulator spoils it says so of each event: the server must reject just these, with index,
field and reason, and store all others, each once.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from tests.conftest import Serve
from tests.harness.seeds import SEED
from tests.wire.caller import Caller
from trackd.domain.vocabulary import Rejection
from trackd.simulator.imperfections import Arrival, Imperfections, Oddity
from trackd.simulator.simulation import Simulation
from trackd.simulator.wire import scan_event
from trackd.v1.ingest_pb2 import StreamEventsRequest, StreamEventsResponse
from trackd.v1.tracking_pb2 import BatchGetStatusRequest, GetTimelineRequest

NOON_MS = 1_700_000_000_000
BATCH_EVENTS = 200
POISONED = Imperfections(late=0.02, overtaken=0.02, repeated=0.03, conflicting=0.005, invalid=0.01)

FIELDS = {
    Rejection.INVALID_WAYBILL_NUMBER: r"waybill_number",
    Rejection.INVALID_EVENT_ID: r"event_id",
    Rejection.UNKNOWN_CODE: r"code",
    Rejection.TIME_OUT_OF_RANGE: r"occurred_at_ms",
    Rejection.FIELD_TOO_LONG: r"facility_code|device_id|remark|container_number|attributes.*",
    Rejection.INVALID_FIELD: r"facility_code|remark|reason|location\..*|receipt\.proof_sha256",
    Rejection.CONFLICT: r"event_id",
}


def batches(arrivals: list[Arrival]) -> Iterator[list[Arrival]]:
    """The arrivals, some at a time."""
    for start in range(0, len(arrivals), BATCH_EVENTS):
        yield arrivals[start : start + BATCH_EVENTS]


def compare(batch: list[Arrival], answer: StreamEventsResponse) -> None:
    """Holds an answer against what the simulator says of each event."""
    wanted = {
        index: arrival.rejection
        for index, arrival in enumerate(batch)
        if arrival.rejection is not None
    }
    assert {each.index: int(each.reason) for each in answer.rejections} == wanted
    for rejection in answer.rejections:
        reason = Rejection(int(rejection.reason))
        assert re.fullmatch(FIELDS[reason], rejection.field), rejection
        assert rejection.message
    repeats = sum(arrival.oddity == Oddity.REPEAT for arrival in batch)
    assert answer.duplicates == repeats
    assert answer.accepted == len(batch) - repeats - len(wanted)


async def poison(caller: Caller, seed: int, count: int) -> None:
    """Streams so many events, poison among them, and reads everything back."""
    simulation = Simulation(seed, NOON_MS, 3 * count, POISONED, parcels=count // 17)
    arrivals = list(simulation.arrivals())
    kinds = Counter(arrival.rejection for arrival in arrivals)
    assert set(kinds) == {None, *Rejection}, "the poison is of every kind"
    stream = caller.stream()

    async def send() -> None:
        for number, batch in enumerate(batches(arrivals)):
            events = [scan_event(arrival.scan) for arrival in batch]
            await stream.call.write(StreamEventsRequest(batch_id=f"{number}", events=events))
        await stream.call.done_writing()

    sending = asyncio.ensure_future(send())
    for batch in batches(arrivals):
        compare(batch, await stream.answer())
    await sending
    assert await stream.rest() == []
    good: dict[str, set[str]] = {}
    for arrival in arrivals:
        if arrival.rejection is None:
            good.setdefault(arrival.scan.waybill_number, set()).add(arrival.scan.event_id)
    numbers = sorted(good)
    for start in range(0, len(numbers), 500):
        request = BatchGetStatusRequest(waybill_numbers=numbers[start : start + 500])
        answer = await caller.tracking.BatchGetStatus(request)
        assert not answer.missing_waybill_numbers
        for status in answer.statuses:
            assert status.event_count == len(good[status.waybill_number])
    for number in Random(seed).sample(numbers, 100):
        timeline = await caller.tracking.GetTimeline(
            GetTimelineRequest(waybill_number=number, page_size=500)
        )
        assert {event.event_id for event in timeline.events} == good[number]


async def test_poison_is_reported_and_nothing_else_is_lost(caller: Caller) -> None:
    """20,000 events, 1 % invalid of every kind, some conflicts and repeats."""
    await poison(caller, 17, 20_000)


@pytest.mark.torture
async def test_much_poison_is_reported_and_nothing_else_is_lost(serve: Serve) -> None:
    """The same with 500,000."""
    print(f"TRACKD_TEST_SEED={SEED}")
    server = await asyncio.to_thread(serve)
    caller = Caller(server.grpc)
    await poison(caller, SEED, 500_000)
    await caller.channel.close()
