"""Scan events in every encoding that protobuf allows, and in some that it does not.

Made byte by byte: fields in any order, twice, unknown, of another wire type, with overlong varints,
said aloud though empty. What a message means is left to protobuf.
"""

from random import Random

from trackd.domain.vocabulary import EventCode
from trackd.v1.event_pb2 import ScanEvent

NOW_MS = 1_700_000_000_000
VARINT, FIXED64, DELIMITED, START_GROUP, END_GROUP, FIXED32 = range(6)

# By name: what is mostly right and sometimes not.
WAYBILLS = [
    "SF1234567890",
    "SF0002",
    "sf0002",
    " SF0002 ",
    "SF",
    "SF-0003",
    "é0004",
    "A" * 40,
    "A" * 41,
]
IDS = ["gun-1:1", "gun-1:2", "x" * 64, "x" * 65, "é", "a b", "a\n", ""]
TEXTS = [
    "HUB1",
    "HUB2",
    "上海",
    "x" * 32,
    "x" * 33,
    "\N{CJK UNIFIED IDEOGRAPH-20000}" * 32,
    "a\tb",
    "",
]
CODES = [*map(int, EventCode), *([int(EventCode.SORTED)] * 20), 0, 7, 100]
TIMES = [NOW_MS, NOW_MS - 5, NOW_MS - 5, NOW_MS + 600_000, NOW_MS + 600_001, 0, 946_684_800_000]


def varint(value: int, padding: int = 0) -> bytes:
    """A varint, with so many more bytes than it needs."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(padding):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def field(number: int, wire_type: int, data: bytes, padding: int = 0) -> bytes:
    """A field: tag, length if it is delimited, data."""
    tag = varint(number << 3 | wire_type, padding)
    return tag + (varint(len(data), padding) if wire_type == DELIMITED else b"") + data


def group(number: int, depth: int) -> bytes:
    """Groups in one another, with nothing in them: old protobuf, which every reader skips."""
    return varint(number << 3 | START_GROUP) * depth + varint(number << 3 | END_GROUP) * depth


def text(number: int, value: str, padding: int = 0) -> bytes:
    """A field of text."""
    return field(number, DELIMITED, value.encode(), padding)


class Encoder:
    """Makes events at random; how odd they are is up to it."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def plain(self) -> ScanEvent:
        """An event of the eight fields that a scanner always sends, all of them valid."""
        rng = self._rng
        return ScanEvent(
            event_id=rng.choice(IDS[:3]),
            waybill_number=rng.choice(WAYBILLS[:2]),
            code=rng.choice([30, 31, 32, 50]),  # type: ignore[arg-type]
            occurred_at_ms=rng.choice(TIMES[:3]),
            facility_code=rng.choice(TEXTS[:4]),
            next_facility_code=rng.choice(["", *TEXTS[:4]]),
            device_id=rng.choice(["", *TEXTS[:4]]),
            operator_id=rng.choice(["", *TEXTS[:4]]),
        )

    def odd(self) -> bytes:
        """An event of any fields in any encoding; now and then no event at all."""
        rng = self._rng
        fields = [self._likely_fields(), self._unlikely_fields()]
        parts = [part for some in fields for part in some]
        if rng.random() < 0.2:
            rng.shuffle(parts)
        if rng.random() < 0.1:
            parts.append(rng.choice(parts))
        data = b"".join(parts)
        if rng.random() < 0.03:
            data = data[: rng.randrange(len(data) + 1)]
        if rng.random() < 0.03:
            damaged = bytearray(data or b"\x00")
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            data = bytes(damaged)
        return data

    def _padding(self) -> int:
        return self._rng.choice([1, 2, 4]) if self._rng.random() < 0.02 else 0

    def _mostly(self, values: list[str], right: int) -> str:
        return self._rng.choice(values[:right] if self._rng.random() < 0.9 else values)

    def _likely_fields(self) -> list[bytes]:
        rng = self._rng
        parts = [
            text(1, self._mostly(IDS, 3), self._padding()),
            text(2, self._mostly(WAYBILLS, 4), self._padding()),
            field(3, VARINT, varint(rng.choice(CODES), self._padding())),
            field(4, VARINT, varint(rng.choice(TIMES), self._padding())),
        ]
        parts += [
            text(number, self._mostly(TEXTS, 4), self._padding())
            for number in (5, 6, 7, 8)
            if rng.random() < 0.6
        ]
        if rng.random() < 0.05:
            del parts[rng.randrange(len(parts))]
        return parts

    def _unlikely_fields(self) -> list[bytes]:
        rng = self._rng
        choices = [
            field(9, VARINT, varint(rng.choice([0, 1, 6, 7, 20, 21]))),
            text(10, rng.choice(["", "wet", "x" * 500, "x" * 501, "a\nb"])),
            field(11, DELIMITED, field(1, FIXED64, rng.randbytes(8))),
            field(13, DELIMITED, field(1, VARINT, varint(rng.randrange(8)))),
            field(
                16, DELIMITED, text(1, "voids") + text(2, rng.choice(["gun-1:9", "gun-1:1", ""]))
            ),
            field(16, DELIMITED, text(1, "clears") + text(2, rng.choice(["HELD", "GONE", ""]))),
            field(17, VARINT, varint(rng.randrange(1 << 42))),
            # Not of this version, or not of this type.
            text(18, "from the future"),
            field(500, VARINT, varint(7)),
            field(1, VARINT, varint(7)),
            field(2, FIXED32, b"SF00"),
            field(3, DELIMITED, varint(31)),
            field(5, DELIMITED, b"\xff\xfe"),
            field(10, DELIMITED, b"\xc3"),
            group(19, 1),
            # Only just, or where nothing is around it.
            group(19, 70),
            group(19, 99),
            field(11, DELIMITED, group(19, 98)),
            # There is no field 0.
            field(0, DELIMITED, b""),
            field(0, VARINT, b"\x00"),
        ]
        return [part for part in choices if rng.random() < 0.04]
