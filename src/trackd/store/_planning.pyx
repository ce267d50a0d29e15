# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The loop over scans of store/planner.py and the table of store/rows.py, compiled.

The Python ones say what these do and why; tests hold them equal. What is added here is only speed:
numbers stay numbers, and the memory that many look-ups need is fetched at once.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from trackd.store._bytes cimport (
    AT_AFTER,
    AT_ANNOUNCED,
    AT_BEFORE,
    AT_BLOCK_COUNT,
    AT_COUNT,
    AT_COURSE,
    AT_ENTRY_COUNT,
    AT_ENTRY_FIRST_AT,
    AT_FIRST_AT,
    AT_FLAGS,
    AT_FLAGS_AFTER,
    AT_FLAGS_BEFORE,
    AT_ID,
    AT_LAST,
    AT_LAST_LENGTH,
    AT_MARKS,
    AT_MILESTONE,
    AT_NEWEST,
    AT_PLACE_LENGTH,
    AT_POSITION,
    AT_RANK,
    AT_RECORDED_AT,
    AT_TIME,
    AT_UNUSED,
    AT_UPDATED_AT,
    BLOCK_HEAD,
    ENTRY_HEAD,
    HEAD,
    ORDER,
    Bytes,
    Event,
    load16,
    load32,
    load64,
    prefetch,
    read_event,
    store16,
    store32,
    store64,
)

from trackd.store._hashing cimport DIGEST, key_of, xxh3

import struct

from trackd.domain.fold import EVENTFUL_STEPS, Course
from trackd.domain.lifecycle import STEP_BITS, TRANSITIONS
from trackd.domain.vocabulary import EventCode
from trackd.store import records

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL

cdef enum:
    FINGERPRINT = 4
    LENGTH_MAX = 0xFFFF

if (HEAD, ENTRY_HEAD, BLOCK_HEAD) != (
    records.STATUS_HEAD.size, records.ENTRY_HEAD.size, records.BLOCK_HEAD.size
):
    raise ImportError("the compiled planner is of another format: install trackd anew")


cdef struct Transition:
    uint8_t milestone
    uint16_t keeps
    uint16_t raises
    uint8_t moves
    uint8_t eventful
    uint8_t is_known

# As lifecycle.TRANSITIONS, by the same number; what is not in it is never asked for.
cdef enum:
    TRANSITION_COUNT = 0x4000
    MILESTONES_MAX = 0x80
cdef Transition[TRANSITION_COUNT] _TRANSITIONS
cdef uint8_t[128] _EVENTFUL_STEP
cdef uint16_t[256] _BIT


def _fill():
    for number, row in TRANSITIONS.items():
        _TRANSITIONS[number] = Transition(row[0], row[1], row[2], row[3], row[4], True)
    for number in EVENTFUL_STEPS:
        _EVENTFUL_STEP[number] = True
    for number, bit in records.MILESTONE_BITS.items():
        _BIT[number] = bit


_fill()
cdef bytes _NOTHING = records.encode_status(records.NO_STATUS)
cdef int _VOIDED = Course.VOIDED, _PLAIN = Course.PLAIN, _EVENTFUL = Course.EVENTFUL
cdef int _EVENT_VOIDED = EventCode.EVENT_VOIDED
cdef int _CHANGED = records.CHANGED, _FIRST_OCCURRENCE = records.FIRST_OCCURRENCE
cdef int _CORRECTION = records.CORRECTION
cdef int _LAST_IS_THIS = records.LAST_IS_THIS, _LAST_IS_ANOTHER = records.LAST_IS_ANOTHER
cdef int _FORMAT = records.FORMAT_VERSION
cdef int _COURSE_SHIFT = records.COURSE_SHIFT, _STEP_BITS = STEP_BITS


cdef inline Bytes _data(object value) noexcept:
    return <Bytes>PyBytes_AS_STRING(value)


cdef int _check_row(bytes row) except -1:
    """Raises UnreadableRecord unless everything that the row's head names is in the row."""
    cdef Bytes data = _data(row)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(row)
    if length < HEAD or data[0] != _FORMAT:
        records.decode_status(row)  # says what is wrong
    if length < HEAD + data[AT_PLACE_LENGTH] + load16(data + AT_LAST_LENGTH):
        raise records.UnreadableRecord("status row ends within what its head names")
    return 0


