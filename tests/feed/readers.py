"""Readers of watches that keep what they were told, and scans for them, for tests of the feed."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from tests.feed.clocked import Clocked
from tests.store.desk import scan_event
from trackd.domain.vocabulary import EventCode
from trackd.feed.filters import ALL, Filter
from trackd.feed.live import Live
from trackd.feed.watch import Place, Watch
from trackd.v1.feed_pb2 import Change, ChangeRun

CODES = (
    EventCode.SORTED,
    EventCode.DEPARTED_FACILITY,
    EventCode.DELAYED,
    EventCode.OUT_FOR_DELIVERY,
    EventCode.DAMAGED,
)
BEGINNING = Place({0: 0})


@asynccontextmanager
async def running(live: Live) -> AsyncIterator[Live]:
    """The teller at work."""
    task = asyncio.ensure_future(live.run())
    try:
        yield live
    finally:
        live.stop()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def eventually(holds: Callable[[], bool]) -> None:
    """Returns once it does, which must be soon."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.002)


class Reader:
    """Reads a watch for as long as it is let, and keeps what it was told."""

    def __init__(
        self, live: Live, wanted: Filter = ALL, place: Place = BEGINNING, *, pause_s: float = 0.0
    ) -> None:
        self.watch = Watch(live, wanted, place)
        self.changes: list[Change] = []
        self.caught_up: list[Place] = []
        self.place = place
        self.pause_s = pause_s
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while (told := await self.watch.next()) is not None:
            self.place = told.place
            if told.run:
                self.changes += ChangeRun.FromString(told.run).changes
            else:
                self.caught_up.append(told.place)
            await asyncio.sleep(self.pause_s)

    async def until(self, position: int) -> "Reader":
        """Returns once everything up to there was told, or it has ended."""
        await eventually(lambda: self._is_at(position) or self.task.done())
        if self.task.done():
            self.task.result()
        return self

    def _is_at(self, position: int) -> bool:
        watch = self.watch
        if watch.state == "live" and not watch._heard:
            return watch._live.position(0) >= position
        return watch._positions[0] >= position

    async def ended(self) -> None:
        """It goes away."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        self.watch.close()

    @property
    def positions(self) -> list[int]:
        """Of the changes that it was told, in their order."""
        return [int(each.position.rpartition(".")[2]) for each in self.changes]


async def scans(clocked: Clocked, count: int, chance: random.Random) -> None:
    """Scans of a few waybills, in commits of a few."""
    done = 0
    while done < count:
        size = min(chance.randint(1, 20), count - done)
        clocked.now_ms += 1
        await clocked.scans(
            *(
                scan_event(
                    chance.choice(CODES),
                    f"e{clocked.now_ms}-{each}",
                    clocked.now_ms + chance.randint(-3, 3),  # mostly news, sometimes late
                    f"SF{chance.randint(0, 9):010}",
                    facility_code=chance.choice("ABCD"),
                )
                for each in range(size)
            )
        )
        done += size


def everything(clocked: Clocked, wanted: Filter = ALL) -> list[int]:
    """The positions of the changes that a filter wants, as the log has them."""
    feed = clocked.partition.feed
    run = feed.read(0, entries_max=feed.newest_position)
    return [change.position for change in run.changes if wanted.matches(change)]
