"""A subscription's lanes: order per waybill, everybody else passes by, nothing twice or never."""

from dataclasses import replace

from tests.feed.counter import BOUNDS, RULES, Counter


def test_one_of_a_waybill_at_a_time_and_in_order() -> None:
    """The next goes out when the one before it is acknowledged; other waybills do not wait."""
    counter = Counter()
    counter.feed("AABAC")
    assert counter.take() == [1, 3, 5]
    assert counter.take() == []
    assert counter.ack(3, 1) == [True, True]
    assert counter.take() == [2]
    assert counter.ack(2) == [True]
    assert counter.take() == [4]


def test_thousands_of_lanes_at_once() -> None:
    """Each with its own head in flight."""
    bounds = replace(BOUNDS, ahead_max=10_000, window_max=100_000)
    counter = Counter(bounds=bounds)
    counter.feed("".join(chr(0x4E00 + n) for n in range(5_000)) * 2)
    first = counter.take(10_000)
    assert first == list(range(1, 5_001))
    assert all(counter.ack(*reversed(first)))
    assert sorted(counter.take(10_000)) == list(range(5_001, 10_001))


def test_the_cursor_stands_before_the_first_unfinished_change() -> None:
    """What is finished above it is remembered; events that are no changes are passed over."""
    counter = Counter()
    counter.feed("..AB.CD.")
    progress = counter.lanes.progress
    assert (progress.cursor, progress.done()) == (2, [])
    counter.take()
    counter.ack(4, 7)
    assert (progress.cursor, progress.done()) == (2, [4, 7])
    counter.ack(3)
    assert (progress.cursor, progress.done()) == (5, [7])
    counter.ack(6)
    assert (progress.cursor, progress.done(), progress.window) == (8, [], 0)


def test_an_acknowledgement_counts_once_and_from_its_consumer_only() -> None:
    """A late one, a foreign one, one of nothing: nothing happens."""
    counter = Counter()
    counter.feed("AB")
    assert counter.take(1, consumer=1) == [1]
    assert counter.take(1, consumer=2) == [2]
    assert counter.ack(2, consumer=1) == [False]
    assert counter.ack(1, 1, 7, consumer=1) == [True, False, False]
    assert not counter.nack(1)
    assert not counter.park(1)
    assert counter.lanes.counts.acknowledged == 1
    assert counter.lanes.in_flight == 1


def test_a_rejected_change_waits_as_the_rules_say() -> None:
    """The waits in turn, the last one again, and after the last attempt it is parked."""
    counter = Counter(replace(RULES, max_attempts=4))
    counter.feed("A")
    for wait_ms in (1_000, 5_000, 5_000):
        assert counter.take() == [1]
        counter.nack(1)
        assert counter.lanes.waiting == 1
        counter.pass_time(wait_ms - 1)
        assert counter.take() == []
        counter.pass_time(1)
    (item,) = counter.items()
    assert item.attempts == 4
    counter.nack(1, reason="for good")
    assert (counter.lanes.parked, counter.lanes.waiting, counter.lanes.in_flight) == (1, 0, 0)
    counter.save()
    parked = counter.rows.parked[1]
    assert (parked.attempts, parked.reason, parked.at_ms) == (4, "for good", 11_000)
    assert counter.lanes.counts.redelivered == 3


def test_a_consumer_may_say_when_to_try_again() -> None:
    """Its delay goes before that of the rules."""
    counter = Counter()
    counter.feed("A")
    counter.take()
    counter.nack(1, delay_ms=77)
    assert counter.lanes.next_due_ms() == 77
    counter.pass_time(77)
    assert counter.take() == [1]


def test_a_lane_may_wait_twice_for_the_same_time() -> None:
    """Woken in between by an older change, and back to waiting."""
    counter = Counter()
    counter.feed("AAB")
    counter.take()
    counter.park(1)
    counter.take()
    counter.nack(2, delay_ms=500)
    counter.nack(3, delay_ms=500)
    counter.save()
    counter.redrive(1)
    counter.take()
    counter.ack(1)
    counter.pass_time(500)
    assert sorted(counter.take()) == [2, 3]


