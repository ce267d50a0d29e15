"""TrackingService: status and timeline out."""

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence

import grpc

from trackd.domain.validation import WAYBILL_NUMBER_RULE, normal_waybill_number
from trackd.partition import Partition, TimelinePage
from trackd.store.keys import (
    HASH_LENGTH,
    ORDER_LENGTH,
    partition_of,
    status_key,
)
from trackd.v1.tracking_pb2 import (
    TIMELINE_ORDER_NEWEST_FIRST,
    BatchGetStatusRequest,
    GetStatusRequest,
    GetTimelineRequest,
    TimelineOrder,
)
from trackd.wire import answers, positions
from trackd.wire.access import PartitionAccess
from trackd.wire.answers import Answers
from trackd.wire.calls import Context
from trackd.wire.errors import CallError, invalid
from trackd.wire.requests import parsed

BATCH_WAYBILLS_MAX = 500
PAGE_SIZE_MAX = 500
PAGE_SIZE_DEFAULT = 100
_ORDERS = frozenset(TimelineOrder.values())
# What an answer holds beside its events: the status, whose last event may be as large as any, and a
# token.
_ANSWER_RESERVE_BYTES = 128 << 10


class TrackingService:
    """Answers look-ups from the partitions, wherever they are."""

    def __init__(
        self,
        partitions: Sequence[PartitionAccess],
        encode: Answers,
        data_set_id: str,
        *,
        response_bytes_max: int,
    ) -> None:
        self._partitions = partitions
        self._all_here = all(isinstance(partition, Partition) for partition in partitions)
        self._encode = encode
        self._data_set_id = data_set_id
        self._response_bytes_max = response_bytes_max
        self._timeline_bytes_max = response_bytes_max - _ANSWER_RESERVE_BYTES
        self._count = len(partitions)

    # Most look-ups name a waybill and nothing else, and its partition is here: these are answered
    # without a coroutine. None: the methods below answer, or say what is wrong. Raise DataDamaged.

    def status_at_once(self, request: bytes) -> bytes | None:
        """GetStatus, where nothing has to be waited for."""
        place = answers.located(request, self._count)
        if place is None:
            return None
        number, key = place
        row = self._partitions[number].status_now(key)
        return None if row is None else self._encode.status_of(number, key, row)

    def timeline_at_once(self, request: bytes) -> bytes | None:
        """GetTimeline, where nothing has to be waited for."""
        place = answers.located(request, self._count)
        if place is None:
            return None
        number, key = place
        page = self._partitions[number].timeline_now(
            key, limit=PAGE_SIZE_DEFAULT, bytes_max=self._timeline_bytes_max
        )
        if page is None:
            return None
        return self._timeline(number, key, page, newest_first=False)

    async def get_status(self, request: bytes, _: Context) -> bytes:
        """GetStatus."""
        asked = parsed(GetStatusRequest, request)
        number = _waybill_number(asked.waybill_number)
        key = status_key(number)
        partition = self._partitions[partition_of(key, len(self._partitions))]
        if asked.min_position:
            await self._reached(asked.min_position)
        row = await partition.read_status(key)
        if row is None:
            raise _not_found(number)
        return answers.one_status(self._encode.status(partition.number, number, row))

    async def batch_get_status(self, request: bytes, _: Context) -> bytes:
        """BatchGetStatus."""
        asked = parsed(BatchGetStatusRequest, request)
        if not 1 <= len(asked.waybill_numbers) <= BATCH_WAYBILLS_MAX:
            raise invalid(
                "waybill_numbers",
                f"1-{BATCH_WAYBILLS_MAX} at a time, not {len(asked.waybill_numbers)}",
                limit=BATCH_WAYBILLS_MAX,
            )
        if asked.min_position:
            await self._reached(asked.min_position)
        wanted: dict[bytes, tuple[int, str]] = {}
        by_partition: dict[int, list[bytes]] = {}
        for text in asked.waybill_numbers:
            number = _waybill_number(text, "waybill_numbers")
            key = status_key(number)
            if key not in wanted:
                partition = partition_of(key, len(self._partitions))
                wanted[key] = partition, number
                by_partition.setdefault(partition, []).append(key)
        rows = await self._rows(by_partition)
        answer = answers.many_statuses(
            [self._encode.status(*wanted[key], rows[key]) for key in wanted if key in rows],
            [number for key, (_, number) in wanted.items() if key not in rows],
        )
        if len(answer) > self._response_bytes_max:
            raise CallError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "RESPONSE_TOO_LARGE",
                f"waybill_numbers: the answer has {len(answer)} bytes, at most "
                f"{self._response_bytes_max}; ask for fewer at a time",
                {"limit": str(self._response_bytes_max)},
                field="waybill_numbers",
            )
        return answer

    async def get_timeline(self, request: bytes, _: Context) -> bytes:
        """GetTimeline."""
        asked = parsed(GetTimelineRequest, request)
        number = _waybill_number(asked.waybill_number)
        if not 0 <= asked.page_size <= PAGE_SIZE_MAX:
            message = f"must be 0-{PAGE_SIZE_MAX}, not {asked.page_size}"
            raise invalid("page_size", message, limit=PAGE_SIZE_MAX)
        if asked.order not in _ORDERS:
            raise invalid("order", f"{asked.order} is not a TimelineOrder")
        newest_first = asked.order == TIMELINE_ORDER_NEWEST_FIRST
        after = _order_in(asked.page_token, number, newest_first) if asked.page_token else None
        if asked.min_position:
            await self._reached(asked.min_position)
        key = status_key(number)
        partition = self._partitions[partition_of(key, len(self._partitions))]
        page = await partition.read_timeline(
            key,
            after=after,
            newest_first=newest_first,
            limit=asked.page_size or PAGE_SIZE_DEFAULT,
            bytes_max=self._timeline_bytes_max,
        )
        if page is None:
            raise _not_found(number)
        return self._timeline(partition.number, key, page, newest_first=newest_first)

    def _timeline(
        self, partition: int, key: bytes, page: TimelinePage, *, newest_first: bool
    ) -> bytes:
        status, events, following = page
        token = _page_token(key, newest_first, following) if following else b""
        return self._encode.timeline(partition, key, status, events, token)

    async def _rows(self, by_partition: Mapping[int, Sequence[bytes]]) -> dict[bytes, bytes]:
        """The status rows of keys; partitions of other workers are asked at the same time."""
        reads = (
            self._partitions[number].read_statuses(keys) for number, keys in by_partition.items()
        )
        # A task each would cost more than the read of a partition that is here.
        found = [await read for read in reads] if self._all_here else await asyncio.gather(*reads)
        rows: dict[bytes, bytes] = {}
        for part in found:
            rows.update(part)
        return rows

    async def _reached(self, min_position: str) -> None:
        """Waits until everything that min_position names is durable."""
        wanted = positions.parse(min_position, self._data_set_id)
        for number, position in wanted.items():
            if number >= len(self._partitions):
                raise positions.future()
            if not await self._partitions[number].reached(position):
                raise positions.future()


