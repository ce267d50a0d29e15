"""The table of statuses: rows ahead of the disk, clean and forgotten ones read alike."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.hand import (
    A,
    B,
    C,
    CountingEngine,
    change,
    event,
    is_dirty,
    row,
    table,
    waybill,
    write_back,
)
from trackd.store.ahead import SLOTS, slot_of
from trackd.store.keys import Table, position_key, split_event_key
from trackd.store.memory_engine import MemoryEngine
from trackd.store.records import status_position
from trackd.store.statuses import AHEAD_EVENT_BYTES, StatusTable
from trackd.store.timelines import Timelines

pytestmark = pytest.mark.usefixtures("loops")


def test_a_changed_row_is_read_at_once_and_written_later() -> None:
    """Ahead of the disk until the hand comes round, then on disk with its events, and clean."""
    engine = MemoryEngine()
    statuses = table(engine, window=10)
    for position in range(1, 10):
        expected = change(statuses, position, C)[C]
        assert statuses.get(C) == expected
        assert (is_dirty(statuses, C), statuses.dirty_count) == (True, 1)
        assert write_back(statuses, engine, position) == []
        assert engine.get(Table.STATUS, C) is None
    # A write is worth its cost for a window's events, if that is less than many.
    change(statuses, 10, C)
    expected = change(statuses, 11, C)[C]
    assert write_back(statuses, engine, 11) == [C]
    assert (is_dirty(statuses, C), statuses.dirty_count) == (False, 0)
    assert statuses.get(C) == engine.get(Table.STATUS, C) == expected
    assert list(engine.scan_all(Table.EVENTS)) == [event(C, n) for n in range(1, 12)]
    assert (statuses.ahead.count, statuses.written_position) == (0, 11)


def test_a_row_that_changes_while_it_is_dirty_is_written_once() -> None:
    """That is what the table is for: the last of many versions goes to disk, all of its events."""
    engine = MemoryEngine()
    statuses = table(engine, window=4)
    change(statuses, 1, A)
    change(statuses, 2, A)
    rows = change(statuses, 3, B, A)
    part = statuses.due(4, 1_000)
    assert part is not None
    assert (part.keys, part.rows) == ([A, B], [rows[A], rows[B]])
    assert part.events == [event(A, 1), event(A, 2), event(A, 4), event(B, 3)]


def test_the_checkpoint_is_never_ahead_of_what_is_kept() -> None:
    """Nor of a slot that was not written: it is where the slot that is next was written last."""
    engine = MemoryEngine()
    statuses = table(engine, window=1_000)
    change(statuses, 1, A, B, C)
    for number, position in enumerate((0, 0, 3), 1):
        part = statuses.everything(3, 1)
        assert part is not None
        statuses.written_back(part, number)
        assert statuses.written_position == position
    assert statuses.checkpoint == 0
    assert not statuses.kept(2)
    assert statuses.checkpoint == 0
    assert statuses.kept(3)
    assert not statuses.kept(3)
    assert statuses.checkpoint == 3


def test_the_second_round_is_behind_the_first() -> None:
    """What was written then and is dirty again does not hold the checkpoint where it was."""
    engine = MemoryEngine()
    statuses = table(engine, window=1_000)
    change(statuses, 1, A, C)
    for round_number in range(1, 4):
        position = 2 * round_number
        for expected in (position - 2, position):
            part = statuses.everything(position, 1)
            assert part is not None
            statuses.written_back(part, engine.write_unlogged(part.batch))
            if expected != position:  # the hand is between the two
                change(statuses, position + 1, A)
                assert statuses.written_position == expected
        assert statuses.written_position == position
        change(statuses, position + 2, C)
    engine.keep_unlogged()
    assert statuses.kept(engine.kept_unlogged())
    assert statuses.checkpoint == 6


def test_the_work_is_spread_evenly() -> None:
    """With each event goes its share of a round, and the window is what is ahead, at most."""
    engine = MemoryEngine()
    statuses = table(engine, window=5_000, cache_bytes=0)
    rng = Random(3)
    most = most_written = 0
    for position in range(1, 20_000, 10):
        change(statuses, position, *(waybill(rng.randrange(SLOTS)) for _ in range(10)))
        before = statuses.ahead.count
        while write_back(statuses, engine, position + 9):
            pass
        most_written = max(most_written, before - statuses.ahead.count)
        most = max(most, statuses.ahead.count)
        assert position + 9 - statuses.written_position <= 5_000 + 600
    # A slot's events are all those of the last round: at the hand none, behind it a window's share.
    assert 2_000 < most < 3_800
    assert most_written < 1_000


def test_large_events_are_written_back_sooner() -> None:
    """What is ahead is bounded in bytes, too: one counts as many as it is large."""
    engine = MemoryEngine()
    statuses = table(engine, window=100)
    for position in range(1, 11):
        assert write_back(statuses, engine, position) == []
        change(statuses, position, C, size=10 * AHEAD_EVENT_BYTES)
    assert write_back(statuses, engine, 10) == [C]


def test_one_slot_is_written_however_large_it_is() -> None:
    """Or what gathered in it would never leave; of others no more than was asked for."""
    engine = MemoryEngine()
    statuses = table(engine, window=1)
    keys = [waybill(7, n) for n in range(50)]
    change(statuses, 1, waybill(3), *keys, waybill(9))
    assert write_back(statuses, engine, 52, 2) == [waybill(3)]
    assert write_back(statuses, engine, 52, 2) == keys
    assert write_back(statuses, engine, 52, 2) == [waybill(9)]
    assert write_back(statuses, engine, 52, 2) == []


def test_what_the_engine_did_not_take_stays_due() -> None:
    """After a stall it is written, so that what is ahead stays bounded however long one lasts."""
    engine = MemoryEngine()
    statuses = table(engine, window=100)
    position = 0
    for _ in range(50):
        for _ in range(20):
            position += 1
            change(statuses, position, waybill(position * 7_919 % SLOTS, position))
            part = statuses.due(position, 1_000)  # a stall: nothing is written
            assert part is None or part.events
        while write_back(statuses, engine, position):
            pass
        assert statuses.ahead.count <= 100
        assert statuses.written_position >= position - 101


def test_a_shutdown_writes_everything_a_part_at_a_time() -> None:
    """Due or not; then there is nothing more, and the window is what it was."""
    engine = MemoryEngine()
    statuses = table(engine, window=1_000)
    change(statuses, 1, A, B, C)
    change(statuses, 4, B)
    written = []
    while part := statuses.everything(4, 2):
        statuses.written_back(part, engine.write_unlogged(part.batch))
        written.append(part.keys)
    assert written == [[A], [B], [C]], "B has two events, and A's would make three"
    assert (statuses.dirty_count, statuses.ahead.count, statuses.ahead.size) == (0, 0, 0)
    engine.keep_unlogged()
    statuses.kept(engine.kept_unlogged())
    assert statuses.checkpoint == 4
    change(statuses, 5, A)
    assert statuses.due(5, 100) is None


def test_a_row_that_a_crash_left_ahead_of_the_checkpoint_is_dirty() -> None:
    """It is not forgotten, and written again with the events that the crash may have lost."""
    engine = CountingEngine()
    engine.write([(Table.STATUS, [(A, row(b"a", 7))])])
    statuses = StatusTable(engine, cache_bytes=0, write_back_events=1, checkpoint=3)
    assert statuses.fetch([A]) == {A: row(b"a", 7)}
    assert is_dirty(statuses, A)
    statuses.put({}, 1, [event(A, 7)])  # as a replay does
    assert statuses.rows[A] == row(b"a", 7)
    assert write_back(statuses, engine, 7) == [A]
    assert (len(statuses.rows), statuses.dirty_count) == (0, 0)


@settings(max_examples=40)
@given(
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 400, 2_000, 1 << 20]),
    st.sampled_from([5, 20, 100]),
    st.integers(1, 6),
)
def test_any_history_reads_as_a_dict(
    seed: int, cache_bytes: int, window: int, rows_max: int
) -> None:
    """Changes, reads and write-backs in any order: rows are the latest, events are all there.

    And a crash at any moment finds everything up to the checkpoint on disk, whatever of the rest.
    """
    rng = Random(seed)
    engine = MemoryEngine()
    statuses = table(engine, cache_bytes=cache_bytes, window=window)
    timelines = Timelines(engine, statuses.ahead)
    keys = [waybill(slot, n) for n, slot in enumerate([0, 9_000, 9_000, 40_000, 65_535, 65_535])]
    latest: dict[bytes, bytes] = {}
    events: dict[bytes, dict[bytes, bytes]] = {key: {} for key in keys}
    position = 0
    for _ in range(30):
        chosen = rng.choices(keys, k=rng.randint(1, 4))
        missing = [key for key in set(chosen) if key not in statuses.rows]
        found = statuses.fetch(missing)
        assert found == {key: latest[key] for key in missing if key in latest}
        changed = {}
        dirtied = sum(
            status_position(latest[key]) <= statuses.ahead.written[slot_of(key)]
            if key in latest
            else 1
            for key in set(chosen)
        )
        rows = []
        for key in chosen:
            position += 1
            changed[key] = latest[key] = row(b"%d" % position, position)
            rows.append(event(key, position, rng.choice([10, 600])))
            events[key] |= dict(rows[-1:])
        engine.write([(Table.LOG, [(position_key(position), b"")])])
        statuses.put(changed, dirtied, rows)
        while rng.random() < 0.7 and write_back(statuses, engine, position, rows_max):
            pass
        if rng.random() < 0.1:
            engine.keep_unlogged()
        statuses.kept(engine.kept_unlogged())
        assert {key: statuses.get(key) for key in keys} == {key: latest.get(key) for key in keys}
        dirty = [key for key in keys if key in statuses.rows and is_dirty(statuses, key)]
        assert statuses.dirty_count == len(dirty)
        for key in keys:
            assert dict(timelines.rows(key)) == events[key]
            if key not in dirty:
                assert engine.get(Table.STATUS, key) == latest.get(key)
        more = {each: rng.randint(0, 5) for each in Table}
        survivor = engine.crash(rng.randint(0, 99), more)
        for key in keys:
            due = {at: value for at, value in events[key].items() if _is_due(at, statuses)}
            assert due.items() <= dict(survivor.scan_prefix(Table.EVENTS, key)).items()
            if due:
                on_disk = survivor.get(Table.STATUS, key)
                assert on_disk is not None
                assert max(due)[-8:] <= position_key(status_position(on_disk))


def _is_due(event_key: bytes, statuses: StatusTable) -> bool:
    """Whether the checkpoint says that this event is on disk."""
    return split_event_key(event_key)[1][-8:] <= position_key(statuses.checkpoint)


def test_no_more_is_due_than_the_next_round() -> None:
    """However many events come in one commit: to pass over empty slots again takes time."""
    engine = MemoryEngine()
    statuses = table(engine, window=15)
    keys = [waybill(n * 60, n) for n in range(1_000)]
    change(statuses, 1, *keys, size=30_000)
    assert SLOTS <= statuses._slots_due <= 2 * SLOTS
    while write_back(statuses, engine, 1_000):
        pass
    assert statuses.ahead.count == 0
    assert not statuses.is_due


def test_a_later_write_does_not_take_the_checkpoint_back() -> None:
    """Where nothing was ahead, the checkpoint is the latest position: the furthest one counts."""
    engine = MemoryEngine()
    statuses = table(engine, window=1_000_000)

    def part(position: int, rows_max: int) -> int:
        found = statuses.everything(position, rows_max)
        assert found
        unlogged = engine.write_unlogged(found.batch)
        statuses.written_back(found, unlogged)
        return unlogged

    change(statuses, 1, *(waybill(n, n) for n in range(100)))
    part(100, 50)  # the hand stands in the middle of a round
    change(statuses, 101, *(waybill(60_000 + n, n) for n in range(100)))
    while statuses.ahead.count:
        part(200, 1_000)
    assert statuses.written_position == 200
    change(statuses, 201, *(waybill(n, n) for n in range(100)))
    assert statuses.kept(part(300, 10))
    assert statuses.checkpoint == 200
