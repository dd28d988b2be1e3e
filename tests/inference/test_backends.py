"""Backends: the listing, the fallback to ONNX Runtime with its reason, and the door for others."""

from __future__ import annotations

import builtins
import copy
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import installs
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
    model = load_model(FIXTURES / "unsupported_bidirectional.dynamo.onnx", window=9)
    assert model.backend == "onnxruntime"
    assert "(LSTM)" in (model.declined or "")
    assert isinstance(model, InferenceModel)
    assert isinstance(model.session(), InferenceSession)
    x = np.random.default_rng(0).standard_normal((24, 3)).astype(np.float32)
    assert model.run_window(x).shape == (24, 8)
    session = model.session()
    for t, row in enumerate(x):
        assert np.array_equal(session.step(row), model.run_window(x[max(0, t - 8) : t + 1])[-1])


@needs_ort
def test_a_fixed_window_gives_nothing_before_it_is_full() -> None:
    model = load_model(FIXTURES / "every_mlp.dynamo.onnx", backend="onnxruntime")
    x = np.random.default_rng(0).standard_normal((24, model.input_size)).astype(np.float32)
    session = model.session()
    outputs = np.array([session.step(row) for row in x])
    assert np.isnan(outputs[:-1]).all()
    assert np.array_equal(outputs[-1], model.run_window(x)[-1])


@needs_ort
@pytest.mark.parametrize("exporter", ["dynamo", "script"])
@pytest.mark.parametrize("name", ["tcn", "deeplob", "mha", "gru_time_first", "conv_step", "last_query", "odd_row"])
def test_any_layout_streams(name: str, exporter: str) -> None:
    """Channels first, levels, time first, states: the axes are found, and the last answers are those of one call."""
    path = FIXTURES / f"{name}.{exporter}.onnx"
    if not path.exists():
        pytest.fail(f"the fixture {path.name} is missing")
    golden = np.load(FIXTURES / f"{name}.npz", allow_pickle=False)
    x = golden["x"].reshape(len(golden["x"]), -1)
    model = load_model(path, backend="onnxruntime", window=len(x))  # a graph with states needs none and takes none
    assert model.input_size == x.shape[1]
    session = model.session()
    for row in x:
        y = session.step(row)
    want = golden["y"].reshape(-1, model.output_size)[-1]
    assert np.abs(want).max() > 1e-3
    assert np.abs(y - want).max() < 1e-5


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
@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("step_state.script", None),
        ("mlp.script", None),
        ("last_softmax.script", 9),
        ("every_mlp.dynamo", None),
        ("gru_last.script", 7),
    ],
)
def test_onnx_runtime_state_to_bytes_and_back(name: str, window: int | None) -> None:
    model = load_model(FIXTURES / f"{name}.onnx", backend="onnxruntime", window=window)
    x = np.random.default_rng(2).standard_normal((40, model.input_size)).astype(np.float32)
    first = model.session()
    whole = [first.step(row) for row in x]
    for chunk in (1, 3, 7, 13):
        session, out = model.session(), []
        for start in range(0, len(x), chunk):
            other = copy.copy(session) if start % 2 else model.session()
            other.from_bytes(session.to_bytes())
            assert other.to_bytes() == session.to_bytes()
            out.extend(other.step(row) for row in x[start : start + chunk])
            session = other
        assert np.array_equal(out, whole, equal_nan=True)
    kept = session.to_bytes()
    for bad in (b"", kept[:-1], kept + b"x", kept[:50] + bytes([kept[50] ^ 1]) + kept[51:]):
        with pytest.raises(InferenceFailed, match="`data` must be"):
            session.from_bytes(bad)
    assert session.to_bytes() == kept
    fresh = model.session()
    session.reset()
    assert session.to_bytes() == fresh.to_bytes()


@needs_ort
def test_windows_are_recomputed_exactly() -> None:
    model = load_model(FIXTURES / "last_softmax.dynamo.onnx", backend="onnxruntime", window=6)
    x = np.random.default_rng(3).standard_normal((20, model.input_size)).astype(np.float32)
    session = model.session()
    for t, row in enumerate(x):
        session.input[:] = row
        assert np.array_equal(session.finish(), model.run_window(x[max(0, t - 5) : t + 1])[-1])
    native = load_model(FIXTURES / "last_softmax.dynamo.onnx").session(window=6)  # type: ignore[call-arg]
    other = model.session()
    assert max(np.abs(native.step(row) - other.step(row)).max() for row in x) < 2e-6


