"""A subscription's lanes at their bounds: when reading pauses, and what makes room."""

from dataclasses import replace

import pytest

from tests.feed.counter import BOUNDS, Counter


@pytest.mark.parametrize("what", ["ahead", "window", "kept", "parked"])
def test_reading_pauses_at_a_bound(what: str) -> None:
    """And goes on when there is room again."""
    counter = Counter(bounds=replace(BOUNDS, **{f"{what}_max": 3}))
    counter.feed("ABCD")
    counter.take()
    assert counter.wants_more() is (what not in {"ahead", "window"})
    if what == "kept":
        for position in (1, 2, 3):
            counter.nack(position, delay_ms=1)
    elif what == "parked":
        for position in (1, 2, 3):
            counter.park(position)
    assert not counter.wants_more()
    if what == "parked":
        counter.save()
        counter.lanes.drop_parked(2)
    counter.pass_time(1)
    counter.take()
    counter.ack(1, 2, 3, 4)
    assert counter.wants_more()


def test_one_that_hangs_does_not_hold_the_others_for_ever() -> None:
    """What holds the cursor is kept once half of the window is finished behind it."""
    counter = Counter()
    counter.feed("A" + "B" * 300)
    counter.take()
    for position in range(2, 302):
        counter.ack(position)
        counter.take()
    assert (counter.lanes.progress.cursor, counter.lanes.progress.window) == (0, 301)
    counter.lanes.make_room()
    assert (counter.lanes.progress.cursor, counter.lanes.progress.window) == (301, 0)
    counter.save()
    counter.restart()
    assert counter.take() == [1]


def test_a_long_queue_of_one_waybill_does_not_hold_the_others_for_ever() -> None:
    """When nothing else can go out it is kept, so that reading goes on."""
    counter = Counter(bounds=replace(BOUNDS, kept_max=1_000))
    counter.feed("A" * 100)
    counter.take()
    assert not counter.wants_more()
    counter.lanes.make_room()
    assert counter.wants_more()
    counter.feed("B")
    assert counter.take() == [101]


def test_what_only_waits_for_a_consumer_is_not_kept() -> None:
    """A slow consumer costs no rows."""
    counter = Counter()
    counter.feed("".join(chr(0x4E00 + n) for n in range(120)))
    counter.lanes.make_room()
    counter.save()
    assert counter.rows.kept == {}


def test_what_the_log_has_lost_is_counted() -> None:
    """The cursor goes on behind it."""
    counter = Counter()
    counter.feed("A")
    assert counter.lanes.expire(2) == 0
    assert counter.lanes.expire(10) == 8
    assert counter.take() == [1]
    counter.ack(1)
    assert counter.lanes.progress.cursor == 9


def test_reading_alone_is_no_reason_to_save() -> None:
    """What consumers say is."""
    counter = Counter()
    counter.feed("A..")
    counter.take()
    assert not counter.is_dirty()
    counter.ack(1)
    assert counter.is_dirty()
    counter.save()
    assert not counter.is_dirty()
