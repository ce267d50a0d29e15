"""Batches in: from request bytes to validated scans, by partition.

Hot path: called once per batch, and every line of `_read`'s loop runs once per scan. An event of
plain shape (only the eight fields a scanner always sends, all of them ASCII) is recognised by its
length: if the bytes are all accounted for by those fields, there is nothing else in it to validate.
Everything else takes the long way through domain.validation, which alone says what an event may
hold. `_reading.pyx` is the same loop compiled, for batches and events of plain shape.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from xxhash import xxh3_64_digest

from trackd import compiled
from trackd.domain.lifecycle import step_of
from trackd.domain.validation import (
    BATCH_EVENTS_MAX,
    BATCH_ID_LENGTH_MAX,
    EVENT_ID_LENGTH_MAX,
    NORMAL_WAYBILL_NUMBER,
    OCCURRED_AT_MS_MIN,
    Fault,
    fault_in,
    normal_waybill_number,
)
from trackd.domain.vocabulary import EventCode, Rejection
from trackd.store.events import clears_of
from trackd.store.keys import HASH_LENGTH, partition_of, status_key
from trackd.store.planner import ScanTuple
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.ingest_pb2 import AppendEventsRequest, StreamEventsRequest
from trackd.wire.errors import invalid
from trackd.wire.requests import parsed
from trackd.wire.slices import AppendSlices, StreamSlices, can_be_answered

_compiled = compiled.load("trackd.wire._reading")
# The number of `events` in each request.
_APPEND_EVENTS = AppendEventsRequest.DESCRIPTOR.fields_by_name["events"].number
_STREAM_EVENTS = StreamEventsRequest.DESCRIPTOR.fields_by_name["events"].number

# Their meaning is in their attributes: they take the long way.
_MEANT_BY_ATTRIBUTES = {EventCode.PROBLEM_RESOLVED, EventCode.EVENT_VOIDED}
_PLAIN_CODES = frozenset(code.value for code in EventCode if code not in _MEANT_BY_ATTRIBUTES)
_IS_PLAIN_WAYBILL = re.compile(NORMAL_WAYBILL_NUMBER).fullmatch
# What the four fields that are always there take beside their text: tag and length of event id and
# waybill number, tag and byte of the code, tag and six bytes of the time, which has six from 1971
# to 2109.
_FIXED_LENGTH = 2 + 2 + 2 + 7
# Short texts that were found valid, with the bytes they take in an event; a network has few of
# them. Beyond the bound it starts anew, which costs only the time to find them valid again.
_SHORT_TEXTS_MAX = 200_000
_ONE_BYTE_LENGTH_MAX = 127
_WAYBILL_TAG = b"\x12"


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was read: scans by partition, and what was rejected on the way."""

    batch_id: str
    scans: list[list[ScanTuple]]
    rejections: list[tuple[int, Fault]]


