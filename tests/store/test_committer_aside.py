"""Rows that are not events: written with a commit or alone, in order, and durable when told."""

import asyncio

from tests.store.office import Office, outcome, scans, simulated
from tests.store.simulated import Faults, SimulatedEngine
from trackd.store.engine_contract import Rows
from trackd.store.errors import StorageFailed
from trackd.store.keys import META_IDENTITY, Table


def note(value: int, *, key: bytes = b"note") -> list[tuple[Table, Rows]]:
    """A row that is no event."""
    return [(Table.SUBSCRIPTIONS, [(key, b"%d" % value)])]


def noted(engine: SimulatedEngine) -> int:
    """What the row says after a power cut that keeps nothing unflushed."""
    return int(engine.crash(keep_unflushed=0).get(Table.SUBSCRIPTIONS, b"note") or 0)


def test_rows_put_aside_are_durable_when_told() -> None:
    """Alone, when no commit comes: no position moves, and no commit is counted."""

    async def test() -> None:
        office = Office()
        await office.committer.put_aside(note(1))
        assert noted(office.engine) == 1
        committer = office.committer
        assert committer.durable_position == committer.written_position == 0
        assert office.mark.read() == 0
        assert committer.figures.commits == 0
        await committer.submit(scans("a"))
        await committer.put_aside(note(2))
        assert (committer.durable_position, office.mark.read()) == (1, 1)
        assert committer.figures.commits == 1

    simulated(test)


def test_rows_ride_on_the_next_commit() -> None:
    """One write for both, so that neither is there without the other."""

    async def test() -> None:
        office = Office()
        told = office.committer.put_aside(note(1))
        verdict = office.committer.submit(scans("a"))
        await asyncio.sleep(0)
        assert office.committer.written_position == 1
        assert office.engine.unflushed == 1
        assert not told.done()
        await asyncio.gather(told, verdict)
        assert noted(office.engine) == 1

    simulated(test)


def test_the_later_row_counts_through_stalls_and_commits() -> None:
    """Whatever they ride on, rows are written in the order in which they were put aside."""

    async def test() -> None:
        office = Office(faults=Faults(stall=0.4), commit_events_max=2)
        tasks = []
        last_told = 0

        def told(value: int) -> None:
            nonlocal last_told
            assert last_told < value <= noted(office.engine)
            last_told = value

        for value in range(1, 60):
            aside = office.committer.put_aside(note(value))
            aside.add_done_callback(lambda _, value=value: told(value))  # type: ignore[misc]
            tasks.append(aside)
            if value % 3 == 0:
                office.committer.submit(scans(f"{value}-a", f"{value}-b"))
            await asyncio.sleep(office.rng.uniform(0, 0.005))
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)
        assert last_told == noted(office.engine) == 59
        assert office.committer.figures.stalls > 3
        office.desk.check()

    simulated(test)


def test_a_hanging_disk_does_not_make_rows_pile_up_as_writes() -> None:
    """Beyond a bound they wait together, and are written at once when the disk answers."""

    async def test() -> None:
        office = Office()
        office.rng.uniform = lambda a, b: b * 500  # type: ignore[method-assign]
        told = []
        for value in range(1, 101):
            told.append(office.committer.put_aside(note(value)))
            await asyncio.sleep(0.01)
        assert office.engine.unflushed < 20
        await asyncio.gather(*told)
        assert noted(office.engine) == 100

    simulated(test)


def test_a_shutdown_waits_for_what_was_put_aside() -> None:
    """An orderly stop loses nothing of it."""

    async def test() -> None:
        office = Office(faults=Faults(stall=0.3))
        told = office.committer.put_aside(note(7))
        await office.committer.checkpoint()
        assert told.done()
        assert noted(office.engine) == 7

    simulated(test)


def test_after_a_failure_rows_are_told_too() -> None:
    """Those in the failed write, those that wait, those that come later."""

    async def test() -> None:
        for faults in (Faults(write=1), Faults(flush=1)):
            office = Office(faults=faults)
            first = office.committer.put_aside(note(1))
            verdict = office.committer.submit(scans("a"))
            await asyncio.sleep(0)
            second = office.committer.put_aside(note(2))
            outcomes = [await outcome(each) for each in (first, verdict, second)]
            assert outcomes == [StorageFailed] * 3
            assert await outcome(office.committer.put_aside(note(3))) is StorageFailed
            assert await outcome(office.committer.drain()) is StorageFailed
            assert len(office.failures) == 1

    simulated(test)


def test_rows_of_other_tables_go_the_same_way() -> None:
    """And several tables at once go together."""

    async def test() -> None:
        office = Office()
        rows: list[tuple[Table, Rows]] = [
            (Table.DOCUMENTS, [(b"kind\0name", b"{}")]),
            (Table.META, [(META_IDENTITY, b"set/0")]),
        ]
        await office.committer.put_aside(rows)
        survivor = office.engine.crash()
        assert survivor.get(Table.DOCUMENTS, b"kind\0name") == b"{}"
        assert survivor.get(Table.META, META_IDENTITY) == b"set/0"

    simulated(test)
