"""One small history of joint returns that tests and scripts of tests/oracles share, without a random generator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["QUANTITIES", "history"]

#: Positions of the shared portfolio, one unit of base currency each per unit of return.
QUANTITIES = np.array([3.0, -1.0, 2.0, 0.5, 1.5])


def history(names: int = 5, count: int = 240) -> npt.NDArray[np.float64]:
    """Returns [names][count]: irrational rotations, bent so that tails are fat and rows depend on each other."""
    i, t = np.arange(names)[:, None], np.arange(count)[None, :]
    own = np.mod(t * (np.sqrt(2.0) + 0.37 * i) + 0.11 * i, 1.0) - 0.5
    common = np.mod(t * np.sqrt(3.0), 1.0) - 0.47
    mixed = own + (0.4 + 0.1 * i) * common
    bent: npt.NDArray[np.float64] = 0.01 * (1.0 + 0.2 * i) * (mixed + 4.0 * mixed**3)
    return bent
