"""Seeded samples of exceptions under the null, in blocks of bounded memory and an order that never changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from tengri_fast.risk.backtest.result import TIE, Flags

__all__ = ["bernoulli_hits", "monte_carlo_p", "shuffled_hits"]

_CELLS = 2_000_000  # of one block: 16 MB of uniforms


def _blocks(days: int, simulations: int) -> Iterator[int]:
    rows = max(_CELLS // days, 1)
    for start in range(0, simulations, rows):
        yield min(rows, simulations - start)


def bernoulli_hits(days: int, p: float, simulations: int, seed: int) -> Iterator[Flags]:
    """Blocks [n, days] of independent exceptions with probability p; `simulations` rows in all."""
    rng = np.random.default_rng(seed)
    for rows in _blocks(days, simulations):
        yield rng.random((rows, days)) < p


def shuffled_hits(days: int, count: int, simulations: int, seed: int) -> Iterator[Flags]:
    """Blocks [n, days] with `count` exceptions on days chosen at random."""
    rng = np.random.default_rng(seed)
    for rows in _blocks(days, simulations):
        hits = np.zeros((rows, days), dtype=np.bool_)
        if count:
            chosen = np.argpartition(rng.random((rows, days)), count - 1, axis=1)[:, :count]
            np.put_along_axis(hits, chosen, True, axis=1)
        yield hits


def monte_carlo_p(
    observed: float, blocks: Iterator[Flags], statistic: Callable[[Flags], npt.NDArray[np.float64]]
) -> float | None:
    """Share of samples at least as extreme, the observed one among them (Dufour 2006); None without samples.

    ``statistic`` maps hits [n, T] to values [n], larger is more extreme; ties count as extreme.
    """
    total = extreme = 0
    for hits in blocks:
        values = statistic(hits)
        total += len(values)
        extreme += int((values >= observed - TIE * (1.0 + abs(observed))).sum())
    return (extreme + 1.0) / (total + 1.0) if total else None