def _waybill_number(text: str, field: str = "waybill_number") -> str:
    number = normal_waybill_number(text)
    if number is None:
        raise invalid(field, WAYBILL_NUMBER_RULE, "INVALID_WAYBILL_NUMBER")
    return number


def _not_found(number: str) -> CallError:
    return CallError(
        grpc.StatusCode.NOT_FOUND,
        "WAYBILL_NOT_FOUND",
        "no event of this waybill number is known",
        {"waybill_number": number},
    )


# A page token is base64 of: the waybill's hash, the direction, and the order to go on after.


def _page_token(key: bytes, newest_first: bool, after: bytes) -> bytes:
    token = key[:HASH_LENGTH] + bytes((newest_first,)) + after
    return base64.urlsafe_b64encode(token)


def _order_in(token: str, number: str, newest_first: bool) -> bytes:
    try:
        decoded = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != HASH_LENGTH + 1 + ORDER_LENGTH:
        raise invalid("page_token", "is not a page token of this server", "INVALID_PAGE_TOKEN")
    bound = status_key(number)[:HASH_LENGTH] + bytes((newest_first,))
    if not decoded.startswith(bound):
        raise invalid(
            "page_token", "belongs to another waybill number or order", "INVALID_PAGE_TOKEN"
        )
    return decoded[len(bound) :]
