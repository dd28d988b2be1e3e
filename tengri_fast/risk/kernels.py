"""numba kernels of the analyses: revaluation under scenarios, the tail of a result vector, Monte Carlo paths.

The order path is in C (csrc/risk); nothing here runs before an order. Importing this module only declares: nothing
compiles until :func:`warmup` walks through :data:`SIGNATURES`, which is also the list that a test checks against
``py_func``. Kernels release the lock, so that plain threads share their work (:mod:`tengri_fast.risk.monte_carlo`).

Scenario returns are float32, stored per instrument, and every sum is in double, because results of opposite sign
cancel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, types

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "BLOCK",
    "SIGNATURES",
    "draw_blocks",
    "normal_quantiles",
    "revalue",
    "tail",
    "uniforms",
    "warmup",
]


@njit(cache=True, nogil=True, error_model="numpy")
def tail(values: npt.NDArray[np.float64], mass: float, heap: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Value at risk and expected shortfall of ``values`` [S].

    ``heap`` [rank] is work space and its length chooses the order statistic; ``mass`` is the number of scenarios in
    the tail (:mod:`tengri_fast.risk.measures`). A heap of the ``rank`` smallest costs O(S + rank log rank log(S /
    rank)) on shuffled scenarios and O(S log rank) at worst, where a general selection has no small bound.
    """
    rank = heap.shape[0]
    for i in range(rank):
        child = i
        heap[child] = values[i]
        while child > 0:
            parent = (child - 1) // 2
            if heap[parent] >= heap[child]:
                break
            heap[parent], heap[child] = heap[child], heap[parent]
            child = parent
    for s in range(rank, values.shape[0]):
        value = values[s]
        if value < heap[0]:
            hole = 0
            while True:
                child = 2 * hole + 1
                if child >= rank:
                    break
                if child + 1 < rank and heap[child + 1] > heap[child]:
                    child += 1
                if heap[child] <= value:
                    break
                heap[hole] = heap[child]
                hole = child
            heap[hole] = value
    total = 0.0
    for i in range(1, rank):
        total += heap[i]
    return -heap[0], -(total + (mass - (rank - 1)) * heap[0]) / mass


# -- scenario paths ---------------------------------------------------------------------------------------------------

#: Paths per block. A block is one unit of work and its numbers depend on its index only, never on who computes it.
BLOCK = 256

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_ONE = np.uint64(1)
_FRACTION = 46  # bits of a double's fraction below the 64 segments of a margin table


@njit(cache=True, nogil=True, error_model="numpy")
def uniforms(seed: int, first: int, out: npt.NDArray[np.float64]) -> None:
    """Uniform numbers within (0, 1): outputs ``first``, ``first`` + 1, ... of SplitMix64 started at ``seed``.

    Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA, figure 16. Output n is a hash
    of seed + n golden, so any stretch can be had without the ones before it; the top 53 bits are used, plus a half.
    """
    start = np.uint64(seed) + np.uint64(first) * _GOLDEN
    for i in range(out.shape[0]):
        z = start + (np.uint64(i) + _ONE) * _GOLDEN
        z = (z ^ (z >> _S30)) * _MIX1
        z = (z ^ (z >> _S27)) * _MIX2
        out[i] = (np.float64((z ^ (z >> _S31)) >> _S11) + 0.5) * 2.0**-53


