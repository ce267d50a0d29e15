"""The committer: order, durability before every answer, bounds, stalls and failures."""

import asyncio
import gc
import struct
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, TypeVar, cast

import pytest

from tests.store.desk import NOON_MS, Desk, scan, scan_event
from tests.store.simulated import (
    Faults,
    NothingLeftToDo,
    SimulatedEngine,
    SimulatedLoop,
    SimulatedMark,
)
from trackd.domain.vocabulary import EventCode
from trackd.store.committer import UNFLUSHED_COMMITS_MAX, Committer
from trackd.store.errors import DataDamaged, SpaceLow, StorageFailed
from trackd.store.keys import Table
from trackd.store.mark import DurableMark
from trackd.store.planner import ScanTuple
from trackd.store.space import SpaceGuard

SORTED = EventCode.SORTED
Result = TypeVar("Result")


class Office:
    """A committer on a simulated engine, and what it told."""

    def __init__(self, *, faults: Faults | None = None, commit_events_max: int = 10) -> None:
        self.rng = Random(1)
        self.engine = SimulatedEngine(self.rng, faults or Faults())
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        loop.engine = self.engine
        self.space = SpaceGuard()
        self.mark = SimulatedMark(self.rng)
        self.desk = Desk(self.engine, write_back_events=1)
        self.failures: list[StorageFailed] = []
        self.committer = Committer(
            self.engine,
            self.desk.planner,
            self.desk.statuses,
            cast(DurableMark, self.mark),
            commit_events_max=commit_events_max,
            now_ms=lambda: NOON_MS,
            on_failure=self.failures.append,
            space=self.space,
        )


