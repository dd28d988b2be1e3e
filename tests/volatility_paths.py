"""Simulated return paths that the tests of volatility models and their oracle scripts share."""

from __future__ import annotations

import numpy as np


def gjr_path(seed: int, periods: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns of a GJR model with Student innovations, and their true conditional variances."""
    rng = np.random.default_rng(seed)
    z = rng.standard_t(7, periods) * np.sqrt(5.0 / 7.0)
    h, returns, truth = 1e-4, np.empty(periods), np.empty(periods)
    for t in range(periods):
        truth[t] = h
        returns[t] = 4e-4 + np.sqrt(h) * z[t]
        h = 2e-6 + (0.04 + (0.10 if z[t] < 0.0 else 0.0)) * h * z[t] ** 2 + 0.88 * h
    return returns, truth


def losses_of_five(seed: int = 3, periods: int = 800) -> np.ndarray:
    """Losses [T, 5] of five models, with memory and in common; the first two are equally good."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0.0, 1.0, (periods, 1))
    own = rng.normal(0.0, 0.6, (periods, 5))
    for t in range(1, periods):
        own[t] += 0.3 * own[t - 1]
    return common + own + np.array([0.0, 0.0, 0.04, 0.10, 0.30])
