# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""LoggedChange of feed/change.py, the taking apart of a log block, and what is done to each change
on its way to a watch (feed/wanted.py, feed/runs.py), compiled.

The Python ones say what these do; tests hold them equal. A change keeps its event's bytes and where
its texts stand in them: of most changes nothing is ever asked but the wire form.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from trackd.store import records
from trackd.store.errors import DataDamaged

from trackd.store._bytes cimport (
    AT_AFTER,
    AT_BEFORE,
    AT_BLOCK_COUNT,
    AT_ENTRY_COUNT,
    AT_ENTRY_FIRST_AT,
    AT_FLAGS_AFTER,
    AT_FLAGS_BEFORE,
    AT_MARKS,
    AT_RECORDED_AT,
    BLOCK_HEAD,
    DELIMITED,
    DIGITS_MAX,
    ENTRY_HEAD,
    ORDER,
    Bytes,
    Event,
    load16,
    load32,
    load64,
    read_event,
    write_digits,
    write_mask,
    write_number,
    write_text,
    write_varint,
)
from trackd.store._hashing cimport key_of

cdef enum:
    # Fields of Change.
    POSITION = 1
    WAYBILL_NUMBER = 2
    MILESTONE_BEFORE = 3
    MILESTONE = 4
    RAISED = 5
    CLEARED = 6
    EVENT = 7
    STATUS = 8
    FIRST_OCCURRENCE = 9
    CORRECTION = 10
    RECORDED_AT_MS = 11
    # Fields of ShipmentStatus.
    STATUS_WAYBILL_NUMBER = 1
    STATUS_MILESTONE = 2
    STATUS_FLAGS = 3
    STATUS_LAST_EVENT = 4
    STATUS_EVENT_COUNT = 5
    STATUS_FIRST_EVENT_AT_MS = 6
    STATUS_UPDATED_AT_MS = 7
    STATUS_POSITION = 8
    # Of ChangeRun.
    RUN_CHANGES = 1
    # What is not text and not event, at most, in each.
    NUMBERS_MAX = 160

if (BLOCK_HEAD, ENTRY_HEAD) != (records.BLOCK_HEAD.size, records.ENTRY_HEAD.size):
    raise ImportError("the compiled feed is of another format: install trackd anew")

cdef int _FORMAT = records.FORMAT_VERSION
cdef int _CHANGED = records.CHANGED, _IS_FIRST = records.FIRST_OCCURRENCE
cdef int _IS_CORRECTION = records.CORRECTION
cdef int _LAST_IS_THIS = records.LAST_IS_THIS, _LAST_IS_ANOTHER = records.LAST_IS_ANOTHER


cdef inline Bytes _data(object value) noexcept:
    return <Bytes>PyBytes_AS_STRING(value)


