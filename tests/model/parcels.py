"""trackd as one dict: waybill number to events. What every answer must be.

Says what is stored, repeated or rejected, what a status holds and what a page of a timeline is.
Uses nothing of trackd but the words of the vocabulary and the rules that tests.domain.lives reads
from it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from xxhash import xxh3_64_digest

from tests.domain.lives import told_by_the_vocabulary
from trackd.domain.fold import FoldEvent
from trackd.domain.vocabulary import EventCode, Flag, Rejection, flag_mask
from trackd.v1.event_pb2 import ScanEvent, ShipmentStatus

Order = tuple[int, int, bytes]


def order_of(event: ScanEvent) -> Order:
    """Where an event stands: event time, then code, then hash of the id."""
    return event.occurred_at_ms, int(event.code), xxh3_64_digest(event.event_id.encode())


def _fold_event(event: ScanEvent) -> FoldEvent:
    at_ms, code, id_hash = order_of(event)
    clears = event.attributes.get("clears", "")
    named = [Flag[name] for name in clears.split(",")] if clears else set(Flag) - {Flag.DAMAGED}
    return FoldEvent(
        at_ms.to_bytes(8, "big") + bytes((code,)) + id_hash,
        event.event_id,
        code,
        event.reason,
        flag_mask(*named),
        event.attributes.get("voids", ""),
    )


@dataclass(slots=True)
class Parcels:
    """Every parcel's events, by id."""

    events: dict[str, dict[str, ScanEvent]] = field(default_factory=dict)

    def append(self, sent: Iterable[ScanEvent]) -> tuple[int, int, list[tuple[int, Rejection]]]:
        """Accepted, duplicates, and (index, reason) of what is rejected, of valid events."""
        accepted = duplicates = 0
        rejections = []
        for index, as_sent in enumerate(sent):
            event = ScanEvent()
            event.CopyFrom(as_sent)
            event.waybill_number = event.waybill_number.strip().upper()
            event.ClearField("recorded_at_ms")
            first = self.events.setdefault(event.waybill_number, {}).setdefault(
                event.event_id, event
            )
            if first is event:
                accepted += 1
            elif first == event:
                duplicates += 1
            else:
                rejections.append((index, Rejection.CONFLICT))
        return accepted, duplicates, rejections

    def timeline(self, number: str, *, newest_first: bool) -> list[ScanEvent]:
        """A parcel's events in the order asked for."""
        events = self.events.get(number, {}).values()
        return sorted(events, key=order_of, reverse=newest_first)

    def page(
        self, number: str, *, newest_first: bool, after: Order | None, size: int
    ) -> tuple[list[ScanEvent], bool]:
        """The events behind `after`, at most `size`, and whether there are more."""
        events = [
            event
            for event in self.timeline(number, newest_first=newest_first)
            if after is None
            or (order_of(event) < after if newest_first else order_of(event) > after)
        ]
        return events[:size], len(events) > size

    def check_status(self, number: str, status: ShipmentStatus) -> None:
        """Holds a status against the events."""
        timeline = self.timeline(number, newest_first=False)
        milestone, flags, mover = told_by_the_vocabulary(map(_fold_event, timeline))
        assert status.waybill_number == number
        assert int(status.milestone) == milestone
        assert list(map(int, status.flags)) == sorted(flags)
        assert status.last_event.event_id == mover.event_id
        assert status.event_count == len(timeline)
        assert status.first_event_at_ms == timeline[0].occurred_at_ms
        assert status.position
        assert without_server_fields(status.last_event) == self.events[number][mover.event_id]


def without_server_fields(event: ScanEvent) -> ScanEvent:
    """The event as it was sent; its recorded time, which it must have, is taken off."""
    assert event.recorded_at_ms > 0
    copy = ScanEvent()
    copy.CopyFrom(event)
    copy.ClearField("recorded_at_ms")
    return copy


COMMON = [EventCode.SORTED, EventCode.OUT_FOR_DELIVERY, EventCode.DELIVERED]
