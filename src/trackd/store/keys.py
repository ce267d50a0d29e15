"""The whole key space of a partition. No other file knows how a key is laid out.

What others do at most is join a status key and an order, which makes an event's key.

| table  | key                                      | value                                     |
| ------ | ---------------------------------------- | ----------------------------------------- |
| events | h8 · waybill · order                     | event's wire bytes, server's fields after |
| status | h8 · waybill                             | records.StatusRow                         |
| log    | position u64be of the block's last event | one commit's events in order, see records |
| meta   | a name                                   | see below                                 |
| subscriptions | id8 · kind u8 · position u64be    | what a subscription keeps in a partition  |
| documents     | kind · 00 · name                  | a document; only in partition 0           |

    order = 00 · occurred_at_ms u64be · rank u8 · id8

h8 is the xxh3 of the waybill number: it makes a fixed-length prefix, which lets RocksDB use prefix
filters whatever the length of the number, and it is the hash that picks the partition. A waybill
number never holds a 00, so the events of one waybill are exactly the keys that begin with its
status key and a 00. The *order* is event time, rank (so that events of one millisecond stand in the
order in which they are folded), and the hash of the event id.
"""

from enum import Enum, IntEnum
from struct import Struct

from xxhash import xxh3_64_digest

from trackd.domain.fold import rank_of


class Table(Enum):
    """A column family."""

    EVENTS = "events"
    STATUS = "status"
    LOG = "log"
    META = "meta"
    SUBSCRIPTIONS = "subscriptions"
    DOCUMENTS = "documents"


HASH_LENGTH = 8
ORDER_LENGTH = 18
SUBSCRIPTION_ID_LENGTH = 8
ID_LENGTH = 8  # of an order: the hash of the event id, its end

# meta: the position up to which every status on disk is current; u64be.
META_STATUS_CHECKPOINT = b"status_checkpoint"
# meta: how many waybills have an event; u64be, absent for none.
META_WAYBILLS = b"waybills"
# meta: the first position that the log still has; u64be, absent while nothing was trimmed.
META_LOG_FLOOR = b"log_floor"
# meta: which data set and partition this is, so that a directory cannot be taken for another.
META_IDENTITY = b"identity"

_ORDER = Struct(">xQB8s")
pack_order = _ORDER.pack
_POSITION = Struct(">Q")


def partition_of(key: bytes, partition_count: int) -> int:
    """The partition that owns the waybill with this status key.

    Part of the contract: xxh3_64(upper-cased number) mod partition count.
    """
    return int.from_bytes(key[:HASH_LENGTH], "big") % partition_count


def status_key(waybill_number: str) -> bytes:
    """The key of a waybill's status."""
    number = waybill_number.encode()
    return xxh3_64_digest(number) + number


def events_prefix(key: bytes) -> bytes:
    """What the keys of exactly those events begin with whose waybill has this status key."""
    return key + b"\0"


def waybill_of_status_key(key: bytes) -> str:
    """The waybill number in a key of the status table."""
    return key[HASH_LENGTH:].decode()


def split_event_key(key: bytes) -> tuple[bytes, bytes]:
    """The status key of the event's waybill, and the order, of which an event's key is made."""
    return key[:-ORDER_LENGTH], key[-ORDER_LENGTH:]


def event_order(occurred_at_ms: int, code: int, event_id: str) -> bytes:
    """Where an event stands in its waybill's timeline; the end of its key."""
    return pack_order(occurred_at_ms, rank_of(code), xxh3_64_digest(event_id.encode()))


class SubscriptionRow(IntEnum):
    """The kinds of rows of a subscription: its cursor, and changes with rows of their own."""

    CURSOR = 0
    KEPT = 1
    PARKED = 2


def subscription_key(subscription_id: bytes, kind: SubscriptionRow, position: int = 0) -> bytes:
    """The key of a subscription's row. subscription_id: SUBSCRIPTION_ID_LENGTH bytes."""
    return subscription_id + bytes((kind,)) + _POSITION.pack(position)


def subscription_prefix(subscription_id: bytes, kind: SubscriptionRow) -> bytes:
    """What the keys of a subscription's rows of a kind begin with."""
    return subscription_id + bytes((kind,))


def split_subscription_key(key: bytes) -> tuple[bytes, int, int]:
    """The subscription's id, the kind of row (a SubscriptionRow) and the position in a key."""
    position = position_of(key[SUBSCRIPTION_ID_LENGTH + 1 :])
    return key[:SUBSCRIPTION_ID_LENGTH], key[SUBSCRIPTION_ID_LENGTH], position


def document_key(kind: str, name: str) -> bytes:
    """The key of a document. A kind holds no 00."""
    return kind.encode() + b"\0" + name.encode()


def document_of(key: bytes) -> tuple[str, str]:
    """The kind and the name in a key of the documents table."""
    kind, _, name = key.decode().partition("\0")
    return kind, name


def position_key(position: int) -> bytes:
    """A position as a key of the log, and as a value of meta."""
    return _POSITION.pack(position)


def position_of(key: bytes) -> int:
    """The position in a key of the log or a value of meta."""
    position: int = _POSITION.unpack(key)[0]
    return position