@cython.no_gc
cdef class LoggedChange:
    """change.LoggedChange.

    Not looked at when garbage is collected: there are many, and nothing that a source refers to
    refers to a change.
    """

    cdef readonly uint64_t position, recorded_at_ms
    cdef readonly int marks, milestone_before, milestone, flags_before, flags
    cdef uint32_t event_count
    cdef uint64_t first_event_at_ms
    cdef bytes event, last, encoded
    cdef object source
    # Where they stand in the event.
    cdef Py_ssize_t waybill_at, waybill_length, facility_at, facility_length

    @property
    def waybill_number(self):
        return PyUnicode_DecodeUTF8(
            <char*>_data(self.event) + self.waybill_at, self.waybill_length, NULL
        )

    @property
    def facility_code(self):
        return PyUnicode_DecodeUTF8(
            <char*>_data(self.event) + self.facility_at, self.facility_length, NULL
        )

    @property
    def key(self):
        return key_of(_data(self.event) + self.waybill_at, self.waybill_length)

    @property
    def first_occurrence(self):
        return bool(self.marks & _IS_FIRST and self.milestone)

    @property
    def correction(self):
        return bool(self.marks & _IS_CORRECTION)

    def wire(self):
        if self.encoded is None:
            self._encode()
        return self.encoded

    cdef int _encode(self) except -1:
        cdef bytes event = self.event, last = event, prefix = self.source.position_prefix
        cdef Py_ssize_t prefix_length = PyBytes_GET_SIZE(prefix), place_length, status_length
        cdef unsigned char[DIGITS_MAX] digits
        cdef unsigned char* out
        cdef unsigned char* begin
        cdef unsigned char* status
        cdef Bytes number = _data(event) + self.waybill_at
        cdef int digit = write_digits(digits, self.position)
        if not self.marks & _LAST_IS_THIS:
            last = self._another_last()
        place_length = prefix_length + DIGITS_MAX - digit
        status_length = (
            NUMBERS_MAX + self.waybill_length + place_length + PyBytes_GET_SIZE(last)
        )
        # The status is written behind where the change can end at most, and copied into it.
        buffer = PyBytes_FromStringAndSize(
            NULL,
            NUMBERS_MAX + self.waybill_length + place_length + PyBytes_GET_SIZE(event)
            + 2 * status_length,
        )
        begin = out = <unsigned char*>_data(buffer)
        status = begin + PyBytes_GET_SIZE(buffer) - status_length
        out = _write_place(out, POSITION, prefix, digits, digit)
        out = write_text(out, WAYBILL_NUMBER, number, self.waybill_length)
        out = write_number(out, MILESTONE_BEFORE, self.milestone_before)
        out = write_number(out, MILESTONE, self.milestone)
        out = write_mask(out, RAISED, self.flags & ~self.flags_before)
        out = write_mask(out, CLEARED, self.flags_before & ~self.flags)
        out = write_text(out, EVENT, _data(event), PyBytes_GET_SIZE(event))
        out = write_text(out, STATUS, status, self._status(status, last, prefix, digits, digit))
        out = write_number(out, FIRST_OCCURRENCE, self.marks & _IS_FIRST and self.milestone != 0)
        out = write_number(out, CORRECTION, (self.marks & _IS_CORRECTION) != 0)
        out = write_number(out, RECORDED_AT_MS, self.recorded_at_ms)
        self.encoded = PyBytes_FromStringAndSize(<char*>begin, out - begin)
        return 0

    cdef Py_ssize_t _status(
        self, unsigned char* begin, bytes last, bytes prefix, unsigned char* digits, int digit
    ) noexcept:
        cdef unsigned char* out = begin
        cdef Bytes number = _data(self.event) + self.waybill_at
        out = write_text(out, STATUS_WAYBILL_NUMBER, number, self.waybill_length)
        out = write_number(out, STATUS_MILESTONE, self.milestone)
        out = write_mask(out, STATUS_FLAGS, self.flags)
        out = write_text(out, STATUS_LAST_EVENT, _data(last), PyBytes_GET_SIZE(last))
        out = write_number(out, STATUS_EVENT_COUNT, self.event_count)
        out = write_number(out, STATUS_FIRST_EVENT_AT_MS, self.first_event_at_ms)
        out = write_number(out, STATUS_UPDATED_AT_MS, self.recorded_at_ms)
        out = _write_place(out, STATUS_POSITION, prefix, digits, digit)
        return out - begin

    cdef bytes _another_last(self):
        stored = self.source.stored_event(self.key + self.last) if self.last else None
        if stored is None:
            raise DataDamaged(f"position {self.position} refers to an event that is not there")
        return stored


cdef inline unsigned char* _write_place(
    unsigned char* out, int field, bytes prefix, unsigned char* digits, int digit
) noexcept:
    """A position: the prefix, and digits from `digit` on."""
    cdef Py_ssize_t length = PyBytes_GET_SIZE(prefix)
    out[0] = field << 3 | DELIMITED
    out = write_varint(out + 1, length + DIGITS_MAX - digit)
    memcpy(out, _data(prefix), length)
    out += length
    memcpy(out, digits + digit, DIGITS_MAX - digit)
    return out + DIGITS_MAX - digit


