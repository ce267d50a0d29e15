"""A scanner's stream under gevent: batches out, answers in, and a spool for what is unanswered.

What was not answered when a connection broke goes first on the next one, in order, as a device's
spool would have it; the server knows repeats.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import gevent
from gevent.event import Event
from gevent.queue import Queue

from trackd.v1.ingest_pb2 import StreamEventsResponse

STREAM_EVENTS = "/trackd.v1.IngestService/StreamEvents"
_LAST_ANSWERS_TIMEOUT_S = 8.0


class Link(Protocol):
    """As much of a Connection as a stream needs."""

    def stream(self, method: str, requests: Iterator[bytes]) -> Iterator[bytes]: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Batch:
    """A serialised StreamEventsRequest. sent_at: the last time; 0 before the first."""

    wire: bytes
    events: int
    due_at: float
    sent_at: float = 0.0


class ScannerStream:
    """At most `window` batches unanswered; `put` waits for room.

    on_answer gets each batch with its answer; on_break each failure of a connection.
    """

    def __init__(
        self,
        *,
        window: int,
        clock: Callable[[], float],
        on_answer: Callable[[Batch, StreamEventsResponse], None],
        on_break: Callable[[Exception], None],
    ) -> None:
        self._window = window
        self._clock = clock
        self._on_answer = on_answer
        self._on_break = on_break
        self._unanswered: deque[Batch] = deque()
        self._changed = Event()
        self._link: Link | None = None
        self._requests: Queue[bytes | None] = Queue()
        self._receiver: Any = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection to write to."""
        return self._link is not None

    @property
    def unanswered(self) -> int:
        """Batches that wait for their answer, or for a connection."""
        return len(self._unanswered)

    def connect(self, link: Link) -> None:
        """Goes on over a new connection, with what is unanswered first."""
        self.disconnect()
        self._link = link
        self._requests = requests = Queue()
        answers = link.stream(STREAM_EVENTS, iter(requests.get, None))
        for batch in self._unanswered:
            batch.sent_at = self._clock()
            requests.put(batch.wire)
        self._receiver = gevent.spawn(self._receive, link, answers)

    def disconnect(self) -> None:
        """Drops the connection as a cut cable does."""
        link, self._link = self._link, None
        if link:
            self._requests.put(None)
            link.close()

    def keep(self, batch: Batch) -> None:
        """Puts a batch into the spool, for when there is a connection again."""
        self._unanswered.append(batch)

    def put(self, batch: Batch) -> None:
        """Sends a batch, once there is room for it and a connection still there."""
        while self.connected and len(self._unanswered) >= self._window:
            self._changed.clear()
            self._changed.wait()
        self._unanswered.append(batch)
        if self.connected:
            batch.sent_at = self._clock()
            self._requests.put(batch.wire)

    def finish(self) -> None:
        """Waits for the last answers, a while, and ends the stream."""
        with suppress(gevent.Timeout), gevent.Timeout(_LAST_ANSWERS_TIMEOUT_S):
            while self.connected and self._unanswered:
                self._changed.clear()
                self._changed.wait()
        self.disconnect()

    def _receive(self, link: Link, answers: Iterator[bytes]) -> None:
        try:
            for data in answers:
                answer = StreamEventsResponse.FromString(data)
                if link is not self._link:
                    return
                self._on_answer(self._unanswered.popleft(), answer)
                self._changed.set()
        except Exception as error:
            if link is self._link:
                self._on_break(error)
        if link is self._link:
            self.disconnect()
        self._changed.set()
