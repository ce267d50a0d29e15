"""Turns: long work is done one piece at a time, in order, and the loop gets its say in between."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from trackd import turns as module
from trackd.turns import Turns

# Turns of the loop that grpc.aio needs to take in one call.
CALL_TURNS = 6


@pytest.fixture
def _every_piece_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are looked for after each piece of work, however short it was."""
    monkeypatch.setattr(module, "_WORK_S", 0.0)


async def _turns_of_the_loop(is_enough: Callable[[], bool]) -> None:
    while not is_enough():  # noqa: ASYNC110 (the turns of the loop are what is looked at)
        await asyncio.sleep(0)


async def test_there_is_a_turn_of_the_loop_between_two_pieces_of_work() -> None:
    """What is ready meanwhile goes first, however much work waits."""
    turns, told = Turns(), []
    loop = asyncio.get_running_loop()
    for n in range(3):

        def work(n: int = n) -> None:
            told.append(f"work {n}")
            loop.call_soon(told.append, f"call {n}")

        turns.soon(work)
    await asyncio.wait_for(_turns_of_the_loop(lambda: len(told) == 6), 10)
    assert told == ["work 0", "call 0", "work 1", "call 1", "work 2", "call 2"]


async def test_everybody_has_a_turn_in_the_order_of_asking() -> None:
    """One who no longer waits is passed over."""
    turns, told = Turns(), []

    async def ask(name: str) -> None:
        await turns.mine()
        told.append(name)

    tasks = [asyncio.create_task(ask(name)) for name in ("a", "gone", "b")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert told == ["a", "b"]
    await asyncio.wait_for(turns.mine(), 10)


async def test_patient_work_goes_behind_all_other_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What came after it goes first; once it has waited long enough nothing else does."""
    turns, told = Turns(), []
    turns.patiently(lambda: told.append("patient"))
    for n in range(3):
        turns.soon(lambda n=n: told.append(f"work {n}"))  # type: ignore[misc] # bound now
    await asyncio.wait_for(_turns_of_the_loop(lambda: len(told) == 4), 10)
    assert told == ["work 0", "work 1", "work 2", "patient"]
    monkeypatch.setattr(module, "_PATIENCE_S", -1.0)
    told.clear()
    turns.soon(lambda: told.append("work"))
    turns.patiently(lambda: told.append("patient"))
    await asyncio.wait_for(_turns_of_the_loop(lambda: len(told) == 2), 10)
    assert told == ["patient", "work"]


async def test_work_that_raises_does_not_take_the_others_turns() -> None:
    """A defect in one piece of work stops nothing else."""
    turns = Turns()
    loop = asyncio.get_running_loop()

    def defect() -> None:
        raise RuntimeError

    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda *_: None)
    try:
        turns.soon(defect)
        await asyncio.wait_for(turns.mine(), 10)
    finally:
        loop.set_exception_handler(before)


@pytest.mark.usefixtures("_every_piece_is_long")
async def test_while_calls_come_work_waits_for_those_that_are_on_their_way() -> None:
    """Three calls that come one behind the other are all taken in between two pieces of work."""
    turns, told = Turns(), []

    async def calls() -> None:
        for number in range(3):
            for _ in range(CALL_TURNS):
                await asyncio.sleep(0)
            told.append(f"call {number}")
            turns.call_came()

    turns.call_came()
    for number in range(2):
        turns.soon(lambda number=number: told.append(f"work {number}"))  # type: ignore[misc]
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(calls())
        await _turns_of_the_loop(lambda: len(told) == 5)
    assert told == ["work 0", "call 0", "call 1", "call 2", "work 1"]


@pytest.mark.usefixtures("_every_piece_is_long")
async def test_calls_without_end_do_not_stop_work() -> None:
    """With a call in every turn of the loop, work goes on after a bounded number of turns."""
    turns, done, calls = Turns(), [], 0
    for number in range(3):
        turns.soon(lambda number=number: done.append((number, calls)))  # type: ignore[misc]
    async with asyncio.timeout(10):
        while len(done) < 3:
            turns.call_came()
            calls += 1
            await asyncio.sleep(0)
    assert [number for number, _ in done] == [0, 1, 2]
    waited = [later - before for (_, before), (_, later) in itertools.pairwise(done)]
    assert all(each <= module._WAITING_TURNS_MAX + CALL_TURNS for each in waited)


@pytest.mark.usefixtures("_every_piece_is_long")
async def test_without_calls_work_waits_for_nothing() -> None:
    """Each piece is done in the turn after the one before it: a scan costs no turns of its own."""
    turns, done, turn = Turns(), [], 0
    for _ in range(5):
        turns.soon(lambda: done.append(turn))
    async with asyncio.timeout(10):
        while len(done) < 5:
            await asyncio.sleep(0)
            turn += 1
    assert done[-1] - done[0] <= len(done)
