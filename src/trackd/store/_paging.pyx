# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A page of rows from an iterator of RocksDB, compiled; see pages.py, which says what a page is."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp


def page_of(object iterator, bytes prefix, Py_ssize_t rows_max, Py_ssize_t bytes_max):
    """The values of rows whose key begins with prefix, and the last key if there are more.

    The iterator stands at the first row. Whether it ended well is for the caller to ask.
    """
    cdef list values = []
    cdef Py_ssize_t size = 0, length = PyBytes_GET_SIZE(prefix)
    cdef bytes key, value, last_key = None
    is_valid, key_of, value_of, move = (
        iterator.valid, iterator.key, iterator.value, iterator.next
    )
    while is_valid():
        key = key_of()
        if (
            PyBytes_GET_SIZE(key) < length
            or memcmp(PyBytes_AS_STRING(key), PyBytes_AS_STRING(prefix), length)
        ):
            break
        value = value_of()
        size += PyBytes_GET_SIZE(value)
        if values and (len(values) == rows_max or size > bytes_max):
            return values, last_key
        values.append(value)
        last_key = key
        move()
    return values, None
