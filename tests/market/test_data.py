"""Columns, files, merge order and the contract table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import sample_data, shared_data

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.market import (
    DepthColumns,
    QuoteColumns,
    TradeColumns,
    contract,
    contract_names,
    merge_order,
    read_depth,
    read_quotes,
    read_trades,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), max_size=30), min_size=0, max_size=4))
def test_merge_order_is_the_stable_sort(streams) -> None:
    order = merge_order(*streams)
    wanted = sorted(
        ((ts, source, row) for source, stream in enumerate(streams) for row, ts in enumerate(stream)),
        key=lambda entry: entry[0],
    )
    assert list(zip(order.source.tolist(), order.row.tolist(), strict=True)) == [entry[1:] for entry in wanted]


def test_trades_given_first_come_first_at_equal_times() -> None:
    order = merge_order([5, 5, 9], [5, 7, 9])
    assert order.source.tolist() == [0, 0, 1, 1, 0, 1]
    assert order.row.tolist() == [0, 1, 0, 1, 2, 2]
    large = 2**64 - 1
    assert merge_order(np.array([large], np.uint64), [0]).source.tolist() == [1, 0]


def test_columns_are_checked_and_not_copied_when_they_fit() -> None:
    ts, x = np.arange(3, dtype=np.uint64), np.arange(3.0)
    quotes = QuoteColumns(ts, ts, x, x, x, x)
    assert quotes.bid_price is x
    assert len(quotes) == 3
    assert np.shares_memory(quotes[1:].ask_size, x)
    assert len(quotes[1:]) == 2
    for arguments, message in (
        ((ts, ts, x, x[:2], x, x), "`ask_price` of QuoteColumns must have 3 rows, had 2"),
        ((ts, ts, x, x[:, None], x, x), "`ask_price` of QuoteColumns must have 1 dimension(s), had 2"),
        ((x, ts, x, x, x, x), "`ts_event` of QuoteColumns must hold whole numbers"),
        ((np.array([-1, 2, 3]), ts, x, x, x, x), "must hold whole numbers of at least 0"),
        ((ts, ts, np.array(["a", "b", "c"]), x, x, x), "must hold numbers, had type <U1"),
    ):
        with pytest.raises(DataConversionError) as caught:
            QuoteColumns(*arguments)
        assert message in str(caught.value)
    with pytest.raises(DataConversionError, match="`aggressor` of TradeColumns must be at most"):
        TradeColumns(ts, ts, x, x, np.array([1, 2**40, 0]))
    with pytest.raises(DataConversionError, match="`levels` must be from 1 to 10, was 11"):
        DepthColumns(ts, ts, *[np.zeros((3, 11))] * 4)
    with pytest.raises(DataConversionError, match=r"`ask_price` of DepthColumns must have shape \(3, 2\)"):
        DepthColumns(ts, ts, np.zeros((3, 2)), *[np.zeros((3, 1))] * 3)


def test_the_sample_reads() -> None:
    pytest.importorskip("pyarrow", reason="the sample is Parquet")
    quotes = read_quotes(sample_data("binance_usdm_btcusdt_20240719.quotes.parquet"))
    trades = read_trades(sample_data("binance_usdm_btcusdt_20240719.trades.parquet"))
    assert (len(quotes), len(trades)) == (45_147, 9_727)
    assert quotes.ts_event[0] == quotes.ts_init[0] == 1721347201291825027
    assert (quotes.bid_price[0], quotes.ask_price[0], quotes.bid_size[0], quotes.ask_size[0]) == (
        63959.9, 63960.0, 20.327, 4.952)  # fmt: skip
    assert set(trades.aggressor.tolist()) == {-1, 1}
    assert (trades.price[0], trades.size[0], trades.aggressor[0]) == (63960.0, 0.31, 1)


def write(tmp_path, kind: str, columns: dict):
    if kind == "csv":
        path = tmp_path / "file.csv"
        rows = zip(*(np.asarray(v).tolist() for v in columns.values()), strict=True)
        path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
    else:
        arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
        import pyarrow.parquet

        path = tmp_path / "file.parquet"
        pyarrow.parquet.write_table(arrow.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_csv_and_parquet_give_the_same_columns(tmp_path, kind: str) -> None:
    ts = np.array([1680652700423575001, 1680652700423575003, 1680652700423575002], np.int64)  # beyond 2**53
    x = np.array([0.1, math.nan, 1e-7])
    columns = {"ts_ns": ts, **{f"{s}_{k}": x + k for k in range(3) for s in ("bid_price", "ask_price", "bid_size")},
               **{f"ask_size_{k}": x for k in range(3)}}  # fmt: skip
    path = write(tmp_path, kind, columns)
    quotes = read_quotes(path)
    assert quotes.ts_event.tolist() == ts.tolist()
    assert np.array_equal(quotes.bid_price, x, equal_nan=True)
    other = read_quotes(path, {"bid_price": "bid_price_2"})
    assert np.array_equal(other.bid_price, x + 2, equal_nan=True)
    depth = read_depth(path)
    assert depth.levels == 3
    assert depth.bid_price[:, 2].tolist() == [2.1, 0.0, 2 + 1e-7], "a missing level is 0"
    assert depth.bid_size[1].tolist() == [0.0, 0.0, 0.0]
    assert read_depth(path, levels=2).levels == 2
    for call, message in (
        (lambda: read_quotes(path, {"bid_prise": "x"}), "did you mean 'bid_price'?"),
        (lambda: read_quotes(path, {"bid_price": "bid_price_9"}), "`bid_price_9` must be a column of"),
        (lambda: read_trades(path), "`price` must be a column of"),
        (lambda: read_depth(path, levels=11), "`levels` must be from 1 to 10, was 11"),
        (lambda: read_depth(path, levels=4), "`bid_price_3` must be a column of"),
    ):
        with pytest.raises(DataConversionError) as caught:
            call()
        assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_aggressors_as_numbers_words_and_letters(tmp_path, kind: str) -> None:
    base = {"ts_ns": [1, 2, 3], "price": [1.0, 2.0, 3.0], "size": [1.0, 1.0, 1.0]}
    for sides in ([1, -1, 0], [1.0, -1.0, 0.0], ["BUY", "SELL", ""], ["Buyer", "Seller", "no_aggressor"]):
        trades = read_trades(write(tmp_path, kind, {**base, "aggressor": sides}))
        assert trades.aggressor.tolist() == [1, -1, 0]
    assert read_trades(write(tmp_path, kind, base)).aggressor.tolist() == [0, 0, 0]
    path = write(tmp_path, kind, {**base, "side": ["O", "B", "O"]})
    with pytest.raises(DataConversionError, match="`aggressor` must be"):
        read_trades(path, {"aggressor": "side"})
    assert read_trades(path, {"aggressor": "side"}, {"O": 1, "B": -1}).aggressor.tolist() == [1, -1, 1]


def test_broken_files_say_what_is_wrong(tmp_path) -> None:
    with pytest.raises(DataConversionError, match="`path` must be a file"):
        read_quotes(tmp_path / "none.parquet")
    text = tmp_path / "text.csv"
    text.write_text("ts_ns,bid_price_0,ask_price_0,bid_size_0,ask_size_0\n1,2,3,4,five\n")
    with pytest.raises(DataConversionError, match="must hold numbers"):
        read_quotes(text)
    text.write_text("ts_ns,bid_price_0,ask_price_0,bid_size_0,ask_size_0\n-1,2,3,4,5\n")
    with pytest.raises(DataConversionError, match="`ts_event` must be >= 0, was -1"):
        read_quotes(text)
    pytest.importorskip("pyarrow", reason="a truncated Parquet file needs pyarrow")
    whole = sample_data("binance_usdm_btcusdt_20230404.trades.parquet").read_bytes()
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 5):
        path = tmp_path / f"cut{size}.parquet"
        path.write_bytes(whole[:size])
        with pytest.raises(DataConversionError, match="`path` must be"):
            read_trades(path)


def test_the_larger_set_reads() -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    depth = read_depth(shared_data("tick", "shfe_rb", "shfe_rb2510_20250605.depth5.parquet"))
    assert depth.bid_price.shape == (41_201, 5)
    assert (np.diff(depth.ask_price[0]) == 1.0).all()
    trades = read_trades(shared_data("tick", "cme", "cme_6b_jun23_20230503.trades.parquet"), {"aggressor": "side"},
                         {"O": 1, "B": -1, "N": 0})  # fmt: skip
    assert len(trades) == 25_599
    assert {-1, 1} <= set(trades.aggressor.tolist())


def test_contract_table() -> None:
    assert {"binance_usdm_btcusdt", "shfe_rb2510", "cme_6b", "us_equity_aig", "us_equity_ibm",
            "us_equity_bac"} <= set(contract_names())  # fmt: skip
    for name in contract_names():
        row = contract(name)
        assert row.source
        assert row.currency
        assert row.tick > 0
        assert row.multiplier > 0
        assert math.isclose(round(row.tick, row.price_precision), row.tick)
        assert math.isclose(round(row.size_step, row.size_precision), row.size_step)
        assert row.taker_bps >= row.maker_bps >= 0
        assert row.taker_bps + row.fee_per_contract > 0
        assert "." in row.instrument_id
    btc = contract("binance_usdm_btcusdt")
    assert (btc.tick, btc.maker_bps, btc.taker_bps, btc.currency) == (0.1, 2.0, 5.0, "USDT")
    assert btc.fee(-0.5, 60_000.0) == 15.0
    assert btc.fee(0.5, 60_000.0, maker=True) == 6.0
    rebar = contract("shfe_rb2510")
    assert (rebar.tick, rebar.multiplier, rebar.currency) == (1.0, 10.0, "CNY")
    assert contract("cme_6b").multiplier * contract("cme_6b").tick == 6.25
    with pytest.raises(ConfigurationError, match=r"was 'shfe_rb'; did you mean 'shfe_rb2510'"):
        contract("shfe_rb")
