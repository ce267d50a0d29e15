"""The committer where things go wrong that nobody named: it ends, tells all, and stays bounded."""

import asyncio

import pytest

from tests.store.office import Office, outcome, scans, simulated
from trackd.store.committer import UNFLUSHED_COMMITS_MAX
from trackd.store.errors import SpaceLow, StorageFailed
from trackd.store.keys import Table


def test_an_error_that_nobody_named_ends_it_before_there_is_a_hole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A planned commit that is not written, for any reason, is the last: positions have no gap."""

    async def test() -> None:
        office = Office()

        def write(batch: object) -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(office.engine, "write", write)
            assert await outcome(office.committer.submit(scans("a"))) == StorageFailed
        assert await outcome(office.committer.submit(scans("b"))) == StorageFailed
        assert len(office.failures) == 1
        assert list(office.engine.scan_all(Table.LOG)) == []

    simulated(test)


def test_a_mark_that_cannot_be_written_is_a_failure_that_everybody_hears_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is acknowledged that the mark does not cover."""

    async def test() -> None:
        office = Office()

        def write(position: int) -> None:
            raise StorageFailed("durable mark: no more")

        monkeypatch.setattr(office.mark, "write", write)
        answers = [outcome(office.committer.submit(scans(event_id))) for event_id in "abc"]
        assert await asyncio.gather(*answers) == [StorageFailed] * 3
        assert office.committer.durable_position == 0
        assert len(office.failures) == 1

    simulated(test)


def test_a_flush_that_hangs_does_not_let_commits_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most a named number of commits is written behind it; the rest waits, and is counted."""

    async def test() -> None:
        office = Office(commit_events_max=1)
        committer = office.committer
        hanging = asyncio.get_running_loop().create_future()
        with monkeypatch.context() as patch:
            patch.setattr(committer._loop, "run_in_executor", lambda *_: hanging)
            answers = [committer.submit(scans(f"{n}")) for n in range(100)]
            for _ in range(500):
                await asyncio.sleep(0)
        # The one that is being flushed, and those behind it.
        assert committer.written_position == 1 + UNFLUSHED_COMMITS_MAX
        assert committer.queued_events == 100 - 1 - UNFLUSHED_COMMITS_MAX
        committer._engine.flush_wal()
        committer._mark.write(1)
        hanging.set_result(None)
        assert [await outcome(answer) for answer in answers] == [1] * 100

    simulated(test)


def test_what_waits_is_refused_once_the_disk_is_nearly_full() -> None:
    """It is not written after all, it can be sent again, and writing goes on when there is room."""

    async def test() -> None:
        office = Office()
        office.committer._space.low = True
        assert await outcome(office.committer.submit(scans("a"))) == SpaceLow
        assert office.committer.queued_events == office.committer.planned_position == 0
        office.committer._space.low = False
        assert await outcome(office.committer.submit(scans("a"))) == 1
        assert not office.failures

    simulated(test)
