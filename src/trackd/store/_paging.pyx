# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A page of rows from an iterator of RocksDB, compiled; see pages.py, which says what a page is."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp


def page_of(
    object iterator, bytes start, bytes prefix, Py_ssize_t rows_max, Py_ssize_t bytes_max
):
    """The page of the rows from start on whose key begins with prefix.

    Raises what the iterator does where it did not end well.
    """
    cdef list values = []
    cdef Py_ssize_t size = 0, length = PyBytes_GET_SIZE(prefix)
    cdef bytes key, value, last_key = None
    iterator.seek(start)
    while iterator.valid():
        key = iterator.key()
        if (
            PyBytes_GET_SIZE(key) < length
            or memcmp(PyBytes_AS_STRING(key), PyBytes_AS_STRING(prefix), length)
        ):
            break
        value = iterator.value()
        size += PyBytes_GET_SIZE(value)
        if values and (len(values) == rows_max or size > bytes_max):
            return values, last_key
        values.append(value)
        last_key = key
        iterator.next()
    iterator.status()
    return values, None
