"""Graphs that look like ones the importer reads and compute something else: they are declined, or answered as ONNX
Runtime answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference import Model, load_model
from tengri_fast.inference.graph import read_network, signature

onnx = pytest.importorskip("onnx", reason="the graphs are written with the onnx package")
runtime = pytest.importorskip("onnxruntime", reason="it says what a graph computes")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto
RNG = np.random.default_rng(11)
T = 5


def w(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) * 0.5).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def n(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(","), outputs.split(","), **attributes)


def build(nodes: list[Any], tensors: dict[str, Any], x: Any = (1, T, 4), kind: int = TensorProto.FLOAT) -> bytes:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", kind, x)], [info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def answer(data: bytes, x: np.ndarray) -> np.ndarray:
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def agrees(data: bytes, x: np.ndarray, window: int | None = None) -> bool:
    """Whether the native engine answers x [1, T, F] as ONNX Runtime does."""
    model = Model.from_onnx(data, window=window)
    want, got = answer(data, x), model.run_window(x[0])
    got = got[-1:] if model.output_mode == "last" else got
    return want.size == got.size and float(np.abs(want.reshape(got.shape) - got).max()) < 1e-4


def declines(data: bytes, words: str, window: int | None = None) -> None:
    with pytest.raises(ModelLoadingError, match=words):
        read_network(data, window=window)


# -- windows that the graph leaves open -----------------------------------------------------------------------------


def attention(mask: Callable[[np.ndarray], np.ndarray], table: int = 0) -> bytes:
    """One head over an open time axis; `mask` makes the bias of the scores from ages [128, 128]; `table`: positions."""
    ages = np.arange(128)[:, None] - np.arange(128)
    tensors = {
        "wq": w(4, 4), "wk": w(4, 4), "mask": mask(ages).astype(np.float32), "one": ints(1), "two": ints(0, 1),
        "zeros": ints(0, 0), "zero": ints(0),
    }  # fmt: skip
    nodes = [n("Shape", "x", "shape"), n("Gather", "shape,one", "steps", axis=0)]
    rows = "x"
    if table:
        tensors["table"] = w(1, table, 4)
        nodes += [n("Slice", "table,zero,steps,one", "here"), n("Add", "x,here", "placed")]
        rows = "placed"
    nodes += [
        n("Concat", "steps,steps", "ends", axis=0), n("Slice", "mask,zeros,ends,two", "bias"),
        n("MatMul", f"{rows},wq", "q"), n("MatMul", f"{rows},wk", "k"), n("Transpose", "k", "turned", perm=[0, 2, 1]),
        n("MatMul", "q,turned", "scores"), n("Add", "scores,bias", "masked"), n("Softmax", "masked", "p", axis=-1),
        n("MatMul", f"p,{rows}"),
    ]  # fmt: skip
    return build(nodes, tensors, ("batch", "time", 4))


def masked(allowed: np.ndarray, bias: Any = 0.0) -> np.ndarray:
    return np.where(allowed, bias, -np.inf)


CHUNK = (np.arange(128) // 16)[:, None] == np.arange(128) // 16


def test_all_rows_of_an_open_axis_need_a_window() -> None:
    data = attention(lambda age: masked(age >= 0))
    declines(data, "say `window`")
    x = w(1, 60, 4)
    assert agrees(data, x, 64)
    model = load_model(data, backend="native", window=9)
    got, want = model.run_window(x[0]), answer(attention_with_band(data, 9), x)
    assert np.abs(got - want[0]).max() < 1e-4
    assert load_model(data, window=9).backend == "native"
    assert load_model(data, backend="native", window=64, format="bf16").format == "bf16"


def attention_with_band(data: bytes, window: int) -> bytes:
    """The same graph with a mask of `window` rows."""
    proto = onnx.load_from_string(data)
    ages = np.arange(128)[:, None] - np.arange(128)
    band = masked((ages >= 0) & (ages < window)).astype(np.float32)
    for tensor in proto.graph.initializer:
        if tensor.name == "mask":
            tensor.CopyFrom(numpy_helper.from_array(band, "mask"))
    return proto.SerializeToString()


@pytest.mark.parametrize(("window", "table"), [(64, 0), (None, 100)])
def test_a_band_that_a_short_input_does_not_show(window: int | None, table: int) -> None:
    """At the shortest lengths a band of 30 rows looks like all rows."""
    data = attention(lambda age: masked((age >= 0) & (age < 30)), table)
    assert agrees(data, w(1, 60, 4), window)
    attentions = [layer for layer in read_network(data, window=window).layers if layer.kind == "attention"]
    assert [layer.window for layer in attentions] == [30]


@pytest.mark.parametrize(("window", "table"), [(64, 0), (None, 100)])
def test_a_bias_that_bends_beyond_a_short_input(window: int | None, table: int) -> None:
    data = attention(lambda age: masked(age >= 0, -0.1 * np.minimum(age, 20)), table)
    declines(data, "grows linearly with the distance", window)


@pytest.mark.parametrize(("window", "table"), [(16, 0), (None, 100)])
def test_blocks_of_rows_are_no_window(window: int | None, table: int) -> None:
    declines(attention(lambda age: masked((age >= 0) & CHUNK), table), "banded causal mask", window)


def test_a_pool_over_the_last_rows_keeps_its_own_window() -> None:
    nodes = [n("MatMul", "x,w", "h"), n("Slice", "h,first,end,one", "last"), n("ReduceMean", "last,one", keepdims=0)]
    tensors = {"w": w(4, 4), "first": ints(-30), "end": ints(1 << 60), "one": ints(1)}
    data = build(nodes, tensors, ("batch", "time", 4))
    assert agrees(data, w(1, 60, 4), 64)
    assert agrees(data, w(1, 60, 4))


def test_a_window_too_long_to_be_confirmed_is_declined() -> None:
    declines(attention(lambda age: masked(age >= 0)), "for a window of 100000", 100_000)


@pytest.mark.parametrize("window", [0, -3, 2.5, True, "9"])
def test_windows_that_are_none(window: Any) -> None:
    with pytest.raises(ModelLoadingError, match=r"`window` must be (a whole number|>= 1), was"):
        Model.from_onnx(attention(lambda age: masked(age >= 0)), window=window)


# -- single operators -----------------------------------------------------------------------------------------------


def test_gelu_of_small_numbers_needs_its_cubic() -> None:
    """With a factor of 1/1000 before it, the cubic's coefficient is 4e-11: small, and yet it counts."""

    def graph(*, cubic: bool) -> bytes:
        nodes = [
            n("MatMul", "x,w", "h"), n("Mul", "h,big", "b"), n("Relu", "b", "v"), n("Mul", "v,small", "u"),
            n("Mul", "u,u", "uu"), n("Mul", "uu,u", "uuu"), n("Mul", "uuu,c", "third"), n("Add", "u,third", "sum"),
            n("Mul", "sum,k" if cubic else "u,k", "t"), n("Tanh", "t", "tanh"), n("Add", "tanh,one", "gate"),
            n("Mul", "u,half", "uh"), n("Mul", "uh,gate"),
        ]  # fmt: skip
        numbers = {"big": 3000.0, "small": 1e-3, "c": 0.044715, "k": np.sqrt(2 / np.pi), "one": 1.0, "half": 0.5}
        return build(nodes, {"w": w(4, 4), **{k: np.float32(v) for k, v in numbers.items()}})

    x = w(1, T, 4)
    assert agrees(graph(cubic=True), x)
    assert agrees(graph(cubic=False), x)


