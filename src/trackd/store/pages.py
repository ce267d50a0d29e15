"""A page of rows: a part of a scan, bounded in rows and in bytes.

`_paging.pyx` takes one from an iterator of RocksDB, compiled: a timeline is fifteen rows that lie
anywhere in memory, so what is done between them is best done with little code.
"""

import heapq
from collections.abc import Iterable, Iterator
from operator import itemgetter

Row = tuple[bytes, bytes]
# The values of the rows, in order, and the key of the last of them if there are more.
Page = tuple[list[bytes], bytes | None]


def page_of(rows: Iterable[Row], *, rows_max: int, bytes_max: int) -> Page:
    """The first rows_max rows, or those before the one whose value exceeds bytes_max in all.

    At least one row, if there is any.
    """
    values: list[bytes] = []
    size = 0
    last_key = b""
    for key, value in rows:
        size += len(value)
        if values and (len(values) == rows_max or size > bytes_max):
            return values, last_key
        values.append(value)
        last_key = key
    return values, None


def merged(rows: Iterable[Row], beside: Iterable[Row]) -> Iterator[Row]:
    """Both, in order of their keys, in which each of them is; of a key in both the first's row."""
    before = None
    for row in heapq.merge(rows, beside, key=itemgetter(0)):
        if row[0] != before:
            yield row
        before = row[0]
