"""The committer when something goes wrong: stalls, failures, damage, defects."""

import asyncio
import gc
import struct
from typing import cast

import pytest

from tests.store.desk import NOON_MS, scan, scan_event
from tests.store.office import SORTED, Office, outcome, scans, simulated
from tests.store.simulated import Faults
from trackd.domain.vocabulary import EventCode
from trackd.store.errors import DataDamaged, StorageFailed
from trackd.store.events import parse_event
from trackd.store.keys import Table
from trackd.store.planner import ScanTuple


async def unreadable(office: Office) -> list[ScanTuple]:
    """A scan of a waybill whose one event, which was accepted, can be read no more."""
    await office.committer.submit(scans("a", waybill_number="SF9999"))
    ((key, _),) = office.engine.scan_all(Table.EVENTS)
    office.engine.write([(Table.EVENTS, [(key, b"\xff")])])
    return [scan(scan_event(EventCode.LOST, "b", NOON_MS - 1, "SF9999"))]


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


def test_while_a_write_is_stalled_what_is_planned_is_ahead() -> None:
    """Of what is written, and of what is durable, which readers wait for."""

    async def test() -> None:
        office = Office(faults=Faults(stall=1))
        answer = office.committer.submit(scans("a"))
        await asyncio.sleep(0.001)
        assert office.committer.planned_position == 1
        assert office.committer.written_position == office.committer.durable_position == 0
        office.engine.faults.stall = 0
        await answer
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


def test_a_failure_while_the_next_commits_wait_for_their_flush_reaches_them_too() -> None:
    """What was written behind a failed flush is not acknowledged either."""

    async def test() -> None:
        office = Office(commit_events_max=1)
        first = office.committer.submit(scans("a"))
        await asyncio.sleep(0)
        second = office.committer.submit(scans("b"))
        for _ in range(5):  # what is written back has turns of its own
            await asyncio.sleep(0)
        assert office.committer.written_position == 2
        office.engine.faults.flush = 1
        assert [await outcome(first), await outcome(second)] == [StorageFailed] * 2

    simulated(test)


def test_one_waybill_that_cannot_be_read_fails_only_those_who_sent_it() -> None:
    """The others in the same commit are stored and answered, in their order."""

    async def test() -> None:
        office = Office()
        damaged = await unreadable(office)
        damaged.append(scan(scan_event(SORTED, "c", NOON_MS - 2, "SF9999")))
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
        # The last two are in one commit: both have the position of its end.
        assert [answers[n].result().position for n in (0, 2, 3)] == [2, 5, 5]
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


def test_a_stall_among_those_that_are_planned_apart_keeps_their_order() -> None:
    """Behind a damaged waybill and a stalled write the others wait, in the order they came."""

    async def test() -> None:
        office = Office()
        damaged = await unreadable(office)
        answers = [office.committer.submit(scans("1")), office.committer.submit(damaged)]
        answers += [office.committer.submit(scans(f"{n}")) for n in range(2, 7)]
        office.engine.faults.stall = 1
        await asyncio.sleep(0.01)
        assert not any(answer.done() for answer in answers)
        office.engine.faults.stall = 0.5
        outcomes = [await outcome(answer) for answer in answers]
        assert outcomes == [1, DataDamaged, 1, 1, 1, 1, 1]
        del answers[1]
        positions = [answer.result().position for answer in answers]
        # Of one commit all have the position of its end.
        assert positions == sorted(positions)
        ids = [parse_event(entry.event).event_id for entry in office.desk.log()]
        assert ids == ["a", "1", "2", "3", "4", "5", "6"]

    simulated(test)


def test_whoever_waits_for_room_hears_of_a_failure() -> None:
    """A stream that is held back must not wait for ever."""

    async def test() -> None:
        office = Office(faults=Faults(stall=1))
        answers = [office.committer.submit(scans(f"{n}-a", f"{n}-b")) for n in range(20)]
        await asyncio.sleep(0.01)
        waiting = asyncio.ensure_future(office.committer.room(3))
        await asyncio.sleep(0)
        assert not waiting.done()
        office.engine.faults.stall, office.engine.faults.write = 0, 1
        await asyncio.wait([waiting], timeout=1)
        assert waiting.done()
        assert [await outcome(answer) for answer in answers] == [StorageFailed] * 20

    simulated(test)


def test_a_failure_among_those_that_are_planned_apart_is_told_to_all() -> None:
    """A damaged waybill and a dying disk in one commit: nobody is left waiting."""

    async def test() -> None:
        office = Office()
        damaged = await unreadable(office)
        answers = [office.committer.submit(scans(f"{n}")) for n in range(3)]
        answers.append(office.committer.submit(damaged))
        answers += [office.committer.submit(scans(f"{n}")) for n in range(3, 6)]
        office.engine.faults.write = 1
        outcomes = [await asyncio.wait_for(outcome(answer), 60) for answer in answers]
        assert outcomes == [StorageFailed] * 7
        assert len(office.failures) == 1
        assert office.committer.queued_events == 0

    simulated(test)


def test_one_damaged_waybill_among_many_costs_few_plans() -> None:
    """A commit is halved until it is found: not a commit of their own for a thousand others."""

    async def test() -> None:
        office = Office(commit_events_max=1_000)
        damaged = await unreadable(office)
        answers = [office.committer.submit(scans(f"{n}")) for n in range(600)]
        answers.append(office.committer.submit(damaged))
        answers += [office.committer.submit(scans(f"{n}")) for n in range(600, 999)]
        outcomes = [await outcome(answer) for answer in answers]
        assert outcomes.count(1) == 999
        assert outcomes[600] is DataDamaged
        assert office.committer.figures.commits < 15
        ids = [parse_event(entry.event).event_id for entry in office.desk.log()]
        assert ids == ["a", *(f"{n}" for n in range(999))]

    simulated(test)
