"""Microstructure features on recorded books and trades: against the twins, in chunks, and against known facts."""

from __future__ import annotations

import numpy as np
import pytest
from microstructure_twin import Twin
from support import shared_data

from tengri_fast.features import FeaturePlan
from tengri_fast.market.columns import DepthColumns, QuoteColumns, TradeColumns, merge_order

SPECS = [
    "microprice", "queue_imbalance(2)", "depth(10)", "depth_within(2)", "imbalance_within(1)", "book_pressure",
    "book_slope", "book_slope_imbalance(10)", "depth_price_deviation", "quote_age", "quote_intensity",
    "order_flow_ratio('5s')", "queue_flow(50)", "spread_zscore(100)", "spread_rank(200)", "spread_regime('1m')",
    "trade_sign", "last_trade_deviation", "trade_imbalance(50)", "buy_ratio('20s')", "signed_volume", "buy_intensity",
    "sell_intensity", "intensity_imbalance('5s')", "trade_duration(20)", "trade_clustering(20)", "effective_spread(50)",
    "realized_spread(window=50)", "roll_spread(60)", "point_of_control('30s')", "value_area_high('30s')",
    "value_area_low('30s')", "in_value_area('30s')", "profile_share('30s')", "realized_variance(100)",
    "realized_variance(20) @ 1s",
    "bipower_variation(20) @ 1s", "jump_share(100)", "jump_test('30s') @ 1s", "realized_semivariance('30s')",
    "semivariance_imbalance(100)", "realized_skewness(20) @ 1s", "return_autocorrelation(100)", "variance_ratio(200)",
    "kyle_lambda(200)", "kyle_lambda('1m', intercept=1) @ 1s", "impact_correlation(20) @ 1s", "amihud(20) @ 1s",
    "corwin_schultz('1m') @ 1s", "vpin(20, buckets=5)", "bulk_vpin(20, buckets=5) @ 1s",
]  # fmt: skip


def table(name: str, rows: int):
    read = pytest.importorskip("pyarrow.parquet", reason="reading the data needs pyarrow").read_table
    found = read(shared_data("tick", *name.split("/"))).slice(0, rows)
    return {c: found[c].to_numpy() for c in found.column_names}


def ladder(t: dict, levels: int) -> DepthColumns:
    sides = [np.column_stack([t[f"{side}_{what}_{i}"] for i in range(levels)]).astype(float)
             for what in ("price", "size") for side in ("bid", "ask")]  # fmt: skip
    return DepthColumns(t["ts_ns"], t["ts_ns"], *sides)


def top(t: dict) -> QuoteColumns:
    sides = [t[f"{side}_{what}_0"].astype(float) for what in ("price", "size") for side in ("bid", "ask")]
    return QuoteColumns(t["ts_ns"], t["ts_ns"], *sides)


def binance():
    name = "binance/binance_usdm_btcusdt_20240719"
    q, t, d = (table(f"{name}.{kind}.parquet", 8_000) for kind in ("quotes", "trades", "depth10"))
    q = {c: v[::4] for c, v in q.items()}
    end = q["ts_ns"][-1]
    t, d = ({c: v[x["ts_ns"] <= end] for c, v in x.items()} for x in (t, d))
    return top(q), TradeColumns(t["ts_ns"], t["ts_ns"], t["price"], t["size"], t["aggressor"]), ladder(d, 10)


def shanghai():
    """Snapshots of five levels; what was traded since the one before at the last price, by nobody knows whom."""
    d = table("shfe_rb/shfe_rb2510_20250606.depth5.parquet", 2_500)
    good = (d["bid_price_0"] > 0) & (d["ask_price_0"] > 0)
    d = {c: v[good] for c, v in d.items()}
    at = np.flatnonzero((np.nan_to_num(d["trade_volume"].astype(float)) > 0) & (d["last"] > 0))
    trades = TradeColumns(d["ts_ns"][at], d["ts_ns"][at], d["last"][at].astype(float),
                          d["trade_volume"][at].astype(float), np.zeros(len(at), np.int8))  # fmt: skip
    return None, trades, ladder(d, 5)


def lobster():
    """Top of book after every order; executions (4: visible, 5: hidden) carry the side of the resting order."""
    e = table("lobster/lobster_amzn_20120621.l1events.parquet", 3_000)
    at = np.flatnonzero(np.isin(e["event"], (4, 5)))
    trades = TradeColumns(e["ts_ns"][at], e["ts_ns"][at], e["event_price"][at].astype(float),
                          e["event_size"][at].astype(float), -e["direction"][at].astype(np.int8))  # fmt: skip
    return top(e), trades, None


SETS = {"binance": binance, "shanghai": shanghai, "lobster": lobster}


def order_of(streams) -> list[tuple[int, int]]:
    order = merge_order(*(np.empty(0, np.uint64) if s is None else s.ts_init for s in streams))
    return list(zip(order.source.tolist(), order.row.tolist(), strict=True))