def simulated(test: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Runs a test in a world of its own."""
    loop = SimulatedLoop(Random(2))
    try:
        return loop.run_until_complete(test())
    finally:
        loop.close()


def scans(*event_ids: str, waybill_number: str = "SF0001") -> list[ScanTuple]:
    """A batch of scans of these ids."""
    events = [scan_event(SORTED, event_id, waybill_number=waybill_number) for event_id in event_ids]
    return [scan(event, n) for n, event in enumerate(events)]


async def outcome(answer: Awaitable[Any]) -> type[BaseException] | int:
    """How many events were accepted, or the kind of error."""
    try:
        return (await answer).accepted  # type: ignore[no-any-return]
    except Exception as error:
        return type(error)


def test_an_answer_is_durable() -> None:
    """When it is given, the position is flushed, in the mark, and the rows are on disk."""

    async def test() -> None:
        office = Office()
        verdict = await office.committer.submit(scans("a", "b"))
        assert (verdict.accepted, verdict.position) == (2, 2)
        assert office.committer.durable_position == office.mark.read() == 2
        assert len(list(office.engine.after_crash(power_cut=True).scan_all(Table.EVENTS))) == 2

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


def test_a_stalled_write_is_tried_until_it_is_taken() -> None:
    """Nobody is answered meanwhile, nothing is planned behind it, nothing is lost or doubled."""

    async def test() -> None:
        office = Office(faults=Faults(stall=0.5), commit_events_max=3)
        answers = [office.committer.submit(scans(f"{n}-a", f"{n}-b")) for n in range(50)]
        verdicts = await asyncio.gather(*answers)
        assert [verdict.accepted for verdict in verdicts] == [2] * 50
        assert office.committer.figures.stalls > 5
        office.desk.check()

    simulated(test)


def test_while_a_write_is_stalled_the_statuses_are_ahead() -> None:
    """That is what readers of timelines wait for."""

    async def test() -> None:
        office = Office(faults=Faults(stall=1))
        answer = office.committer.submit(scans("a"))
        await asyncio.sleep(0.001)
        stalled = [office.committer.is_stalled]
        assert office.committer.planned_position == 1
        assert office.committer.written_position == office.committer.durable_position == 0
        office.engine.faults.stall = 0
        await answer
        stalled.append(office.committer.is_stalled)
        assert stalled == [True, False]
        assert office.committer.written_position == 1

    simulated(test)


@pytest.mark.parametrize("faults", [Faults(write=1), Faults(flush=1)], ids=["write", "flush"])
def test_after_a_failure_nobody_is_answered_and_everybody_is_told(faults: Faults) -> None:
    """Those under way, those that wait, those that come later; and the server, once."""

    async def test() -> None:
        office = Office(faults=faults, commit_events_max=2)
        committer = office.committer
        answers = [outcome(committer.submit(scans(f"{n}-a", f"{n}-b"))) for n in range(6)]
        waiting = [committer.durable(1), committer.durable(100)]
        outcomes = await asyncio.gather(*answers, *map(outcome, waiting))
        assert outcomes == [StorageFailed] * 8
        assert await outcome(committer.submit(scans("late"))) == StorageFailed
        assert await outcome(committer.durable(1)) == StorageFailed
        assert await outcome(committer.drain()) == StorageFailed
        assert await outcome(committer.checkpoint()) == StorageFailed
        await asyncio.wait_for(asyncio.gather(outcome(committer.room(1))), 1)
        assert len(office.failures) == 1
        assert committer.durable_position == committer.queued_events == 0

    simulated(test)


def test_an_unexpected_error_of_a_write_is_a_failure_too() -> None:
    """Whatever it is: behind a plan that was not written there would be a hole."""

    async def test() -> None:
        office = Office()

        def fail(*_: object) -> None:
            raise MemoryError("simulated")

        office.engine.write = fail  # type: ignore[method-assign,assignment]
        answers = [office.committer.submit(scans(event_id)) for event_id in ("a", "b")]
        assert [await outcome(answer) for answer in answers] == [StorageFailed] * 2
        assert len(office.failures) == 1

    simulated(test)


def test_while_a_disk_hangs_only_so_much_is_written_behind_the_flush() -> None:
    """The rest waits in the queue, where it is counted; then all is stored."""

    async def test() -> None:
        office = Office(commit_events_max=2)
        answers = [office.committer.submit(scans(f"{n}-a", f"{n}-b")) for n in range(100)]
        for _ in range(200):
            await asyncio.sleep(0)
        assert office.committer.durable_position == 0
        written = office.committer.written_position
        assert written == 2 * (1 + UNFLUSHED_COMMITS_MAX)
        assert office.committer.queued_events == 200 - written
        await asyncio.gather(*answers)
        assert office.committer.durable_position == 200
        office.desk.check()

    simulated(test)


def test_nothing_that_waits_is_written_while_the_disk_is_nearly_full() -> None:
    """It is refused, each caller with SpaceLow; what was written is answered; later it goes on."""

    async def test() -> None:
        office = Office()
        before = office.committer.submit(scans("before"))
        await asyncio.sleep(0)
        office.space.low = True
        waiting = [office.committer.submit(scans(f"{n}")) for n in range(3)]
        room = asyncio.ensure_future(office.committer.room(1))
        assert [await outcome(answer) for answer in waiting] == [SpaceLow] * 3
        await room
        assert (await before).position == 1
        assert office.committer.queued_events == 0
        assert not office.failures
        office.space.low = False
        assert (await office.committer.submit(scans("after"))).position == 2
        await office.committer.drain()
        office.desk.check()

    simulated(test)


def test_a_failure_while_the_next_commits_wait_for_their_flush_reaches_them_too() -> None:
    """What was written behind a failed flush is not acknowledged either."""

    async def test() -> None:
        office = Office(commit_events_max=1)
        first = office.committer.submit(scans("a"))
        await asyncio.sleep(0)
        second = office.committer.submit(scans("b"))
        await asyncio.sleep(0)
        assert office.committer.written_position == 2
        office.engine.faults.flush = 1
        assert [await outcome(first), await outcome(second)] == [StorageFailed] * 2

    simulated(test)


def test_one_waybill_that_cannot_be_read_fails_only_those_who_sent_it() -> None:
    """The others in the same commit are stored and answered, in their order."""

    async def test() -> None:
        office = Office()
        await office.committer.submit(scans("a", waybill_number="SF9999"))
        ((key, _),) = office.engine.scan_all(Table.EVENTS)
        office.engine.write([(Table.EVENTS, [(key, b"\xff")])])
        late = scan_event(SORTED, "b", NOON_MS - 1, "SF9999")
        damaged = [scan(scan_event(EventCode.LOST, "c", NOON_MS - 2, "SF9999")), scan(late)]
        answers = [
            office.committer.submit(scans("1")),
            office.committer.submit(damaged),
            office.committer.submit(scans("2", "3")),
            office.committer.submit(scans("4")),
        ]
        order: list[int] = []
        for n, answer in enumerate(answers):
            answer.add_done_callback(lambda _, n=n: order.append(n))  # type: ignore[misc]
        assert [await outcome(answer) for answer in answers] == [1, DataDamaged, 2, 1]
        await asyncio.sleep(0)
        assert [n for n in order if n != 1] == [0, 2, 3]
        assert [answers[n].result().position for n in (0, 2, 3)] == [2, 4, 5]
        assert not office.failures
        assert office.committer.queued_events == 0

    simulated(test)


def test_a_defect_in_the_planning_does_not_leave_anybody_waiting() -> None:
    """A scan that no plan can hold: its sender hears of it, the others are served."""

    async def test() -> None:
        office = Office()
        index, key, event_id, *middle, wire = scans("huge")[0]
        huge = cast(ScanTuple, (index, key, event_id, *middle, wire + bytes(70_000)))
        answers = [
            office.committer.submit(scans("1")),
            office.committer.submit([huge]),
            office.committer.submit(scans("2")),
        ]
        assert [await outcome(answer) for answer in answers] == [1, struct.error, 1]
        office.desk.check()

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


def test_a_failure_that_nobody_waits_for_is_not_logged_by_the_loop() -> None:
    """Callers that have gone leave no tracebacks behind: the failure is told once, elsewhere."""

    async def test() -> None:
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: told.append(context["message"])
        )
        office = Office(faults=Faults(flush=1))
        office.committer.submit(scans("a"))
        await asyncio.sleep(1)
        assert len(office.failures) == 1
        gc.collect()
        assert told == []

    simulated(test)


def test_a_shutdown_leaves_nothing_dirty() -> None:
    """What waits is committed, every status is written back, and the next start replays nothing."""

    async def test() -> None:
        office = Office(faults=Faults(stall=0.3), commit_events_max=2)
        answers = [office.committer.submit(scans(f"{n}")) for n in range(20)]
        await asyncio.sleep(0)
        await office.committer.checkpoint()
        assert all(answer.done() for answer in answers)
        assert not office.desk.statuses.dirty
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
