"""Stored events: wire bytes of `trackd.v1.ScanEvent`, kept as they came.

A stored event is the sender's bytes with the server's fields appended: protobuf takes the last
value of a field, so concatenation is merge, and answering with an event needs no parsing. Here is
all that ever takes one apart.
"""

from trackd.domain.fold import FoldEvent, flags_named
from trackd.domain.lifecycle import PROBLEM_RESOLVED_CLEARS
from trackd.domain.vocabulary import EventCode
from trackd.store.errors import DataDamaged
from trackd.v1.event_pb2 import ScanEvent


def parse_event(data: bytes) -> ScanEvent:
    """The event in stored bytes. Raises DataDamaged."""
    try:
        return ScanEvent.FromString(data)
    except Exception as error:  # upb raises DecodeError of a private module
        raise DataDamaged(f"event of {len(data)} bytes cannot be parsed: {error}") from error


def fold_event(order: bytes, event: ScanEvent) -> FoldEvent:
    """What the fold needs of an event that stands at `order`."""
    code = int(event.code)
    return FoldEvent(
        order=order,
        event_id=event.event_id,
        code=code,
        reason=event.reason,
        clears=clears_of(event),
        voids=event.attributes["voids"] if code == EventCode.EVENT_VOIDED else "",
    )


def clears_of(event: ScanEvent) -> int:
    """The mask of flags that a PROBLEM_RESOLVED clears; 0 for every other code."""
    if int(event.code) != EventCode.PROBLEM_RESOLVED:
        return 0
    named = event.attributes.get("clears", "")
    return flags_named(named) if named else PROBLEM_RESOLVED_CLEARS


def is_same_scan(stored: bytes, wire: bytes) -> bool:
    """Whether wire bytes say the same as a stored event, the server's own fields aside."""
    if stored.startswith(wire) and not _without_server_fields(stored[len(wire) :]):
        return True
    return _without_server_fields(stored) == _without_server_fields(wire)


def _without_server_fields(data: bytes) -> bytes:
    event = parse_event(data)
    event.ClearField("recorded_at_ms")
    return event.SerializeToString(deterministic=True)
