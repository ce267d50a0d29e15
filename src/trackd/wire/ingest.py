"""IngestService: scans in, an answer once they are durable."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from trackd.domain.validation import Fault
from trackd.store.planner import Verdict
from trackd.store.space import SpaceGuard
from trackd.turns import Turns
from trackd.wire.access import PartitionAccess
from trackd.wire.answers import Answers
from trackd.wire.calls import Calls, Context
from trackd.wire.errors import low_space, overloaded, stopping
from trackd.wire.scans import Batch, ScanReader


class Pending(NamedTuple):
    """What the answer to a submitted batch needs, and no more: the caller may never read it."""

    batch_id: str
    rejections: list[tuple[int, Fault]]
    answers: list[tuple[int, "asyncio.Future[Verdict]"]]


class IngestService:
    """Submits batches to the partitions and answers in the order sent."""

    def __init__(
        self,
        partitions: Sequence[PartitionAccess],
        answers: Answers,
        reader: ScanReader,
        space: SpaceGuard,
        calls: Calls,
        *,
        now_ms: Callable[[], int],
        batches_in_flight_max: int,
        queue_events_max: int,
        turns: Turns | None = None,
    ) -> None:
        self._partitions = partitions
        self._answers = answers
        self._reader = reader
        self._space = space
        self._calls = calls
        self._now_ms = now_ms
        self._batches_in_flight_max = batches_in_flight_max
        self._queue_events_max = queue_events_max
        self._turns = turns or Turns()

    async def append_events(self, request: bytes, _: Context) -> bytes:
        """AppendEvents."""
        batch = self._reader.read_append(request, self._now_ms())
        if self._space.low:
            raise low_space()
        for partition, scans in zip(self._partitions, batch.scans, strict=True):
            if scans and partition.queued_events > self._queue_events_max:
                raise overloaded("events waiting for their commit", self._queue_events_max)
        verdict, position = await self._settled(self._submit(batch))
        return self._answers.append(verdict, position)

    async def stream_events(self, requests: Any, context: Context) -> None:
        """StreamEvents: reads, and answers from a second task: many batches are in flight."""
        pending: asyncio.Queue[Pending | None] = asyncio.Queue()
        # What stops the reading when too much is in flight: the caller's flow control does the
        # rest.
        room = asyncio.Semaphore(self._batches_in_flight_max)
        reading = asyncio.ensure_future(self._read(requests, pending, room))
        answering = asyncio.ensure_future(self._answer(context, pending, room))
        told_to_stop = asyncio.ensure_future(self._calls.stopping.wait())
        tasks = (reading, answering, told_to_stop)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            pending.put_nowait(None)
            # Batches that were read keep their answers, whatever ended the reading.
            await answering
            if reading.done() and not reading.cancelled():
                reading.result()
            if told_to_stop.done():
                raise stopping()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(
        self, requests: Any, pending: "asyncio.Queue[Pending | None]", room: asyncio.Semaphore
    ) -> None:
        async for request in requests:
            await self._turns.mine()
            batch = self._reader.read_stream(request, self._now_ms())
            if self._space.low:
                raise low_space()
            await room.acquire()
            for partition, scans in zip(self._partitions, batch.scans, strict=True):
                if scans:
                    await partition.room(self._queue_events_max)
            pending.put_nowait(self._submit(batch))

    async def _answer(
        self, context: Context, pending: "asyncio.Queue[Pending | None]", room: asyncio.Semaphore
    ) -> None:
        while one := await pending.get():
            verdict, position = await self._settled(one)
            await context.write(self._answers.stream(one.batch_id, verdict, position))
            room.release()

    def _submit(self, batch: Batch) -> Pending:
        answers = [
            (partition.number, partition.submit(scans))
            for partition, scans in zip(self._partitions, batch.scans, strict=True)
            if scans
        ]
        return Pending(batch.batch_id, batch.rejections, answers)

    async def _settled(self, pending: Pending) -> tuple[Verdict, str]:
        """The verdict over the whole batch, and its position, once all partitions have settled."""
        whole = Verdict(rejections=list(pending.rejections))
        positions = []
        for partition, answer in pending.answers:
            part = await answer
            whole.accepted += part.accepted
            whole.duplicates += part.duplicates
            whole.rejections += part.rejections
            positions.append((partition, part.position))
        # A batch of which nothing went to a partition is as fresh as nothing.
        return whole, self._answers.position(positions) if positions else ""
