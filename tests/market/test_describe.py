"""Descriptions: every defect is planted in a file and found; the figures of the data set come out."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import shared_data

from tengri_fast.errors import DataConversionError
from tengri_fast.market import (
    BarColumns,
    DeltaColumns,
    DepthColumns,
    DescribeOptions,
    MarketColumns,
    QuoteColumns,
    TradeColumns,
    clock_offset,
    describe,
    read_market,
    repair,
    require_usable,
    shift_clock,
    write_market,
)
from tengri_fast.market.describe import RULES
from tengri_fast.market.quality import duplicate_rows, infer_tick, running_median
from tengri_fast.market.repair import REPAIRS

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def quotes(rows: int = 400, seed: int = 7) -> QuoteColumns:
    """Quotes without a defect: tick 0.1, one row per second, prices that move."""
    rng = np.random.default_rng(seed)
    ts = START + np.arange(rows, dtype=np.uint64) * np.uint64(SECOND)
    bid = np.round(1000 + np.cumsum(rng.integers(-1, 2, rows)) * 0.1, 1)
    ask = np.round(bid + 0.1 * rng.integers(1, 3, rows), 1)
    return QuoteColumns(ts, ts.copy(), bid, ask, 1.0 + rng.integers(1, 90, rows), 1.0 + np.arange(rows) % 50)


def trades(rows: int = 200) -> TradeColumns:
    book = quotes()
    ts = book.ts_init[: 2 * rows : 2] + np.uint64(SECOND // 2)
    side = np.where(np.arange(rows) % 3 == 0, 1, -1)
    price = np.where(side > 0, book.ask_price[: 2 * rows : 2], book.bid_price[: 2 * rows : 2])
    return TradeColumns(ts, ts.copy(), price, 1.0 + np.arange(rows), side)


def depth(rows: int = 300) -> DepthColumns:
    top = quotes(rows)
    steps = 0.1 * np.arange(3)
    return DepthColumns(
        top.ts_event, top.ts_init.copy(), np.round(top.bid_price[:, None] - steps, 1),
        np.round(top.ask_price[:, None] + steps, 1), np.ones((rows, 3)) * 2, np.ones((rows, 3)),
    )  # fmt: skip


def bars(rows: int = 60) -> BarColumns:
    ts = START + np.arange(rows, dtype=np.uint64) * np.uint64(60 * SECOND)
    close = 50 + np.round(np.sin(np.arange(rows)), 2)
    return BarColumns(ts, ts.copy(), close, close + 1, close - 1, close, np.arange(rows) + 1.0)


def deltas(rows: int = 50) -> DeltaColumns:
    ts = START + np.arange(rows, dtype=np.uint64) * np.uint64(SECOND)
    return DeltaColumns(
        np.full(rows, 2, np.uint8), np.ones(rows, np.int8), 10.0 + np.arange(rows), np.ones(rows),
        np.zeros(rows, np.uint64), np.full(rows, 128, np.uint8), np.arange(rows, dtype=np.uint64), ts, ts.copy(),
    )  # fmt: skip


MAKERS = {"quotes": quotes, "trades": trades, "depth": depth, "bars": bars, "deltas": deltas}


def put(value, name: str, row, content, level: int | None = None):
    array = getattr(value, name).copy()
    array[row if level is None else (row, level)] = content
    return replace(value, **{name: array})


def swapped(value, one: int, other: int):
    order = np.arange(len(value))
    order[[one, other]] = order[[other, one]]
    return replace(value, **{name: array[order] for name, array in vars(value).items()})


def repeated(value, row: int):
    order = np.insert(np.arange(len(value)), row, row)
    return replace(value, **{name: array[order] for name, array in vars(value).items()})


PLANTED = [
    ("quotes", "nan", lambda v: put(v, "bid_price", 17, math.nan), 17),
    ("quotes", "nan", lambda v: put(v, "ask_size", 3, math.nan), 3),
    ("quotes", "infinite", lambda v: put(v, "ask_price", 18, math.inf), 18),
    ("quotes", "negative_price", lambda v: put(v, "bid_price", 19, -1.0), 19),
    ("quotes", "zero_price", lambda v: put(v, "ask_price", 20, 0.0), 20),
    ("quotes", "negative_size", lambda v: put(v, "bid_size", 21, -2.0), 21),
    ("quotes", "zero_size", lambda v: put(v, "bid_size", 22, 0.0), 22),
    ("quotes", "backward_time", lambda v: put(v, "ts_init", 23, START), 23),
    ("quotes", "backward_event", lambda v: put(v, "ts_event", 31, START), 31),
    ("quotes", "duplicate_time", lambda v: put(v, "ts_init", 24, v.ts_init[23]), 24),
    ("quotes", "duplicate_row", lambda v: repeated(v, 25), 26),
    ("quotes", "crossed", lambda v: put(v, "bid_price", 27, v.ask_price[27] + 0.1), 27),
    ("quotes", "locked", lambda v: put(v, "bid_price", 28, v.ask_price[28]), 28),
    ("quotes", "off_tick", lambda v: put(v, "bid_price", 29, v.bid_price[29] + 0.03), 29),
    ("quotes", "outlier", lambda v: put(v, "ask_price", 30, 1200.0), 30),
    ("trades", "nan", lambda v: put(v, "size", 5, math.nan), 5),
    ("trades", "zero_price", lambda v: put(v, "price", 6, 0.0), 6),
    ("trades", "outlier", lambda v: put(v, "price", 7, 900.0), 7),
    ("trades", "backward_time", lambda v: swapped(v, 8, 9), 9),
    ("trades", "duplicate_row", lambda v: repeated(v, 10), 11),
    ("depth", "nan", lambda v: put(v, "bid_price", 11, math.nan, 2), 11),
    ("depth", "zero_price", lambda v: put(v, "ask_price", 12, 0.0, 2), 12),
    ("depth", "zero_size", lambda v: put(v, "ask_size", 13, 0.0, 1), 13),
    ("depth", "negative_size", lambda v: put(v, "ask_size", 13, -1.0, 1), 13),
    ("depth", "unsorted_levels", lambda v: put(v, "ask_price", 14, v.ask_price[14, 0], 1), 14),
    ("depth", "hole", lambda v: put(put(v, "bid_price", 15, 0.0, 1), "bid_size", 15, 0.0, 1), 15),
    ("depth", "crossed", lambda v: put(v, "bid_price", 16, v.ask_price[16, 0] + 0.2, 0), 16),
    ("bars", "bar_range", lambda v: put(v, "high", 17, 10.0), 17),
    ("bars", "bar_range", lambda v: put(v, "close", 18, 99.0), 18),
    ("bars", "negative_price", lambda v: put(v, "low", 19, -3.0), 19),
    ("deltas", "zero_price", lambda v: put(v, "price", 20, 0.0), 20),
    ("deltas", "zero_size", lambda v: put(v, "size", 21, 0.0), 21),
    ("deltas", "infinite", lambda v: put(v, "size", 22, math.inf), 22),
]  # fmt: skip


@pytest.mark.parametrize("stream", sorted(MAKERS))
def test_clean_data_has_no_defect(stream: str) -> None:
    report = describe(MarketColumns(**{stream: MAKERS[stream]()}))
    assert report.defects() == []
    assert report.stream(stream).gaps["count"] == 0


@pytest.mark.parametrize(("stream", "rule", "plant", "row"), PLANTED)
def test_a_planted_defect_is_found_in_its_row(tmp_path, stream: str, rule: str, plant, row: int) -> None:
    pytest.importorskip("pyarrow", reason="the planted file is Parquet")
    planted = MarketColumns(**{stream: plant(MAKERS[stream]())}, source="planted")
    path = tmp_path / "planted.parquet"
    write_market(path, planted, {})
    report = describe(read_market(path))
    found = {defect.rule: defect for _, defect in report.defects()}
    assert rule in found, sorted(found)
    assert (found[rule].row, found[rule].count) == (row, 1)
    assert found[rule].fatal == RULES[rule][2]
    # Of the fatal rules no other is broken by this change.
    assert {name for name, defect in found.items() if defect.fatal} <= {rule}
    json.dumps(report.to_dict(), allow_nan=False)


def test_rows_are_counted_not_values() -> None:
    value = quotes()
    for row in (3, 4, 5):
        value = put(value, "bid_price", row, math.nan)
    report = describe(MarketColumns(quotes=value))
    nan = next(defect for _, defect in report.defects() if defect.rule == "nan")
    assert (nan.count, nan.row, nan.column) == (3, 3, "bid_price")
    assert str(nan) == "nan: a price or size is NaN (3 rows; `bid_price` in row 3 was nan)"
    assert report.to_dict()["streams"][0]["defects"][0]["value"] is None


def test_gaps_have_a_stated_threshold() -> None:
    value = quotes()
    times = value.ts_init.copy()
    times[100:] += np.uint64(300 * SECOND)
    times[200:] += np.uint64(40 * SECOND)
    value = replace(value, ts_event=times, ts_init=times)
    default = describe(MarketColumns(quotes=value)).stream("quotes").gaps
    assert (default["threshold_ns"], default["count"]) == (100 * SECOND, 1)
    assert default["longest"] == [[int(times[99]), 301 * SECOND]]
    short = describe(MarketColumns(quotes=value), DescribeOptions(gap_ns=30 * SECOND)).stream("quotes").gaps
    assert (short["count"], short["total_ns"]) == (2, 342 * SECOND)


def test_stale_runs() -> None:
    value = quotes()
    arrays = {name: array.copy() for name, array in vars(value).items()}
    for name in ("bid_price", "ask_price", "bid_size", "ask_size"):
        arrays[name][50:90] = arrays[name][50]
    stale = (
        describe(MarketColumns(quotes=QuoteColumns(**arrays)), DescribeOptions(stale_rows=40)).stream("quotes").stale
    )
    assert stale == {"threshold_rows": 40, "runs": 1, "longest_rows": 40, "longest_start": 50}


def test_trades_outside_the_quote_before_them() -> None:
    made = trades()
    report = describe(MarketColumns(quotes=quotes(), trades=made))
    assert report.between["trades_and_quotes"]["outside"] == 0
    assert report.between["trades_and_quotes"]["against_side"] == 0
    wrong = put(made, "price", 11, 1500.0)
    report = describe(MarketColumns(quotes=quotes(), trades=wrong))
    outside = next(defect for name, defect in report.defects() if defect.rule == "outside_quotes")
    assert (outside.row, outside.count, outside.value) == (11, 1, 1500.0)
    # A quote of the same time shows what the trade left; the one before it counts.
    same = replace(made, ts_init=quotes().ts_init[1:401:2], ts_event=quotes().ts_init[1:401:2])
    assert describe(MarketColumns(quotes=quotes(), trades=same)).between["trades_and_quotes"]["outside"] == 0


def test_depth_against_quotes() -> None:
    book = depth()
    assert describe(MarketColumns(quotes=quotes(300), depth=book)).between["depth_and_quotes"] == {
        "compared": 300, "top_differs": 0.0}  # fmt: skip
    moved = put(book, "bid_price", 9, book.bid_price[9, 0] - 0.05, 0)
    share = describe(MarketColumns(quotes=quotes(300), depth=moved)).between["depth_and_quotes"]["top_differs"]
    assert math.isclose(share, 100 / 300)


# From the table of the data set: moves, accuracy over all rows, before and after a move, reversals, moves upward, rows
# locked or crossed, median spread in ticks.
TABLE = {
    ("cme", "cme_6b_jun23_20230503.depth5.parquet"): (23_303, 63.7, 81.9, 67.6, 66.7, 50.2, 159, 1.0),
    ("us_equity", "us_ibm_20131007.quotes.parquet"): (20_966, 62.3, 71.2, 60.4, 49.9, 48.4, 734, 3.0),
    ("lobster", "lobster_amzn_20120621.l1events.parquet"): (27_557, 58.9, 63.6, 58.0, 54.5, 49.6, 0, 13.0),
    ("sgx", "sgx_cn_20140109.depth3.parquet"): (1_003, 67.1, 79.7, 67.1, 62.6, 46.4, 70, 1.0),
    ("gemini", "gemini_ethusd_20210701.quotes.parquet"): (68_545, 51.3, 51.3, 51.1, 48.4, 49.9, 0, 100.0),
    ("binance", "binance_spot_btcusdt_20240808.quotes.parquet"): (2_672, 72.9, 82.6, 75.2, 16.1, 48.3, 0, 1.0),
}


@pytest.mark.parametrize("parts", sorted(TABLE))
def test_the_figures_of_the_data_set(parts) -> None:
    pytest.importorskip("pyarrow", reason="the data set is Parquet")
    report = describe(read_market(shared_data("tick", *parts)))
    stream = next(s for s in report.streams if "imbalance" in s.statistics)
    found = stream.statistics["imbalance"]
    bad = sum(defect.count for defect in stream.defects if defect.rule in ("crossed", "locked"))
    moves, per_row, before, after, reversal, up, locked, ticks = TABLE[parts]
    assert found["moves"] == moves
    assert bad == locked
    for name, wanted in (("accuracy_per_row", per_row), ("accuracy_before_move", before),
                         ("accuracy_after_move", after), ("reversal", reversal), ("up", up)):  # fmt: skip
        assert round(found[name], 1) == wanted, name
    assert round(stream.statistics["spread"]["ticks"]["p50"], 6) == ticks


def test_imbalance_against_a_loop() -> None:
    book = quotes(300, seed=3)
    found = describe(MarketColumns(quotes=book)).stream("quotes").statistics["imbalance"]
    ticks = np.rint((book.bid_price + book.ask_price) * 10).astype(int)  # mids in half ticks, exact
    signs = np.sign(book.bid_size - book.ask_size).astype(int)
    moves = [(i, int(np.sign(ticks[i + 1] - ticks[i]))) for i in range(299) if ticks[i + 1] != ticks[i]]
    before = [signs[i] == way for i, way in moves if signs[i]]
    after = [signs[moves[k][0] + 1] == moves[k + 1][1] for k in range(len(moves) - 1) if signs[moves[k][0] + 1]]
    every = [signs[i] == next(way for at, way in moves if at >= i) for i in range(moves[-1][0] + 1) if signs[i]]
    assert found["moves"] == len(moves)
    assert math.isclose(found["accuracy_before_move"], 100 * np.mean(before))
    assert math.isclose(found["accuracy_after_move"], 100 * np.mean(after))
    assert math.isclose(found["accuracy_per_row"], 100 * np.mean(every))


@pytest.mark.parametrize("tick", [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 25.0, 1e-5, 1e-8])
def test_the_tick_is_inferred(tick: float) -> None:
    rng = np.random.default_rng(5)
    prices = rng.integers(20_000, 40_000, 5_000) * tick
    assert infer_tick(prices) == pytest.approx(tick, rel=1e-12)
    prices[:4] += 0.3 * tick
    assert infer_tick(prices) == pytest.approx(tick, rel=1e-12), "4 of 5,000 do not count"
    assert infer_tick(np.array([math.nan, 0.0, -1.0])) == 0.0
    assert infer_tick() == 0.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, -0.0, 1.5, math.nan])), max_size=40))
def test_duplicate_rows_against_a_set(rows) -> None:
    ts = np.array([row[0] for row in rows], np.uint64)
    price = np.array([row[1] for row in rows], np.float64)
    one = np.ones(len(rows))
    value = TradeColumns(ts, ts, price, one, one.astype(np.int32))
    seen: set[tuple[int, bytes]] = set()
    wanted = []
    for t, p in zip(ts.tolist(), price, strict=True):
        key = (t, p.tobytes())
        wanted.append(key in seen)
        seen.add(key)
    assert duplicate_rows(value).tolist() == wanted


def test_the_running_median_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    prices = rng.normal(size=60)
    prices[[4, 5, 40]] = math.nan
    wanted = [np.nanmedian(prices[max(0, i - 5) : i + 6]) for i in range(60)]
    assert np.allclose(running_median(prices), wanted)


def test_the_clock_is_estimated_by_the_median_and_set() -> None:
    value = quotes()
    rng = np.random.default_rng(2)
    late = rng.exponential(2e6, len(value)).astype(np.uint64)
    late[::50] += np.uint64(10 * SECOND)  # a few rows are very late
    exchange = value.ts_init + np.uint64(1_500_000_000) - late
    columns = MarketColumns(quotes=value, exchange_times={"quotes": exchange}, source="x")
    found = clock_offset(columns)
    difference = value.ts_init.astype(np.int64) - exchange.astype(np.int64)
    assert found.median_ns == int(np.median(difference))
    assert found.sigma_ns == int(1.4826 * np.median(np.abs(difference - int(np.median(difference)))))
    assert abs(found.median_ns + 1_500_000_000) < 3_000_000
    assert describe(columns).clock == found
    moved = shift_clock(columns, found.median_ns)
    assert (moved.quotes.ts_init.astype(np.int64) - value.ts_init.astype(np.int64) == -found.median_ns).all()
    assert (moved.quotes.ts_event == moved.quotes.ts_init).all()
    assert clock_offset(moved).median_ns == 0
    assert moved.exchange_times["quotes"] is columns.exchange_times["quotes"]
    with pytest.raises(DataConversionError, match="no row has an exchange time"):
        clock_offset(MarketColumns(quotes=value))
    unknown = MarketColumns(quotes=value, exchange_times={"quotes": np.zeros(len(value), np.uint64)})
    assert describe(unknown).clock is None
    with pytest.raises(DataConversionError, match="must leave times from 1970 on, ts_event of quotes would be -"):
        shift_clock(columns, 2 * START)


def test_options_are_checked() -> None:
    for wrong, rule in (
        ({"tick": 0.0}, "`tick` must be finite and > 0, was 0.0"),
        ({"gap_ns": 0}, "`gap` must be >= 1 ns, was 0"),
        ({"outlier_sigmas": math.nan}, "`outlier_sigmas` must be > 0, was nan"),
        ({"stale_rows": 1}, "`stale_rows` must be >= 2, was 1"),
    ):
        with pytest.raises(DataConversionError, match=rule):
            DescribeOptions(**wrong)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_hostile_numbers_never_break_a_description(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hostile = np.array([0.0, -0.0, math.nan, math.inf, -math.inf, 1e-308, 1e308, -1.0, 65_000.01, 1e-12])
    ts = rng.choice(np.array([0, 1, 2**63, 2**64 - 1], np.uint64), rows)

    def numbers(*shape: int):
        return rng.choice(hostile, shape)

    columns = MarketColumns(
        quotes=QuoteColumns(ts, ts, *(numbers(rows) for _ in range(4))),
        trades=TradeColumns(ts, ts, numbers(rows), numbers(rows), rng.integers(-1, 2, rows)),
        depth=DepthColumns(ts, ts, *(numbers(rows, 2) for _ in range(4))),
        bars=BarColumns(ts, ts, *(numbers(rows) for _ in range(5))),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = describe(columns)
        everything = [name for name in REPAIRS if name not in ("drop-backward", "drop-outliers")]
        usable, _ = repair(columns, everything)
    json.dumps(report.to_dict(), allow_nan=False)
    if len(usable):
        require_usable(usable)
