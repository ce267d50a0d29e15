"""What the compiled loops share: the layout of records, big-endian numbers, varints, a scan event."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #ifndef TRACKD_BYTES
    #define TRACKD_BYTES
    #define trackd_unaligned(type) type __attribute__((aligned(1), may_alias))
    #define trackd_prefetch(address) __builtin_prefetch(address)
    #define trackd_load16(p) __builtin_bswap16(*(const trackd_unaligned(uint16_t) *)(p))
    #define trackd_load32(p) __builtin_bswap32(*(const trackd_unaligned(uint32_t) *)(p))
    #define trackd_load64(p) __builtin_bswap64(*(const trackd_unaligned(uint64_t) *)(p))
    #define trackd_store16(p, v) (*(trackd_unaligned(uint16_t) *)(p) = __builtin_bswap16(v))
    #define trackd_store32(p, v) (*(trackd_unaligned(uint32_t) *)(p) = __builtin_bswap32(v))
    #define trackd_store64(p, v) (*(trackd_unaligned(uint64_t) *)(p) = __builtin_bswap64(v))
    #endif
    """
    void prefetch "trackd_prefetch"(const void*) noexcept nogil
    uint16_t load16 "trackd_load16"(const void*) noexcept nogil
    uint32_t load32 "trackd_load32"(const void*) noexcept nogil
    uint64_t load64 "trackd_load64"(const void*) noexcept nogil
    void store16 "trackd_store16"(void*, uint16_t) noexcept nogil
    void store32 "trackd_store32"(void*, uint32_t) noexcept nogil
    void store64 "trackd_store64"(void*, uint64_t) noexcept nogil

ctypedef const unsigned char* Bytes

# The layouts of records.py; each loop compares the lengths with it when it is imported.
cdef enum:
    # STATUS_HEAD
    HEAD = 82
    AT_MILESTONE = 1
    AT_FLAGS = 2
    AT_ANNOUNCED = 4
    AT_COURSE = 6
    AT_COUNT = 7
    AT_FIRST_AT = 11
    AT_NEWEST = 19
    AT_LAST = 37
    AT_UPDATED_AT = 55
    AT_UNUSED = 63
    AT_POSITION = 71
    AT_PLACE_LENGTH = 79
    AT_LAST_LENGTH = 80
    # BLOCK_HEAD
    BLOCK_HEAD = 11
    AT_RECORDED_AT = 1
    AT_BLOCK_COUNT = 9
    # ENTRY_HEAD
    ENTRY_HEAD = 21
    AT_MARKS = 2
    AT_BEFORE = 3
    AT_AFTER = 4
    AT_FLAGS_BEFORE = 5
    AT_FLAGS_AFTER = 7
    AT_ENTRY_COUNT = 9
    AT_ENTRY_FIRST_AT = 13
    # An order: 00 · occurred_at_ms · rank · id8.
    ORDER = 18
    AT_TIME = 1
    AT_RANK = 9
    AT_ID = 10

cdef enum:
    # wire types
    VARINT = 0
    FIXED64 = 1
    DELIMITED = 2
    FIXED32 = 5
    VARINT_CONTINUES = 0x80

# Fields of ScanEvent.
cdef enum:
    EVENT_ID = 1
    WAYBILL_NUMBER = 2
    CODE = 3
    OCCURRED_AT_MS = 4
    FACILITY_CODE = 5

# What the store and the feed need of a stored event. Texts are where they stand in it.
cdef struct Event:
    Bytes event_id
    Bytes waybill_number
    Bytes facility
    Py_ssize_t event_id_length
    Py_ssize_t waybill_number_length
    Py_ssize_t facility_length
    uint64_t occurred_at_ms
    int code


cdef inline Bytes read_varint(Bytes at, Bytes end, uint64_t* value) noexcept:
    """Behind the varint; NULL if there is none."""
    cdef int shift = 0
    value[0] = 0
    while at < end and shift < 64:
        value[0] |= <uint64_t>(at[0] & 0x7F) << shift
        if at[0] < VARINT_CONTINUES:
            return at + 1
        at += 1
        shift += 7
    return NULL


cdef inline bint read_event(Bytes at, Py_ssize_t length, Event* event) noexcept:
    """Whether it could be read: the last value of a field counts, unknown ones do not."""
    cdef Bytes end = at + length
    cdef uint64_t tag, value
    cdef int field, kind
    memset(event, 0, sizeof(Event))
    while at < end:
        at = read_varint(at, end, &tag)
        if at is NULL:
            return False
        field, kind = tag >> 3, tag & 7
        if kind == VARINT:
            at = read_varint(at, end, &value)
            if at is NULL:
                return False
            if field == CODE:
                event.code = <int>value
            elif field == OCCURRED_AT_MS:
                event.occurred_at_ms = value
        elif kind == DELIMITED:
            at = read_varint(at, end, &value)
            if at is NULL or value > <uint64_t>(end - at):
                return False
            if field == EVENT_ID:
                event.event_id, event.event_id_length = at, value
            elif field == WAYBILL_NUMBER:
                event.waybill_number, event.waybill_number_length = at, value
            elif field == FACILITY_CODE:
                event.facility, event.facility_length = at, value
            at += value
        elif kind == FIXED64 or kind == FIXED32:
            value = 8 if kind == FIXED64 else 4
            if value > <uint64_t>(end - at):
                return False
            at += value
        else:
            return False
    return True


cdef inline unsigned char* write_varint(unsigned char* out, uint64_t value) noexcept:
    while value >= VARINT_CONTINUES:
        out[0] = value & 0x7F | VARINT_CONTINUES
        out += 1
        value >>= 7
    out[0] = value
    return out + 1


cdef inline unsigned char* write_number(unsigned char* out, int field, uint64_t value) noexcept:
    """A varint field; nothing for 0."""
    if not value:
        return out
    out[0] = field << 3 | VARINT
    return write_varint(out + 1, value)


cdef inline unsigned char* write_text(
    unsigned char* out, int field, Bytes data, Py_ssize_t length
) noexcept:
    """A length-delimited field."""
    out[0] = field << 3 | DELIMITED
    out = write_varint(out + 1, length)
    memcpy(out, data, length)
    return out + length


cdef enum:
    MASK_BITS = 16


cdef inline unsigned char* write_mask(unsigned char* out, int field, int mask) noexcept:
    """The numbers of a mask's bits as a packed field; nothing for none."""
    cdef unsigned char[MASK_BITS] numbers
    cdef int bit, count = 0
    for bit in range(MASK_BITS):
        if mask >> bit & 1:
            numbers[count] = bit
            count += 1
    return write_text(out, field, numbers, count) if count else out


cdef enum:
    DIGITS_MAX = 20


cdef inline int write_digits(unsigned char* digits, uint64_t value) noexcept:
    """Writes a number to the end of DIGITS_MAX bytes; where it begins there."""
    cdef int at = DIGITS_MAX
    while True:
        at -= 1
        digits[at] = c'0' + value % 10
        value //= 10
        if not value:
            return at
