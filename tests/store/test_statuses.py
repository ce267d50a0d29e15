"""The table of statuses: dirty, clean and forgotten rows read alike; what is on disk is current."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackd.store.keys import META_STATUS_CHECKPOINT, Table, position_key, position_of, status_key
from trackd.store.memory_engine import MemoryEngine
from trackd.store.planner import rows_of
from trackd.store.records import NO_STATUS, decode_status, encode_status
from trackd.store.statuses import ROW_OVERHEAD_BYTES, StatusTable

pytestmark = pytest.mark.usefixtures("loops")

A, B, C = (status_key(f"SF000{n}") for n in range(3))


class CountingEngine(MemoryEngine):
    """Counts the look-ups on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []

    def get_many(self, table: Table, keys: "list[bytes]") -> list[bytes | None]:  # type: ignore[override]
        """See Engine."""
        self.asked += keys
        return super().get_many(table, keys)


def table(engine: MemoryEngine, *, cache_bytes: int = 1 << 20, window: int = 10) -> StatusTable:
    """A table of statuses that writes back after `window` events."""
    return StatusTable(engine, cache_bytes=cache_bytes, write_back_events=window, checkpoint=0)


def row(text: bytes, dirty_since: int = 0) -> bytes:
    """A status row that can be told from others by its text."""
    return encode_status(NO_STATUS._replace(last_event=text, dirty_since=dirty_since))


def is_dirty(statuses: StatusTable, key: bytes) -> bool:
    """Whether the row of this key is ahead of the disk."""
    return key in set(statuses.dirty_keys())


def write_back(statuses: StatusTable, engine: MemoryEngine, position: int, rows_max: int) -> int:
    """Writes back what is due at position; how many rows."""
    due = statuses.due(position, rows_max)
    if due is None:
        return 0
    engine.write(rows_of(due))
    statuses.written_back(due)
    return len(due.keys)


def test_a_changed_row_is_read_at_once_and_written_later() -> None:
    """Dirty until the log has moved on by the window, then on disk, and clean."""
    engine = MemoryEngine()
    statuses = table(engine, window=10)
    statuses.put({A: row(b"a1", 1)}, [A], 1)
    assert statuses.get(A) == row(b"a1", 1)
    assert (list(statuses.dirty_keys()), statuses.dirty_count) == ([A], 1)
    assert statuses.due(10, 100) is None
    assert engine.get(Table.STATUS, A) is None
    assert write_back(statuses, engine, 11, 100) == 1
    assert (list(statuses.dirty_keys()), statuses.dirty_count) == ([], 0)
    assert statuses.get(A) == engine.get(Table.STATUS, A) == row(b"a1", 1)
    assert statuses.checkpoint == 11


def test_a_row_that_changes_while_it_is_dirty_is_written_once() -> None:
    """That is what the table is for: the last of many versions goes to disk."""
    engine = MemoryEngine()
    statuses = table(engine)
    statuses.put({A: row(b"a1", 1)}, [A], 1)
    statuses.put({A: row(b"a2", 1)}, [], 2)
    statuses.put({A: row(b"a3", 1), B: row(b"b1", 3)}, [B], 3)
    assert write_back(statuses, engine, 11, 1) == 1
    assert engine.get(Table.STATUS, A) == row(b"a3", 1)
    assert statuses.checkpoint == 1, (
        "B's change at position 3 is not on disk, nor is position 2 due"
    )
    assert write_back(statuses, engine, 13, 100) == 1
    assert statuses.checkpoint == 13


def test_the_checkpoint_is_before_the_first_row_that_is_not_written() -> None:
    """Groups are written as a whole, some at a time; the checkpoint never runs ahead of them."""
    engine = MemoryEngine()
    statuses = table(engine, window=1)
    for position in range(1, 7):
        key = status_key(f"SF{position:04}")
        statuses.put({key: row(b"x", position)}, [key], position)
    assert write_back(statuses, engine, 6, 2) == 2
    assert statuses.checkpoint == 2
    assert write_back(statuses, engine, 6, 2) == 2
    assert statuses.checkpoint == 4
    assert position_of(engine.get(Table.META, META_STATUS_CHECKPOINT) or b"") == 4