def digest(bytes text):
    """xxh3_64_digest of a short text: what tests compare with the library."""
    cdef bytes made = PyBytes_FromStringAndSize(NULL, DIGEST)
    store64(<unsigned char*>_data(made), xxh3(_data(text), PyBytes_GET_SIZE(text)))
    return made


def missing(submissions, list rows):
    """planner._missing."""
    cdef dict keys = {}
    cdef list scans, found
    cdef Py_ssize_t i
    for scans, found in zip(submissions, rows, strict=True):
        for i in range(len(found)):
            if found[i] is None:
                keys[(<tuple>scans[i])[1]] = None
    return keys


def plan_scans(planner, list scans, verdict, list rows, dict known, list entries, uint64_t recorded_at_ms):
    """Planner._plan_scans."""
    cdef bytes suffix = records.recorded_at_suffix(recorded_at_ms)
    cdef list events = planner._events
    cdef dict changed = planner._changed
    cdef uint32_t count_max = planner._waybill_events_max, count
    cdef uint64_t position = planner.position + len(entries)
    cdef uint64_t[:] written = planner._statuses.ahead.written
    cdef uint64_t occurred_at_ms, first_at, updated_at, row_position
    cdef Py_ssize_t i, place_length, last_length, row_length, wire_length, place_before_length, size, j
    cdef int before, milestone, code, step, course, marks, flags, flags_before, announced, clears
    cdef int accepted = 0, new_waybills = 0, dirtied = 0
    cdef Bytes old, place, last_event, last, newest, fingerprints, place_before, stored_data
    cdef unsigned char* out
    cdef unsigned char[ORDER] order
    cdef const char* text
    cdef Py_ssize_t text_length
    cdef Transition* transition
    cdef PyObject* found
    cdef bint may_repeat
    cdef tuple scan
    cdef bytes row, key, wire, stored
    if len(rows) != len(scans):
        raise ValueError("a row for each scan")
    for i in range(len(scans)):
        scan = <tuple>scans[i]
        key = <bytes>scan[1]
        code = scan[3]
        step = scan[4]
        occurred_at_ms = scan[5]
        clears = scan[7]
        wire = <bytes>scan[8]
        found = PyDict_GetItem(changed, key)
        if found is not NULL:
            row = <bytes>found
        elif rows[i] is not None:
            row = <bytes>rows[i]
        else:
            found = PyDict_GetItem(known, key)
            row = <bytes>found if found is not NULL else _NOTHING
        _check_row(row)
        row_length = PyBytes_GET_SIZE(row)
        old = _data(row)
        place_length = old[AT_PLACE_LENGTH]
        last_length = load16(old + AT_LAST_LENGTH)
        before = milestone = old[AT_MILESTONE]
        flags_before = flags = load16(old + AT_FLAGS)
        announced = load16(old + AT_ANNOUNCED)
        course = old[AT_COURSE]
        count = load32(old + AT_COUNT)
        first_at = load64(old + AT_FIRST_AT)
        newest = old + AT_NEWEST
        last = old + AT_LAST
        updated_at = load64(old + AT_UPDATED_AT)
        row_position = load64(old + AT_POSITION)
        place = place_before = old + HEAD
        place_before_length = place_length
        last_event = place + place_length
        fingerprints = last_event + last_length
        size = row_length - (fingerprints - old)
        text = PyUnicode_AsUTF8AndSize(scan[2], &text_length)
        order[0] = 0
        store64(order + AT_TIME, occurred_at_ms)
        order[AT_RANK] = code
        store64(order + AT_ID, xxh3(<Bytes>text, text_length))
        may_repeat = False
        for j in range(0, size, FINGERPRINT):
            if memcmp(fingerprints + j, order + AT_ID, FINGERPRINT) == 0:
                may_repeat = True
        if (may_repeat or count >= count_max) and planner._is_no_news(
            verdict, key=key, order=order[:ORDER], index=scan[0], event_id=scan[2], wire=wire,
            may_repeat=may_repeat, count=count,
        ):
            continue
        wire_length = PyBytes_GET_SIZE(wire)
        if wire_length > LENGTH_MAX - PyBytes_GET_SIZE(suffix):
            raise struct.error(f"an event of {wire_length} bytes is longer than a record can hold")
        stored = PyBytes_FromStringAndSize(NULL, wire_length + PyBytes_GET_SIZE(suffix))
        out = <unsigned char*>_data(stored)
        memcpy(out, _data(wire), wire_length)
        memcpy(out + wire_length, _data(suffix), PyBytes_GET_SIZE(suffix))
        event_key = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(key) + ORDER)
        out = <unsigned char*>_data(event_key)
        memcpy(out, _data(key), PyBytes_GET_SIZE(key))
        memcpy(out + PyBytes_GET_SIZE(key), order, ORDER)
        events.append((event_key, stored))
        marks = 0
        refolded = None
        if memcmp(order, newest, ORDER) > 0 and course != _VOIDED and step != _EVENT_VOIDED:
            transition = &_TRANSITIONS[(before << _STEP_BITS | step) & (TRANSITION_COUNT - 1)]
            if not transition.is_known or before >= MILESTONES_MAX:
                raise KeyError(before << _STEP_BITS | step)
            milestone = transition.milestone
            flags = (flags & transition.keeps | transition.raises) & ~clears
            if transition.eventful:
                course = _EVENTFUL
            newest = order
            if transition.moves:
                last = order
                last_event = _data(stored)
                last_length = PyBytes_GET_SIZE(stored)
                text = PyUnicode_AsUTF8AndSize(scan[6], &text_length)
                place = <Bytes>text
                place_length = text_length
        elif not (course == _PLAIN and not _EVENTFUL_STEP[step]):
            refolded = planner._refold(key)
            milestone = refolded[0]
            flags = refolded[1]
            course = refolded[2]
            newest = _data(refolded[3])
            last = _data(refolded[4])
            place = _data(refolded[5])
            place_length = PyBytes_GET_SIZE(refolded[5])
            last_event = _data(refolded[6])
            last_length = PyBytes_GET_SIZE(refolded[6])
            if step == _EVENT_VOIDED:
                marks = _CORRECTION
        if (milestone != before or flags != flags_before or place_length != place_before_length
                or memcmp(place, place_before, place_length) != 0):
            updated_at = recorded_at_ms
            marks |= _CHANGED
            if milestone != before and not announced & _BIT[milestone]:
                marks |= _FIRST_OCCURRENCE
            announced |= _BIT[milestone]
        if marks & _CHANGED or memcmp(last, old + AT_LAST, ORDER) != 0:
            marks |= _LAST_IS_THIS if memcmp(last, order, ORDER) == 0 else _LAST_IS_ANOTHER
        if row_position <= written[load16(_data(key))]:
            dirtied += 1
            new_waybills += count == 0
        count += 1
        if occurred_at_ms < first_at:
            first_at = occurred_at_ms
        position += 1
        marks |= course << _COURSE_SHIFT
        j = ENTRY_HEAD + wire_length + (ORDER if marks & _LAST_IS_ANOTHER else 0)
        entry = PyBytes_FromStringAndSize(NULL, j)
        out = <unsigned char*>_data(entry)
        store16(out, wire_length)
        out[AT_MARKS] = marks
        out[AT_BEFORE] = before
        out[AT_AFTER] = milestone
        store16(out + AT_FLAGS_BEFORE, flags_before)
        store16(out + AT_FLAGS_AFTER, flags)
        store32(out + AT_ENTRY_COUNT, count)
        store64(out + AT_ENTRY_FIRST_AT, first_at)
        out += ENTRY_HEAD
        if marks & _LAST_IS_ANOTHER:
            memcpy(out, last, ORDER)
            out += ORDER
        memcpy(out, _data(wire), wire_length)
        entries.append(entry)
        new = PyBytes_FromStringAndSize(NULL, HEAD + place_length + last_length + size + FINGERPRINT)
        out = <unsigned char*>_data(new)
        out[0] = _FORMAT
        out[AT_MILESTONE] = milestone
        store16(out + AT_FLAGS, flags)
        store16(out + AT_ANNOUNCED, announced)
        out[AT_COURSE] = course
        store32(out + AT_COUNT, count)
        store64(out + AT_FIRST_AT, first_at)
        memcpy(out + AT_NEWEST, newest, ORDER)
        memcpy(out + AT_LAST, last, ORDER)
        store64(out + AT_UPDATED_AT, updated_at or recorded_at_ms)
        store64(out + AT_UNUSED, 0)
        store64(out + AT_POSITION, position)
        out[AT_PLACE_LENGTH] = place_length
        store16(out + AT_LAST_LENGTH, last_length)
        out += HEAD
        memcpy(out, place, place_length)
        out += place_length
        memcpy(out, last_event, last_length)
        out += last_length
        memcpy(out, fingerprints, size)
        memcpy(out + size, order + AT_ID, FINGERPRINT)
        changed[key] = new
        accepted += 1
    verdict.accepted += accepted
    planner._dirtied += dirtied
    planner._new_waybills += new_waybills