@pytest.mark.parametrize("axes", ["empty", "none"])
@pytest.mark.parametrize("noop", [0, 1])
def test_reductions_over_no_axes(axes: str, noop: int) -> None:
    """Without axes all of them are meant, unless noop_with_empty_axes says none."""
    given = "h,axes" if axes == "empty" else "h"
    nodes = [n("MatMul", "x,w", "h"), n("ReduceMean", given, noop_with_empty_axes=noop)]
    data = build(nodes, {"w": w(4, 1), "axes": np.zeros(0, np.int64)})
    assert agrees(data, w(1, T, 4))
    assert read_network(data).output_mode == ("every" if noop else "last")


def test_relu_as_a_maximum_that_widens() -> None:
    nodes = [n("MatMul", "x,w", "h"), n("Max", "h,zeros")]
    assert agrees(build(nodes, {"w": w(4, 1), "zeros": np.zeros(4, np.float32)}), w(1, T, 4))


def test_a_mask_that_fills_with_nan() -> None:
    nodes = [
        n("MatMul", "x,w", "q"), n("Transpose", "x", "k", perm=[0, 2, 1]), n("MatMul", "q,k", "s"),
        n("Where", "keep,s,fill", "m"), n("Softmax", "m", "p", axis=-1), n("MatMul", "p,x"),
    ]  # fmt: skip
    tensors = {"w": w(4, 4), "keep": np.tril(np.ones((T, T), bool)), "fill": np.float32(np.nan)}
    declines(build(nodes, tensors), "masked scores to become -5000 or less, was nan")
    assert agrees(build(nodes, {**tensors, "fill": np.float32(-1e9)}), w(1, T, 4))


