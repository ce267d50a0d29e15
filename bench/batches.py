"""Batches of scans as wire bytes, made at a cost that does not disturb what is measured.

Every record of a batch has the same width, so a field of all its events is a column: a slice with
a step, filled by one assignment in C. A batch of 200 new events costs about 10 µs, which is why a
minute of load needs no file made beforehand. This file may not know sockets, gRPC or a clock.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.ingest_pb2 import StreamEventsRequest

# One record: the tag and length of an entry of `events`, and the event, a scan with what a scanner
# always sends. Columns are offsets into it.
_EVENT_ID_WIDTH, _WAYBILL_WIDTH, _FACILITY_WIDTH, _DEVICE_WIDTH, _TIME_WIDTH = 16, 13, 7, 8, 6
_BATCH_ID_WIDTH = 10
_HEADER_WIDTH = 2 + _BATCH_ID_WIDTH
_EVENT_ID_AT = 4
_BATCH_NUMBER_AT = _EVENT_ID_AT + 5
_BATCH_NUMBER_WIDTH = 7
_WAYBILL_AT = _EVENT_ID_AT + _EVENT_ID_WIDTH + 2
_CODE_AT = _WAYBILL_AT + _WAYBILL_WIDTH + 1
_TIME_AT = _CODE_AT + 2
RECORD_WIDTH = _TIME_AT + _TIME_WIDTH + 2 + _FACILITY_WIDTH + 2 + _DEVICE_WIDTH
EVENT_BYTES = RECORD_WIDTH - 2
"""The wire bytes of one event."""

# What a network's scanners report, in percent. Ends of a life are rare here: waybills are drawn at
# random, and one that has ended would only collect unexpected scans.
CODE_PERCENT = {20: 5, 30: 31, 31: 26, 32: 26, 33: 4, 50: 4, 51: 1, 52: 1, 90: 1, 60: 1}

_TEMPLATES = 64
_FACILITIES, _DEVICES = 500, 5_000
_POOL_BYTES = 1 << 20
_HISTORY_BATCHES = 2_000
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Mix:
    """What is drawn for a batch.

    waybills: how many waybill numbers there are: one to ten times a power of ten.
    repeats: the part of events that were sent before, drawn from the last 2,000 batches.
    run: four characters that keep the event ids of two runs apart.
    """

    events_per_batch: int = 200
    waybills: int = 1_000_000
    repeats: float = 0.0
    seed: int = 1
    run: str = "0000"


def waybill_number(index: int) -> str:
    """The waybill number of an index below `Mix.waybills`."""
    return f"TD{index:0{_WAYBILL_WIDTH - 2}d}"


def run_name(number: int) -> str:
    """Four characters for `Mix.run`."""
    digits = []
    for _ in range(4):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


class BatchMaker:
    """Makes StreamEventsRequest messages, each event new but for the repeats asked for.

    `made` and `repeated` count events. Times given to `make` must not go back.
    """

    def __init__(self, mix: Mix) -> None:
        digits, head = _digits_of(mix.waybills)
        self._mix = mix
        self._random = random.Random(mix.seed)
        self.events_per_batch = self._count = mix.events_per_batch
        self._columns = [
            slice(_HEADER_WIDTH + offset, None, RECORD_WIDTH) for offset in range(RECORD_WIDTH)
        ]
        self._constant = [bytes([value]) * self._count for value in range(256)]
        self._head_pool = self._pool([48 + digit for digit in range(head)])
        self._digit_pool = self._pool(list(b"0123456789"))
        self._code_pool = self._pool([code for code, n in CODE_PERCENT.items() for _ in range(n)])
        first = _WAYBILL_AT + _WAYBILL_WIDTH - digits
        self._head_column = self._columns[first - 1]
        self._digit_columns = self._columns[first : first + digits]
        self._templates = [self._template() for _ in range(_TEMPLATES)]
        self._shares: list[tuple[int, list[bytes]]] = []
        self._history: list[bytes] = []
        self._repeats_due = 0.0
        self.batches = 0
        self.made = 0
        self.repeated = 0

    def share_out(self, share_of: Callable[[str], int], *, shares: int) -> None:
        """From now on a batch is made for one of so many shares of the waybills.

        share_of: the share of a waybill number, from 0. Takes 1 µs for each waybill.
        """
        pools: list[list[str]] = [[] for _ in range(shares)]
        for index in range(self._mix.waybills):
            number = waybill_number(index)
            pools[share_of(number)].append(number)
        self._shares = []
        for pool in pools:
            if not pool:
                raise ValueError(f"{self._mix.waybills} waybills are too few for {shares} shares")
            self._random.shuffle(pool)
            # Any slice of a batch's length is one: the end goes on with the beginning.
            numbers = pool + [pool[place % len(pool)] for place in range(self._count)]
            text = "".join(numbers).encode()
            columns = [text[offset::_WAYBILL_WIDTH] for offset in range(_WAYBILL_WIDTH)]
            self._shares.append((len(pool), columns))

    def make(self, now_ms: int, share: int = 0) -> bytes:
        """The next batch, on waybills drawn at random, of one share where they are shared out."""
        buffer = self._next(now_ms)
        if self._shares:
            self._put_waybills(buffer, *self._shares[share])
        else:
            self._draw_waybills(buffer)
        if self._mix.repeats:
            self._put_repeats(buffer)
        batch = bytes(buffer)
        if self._mix.repeats:
            self._remember(batch)
        return batch

    def _put_waybills(self, buffer: bytearray, waybills: int, columns: Sequence[bytes]) -> None:
        at = int(self._random.random() * waybills)
        for offset, column in enumerate(columns):
            buffer[self._columns[_WAYBILL_AT + offset]] = column[at : at + self._count]

    def _draw_waybills(self, buffer: bytearray) -> None:
        last = _POOL_BYTES - self._count
        draw = self._random.random
        for column in self._digit_columns:
            at = int(draw() * last)
            buffer[column] = self._digit_pool[at : at + self._count]
        at = int(draw() * last)
        buffer[self._head_column] = self._head_pool[at : at + self._count]

    def make_for(self, waybills: Sequence[int], now_ms: int) -> bytes:
        """The next batch, on these waybills (as many as a batch has events)."""
        assert len(waybills) == self._count
        buffer = self._next(now_ms)
        numbers = "".join(map(waybill_number, waybills)).encode()
        for offset in range(_WAYBILL_WIDTH):
            buffer[self._columns[_WAYBILL_AT + offset]] = numbers[offset::_WAYBILL_WIDTH]
        return bytes(buffer)

    def _next(self, now_ms: int) -> bytearray:
        """The buffer of the next batch: everything but the waybills is in it."""
        buffer = self._templates[self.batches % _TEMPLATES]
        number = b"%010d" % self.batches
        buffer[2:_HEADER_WIDTH] = number
        self._put(buffer, _BATCH_NUMBER_AT, number[-_BATCH_NUMBER_WIDTH:])
        self._put(buffer, _TIME_AT, _varint(now_ms))
        at = int(self._random.random() * (_POOL_BYTES - self._count))
        buffer[self._columns[_CODE_AT]] = self._code_pool[at : at + self._count]
        self.batches += 1
        self.made += self._count
        return buffer

    def _put(self, buffer: bytearray, at: int, value: bytes) -> None:
        """The same bytes into every record."""
        for offset, byte in enumerate(value, at):
            buffer[self._columns[offset]] = self._constant[byte]

    def _put_repeats(self, buffer: bytearray) -> None:
        """Puts events of earlier batches in the place of new ones."""
        self._repeats_due += self._count * self._mix.repeats
        if not self._history:
            return
        count = min(int(self._repeats_due), self._count)
        self._repeats_due -= count
        draw = self._random.random
        for place in range(count):
            batch = self._history[int(draw() * len(self._history))]
            source = _HEADER_WIDTH + int(draw() * self._count) * RECORD_WIDTH
            target = _HEADER_WIDTH + place * self._count // count * RECORD_WIDTH
            buffer[target : target + RECORD_WIDTH] = batch[source : source + RECORD_WIDTH]
        self.repeated += count

    def _remember(self, batch: bytes) -> None:
        if len(self._history) < _HISTORY_BATCHES:
            self._history.append(batch)
        else:
            self._history[self.batches % _HISTORY_BATCHES] = batch

    def _pool(self, values: Sequence[int]) -> bytes:
        """Random bytes out of values, to be taken in slices."""
        table = bytes(values[byte * len(values) >> 8] for byte in range(256))
        return self._random.randbytes(_POOL_BYTES).translate(table)

    def _template(self) -> bytearray:
        """A batch whose variable columns hold nothing yet, written by protobuf itself."""
        pick = self._random.randrange
        request = StreamEventsRequest(batch_id="0" * _BATCH_ID_WIDTH)
        for index in range(self._count):
            request.events.append(
                ScanEvent(
                    event_id=f"{self._mix.run}-{'0' * _BATCH_NUMBER_WIDTH}-{index:03d}",
                    waybill_number=waybill_number(0),
                    code=30,  # type: ignore[arg-type]
                    occurred_at_ms=1_700_000_000_000,
                    facility_code=f"HUB{pick(_FACILITIES):04d}",
                    device_id=f"SC{pick(_DEVICES):06d}",
                )
            )
        wire = bytearray(request.SerializeToString())
        assert len(wire) == _HEADER_WIDTH + self._count * RECORD_WIDTH
        return wire


def _digits_of(waybills: int) -> tuple[int, int]:
    """A number of waybills as (digits drawn freely, values of the digit before them)."""
    digits = 0
    while waybills > 10 and waybills % 10 == 0:
        waybills //= 10
        digits += 1
    if not 1 <= waybills <= 10:
        raise ValueError("the number of waybills must be one to ten times a power of ten")
    return digits, waybills


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    assert len(out) == _TIME_WIDTH
    return bytes(out)
