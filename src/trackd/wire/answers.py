"""Answers out: response bytes from stored bytes.

A stored event is its wire bytes, and so is everything made of it: a timeline is its rows, each
behind a tag and a length, joined; nothing is parsed and serialised again on the way out.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from trackd import compiled
from trackd.domain.validation import NORMAL_WAYBILL_NUMBER, Fault
from trackd.domain.vocabulary import flags_of
from trackd.store.data_directory import PARTITIONS_MAX
from trackd.store.keys import partition_of, status_key, waybill_of_status_key
from trackd.store.planner import Verdict
from trackd.store.records import decode_status
from trackd.v1.event_pb2 import ShipmentStatus
from trackd.v1.ingest_pb2 import AppendEventsResponse, Rejection, StreamEventsResponse
from trackd.wire import positions

_compiled = compiled.load("trackd.wire._writing")

# Tags of length-delimited fields: number << 3 | 2.
_FIELD_1 = b"\x0a"
_FIELD_2 = b"\x12"
_FIELD_3 = b"\x1a"
_STATUS_LAST_EVENT = b"\x22"  # ShipmentStatus.last_event is field 4
_PLAIN = re.compile(rf"\n.({NORMAL_WAYBILL_NUMBER})".encode(), re.DOTALL).fullmatch
# Set in every byte of a varint but its last.
_VARINT_CONTINUES = 0x80
_FLAGS = {0: ()} | {mask: tuple(flags_of(mask)) for mask in range(2, 1 << 8, 2)}


def _delimited(tag: bytes, data: bytes) -> bytes:
    """A length-delimited field: tag, length as a varint, data."""
    length = len(data)
    if length < _VARINT_CONTINUES:
        return tag + bytes((length,)) + data
    head = bytearray(tag)
    while length >= _VARINT_CONTINUES:
        head.append(length & 0x7F | _VARINT_CONTINUES)
        length >>= 7
    head.append(length)
    return bytes(head) + data


class Answers:
    """Encodes answers about one data set."""

    def __init__(self, data_set_id: str) -> None:
        self._data_set_id = data_set_id
        # What the positions of each partition begin with.
        self._prefixes = [f"{data_set_id}/{n}.".encode() for n in range(PARTITIONS_MAX)]

    def append(self, verdict: Verdict, position: str) -> bytes:
        """An AppendEventsResponse."""
        return AppendEventsResponse(
            accepted=verdict.accepted,
            duplicates=verdict.duplicates,
            rejections=_rejections(verdict.rejections),
            position=position,
        ).SerializeToString()

    def stream(self, batch_id: str, verdict: Verdict, position: str) -> bytes:
        """A StreamEventsResponse."""
        return StreamEventsResponse(
            batch_id=batch_id,
            accepted=verdict.accepted,
            duplicates=verdict.duplicates,
            rejections=_rejections(verdict.rejections),
            position=position,
        ).SerializeToString()

    def position(self, parts: Iterable[tuple[int, int]]) -> str:
        """The token of (partition, position) pairs."""
        return positions.token(self._data_set_id, parts)

    def status(self, partition: int, waybill_number: str, row: bytes) -> bytes:
        """A ShipmentStatus, from a status row. `_writing.encode_status` is the same, compiled."""
        if _compiled:
            status: bytes = _compiled.encode_status(
                self._prefixes[partition], waybill_number.encode(), row
            )
            return status
        return self._status(partition, waybill_number, row)

    def status_of(self, partition: int, key: bytes, row: bytes) -> bytes:
        """A GetStatusResponse, from a status row and its key. `_writing.one_status` is the same."""
        if _compiled:
            answer: bytes = _compiled.one_status(self._prefixes[partition], key, row)
            return answer
        return one_status(self._status(partition, waybill_of_status_key(key), row))

    def timeline(
        self, partition: int, key: bytes, row: bytes, events: list[bytes], next_page_token: bytes
    ) -> bytes:
        """A GetTimelineResponse, from a status row, its key and stored events.

        `_writing.one_timeline` is the same, compiled.
        """
        if _compiled:
            answer: bytes = _compiled.one_timeline(
                self._prefixes[partition], key, row, events, next_page_token
            )
            return answer
        parts = [_delimited(_FIELD_1, event) for event in events]
        if next_page_token:
            parts.append(_delimited(_FIELD_2, next_page_token))
        status = self._status(partition, waybill_of_status_key(key), row)
        parts.append(_delimited(_FIELD_3, status))
        return b"".join(parts)

    def _status(self, partition: int, waybill_number: str, row: bytes) -> bytes:
        status = decode_status(row)
        flags = _FLAGS.get(status.flags)
        head = ShipmentStatus(
            waybill_number=waybill_number,
            milestone=status.milestone,  # type: ignore[arg-type] # a number of the enum
            flags=flags_of(status.flags) if flags is None else flags,  # type: ignore[arg-type]
            event_count=status.event_count,
            first_event_at_ms=status.first_event_at_ms,
            updated_at_ms=status.updated_at_ms,
            position=f"{self._data_set_id}/{partition}.{status.position}",
        ).SerializeToString()
        return head + _delimited(_STATUS_LAST_EVENT, status.last_event)


def one_status(status: bytes) -> bytes:
    """A GetStatusResponse."""
    return _delimited(_FIELD_1, status)


def located_plainly(request: bytes, partition_count: int) -> tuple[int, bytes] | None:
    """The partition and the status key of the waybill of a look-up of plain shape, else None.

    Plain is what names a waybill by its number in its normal form, as field 1, and nothing else.
    `_writing.located` is the same, compiled.
    """
    found = _PLAIN(request)
    if found is None or request[1] != len(found[1]):
        return None
    key = status_key(found[1].decode())
    return partition_of(key, partition_count), key


# As it is used: a function between the two would cost as much as the compiled one.
located: Callable[[bytes, int], tuple[int, bytes] | None] = (
    _compiled.located if _compiled else located_plainly
)


def many_statuses(statuses: list[bytes], missing: Iterable[str]) -> bytes:
    """A BatchGetStatusResponse."""
    parts = [_runs_of_field_1(statuses)]
    parts += [_delimited(_FIELD_2, number.encode()) for number in missing]
    return b"".join(parts)


def _runs_of_field_1(texts: list[bytes]) -> bytes:
    """Each of them as field 1. `_writing.runs` is the same, compiled."""
    if _compiled:
        joined: bytes = _compiled.runs(1, texts)
        return joined
    return b"".join([_delimited(_FIELD_1, text) for text in texts])


def _rejections(rejections: Sequence[tuple[int, Fault]]) -> list[Rejection]:
    return [
        Rejection(
            index=index,
            reason=fault.reason,  # type: ignore[arg-type] # a number of the enum
            field=fault.field,
            message=fault.message,
        )
        for index, fault in sorted(rejections, key=lambda rejection: rejection[0])
    ]
