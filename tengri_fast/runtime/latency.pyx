"""A histogram of nanoseconds that is cheap enough to be kept on every tick."""

from libc.math cimport ceil
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

import numpy as np


cdef inline uint64_t lower_edge(uint32_t index) noexcept nogil:
    """The smallest value that falls into a bucket of the histogram."""
    if index < 128:
        return index
    return <uint64_t>(index % 64 + 64) << (index // 64 - 1)


cdef class LatencyHistogram:
    """Counts nanoseconds in log-linear buckets: exact below 128 ns, then 64 buckets to each power of two.

    The relative width of a bucket is at most 1/64. Recording takes no branch that depends on history and no memory.
    """

    def __cinit__(self):
        self.clear()

    cdef void record(self, uint64_t nanoseconds) noexcept nogil:
        cdef uint64_t value = nanoseconds
        cdef uint32_t power = 0
        if value > self.maximum:
            self.maximum = value
        if value >= <uint64_t>1 << 40:
            value = (<uint64_t>1 << 40) - 1
        self.total += 1
        while value >= 128:
            value >>= 1
            power += 1
        self.counts[64 * power + value] += 1

    def add(self, uint64_t nanoseconds):
        """Records one value from Python."""
        self.record(nanoseconds)

    def clear(self):
        """Forgets everything."""
        memset(self.counts, 0, sizeof(self.counts))
        self.total = 0
        self.maximum = 0

    def percentile(self, double q):
        """The value below which ``q`` per cent of the records lie, in nanoseconds (upper edge of its bucket).

        Returns 0 when nothing was recorded.
        """
        cdef uint64_t seen = 0
        cdef uint32_t i
        if not 0.0 <= q <= 100.0:
            raise ValueError(f"`q` must be between 0 and 100, was {q}")
        if self.total == 0:
            return 0
        cdef uint64_t wanted = <uint64_t>max(1.0, ceil(<double>self.total * q / 100.0))
        for i in range(41 * 64):
            seen += self.counts[i]
            if seen >= wanted:
                return min(self.maximum, lower_edge(i + 1) - 1 if i >= 127 else i)
        return self.maximum

    def summary(self):
        """``{"p50", "p99", "p999", "max"}`` in nanoseconds."""
        return {"p50": self.percentile(50), "p99": self.percentile(99), "p999": self.percentile(99.9),
                "max": self.maximum}

    def buckets(self):
        """Lower edges (uint64, ns) and counts (uint64) of the buckets that are not empty."""
        filled = [i for i in range(41 * 64) if self.counts[i]]
        edges = np.array([lower_edge(i) for i in filled], dtype=np.uint64)
        return edges, np.array([self.counts[i] for i in filled], dtype=np.uint64)
