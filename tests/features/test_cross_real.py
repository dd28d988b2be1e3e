"""Features of several instruments on real pairs and baskets, against NumPy, pandas and LAPACK on the same samples."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from support import shared_data

from tengri_fast.features import FeaturePlan
from tengri_fast.market.columns import QuoteColumns
from tengri_fast.market.files import read_quotes

Array = npt.NDArray[np.float64]
BINANCE = {
    "BTC and ETH": ("binance_usdm_btcusdt_20240719", "binance_usdm_ethusdt_20240719"),
    "perpetual and spot": ("binance_cm_btcusd_perp_20240808", "binance_spot_btcusdt_20240808"),
}
DAY = 86_400 * 10**9


def of_closes(closes: Array) -> QuoteColumns:
    """Daily closes as quotes without a spread; a leg's close of a day is known one second before the own one."""
    ts = np.arange(1, len(closes) + 1, dtype=np.uint64) * np.uint64(DAY)
    return QuoteColumns(ts, ts, closes, closes, np.ones(len(closes)), np.ones(len(closes)))


def earlier(quotes: QuoteColumns) -> QuoteColumns:
    ts = quotes.ts_init - np.uint64(10**9)
    return QuoteColumns(ts, ts, quotes.bid_price, quotes.ask_price, quotes.bid_size, quotes.ask_size)


def pair(name: str, count: int = 12_000) -> tuple[QuoteColumns, QuoteColumns]:
    own, leg = (read_quotes(shared_data("tick", "binance", f"{file}.quotes.parquet")) for file in BINANCE[name])
    return own[:count], leg


def mids(quotes: QuoteColumns) -> Array:
    return 0.5 * (quotes.bid_price + quotes.ask_price)


def latest(own: QuoteColumns, leg: QuoteColumns) -> npt.NDArray[np.int64]:
    """Row of the leg that each own quote sees: the last one strictly before it; -1 before the first."""
    assert (np.diff(own.ts_init.astype(np.int64)) >= 0).all()
    assert (np.diff(leg.ts_init.astype(np.int64)) >= 0).all()
    return np.searchsorted(leg.ts_init, own.ts_init, "left") - 1


def correlated(a: Array, b: Array) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0


@pytest.mark.parametrize("name", BINANCE)
def test_pairs_of_ticks(name: str) -> None:
    own, leg = pair(name)
    plan = FeaturePlan([
        "premium('x')", "leg_return('x', lag=20)", "relative_return('x', lag=20)", "correlation('x', window=300)",
        "beta('x', window=300)", "lead_lag('x', lag=5, window=400)", "lead_lag_asymmetry('x', lag=5, window=400)",
        "pair_spread('x', window=500)", "pair_spread_zscore('x', window=500)", "hedge_ratio('x', window=500)",
        "pair_spread_zscore('x', window=500, hedge=1)", "leg_age('x')",
    ])  # fmt: skip
    rows = plan.compute(own, legs={"x": leg})
    at = latest(own, leg)
    seen = at >= 0
    first = int(np.flatnonzero(seen)[0])
    mine, other = mids(own)[first:], mids(leg)[at[first:]]
    values = rows.values[first:]
    assert len(mine) > 5_000
    assert rows.ready[first + 499 :].all()
    np.testing.assert_allclose(values[:, 0], 1e4 * (mine - other) / other, rtol=1e-12)
    np.testing.assert_allclose(values[20:, 1], 1e4 * np.log(other[20:] / other[:-20]), atol=1e-9)
    np.testing.assert_allclose(
        values[20:, 2], 1e4 * (np.log(mine[20:] / mine[:-20]) - np.log(other[20:] / other[:-20])), atol=1e-9
    )
    age = (own.ts_init[first:] - leg.ts_init[at[first:]]).astype(np.float64) / 1e9
    np.testing.assert_allclose(values[:, 11], np.log1p(age), rtol=1e-12)
    r, s = np.diff(np.log(mine)), np.diff(np.log(other))
    x, y = np.log(other / other[0]), np.log(mine / mine[0])
    moved = 0
    for k in range(520, len(mine), 487):
        a, b = s[k - 300 : k], r[k - 300 : k]
        assert values[k, 3] == pytest.approx(correlated(a, b), abs=1e-9)
        slope = np.polyfit(a * 1e6, b * 1e6, 1)[0] if np.ptp(a) > 0 else 0.0
        assert values[k, 4] == pytest.approx(slope, abs=1e-8)
        ahead = correlated(s[k - 405 : k - 5], r[k - 400 : k])
        behind = correlated(r[k - 405 : k - 5], s[k - 400 : k])
        assert values[k, 5] == pytest.approx(ahead, abs=1e-9)
        assert values[k, 6] == pytest.approx(ahead - behind, abs=1e-9)
        moved += ahead != 0.0
        a, b = x[k - 499 : k + 1], y[k - 499 : k + 1]
        if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
            continue
        slope, level = np.polyfit((a - a.mean()) * 1e5, (b - b.mean()) * 1e5, 1)
        rest = (b - b.mean()) * 1e5 - slope * (a - a.mean()) * 1e5 - level
        assert values[k, 9] == pytest.approx(slope, abs=1e-7)
        assert values[k, 7] == pytest.approx(rest[-1] / 10, abs=1e-6)
        assert values[k, 8] == pytest.approx(rest[-1] / rest.std(), rel=1e-6, abs=1e-6)
        gap = np.log(mine[k - 499 : k + 1] / other[k - 499 : k + 1])
        assert values[k, 10] == pytest.approx((gap[-1] - gap.mean()) / gap.std(), rel=1e-6, abs=1e-6)
    assert moved > 5


