"""The key space: keys are found by their prefix alone, and in the order of time."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from trackd.domain.fold import rank_of
from trackd.domain.vocabulary import EventCode
from trackd.store.keys import (
    HASH_LENGTH,
    ID_LENGTH,
    META_IDENTITY,
    META_STATUS_CHECKPOINT,
    ORDER_LENGTH,
    event_order,
    events_prefix,
    partition_of,
    position_key,
    position_of,
    split_event_key,
    status_key,
    waybill_of_status_key,
)

NUMBERS = st.from_regex(re.compile(r"[A-Z0-9-]{4,40}"), fullmatch=True)
TIMES = st.integers(946_684_800_000, 2**53)
CODES = st.sampled_from(EventCode)
IDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64)
EVENTS = st.tuples(TIMES, CODES, IDS)


@given(NUMBERS, NUMBERS, EVENTS)
def test_no_events_are_found_under_another_waybill(
    one: str, other: str, event: tuple[int, EventCode, str]
) -> None:
    """Also when one number begins with the other."""
    for longer in (other, one + other, one + "0"):
        key = status_key(longer) + event_order(*event)
        assert key.startswith(events_prefix(status_key(longer)))
        assert key.startswith(events_prefix(status_key(one))) is (longer == one)


@given(NUMBERS, EVENTS)
def test_keys_can_be_taken_apart(number: str, event: tuple[int, EventCode, str]) -> None:
    """The waybill number and the order come back out, with lengths that never change."""
    key = status_key(number)
    order = event_order(*event)
    assert len(order) == ORDER_LENGTH
    assert split_event_key(key + order) == (key, order)
    assert waybill_of_status_key(key) == number
    assert len(key) == HASH_LENGTH + len(number)


@given(st.lists(EVENTS, min_size=2, max_size=8))
def test_the_order_of_keys_is_that_of_time_and_rank(
    events: list[tuple[int, EventCode, str]],
) -> None:
    """Sorted as bytes, events are in event time, those of one millisecond as they are folded."""
    by_bytes = sorted(events, key=lambda event: event_order(*event))
    for (at, code, _), (later, next_code, _) in pairwise(by_bytes):
        assert (at, rank_of(code)) <= (later, rank_of(next_code))


@given(TIMES, CODES, IDS, IDS)
def test_an_order_ends_with_the_identity(at: int, code: EventCode, one: str, other: str) -> None:
    """The same id gives the same end at any time and code, so that a conflict is seen."""
    assert event_order(at, code, one)[-ID_LENGTH:] == event_order(5, 10, one)[-ID_LENGTH:]
    assert (event_order(at, code, one) == event_order(at, code, other)) is (one == other)


@given(NUMBERS, st.integers(1, 256))
def test_the_partition_of_a_waybill_is_part_of_the_contract(number: str, count: int) -> None:
    """Clients compute it too: xxh3_64 of the number, modulo the number of partitions."""
    assert partition_of(status_key(number), count) == xxh3_64_intdigest(number.encode()) % count


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_positions_are_in_order_as_bytes(one: int, other: int) -> None:
    """And come back out."""
    assert (position_key(one) < position_key(other)) is (one < other)
    assert position_of(position_key(one)) == one


def test_names_in_meta_are_apart() -> None:
    """Neither is the beginning of the other."""
    assert not META_IDENTITY.startswith(META_STATUS_CHECKPOINT)
    assert not META_STATUS_CHECKPOINT.startswith(META_IDENTITY)