@njit(cache=True, nogil=True, error_model="numpy")
def normal_quantiles(
    u: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],
    where: npt.NDArray[np.int64],
    rest: npt.NDArray[np.float64],
    value: npt.NDArray[np.float64],
) -> None:
    """Standard normal quantiles of ``u`` [B] within (0, 1) to ``out`` [B]; relative error about 1e-16.

    Wichura 1988, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37, PPND16.
    The centre is computed for all without a branch and the 15 % outside it are collected first, so that both loops run
    on vectors. ``where``, ``rest`` and ``value`` [B + 1] are work space.
    """
    for i in range(u.shape[0]):
        q = u[i] - 0.5
        r = 0.180625 - q * q
        top = 2.5090809287301226727e3
        top = top * r + 3.3430575583588128105e4
        top = top * r + 6.7265770927008700853e4
        top = top * r + 4.5921953931549871457e4
        top = top * r + 1.3731693765509461125e4
        top = top * r + 1.9715909503065514427e3
        top = top * r + 1.3314166789178437745e2
        top = top * r + 3.3871328727963666080e0
        low = 5.2264952788528545610e3
        low = low * r + 2.8729085735721942674e4
        low = low * r + 3.9307895800092710610e4
        low = low * r + 2.1213794301586595867e4
        low = low * r + 5.3941960214247511077e3
        low = low * r + 6.8718700749205790830e2
        low = low * r + 4.2313330701600911252e1
        low = low * r + 1.0
        out[i] = q * (top / low)
    count = 0
    for i in range(u.shape[0]):
        where[count] = i
        count += 1 if abs(u[i] - 0.5) > 0.425 else 0
    for n in range(count):
        p = u[where[n]]
        rest[n] = math.sqrt(-math.log(min(p, 1.0 - p)))
    for n in range(count):
        r = rest[n] - 1.6
        top = 7.74545014278341407640e-4
        top = top * r + 2.27238449892691845833e-2
        top = top * r + 2.41780725177450611770e-1
        top = top * r + 1.27045825245236838258e0
        top = top * r + 3.64784832476320460504e0
        top = top * r + 5.76949722146069140550e0
        top = top * r + 4.63033784615654529590e0
        top = top * r + 1.42343711074968357734e0
        low = 1.05075007164441684324e-9
        low = low * r + 5.47593808499534494600e-4
        low = low * r + 1.51986665636164571966e-2
        low = low * r + 1.48103976427480074590e-1
        low = low * r + 6.89767334985100004550e-1
        low = low * r + 1.67638483018380384940e0
        low = low * r + 2.05319162663775882187e0
        low = low * r + 1.0
        value[n] = top / low
    for n in range(count):
        found = value[n]
        if rest[n] > 5.0:  # one draw in 10^11
            r = rest[n] - 5.0
            top = 2.01033439929228813265e-7
            top = top * r + 2.71155556874348757815e-5
            top = top * r + 1.24266094738807843860e-3
            top = top * r + 2.65321895265761230930e-2
            top = top * r + 2.96560571828504891230e-1
            top = top * r + 1.78482653991729133580e0
            top = top * r + 5.46378491116411436990e0
            top = top * r + 6.65790464350110377720e0
            low = 2.04426310338993978564e-15
            low = low * r + 1.42151175831644588870e-7
            low = low * r + 1.84631831751005468180e-5
            low = low * r + 7.86869131145613259100e-4
            low = low * r + 1.48753612908506148525e-2
            low = low * r + 1.36929880922735805310e-1
            low = low * r + 5.99832206555887937690e-1
            low = low * r + 1.0
            found = top / low
        i = where[n]
        out[i] = -found if u[i] < 0.5 else found


@njit(cache=True, nogil=True, error_model="numpy")
def correlate(
    root: npt.NDArray[np.float64], triangular: bool, z: npt.NDArray[np.float64], out: npt.NDArray[np.float64]
) -> None:
    """Write ``root`` [N][N] times ``z`` [>= N][B] to ``out`` [N][B]; a triangular root has nothing right of n."""
    instruments, paths = out.shape
    for n in range(instruments):
        target = out[n]
        last = n + 1 if triangular else instruments
        for j in range(paths):
            target[j] = 0.0
        k = 0
        while k + 4 <= last:
            a, b, c, d = root[n, k], root[n, k + 1], root[n, k + 2], root[n, k + 3]
            za, zb, zc, zd = z[k], z[k + 1], z[k + 2], z[k + 3]
            for j in range(paths):
                target[j] += (a * za[j] + b * zb[j]) + (c * zc[j] + d * zd[j])
            k += 4
        while k < last:
            a, za = root[n, k], z[k]
            for j in range(paths):
                target[j] += a * za[j]
            k += 1


@njit(cache=True, nogil=True, error_model="numpy")
def segments(
    x: npt.NDArray[np.float64],
    side: int,
    fraction: int,
    whole: npt.NDArray[np.float64],
    bits: npt.NDArray[np.int64],
    index: npt.NDArray[np.int64],
    place: npt.NDArray[np.float64],
) -> None:
    """Segment of every ``x`` [B] to ``index`` and the place within it, 0 to 1, to ``place``; ``bits`` views ``whole``.

    The exponent and the first 52 - ``fraction`` bits of 1 + |x| count 2^(52 - ``fraction``) segments per factor of two;
    ``side`` segments belong to x >= 0 and as many follow for x < 0. What lies beyond the table takes the end of its
    last segment.
    """
    first = 1023 << (52 - fraction)
    mask = (1 << fraction) - 1
    unit = 1.0 / np.float64(1 << fraction)
    for j in range(x.shape[0]):
        whole[j] = 1.0 + abs(x[j])
    for j in range(x.shape[0]):
        s = (bits[j] >> fraction) - first
        within = np.float64(bits[j] & mask) * unit
        beyond = s >= side
        place[j] = 1.0 if beyond else within
        s = side - 1 if beyond else s
        index[j] = s if x[j] >= 0.0 else s + side


