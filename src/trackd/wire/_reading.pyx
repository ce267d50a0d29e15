# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The loop of wire/scans.py over a batch's events, compiled.

It takes the bytes apart itself, once, and knows only batches and events of plain shape: of whatever
else comes it takes its hands off.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy

from trackd.store._bytes cimport (
    CODE,
    DELIMITED,
    EVENT_ID,
    FACILITY_CODE,
    OCCURRED_AT_MS,
    VARINT,
    WAYBILL_NUMBER,
    load64,
)
from trackd.store._hashing cimport key_of, xxh3
from trackd.wire._waybills cimport is_of_waybill_characters

from trackd.domain.validation import (
    BATCH_ID_LENGTH_MAX,
    EVENT_ID_LENGTH_MAX,
    SHORT_TEXT_LENGTH_MAX,
    WAYBILL_NUMBER_LENGTH_MAX,
    WAYBILL_NUMBER_LENGTH_MIN,
)

cdef extern from "Python.h":
    str PyUnicode_New(Py_ssize_t, Py_UCS4)
    void* PyUnicode_DATA(object)
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL

cdef enum:
    FIELDS = 9  # 1 to 8 may stand in a plain event: numbers and texts
    ONE_BYTE_CODES = 0x80
    ONE_BYTE_LENGTH_MAX = 0x7F
    ASCII_MAX = 0x7F
    # A power of two; a network has some thousands, and a batch a few.
    FACILITIES = 1024

# By field. Longer texts take the long way, which says what is wrong with them.
cdef int _SHORT = SHORT_TEXT_LENGTH_MAX
cdef int[FIELDS] LENGTHS_MAX = [
    0, EVENT_ID_LENGTH_MAX, WAYBILL_NUMBER_LENGTH_MAX, 0, 0, _SHORT, _SHORT, _SHORT, _SHORT
]
cdef Py_ssize_t _NUMBER_MIN = WAYBILL_NUMBER_LENGTH_MIN, _BATCH_ID_MAX = BATCH_ID_LENGTH_MAX


cdef inline bint _printable(const unsigned char* text, Py_ssize_t length) noexcept:
    cdef Py_ssize_t i
    cdef unsigned char bad = 0
    for i in range(length):
        bad |= <unsigned char>(text[i] - 0x20) > 0x5E
    return not bad


cdef inline str _text(const unsigned char* text, Py_ssize_t length):
    return PyUnicode_DecodeUTF8(<const char*>text, length, NULL)


cdef inline str _ascii(const unsigned char* text, Py_ssize_t length):
    cdef str made = PyUnicode_New(length, ASCII_MAX)
    memcpy(PyUnicode_DATA(made), text, length)
    return made


