"""A world in which time, disk and power are made up: every run follows from its seed.

`SimulatedLoop` is an asyncio loop without threads, sockets or waiting: its clock jumps to whatever
is due next, and what would run in a thread is done some time later. `SimulatedEngine` keeps apart
what a flush had reached when the power went, and stalls and fails on purpose. Knows no scans.
"""

import asyncio
import selectors
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from trackd.store.engine_contract import Rows
from trackd.store.errors import StorageFailed, WriteStalled
from trackd.store.keys import Table
from trackd.store.memory_engine import MemoryEngine, rows_of

# The chance that some memtables are written out after a write past the log.
_WRITTEN_OUT = 0.3


class NothingLeftToDo(AssertionError):
    """Everybody waits, and nothing is due: a deadlock."""


class _NoFiles(selectors.BaseSelector):
    """A selector of nothing: where a loop would wait, the clock moves on."""

    def __init__(self, move_on: Callable[[float | None], None]) -> None:
        self._move_on = move_on
        self._key = selectors.SelectorKey(0, 0, 0, None)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """The loop's own wake-up socket; nobody ever writes to it."""
        return self._key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Nothing to forget."""
        return self._key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Waits, in the loop's own time."""
        self._move_on(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """No files."""
        return {}


class SimulatedLoop(asyncio.SelectorEventLoop):
    """One thread, a clock of its own."""

    def __init__(self, rng: Random, *, work_s_max: float = 0.02) -> None:
        self._now = 0.0
        self._rng = rng
        # Whose flushes take their time here.
        self.engine: SimulatedEngine | None = None
        self._work_s_max = work_s_max
        super().__init__(_NoFiles(self._move_on))

    def time(self) -> float:
        """Seconds since the beginning of this world."""
        return self._now

    def _move_on(self, timeout: float | None) -> None:
        if timeout is None:
            raise NothingLeftToDo
        self._now += timeout

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Done after a while. A flush in it reaches only what was written when it began."""
        done: asyncio.Future[Any] = self.create_future()
        engine = self.engine
        reached = engine.written if engine else None

        def finish() -> None:
            if done.done():
                return
            if engine:
                engine.reached = reached
            try:
                done.set_result(func(*args))
            except Exception as error:
                done.set_exception(error)
            finally:
                if engine:
                    engine.reached = None

        self.call_later(self._rng.uniform(0, self._work_s_max), finish)
        return done


@dataclass(slots=True)
class Faults:
    """Chances per call: a stall begins, a write fails, a flush fails. May change at any time.

    A write past the log stalls and fails as others do; keep: the chance that keeping one fails.
    """

    stall: float = 0.0
    write: float = 0.0
    flush: float = 0.0
    keep: float = 0.0


class Written(NamedTuple):
    """How much was written at some moment: batches, and writes past the log."""

    batches: int
    unlogged: int


class SimulatedEngine(MemoryEngine):
    """The engine in memory, with faults, and a crash that loses what no flush had reached."""

    def __init__(self, rng: Random, faults: Faults) -> None:
        super().__init__()
        self._rng = rng
        self._stalled_writes = 0
        # What had been written when the flush began that ends now; None: all of it.
        self.reached: Written | None = None
        self.faults = faults
        self.broken = False
        # What came of writes past the log, and of keeping them.
        self.happened: Counter[str] = Counter()

    @property
    def written(self) -> Written:
        """How much is written now."""
        return Written(self.batches, len(self._unlogged))

    @property
    def unflushed(self) -> int:
        """Batches that no flush has reached."""
        return len(self._unflushed)

    def write(self, batch: Sequence[tuple[Table, Rows]]) -> None:
        """See Engine."""
        self._stall()
        if self._rng.random() < self.faults.write:
            self.broken = True
            if self._rng.random() < 0.5:
                super().write(batch)  # it failed, and is in the log nevertheless
            raise StorageFailed("simulated write error")
        super().write(batch)

    def write_unlogged(self, batch: Sequence[tuple[Table, Rows]]) -> int:
        """See Engine. A memtable may be written out at any time, and only later be seen to be."""
        try:
            self._stall()
        except WriteStalled:
            self.happened["stalled unlogged"] += 1
            raise
        failed = self._rng.random() < self.faults.write
        if failed:
            self.happened["failed unlogged"] += 1
            self.broken = True
            if self._rng.random() < 0.5:
                raise StorageFailed("simulated unlogged write error")
        self._unlogged.append((self.batches, rows := rows_of(batch)))
        self._apply(rows)
        if failed:
            raise StorageFailed("simulated unlogged write error")
        if self._rng.random() < _WRITTEN_OUT:
            self._keep(self._rng.randint(self._kept, len(self._unlogged)))
        return len(self._unlogged)

    def _stall(self) -> None:
        assert not self.broken, "written to after a failure"
        if not self._stalled_writes and self._rng.random() < self.faults.stall:
            self._stalled_writes = self._rng.randint(1, 6)
        if self._stalled_writes:
            self._stalled_writes -= 1
            raise WriteStalled("simulated")

    def keep_unlogged(self) -> None:
        """See Engine."""
        assert not self.broken, "kept after a failure"
        reached = (self.reached or self.written).unlogged
        if self._rng.random() < self.faults.keep:
            self.happened["failed keep"] += 1
            self.broken = True
            self._keep(self._rng.randint(0, reached))
            raise StorageFailed("simulated error of writing out")
        self._keep(reached)

    def flush_wal(self) -> None:
        """See Engine."""
        self.flush((self.reached or self.written).batches)

    def flush(self, reached: int) -> None:
        """Makes the first `reached` batches durable, or fails and makes fewer of them durable."""
        assert not self.broken, "flushed after a failure"
        if self._rng.random() < self.faults.flush:
            self.broken = True
            reached = self._rng.randint(0, reached)
        self._flush(reached)
        if self.broken:
            raise StorageFailed("simulated flush error")

    def after_crash(self, *, power_cut: bool) -> "SimulatedEngine":
        """What the next start finds: all that was written, or, without power, a part of it.

        Of what was written past the log it is in both cases a part, another of each table.
        """
        kept = len(self._unflushed)
        if power_cut:
            kept = self._rng.randint(0, kept)
        unkept = len(self._unlogged) - self._kept
        survivor = SimulatedEngine(self._rng, self.faults)
        self._leave_to(survivor, kept, {table: self._rng.randint(0, unkept) for table in Table})
        return survivor


class SimulatedMark:
    """The durable mark, whose last writes may or may not have reached the disk."""

    def __init__(self, rng: Random, written: Sequence[int] = ()) -> None:
        self._rng = rng
        self._written = list(written)

    def read(self) -> int | None:
        """See DurableMark."""
        return self._written[-1] if self._written else None

    def write(self, position: int) -> None:
        """See DurableMark."""
        assert not self._written or position >= self._written[-1]
        self._written.append(position)

    def reset(self, position: int) -> None:
        """See DurableMark."""
        self._written = [position]

    def sync(self) -> None:
        """See DurableMark."""
        del self._written[:-1]

    def close(self) -> None:
        """See DurableMark."""
        self.sync()

    def after_crash(self, *, power_cut: bool) -> "SimulatedMark":
        """What the next start finds: the last one, or, without power, any since the last sync."""
        kept = len(self._written)
        if power_cut and kept:
            kept = self._rng.randint(1, kept)
        return SimulatedMark(self._rng, self._written[:kept])
