"""Single-step graphs: quantised and half-precision cells, rings, and what is no such thing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from inference import network_reference

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference.canonical import write_canonical
from tengri_fast.inference.graph import read_network
from tengri_fast.inference.layers import (
    AddLayer,
    AffineLayer,
    AttentionLayer,
    ConcatLayer,
    ConvLayer,
    DenseLayer,
    GruLayer,
    LstmLayer,
    MulLayer,
    NormLayer,
    PoolLayer,
    SliceLayer,
)
from tengri_fast.inference.network import FORMATS, SCALES, WEIGHTED, Matrix8, Network, Node

onnx = pytest.importorskip("onnx", reason="metadata are removed, and graphs written, with the onnx package")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto
F = 5
RNG = np.random.default_rng(3)


def w(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) * 0.5).astype(np.float32)


def quantised(weights: np.ndarray) -> Matrix8:
    if weights.ndim == 3:  # one scale per output channel, the same for all taps
        scale = np.broadcast_to(np.abs(weights).max(axis=(0, 2)) / 127, weights.shape[:2]).astype(np.float32)
    else:
        scale = (np.abs(weights).max(axis=1) / 127).astype(np.float32)
    return Matrix8(np.clip(np.round(weights / scale[..., None]), -127, 127).astype(np.int8), scale)


def node(layer: Any, inputs: tuple[int, ...], form: str) -> Node:
    if layer.kind == "attention" and form == "int8":
        return Node(layer, inputs, form, {"q": 0.03125, "k": 0.025, "v": 0.02})
    if layer.kind not in WEIGHTED or form == "fp32":
        return Node(layer, inputs)
    if form in ("fp16", "bf16"):
        return Node(layer, inputs, form)
    names = [name for name in WEIGHTED[layer.kind] if getattr(layer, name) is not None]
    keys = [key for key in SCALES[layer.kind] if key != "projection" or "projection" in names]
    top = 127 if form == "int8" else 32767
    scales = {key: float(np.float32((3 + i) / top)) for i, key in enumerate(keys)}
    return Node(layer, inputs, form, scales, {name: quantised(getattr(layer, name)) for name in names})


NETWORKS: dict[str, list[tuple[Any, tuple[int, ...]]]] = {
    "lstm": [(LstmLayer(w(24, F), w(24, 6), w(24)), (-1,)), (DenseLayer(w(3, 6), w(3), "softmax"), (0,))],
    "two lstms": [(LstmLayer(w(24, F), w(24, 6), w(24)), (-1,)), (LstmLayer(w(28, 6), w(28, 7), w(28)), (0,)),
                  (DenseLayer(w(3, 7), w(3)), (1,))],
    "projection": [(LstmLayer(w(24, F), w(24, 4), w(24), "p", w(4, 6)), (-1,)), (DenseLayer(w(3, 4), w(3)), (0,))],
    "gru": [(GruLayer(w(18, F), w(18, 6), w(18), w(18)), (-1,)), (DenseLayer(w(3, 6), w(3), "gelu"), (0,))],
    "gru, reset before": [(GruLayer(w(18, F), w(18, 6), w(18), w(18), False), (-1,)),
                          (DenseLayer(w(3, 6), w(3), "gelu_tanh"), (0,))],
    "convolutions": [(ConvLayer(w(3, 4, F), w(4), dilation=2, activation="relu"), (-1,)),
                     (ConvLayer(w(2, 4, 1), w(4), groups=4, activation="silu"), (0,)), (DenseLayer(w(2, 4), w(2)), (1,
                     ))],
    "levels": [(ConvLayer(w(3, 4, 2), w(4), levels=5, level_kernel=2, activation="tanh"), (-1,)),
               (DenseLayer(w(2, 16), w(2)), (0,))],
    "rows": [(NormLayer(w(F), w(F)), (-1,)), (DenseLayer(w(8, F), w(8), "leaky_relu", slope=0.2), (0,)),
             (NormLayer(w(8), None, 1e-6, "rms"), (1,)), (AddLayer(8), (1, 2)), (SliceLayer(0, 4), (3,)),
             (SliceLayer(4, 4), (3,)), (MulLayer(4), (4, 5)), (AffineLayer(w(4), w(4), "tanh"), (6,)),
             (ConcatLayer((4, 8)), (7, 3)), (DenseLayer(w(6, 12), w(6), "softmax", softmax_groups=2), (8,))],
    "pools": [(DenseLayer(w(4, F), w(4)), (-1,)), (PoolLayer(4, 3, "mean", False), (0,)), (PoolLayer(4, 4, "sum"), (0,
    )),
              (ConcatLayer((4, 4)), (1, 2)), (DenseLayer(w(2, 8), w(2)), (3,))],
    "attention": [(DenseLayer(w(8, F), w(8)), (-1,)), (DenseLayer(w(4, F), w(4)), (-1,)), (DenseLayer(w(6, F), w(6)),
    (-1,)),
                  (AttentionLayer(4, 2, 2, 3, 5), (0, 1, 2)), (DenseLayer(w(2, 12), w(2)), (3,))],
    "linear biases": [(DenseLayer(w(4, F), w(4)), (-1,)), (DenseLayer(w(4, F), w(4)), (-1,)),
                      (DenseLayer(w(4, F), w(4)), (-1,)),
                      (AttentionLayer(2, 2, 2, 2, 9, 0.9, "alibi", slopes=np.array([0.5, 0.25])), (0, 1, 2))],
}  # fmt: skip
SAME = {"attention", "linear biases", "lstm", "two lstms", "projection", "convolutions", "levels"}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_canonical_graphs_are_read_without_their_metadata(name: str, form: str) -> None:
    """The wiring is then found from the graph alone."""
    network = Network(tuple(node(layer, inputs, form) for layer, inputs in NETWORKS[name]), F)
    model = onnx.load_from_string(write_canonical(network))
    del model.metadata_props[:]
    found = read_network(model.SerializeToString())
    assert [n.format for n in found.nodes if n.layer.kind in WEIGHTED] == [form] * sum(
        layer.kind in WEIGHTED for layer, _ in NETWORKS[name]
    )
    x = (np.random.default_rng(1).standard_normal((40, F)) * 1.5).astype(np.float32)
    want = network_reference.run(network, x)
    assert np.abs(network_reference.run(found, x) - want).max() < 1e-6
    if name in SAME and form in ("fp32", "int8", "int8a16"):
        for ours, theirs in zip(found.nodes, network.nodes, strict=True):
            assert ours.layer.kind == theirs.layer.kind
            assert ours.scales == pytest.approx(theirs.scales, rel=1e-6)
            for key, matrix in theirs.matrices.items():
                assert np.array_equal(ours.matrices[key].values, matrix.values)
                assert np.array_equal(ours.matrices[key].scale, matrix.scale)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_canonical_round_trip_is_exact(name: str, form: str) -> None:
    network = Network(
        tuple(node(layer, inputs, form) for layer, inputs in NETWORKS[name]), F, metadata={"note": "kept"}
    )
    once = read_network(write_canonical(network))
    again = read_network(write_canonical(once))
    assert once.metadata == {"note": "kept"}
    assert again.sha256() == once.sha256()
    if form == "fp32":
        assert once.sha256() == network.sha256()


def step_graph(
    nodes: list[Any], tensors: dict[str, np.ndarray], states: dict[str, list[int]], opset: int = 21, x: Any = None
) -> bytes:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g",
        [info("x", TensorProto.FLOAT, x or [1, F]), *(info(k, TensorProto.FLOAT, v) for k, v in states.items())],
        [info("y", TensorProto.FLOAT, None), *(info(f"{k}_next", TensorProto.FLOAT, None) for k in states)],
        [numpy_helper.from_array(v, k) for k, v in tensors.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10).SerializeToString()


def n(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(","), outputs.split(","), name=f"my_{outputs.split(',')[0]}", **attributes)


def concat_cell(zero: Any = None, scale: Any = 0.05) -> bytes:
    """An LSTM cell with one quantised product of [x, h], gates in the order o, f, i, g."""
    matrix = quantised(w(24, F + 6))
    tensors = {
        "w": np.ascontiguousarray(matrix.values.T), "ws": matrix.scale, "wz": np.zeros(24, np.int8), "b": w(24),
        "s": np.float32(scale), "z": np.asarray(np.int8(0) if zero is None else zero), "head": w(6, 2),
    }  # fmt: skip
    nodes = [
        n("Concat", "x,h", "xh", axis=1), n("QuantizeLinear", "xh,s,z", "q"), n("DequantizeLinear", "q,s,z", "dq"),
        n("DequantizeLinear", "w,ws,wz", "wf", axis=1), n("MatMul", "dq,wf", "p"), n("Add", "b,p", "gates"),
        n("Split", "gates", "o,f,i,g", axis=1, num_outputs=4),
        *(n("Sigmoid", gate, f"s{gate}") for gate in "ofi"), n("Tanh", "g", "tg"),
        n("Mul", "sf,c", "fc"), n("Mul", "tg,si", "ig"), n("Add", "ig,fc", "c_next"),
        n("Tanh", "c_next", "tc"), n("Mul", "tc,so", "h_next"), n("MatMul", "h_next,head", "y"),
    ]  # fmt: skip
    return step_graph(nodes, tensors, {"h": [1, 6], "c": [1, 6]})


def test_one_quantised_product_of_input_and_state() -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the oracle")
    data = concat_cell()
    network = read_network(data)
    assert [(v.layer.kind, v.format) for v in network.nodes] == [("lstm", "int8"), ("dense", "fp32")]
    assert network.nodes[0].scales == pytest.approx({"input": 0.05, "state": 0.05})
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    h = c = np.zeros((1, 6), np.float32)
    x = np.random.default_rng(2).standard_normal((50, F)).astype(np.float32)
    got = []
    for row in x:
        y, h, c = session.run(None, {"x": row[None], "h": h, "c": c})
        got.append(y[0])
    # A sum near a half may round to the other integer in float32: one step of the scale in one product.
    assert np.abs(np.array(got) - network_reference.run(network, x)).max() < 2e-2


HIDDEN = {"r": w(4, 4), "w": w(F, 4), "half": np.float32(0.5), "b": w(4)}
OTHER = {
    "a plain recurrence": (
        [n("MatMul", "x,w", "a"), n("MatMul", "h,r", "b2"), n("Add", "a,b2", "z"), n("Tanh", "z", "h_next"),
         n("Identity", "h_next", "y")], HIDDEN, {"h": [1, 4]}, "expected the states of an LSTM, a GRU, or a ring",
    ),
    "an exponential mean": (
        [n("MatMul", "x,w", "a"), n("Mul", "a,half", "p"), n("Mul", "h,half", "q"), n("Add", "p,q", "h_next"),
         n("Identity", "h_next", "y")], HIDDEN, {"h": [1, 4]}, "expected the states of an LSTM, a GRU, or a ring",
    ),
    "a state of another shape": (
        [n("MatMul", "x,w", "y"), n("Concat", "y,y", "h_next", axis=1)], HIDDEN, {"h": [1, 4]}, "of the same shape",
    ),
    "an answer that changes with the number of steps": (
        [n("MatMul", "x,w", "a"), n("Add", "a,h", "y"), n("Identity", "b", "h_next")], HIDDEN, {"h": [4]},
        "the network depends on the number of steps since reset",
    ),
    "a bias on the rows of a ring": (
        [n("MatMul", "x,w", "a"), n("Unsqueeze", "a,one", "u"), n("Concat", "h,u", "all", axis=1),
         n("Slice", "all,one,end,one", "h_next"), n("Add", "all,b", "late"), n("ReduceSum", "late,one", "y",
         keepdims=0)],
        {**HIDDEN, "one": np.array([1]), "end": np.array([99])}, {"h": [1, 3, 4]},
        "expected rows that come from the input",
    ),
    "attention over a cache without a mask": (
        [n("MatMul", "x,w", "a"), n("Unsqueeze", "a,one", "u"), n("Concat", "h,u", "all", axis=1),
         n("Slice", "all,one,end,one", "h_next"), n("Transpose", "all", "t", perm=[0, 2, 1]), n("MatMul", "u,t", "s"),
         n("Softmax", "s", "p", axis=-1), n("MatMul", "p,all", "y")],
        {**HIDDEN, "one": np.array([1]), "end": np.array([99])}, {"h": [1, 3, 4]}, "found empty slots without a mask",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER)
def test_other_states_are_declined(case: str) -> None:
    nodes, tensors, states, words = OTHER[case]
    with pytest.raises(ModelLoadingError) as error:
        read_network(step_graph(nodes, tensors, states))
    assert words in str(error.value)
    assert "runs on ONNX Runtime instead" in str(error.value)


def test_states_that_nothing_needs_are_left_out() -> None:
    nodes = [n("MatMul", "x,w", "y"), n("Identity", "h", "h_next")]
    assert [v.layer.kind for v in read_network(step_graph(nodes, HIDDEN, {"h": [1, 4]})).nodes] == ["dense"]


def test_a_ring_of_inputs_is_a_convolution() -> None:
    nodes = [
        n("Unsqueeze", "x,two", "u"), n("Concat", "h,u", "all", axis=2), n("Slice", "all,one,end,two", "h_next"),
        n("Conv", "all,k,b", "z", dilations=[2]), n("Squeeze", "z,two", "y"),
    ]  # fmt: skip
    tensors = {"k": w(4, F, 3), "b": w(4), "one": np.array([1]), "two": np.array([2]), "end": np.array([99])}
    network = read_network(step_graph(nodes, tensors, {"h": [1, F, 4]}))
    conv = network.nodes[0].layer
    assert (conv.kind, conv.taps, conv.dilation) == ("conv", 3, 2)
    assert np.array_equal(conv.w, tensors["k"].transpose(2, 0, 1)[::-1])


@pytest.mark.parametrize("answer", ["h", "dense"])
@pytest.mark.parametrize("bias", ["first", "last"])
def test_a_written_out_lstm_may_be_the_whole_network(answer: str, bias: str) -> None:
    """Its new state is the answer itself, with no layer behind it."""
    terms = ("xw", "b", "hr") if bias == "first" else ("xw", "hr", "b")
    nodes = [
        n("MatMul", "x,w", "xw"), n("MatMul", "h,r", "hr"), n("Add", f"{terms[0]},{terms[1]}", "two"),
        n("Add", f"two,{terms[2]}", "sums"), n("Split", "sums", "i,f,g,o", axis=1, num_outputs=4),
        n("Sigmoid", "i", "si"), n("Sigmoid", "f", "sf"), n("Tanh", "g", "tg"), n("Sigmoid", "o", "so"),
        n("Mul", "sf,c", "kept"), n("Mul", "si,tg", "fresh"), n("Add", "kept,fresh", "c2"), n("Tanh", "c2", "tc"),
        n("Mul", "so,tc", "h2"), n("Identity", "h2", "y") if answer == "h" else n("MatMul", "h2,v", "y"),
    ]  # fmt: skip
    tensors = {"w": w(4, 12), "r": w(3, 12), "b": w(12), "v": w(3, 2)}
    info = onnx.helper.make_tensor_value_info
    inputs = [info("x", 1, [1, 4]), info("h", 1, [1, 3]), info("c", 1, [1, 3])]
    outputs = [info(name, 1, None) for name in ("y", "h2", "c2")]
    constants = [onnx.numpy_helper.from_array(v, k) for k, v in tensors.items()]
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    network = read_network(model.SerializeToString())
    assert [layer.kind for layer in network.layers] == ["lstm"] + ["dense"] * (answer == "dense")
    layer = network.layers[0]
    assert np.array_equal(layer.w, tensors["w"].T)
    assert np.array_equal(layer.r, tensors["r"].T)
    assert np.array_equal(layer.bias, tensors["b"])


def test_windows_and_steps_do_not_mix() -> None:
    nodes = [n("LSTM", "x,W,R,B,,h,c", "s,h_next,c_next", hidden_size=3), n("Squeeze", "s,one", "y")]
    tensors = {"W": w(1, 12, F), "R": w(1, 12, 3), "B": w(1, 24), "one": np.array([1])}
    states = {"h": [1, 1, 3], "c": [1, 1, 3]}
    assert read_network(step_graph(nodes, tensors, states, x=[1, 1, F])).nodes[0].layer.kind == "lstm"
    with pytest.raises(ModelLoadingError, match="runs on ONNX Runtime instead"):
        read_network(step_graph(nodes, tensors, states, x=[7, 1, F]))


@pytest.mark.parametrize(
    ("zero", "words"),
    [(np.uint8(0), "expected symmetric int8 or int16, was uint8"), (np.int8(3), "expected zero points of 0")],
)
def test_other_quantisation_is_declined(zero: Any, words: str) -> None:
    with pytest.raises(ModelLoadingError) as error:
        read_network(concat_cell(zero))
    assert words in str(error.value)
    assert "`my_q` (QuantizeLinear)" in str(error.value)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_scales_must_be_positive_numbers(scale: float) -> None:
    with pytest.raises(ModelLoadingError, match="one positive scale"):
        read_network(concat_cell(scale=scale))


def test_half_precision_initialisers_keep_their_format() -> None:
    weights = w(F, 3)
    info = helper.make_tensor_value_info
    for kind, form in ((TensorProto.FLOAT16, "fp16"), (TensorProto.BFLOAT16, "bf16")):
        stored = helper.make_tensor("w", kind, weights.shape, weights.reshape(-1))
        graph = helper.make_graph(
            [n("Cast", "w", "wf", to=1), n("MatMul", "x,wf", "y")], "g", [info("x", TensorProto.FLOAT, ["b", F])],
            [info("y", TensorProto.FLOAT, None)], [stored],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        found = read_network(model.SerializeToString()).nodes[0]
        assert found.format == form
        rounded = weights.astype(np.float16) if form == "fp16" else network_reference.round_bf16(weights)
        if form == "fp16":
            assert np.array_equal(found.layer.w, rounded.T.astype(np.float32))
        else:
            assert np.abs(found.layer.w - weights.T).max() < 2**-8 * np.abs(weights).max()
