"""A synthetic run with everything a report can show; tests change what they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tengri_fast.report import Denial, Latency, RunRecord
from tengri_fast.report import skill as skills

START = 1_721_347_201_000_000_000
"""2024-07-19 00:00:01 UTC."""


def build(**changes: Any) -> RunRecord:
    rng = np.random.default_rng(7)
    n = 6000
    ts = (START + np.cumsum(rng.integers(1_000_000, 120_000_000, n))).astype(np.uint64)
    moves = np.where(rng.random(n) < 0.15, rng.choice([-1, 1], n), 0)
    mid = 63_900.0 + 2.5 * np.cumsum(moves)
    coming = skills.next_move(mid)
    edge = 1.2 * coming * (rng.random(n) < 0.75) + rng.normal(0, 0.7, n)
    p_up = 0.98 / (1 + np.exp(-edge))
    p_down = 0.98 - p_up
    probabilities = np.stack([p_down, np.full(n, 0.02), p_up], axis=1)
    bid_size = rng.integers(1, 50, n) + 20.0 * (coming > 0) * (rng.random(n) < 0.8)
    ask_size = rng.integers(1, 50, n) + 20.0 * (coming < 0) * (rng.random(n) < 0.8)

    entry = np.arange(100, n - 200, 150)
    leave = entry + rng.integers(20, 120, len(entry))
    side = np.where(p_up[entry] > p_down[entry], 1, -1)
    quantity = np.full(len(entry), 0.05)
    gross = side * quantity * (mid[leave] - mid[entry]) - quantity * 0.1
    fees = quantity * (mid[leave] + mid[entry]) * 0.0002
    equity = np.full(n, 100_000.0)
    for i, j, net in zip(entry, leave, gross - fees, strict=True):
        equity[i:] -= 0.1
        equity[j:] += net + 0.1
    denials = [
        Denial(
            int(ts[50]), "O-1", "MAX_ORDER_NOTIONAL", 63_900.0, 50_000.0, "order notional 63900 > limit 50000", "drill"
        ),
        Denial(int(ts[60]), "O-2", "PRICE_COLLAR", 410.0, 50.0, "price 410 bps from mid > limit 50 bps", "drill"),
        Denial(int(ts[900]), "O-17", "MAX_PORTFOLIO_VAR", 0.0612, 0.05, "VaR 0.0612 of equity > limit 0.05"),
    ]
    base: dict[str, Any] = {
        "name": "demo",
        "title": "LSTM on BTCUSDT ticks, 19 July 2024",
        "instrument_id": "BTCUSDT-PERP.BINANCE",
        "currency": "USDT",
        "starting_equity": 100_000.0,
        "equity": {"ts": ts, "value": equity},
        "mid": {"ts": ts, "price": mid},
        "fills": {
            "ts": np.sort(np.concatenate([ts[entry], ts[leave]])),
            "side": np.tile([1, -1], len(entry)),
            "quantity": np.full(2 * len(entry), 0.05),
            "price": np.repeat(mid[entry], 2),
            "fee": np.repeat(fees / 2, 2),
            "tag": np.full(2 * len(entry), "LSTM-001"),
        },
        "trades": {
            "entry_ts": ts[entry], "entry_price": mid[entry], "exit_ts": ts[leave], "exit_price": mid[leave],
            "side": side, "quantity": quantity, "gross": gross, "fees": fees,
            "reason": np.where(leave - entry > 90, "max holding", "signal"),
        },
        "signals": {
            "ts": ts, "mid": mid, "p_down": p_down, "p_flat": np.full(n, 0.02), "p_up": p_up,
            "value_bps": 0.02 * (p_up - p_down), "confidence": np.maximum(p_up, p_down),
        },
        "skill": skills.evaluate(mid, bid_size, ask_size, probabilities, resamples=300, seed=3),
        "latency": Latency(
            edges=2.0 ** (np.arange(0, 20 * 64 + 1) / 64),
            counts=np.histogram(
                np.exp(rng.normal(7.55, 0.13, n)) + (rng.random(n) < 0.006) * rng.exponential(6000, n),
                2.0 ** (np.arange(0, 20 * 64 + 1) / 64),
            )[0],
        ),
        "submitted": 2 * len(entry) + 3,
        "filled": 2 * len(entry),
        "denials": denials,
        "notes": [
            "These windows are a few minutes: they show the machinery and prove nothing about profit.",
            "Funding is ignored. VaR scenarios are 1-second returns of another window with a 60 s horizon.",
        ],
        "isa": "avx512",
        "versions": {"tengri_fast": "0.1.0", "nautilus_trader": "1.231.0", "numpy": np.__version__},
        "data_sha256": {"quotes.parquet": "ab" * 32, "trades.parquet": "cd" * 32},
        "config_text": "[strategy]\nstrategy_id = \"LSTM-001\"\n",
        "model_sha256": "ef" * 32,
        "model_card": {"Type": "LSTM 2 x 64", "Trained on": "2023-04-04, 2023-04-05, 2024-07-18", "Parameters": 52_000},
        "assumptions": {"Taker fee": "5 bps", "Order latency": "20 ms", "Fills": "market orders at the touch"},
        "data_facts": {"Source": "Binance USD-M", "Licence": "MIT for the compilation; the exchange keeps its rights"},
        "machine": {"CPU": "a processor", "Cores": 2},
        "seeds": {"training": 7, "bootstrap": 3},
        "trials": 4,
        "run_seconds": 12.5,
        "commit": "0123456789abcdef",
    }  # fmt: skip
    return RunRecord(**(base | changes))


@pytest.fixture(scope="session")
def make_record() -> Callable[..., RunRecord]:
    return build


@pytest.fixture(scope="session")
def record() -> RunRecord:
    return build()


@pytest.fixture
def bare() -> RunRecord:
    """The least a record may hold."""
    return RunRecord(
        name="bare",
        title="Nothing happened",
        instrument_id="X.Y",
        currency="USD",
        starting_equity=1000.0,
        equity={"ts": [START], "value": [1000.0]},
    )
