"""XXH3 (64 bits, no seed) of short texts, for loops in which a call of the library costs too much.

What a waybill number's partition and an event id's fingerprint are made of, so it must never differ
from the library, which is what Python's side uses: tests hold it to that for every length. The
algorithm is that of https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md, for inputs of
up to SHORT_MAX bytes: a waybill number has at most 40 and an event id 64.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #ifndef TRACKD_HASHING
    #define TRACKD_HASHING
    #include <stdint.h>
    #include <string.h>

    static const unsigned char trackd_secret[72] = {
        0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
        0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
        0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
        0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
        0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb,
    };

    #define TRACKD_PRIME_1 0x9E3779B185EBCA87ULL
    #define TRACKD_PRIME_2 0xC2B2AE3D27D4EB4FULL
    #define TRACKD_PRIME_3 0x165667B19E3779F9ULL
    #define TRACKD_PRIME_MX1 0x165667919E3779F9ULL
    #define TRACKD_PRIME_MX2 0x9FB21C651E98DF25ULL

    /* Little-endian, as the algorithm is defined. */
    static inline uint64_t trackd_little64(const unsigned char *p) {
        uint64_t value;
        memcpy(&value, p, 8);
        return value;
    }
    static inline uint64_t trackd_little32(const unsigned char *p) {
        uint32_t value;
        memcpy(&value, p, 4);
        return value;
    }
    static inline uint64_t trackd_rotate(uint64_t value, int bits) {
        return value << bits | value >> (64 - bits);
    }
    static inline uint64_t trackd_fold128(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    static inline uint64_t trackd_avalanche(uint64_t hash) {
        hash = (hash ^ hash >> 37) * TRACKD_PRIME_MX1;
        return hash ^ hash >> 32;
    }
    static inline uint64_t trackd_avalanche_xxh64(uint64_t hash) {
        hash = (hash ^ hash >> 33) * TRACKD_PRIME_2;
        hash = (hash ^ hash >> 29) * TRACKD_PRIME_3;
        return hash ^ hash >> 32;
    }
    static inline uint64_t trackd_mix16(const unsigned char *text, int at) {
        return trackd_fold128(
            trackd_little64(text) ^ trackd_little64(trackd_secret + at),
            trackd_little64(text + 8) ^ trackd_little64(trackd_secret + at + 8));
    }

    static inline uint64_t trackd_hash_to_16(const unsigned char *text, uint64_t length) {
        const unsigned char *secret = trackd_secret;
        if (length > 8) {
            uint64_t low = trackd_little64(text)
                ^ trackd_little64(secret + 24) ^ trackd_little64(secret + 32);
            uint64_t high = trackd_little64(text + length - 8)
                ^ trackd_little64(secret + 40) ^ trackd_little64(secret + 48);
            return trackd_avalanche(
                length + __builtin_bswap64(low) + high + trackd_fold128(low, high));
        }
        if (length >= 4) {
            uint64_t hash = trackd_little32(text + length - 4) + (trackd_little32(text) << 32);
            hash ^= trackd_little64(secret + 8) ^ trackd_little64(secret + 16);
            hash ^= trackd_rotate(hash, 49) ^ trackd_rotate(hash, 24);
            hash *= TRACKD_PRIME_MX2;
            hash ^= (hash >> 35) + length;
            hash *= TRACKD_PRIME_MX2;
            return hash ^ hash >> 28;
        }
        if (length) {
            uint64_t hash = (uint64_t)text[0] << 16 | (uint64_t)text[length >> 1] << 24
                | text[length - 1] | length << 8;
            return trackd_avalanche_xxh64(
                hash ^ (trackd_little32(secret) ^ trackd_little32(secret + 4)));
        }
        return trackd_avalanche_xxh64(
            trackd_little64(secret + 56) ^ trackd_little64(secret + 64));
    }

    static uint64_t trackd_hash_short(const unsigned char *text, uint64_t length) {
        uint64_t hash = length * TRACKD_PRIME_1;
        if (length <= 16)
            return trackd_hash_to_16(text, length);
        /* From both ends inwards, sixteen bytes at a time. */
        for (int step = (length - 1) / 32; step >= 0; step--)
            hash += trackd_mix16(text + 16 * step, 32 * step)
                + trackd_mix16(text + length - 16 * (step + 1), 32 * step + 16);
        return trackd_avalanche(hash);
    }
    #endif
    """
    uint64_t _hash_short "trackd_hash_short"(const unsigned char*, uint64_t) noexcept nogil

from trackd.store._bytes cimport Bytes, store64

cdef enum:
    DIGEST = 8
    SHORT_MAX = 64


cdef inline uint64_t xxh3(Bytes text, Py_ssize_t length) except? 0:
    """The hash; its digest, which is what is stored, are its bytes in big-endian order."""
    if length > SHORT_MAX:
        raise ValueError(f"a text of {length} bytes is not a short one")
    return _hash_short(text, length)


cdef inline bytes key_of(Bytes number, Py_ssize_t length):
    """keys.status_key: the digest of a waybill number, and the number."""
    cdef uint64_t hashed = xxh3(number, length)
    cdef bytes key = PyBytes_FromStringAndSize(NULL, DIGEST + length)
    cdef unsigned char* out = <unsigned char*>PyBytes_AS_STRING(key)
    store64(out, hashed)
    memcpy(out + DIGEST, number, length)
    return key