def keys_of_block(bytes block):
    """The status key of each entry's waybill; None if it cannot tell, and Python must say."""
    cdef Bytes at = _data(block)
    cdef Bytes end = at + PyBytes_GET_SIZE(block)
    cdef Event event
    cdef Py_ssize_t length, count
    cdef list keys = []
    if end - at < BLOCK_HEAD or at[0] != records.FORMAT_VERSION:
        return None
    count = load16(at + AT_BLOCK_COUNT)
    at += BLOCK_HEAD
    while len(keys) < count:
        if end - at < ENTRY_HEAD:
            return None
        length = load16(at)
        at += ENTRY_HEAD + (ORDER if at[AT_MARKS] & _LAST_IS_ANOTHER else 0)
        if end - at < length or not read_event(at, length, &event):
            return None
        at += length
        keys.append(key_of(event.waybill_number, event.waybill_number_length))
    return keys


def lay_over(
    bytes block, uint64_t last_position, list keys, Rows rows, dict found, stored_event,
):
    """replay._lay_over for one block: the rows that it changes, and the rows of its events.

    keys: as keys_of_block tells them. stored_event(event_key, position, events): that event, and
    its facility.
    """
    cdef Bytes at = _data(block)
    cdef Bytes old, place, last, last_event, newest, fingerprints, entry
    cdef Event event
    cdef uint64_t recorded_at_ms = load64(at + AT_RECORDED_AT), updated_at
    cdef uint64_t position = last_position - len(keys)
    cdef Py_ssize_t length, place_length, last_length, size
    cdef int marks, announced
    cdef unsigned char[ORDER] order
    cdef unsigned char* out
    cdef bytes suffix = records.recorded_at_suffix(recorded_at_ms)
    cdef bytes key, row, stored, event_key
    cdef dict changed = {}
    cdef list events = []
    at += BLOCK_HEAD
    for key in keys:
        entry = at
        length = load16(entry)
        marks = entry[AT_MARKS]
        at += ENTRY_HEAD + (ORDER if marks & _LAST_IS_ANOTHER else 0)
        read_event(at, length, &event)
        position += 1
        order[0] = 0
        store64(order + AT_TIME, event.occurred_at_ms)
        order[AT_RANK] = event.code
        store64(order + AT_ID, xxh3(event.event_id, event.event_id_length))
        event_key = key + order[:ORDER]
        stored = PyBytes_FromStringAndSize(<char*>at, length) + suffix
        events.append((event_key, stored))
        row = changed.get(key) or rows.get(key) or found.get(key) or _NOTHING
        _check_row(row)
        old = _data(row)
        if load64(old + AT_POSITION) >= position:
            at += length
            continue
        place = old + HEAD
        place_length = old[AT_PLACE_LENGTH]
        last_event = place + place_length
        last_length = load16(old + AT_LAST_LENGTH)
        fingerprints = last_event + last_length
        size = PyBytes_GET_SIZE(row) - (fingerprints - old)
        last = old + AT_LAST
        newest = old + AT_NEWEST
        announced = load16(old + AT_ANNOUNCED)
        updated_at = load64(old + AT_UPDATED_AT) or recorded_at_ms
        if marks & _CHANGED:
            announced |= _BIT[entry[AT_AFTER]]
            updated_at = recorded_at_ms
        if memcmp(order, newest, ORDER) > 0:
            newest = order
        if marks & _LAST_IS_THIS:
            last = order
            last_event, last_length = _data(stored), PyBytes_GET_SIZE(stored)
            place, place_length = event.facility, event.facility_length
        elif marks & _LAST_IS_ANOTHER:
            last = entry + ENTRY_HEAD
            other, facility = stored_event(key + last[:ORDER], position, events)
            last_event, last_length = _data(other), PyBytes_GET_SIZE(other)
            place, place_length = _data(facility), PyBytes_GET_SIZE(facility)
        new = PyBytes_FromStringAndSize(NULL, HEAD + place_length + last_length + size + FINGERPRINT)
        out = <unsigned char*>_data(new)
        out[0] = _FORMAT
        out[AT_MILESTONE] = entry[AT_AFTER]
        memcpy(out + AT_FLAGS, entry + AT_FLAGS_AFTER, 2)
        store16(out + AT_ANNOUNCED, announced)
        out[AT_COURSE] = marks >> _COURSE_SHIFT
        memcpy(out + AT_COUNT, entry + AT_ENTRY_COUNT, 4)
        memcpy(out + AT_FIRST_AT, entry + AT_ENTRY_FIRST_AT, 8)
        memcpy(out + AT_NEWEST, newest, ORDER)
        memcpy(out + AT_LAST, last, ORDER)
        store64(out + AT_UPDATED_AT, updated_at)
        store64(out + AT_UNUSED, 0)
        store64(out + AT_POSITION, position)
        out[AT_PLACE_LENGTH] = place_length
        store16(out + AT_LAST_LENGTH, last_length)
        out += HEAD
        if place_length:
            memcpy(out, place, place_length)
        out += place_length
        memcpy(out, last_event, last_length)
        out += last_length
        memcpy(out, fingerprints, size)
        memcpy(out + size, order + AT_ID, FINGERPRINT)
        changed[key] = new
        at += length
    return changed, events


