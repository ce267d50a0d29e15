# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Answers.status of wire/answers.py, compiled: a ShipmentStatus from a status row."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from trackd.store.records import FORMAT_VERSION, STATUS_HEAD, UnreadableRecord, decode_status

cdef extern from *:
    """
    #define trackd_get16(p) __builtin_bswap16(*(const uint16_t __attribute__((aligned(1), may_alias)) *)(p))
    #define trackd_get32(p) __builtin_bswap32(*(const uint32_t __attribute__((aligned(1), may_alias)) *)(p))
    #define trackd_get64(p) __builtin_bswap64(*(const uint64_t __attribute__((aligned(1), may_alias)) *)(p))
    """
    uint16_t load16 "trackd_get16"(const void*) noexcept
    uint32_t load32 "trackd_get32"(const void*) noexcept
    uint64_t load64 "trackd_get64"(const void*) noexcept

# The layout of a status row's head; records.STATUS_HEAD.
cdef enum:
    HEAD = 82
    AT_MILESTONE = 1
    AT_FLAGS = 2
    AT_COUNT = 7
    AT_FIRST_AT = 11
    AT_UPDATED_AT = 55
    AT_POSITION = 71
    AT_PLACE_LENGTH = 79
    AT_LAST_LENGTH = 80
    # Fields of ShipmentStatus, and the wire types.
    WAYBILL_NUMBER = 1
    MILESTONE = 2
    FLAGS = 3
    LAST_EVENT = 4
    EVENT_COUNT = 5
    FIRST_EVENT_AT_MS = 6
    UPDATED_AT_MS = 7
    POSITION = 8
    VARINT = 0
    DELIMITED = 2
    FLAG_BITS = 16
    # What everything but the texts and the last event takes at most.
    NUMBERS_MAX = 160
    DIGITS_MAX = 20

if HEAD != STATUS_HEAD.size:
    raise ImportError("the compiled answers are of another format: install trackd anew")

cdef int _FORMAT = FORMAT_VERSION


cdef inline unsigned char* _varint(unsigned char* out, uint64_t value) noexcept:
    while value >= 0x80:
        out[0] = value & 0x7F | 0x80
        out += 1
        value >>= 7
    out[0] = value
    return out + 1


cdef inline unsigned char* _number(unsigned char* out, int field, uint64_t value) noexcept:
    if not value:
        return out
    out[0] = field << 3 | VARINT
    return _varint(out + 1, value)


cdef inline unsigned char* _text(unsigned char* out, int field, const char* data, Py_ssize_t length) noexcept:
    out[0] = field << 3 | DELIMITED
    out = _varint(out + 1, length)
    memcpy(out, data, length)
    return out + length


def encode_status(bytes prefix, bytes number, bytes row):
    """A ShipmentStatus. prefix: what its position begins with."""
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(row)
    cdef Py_ssize_t place_end, last_length, flags_length = 0
    cdef unsigned char[FLAG_BITS] flags
    cdef unsigned char[DIGITS_MAX] digits
    cdef unsigned char* out
    cdef unsigned char* begin
    cdef uint64_t position
    cdef int bit, digit = DIGITS_MAX
    if PyBytes_GET_SIZE(row) < HEAD or data[0] != _FORMAT:
        decode_status(row)  # says what is wrong
    place_end = HEAD + data[AT_PLACE_LENGTH]
    last_length = load16(data + AT_LAST_LENGTH)
    if place_end + last_length > PyBytes_GET_SIZE(row):
        raise UnreadableRecord("status row ends within its head")
    for bit in range(FLAG_BITS):
        if load16(data + AT_FLAGS) >> bit & 1:
            flags[flags_length] = bit
            flags_length += 1
    position = load64(data + AT_POSITION)
    while True:
        digit -= 1
        digits[digit] = c'0' + position % 10
        position //= 10
        if not position:
            break
    buffer = PyBytes_FromStringAndSize(
        NULL, NUMBERS_MAX + PyBytes_GET_SIZE(number) + PyBytes_GET_SIZE(prefix) + last_length
    )
    begin = out = <unsigned char*>PyBytes_AS_STRING(buffer)
    out = _text(out, WAYBILL_NUMBER, PyBytes_AS_STRING(number), PyBytes_GET_SIZE(number))
    out = _number(out, MILESTONE, data[AT_MILESTONE])
    if flags_length:
        out = _text(out, FLAGS, <const char*>flags, flags_length)
    if last_length:
        out = _text(out, LAST_EVENT, <const char*>data + place_end, last_length)
    out = _number(out, EVENT_COUNT, load32(data + AT_COUNT))
    out = _number(out, FIRST_EVENT_AT_MS, load64(data + AT_FIRST_AT))
    out = _number(out, UPDATED_AT_MS, load64(data + AT_UPDATED_AT))
    out[0] = POSITION << 3 | DELIMITED
    out = _varint(out + 1, PyBytes_GET_SIZE(prefix) + DIGITS_MAX - digit)
    memcpy(out, PyBytes_AS_STRING(prefix), PyBytes_GET_SIZE(prefix))
    out += PyBytes_GET_SIZE(prefix)
    memcpy(out, digits + digit, DIGITS_MAX - digit)
    out += DIGITS_MAX - digit
    return PyBytes_FromStringAndSize(<const char*>begin, out - begin)
