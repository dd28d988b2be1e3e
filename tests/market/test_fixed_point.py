"""Decimals from files are the doubles that Nautilus hands out for them, so live and research agree to the bit."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import sample_data

from tengri_fast.market import quotes_from_objects, read_quotes, read_trades, trades_from_objects
from tengri_fast.market.fixed_point import through_fixed_point

objects = pytest.importorskip("nautilus_trader.model.objects", reason="nautilus_trader is not installed")


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 12), st.integers(-(10**12), 10**12))
@example(1, 639599)
def test_equals_as_double(decimals, mantissa):
    text = str(Decimal(mantissa).scaleb(-decimals))
    if abs(float(text)) > 1e9:
        return
    price = objects.Price.from_str(format(Decimal(text), "f"))
    assert through_fixed_point(np.array([float(text)]))[0] == price.as_double()


def test_some_values_do_change():
    x = np.round(63_900 + 0.1 * np.arange(2000), 1)
    assert 0.2 < (through_fixed_point(x) != x).mean() < 0.8
    assert np.abs(through_fixed_point(x) / x - 1).max() < 3e-16


def test_what_is_no_decimal_is_left_alone():
    x = np.array([math.pi * 1e-20, 2.0**70, math.nan, math.inf, -math.inf, 1e300, 5e-324, 0.0, -0.0])
    y = through_fixed_point(x)
    np.testing.assert_array_equal(y, x)
    assert through_fixed_point(np.empty((0, 3))).shape == (0, 3)
    assert through_fixed_point([[0.1, 0.2], [0.3, 0.7]]).flags.c_contiguous


def test_is_idempotent_on_real_prices():
    q = read_quotes(sample_data("binance_usdm_btcusdt_20240718.quotes.parquet"))
    once = through_fixed_point(q.bid_price)
    np.testing.assert_array_equal(once, q.bid_price)


def test_file_columns_equal_the_columns_of_nautilus_ticks():
    from nautilus_trader.test_kit.providers import TestInstrumentProvider

    from tengri_fast.nautilus.loaders import quotes_to_objects, trades_to_objects

    stem = "binance_usdm_btcusdt_20240719"
    quotes = read_quotes(sample_data(f"{stem}.quotes.parquet"))
    trades = read_trades(sample_data(f"{stem}.trades.parquet"))
    instrument = TestInstrumentProvider.btcusdt_perp_binance()
    live_quotes = quotes_from_objects(quotes_to_objects(quotes, instrument))
    live_trades = trades_from_objects(trades_to_objects(trades, instrument))
    for name in ("bid_price", "ask_price", "bid_size", "ask_size", "ts_event", "ts_init"):
        np.testing.assert_array_equal(getattr(live_quotes, name), getattr(quotes, name))
    for name in ("price", "size", "aggressor", "ts_event"):
        np.testing.assert_array_equal(getattr(live_trades, name), getattr(trades, name))