class ScanReader:
    """Reads batches for a given number of partitions. One caller at a time."""

    def __init__(
        self, *, partition_count: int, event_bytes_max: int, future_tolerance_ms: int
    ) -> None:
        self._partition_count = partition_count
        self._event_bytes_max = event_bytes_max
        self._future_tolerance_ms = future_tolerance_ms
        self._short_texts: dict[str, int] = {"": 0}
        # Where their number is a power of two that fits a byte, the hash's last byte tells.
        fits = partition_count in {1 << bits for bits in range(9)}
        self._last_byte_mask = partition_count - 1 if fits else None
        self._compiled = (
            _compiled.EventLoop(_PLAIN_CODES, OCCURRED_AT_MS_MIN, partition_count)
            if _compiled
            else None
        )

    def read_append(self, request: bytes, now_ms: int) -> Batch:
        """The batch of an AppendEvents call. Raises CallError."""
        if batch := self._read_compiled(request, _APPEND_EVENTS, now_ms):
            return batch
        wires = parsed(AppendSlices, request).events
        events: Sequence[ScanEvent | None]
        try:
            events = AppendEventsRequest.FromString(request).events
        except DecodeError:
            events = [_event_or_none(wire) for wire in wires]
        return self._read("", events, wires, now_ms)

    def read_stream(self, request: bytes, now_ms: int) -> Batch:
        """The batch of a StreamEvents message. Raises CallError."""
        if batch := self._read_compiled(request, _STREAM_EVENTS, now_ms):
            return batch
        slices = parsed(StreamSlices, request)
        events: Sequence[ScanEvent | None]
        try:
            read = StreamEventsRequest.FromString(request)
            events, batch_id = read.events, read.batch_id
        except DecodeError:
            events = [_event_or_none(wire) for wire in slices.events]
            batch_id = _batch_id(slices.batch_id)
        if len(batch_id) > BATCH_ID_LENGTH_MAX:
            message = f"has {len(batch_id)} characters, at most {BATCH_ID_LENGTH_MAX}"
            raise invalid("batch_id", message, limit=BATCH_ID_LENGTH_MAX)
        return self._read(batch_id, events, slices.events, now_ms)

    def _read_compiled(self, request: bytes, events_field: int, now_ms: int) -> Batch | None:
        """The batch, if the compiled loop is there and knows its shape."""
        if self._compiled is None:
            return None
        rejections: list[tuple[int, Fault]] = []

        def read_closely(index: int, wire: bytes, latest_ms: int) -> ScanTuple | None:
            event = _event_or_none(wire)
            read = self._read_closely(index, event, wire, latest_ms) if event else _UNREADABLE
            if isinstance(read, Fault):
                rejections.append((index, read))
                return None
            return read

        latest_ms = now_ms + self._future_tolerance_ms
        read = self._compiled.read(request, events_field, latest_ms, read_closely)
        if read is None:
            return None
        batch_id, scans, count = read
        _check_count(count)
        return Batch(batch_id, scans, rejections)

    def _read(
        self,
        batch_id: str,
        events: Sequence[ScanEvent | None],
        wires: Sequence[bytes],
        now_ms: int,
    ) -> Batch:
        _check_count(len(wires))
        latest_ms = now_ms + self._future_tolerance_ms
        partition_count, texts = self._partition_count, self._short_texts
        last_byte_mask = self._last_byte_mask
        batch = Batch(batch_id, [[] for _ in range(partition_count)], [])
        for index, (event, wire) in enumerate(zip(events, wires, strict=True)):
            if event is None:
                batch.rejections.append((index, _UNREADABLE))
                continue
            event_id, number = event.event_id, event.waybill_number
            code: int = event.code
            occurred_at_ms, facility = event.occurred_at_ms, event.facility_code
            try:
                length = (
                    _FIXED_LENGTH + len(event_id) + len(number) + texts[facility]
                    + texts[event.device_id] + texts[event.operator_id]
                    + texts[event.next_facility_code]
                )  # fmt: skip
            except KeyError:
                length = 0
            if (
                length == len(wire)
                and code in _PLAIN_CODES
                and OCCURRED_AT_MS_MIN <= occurred_at_ms <= latest_ms
                and 0 < len(event_id) <= EVENT_ID_LENGTH_MAX
                and event_id.isascii()
                and event_id.isprintable()
                and _IS_PLAIN_WAYBILL(number)
            ):
                encoded = number.encode()
                key = xxh3_64_digest(encoded) + encoded  # status_key, without the call
                scan = (index, key, event_id, code, code, occurred_at_ms, facility, 0, wire)
            else:
                read = self._read_closely(index, event, wire, latest_ms)
                if isinstance(read, Fault):
                    batch.rejections.append((index, read))
                    continue
                scan = read
                key = scan[1]
            if last_byte_mask is not None:  # partition_of, at a tenth of its time
                batch.scans[key[HASH_LENGTH - 1] & last_byte_mask].append(scan)
            else:
                batch.scans[partition_of(key, partition_count)].append(scan)
        return batch

    def _read_closely(
        self, index: int, event: ScanEvent, wire: bytes, latest_ms: int
    ) -> ScanTuple | Fault:
        """The long way: any event, or what is wrong with it."""
        if len(wire) > self._event_bytes_max:
            message = f"the event has {len(wire)} bytes, at most {self._event_bytes_max}"
            return Fault(Rejection.FIELD_TOO_LONG, "event", message)
        if fault := fault_in(event, latest_ms):
            return fault
        if not can_be_answered(wire):
            return _TOO_DEEP
        number = normal_waybill_number(event.waybill_number)
        assert number is not None  # or fault_in had said so
        if number != event.waybill_number:
            # The last value of a field counts.
            wire += _WAYBILL_TAG + bytes((len(number),)) + number.encode()
        self._learn(event)
        code, reason = int(event.code), int(event.reason)
        return (index, status_key(number), event.event_id, code, step_of(code, reason),
                event.occurred_at_ms, event.facility_code, clears_of(event), wire)  # fmt: skip

    def _learn(self, event: ScanEvent) -> None:
        """Remembers the event's short texts, which are valid."""
        if len(self._short_texts) > _SHORT_TEXTS_MAX:
            self._short_texts = {"": 0}
            if self._compiled:
                self._compiled.texts.clear()
        fields = (event.facility_code, event.next_facility_code, event.device_id, event.operator_id)
        for text in fields:
            encoded = text.encode()
            if text and len(encoded) <= _ONE_BYTE_LENGTH_MAX:
                self._short_texts[text] = 2 + len(encoded)
                if self._compiled and not text.isascii():
                    self._compiled.texts.add(encoded)


def _batch_id(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        # It could not be handed back as it came.
        raise invalid("batch_id", "is not UTF-8") from None


def _check_count(events: int) -> None:
    if not 1 <= events <= BATCH_EVENTS_MAX:
        message = f"a batch has 1-{BATCH_EVENTS_MAX} events, not {events}"
        raise invalid("events", message, limit=BATCH_EVENTS_MAX)


_UNREADABLE = Fault(Rejection.INVALID_FIELD, "event", "cannot be parsed as a ScanEvent")
_TOO_DEEP = Fault(Rejection.INVALID_FIELD, "event", "holds fields that are nested too deep")


def _event_or_none(wire: bytes) -> ScanEvent | None:
    try:
        return ScanEvent.FromString(wire)
    except DecodeError:
        return None
