"""VaR and ES against NumPy's inverted CDF, an integral, and each other."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from support import REPOSITORY

from tengri_fast.errors import DataConversionError
from tengri_fast.risk import expected_shortfall, value_at_risk
from tengri_fast.risk.measures import tail_rank

LEVELS = [0.9, 0.95, 0.975, 0.99, 0.999]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("count", [1, 2, 7, 99, 100, 101, 513, 1000, 4096])
def test_value_at_risk_is_numpys_inverted_cdf(level, count):
    pnl = np.random.default_rng(count).standard_t(3, count)
    assert value_at_risk(pnl, level) == np.quantile(-pnl, level, method="inverted_cdf")


def test_which_order_statistic():
    pnl = -np.arange(1.0, 1001.0)  # losses 1 .. 1000
    assert value_at_risk(pnl, 0.99) == 990.0  # the 990th smallest, the 11th largest
    assert expected_shortfall(pnl, 0.99) == pytest.approx(np.arange(991, 1001).mean(), rel=1e-15)
    assert tail_rank(1000, 0.99) == (11, 10.0)
    assert tail_rank(100, 0.07) == (94, 93.0)  # 0.07 * 100 is 7.000000000000001


@pytest.mark.parametrize("level", [0.9, 0.975, 0.99])
@pytest.mark.parametrize("count", [10, 37, 150, 513])
def test_expected_shortfall_is_the_integral_of_the_quantile_function(level, count):
    losses = np.sort(-np.random.default_rng(count).normal(size=count))

    def quantile(u):
        return losses[min(max(math.ceil(u * count - 1e-12), 1), count) - 1]

    edges = [k / count for k in range(int(level * count) + 1, count)]
    points = [level, *[edge for edge in edges if edge > level], 1.0]
    area = sum(
        integrate.fixed_quad(lambda x: [quantile(u) for u in x], a, b, n=1)[0] for a, b in itertools.pairwise(points)
    )
    assert expected_shortfall(-losses, level) == pytest.approx(area / (1.0 - level), rel=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_laws(values, shift, scale):
    pnl = np.array(values)
    risk, shortfall = value_at_risk(pnl, 0.95), expected_shortfall(pnl, 0.95)
    assert shortfall >= risk - 1e-9 * (1.0 + abs(risk))
    assert value_at_risk(pnl + shift, 0.95) == pytest.approx(risk - shift, abs=1e-6)
    assert value_at_risk(pnl * scale, 0.95) == pytest.approx(risk * scale, abs=1e-6)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_expected_shortfall_is_subadditive(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_t(2, 200), rng.standard_t(2, 200)
    whole = expected_shortfall(a + b, 0.95)
    assert whole <= expected_shortfall(a, 0.95) + expected_shortfall(b, 0.95) + 1e-9


@pytest.mark.parametrize("bad", [[], [[1.0]], [math.nan], [math.inf, 1.0]])
def test_bad_input_is_named(bad):
    with pytest.raises(DataConversionError, match="`pnl` must be"):
        value_at_risk(bad)
    with pytest.raises(DataConversionError, match="`level` must be"):
        expected_shortfall([1.0], 1.0)


def test_numba_is_not_imported_for_plain_limits():
    code = (
        "import sys\n"
        "from tengri_fast.risk import *\n"
        "p = PortfolioState([InstrumentFacts('A')])\n"
        "g = RiskGate(RiskLimits(max_order_notional=1e6, max_position=5.0, price_collar_bps=50.0), p)\n"
        "g.warmup(); p.on_price('A', 99.0, 101.0, 1)\n"
        "p.on_fill('A', 1.0, 100.0); p.on_working(OrderView('w', 's', '', 'A', quantity=1.0))\n"
        "assert g.check(OrderView('o', 's', '', 'A', quantity=1.0, ts=1)).allowed\n"
        "assert not any(m == 'numba' or m.startswith('nautilus_trader') for m in sys.modules), 'imported'\n"
    ).replace("import *", "import InstrumentFacts, OrderView, PortfolioState, RiskGate, RiskLimits")
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
