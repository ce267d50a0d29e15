"""Bytes as a broken or hostile caller sends them: valid requests, mutated.

A function of the random source alone. Knows no server and no meaning.
"""

import random

from tests.harness.scans import ScanSource, waybills_of
from trackd.v1.ingest_pb2 import AppendEventsRequest, StreamEventsRequest
from trackd.v1.tracking_pb2 import BatchGetStatusRequest, GetStatusRequest, GetTimelineRequest

INGEST = "/trackd.v1.IngestService"
TRACKING = "/trackd.v1.TrackingService"
STREAM = f"{INGEST}/StreamEvents"
_INSERTED_MAX = 32


def valid_requests(rng: random.Random, name: str) -> list[tuple[str, bytes]]:
    """Some requests of every unary method, as (method, bytes), and of STREAM."""
    waybills = waybills_of(name, 20)
    source = ScanSource(name, waybills, rng, late_share=0.3)
    requests = []
    for size in (1, 3, 20):
        append = AppendEventsRequest(events=source.batch(size))
        requests.append((f"{INGEST}/AppendEvents", append.SerializeToString()))
        stream = StreamEventsRequest(batch_id=f"batch-{size}", events=source.batch(size))
        requests.append((STREAM, stream.SerializeToString()))
    status = GetStatusRequest(waybill_number=waybills[0], min_position="0011223344556677/0.1")
    statuses = BatchGetStatusRequest(waybill_numbers=waybills)
    timeline = GetTimelineRequest(waybill_number=waybills[0], page_size=7, order=2, page_token="AA")  # type: ignore[arg-type] # a number of the enum
    requests.append((f"{TRACKING}/GetStatus", status.SerializeToString()))
    requests.append((f"{TRACKING}/BatchGetStatus", statuses.SerializeToString()))
    requests.append((f"{TRACKING}/GetTimeline", timeline.SerializeToString()))
    return requests


def mutated(frame: bytes, rng: random.Random) -> bytes:
    """The frame with one to four things wrong with it."""
    data = bytearray(frame)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice((0x00, 0x7F, 0x80, 0xFF))
            case 2:
                del data[at : at + rng.randrange(1, 16)]
            case 3:
                data[at:at] = rng.randbytes(rng.randrange(1, _INSERTED_MAX))
            case 4:
                data += data[at : at + rng.randrange(1, 200)]
            case _:
                del data[at:]
    return bytes(data)


def nested(depth: int) -> bytes:
    """A scan whose unknown groups are nested as deep as that, within a batch of one."""
    # Groups of field 100: tags 0xa3 0x06 and 0xa4 0x06.
    event = b"\xa3\x06" * depth + b"\xa4\x06" * depth
    length = len(event)
    head = bytearray(b"\x0a")
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + event
