"""Which bytes a waybill number in its normal form is made of: domain/validation.py, compiled."""

from trackd.store._bytes cimport Bytes


cdef extern from *:
    """
    #ifndef TRACKD_WAYBILLS
    #define TRACKD_WAYBILLS
    static const unsigned char trackd_waybill_characters[256] = {
        ['-'] = 1, ['0' ... '9'] = 1, ['A' ... 'Z'] = 1,
    };
    #endif
    """
    const unsigned char[256] _CHARACTERS "trackd_waybill_characters"


cdef inline bint is_of_waybill_characters(Bytes text, Py_ssize_t length) noexcept:
    """Whether they are A-Z, 0-9 and hyphen throughout. Looks at all: most texts are such ones."""
    cdef Py_ssize_t i
    cdef unsigned char good = 1
    for i in range(length):
        good &= _CHARACTERS[text[i]]
    return good
