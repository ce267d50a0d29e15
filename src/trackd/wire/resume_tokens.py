"""Resume tokens of watches: a position token that names every partition, and a place in a snapshot.

    token = position token of every partition · ["!" · partition "." key]     key = base64url

Callers hand it back unread.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Protocol

import grpc

from trackd.domain.validation import WAYBILL_NUMBER_LENGTH_MAX
from trackd.feed.watch import Place
from trackd.store.keys import HASH_LENGTH
from trackd.v1.feed_pb2 import (
    START_FROM_EARLIEST,
    START_FROM_NOW,
    START_FROM_SNAPSHOT,
    START_FROM_UNSPECIFIED,
    FeedStart,
)
from trackd.wire import positions
from trackd.wire.errors import CallError, invalid

FIELD = "start.resume_token"
_KEY_LENGTH_MAX = HASH_LENGTH + WAYBILL_NUMBER_LENGTH_MAX


class KeptLog(Protocol):
    """Which positions of a log can be read: of a feed, or what another worker says of its own."""

    @property
    def oldest_position(self) -> int: ...
    @property
    def newest_position(self) -> int: ...


def token(data_set_id: str, place: Place) -> str:
    """The token of a place."""
    text = positions.token(data_set_id, place.positions.items())
    if place.snapshot is None:
        return text
    number, key = place.snapshot
    return f"{text}!{number}.{base64.urlsafe_b64encode(key).decode()}"


def place_of(start: FeedStart, data_set_id: str, feeds: Sequence[tuple[int, KeptLog]]) -> Place:
    """The place where a watch starts. feeds: of every partition that is watched, with its number.

    Raises CallError: as `parse`, or INVALID_ARGUMENT for an origin that is none.
    """
    if start.WhichOneof("place") == "resume_token":
        return parse(start.resume_token, data_set_id, feeds)
    origin = getattr(start, "from")
    now = {number: feed.newest_position for number, feed in feeds}
    if origin in {START_FROM_UNSPECIFIED, START_FROM_NOW}:
        return Place(now)
    if origin == START_FROM_EARLIEST:
        return Place({number: feed.oldest_position - 1 for number, feed in feeds})
    if origin == START_FROM_SNAPSHOT:
        return Place(now, (feeds[0][0], b""))
    raise invalid("start.from", f"{origin} is not a StartFrom")


def parse(text: str, data_set_id: str, feeds: Sequence[tuple[int, KeptLog]]) -> Place:
    """The place of a token. feeds: of every partition that is watched, with its number.

    Raises CallError: INVALID_POSITION if it is no token of a watch, or from the future;
    POSITION_UNKNOWN if it is of other data; POSITION_EXPIRED if it is older than what is kept.
    """
    head, mark, tail = text.partition("!")
    given = positions.parse(head, data_set_id, FIELD)
    numbers = [number for number, _ in feeds]
    if sorted(given) != sorted(numbers) or head.count(",") != len(numbers) - 1:
        raise _no_token("does not name every partition once")
    snapshot = _snapshot_place(tail, numbers) if mark else None
    place = Place({number: given[number] for number in numbers}, snapshot)
    for number, feed in feeds:
        if given[number] > feed.newest_position:
            raise positions.future(FIELD)
    if any(given[number] + 1 < feed.oldest_position for number, feed in feeds):
        raise expired(data_set_id, place, feeds)
    return place


def expired(data_set_id: str, place: Place, feeds: Sequence[tuple[int, KeptLog]]) -> CallError:
    """What a reader is told that is at a place before what is kept."""
    oldest = {
        number: max(place.positions[number], feed.oldest_position - 1) for number, feed in feeds
    }
    return CallError(
        grpc.StatusCode.OUT_OF_RANGE,
        "POSITION_EXPIRED",
        f"{FIELD}: what follows it is not kept any more; going on at the oldest token misses it",
        {"oldest_resume_token": token(data_set_id, Place(oldest))},
        field=FIELD,
    )


def _snapshot_place(text: str, numbers: Sequence[int]) -> tuple[int, bytes]:
    number, dot, encoded = text.partition(".")
    try:
        key = base64.b64decode(encoded, altchars=b"-_", validate=True)
        place = int(number), key
    except (binascii.Error, ValueError):
        raise _no_token("is not a resume token of this server") from None
    if not dot or place[0] not in numbers or len(key) > _KEY_LENGTH_MAX:
        raise _no_token("is not a resume token of this server")
    return place


def _no_token(message: str) -> CallError:
    return invalid(FIELD, message, "INVALID_POSITION")
