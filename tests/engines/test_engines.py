"""The single-step graph against the native engine, and engines built ahead of time with no GPU."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from tengri_fast import engines
from tengri_fast.errors import MissingExtraError, ModelLoadingError
from tengri_fast.inference import Model
from tengri_fast.inference.layers import ActivationLayer, DenseLayer, LstmLayer
from tengri_fast.inference.network import Matrix8, Network, Node


def stack(seed=0, inputs=12, hidden=32):
    rng = np.random.default_rng(seed)

    def lstm(k):
        return LstmLayer(rng.normal(0, 0.3, (4 * hidden, k)), rng.normal(0, 0.15, (4 * hidden, hidden)),
                         rng.normal(0, 0.1, 4 * hidden))  # fmt: skip

    head = DenseLayer(rng.normal(0, 0.3, (3, hidden)), rng.normal(0, 0.1, 3), activation="softmax")
    return [lstm(inputs), lstm(hidden), head]


def run_steps(graph, x, hidden, dtype):
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    state = {name: np.zeros((1, hidden), dtype) for name in ("h0", "c0", "h1", "c1")}
    out = []
    for row in x:
        y, *following = session.run(None, {"x": row[None].astype(dtype), **state})
        names = [o.name for o in session.get_outputs()][1:]
        state = {name.removesuffix("_next"): value for name, value in zip(names, following, strict=True)}
        out.append(y[0].astype(np.float64))
    return np.array(out)


@pytest.mark.parametrize(("precision", "dtype", "tolerance"), [("fp32", np.float32, 2e-6), ("fp16", np.float16, 5e-3)])
def test_the_step_graph_is_the_model(precision, dtype, tolerance):
    pytest.importorskip("onnx", reason="onnx is not installed")
    layers = stack()
    x = np.random.default_rng(1).normal(0, 1, (300, 12)).astype(np.float32)
    native = Model.from_layers(layers).run_window(x)
    assert native.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(run_steps(engines.step_graph(layers, precision), x, 32, dtype), native, atol=tolerance)


def test_the_graph_is_reproducible_and_typed():
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    assert engines.step_graph(stack(), "fp16") == engines.step_graph(stack(), "fp16")
    model = onnx.load_from_string(engines.step_graph(stack(), "fp16"))
    assert {i.data_type for i in model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert {p.key: p.value for p in model.metadata_props}["gate_order"] == "ifgo"


def test_layers_without_a_step_form_are_named():
    pytest.importorskip("onnx", reason="onnx is not installed")
    lstm = stack()[0]
    narrow = LstmLayer(lstm.w, lstm.r[:, :2], lstm.bias, projection=np.zeros((2, 32)))
    dense = DenseLayer(np.zeros((4, 2)), np.zeros(4))
    branch = Network((Node(dense), Node(dense)), 2)
    integers = Matrix8(np.ones((4, 2), np.int8), np.ones(4))
    quantised = Node(dense, format="int8", scales={"input": 1.0}, matrices={"w": integers})
    for refused, text in (
        ([ActivationLayer("relu", 3)], "layer 0: ActivationLayer has no step form"),
        ([DenseLayer(dense.w, dense.bias, "gelu")], "layer 0: activation 'gelu'"),
        ([narrow], "layer 0: an LSTM with a projection"),
        ([DenseLayer(dense.w, dense.bias, "softmax", softmax_groups=2)], "layer 0: softmax over 2 groups"),
        (branch, "layer 1: must read the layer before it"),
        (Network((quantised,), 2), "layer 0: `format` must be a float one, was 'int8'"),
    ):
        with pytest.raises(ModelLoadingError, match=text):
            engines.step_graph(refused)


def test_precision_is_checked():
    pytest.importorskip("onnx", reason="onnx is not installed")
    with pytest.raises(ModelLoadingError, match=r"`precision`.*'int3'"):
        engines.step_graph(stack(), "int3")


needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None,
                               reason="tensorrt_rtx is not installed (extra `engine`)")  # fmt: skip


@needs_rtx
@pytest.mark.parametrize(("precision", "targets"), [("fp32", ("SM89",)), ("fp16", ("SM75", "SM80", "SM120"))])
def test_builds_without_a_gpu(tmp_path, precision, targets):
    graph = engines.step_graph(stack(), precision)
    built = engines.build_engine(graph, tmp_path / "a.engine", targets=targets)
    assert built.path.stat().st_size == built.nbytes > 10_000
    assert built.package == "tensorrt_rtx"
    assert built.targets == targets


@needs_rtx
def test_the_key_knows_everything_that_matters(tmp_path):
    trt = engines.tensorrt_module()
    base = engines.cache_key(trt, b"a", ("SM89",), (1, 1, 4))
    others = {engines.cache_key(trt, *rest) for rest in
              [(b"b", ("SM89",), (1, 1, 4)), (b"a", ("SM80",), (1, 1, 4)), (b"a", ("SM89",), (1, 1, 8))]}  # fmt: skip
    assert len(others | {base}) == 4


@needs_rtx
@pytest.mark.parametrize(("graph", "options", "word"), [
    (b"not onnx", {}, "refused the graph"),
    (None, {"targets": ("SM90",)}, "SM90"),
    (None, {"profile": (4, 1, 8)}, "profile"),
])  # fmt: skip
def test_refusals_leave_nothing_behind(tmp_path, graph, options, word):
    data = engines.step_graph(stack()) if graph is None else graph
    with pytest.raises(ModelLoadingError, match=word):
        engines.build_engine(data, tmp_path / "a.engine", **options)
    assert list(tmp_path.iterdir()) == []


def test_no_tensorrt_is_one_sentence(monkeypatch, tmp_path):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("tengri_fast.engines.build.importlib.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"tengri_fast\[engine\]"):
        engines.build_engine(b"", tmp_path / "a.engine")


def test_driver_question_does_not_raise():
    assert engines.driver_present() in (True, False)
