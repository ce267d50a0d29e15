"""One run of sending a file: finds where to start, sends, and says how it ended.

Knows no options and prints nothing but progress: `trackd.cli.ingest` does the talking.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from trackd.cli.files import checkpoint as checkpoints
from trackd.cli.files.batches import BatchReader
from trackd.cli.files.checkpoint import Checkpoint, Fingerprint, Mismatch, Sent
from trackd.cli.files.mapping import read_mapping
from trackd.cli.files.rejects import Rejects
from trackd.cli.files.sending import Sending, send
from trackd.cli.files.view import View, view
from trackd.client.admin import Admin
from trackd.client.errors import TrackdError
from trackd.client.scanner import Scanner

_NO_FILE = Fingerprint(size=0, mapping_sha256="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to send, where to, and how; `path` is None for standard input."""

    path: Path | None
    mapping: Path | None
    rejected: Path | None
    state: Path | None
    from_start: bool
    batch_events_max: int
    batches_in_flight_max: int
    timeout_ms: int
    server: str

    @property
    def name(self) -> str:
        """What the input is called."""
        return self.path.name if self.path else "standard input"

    @property
    def can_go_on(self) -> bool:
        """Whether a later run can go on where this one ends: a pipe is gone by then."""
        return self.path is not None and self.path.is_file()

    @property
    def checkpoint(self) -> Path | None:
        """Where it is kept how far the file was sent."""
        if self.path is None or not self.can_go_on:
            return None
        state = self.state or (None if self._can_write_beside() else Path())
        return checkpoints.checkpoint_path(self.path, state=state)

    @property
    def rejects(self) -> Path:
        """Where refusals are listed."""
        if self.rejected is not None:
            return self.rejected
        if self.path is None or not self.can_go_on:
            return Path("stdin.rejected.jsonl")
        name = self.path.name + ".rejected.jsonl"
        return self.path.with_name(name) if self._can_write_beside() else Path(name)

    def _can_write_beside(self) -> bool:
        """Whether the file's directory takes files; else the working directory has to."""
        return self.path is not None and os.access(self.path.parent, os.W_OK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended. `error` is what ended it early, `stopped` whether it was told to stop."""

    start: Checkpoint
    end: Checkpoint
    seconds: float
    stopped: bool = False
    error: Exception | None = None

    @property
    def complete(self) -> bool:
        """Whether everything was sent."""
        return self.error is None and not self.stopped


def run(job: Job, *, say: Callable[[str], None]) -> Outcome:
    """Sends a file; `say` is told where it starts, unless that is the beginning as expected.

    OSError, MappingError and TrackdError for what is wrong before the first line.
    """
    return asyncio.run(_run(job, say))


async def _run(job: Job, say: Callable[[str], None]) -> Outcome:
    mapping = read_mapping(job.mapping) if job.mapping else None
    reader = BatchReader(job.path, mapping=mapping, batch_events_max=job.batch_events_max)
    try:
        await reader.begin()
        async with Admin(job.server) as admin:
            data_set_id = (await admin.get_topology()).data_set_id
        sent = None
        if job.path is not None and job.can_go_on:
            sent = Sent(job.path, compressed=reader.compressed)
        start = _start(job, say, data_set_id=data_set_id, sent=sent)
        reader.start(at=start.place)
        return await _send(job, reader, start=start, sent=sent)
    finally:
        await reader.close()


async def _send(job: Job, reader: BatchReader, *, start: Checkpoint, sent: Sent | None) -> Outcome:
    """Sends from `start` on; an outcome in any case, as what was sent before an error counts."""
    began = monotonic()
    end, error = start, None

    def settled(now: Checkpoint, bytes_read: int) -> None:
        nonlocal end
        end = now
        progress.show(now, bytes_read)

    total = job.path.stat().st_size if job.path and job.can_go_on else None
    progress = view(job.name, total=total, start=start)
    with (
        Rejects(job.rejects, keep_bytes=start.rejected_bytes) as rejects,
        progress,
        _stop_on_signals(reader, progress),
    ):
        async with Scanner(job.server) as scanner:
            sending = Sending(
                reader=reader,
                scanner=scanner,
                rejects=rejects,
                batches_in_flight_max=job.batches_in_flight_max,
                timeout_ms=job.timeout_ms,
                kept_at=job.checkpoint,
                sent=sent,
                on_settled=settled,
            )
            try:
                end = await send(sending, start=start)
            except (TrackdError, OSError) as failure:
                error = failure
    outcome = Outcome(
        start=start,
        end=end,
        seconds=monotonic() - began,
        stopped=reader.stopped,
        error=error,
    )
    if outcome.complete and job.checkpoint is not None:
        job.checkpoint.unlink(missing_ok=True)
    return outcome


def _start(
    job: Job, say: Callable[[str], None], *, data_set_id: str, sent: Sent | None
) -> Checkpoint:
    """Where to start: where the last run ended, or at the beginning."""
    if job.path is None or job.checkpoint is None or sent is None:
        return checkpoints.first(_NO_FILE, data_set_id=data_set_id)
    now = checkpoints.fingerprint(job.path, mapping=job.mapping)
    kept = None if job.from_start else checkpoints.load(job.checkpoint)
    if isinstance(kept, Checkpoint):
        kept = checkpoints.fits(kept, now=now, data_set_id=data_set_id, sent=sent)
    if isinstance(kept, Checkpoint):
        if kept.place.line:
            say(f"{job.name}: going on behind line {kept.place.line:,}")
        return kept
    if isinstance(kept, Mismatch):
        say(f"{job.name}: from the beginning, not where the last run ended: {kept.why}")
    return checkpoints.first(now, data_set_id=data_set_id)


@contextmanager
def _stop_on_signals(reader: BatchReader, progress: View) -> Iterator[None]:
    """The first Ctrl-C ends the reading and waits for what is on its way; the second does not."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        reader.stop()
        progress.say("Waiting for what is on its way; Ctrl-C once more ends at once.")
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        with suppress(ValueError):
            for number in signals:
                loop.remove_signal_handler(number)