@njit(cache=True, nogil=True, error_model="numpy")
def cubic(
    table: npt.NDArray[np.float64],
    index: npt.NDArray[np.int64],
    place: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],
) -> None:
    """Evaluate the cubic of each segment; ``table`` [2 side][4] holds its coefficients, constant first."""
    for j in range(out.shape[0]):
        t = place[j]
        s = index[j]
        out[j] = table[s, 0] + t * (table[s, 1] + t * (table[s, 2] + t * table[s, 3]))


@njit(cache=True, nogil=True, error_model="numpy")
def steps(
    thresholds: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    guide: npt.NDArray[np.int32],
    index: npt.NDArray[np.int64],
    x: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],
) -> None:
    """Evaluate an empirical margin: ``values`` [S] at the number of ``thresholds`` [S] below x; the last is infinite.

    ``guide`` [2 side] is that number at the lower end of each segment (Chen and Asau 1974). Segments are so fine that
    one comparison, without a branch, nearly always finishes the search.
    """
    for j in range(out.shape[0]):
        low = np.int64(guide[index[j]])
        low += 1 if thresholds[low] < x[j] else 0
        while thresholds[low] < x[j]:
            low += 1
        out[j] = values[low]


@njit(cache=True, nogil=True, error_model="numpy")
def add_results(
    code: int,
    coefficient: float,
    second: float,
    price: float,
    returns: npt.NDArray[np.float32],
    out: npt.NDArray[np.float64],
) -> None:
    """Add the results of one position under ``returns`` [S] to ``out`` [S].

    ``code`` is 0 linear, 1 inverse, 2 binary, 3 quadratic (Greeks); ``coefficient`` and ``second`` are the factors of
    the first and second order, quantity included (:func:`tengri_fast.risk.greeks.position_terms`).
    """
    if code == 0:
        for s in range(out.shape[0]):
            out[s] += coefficient * np.float64(returns[s])
    elif code == 1:
        for s in range(out.shape[0]):
            r = np.float64(returns[s])
            out[s] += coefficient * (r / (1.0 + r))
    elif code == 2:
        for s in range(out.shape[0]):
            out[s] += coefficient * (min(max(price * (1.0 + np.float64(returns[s])), 0.0), 1.0) - price)
    else:
        for s in range(out.shape[0]):
            r = np.float64(returns[s])
            out[s] += r * (coefficient + second * r)


@njit(cache=True, nogil=True, error_model="numpy")
def revalue(
    codes: npt.NDArray[np.int64],
    terms: npt.NDArray[np.float64],
    returns: npt.NDArray[np.float32],
    out: npt.NDArray[np.float64],
) -> None:
    """Result of a portfolio under ``returns`` [N][S], written to ``out`` [S]; ``terms`` [N][3] as in ``add_results``.

    Blocks of scenarios stay in the first-level cache while all instruments pass over them.
    """
    scenarios = out.shape[0]
    out[:] = 0.0
    for first in range(0, scenarios, 2048):
        last = min(first + 2048, scenarios)
        for n in range(codes.shape[0]):
            if terms[n, 0] != 0.0 or terms[n, 1] != 0.0:
                add_results(codes[n], terms[n, 0], terms[n, 1], terms[n, 2], returns[n, first:last], out[first:last])


