"""Writes the ONNX fixtures and their golden files with PyTorch's two exporters.

Run in the training environment (torch, onnx, onnxscript): ``.venv-train/bin/python tests/inference/make_fixtures.py
[name ...]``.
The results are committed, so the tests themselves need no torch.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import fixture_models as fm
import numpy as np
import onnx
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parent / "fixtures"
STEPS = 24


class Last(nn.Module):
    """LSTM and a head on the last step."""

    def __init__(self, inputs: int, hidden: int, layers: int, head: nn.Module, *, bias: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True, bias=bias, dropout=0.1 if layers > 1 else 0.0)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.lstm(x)
        return self.head(out[:, -1])


class Every(nn.Module):
    """LSTM and a head on every step."""

    def __init__(self, inputs: int, hidden: int, layers: int, head: nn.Module, *, batch_first: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=batch_first)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


class Step(nn.Module):
    """One step with the state as inputs and outputs."""

    def __init__(self, inputs: int, hidden: int, layers: int, head: nn.Module) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True)
        self.head = head

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out, (hn, cn) = self.lstm(x, (h, c))
        return self.head(out[:, -1]), hn, cn


class HiddenState(nn.Module):
    """The head reads h_n of the last layer instead of the last row of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 6, 2, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[1][0][-1])


@dataclass
class Case:
    """A module, example inputs, and how to export and run it.

    `kind`: "window" (time axis open unless `fixed`), "step" (states), "row". `answer`: "every" row or the "last" one
    of the window. `time`: the time axis of the first input.
    """

    module: nn.Module
    args: tuple[Tensor, ...]
    kind: str = "window"
    answer: str = "every"
    time: int = 1
    fixed: bool = False
    declined: bool = False
    opsets: tuple[int, int] = (18, 17)
    skip: tuple[str, ...] = ()


def window(n: int) -> tuple[Tensor, ...]:
    return (torch.randn(2, STEPS, n),)


def first(n: int) -> tuple[Tensor, ...]:
    """Channels first."""
    return (torch.randn(2, n, STEPS),)


def book(n: int) -> tuple[Tensor, ...]:
    return (torch.randn(2, 1, STEPS, n),)


