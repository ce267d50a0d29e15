"""A committer at work in a made-up world, for its tests: its engine, its mark, and what it told."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, TypeVar, cast

from tests.store.desk import NOON_MS, Desk, scan, scan_event
from tests.store.simulated import Faults, SimulatedEngine, SimulatedLoop, SimulatedMark
from trackd.domain.vocabulary import EventCode
from trackd.store.committer import Committer
from trackd.store.errors import StorageFailed
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
