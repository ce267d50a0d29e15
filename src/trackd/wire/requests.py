"""Requests in: from bytes to a message, for every method that is not hot enough to read by hand."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from trackd.wire.errors import malformed

_Message = TypeVar("_Message", bound=Message)


def parsed(kind: type[_Message], request: bytes) -> _Message:
    """The message in a request. Raises CallError if the bytes are none."""
    try:
        return kind.FromString(request)
    except DecodeError:
        raise malformed() from None
