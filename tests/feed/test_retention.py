"""Retention: what is let go, what never is, and that every later reader copes with a short log."""

import asyncio

import pytest

from tests.feed.clocked import Clocked
from trackd.feed.partition_feed import PositionExpired
from trackd.feed.retention import KeptLog
from trackd.store import rebuild, replay
from trackd.store.keys import Table

FOR_EVER = KeptLog(age_ms=1 << 50, bytes_max=1 << 50)


async def test_nothing_is_let_go_before_its_time(clocked: Clocked) -> None:
    """Neither by age nor by size."""
    await clocked.journeys(3)
    assert await clocked.trim(FOR_EVER) == 0
    assert clocked.partition.feed.oldest_position == 1


async def test_what_is_too_old_goes_and_who_needs_it_is_told(clocked: Clocked) -> None:
    """By age: an explicit error before the floor, everything from the floor on."""
    await clocked.journeys(5)
    kept = KeptLog(age_ms=10 * 86_400_000, bytes_max=1 << 50)
    assert await clocked.trim(kept) == 11  # the tenth last one is exactly as old as may be
    feed = clocked.partition.feed
    assert feed.oldest_position == 12
    with pytest.raises(PositionExpired) as expired:
        feed.read(10, entries_max=100)
    assert expired.value.oldest_position == 12
    assert [each.position for each in feed.read(11, entries_max=100).changes] == list(range(12, 21))
    assert feed.recorded_at_ms(11) is None
    assert await clocked.trim(kept) == 0


async def test_what_is_too_much_goes(clocked: Clocked) -> None:
    """By size, as an estimate: a little more or less than asked for is left."""
    await clocked.journeys(25)
    bytes_max = clocked.partition.feed.log_bytes // 2
    await clocked.trim(KeptLog(age_ms=1 << 50, bytes_max=bytes_max))
    assert 0.8 * bytes_max < clocked.partition.feed.log_bytes <= bytes_max
    left = sum(len(block) for _, block in clocked.partition.engine.scan_all(Table.LOG))
    assert 0.8 * bytes_max < left <= 1.2 * bytes_max


async def test_what_a_start_after_a_crash_needs_is_never_let_go(clocked: Clocked) -> None:
    """Statuses are written back first, and where they cannot be, their entries stay, however old.

    The last block stays in any case.
    """
    await clocked.journeys(4)
    checkpoint = clocked.partition.statuses.checkpoint
    assert checkpoint < 16
    clocked.space.low = True
    await clocked.trim(KeptLog(age_ms=0, bytes_max=1))
    assert clocked.partition.feed.oldest_position <= checkpoint + 1
    clocked.space.low = False
    await clocked.trim(KeptLog(age_ms=0, bytes_max=1))
    assert clocked.partition.statuses.checkpoint >= 15
    assert clocked.partition.feed.oldest_position == 16
    rows = [clocked.row(number) for number in range(4)]
    timelines = [clocked.timeline(number) for number in range(4)]
    assert [len(timeline) for timeline in timelines] == [4] * 4
    await clocked.crash()
    assert [clocked.row(number) for number in range(4)] == rows
    assert [clocked.timeline(number) for number in range(4)] == timelines
    assert clocked.partition.committer.durable_position == 16
    assert clocked.findings() == []


async def test_what_a_crash_may_still_take_from_the_tables_is_not_let_go(
    clocked: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the tables, and they are not on disk for good: the log has it for a start."""
    await clocked.journeys(4)
    kept = KeptLog(age_ms=0, bytes_max=1)
    with monkeypatch.context() as patched:
        patched.setattr(clocked.partition.engine, "keep_unlogged", lambda: None)
        assert await clocked.trim(kept) == 0
    partition = clocked.partition
    assert not partition.statuses.ahead.count
    assert (partition.statuses.checkpoint, partition.feed.oldest_position) == (0, 1)
    assert await clocked.trim(kept) == 15
    assert partition.statuses.checkpoint == 16


async def test_a_log_never_begins_behind_the_checkpoint_on_disk(
    clocked: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the checkpoint's own commit is not written yet: it is written with the trim."""
    await clocked.journeys(4)
    partition = clocked.partition
    with monkeypatch.context() as patched:
        patched.setattr(type(partition.committer), "_write", lambda *_: None)  # as if it stalled
        assert await clocked.trim(KeptLog(age_ms=0, bytes_max=1)) == 15
    assert replay.checkpoint_of(partition.engine) == partition.statuses.checkpoint == 16
    assert replay.log_floor(partition.engine) == 16


async def test_a_trimmed_log_verifies(clocked: Clocked) -> None:
    """`trackd check` finds nothing, and still finds what is wrong: a status that is not its own."""
    await clocked.journeys(6)
    await clocked.trim(KeptLog(age_ms=10 * 86_400_000, bytes_max=1 << 50))
    # In the middle of a journey: some waybills have a part of their entries, some none.
    assert clocked.partition.feed.oldest_position % 4 == 0
    await clocked.again()
    assert clocked.findings() == []
    engine = clocked.partition.engine
    (key, block), *_ = engine.scan_all(Table.LOG)
    engine.write([(Table.LOG, [(key, None)])])
    kinds = {each.kind.value for each in clocked.findings()}
    assert "gap" in kinds
    engine.write([(Table.LOG, [(key, block)])])
    assert clocked.findings() == []


async def test_a_rebuilt_log_begins_anew(clocked: Clocked) -> None:
    """After an accepted loss positions start at 1, and so does what is kept."""
    await clocked.journeys(3)
    await clocked.again()
    await clocked.trim(KeptLog(age_ms=0, bytes_max=1))
    assert replay.log_floor(clocked.partition.engine) == 12
    await asyncio.to_thread(rebuild.rebuild, clocked.partition.engine, clocked.now_ms)
    assert replay.log_floor(clocked.partition.engine) == 1
    assert replay.last_position(clocked.partition.engine) == 12
