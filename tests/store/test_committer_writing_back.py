"""The committer and what is written back behind it: stalls, failures, and how far it may go."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.store.desk import Desk
from tests.store.office import Office, outcome, scans, simulated
from tests.store.simulated import Faults, SimulatedEngine
from trackd.store import replay
from trackd.store import statuses as statuses_module
from trackd.store.engine_contract import Rows
from trackd.store.errors import StorageFailed, WriteStalled
from trackd.store.keys import Table


async def commit(office: Office, *event_ids: str) -> None:
    """Commits these, and lets what is written back then have its turn."""
    await office.committer.submit(scans(*event_ids))
    await asyncio.sleep(0.01)


def test_the_tables_follow_the_log_while_scans_come() -> None:
    """And the checkpoint follows them, so that a start after a crash has little to do."""

    async def test() -> None:
        office = Office()
        for n in range(50):
            await commit(office, f"{n}")
        assert office.desk.statuses.ahead.count <= 1
        assert 25 < replay.checkpoint_of(office.engine) < 50
        survivor = Desk(office.engine.after_crash(power_cut=True))
        assert survivor.replayed < 25
        survivor.check()

    simulated(test)


def test_a_write_back_that_stalls_is_made_up_for() -> None:
    """Commits go on meanwhile, nothing is lost, and what is ahead of the disk stays bounded."""

    async def test() -> None:
        office = Office(faults=Faults(stall=0.5), commit_events_max=3)
        for n in range(100):
            await commit(office, f"{n}-a", f"{n}-b")
        assert office.engine.happened["stalled unlogged"] > 20
        assert office.desk.statuses.ahead.count < 60
        office.engine.faults.stall = 0
        await commit(office, "last")
        assert office.desk.statuses.ahead.count == 0
        office.desk.check()
        office.desk.check_checkpoint()

    simulated(test)


def test_what_the_log_does_not_have_is_not_written_back() -> None:
    """A plan that waits behind a stall is in memory only, and must not be found after a crash."""

    async def test() -> None:
        office = Office(faults=Faults(stall=1))
        answer = office.committer.submit(scans("a"))
        await asyncio.sleep(0.01)
        assert office.committer.planned_position == 1
        assert office.committer.written_position == 0
        assert not office.committer.write_back()
        await office.committer.keep()
        assert list(office.engine.scan_all(Table.EVENTS)) == []
        office.engine.faults.stall = 0
        await answer
        await asyncio.sleep(0.01)
        assert len(list(office.engine.scan_all(Table.EVENTS))) == 1
        assert not office.committer.write_back(), "there is no more"
        office.desk.check()

    simulated(test)


class Unwilling(SimulatedEngine):
    """Takes the log, and nothing past it."""

    def write_unlogged(self, batch: object) -> int:
        """See Engine."""
        raise WriteStalled("simulated")


def test_nothing_is_planned_while_too_much_is_ahead_of_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An engine that takes the log and no more holds scans back, and does not fill the memory."""
    monkeypatch.setattr(statuses_module, "_FULL_EVENTS", 20)

    async def test() -> None:
        office = Office()
        office.engine.__class__ = Unwilling
        answers = [office.committer.submit(scans(f"{n}")) for n in range(90)]
        await asyncio.sleep(1)
        planned = office.desk.statuses.ahead.count
        assert 20 < planned < 40
        assert sum(answer.done() for answer in answers) == planned
        office.engine.__class__ = SimulatedEngine
        assert sum([(await answer).accepted for answer in answers]) == 90
        await asyncio.sleep(0.1)
        assert office.desk.statuses.ahead.count == 0
        office.desk.check()

    simulated(test)


class Refusing(SimulatedEngine):
    """Fails to write past its log when it is told to, and nothing else."""

    def write_unlogged(self, batch: object) -> int:
        """See Engine."""
        self.broken = True
        raise StorageFailed("simulated")


