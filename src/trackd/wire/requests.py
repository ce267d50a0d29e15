"""Requests in: from bytes to a message, for every method that is not hot enough to read by hand,
and what every method that takes a filter says of one that cannot be used.
"""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from trackd.feed.filters import UnusableFilter
from trackd.wire.errors import CallError, invalid, malformed

_Message = TypeVar("_Message", bound=Message)


def parsed(kind: type[_Message], request: bytes) -> _Message:
    """The message in a request. Raises CallError if the bytes are none."""
    try:
        return kind.FromString(request)
    except DecodeError:
        raise malformed() from None


def refused_filter(field: str, error: UnusableFilter) -> CallError:
    """What is wrong with the filter in a request, whose field it is."""
    is_number = error.field == "waybill_numbers" and error.limit is None
    reason = "INVALID_WAYBILL_NUMBER" if is_number else "INVALID_FIELD"
    return invalid(f"{field}.{error.field}", str(error), reason, limit=error.limit)