def test_a_clip_up_to_nan_is_no_relu() -> None:
    nodes = [n("MatMul", "x,w", "h"), n("Clip", "h,low,high")]
    declines(build(nodes, {"w": w(4, 4), "low": np.float32(0), "high": np.float32(np.nan)}), "clip at 0 from below")


def test_weights_of_more_axes_than_the_rows() -> None:
    """Their product has one axis more than the rows, and what follows counts axes."""
    nodes = [n("Reshape", "x,flat", "r"), n("MatMul", "r,w", "h"), n("ReduceSum", "h,one", keepdims=0)]
    declines(build(nodes, {"w": w(1, 4, 4), "flat": ints(T, 4), "one": ints(1)}), "weights of two dimensions")


@pytest.mark.parametrize(("kind", "code"), [(TensorProto.INT64, 7), (TensorProto.BOOL, 9), (TensorProto.UINT8, 2)])
def test_inputs_that_are_no_floats(kind: int, code: int) -> None:
    """Natively 1.5 would stay 1.5; the graph makes it 1."""
    data = build([n("Cast", "x", "f", to=1), n("MatMul", "f,w")], {"w": w(4, 4)}, kind=kind)
    declines(data, f"input `x`: expected a floating point type, was ONNX type {code}")
    assert agrees(build([n("Cast", "x", "f", to=1), n("MatMul", "f,w")], {"w": w(4, 4)}), w(1, T, 4))


@pytest.mark.parametrize("name", ["h", "w", "x"])
def test_names_that_are_given_twice(name: str) -> None:
    nodes = [n("MatMul", "x,w", "h"), n("Relu", "h", name), n("Tanh", name)]
    declines(build(nodes, {"w": w(4, 4)}), f"node 1 .*: output `{name}` must have a name of its own")


QUANTISED = {
    "w8": RNG.integers(-127, 128, (4, 4)).astype(np.int8), "ws": np.float32(0.01), "xs": np.float32(0.03),
    "z": np.int8(0), "wf": w(4, 4),
}  # fmt: skip
Q, DQ = n("QuantizeLinear", "x,xs,z", "q"), n("DequantizeLinear", "q,xs,z", "d")
WEIGHTS = n("DequantizeLinear", "w8,ws,z", "wd")


