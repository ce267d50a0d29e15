# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The loops of wire/answers.py, compiled: a ShipmentStatus from a status row, rows joined to an answer."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from trackd.store._bytes cimport (
    AT_COUNT,
    AT_FIRST_AT,
    AT_FLAGS,
    AT_LAST_LENGTH,
    AT_MILESTONE,
    AT_PLACE_LENGTH,
    AT_POSITION,
    AT_UPDATED_AT,
    DELIMITED,
    DIGITS_MAX,
    HEAD,
    Bytes,
    load16,
    load32,
    load64,
    write_digits,
    write_mask,
    write_number,
    write_text,
    write_varint,
)

from trackd.store.records import FORMAT_VERSION, STATUS_HEAD, UnreadableRecord, decode_status

cdef enum:
    # Fields of ShipmentStatus.
    WAYBILL_NUMBER = 1
    MILESTONE = 2
    FLAGS = 3
    LAST_EVENT = 4
    EVENT_COUNT = 5
    FIRST_EVENT_AT_MS = 6
    UPDATED_AT_MS = 7
    POSITION = 8
    # What everything but the texts and the last event takes at most.
    NUMBERS_MAX = 160
    # A tag and the length of a text.
    HEAD_MAX = 11

if HEAD != STATUS_HEAD.size:
    raise ImportError("the compiled answers are of another format: install trackd anew")

cdef int _FORMAT = FORMAT_VERSION


def encode_status(bytes prefix, bytes number, bytes row):
    """A ShipmentStatus. prefix: what its position begins with."""
    cdef Bytes data = <Bytes>PyBytes_AS_STRING(row)
    cdef Py_ssize_t place_end, last_length, prefix_length = PyBytes_GET_SIZE(prefix)
    cdef unsigned char[DIGITS_MAX] digits
    cdef unsigned char* out
    cdef unsigned char* begin
    cdef int digit
    if PyBytes_GET_SIZE(row) < HEAD or data[0] != _FORMAT:
        decode_status(row)  # says what is wrong
    place_end = HEAD + data[AT_PLACE_LENGTH]
    last_length = load16(data + AT_LAST_LENGTH)
    if place_end + last_length > PyBytes_GET_SIZE(row):
        raise UnreadableRecord("status row ends within its head")
    digit = write_digits(digits, load64(data + AT_POSITION))
    buffer = PyBytes_FromStringAndSize(
        NULL, NUMBERS_MAX + PyBytes_GET_SIZE(number) + prefix_length + last_length
    )
    begin = out = <unsigned char*>PyBytes_AS_STRING(buffer)
    out = write_text(
        out, WAYBILL_NUMBER, <Bytes>PyBytes_AS_STRING(number), PyBytes_GET_SIZE(number)
    )
    out = write_number(out, MILESTONE, data[AT_MILESTONE])
    out = write_mask(out, FLAGS, load16(data + AT_FLAGS))
    out = write_text(out, LAST_EVENT, data + place_end, last_length)
    out = write_number(out, EVENT_COUNT, load32(data + AT_COUNT))
    out = write_number(out, FIRST_EVENT_AT_MS, load64(data + AT_FIRST_AT))
    out = write_number(out, UPDATED_AT_MS, load64(data + AT_UPDATED_AT))
    out[0] = POSITION << 3 | DELIMITED
    out = write_varint(out + 1, prefix_length + DIGITS_MAX - digit)
    memcpy(out, PyBytes_AS_STRING(prefix), prefix_length)
    out += prefix_length
    memcpy(out, digits + digit, DIGITS_MAX - digit)
    out += DIGITS_MAX - digit
    return PyBytes_FromStringAndSize(<char*>begin, out - begin)


def runs(int field, list texts):
    """Each of the texts as a length-delimited field of that number; joined."""
    cdef Py_ssize_t size = 0
    cdef unsigned char* out
    cdef bytes text
    for text in texts:
        size += PyBytes_GET_SIZE(text) + HEAD_MAX
    buffer = PyBytes_FromStringAndSize(NULL, size)
    out = <unsigned char*>PyBytes_AS_STRING(buffer)
    for text in texts:
        out = write_text(out, field, <Bytes>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return PyBytes_FromStringAndSize(
        PyBytes_AS_STRING(buffer), out - <unsigned char*>PyBytes_AS_STRING(buffer)
    )
