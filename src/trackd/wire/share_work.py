"""The shares of subscriptions that another worker leads, worked off in this one, which owns them.

Reading, timing and saving are done here, by the same `OwnBranch` as in one process; the worker that
leads says what goes to whom and what consumers said, over a stream that share_messages.py spells
out. When the stream ends, for whatever reason, what was in flight was not tried, everything is
saved, and the shares are let go of: the next stream reads what was saved. There is one stream at a
time for a subscription; a new one ends the one before it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog

from trackd.feed.branch import OwnBranch, OwnHomes
from trackd.feed.share import Share
from trackd.feed.share_access import Late, ParkedAct
from trackd.feed.subscription_rows import encode_change
from trackd.feed.subscription_settings import SubscriptionDocument
from trackd.wire.calls import Calls, Context
from trackd.wire.errors import malformed, stopping, told
from trackd.wire.peer_messages import ForgetSharesRequest, ShareReports
from trackd.wire.share_messages import Command, Outbox, Report, commands_in, figures_out, report

# How often the leader is told how far the shares are.
_FIGURES_INTERVAL_S = 1.0
# The leader is told that more is ready only if it knows of less than this.
_READY_ENOUGH = 1_024
# How often it is told, if it is little each time.
_READY_INTERVAL_S = 0.001
# Changes of one report.
GIVEN_BYTES_MAX = 64 << 10

_log = structlog.get_logger()


class ShareService:
    """Answers the worker that leads, for the partitions of this one."""

    def __init__(self, homes: OwnHomes, calls: Calls, *, now_ms: Callable[[], int]) -> None:
        """calls: those of other workers, whose end is the end of every stream."""
        self._homes = homes
        self._calls = calls
        self._now_ms = now_ms
        self._at_work: dict[bytes, _Work] = {}

    async def work_shares(self, requests: Any, context: Context) -> None:
        """WorkShares."""
        reader = aiter(requests)
        document = await _opening(reader)
        await self._end(document.id)
        branch, name = self._homes.branch(document), document.settings.name
        work = self._at_work[document.id] = _Work(branch, name, self._now_ms)
        try:
            await work.run(reader, context, self._calls.stopping)
        finally:
            try:
                await work.let_go()
            finally:
                del self._at_work[document.id]
                work.over.set()
        raise stopping()

    async def forget_shares(self, request: bytes, _: Context) -> bytes:
        """ForgetShares."""
        asked = ForgetSharesRequest.FromString(request)
        if asked.all_others:
            await self._homes.keep_only(lambda: {*asked.ids, *self._at_work})
            return b""
        for each in asked.ids:
            await self._end(each)
            await self._homes.forget(each)
        return b""

    async def _end(self, subscription_id: bytes) -> None:
        """Returns when nobody works off the shares of a subscription."""
        while work := self._at_work.get(subscription_id):
            work.ended.set()
            await work.over.wait()


async def _opening(reader: Any) -> SubscriptionDocument:
    # Whoever opens says nothing else before it is answered.
    async for message in reader:
        for opening in commands_in(message):
            if opening.kind == Command.OPEN:
                return SubscriptionDocument.decoded(opening.document)
        break
    raise malformed()


class _Work:
    """One stream."""

    def __init__(self, branch: OwnBranch, name: str, now_ms: Callable[[], int]) -> None:
        """name: of the subscription, for the log."""
        self._branch = branch
        self._name = name
        self._now_ms = now_ms
        self._shares = {share.number: share for share in branch.shares}
        self._outbox = Outbox(ShareReports)
        self._wake = asyncio.Event()
        # What the leader knows of each partition: so many are ready.
        self._told_ready = dict.fromkeys(self._shares, 0)
        # Whether it has just told of some.
        self._resting = False
        # Who took something where.
        self._takers: set[tuple[Share, int]] = set()
        # Asked and not answered yet.
        self._answering: set[asyncio.Task[None]] = set()
        # Set when this is to end; and when it has.
        self.ended = asyncio.Event()
        self.over = asyncio.Event()

    async def run(self, reader: Any, context: Context, stopping_told: asyncio.Event) -> None:
        """Returns when the leader is gone or this is to end. Raises what ends the work."""
        self._outbox.put(report(Report.OPENED))
        work: list[Coroutine[Any, Any, object]] = [
            *self._branch.work(self._wake.set, self._late),
            self._listen(reader),
            self._tell(context),
            self._turns(),
            self._tell_figures(),
            self.ended.wait(),
            stopping_told.wait(),
        ]
        tasks = [asyncio.ensure_future(each) for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            tasks += self._answering
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def let_go(self) -> None:
        """Nothing that was in flight was tried; everything is durable. Raises StorageFailed."""
        now_ms = self._now_ms()
        for share, consumer in self._takers:
            share.lanes.gone(consumer, now_ms, untried=True)
        await self._branch.close()

    # Out.

    async def _tell(self, context: Context) -> None:
        while True:
            for message in await self._outbox.messages():
                await context.write(message)

    async def _turns(self) -> None:
        """Reads on, and tells what is ready: once for whatever happened in a turn."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            now_ms = self._now_ms()
            if self._branch.read_on(now_ms):
                self._wake.set()
            self._announce()
            self._branch.set_timer(now_ms)
            # Others of this loop have their turn, ingest first of all.
            await asyncio.sleep(0)

    def _announce(self) -> None:
        """Tells what is ready: at once after a rest, but not for every single change."""
        more = [
            share
            for number, share in self._shares.items()
            if self._told_ready[number] < min(share.ready, _READY_ENOUGH)
        ]
        if not more or self._resting:
            return
        for share in more:
            self._told_ready[share.number] = share.ready
            self._outbox.put(report(Report.READY, partition=share.number, ready=share.ready))
        self._resting = True
        asyncio.get_running_loop().call_later(_READY_INTERVAL_S, self._rested)

    def _rested(self) -> None:
        self._resting = False
        self._wake.set()

    def _late(self, partition: int, late: Late) -> None:
        self._outbox.put(
            report(
                Report.LATE,
                partition=partition,
                positions=[position for position, _ in late],
                consumers=[consumer for _, consumer in late],
            )
        )

    async def _tell_figures(self) -> None:
        while True:
            self._put_figures()
            await asyncio.sleep(_FIGURES_INTERVAL_S)

    def _put_figures(self) -> None:
        self._branch.look()
        for number, share in self._shares.items():
            figures = figures_out(share.figures)
            self._outbox.put(report(Report.FIGURES, partition=number, figures=figures))

    # In.

    async def _listen(self, reader: Any) -> None:
        async for message in reader:
            for asked in commands_in(message):
                self._do(asked)
            self._wake.set()

    def _do(self, asked: Any) -> None:
        kind = asked.kind
        if kind == Command.TAKE:
            self._take(asked)
        elif kind in {Command.ACK, Command.NACK, Command.PARK}:
            self._hear(asked)
        elif kind == Command.GONE:
            share = self._shares[asked.partition]
            self._takers.discard((share, asked.consumer))
            share.lanes.gone(asked.consumer, self._now_ms(), untried=asked.untried)
            share.said()
        elif kind == Command.FOLLOW:
            self._branch.follow(SubscriptionDocument.decoded(asked.document))
        elif kind == Command.SAVE:
            self._answer(asked.number, self._save())
        elif kind == Command.REFRESH:
            self._put_figures()
            self._answer(asked.number, _nothing())
        elif kind == Command.PARKED:
            self._answer(asked.number, self._parked(asked))
        elif kind == Command.ACT:
            self._answer(asked.number, self._act(asked))
        else:
            raise malformed()

    def _take(self, asked: Any) -> None:
        share = self._shares[asked.partition]
        self._takers.add((share, asked.consumer))
        items, wires = share.taken(asked.count, asked.consumer, self._now_ms())
        self._told_ready[share.number] = share.ready
        first, answered = 0, 0
        for last in _cuts(wires):
            is_last = last == len(items)
            count = asked.count - answered if is_last else last - first
            self._outbox.put(
                report(
                    Report.GIVEN,
                    partition=share.number,
                    consumer=asked.consumer,
                    count=count,
                    positions=[item.position for item in items[first:last]],
                    attempts=[item.attempts for item in items[first:last]],
                    wires=wires[first:last],
                    ready=share.ready,
                )
            )
            first, answered = last, answered + count

    def _hear(self, asked: Any) -> None:
        share = self._shares[asked.partition]
        lanes, consumer, now_ms = share.lanes, asked.consumer, self._now_ms()
        for position, tried in zip(asked.positions, asked.attempts, strict=True):
            if lanes.attempt(position) != tried:
                continue
            if asked.kind == Command.ACK:
                lanes.ack(position, consumer, now_ms)
            elif asked.kind == Command.PARK:
                lanes.park(position, consumer, now_ms, reason=asked.reason)
            else:
                lanes.nack(
                    position,
                    consumer,
                    now_ms,
                    delay_ms=asked.delay_ms,
                    reason=asked.reason,
                    untried=asked.untried,
                )
        share.said()

    # Questions: answered while the rest goes on.

    def _answer(self, number: int, question: Coroutine[Any, Any, dict[str, Any]]) -> None:
        task = asyncio.create_task(self._answered(number, question))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answered(self, number: int, question: Coroutine[Any, Any, dict[str, Any]]) -> None:
        try:
            fields = await question
        except Exception as error:
            _log.error("a question about a share failed", name=self._name, error=str(error))
            fields = {"error": told(error).details()}
        self._outbox.put(report(Report.ANSWER, number=number, **fields))
        self._wake.set()

    async def _save(self) -> dict[str, Any]:
        await self._branch.save()
        return {}

    async def _parked(self, asked: Any) -> dict[str, Any]:
        rows, more = await self._shares[asked.partition].parked(
            asked.after, count_max=asked.count, bytes_max=asked.bytes_max
        )
        return {
            "positions": [parked.position for parked, _ in rows],
            "wires": [encode_change(parked, wire) for parked, wire in rows],
            "more": more,
        }

    async def _act(self, asked: Any) -> dict[str, Any]:
        positions = None if asked.count else list(asked.positions)
        share = self._shares[asked.partition]
        return {"count": await share.act_on_parked(ParkedAct(asked.act), positions)}


def _cuts(wires: list[bytes]) -> Iterator[int]:
    """Where to cut them, so that each part fits into a message; the last is their end."""
    size = 0
    for index, wire in enumerate(wires):
        if size and size + len(wire) > GIVEN_BYTES_MAX:
            yield index
            size = 0
        size += len(wire)
    yield len(wires)


async def _nothing() -> dict[str, Any]:
    return {}
