"""The ONNX writer and the canonical single-step graph: read by the onnx package, run by ONNX Runtime, built by
TensorRT-RTX.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_networks import FAMILIES, network, normal, rows

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference.canonical import state_shapes, write_canonical
from tengri_fast.inference.canonical_reader import read_canonical
from tengri_fast.inference.evaluate import evaluate
from tengri_fast.inference.graph import read_network
from tengri_fast.inference.layers import ACTIVATIONS, ActivationLayer, ConvLayer, DenseLayer
from tengri_fast.inference.network import Network, Node, chain
from tengri_fast.inference.onnx_reader import parse
from tengri_fast.inference.onnx_writer import GraphWriter, bfloat16_bits, write_atomic
from tengri_fast.inference.quantize import quantize

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

FORMATS = ("fp32", "fp16", "bf16", "int8", "int8a16")


def in_format(net: Network, number_format: str) -> Network:
    return net if number_format == "fp32" else quantize(net, number_format, rows(300))[0]


def run(data: bytes, x: np.ndarray) -> np.ndarray:
    """Streams rows through ONNX Runtime, states fed back."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # Without this, a product of float rows with int8 weights is taken with rows rounded to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    states = {info.name: np.zeros([1, *info.shape[1:]], np.float32) for info in session.get_inputs()[1:]}
    out = []
    for row in x:
        y, *after = session.run(None, {"x": row[None], **states})
        states = dict(zip(states, after, strict=True))
        out.append(y[0])
    return np.array(out)


# ---------------------------------------------------------------- the writer


def test_every_message_is_what_the_onnx_package_reads():
    graph = GraphWriter("all", 21)
    graph.input("x", ["batch", 3])
    arrays = {
        "f32": np.array([[1.5, -2.0, np.inf]], np.float32),
        "f16": np.array([0.1, -65_504.0], np.float16),
        "f64": np.array([1e300]),
        "i8": np.array([-128, 127], np.int8),
        "u8": np.array([255], np.uint8),
        "i16": np.array([-32_768], np.int16),
        "i32": np.array([-(2**31)], np.int32),
        "i64": np.array([-(2**63), 2**63 - 1]),
        "flag": np.array([True, False]),
        "scalar": np.float32(-0.0),
        "empty": np.zeros((0, 2), np.float32),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    }
    for name, values in arrays.items():
        graph.tensor(name, values)
    graph.tensor("bf16", np.array([1.0, -3.0, 1e-3], np.float32), "bfloat16")
    graph.node("LeakyRelu", ["x"], "leaky", alpha=0.25)
    graph.node("Transpose", ["leaky"], "moved", perm=[1, 0])
    graph.node("Resize", ["moved", "", "f32"], ["a", "b"], mode="nearest", scales=[0.5, -1.0], negative=-7)
    graph.output("a", ["rows", 2])
    data = graph.to_bytes({"ключ": "значение", "b": ""}, ("tengri", "1"))
    model = onnx.load_from_string(data)
    assert (model.ir_version, model.producer_name, model.opset_import[0].version) == (10, "tengri", 21)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"ключ": "значение", "b": ""}
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, values in arrays.items():
        assert held[name].dtype == np.asarray(values).dtype
        assert held[name].shape == np.shape(values)
        np.testing.assert_array_equal(held[name], values)
    assert np.signbit(held["scalar"])
    np.testing.assert_allclose(held["bf16"].astype(np.float32), [1.0, -3.0, 1e-3], rtol=2**-8)
    leaky, moved, resize = model.graph.node
    assert onnx.helper.get_node_attr_value(leaky, "alpha") == 0.25
    assert onnx.helper.get_node_attr_value(moved, "perm") == [1, 0]
    assert (list(resize.input), list(resize.output), resize.name) == (["moved", "", "f32"], ["a", "b"], "a")
    assert onnx.helper.get_node_attr_value(resize, "mode") == b"nearest"
    assert onnx.helper.get_node_attr_value(resize, "scales") == [0.5, -1.0]
    assert onnx.helper.get_node_attr_value(resize, "negative") == -7
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, shape[1].dim_value) == ("batch", 3)
    assert model.graph.output[0].name == "a"


