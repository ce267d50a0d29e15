"""The committer: order, durability before every answer, bounds, and a shutdown."""

import asyncio

import pytest

from tests.store.desk import NOON_MS, Desk, scan, scan_event
from tests.store.office import SORTED, Office, scans, simulated
from tests.store.simulated import Faults, NothingLeftToDo
from trackd.store.keys import Table


def test_an_answer_is_durable() -> None:
    """When it is given, the position is flushed, in the mark, and the next start has the events."""

    async def test() -> None:
        office = Office()
        verdict = await office.committer.submit(scans("a", "b"))
        assert (verdict.accepted, verdict.position) == (2, 2)
        assert office.committer.durable_position == office.mark.read() == 2
        assert len(Desk(office.engine.after_crash(power_cut=True)).events()) == 2

    simulated(test)


def test_answers_are_given_in_the_order_of_submission() -> None:
    """Whatever their size, over many commits."""

    async def test() -> None:
        office = Office(commit_events_max=4)
        order: list[int] = []
        answers = []
        for n in range(40):
            answer = office.committer.submit(scans(*(f"{n}-{k}" for k in range(1 + n % 7))))
            answer.add_done_callback(lambda _, n=n: order.append(n))  # type: ignore[misc]
            answers.append(answer)
        verdicts = await asyncio.gather(*answers)
        assert order == list(range(40))
        positions = [verdict.position for verdict in verdicts]
        assert positions == sorted(positions)
        assert office.committer.figures.commits > 5

    simulated(test)


def test_a_commit_takes_what_waits_but_never_splits_a_batch() -> None:
    """Up to its bound, or one batch that is larger; what waits beyond it is in the next."""

    async def test() -> None:
        office = Office(commit_events_max=10)
        sizes = [4, 4, 4, 25, 1]
        answers = [
            office.committer.submit(scans(*(f"{n}-{k}" for k in range(size))))
            for n, size in enumerate(sizes)
        ]
        await asyncio.gather(*answers)
        blocks = [entry.position for entry in office.desk.log()]
        assert len(blocks) == sum(sizes)
        last_positions = [
            int.from_bytes(key, "big") for key, _ in office.engine.scan_all(Table.LOG)
        ]
        assert last_positions == [8, 12, 37, 38]

    simulated(test)


def test_while_one_commit_is_flushed_a_full_one_is_written() -> None:
    """And a small one waits to grow: a flush is what costs."""

    async def test() -> None:
        office = Office(commit_events_max=4)
        committer = office.committer
        first = committer.submit(scans("a"))
        await asyncio.sleep(0)
        assert (committer.written_position, committer.durable_position) == (1, 0)
        small = committer.submit(scans("b"))
        await asyncio.sleep(0)
        assert committer.written_position == 1, "waits for company"
        full = committer.submit(scans("c", "d", "e"))
        await asyncio.sleep(0)
        assert (committer.written_position, committer.durable_position) == (5, 0)
        assert not any(answer.done() for answer in (first, small, full))
        await asyncio.gather(first, small, full)
        assert committer.durable_position == 5

    simulated(test)


def test_whoever_waits_for_a_position_is_told_when_it_is_durable() -> None:
    """Not earlier; at once if it is already."""

    async def test() -> None:
        office = Office(commit_events_max=1)
        told: list[int] = []

        async def wait(position: int) -> None:
            await office.committer.durable(position)
            assert office.committer.durable_position >= position
            told.append(position)

        waiting = [asyncio.ensure_future(wait(position)) for position in (3, 1, 2, 0)]
        for n in range(3):
            await office.committer.submit(scans(f"{n}"))
            await asyncio.sleep(0)
            assert max(told) == n + 1
        await asyncio.gather(*waiting)
        assert sorted(told) == [0, 1, 2, 3]

    simulated(test)


def test_room_is_what_does_not_wait_for_a_plan() -> None:
    """A stream that asks for room gets it once the queue is below the bound."""

    async def test() -> None:
        office = Office(commit_events_max=2)
        answers = [office.committer.submit(scans(f"{n}-a", f"{n}-b")) for n in range(5)]
        assert office.committer.queued_events == 10
        await office.committer.room(11)
        asked = asyncio.ensure_future(office.committer.room(4))
        await asyncio.sleep(0)
        assert not asked.done()
        await asked
        assert office.committer.queued_events < 4
        await asyncio.gather(*answers)

    simulated(test)


def test_a_caller_that_has_gone_does_not_disturb_the_others() -> None:
    """Its scans are stored all the same: it may have been only its patience that ended."""

    async def test() -> None:
        office = Office()
        gone, stays = office.committer.submit(scans("a")), office.committer.submit(scans("b"))
        waiter = asyncio.ensure_future(office.committer.durable(2))
        await asyncio.sleep(0)
        gone.cancel()
        waiter.cancel()
        assert (await stays).position == 2
        assert (await office.committer.submit(scans("a"))).duplicates == 1

    simulated(test)


def test_a_shutdown_leaves_nothing_dirty() -> None:
    """What waits is committed, every status is written back, and the next start replays nothing."""

    async def test() -> None:
        office = Office(faults=Faults(stall=0.3), commit_events_max=2)
        answers = [office.committer.submit(scans(f"{n}")) for n in range(20)]
        await asyncio.sleep(0)
        await office.committer.checkpoint()
        assert all(answer.done() for answer in answers)
        assert not office.desk.statuses.dirty_count
        survivor = office.engine.after_crash(power_cut=True)
        assert Desk(survivor).replayed == 0
        await office.committer.checkpoint()
        await office.committer.close()

    simulated(test)


def test_it_counts_what_it_does() -> None:
    """Events, repeats, conflicts, commits by size, and the time they take."""

    async def test() -> None:
        office = Office()
        await office.committer.submit(scans("a", "b", "c"))
        other = scan(scan_event(SORTED, "a", NOON_MS + 1, "SF0001"))
        await office.committer.submit([*scans("b"), other])
        figures = office.committer.figures
        assert (figures.events, figures.duplicates, figures.rejections) == (3, 1, 1)
        assert figures.commits == sum(figures.batch_sizes.values()) == 2
        assert figures.batch_sizes == {4: 1, 1: 1}
        assert sum(figures.commit_latency.counts) == sum(figures.fsync_latency.counts) == 2
        assert figures.stalls == 0

    simulated(test)


def test_the_simulated_world_notices_a_deadlock() -> None:
    """Or a test of it could hang."""

    async def test() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingLeftToDo):
        simulated(test)
