"""Is a VaR any good? Tests of VaR and ES forecasts against what happened, and a walk forward that makes forecasts.

>>> import numpy as np
>>> from tengri_fast.risk.backtest import kupiec_pof, traffic_light
>>> hits = np.arange(1043) < 57
>>> round(traffic_light(hits, 0.95).statistic, 5), traffic_light(hits, 0.95).details["zone"]
(0.77913, 'green')
>>> round(kupiec_pof(hits, 0.95).statistic, 5)
0.46147

Every p-value has an exact twin for the sample at hand: enumerated for the tests of number and of first-order order,
simulated with a seed for the others. NumPy only.
"""

from __future__ import annotations

from tengri_fast.risk.backtest.coverage import (
    MAR99_MULTIPLIERS,
    PLUS_FACTORS_1996,
    binomial_test,
    kupiec_pof,
    kupiec_tuff,
    rolling_zones,
    traffic_light,
)
from tengri_fast.risk.backtest.durations import haas_durations, weibull_durations
from tengri_fast.risk.backtest.dynamic import dynamic_quantile
from tengri_fast.risk.backtest.independence import christoffersen_independence, conditional_coverage, transitions
from tengri_fast.risk.backtest.judge import Forecasts, Judgement, judge, period
from tengri_fast.risk.backtest.methods import METHODS, Method, Walk, monte_carlo_method
from tengri_fast.risk.backtest.result import SIGNIFICANCE, TestResult, exceptions
from tengri_fast.risk.backtest.rolling import rolling_forecasts, rolling_var_backtest
from tengri_fast.risk.backtest.scores import diebold_mariano, fissler_ziegel, quantile_loss
from tengri_fast.risk.backtest.series import Table, price_returns, read_table
from tengri_fast.risk.backtest.shortfall import acerbi_szekely, costanzino_curran

__all__ = [
    "MAR99_MULTIPLIERS",
    "METHODS",
    "PLUS_FACTORS_1996",
    "SIGNIFICANCE",
    "Forecasts",
    "Judgement",
    "Method",
    "Table",
    "TestResult",
    "Walk",
    "acerbi_szekely",
    "binomial_test",
    "christoffersen_independence",
    "conditional_coverage",
    "costanzino_curran",
    "diebold_mariano",
    "dynamic_quantile",
    "exceptions",
    "fissler_ziegel",
    "haas_durations",
    "judge",
    "kupiec_pof",
    "kupiec_tuff",
    "monte_carlo_method",
    "period",
    "price_returns",
    "quantile_loss",
    "read_table",
    "rolling_forecasts",
    "rolling_var_backtest",
    "rolling_zones",
    "traffic_light",
    "transitions",
    "weibull_durations",
]
