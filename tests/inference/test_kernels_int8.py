"""Differential tests of the integer rows of csrc/kernels.def on every instruction set: the same bits everywhere.

csrc/tests/test_kernels_i8.c has the corners of the sums, exact buffers for AddressSanitizer and a double of AVX-VNNI.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference import reference_int8 as oracle

from tengri_fast import _native

ISAS = _native.isa_available()
ROWS = {(row["op"], row["dtype"]): row for row in _native.kernels() if row["dtype"] in {"i8", "i8a16"}}
HERE = {"quantize", "gemv", "dense", "lstm_gates", "lstm_finish", "lstm_fused", "store_kv", "attend"}
GUARD = 77


def padded(values: np.ndarray, n: int, fill: float = 0.0) -> np.ndarray:
    out = np.full(n, fill, values.dtype)
    out[: len(values)] = values
    return out


def test_every_integer_row_is_tested_and_has_its_kernels() -> None:
    assert {op for op, _ in ROWS} - {"gemm"} == HERE
    for (op, dtype), row in ROWS.items():
        assert hasattr(oracle, row["reference"]) or row["reference"] == "lstm_gates", (op, dtype)
        if op in {"gemv", "dense", "lstm_finish", "lstm_fused", "attend"}:
            assert {"avx2", "avxvnni", "avx512", "avx512vnni"} & set(ISAS) <= set(row["isas"])


ODD = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, 127.5, -128.5, 3e38, -3e38, np.inf, -np.inf, 1e-40, -1e-45, 32766.5, -32767.5]


@pytest.mark.parametrize("isa", ISAS)
@given(
    values=st.lists(st.one_of(st.sampled_from(ODD), st.floats(-400, 400, width=32), st.just(float("nan"))), min_size=1,
                    max_size=200),
    inverse=st.sampled_from([1.0, 0.25, 31.7, 1e20]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_quantize(isa: str, values: list[float], inverse: float) -> None:
    x = np.array(values, np.float32)
    n, nan = len(x), np.array([4], np.int32)
    q = np.full(oracle.up(n, 64) + 64, GUARD, np.uint8)
    _native.call("quantize", "i8", isa, x, q, inverse, n, nan)
    room = oracle.up(n, 16)
    assert (q[:room] == oracle.quantize_i8(x, inverse)).all()
    assert (q[room:] == GUARD).all()
    assert nan[0] == 4 + bool(np.isnan(x).any())
    planes = np.full(2 * oracle.up(n, 64), GUARD, np.uint8)
    _native.call("quantize", "i8a16", isa, x, planes, inverse, n, nan)
    high, low = oracle.quantize_i8a16(x, inverse)
    assert (planes[:room] == high).all()
    assert (planes[oracle.up(n, 64) :][:room] == low).all()


def layer(rng: np.random.Generator, rows: int, k: int) -> tuple[np.ndarray, ...]:
    room = oracle.up(rows, 16)
    w = rng.integers(-127, 128, (rows, k)).astype(np.int8)
    scale = padded(rng.uniform(1e-4, 1e-2, rows).astype(np.float32), room)
    base = padded(rng.standard_normal(rows).astype(np.float32), room)
    return w, oracle.pack(w), scale, padded(oracle.corr(w), room), base


@pytest.mark.parametrize("isa", ISAS)
@given(rows=st.integers(1, 300), k=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_gemv_is_exact(isa: str, rows: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, packed, scale, corr, base = layer(rng, rows, k)
    q = rng.integers(0, 256, oracle.up(k, 64) * 2).astype(np.uint8)
    z = np.full(len(base) + 16, GUARD, np.float32)
    _native.call("gemv", "i8", isa, packed, q, scale, corr, base, z, rows, k)
    assert (z[:rows] == oracle.gemv_i8(w, q[:k], scale[:rows], base[:rows])).all()
    assert (z[rows : len(base)] == 0).all()
    assert (z[len(base) :] == GUARD).all()
    _native.call("gemv", "i8a16", isa, packed, q, scale, corr, base, z, rows, k)
    low = q[oracle.up(k, 64) :][:k]
    assert (z[:rows] == oracle.gemv_i8a16(w, q[:k], low, scale[:rows], base[:rows])).all()


@pytest.mark.parametrize("isa", ISAS)
@given(
    rows=st.integers(1, 200), k=st.integers(1, 90), relu=st.integers(0, 3), parts=st.integers(0, 7),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_dense_is_the_chain_of_its_parts(isa: str, rows: int, k: int, relu: int, parts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, packed, scale, corr, base = layer(rng, rows, k)
    room = len(base)
    q = rng.integers(0, 256, oracle.up(k, 4)).astype(np.uint8)
    add = padded(rng.standard_normal(rows).astype(np.float32), room) if parts & 1 else None
    y = np.full(room, GUARD, np.float32) if parts & 2 else None
    yq = np.full(room, GUARD, np.uint8) if parts & 4 else None
    nan = np.zeros(1, np.int32)
    _native.call("dense", "i8", isa, packed, q, scale, corr, base, add, y, yq, 20.0, nan, rows, k, relu)
    want = oracle.dense_i8(w, q[:k], scale[:rows], base[:rows], None if add is None else add[:rows], relu)
    if y is not None:
        assert (y[:rows] == want).all()
    if yq is not None:
        assert (yq == oracle.quantize_i8(want, 20.0)).all()
    assert nan[0] == 0


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("hidden", [1, 15, 16, 17, 33, 64, 100])
@pytest.mark.parametrize("dtype", ["i8", "i8a16"])
def test_lstm_against_float64_and_against_the_scalar_file(isa: str, hidden: int, dtype: str) -> None:
    rng = np.random.default_rng(hidden)
    for k in (1, 3, 16, 50):
        blocks = (hidden + 15) // 16
        order = oracle.lstm_order(hidden)
        w = rng.integers(-127, 128, (4 * hidden, k)).astype(np.int8)
        wide = np.where(order[:, None] >= 0, w[order], 0).astype(np.int8)
        scale = rng.uniform(1e-4, 4e-4, 4 * hidden) / (256 if dtype == "i8a16" else 1)
        pre = rng.standard_normal(4 * hidden)
        factor = np.where(np.arange(len(order)) // 16 % 4 == 2, 2.0, -1.0) * np.log2(np.e)
        packed_scale = np.where(order >= 0, factor * scale[order], 0).astype(np.float32)
        packed_pre = np.where(order >= 0, factor * pre[order], 0).astype(np.float32)
        v = rng.integers(-128, 128, k) if dtype == "i8" else rng.integers(-32767, 32768, k)
        q = np.zeros(2 * oracle.up(k, 64), np.uint8)
        u = v + (128 if dtype == "i8" else 32768)
        q[:k] = u if dtype == "i8" else u // 256
        q[oracle.up(k, 64) :][:k] = u % 256
        start = padded(rng.standard_normal(hidden).astype(np.float32), 16 * blocks)
        c64, h64 = oracle.lstm_finish_i8(w, v, scale, pre, start[:hidden])
        arguments = (oracle.pack(wide), q, packed_scale, oracle.corr(wide), packed_pre)
        results = {}
        for run in {isa, "scalar"}:
            c, h = start.copy(), np.zeros_like(start)
            _native.call("lstm_finish", dtype, run, *arguments, c, h, blocks, k)
            results[run] = (c, h)
            if dtype == "i8":
                c2, h2 = start.copy(), np.zeros_like(start)
                hq, nan = np.zeros(16 * blocks, np.uint8), np.zeros(1, np.int32)
                _native.call("lstm_fused", dtype, run, *arguments, c2, h2, hq, 127.0, nan, blocks, k)
                assert (c2 == c).all()
                assert (h2 == h).all()
                assert (hq == oracle.quantize_i8(h, 127.0)).all()
                assert nan[0] == 0
        c, h = results[isa]
        # 1e-5: z is a float32 of size up to about 8 before the gates.
        assert np.abs(c[:hidden] - c64).max() <= 1e-5
        assert np.abs(h[:hidden] - h64).max() <= 1e-5
        assert (c[hidden:] == start[hidden:] * 0).all()
        assert (h[hidden:] == 0).all()
        assert (results["scalar"][0] == c).all()
        assert (results["scalar"][1] == h).all()


@pytest.mark.parametrize("isa", ISAS)
@given(
    shape=st.sampled_from([(4, 1, 16, 16, 128), (2, 2, 7, 5, 16), (6, 3, 12, 33, 48), (3, 1, 64, 8, 80)]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=20, deadline=None)
def test_attention(isa: str, shape: tuple[int, int, int, int, int], seed: int) -> None:
    heads, group, dim, value_dim, slots = shape
    kv_heads = heads // group
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(1, slots + 1))
    k = rng.standard_normal((steps, kv_heads, dim)).astype(np.float32)
    v = rng.standard_normal((steps, kv_heads, value_dim)).astype(np.float32)
    keys = np.zeros(kv_heads * slots * oracle.up(dim, 4), np.int8)
    values = np.zeros(kv_heads * slots * oracle.up(value_dim, 16), np.int8)
    corr, nan = np.zeros(kv_heads * slots, np.int32), np.zeros(1, np.int32)
    for step in range(steps):
        _native.call("store_kv", "i8", isa, k[step].reshape(-1), v[step].reshape(-1), keys, corr, values, 40.0, 50.0,
                     kv_heads, dim, value_dim, slots, step, nan)  # fmt: skip
    ring, sums, value_ring = oracle.store_kv_i8(k, v, 40.0, 50.0, slots)
    assert (keys == ring).all()
    assert (corr == sums).all()
    assert (values == value_ring).all()
    assert nan[0] == 0
    q = rng.integers(0, 256, (heads, oracle.up(dim, 4))).astype(np.uint8)
    bias = np.where(np.arange(slots) < steps, -rng.random((heads, slots)), -1e30).astype(np.float32)
    score, value = 0.002 / np.sqrt(dim), 0.02
    out = {}
    for run in {isa, "scalar"}:
        y, p = np.full(heads * value_dim + 8, GUARD, np.float32), np.zeros(heads * slots, np.float32)
        _native.call("attend", "i8", run, q.reshape(-1), keys, corr, values, bias.reshape(-1), p, y, score, value,
                     heads, group, dim, value_dim, slots)  # fmt: skip
        assert (y[heads * value_dim :] == GUARD).all()
        out[run] = y[: heads * value_dim].reshape(heads, value_dim)
    assert (out[isa] == out["scalar"]).all()
    which = np.arange(heads) // group
    plain_k, plain_v = np.zeros((kv_heads, slots, dim)), np.zeros((kv_heads, slots, value_dim))
    plain_k[:, :steps] = oracle.quantum(k, 40.0, -128, 127).transpose(1, 0, 2)
    plain_v[:, :steps] = oracle.quantum(v, 50.0, -128, 127).transpose(1, 0, 2)
    want, slack = oracle.attend_i8(q[:, :dim].astype(float) - 128, plain_k[which], plain_v[which], bias, score, value)
    assert (np.abs(out[isa] - want) <= slack + 1e-5).all()
