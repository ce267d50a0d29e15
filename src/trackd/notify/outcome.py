"""What an attempt to tell an endpoint can come to: the words between senders and the courier.

A sender (`webhook.py` for programs, `messages/` for people) makes one attempt and says what came of
it; the courier (`courier.py`) decides what follows. Nothing here sends or waits.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from trackd.v1.feed_pb2 import Change
from trackd.v1.notification_pb2 import Target

ERROR_CHARACTERS_MAX = 200


class Verdict(Enum):
    """What came of an attempt."""

    DELIVERED = "delivered"
    # Worth another attempt, when the schedule says.
    FAILED = "failed"
    # Worth another attempt, and the whole endpoint wants a pause: `after_s`, or what the courier
    # takes for one.
    THROTTLED = "throttled"
    # The endpoint wants nothing any more: it is disabled.
    GONE = "gone"
    # No attempt can ever succeed with this change: it is parked.
    HOPELESS = "hopeless"
    # Not now, by the endpoint's own wish (quiet hours, a rate cap): again in `after_s`. Not a
    # failure.
    POSTPONED = "postponed"
    # Left out, by the endpoint's own wish: done, without a word.
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One attempt, ended.

    - error: what went wrong, for the delivery log; never personal data, never a credential, never
      what the other side wrote.
    - status_code: of HTTP; 0 when there was no answer.
    - after_s: for THROTTLED what the other side asked for, for POSTPONED how long; None where
      nobody said.
    """

    verdict: Verdict
    error: str = ""
    status_code: int = 0
    after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What an endpoint is to be told.

    - id: the same for every attempt to tell this endpoint of this change.
    - change: None for a test.
    - attempt: from 1.
    """

    id: str
    change: Change | None
    attempt: int = 1


class Sender(Protocol):
    """Tells endpoints of one kind.

    - `send` makes one attempt and returns what came of it. It raises only for defects.
    - It bounds its own time: nobody else will.
    - It may be called many times at once, for one endpoint and for many.
    """

    async def send(self, target: Target, notification: Notification) -> Outcome:
        """One attempt."""
        ...

    async def close(self) -> None:
        """Lets go of connections; no attempt is running any more."""
        ...
