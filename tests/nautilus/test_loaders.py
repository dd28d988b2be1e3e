"""Columns to NautilusTrader objects: exact, ordered, and refused when they cannot be exact."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")

from hypothesis import given, settings
from hypothesis import strategies as st
from nautilus_trader.model.data import OrderBookDepth10, QuoteTick, TradeTick
from nautilus_trader.model.enums import AggressorSide
from nautilus_trader.model.objects import Price, Quantity
from support import sample_data, shared_data

import tengri_fast.nautilus  # noqa: F401  (installs the zero-copy layouts)
from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.market import (
    DepthColumns,
    QuoteColumns,
    TradeColumns,
    depth_from_objects,
    quotes_from_objects,
    read_depth,
    read_quotes,
    read_trades,
    trades_from_objects,
)
from tengri_fast.market.contracts import contract, contract_names
from tengri_fast.nautilus.loaders import (
    MarketData,
    depth_to_objects,
    instrument_from_contract,
    quotes_to_objects,
    trades_to_objects,
)

BTC = instrument_from_contract(contract("binance_usdm_btcusdt"))
RB = instrument_from_contract(contract("shfe_rb2510"))
NS = 1_700_000_000_000_000_000


def quote_columns(bids: list[float], asks: list[float], sizes: list[float], times: list[int]) -> QuoteColumns:
    ts = np.array(times, np.uint64)
    return QuoteColumns(ts, ts, np.array(bids), np.array(asks), np.array(sizes), np.array(sizes))


def trade_columns(
    prices: list[float], times: list[int], sizes: list[float] | None = None, side: int = 1
) -> TradeColumns:
    ts = np.array(times, np.uint64)
    n = len(times)
    return TradeColumns(ts, ts, np.array(prices), np.array(sizes or [0.5] * n), np.full(n, side, np.int32))


# -- instruments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", contract_names())
def test_every_contract_becomes_an_instrument(name: str) -> None:
    row = contract(name)
    made = instrument_from_contract(row)
    assert made.id.value == row.instrument_id
    assert float(made.price_increment) == row.tick
    assert made.price_precision == row.price_precision
    assert made.size_precision == row.size_precision
    assert float(made.size_increment) == row.size_step
    assert float(made.multiplier) == row.multiplier
    assert made.quote_currency.code == row.currency
    assert made.get_settlement_currency().code == row.settlement_currency
    assert made.taker_fee == Decimal(repr(row.taker_bps)) / 10_000
    assert made.maker_fee == Decimal(repr(row.maker_bps)) / 10_000
    # A position is worth what the contract says, and so is one step of the price (in whole cents: so many units).
    many = made.make_qty(1_000_000)
    up = made.notional_value(many, made.make_price(100 + row.tick)).as_double()
    down = made.notional_value(many, made.make_price(100)).as_double()
    assert down == pytest.approx(row.notional(1e6, 100.0), rel=1e-9)
    # An inverse contract is worth less of the coin when its price has risen: that much is the profit of who holds it.
    sign = -1 if row.inverse else 1
    assert sign * (up - down) == pytest.approx(row.profit(1e6, 100.0, 100.0 + row.tick), rel=1e-6)


def test_another_name_and_a_kind_nobody_knows() -> None:
    import msgspec

    row = contract("shfe_rb2510")
    assert instrument_from_contract(row, "rb2601.SHFE").id.value == "rb2601.SHFE"
    with pytest.raises(ConfigurationError, match=r"`kind` of rb2510\.SHFE must be one of .*, was 'bond'"):
        instrument_from_contract(msgspec.structs.replace(row, kind="bond"))
    with pytest.raises(ConfigurationError, match=r"`size_precision` of .* must be 0"):
        instrument_from_contract(msgspec.structs.replace(row, size_precision=2, size_step=0.01))


# -- exactness --------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(1, 10_000_000), st.integers(0, 10_000_000), st.integers(0, 10**9)),
        min_size=1,
        max_size=30,
    )
)
@settings(max_examples=60, deadline=None)
def test_quotes_carry_the_decimals_of_the_columns(rows: list[tuple[int, int, int]]) -> None:
    bids = [a / 10 for a, _, _ in rows]
    asks = [(a + b) / 10 for a, b, _ in rows]
    sizes = [c / 1_000 for _, _, c in rows]
    made = quotes_to_objects(quote_columns(bids, asks, sizes, [NS + i for i in range(len(rows))]), BTC)
    for tick, (a, b, c) in zip(made, rows, strict=True):
        assert tick.bid_price == Price.from_str(f"{Decimal(a) / 10:.1f}")
        assert tick.ask_price == Price.from_str(f"{Decimal(a + b) / 10:.1f}")
        assert tick.bid_size == tick.ask_size == Quantity.from_str(f"{Decimal(c) / 1000:.3f}")


def test_real_quotes_and_trades_there_and_back() -> None:
    quotes = read_quotes(sample_data("binance_usdm_btcusdt_20230404.quotes.parquet"))
    trades = read_trades(sample_data("binance_usdm_btcusdt_20230404.trades.parquet"))
    made = quotes_to_objects(quotes, BTC)
    back = quotes_from_objects(made)
    assert np.array_equal(back.ts_init, quotes.ts_init)
    for name in ("bid_price", "ask_price", "bid_size", "ask_size"):
        ours = getattr(back, name)
        # What the reader sees is Nautilus' own double, at most one unit in the last place from the file's.
        assert np.array_equal(ours, [getattr(tick, name).as_double() for tick in made])
        assert np.abs(ours - getattr(quotes, name)).max() <= np.spacing(np.abs(ours)).max()
        assert np.array_equal(np.round(ours, 3), np.round(getattr(quotes, name), 3))
    ticks = trades_to_objects(trades, BTC)
    seen = trades_from_objects(ticks)
    assert np.array_equal(seen.aggressor, trades.aggressor)
    assert np.array_equal(np.round(seen.price, 1), np.round(trades.price, 1))
    assert set(np.unique(trades.aggressor)) == {-1, 1}
    assert {tick.aggressor_side for tick in ticks} == {AggressorSide.BUYER, AggressorSide.SELLER}
    assert len({tick.trade_id for tick in ticks}) == len(ticks)


def test_depth_there_and_back() -> None:
    depth = read_depth(shared_data("tick", "shfe_rb", "shfe_rb2510_20250609.depth5.parquet"))[:3_000]
    made = depth_to_objects(depth, RB)
    back = depth_from_objects(made)
    assert back.bid_price.shape[1] == 5
    for name in ("bid_price", "ask_price", "bid_size", "ask_size"):
        # Levels beyond a missing one are left out; whole books are the same.
        whole = (depth.bid_size > 0).all(axis=1) & (depth.ask_size > 0).all(axis=1)
        assert whole.mean() > 0.9
        assert np.array_equal(getattr(back, name)[whole], getattr(depth, name)[whole])


def test_missing_levels_are_left_out() -> None:
    ts = np.array([NS], np.uint64)
    depth = DepthColumns(
        ts,
        ts,
        np.array([[3000.0, 2999.0, np.nan]]),
        np.array([[3001.0, 3002.0, 3003.0]]),
        np.array([[5.0, 0.0, 7.0]]),
        np.array([[5.0, 6.0, 7.0]]),
    )
    (made,) = depth_to_objects(depth, RB)
    assert [float(order.size) for order in made.bids if order.size > 0] == [5.0]
    assert [float(order.price) for order in made.asks if order.size > 0] == [3001.0, 3002.0, 3003.0]
    assert made.to_quote_tick().bid_price == Price.from_str("3000")


# -- order ------------------------------------------------------------------------------------------------------------


def test_trades_come_before_quotes_at_equal_times_in_every_chunking() -> None:
    rng = np.random.default_rng(3)
    quote_times = np.sort(rng.integers(0, 40, 60)).tolist()
    trade_times = np.sort(rng.integers(0, 40, 50)).tolist()
    assert set(quote_times) & set(trade_times)
    quotes = quote_columns([100.0 + i for i in range(60)], [101.0 + i for i in range(60)], [1.0] * 60, quote_times)
    trades = trade_columns([50.0 + i for i in range(50)], trade_times)
    data = MarketData(BTC, quotes=quotes, trades=trades)
    assert len(data) == 110

    def key(item: Any) -> tuple[int, str, str]:
        return item.ts_init, type(item).__name__, str(item)

    whole = [key(item) for item in data.objects()]
    assert [t for t, _, _ in whole] == sorted(quote_times + trade_times)
    for (t, first, _), (u, second, _) in itertools.pairwise(whole):
        assert not (t == u and first == "QuoteTick" and second == "TradeTick")
    for size in (1, 2, 3, 5, 7, 13, 100, 1_000):
        pieces = list(data.chunks(size))
        assert max(map(len, pieces)) <= size
        assert [key(item) for piece in pieces for item in piece] == whole
    assert {QuoteTick, TradeTick} == {type(item) for item in data.objects()}
    assert (data.start_ns, data.end_ns) == (whole[0][0], whole[-1][0])


def test_depth_and_trades_merge() -> None:
    ts = np.array([5, 7], np.uint64)
    book = np.full((2, 5), 1.0)
    prices = 3000.0 - np.arange(5.0) * np.ones((2, 1))
    depth = DepthColumns(ts, ts, prices, prices[:, ::-1] + 5.0, book, book)
    data = MarketData(RB, depth=depth, trades=trade_columns([3000.0, 3001.0], [5, 8], [1.0, 1.0]))
    assert [type(item) for item in data.objects()] == [TradeTick, OrderBookDepth10, OrderBookDepth10, TradeTick]


# -- hostile inputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bids": [100.0, float("nan")]}, r"`quotes.bid_price` must be finite, row 1 was nan"),
        ({"asks": [float("inf"), 101.0]}, r"`quotes.ask_price` must be finite, row 0 was inf"),
        ({"sizes": [1.0, -1.0]}, r"`quotes.bid_size` must be >= 0, row 1 was -1.0"),
        ({"bids": [100.05, 100.0]}, r"`quotes.bid_price` must have at most 1 decimals .*, row 0 was 100.05"),
        ({"sizes": [1.0, 0.0004]}, r"`quotes.bid_size` must have at most 3 decimals"),
        ({"times": [5, 4]}, r"`quotes.ts_init` must not go backwards, row 1 was 4 after 5"),
    ],
)
def test_quotes_that_cannot_be_exact_are_refused(change: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"bids": [100.0, 100.1], "asks": [100.2, 100.3], "sizes": [1.0, 2.0], "times": [4, 5]}
    with pytest.raises(DataConversionError, match=message):
        quotes_to_objects(quote_columns(**(values | change)), BTC)


def test_crossed_locked_and_zero_quotes_pass_as_they_are() -> None:
    made = quotes_to_objects(quote_columns([101.0, 100.0, 0.0], [100.0, 100.0, 0.1], [1.0, 0.0, 1.0], [1, 1, 2]), BTC)
    assert [(float(q.bid_price), float(q.ask_price)) for q in made] == [(101.0, 100.0), (100.0, 100.0), (0.0, 0.1)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (lambda: trade_columns([1.0], [1], [0.0]), r"`trades.size` must be > 0, row 0"),
        (lambda: trade_columns([1.0], [1], side=3), r"`trades.aggressor` must be -1, 0 or \+1, row 0 was 3"),
        (lambda: trade_columns([1.01], [1]), r"`trades.price` must have at most 1 decimals"),
    ],
)
def test_trades_that_cannot_be_exact_are_refused(columns: Any, message: str) -> None:
    with pytest.raises(DataConversionError, match=message):
        trades_to_objects(columns(), BTC)


def test_nothing_and_too_much() -> None:
    with pytest.raises(DataConversionError, match="`quotes`, `trades`, `depth`, `bars` or `deltas` must be given"):
        MarketData(BTC)
    data = MarketData(BTC, trades=trade_columns([1.0], [1]))
    with pytest.raises(DataConversionError, match="`size` must be >= 1, was 0"):
        next(data.chunks(0))
    ts = np.array([1], np.uint64)
    wide = np.ones((1, 11))
    with pytest.raises(DataConversionError):
        depth_to_objects(DepthColumns(ts, ts, wide, wide, wide, wide), RB)
    empty = quote_columns([], [], [], [])
    with pytest.raises(DataConversionError, match="must hold at least one event"):
        MarketData(BTC, quotes=empty)
