# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""ahead.Ahead, compiled: it says what this does; tests hold them equal.

Rows are bytes in chunks of memory, a chain of them for each slot: what is put there is far from
everything else by the time it is written, and lies side by side then. A row is

    key length u32 · value length u32 · key · value
"""

from array import array

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from trackd.store._bytes cimport ORDER, prefetch

from trackd.store.ahead import CROWDED_ROWS

cdef Py_ssize_t _CROWDED_ROWS = CROWDED_ROWS

cdef enum:
    SLOTS = 1 << 16
    ROW_HEAD = 8
    # Of a chunk, for its rows; three usual ones. A longer row has a chunk of its own.
    CHUNK = 496
    # Chunks that are kept for later, 8 MiB; the rest of a peak is given back.
    SPARE_MAX = 16_384
    # What is touched so many slots, or rows, later is asked of memory now.
    SOON = 8
    CACHE_LINE = 64
    # Rows of a slot that are sorted by insertion; more are sorted as Python does.
    FEW = 24


cdef struct Chunk:
    Chunk* next
    uint32_t used
    uint32_t size


cdef struct Slot:
    Chunk* first
    Chunk* last
    Py_ssize_t count


cdef inline char* _rows(Chunk* chunk) noexcept:
    return <char*>chunk + sizeof(Chunk)


cdef inline uint32_t _key_length(const char* row) noexcept:
    return (<const uint32_t*>row)[0]


cdef inline uint32_t _value_length(const char* row) noexcept:
    return (<const uint32_t*>row)[1]


cdef inline uint32_t _length(const char* row) noexcept:
    """Of the whole row, so that the next one is aligned."""
    return (ROW_HEAD + _key_length(row) + _value_length(row) + 3) & ~3


cdef inline int _compare(
    const char* one, uint32_t one_length, const char* other, uint32_t other_length
) noexcept:
    cdef int compared = memcmp(one, other, min(one_length, other_length))
    return compared if compared else (one_length > other_length) - (one_length < other_length)


cdef inline int _compare_rows(const char* one, const char* other) noexcept:
    return _compare(one + ROW_HEAD, _key_length(one), other + ROW_HEAD, _key_length(other))


cdef inline bytes _key(const char* row):
    return PyBytes_FromStringAndSize(row + ROW_HEAD, _key_length(row))


cdef inline bytes _value(const char* row):
    return PyBytes_FromStringAndSize(row + ROW_HEAD + _key_length(row), _value_length(row))


cdef inline Py_ssize_t _slot_of(bytes key) noexcept:
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(key)
    return data[0] << 8 | data[1]


cdef class Ahead:
    """See ahead.Ahead."""

    cdef Slot* slots
    # Chunks of the usual size that nobody uses, and how many.
    cdef Chunk* free
    cdef Py_ssize_t spare
    cdef readonly object written
    cdef readonly dict crowded
    cdef readonly Py_ssize_t count, size

    def __cinit__(self, checkpoint):
        self.written = array("Q", [checkpoint]) * SLOTS
        self.crowded = {}
        self.slots = <Slot*>PyMem_RawCalloc(SLOTS, sizeof(Slot))
        if self.slots is NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef Py_ssize_t i
        cdef Chunk* chunk
        if self.slots is not NULL:
            for i in range(SLOTS):
                self._clear(&self.slots[i])
            PyMem_RawFree(self.slots)
        while self.free is not NULL:
            chunk = self.free
            self.free = chunk.next
            PyMem_RawFree(chunk)

    cdef void _clear(self, Slot* slot) noexcept:
        cdef Chunk* chunk = slot.first
        cdef Chunk* after
        cdef uint32_t at
        cdef const char* row
        while chunk is not NULL:
            after = chunk.next
            at = 0
            while at < chunk.used:
                row = _rows(chunk) + at
                self.count -= 1
                self.size -= _key_length(row) + _value_length(row)
                at += _length(row)
            if chunk.size == CHUNK and self.spare < SPARE_MAX:
                chunk.next = self.free
                self.free = chunk
                self.spare += 1
            else:
                PyMem_RawFree(chunk)
            chunk = after
        slot.first = slot.last = NULL
        slot.count = 0

    cdef char* _room(self, Slot* slot, uint32_t length) except NULL:
        """Room for a row of that length at the end of the slot."""
        cdef Chunk* chunk = slot.last
        cdef uint32_t size = length if length > CHUNK else CHUNK
        if chunk is NULL or chunk.size - chunk.used < length:
            if size == CHUNK and self.free is not NULL:
                chunk = self.free
                self.free = chunk.next
                self.spare -= 1
            else:
                chunk = <Chunk*>PyMem_RawMalloc(sizeof(Chunk) + size)
                if chunk is NULL:
                    raise MemoryError
            chunk.next = NULL
            chunk.used = 0
            chunk.size = size
            if slot.last is NULL:
                slot.first = chunk
            else:
                slot.last.next = chunk
            slot.last = chunk
        chunk.used += length
        return _rows(chunk) + chunk.used - length

    def put(self, list rows):
        cdef Py_ssize_t i, soon, count = len(rows)
        cdef uint32_t key_length, value_length
        cdef char* row
        cdef bytes key, value
        cdef Chunk* chunk
        cdef Slot* slot
        for i in range(count):
            soon = i + 2 * SOON
            if soon < count:
                prefetch(&self.slots[_slot_of(<bytes>(<tuple>rows[soon])[0])])
            soon = i + SOON
            if soon < count:
                prefetch(self.slots[_slot_of(<bytes>(<tuple>rows[soon])[0])].last)
            soon = i + SOON // 2
            if soon < count:
                chunk = self.slots[_slot_of(<bytes>(<tuple>rows[soon])[0])].last
                if chunk is not NULL:
                    prefetch(_rows(chunk) + chunk.used)
                    prefetch(_rows(chunk) + chunk.used + CACHE_LINE)
                    prefetch(_rows(chunk) + chunk.used + 2 * CACHE_LINE)
            key, value = <tuple>rows[i]
            slot = &self.slots[_slot_of(key)]
            key_length, value_length = PyBytes_GET_SIZE(key), PyBytes_GET_SIZE(value)
            row = self._room(slot, (ROW_HEAD + key_length + value_length + 3) & ~3)
            (<uint32_t*>row)[0] = key_length
            (<uint32_t*>row)[1] = value_length
            memcpy(row + ROW_HEAD, PyBytes_AS_STRING(key), key_length)
            memcpy(row + ROW_HEAD + key_length, PyBytes_AS_STRING(value), value_length)
            self.count += 1
            self.size += key_length + value_length
            slot.count += 1
            if slot.count == _CROWDED_ROWS:
                self.crowded[_slot_of(key)] = None

    def of(self, bytes prefix):
        cdef Chunk* chunk = self.slots[_slot_of(prefix)].first
        cdef uint32_t at, length = PyBytes_GET_SIZE(prefix)
        cdef const char* row
        cdef list found = []
        while chunk is not NULL:
            prefetch(chunk.next)
            at = 0
            while at < chunk.used:
                row = _rows(chunk) + at
                if (_key_length(row) >= length
                        and memcmp(row + ROW_HEAD, PyBytes_AS_STRING(prefix), length) == 0):
                    found.append((_key(row), _value(row)))
                at += _length(row)
            chunk = chunk.next
        if len(found) > 1:
            found.sort()
        return found

    def get(self, bytes key):
        cdef Chunk* chunk = self.slots[_slot_of(key)].first
        cdef uint32_t at, length = PyBytes_GET_SIZE(key)
        cdef const char* row
        while chunk is not NULL:
            at = 0
            while at < chunk.used:
                row = _rows(chunk) + at
                if (_key_length(row) == length
                        and memcmp(row + ROW_HEAD, PyBytes_AS_STRING(key), length) == 0):
                    return _value(row)
                at += _length(row)
            chunk = chunk.next
        return None

    cdef inline void _soon(self, Py_ssize_t at) noexcept:
        """Asks memory for what will be needed of slots a little further on."""
        cdef Py_ssize_t line
        cdef Chunk* chunk
        if at + SOON < SLOTS:
            prefetch(self.slots[at + SOON].first)
        if at + SOON // 2 < SLOTS:
            chunk = self.slots[at + SOON // 2].first
            if chunk is not NULL:
                prefetch(chunk.next)
                for line in range(1, (CHUNK + CACHE_LINE) // CACHE_LINE):
                    prefetch(<char*>chunk + line * CACHE_LINE)
        if at + SOON // 4 < SLOTS:
            chunk = self.slots[at + SOON // 4].first
            if chunk is not NULL and chunk.next is not NULL:
                for line in range(1, (CHUNK + CACHE_LINE) // CACHE_LINE):
                    prefetch(<char*>chunk.next + line * CACHE_LINE)

    cdef Py_ssize_t _append(self, Slot* slot, list rows) except -1:
        """Appends the rows of a slot, in order, to rows; how many."""
        cdef const char* few[FEW]
        cdef const char* row
        cdef Chunk* chunk = slot.first
        cdef Py_ssize_t count = 0, i
        cdef uint32_t at
        cdef list many
        while chunk is not NULL:
            at = 0
            while at < chunk.used:
                row = _rows(chunk) + at
                if count == FEW:
                    many = self._many(slot)
                    rows += many
                    return len(many)
                i = count
                while i > 0 and _compare_rows(few[i - 1], row) > 0:
                    few[i] = few[i - 1]
                    i -= 1
                few[i] = row
                count += 1
                at += _length(row)
            chunk = chunk.next
        for i in range(count):
            rows.append((_key(few[i]), _value(few[i])))
        return count

    cdef list _many(self, Slot* slot):
        cdef Chunk* chunk = slot.first
        cdef uint32_t at
        cdef const char* row
        cdef list rows = []
        while chunk is not NULL:
            at = 0
            while at < chunk.used:
                row = _rows(chunk) + at
                rows.append((_key(row), _value(row)))
                at += _length(row)
            chunk = chunk.next
        rows.sort()
        return rows

    def take(self, Py_ssize_t slot, Py_ssize_t slots, Py_ssize_t rows_max):
        cdef list rows = []
        cdef Py_ssize_t at = slot, end = min(slot + slots, <Py_ssize_t>SLOTS), taken = 0, count
        while at < end:
            self._soon(at)
            count = self._append(&self.slots[at], rows)
            if at > slot and taken + count > rows_max:
                del rows[taken:]
                break
            taken += count
            at += 1
        return rows, _waybills_of(rows), at

    def written_out(self, Py_ssize_t slot, Py_ssize_t end, uint64_t position):
        cdef uint64_t[:] written = self.written
        cdef Py_ssize_t at
        for at in range(slot, end):
            self._clear(&self.slots[at])
            written[at] = position
            if self.crowded:
                self.crowded.pop(at, None)

    def waybills_after(self, bytes key):
        cdef Py_ssize_t at = _slot_of(key) if key else 0
        cdef list rows, after
        while at < SLOTS:
            if self.slots[at].first is not NULL:
                rows = []
                self._append(&self.slots[at], rows)
                after = [one for one in _waybills_of(rows) if one > key]
                if after:
                    return after
            at += 1
        return []


cdef list _waybills_of(list rows):
    """The status keys of sorted rows, each once."""
    cdef list waybills = []
    cdef bytes key, before = None
    cdef Py_ssize_t i
    cdef uint32_t length
    for i in range(len(rows)):
        key = <bytes>(<tuple>rows[i])[0]
        length = PyBytes_GET_SIZE(key) - ORDER
        if before is None or _compare(
            PyBytes_AS_STRING(key), length, PyBytes_AS_STRING(before),
            PyBytes_GET_SIZE(before) - ORDER,
        ):
            waybills.append(PyBytes_FromStringAndSize(PyBytes_AS_STRING(key), length))
        before = key
    return waybills
