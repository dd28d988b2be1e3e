"""The look-ahead check: it passes what is causal and catches what is not."""

from __future__ import annotations

import numpy as np
import pytest
from support import sample_data

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import FeaturePlan
from tengri_fast.features.lookahead import EventStreams, Rows, check_lookahead, check_plan
from tengri_fast.market import read_quotes, read_trades

SPECS = ["rsi(14)", "rsi(14) @ 1s, 50 ticks", "order_flow_imbalance(window='1s')", "imbalance @ 20 trades | clip(2)",
         "signed_trade_flow(window='2s')", "mid_return(10)", "trade_intensity"]  # fmt: skip


@pytest.fixture(scope="module")
def streams() -> EventStreams:
    quotes = read_quotes(sample_data("binance_usdm_btcusdt_20230404.quotes.parquet"))[:4000]
    trades = read_trades(sample_data("binance_usdm_btcusdt_20230404.trades.parquet"))
    return EventStreams(quotes, trades[: int(np.searchsorted(trades.ts_init, quotes.ts_init[-1]))])


@pytest.mark.parametrize("clock", ["quote", "trade"])
def test_a_plan_passes(streams: EventStreams, clock: str) -> None:
    said: list[str] = []
    report = check_plan(FeaturePlan(SPECS), streams, clock, cuts=4, progress=said.append)
    assert report.passed, str(report)
    assert report.compared > 10_000
    assert len(said) == 10
    assert "no look-ahead" in str(report)


def rows_of(streams: EventStreams, extra) -> Rows:
    quotes = streams.quotes
    mid = 0.5 * (quotes.bid_price + quotes.ask_price)
    fair = np.convolve(mid, np.ones(5) / 5)[: len(mid)]
    return Rows(quotes.ts_init, np.column_stack([fair, extra(mid, quotes)]), ("fair", "leaky"))


def whole_history_zscore(mid, quotes):
    return (mid - mid.mean()) / max(mid.std(), 1e-9)


def centred_mean(mid, quotes):
    return np.convolve(mid, np.ones(9) / 9, mode="same")


def next_return(mid, quotes):
    return np.append(np.diff(mid), 0.0)


def resampled_close(mid, quotes):
    """The close of the second in which a quote lies, known only when that second is over."""
    second = quotes.ts_init // np.uint64(10**9)
    last = np.searchsorted(second, second, side="right") - 1
    return mid[last]


def bfilled_trade(mid, quotes):
    at = np.maximum.accumulate(quotes.ask_size[::-1])[::-1]
    return at


@pytest.mark.parametrize("leak", [whole_history_zscore, centred_mean, next_return, resampled_close, bfilled_trade])
def test_a_leak_is_caught(streams: EventStreams, leak) -> None:
    report = check_lookahead(lambda given: rows_of(given, leak), streams, cuts=6, seed=3)
    assert not report.passed
    assert {moved.column for moved in report.moved} == {"leaky"}
    assert "LOOK-AHEAD" in str(report)
    assert "leaky: row" in str(report)


def test_a_leak_that_needs_the_future_to_exist_is_caught_by_poison_only(streams: EventStreams) -> None:
    """Where the future is missing it falls back to an honest value, which is what the cut rows then show."""
    quotes = streams.quotes
    whole = len(quotes)

    def sly(mid, given):
        rows = mid.copy()
        if len(mid) == whole:  # only the whole history has the future that it uses
            rows[: whole // 2] += 1e-6 * (mid[-1] > 0) * (mid[-1] - quotes.bid_price[-1])
        return rows

    report = check_lookahead(lambda given: rows_of(given, sly), streams, cuts=3)
    assert not report.passed
    assert any(moved.test == "poisoned" for moved in report.moved)


def test_what_is_not_repeatable_is_caught(streams: EventStreams) -> None:
    rng = np.random.default_rng(1)
    report = check_lookahead(lambda given: rows_of(given, lambda mid, quotes: mid + rng.normal(size=len(mid))), streams)
    assert not report.passed
    assert any(moved.test == "the same" for moved in report.moved)


def test_missing_rows_are_a_finding(streams: EventStreams) -> None:
    def last_half(given: EventStreams) -> Rows:
        """Drops what is old when it is run, so the rows of a cut history are others."""
        rows = rows_of(given, next_return)
        keep = slice(len(rows.ts) // 2, None)
        return Rows(rows.ts[keep], rows.values[keep, :1], ("fair",))

    report = check_lookahead(last_half, EventStreams(streams.quotes[:1001]), cuts=5)
    assert any(moved.column == "(times of rows)" for moved in report.moved)


def test_wrong_use(streams: EventStreams) -> None:
    with pytest.raises(FeatureExtractionError, match="`cuts` must be >= 1"):
        check_plan(FeaturePlan(SPECS), streams, cuts=0)
    with pytest.raises(FeatureExtractionError, match="`streams` must hold at least"):
        check_plan(FeaturePlan(SPECS), EventStreams(streams.quotes[:5]))
    with pytest.raises(FeatureExtractionError, match="at least one row"):  # nothing to compare is no proof
        check_lookahead(lambda given: Rows(np.empty(0, np.uint64), np.empty((0, 1)), ("none",)), streams)
