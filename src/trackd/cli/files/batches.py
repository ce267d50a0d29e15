"""A file as batches of events, read and parsed by a thread of its own, a little ahead.

Each batch knows the record of each event, what could not become one, and the place in the file
behind it. Knows nothing of where batches go.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from trackd.cli.files import csv_rows, json_lines
from trackd.cli.files.mapping import FileMapping
from trackd.cli.files.reading import Lines, open_source
from trackd.cli.files.records import START, Fault, Place, Record
from trackd.v1.event_pb2 import ScanEvent

# How many batches are read ahead: enough that the sender never waits for a line to be parsed.
_AHEAD = 4

# Half of what a server takes at least, so that a batch of large events is cut in time.
_BATCH_BYTES_MAX = 512 * 1024

_CLOSE_POLL_S = 0.01


@dataclass(slots=True)
class Batch:
    """Events to send together. Once handed over it is not changed."""

    events: list[ScanEvent] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)  # of each event, the record it came from
    faults: list[tuple[Record, Fault]] = field(default_factory=list)
    end: Place = START
    bytes_read: int = 0
    bytes: int = 0

    def add(self, record: Record, *, size: int) -> None:
        """Takes all that a record became; a record is never parted."""
        self.events.extend(record.events)
        self.records.extend([record] * len(record.events))
        self.faults.extend((record, fault) for fault in record.faults)
        self.bytes += size

    def has_room(self, record: Record, *, size: int, events_max: int) -> bool:
        """Whether a record still fits; into one without events everything does."""
        return not self.events or (
            len(self.events) + len(record.events) <= events_max
            and self.bytes + size <= _BATCH_BYTES_MAX
        )

    def is_full(self, *, events_max: int) -> bool:
        """Whether it should go out."""
        return len(self.events) >= events_max or self.bytes >= _BATCH_BYTES_MAX


def _sendable(record: Record, event_bytes: int) -> Record:
    """The record, without its events where they are more than a server takes at a time."""
    if event_bytes <= _BATCH_BYTES_MAX:
        return record
    told = f"the events of the line have {event_bytes} bytes, at most {_BATCH_BYTES_MAX}"
    fault = Fault("FIELD_TOO_LONG", "event", told)
    return replace(record, events=(), faults=(*record.faults, fault))


class BatchReader:
    """Reads one source to its end, or until told to stop, on a thread of its own.

    Used on the event loop it was made on. Memory is bounded by a few batches: the thread waits when
    nobody takes them.
    """

    def __init__(
        self, path: Path | None, *, mapping: FileMapping | None, batch_events_max: int
    ) -> None:
        """Opens the source, standard input for None; OSError."""
        self._stopped = threading.Event()
        self._source: IO[bytes] = open_source(path, stopped=self._stopped, on_wait=self._hand_over)
        self._mapping = mapping
        self._batch_events_max = batch_events_max
        self._batch = Batch()
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Batch | Exception | None] = asyncio.Queue(_AHEAD)
        self._thread: threading.Thread | None = None
        self._ended = False  # by the thread: the source was read to its end
        self._lines: Lines  # from `begin` on, as is what parses them
        self._parse: Callable[[], Iterator[Record]]

    async def begin(self) -> None:
        """Looks at the beginning, which a pipe may be slow to give; OSError and MappingError."""
        # On a thread, or Ctrl-C would not be heard while nothing comes.
        await asyncio.to_thread(self._begin)

    def _begin(self) -> None:
        lines = self._lines = Lines(self._source)
        mapping = self._mapping
        if mapping is None:
            self._parse = lambda: json_lines.records(lines)
        else:
            header = csv_rows.read_header(lines, mapping)
            self._parse = lambda: csv_rows.records(lines, mapping, header=header)

    @property
    def compressed(self) -> bool:
        """Whether the source is gzip."""
        return self._lines.compressed

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop before the end of the source."""
        return self._stopped.is_set() and not self._ended

    def start(self, *, at: Place) -> None:
        """Starts to read, from `at` on if that is behind where it is."""
        if at.offset > self._lines.place.offset:
            self._lines.go_to(at)
        self._thread = threading.Thread(target=self._read, name="trackd-reader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the source after what was read so far."""
        self._stopped.set()

    async def batches(self) -> AsyncIterator[Batch]:
        """The batches in order; what ended the reading early is raised after them."""
        while (item := await self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    async def close(self) -> None:
        """Stops, and waits until the thread has gone."""
        self.stop()
        while self._thread is not None and self._thread.is_alive():
            # It may be waiting for room.
            while not self._queue.empty():
                self._queue.get_nowait()
            await asyncio.sleep(_CLOSE_POLL_S)
        self._source.close()

    def _read(self) -> None:
        """The thread."""
        end: Exception | None = None
        try:
            try:
                self._read_records()
            finally:
                # What was read before an error counts, too.
                self._hand_over()
        except Exception as error:
            # Whatever it is, the loop waits to hear of it.
            end = error
        self._put(end)

    def _read_records(self) -> None:
        for record in self._parse():
            # A stopped pipe may end in the middle of a line: nothing after the stop counts.
            if self._stopped.is_set():
                return
            event_bytes = sum(event.ByteSize() for event in record.events)
            size = len(record.text) + event_bytes
            if not self._batch.has_room(record, size=size, events_max=self._batch_events_max):
                self._hand_over()
            self._batch.add(_sendable(record, event_bytes), size=size)
            self._batch.end = self._lines.place
            if self._batch.is_full(events_max=self._batch_events_max):
                self._hand_over()
        self._ended = not self._stopped.is_set()

    def _hand_over(self) -> None:
        """Hands the batch over, unless it is empty."""
        batch, self._batch = self._batch, Batch()
        if batch.records or batch.faults:
            batch.bytes_read = self._lines.bytes_read()
            self._put(batch)

    def _put(self, item: Batch | Exception | None) -> None:
        asyncio.run_coroutine_threadsafe(self._queue.put(item), self._loop).result()