@pytest.mark.parametrize("name", SETS)
def test_recorded_days_agree_with_the_twins(name: str) -> None:
    quotes, trades, depth = SETS[name]()
    no_depth = {"queue_imbalance", "depth", "depth_within", "imbalance_within", "book_pressure", "book_slope",
                "book_slope_imbalance", "depth_price_deviation"}  # fmt: skip
    plan = FeaturePlan([s for s in SPECS if depth is not None or s.split("(")[0] not in no_depth])
    state, twin = plan.state(), Twin(("1s",))
    streams = (trades, quotes, depth)
    order = order_of(streams)
    assert len(order) > 2_000
    check = {int(k) for k in np.linspace(50, len(order) - 1, 6)}
    seen, silent, said = [], 0, 0
    for k, (source, i) in enumerate(order):
        s = streams[source]
        if source == 0:
            event = (s.price[i], s.size[i], s.aggressor[i], s.ts_event[i])
            event = (float(event[0]), float(event[1]), int(event[2]), int(event[3]))
            assert state.update_trade(*event) == twin.trade(*event)
        elif source == 1:
            event = (*(float(x[i]) for x in (s.bid_price, s.ask_price, s.bid_size, s.ask_size)), int(s.ts_event[i]))
            assert state.update_quote(*event) == twin.quote(*event)
        else:
            columns = [x[i] for x in (s.bid_price, s.bid_size, s.ask_price, s.ask_size)]
            bids, asks = (list(zip(columns[j].tolist(), columns[j + 1].tolist(), strict=True)) for j in (0, 2))
            ours, theirs = state.update_depth(*columns, int(s.ts_event[i])), twin.deep(bids, asks, int(s.ts_event[i]))
            assert ours == theirs
        if k not in check:
            continue
        row, ready = state.row(), state.ready_columns
        seen.append(row)
        for j, spec in enumerate(plan.specs):
            wanted_ready, wanted, error = twin.value(spec)
            assert ready[j] == wanted_ready, (str(spec), k)
            said, silent = said + wanted_ready, silent + (wanted_ready and error == np.inf)
            if wanted_ready:
                assert abs(row[j] - wanted) <= 1e-9 * max(1.0, abs(wanted)) + error, (str(spec), row[j], wanted, k)
    assert said > 3 * len(plan.specs)
    assert silent < 0.02 * said
    assert np.mean([len(set(column)) > 3 for column in np.array(seen).T]) > 0.5, "the data must vary"


@pytest.mark.parametrize("name", SETS)
def test_chunks_and_live_are_the_same_bits(name: str) -> None:
    streams = SETS[name]()
    quotes, trades, depth = streams
    clock = "quote" if quotes is not None else "depth"
    plan = FeaturePlan(SPECS)
    order = order_of((trades, quotes, depth))[:1_500]
    ends = [[0, 0, 0]]
    for source, _ in order:
        ends.append([count + (source == k) for k, count in enumerate(ends[-1])])

    def compute(first: int, last: int, state):
        t, q, d = (None if s is None else s[a:b] for s, a, b in
                   zip((trades, quotes, depth), ends[first], ends[last], strict=True))  # fmt: skip
        return plan.compute(q, t, d, clock, state=state)

    whole = compute(0, len(order), plan.state())
    assert len(whole.values) > 300
    for size in (1, 7, 100):
        state = plan.state()
        parts = [compute(k, min(k + size, len(order)), state) for k in range(0, len(order), size)]
        assert np.concatenate([p.values for p in parts]).tobytes() == whole.values.tobytes()
        assert state.counters == whole.counters


def test_a_trading_day_looks_like_one() -> None:
    """Stylised facts that hold on any liquid book: they catch a sign or a scale that a twin could share."""
    quotes, trades, depth = binance()
    names = ["effective_spread(200)", "spread", "trade_imbalance(1)", "last_trade_deviation", "buy_ratio(100)",
             "impact_correlation(300) @ 1s", "in_value_area('5m')", "value_area_low('5m')", "value_area_high('5m')",
             "point_of_control('5m')", "depth(5, side=1, log=0)", "depth(10, side=1, log=0)",
             "depth(10, log=0)"]  # fmt: skip
    plan = FeaturePlan(names)
    rows = plan.compute(quotes, trades, depth, "quote")
    col = dict(zip(names, rows.values[len(rows.values) // 2 :].T, strict=True))
    assert 0.5 * np.median(col["spread"]) < np.median(col["effective_spread(200)"]) < 10
    assert ((col["buy_ratio(100)"] >= 0) & (col["buy_ratio(100)"] <= 1)).all()
    assert (col["value_area_low('5m')"] <= col["point_of_control('5m')"]).all()
    assert (col["point_of_control('5m')"] <= col["value_area_high('5m')"]).all()
    assert (col["depth(5, side=1, log=0)"] <= col["depth(10, side=1, log=0)"]).all()
    assert (col["depth(10, side=1, log=0)"] < col["depth(10, log=0)"]).all()
    sign, away = plan.compute(quotes, trades, depth, "trade").values[:, 2:4].T
    assert np.corrcoef(sign[1:], away[1:])[0, 1] > 0.05, "buys print above the mid before them"
