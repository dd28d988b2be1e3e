"""How good are the signals? Hit rates against trivial rivals, calibration, coverage. Pure NumPy.

Definitions used everywhere (training, report, model cards):

* *Fresh book*: the first quote whose mid differs from the previous quote's mid. Only there is the question "where does
  it go next?" new; counting every quote would count the same move many times.
* *Label*: the sign of the next change of mid (+1 up, -1 down). The last fresh book has no next change and is left out.
* *Prediction*: +1, -1, or 0 for "no opinion". A 0 counts as **half a hit**, what a coin would earn on average, so that
  all rivals are measured on the same moves.
* Two mids are the same price when they differ by no more than four units in the last place: ``(bid + ask) / 2`` may
  round differently for two pairs with the same exact mid.

With fewer than ``MIN_MOVES`` moves no p-value is given; the report then says how large a difference the sample could
have detected at all (its power).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tengri_fast.errors import DataConversionError

__all__ = [
    "BASELINES",
    "MIN_MOVES",
    "Calibration",
    "Coverage",
    "Difference",
    "HitRate",
    "Quotes",
    "Skill",
    "align_signals",
    "baselines",
    "block_bootstrap",
    "compare",
    "confusion",
    "coverage_curve",
    "evaluate",
    "evaluate_moves",
    "fresh_books",
    "hit_rate",
    "hits",
    "next_move",
    "reliability",
    "wilson",
]

BASELINES = ("imbalance", "reverse", "repeat")
MIN_MOVES = 1000
"""Below this many moves no p-value is claimed."""

Floats = NDArray[np.float64]
Signs = NDArray[np.int8]
Indices = NDArray[np.intp]


class Quotes(Protocol):
    """Anything with four columns of equal length, such as ``tengri_fast.market.QuoteColumns``."""

    @property
    def bid_price(self) -> Floats: ...  # noqa: D102
    @property
    def ask_price(self) -> Floats: ...  # noqa: D102
    @property
    def bid_size(self) -> Floats: ...  # noqa: D102
    @property
    def ask_size(self) -> Floats: ...  # noqa: D102


def _vector(name: str, values: ArrayLike, *, finite: bool = True) -> Floats:
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise DataConversionError(f"`{name}` must have one dimension, had {array.ndim}")
    if finite and not np.isfinite(array).all():
        first = int(np.flatnonzero(~np.isfinite(array))[0])
        raise DataConversionError(f"`{name}` must be finite, row {first} was {array[first]}")
    return array


def _same_length(**arrays: NDArray[Any]) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
        raise DataConversionError(f"columns must have equal lengths, were {text}")
    return next(iter(lengths.values()))


def _unit_interval(name: str, value: float) -> float:
    if not 0.0 < value < 1.0:
        raise DataConversionError(f"`{name}` must lie between 0 and 1, was {value}")
    return value


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise DataConversionError(f"`{name}` must be >= {least}, was {value}")
    return value


# Moves of the mid -----------------------------------------------------------------------------------------------------


def _steps(mid: Floats) -> Signs:
    """Sign of the change from the previous row [n]; 0 in row 0 and where the mid is the same price."""
    out = np.zeros(len(mid), np.int8)
    if len(mid) > 1:
        change = np.diff(mid)
        same = np.abs(change) <= 4.0 * np.spacing(np.maximum(np.abs(mid[1:]), np.abs(mid[:-1])))
        out[1:] = np.where(same, 0, np.sign(change))
    return out


def fresh_books(mid: ArrayLike) -> Indices:
    """Rows whose mid differs from the row before.

    Parameters
    ----------
    mid : array_like of float [n]
        Mid price of every quote, finite.

    Returns
    -------
    ndarray of intp [m]
        Increasing row numbers; row 0 is never fresh.

    Raises
    ------
    DataConversionError
        If `mid` is not one finite column.
    """
    return np.flatnonzero(_steps(_vector("mid", mid)))


def next_move(mid: ArrayLike) -> Signs:
    """Sign of the next change of mid after each quote.

    Parameters
    ----------
    mid : array_like of float [n]
        Mid price of every quote, finite.

    Returns
    -------
    ndarray of int8 [n]
        +1 or -1; 0 for the rows after which the mid never changes again (they have no label).
    """
    steps = _steps(_vector("mid", mid))
    fresh = np.flatnonzero(steps)
    out = np.zeros(len(steps), np.int8)
    if len(fresh):
        following = np.searchsorted(fresh, np.arange(len(steps)), side="right")
        known = following < len(fresh)
        out[known] = steps[fresh[following[known]]]
    return out


def baselines(quotes: Quotes) -> dict[str, Signs]:
    """What the three trivial rivals predict on the fresh books of `quotes`.

    Parameters
    ----------
    quotes : object with ``bid_price``, ``ask_price``, ``bid_size``, ``ask_size`` [n]
        Quotes in time order. Prices must be finite; a size that is not a number takes part as "no opinion".

    Returns
    -------
    dict of str to ndarray of int8 [m]
        ``imbalance``: sign of bid size minus ask size (0 on a tie); ``reverse``: against the move that made the book
        fresh; ``repeat``: along with it. ``m`` is the number of fresh books.
    """
    mid = (_vector("bid_price", quotes.bid_price) + _vector("ask_price", quotes.ask_price)) / 2.0
    return _baselines(mid, quotes.bid_size, quotes.ask_size)


def _baselines(mid: Floats, bid_size: ArrayLike, ask_size: ArrayLike) -> dict[str, Signs]:
    bids, asks = _vector("bid_size", bid_size, finite=False), _vector("ask_size", ask_size, finite=False)
    _same_length(mid=mid, bid_size=bids, ask_size=asks)
    steps = _steps(mid)
    fresh = np.flatnonzero(steps)
    with np.errstate(invalid="ignore"):
        leaning = np.nan_to_num(np.sign(bids[fresh] - asks[fresh]), nan=0.0).astype(np.int8)
    last = steps[fresh]
    return {"imbalance": leaning, "reverse": (-last).astype(np.int8), "repeat": last}


# Hit rates ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HitRate:
    """Share of moves called right, with its uncertainty.

    Attributes
    ----------
    moves : int
        Moves counted.
    rate : float
        Hits / moves, ties at one half; NaN when there are no moves.
    low, high : float
        Wilson score interval (assumes independent moves).
    block_low, block_high : float
        Block bootstrap interval (keeps the dependence of neighbouring moves); NaN when not asked for.
    ties : int
        Predictions of 0, counted as half a hit each.
    """

    moves: int
    rate: float
    low: float
    high: float
    block_low: float = math.nan
    block_high: float = math.nan
    ties: int = 0


@dataclass(frozen=True)
class Difference:
    """Hit rate of one predictor minus that of another on the same moves.

    Attributes
    ----------
    rate : float
        Difference of the hit rates, as a fraction.
    low, high : float
        95 % block bootstrap interval of the paired difference.
    standard_error : float
        Of the difference, from the same resamples.
    p_value : float or None
        Two-sided, normal approximation; None below ``MIN_MOVES`` moves.
    detectable : float
        Smallest true difference that a two-sided 5 % test on this sample finds with probability 80 %.
    """

    moves: int
    rate: float
    low: float
    high: float
    standard_error: float
    p_value: float | None
    detectable: float

    @property
    def shown(self) -> bool:
        """True when the interval does not hold zero; otherwise the difference is "not shown"."""
        return self.low > 0.0 or self.high < 0.0


def hits(prediction: ArrayLike, label: ArrayLike) -> Floats:
    """1 for a hit, 0 for a miss, 0.5 for no opinion; rows whose label is 0 are dropped.

    Parameters
    ----------
    prediction, label : array_like [n]
        Only signs matter. Must be finite.

    Returns
    -------
    ndarray of float64 [m]
        One entry per row with a label.
    """
    predicted, actual = _vector("prediction", prediction), _vector("label", label)
    _same_length(prediction=predicted, label=actual)
    kept = actual != 0.0
    agreement: Floats = np.sign(predicted[kept]) * np.sign(actual[kept])
    outcome: Floats = (agreement + 1.0) / 2.0
    return outcome


def wilson(successes: float, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Parameters
    ----------
    successes : float
        May hold halves (ties). Between 0 and `trials`.
    trials : int
        With 0 trials nothing is known and the interval is (0, 1).
    level : float, default 0.95
        Confidence level.
    """
    _at_least("trials", trials, 0)
    if not 0.0 <= successes <= trials:
        raise DataConversionError(f"`successes` must lie between 0 and {trials}, was {successes}")
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + _unit_interval("level", level) / 2.0)
    p, z2n = successes / trials, z * z / trials
    centre = (p + z2n / 2.0) / (1.0 + z2n)
    half = z / (1.0 + z2n) * math.sqrt(p * (1.0 - p) / trials + z2n / (4.0 * trials))
    return (0.0 if successes == 0 else max(0.0, centre - half), 1.0 if successes == trials else min(1.0, centre + half))


