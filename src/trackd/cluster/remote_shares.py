"""Shares with another worker, as the subscription of this one sees them.

The owner reads, times and saves (wire/share_work.py); here is only what the worker that leads has
to know at once: what is ready there, and what is in flight with whom. What it asks for counts as in
flight from that moment on, until the answer corrects it, so the bounds of a subscription and the
credits of its consumers hold exactly, however many workers there are.

While the owner is away nothing of its partitions is ready, and what was in flight is not: consumers
get their credit back, what they still say of it is passed over, and it comes again.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc
import structlog
from google.rpc.status_pb2 import Status
from grpc import aio

from trackd.cluster.remote import PeerChannel, error_of_status
from trackd.feed.consumer import Consumer
from trackd.feed.partition_feed import LogBounds
from trackd.feed.share_access import Late, ParkedAct, ParkedRows, ShareFigures
from trackd.feed.subscription_rows import decode_change
from trackd.feed.subscription_settings import SubscriptionDocument
from trackd.wire.errors import CallError
from trackd.wire.peer_messages import ForgetSharesRequest, GetLogBoundsResponse, ShareCommands
from trackd.wire.peers import partition_unavailable
from trackd.wire.share_messages import Command, Outbox, Report, command, figures_in, reports_in

# How soon an owner that should be there, and is not, is asked again.
_RETRY_S = 0.2
# How long a question waits for an owner that is not there: it may be coming back just now.
_PATIENCE_S = 2.0

_log = structlog.get_logger()


class RemoteOwner:
    """Another worker as an owner of shares; answers to share_access.Owner."""

    def __init__(
        self,
        channel: PeerChannel,
        partitions: Sequence[int],
        served: Callable[[], Awaitable[object]],
    ) -> None:
        """served: returns when that worker serves, as far as the supervisor knows."""
        self.channel = channel
        self.partitions = list(partitions)
        self._served = served
        self._known: Callable[[], Iterable[bytes]] = tuple
        # Whether it has no rows of subscriptions that were deleted while it was away.
        self._is_clean = False
        self._cleaning = asyncio.Lock()

    def branch(self, document: SubscriptionDocument) -> "RemoteBranch":
        """See Owner."""
        return RemoteBranch(self, document)

    async def bounds(self) -> Mapping[int, LogBounds]:
        """See Owner. Raises CallError."""
        return await bounds_of(self.channel)

    async def forget(self, subscription_id: bytes) -> None:
        """See Owner; if it is away it is told when it is back."""
        try:
            await self._forget(ForgetSharesRequest(ids=[subscription_id]))
        except CallError:
            self._is_clean = False

    async def keep_only(self, known: Callable[[], Iterable[bytes]]) -> None:
        """See Owner."""
        self._known = known

    async def there(self) -> None:
        """Returns when it is there, and clean."""
        async with self._cleaning:
            while not self._is_clean:
                await self._served()
                try:
                    request = ForgetSharesRequest(ids=list(self._known()), all_others=True)
                    await self._forget(request)
                    self._is_clean = True
                except CallError as error:
                    _log.info("an owner of shares is away", error=error.message)
                    await asyncio.sleep(_RETRY_S)

    def lost(self) -> None:
        """A stream to it ended: it may have been away."""
        self._is_clean = False

    def away(self) -> CallError:
        """What is raised while it cannot be reached."""
        return partition_unavailable(self.partitions[0])

    async def _forget(self, request: Any) -> None:
        try:
            await self.channel.call("ForgetShares", request.SerializeToString())
        except aio.AioRpcError as failure:
            raise self.channel.error(failure) from None


async def bounds_of(channel: PeerChannel) -> Mapping[int, LogBounds]:
    """What the logs of a worker's partitions hold, by number. Raises CallError."""
    try:
        answer = await channel.call("GetLogBounds", b"")
    except aio.AioRpcError as failure:
        raise channel.error(failure) from None
    told = GetLogBoundsResponse.FromString(answer)
    logs = zip(told.partitions, told.oldest, told.newest, strict=True)
    return {number: LogBounds(oldest, newest) for number, oldest, newest in logs}


