"""The data set on which portfolio optimisers are compared, random problems, and their constraints a second time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tengri_fast.risk.optimise import Constraints

N, S = 6, 400


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Six instruments with a common factor and fat tails: returns (S, N), their covariance and mean."""
    rng = np.random.default_rng(20240719)
    market = rng.standard_t(4, S) * 0.008
    load = np.array([0.8, 0.7, 0.9, 1.1, 1.0, 0.6])
    own = np.array([0.009, 0.010, 0.011, 0.013, 0.012, 0.010])
    returns = 0.0004 + market[:, None] * load + rng.standard_normal((S, N)) * own
    returns[:, 3] += 0.0006
    returns[:, 1] += 0.0003
    return returns, np.cov(returns.T), returns.mean(axis=0)


def random_market(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    loads = rng.standard_normal((count, 3))
    covariance = (loads @ loads.T + np.diag(rng.uniform(0.2, 2.0, count))) * 1e-4
    return covariance, rng.normal(3e-4, 8e-4, count)


def rows_of(rules: Constraints, names: tuple[str, ...], now: np.ndarray) -> dict[str, Any]:
    """The constraints as a linear program in (w, |w|, |w - now|), written from their meaning."""
    n = len(names)
    eye, none = np.eye(n), np.zeros((n, n))
    upper = [np.hstack([eye, -eye, none]), np.hstack([-eye, -eye, none])]
    upper += [np.hstack([eye, none, -eye]), np.hstack([-eye, none, -eye])]
    bounds = [np.zeros(2 * n), now, -now]
    if rules.gross is not None:
        upper.append(np.hstack([np.zeros(n), np.ones(n), np.zeros(n)])[None])
        bounds.append(np.array([rules.gross]))
    if rules.turnover is not None:
        upper.append(np.hstack([np.zeros(2 * n), np.ones(n)])[None])
        bounds.append(np.array([rules.turnover]))
    for group in rules.groups:
        row = np.zeros(3 * n)
        for member in group.members:
            row[names.index(member) + (n if group.gross else 0)] = 1.0
        for sign, bound in ((1.0, group.upper), (-1.0, -group.lower)):
            if math.isfinite(bound):
                upper.append(sign * row[None])
                bounds.append(np.array([bound]))
    for pair in ([rules.net] if rules.net else []) + ([(1 - rules.cash[1], 1 - rules.cash[0])] if rules.cash else []):
        total = np.hstack([np.ones(n), np.zeros(2 * n)])[None]
        upper += [total, -total]
        bounds += [np.array([pair[1]]), np.array([-pair[0]])]
    low, high, change = rules.bound("lower", names), rules.bound("upper", names), rules.bound("max_change", names)
    box = list(zip(np.maximum(low, now - change), np.minimum(high, now + change), strict=True)) + [(0, None)] * (2 * n)
    equal = {}
    if rules.budget is not None:
        equal = {"A_eq": np.hstack([np.ones(n), np.zeros(2 * n)])[None], "b_eq": [rules.budget]}
    return {"A_ub": np.vstack(upper), "b_ub": np.concatenate(bounds), "bounds": box, **equal}


def random_rules(rng: np.random.Generator, names: tuple[str, ...], now: np.ndarray) -> Constraints:
    """Constraints that `now`-like weights come near to, each there by chance."""
    # Here, so that the script that asks other libraries does not import ours.
    from tengri_fast.risk.optimise import Constraints, Group

    n = len(names)
    short = rng.random() < 0.5
    maybe = lambda value: value if rng.random() < 0.5 else None  # noqa: E731
    groups = [Group("g", names[: n // 2], upper=0.6), Group("h", names[1:], lower=0.2)]
    if short:
        groups.append(Group("k", names[2:], upper=1.1, gross=True))
    return Constraints(
        lower=-0.3 if short else 0.0,
        upper=float(rng.uniform(0.45, 0.9)),
        budget=1.0 if rng.random() < 0.6 else None,
        net=maybe((0.5, 1.2)),
        cash=maybe((-0.5, 0.6)),
        gross=maybe(1.5),
        groups=tuple(g for g in groups if rng.random() < 0.6),
        turnover=maybe(1.6),
        max_change=maybe(0.7),
    )