@given(st.integers(-(2**63), 2**63 - 1), st.lists(st.integers(-(2**40), 2**40), max_size=5))
@settings(max_examples=60, deadline=None)
def test_integers_survive(value, several):
    graph = GraphWriter("g", 19)
    graph.tensor("t", np.array([value], np.int64))
    graph.node("Shape", ["t"], "s", start=value, axes=several)
    graph.output("s", [1], "int64")
    data = graph.to_bytes()
    model, ours = onnx.load_from_string(data), parse(data)
    assert onnx.numpy_helper.to_array(model.graph.initializer[0])[0] == value == ours.tensors["t"][0]
    held = {attribute.name: attribute for attribute in model.graph.node[0].attribute}
    assert (held["start"].i, list(held["axes"].ints)) == (value, several)
    assert ours.nodes[0].attributes["start"] == value


@given(st.lists(st.floats(width=32, allow_nan=True), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_bfloat16_rounds_to_nearest_even(values):
    array = np.array(values, np.float32)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    ours = bfloat16_bits(array).view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(ours, array.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_what_the_writer_refuses():
    graph = GraphWriter("g", 19)
    graph.input("x", [1])
    with pytest.raises(ModelLoadingError, match="unique and not empty, was 'x'"):
        graph.tensor("x", np.zeros(1))
    with pytest.raises(ModelLoadingError, match="input `ghost` must be made before it"):
        graph.node("Relu", ["ghost"], "y")
    with pytest.raises(ModelLoadingError, match="output `y` must be made"):
        graph.output("y", [1])
    with pytest.raises(ModelLoadingError, match="was complex128"):
        graph.tensor("c", np.zeros(1, np.complex128))
    with pytest.raises(ModelLoadingError, match="attribute `axis`"):
        graph.node("Relu", ["x"], "z", axis=True)


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "model.onnx"
    write_atomic(path, b"first")
    assert path.read_bytes() == b"first"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"second")
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]


# ---------------------------------------------------------------- the canonical graph


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_runtime_answers_as_the_reference(family, number_format):
    net = in_format(network(family), number_format)
    data = write_canonical(net)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    x = rows(40, seed=2)
    expected = evaluate(net, x)
    assert expected.std(axis=0).max() > 1e-3
    error = np.abs(run(data, x) - expected)
    # A float32 sum may fall on the other side of a rounding boundary than the float64 one: then one quantum differs.
    quantum = {"int8": 0.02, "int8a16": 2e-4}.get(number_format)
    if quantum is None:
        assert error.max() < 5e-6
    else:
        assert error.max() < quantum
        assert np.median(error) < 2e-6 if number_format == "int8" else np.median(error) < 2e-5


@pytest.mark.parametrize("number_format", ["fp32", "int8", "int8a16"])
@pytest.mark.parametrize("family", ["lstm", "gru", "tcn", "mlp", "transformer", "deeplob"])
def test_onnx_runtime_answers_as_the_native_engine(family, number_format):
    """Of the same file: one rounding that falls the other way moves a state by one quantum."""
    session = pytest.importorskip("tengri_fast.inference.session")
    data = write_canonical(in_format(network(family), number_format))
    x = rows(100, seed=3)
    theirs, ours = run(data, x), session.Model.from_onnx(data).run_window(x)
    error = np.sqrt(np.mean((theirs - ours) ** 2)) / theirs.std()
    assert error < {"fp32": 5e-6, "int8": 0.03, "int8a16": 1e-3}[number_format]


@pytest.mark.parametrize("number_format", ["int8", "int8a16"])
def test_our_onnx_runtime_backend_keeps_the_precision(number_format):
    from tengri_fast.inference.ort import OrtModel

    net, x = in_format(network("lstm"), number_format), rows(100, seed=3)
    error = OrtModel.from_onnx(write_canonical(net)).run_window(x) - evaluate(net, x)
    assert np.sqrt(np.mean(error**2)) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_instruments_share_a_batch(family):
    data = write_canonical(in_format(network(family), "int8"))
    x = np.stack([rows(12, seed=seed) for seed in range(3)], axis=1)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    states = {info.name: np.zeros([3, *info.shape[1:]], np.float32) for info in session.get_inputs()[1:]}
    together = []
    for step in x:
        y, *after = session.run(None, {"x": step, **states})
        states = dict(zip(states, after, strict=True))
        together.append(y)
    alone = np.stack([run(data, x[:, i]) for i in range(3)], axis=1)
    np.testing.assert_allclose(np.array(together), alone, atol=0.02)
    assert np.median(np.abs(np.array(together) - alone)) < 1e-6


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_reads_back_as_the_same_network(family, number_format):
    net = replace(in_format(network(family), number_format), output_mode="last")
    net = replace(net, metadata={**net.metadata, "features": "a, b"})
    again = read_canonical(write_canonical(net))
    assert again is not None
    assert again.sha256() == net.sha256()
    assert (again.metadata, again.outputs, again.output_mode) == (net.metadata, net.outputs, "last")
    assert [node.layer.name for node in again.nodes] == [node.layer.name for node in net.nodes]
    assert write_canonical(again) == write_canonical(net)
    imported = read_network(write_canonical(net))
    assert (imported.sha256(), imported.metadata) == (net.sha256(), net.metadata)


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("family", ["lstm", "projected", "gru", "gru_before", "mlp", "tcn", "deeplob"])
def test_the_graph_alone_says_the_same(family, number_format):
    """Without its description the importer has to understand the graph as anybody's."""
    net = in_format(network(family), number_format)

    def strip(model):
        del model.metadata_props[:]

    found = read_network(edited(write_canonical(net), strip))
    assert [node.format for node in found.nodes] == [node.format for node in net.nodes]
    x = rows(60, seed=4)
    np.testing.assert_allclose(evaluate(found, x), evaluate(net, x), atol=1e-7)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation):
    net = Network(
        (Node(ActivationLayer(activation, 6, slope=0.2, softmax_groups=3 if activation == "softmax" else 1)),), 6
    )
    x = (4 * rows(30, 6)).astype(np.float32)
    np.testing.assert_allclose(run(write_canonical(net), x), evaluate(net, x), atol=2e-6)
    assert read_canonical(write_canonical(net)).sha256() == net.sha256()


