"""What the worker that leads a subscription and the owner of its shares say to each other.

One WorkShares stream for a subscription and an owner. What is said on it is in order, and that is
all there is to agreement: whoever takes is heard after what was acknowledged before.

    Command (leader -> owner)
      OPEN     document: the first, and only the first
      TAKE     partition, consumer, count: up to count changes for this consumer
      ACK      partition, consumer, positions, attempts: done. Of a delivery that timed out here and
               went out again meanwhile the attempt is another one: it is passed over
      NACK     partition, consumer, positions (one), attempts, delay_ms, reason, untried
      PARK     partition, consumer, positions (one), attempts, reason
      GONE     partition, consumer, untried
      FOLLOW   document: other settings
      SAVE     number: answered when everything before it is durable
      REFRESH  number: answered after figures of this moment
      PARKED   number, partition, after, count, bytes_max: parked changes, as their rows
      ACT      number, partition, act, positions; count: 1 for all instead
    Report (owner -> leader)
      OPENED   the shares are there
      READY    partition, ready: so many may be taken, all commands before considered
      GIVEN    the answer to a TAKE: partition, consumer, count (what was asked for), positions,
               attempts, wires; ready. An empty wire cannot be read, and failed already
      LATE     partition, positions, consumers: timed out, and no more with them
      FIGURES  partition, figures: the fields of ShareFigures in order
      ANSWER   number; PARKED: positions, wires (rows), more; ACT: count; error: a serialised
               google.rpc.Status if it failed
"""

import asyncio
import enum
from collections.abc import Iterator
from dataclasses import astuple, fields
from typing import Any

from trackd.feed.share_access import ShareFigures
from trackd.wire.peer_messages import ShareCommand, ShareCommands, ShareReport, ShareReports

# A message is cut at this size: a server sends `response_bytes_max` at most, 256 KiB or more.
_MESSAGE_BYTES_MAX = 96 << 10


_FIGURES = [field.name for field in fields(ShareFigures)]


class Command(enum.IntEnum):
    """See above."""

    OPEN = 1
    TAKE = 2
    ACK = 3
    NACK = 4
    PARK = 5
    GONE = 6
    FOLLOW = 7
    SAVE = 8
    REFRESH = 9
    PARKED = 10
    ACT = 11


class Report(enum.IntEnum):
    """See above."""

    OPENED = 1
    READY = 2
    GIVEN = 3
    LATE = 4
    FIGURES = 5
    ANSWER = 6


class Outbox:
    """What is to be said, in order; said in as few messages as may be."""

    def __init__(self, message: Any) -> None:
        """message: ShareCommands or ShareReports, whose only field it fills."""
        self._message = message
        self._parts: list[bytes] = []
        self._news = asyncio.Event()

    def put(self, part: bytes) -> None:
        """To be said next."""
        self._parts.append(part)
        self._news.set()

    async def messages(self) -> list[bytes]:
        """What is to be said since the last time; waits until there is something."""
        await self._news.wait()
        self._news.clear()
        parts, self._parts = self._parts, []
        return [self._message(**{self._field: run}).SerializeToString() for run in _runs(parts)]

    @property
    def _field(self) -> str:
        return "commands" if self._message is ShareCommands else "reports"


def _runs(parts: list[bytes]) -> Iterator[list[bytes]]:
    run: list[bytes] = []
    size = 0
    for part in parts:
        if run and size + len(part) > _MESSAGE_BYTES_MAX:
            yield run
            run, size = [], 0
        run.append(part)
        size += len(part)
    if run:
        yield run


def command(kind: Command, **fields: Any) -> bytes:
    """A serialised ShareCommand."""
    serialised: bytes = ShareCommand(kind=kind, **fields).SerializeToString()
    return serialised


def report(kind: Report, **fields: Any) -> bytes:
    """A serialised ShareReport."""
    serialised: bytes = ShareReport(kind=kind, **fields).SerializeToString()
    return serialised


def commands_in(message: bytes) -> Iterator[Any]:
    """The ShareCommands of a message."""
    return map(ShareCommand.FromString, ShareCommands.FromString(message).commands)


def reports_in(message: bytes) -> Iterator[Any]:
    """The ShareReports of a message."""
    return map(ShareReport.FromString, ShareReports.FromString(message).reports)


def figures_out(figures: ShareFigures) -> list[int]:
    """As a report has them."""
    return [int(each) for each in astuple(figures)]


def figures_in(numbers: list[int]) -> ShareFigures:
    """As `figures_out` made them."""
    values: dict[str, Any] = dict(zip(_FIGURES, numbers, strict=True))
    return ShareFigures(**values)
