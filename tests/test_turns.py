"""Turns: long work is done one piece at a time, in order, and the loop gets its say in between."""

import asyncio
from collections.abc import Callable

from trackd.turns import Turns


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
