"""Technical indicators on real data: against their exact definitions, TA-Lib and NautilusTrader."""

from __future__ import annotations

import numpy as np
import pytest
from support import sample_data, shared_data
from technical_parity import (
    BAR_SETS,
    CASES,
    QUOTE_SETS,
    Samples,
    against_nautilus,
    findings,
    read_bars,
    read_mids,
)

from tengri_fast.features import FeaturePlan
from tengri_fast.market.columns import QuoteColumns

pd = pytest.importorskip("pandas")

SETS = [*((name, True, parts) for name, parts in BAR_SETS.items()),
        *((name, False, parts) for name, parts in QUOTE_SETS.items())]  # fmt: skip
COUNT = 1_200


def samples(on_bars: bool, parts: tuple[str, ...]) -> Samples:
    path = shared_data(*parts)
    whole = read_bars(path) if on_bars else read_mids(path)
    return whole.head(COUNT)


@pytest.mark.parametrize(("name", "on_bars", "parts"), SETS, ids=[row[0] for row in SETS])
def test_talib(name: str, on_bars: bool, parts: tuple[str, ...]) -> None:
    talib = pytest.importorskip("talib")
    s = samples(on_bars, parts)
    assert len(s.close) == COUNT
    assert len(set(s.close.tolist())) > 20
    moves = {case.spec: case.moves for case in CASES}
    found = findings(s, on_bars, talib)
    assert len(found) == len(CASES) - (0 if on_bars else 2)
    for f in found:
        assert f.compared > 150, f
        assert f.same_lookback, f
        assert f.ours <= 1e-11, f
        # The two agree to 1e-9, or differ by what TA-Lib is away from the definition (differences of large prices).
        assert f.between <= max(1e-9, 1.1 * (f.theirs + f.ours)) if moves[f.spec] else f.between <= 1e-9, f


@pytest.mark.parametrize(("name", "on_bars", "parts"), SETS, ids=[row[0] for row in SETS])
def test_nautilus(name: str, on_bars: bool, parts: tuple[str, ...]) -> None:
    nautilus = pytest.importorskip("nautilus_trader.indicators")
    for rival, between, theirs, compared in against_nautilus(samples(on_bars, parts), on_bars, nautilus):
        assert compared > 150, rival.spec
        limit = max(1e-9, 1.1 * theirs) if rival.moves else 1e-9
        assert between <= limit, (rival.spec, between, theirs)


def test_bars_built_inside() -> None:
    """Indicators on a clock of seconds, fed with quotes, are TA-Lib's on bars that pandas makes of the same mids."""
    talib = pytest.importorskip("talib")
    frame = pd.read_parquet(sample_data("binance_usdm_btcusdt_20230405.quotes.parquet"))
    frame = frame[frame["ask_price_0"] >= frame["bid_price_0"]].sort_values("ts_ns", kind="stable")
    time = frame["ts_ns"].to_numpy(np.uint64)
    bid, ask = frame["bid_price_0"].to_numpy(np.float64), frame["ask_price_0"].to_numpy(np.float64)
    size = np.ones(len(time))
    specs = ["atr(5)", "adx(5)", "donchian_upper(5)", "plus_di(5)", "aroon_up(5)"]
    plan = FeaturePlan([f"{spec} @ 1s" for spec in specs])
    values = plan.compute(QuoteColumns(time, time, bid, ask, size, size)).values
    seconds = pd.Series(0.5 * (bid + ask)).groupby(time // 10**9)
    high, low, close = (column.to_numpy() for column in (seconds.max(), seconds.min(), seconds.last()))
    wanted = [talib.ATR(high, low, close, 5), talib.ADX(high, low, close, 5), talib.MAX(high, 5),
              talib.PLUS_DI(high, low, close, 5), talib.AROON(high, low, 5)[1]]  # fmt: skip
    # A bar is closed by the first event of a later second: its row shows the new values.
    closing = np.flatnonzero(np.diff(time // 10**9)) + 1
    assert len(closing) == len(close) - 1 > 300
    for i, want in enumerate(wanted):
        ready = np.isfinite(want[:-1])
        assert np.allclose(values[closing, i][ready], want[:-1][ready], rtol=1e-12, atol=0), specs[i]