def block_bootstrap(values: ArrayLike, *, resamples: int = 2000, block: int | None = None, seed: int = 0) -> Floats:
    """Means of resamples of `values` drawn in circular blocks, so that the dependence of neighbours survives.

    Source: Politis and Romano, "A circular block-resampling procedure for stationary data" (1992).

    Parameters
    ----------
    values : array_like of float [n]
        In time order, finite.
    resamples : int, default 2000
        How many means to draw.
    block : int, optional
        Block length; default: the cube root of n, rounded up. 1 is the ordinary bootstrap.
    seed : int, default 0
        Same seed, same answer.

    Returns
    -------
    ndarray of float64 [resamples]
        All NaN when `values` is empty.
    """
    data = _vector("values", values)
    _at_least("resamples", resamples, 1)
    n = len(data)
    if n == 0:
        return np.full(resamples, math.nan)
    length = min(n, math.ceil(n ** (1 / 3)) if block is None else _at_least("block", block, 1))
    blocks = math.ceil(n / length)
    rest = n - (blocks - 1) * length
    # Prefix sums over the series and its wrapped start turn every block into one subtraction.
    prefix = np.concatenate(([0.0], np.cumsum(np.concatenate((data, data[:length])))))
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    batch = max(1, 2_000_000 // blocks)
    for start in range(0, resamples, batch):
        stop = min(start + batch, resamples)
        first = generator.integers(0, n, size=(stop - start, blocks))
        total = (prefix[first[:, :-1] + length] - prefix[first[:, :-1]]).sum(axis=1)
        means[start:stop] = (total + prefix[first[:, -1] + rest] - prefix[first[:, -1]]) / n
    return means


def _interval(means: Floats, level: float) -> tuple[float, float]:
    if np.isnan(means).any():
        return math.nan, math.nan
    low, high = np.quantile(means, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return float(low), float(high)


def hit_rate(
    prediction: ArrayLike,
    label: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 0,
    block: int | None = None,
    seed: int = 0,
) -> HitRate:
    """Hit rate of `prediction` with a Wilson interval and, if asked for, a block bootstrap interval.

    Parameters
    ----------
    prediction, label : array_like [n]
        Signs. A label of 0 drops the row; a prediction of 0 counts as half a hit.
    level : float, default 0.95
        Confidence level of both intervals.
    resamples : int, default 0
        Bootstrap resamples; 0 leaves the block interval out.
    block : int, optional
        Block length of the bootstrap, see :func:`block_bootstrap`.
    seed : int, default 0
        Seed of the bootstrap.
    """
    outcome = hits(prediction, label)
    n = len(outcome)
    low, high = wilson(float(outcome.sum()), n, level)
    block_low = block_high = math.nan
    if _at_least("resamples", resamples, 0) and n:
        means = block_bootstrap(outcome, resamples=resamples, block=block, seed=seed)
        block_low, block_high = _interval(means, level)
    return HitRate(
        moves=n,
        rate=float(outcome.mean()) if n else math.nan,
        low=low,
        high=high,
        block_low=block_low,
        block_high=block_high,
        ties=int(np.count_nonzero(outcome == 0.5)),
    )


def compare(
    first: ArrayLike,
    second: ArrayLike,
    label: ArrayLike,
    *,
    resamples: int = 2000,
    block: int | None = None,
    seed: int = 0,
) -> Difference:
    """Paired difference of two hit rates (first minus second) on the same moves.

    Parameters
    ----------
    first, second, label : array_like [n]
        Predictions and labels, see :func:`hit_rate`.
    resamples, block, seed
        Of :func:`block_bootstrap`.

    Returns
    -------
    Difference
        All NaN when there are no moves. ``p_value`` is None with fewer than ``MIN_MOVES`` moves, or when the sample
        shows no variation at all.
    """
    gap = hits(first, label) - hits(second, label)
    n = len(gap)
    if n == 0:
        return Difference(0, math.nan, math.nan, math.nan, math.nan, None, math.nan)
    means = block_bootstrap(gap, resamples=resamples, block=block, seed=seed)
    rate = float(gap.mean())
    error = float(means.std())
    low, high = _interval(means, 0.95)
    normal = NormalDist()
    p_value = 2.0 * normal.cdf(-abs(rate) / error) if n >= MIN_MOVES and error > 0.0 else None
    detectable = (normal.inv_cdf(0.975) + normal.inv_cdf(0.8)) * error
    return Difference(n, rate, low, high, error, p_value, detectable)


# Probabilities --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """Reliability of P(up): do moves called with 70 % happen 70 % of the time?

    Attributes
    ----------
    edges : list of float [bins + 1]
        Equal-width bins over [0, 1]; the last one holds 1.
    count : list of int [bins]
        Predictions in each bin; the other lists hold NaN where it is 0.
    predicted, observed, low, high : list of float [bins]
        Mean predicted probability, observed frequency and its 95 % Wilson interval.
    ece : float
        Expected calibration error: count-weighted mean of |observed - predicted|.
    brier : float
        Mean squared error of the probability; 0.25 is what a constant 50 % earns.
    """

    edges: list[float]
    count: list[int]
    predicted: list[float]
    observed: list[float]
    low: list[float]
    high: list[float]
    ece: float
    brier: float


@dataclass(frozen=True)
class Coverage:
    """Accuracy on the most confident share of the moves.

    Attributes
    ----------
    coverage : list of float
        Share of moves kept, most confident first.
    moves : list of int
        How many moves that is.
    accuracy, low, high : list of float
        Hit rate on them and its 95 % Wilson interval.
    """

    coverage: list[float]
    moves: list[int]
    accuracy: list[float]
    low: list[float]
    high: list[float]


def reliability(probability: ArrayLike, up: ArrayLike, *, bins: int = 10) -> Calibration:
    """Calibration bins, expected calibration error and Brier score.

    Parameters
    ----------
    probability : array_like of float [n]
        Predicted probability of the event, in [0, 1].
    up : array_like of bool [n]
        Whether it happened.
    bins : int, default 10
        Number of equal-width bins.
    """
    p = _vector("probability", probability)
    y = np.asarray(up, dtype=bool).astype(np.float64)
    n = _same_length(probability=p, up=y)
    _at_least("bins", bins, 1)
    if n and not (p.min() >= 0.0 and p.max() <= 1.0):
        raise DataConversionError(f"`probability` must lie in [0, 1], was {p.min()} to {p.max()}")
    edges = np.linspace(0.0, 1.0, bins + 1)
    which = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(which, p, minlength=bins) / count
        observed = np.bincount(which, y, minlength=bins) / count
    happened = np.bincount(which, y, minlength=bins)
    bounds = [wilson(float(k), int(m)) if m else (math.nan, math.nan) for k, m in zip(happened, count, strict=True)]
    filled = count > 0
    gap = np.abs(observed[filled] - predicted[filled])
    return Calibration(
        edges=edges.tolist(),
        count=count.tolist(),
        predicted=predicted.tolist(),
        observed=observed.tolist(),
        low=[low for low, _ in bounds],
        high=[high for _, high in bounds],
        ece=float((gap * count[filled]).sum() / n) if n else math.nan,
        brier=float(((p - y) ** 2).mean()) if n else math.nan,
    )


def coverage_curve(confidence: ArrayLike, outcome: ArrayLike, *, points: int = 20) -> Coverage:
    """Hit rate on the most confident 1/points, 2/points, ... of the moves.

    Parameters
    ----------
    confidence : array_like of float [n]
        Higher is surer, finite.
    outcome : array_like of float [n]
        1 hit, 0 miss, 0.5 no opinion (:func:`hits`).
    points : int, default 20
        Number of points; with fewer moves than points there is one per move.

    Notes
    -----
    Moves of equal confidence share their mean outcome, so the curve does not depend on their order.
    """
    sure, result = _vector("confidence", confidence), _vector("outcome", outcome)
    n = _same_length(confidence=sure, outcome=result)
    _at_least("points", points, 1)
    if n == 0:
        return Coverage([], [], [], [], [])
    _, group = np.unique(-sure, return_inverse=True)
    mean = np.bincount(group, result) / np.bincount(group)
    running = np.cumsum(mean[np.sort(group)])
    kept = np.unique([math.ceil(n * i / points) for i in range(1, points + 1)])
    total = np.clip(running[kept - 1], 0.0, kept)
    bounds = [wilson(float(s), int(k)) for s, k in zip(total, kept, strict=True)]
    return Coverage(
        coverage=(kept / n).tolist(),
        moves=kept.tolist(),
        accuracy=(total / kept).tolist(),
        low=[low for low, _ in bounds],
        high=[high for _, high in bounds],
    )


def confusion(prediction: ArrayLike, label: ArrayLike) -> NDArray[np.int64]:
    """Counts of predicted against actual moves.

    Returns
    -------
    ndarray of int64 [3, 3]
        Rows: predicted down, none, up. Columns: actual down, none, up. Only signs matter.
    """
    predicted, actual = _vector("prediction", prediction), _vector("label", label)
    _same_length(prediction=predicted, label=actual)
    cell = (np.sign(predicted).astype(np.int64) + 1) * 3 + np.sign(actual).astype(np.int64) + 1
    return np.bincount(cell, minlength=9).reshape(3, 3)


# Everything at once ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Skill:
    """The evaluation of one model on fresh books, with its rivals on the same moves.

    Attributes
    ----------
    moves : int
        Fresh books with a label and a signal.
    up_share : float
        Share of the moves that went up.
    model : HitRate
        The model: sign of P(up) - P(down).
    baselines : dict of str to HitRate
        ``imbalance``, ``reverse``, ``repeat``.
    differences : dict of str to Difference
        Model minus each baseline.
    calibration : Calibration
        Of P(up) given a move: P(up) / (P(up) + P(down)).
    coverage : Coverage
        Most confident first, by the larger of that probability and its complement.
    confusion : list of list of int [3][3]
        See :func:`confusion`.
    seed : int
        Seed of the resamples.
    """

    moves: int
    up_share: float
    model: HitRate
    baselines: dict[str, HitRate]
    differences: dict[str, Difference]
    calibration: Calibration
    coverage: Coverage
    confusion: list[list[int]]
    seed: int = 0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dictionaries; numbers that do not exist are NaN."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Skill:
        """The inverse of :meth:`to_dict`; None is read as NaN where a number is expected."""
        try:
            return cls(
                moves=int(data["moves"]),
                up_share=_number(data["up_share"]),
                model=_hit_rate_from(data["model"]),
                baselines={str(k): _hit_rate_from(v) for k, v in data["baselines"].items()},
                differences={str(k): _difference_from(v) for k, v in data["differences"].items()},
                calibration=Calibration(
                    count=[int(c) for c in data["calibration"]["count"]],
                    ece=_number(data["calibration"]["ece"]),
                    brier=_number(data["calibration"]["brier"]),
                    **{k: _numbers(data["calibration"][k]) for k in ("edges", "predicted", "observed", "low", "high")},
                ),
                coverage=Coverage(
                    moves=[int(c) for c in data["coverage"]["moves"]],
                    **{k: _numbers(data["coverage"][k]) for k in ("coverage", "accuracy", "low", "high")},
                ),
                confusion=[[int(c) for c in row] for row in data["confusion"]],
                seed=int(data.get("seed", 0)),
                notes=[str(note) for note in data.get("notes", [])],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataConversionError(f"`skill` is not an evaluation: {type(error).__name__} {error}") from error


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _numbers(values: Any) -> list[float]:
    return [_number(value) for value in values]


def _hit_rate_from(data: Mapping[str, Any]) -> HitRate:
    names = ("rate", "low", "high", "block_low", "block_high")
    return HitRate(moves=int(data["moves"]), ties=int(data["ties"]), **{name: _number(data[name]) for name in names})


def _difference_from(data: Mapping[str, Any]) -> Difference:
    names = ("rate", "low", "high", "standard_error", "detectable")
    p_value = data["p_value"]
    return Difference(
        moves=int(data["moves"]),
        p_value=None if p_value is None else float(p_value),
        **{name: _number(data[name]) for name in names},
    )


def evaluate_moves(
    label: ArrayLike,
    p_down: ArrayLike,
    p_up: ArrayLike,
    rivals: Mapping[str, ArrayLike],
    *,
    resamples: int = 2000,
    block: int | None = None,
    seed: int = 0,
) -> Skill:
    """Evaluate probabilities that are already given per move; use it to pool several days.

    Parameters
    ----------
    label : array_like of int [m]
        +1 or -1 per move; 0 drops the row.
    p_down, p_up : array_like of float [m]
        Class probabilities in [0, 1]; rows that are not finite (no signal) are dropped for every rival.
    rivals : mapping of str to array_like of int [m]
        Predictions of the baselines on the same moves.
    resamples, block, seed
        Of the block bootstrap.
    """
    actual = _vector("label", label)
    down, up = _vector("p_down", p_down, finite=False), _vector("p_up", p_up, finite=False)
    _same_length(label=actual, p_down=down, p_up=up)
    others = {name: _vector(name, values) for name, values in rivals.items()}
    for name, values in others.items():
        _same_length(label=actual, **{name: values})
    kept = (actual != 0.0) & np.isfinite(down) & np.isfinite(up)
    actual, down, up = actual[kept], down[kept], up[kept]
    others = {name: values[kept] for name, values in others.items()}
    n = len(actual)
    if n and min(down.min(), up.min()) < 0.0:
        raise DataConversionError(f"probabilities must be >= 0, were {min(down.min(), up.min())}")

    total = down + up
    given_move = np.full(n, 0.5)
    np.divide(up, total, out=given_move, where=total > 0.0)
    prediction = np.sign(up - down)
    options: dict[str, Any] = {"resamples": resamples, "block": block, "seed": seed}
    differences = {name: compare(prediction, values, actual, **options) for name, values in others.items()}
    notes = ["A prediction of neither up nor down counts as half a hit."]
    if n < MIN_MOVES:
        floor = max((d.detectable for d in differences.values()), default=math.nan)
        power = (
            f" On this sample a true difference of {100 * floor:.1f} percentage points would be found 80 % of the time."
            if math.isfinite(floor)
            else ""
        )
        notes.append(f"{n} test moves are fewer than {MIN_MOVES}: no p-value is claimed.{power}")
    return Skill(
        moves=n,
        up_share=float((actual > 0.0).mean()) if n else math.nan,
        model=hit_rate(prediction, actual, **options),
        baselines={name: hit_rate(values, actual, **options) for name, values in others.items()},
        differences=differences,
        calibration=reliability(given_move, actual > 0.0),
        coverage=coverage_curve(np.maximum(given_move, 1.0 - given_move), hits(prediction, actual)),
        confusion=confusion(prediction, actual).tolist(),
        seed=seed,
        notes=notes,
    )


def evaluate(
    mid: ArrayLike,
    bid_size: ArrayLike,
    ask_size: ArrayLike,
    probabilities: ArrayLike,
    *,
    resamples: int = 2000,
    block: int | None = None,
    seed: int = 0,
) -> Skill:
    """Evaluate one model on the fresh books of one stretch of quotes.

    Parameters
    ----------
    mid, bid_size, ask_size : array_like of float [n]
        One row per quote, in time order.
    probabilities : array_like of float [n, 3]
        Down, flat, up, as the model said them on that quote; a row of NaN where there was no signal.
    resamples, block, seed
        Of the block bootstrap, see :func:`block_bootstrap`.

    Returns
    -------
    Skill
    """
    prices = _vector("mid", mid)
    table = np.asarray(probabilities, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != 3:
        raise DataConversionError(f"`probabilities` must have shape [n, 3], had {list(table.shape)}")
    _same_length(mid=prices, probabilities=table)
    rivals = _baselines(prices, bid_size, ask_size)
    fresh = fresh_books(prices)
    return evaluate_moves(
        next_move(prices)[fresh],
        table[fresh, 0],
        table[fresh, 2],
        rivals,
        resamples=resamples,
        block=block,
        seed=seed,
    )


def align_signals(quote_ts: ArrayLike, signal_ts: ArrayLike) -> NDArray[np.intp]:
    """For each quote the row of its signal, -1 where there is none.

    Parameters
    ----------
    quote_ts : array_like of uint64 [n]
        Event time of every quote, not decreasing.
    signal_ts : array_like of uint64 [m]
        Event time of every signal, not decreasing; each must be the time of a quote.

    Notes
    -----
    Where k quotes share one time and s < k signals do, the signals belong to the last s of them: a model that has
    begun to speak keeps speaking.
    """
    quotes, signals = np.asarray(quote_ts, np.uint64), np.asarray(signal_ts, np.uint64)
    for name, times in (("quote_ts", quotes), ("signal_ts", signals)):
        if times.ndim != 1:
            raise DataConversionError(f"`{name}` must have one dimension, had {times.ndim}")
        if (times[1:] < times[:-1]).any():
            raise DataConversionError(f"`{name}` must not decrease")
    out = np.full(len(quotes), -1, np.intp)
    if not len(signals):
        return out
    distinct, start, count = np.unique(signals, return_index=True, return_counts=True)
    end_of_quotes = np.searchsorted(quotes, distinct, side="right")
    available = end_of_quotes - np.searchsorted(quotes, distinct, side="left")
    if (available < count).any():
        worst = int(np.flatnonzero(available < count)[0])
        raise DataConversionError(
            f"`signal_ts` {distinct[worst]} occurs {count[worst]} times, but only {available[worst]} quotes have it"
        )
    within = np.arange(len(signals)) - np.repeat(start, count)
    out[np.repeat(end_of_quotes - count, count) + within] = np.arange(len(signals))
    return out
