"""Trains small GRUs on the QLIKE loss and merges them into one. Runs in its own interpreter: PyTorch and NumPy only.

    python volatility_fit.py REQUEST.json

One network is trained for each seed. The mean of their answers is again a GRU: the states side by side, recurrent
weights block by block on the diagonal, the heads concatenated and divided by their number. That one is exported, so an
average of several trainings costs one step of one layer. Seeded, on one thread: the same request gives the same
weights on the same machine.
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


def main(request_path: str) -> int:
    """Fits, merges, exports and returns the exit status."""
    import torch
    from torch import nn

    request: dict[str, Any] = json.loads(Path(request_path).read_text(encoding="utf-8"))
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    length, warm, batch = request["length"], request["burn_in"], request["batch"]

    with np.load(request["data"], allow_pickle=False) as stored:
        count = int(stored["count"])
        x = [stored[f"x{i}"].astype(np.float32) for i in range(count)]
        ratio = [stored[f"ratio{i}"].astype(np.float32) for i in range(count)]  # next squared return over the anchor
        limits = [tuple(int(k) for k in stored[f"limits{i}"]) for i in range(count)]  # first, train end, held-out span
        golden_rows = stored["golden"].astype(np.float32)
    inputs = x[0].shape[1]

    class Network(nn.Module):
        def __init__(self, hidden: int) -> None:
            super().__init__()
            self.gru = nn.GRU(inputs, hidden, batch_first=True)
            self.head = nn.Linear(hidden, 1)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            out, _ = self.gru(rows)
            answer: torch.Tensor = self.head(out)
            return answer

    def loss_of(answer: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        # QLIKE less the anchor's own logarithm, which holds no weight.
        y = answer[..., 0].clamp(-4.0, 4.0)
        return ((y + target * torch.exp(-y)) * weight).sum() / weight.sum()

    longest = max(limit[3] for limit in limits)
    held_x = np.zeros((count, longest, inputs), np.float32)
    held_y = np.zeros((count, longest), np.float32)
    held_w = np.zeros((count, longest), np.float32)
    for i, (_, _, start, stop) in enumerate(limits):
        held_x[i, :stop], held_y[i, :stop] = x[i][:stop], ratio[i][:stop]
        held_w[i, start:stop] = 1.0
    held = [torch.from_numpy(a) for a in (held_x, held_y, held_w)]
    # Three years without weight before the held-out span are more history than the state keeps.
    first_needed = max(0, min(limit[2] for limit in limits) - 750)
    held = [a[:, first_needed:] for a in held]

    networks, curves, best_losses = [], [], []
    for seed in request["seeds"]:
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        network = Network(request["hidden"])
        with torch.no_grad():
            network.head.weight.mul_(0.1)
            network.head.bias.zero_()
        optimiser = torch.optim.AdamW(network.parameters(), lr=request["learning_rate"], weight_decay=request["decay"])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, request["epochs"])
        best, state, patience, curve = float("inf"), None, request["patience"], []
        for _epoch in range(request["epochs"]):
            network.train()
            windows = []
            for i, (first, end, _, _) in enumerate(limits):
                if end - first >= length:
                    phase = first + int(rng.integers(0, max(1, min(length, end - first - length + 1))))
                    windows += [(i, at) for at in range(phase, end - length + 1, length - warm)]
            rng.shuffle(windows)
            total = 0.0
            for at in range(0, len(windows), batch):
                some = windows[at : at + batch]
                rows = np.stack([x[i][s : s + length] for i, s in some])
                # Half of the windows forget the measured variance, so that one network serves closes and bars.
                rows[rng.random(len(some)) < 0.5, :, 5:] = 0.0
                target = torch.from_numpy(np.stack([ratio[i][s : s + length] for i, s in some]))
                weight = torch.ones_like(target)
                weight[:, :warm] = 0.0
                optimiser.zero_grad()
                loss = loss_of(network(torch.from_numpy(rows)), target, weight)
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 0.5)
                optimiser.step()
                total += float(loss) * len(some)
            schedule.step()
            network.eval()
            with torch.no_grad():
                value = float(loss_of(network(held[0]), held[1], held[2]))
            curve.append([total / max(1, len(windows)), value])
            if value < best - 1e-5:
                best, patience = value, request["patience"]
                state = {k: v.detach().clone() for k, v in network.state_dict().items()}
            else:
                patience -= 1
                if patience == 0:
                    break
        if state is None:
            log(f"seed {seed}: no epoch improved the held-out loss")
            return 1
        network.load_state_dict(state)
        log(f"seed {seed}: {len(curve)} epochs, held-out QLIKE {best:.5f}")
        networks.append(network)
        curves.append(curve)
        best_losses.append(best)

    hidden, parts = request["hidden"], len(networks)
    merged = Network(hidden * parts)
    with torch.no_grad():
        for parameter in merged.parameters():
            parameter.zero_()
        for k, network in enumerate(networks):
            for gate in range(3):
                ours = slice(gate * hidden * parts + k * hidden, gate * hidden * parts + (k + 1) * hidden)
                theirs = slice(gate * hidden, (gate + 1) * hidden)
                merged.gru.weight_ih_l0[ours] = network.gru.weight_ih_l0[theirs]
                merged.gru.weight_hh_l0[ours, k * hidden : (k + 1) * hidden] = network.gru.weight_hh_l0[theirs]
                merged.gru.bias_ih_l0[ours] = network.gru.bias_ih_l0[theirs]
                merged.gru.bias_hh_l0[ours] = network.gru.bias_hh_l0[theirs]
            merged.head.weight[:, k * hidden : (k + 1) * hidden] = network.head.weight / parts
            merged.head.bias += network.head.bias / parts
        merged.eval()
        example = torch.from_numpy(golden_rows)[None]
        answers = merged(example)
        mean = torch.stack([network(example) for network in networks]).mean(0)
        gap = float((answers - mean).abs().max())
        if not gap < 1e-5:
            log(f"the merged network differs from the mean of its parts by {gap:g}")
            return 1
        merged_loss = float(loss_of(merged(held[0]), held[1], held[2]))
    log(f"merged: held-out QLIKE {merged_loss:.5f}")

    def export(network: Network, path: str) -> None:
        temporary = Path(path).with_suffix(".tmp.onnx")
        # Two in the batch would make the axis dynamic; one instrument a session is what runs.
        torch.onnx.export(network, (example,), str(temporary), input_names=["x"], output_names=["y"], dynamo=False,
                          dynamic_axes={"x": {1: "time"}, "y": {1: "time"}}, opset_version=17)  # fmt: skip
        os.replace(temporary, path)

    export(merged, request["onnx"])
    for k, network in enumerate(networks):
        if request["parts"]:
            export(network, request["parts"].format(k))
    temporary = request["golden"] + ".tmp"
    with open(temporary, "wb") as file:
        np.savez_compressed(file, x=golden_rows, y=answers[0].numpy())
    os.replace(temporary, request["golden"])
    result = {
        "curves": curves,
        "held_out": best_losses,
        "held_out_merged": merged_loss,
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in networks[0].parameters()) * parts,
    }
    Path(request["result"]).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
