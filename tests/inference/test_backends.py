"""Backends: the listing, the fallback to ONNX Runtime with its reason, and the door for others."""

from __future__ import annotations

import builtins
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tengri_fast.errors import ConfigurationError, InferenceFailed, MissingExtraError, ModelLoadingError
from tengri_fast.inference import (
    BackendInfo,
    InferenceModel,
    InferenceSession,
    available_backends,
    backends,
    get_backend,
    load_model,
    register_backend,
)

FIXTURES = Path(__file__).resolve().parent / "fixtures"
needs_ort = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime, the backend under test, is not installed"
)


@pytest.fixture(autouse=True)
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_registered", {})


def test_listing_names_each_backend_with_a_reason() -> None:
    rows = {row.name: row for row in available_backends()}
    assert {"native", "onnxruntime", "tensorrt_rtx", "tensorrt", "cuda"} <= set(rows)
    assert rows["native"].found
    assert "instruction set" in rows["native"].reason
    for row in rows.values():
        assert row.reason


def test_listing_imports_no_backend() -> None:
    code = (
        "import sys; from tengri_fast.inference import available_backends; available_backends();"
        "print([m for m in ('onnxruntime', 'onnx', 'tensorrt', 'tensorrt_rtx', 'torch', 'numba') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_auto_takes_native() -> None:
    model = load_model(FIXTURES / "mlp.script.onnx")
    assert (model.backend, model.declined) == ("native", None)
    assert isinstance(model, InferenceModel)
    assert isinstance(model.session(), InferenceSession)
    assert load_model(FIXTURES / "mlp.script.onnx", backend="native", isa="scalar").backend == "native"


@needs_ort
def test_auto_falls_to_onnx_runtime_and_says_why() -> None:
    model = load_model(FIXTURES / "unsupported_gru.script.onnx")
    assert model.backend == "onnxruntime"
    assert "(GRU)" in (model.declined or "")
    assert isinstance(model, InferenceModel)
    assert isinstance(model.session(), InferenceSession)
    x = np.random.default_rng(0).standard_normal((24, 3)).astype(np.float32)
    y = model.run_window(x)
    assert y.shape == (24, 4)
    session = model.session()
    outputs = np.array([session.step(row) for row in x])
    assert np.isnan(outputs[:-1]).all(), "a fixed window gives nothing before it is full"
    assert np.array_equal(outputs[-1], y[-1])


@needs_ort
def test_damaged_files_are_refused_by_both(tmp_path: Path) -> None:
    data = (FIXTURES / "mlp.script.onnx").read_bytes()
    with pytest.raises(ModelLoadingError, match="truncated"):
        load_model(data[:600])
    with pytest.raises(ModelLoadingError, match="truncated"):
        load_model(data[:600], backend="onnxruntime")


@needs_ort
@pytest.mark.parametrize("exporter", ["dynamo", "script"])
@pytest.mark.parametrize(
    "name", ["last_softmax", "last_nobias", "every_mlp", "time_first", "hidden_state", "step_state", "mlp"]
)
def test_onnx_runtime_equals_native(name: str, exporter: str) -> None:
    path = FIXTURES / f"{name}.{exporter}.onnx"
    x = np.load(FIXTURES / f"{name}.npz", allow_pickle=False)["x"]
    native = load_model(path)
    other = load_model(path, backend="onnxruntime", window=24 if name.startswith(("last", "every", "hidden")) else None)
    assert other.sha256 == native.sha256
    assert (other.input_size, other.output_size) == (native.input_size, native.output_size)
    want, got = native.run_window(x), other.run_window(x)
    assert np.abs(got - want[-len(got) :]).max() < 2e-6
    session = other.session()
    outputs = np.array([session.step(row) for row in x])
    seen = np.isfinite(outputs[:, 0])
    assert seen[-1]
    assert np.abs(outputs[seen] - want[seen]).max() < 2e-6


@needs_ort
def test_onnx_runtime_sessions() -> None:
    model = load_model(FIXTURES / "step_state.script.onnx", backend="onnxruntime")
    x = np.random.default_rng(1).standard_normal((12, 5)).astype(np.float32)
    session = model.session()
    first = [session.step(row) for row in x[:6]]
    copy = session.copy()
    rest = [session.step(row) for row in x[6:]]
    again = [copy.step(row) for row in x[6:]]
    assert np.array_equal(rest, again)
    assert np.array_equal([*first, *rest], model.run_window(x))
    session.reset()
    session.input[:] = x[0]
    assert np.array_equal(session.finish(), first[0])
    session.prepare()
    with pytest.raises(InferenceFailed, match=r"\[5\]"):
        session.step(np.zeros(4))
    for value in (model, session):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(value)


@needs_ort
def test_window_is_needed_where_time_is_open() -> None:
    model = load_model(FIXTURES / "last_softmax.script.onnx", backend="onnxruntime")
    with pytest.raises(InferenceFailed, match="`window` must be given"):
        model.session()
    with pytest.raises(ModelLoadingError, match="`window` must be 24"):
        load_model(FIXTURES / "every_mlp.dynamo.onnx", backend="onnxruntime", window=5)
    with pytest.raises(ModelLoadingError, match="`window` must be >= 1"):
        load_model(FIXTURES / "last_softmax.script.onnx", backend="onnxruntime", window=0)


def test_missing_onnx_runtime_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec, real_import = importlib.util.find_spec, builtins.__import__

    def no_import(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_import)
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "onnxruntime" else find_spec(n, *a))
    with pytest.raises(MissingExtraError, match=r"tengri_fast\[onnx\]"):
        load_model(FIXTURES / "mlp.script.onnx", backend="onnxruntime")
    with pytest.raises(ModelLoadingError, match=r"\(GRU\).*not installed: pip install 'tengri_fast\[onnx\]'"):
        load_model(FIXTURES / "unsupported_gru.script.onnx")
    row = next(row for row in available_backends() if row.name == "onnxruntime")
    assert not row.found
    assert "pip install" in row.reason


