"""A share with another worker, as the subscription of this one sees it.

The owner reads, times and saves (wire/share_work.py); here is only what the worker that leads has
to know at once: what is ready there, and what is in flight with whom. What it asks for counts as in
flight from that moment on, until the answer corrects it, so the bounds of a subscription and the
credits of its consumers hold exactly, however many workers there are. The way to the owner is
remote_branch.py.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from trackd.feed.consumer import Consumer
from trackd.feed.share_access import ParkedAct, ParkedRows, ShareFigures
from trackd.feed.subscription_rows import decode_change
from trackd.wire.share_messages import Command

# How often few are asked for, and how many are not few.
_ASK_INTERVAL_S = 0.001
_ASK_AT_ONCE = 512


class RemoteShare:
    """One subscription in one partition of another worker; answers to share_access.ShareAccess."""

    def __init__(
        self,
        number: int,
        tell: Callable[..., None],
        ask: Callable[..., Awaitable[Any]],
    ) -> None:
        """The owner is told and asked with a Command and its fields; see RemoteBranch."""
        self.number = number
        self._tell = tell
        self._ask = ask
        # What the owner last said: how many are ready, all that it was told before considered.
        self.announced = 0
        self.heard = ShareFigures()
        # What happened in the streams before this one.
        self._before = ShareFigures()
        # What was asked for and not answered yet, by consumer, and together.
        self._asked: Counter[int] = Counter()
        self._asked_count = 0
        # Who takes part; and by position with whom it is, and which attempt that is.
        self._consumers: dict[int, Consumer] = {}
        self._flight: dict[int, tuple[Consumer, int]] = {}
        # A little at a time is asked for only every so often, or every delivery would cost messages
        # of its own: whether this turn may ask, whether it did, and when the next one may.
        self._may_ask = self._has_asked = False
        self._next_ask_at = 0.0

    # Turns.

    def begin_turn(self, now: float) -> None:
        """now: by the clock of the event loop."""
        enough = self.announced - self._asked_count >= _ASK_AT_ONCE
        self._may_ask, self._has_asked = enough or now >= self._next_ask_at, False

    def end_turn(self, now: float) -> float | None:
        """When there has to be another one, if there is something that was held back."""
        if self._has_asked:
            self._next_ask_at = now + _ASK_INTERVAL_S
        held_back = not self._may_ask and self.announced > self._asked_count
        return self._next_ask_at if held_back else None

    # What it shows.

    @property
    def ready(self) -> int:
        """See ShareAccess."""
        return max(0, self.announced - self._asked_count) if self._may_ask else 0

    @property
    def in_flight(self) -> int:
        """See ShareAccess."""
        return len(self._flight) + self._asked_count

    @property
    def figures(self) -> ShareFigures:
        """See ShareAccess: as the owner told, about once a second or when it was asked."""
        heard, before = self.heard, self._before
        return replace(
            heard,
            # The owner's are of one moment: what it had in flight then may wait there by now.
            in_flight=max(heard.in_flight, self.in_flight),
            acknowledged=before.acknowledged + heard.acknowledged,
            redelivered=before.redelivered + heard.redelivered,
            superseded=before.superseded + heard.superseded,
        )

    # What goes out.

    def take(self, count: int, consumer: Consumer, now_ms: int) -> int:  # noqa: ARG002
        """See ShareAccess; what it gives comes soon, or the credit comes back."""
        count = min(count, self.ready)
        if count:
            self._has_asked = True
            self._consumers[consumer.number] = consumer
            self._asked[consumer.number] += count
            self._asked_count += count
            consumer.credit -= count
            self._tell(Command.TAKE, partition=self.number, consumer=consumer.number, count=count)
        return count

    def given(self, report: Any) -> None:
        """The owner's answer to a take, or a part of it."""
        number = report.consumer
        self.announced = report.ready
        self._asked[number] -= report.count
        if not self._asked[number]:
            del self._asked[number]
        self._asked_count -= report.count
        consumer = self._consumers.get(number)
        if consumer is None:
            return  # it is gone, and the owner is told by now
        flight = self._flight
        given = []
        for position, attempt, wire in zip(
            report.positions, report.attempts, report.wires, strict=True
        ):
            if wire:
                flight[position] = consumer, attempt
                given.append((wire, attempt))
        consumer.credit += report.count - len(given)
        if given:
            consumer.give(given)

    def late(self, report: Any) -> None:
        """These timed out."""
        for position, number in zip(report.positions, report.consumers, strict=True):
            held = self._flight.get(position)
            if held and held[0].number == number:
                del self._flight[position]
                held[0].credit += 1

    def lost(self) -> None:
        """The owner is away."""
        for number, count in self._asked.items():
            if consumer := self._consumers.get(number):
                consumer.credit += count
        for consumer, _ in self._flight.values():
            consumer.credit += 1
        self._asked.clear()
        self._flight.clear()
        self._asked_count = self.announced = 0
        self._before = self.figures
        self.heard = replace(self.heard, in_flight=0, acknowledged=0, redelivered=0, superseded=0)

    # What consumers say of it.

    def ack(self, consumer: Consumer, positions: Sequence[int]) -> int:
        """See ShareAccess."""
        flight = self._flight
        done, attempts = [], []
        for position in positions:
            held = flight.get(position)
            if held and held[0] is consumer:
                del flight[position]
                done.append(position)
                attempts.append(held[1])
        if done:
            self._say(Command.ACK, consumer, done, attempts)
        return len(done)

    def nack(
        self, consumer: Consumer, position: int, *, delay_ms: int, reason: str, untried: bool
    ) -> bool:
        """See ShareAccess."""
        attempt = self._landed(consumer, position)
        if attempt:
            more = {"delay_ms": delay_ms, "reason": reason, "untried": untried}
            self._say(Command.NACK, consumer, [position], [attempt], **more)
        return attempt > 0

    def park(self, consumer: Consumer, position: int, *, reason: str) -> bool:
        """See ShareAccess."""
        attempt = self._landed(consumer, position)
        if attempt:
            self._say(Command.PARK, consumer, [position], [attempt], reason=reason)
        return attempt > 0

    def gone(self, consumer: Consumer, *, untried: bool) -> None:
        """See ShareAccess."""
        if self._consumers.pop(consumer.number, None) is None:
            return
        # What it asked for stays in flight until it is answered.
        mine = [position for position, held in self._flight.items() if held[0] is consumer]
        for position in mine:
            del self._flight[position]
        self._say(Command.GONE, consumer, [], [], untried=untried)

    def _landed(self, consumer: Consumer, position: int) -> int:
        """Which attempt it was, if it was in flight with that consumer; else 0."""
        held = self._flight.get(position)
        if held is None or held[0] is not consumer:
            return 0
        del self._flight[position]
        return held[1]

    def _say(
        self,
        kind: Command,
        consumer: Consumer,
        positions: list[int],
        attempts: list[int],
        **more: Any,
    ) -> None:
        self._tell(
            kind,
            partition=self.number,
            consumer=consumer.number,
            positions=positions,
            attempts=attempts,
            **more,
        )

    # Parked changes.

    async def parked(self, after: int, *, count_max: int, bytes_max: int) -> ParkedRows:
        """See ShareAccess. Raises CallError."""
        report = await self._ask(
            Command.PARKED,
            partition=self.number,
            after=after,
            count=count_max,
            bytes_max=bytes_max,
        )
        rows = zip(report.positions, report.wires, strict=True)
        return [decode_change(position, row) for position, row in rows], report.more

    async def act_on_parked(self, act: ParkedAct, positions: Sequence[int] | None) -> int:
        """See ShareAccess. Raises CallError."""
        report = await self._ask(
            Command.ACT,
            partition=self.number,
            act=act,
            positions=positions or (),
            count=int(positions is None),
        )
        return int(report.count)