def test_one_group_is_written_however_large_it_is() -> None:
    """Or the largest commit would never leave."""
    engine = MemoryEngine()
    statuses = table(engine, window=1)
    keys = [status_key(f"SF{n:04}") for n in range(50)]
    statuses.put(dict.fromkeys(keys, row(b"x", 1)), keys, 1)
    assert write_back(statuses, engine, 9, 2) == 50


def test_a_shutdown_writes_everything_a_part_at_a_time() -> None:
    """Due or not; then there is nothing more, and the window is what it was."""
    engine = MemoryEngine()
    statuses = table(engine, window=1_000)
    for position in range(1, 5):
        key = status_key(f"SF{position:04}")
        statuses.put({key: row(b"x", position)}, [key], position)
    written = 0
    while part := statuses.everything(4, 2):
        engine.write(rows_of(part))
        statuses.written_back(part)
        written += len(part.keys)
    assert (written, statuses.checkpoint, statuses.dirty_count) == (4, 4, 0)
    statuses.put({A: row(b"a", 5)}, [A], 5)
    assert statuses.due(5, 100) is None


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
    keys = [status_key(f"SF{n:04}") for n in range(200)]
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
        cold = status_key(f"SF{position:04}")
        statuses.put({A: row(b"%02d" % (position % 97), position)}, [A], position)
        statuses.put({cold: row(b"x.", position + 1)}, [cold], position + 1)
        assert write_back(statuses, engine, position + 1, 100)
        assert len(statuses.rows) <= 12
        assert A in statuses.rows


@given(
    st.randoms(use_true_random=False),
    st.sampled_from([0, 400, 2_000, 1 << 20]),
    st.integers(0, 12),
    st.integers(1, 6),
)
def test_any_history_reads_as_a_dict(
    rng: Random, cache_bytes: int, window: int, rows_max: int
) -> None:
    """Changes, reads and write-backs in any order: rows are the latest, the checkpoint holds."""
    engine = MemoryEngine()
    statuses = table(engine, cache_bytes=cache_bytes, window=window)
    keys = [status_key(f"SF{n:04}") for n in range(6)]
    latest: dict[bytes, bytes] = {}
    changed_at: dict[bytes, list[int]] = {key: [] for key in keys}
    position = 0
    for _ in range(30):
        chosen = rng.sample(keys, rng.randint(1, 4))
        missing = [key for key in chosen if key not in statuses.rows]
        found = statuses.fetch(missing)
        assert found == {key: latest[key] for key in missing if key in latest}
        first = position + 1
        changed, dirtied = {}, []
        for key in chosen:
            position += 1
            before = latest.get(key)
            since = decode_status(before).dirty_since if before else 0
            if since <= statuses.checkpoint:
                since = first
                dirtied.append(key)
            changed[key] = latest[key] = row(b"%d" % position, since)
            changed_at[key].append(position)
        statuses.put(changed, dirtied, first)
        assert set(chosen) <= set(statuses.dirty_keys())
        while rng.random() < 0.7 and write_back(statuses, engine, position, rows_max):
            pass
        assert {key: statuses.get(key) for key in keys} == {key: latest.get(key) for key in keys}
        stored = engine.get(Table.META, META_STATUS_CHECKPOINT) or position_key(0)
        assert position_of(stored) == statuses.checkpoint
        for key in keys:
            current = max((at for at in changed_at[key] if at <= statuses.checkpoint), default=0)
            on_disk = engine.get(Table.STATUS, key)
            assert int(decode_status(on_disk).last_event if on_disk else 0) >= current
            if not is_dirty(statuses, key):
                assert on_disk == latest.get(key)
