"""Slots with more rows than can be looked through: written out of their turn, nothing is lost."""

from random import Random

import pytest

from tests.store.hand import change, table, waybill, write_back
from trackd.store.ahead import CROWDED_ROWS, SLOTS
from trackd.store.memory_engine import MemoryEngine

pytestmark = pytest.mark.usefixtures("loops")


def test_a_crowded_slot_is_written_out_of_its_turn() -> None:
    """A waybill that is scanned without end is not looked through from one end to the other.

    The hand stays where it is, and the checkpoint before what it has not come to.
    """
    engine = MemoryEngine()
    statuses = table(engine, window=1_000_000)
    early, late = b"\x70\0\0\0\0\0\0\0SF1", b"\xff\0\0\0\0\0\0\0SF2"
    change(statuses, 1, early)
    assert write_back(statuses, engine, 1) == []
    change(statuses, 2, *[late] * (CROWDED_ROWS - 1))
    assert write_back(statuses, engine, CROWDED_ROWS) == []
    change(statuses, CROWDED_ROWS + 1, late)
    assert write_back(statuses, engine, CROWDED_ROWS + 1, rows_max=10) == [late]
    assert (statuses.ahead.count, statuses.dirty_count) == (1, 1)
    assert statuses.written_position == 0
    assert write_back(statuses, engine, CROWDED_ROWS + 1) == []
    last = statuses.everything(CROWDED_ROWS + 1, 10)
    assert last
    assert last.keys == [early]


def test_the_checkpoint_stays_before_what_stands_behind_a_crowded_slot() -> None:
    """The hand comes to a slot that was written out of its turn, and has not been behind it."""
    engine = MemoryEngine()
    statuses = table(engine, window=1_000_000)
    behind, crowded = waybill(301, 1), waybill(300, 2)
    change(statuses, 1, behind)
    change(statuses, 2, *[crowded] * CROWDED_ROWS)
    last = CROWDED_ROWS + 1
    assert write_back(statuses, engine, last) == [crowded]
    # As much as brings the hand to the crowded slot.
    change(statuses, last + 1, *[waybill(n // 20, n) for n in range(5_000)])
    while statuses.written_position == 0 and write_back(statuses, engine, last + 5_000):
        engine.keep_unlogged()
        statuses.kept(engine.kept_unlogged())
        assert statuses.checkpoint == 0 or not statuses.ahead.of(behind)


@pytest.mark.parametrize("seed", range(12))
def test_no_event_that_is_ahead_is_below_the_checkpoint(seed: int) -> None:
    """However hot some slots are; and what is ahead stays bounded while the engine takes it."""
    rng, engine, window = Random(seed), MemoryEngine(), 3_000
    statuses = table(engine, window=window)
    hot = rng.sample(range(SLOTS), rng.randint(1, 4))
    position = 0
    for _ in range(rng.randint(10, 40)):
        keys = [waybill(rng.choice(hot), rng.randrange(3)) for _ in range(rng.randint(0, 600))]
        keys += [waybill(rng.randrange(SLOTS), n) for n in range(rng.randint(0, 300))]
        change(statuses, position + 1, *keys)
        position += len(keys)
        for _ in range(rng.choice([0, 1, 1, 20])):
            write_back(statuses, engine, position, rows_max=rng.choice([100, 1_000]))
        ahead, _, _ = statuses.ahead.take(0, SLOTS, 1 << 60)
        oldest = min((int.from_bytes(key[-8:], "big") for key, _ in ahead), default=position + 1)
        assert statuses.written_position < oldest
    while statuses.is_due:
        assert write_back(statuses, engine, position)
    assert statuses.ahead.count < 2 * window
