"""FeedService: changes out, as they become durable or from any place in the past.

Responses are joined from bytes that every reader shares; no message object is made of a change.
Named subscriptions are answered by an object of their own (subscriptions.py).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from trackd.feed.change import varint
from trackd.feed.filters import Filter, UnusableFilter
from trackd.feed.live import Live
from trackd.feed.partition_feed import PositionExpired
from trackd.feed.watch import Place, Told, Watch
from trackd.v1.feed_pb2 import ChangeFilter, FeedStart, WatchChangesRequest
from trackd.wire import resume_tokens
from trackd.wire.calls import Calls, Context
from trackd.wire.errors import CallError, stopping
from trackd.wire.requests import parsed, refused_filter

# Tags of WatchChangesResponse; the numbers are held to the contract by a test.
_CHANGES = b"\x0a"
CAUGHT_UP = b"\x12\x00"
_RESUME_TOKEN = b"\x1a"
# How long a watch whose reader does not read has to end when the server stops.
STOP_GRACE_S = 0.5


class FeedService:
    """Lets callers watch the partitions of this process."""

    def __init__(self, live: Live, calls: Calls, data_set_id: str) -> None:
        self._live = live
        self._calls = calls
        self._data_set_id = data_set_id
        self._running: set[asyncio.Task[Any]] = set()
        self._feeds = [(one.number, one.feed) for one in live.partitions]
        # The place that was told last, and its token's field.
        self._last_place, self._last_token = Place({}), b""

    async def watch_changes(self, request: bytes, context: Context) -> None:
        """WatchChanges."""
        asked = parsed(WatchChangesRequest, request)
        wanted = filter_of(asked.filter, "filter")
        watch = Watch(self._live, wanted, self._start(asked.start))
        place = watch.place
        call = asyncio.current_task()
        assert call, "a handler runs in a task"
        self._running.add(call)
        try:
            while (told := await watch.next()) is not None:
                place, message = told.place, self._message(told)
                # The reader may never read: nothing but the message itself is kept for it.
                del told
                await context.write(message)
                del message
        except PositionExpired:
            self._live.figures.position_expired += 1
            raise resume_tokens.expired(self._data_set_id, watch.place, self._feeds) from None
        finally:
            watch.close()
            self._running.discard(call)
        raise stopping({"resume_token": resume_tokens.token(self._data_set_id, place)})

    @contextlib.asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """Ends every watch once the server stops."""
        end = asyncio.create_task(self._end())
        try:
            yield
        finally:
            end.cancel()

    async def _end(self) -> None:
        await self._calls.stopping.wait()
        self._live.stop()
        # Whoever does not read would otherwise be waited for as long as for a call that works.
        await asyncio.sleep(STOP_GRACE_S)
        for call in list(self._running):
            call.cancel()

    def _start(self, start: FeedStart) -> Place:
        """The place to start from. Raises CallError."""
        try:
            return resume_tokens.place_of(start, self._data_set_id, self._feeds)
        except CallError as error:
            self._live.figures.position_expired += error.reason == "POSITION_EXPIRED"
            raise

    def _message(self, told: Told) -> bytes:
        # Those who are told together are mostly at one place.
        if told.place != self._last_place:
            token = resume_tokens.token(self._data_set_id, told.place)
            self._last_place, self._last_token = told.place, token_field(token)
        end = self._last_token
        if not told.run:
            return CAUGHT_UP + end
        return b"".join((_CHANGES, varint(len(told.run)), told.run, end))


def token_field(resume_token: str) -> bytes:
    """The field of a WatchChangesResponse that says where to go on."""
    token = resume_token.encode()
    return b"".join((_RESUME_TOKEN, varint(len(token)), token))


def filter_of(message: ChangeFilter, field: str) -> Filter:
    """The filter in a request, whose field it is. Raises CallError."""
    try:
        return Filter.of(
            waybill_numbers=message.waybill_numbers,
            milestones=message.milestones,
            flags=message.flags,
            facility_codes=message.facility_codes,
            account_ids=message.account_ids,
            news_only=message.news_only,
        )
    except UnusableFilter as error:
        raise refused_filter(field, error) from None
