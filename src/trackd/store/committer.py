"""The one writer of a partition: plan, write, settle.

Takes what is waiting, plans it (planner.py), writes it in one batch, has it flushed from a thread,
and only then answers. During a flush, commits are planned and written as soon as they are full.

* Nothing is answered before it is durable: every answer follows a flush that began after its write.
* Answers are given in the order of submission.
* A stalled write is tried again until the engine takes it; meanwhile nothing is planned and nobody
  is answered.
* After any other failure of write or flush nothing is answered any more: every caller gets
  StorageFailed, `on_failure` is called once, and the committer stays failed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from trackd.store import failpoint
from trackd.store.aside import ASIDE_DELAY_S, Aside
from trackd.store.commit_figures import CommitFigures
from trackd.store.engine_contract import Engine, Rows
from trackd.store.errors import SpaceLow, StorageFailed, WriteStalled, as_storage_failure
from trackd.store.keys import Table
from trackd.store.mark import DurableMark
from trackd.store.planner import Plan, Planner, ScanTuple, Verdict
from trackd.store.space import SpaceGuard
from trackd.store.stalls import STALL_RETRY_S
from trackd.store.statuses import StatusTable
from trackd.store.waiting import Waiting, once_more
from trackd.store.write_back import WritingBack
from trackd.store.written import Submission, Written
from trackd.turns import Turns

# Commits that may be written while a flush runs: a disk may hang. The rest is held back.
UNFLUSHED_COMMITS_MAX = 16
# What is written back in one go: as much as so many full commits.
WRITE_BACK_COMMITS = 2


class Committer:
    """Orders and commits a partition's scans. Only the thread of its event loop may call it."""

    def __init__(
        self,
        engine: Engine,
        planner: Planner,
        statuses: StatusTable,
        mark: DurableMark,
        *,
        commit_events_max: int,
        now_ms: Callable[[], int],
        on_failure: Callable[[StorageFailed], None],
        space: SpaceGuard | None = None,
        turns: Turns | None = None,
        on_durable: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self._engine = engine
        self._planner = planner
        self._statuses = statuses
        self._mark = mark
        self._commit_events_max = commit_events_max
        self._now_ms = now_ms
        self._on_failure = on_failure
        # Told of each commit that became durable: its last position and its block of the log.
        self._on_durable = on_durable
        self._space = space or SpaceGuard()
        self._loop = asyncio.get_running_loop()
        self._turns = turns or Turns()
        self._writing_back = WritingBack(
            engine,
            statuses,
            rows_max=WRITE_BACK_COMMITS * commit_events_max,
            turns=self._turns,
            position=self._writable_position,
            on_written=self._pump_soon,
            on_failure=self._failed,
        )
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self.figures = CommitFigures()
        self._queue: deque[Submission] = deque()  # what waits for a plan
        self.queued_events = 0
        self._pump_due = False
        # Rows that are not events and wait for a commit to ride on.
        self._aside = Aside()
        # A plan that the engine has not taken yet (a stall); nothing is planned while there is one.
        self._stalled: Written | None = None
        self._stalled_at = 0.0
        self._written: list[Written] = []  # what waits for a flush
        self._flushing: list[Written] | None = None  # what the flush that runs is for
        self._flush_began = 0.0
        self.written_position = planner.position
        self.durable_position = planner.position
        self._waiting_for_room = Waiting()
        self._waiting_for_durable = Waiting()
        self._failure: StorageFailed | None = None

    # What callers ask.

    def submit(self, scans: Sequence[ScanTuple]) -> asyncio.Future[Verdict]:
        """Commits scans together; the future resolves once they are durable.

        It fails with StorageFailed; with SpaceLow if the disk is nearly full; with DataDamaged if
        what is stored of these waybills cannot be read.
        """
        answer: asyncio.Future[Verdict] = self._loop.create_future()
        if self._failure:
            answer.set_exception(once_more(self._failure))
            return answer
        self._queue.append(Submission(scans, answer, time.monotonic()))
        self.queued_events += len(scans)
        self._pump_soon()
        return answer

    def put_aside(self, rows: Sequence[tuple[Table, Rows]]) -> asyncio.Future[None]:
        """Writes rows that are not events with the next commit, or alone if none comes soon.

        In the order of the calls, those of one call together; no position moves. The future
        resolves once they are durable, and fails with StorageFailed; nobody need wait for it.
        """
        done: asyncio.Future[None] = self._loop.create_future()
        if not self._aside:
            self._loop.call_later(ASIDE_DELAY_S, self._write_aside)
        self._aside.add(rows, done)
        if self._failure:
            self._aside.fail(self._failure)
        return done

    @property
    def space_is_low(self) -> bool:
        """Whether nothing may be written that can be refused."""
        return self._space.low

    async def durable(self, position: int) -> None:
        """Returns once all up to position is durable. Raises StorageFailed if it will never be."""
        if position <= self.durable_position:
            return
        self._raise_failure()
        await self._waiting_for_durable.until(position)

    async def room(self, events_max: int) -> None:
        """Returns once fewer than events_max events wait for a plan. Raises StorageFailed."""
        while self.queued_events >= events_max:
            self._raise_failure()
            await self._waiting_for_room.until(0)

    @property
    def planned_position(self) -> int:
        """The position of the last event put into order."""
        return self._planner.position

    @property
    def waybills(self) -> int:
        """How many waybills have an event that was put into order."""
        return self._planner.waybills

    async def drain(self) -> None:
        """Returns once nothing waits any more. Raises StorageFailed."""
        while self._has_work():
            self._raise_failure()
            await asyncio.sleep(STALL_RETRY_S)
        self._raise_failure()

    def _has_work(self) -> bool:
        commits = self._queue or self._aside or self._stalled or self._written or self._flushing
        return bool(commits) or self._writing_back.is_waiting

    async def checkpoint(self) -> None:
        """Writes back all that is ahead of the disk, for good; nothing may be submitted meanwhile.

        Raises StorageFailed.
        """
        await self.drain()
        while self._statuses.ahead.count:
            await asyncio.sleep(0 if self.write_back() else STALL_RETRY_S)
            self._raise_failure()
        await self.keep()
        await self.drain()

    def write_back(self) -> bool:
        """Writes a part of what is ahead of the disk; False if there is none, or it has to wait."""
        is_writable = self._writable_position() is not None
        return is_writable and self._writing_back.write(everything=True)

    async def keep(self) -> None:
        """Has the checkpoint move up to what was written back before. Raises StorageFailed."""
        self._raise_failure()
        try:
            await self._writing_back.keep()
        except Exception as error:
            self._failed(error)
        self._raise_failure()
        if not self._stalled and (plan := self._planner.plan_checkpoint()):
            self._write(Written(plan, []))
            self._raise_failure()

    def _writable_position(self) -> int | None:
        """Up to where the log is written; None if nothing can be written after it now."""
        return None if self._stalled or self._failure else self.written_position

    async def close(self) -> None:
        """Ends the flush thread. Nothing may be running."""
        await asyncio.to_thread(self._flusher.shutdown)
        await self._writing_back.close()

    # Plan and write.

    def _pump_soon(self) -> None:
        if self._queue and not self._pump_due:
            self._pump_due = True
            self._turns.patiently(self._pump)  # with what has arrived

    def _pump(self) -> None:
        """Plans and writes one commit, if one is due."""
        self._pump_due = False
        if not self._queue or self._stalled or self._failure:
            return
        if self._space.low:
            self._refuse_queued()
            return
        if self._statuses.is_full:
            self._writing_back.soon()  # which pumps when it has written
            return
        if self._flushing and not self._commits_during_flush():
            return  # the flush that runs will pump: until then the commit grows
        self._plan_and_write(self._take())
        if self._queue:
            self._pump_soon()
        self._writing_back.soon()

    def _commits_during_flush(self) -> bool:
        """Whether a full commit waits, and not too many are written already."""
        is_full = self.queued_events >= self._commit_events_max
        return is_full and len(self._written) < UNFLUSHED_COMMITS_MAX

    def _refuse_queued(self) -> None:
        """What waits is not written any more: it would fill the disk."""
        while self._queue:
            submission = self._queue.popleft()
            self.queued_events -= len(submission.scans)
            self._answer_with(submission.answer, SpaceLow("the disk is nearly full"))
        self._waiting_for_room.reached(0)

    def _take(self) -> list[Submission]:
        taken = [self._queue.popleft()]
        events = len(taken[0].scans)
        while self._queue and events + len(self._queue[0].scans) <= self._commit_events_max:
            taken.append(self._queue.popleft())
            events += len(taken[-1].scans)
        self.queued_events -= events
        self._waiting_for_room.reached(0)
        return taken

    def _plan_and_write(self, submissions: list[Submission]) -> None:
        """In one commit; or in several, as one waybill that cannot be read must fail no other."""
        parts = deque([submissions])
        while parts and not self._stalled and not self._failure:
            part = parts.popleft()
            try:
                plan = self._planner.plan([one.scans for one in part], self._now_ms())
            except Exception as error:
                # DataDamaged, or a defect: nothing was planned, and nobody may wait for ever.
                middle = len(part) // 2
                if middle:
                    parts.extendleft([part[middle:], part[:middle]])
                else:
                    self._answer_with(part[0].answer, error)
            else:
                self._write(Written(plan, part))
        for one in reversed([one for part in parts for one in part]):
            self._queue.appendleft(one)
            self.queued_events += len(one.scans)
        if parts and self._failure:
            self._fail_queued(self._failure)

    def _write_aside(self) -> None:
        """No commit came for them: the rows go alone. Behind a stall they ride on what stalled."""
        if not self._aside or self._stalled or self._failure:
            return
        if len(self._written) >= UNFLUSHED_COMMITS_MAX:
            self._loop.call_later(ASIDE_DELAY_S, self._write_aside)
            return
        self._write(Written(Plan([], [], self.written_position, 0), []))

    def _write(self, written: Written) -> None:
        failpoint.reach("before_write")
        written.aside.take(self._aside)
        try:
            if written.plan.batch or written.aside:
                self._engine.write([*written.plan.batch, *written.aside.rows])
        except WriteStalled:
            if self._stalled is None:
                self.figures.stalls += 1
                self._stalled, self._stalled_at = written, time.monotonic()
            self._loop.call_later(STALL_RETRY_S, self._write_again)
            return
        except Exception as error:
            # A plan that is not written leaves a hole: whatever the reason, it is the end.
            self._written.append(written)  # so that its callers are told, too
            self._failed(error)
            return
        failpoint.reach("after_write")
        if self._stalled:
            self._stalled = None
            self.figures.stalled_s += time.monotonic() - self._stalled_at
            self._pump_soon()
            self._writing_back.soon()
        self.written_position = written.plan.last_position
        self._written.append(written)
        self._flush()

    def _write_again(self) -> None:
        if self._stalled and not self._failure:
            self._write(self._stalled)

    # Flush and settle.

    def _flush(self) -> None:
        if self._flushing or not self._written or self._failure:
            return
        self._flushing, self._written = self._written, []
        self._flush_began = time.monotonic()
        position = self._flushing[-1].plan.last_position
        flush = self._loop.run_in_executor(self._flusher, self._flush_and_mark, position)
        flush.add_done_callback(self._flushed)

    def _flush_and_mark(self, position: int) -> None:
        """In the flush thread: both may block for as long as the disk likes."""
        self._engine.flush_wal()
        failpoint.reach("after_flush")
        self._mark.write(position)

    def _flushed(self, flush: "asyncio.Future[None]") -> None:
        if self._failure:
            flush.exception()
            return
        if error := flush.exception():
            self._failed(error)
            return
        assert self._flushing is not None
        settled, self._flushing = self._flushing, None
        now = time.monotonic()
        self.figures.fsync_latency.observe(now - self._flush_began, now)
        self._settle(settled, now)
        self._flush()
        self._pump_soon()

    def _settle(self, settled: list[Written], now: float) -> None:
        position = settled[-1].plan.last_position
        failpoint.reach("before_ack")
        self.durable_position = position
        for written in settled:
            if written.submissions or written.plan.batch:  # not rows that went alone
                self.figures.count(written.plan.events, written.plan.verdicts)
            if written.submissions:
                self.figures.commit_latency.observe(now - written.submissions[0].submitted_at, now)
            if self._on_durable and written.plan.log_block:
                self._on_durable(written.plan.last_position, written.plan.log_block)
            written.aside.settle()
            for submission, verdict in zip(written.submissions, written.plan.verdicts, strict=True):
                if not submission.answer.done():
                    submission.answer.set_result(verdict)
        self._waiting_for_durable.reached(position)

    def _raise_failure(self) -> None:
        if self._failure:
            raise once_more(self._failure)

    def _failed(self, error: BaseException) -> None:
        """A write or a flush did: it is the end. Everybody is told, once."""
        if self._failure:
            return
        error = self._failure = as_storage_failure(error)
        stalled = [self._stalled] if self._stalled else []
        for written in [*(self._flushing or []), *self._written, *stalled]:
            for submission in written.submissions:
                self._answer_with(submission.answer, once_more(error))
            written.aside.fail(error)
        self._aside.fail(error)
        self._fail_queued(error)
        self._waiting_for_durable.fail(error)
        self._on_failure(error)

    def _fail_queued(self, error: StorageFailed) -> None:
        for submission in self._queue:
            self._answer_with(submission.answer, once_more(error))
        self._queue, self.queued_events = deque(), 0
        self._waiting_for_room.reached(0)

    @staticmethod
    def _answer_with(answer: asyncio.Future[Verdict], error: Exception) -> None:
        if not answer.done():
            answer.set_exception(error)
            answer.exception()  # the caller may be gone by now, which is no news for the log
