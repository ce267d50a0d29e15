"""WatchChanges over all workers: one stream to the caller, joined from one of each worker.

Each worker tells of its own partitions; here their messages are passed on as they are, with one
resume token over all partitions appended, as the last value of a field counts. A waybill is in one
partition, so what is in order there is in order here. A worker that goes away is watched again from
where it was once it is back; meanwhile the others are told of, and nobody is told that he is caught
up.

A token that is given while a snapshot is being told says: the snapshot from its beginning. Each
worker is at a key of its own then, and the token is to mean the same with any number of workers.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from grpc import StatusCode

from trackd.feed.partition_feed import LogBounds
from trackd.feed.watch import Place
from trackd.v1.feed_pb2 import FeedStart, WatchChangesRequest
from trackd.wire import positions, resume_tokens
from trackd.wire.calls import Calls, Context
from trackd.wire.errors import CallError, stopping
from trackd.wire.feed import CAUGHT_UP, STOP_GRACE_S, FeedService, filter_of, token_field
from trackd.wire.peer_messages import WatchSlices
from trackd.wire.requests import parsed
from trackd.wire.resume_tokens import KeptLog

# Messages of all workers that wait for the caller to read; the workers wait beyond it.
_MESSAGES_WAITING_MAX = 8
# How soon a worker that is away is asked again.
_RETRY_S = 0.2


class WatchSource(Protocol):
    """A worker, as far as watching it goes."""

    async def bounds(self) -> Mapping[int, KeptLog]:
        """What its partitions' logs hold, by number. Raises CallError."""

    def watch(self, request: bytes) -> AsyncGenerator[bytes, None]:
        """The messages of a WatchChanges call over its partitions. Raises CallError."""


class OwnPartitions:
    """This worker itself as a source."""

    def __init__(self, feed: FeedService, own: Mapping[int, Any]) -> None:
        """own: the PartitionFeed of each own partition, by number."""
        self._feed = feed
        self._own = own

    async def bounds(self) -> Mapping[int, KeptLog]:
        """See WatchSource."""
        return {
            number: LogBounds(feed.oldest_position, feed.newest_position)
            for number, feed in self._own.items()
        }

    async def watch(self, request: bytes) -> AsyncGenerator[bytes, None]:
        """See WatchSource."""
        pipe = _Pipe()
        telling = asyncio.create_task(self._feed.watch_changes(request, pipe))
        getting = asyncio.create_task(pipe.messages.get())
        try:
            while True:
                await asyncio.wait({getting, telling}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    telling.result()
                    return
                yield getting.result()
                getting = asyncio.create_task(pipe.messages.get())
        finally:
            telling.cancel()
            getting.cancel()
            await asyncio.gather(telling, getting, return_exceptions=True)


class _Pipe:
    """Takes the place of a call's context: what is written is read here."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)

    async def write(self, message: bytes) -> None:
        await self.messages.put(message)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A message of one worker. changes: whether it tells any, or that the worker is caught up."""

    source: int
    message: bytes
    positions: Mapping[int, int]
    in_snapshot: bool
    changes: bool


class JoinedFeed:
    """Answers WatchChanges in a worker, for the partitions of all."""

    def __init__(self, sources: Sequence[WatchSource], calls: Calls, data_set_id: str) -> None:
        self._sources = sources
        self._calls = calls
        self._data_set_id = data_set_id

    async def watch_changes(self, request: bytes, context: Context) -> None:
        """WatchChanges."""
        asked = parsed(WatchChangesRequest, request)
        filter_of(asked.filter, "filter")
        bounds = await asyncio.gather(*(source.bounds() for source in self._sources))
        logs = {number: log for each in bounds for number, log in each.items()}
        place = resume_tokens.place_of(asked.start, self._data_set_id, sorted(logs.items()))
        joined = _Joined(self._sources, bounds, asked, place, self._data_set_id)
        call = asyncio.current_task()
        assert call, "a handler runs in a task"
        ending = asyncio.create_task(self._end(joined, call))
        try:
            async with joined.listening():
                while (message := await joined.next()) is not None:
                    await context.write(message)
        finally:
            ending.cancel()
        raise stopping({"resume_token": joined.token})

    async def _end(self, joined: "_Joined", call: "asyncio.Task[Any]") -> None:
        await self._calls.stopping.wait()
        joined.stop()
        await asyncio.sleep(STOP_GRACE_S)
        call.cancel()


class _Joined:
    """One watch of everything. One caller."""

    def __init__(
        self,
        sources: Sequence[WatchSource],
        bounds: Sequence[Mapping[int, KeptLog]],
        asked: WatchChangesRequest,
        place: Place,
        data_set_id: str,
    ) -> None:
        self._sources = sources
        self._filter = asked.filter
        self._data_set_id = data_set_id
        self._positions = dict(place.positions)
        self._first = min(self._positions)
        # Where each source was heard last.
        self._tokens = [
            resume_tokens.token(
                data_set_id,
                Place(
                    {number: place.positions[number] for number in sorted(each)},
                    (min(each), b"") if place.snapshot else None,
                ),
            )
            for each in bounds
        ]
        self._in_snapshot = {index for index in range(len(sources)) if place.snapshot}
        self._caught_up: set[int] = set()
        self._heard: asyncio.Queue[_Heard | Exception | None]
        self._heard = asyncio.Queue(_MESSAGES_WAITING_MAX)
        self._stopped = False

    @property
    def token(self) -> str:
        """Where another watch goes on without missing anything."""
        snapshot = (self._first, b"") if self._in_snapshot else None
        return resume_tokens.token(self._data_set_id, Place(self._positions, snapshot))

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listens to all workers meanwhile."""
        tasks = [asyncio.create_task(self._listen(index)) for index in range(len(self._sources))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def next(self) -> bytes | None:
        """The next message for the caller; None once it was stopped. Raises CallError."""
        while not self._stopped:
            heard = await self._heard.get()
            if isinstance(heard, Exception):
                raise heard
            if heard is None:
                return None
            self._positions.update(heard.positions)
            if not heard.in_snapshot:
                self._in_snapshot.discard(heard.source)
            if heard.changes:
                return heard.message + token_field(self.token)
            self._caught_up.add(heard.source)
            if len(self._caught_up) == len(self._sources):
                self._caught_up.clear()
                return CAUGHT_UP + token_field(self.token)
        return None

    def stop(self) -> None:
        """Has `next` return None."""
        self._stopped = True
        with contextlib.suppress(asyncio.QueueFull):
            self._heard.put_nowait(None)

    async def _listen(self, index: int) -> None:
        """Hears one worker, for as long as this is watched."""
        while True:
            start = FeedStart(resume_token=self._tokens[index])
            request = WatchChangesRequest(filter=self._filter, start=start).SerializeToString()
            try:
                async with contextlib.aclosing(self._sources[index].watch(request)) as messages:
                    async for message in messages:
                        await self._heard.put(self._read(index, message))
            except CallError as error:
                if error.code is not StatusCode.UNAVAILABLE:
                    await self._heard.put(error)
                    return
            except Exception as error:
                await self._heard.put(error)
                return
            await asyncio.sleep(_RETRY_S)

    def _read(self, index: int, message: bytes) -> _Heard:
        slices = WatchSlices.FromString(message)
        self._tokens[index] = slices.resume_token
        head, in_snapshot, _ = slices.resume_token.partition("!")
        told = positions.parse(head, self._data_set_id, resume_tokens.FIELD)
        return _Heard(index, message, told, bool(in_snapshot), bool(slices.changes))
