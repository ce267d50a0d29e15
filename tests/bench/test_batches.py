"""The bench's batches: what is counted later is only worth something if they are right."""

from collections import Counter

import pytest

from bench.batches import EVENT_BYTES, BatchMaker, Mix, run_name, waybill_number
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.ingest_pb2 import StreamEventsRequest
from trackd.v1.vocabulary_pb2 import EventCode

NOW_MS = 1_800_000_000_000


def events_of(maker: BatchMaker, batches: int) -> list[ScanEvent]:
    return [
        event
        for number in range(batches)
        for event in StreamEventsRequest.FromString(maker.make(NOW_MS + number)).events
    ]


def test_every_event_is_new() -> None:
    """Without repeats no event id comes twice, and times are those of the batches, ascending."""
    events = events_of(BatchMaker(Mix(events_per_batch=50, waybills=1_000)), 200)
    assert len({event.event_id for event in events}) == len(events) == 10_000
    assert [event.occurred_at_ms for event in events] == [
        NOW_MS + number for number in range(200) for _ in range(50)
    ]


def test_events_are_scans_of_the_vocabulary() -> None:
    """Every event has a known code and the size that the report tells."""
    events = events_of(BatchMaker(Mix()), 5)
    assert {event.code for event in events} <= set(EventCode.values()) - {0}
    assert {len(event.SerializeToString()) for event in events} == {EVENT_BYTES}


@pytest.mark.parametrize("waybills", [1, 10, 30, 200])
def test_waybills_are_drawn_from_all_and_no_others(waybills: int) -> None:
    """Each of the waybills asked for is drawn, about equally often, and none beside them."""
    events = events_of(BatchMaker(Mix(events_per_batch=100, waybills=waybills)), 400)
    counts = Counter(event.waybill_number for event in events)
    assert set(counts) == {waybill_number(index) for index in range(waybills)}
    assert max(counts.values()) < 2 * len(events) / waybills


def test_a_number_of_waybills_that_digits_cannot_draw_is_refused() -> None:
    """123 is not one to ten times a power of ten."""
    with pytest.raises(ValueError, match="power of ten"):
        BatchMaker(Mix(waybills=123))


def test_repeats_are_whole_events_sent_before() -> None:
    """`repeated` events are byte for byte an earlier one, about the part asked for."""
    maker = BatchMaker(Mix(events_per_batch=100, waybills=100, repeats=0.05))
    events = events_of(maker, 200)
    seen: set[bytes] = set()
    repeated = 0
    for event in events:
        wire = event.SerializeToString()
        repeated += wire in seen
        seen.add(wire)
    assert repeated == maker.repeated
    assert maker.made == len(events) == 20_000
    assert 900 <= maker.repeated <= 1_000


def test_a_batch_for_given_waybills_is_about_them() -> None:
    """Waybills in the order asked for, one event each."""
    maker = BatchMaker(Mix(events_per_batch=3))
    request = StreamEventsRequest.FromString(maker.make_for([7, 999_999, 7], NOW_MS))
    assert [event.waybill_number for event in request.events] == [
        waybill_number(7),
        waybill_number(999_999),
        waybill_number(7),
    ]


def test_a_seed_is_a_load() -> None:
    """The same mix makes the same bytes, another seed makes others, another run other ids only."""
    one, same, other = (BatchMaker(Mix(seed=seed)).make(NOW_MS) for seed in (1, 1, 2))
    assert one == same != other
    first, second = (
        StreamEventsRequest.FromString(BatchMaker(Mix(run=run_name(number))).make(NOW_MS)).events
        for number in (1, 2)
    )
    assert not {event.event_id for event in first} & {event.event_id for event in second}
    assert [event.waybill_number for event in first] == [event.waybill_number for event in second]


@pytest.mark.parametrize("shares", [2, 3])
def test_shared_out_a_batch_is_of_one_share(shares: int) -> None:
    """Every waybill is drawn, each only in batches of its own share, and every event is new."""
    maker = BatchMaker(Mix(events_per_batch=50, waybills=100))

    def share_of(number: str) -> int:
        return int(number[2:]) % shares

    maker.share_out(share_of, shares=shares)
    seen: set[str] = set()
    ids: set[str] = set()
    for number in range(300):
        share = number % shares
        events = StreamEventsRequest.FromString(maker.make(NOW_MS, share)).events
        assert {share_of(event.waybill_number) for event in events} == {share}
        seen.update(event.waybill_number for event in events)
        ids.update(event.event_id for event in events)
    assert seen == {waybill_number(index) for index in range(100)}
    assert len(ids) == maker.made == 15_000


def test_waybills_that_are_too_few_to_share_are_refused() -> None:
    """One waybill for two owners: the second would have nothing to do."""
    with pytest.raises(ValueError, match="too few for 2 shares"):
        BatchMaker(Mix(waybills=1)).share_out(lambda _: 0, shares=2)
