"""The CUDA LSTM step: compiled for every target where nvcc is, and proven on the CPU through the host shim."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

from tengri_fast import kernels
from tengri_fast.inference import Model
from tengri_fast.inference.layers import DenseLayer, LstmLayer

F32 = np.ctypeslib.ndpointer(dtype=np.float32, flags="C_CONTIGUOUS")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler named c++ on PATH")
    path = kernels.build_host_library(tmp_path_factory.mktemp("kernels") / "host.so")
    library = ctypes.CDLL(str(path))
    call = library.tf_host_lstm_step_f32
    call.restype = ctypes.c_char_p
    call.argtypes = [ctypes.c_uint, ctypes.c_uint, F32, F32, F32, F32, F32, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    return call


def make(sessions, inputs, hidden, seed):
    rng = np.random.default_rng(seed)
    w = rng.normal(0, 1 / np.sqrt(inputs), (4 * hidden, inputs)).astype(np.float32)
    r = rng.normal(0, 1 / np.sqrt(hidden), (4 * hidden, hidden)).astype(np.float32)
    b = rng.normal(0, 0.2, 4 * hidden).astype(np.float32)
    return rng, w, r, b


def pack(w, r):
    """[4H][K] and [4H][H] to the kernel's [K + H][4][H]."""
    hidden = w.shape[0] // 4
    both = np.concatenate([w, r], axis=1).reshape(4, hidden, -1)
    return np.ascontiguousarray(both.transpose(2, 0, 1))


def reference(w, r, b, x, h, c):
    """One step in float64."""
    z = x @ w.astype(np.float64).T + h @ r.astype(np.float64).T + b.astype(np.float64)
    i, f, g, o = np.split(z, 4, axis=1)
    with np.errstate(over="ignore"):
        sig = [1 / (1 + np.exp(-v)) for v in (i, f, o)]
    c = sig[1] * c + sig[0] * np.tanh(g)
    return sig[2] * np.tanh(c), c


@pytest.mark.parametrize(("sessions", "inputs", "hidden", "blocks", "threads"), [
    (1, 1, 1, 1, 32), (3, 5, 7, 2, 32), (5, 16, 64, 5, 64), (4, 33, 65, 3, 32), (2, 12, 96, 1, 128),
])  # fmt: skip
def test_matches_float64(host, sessions, inputs, hidden, blocks, threads):
    rng, w, r, b = make(sessions, inputs, hidden, 7 * hidden + inputs)
    h32 = np.zeros((sessions, hidden), np.float32)
    c32 = np.zeros((sessions, hidden), np.float32)
    h, c = h32.astype(np.float64), c32.astype(np.float64)
    packed = pack(w, r)
    for _ in range(50):
        x = rng.normal(0, 1, (sessions, inputs)).astype(np.float32)
        assert host(blocks, threads, packed, b, x, h32, c32, sessions, inputs, hidden) is None
        h, c = reference(w, r, b, x.astype(np.float64), h, c)
    assert np.abs(h).max() > 0.05
    np.testing.assert_allclose(h32, h, atol=1e-5)
    np.testing.assert_allclose(c32, c, atol=1e-5, rtol=1e-5)


def test_matches_the_native_engine(host):
    rng, w, r, b = make(1, 16, 64, 3)
    model = Model.from_layers([LstmLayer(w, r, b), DenseLayer(np.eye(64), np.zeros(64))])
    session = model.session()
    h = np.zeros((1, 64), np.float32)
    c = np.zeros((1, 64), np.float32)
    for _ in range(200):
        x = rng.normal(0, 1, (1, 16)).astype(np.float32)
        assert host(1, 64, pack(w, r), b, x, h, c, 1, 16, 64) is None
        y = session.step(x[0])
        np.testing.assert_allclose(y, h[0], atol=1e-5)


def test_extreme_and_nan_inputs(host):
    _, w, r, b = make(3, 4, 8, 1)
    x = np.array([[1e30] * 4, [-1e30] * 4, [np.nan] * 4], np.float32)
    h = np.zeros((3, 8), np.float32)
    c = np.zeros((3, 8), np.float32)
    assert host(3, 32, pack(w, r), b, x, h, c, 3, 4, 8) is None
    assert np.isfinite(h[:2]).all()
    assert np.isnan(h[2]).all()


def test_a_missing_barrier_is_caught(tmp_path):
    """A thread that returns before the barrier is reported, not forgiven."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler named c++ on PATH")
    folder = kernels.sources()[0].parent
    (tmp_path / "bad.cpp").write_text(
        '#define TF_HOST_SHIM\n#include "common.cuh"\n#include <cstdio>\n'
        "void bad() { if (threadIdx.x == 3) return; __syncthreads(); }\n"
        "void good() { __syncthreads(); }\n"
        "int main() { tf_shim::launch(dim3(1), dim3(8), 0, bad); bool caught = tf_shim::error() != nullptr;\n"
        "  tf_shim::launch(dim3(1), dim3(8), 0, good); bool clean = tf_shim::error() == nullptr;\n"
        "  return caught && clean ? 0 : 1; }\n"
    )
    subprocess.run(["c++", "-std=c++17", f"-I{folder}", str(tmp_path / "bad.cpp"), "-o", str(tmp_path / "bad")],
                   check=True)  # fmt: skip
    assert subprocess.run([str(tmp_path / "bad")], check=False).returncode == 0


def test_compiles_for_every_target(tmp_path):
    if kernels.find_nvcc() is None:
        pytest.skip("nvcc is not installed")
    fatbin = kernels.build_fatbin(tmp_path / "kernels.fatbin")
    assert fatbin.stat().st_size > 10_000
    cuobjdump = kernels.find_nvcc().parent / "cuobjdump"
    if cuobjdump.exists():
        listing = subprocess.run([str(cuobjdump), "--list-elf", str(fatbin)], capture_output=True, text=True,
                                 check=True).stdout  # fmt: skip
        for architecture in kernels.ARCHITECTURES:
            assert f"sm_{architecture}" in listing


def test_a_refused_source_says_why(monkeypatch, tmp_path):
    broken = tmp_path / "broken.cu"
    broken.write_text("this is not C++\n")
    monkeypatch.setattr(kernels, "sources", lambda: [broken])
    with pytest.raises(kernels.KernelBuildError, match=r"broken\.cu"):
        kernels.build_host_library(tmp_path / "x.so")
    assert not (tmp_path / "x.so").exists()


def test_a_missing_compiler_is_one_sentence(monkeypatch, tmp_path):
    with pytest.raises(kernels.KernelBuildError, match="no-such-compiler"):
        kernels.build_host_library(tmp_path / "x.so", compiler="no-such-compiler")
    monkeypatch.setattr(kernels, "find_nvcc", lambda: None)
    with pytest.raises(kernels.KernelBuildError, match="nvcc"):
        kernels.build_fatbin(tmp_path / "x.fatbin")
