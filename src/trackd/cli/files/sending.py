"""Batches of a file to the server: several on their way, settled in the order of the file.

Settled in order, the place in the file up to which all is acknowledged is one number, and the
refusals come out in the order of its lines. Knows no terminal.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from trackd.cli.files import checkpoint as checkpoints
from trackd.cli.files.batches import Batch, BatchReader
from trackd.cli.files.checkpoint import Checkpoint, Sent
from trackd.cli.files.records import Fault, Record
from trackd.cli.files.rejects import Rejects
from trackd.client.scanner import Scanner
from trackd.domain.vocabulary import Rejection
from trackd.v1 import ingest_pb2

_CHECKPOINT_INTERVAL_S = 1.0

_Answer = asyncio.Task[ingest_pb2.AppendEventsResponse]
_OnTheirWay = asyncio.Queue[tuple[Batch, _Answer] | Exception | None]


@dataclass(frozen=True, slots=True)
class Sending:
    """What one run works with; `kept_at` is None where nothing can be gone on from.

    sent: what was sent of the file; None as well.
    """

    reader: BatchReader
    scanner: Scanner
    rejects: Rejects
    batches_in_flight_max: int
    timeout_ms: int
    kept_at: Path | None
    sent: Sent | None
    on_settled: Callable[[Checkpoint, int], None]  # with the bytes of the file that were read


class Ledger:
    """What is acknowledged so far, and the checkpoint that says so."""

    def __init__(self, start: Checkpoint, sending: Sending) -> None:
        """Goes on from `start`."""
        self.now = start
        self._rejects = sending.rejects
        self._kept_at = sending.kept_at
        self._sent = sending.sent
        self._kept = monotonic()

    def settle(self, batch: Batch, response: ingest_pb2.AppendEventsResponse) -> None:
        """Counts a batch and all before it as done."""
        refused = _refused(batch, response.rejections)
        with _naming(self._rejects.path):
            for record, fault, event_id in refused:
                self._rejects.add(record, fault, event_id=event_id)
        self.now = replace(
            self.now,
            place=batch.end,
            counts=self.now.counts.plus(
                accepted=response.accepted,
                duplicates=response.duplicates,
                rejected=len(refused),
            ),
            rejected_bytes=self._rejects.bytes,
        )
        if monotonic() - self._kept >= _CHECKPOINT_INTERVAL_S:
            self.keep()

    def keep(self) -> None:
        """Writes the checkpoint, after the refusals that it counts."""
        self._kept = monotonic()
        with _naming(self._rejects.path):
            self._rejects.flush()
        if self._kept_at is None or self._sent is None:
            return
        self.now = replace(self.now, sent_sha256=self._sent.sha256(self.now))
        with _naming(self._kept_at):
            checkpoints.save(self.now, self._kept_at)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Has a failure to write name what could not be written; a full disk does not by itself."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


async def send(sending: Sending, *, start: Checkpoint) -> Checkpoint:
    """Sends what the reader gives until it ends; what is acknowledged then.

    Raises a TrackdError when the server does not take a batch in time, and what the reader raises,
    after what came before it is settled. In any case the checkpoint is kept.
    """
    ledger = Ledger(start, sending)
    on_their_way: _OnTheirWay = asyncio.Queue()
    turns = asyncio.Semaphore(sending.batches_in_flight_max)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_launch(sending, on_their_way, turns, group))
            while (item := await on_their_way.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                batch, answer = item
                ledger.settle(batch, await answer)
                turns.release()
                sending.on_settled(ledger.now, batch.bytes_read)
    except ExceptionGroup as failures:
        # The first failure ended the others, which have nothing to add.
        raise failures.exceptions[0] from None
    finally:
        ledger.keep()
    return ledger.now


async def _launch(
    sending: Sending,
    on_their_way: _OnTheirWay,
    turns: asyncio.Semaphore,
    group: asyncio.TaskGroup,
) -> None:
    """Starts a call for each batch, in turns; then says how the source ended."""
    end: Exception | None = None
    try:
        async for batch in sending.reader.batches():
            await turns.acquire()
            on_their_way.put_nowait((batch, group.create_task(_append(sending, batch))))
    except Exception as error:
        end = error
    on_their_way.put_nowait(end)


async def _append(sending: Sending, batch: Batch) -> ingest_pb2.AppendEventsResponse:
    if not batch.events:
        return ingest_pb2.AppendEventsResponse()
    return await sending.scanner.append(batch.events, timeout_ms=sending.timeout_ms)


def _refused(
    batch: Batch, rejections: Sequence[ingest_pb2.Rejection]
) -> list[tuple[Record, Fault, str]]:
    """What was not stored of a batch, in the order of the file."""
    refused = [(record, fault, "") for record, fault in batch.faults]
    for rejection in rejections:
        fault = Fault(_name(rejection.reason), rejection.field, rejection.message)
        event_id = batch.events[rejection.index].event_id
        refused.append((batch.records[rejection.index], fault, event_id))
    return sorted(refused, key=lambda entry: entry[0].line)


def _name(reason: int) -> str:
    try:
        return Rejection(reason).name
    except ValueError:
        return str(reason)  # a server newer than this command
