"""The table of statuses in memory: what is read, kept and forgotten, and its bounds in bytes."""

import pytest

from tests.store.hand import A, B, C, CountingEngine, change, row, table, waybill, write_back
from trackd.store.ahead import SLOTS
from trackd.store.keys import Table
from trackd.store.memory_engine import MemoryEngine
from trackd.store.statuses import AHEAD_EVENT_BYTES, ROW_OVERHEAD_BYTES, StatusTable

pytestmark = pytest.mark.usefixtures("loops")


def test_rows_are_read_from_disk_once() -> None:
    """Then they are remembered; unknown waybills are asked for each time, and never invented."""
    engine = CountingEngine()
    engine.write([(Table.STATUS, [(A, row(b"a")), (B, row(b"b"))])])
    statuses = table(engine)
    assert statuses.fetch([A, C, B]) == {A: row(b"a"), B: row(b"b")}
    assert (statuses.get(B), statuses.rows[A]) == (row(b"b"), row(b"a"))
    assert statuses.get(C) is None
    assert engine.asked == [A, C, B, C]


def test_what_was_read_first_is_forgotten_first_and_read_again() -> None:
    """The clean rows are bounded in bytes, the list of what to forget with them."""
    engine = CountingEngine()
    keys = [waybill(n * 300, n) for n in range(200)]
    engine.write([(Table.STATUS, [(key, row(bytes(60))) for key in keys])])
    cost = len(row(bytes(60))) + ROW_OVERHEAD_BYTES
    statuses = table(engine, cache_bytes=20 * cost)
    for key in keys:
        assert statuses.get(key) == statuses.get(key) == row(bytes(60))
        assert statuses.cached_bytes <= 21 * cost
    assert engine.asked == keys
    statuses.get(keys[-1])
    statuses.get(keys[0])
    assert engine.asked == [*keys, keys[0]]


def test_what_is_dirtied_again_and_again_is_not_forgotten() -> None:
    """A hot row outlives the cold ones that were cleaned after it was cleaned first."""
    engine = CountingEngine()
    cost = len(row(bytes(2))) + ROW_OVERHEAD_BYTES
    statuses = table(engine, cache_bytes=10 * cost, window=1)
    for position in range(1, 200, 2):
        change(statuses, position, A, waybill(40_000, position))
        assert write_back(statuses, engine, position + 1)
        assert len(statuses.rows) <= 12
        assert A in statuses.rows


def test_a_dirty_row_is_not_forgotten() -> None:
    """However small the cache: a row that is not on disk is nowhere else."""
    engine = CountingEngine()
    statuses = table(engine, cache_bytes=0, window=1_000)
    rows = change(statuses, 1, A, B)
    for number in range(50):
        engine.write([(Table.STATUS, [(waybill(5, number), row(b"cold"))])])
        assert statuses.get(waybill(5, number)) == row(b"cold")
    assert dict.fromkeys(statuses.rows) == {A: None, B: None}
    assert {key: statuses.rows[key] for key in (A, B)} == rows


def test_a_large_row_that_is_read_does_not_empty_the_memory() -> None:
    """It takes the room of its bytes; the mean length of the others is not its own."""
    engine = MemoryEngine()
    small = [waybill(n % SLOTS, n) for n in range(20_000)]
    cost = len(row(bytes(200))) + ROW_OVERHEAD_BYTES
    large = waybill(7, 99_999)
    engine.write([(Table.STATUS, [(key, row(bytes(200))) for key in small])])
    engine.write([(Table.STATUS, [(large, row(bytes(32_000)))])])
    statuses = table(engine, cache_bytes=20_000 * cost)
    for n in range(0, len(small), 500):
        statuses.fetch(small[n : n + 500])
    assert len(statuses.rows) == 20_000
    assert statuses.get(large)
    assert 19_000 <= len(statuses.rows) <= 20_000


def test_what_is_read_one_by_one_and_in_hundreds_is_bounded_alike() -> None:
    """Large rows in batches with single small ones in between: in bytes as they are."""
    engine = MemoryEngine()
    large = [waybill(n * 40, n) for n in range(1_000)]
    small = [waybill(n * 40 + 1, n) for n in range(1_000)]
    engine.write([(Table.STATUS, [(key, row(bytes(30_000))) for key in large])])
    engine.write([(Table.STATUS, [(key, row(bytes(20))) for key in small])])
    statuses = table(engine, cache_bytes=1 << 20)
    for n in range(0, 1_000, 10):
        statuses.fetch(large[n : n + 10])
        for key in small[n : n + 10]:
            statuses.get(key)
        held = [len(statuses.rows[key]) for key in [*large, *small] if key in statuses.rows]
        assert sum(held) + len(held) * ROW_OVERHEAD_BYTES < 2 << 20
        assert statuses.cached_bytes <= 1 << 20


def test_full_is_in_bytes_where_events_are_large() -> None:
    """Events of 32 KiB are full long before as many as usual are ahead."""
    statuses = table(MemoryEngine(), window=1_000)
    bound = (2 * 1_000 + 20_000) * AHEAD_EVENT_BYTES
    position = 0
    while not statuses.is_full:
        position += 1
        change(statuses, position, waybill(position), size=32 << 10)
        assert statuses.ahead.size < bound + (64 << 10)
    assert statuses.ahead.size > bound - (64 << 10)


def test_room_for_all_rows_is_bounded_too() -> None:
    """The largest setting there is opens, and takes no memory before there are rows."""
    statuses = StatusTable(
        MemoryEngine(),
        cache_bytes=1 << 20,
        write_back_events=1_000_000_000,
        checkpoint=0,
        presized=True,
    )
    assert change(statuses, 1, A) == {A: statuses.get(A)}