def test_what_is_handed_back_untried_is_no_attempt() -> None:
    """At once or after a delay; nothing is superseded for it, and the cursor does not wait."""
    counter = Counter(replace(RULES, supersede=True, max_attempts=1))
    counter.feed("A")
    counter.take()
    counter.nack(1, untried=True)
    counter.take()
    counter.nack(1, delay_ms=60_000, untried=True)
    counter.feed("AA")
    assert (counter.take(), counter.lanes.progress.cursor) == ([], 3)
    counter.pass_time(60_000)
    for position in (1, 2, 3):
        assert [(item.position, item.attempts) for item in counter.items()] == [(position, 1)]
        counter.ack(position)
    assert counter.lanes.counts.superseded == 0


def test_a_failing_lane_blocks_only_itself() -> None:
    """Neither the others nor the cursor wait for it; its own changes do."""
    counter = Counter()
    counter.feed("ABAC")
    counter.take()
    counter.nack(1, delay_ms=86_400_000)
    counter.ack(2, 4)
    assert counter.lanes.progress.cursor == 4
    counter.feed("ADA")
    assert counter.take() == [6]
    counter.ack(6)
    assert counter.lanes.progress.cursor == 7
    assert counter.lanes.waiting == 4
    counter.pass_time(86_400_000)
    for position in (1, 3, 5, 7):
        assert counter.take() == [position]
        counter.ack(position)
    assert counter.lanes.waiting == 0


def test_a_parked_change_lets_its_lane_move_on() -> None:
    """Whether a consumer parks it or its attempts are used up."""
    counter = Counter(replace(RULES, max_attempts=1))
    counter.feed("AAA")
    counter.take()
    counter.park(1)
    assert counter.take() == [2]
    counter.nack(2)
    assert counter.take() == [3]
    assert counter.lanes.parked == 2
    assert counter.lanes.progress.cursor == 2


def test_what_is_not_acknowledged_in_time_goes_out_again() -> None:
    """At once, to whoever asks; its lane has failed; the one who was late is told of."""
    counter = Counter()
    counter.feed("AAB")
    counter.take(1, consumer=1)
    counter.pass_time(10_000)
    counter.take(1, consumer=2)
    assert counter.pass_time(19_999) == []
    assert counter.pass_time(1) == [1]
    assert counter.lanes.progress.cursor == 2
    assert counter.ack(1, consumer=1) == [False]
    (item,) = counter.items(consumer=3)
    assert (item.position, item.attempts) == (1, 2)
    assert counter.pass_time(10_000) == [2]


def test_what_a_gone_consumer_had_goes_out_first() -> None:
    """Before what has not been out yet, in order, without waiting."""
    counter = Counter()
    counter.feed("ABCDE")
    assert counter.take(2, consumer=1) == [1, 2]
    assert counter.take(1, consumer=2) == [3]
    assert counter.gone(consumer=1) == 2
    assert counter.take(consumer=2) == [1, 2, 4, 5]
    assert counter.gone(consumer=1) == 0


def test_a_change_that_takes_its_consumers_with_it_is_parked() -> None:
    """A consumer that goes away is a failed attempt of everything that it had."""
    counter = Counter()
    counter.feed("AB")
    for attempt in range(1, 4):
        assert [item.attempts for item in counter.items(1)] == [attempt]
        counter.gone()
    assert counter.lanes.parked == 1
    assert counter.take() == [2]


def test_a_consumer_that_leaves_in_order_has_tried_nothing() -> None:
    """However often consumers come and go, nothing is parked for that."""
    counter = Counter(replace(RULES, max_attempts=1))
    counter.feed("AB")
    for _ in range(5):
        assert [item.attempts for item in counter.items()] == [1, 1]
        counter.gone(untried=True)
    assert counter.lanes.parked == 0


def test_a_change_behind_one_that_lost_its_consumer_does_not_overtake_it() -> None:
    """Not even when everything in memory is lost in between."""
    counter = Counter()
    counter.feed("A")
    counter.take()
    counter.gone()
    counter.feed("A")
    counter.save()
    counter.restart()
    assert counter.take() == [1]


