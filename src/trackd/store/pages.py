"""A page of rows: a part of a scan, bounded in rows and in bytes.

`_paging.pyx` takes one from an engine's iterator, compiled: a row costs four calls of the iterator,
and as little as possible beside them.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Page(NamedTuple):
    """The values of the rows, in order. last_key: of the last of them, if there are more."""

    values: list[bytes]
    last_key: bytes | None


def page_of(rows: Iterable[tuple[bytes, bytes]], *, rows_max: int, bytes_max: int) -> Page:
    """The first rows_max rows, or those before the one whose value exceeds bytes_max in all.

    At least one row, if there is any.
    """
    values: list[bytes] = []
    size = 0
    last_key = b""
    for key, value in rows:
        size += len(value)
        if values and (len(values) == rows_max or size > bytes_max):
            return Page(values, last_key)
        values.append(value)
        last_key = key
    return Page(values, None)
