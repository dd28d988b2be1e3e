"""PyTorch as a rival, in its own interpreter: one step with explicit states, traced, frozen, one thread.

Reads JSON lines and raw float32 from stdin, writes raw numbers to stdout; started by bench/_rivals.py.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional


class Step(torch.nn.Module):
    """One step of a network; states go in and come out."""

    def __init__(self, nodes: list[dict[str, Any]], arrays: dict[str, torch.Tensor], output: int) -> None:
        super().__init__()
        self.nodes, self.output = nodes, output
        for name, array in arrays.items():
            self.register_buffer(name.replace(".", "_"), array)

    def get(self, index: int, name: str) -> torch.Tensor:
        return getattr(self, f"{index}_{name}")

    def states(self) -> list[torch.Tensor]:
        out = []
        for i, node in enumerate(self.nodes):
            if node["kind"] == "lstm":
                hidden = self.get(i, "bias").shape[0] // 4
                out += [torch.zeros(1, hidden), torch.zeros(1, hidden)]
            elif node["kind"] == "conv":
                w = self.get(i, "w")
                out.append(torch.zeros(1, w.shape[2], (w.shape[0] - 1) * node["dilation"]))
            elif node["kind"] == "attention":
                out += [torch.zeros(1, node["heads"], node["window"] - 1, node["dim"]) for _ in range(2)]
                out.append(torch.full((1, 1, 1, node["window"]), float("-inf")))
        return out

    def forward(self, x: torch.Tensor, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values: list[torch.Tensor] = []
        states, made = list(given), []
        for i, node in enumerate(self.nodes):
            rows = [x if j < 0 else values[j] for j in node["inputs"]]
            a, kind = rows[0], node["kind"]
            if kind == "lstm":
                h, c = states.pop(0), states.pop(0)
                zero = torch.zeros_like(self.get(i, "bias"))
                h, c = torch._VF.lstm_cell(a, (h, c), self.get(i, "w"), self.get(i, "r"), self.get(i, "bias"), zero)
                made += [h, c]
                y = h
            elif kind == "dense":
                y = functional.linear(a, self.get(i, "w"), self.get(i, "bias"))
            elif kind == "conv":
                window = torch.cat([states.pop(0), a[:, :, None]], 2)
                made.append(window[:, :, 1:])
                taps = window[:, :, :: node["dilation"]].flatten(1)  # a linear layer here is faster than conv1d
                w = self.get(i, "w").permute(1, 2, 0).flip(2).flatten(1)
                y = functional.linear(taps, w, self.get(i, "bias"))
            elif kind == "attention":
                heads = [r.view(1, node["heads"], 1, node["dim"]) for r in rows]
                keys = torch.cat([states.pop(0), heads[1]], 2)
                found = torch.cat([states.pop(0), heads[2]], 2)
                mask = torch.cat([states.pop(0)[:, :, :, 1:], torch.zeros(1, 1, 1, 1)], 3)
                made += [keys[:, :, 1:], found[:, :, 1:], mask]
                y = functional.scaled_dot_product_attention(heads[0], keys, found, mask, scale=node["scale"]).view(
                    1, -1
                )
            elif kind == "norm":
                gamma = self.get(i, "gamma")
                y = functional.layer_norm(a, gamma.shape, gamma, self.get(i, "beta"), node["epsilon"])
            elif kind == "add":
                y = a + rows[1]
            elif kind == "slice":
                y = a[:, node["offset"] : node["offset"] + node["width"]]
            else:
                raise SystemExit(f"the torch rival knows no layer {kind}")
            values.append(torch.relu(y) if node["activation"] == "relu" else y)
        return (values[self.output], *made)


def main() -> None:
    torch.set_num_threads(1)
    stream, answer = sys.stdin.buffer, sys.stdout.buffer
    header = json.loads(stream.readline())
    arrays = {}
    for name, (shape, size) in header["arrays"].items():
        arrays[name] = torch.from_numpy(np.frombuffer(stream.read(4 * size), np.float32).copy().reshape(shape))
    module: Any = Step(header["nodes"], arrays, header["output"]).eval()
    states = module.states()
    width = header["input"]
    with torch.inference_mode():
        module = torch.jit.freeze(torch.jit.trace(module, (torch.zeros(1, width), *states), check_trace=False))
        for _ in range(50):
            module(torch.zeros(1, width), *states)
        answer.write(b"ready\n")
        answer.flush()
        for line in stream:
            ask = json.loads(line)
            count = ask.get("rows", ask.get("run", 0))
            x = torch.from_numpy(
                np.frombuffer(stream.read(4 * count * width), np.float32).copy().reshape(count, 1, width)
            )
            if "run" in ask:
                for row in x:
                    y, *states = module(row, *states)
                    answer.write(y.numpy().astype(np.float32).tobytes())
            else:
                evict = np.ones(ask["evict"] // 8 + 1)
                times = np.empty(ask["time"])
                for i in range(ask["time"]):
                    row = x[i % count]
                    if ask["evict"]:
                        evict.sum()
                    start = time.perf_counter_ns()
                    _, *states = module(row, *states)
                    times[i] = time.perf_counter_ns() - start
                answer.write(times.tobytes())
            answer.flush()


main()
