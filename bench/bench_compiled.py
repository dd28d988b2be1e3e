"""Loading a compiled model: from the file to a model that can step, every check included.

`from_compiled` is timed as a Python caller reaches it, with the file in the page cache. The baseline is the same
network made from its float weights (`Model.from_network`: checks, packing): what a compiled file saves, beside the
reading of ONNX.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _measure import percentiles, record, time_calls

from tengri_fast.inference import DenseLayer, LstmLayer, Model
from tengri_fast.inference.network import INPUT, WEIGHTED, Matrix8, Network, Node

SHAPES = {"lstm_1x64": (16, 64, 1, 3), "lstm_2x128": (128, 128, 2, 32), "lstm_3x256": (256, 256, 3, 32)}
FORMATS = ("fp32", "fp16", "int8")
LOADS = 200


def matrix(weights: np.ndarray) -> Matrix8:
    scale = np.abs(weights).max(axis=-1) / 127
    return Matrix8(np.rint(weights / scale[..., None]).astype(np.int8), scale)


def network(shape: str, number_format: str) -> Network:
    inputs, hidden, layers, outputs = SHAPES[shape]
    rng = np.random.default_rng(7)
    nodes: list[Node] = []

    def add(layer: Any) -> None:
        extra: dict[str, Any] = {}
        if number_format == "int8":
            matrices = {name: getattr(layer, name) for name in WEIGHTED[layer.kind]}
            extra["matrices"] = {name: matrix(values) for name, values in matrices.items() if values is not None}
            extra["scales"] = {"input": 4 / 127, "state": 1 / 127, "projection": 1 / 127}
        nodes.append(Node(layer, (len(nodes) - 1 if nodes else INPUT,), number_format, **extra))

    for i in range(layers):
        width = inputs if i == 0 else hidden
        shapes = ((4 * hidden, width), (4 * hidden, hidden), (4 * hidden,))
        add(LstmLayer(*(rng.standard_normal(s) / np.sqrt(hidden) for s in shapes), name=f"lstm{i}"))
    add(DenseLayer(rng.standard_normal((outputs, hidden)) / np.sqrt(hidden), np.zeros(outputs), name="head"))
    return Network(tuple(nodes), inputs)


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_load(benchmark: Any, tmp_path: Path, shape: str, number_format: str) -> None:
    benchmark.group = f"{shape} load"
    made = network(shape, number_format)
    path = tmp_path / "model.tgp"
    Model.from_network(made).save(path)
    load = benchmark.pedantic(Model.from_compiled, args=(path,), rounds=20)
    assert load.input_size == SHAPES[shape][0]
    packed = time_calls(lambda: Model.from_network(made), 10, warmup=2)
    record(
        benchmark,
        time_calls(lambda: Model.from_compiled(path), LOADS, warmup=10),
        rival="ours",
        dtype=number_format,
        baseline_ns=percentiles(packed)["p50"],
        file_bytes=path.stat().st_size,
    )
