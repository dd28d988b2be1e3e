"""Measures this machine: read bandwidth, the cost of the timer, and a canary that shows disturbance.

:mod:`tengri_fast.inference.hardware` asks these questions.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

import numpy as np

cdef extern from "tengri/isa.h" nogil:
    uint64_t tf_timer_ticks()
    double tf_timer_ns_per_tick()

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>

    static void *tengri_room(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

    /* Reading is what a weight is for: loads of the widest vectors that the machine has, eight accumulators, nothing else.
     * The sum is handed back so that the compiler may not drop the loads. */
    #if defined(__x86_64__) && defined(__GNUC__)
    #include <immintrin.h>

    __attribute__((target("avx512f"))) static int64_t sweep_avx512(const void *memory, size_t bytes) {
        const __m512i *p = (const __m512i *)memory;
        __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
        for (size_t i = 0; i + 8 <= bytes / 64; i += 8) {
            a = _mm512_xor_si512(_mm512_xor_si512(a, _mm512_load_si512(p + i)), _mm512_load_si512(p + i + 1));
            b = _mm512_xor_si512(_mm512_xor_si512(b, _mm512_load_si512(p + i + 2)), _mm512_load_si512(p + i + 3));
            c = _mm512_xor_si512(_mm512_xor_si512(c, _mm512_load_si512(p + i + 4)), _mm512_load_si512(p + i + 5));
            d = _mm512_xor_si512(_mm512_xor_si512(d, _mm512_load_si512(p + i + 6)), _mm512_load_si512(p + i + 7));
        }
        return _mm512_reduce_add_epi64(_mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
    }

    __attribute__((target("avx2"))) static int64_t sweep_avx2(const void *memory, size_t bytes) {
        const __m256i *p = (const __m256i *)memory;
        __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
        for (size_t i = 0; i + 8 <= bytes / 32; i += 8) {
            a = _mm256_xor_si256(_mm256_xor_si256(a, _mm256_load_si256(p + i)), _mm256_load_si256(p + i + 1));
            b = _mm256_xor_si256(_mm256_xor_si256(b, _mm256_load_si256(p + i + 2)), _mm256_load_si256(p + i + 3));
            c = _mm256_xor_si256(_mm256_xor_si256(c, _mm256_load_si256(p + i + 4)), _mm256_load_si256(p + i + 5));
            d = _mm256_xor_si256(_mm256_xor_si256(d, _mm256_load_si256(p + i + 6)), _mm256_load_si256(p + i + 7));
        }
        int64_t out[4];
        _mm256_storeu_si256((__m256i *)out, _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d)));
        return out[0] + out[1] + out[2] + out[3];
    }
    #endif

    static int64_t sweep_plain(const void *memory, size_t bytes) {
        const int64_t *p = (const int64_t *)memory;
        int64_t a = 0, b = 0, c = 0, d = 0;
        for (size_t i = 0; i + 4 <= bytes / 8; i += 4) {
            a ^= p[i];
            b ^= p[i + 1];
            c ^= p[i + 2];
            d ^= p[i + 3];
        }
        return a ^ b ^ c ^ d;
    }

    typedef int64_t (*tengri_sweep)(const void *, size_t);

    static tengri_sweep tengri_choose(void) {
    #if defined(__x86_64__) && defined(__GNUC__)
        if (__builtin_cpu_supports("avx512f")) return sweep_avx512;
        if (__builtin_cpu_supports("avx2")) return sweep_avx2;
    #endif
        return sweep_plain;
    }

    /* A chain of multiplications: always the same number of cycles, so that whatever varies is the machine's doing. */
    static uint64_t tengri_chain(uint64_t value, int count) {
        for (int i = 0; i < count; i++) value = value * 6364136223846793005u + 1442695040888963407u;
        return value;
    }
    """
    ctypedef int64_t (*tengri_sweep)(const void *, size_t) noexcept nogil
    void *tengri_room(size_t bytes) nogil
    tengri_sweep tengri_choose() nogil
    uint64_t tengri_chain(uint64_t value, int count) nogil

__all__ = ["canary_times", "measure_bandwidth", "noop_times"]

cdef double ns_per_tick = 0.0
# What the loops computed ends here, where the compiler cannot know that nobody reads it.
cdef volatile int64_t sink = 0


cdef double tick() except -1.0:
    global ns_per_tick
    if ns_per_tick == 0.0:
        ns_per_tick = tf_timer_ns_per_tick()
    return ns_per_tick


def measure_bandwidth(bytes, *, double seconds=0.02):
    """Bytes read per nanosecond (GB/s) by one core that sweeps a buffer again and again; the best of many rounds.

    Parameters
    ----------
    bytes : int
        Size of the buffer, >= 4096.
    seconds : float, default 0.02
        How long to measure.

    Raises
    ------
    ValueError
        If an argument is out of range.
    MemoryError
        If the buffer cannot be had.
    """
    global sink
    if not 4096 <= bytes <= 1 << 32:
        raise ValueError(f"`bytes` must lie in [4096, 2**32], was {bytes}")
    if not 0.0 < seconds <= 10.0:
        raise ValueError(f"`seconds` must lie in (0, 10], was {seconds}")
    cdef size_t size = bytes // 4096 * 4096
    cdef double scale = tick()
    cdef void *memory = tengri_room(size)
    if memory == NULL:
        raise MemoryError(f"{bytes} bytes for a bandwidth measurement")
    cdef tengri_sweep sweep = tengri_choose()
    cdef uint64_t start, end, begin, best = <uint64_t> -1
    # At least 64 KiB per round, so that the timer's cost does not count.
    cdef size_t repeats = 1 if size >= <size_t> 65536 else <size_t> 65536 // size
    cdef size_t r
    cdef int64_t held = 0
    with nogil:
        memset(memory, 1, size)
        begin = tf_timer_ticks()
        while True:
            start = tf_timer_ticks()
            for r in range(repeats):
                held += sweep(memory, size)
            end = tf_timer_ticks()
            if end - start < best:
                best = end - start
            if <double> (end - begin) * scale > seconds * 1e9:
                break
        free(memory)
    sink = held
    return <double> (size * repeats) / (<double> best * scale)


def noop_times(int n):
    """Nanoseconds between two readings of the timer with nothing between them: the floor of every latency table.

    Returns
    -------
    numpy.ndarray of float64, shape [n]
    """
    if n < 1:
        raise ValueError(f"`n` must be >= 1, was {n}")
    out = np.empty(n)
    cdef double[::1] times = out
    cdef double scale = tick()
    cdef uint64_t start
    cdef int i
    with nogil:
        for i in range(n):
            start = tf_timer_ticks()
            times[i] = <double> (tf_timer_ticks() - start) * scale
    return out


def canary_times(int n, *, int length=1000):
    """Nanoseconds of a fixed chain of `length` multiplications, `n` times. What varies is the machine, not the code.

    Returns
    -------
    numpy.ndarray of float64, shape [n]
    """
    global sink
    if n < 1 or length < 1:
        raise ValueError(f"`n` and `length` must be >= 1, were {n} and {length}")
    out = np.empty(n)
    cdef double[::1] times = out
    cdef double scale = tick()
    cdef uint64_t start, value = 1
    cdef int i
    with nogil:
        for i in range(n):
            start = tf_timer_ticks()
            value = tengri_chain(value, length)
            times[i] = <double> (tf_timer_ticks() - start) * scale
    sink = <int64_t> value
    return out