def test_a_leg_of_one_minute_bars_against_pandas() -> None:
    """Returns per second of both, as a pandas user would resample them."""
    own, leg = pair("BTC and ETH", 45_000)
    rows = FeaturePlan(["correlation('x', window=60) @ 1s", "leg_return('x') @ 1s"]).compute(own, legs={"x": leg})
    closes = pd.Series(mids(own), index=own.ts_init.astype(np.int64)).groupby(lambda t: t // 10**9).last()
    # A bar is closed by the first event after its end, own or the leg's; the leg is seen as it was before that event.
    both = np.sort(np.concatenate([own.ts_init, leg.ts_init]).astype(np.int64))
    ends = (closes.index.to_numpy() + 1) * 10**9
    closing = both[np.minimum(np.searchsorted(both, ends, "left"), len(both) - 1)]
    at = np.searchsorted(leg.ts_init.astype(np.int64), closing, "left") - 1
    keep = at >= 0
    own_return = np.diff(np.log(closes.to_numpy()[keep]))
    leg_return = np.diff(np.log(mids(leg)[at[keep]]))
    wanted = pd.Series(own_return).rolling(60).corr(pd.Series(leg_return)).to_numpy()
    ready = np.flatnonzero(rows.ready)
    seen = rows.values[ready]
    for end, k in [(closing[keep][i + 1], i) for i in range(60, len(wanted) - 1, 13)]:
        row = int(np.searchsorted(own.ts_init, end, "right"))  # the first own row after the bar has closed
        if row >= len(own):
            continue
        assert rows.values[row, 1] == pytest.approx(1e4 * leg_return[k], abs=1e-9)
        assert rows.values[row, 0] == pytest.approx(wanted[k], abs=1e-9)
    assert len(np.unique(seen[:, 0])) > 100


def test_daily_index_and_fund_against_pandas() -> None:
    frames = {}
    for name in ("qqq", "spy"):
        frame = pd.read_parquet(shared_data("daily", f"{name}_daily.parquet"))
        frames[name] = frame.set_index("datetime")["close"]
    both = pd.DataFrame(frames).dropna()
    own, leg = of_closes(both["qqq"].to_numpy(np.float64)), earlier(of_closes(both["spy"].to_numpy(np.float64)))
    rows = FeaturePlan(
        ["beta('SPY', window=250)", "correlation('SPY', window=250)", "basket_beta(['SPY'], window=250)"]
    )
    values = rows.compute(own, legs={"SPY": leg}).values
    moves = np.log(both).diff()
    cov = moves["qqq"].rolling(250).cov(moves["spy"])
    np.testing.assert_allclose(values[250:, 0], (cov / moves["spy"].rolling(250).var())[250:], rtol=1e-9)
    np.testing.assert_allclose(values[250:, 1], moves["qqq"].rolling(250).corr(moves["spy"])[250:], rtol=1e-9)
    assert np.array_equal(values[:, 0], values[:, 2])
    assert 0.5 < values[-1, 1] < 1.0


def test_principal_components_of_stocks_against_lapack() -> None:
    frame = pd.read_csv(shared_data("daily", "sp500_20stocks_1990_2022.csv.gz")).tail(2_500)
    names = ["JPM", "BAC", "CVX", "XOM", "KO", "PEP", "MSFT", "AAPL"]
    prices = frame[names].to_numpy(np.float64)
    others, half_life = names[1:], 120
    listed = repr(others)
    columns = [f"pca_exposure({listed}, factor={k}, half_life={half_life})" for k in (1, 2, 3, 8)]
    columns += [f"pca_explained({listed}, factor={k}, half_life={half_life})" for k in (1, 2, 3, 8)]
    columns += [
        f"pca_return({listed}, half_life={half_life})",
        f"pca_residual({listed}, factors=3, half_life={half_life})",
    ]
    columns += [f"pca_residual({listed}, factors=7, half_life={half_life})"]
    legs = {name: earlier(of_closes(prices[:, k])) for k, name in enumerate(names) if k}
    rows = FeaturePlan(columns).compute(of_closes(prices[:, 0]), legs=legs)
    assert int(np.flatnonzero(rows.ready)[0]) == half_life
    moves = np.diff(np.log(prices), axis=0)
    for k in [half_life, half_life + 1, 300, 777, 1_500, 2_498]:
        seen = moves[:k]
        weights = 2.0 ** (-np.arange(k)[::-1] / half_life)
        values, vectors = np.linalg.eigh((seen * weights[:, None]).T @ seen / weights.sum())
        values, vectors = values[::-1], vectors[:, ::-1]
        row = rows.values[k]
        np.testing.assert_allclose(row[:4], np.abs(vectors[0, [0, 1, 2, 7]]), atol=1e-9)
        np.testing.assert_allclose(row[4:8], values[[0, 1, 2, 7]] / values.sum(), rtol=1e-9)
        score = math.copysign(1, vectors[0, 0]) * vectors[:, 0] @ seen[-1]
        assert row[8] == pytest.approx(1e4 * score, rel=1e-9)
        for column, factors in ((9, 3), (10, 7)):
            part = vectors[0, :factors] @ (vectors[:, :factors].T @ seen[-1])
            assert row[column] == pytest.approx(1e4 * (seen[-1, 0] - part), rel=1e-7, abs=1e-8)
    assert rows.values[-1, 4] > 0.3