def test_the_int8_form_is_what_tensorrt_wants():
    net = in_format(network("lstm"), "int8")
    model = onnx.load_from_string(write_canonical(net))
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name in ("0.lstm/w", "0.lstm/r", "2.dense/w"):
        assert held[name].dtype == np.int8
        assert held[name].min() >= -127
        assert held[f"{name}_scale"].shape == (held[name].shape[1],)
        assert not held[f"{name}_zero"].any()
    assert held["0.lstm/input_scale"].shape == held["0.lstm/state_scale"].shape == ()
    assert held["0.lstm/input_scale"] != held["0.lstm/state_scale"]
    assert held["0.lstm/bias"].dtype == np.float32
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert made.get(node.input[0]) not in ("MatMul", "Gemm", "Conv")
        if node.op_type == "MatMul":
            assert [made[name] for name in node.input] == ["DequantizeLinear"] * 2
    assert model.opset_import[0].version == 19
    assert onnx.load_from_string(write_canonical(in_format(network("lstm"), "int8a16"))).opset_import[0].version == 21


def test_metadata_says_where_it_came_from():
    net = replace(in_format(network("gru"), "int8"), outputs=(("probabilities", 3),))
    found = {entry.key: entry.value for entry in onnx.load_from_string(write_canonical(net)).metadata_props}
    assert found["tengri.form"] == "1"
    assert found["tengri.gate_order"] == "gru=rzn"
    assert json.loads(found["tengri.formats"]) == ["int8", "int8"]
    assert json.loads(found["tengri.outputs"]) == [["probabilities", 3]]
    assert found["tengri.source_sha256"] == network("gru").sha256()
    assert len(found["tengri.calibration_sha256"]) == 64


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
@pytest.mark.parametrize("number_format", ["fp32", "int8"])
@pytest.mark.parametrize("family", ["lstm", "tcn", "mlp", "transformer", "rope", "gru", "deeplob"])
def test_tensorrt_rtx_builds_it(tmp_path, family, number_format):
    from tengri_fast.engines import build_engine

    data = write_canonical(in_format(network(family), number_format))
    built = build_engine(data, tmp_path / "a.engine", targets=("SM89",), profile=(1, 1, 64))
    assert built.nbytes > 10_000