class Toy:
    """A backend of somebody else."""

    name = "toy"

    def probe(self) -> BackendInfo:
        return BackendInfo(self.name, True, "made of wood")

    def load(self, source: Any, **options: Any) -> InferenceModel:
        return load_model(source, backend="native", **options)


def test_register_and_use() -> None:
    register_backend(Toy())
    assert BackendInfo("toy", True, "made of wood") in available_backends()
    assert load_model(FIXTURES / "mlp.script.onnx", backend="toy").input_size == 6
    with pytest.raises(ConfigurationError, match="registered already"):
        register_backend(Toy())
    register_backend(Toy(), replace=True)
    with pytest.raises(ConfigurationError, match="`backend` must have a name"):
        register_backend(object())  # type: ignore[arg-type]


def test_entry_points_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "toy"

        def load(self) -> type:
            return Toy

    def entry_points(group: str, name: str | None = None) -> list[Entry]:
        assert group == "tengri_fast.backends"
        return [Entry()] if name in (None, "toy") else []

    monkeypatch.setattr(backends.importlib.metadata, "entry_points", entry_points)
    assert get_backend("toy").name == "toy"
    assert "toy" in {row.name for row in available_backends()}


def test_broken_plug_in_is_a_row_with_a_reason() -> None:
    class Broken(Toy):
        name = "broken"

        def probe(self) -> BackendInfo:
            raise RuntimeError("no such device")

    register_backend(Broken())
    row = next(row for row in available_backends() if row.name == "broken")
    assert (row.found, row.reason) == (False, "RuntimeError: no such device")


def test_unknown_names_and_options() -> None:
    with pytest.raises(ConfigurationError, match=r"`backend` must be one of native, onnxruntime.*was 'abacus'"):
        load_model(FIXTURES / "mlp.script.onnx", backend="abacus")
    with pytest.raises(ConfigurationError, match="unknown option `speed`"):
        load_model(FIXTURES / "mlp.script.onnx", speed=9)