class RemoteBranch:
    """The shares of one subscription with another worker; answers to share_access.Branch."""

    def __init__(self, owner: RemoteOwner, document: SubscriptionDocument) -> None:
        self._owner = owner
        self._document = document
        self.shares = [RemoteShare(number, self) for number in owner.partitions]
        self._by_number = {share.number: share for share in self.shares}
        self._wake: Callable[[], None] = _nobody
        self._outbox = Outbox(ShareCommands)
        # Whether the owner has the shares open, so that it can be told and asked.
        self._is_open = asyncio.Event()
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._asked = 0

    # Its life.

    def work(
        self,
        wake: Callable[[], None],
        late: Callable[[int, Late], None],  # noqa: ARG002 (its shares know who to tell)
    ) -> list[Coroutine[Any, Any, None]]:
        """See Branch."""
        self._wake = wake
        return [self._keep_open()]

    async def _keep_open(self) -> None:
        """A stream after the other. Raises CallError if the owner cannot go on."""
        while True:
            await self._owner.there()
            try:
                await self._one_stream()
            except CallError as error:
                if error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise
            finally:
                self._owner.lost()
                self._lost()
            await asyncio.sleep(_RETRY_S)

    async def _one_stream(self) -> None:
        """Raises CallError."""
        channel = self._owner.channel
        with channel.stream("WorkShares") as call:
            self._outbox = Outbox(ShareCommands)
            self._outbox.put(command(Command.OPEN, document=self._document.encoded()))
            sending = asyncio.create_task(self._send(call, self._outbox))
            try:
                async for message in channel.messages(call):
                    for report in reports_in(message):
                        self._hear(report)
                    self._wake()
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, call: Any, outbox: Outbox) -> None:
        """Returns when nobody takes anything any more: the reading side says why."""
        while True:
            for message in await outbox.messages():
                try:
                    await call.write(message)
                except (aio.AioRpcError, asyncio.InvalidStateError):
                    return

    def _lost(self) -> None:
        self._is_open.clear()
        for share in self.shares:
            share.lost()
        questions, self._questions = self._questions, {}
        for question in questions.values():
            if not question.done():
                question.set_exception(self._owner.away())
                question.exception()  # whoever asked may be gone
        self._wake()

    def _hear(self, report: Any) -> None:
        kind = report.kind
        if kind == Report.GIVEN:
            self._by_number[report.partition].given(report)
        elif kind == Report.READY:
            self._by_number[report.partition].announced = report.ready
        elif kind == Report.LATE:
            self._by_number[report.partition].late(report)
        elif kind == Report.FIGURES:
            self._by_number[report.partition].heard = figures_in(list(report.figures))
        elif kind == Report.ANSWER:
            question = self._questions.pop(report.number, None)
            if question is not None and not question.done():
                question.set_result(report)
        elif kind == Report.OPENED:
            self._is_open.set()

    # What is said and asked.

    def say(self, kind: Command, **more: Any) -> None:
        """Tells the owner, if it is there."""
        if self._is_open.is_set():
            self._outbox.put(command(kind, **more))

    async def ask(self, kind: Command, **more: Any) -> Any:
        """The owner's answer. Raises CallError."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._is_open.wait()
        except TimeoutError:
            raise self._owner.away() from None
        self._asked += 1
        number, answer = self._asked, asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        self.say(kind, number=number, **more)
        report = await answer
        if report.error:
            raise error_of_status(Status.FromString(report.error))
        return report

    def follow(self, document: SubscriptionDocument) -> None:
        """See Branch."""
        self._document = document
        self.say(Command.FOLLOW, document=document.encoded())

    async def save(self) -> None:
        """See Branch. Raises CallError."""
        await self.ask(Command.SAVE)

    async def refresh(self) -> None:
        """See Branch. Raises CallError."""
        await self.ask(Command.REFRESH)

    # What the owner sees to.

    def read_on(self, now_ms: int) -> bool:  # noqa: ARG002
        """See Branch: the owner does."""
        return False

    def set_timer(self, now_ms: int) -> None:
        """See Branch: the owner does."""

    def look(self) -> None:
        """See Branch: the owner does."""

    async def close(self) -> None:
        """See Branch: the owner has saved what it was told when its stream ends."""


class RemoteShare:
    """One subscription in one partition of another worker; answers to share_access.ShareAccess."""

    def __init__(self, number: int, branch: RemoteBranch) -> None:
        self.number = number
        self._branch = branch
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

    # What it shows.

    @property
    def ready(self) -> int:
        """See ShareAccess."""
        return max(0, self.announced - self._asked_count)

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
            acknowledged=before.acknowledged + heard.acknowledged,
            redelivered=before.redelivered + heard.redelivered,
            superseded=before.superseded + heard.superseded,
        )

    # What goes out.

    def take(self, count: int, consumer: Consumer, now_ms: int) -> int:  # noqa: ARG002
        """See ShareAccess; what it gives comes soon, or the credit comes back."""
        count = min(count, self.ready)
        if count:
            self._consumers[consumer.number] = consumer
            self._asked[consumer.number] += count
            self._asked_count += count
            consumer.credit -= count
            self._branch.say(
                Command.TAKE, partition=self.number, consumer=consumer.number, count=count
            )
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
        self.heard = replace(self.heard, acknowledged=0, redelivered=0, superseded=0)

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
        self._branch.say(
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
        report = await self._branch.ask(
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
        report = await self._branch.ask(
            Command.ACT,
            partition=self.number,
            act=act,
            positions=positions or (),
            count=int(positions is None),
        )
        return int(report.count)


def _nobody() -> None:
    """Before the work begins there is nobody to wake."""