def test_states_are_named_and_shaped():
    shapes = dict(state_shapes(network("wavenet")))
    assert shapes == {"t0": (1,), "ring1": (1, 5), "ring7": (2, 8), "ring8": (3, 8)}
    assert dict(state_shapes(network("projected"))) == {"h0": (8,), "c0": (12,)}
    assert dict(state_shapes(network("rope")))["k5"] == (5, 8)


def test_positions_do_not_run_past_their_table():
    net = network("wavenet")
    x = rows(25)
    np.testing.assert_allclose(run(write_canonical(net), x), evaluate(net, x), atol=2e-6)


def test_what_has_no_single_step_is_refused_by_name():
    strided = chain([ConvLayer(np.ones((2, 3, 4), np.float32), np.zeros(3), stride=2, name="halve")])
    with pytest.raises(ModelLoadingError, match=r"layer `halve`: `stride` must be 1 .* was 2"):
        write_canonical(strided)
    rng = np.random.default_rng(0)
    large = chain([DenseLayer(7e4 * np.ones((2, 3), np.float32), normal(rng, 2), name="big")])
    fp16 = Network((Node(large.nodes[0].layer, format="fp16"),), 3)
    with pytest.raises(ModelLoadingError, match="layer `big`: `w` must be at most 65504 for fp16, was 70000"):
        write_canonical(fp16)
    quantised = in_format(network("tcn"), "int8")
    node = quantised.nodes[1]
    scale = node.matrices["w"].scale.copy()
    scale[0] *= 2
    broken = replace(node, matrices={"w": replace(node.matrices["w"], scale=scale)})
    nodes = tuple(broken if entry is node else entry for entry in quantised.nodes)
    with pytest.raises(ModelLoadingError, match="`conv0`: `scale` of the int8 matrix `w` must be equal over the taps"):
        write_canonical(replace(quantised, nodes=nodes))


# ---------------------------------------------------------------- files that are not what they say


def edited(data: bytes, change) -> bytes:
    model = onnx.load_from_string(data)
    change(model)
    return model.SerializeToString()


def test_an_edited_artefact_is_not_taken_for_the_original():
    data = write_canonical(network("lstm"))
    assert read_canonical(edited(data, lambda model: None)) is not None

    def swap_operator(model):
        next(node for node in model.graph.node if node.op_type == "Tanh").op_type = "Sigmoid"

    def rewire(model):
        model.graph.node[-1].input[0] = "h0_next"

    def drop_output(model):
        del model.graph.output[-1]

    def other_form(model):
        next(entry for entry in model.metadata_props if entry.key == "tengri.form").value = "99"

    for change in (swap_operator, rewire, drop_output, other_form):
        assert read_canonical(edited(data, change)) is None


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"nodes": []}', '{"input": 5, "output": 0, "nodes": [{"kind": "dense"}]}', "null", "[" * 100_000],
)
def test_a_lying_description_is_not_believed(text):
    def lie(model):
        next(entry for entry in model.metadata_props if entry.key == "tengri.network").value = text

    assert read_canonical(edited(write_canonical(network("rope")), lie)) is None


@given(
    st.sampled_from(
        ["window", "dim", "heads", "kv_heads", "value_dim", "scale", "name", "inputs", "format", "position"]
    ),
    st.sampled_from([0, -1, 1, 7, 10**12, 2**70, 1e300, 1.5, "x", None, [], [0, 0, 0], True]),
)
@settings(max_examples=60, deadline=None)
def test_a_changed_description_never_gives_another_network(key, value):
    data = write_canonical(network("rope"))

    def change(model):
        entry = next(entry for entry in model.metadata_props if entry.key == "tengri.network")
        skeleton = json.loads(entry.value)
        skeleton["nodes"][5][key] = value
        entry.value = json.dumps(skeleton)

    found = read_canonical(edited(data, change))
    assert found is None or (key == "name" or found.sha256() == network("rope").sha256())


def test_the_package_is_not_needed_at_run_time():
    sources = Path(__file__).resolve().parents[2] / "tengri_fast" / "inference"
    for name in ("onnx_writer.py", "canonical.py", "canonical_reader.py", "quantize.py", "prune.py"):
        assert "import onnx\n" not in (sources / name).read_text()