def test_a_newer_change_supersedes_those_that_failed() -> None:
    """When the head fails and newer ones wait, only the newest stays, and goes out at once."""
    counter = Counter(replace(RULES, supersede=True))
    counter.feed("AAAB")
    counter.take()
    counter.nack(1)
    assert counter.lanes.counts.superseded == 2
    (item,) = counter.items()
    assert (item.position, item.attempts) == (3, 1)
    counter.nack(3)
    assert counter.take() == []
    counter.feed("A")
    assert counter.take() == [5]
    assert counter.lanes.counts.superseded == 3
    counter.feed("AA")
    counter.ack(5)
    assert counter.take() == [6], "nothing is dropped while nothing has failed"


def test_without_supersede_nothing_is_dropped() -> None:
    """Every change of a failing waybill is delivered in the end."""
    counter = Counter()
    counter.feed("AAA")
    counter.take()
    counter.nack(1)
    counter.pass_time(1_000)
    for position in (1, 2, 3):
        assert counter.take() == [position]
        counter.ack(position)


def test_nothing_that_was_saved_as_finished_is_delivered_after_a_restart() -> None:
    """And everything that was not, is: what was in flight, what waits with its attempts."""
    counter = Counter()
    counter.feed("ABCDA")
    counter.take()
    counter.ack(2)
    counter.nack(3, delay_ms=500, reason="busy")
    counter.park(4)
    counter.save()
    counter.ack(1)
    counter.restart()
    assert counter.take() == [1]
    counter.ack(1)
    assert counter.take() == [5]
    counter.pass_time(500)
    (item,) = counter.items()
    assert (item.position, item.attempts, item.reason) == (3, 2, "busy")
    assert counter.lanes.parked == 1
    counter.ack(5, 3)
    counter.save()
    assert (counter.rows.cursor, counter.rows.done, counter.rows.kept) == (5, [], {})


def test_a_second_restart_does_not_forget_what_the_first_was_told() -> None:
    """What was finished above the cursor stays finished until the cursor passes it."""
    counter = Counter()
    counter.feed("ABC")
    counter.take()
    counter.ack(2, 3)
    counter.save()
    counter.restart()
    counter.save()
    counter.restart()
    assert counter.take() == [1]


def test_a_lane_that_had_failed_before_a_restart_still_has() -> None:
    """What arrives in it later is kept too, and waits behind it."""
    counter = Counter()
    counter.feed("A")
    counter.take()
    counter.nack(1, delay_ms=1_000)
    counter.save()
    counter.restart()
    counter.feed("A")
    assert (counter.take(), counter.lanes.waiting, counter.lanes.progress.cursor) == ([], 2, 2)


def test_redriven_changes_go_out_with_fresh_attempts() -> None:
    """Before what is newer in their lane, but not before what is in flight."""
    counter = Counter()
    counter.feed("AB")
    counter.take()
    counter.park(1)
    counter.save()
    counter.feed("AA")
    assert counter.take() == [3]
    assert counter.redrive(1)
    assert counter.lanes.parked == 0
    assert counter.take() == []
    counter.ack(3)
    (item,) = counter.items()
    assert (item.position, item.attempts) == (1, 1)
    counter.save()
    assert counter.rows.parked == {}
    counter.restart()
    assert counter.take() == [1, 2]
    counter.ack(1, 2)
    assert counter.take() == [4]
    counter.ack(4)
    counter.save()
    assert counter.rows.kept == {}


def test_a_redriven_change_does_not_wait_for_a_later_one_that_failed() -> None:
    """And the later one still waits for its time when its turn comes."""
    counter = Counter()
    counter.feed("AA")
    counter.take()
    counter.park(1)
    counter.take()
    counter.nack(2, delay_ms=60_000)
    counter.save()
    counter.redrive(1)
    assert counter.take() == [1]
    counter.ack(1)
    assert counter.take() == []
    counter.pass_time(60_000)
    assert counter.take() == [2]


def test_redriven_into_an_empty_lane() -> None:
    """It makes its lane anew."""
    counter = Counter()
    counter.feed("A")
    counter.take()
    counter.park(1)
    counter.save()
    counter.redrive(1)
    assert counter.take() == [1]


def test_dropped_parked_changes_are_gone() -> None:
    """Their rows too."""
    counter = Counter()
    counter.feed("A")
    counter.take()
    counter.park(1)
    counter.save()
    counter.lanes.drop_parked(1)
    counter.save()
    assert (counter.lanes.parked, counter.rows.parked) == (0, {})