cdef class EventLoop:
    """Reads the events of batches; see ScanReader, whose bounds it is given."""

    cdef unsigned char plain[ONE_BYTE_CODES]
    cdef int64_t occurred_at_ms_min
    cdef int partition_count
    # Short texts that are valid though they are not of printable ASCII.
    cdef public set texts
    # The last facility code of each of so many hashes: a batch has the same ones again and again.
    cdef list facilities

    def __init__(self, plain_codes, int64_t occurred_at_ms_min, int partition_count):
        cdef int code
        for code in range(ONE_BYTE_CODES):
            self.plain[code] = code in plain_codes
        self.occurred_at_ms_min = occurred_at_ms_min
        self.partition_count = partition_count
        self.texts = set()
        self.facilities = [""] * FACILITIES

    cdef inline str _facility(self, const unsigned char* text, Py_ssize_t length):
        cdef str known
        cdef Py_ssize_t known_length
        cdef const char* known_text
        cdef Py_ssize_t slot
        if length == 0:
            return ""
        slot = xxh3(text, length) & (FACILITIES - 1)
        known = <str>self.facilities[slot]
        known_text = PyUnicode_AsUTF8AndSize(known, &known_length)
        if known_length != length or memcmp(known_text, text, length) != 0:
            known = _text(text, length)
            self.facilities[slot] = known
        return known

    def read(self, bytes request, int events_field, int64_t latest_ms, read_closely):
        """The scans of a batch by partition, and how many events it has.

        None if the message holds anything but one batch id before the events.
        """
        cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(request)
        cdef const unsigned char* end = data + PyBytes_GET_SIZE(request)
        cdef const unsigned char* start
        cdef int shift, index = 0
        cdef Py_ssize_t length
        cdef unsigned char tag = events_field << 3 | DELIMITED
        cdef list scans = [[] for _ in range(self.partition_count)]
        batch_id = ""
        if data < end and data[0] == (1 << 3 | DELIMITED) != tag:
            if end - data < 2 or data[1] > _BATCH_ID_MAX or end - data < 2 + data[1]:
                return None
            if not _printable(data + 2, data[1]):
                return None
            batch_id = _text(data + 2, data[1])
            data += 2 + data[1]
        while data < end:
            if data[0] != tag:
                return None
            data += 1
            length = 0
            shift = 0
            while True:
                if data >= end or shift > 21:
                    return None
                length |= <Py_ssize_t>(data[0] & 0x7F) << shift
                shift += 7
                data += 1
                if (data - 1)[0] < 0x80:
                    break
            if length > end - data:
                return None
            self._event(index, data, length, latest_ms, scans, read_closely)
            data += length
            index += 1
        return batch_id, scans, index

    cdef int _event(
        self, int index, const unsigned char* data, Py_ssize_t length, int64_t latest_ms,
        list scans, read_closely,
    ) except -1:
        cdef const unsigned char* texts[FIELDS]
        cdef Py_ssize_t lengths[FIELDS]
        cdef const unsigned char* at = data
        cdef const unsigned char* end = data + length
        cdef int field, seen = 0, code = 0, shift
        cdef uint64_t occurred_at_ms = 0, partition
        cdef bint plain = True
        for field in range(FIELDS):
            lengths[field] = 0
        while at < end:
            field = at[0] >> 3
            # There is no field 0: protobuf refuses it, whoever reads the event later.
            if field == 0 or field >= FIELDS or seen >> field & 1 or end - at < 2:
                plain = False
                break
            seen |= 1 << field
            if at[0] == CODE << 3 | VARINT:
                code = at[1]
                at += 2
            elif at[0] == OCCURRED_AT_MS << 3 | VARINT:
                at += 1
                shift = 0
                while True:
                    if at >= end or shift > 49:
                        plain = False
                        break
                    occurred_at_ms |= <uint64_t>(at[0] & 0x7F) << shift
                    shift += 7
                    at += 1
                    if (at - 1)[0] < 0x80:
                        break
                if not plain:
                    break
            elif at[0] & 7 == DELIMITED and field != CODE and field != OCCURRED_AT_MS:
                lengths[field] = at[1]
                texts[field] = at + 2
                at += 2
                if lengths[field] > end - at or lengths[field] > ONE_BYTE_LENGTH_MAX:
                    plain = False
                    break
                if lengths[field] > LENGTHS_MAX[field] or not _printable(at, lengths[field]):
                    # Not ASCII: it may be known all the same.
                    text = PyBytes_FromStringAndSize(<const char*>at, lengths[field])
                    if field < FACILITY_CODE or text not in self.texts:
                        plain = False
                        break
                at += lengths[field]
            else:
                plain = False
                break
        if plain:
            plain = (
                code < ONE_BYTE_CODES and self.plain[code]
                and lengths[EVENT_ID] > 0
                and lengths[WAYBILL_NUMBER] >= _NUMBER_MIN
                and self.occurred_at_ms_min <= <int64_t>occurred_at_ms <= latest_ms
                and is_of_waybill_characters(texts[WAYBILL_NUMBER], lengths[WAYBILL_NUMBER])
            )
        wire = PyBytes_FromStringAndSize(<const char*>data, length)
        if not plain:
            scan = read_closely(index, wire, latest_ms)
            if scan is None:
                return 0
            key = scan[1]
        else:
            key = key_of(texts[WAYBILL_NUMBER], lengths[WAYBILL_NUMBER])
            event_id = _ascii(texts[EVENT_ID], lengths[EVENT_ID])
            facility = self._facility(texts[FACILITY_CODE], lengths[FACILITY_CODE])
            scan = (index, key, event_id, code, code, occurred_at_ms, facility, 0, wire)
        partition = load64(PyBytes_AS_STRING(key)) % <uint64_t>self.partition_count
        (<list>scans[partition]).append(scan)
        return 0