cdef struct Slot:
    uint64_t hash
    PyObject* key  # NULL: free
    PyObject* row


cdef enum:
    CAPACITY_MIN = 1024
    # Looked up together: what their look-ups touch must fit the nearest cache.
    TOGETHER = 128
    BYTES_OBJECT_HEAD = 32
    CACHE_LINE = 64
    # Keys later, which memory is asked for now.
    FORGET_SOON = 8


cdef class Rows:
    """rows.Rows: a hash table with open addressing; the hash is the one that every key begins with.

    The upper bits of the hash choose the slot: the lower ones choose the partition, and are the
    same in all keys.
    """

    cdef Slot* slots
    cdef Py_ssize_t capacity, count
    cdef int shift

    def __cinit__(self, Py_ssize_t expected=0):
        cdef Py_ssize_t capacity = CAPACITY_MIN
        while 2 * capacity < 3 * expected:
            capacity *= 2
        self.slots = NULL
        self._allocate(capacity)

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.slots is not NULL:
            for i in range(self.capacity):
                Py_XDECREF(self.slots[i].key)
                Py_XDECREF(self.slots[i].row)
            PyMem_Free(self.slots)

    cdef int _allocate(self, Py_ssize_t capacity) except -1:
        cdef Slot* slots = <Slot*>PyMem_Calloc(capacity, sizeof(Slot))
        if slots is NULL:
            raise MemoryError
        self.slots = slots
        self.capacity = capacity
        self.shift = 64
        while capacity > 1:
            capacity >>= 1
            self.shift -= 1
        return 0

    cdef int _grow(self) except -1:
        cdef Slot* old = self.slots
        cdef Slot* slot
        cdef Py_ssize_t i, capacity = self.capacity
        self._allocate(2 * capacity)
        for i in range(capacity):
            if old[i].key is not NULL:
                slot = &self.slots[old[i].hash >> self.shift]
                while slot.key is not NULL:
                    slot = self._next(slot)
                slot[0] = old[i]
        PyMem_Free(old)
        return 0

    cdef inline Slot* _next(self, Slot* slot) noexcept:
        slot += 1
        return slot if slot < self.slots + self.capacity else self.slots

    cdef inline Slot* _find(self, uint64_t hashed, bytes key) noexcept:
        """The slot of this key, or the free one where it belongs."""
        cdef Slot* slot = &self.slots[hashed >> self.shift]
        cdef Py_ssize_t length = PyBytes_GET_SIZE(key)
        while slot.key is not NULL:
            if (slot.hash == hashed and PyBytes_GET_SIZE(<object>slot.key) == length
                    and memcmp(_data(<object>slot.key), _data(key), length) == 0):
                break
            slot = self._next(slot)
        return slot

    def __len__(self):
        return self.count

    def __contains__(self, bytes key):
        return self._find(_hash(key), key).key is not NULL

    def __getitem__(self, bytes key):
        cdef Slot* slot = self._find(_hash(key), key)
        if slot.key is NULL:
            raise KeyError(key)
        return <object>slot.row

    def __setitem__(self, bytes key, bytes row):
        cdef uint64_t hashed = _hash(key)
        cdef Slot* slot
        if 3 * (self.count + 1) > 2 * self.capacity:
            self._grow()
        slot = self._find(hashed, key)
        Py_INCREF(row)
        if slot.key is NULL:
            Py_INCREF(key)
            slot.key = <PyObject*>key
            slot.hash = hashed
            self.count += 1
        else:
            Py_DECREF(<object>slot.row)
        slot.row = <PyObject*>row

    def __delitem__(self, bytes key):
        cdef Slot* slot = self._find(_hash(key), key)
        if slot.key is NULL:
            raise KeyError(key)
        self._free(slot)

    def forget(self, tuple keys, uint64_t position):
        cdef Py_ssize_t i, soon, count = len(keys)
        cdef Slot* slot
        for i in range(count):
            soon = i + 2 * FORGET_SOON
            if soon < count:
                prefetch(&self.slots[_hash(<bytes>keys[soon]) >> self.shift])
            soon = i + FORGET_SOON
            if soon < count:
                slot = &self.slots[_hash(<bytes>keys[soon]) >> self.shift]
                if slot.key is not NULL:
                    prefetch(slot.key)
                    prefetch(<char*>slot.row + CACHE_LINE)
            slot = self._find(_hash(<bytes>keys[i]), <bytes>keys[i])
            if slot.key is not NULL and (
                PyBytes_GET_SIZE(<bytes>slot.row) < HEAD  # damaged
                or load64(_data(<bytes>slot.row) + AT_POSITION) <= position
            ):
                self._free(slot)

    cdef void _free(self, Slot* free) noexcept:
        cdef Slot* slot = free
        cdef Py_ssize_t home, hole, mask = self.capacity - 1
        Py_DECREF(<object>free.key)
        Py_DECREF(<object>free.row)
        self.count -= 1
        # What stands behind it and could stand nearer to its home moves up.
        while True:
            slot = self._next(slot)
            if slot.key is NULL:
                break
            home = slot.hash >> self.shift
            hole = free - self.slots
            if ((slot - self.slots - home) & mask) >= ((slot - self.slots - hole) & mask):
                free[0] = slot[0]
                free = slot
        memset(free, 0, sizeof(Slot))

    def __iter__(self):
        cdef Py_ssize_t i
        return iter([<object>self.slots[i].key for i in range(self.capacity) if self.slots[i].key is not NULL])

    def keys(self):
        return iter(self)

    def get(self, bytes key, default=None):
        cdef Slot* slot = self._find(_hash(key), key)
        return <object>slot.row if slot.key is not NULL else default

    def update(self, dict changed):
        for key, row in changed.items():
            self[key] = row

    def get_all(self, list keys):
        cdef list found = [None] * len(keys)
        cdef Py_ssize_t start
        for start in range(0, len(keys), TOGETHER):
            self._get_together(keys, start, min(start + TOGETHER, len(keys)), found)
        return found

    def get_each(self, list scans):
        return self.get_all([scan[1] for scan in scans])

    cdef int _get_together(self, list keys, Py_ssize_t start, Py_ssize_t end, list found) except -1:
        cdef uint64_t[TOGETHER] hashes
        cdef Slot* slots[TOGETHER]
        cdef Slot* slot
        cdef Py_ssize_t i
        for i in range(end - start):
            hashes[i] = _hash(<bytes>keys[start + i])
            prefetch(&self.slots[hashes[i] >> self.shift])
        for i in range(end - start):
            slot = &self.slots[hashes[i] >> self.shift]
            while slot.key is not NULL and slot.hash != hashes[i]:
                slot = self._next(slot)
            slots[i] = slot
            if slot.key is not NULL:
                prefetch(slot.key)
                prefetch(slot.row)
                prefetch(<char*>slot.row + CACHE_LINE)
                prefetch(<char*>slot.row + 2 * CACHE_LINE)
                prefetch(<char*>slot.row + 3 * CACHE_LINE)
        for i in range(end - start):
            if slots[i].key is not NULL:
                slot = self._find(hashes[i], <bytes>keys[start + i])
                if slot.key is not NULL:
                    found[start + i] = <object>slot.row
        return 0


cdef inline uint64_t _hash(bytes key) noexcept:
    return load64(_data(key))
