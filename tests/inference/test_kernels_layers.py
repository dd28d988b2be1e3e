"""Rows of kernels.def under layers: arithmetic of rows, norms, positions, attention and GRU gates, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from inference import reference
from inference.kernel_support import EPS, ISAS, SIZES, guarded, inputs, moved, unharmed, up16

from tengri_fast import _native

KINDS = ("normal", "wide", "small", "denormal", "flat", "zero", "price", "huge")
EMPTY = np.float32(-1e30)
AVX512 = pytest.mark.skipif("avx512" not in ISAS, reason="this machine has no AVX-512: nothing to compare AVX2 with")


def run(op: str, isa: str, arrays: list[Any], n: int, *numbers: float, shift: int = 0) -> np.ndarray:
    """`arrays` in, n floats out between guard words; the inputs must come back as they went in."""
    given = [None if array is None else moved(array, shift) for array in arrays]
    whole, y = guarded(n, shift)
    _native.call(op, "f32", isa, *given, y, *numbers)
    assert unharmed(whole, n, shift), op
    for array, copy in zip(arrays, given, strict=True):
        assert array is None or np.array_equal(array.reshape(-1), copy, equal_nan=True), op
    return y


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a.view(np.uint32) == b.view(np.uint32)).all())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", SIZES)
def test_arithmetic_of_rows(isa: str, n: int) -> None:
    rng = np.random.default_rng(n)
    for kind in KINDS:
        for shift in (0, 1, 5):
            a, b, base = inputs(kind, n, rng), inputs(kind, n, rng), inputs("normal", n, rng)
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                exact = {"add": a + b, "mul": a * b, "max": np.maximum(a, b)}
            for op, want in exact.items():
                got = run(op, isa, [a, b], n, n, shift=shift)
                assert same_bits(got, want) or (op == "max" and (got == want).all()), op  # max of +0 and -0
                in_place = moved(a, shift)
                _native.call(op, "f32", isa, in_place, moved(b, shift), in_place, n)
                assert same_bits(in_place, got), op
            with np.errstate(over="ignore", under="ignore"):
                assert same_bits(run("scale", isa, [a], n, 0.3, n, shift=shift), np.float32(0.3) * a)
                leaky = np.where(a > 0, a, np.float32(0.01) * a)
            assert same_bits(run("leaky_relu", isa, [a], n, 0.01, n, shift=shift), leaky)
            if kind != "huge":
                got = run("tap", isa, [a, b, base], n, n, shift=shift)
                size = np.abs(base.astype(float)) + np.abs(a.astype(float) * b)
                assert (np.abs(got - reference.tap(a, b, base)) <= 5 * EPS * size + 2e-45).all()


@pytest.mark.parametrize("isa", ISAS)
def test_nan_and_infinity_in_arithmetic(isa: str) -> None:
    nan, inf = np.float32(np.nan), np.float32(np.inf)
    for n in (1, 5, 16, 21):
        one = np.ones(n, np.float32)
        holes = np.where(np.arange(n) % 3 == 0, nan, one)
        for a, b in ((holes, one), (one, holes), (holes, holes)):
            want = np.isnan(a) | np.isnan(b)
            for op in ("add", "mul", "max"):
                assert (np.isnan(run(op, isa, [a, b], n, n)) == want).all(), op
            assert (np.isnan(run("tap", isa, [a, one, b], n, n)) == want).all()
        for op, numbers in (("leaky_relu", (0.1, n)), ("scale", (2.0, n))):
            assert (np.isnan(run(op, isa, [holes], n, *numbers)) == np.isnan(holes)).all(), op
        ends = np.where(np.arange(n) % 2, inf, -inf).astype(np.float32)
        assert (run("max", isa, [ends, one], n, n) == np.maximum(ends, one)).all()
        assert (run("leaky_relu", isa, [ends], n, 0.5, n) == ends).all()


def norm_bound(op: str, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray | None, eps: float) -> np.ndarray:
    """The `norm` class of kernels.def."""
    x = x.astype(float)
    centre = x.mean() if op == "layernorm" else 0.0
    divisor = np.sqrt(((x - centre) ** 2).mean() + np.float32(eps))
    spread = np.abs(x - x[0]).max() if op == "layernorm" else 0.0
    unit = np.abs(x - centre) / divisor
    size = np.abs(gamma.astype(float)) * (spread / divisor + unit)
    if beta is not None:
        size = size + np.abs(beta.astype(float))
    return (len(x) / 64 + 12) * EPS * size + 1e-44


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("n", SIZES)
def test_norms(isa: str, op: str, n: int) -> None:
    rng = np.random.default_rng(n)
    for kind in ("normal", "wide", "small", "flat", "zero", "price"):
        for shift, with_beta, eps in ((0, True, 1e-5), (1, False, 1e-5), (3, True, 1e-12)):
            x, gamma, beta = inputs(kind, n, rng), inputs("normal", n, rng), inputs("normal", n, rng)
            given = beta if with_beta else None
            x_copy, g_copy = moved(x, shift), moved(gamma, shift)
            b_copy = None if given is None else moved(given, shift)
            whole, y = guarded(n, shift)
            _native.call(op, "f32", isa, x_copy, g_copy, b_copy, y, eps, n)
            assert unharmed(whole, n, shift)
            want = getattr(reference, op)(x, gamma, given, eps)
            assert (np.abs(y - want) <= norm_bound(op, x, gamma, given, eps)).all(), (kind, shift)
            _native.call(op, "f32", isa, x_copy, g_copy, b_copy, x_copy, eps, n)
            assert same_bits(x_copy, y), "in place gives the same bits"


@pytest.mark.parametrize("isa", ISAS)
def test_norms_keep_the_digits_of_prices(isa: str) -> None:
    """At 65,000 a float32 step is 1/128: the row holds few digits, and none of them may be lost."""
    rng = np.random.default_rng(8)
    x = (65_000 + np.round(rng.uniform(-2, 2, 64) * 128) / 128).astype(np.float32)
    assert len(np.unique(x)) > 50
    one, y = np.ones(64, np.float32), np.zeros(64, np.float32)
    _native.call("layernorm", "f32", isa, x, one, None, y, 1e-9, 64)
    assert np.abs(y - reference.layernorm(x, one, None, 1e-9)).max() < 2e-6


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["layernorm", "rmsnorm"])
def test_norms_of_hostile_rows(isa: str, op: str) -> None:
    for n in (1, 17, 64, 100):
        one, y = np.ones(n, np.float32), np.zeros(n, np.float32)
        for at in {0, n // 2, n - 1}:
            x = np.linspace(-1, 1, n).astype(np.float32)
            x[at] = np.nan
            _native.call(op, "f32", isa, x, one, None, y, 1e-5, n)
            assert np.isnan(y).all()
            x[at] = np.inf
            _native.call(op, "f32", isa, x, one, None, y, 1e-5, n)
            assert np.isnan(y[at])
        # Squares that overflow: the divisor is infinite.
        x = np.where(np.arange(n) % 2, 1e30, -1e30).astype(np.float32)
        _native.call(op, "f32", isa, x, one, one, y, 1e-5, n)
        assert (y == 1).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("interleaved", [0, 1])
def test_rope(isa: str, interleaved: int) -> None:
    rng = np.random.default_rng(4)
    for dim in (2, 4, 6, 8, 10, 14, 16, 18, 24, 30, 32, 34, 36, 64, 66, 128, 1000):
        for heads, shift in ((1, 0), (3, 1), (4, 0)):
            x = inputs("normal", heads * dim, rng).reshape(heads, dim)
            angle = rng.uniform(-np.pi, np.pi, dim // 2)
            turn = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
            got = run("rope", isa, [x, turn], heads * dim, heads, dim, interleaved, shift=shift).reshape(heads, dim)
            want = reference.rope(x, turn, bool(interleaved))
            size = rope_size(np.abs(x), np.abs(turn), bool(interleaved))
            assert (np.abs(got - want) <= 6 * EPS * size + 1e-44).all(), (dim, heads)
            in_place = moved(x, shift)
            _native.call("rope", "f32", isa, in_place, turn.reshape(-1), in_place, heads, dim, interleaved)
            assert same_bits(in_place, got.reshape(-1))


def rope_size(x: np.ndarray, turn: np.ndarray, interleaved: bool) -> np.ndarray:
    """Sum of the moduli of the two products under each result."""
    half = x.shape[1] // 2
    first = np.arange(half) * 2 if interleaved else np.arange(half)
    second = first + (1 if interleaved else half)
    out = np.zeros(x.shape)
    out[:, first] = x[:, first] * turn[:, 0] + x[:, second] * turn[:, 1]
    out[:, second] = x[:, second] * turn[:, 0] + x[:, first] * turn[:, 1]
    return out


def attention(rng: np.random.Generator, heads: int, group: int, dim: int, value_dim: int, slots: int, seen: int) -> Any:
    """Plain q, k, v, bias with `seen` random slots seen, and k, v in the layout of csrc/nn/attend_f32.h."""
    kv = heads // group
    q = inputs("normal", heads * dim, rng).reshape(heads, dim)
    k = rng.standard_normal((kv, slots, dim)).astype(np.float32)
    v = inputs("normal", kv * slots * value_dim, rng).reshape(kv, slots, value_dim)
    bias = np.where(rng.permutation(slots) < seen, 0.0, EMPTY).astype(np.float32)
    bias = bias + np.where(bias == 0, -rng.uniform(0, 4, (heads, slots)), 0).astype(np.float32)
    keys = np.ascontiguousarray(k.reshape(kv, slots // 16, 16, dim).transpose(0, 1, 3, 2))
    values = np.zeros((slots, up16(kv * value_dim)), np.float32)
    values[:, : kv * value_dim] = v.transpose(1, 0, 2).reshape(slots, -1)
    return q, k, v, bias, keys, values


SHAPES = [
    (1, 1, 1, 1, 16), (1, 1, 16, 16, 16), (2, 1, 8, 8, 32), (4, 1, 16, 16, 128), (4, 1, 16, 16, 112),
    (4, 2, 16, 16, 48), (4, 4, 16, 32, 144), (3, 1, 5, 7, 80), (2, 1, 64, 64, 256), (2, 2, 20, 20, 64),
    (1, 1, 33, 80, 48), (6, 2, 10, 12, 160), (5, 1, 16, 16, 64), (3, 1, 32, 48, 272), (1, 1, 16, 4, 1008),
    (4, 1, 16, 40, 64), (3, 3, 8, 80, 32),
]  # fmt: skip


def attend(
    isa: str, q: Any, keys: Any, values: Any, bias: Any, group: int, value_dim: int, shift: int = 0
) -> np.ndarray:
    heads, dim = q.shape
    slots = bias.shape[1]
    given = [moved(array, shift) for array in (q, keys, values, bias)]
    before = [array.copy() for array in given]
    p_whole, p = guarded(heads * slots, shift)
    y_whole, y = guarded(heads * value_dim, shift)
    _native.call("attend", "f32", isa, *given, p, y, heads, group, dim, value_dim, slots)
    assert unharmed(p_whole, heads * slots, shift)
    assert unharmed(y_whole, heads * value_dim, shift)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(given, before, strict=True))
    return y.reshape(heads, value_dim)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_attend(isa: str, shape: tuple[int, int, int, int, int]) -> None:
    heads, group, dim, value_dim, slots = shape
    rng = np.random.default_rng(slots + dim)
    for seen, shift in ((slots, 0), (slots - 5, 1), (1, 0), (slots // 2, 3)):
        q, k, v, bias, keys, values = attention(rng, heads, group, dim, value_dim, slots, seen)
        got = attend(isa, q, keys, values, bias, group, value_dim, shift)
        want = reference.attend(q, k, v, bias)
        open_slots = bias > EMPTY / 2
        size = np.abs(bias) + np.einsum("hd,hsd->hs", np.abs(q), np.abs(np.repeat(k, group, axis=0)))
        size = np.where(open_slots, size, 0).max(axis=1)
        most = np.where(open_slots[:, :, None], np.abs(np.repeat(v, group, axis=0)), 0).max(axis=(1, 2))
        bound = EPS * (2 * (dim + 4) * size + slots / 4 + 16) * most
        assert (np.abs(got - want) <= bound[:, None]).all()


@pytest.mark.parametrize("isa", ISAS)
def test_attend_takes_nothing_from_slots_that_are_not_seen(isa: str) -> None:
    rng = np.random.default_rng(3)
    q, _, _, bias, keys, values = attention(rng, 4, 1, 16, 16, 64, 20)
    first = attend(isa, q, keys, values, bias, 1, 16)
    shut = bias[0] < EMPTY / 2
    values[shut] = 1e38  # finite, as the header demands, and in no way small
    assert same_bits(attend(isa, q, keys, values, bias, 1, 16).reshape(-1), first.reshape(-1))
    bias[:, shut] = -np.inf
    assert same_bits(attend(isa, q, keys, values, bias, 1, 16).reshape(-1), first.reshape(-1))
    # One slot seen: its value, exactly.
    bias[:] = EMPTY
    bias[:, 33] = 0
    assert (attend(isa, q, keys, values, bias, 1, 16).reshape(-1) == values[33]).all()


@pytest.mark.parametrize("isa", ISAS)
def test_attend_with_hostile_scores(isa: str) -> None:
    rng = np.random.default_rng(6)
    q, k, v, bias, keys, values = attention(rng, 2, 1, 16, 16, 64, 64)
    q[0] *= 1e6  # scores of a few million: one slot takes all
    got = attend(isa, q, keys, values, bias, 1, 16)
    assert np.abs(got - reference.attend(q, k, v, bias)).max() < 1e-4
    q[0, 3] = np.nan
    got = attend(isa, q, keys, values, bias, 1, 16)
    assert np.isnan(got[0]).all()
    assert np.isfinite(got[1]).all()


@AVX512
@pytest.mark.parametrize("shape", SHAPES)
def test_attend_agrees_to_the_bit(shape: tuple[int, int, int, int, int]) -> None:
    heads, group, dim, value_dim, slots = shape
    rng = np.random.default_rng(slots)
    q, _, _, bias, keys, values = attention(rng, heads, group, dim, value_dim, slots, slots - 3)
    rows = [attend(isa, q, keys, values, bias, group, value_dim) for isa in ISAS if isa != "scalar"]
    assert all(same_bits(row.reshape(-1), rows[0].reshape(-1)) for row in rows)


FACTOR = np.array([-1, -1, 2]) * reference.LOG2E


def gru_layout(plain: np.ndarray) -> np.ndarray:
    """Plain sums [3, units] in the padded layout of csrc/nn/gru_f32.h, with the factors that packing applies."""
    out = np.zeros((3, up16(plain.shape[1])))
    out[:, : plain.shape[1]] = plain * FACTOR[:, None]
    return out.astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", SIZES)
def test_gru_gates(isa: str, n: int) -> None:
    rng = np.random.default_rng(n)
    blocks, units = (n + 15) // 16, up16(n)
    kinds = ("normal", "wide", "small", "zero", "flat", "huge")
    for kind, shift in [(kind, shift) for kind in kinds for shift in (0, 1)]:
        zx, zh = (gru_layout(np.clip(inputs(kind, 3 * n, rng).reshape(3, n), -3e37, 3e37)) for _ in range(2))
        h = np.zeros(units, np.float32)
        h[:n] = rng.standard_normal(n)
        # The oracle starts from the rounded, scaled sums: their rounding belongs to the caller.
        plain_x, plain_h = (part[:, :n].astype(np.float64) / FACTOR[:, None] for part in (zx, zh))
        sums = np.minimum(np.abs(plain_x) + np.abs(plain_h), 100).max(axis=0)
        bound = (16 + 4 * sums) * EPS * np.maximum(1, np.abs(h[:n]))
        for op in ("gru_gates", "gru_late"):
            whole, state = guarded(units, shift)
            state[:] = h
            _native.call(op, "f32", isa, moved(zx, shift), moved(zh, shift), state, blocks)
            assert unharmed(whole, units, shift)
            assert np.isfinite(state).all()
            want = getattr(reference, op)(plain_x, plain_h, h[:n])
            assert (np.abs(state[:n] - want) <= bound).all(), (op, kind)
        whole, reset = guarded(units, shift)
        given = moved(h, shift)
        _native.call("gru_reset", "f32", isa, moved(zx, shift), moved(zh, shift), given, reset, blocks)
        assert unharmed(whole, units, shift)
        assert (given == h).all()
        assert (np.abs(reset[:n] - reference.gru_reset(plain_x, plain_h, h[:n])) <= bound).all(), kind


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("gate", range(3))
def test_nan_in_a_gru_gate_stays_in_its_unit(isa: str, gate: int) -> None:
    for n in (1, 16, 33):
        plain = np.zeros((3, n))
        plain[gate, n - 1] = np.nan
        zx, zh = gru_layout(plain), gru_layout(np.ones((3, n)))
        for op in ("gru_gates", "gru_late"):
            if op == "gru_late" and gate == 0:
                continue  # it does not read r
            h = np.full(up16(n), 0.5, np.float32)
            _native.call(op, "f32", isa, zx.reshape(-1), zh.reshape(-1), h, up16(n) // 16)
            assert np.isnan(h[n - 1])
            assert np.isfinite(np.delete(h, n - 1)).all()
        if gate == 0:
            h, rh = np.ones(up16(n), np.float32), np.zeros(up16(n), np.float32)
            _native.call("gru_reset", "f32", isa, zx.reshape(-1), zh.reshape(-1), h, rh, up16(n) // 16)
            assert np.isnan(rh[n - 1])
            assert np.isfinite(np.delete(rh, n - 1)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 5, 16, 17, 40, 64, 100])
def test_a_gru_step_from_packed_weights(isa: str, n: int) -> None:
    """Packing, products and gates together, against both forms of the reset in float64."""
    rng = np.random.default_rng(n)
    blocks, k = (n + 15) // 16, 9
    w, r = (rng.standard_normal((3 * n, size)).astype(np.float32) / np.float32(np.sqrt(size)) for size in (k, n))
    bias, rbias = (rng.standard_normal(3 * n).astype(np.float32) for _ in range(2))
    x, h = inputs("normal", k, rng), np.zeros(up16(n), np.float32)
    h[:n] = rng.uniform(-1, 1, n)
    packed_w, packed_r = _native.pack_gru(w), _native.pack_gru(r)
    packed_bias, packed_rbias = _native.pack_gru(bias[:, None]), _native.pack_gru(rbias[:, None])
    rows = 48 * blocks
    zx, zh = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    _native.call("gemv", "f32", isa, packed_w, x, packed_bias, zx, rows, k)
    _native.call("gemv", "f32", isa, packed_r, h, packed_rbias, zh, rows, n)
    plain_x, plain_h = reference.gemv(w, x, bias).reshape(3, n), reference.gemv(r, h[:n], rbias).reshape(3, n)
    after = h.copy()
    _native.call("gru_gates", "f32", isa, zx, zh, after, blocks)
    assert np.abs(after[:n] - reference.gru_gates(plain_x, plain_h, h[:n])).max() < 5e-6
    # The form that resets before R_n.
    rh, late, zr = np.zeros(up16(n), np.float32), h.copy(), np.zeros(rows, np.float32)
    _native.call("gru_reset", "f32", isa, zx, zh, h, rh, blocks)
    _native.call("gemv", "f32", isa, packed_r, rh, packed_rbias, zr, rows, n)
    zh[32 * blocks :] = zr[32 * blocks :]
    _native.call("gru_late", "f32", isa, zx, zh, late, blocks)
    plain_h[2] = reference.gemv(r, reference.gru_reset(plain_x, plain_h, h[:n]), rbias).reshape(3, n)[2]
    assert np.abs(late[:n] - reference.gru_late(plain_x, plain_h, h[:n])).max() < 5e-6


@AVX512
@pytest.mark.parametrize("n", SIZES)
def test_vector_instruction_sets_agree_to_the_bit(n: int) -> None:
    rng = np.random.default_rng(n)
    isas = [isa for isa in ISAS if isa != "scalar"]

    def agree(op: str, arrays: list[Any], size: int, *numbers: float) -> None:
        rows = [run(op, isa, arrays, size, *numbers) for isa in isas]
        assert all(same_bits(row, rows[0]) for row in rows), op

    a, b, c = (inputs("normal", n, rng) for _ in range(3))
    for op in ("add", "mul", "max"):
        agree(op, [a, b], n, n)
    agree("tap", [a, b, c], n, n)
    agree("layernorm", [a, b, c], n, 1e-5, n)
    agree("rmsnorm", [a, b, None], n, 1e-5, n)
    agree("leaky_relu", [a], n, 0.1, n)
    for interleaved in (0, 1):
        agree("rope", [inputs("normal", 4 * n, rng), inputs("normal", 2 * n, rng)], 4 * n, 2, 2 * n, interleaved)
    zx, zh, h = (inputs("normal", count * up16(n), rng) for count in (3, 3, 1))
    agree("gru_reset", [zx, zh, h], up16(n), up16(n) // 16)
    for op in ("gru_gates", "gru_late"):
        rows = []
        for isa in isas:
            state = h.copy()
            _native.call(op, "f32", isa, zx, zh, state, up16(n) // 16)
            rows.append(state)
        assert all(same_bits(row, rows[0]) for row in rows), op