def changes_of_block(bytes block, uint64_t last_position, source):
    """The changes in a log block, in order; None if it cannot tell, and Python must say."""
    cdef Bytes at = _data(block)
    cdef Bytes end = at + PyBytes_GET_SIZE(block)
    cdef Bytes entry
    cdef Event event
    cdef LoggedChange change
    cdef Py_ssize_t length
    cdef uint64_t recorded_at_ms, position
    cdef int marks
    cdef bytes suffix
    cdef list changes = []
    if end - at < BLOCK_HEAD or at[0] != _FORMAT:
        return None
    recorded_at_ms = load64(at + AT_RECORDED_AT)
    suffix = records.recorded_at_suffix(recorded_at_ms)
    position = last_position - load16(at + AT_BLOCK_COUNT)
    at += BLOCK_HEAD
    while position < last_position:
        position += 1
        entry = at
        if end - at < ENTRY_HEAD:
            return None
        length = load16(entry)
        marks = entry[AT_MARKS]
        at += ENTRY_HEAD + (ORDER if marks & _LAST_IS_ANOTHER else 0)
        if end - at < length:
            return None
        if marks & _CHANGED:
            if not read_event(at, length, &event):
                return None
            change = LoggedChange.__new__(LoggedChange)
            change.position = position
            change.recorded_at_ms = recorded_at_ms
            change.marks = marks
            change.milestone_before = entry[AT_BEFORE]
            change.milestone = entry[AT_AFTER]
            change.flags_before = load16(entry + AT_FLAGS_BEFORE)
            change.flags = load16(entry + AT_FLAGS_AFTER)
            change.event_count = load32(entry + AT_ENTRY_COUNT)
            change.first_event_at_ms = load64(entry + AT_ENTRY_FIRST_AT)
            change.source = source
            change.last = b""
            if marks & _LAST_IS_ANOTHER:
                change.last = entry[ENTRY_HEAD:ENTRY_HEAD + ORDER]
            change.event = PyBytes_FromStringAndSize(NULL, length + PyBytes_GET_SIZE(suffix))
            memcpy(<unsigned char*>_data(change.event), at, length)
            memcpy(
                <unsigned char*>_data(change.event) + length, _data(suffix),
                PyBytes_GET_SIZE(suffix),
            )
            change.waybill_length = event.waybill_number_length
            change.waybill_at = event.waybill_number - at if event.waybill_number else 0
            change.facility_length = event.facility_length
            change.facility_at = event.facility - at if event.facility else 0
            changes.append(change)
        at += length
    return changes


def matched(list changes, dict by_waybill, dict by_facility, dict by_milestone, dict by_flag,
            dict unindexed):
    """wanted.Wanted.matched."""
    cdef dict found = {}
    cdef object change
    cdef int flags
    for change in changes:
        if by_waybill:
            _find(found, change, by_waybill.get(change.waybill_number))
        if by_facility:
            _find(found, change, by_facility.get(change.facility_code))
        if by_milestone:
            _find(found, change, by_milestone.get(change.milestone))
        if by_flag:
            flags = change.flags ^ change.flags_before
            if flags:
                standing = {}
                for flag, readers in by_flag.items():
                    if flags >> <int>flag & 1:
                        standing.update(readers)
                _find(found, change, standing)
        if unindexed:
            _find(found, change, unindexed)
    return found


cdef int _find(dict found, change, dict standing) except -1:
    """Adds a change to what was found for those of `standing` that want it."""
    cdef list wanted
    if not standing:
        return 0
    for reader, rest in standing.items():
        if rest is None or rest.matches(change):
            wanted = found.get(reader)
            if wanted is None:
                found[reader] = [change]
            else:
                wanted.append(change)
    return 0


def entries_of(changes, Py_ssize_t room, bint at_least_one):
    """runs.entries_of."""
    cdef Py_ssize_t size = 0, framing = 0, length
    cdef list wires = []
    cdef bytes wire
    cdef unsigned char* out
    for change in changes:
        if type(change) is LoggedChange:
            if (<LoggedChange>change).encoded is None:
                (<LoggedChange>change)._encode()
            wire = (<LoggedChange>change).encoded
        else:
            wire = change.wire()
        length = PyBytes_GET_SIZE(wire)
        if size + length > room and (wires or not at_least_one):
            break
        size += length
        framing += 1 + _varint_length(length)
        wires.append(wire)
    entries = PyBytes_FromStringAndSize(NULL, size + framing)
    out = <unsigned char*>_data(entries)
    for wire in wires:
        out = write_text(out, RUN_CHANGES, _data(wire), PyBytes_GET_SIZE(wire))
    return entries, size, len(wires)


cdef inline Py_ssize_t _varint_length(Py_ssize_t value) noexcept:
    cdef Py_ssize_t length = 1
    while value > 0x7F:
        value >>= 7
        length += 1
    return length
