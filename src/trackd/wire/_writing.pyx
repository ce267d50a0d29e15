# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What wire/answers.py does for every look-up, compiled: where its waybill is, a ShipmentStatus from a
status row, rows joined to an answer."""

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
    VARINT_CONTINUES,
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

from trackd.store._hashing cimport DIGEST, key_of
from trackd.wire._waybills cimport is_of_waybill_characters

from trackd.domain.validation import WAYBILL_NUMBER_LENGTH_MAX, WAYBILL_NUMBER_LENGTH_MIN
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
cdef Py_ssize_t _NUMBER_MIN = WAYBILL_NUMBER_LENGTH_MIN, _NUMBER_MAX = WAYBILL_NUMBER_LENGTH_MAX


def located(bytes request, unsigned int partition_count):
    """The partition and the status key of a look-up of plain shape; None of another one."""
    cdef Py_ssize_t length = PyBytes_GET_SIZE(request) - 2
    cdef Bytes data = <Bytes>PyBytes_AS_STRING(request)
    cdef bytes key
    if length < _NUMBER_MIN or length > _NUMBER_MAX or data[0] != 0x0A or data[1] != length:
        return None
    if not is_of_waybill_characters(data + 2, length):
        return None
    key = key_of(data + 2, length)
    return load64(PyBytes_AS_STRING(key)) % partition_count, key


def encode_status(bytes prefix, bytes number, bytes row):
    """A ShipmentStatus. prefix: what its position begins with."""
    return _status(
        prefix, <Bytes>PyBytes_AS_STRING(number), PyBytes_GET_SIZE(number), row, 0
    )


def one_status(bytes prefix, bytes key, bytes row):
    """A GetStatusResponse with the status. key: the row's."""
    return _status(
        prefix, <Bytes>PyBytes_AS_STRING(key) + DIGEST, PyBytes_GET_SIZE(key) - DIGEST, row, 1
    )


def one_timeline(bytes prefix, bytes key, bytes row, list events, bytes token):
    """A GetTimelineResponse with the events, the status, and a token unless it is empty."""
    cdef bytes status = _status(
        prefix, <Bytes>PyBytes_AS_STRING(key) + DIGEST, PyBytes_GET_SIZE(key) - DIGEST, row, 3
    )
    cdef Py_ssize_t size = PyBytes_GET_SIZE(status)
    cdef unsigned char* out
    cdef bytes text
    for text in events:
        size += text_size(PyBytes_GET_SIZE(text))
    if PyBytes_GET_SIZE(token):
        size += text_size(PyBytes_GET_SIZE(token))
    answer = PyBytes_FromStringAndSize(NULL, size)
    out = <unsigned char*>PyBytes_AS_STRING(answer)
    for text in events:
        out = write_text(out, 1, <Bytes>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    if PyBytes_GET_SIZE(token):
        out = write_text(out, 2, <Bytes>PyBytes_AS_STRING(token), PyBytes_GET_SIZE(token))
    memcpy(out, PyBytes_AS_STRING(status), PyBytes_GET_SIZE(status))
    return answer


cdef Py_ssize_t text_size(Py_ssize_t length) noexcept:
    """The bytes of a text as a field: a tag, its length, itself."""
    cdef Py_ssize_t size = length + 2
    while length >= VARINT_CONTINUES:
        length >>= 7
        size += 1
    return size


cdef bytes _status(
    bytes prefix, Bytes number, Py_ssize_t number_length, bytes row, int field
):
    """A ShipmentStatus; behind a field's tag and its length, if there is a field."""
    cdef Bytes data = <Bytes>PyBytes_AS_STRING(row)
    cdef Py_ssize_t place_end, last_length, length, prefix_length = PyBytes_GET_SIZE(prefix)
    cdef unsigned char[DIGITS_MAX] digits
    cdef unsigned char[HEAD_MAX] head
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
        NULL, HEAD_MAX + NUMBERS_MAX + number_length + prefix_length + last_length
    )
    begin = out = <unsigned char*>PyBytes_AS_STRING(buffer) + HEAD_MAX
    out = write_text(out, WAYBILL_NUMBER, number, number_length)
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
    if field:
        head[0] = field << 3 | DELIMITED
        length = write_varint(head + 1, out - begin) - head
        begin -= length
        memcpy(begin, head, length)
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
