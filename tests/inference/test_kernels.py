"""Differential tests of every row of csrc/kernels.def on every instruction set, against float64."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from inference import reference
from inference.kernel_support import EPS, FLOATS, INFO, ISAS, SIZES, guarded, inputs, unharmed

from tengri_fast import _native
from tengri_fast.errors import ConfigurationError

ROWS = list(INFO)
UNARY = [row for row in ROWS if row[0] in {"relu", "sigmoid", "tanh", "softmax", "gelu", "gelu_tanh", "silu"}]
CLASSES = {"dot", "gate", "gru", "ulp4", "smooth", "prob", "norm", "attend", "exact"}
# Where each float row is tested: here, and in the modules named.
HERE = {"gemv", "lstm_finish", "lstm_gates", *(op for op, _ in UNARY)}
# fmt: off
LAYERS = {"leaky_relu", "add", "mul", "max", "tap", "scale", "layernorm", "rmsnorm", "rope", "attend", "gru_gates",
          "gru_reset", "gru_late"}  # test_kernels_layers.py
# fmt: on
BATCH = {"gemm"}  # test_batch.py


def test_every_row_has_a_reference_and_a_tolerance() -> None:
    assert len(_native.kernels()) == len(ROWS) == len(set(ROWS)) >= 27
    for row in _native.kernels():
        assert row["isas"][0] == "scalar"
        assert row["tolerance"] in CLASSES
        assert len(_native.parameters(row["signature"])) >= 3
        if row["dtype"] in FLOATS:
            assert callable(getattr(reference, row["reference"]))
            assert row["op"] in HERE | LAYERS | BATCH


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", SIZES)
def test_gemv(isa: str, n: int) -> None:
    rng = np.random.default_rng(n)
    cases = [(k, shift, kind) for k in (1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33, 65)
             for shift, kind in ((0, "normal"), (1, "normal"), (3, "price"), (0, "denormal"))]  # fmt: skip
    for k, shift, kind in [*cases, (1000, 1, "normal")]:
        padded = (n + 15) // 16 * 16
        w = rng.standard_normal((n, k)).astype(np.float32)
        x = inputs(kind, k, rng)
        packed_whole, packed = guarded(_native.pack(w).size, shift)
        packed[:] = _native.pack(w)
        base = np.zeros(padded, np.float32)
        base[:n] = rng.standard_normal(n)
        whole, z = guarded(padded, shift)
        _native.call("gemv", "f32", isa, packed, np.ascontiguousarray(x), base, z, n, k)
        assert unharmed(whole, padded, shift)
        assert unharmed(packed_whole, packed.size, shift)
        scale = np.abs(base[:n]) + np.abs(w.astype(float)) @ np.abs(x.astype(float))
        error = np.abs(z[:n] - reference.gemv(w, x, base[:n]))
        assert (error <= (k + 4) * EPS * scale + 1e-44 * k).all()
        assert (z[n:] == 0).all(), "padding rows have zero weights and base"


def scaled(z: np.ndarray) -> np.ndarray:
    """Plain gate sums [4, units] in the block layout, with the factors that packing puts into the weights."""
    units = z.shape[1]
    blocks = (units + 15) // 16
    factor = np.array([-1, -1, 2, -1], np.float64) * reference.LOG2E
    out = np.zeros((blocks, 4, 16))
    for unit in range(units):
        out[unit // 16, :, unit % 16] = z[:, unit] * factor
    return out.astype(np.float32).reshape(-1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", SIZES)
def test_lstm_gates(isa: str, n: int) -> None:
    rng = np.random.default_rng(n)
    blocks = (n + 15) // 16
    kinds = ("normal", "wide", "small", "zero", "flat", "huge")
    for kind, shift in [(kind, shift) for kind in kinds for shift in (0, 1)]:
        plain = inputs(kind, 4 * n, rng).reshape(4, n)
        limit = np.float32(3e37)  # so that scaling itself stays finite
        plain = np.clip(plain, -limit, limit)
        c_whole, c = guarded(16 * blocks, shift)
        h_whole, h = guarded(16 * blocks, shift)
        c[:] = 0
        c[:n] = rng.standard_normal(n) * 2
        before = c[:n].copy()
        z = scaled(plain)
        # The oracle starts from the rounded, scaled sums: the rounding of z belongs to the caller.
        exact = z.reshape(blocks, 4, 16).transpose(1, 0, 2).reshape(4, -1)[:, :n].astype(np.float64)
        exact = exact / (np.array([-1, -1, 2, -1])[:, None] * reference.LOG2E)
        _native.call("lstm_gates", "f32", isa, z, c, h, blocks)
        assert unharmed(c_whole, 16 * blocks, shift)
        assert unharmed(h_whole, 16 * blocks, shift)
        want_c, want_h = reference.lstm_gates(exact, before)
        bound = 16 * EPS * np.maximum(1, np.abs(before))
        assert np.isfinite(c).all()
        assert np.isfinite(h).all()
        assert (np.abs(c[:n] - want_c) <= bound).all()
        assert (np.abs(h[:n] - want_h) <= bound).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", SIZES[:-1])
def test_lstm_finish(isa: str, n: int) -> None:
    rng = np.random.default_rng(n * 31)
    for k in (1, 2, 7, 16, 65):
        blocks = (n + 15) // 16
        w = (rng.standard_normal((4 * n, k)) / np.sqrt(k)).astype(np.float32)
        x = inputs("normal", k, rng)
        pre_plain = rng.standard_normal(4 * n).astype(np.float32)
        pre = _native.pack_lstm(pre_plain[:, None])
        whole_c, c = guarded(16 * blocks)
        whole_h, h = guarded(16 * blocks)
        c[:] = 0
        c[:n] = rng.standard_normal(n)
        before = c[:n].copy()
        _native.call("lstm_finish", "f32", isa, _native.pack_lstm(w), x, pre, c, h, blocks, k)
        assert unharmed(whole_c, 16 * blocks)
        assert unharmed(whole_h, 16 * blocks)
        want_c, want_h = reference.lstm_finish(w, x, pre_plain, before)
        size = np.abs(pre_plain) + np.abs(w.astype(float)) @ np.abs(x.astype(float))
        bound = (16 + (k + 6) * size.reshape(4, n).max(axis=0)) * EPS * np.maximum(1, np.abs(before))
        assert (np.abs(c[:n] - want_c) <= bound).all()
        assert (np.abs(h[:n] - want_h) <= bound).all()


def tolerance(op: str, x: np.ndarray, want: np.ndarray) -> np.ndarray:
    kind = INFO[op, "f32"]["tolerance"]
    if kind == "exact":
        return np.zeros(len(x))
    if kind == "ulp4":
        return 4 * 2.0**-23 * np.abs(want) + 1e-37
    if kind == "smooth":
        return 4 * 2.0**-23 * np.abs(want) + EPS * np.minimum(1.0, x.astype(float) ** 2) + 2e-36
    assert kind == "prob"
    return (8 + len(x) / 16 + np.abs(x.astype(float) - x.max())) * 2.0**-23 * want + 1e-37


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("op", "dtype"), UNARY)
@pytest.mark.parametrize("n", SIZES)
def test_activations(isa: str, op: str, dtype: str, n: int) -> None:
    rng = np.random.default_rng(n)
    function: Callable[[Any], np.ndarray] = getattr(reference, INFO[op, dtype]["reference"])
    for kind in ("normal", "wide", "small", "denormal", "flat", "zero", "price"):
        x = inputs(kind, n, rng)
        want = function(x)
        for shift in (0, 1, 5):
            x_whole, moved = guarded(n, shift)
            moved[:] = x
            whole, y = guarded(n, shift)
            _native.call(op, dtype, isa, moved, y, n)
            assert unharmed(whole, n, shift)
            assert unharmed(x_whole, n, shift)
            assert (moved == x).all()
            error = np.abs(y.astype(float) - want)
            assert (error <= tolerance(op, x, want)).all(), (kind, x[np.argmax(error)], y[np.argmax(error)])
            _native.call(op, dtype, isa, moved, moved, n)
            assert (moved == y).all(), "in place gives the same bits"


@pytest.mark.parametrize("isa", ISAS)
def test_activations_dense_grid(isa: str) -> None:
    for op, limit in (("gelu", 20.0), ("gelu_tanh", 20.0), ("silu", 87.0)):
        x = np.linspace(-limit, limit, 400_001).astype(np.float32)
        y = np.empty_like(x)
        _native.call(op, "f32", isa, x, y, len(x))
        want = getattr(reference, op)(x)
        assert (np.abs(y - want) <= tolerance(op, x, want)).all()
    for op, limit in (("tanh", 20.0), ("sigmoid", 87.0)):
        x = np.linspace(-limit, limit, 400_001).astype(np.float32)
        y = np.empty_like(x)
        _native.call(op, "f32", isa, x, y, len(x))
        want = getattr(reference, op)(x)
        assert (np.abs(y - want) <= tolerance(op, x, want)).all()
        assert (np.diff(y) >= -4 * 2.0**-23).all()
        assert np.abs(y).max() <= 1.0


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", SIZES)
def test_nan_and_infinity(isa: str, n: int) -> None:
    for at in {0, n // 2, n - 1}:
        x = np.linspace(-1, 1, n).astype(np.float32)
        x[at] = np.nan
        for op, _ in UNARY:
            y = np.zeros(n, np.float32)
            _native.call(op, "f32", isa, x, y, n)
            if op == "softmax":
                assert np.isnan(y).all()
            else:
                assert np.isnan(y[at])
                assert np.isfinite(np.delete(y, at)).all()
    infinite = np.array([np.inf, -np.inf] * n, np.float32)[:n]
    for op, limits in (("tanh", (1, -1)), ("sigmoid", (1, 0)), ("relu", (np.inf, 0)), ("gelu", (np.inf, 0)),
                       ("gelu_tanh", (np.inf, 0)), ("silu", (np.inf, 0))):  # fmt: skip
        y = np.zeros(n, np.float32)
        _native.call(op, "f32", isa, infinite, y, n)
        np.testing.assert_allclose(y, np.array([limits[0], limits[1]] * n)[:n], atol=2e-36)
    blocks = (n + 15) // 16
    for gate in range(4):
        plain = np.zeros((4, n), np.float32)
        plain[gate, n - 1] = np.nan
        c, h = np.full(16 * blocks, 0.5, np.float32), np.zeros(16 * blocks, np.float32)
        _native.call("lstm_gates", "f32", isa, scaled(plain), c, h, blocks)
        assert np.isnan(h[n - 1])
        assert np.isfinite(np.delete(h, n - 1)).all()


@pytest.mark.skipif("avx512" not in ISAS, reason="this machine has no AVX-512: there is nothing to compare AVX2 with")
@pytest.mark.parametrize("n", SIZES)
def test_vector_instruction_sets_agree_to_the_bit(n: int) -> None:
    rng = np.random.default_rng(n)
    x = inputs("normal", n, rng)
    for op, dtype in UNARY:
        out = [np.zeros(n, np.float32) for _ in range(2)]
        for isa, y in zip(("avx2", "avx512"), out, strict=True):
            _native.call(op, dtype, isa, x, y, n)
        assert (out[0] == out[1]).all(), op
    packed = _native.pack(rng.standard_normal((n, 19)))
    row, base = inputs("normal", 19, rng), np.zeros((n + 15) // 16 * 16, np.float32)
    results = []
    for isa in ("avx2", "avx512"):
        z = np.zeros_like(base)
        _native.call("gemv", "f32", isa, packed, row, base, z, n, 19)
        results.append(z)
    assert (results[0] == results[1]).all()


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_environment_chooses_the_instruction_set() -> None:
    code = "from tengri_fast import _native; print(_native.isa_active())"
    for isa in ISAS:
        assert run_python(code, TENGRI_ISA=isa).stdout.strip() == isa
    assert run_python(code, TENGRI_ISA="").stdout.strip() == ISAS[-1]


@pytest.mark.parametrize("module", ["tengri_fast._native", "tengri_fast.inference.session"])
def test_impossible_instruction_set_is_a_clear_error(module: str) -> None:
    result = run_python(f"import {module}", TENGRI_ISA="avx9000")
    assert result.returncode != 0
    assert "ConfigurationError" in result.stderr
    assert "avx9000" in result.stderr
    assert "scalar" in result.stderr


def test_features_and_texts() -> None:
    features = _native.cpu_features()
    if "avx512" in ISAS:
        assert {"avx2", "fma", "avx512f", "avx512vl"} <= set(features)
    texts = [_native.status_text(code) for code in range(7)]
    assert len(set(texts)) == 7
    assert _native.status_text(99) == "unknown status"


def test_the_door_to_the_kernels_checks_what_it_is_given() -> None:
    def floats(n: int) -> np.ndarray:
        return np.zeros(n, np.float32)

    with pytest.raises(ConfigurationError, match="avx9000"):
        _native.call("relu", "f32", "avx9000", floats(1), floats(1), 1)
    with pytest.raises(ValueError, match="no kernel"):
        _native.call("nothing", "f32", "scalar")
    with pytest.raises(ValueError, match="at least 9"):
        _native.call("relu", "f32", "scalar", floats(8), floats(9), 9)
    with pytest.raises(ValueError, match="at least 32"):
        _native.call("gemv", "f16", "scalar", np.zeros(31, np.uint16), floats(2), floats(16), floats(16), 5, 2)
    with pytest.raises(TypeError, match="contiguous uint16"):
        _native.call("gemv", "f16", "scalar", floats(32), floats(2), floats(16), floats(16), 5, 2)
    with pytest.raises(TypeError, match="contiguous float32"):
        _native.call("relu", "f32", "scalar", floats(8)[::2], floats(4), 4)
    with pytest.raises(TypeError, match="contiguous float32"):
        _native.call("relu", "f32", "scalar", [1.0], floats(1), 1)
    with pytest.raises(TypeError, match="contiguous float32"):
        _native.call("relu", "f32", "scalar", None, floats(1), 1)
    with pytest.raises(ValueError, match="takes 3 arguments"):
        _native.call("relu", "f32", "scalar", floats(1), floats(1))
    with pytest.raises(ValueError, match="between 1 and"):
        _native.call("relu", "f32", "scalar", floats(1), floats(1), 0)
    with pytest.raises(ValueError, match="multiple of 16"):
        _native.call("attend", "f32", "scalar", *[floats(99)] * 6, 1, 1, 4, 4, 17)
    with pytest.raises(ValueError, match="must divide"):
        _native.call("attend", "f32", "scalar", *[floats(999)] * 6, 3, 2, 4, 4, 16)
    with pytest.raises(ValueError, match="multiple of 2"):
        _native.call("rope", "f32", "scalar", floats(9), floats(9), floats(9), 1, 3, 0)
    frozen = floats(4)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        _native.call("relu", "f32", "scalar", floats(4), frozen, 4)
    with pytest.raises(ValueError, match="pointers, float and int32_t"):
        _native.parameters("(double x)")
    assert _native.parameters("(const float *const *x, uint8_t *q, int32_t n)") == [
        ("x", "float", 2, True), ("q", "uint8_t", 1, False), ("n", "int32_t", 0, False)]  # fmt: skip
