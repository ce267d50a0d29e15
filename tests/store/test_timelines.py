"""Timelines: what is ahead of the table and what is in it are read as one."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackd.store import statuses
from trackd.store.keys import ORDER_LENGTH, Table, events_prefix, status_key
from trackd.store.memory_engine import MemoryEngine
from trackd.store.pages import page_of
from trackd.store.timelines import Timelines

pytestmark = pytest.mark.usefixtures("loops")

# One number is the beginning of another.
KEYS = [status_key(number) for number in ("SF1", "SF10", "SF2")]


def event_key(key: bytes, at: int) -> bytes:
    """The key of a waybill's event at some time."""
    return key + at.to_bytes(ORDER_LENGTH, "big")


@given(st.randoms(use_true_random=False))
def test_they_are_one_sorted_dict(rng: Random) -> None:
    """Rows in the table, ahead of it, or, after a crash, in both: each counts once, in order."""
    engine, ahead = MemoryEngine(), statuses.Ahead(0)
    timelines = Timelines(engine, ahead)
    model: dict[bytes, bytes] = {}
    for _ in range(rng.randint(0, 20)):
        row = event_key(rng.choice(KEYS), rng.randrange(50)), rng.randbytes(rng.randint(1, 9))
        if row[0] in model:
            continue
        model.update([row])
        where = rng.choice(["table", "ahead", "both"])
        if where != "ahead":
            engine.write([(Table.EVENTS, [row])])
        if where != "table":
            ahead.put([row])
    for key in KEYS:
        prefix = events_prefix(key)
        expected = sorted(row for row in model.items() if row[0].startswith(prefix))
        assert list(timelines.rows(key)) == expected
        for at in range(0, 50, 7):
            assert timelines.get(event_key(key, at)) == model.get(event_key(key, at))
            for start in (b"", event_key(key, at), event_key(key, at) + b"\0"):
                limits = {"rows_max": rng.randint(1, 6), "bytes_max": rng.choice([0, 9, 30, 1_000])}
                page = timelines.page(key, start, **limits)
                assert page == page_of([row for row in expected if row[0] >= start], **limits)


def test_pages_follow_each_other_while_events_are_written_back() -> None:
    """A reader goes on after the last key that it has, wherever that is by then."""
    engine, ahead = MemoryEngine(), statuses.Ahead(0)
    timelines = Timelines(engine, ahead)
    rows = [(event_key(KEYS[0], at), b"%02d" % at) for at in range(20)]
    engine.write([(Table.EVENTS, rows[::3])])
    ahead.put([row for row in rows if row not in rows[::3]])
    found: list[bytes] = []
    start = b""
    while True:
        values, last_key = timelines.page(KEYS[0], start, rows_max=3, bytes_max=1_000)
        found += values
        if last_key is None:
            break
        start = last_key + b"\0"
        if len(found) == 9:
            events, _, end = ahead.take(0, 1 << 16, 1_000)
            engine.write_unlogged([(Table.EVENTS, events)])
            ahead.written_out(0, end, 20)
    assert found == [value for _, value in rows]


def test_rows_are_those_of_one_moment() -> None:
    """What is written back while somebody reads does not vanish between the two."""
    engine, ahead = MemoryEngine(), statuses.Ahead(0)
    timelines = Timelines(engine, ahead)
    rows = [(event_key(KEYS[0], at), b"%02d" % at) for at in range(6)]
    engine.write([(Table.EVENTS, rows[:2])])
    ahead.put(rows[2:])
    reading = timelines.rows(KEYS[0])
    first = next(reading)
    events, _, end = ahead.take(0, 1 << 16, 1_000)
    engine.write_unlogged([(Table.EVENTS, events)])
    ahead.written_out(0, end, 6)
    assert [first, *reading] == rows
