"""Lists that an answer may be too small for: a page of items, and where the next one begins.

Items stand in the order of their keys, which do not change, so a page begins after the key that
the page before ended with, whatever came and went meanwhile.
"""

import base64
import binascii
from collections.abc import Iterable

from trackd.feed.change import varint
from trackd.wire.errors import invalid

# What an answer holds beside its items: the token.
_RESERVE_BYTES = 4_096
# Both fields of such an answer: repeated items = 1, string next_page_token = 2.
_ITEM, _TOKEN = b"\x0a", b"\x12"


def page(
    items: Iterable[tuple[str, bytes]], *, page_size: int, page_token: str, bytes_max: int
) -> bytes:
    """The serialised answer. items: (key, serialised message), in the order of their keys.

    page_size: how many at most; 0 is as many as fit. bytes_max: of an answer. Raises CallError.
    """
    if page_size < 0:
        raise invalid("page_size", f"must not be negative, and is {page_size}", "INVALID_FIELD")
    after = _key_in(page_token)
    parts: list[bytes] = []
    size, last, token = 0, "", ""
    for key, message in items:
        if key <= after:
            continue
        size += len(message) + len(varint(len(message))) + 1
        is_full = len(parts) == page_size if page_size else False
        if parts and (is_full or size > bytes_max - _RESERVE_BYTES):
            token = base64.urlsafe_b64encode(last.encode()).decode()
            break
        parts.append(_ITEM + varint(len(message)) + message)
        last = key
    if token:
        parts.append(_TOKEN + varint(len(token)) + token.encode())
    return b"".join(parts)


def _key_in(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        message = "is not a page token of this server"
        raise invalid("page_token", message, "INVALID_PAGE_TOKEN") from None
