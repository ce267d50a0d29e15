# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A page of rows from an iterator of RocksDB, compiled; see pages.py, which says what a page is."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp


cdef inline int _compare(bytes one, bytes other) noexcept:
    cdef Py_ssize_t length = PyBytes_GET_SIZE(one), other_length = PyBytes_GET_SIZE(other)
    cdef int compared = memcmp(
        PyBytes_AS_STRING(one), PyBytes_AS_STRING(other), min(length, other_length)
    )
    return compared if compared else (length > other_length) - (length < other_length)


def page_of(
    object iterator, bytes start, bytes prefix, list beside, Py_ssize_t rows_max,
    Py_ssize_t bytes_max,
):
    """The page of the rows from start on whose key begins with prefix, and of those beside them.

    beside: rows in order of their keys; one that the iterator has too counts once. Raises what the
    iterator does where it did not end well.
    """
    cdef list values = []
    cdef Py_ssize_t size = 0, length = PyBytes_GET_SIZE(prefix), next_beside = 0
    cdef Py_ssize_t beside_count = len(beside)
    cdef bytes key = None, value, last_key = None
    cdef int compared
    cdef bint is_fresh = True  # whether the iterator is to be asked for its key
    iterator.seek(start)
    while True:
        if is_fresh:
            is_fresh = False
            key = iterator.key() if iterator.valid() else None
            if key is None:
                iterator.status()
            elif (
                PyBytes_GET_SIZE(key) < length
                or memcmp(PyBytes_AS_STRING(key), PyBytes_AS_STRING(prefix), length)
            ):
                key = None
        if next_beside < beside_count:
            compared = -1 if key is None else _compare(<bytes>(<tuple>beside[next_beside])[0], key)
        elif key is None:
            return values, None
        else:
            compared = 1
        value = iterator.value() if compared >= 0 else <bytes>(<tuple>beside[next_beside])[1]
        size += PyBytes_GET_SIZE(value)
        if values and (len(values) == rows_max or size > bytes_max):
            return values, last_key
        values.append(value)
        last_key = key if compared >= 0 else <bytes>(<tuple>beside[next_beside])[0]
        if compared <= 0:
            next_beside += 1
        if compared >= 0:
            iterator.next()
            is_fresh = True
