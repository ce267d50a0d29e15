"""The ledger: what every client sent, what it was told, and what it was shown.

It lives in the memory of the test, which outlives every server and every file system that a
campaign breaks. Knows no server and judges nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.ingest_pb2 import AppendEventsResponse, StreamEventsResponse

Answer = AppendEventsResponse | StreamEventsResponse
ScanKey = tuple[str, str]
"""The identity of a scan: waybill number, event id."""


def key_of(event: ScanEvent) -> ScanKey:
    """The identity of a scan."""
    return event.waybill_number, event.event_id


def content_of(event: ScanEvent) -> bytes:
    """What a scan says, without what the server adds to it."""
    bare = ScanEvent()
    bare.CopyFrom(event)
    bare.ClearField("recorded_at_ms")
    return bare.SerializeToString(deterministic=True)


@dataclass(slots=True, eq=False)
class SentBatch:
    """A batch that a client sent once. answer: None until, and unless, it was acknowledged."""

    events: Sequence[ScanEvent]
    # Before it was sent, of its events: how many were never sent, how many acknowledged.
    never_sent: int
    known: int
    answer: Answer | None = None


@dataclass(slots=True)
class Ledger:
    """Everything about one data set that a client could hold the server to."""

    content: dict[ScanKey, bytes] = field(default_factory=dict)
    times_sent: dict[ScanKey, int] = field(default_factory=dict)
    acknowledged: set[ScanKey] = field(default_factory=set)
    batches: list[SentBatch] = field(default_factory=list)
    # Per waybill, the ids that a read has shown, and the greatest event count.
    shown: dict[str, set[str]] = field(default_factory=dict)
    shown_count: dict[str, int] = field(default_factory=dict)
    # What an answer or a read had wrong at the moment it came.
    faults: list[str] = field(default_factory=list)

    def sent(self, events: Sequence[ScanEvent]) -> SentBatch:
        """Notes a batch, before it is handed to the transport."""
        batch = SentBatch(
            events,
            never_sent=sum(key_of(event) not in self.content for event in events),
            known=sum(key_of(event) in self.acknowledged for event in events),
        )
        for event in events:
            key = key_of(event)
            self.content.setdefault(key, content_of(event))
            self.times_sent[key] = self.times_sent.get(key, 0) + 1
        self.batches.append(batch)
        return batch

    def acknowledge(self, batch: SentBatch, answer: Answer) -> None:
        """Notes the answer to a batch, and whether its figures can be true."""
        batch.answer = answer
        size = len(batch.events)
        if answer.rejections or answer.accepted + answer.duplicates != size:
            self.faults.append(f"{size} valid scans were answered {answer}")
        # What was sent before and not acknowledged may count as either.
        if answer.accepted < batch.never_sent or answer.duplicates < batch.known:
            self.faults.append(
                f"{batch.never_sent} new and {batch.known} known scans of {size} were answered"
                f" {answer.accepted} accepted, {answer.duplicates} duplicates"
            )
        self.acknowledged.update(map(key_of, batch.events))

    def show(self, waybill: str, event_ids: Iterable[str], event_count: int) -> None:
        """Notes what a read answered; from now on it may not vanish."""
        self.shown.setdefault(waybill, set()).update(event_ids)
        if event_count < self.shown_count.get(waybill, 0):
            before = self.shown_count[waybill]
            self.faults.append(f"{waybill} had {before} events, then {event_count}")
        self.shown_count[waybill] = event_count

    def unacknowledged(self) -> list[SentBatch]:
        """The batches without an answer, in the order in which they were sent."""
        return [batch for batch in self.batches if batch.answer is None]

    def by_waybill(self, keys: Iterable[ScanKey]) -> dict[str, set[str]]:
        """Event ids by waybill number."""
        grouped: dict[str, set[str]] = {}
        for waybill, event_id in keys:
            grouped.setdefault(waybill, set()).add(event_id)
        return grouped
