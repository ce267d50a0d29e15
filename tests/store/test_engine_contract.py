"""What every engine does, held against a dict: one suite, run on disk and in memory."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.engines import Kept
from trackd.store.engine_contract import Engine, Rows
from trackd.store.engine_figures import ENGINE_FIGURES
from trackd.store.errors import WriteStalled
from trackd.store.keys import Table, event_order, events_prefix, status_key

# A hashed memtable asks for eight bytes; these differ in and behind them, at both ends of a byte.
EDGES = [b"\x00", b"\x01", b"\x7f", b"\x80", b"\xfe", b"\xff"]
KEYS = st.builds(
    lambda head, tail: head.ljust(8, b"\x00") + tail,
    st.sampled_from([b"", b"\xff" * 8, b"\x00\xff", b"abcdefgh"]),
    st.lists(st.sampled_from(EDGES), max_size=4).map(b"".join),
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from(Table), KEYS, st.one_of(st.none(), st.binary(max_size=6), st.just(b"\x00"))
    ),
    max_size=12,
)
BATCHES = st.lists(ROWS, max_size=6)


def put(engine: Engine, table: Table, *keys: bytes, value: bytes = b"v") -> None:
    """Writes rows of one value."""
    engine.write([(table, [(key, value) for key in keys])])


def write_in_time(engine: Engine, batch: list[tuple[Table, Rows]]) -> None:
    """Writes a batch as a committer does: again and again while the engine is behind."""
    while True:
        try:
            engine.write(batch)
        except WriteStalled:
            time.sleep(0.002)
        else:
            return


def unlogged_in_time(engine: Engine, batch: list[tuple[Table, Rows]]) -> int:
    """The same, past the log."""
    while True:
        try:
            return engine.write_unlogged(batch)
        except WriteStalled:
            time.sleep(0.002)


def held(engine: Engine, table: Table) -> dict[bytes, bytes]:
    """Everything in a table."""
    return dict(engine.scan_all(table))


@pytest.mark.parametrize("table", list(Table))
def test_a_row_is_found_by_its_key_and_by_no_other(kept: Kept, table: Table) -> None:
    """Nor in another table; a key that is the beginning of another is another."""
    put(kept.engine, table, b"12345678ab", value=b"long")
    put(kept.engine, table, b"12345678a", value=b"short")
    assert kept.engine.get(table, b"12345678ab") == b"long"
    assert kept.engine.get(table, b"12345678a") == b"short"
    assert kept.engine.get(table, b"12345678") is None
    for other in set(Table) - {table}:
        assert kept.engine.get(other, b"12345678a") is None
        assert held(kept.engine, other) == {}


@pytest.mark.parametrize("value", [b"", b"\x00", b"\xff" * 3, b"a\x00b", bytes(1 << 20)], ids=len)
def test_values_of_any_bytes(kept: Kept, value: bytes) -> None:
    """Empty ones are not missing ones."""
    put(kept.engine, Table.LOG, b"12345678", value=value)
    assert kept.engine.get(Table.LOG, b"12345678") == value
    assert kept.engine.get_many(Table.LOG, [b"12345678", b"87654321"]) == [value, None]
    assert held(kept.reopen(), Table.LOG) == {b"12345678": value}


def test_the_later_row_of_a_batch_counts(kept: Kept) -> None:
    """A batch is applied in its order, over all its parts."""
    kept.engine.write(
        [
            (Table.META, [(b"a", b"1"), (b"a", b"2"), (b"b", b"1"), (b"b", None)]),
            (Table.LOG, [(b"c", None), (b"c", b"3")]),
            (Table.META, [(b"a", b"4")]),
        ]
    )
    assert held(kept.engine, Table.META) == {b"a": b"4"}
    assert held(kept.engine, Table.LOG) == {b"c": b"3"}


def test_a_batch_of_nothing_changes_nothing(kept: Kept) -> None:
    """No parts, parts without rows, and deletes of what is not there."""
    kept.engine.write([])
    kept.engine.write([(Table.STATUS, []), (Table.META, [(b"nobody", None)])])
    kept.engine.flush_wal()
    assert all(held(kept.engine, table) == {} for table in Table)


def test_many_keys_at_once_come_in_their_order(kept: Kept) -> None:
    """Repeats are answered each time, misses are None, nothing gives nothing."""
    put(kept.engine, Table.STATUS, b"12345678A", value=b"a")
    put(kept.engine, Table.STATUS, b"12345678B", value=b"b")
    asked = [b"12345678B", b"12345678?", b"12345678A", b"12345678B", b"12345678"]
    assert kept.engine.get_many(Table.STATUS, asked) == [b"b", None, b"a", b"b", None]
    assert kept.engine.get_many(Table.STATUS, []) == []


def test_rows_are_scanned_in_the_order_of_bytes(kept: Kept) -> None:
    """Not of texts or of numbers: 00 is the least byte, FF the greatest; the shorter goes first."""
    keys = [b"", *EDGES, *(a + b for a in EDGES for b in EDGES)]
    put(kept.engine, Table.LOG, *reversed(keys[1:]))
    assert [key for key, _ in kept.engine.scan_all(Table.LOG)] == sorted(keys[1:])


def test_a_scan_begins_where_it_is_told(kept: Kept) -> None:
    """The start belongs to the scan, whether there is such a row or not."""
    put(kept.engine, Table.LOG, b"b", b"d", b"f")
    for start, found in ((b"", b"bdf"), (b"b", b"bdf"), (b"c", b"df"), (b"f", b"f"), (b"g", b"")):
        assert b"".join(key for key, _ in kept.engine.scan_all(Table.LOG, start)) == found


def test_a_waybills_events_are_not_those_of_a_longer_number(kept: Kept) -> None:
    """SF1, SF10 and SF100 share their beginning; a scan of one finds exactly its own, in time."""
    expected = {}
    for number in ("SF1", "SF10", "SF100", "SF1000", "SF2"):
        prefix = events_prefix(status_key(number))
        keys = [status_key(number) + event_order(at, 30, f"{number}-{at}") for at in (5, 1, 3, 255)]
        put(kept.engine, Table.EVENTS, *keys)
        expected[prefix] = sorted(keys)
    for prefix, keys in expected.items():
        assert [key for key, _ in kept.engine.scan_prefix(Table.EVENTS, prefix)] == keys
        after_first = kept.engine.scan_prefix(Table.EVENTS, prefix, keys[0] + b"\x00")
        assert [key for key, _ in after_first] == keys[1:]


@pytest.mark.usefixtures("loops")
def test_a_page_is_the_beginning_of_a_scan(kept: Kept) -> None:
    """Bounded in rows and in bytes, but never empty; it says whether there is more."""
    prefix, other = events_prefix(status_key("SF1")), events_prefix(status_key("SF10"))
    keys = [prefix + bytes((number,)) for number in range(5)]
    put(kept.engine, Table.EVENTS, *keys, other, value=b"four")
    for rows_max in (1, 4, 5, 6):
        for bytes_max in (0, 4, 7, 8, 19, 20, 21):
            for first in range(6):
                start = keys[first] if first < len(keys) else prefix + b"\xff"
                page = kept.engine.read_page(
                    Table.EVENTS, prefix, start, rows_max=rows_max, bytes_max=bytes_max
                )
                count = min(5 - first, max(1, min(rows_max, bytes_max // 4)))
                last_key = keys[first + count - 1] if first + count < len(keys) else None
                assert page == ([b"four"] * count, last_key)
    page = kept.engine.read_page(Table.EVENTS, events_prefix(b"unknown!"), rows_max=1, bytes_max=1)
    assert page == ([], None)


@pytest.mark.usefixtures("loops")
def test_a_page_has_the_rows_beside_the_table_in_their_places(kept: Kept) -> None:
    """Before, between and behind those of the table; one that is in both counts once."""
    prefix, other = events_prefix(status_key("SF1")), events_prefix(status_key("SF10"))
    keys = [prefix + bytes((number,)) for number in range(6)]
    put(kept.engine, Table.EVENTS, other, value=b"four")
    for stored in range(1 << 6):
        inside = [key for at, key in enumerate(keys) if stored >> at & 1]
        kept.engine.write([(Table.EVENTS, [(key, None) for key in keys])])
        put(kept.engine, Table.EVENTS, *inside, value=b"four")
        for both in (keys[:0], keys[1:4], keys):
            beside = [(key, b"four") for key in keys if key not in inside or key in both]
            for rows_max, bytes_max in ((1, 99), (3, 99), (6, 99), (7, 99), (7, 0), (7, 19)):
                page = kept.engine.read_page(
                    Table.EVENTS, prefix, beside=beside, rows_max=rows_max, bytes_max=bytes_max
                )
                count = max(1, min(6, rows_max, bytes_max // 4))
                assert page == ([b"four"] * count, keys[count - 1] if count < 6 else None)
            start = keys[2]
            later = [row for row in beside if row[0] >= start]
            page = kept.engine.read_page(
                Table.EVENTS, prefix, start, beside=later, rows_max=9, bytes_max=99
            )
            assert page == ([b"four"] * 4, None)


def test_a_prefix_of_ff_has_an_end(kept: Kept) -> None:
    """There is no key behind the last prefix that could serve as its bound."""
    put(kept.engine, Table.EVENTS, b"\xff" * 8, b"\xff" * 9, b"\xff" * 8 + b"\x00", b"\xfe" * 8)
    found = [key for key, _ in kept.engine.scan_prefix(Table.EVENTS, b"\xff" * 8)]
    assert found == [b"\xff" * 8, b"\xff" * 8 + b"\x00", b"\xff" * 9]


def test_what_is_written_past_the_log_is_read_like_anything_else(kept: Kept) -> None:
    """At once, in order of the writes among all others; a later one of the log goes before it."""
    engine = kept.engine
    put(engine, Table.STATUS, b"12345678A", b"12345678B", value=b"logged")
    rows: Rows = [(b"12345678B", b"unlogged"), (b"12345678C", b"unlogged"), (b"12345678A", None)]
    engine.write_unlogged([(Table.STATUS, rows), (Table.EVENTS, [(b"12345678", b"e")])])
    assert held(engine, Table.STATUS) == {b"12345678B": b"unlogged", b"12345678C": b"unlogged"}
    assert engine.get_many(Table.STATUS, [b"12345678A", b"12345678B"]) == [None, b"unlogged"]
    assert engine.get(Table.EVENTS, b"12345678") == b"e"
    put(engine, Table.STATUS, b"12345678C", value=b"logged")
    engine.delete_all(Table.EVENTS)
    engine.flush_wal()
    engine.keep_unlogged()
    engine = kept.reopen()
    assert held(engine, Table.STATUS) == {b"12345678B": b"unlogged", b"12345678C": b"logged"}
    assert held(engine, Table.EVENTS) == {}


def test_writes_past_the_log_are_counted_from_one_on(kept: Kept) -> None:
    """In their order, those of nothing too; a reopened engine counts anew."""
    for round_number in range(2):
        engine = kept.engine
        assert engine.kept_unlogged() == 0
        for number in range(1, 8):
            rows: Rows = [(b"1234567%d" % number, b"%d" % round_number)] if number % 3 else []
            assert engine.write_unlogged([(Table.STATUS, rows)]) == number
            assert 0 <= engine.kept_unlogged() <= number
        engine.flush_wal()
        kept.reopen()


def test_what_is_kept_stays_kept(kept: Kept) -> None:
    """All that was written before is counted then, and what comes later is not, for a while."""
    engine = kept.engine
    engine.keep_unlogged()
    assert engine.kept_unlogged() == 0
    most = 0
    for number in range(1, 200):
        table = Table.EVENTS if number % 5 else Table.STATUS
        write_in_time(engine, [(Table.LOG, [(b"%012d" % number, bytes(100))])])
        assert unlogged_in_time(engine, [(table, [(b"%012d" % number, bytes(900))])]) == number
        assert most <= (most := engine.kept_unlogged()) <= number
        if number % 60 == 0:
            engine.keep_unlogged()
            assert engine.kept_unlogged() == number
            most = number
    engine.keep_unlogged()
    engine = kept.reopen()
    assert len(held(engine, Table.EVENTS)) + len(held(engine, Table.STATUS)) == 199


def test_a_scan_sees_one_moment(kept: Kept) -> None:
    """What is written while somebody scans does not appear, change or vanish under their hands."""
    put(kept.engine, Table.EVENTS, b"12345678A", b"12345678C", value=b"old")

    def drained(rows: Iterator[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        first = next(rows)
        kept.engine.write(
            [(Table.EVENTS, [(b"12345678B", b"new"), (b"12345678C", b"new"), (b"12345678A", None)])]
        )
        rest = [first, *rows]
        kept.engine.write(
            [(Table.EVENTS, [(b"12345678B", None), (b"12345678C", b"old"), (b"12345678A", b"old")])]
        )
        return rest

    before = [(b"12345678A", b"old"), (b"12345678C", b"old")]
    assert drained(kept.engine.scan_prefix(Table.EVENTS, b"12345678")) == before
    assert drained(kept.engine.scan_all(Table.EVENTS)) == before


def test_a_scan_that_nobody_finishes_does_no_harm(kept: Kept) -> None:
    """A page of a timeline ends early: writing, flushing and reopening go on."""
    put(kept.engine, Table.EVENTS, *(b"12345678%03d" % n for n in range(50)))
    rows = kept.engine.scan_prefix(Table.EVENTS, b"12345678")
    next(rows)
    put(kept.engine, Table.EVENTS, b"12345678999")
    kept.engine.flush_wal()
    del rows
    assert len(held(kept.reopen(), Table.EVENTS)) == 51


def test_the_last_key_of_a_table(kept: Kept) -> None:
    """None without rows; deletes and other tables are taken into account."""
    assert kept.engine.last_key(Table.LOG) is None
    put(kept.engine, Table.LOG, b"\x00\x02", b"\x01\x00", b"\x00\xff")
    put(kept.engine, Table.META, b"\xff")
    assert kept.engine.last_key(Table.LOG) == b"\x01\x00"
    kept.engine.write([(Table.LOG, [(b"\x01\x00", None)])])
    assert kept.engine.last_key(Table.LOG) == b"\x00\xff"
    assert kept.reopen().last_key(Table.LOG) == b"\x00\xff"


@pytest.mark.parametrize("table", list(Table))
def test_a_table_can_be_emptied(kept: Kept, table: Table) -> None:
    """It alone, whatever its keys; what is written later is there, after a reopening too."""
    keys = [b"\x00" * 8, b"12345678", b"\xff" * 8, b"\xff" * 12]
    for each in Table:
        put(kept.engine, each, *keys)
    kept.engine.delete_all(table)
    assert kept.engine.last_key(table) is None
    assert kept.engine.get_many(table, keys) == [None] * 4
    kept.engine.delete_all(table)
    put(kept.engine, table, b"12345678", value=b"again")
    kept.engine.flush_wal()
    engine = kept.reopen()
    assert held(engine, table) == {b"12345678": b"again"}
    assert all(len(held(engine, other)) == 4 for other in set(Table) - {table})


def test_everything_is_there_after_a_reopening(kept: Kept) -> None:
    """More rows than the memtables hold, in batches, with overwrites and deletes, twice."""
    expected: dict[bytes, bytes] = {}
    engine = kept.engine
    for round_number in range(2):
        for batch in range(40):
            rows: list[tuple[bytes, bytes | None]] = []
            for n in range(50):
                number = (batch * 37 + n * 11 + round_number) % 1_500
                key = status_key(f"SF{number}")
                value = None if n % 9 == 0 else b"%d-%d" % (batch, n) * 40
                rows.append((key, value))
            for key, value in rows:
                if value is None:
                    expected.pop(key, None)
                else:
                    expected[key] = value
            write_in_time(engine, [(Table.STATUS, rows)])
        engine.flush_wal()
        engine = kept.reopen()
        assert list(engine.scan_all(Table.STATUS)) == sorted(expected.items())
    keys = [status_key(f"SF{number}") for number in range(1_500)]
    assert engine.get_many(Table.STATUS, keys) == [expected.get(key) for key in keys]


def test_an_engine_says_how_it_is_doing(kept: Kept) -> None:
    """Every figure that is documented, as a number."""
    put(kept.engine, Table.EVENTS, *(b"12345678%03d" % n for n in range(50)))
    figures = kept.engine.figures()
    assert figures.keys() == ENGINE_FIGURES.keys()
    assert all(value >= 0 for value in figures.values())
    assert figures["events_estimate"] == 50


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(batches=BATCHES, prefix=KEYS, start=KEYS, reopened=st.booleans())
def test_an_engine_is_a_sorted_dict(
    kept: Kept, batches: list[list[tuple[Table, bytes, bytes | None]]], prefix: bytes,
    start: bytes, reopened: bool,
) -> None:  # fmt: skip
    """Any batches: what is got, and scanned from anywhere and by any prefix, is what a dict has."""
    engine = kept.engine
    for table in Table:
        engine.delete_all(table)
    expected: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
    for batch in batches:
        engine.write([(table, [(key, value)]) for table, key, value in batch])
        for table, key, value in batch:
            if value is None:
                expected[table].pop(key, None)
            else:
                expected[table][key] = value
    if reopened:
        engine.flush_wal()
        engine = kept.reopen()
    for table, rows in expected.items():
        ordered = sorted(rows.items())
        assert list(engine.scan_all(table)) == ordered
        assert list(engine.scan_all(table, start)) == [row for row in ordered if row[0] >= start]
        under = [row for row in ordered if row[0].startswith(prefix)]
        assert list(engine.scan_prefix(table, prefix)) == under
        within = prefix + start[8:]
        found = list(engine.scan_prefix(table, prefix, within))
        assert found == [row for row in under if row[0] >= within]
        assert engine.last_key(table) == (ordered[-1][0] if ordered else None)
        asked = [prefix, *rows, start, prefix]
        assert engine.get_many(table, asked) == [rows.get(key) for key in asked]
