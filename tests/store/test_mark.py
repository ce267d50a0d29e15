"""The durable mark: never further than what was written, whatever happens to the file."""

import os
import random
from pathlib import Path

import pytest

from trackd.store.errors import StorageFailed
from trackd.store.mark import DurableMark, read_mark


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the mark is."""
    return tmp_path / "partition-0000.mark"


def marked(path: Path, *positions: int) -> bytes:
    """The file after these positions were written, one after the other."""
    mark = DurableMark(path)
    for position in positions:
        mark.write(position)
    mark.close()
    return path.read_bytes()


def read(path: Path) -> int | None:
    """What the file says."""
    mark = DurableMark(path)
    try:
        return mark.read()
    finally:
        mark.close()


def test_a_new_mark_says_nothing(path: Path) -> None:
    """None is not position 0: it is the absence of knowledge."""
    assert read(path) is None
    marked(path, 0)
    assert read(path) == 0


@pytest.mark.parametrize("positions", [(1,), (1, 2), (1, 2, 3), (7, 2**40, 2**63)])
def test_the_last_position_is_read(path: Path, positions: tuple[int, ...]) -> None:
    """By another process too, and after any number of writes."""
    marked(path, *positions)
    assert read(path) == positions[-1]


def test_it_goes_on_after_a_reopening(path: Path) -> None:
    """Run after run, an odd or an even number of writes in each."""
    position = 0
    for run in range(1, 8):
        marked(path, *range(position + 1, position + run + 1))
        position += run
        assert read(path) == position


def test_only_the_owner_may_read_it(path: Path) -> None:
    """The data directory is nobody else's."""
    marked(path, 1)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("writes", range(5))
def test_a_torn_write_leaves_the_position_before_it(path: Path, writes: int) -> None:
    """At any byte of any write of a run: one position back at most, never ahead, never nothing."""
    mark = DurableMark(path)
    mark.reset(1)
    for position in range(2, writes + 2):
        mark.write(position)
    before = path.read_bytes()
    mark.write(writes + 2)
    mark.close()
    after = path.read_bytes()
    changed = [place for place, byte in enumerate(after) if byte != before[place]]
    assert changed
    for place in [*changed, *(place + 1 for place in changed)]:
        path.write_bytes(after[:place] + before[place:])
        assert read(path) in {writes + 1, writes + 2}


def test_a_reset_goes_back_for_good(path: Path) -> None:
    """After a loss that was accepted, no slot remembers what was before."""
    marked(path, 41, 42)
    mark = DurableMark(path)
    mark.reset(7)
    mark.close()
    assert read(path) == read_mark(path) == 7
    damaged = bytearray(path.read_bytes())
    damaged[5] ^= 1
    path.write_bytes(damaged)
    assert read(path) == 7


def test_reading_from_outside_makes_no_mark(path: Path) -> None:
    """Whoever only looks leaves nothing behind."""
    assert read_mark(path) is None
    assert not path.exists()
    marked(path, 1, 2, 3)
    assert read_mark(path) == 3


def test_a_flipped_bit_never_moves_it_ahead(path: Path) -> None:
    """Any one bit: the position, the one before it, or neither; never a greater one."""
    whole = marked(path, 41, 42)
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert read(path) in {41, 42}


def test_garbage_is_never_a_position_ahead(path: Path) -> None:
    """Random bytes over both slots, cut anywhere."""
    whole = marked(path, 41, 42)
    rng = random.Random(1)
    for _ in range(2_000):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 40)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.randrange(len(damaged) + 1)])
        assert read(path) in {None, 41, 42}


def test_a_mark_that_cannot_be_written_is_a_failure_of_storage(path: Path) -> None:
    """Nothing may be acknowledged then."""
    mark = DurableMark(path)
    mark.write(1)
    os.close(mark._descriptor)  # what a device that is gone looks like
    with pytest.raises(StorageFailed):
        mark.write(2)
    with pytest.raises(StorageFailed):
        mark.sync()