def onnx_bytes(nodes: list[Any], inputs: list[Any], outputs: list[Any], tensors: list[Any]) -> bytes:
    onnx = pytest.importorskip("onnx", reason="the graph is written with onnx")
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


@needs_ort
def test_quantised_products_stay_integers() -> None:
    onnx = pytest.importorskip("onnx", reason="the graph is written with onnx")
    helper, numpy_helper, float_ = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    rng = np.random.default_rng(5)
    w = rng.integers(-127, 128, (16, 8)).astype(np.int8)
    tensors = [
        numpy_helper.from_array(np.array(value, dtype), name)
        for name, value, dtype in (
            ("sx", 0.05, np.float32), ("zx", 0, np.int8), ("w8", w, np.int8), ("sw", 0.01, np.float32),
            ("b", rng.standard_normal(8), np.float32),
        )
    ]  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w8", "sw", "zx"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    data = onnx_bytes(
        nodes,
        [helper.make_tensor_value_info("x", float_, [1, 16])],
        [helper.make_tensor_value_info("y", float_, [1, 8])],
        tensors,
    )
    x = rng.standard_normal((30, 16)).astype(np.float32)
    integers = np.clip(np.round(x / np.float32(0.05)), -128, 127)
    want = integers @ w.astype(np.float64) * 0.05 * 0.01 + numpy_helper.to_array(tensors[-1])
    for disabled, kept in (
        (None, ("MatMulAddFusion", "WeightBiasQuantization")),
        ((), ()),
        ("MatMulAddFusion", ("MatMulAddFusion",)),
    ):
        model = load_model(data, backend="onnxruntime", disabled_optimizers=disabled)
        assert model.disabled_optimizers == kept  # type: ignore[attr-defined]
        assert np.abs(model.run_window(x) - want).max() < 1e-4
    plain = load_model(FIXTURES / "mlp.script.onnx", backend="onnxruntime")
    assert plain.disabled_optimizers == ()  # type: ignore[attr-defined]