def test_a_write_back_that_fails_is_the_end() -> None:
    """As of any write: the server is told once, and nobody is answered any more."""

    async def test() -> None:
        office = Office()
        await commit(office, "a")
        office.engine.__class__ = Refusing
        answers = [office.committer.submit(scans(f"{n}")) for n in range(20)]
        outcomes = [await outcome(answer) for answer in answers]
        assert outcomes[-1] == StorageFailed
        assert await outcome(office.committer.submit(scans("late"))) == StorageFailed
        assert await outcome(office.committer.checkpoint()) == StorageFailed
        assert len(office.failures) == 1
        accepted = sum(each for each in outcomes if isinstance(each, int))
        assert len(Desk(office.engine.after_crash(power_cut=True)).events()) >= 1 + accepted

    simulated(test)


def test_rows_that_cannot_be_kept_are_the_end() -> None:
    """Whoever waits for it is told, and so is everybody else; the checkpoint stays."""

    async def test() -> None:
        office = Office()
        await commit(office, "a")
        checkpoint = office.desk.statuses.checkpoint
        office.engine.faults.keep = 1
        assert await outcome(office.committer.keep()) == StorageFailed
        assert await outcome(office.committer.submit(scans("late"))) == StorageFailed
        assert len(office.failures) == 1
        assert replay.checkpoint_of(office.engine) == checkpoint
        office.desk.check_checkpoint()

    simulated(test)


def test_a_checkpoint_that_cannot_be_written_is_told_to_whoever_had_it_moved() -> None:
    """Or a log would be trimmed in an engine that is not to be used any more."""

    async def test() -> None:
        office = Office()
        for n in range(10):
            await commit(office, f"{n}")
            office.committer.write_back()
        await office.committer.submit(scans("last"))
        office.committer.write_back()
        office.engine.faults.write = 1
        assert await outcome(office.committer.keep()) == StorageFailed
        assert len(office.failures) == 1

    simulated(test)


def test_nothing_is_kept_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is left alone."""
    asked = []
    monkeypatch.setattr(SimulatedEngine, "keep_unlogged", lambda _: asked.append(1))

    async def test() -> None:
        office = Office(faults=Faults(write=1))
        assert await outcome(office.committer.submit(scans("a"))) == StorageFailed
        assert await outcome(office.committer.keep()) == StorageFailed

    simulated(test)
    assert not asked


def test_a_crash_during_a_shutdown_loses_nothing() -> None:
    """Written back in part, kept in part: the next start is as after any crash."""

    async def test() -> None:
        for moment in range(12):
            office = Office(faults=Faults(stall=0.3), commit_events_max=2)
            for n in range(20):
                await office.committer.submit(scans(f"{n}", waybill_number=f"SF{n % 7:04}"))
            shutdown = asyncio.ensure_future(office.committer.checkpoint())
            await asyncio.sleep(moment / 300)
            survivor = Desk(office.engine.after_crash(power_cut=moment % 2 > 0))
            survivor.check()
            survivor.check_checkpoint()
            await shutdown

    simulated(test)


def test_after_a_stall_writing_back_goes_on_without_another_scan() -> None:
    """The last commit before a silence stalled once: what is ahead does not wait for the next."""

    async def test() -> None:
        office = Office(faults=Faults(stall=1))
        answer = office.committer.submit(scans("a"))
        await asyncio.sleep(0.01)
        office.engine.faults.stall = 0
        assert (await answer).accepted == 1
        await asyncio.sleep(1)
        assert office.desk.statuses.ahead.count == 0

    simulated(test)


def test_writing_back_has_its_turn_although_every_commit_stalls_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With scans waiting all the time: between the stall of one commit and that of the next."""

    async def test() -> None:
        office = Office(commit_events_max=10)
        write, tried = office.engine.write, set()

        def stalls_first(batch: Sequence[tuple[Table, Rows]]) -> None:
            key, _ = next(iter(batch[0][1]))
            if key not in tried:
                tried.add(key)
                raise WriteStalled("the first time")
            write(batch)

        monkeypatch.setattr(office.engine, "write", stalls_first)
        answers = [
            office.committer.submit(scans(f"{n}", waybill_number=f"SF{n}")) for n in range(300)
        ]
        await asyncio.gather(*answers)
        await asyncio.sleep(1)
        assert office.committer.figures.stalls >= 30
        assert office.desk.statuses.written_back_count >= 20
        assert office.desk.statuses.ahead.count == 0

    simulated(test)
