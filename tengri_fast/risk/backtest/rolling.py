"""The walk forward: what would each model have said the day before, and what came?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.backtest._special import Floats
from tengri_fast.risk.backtest.judge import Forecasts, Judgement, judge
from tengri_fast.risk.backtest.methods import METHODS, Method, Walk, typical_shape
from tengri_fast.risk.backtest.result import series, tail_probability

__all__ = ["Estimate", "rolling_forecasts", "rolling_var_backtest"]

#: Own estimator: a window of returns, oldest first, to (VaR, ES) of the next day.
Estimate = Callable[[Floats], tuple[float, float]]


def _table(methods: Sequence[str] | Mapping[str, Estimate | Method] | None) -> dict[str, Method]:
    if methods is None:
        return dict(METHODS)
    if isinstance(methods, str):
        methods = [methods]
    if isinstance(methods, Mapping):
        return {
            name: given if isinstance(given, Method) else Method(name, _loop(name, given), minimum=1)
            for name, given in methods.items()
        }
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ConfigurationError(f"`method` must be one of {', '.join(METHODS)}, was {unknown[0]!r}")
    return {name: METHODS[name] for name in methods}


def _loop(name: str, estimate: Estimate) -> Callable[[Floats, int, float, int], Walk]:
    def walk(returns: Floats, window: int, level: float, refit: int) -> Walk:
        var, es = np.empty(returns.size - window), np.empty(returns.size - window)
        for start in range(0, var.size, refit):
            known = returns[start : start + window].copy()
            known.setflags(write=False)
            answer = estimate(known)
            try:
                var[start : start + refit], es[start : start + refit] = (float(value) for value in answer)
            except (TypeError, ValueError):
                raise DataConversionError(
                    f"method {name!r} must return two numbers, VaR and ES, was {answer!r}"
                ) from None
        return Walk(var, es)

    return walk


def rolling_forecasts(
    returns: npt.ArrayLike,
    method: str | Method,
    *,
    level: float = 0.99,
    window: int = 500,
    refit: int | None = None,
) -> Walk:
    """VaR and ES of every day from the `window` days before it.

    Parameters
    ----------
    returns : array_like, shape (T,)
        Results of one unit of money per day (a long position: simple returns), finite, oldest first.
    method : str or Method
        A name of :data:`~tengri_fast.risk.backtest.methods.METHODS`.
    level : float
        Confidence, between 0.5 and 1.
    window : int
        Days that a forecast sees.
    refit : int, optional
        Days from one fit to the next, for models that are fitted; by default the method's own.

    Returns
    -------
    Walk
        ``var`` and ``es``, shape (T - window,): the first is for returns[window] and has seen returns[:window].

    Raises
    ------
    ConfigurationError
        When a setting breaks its rule.
    DataConversionError
        When the returns do, or a model cannot be fitted; the message names the method.
    """
    values = series("returns", returns)
    tail_probability(level)
    chosen = _table([method])[method] if isinstance(method, str) else method
    days = _at_least("window", window, chosen.minimum)
    needed = math.ceil(1.0 / (1.0 - level) - 1e-6)
    if days < needed:
        raise ConfigurationError(f"`window` must be >= {needed} for a level of {level:g}, was {days}")
    if values.size <= days:
        raise DataConversionError(f"`returns` must have more than {days} entries, a window, had {values.size}")
    return chosen.walk(values, days, float(level), _at_least("refit", chosen.refit if refit is None else refit, 1))


def _at_least(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigurationError(f"`{name}` must be an integer >= {least}, was {value!r}")
    return int(value)


def rolling_var_backtest(
    returns: npt.ArrayLike,
    methods: Sequence[str] | Mapping[str, Estimate | Method] | None = None,
    level: float = 0.99,
    window: int = 500,
    *,
    times: npt.ArrayLike | None = None,
    side: Literal["long", "short"] = "long",
    refit: int | None = None,
    simulations: int = 999,
    seed: int = 1,
) -> dict[str, Judgement]:
    """Walk forward over a series and judge every method; no forecast sees its own day or a later one.

    Parameters
    ----------
    returns : array_like, shape (T,)
        Simple returns over one day each, finite and > -1, oldest first.
    methods : sequence of str or mapping, optional
        Names of :data:`~tengri_fast.risk.backtest.methods.METHODS` (all by default), or own ones:
        ``{name: callable}`` with a callable from a window of returns, oldest first, to (VaR, ES).
    level : float
        Confidence of VaR and ES, between 0.5 and 1.
    window : int
        Days that a forecast sees.
    times : array_like of uint64, shape (T,), optional
        UTC ns of the returns, rising.
    side : {"long", "short"}
        A short position loses when the return is positive.
    refit : int, optional
        Days from one fit to the next for every method; by default each its own.
    simulations, seed : int
        Of the simulated p-values.

    Returns
    -------
    dict of str to Judgement
        In the order of the methods; all are judged on the same days.

    Raises
    ------
    ConfigurationError, DataConversionError
        As :func:`rolling_forecasts`; also when a forecast is not finite, an ES not positive or below its VaR.
    """
    values = series("returns", returns)
    if (values <= -1.0).any():
        at = int(np.argmax(values <= -1.0))
        raise DataConversionError(f"`returns` must be > -1, was {values[at]} at {at}")
    if side not in ("long", "short"):
        raise ConfigurationError(f"`side` must be long or short, was {side!r}")
    moments = None if times is None else np.asarray(times)
    if moments is not None and moments.shape != values.shape:
        raise DataConversionError(f"`times` must be as many as `returns` ({values.size}), had {moments.shape}")
    results = values if side == "long" else -values
    judgements = {}
    for name, method in _table(methods).items():
        try:
            walk = rolling_forecasts(results, method, level=level, window=window, refit=refit)
            tail, shape = typical_shape(method.tail, walk.shape)
            forecasts = Forecasts(
                name, level, results[window:], walk.var, walk.es,
                None if moments is None else moments[window:], tail, shape, walk.notes,
            )  # fmt: skip
        except DataConversionError as error:
            raise DataConversionError(f"method {name!r}: {error}") from error
        judgements[name] = judge(forecasts, simulations=simulations, seed=seed)
    if not judgements:
        raise ConfigurationError("`methods` must name at least one, was empty")
    return judgements
