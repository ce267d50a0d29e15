"""Which scans are on their way: sent in order, answered in order, sent again from the oldest
unanswered.

Decides only. Nothing here sends, waits, keeps a scan on disk, or knows what time it is.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from trackd.v1.ingest_pb2 import StreamEventsRequest, StreamEventsResponse

_EVENTS_TAG = bytes([StreamEventsRequest.EVENTS_FIELD_NUMBER << 3 | 2])


@dataclass(frozen=True, slots=True)
class Entry:
    """A scan that waits: its place in the order, and its wire bytes."""

    sequence: int
    wire: bytes


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """A scan that the server will not store."""

    entry: Entry
    reason: int
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Scans that are sent together, at least one."""

    batch_id: str
    entries: Sequence[Entry]

    @property
    def last(self) -> int:
        """The sequence of its last scan."""
        return self.entries[-1].sequence

    def encode(self) -> bytes:
        """A StreamEventsRequest with the bytes of each scan as they were taken, every time."""
        parts = [StreamEventsRequest(batch_id=self.batch_id).SerializeToString()]
        for entry in self.entries:
            parts += (_EVENTS_TAG, _varint(len(entry.wire)), entry.wire)
        return b"".join(parts)


class AnswerMismatch(Exception):
    """An answer that belongs to no batch, or does not account for every scan of its batch."""


class Window:
    """The batches between the last answer and the last scan sent.

    - `settled`: every scan up to and including it has its answer.
    - `sent`: every scan up to and including it is settled or in flight.
    - After a lost link one batch is in flight alone until it is answered: gRPC loses the status of
      a call that ends while another batch is being written, and with it a refusal.
    - While a batch that was refused as a whole is being split, one batch is in flight at a time,
      so that a refusal names its batch; each answer doubles the next batch, each refusal halves it.
    """

    def __init__(self, *, settled: int, batch_events_max: int, batches_in_flight_max: int) -> None:
        """Nothing in flight."""
        self._batch_events_max = batch_events_max
        self._batches_in_flight_max = batches_in_flight_max
        self._in_flight: deque[Batch] = deque()
        self._batches_sent = 0
        self._probing = False
        self.events_max = batch_events_max
        self.settled = settled
        self.sent = settled

    @property
    def in_flight(self) -> int:
        """How many batches are without an answer."""
        return len(self._in_flight)

    @property
    def has_room(self) -> bool:
        """Whether another batch may be sent now."""
        alone = self._probing or self.events_max < self._batch_events_max
        return len(self._in_flight) < (1 if alone else self._batches_in_flight_max)

    def send(self, entries: Sequence[Entry]) -> Batch:
        """The batch to put on the wire; `entries` follow `sent`."""
        assert entries, "a batch has at least one scan"
        assert entries[0].sequence > self.sent, "a scan is sent again only after the link was lost"
        self._batches_sent += 1
        batch = Batch(batch_id=str(self._batches_sent), entries=entries)
        self._in_flight.append(batch)
        self.sent = batch.last
        return batch

    def match(self, response: StreamEventsResponse) -> tuple[Batch, list[RejectedEntry]]:
        """The batch that is answered, and its scans that were rejected; it stays in flight until
        `settle`.

        AnswerMismatch: the answer is doubtful, and no scan may be forgotten for it.
        """
        if not self._in_flight or self._in_flight[0].batch_id != response.batch_id:
            expected = self._in_flight[0].batch_id if self._in_flight else "none"
            raise AnswerMismatch(f"an answer for batch {response.batch_id!r}, expected {expected}")
        batch = self._in_flight[0]
        rejected = _rejected(batch, response)
        self._probing = False
        self.events_max = min(self.events_max * 2, self._batch_events_max)
        return batch, rejected

    def settle(self, batch: Batch) -> None:
        """The batch needs no answer any more; it is the oldest unsettled one."""
        if self._in_flight:
            oldest = self._in_flight.popleft()
            assert oldest is batch, "batches are settled in the order sent"
        self.settled = batch.last
        self.sent = max(self.sent, batch.last)

    def link_lost(self) -> None:
        """Everything without an answer will be sent again."""
        self._in_flight.clear()
        self._probing = True
        self.sent = self.settled

    def refused(self) -> Batch | None:
        """The server refused a batch as a whole, and the link is lost.

        Returns the batch at fault once it is beyond doubt and has one scan only, for the caller to
        settle. Until then the next batches are smaller. None as well when nothing was in flight.
        """
        if not self._in_flight:
            return None
        oldest, certain = self._in_flight[0], len(self._in_flight) == 1
        self.link_lost()
        if certain and len(oldest.entries) == 1:
            return oldest
        self.events_max = max(1, len(oldest.entries) // 2)
        return None


def _rejected(batch: Batch, response: StreamEventsResponse) -> list[RejectedEntry]:
    indexes = [rejection.index for rejection in response.rejections]
    told = response.accepted + response.duplicates + len(indexes)
    if told != len(batch.entries):
        raise AnswerMismatch(f"an answer for {told} of the {len(batch.entries)} scans of a batch")
    if len(set(indexes)) != len(indexes) or any(not 0 <= i < len(batch.entries) for i in indexes):
        raise AnswerMismatch("an answer that rejects a scan twice, or one that was not sent")
    return [
        RejectedEntry(
            entry=batch.entries[rejection.index],
            reason=rejection.reason,
            field=rejection.field,
            message=rejection.message,
        )
        for rejection in response.rejections
    ]


def _varint(length: int) -> bytes:
    """A length as protobuf writes it: 7 bits a byte, the lowest first, a high bit for more."""
    more, bits = divmod(length, 1 << 7)
    return bytes((bits | 1 << 7,)) + _varint(more) if more else bytes((bits,))
