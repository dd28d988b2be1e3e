"""Networks in PyTorch over a whole window, as an oracle that shares no code with the engine.

A child process with an interpreter that has torch: requests come on stdin, answers leave on stdout, each as its length
in 8 bytes (little endian) and an .npz. Written from what PyTorch documents: nn.LSTM and nn.GRU where they can say it,
else their cells spelt out; convolutions padded on the left; attention by scaled_dot_product_attention with a banded
mask, rotary positions as complex numbers. Quantised layers round their rows as the canonical artefact says.
"""

from __future__ import annotations

import io
import json
import struct
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

LIMITS = {"int8": (-128, 127), "int8a16": (-32767, 32767)}
ACTIVATIONS = {
    "none": lambda y: y,
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
    "silu": F.silu,
}


class Layer:
    """A layer's numbers: `node` holds what is not an array, `held` the arrays by name."""

    def __init__(self, node: dict[str, Any], held: dict[str, np.ndarray], dtype: torch.dtype) -> None:
        self.node, self.held, self.dtype = node, held, dtype
        self.integer = node["format"] in LIMITS

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(self.held[name]).to(self.dtype)

    def has(self, name: str) -> bool:
        return name in self.held

    def matrix(self, name: str) -> Tensor:
        """Weights as the format holds them."""
        if self.integer:
            return self.array(name + ".values") * self.array(name + ".scale")[..., None]
        given = torch.from_numpy(self.held[name])
        half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.node["format"])
        return (given if half is None else given.to(half)).to(self.dtype)

    def enter(self, x: Tensor, key: str) -> Tensor:
        """A row as it meets a matrix."""
        if not self.integer:
            return x
        low, high = LIMITS[self.node["format"]]
        scale = float(np.float32(self.node["scales"][key]))
        return torch.clamp(torch.round(x / scale), low, high) * scale

    def lstm(self, x: Tensor) -> Tensor:
        w, r, bias = self.matrix("w"), self.matrix("r"), self.array("bias")
        p = self.matrix("projection") if self.has("projection") else None
        hidden, width = len(bias) // 4, r.shape[1]
        if not self.integer and (p is None or width < hidden):  # proj_size must be smaller than hidden_size
            module = nn.LSTM(x.shape[1], hidden, proj_size=0 if p is None else width, dtype=self.dtype)
            module.weight_ih_l0.data, module.weight_hh_l0.data = w, r
            module.bias_ih_l0.data, module.bias_hh_l0.data = bias, torch.zeros_like(bias)
            if p is not None:
                module.weight_hr_l0.data = p
            return module(x)[0]
        h, c, out = torch.zeros(width, dtype=self.dtype), torch.zeros(hidden, dtype=self.dtype), []
        for row in self.enter(x, "input"):
            i, f, g, o = (w @ row + r @ self.enter(h, "state") + bias).chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            if p is not None:
                h = p @ self.enter(h, "projection")
            out.append(h)
        return torch.stack(out)

    def gru(self, x: Tensor) -> Tensor:
        w, r, bias, recurrent = self.matrix("w"), self.matrix("r"), self.array("bias"), self.array("recurrent_bias")
        hidden = r.shape[1]
        if not self.integer and self.node["reset_after"]:
            module = nn.GRU(x.shape[1], hidden, dtype=self.dtype)
            module.weight_ih_l0.data, module.weight_hh_l0.data = w, r
            module.bias_ih_l0.data, module.bias_hh_l0.data = bias, recurrent
            return module(x)[0]
        h, out = torch.zeros(hidden, dtype=self.dtype), []
        for row in self.enter(x, "input"):
            xr, xz, xn = (w @ row + bias).chunk(3)
            hr, hz, hn = (r @ self.enter(h, "state") + recurrent).chunk(3)
            reset, update = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
            if self.node["reset_after"]:
                hn = reset * hn
            else:
                hn = r[2 * hidden :] @ self.enter(reset * h, "state") + recurrent[2 * hidden :]
            h = (1 - update) * torch.tanh(xn + hn) + update * h
            out.append(h)
        return torch.stack(out)

    def dense(self, x: Tensor) -> Tensor:
        return F.linear(self.enter(x, "input"), self.matrix("w"), self.array("bias"))

    def conv(self, x: Tensor) -> Tensor:
        node, w = self.node, self.matrix("w")
        taps, out, _ = w.shape
        x = self.enter(x, "input")
        left = (taps - 1) * node["dilation"]
        if node["levels"] == 1:
            made = F.conv1d(F.pad(x.T[None], (left, 0)), w.permute(1, 2, 0).flip(2), self.array("bias"),
                            stride=node["stride"], dilation=node["dilation"], groups=node["groups"])  # fmt: skip
            return made[0].T
        image = x.reshape(len(x), node["levels"], -1).permute(2, 0, 1)[None]
        kernel = w.reshape(taps, out, node["level_kernel"], -1).permute(1, 3, 0, 2).flip(2)
        made = F.conv2d(F.pad(image, (0, 0, left, 0)), kernel, self.array("bias"),
                        stride=(node["stride"], node["level_stride"]), dilation=(node["dilation"], 1))  # fmt: skip
        return made[0].permute(1, 2, 0).reshape(made.shape[2], -1)

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        node, steps = self.node, len(q)
        q, k, v = (
            row.reshape(steps, heads, -1).transpose(0, 1)
            for row, heads in ((q, node["heads"]), (k, node["kv_heads"]), (v, node["kv_heads"]))
        )
        if node["position"].startswith("rope"):
            q, k = self.rotated(q), self.rotated(k)
        q, k, v = self.enter(q, "q"), self.enter(k, "k"), self.enter(v, "v")
        age = torch.arange(steps)[:, None] - torch.arange(steps)
        mask = torch.zeros(node["heads"], steps, steps, dtype=self.dtype)
        if self.has("slopes"):
            mask = mask - self.array("slopes")[:, None, None] * age
        mask = mask.masked_fill((age < 0) | (age >= node["window"]), float("-inf"))
        made = F.scaled_dot_product_attention(
            q[None], k[None], v[None], mask[None], scale=node["scale"], enable_gqa=node["heads"] != node["kv_heads"]
        )[0]
        return made.transpose(0, 1).reshape(steps, -1)

    def rotated(self, x: Tensor) -> Tensor:
        """Each pair as a complex number, turned by its step times a frequency; [heads, T, dim]."""
        heads, steps, dim = x.shape
        interleaved = self.node["position"] == "rope_interleaved"
        pairs = x.reshape(heads, steps, dim // 2, 2) if interleaved else x.reshape(heads, steps, 2, -1).transpose(2, 3)
        number = torch.view_as_complex(pairs.to(torch.float64).contiguous())
        powers = torch.arange(dim // 2, dtype=torch.float64) * (-2.0 / dim)
        angle = torch.outer(torch.arange(steps, dtype=torch.float64), float(self.node["rope_base"]) ** powers)
        turned = torch.view_as_real(number * torch.polar(torch.ones_like(angle), angle))
        turned = turned if interleaved else turned.transpose(2, 3)
        return turned.reshape(heads, steps, dim).to(self.dtype)

    def norm(self, x: Tensor) -> Tensor:
        gamma = self.array("gamma")
        beta = self.array("beta") if self.has("beta") else None
        if self.node["norm"] == "layer":
            return F.layer_norm(x, gamma.shape, gamma, beta, self.node["epsilon"])
        made = F.rms_norm(x, gamma.shape, gamma, self.node["epsilon"])
        return made if beta is None else made + beta

    def affine(self, x: Tensor) -> Tensor:
        return self.array("scale") * x + self.array("shift")

    def activation(self, x: Tensor) -> Tensor:
        return x

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    def concat(self, *rows: Tensor) -> Tensor:
        return torch.cat(rows, dim=1)

    def slice(self, x: Tensor) -> Tensor:
        return x[:, self.node["offset"] : self.node["offset"] + self.node["width"]]

    def pool(self, x: Tensor) -> Tensor:
        window, kind = self.node["window"], self.node["pool"]
        if kind == "max":
            return F.max_pool1d(F.pad(x.T[None], (window - 1, 0), value=float("-inf")), window, stride=1)[0].T
        made = F.avg_pool1d(F.pad(x.T[None], (window - 1, 0)), window, stride=1)[0].T * window
        if kind == "sum":
            return made
        seen = torch.arange(1, len(x) + 1).clamp(max=window)[:, None]
        return made / (seen if self.node["partial"] else window)

    def position(self, x: Tensor) -> Tensor:
        table = self.array("table")
        return x + table[torch.arange(len(x)).clamp(max=len(table) - 1)]

    def activated(self, y: Tensor) -> Tensor:
        kind = self.node["activation"]
        if kind == "leaky_relu":
            return F.leaky_relu(y, self.node.get("slope", 0.01))
        if kind == "softmax":
            groups = self.node.get("softmax_groups", 1)
            return torch.softmax(y.reshape(len(y), groups, -1), dim=2).reshape(y.shape)
        return ACTIVATIONS[kind](y)


def answer(network: dict[str, Any], arrays: dict[str, np.ndarray], x: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """[T, output]; behind a stride a row holds until the next one."""
    rows, periods = [], []
    first = torch.from_numpy(x).to(dtype)
    for i, node in enumerate(network["nodes"]):
        held = {name.split(".", 1)[1]: array for name, array in arrays.items() if name.split(".", 1)[0] == str(i)}
        layer = Layer(node, held, dtype)
        made = getattr(layer, node["kind"])(*(first if source < 0 else rows[source] for source in node["inputs"]))
        rows.append(layer.activated(made))
        period = 1 if node["inputs"][0] < 0 else periods[node["inputs"][0]]
        periods.append(period * node.get("stride", 1))
    wanted = network["output"]
    return rows[wanted].repeat_interleave(periods[wanted], dim=0)[: len(x)].numpy()


def main() -> None:
    torch.set_num_threads(1)
    with torch.inference_mode():
        while len(size := sys.stdin.buffer.read(8)) == 8:
            request = np.load(io.BytesIO(sys.stdin.buffer.read(*struct.unpack("<Q", size))), allow_pickle=False)
            arrays = {name: request[name] for name in request.files if name not in ("network", "x")}
            network = json.loads(bytes(request["network"]))
            kept = io.BytesIO()
            np.savez(kept, **{
                name: answer(network, arrays, request["x"], dtype)
                for name, dtype in (("double", torch.float64), ("single", torch.float32))
            })  # fmt: skip
            sys.stdout.buffer.write(struct.pack("<Q", len(kept.getvalue())) + kept.getvalue())
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
