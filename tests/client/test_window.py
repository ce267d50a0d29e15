"""The window's rules: what is sent, what an answer settles, how a scan at fault is found."""

import random
from collections.abc import Sequence

import pytest

from tests.client.journeys import numbered_scan
from trackd.client.window import AnswerMismatch, Batch, Entry, Window
from trackd.v1.ingest_pb2 import Rejection, StreamEventsRequest, StreamEventsResponse


def entries(first: int, last: int) -> list[Entry]:
    """Scans with those sequences."""
    numbers = range(first, last + 1)
    return [Entry(sequence=n, wire=numbered_scan(n).SerializeToString()) for n in numbers]


def window() -> Window:
    """A small one that starts behind sequence 10."""
    return Window(settled=10, batch_events_max=8, batches_in_flight_max=3)


def answer(batch: Batch, *, rejected: Sequence[int] = ()) -> StreamEventsResponse:
    """The server's answer for a batch."""
    return StreamEventsResponse(
        batch_id=batch.batch_id,
        accepted=len(batch.entries) - len(rejected),
        rejections=[Rejection(index=index) for index in rejected],
    )


def test_a_batch_encodes_as_the_contract_says() -> None:
    """The hand-joined request is the one that protobuf would write, whatever a scan's length."""
    for size in (0, 1, 100, 127, 128, 500, 16_300, 16_400):
        scans = [numbered_scan(1, remark="r" * size), numbered_scan(2)]
        wires = [scan.SerializeToString() for scan in scans]
        batch = Batch("7", [Entry(n, wire) for n, wire in enumerate(wires)])
        expected = StreamEventsRequest(batch_id="7", events=scans)
        assert batch.encode() == expected.SerializeToString()


def test_batches_settle_in_the_order_sent() -> None:
    """Each answer settles the oldest batch; a lost link puts the rest back."""
    state = window()
    first, second, third = (state.send(entries(s, s + 4)) for s in (11, 16, 21))
    assert [state.has_room, state.in_flight] == [False, 3]
    batch, rejected = state.match(answer(first, rejected=[1, 4]))
    assert batch is first
    assert [each.entry.sequence for each in rejected] == [12, 15]
    state.settle(batch)
    assert (state.settled, state.sent, state.in_flight) == (15, 25, 2)
    assert [state.has_room, state.in_flight] == [True, 2]
    with pytest.raises(AnswerMismatch):
        state.match(answer(third))
    state.link_lost()
    assert (state.settled, state.sent, state.in_flight) == (15, 15, 0)
    with pytest.raises(AnswerMismatch):
        state.match(answer(second))


@pytest.mark.parametrize(
    "doubtful",
    [
        StreamEventsResponse(batch_id="1", accepted=4),
        StreamEventsResponse(batch_id="1", accepted=6),
        StreamEventsResponse(batch_id="2", accepted=5),
        StreamEventsResponse(accepted=5),
        StreamEventsResponse(batch_id="1", accepted=4, rejections=[Rejection(index=5)]),
        StreamEventsResponse(batch_id="1", accepted=4, rejections=[Rejection(index=-1)]),
        StreamEventsResponse(
            batch_id="1", accepted=3, rejections=[Rejection(index=2), Rejection(index=2)]
        ),
    ],
)
def test_a_doubtful_answer_settles_nothing(doubtful: StreamEventsResponse) -> None:
    """An answer that does not account for each scan of its batch once changes nothing."""
    state = window()
    state.send(entries(11, 15))
    with pytest.raises(AnswerMismatch):
        state.match(doubtful)
    assert (state.settled, state.sent, state.in_flight) == (10, 15, 1)


def test_after_a_lost_link_one_batch_goes_alone() -> None:
    """The first batch of a new call waits for its answer before others follow."""
    state = window()
    for first in (11, 16, 21):
        state.send(entries(first, first + 4))
    state.link_lost()
    probe = state.send(entries(11, 15))
    assert [state.has_room, state.in_flight] == [False, 1]
    state.settle(state.match(answer(probe))[0])
    state.send(entries(16, 20))
    assert [state.has_room, state.in_flight] == [True, 1]


def test_a_refusal_without_a_batch_blames_nobody() -> None:
    """A call refused before anything was sent rejects no scan and shrinks no batch."""
    state = window()
    assert state.refused() is None
    assert state.events_max == 8


def test_a_lone_batch_of_one_is_at_fault_only_when_alone() -> None:
    """With two batches in flight a refusal may be for either: the first is sent again, alone."""
    state = window()
    state.send(entries(11, 11))
    state.send(entries(12, 19))
    assert state.refused() is None
    assert state.sent == 10
    state.send(entries(11, 11))
    assert not state.has_room
    batch = state.refused()
    assert batch is not None
    assert batch.last == 11


def test_every_scan_at_fault_is_found_and_no_other() -> None:
    """For random scans at fault among 200: exactly these are given up, in few batches; afterwards
    batches are full-sized and in flight together again.
    """
    seed = 7
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(50):
        poison = set(dice.sample(range(1, 181), dice.choice([1, 2, 5])))
        state = Window(settled=0, batch_events_max=32, batches_in_flight_max=4)
        found: set[int] = set()
        batches = 0
        while state.settled < 200:
            batch = state.send(entries(state.sent + 1, min(state.sent + state.events_max, 200)))
            batches += 1
            if poison.isdisjoint(entry.sequence for entry in batch.entries):
                state.settle(state.match(answer(batch))[0])
            elif (at_fault := state.refused()) is not None:
                found.add(at_fault.last)
                state.settle(at_fault)
        assert found == poison
        assert batches < 25 * len(poison)
        assert state.events_max == 32
