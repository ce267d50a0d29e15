"""The whole key space of a partition. No other file builds or takes apart a key.

| table  | key                                                                  | value                                |
| ------ | -------------------------------------------------------------------- | ------------------------------------ |
| events | h8 · waybill · 00 · occurred_at_ms u64be · rank u8 · id8             | the event's wire bytes, server fields appended |
| status | h8 · waybill                                                         | records.StatusRow                    |
| log    | position u64be of the block's last event                             | records: one commit's events in order |
| meta   | a name                                                               | see below                            |

h8 is the xxh3 of the waybill number: it makes a fixed-length prefix, which lets RocksDB use hashed
memtables and prefix filters whatever the length of the number, and it is the hash that picks the
partition. A waybill number never holds a 00, so the events of one waybill are exactly the keys that
begin with `events_prefix`. The last 17 bytes of an event's key are its *order*: event time, rank
(so that events of one millisecond stand in the order in which they are folded), hash of the event
id.
"""

from enum import Enum
from struct import Struct

from xxhash import xxh3_64_digest, xxh3_64_intdigest

from trackd.domain.fold import rank_of


class Table(Enum):
    """A column family."""

    EVENTS = "events"
    STATUS = "status"
    LOG = "log"
    META = "meta"


HASH_LENGTH = 8
ORDER_LENGTH = 17

# meta: the position up to which every status on disk is current; u64be.
META_STATUS_CHECKPOINT = b"status_checkpoint"
# meta: which data set and partition this is, so that a directory cannot be taken for another.
META_IDENTITY = b"identity"

_ORDER = Struct(">QB8s")
pack_order = _ORDER.pack
_POSITION = Struct(">Q")


def partition_of(waybill_number: str, partition_count: int) -> int:
    """The partition that owns a waybill. Part of the contract: xxh3_64(upper-cased number) mod count."""
    return xxh3_64_intdigest(waybill_number.encode()) % partition_count


def status_key(waybill_number: str) -> bytes:
    """The key of a waybill's status."""
    number = waybill_number.encode()
    return xxh3_64_digest(number) + number


def events_prefix(waybill_number: str) -> bytes:
    """What the keys of exactly this waybill's events begin with."""
    number = waybill_number.encode()
    return xxh3_64_digest(number) + number + b"\0"


def waybill_of_status_key(key: bytes) -> str:
    """The waybill number in a key of the status table."""
    return key[HASH_LENGTH:].decode()


def split_event_key(key: bytes) -> tuple[bytes, bytes]:
    """The prefix (h8 · waybill · 00) and the order of an event's key."""
    return key[:-ORDER_LENGTH], key[-ORDER_LENGTH:]


def event_order(occurred_at_ms: int, code: int, event_id: str) -> bytes:
    """Where an event stands in its waybill's timeline; the end of its key."""
    return pack_order(occurred_at_ms, rank_of(code), xxh3_64_digest(event_id.encode()))


def position_key(position: int) -> bytes:
    """A position as a key of the log, and as a value of meta."""
    return _POSITION.pack(position)


def position_of(key: bytes) -> int:
    """The position in a key of the log or a value of meta."""
    position: int = _POSITION.unpack(key)[0]
    return position
