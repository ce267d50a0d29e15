"""Positions as callers see them: opaque strings, bound to one data set.

    token = data set id · "/" · part{1,}, comma separated        part = partition "." position

Inside it says which positions of which partitions an answer is as fresh as. Callers hand it back
unread.
"""

import re
from collections.abc import Iterable

import grpc

from trackd.store.data_directory import PARTITIONS_MAX
from trackd.wire.errors import CallError, invalid

# As far as an int64 of protobuf counts. No partition ever gets there.
_POSITION_MAX = (1 << 63) - 1
# int() by itself would take signs, white space, underscores and the digits of every script.
_PARTS = re.compile(r"[0-9]+\.[0-9]+(,[0-9]+\.[0-9]+)*").fullmatch


def token(data_set_id: str, parts: Iterable[tuple[int, int]]) -> str:
    """The token of (partition, position) pairs."""
    return f"{data_set_id}/" + ",".join(f"{partition}.{position}" for partition, position in parts)


def parse(text: str, data_set_id: str, field: str = "min_position") -> dict[int, int]:
    """The positions in a token, by partition. Raises CallError if it is none, or of other data."""
    prefix, slash, rest = text.partition("/")
    try:
        if not slash or not _PARTS(rest):
            raise ValueError
        parts = rest.split(",", PARTITIONS_MAX)
        pairs = [part.split(".") for part in parts]
        positions = {int(partition): int(position) for partition, position in pairs}
        if len(parts) > PARTITIONS_MAX:
            raise ValueError
    except ValueError:
        raise invalid(field, "is not a position of this server", "INVALID_POSITION") from None
    if prefix != data_set_id:
        raise CallError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "POSITION_UNKNOWN",
            f"{field}: belongs to another data set",
            {"data_set_id": data_set_id},
        )
    if max(positions.values()) > _POSITION_MAX:
        raise future(field)
    return positions


def future(field: str = "min_position") -> CallError:
    """What a caller is told whose position has not been reached yet."""
    return invalid(field, "is from the future: the server never gave it", "INVALID_POSITION")
