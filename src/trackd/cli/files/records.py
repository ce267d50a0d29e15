"""What a line or a row of a file becomes, and why a part of it may not become an event."""

from collections.abc import Sequence
from dataclasses import dataclass

from trackd.v1.event_pb2 import ScanEvent

UNPARSABLE = "UNPARSABLE"
NO_EVENT = "NO_EVENT"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something is not sent or not stored.

    reason: a name of RejectionReason, UNPARSABLE or NO_EVENT. field: the field or column at fault.
    """

    reason: str
    field: str
    message: str


class UnusableError(ValueError):
    """What was read does not make an event."""

    def __init__(self, fault: Fault) -> None:
        """Carries the fault to the place that keeps count."""
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Record:
    """A line, or a row that may span lines, and what it became."""

    line: int  # the number of its first line, from 1
    text: str  # as it was read, for the list of refusals
    events: Sequence[ScanEvent]
    faults: Sequence[Fault]


@dataclass(frozen=True, slots=True)
class Place:
    """How far a file has been read: all before it is done."""

    offset: int  # bytes, uncompressed
    line: int  # lines


START = Place(0, 0)
