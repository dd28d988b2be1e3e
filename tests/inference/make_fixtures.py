"""Writes the ONNX fixtures and their golden files with PyTorch's two exporters.

Run in the training environment (torch, onnxscript): ``.venv-train/bin/python tests/inference/make_fixtures.py``. The
results are committed, so the tests themselves need no torch.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

FOLDER = Path(__file__).resolve().parent / "fixtures"
STEPS = 24


class Last(nn.Module):
    """LSTM and a head on the last step."""

    def __init__(self, inputs: int, hidden: int, layers: int, head: nn.Module, *, bias: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True, bias=bias, dropout=0.1 if layers > 1 else 0.0)
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.lstm(x)
        return self.head(out[:, -1])


class Every(nn.Module):
    """LSTM and a head on every step."""

    def __init__(self, inputs: int, hidden: int, layers: int, head: nn.Module, *, batch_first: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=batch_first)
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0])


class Step(nn.Module):
    """One step with the state as inputs and outputs."""

    def __init__(self, inputs: int, hidden: int, layers: int, head: nn.Module) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True)
        self.head = head

    def forward(
        self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        out, (hn, cn) = self.lstm(x, (h, c))
        return self.head(out[:, -1]), hn, cn


class HiddenState(nn.Module):
    """The head reads h_n of the last layer instead of the last row of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 6, 2, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[1][0][-1])


def cases() -> dict[str, tuple[nn.Module, tuple[torch.Tensor, ...], str]]:
    """Name to module, example inputs, kind (window, step, row)."""
    window = lambda n: (torch.randn(2, STEPS, n),)  # noqa: E731
    return {
        "last_softmax": (Last(5, 12, 2, nn.Sequential(nn.Linear(12, 3), nn.Softmax(dim=-1))), window(5), "window"),
        "last_nobias": (Last(3, 7, 1, nn.Linear(7, 1, bias=False), bias=False), window(3), "window"),
        "every_mlp": (
            Every(4, 9, 2, nn.Sequential(nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 2), nn.Tanh())),
            window(4),
            "window",
        ),
        "time_first": (
            Every(4, 6, 1, nn.Sequential(nn.Linear(6, 3), nn.Sigmoid()), batch_first=False),
            (torch.randn(STEPS, 2, 4),),
            "window_time_first",
        ),
        "hidden_state": (HiddenState(), window(3), "window"),
        "step_state": (
            Step(5, 8, 2, nn.Linear(8, 3)),
            (torch.randn(1, 1, 5), torch.zeros(2, 1, 8), torch.zeros(2, 1, 8)),
            "step",
        ),
        "mlp": (
            nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 2)),
            (torch.randn(2, 6),),
            "row",
        ),
        "unsupported_gru": (nn.GRU(3, 4, 1, batch_first=True), window(3), "declined"),
        "unsupported_bidirectional": (nn.LSTM(3, 4, 1, batch_first=True, bidirectional=True), window(3), "declined"),
        "unsupported_conv": (nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()), (torch.randn(2, 3, 16),), "declined"),
    }


def export(name: str, module: nn.Module, args: tuple[torch.Tensor, ...], kind: str, *, dynamo: bool) -> Path:
    path = FOLDER / f"{name}.{'dynamo' if dynamo else 'script'}.onnx"
    inputs = ["x", "h", "c"][: len(args)]
    outputs = ["y", "h_next", "c_next"] if kind == "step" else ["y"]
    options: dict[str, object] = {}
    if kind == "window":
        if dynamo:
            options["dynamic_shapes"] = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("steps")},)
        else:
            options["dynamic_axes"] = {"x": {0: "batch", 1: "steps"}}
    torch.onnx.export(
        module, args, str(path), dynamo=dynamo, input_names=inputs, output_names=outputs, external_data=False,
        opset_version=18 if dynamo else 17, **options,
    )  # fmt: skip
    strip(path)
    return path


def strip(path: Path) -> None:
    """Remove stack traces and doc strings: they hold paths of the machine that exported."""
    model = onnx.load(str(path))
    for item in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
        *model.graph.initializer,
        *model.functions,
    ):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    onnx.save(model, str(path))


def golden(module: nn.Module, args: tuple[torch.Tensor, ...], kind: str) -> dict[str, np.ndarray]:
    """Inputs and float64 outputs of one sequence; rows are steps, whatever the module's own output is."""
    double = module.double()
    rng = np.random.default_rng(7)
    width = args[0].shape[-1]
    x = (rng.standard_normal((STEPS, width)) * 1.5).astype(np.float32)
    rows = torch.from_numpy(x.astype(np.float64))
    with torch.no_grad():
        if kind == "row":
            y = double(rows)
        elif kind == "step":
            h, c = (torch.zeros_like(a, dtype=torch.float64) for a in args[1:])
            outputs = []
            for row in rows:
                out, h, c = double(row.reshape(1, 1, -1), h, c)
                outputs.append(out[0])
            y = torch.stack(outputs)
        elif kind == "window_time_first":
            y = double(rows[:, None])[:, 0]
        else:
            y = torch.stack(
                [out if out.ndim == 1 else out[-1] for out in (double(rows[None, : t + 1])[0] for t in range(STEPS))]
            )
    return {"x": x, "y": y.numpy()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    warnings.filterwarnings("ignore")
    for seed, (name, (module, args, kind)) in enumerate(cases().items()):
        torch.manual_seed(seed)
        for parameter in module.parameters():
            nn.init.uniform_(parameter, -0.6, 0.6)
        module.eval()
        for dynamo in (True, False):
            path = export(name, module, args, kind, dynamo=dynamo)
            print(path.name, path.stat().st_size, file=sys.stderr)
        if kind != "declined":
            np.savez(FOLDER / f"{name}.npz", **golden(module, args, kind))


if __name__ == "__main__":
    main()
