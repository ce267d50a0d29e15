"""The way to the shares of another worker: one stream for each subscription and owner.

While the owner is away nothing of its partitions is ready, and what was in flight is not: consumers
get their credit back, what they still say of it is passed over, and it comes again. When it is back
it first forgets what was deleted meanwhile, then another stream is opened.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import grpc
import structlog
from google.rpc.status_pb2 import Status
from grpc import aio

from trackd.cluster.remote import PeerChannel, error_of_status
from trackd.cluster.remote_share import RemoteShare
from trackd.feed.partition_feed import LogBounds
from trackd.feed.share_access import Late
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
        self.shares = [RemoteShare(number, self.tell, self.ask) for number in owner.partitions]
        self._by_number = {share.number: share for share in self.shares}
        self._wake: Callable[[], None] = _nobody
        self._outbox = Outbox(ShareCommands)
        # Whether the owner has the shares open, so that it can be told and asked.
        self._is_open = asyncio.Event()
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._asked = 0
        self._timer: asyncio.TimerHandle | None = None

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

    def tell(self, kind: Command, **more: Any) -> None:
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
        self.tell(kind, number=number, **more)
        report = await answer
        if report.error:
            raise error_of_status(Status.FromString(report.error))
        return report

    def follow(self, document: SubscriptionDocument) -> None:
        """See Branch."""
        self._document = document
        self.tell(Command.FOLLOW, document=document.encoded())

    async def save(self) -> None:
        """See Branch. Raises CallError."""
        await self.ask(Command.SAVE)

    async def refresh(self) -> None:
        """See Branch. Raises CallError."""
        await self.ask(Command.REFRESH)

    # What the owner sees to.

    def read_on(self, now_ms: int) -> bool:  # noqa: ARG002
        """See Branch: the owner does."""
        now = asyncio.get_running_loop().time()
        for share in self.shares:
            share.begin_turn(now)
        return False

    def set_timer(self, now_ms: int) -> None:  # noqa: ARG002
        """See Branch: the owner does, but for what was held back."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        wanted = [at for share in self.shares if (at := share.end_turn(now)) is not None]
        if wanted and self._timer is None:
            self._timer = loop.call_at(min(wanted), self._timer_rang)

    def _timer_rang(self) -> None:
        self._timer = None
        self._wake()

    def look(self) -> None:
        """See Branch: the owner does."""

    async def close(self) -> None:
        """See Branch: the owner has saved what it was told when its stream ends."""
        if self._timer:
            self._timer.cancel()


def _nobody() -> None:
    """Before the work begins there is nobody to wake."""