@njit(cache=True, nogil=True, error_model="numpy")
def draw_blocks(
    first: int,
    last: int,
    seed: int,
    antithetic: bool,
    points: npt.NDArray[np.float64],
    root: npt.NDArray[np.float64],
    triangular: bool,
    mixing: npt.NDArray[np.float64],
    tables: npt.NDArray[np.float64],
    thresholds: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    guide: npt.NDArray[np.int32],
    guide_fraction: int,
    codes: npt.NDArray[np.int64],
    terms: npt.NDArray[np.float64],
    returns: npt.NDArray[np.float32],
    pnl: npt.NDArray[np.float64],
) -> None:
    """Draw the paths of blocks ``first`` to ``last`` - 1: joint returns [N][P], the portfolio's result [P], or both.

    Parameters are plain arrays so that any number of threads can work on disjoint blocks without Python; an array of
    size zero switches its part off.

    ``points`` [K][P] are given uniform numbers (Sobol); empty: SplitMix64 of ``seed``, with ``antithetic`` the second
    half of a block mirrors the first. K is N, and one more with ``mixing`` [2 side][4], the table that turns a normal
    into sqrt(nu / chi2), which makes the copula Student's. Margins are cubics, ``tables`` [N][2 side][4], or steps,
    ``thresholds`` [S] on ``values`` [N][S] with ``guide`` [2 side] and its segments' ``guide_fraction``.
    ``returns`` and ``pnl`` are written.
    """
    instruments = root.shape[0]
    heavy = mixing.shape[0] > 0
    dimensions = instruments + 1 if heavy else instruments
    empirical = thresholds.shape[0] > 0
    keep = returns.shape[1] > 0
    priced = pnl.shape[0] > 0
    paths = returns.shape[1] if keep else pnl.shape[0]
    fresh = BLOCK // 2 if antithetic else BLOCK
    u = np.empty(BLOCK)
    z = np.empty((dimensions, BLOCK))
    x = np.empty((instruments, BLOCK))
    scale = np.empty(BLOCK)
    place = np.empty(BLOCK)
    whole = np.empty(BLOCK)
    bits = whole.view(np.int64)
    where = np.empty(BLOCK + 1, np.int64)
    rest = np.empty(BLOCK + 1)
    value = np.empty(BLOCK + 1)
    index = np.empty(BLOCK, np.int64)
    drawn = np.empty(BLOCK)
    rounded = np.empty(BLOCK, np.float32)
    sums = np.empty(BLOCK)
    for block in range(first, last):
        start = block * BLOCK
        count = min(BLOCK, paths - start)
        for k in range(dimensions):
            if points.shape[1] > 0:
                for j in range(count):
                    u[j] = points[k, start + j]
                for j in range(count, BLOCK):
                    u[j] = 0.5
                normal_quantiles(u, z[k], where, rest, value)
            else:
                uniforms(seed, (block * dimensions + k) * fresh, u[:fresh])
                normal_quantiles(u[:fresh], z[k, :fresh], where, rest, value)
                if antithetic:
                    # The mixing variable is shared: mirrored are the directions, which is what cancels.
                    sign = 1.0 if k == instruments else -1.0
                    for j in range(fresh):
                        z[k, fresh + j] = sign * z[k, j]
        correlate(root, triangular, z, x)
        if heavy:
            side = mixing.shape[0] // 2
            segments(z[instruments], side, _FRACTION, whole, bits, index, place)
            cubic(mixing, index, place, scale)
            for n in range(instruments):
                for j in range(BLOCK):
                    x[n, j] *= scale[j]
        sums[:] = 0.0
        for n in range(instruments):
            if empirical:
                segments(x[n], guide.shape[0] // 2, guide_fraction, whole, bits, index, place)
                steps(thresholds, values[n], guide, index, x[n], drawn)
            else:
                segments(x[n], tables.shape[1] // 2, _FRACTION, whole, bits, index, place)
                cubic(tables[n], index, place, drawn)
            for j in range(BLOCK):
                rounded[j] = np.float32(drawn[j])
            if keep:
                for j in range(count):
                    returns[n, start + j] = rounded[j]
            if priced:
                add_results(codes[n], terms[n, 0], terms[n, 1], terms[n, 2], rounded, sums)
        if priced:
            for j in range(count):
                pnl[start + j] = sums[j]


_RETURNS, _VECTOR, _TABLE, _INDEX = "f4[:, ::1]", "f8[::1]", "f8[:, ::1]", "i8[::1]"
# The returns of a scenario set are read-only; a kernel that only reads them takes both kinds.
_READ = types.Array(types.float32, 2, "C", readonly=True)
_ROW = types.Array(types.float32, 1, "C", readonly=True)

#: Every kernel with the one signature it is used with.
SIGNATURES: tuple[tuple[Any, Any], ...] = (
    (tail, f"UniTuple(f8, 2)({_VECTOR}, f8, {_VECTOR})"),
    (uniforms, f"void(u8, i8, {_VECTOR})"),
    (normal_quantiles, f"void({_VECTOR}, {_VECTOR}, {_INDEX}, {_VECTOR}, {_VECTOR})"),
    (correlate, f"void({_TABLE}, b1, {_TABLE}, {_TABLE})"),
    (segments, f"void({_VECTOR}, i8, i8, {_VECTOR}, {_INDEX}, {_INDEX}, {_VECTOR})"),
    (cubic, f"void({_TABLE}, {_INDEX}, {_VECTOR}, {_VECTOR})"),
    (steps, f"void({_VECTOR}, {_VECTOR}, i4[::1], {_INDEX}, {_VECTOR}, {_VECTOR})"),
    (add_results, types.void(types.int64, types.float64, types.float64, types.float64, _ROW, types.float64[::1])),
    (revalue, types.void(types.int64[::1], types.float64[:, ::1], _READ, types.float64[::1])),
    (
        draw_blocks,
        f"void(i8, i8, u8, b1, {_TABLE}, {_TABLE}, b1, {_TABLE}, f8[:, :, ::1], {_VECTOR}, {_TABLE}, i4[::1], i8, "
        f"{_INDEX}, {_TABLE}, {_RETURNS}, {_VECTOR})",
    ),
)


def warmup() -> None:
    """Compile every kernel, or load it from numba's cache; a second call does nothing."""
    for function, signature in SIGNATURES:
        function.compile(signature)