@needs_ort
def test_states_of_other_types_are_bound() -> None:
    onnx = pytest.importorskip("onnx", reason="the graph is written with onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    one = onnx.numpy_helper.from_array(np.array([1], np.int64), "one")
    nodes = [
        helper.make_node("Add", ["n", "one"], ["n2"]),
        helper.make_node("Cast", ["n2"], ["f"], to=kinds.DOUBLE),
        helper.make_node("Cast", ["x"], ["xd"], to=kinds.DOUBLE),
        helper.make_node("Add", ["total", "xd"], ["total2"]),
        helper.make_node("Div", ["total2", "f"], ["mean"]),
        helper.make_node("Cast", ["mean"], ["y"], to=kinds.FLOAT),
    ]
    info = helper.make_tensor_value_info
    data = onnx_bytes(
        nodes,
        [info("x", kinds.FLOAT, [1, 3]), info("total", kinds.DOUBLE, [1, 3]), info("n", kinds.INT64, [1])],
        [info("y", kinds.FLOAT, [1, 3]), info("total2", kinds.DOUBLE, [1, 3]), info("n2", kinds.INT64, [1])],
        [one],
    )
    model = load_model(data)
    assert model.backend == "onnxruntime"
    x = np.random.default_rng(6).standard_normal((25, 3)).astype(np.float32)
    session = model.session()
    got = np.array([session.step(row) for row in x])
    want = np.cumsum(x.astype(np.float64), axis=0) / np.arange(1, 26)[:, None]
    assert np.abs(got - want).max() < 1e-6
    assert np.array_equal(got, model.run_window(x))


@needs_ort
def test_sessions_of_one_model_are_independent() -> None:
    model = load_model(FIXTURES / "step_state.script.onnx", backend="onnxruntime")
    x = np.random.default_rng(7).standard_normal((2, 15, model.input_size)).astype(np.float32)
    first, second = model.session(), model.session()
    mixed = np.array([(first.step(a), second.step(b)) for a, b in zip(*x, strict=True)])
    assert np.array_equal(mixed[:, 0], model.run_window(x[0]))
    assert np.array_equal(mixed[:, 1], model.run_window(x[1]))


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
    with pytest.raises(ModelLoadingError, match=r"\(LSTM\).*not installed: pip install 'tengri_fast\[onnx\]'"):
        load_model(FIXTURES / "unsupported_bidirectional.script.onnx")
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


PLUG_IN = """
import numpy as np
from tengri_fast.inference import BackendInfo

class Backend:
    name = "averages"
    def probe(self):
        return BackendInfo(self.name, True, "numpy " + np.__version__)
    def load(self, source, **options):
        return Model(options.pop("rows", 3))

class Model:
    backend, declined, input_size, output_size, sha256 = "averages", None, 4, 4, "00" * 32
    def __init__(self, rows):
        self.rows = rows
    def session(self):
        return Session(self.rows)
    def run_window(self, x):
        session = self.session()
        return np.array([session.step(row) for row in x])

class Session:
    def __init__(self, rows):
        self.rows, self.seen = rows, []
        self.input, self.output = np.zeros(4, np.float32), np.zeros(4, np.float32)
    def finish(self, x=None):
        if x is not None:
            self.input[:] = x
        self.output[:] = np.mean([*self.seen, self.input], axis=0)
        return self.output
    def prepare(self):
        self.seen = [*self.seen, self.input.copy()][-self.rows + 1:]
    def step(self, x=None):
        y = self.finish(x).copy()
        self.prepare()
        return y
    def reset(self):
        self.seen = []
    def copy(self):
        other = Session(self.rows)
        other.seen = list(self.seen)
        return other
"""


def test_installed_package_announces_a_backend(tmp_path: Path) -> None:
    """A wheel installed by pip, found by its own metadata in a fresh process."""
    source, target = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    (source / "averages.py").write_text(PLUG_IN, encoding="utf-8")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "tengri-averages"\nversion = "1.0"\n'
        '[project.entry-points."tengri_fast.backends"]\naverages = "averages:Backend"\nbroken = "gone:Backend"\n'
        '[tool.setuptools]\npy-modules = ["averages"]\n',
        encoding="utf-8",
    )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    installs.run([*pip, "--target", target, source], tmp_path)
    code = (
        "import numpy as np\n"
        "from tengri_fast.inference import Ensemble, available_backends, load_model\n"
        "rows = {row.name: row for row in available_backends()}\n"
        "assert rows['averages'].found and rows['averages'].reason.startswith('numpy'), rows['averages']\n"
        "assert not rows['broken'].found and 'gone' in rows['broken'].reason, rows['broken']\n"
        "model = load_model(b'any', backend='averages', rows=2)\n"
        "x = np.arange(12, dtype=np.float32).reshape(3, 4)\n"
        "print(model.run_window(x)[:, 0].tolist(), Ensemble([model, model]).run_window(x)[:, 1].tolist())\n"
    )
    root = Path(__file__).resolve().parents[2]
    out = installs.run([sys.executable, "-c", code], tmp_path, PYTHONPATH=f"{target}:{root}")
    assert out.strip() == "[0.0, 2.0, 6.0] [1.0, 3.0, 7.0]"


def test_a_plug_in_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "gone"

        def load(self) -> Any:
            raise ModuleNotFoundError("No module named 'gone'")

    monkeypatch.setattr(backends.importlib.metadata, "entry_points", lambda group, name=None: [Entry()])
    with pytest.raises(ConfigurationError, match="backend `gone` cannot be loaded: ModuleNotFoundError: No module"):
        load_model(FIXTURES / "mlp.script.onnx", backend="gone")


@pytest.mark.parametrize("source", [b"", b"no model at all", "gone.onnx"])
def test_without_onnx_runtime_damage_is_still_called_damage(monkeypatch: pytest.MonkeyPatch, source: Any) -> None:
    """It is not a matter of installing something."""
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelLoadingError) as caught:
        load_model(source)
    assert "install" not in str(caught.value)


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
