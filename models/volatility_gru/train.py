"""Trains the volatility forecaster and proves it on unseen years (docs/volatility.md); some ten minutes on one core.

TENGRI_TRAIN_PYTHON=.venv-train/bin/python python models/volatility_gru/train.py ../shared/data [out/volatility]
"""

from __future__ import annotations

import sys
from pathlib import Path

from tengri_fast.training.volatility import run

HERE = Path(__file__).resolve().parent

TRIALS = (
    "four configurations of training were tried and judged on the held-out years only (stopping early; with the bars "
    "of the S&P 500; without stopping early; half the learning rate with strong decay); the architecture, the inputs "
    "and the number of units were not searched"
)

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: train.py DATA [OUT]")
    page = HERE.parent.parent / "docs" / "volatility.md"
    run(
        sys.argv[1],
        sys.argv[2] if len(sys.argv) > 2 else "out/volatility",
        trials=TRIALS,
        ship=HERE,
        page=page if page.is_file() else None,
    )