def cases() -> dict[str, Case]:
    """Every fixture by name."""
    zeros = torch.zeros
    step = lambda *shapes: (torch.randn(1, 4), *(zeros(s) for s in shapes))  # noqa: E731
    gru = fm.Head(nn.GRU(4, 7, 2, batch_first=True), nn.Linear(7, 2), first=True, last=True)
    return {
        "last_softmax": Case(Last(5, 12, 2, nn.Sequential(nn.Linear(12, 3), nn.Softmax(dim=-1))), window(5),
        answer="last"),
        "last_nobias": Case(Last(3, 7, 1, nn.Linear(7, 1, bias=False), bias=False), window(3), answer="last"),
        "every_mlp": Case(Every(4, 9, 2, nn.Sequential(nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 2), nn.Tanh())),
        window(4)),
        "time_first": Case(Every(4, 6, 1, nn.Sequential(nn.Linear(6, 3), nn.Sigmoid()), batch_first=False),
                           (torch.randn(STEPS, 2, 4),), time=0, fixed=True),
        "hidden_state": Case(HiddenState(), window(3), answer="last"),
        "step_state": Case(Step(5, 8, 2, nn.Linear(8, 3)), (torch.randn(1, 1, 5), zeros(2, 1, 8), zeros(2, 1, 8)),
        "step"),
        "mlp": Case(nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 2)),
                    (torch.randn(2, 6),), "row"),
        "odd_row": Case(fm.OddRow(), (torch.randn(2, 6),), "row", opsets=(20, 14)),
        "gru": Case(nn.GRU(3, 4, 1, batch_first=True), window(3)),
        "gru_last": Case(gru, window(4), answer="last", opsets=(20, 13)),
        "gru_time_first": Case(fm.Head(nn.GRU(4, 5), nn.Linear(5, 2), first=True), (torch.randn(STEPS, 2, 4),), time=0),
        "horizons": Case(fm.Horizons(), window(4), answer="last"),
        "tcn": Case(fm.Tcn(), window(3), opsets=(18, 11)),
        "wavenet_chunk": Case(fm.WaveNet(chunk=True), first(3), time=2),
        "wavenet_slice": Case(fm.WaveNet(chunk=False), first(3), time=2, fixed=True, opsets=(23, 15)),
        "separable": Case(fm.Separable(), window(6), opsets=(20, 17)),
        "strided": Case(fm.Strided(), window(3), answer="last", fixed=True),
        "deeplob": Case(fm.DeepLob(), book(20), answer="last", time=2, fixed=True),
        "deeplob_open": Case(fm.DeepLob(), book(20), answer="last", time=2),
        "level_flatten": Case(fm.LevelFlatten(), book(12), time=2),
        "window_dense": Case(fm.WindowDense(STEPS), window(3), answer="last", fixed=True),
        "window_mean": Case(fm.WindowMean(), window(3), answer="last", fixed=True),
        "mha": Case(fm.Mha(8, 2, 5), window(4), opsets=(18, 17)),
        "mha_fixed": Case(fm.Mha(8, 4, 7), window(4), fixed=True, opsets=(23, 14)),
        "encoder_first": Case(fm.Encoder(STEPS, norm_first=True, activation="gelu"), window(3), fixed=True),
        "encoder_relu": Case(fm.Encoder(STEPS, norm_first=False, activation="relu", batch_first=False),
                             (torch.randn(STEPS, 1, 3),), fixed=True, time=0),
        "sinusoidal": Case(fm.Sinusoidal(), window(3)),
        "sinusoidal_23": Case(fm.Sinusoidal(), window(3), opsets=(23, 16), fixed=True),
        "llama": Case(fm.Llama(interleaved=False), window(5)),
        "llama_pairs": Case(fm.Llama(interleaved=True, window=30, base=500.0), window(5), opsets=(23, 17)),
        "alibi": Case(fm.Alibi(), window(4)),
        "last_query": Case(fm.LastQuery(), window(3), answer="last", fixed=True),
        "lstm_cell": Case(fm.LstmCellStep(), step((1, 6), (1, 6)), "step"),
        "gru_cell": Case(fm.GruCellStep(), step((1, 5), (1, 6)), "step"),
        "concat_cell": Case(fm.ConcatCellStep(projection=False), step((1, 5), (1, 5)), "step"),
        "projected_cell": Case(fm.ConcatCellStep(projection=True), step((1, 3), (1, 5)), "step"),
        "minimal_gru": Case(fm.MinimalGruStep(), step((1, 5)), "step"),
        "conv_step": Case(fm.ConvStep(), (torch.randn(1, 3), zeros(1, 3, 2), zeros(1, 4, 3)), "step"),
        "unsupported_bidirectional": Case(nn.LSTM(3, 4, 1, batch_first=True, bidirectional=True), window(3),
        declined=True),
        "unsupported_conv": Case(nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()), first(3), time=2, fixed=True,
        declined=True),
        "unsupported_ahead": Case(nn.Conv1d(3, 4, 3, padding=1), first(3), time=2, declined=True),
        "unsupported_mask": Case(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), window(8), declined=True),
        "unsupported_projection": Case(
            fm.Head(nn.LSTM(3, 6, proj_size=4, batch_first=True), nn.Identity(), first=True),
            (torch.randn(1, STEPS, 3),), fixed=True, declined=True),
        "unsupported_hard": Case(fm.Head(nn.GRU(3, 4, batch_first=True), nn.Hardsigmoid(), first=True), window(3),
        declined=True),
    }  # fmt: skip