@pytest.mark.parametrize(("bounds", "step"), [((0, 1), 1), ((-2, -1), 1), ((-2, 1 << 60), 1), ((0, 100), 2)], ids=str)
@pytest.mark.parametrize("steps", ["time", 6])
def test_entries_of_a_batch_are_not_picked(bounds: tuple[int, int], step: int, steps: Any) -> None:
    """x[:, first:last] picks steps. With the axes taken for one another it would pick entries of the batch: all of
    them, if the batch is given just that size.
    """
    nodes = [n("MatMul", "x,w", "h"), n("Slice", "h,first,last,axis,step")]
    numbers = {"first": bounds[0], "last": bounds[1], "axis": 1, "step": step}
    data = build(nodes, {"w": w(4, 4), **{k: ints(v) for k, v in numbers.items()}}, ("batch", steps, 4))
    declines(data, "a row for every step, or for the last one")


def test_integers_are_not_what_they_stand_for() -> None:
    """A cast of the quantised row gives 33 where the dequantised row holds 1."""
    assert agrees(build([Q, DQ, WEIGHTS, n("MatMul", "d,wd")], QUANTISED), w(1, T, 4))
    cast = [Q, n("Cast", "q", "d", to=1), WEIGHTS, n("MatMul", "d,wd")]
    declines(build(cast, QUANTISED), "a quantised row that is not dequantised")
    other = [Q, n("DequantizeLinear", "q,ws,z", "d"), WEIGHTS, n("MatMul", "d,wd")]
    declines(build(other, QUANTISED), "the scale with which the value was quantised")


@pytest.mark.parametrize(
    "nodes",
    [
        [Q, DQ, n("Relu", "d", "r"), WEIGHTS, n("MatMul", "r,wd")],
        [n("MatMul", "x,wf", "h"), n("QuantizeLinear", "h,xs,z", "q"), n("DequantizeLinear", "q,xs,z")],
    ],
    ids=["relu", "output"],
)
def test_quantised_rows_that_meet_no_weights(nodes: list[Any]) -> None:
    declines(build(nodes, QUANTISED), "expected a quantised row to meet int8 weights only")


@pytest.mark.parametrize("factor", [3e38, -3e38])
def test_constants_whose_product_overflows(factor: float) -> None:
    """Folded into the weights they would be infinite; that is declined without a warning of NumPy's."""
    nodes = [n("MatMul", "x,w", "h"), n("Mul", "h,k", "a"), n("Mul", "a,k", "b"), n("Add", "b,k")]
    data = build(nodes, {"w": np.ones((4, 4), np.float32), "k": np.float32(factor)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        declines(data, "finite")


# -- what is told to ONNX Runtime -----------------------------------------------------------------------------------


def test_an_answer_as_wide_as_the_window_is_no_window() -> None:
    """The last state of an LSTM [1, 1, H] with H steps."""
    steps = 6
    nodes = [
        n("Transpose", "x", "turned", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["turned", "w", "r"], ["all", "y", "c"], hidden_size=steps),
    ]
    data = build(nodes, {"w": w(1, 4 * steps, 4), "r": w(1, 4 * steps, steps)}, (1, steps, 4))
    x = w(1, steps, 4)
    described = signature(data)
    assert described.last_only
    y = answer(data, x)
    assert np.array_equal(described.rows(y, steps), y.reshape(1, steps))
    unread = build([*nodes[:1], helper.make_node("LSTM", ["turned", "w", "r"], ["all", "h", "c"], hidden_size=steps),
                    n("Exp", "h")], {"w": w(1, 4 * steps, 4), "r": w(1, 4 * steps, steps)}, (1, "time", 4))  # fmt: skip
    proto = onnx.load_from_string(unread)
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, steps)))
    described = signature(proto.SerializeToString())
    assert described.last_only
    assert described.rows(np.zeros((1, 1, steps)), steps).shape == (1, steps)
    model = load_model(proto.SerializeToString(), window=steps)
    assert model.backend == "onnxruntime"
    assert model.output_size == steps
