"""Trains an LSTM classifier. Runs in its own interpreter: it needs PyTorch and NumPy and nothing else of this package.

    python fit.py REQUEST.json

The request names an ``.npz`` with normalised sequences and the files to write. The result is an ONNX file that carries
the state through its own LSTM nodes, golden inputs and outputs, and a JSON with the training curve. Everything is
seeded and runs on one thread: the same request gives the same weights on the same machine.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


def log(text: str) -> None:
    """One line of progress, at once."""
    print(text, flush=True)


def chunks(segments: list[np.ndarray], length: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Windows of ``length`` rows that tile every segment from a random phase, in random order."""
    found = []
    for index, rows in enumerate(segments):
        start = int(rng.integers(0, max(1, min(length, len(rows) - length))))
        found += [(index, at) for at in range(start, len(rows) - length + 1, length)]
    rng.shuffle(found)
    return found


def main(request_path: str) -> int:
    """Fits, exports and returns the exit status."""
    import torch
    from torch import nn

    request: dict[str, Any] = json.loads(Path(request_path).read_text(encoding="utf-8"))
    torch.manual_seed(request["seed"])
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(request.get("threads", 1))
    rng = np.random.default_rng(request["seed"])

    with np.load(request["data"], allow_pickle=False) as stored:
        count = int(stored["segments"])
        x = [stored[f"x{i}"].astype(np.float32) for i in range(count)]
        y = [stored[f"y{i}"].astype(np.int64) for i in range(count)]
        w = [stored[f"w{i}"].astype(np.float32) for i in range(count)]
        validation = int(stored["validation"])  # index of the segment held out for early stopping; -1: none

    class Network(nn.Module):
        def __init__(self, inputs: int, hidden: int, layers: int, dropout: float) -> None:
            super().__init__()
            self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
            self.head = nn.Linear(hidden, 3)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            out, _ = self.lstm(rows)
            result: torch.Tensor = self.head(out)
            return result

    network = Network(x[0].shape[1], request["hidden"], request["layers"], request["dropout"])
    optimiser = torch.optim.AdamW(network.parameters(), lr=request["learning_rate"], weight_decay=request["decay"])
    length, batch = request["length"], request["batch"]
    warm = request["burn_in"]
    train = [i for i in range(count) if i != validation]

    def loss_of(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        flat = nn.functional.cross_entropy(
            logits.reshape(-1, 3),
            target.reshape(-1).clamp(min=0),
            reduction="none",
            label_smoothing=request["smoothing"],
        )
        mask = weight.reshape(-1) * (target.reshape(-1) >= 0)
        return (flat * mask).sum() / mask.sum().clamp(min=1.0)

    def validate() -> tuple[float, np.ndarray]:
        network.eval()
        with torch.no_grad():
            logits = network(torch.from_numpy(x[validation])[None])
            loss = loss_of(logits, torch.from_numpy(y[validation])[None], torch.from_numpy(w[validation])[None])
        return float(loss), logits[0].numpy()

    def fit_temperature() -> float:
        """Temperature scaling (Guo et al. 2017) on the held-out segment."""
        _, logits = validate()
        known = y[validation] >= 0
        z = torch.from_numpy(logits[known])
        t = torch.from_numpy(y[validation][known])
        wv = torch.from_numpy(w[validation][known])
        scale = torch.zeros(1, requires_grad=True)
        search = torch.optim.LBFGS([scale], max_iter=100)

        def closure() -> torch.Tensor:
            search.zero_grad()
            value = (nn.functional.cross_entropy(z / scale.exp(), t, reduction="none") * wv).sum() / wv.sum()
            value.backward()
            return value

        search.step(closure)
        return float(scale.exp())

    best, best_epoch, best_state, patience, curve = float("inf"), request["epochs"], None, request["patience"], []
    for epoch in range(request["epochs"]):
        network.train()
        windows = chunks([x[i] for i in train], length, rng)
        total, steps = 0.0, 0
        for at in range(0, len(windows), batch):
            some = windows[at : at + batch]
            rows = torch.from_numpy(np.stack([x[train[i]][s : s + length] for i, s in some]))
            target = torch.from_numpy(np.stack([y[train[i]][s : s + length] for i, s in some]))
            weight = torch.from_numpy(np.stack([w[train[i]][s : s + length] for i, s in some]))
            weight[:, :warm] = 0.0  # the zero state at a window's start is not what the stream will see
            optimiser.zero_grad()
            loss = loss_of(network(rows), target, weight)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            total += float(loss)
            steps += 1
        if validation < 0:
            log(f"epoch {epoch + 1:3d}  train {total / max(1, steps):.4f}")
            best_state = network.state_dict()
            continue
        held_out, _ = validate()
        curve.append({"epoch": epoch, "train": total / max(1, steps), "validation": held_out})
        log(f"epoch {epoch + 1:3d}  train {total / max(1, steps):.4f}  held out {held_out:.4f}")
        if held_out < best - 1e-5:
            best, best_epoch, patience = held_out, epoch + 1, request["patience"]
            best_state = {k: v.detach().clone() for k, v in network.state_dict().items()}
        else:
            patience -= 1
            if patience == 0:
                log("stopped: the held-out loss no longer falls")
                break
    if best_state is None:
        log("no epoch improved the held-out loss")
        return 1
    network.load_state_dict(best_state)

    temperature = request["temperature"] if validation < 0 else fit_temperature()

    network.eval()
    out = Path(request["onnx"])
    temporary = out.with_suffix(".tmp.onnx")
    steps_golden = request["golden_steps"]
    golden_rows = x[validation][:steps_golden]
    example = torch.from_numpy(golden_rows)[None]
    torch.onnx.export(network, (example,), str(temporary), input_names=["x"], output_names=["y"], dynamo=False,
                      dynamic_axes={"x": {1: "time"}, "y": {1: "time"}}, opset_version=17)  # fmt: skip
    os.replace(temporary, out)
    with torch.no_grad():
        golden = network(example)[0].numpy()
    with open(request["golden"], "wb") as file:
        np.savez_compressed(file, x=golden_rows, y=golden)
    Path(request["result"]).write_text(json.dumps({
        "curve": curve, "temperature": temperature, "best_validation": best, "best_epoch": best_epoch,
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in network.parameters()),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
