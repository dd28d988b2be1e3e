"""16-bit weights: rounding to binary16 and bfloat16, and their products and LSTM steps on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from inference import reference
from inference.kernel_support import EPS, ISAS, SIZES, guarded, inputs, moved, unharmed, up16

from tengri_fast import _native

HALVES = ("f16", "bf16")


def edges(dtype: str) -> np.ndarray:
    """Every finite value of the format, the middle of every two neighbours, and the floats beside each middle."""
    bits = np.arange(0x7C00 if dtype == "f16" else 0x7F80, dtype=np.uint16)
    values = reference.widen(bits, dtype)
    middles = ((values[1:] + values[:-1]) / 2).astype(np.float32)  # exact: one more bit than the format has
    assert (middles == (values[1:] + values[:-1]) / 2).all()
    beside = [np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, np.float32(0))]
    positive = np.concatenate([values.astype(np.float32), middles, *beside])
    return np.concatenate([positive, -positive])


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_is_to_nearest_even(dtype: str) -> None:
    rng = np.random.default_rng(5)
    random = rng.integers(0, 2**32, 300_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, 3.4e38, 65504, 65519.996, 65520])
    special = special.astype(np.float32)
    x = np.concatenate([edges(dtype), random, special])
    got = _native.half_bits(x, dtype)
    nan = np.isnan(x)
    assert np.isnan(reference.widen(got[nan], dtype)).all()
    x, got = x[~nan], got[~nan]
    if dtype == "f16":
        with np.errstate(over="ignore"):
            want = x.astype(np.float16).view(np.uint16)  # NumPy rounds to nearest even
    else:
        # By hand in float64: the two neighbours by truncation, the nearer one, the even one on a tie.
        low = x.view(np.uint32) >> 16
        below = (low << 16).view(np.float32).astype(np.float64)
        with np.errstate(over="ignore"):
            step = np.where((low & 0x7F80) > 0x0080, 2.0 ** (((low & 0x7F80) >> 7).astype(float) - 134), 2.0**-133)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            rest = np.abs(x.astype(np.float64)) - np.abs(below)
        raised = (rest > step / 2) | ((rest == step / 2) & (low & 1 == 1))
        want = (low + np.where(np.isinf(x), False, raised)).astype(np.uint16)
    assert (got == want).all(), x[got != want][:5]


def test_packing_refuses_what_the_format_cannot_hold() -> None:
    for dtype, most in (("f16", 65519.0), ("bf16", 3.38e38)):
        fine = np.array([most, -most, 1e-45, 0], np.float32)
        assert _native.pack_halves(fine, dtype).dtype == np.uint16
        for bad in (np.inf, np.nan, 3.4028235e38 if dtype == "bf16" else 65520.0):
            with pytest.raises(ValueError, match="finite in " + dtype):
                _native.pack_halves(np.array([1, bad], np.float32), dtype)
    with pytest.raises(ValueError, match="f16 or bf16"):
        _native.pack_halves(np.zeros(1, np.float32), "f8")
    with pytest.raises(ValueError, match="f16 or bf16"):
        _native.half_bits(np.zeros(1, np.float32), "f8")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", HALVES)
def test_every_weight_is_widened_exactly(isa: str, dtype: str) -> None:
    """All 65,536 bit patterns, times one, in panels of every width."""
    bits = np.arange(65_536, dtype=np.uint16)
    want = reference.widen(bits, dtype)
    for rows in (16, 32, 64, 128, 240):
        z, base = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
        for first in range(0, len(bits) - rows + 1, rows):
            part = np.ascontiguousarray(bits[first : first + rows])
            _native.call("gemv", dtype, isa, part, np.ones(1, np.float32), base, z, rows, 1)
            with np.errstate(invalid="ignore"):
                expected = want[first : first + rows].astype(np.float32)
            assert ((z == expected) | (np.isnan(z) & np.isnan(expected))).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("n", SIZES)
def test_gemv(isa: str, dtype: str, n: int) -> None:
    rng = np.random.default_rng(n)
    cases = [(k, shift, kind) for k in (1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33, 65)
             for shift, kind in ((0, "normal"), (1, "normal"), (3, "price"), (0, "denormal"))]  # fmt: skip
    for k, shift, kind in [*cases, (1000, 1, "normal")]:
        plain = rng.standard_normal((n, k)).astype(np.float32)
        rounded = reference.widen(_native.half_bits(plain, dtype), dtype)
        packed = moved(_native.pack_halves(_native.pack(plain), dtype), shift)
        x = inputs(kind, k, rng)
        base = np.zeros(up16(n), np.float32)
        base[:n] = rng.standard_normal(n)
        whole, z = guarded(up16(n), shift)
        _native.call("gemv", dtype, isa, packed, x, base, z, n, k)
        assert unharmed(whole, up16(n), shift)
        scale = np.abs(base[:n]) + np.abs(rounded) @ np.abs(x.astype(float))
        error = np.abs(z[:n] - reference.gemv(rounded, x, base[:n]))
        assert (error <= (k + 4) * EPS * scale + 1e-44 * k).all()
        assert (z[n:] == 0).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("n", SIZES)
def test_same_bits_as_float32_kernels_on_the_widened_weights(isa: str, dtype: str, n: int) -> None:
    """Widening is exact and the order of sums is the same, so nothing may differ; the LSTM step is its three parts."""
    rng = np.random.default_rng(n + 7)
    for k in (1, 5, 19):
        halves = _native.pack_halves(_native.pack(rng.standard_normal((n, k)) * 40), dtype)
        wide = reference.widen(halves, dtype).astype(np.float32)
        x, base = inputs("normal", k, rng), inputs("normal", up16(n), rng)
        one, two = np.zeros(up16(n), np.float32), np.zeros(up16(n), np.float32)
        _native.call("gemv", dtype, isa, halves, x, base, one, n, k)
        _native.call("gemv", "f32", isa, wide, x, base, two, n, k)
        assert (one == two).all()
        blocks = min(n, 97) // 16 + 1
        halves = _native.pack_halves(_native.pack(rng.standard_normal((64 * blocks, k))), dtype)
        wide = reference.widen(halves, dtype).astype(np.float32)
        pre, state = inputs("normal", 64 * blocks, rng), inputs("normal", 16 * blocks, rng)
        c_whole, c = guarded(16 * blocks)
        h_whole, h = guarded(16 * blocks)
        c[:] = state
        _native.call("lstm_finish", dtype, isa, halves, x, pre, c, h, blocks, k)
        assert unharmed(c_whole, 16 * blocks)
        assert unharmed(h_whole, 16 * blocks)
        z, want_c, want_h = np.zeros(64 * blocks, np.float32), state.copy(), np.zeros(16 * blocks, np.float32)
        _native.call("gemv", "f32", isa, wide, x, pre, z, 64 * blocks, k)
        _native.call("scale", "f32", isa, z, z, np.float32(reference.LOG2E), 64 * blocks)
        _native.call("lstm_gates", "f32", isa, z, want_c, want_h, blocks)
        assert (c == want_c).all()
        assert (h == want_h).all()


def in_blocks(w: np.ndarray) -> np.ndarray:
    """Rows i, f, g, o of [4H, k] in the order of csrc/nn/lstm_f32.h, with the factors of 16-bit weights."""
    hidden = len(w) // 4
    blocks = (hidden + 15) // 16
    out = np.zeros((4, 16 * blocks, w.shape[1]), np.float32)
    out[:, :hidden] = w.reshape(4, hidden, -1) * np.array([-1, -1, 2, -1], np.float32)[:, None, None]
    return np.ascontiguousarray(out.reshape(4, blocks, 16, -1).transpose(1, 0, 2, 3).reshape(64 * blocks, -1))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("n", SIZES[:-1])
def test_lstm_finish(isa: str, dtype: str, n: int) -> None:
    """The error is that of float32 arithmetic on the rounded weights: the gates' factors are exact in the format."""
    rng = np.random.default_rng(n * 37)
    for k in (1, 2, 7, 16, 65):
        blocks = (n + 15) // 16
        plain = (rng.standard_normal((4 * n, k)) / np.sqrt(k)).astype(np.float32)
        w = reference.widen(_native.half_bits(plain, dtype), dtype)
        packed = _native.pack_halves(_native.pack(in_blocks(w)), dtype)
        x = inputs("normal", k, rng)
        pre = rng.standard_normal(4 * n).astype(np.float32)
        c, h = np.zeros(16 * blocks, np.float32), np.zeros(16 * blocks, np.float32)
        c[:n] = rng.standard_normal(n)
        before = c[:n].copy()
        _native.call("lstm_finish", dtype, isa, packed, x, in_blocks(pre[:, None]).reshape(-1), c, h, blocks, k)
        want_c, want_h = reference.lstm_finish(w, x, pre, before)
        size = np.abs(pre) + np.abs(w) @ np.abs(x.astype(float))
        bound = (16 + (k + 6) * size.reshape(4, n).max(axis=0)) * EPS * np.maximum(1, np.abs(before))
        assert (np.abs(c[:n] - want_c) <= bound).all()
        assert (np.abs(h[:n] - want_h) <= bound).all()
        assert (c[n:] == 0).all(), "padding rows have zero weights"


@pytest.mark.skipif("avx512" not in ISAS, reason="this machine has no AVX-512: there is nothing to compare AVX2 with")
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("n", SIZES)
def test_vector_instruction_sets_agree_to_the_bit(dtype: str, n: int) -> None:
    rng = np.random.default_rng(n)
    packed = _native.pack_halves(_native.pack(rng.standard_normal((n, 19))), dtype)
    x, base = inputs("normal", 19, rng), np.zeros(up16(n), np.float32)
    rows = [np.zeros(up16(n), np.float32) for _ in ISAS]
    for isa, z in zip(ISAS, rows, strict=True):
        _native.call("gemv", dtype, isa, packed, x, base, z, n, 19)
    assert all((z == rows[-1]).all() for isa, z in zip(ISAS, rows, strict=True) if isa != "scalar")