def export(name: str, case: Case, *, dynamo: bool) -> Path:
    path = FOLDER / f"{name}.{'dynamo' if dynamo else 'script'}.onnx"
    inputs = ["x", "h", "c"][: len(case.args)]
    outputs = ["y", "h_next", "c_next"][: len(inputs)] if case.kind == "step" else ["y"]
    options: dict[str, object] = {}
    if case.kind == "window" and not case.fixed:
        axes = {0 if case.time else 1: "batch", case.time: "steps"}
        if dynamo:
            options["dynamic_shapes"] = ({axis: torch.export.Dim(label) for axis, label in axes.items()},)
        else:
            options["dynamic_axes"] = {"x": axes}
    torch.onnx.export(
        case.module, case.args, str(path), dynamo=dynamo, input_names=inputs, output_names=outputs, external_data=False,
        opset_version=case.opsets[0 if dynamo else 1], **options,
    )  # fmt: skip
    strip(path)
    return path


def strip(path: Path) -> None:
    """Remove stack traces and doc strings: they hold paths of the machine that exported."""
    model = onnx.load(str(path))
    del model.graph.value_info[:]
    for item in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
        *model.functions,
    ):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    onnx.save(model, str(path))


def joined(y: Tensor | tuple[Tensor, ...]) -> Tensor:
    """All answers of the first entry of the batch as one row per step."""
    return torch.cat([part.reshape(1, -1) for part in y], dim=1) if isinstance(y, tuple) else y


def golden(case: Case) -> dict[str, np.ndarray]:
    """Inputs and float64 outputs of one sequence; rows are steps, whatever the module's own output is."""
    double = case.module.double()
    rng = np.random.default_rng(7)
    shape = case.args[0].shape
    width = shape[1] if len(shape) == 3 and case.time == 2 else shape[-1]
    x = (rng.standard_normal((STEPS, width)) * 1.5).astype(np.float32)
    rows = torch.from_numpy(x.astype(np.float64))
    with torch.no_grad():
        if case.kind == "row":
            y = double(rows)
        elif case.kind == "step":
            states = [torch.zeros_like(a, dtype=torch.float64) for a in case.args[1:]]
            outputs = []
            for row in rows:
                out, *states = double(row.reshape([1] * (case.args[0].ndim - 1) + [-1]), *states)
                outputs.append(out.reshape(-1))
            y = torch.stack(outputs)
        else:
            shaped = {(3, 0): rows[:, None], (3, 1): rows[None], (3, 2): rows.T[None], (4, 2): rows[None, None]}
            full = shaped[len(shape), case.time]
            if case.answer == "last" and case.fixed:
                y = joined(double(full)).reshape(1, -1)
            elif case.answer == "last":
                y = torch.cat([joined(double(full.narrow(case.time, 0, t + 1))).reshape(1, -1) for t in range(STEPS)])
            else:
                out = double(full)
                out = out[0] if isinstance(out, tuple) else out
                y = out.squeeze(1 if case.time == 0 else 0)
                y = y.T if case.time == 2 and y.shape[-1] == STEPS and y.shape[0] != STEPS else y
    return {"x": x, "y": y.numpy()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    warnings.filterwarnings("ignore")
    wanted = sys.argv[1:]
    for seed, (name, case) in enumerate(cases().items()):
        if wanted and name not in wanted:
            continue
        torch.manual_seed(seed)
        for module in case.module.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.3, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        for parameter in case.module.parameters():
            nn.init.uniform_(parameter, -0.6, 0.6)
        case.module.eval()
        for dynamo in (True, False):
            if ("dynamo" if dynamo else "script") in case.skip:
                continue
            try:
                path = export(name, case, dynamo=dynamo)
            except Exception as error:
                print(
                    f"{name}: {'dynamo' if dynamo else 'script'} refuses: {str(error).splitlines()[0]}", file=sys.stderr
                )
                continue
            print(path.name, path.stat().st_size, file=sys.stderr)
        if not case.declined:
            np.savez(FOLDER / f"{name}.npz", **golden(case))


if __name__ == "__main__":
    main()
