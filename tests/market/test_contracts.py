"""The contract table: every instrument of the data sets, and profit and fees of each kind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support import shared_data

from tengri_fast.market import contract, contract_names, describe, read_market
from tengri_fast.market.quality import off_tick

FILES = {
    "binance_usdm_ethusdt": ("tick", "binance", "binance_usdm_ethusdt_20240718.quotes.parquet"),
    "binance_spot_btcusdt": ("tick", "binance", "binance_spot_btcusdt_20240808.quotes.parquet"),
    "binance_spot_ethusdt": ("tick", "binance", "binance_spot_ethusdt_20240808.quotes.parquet"),
    "binance_cm_btcusd": ("tick", "binance", "binance_cm_btcusd_perp_20240808.quotes.parquet"),
    "binance_cm_ethusd": ("tick", "binance", "binance_cm_ethusd_perp_20240808.quotes.parquet"),
    "gemini_ethusd": ("tick", "gemini", "gemini_ethusd_20210701.quotes.parquet"),
    "cme_eth": ("tick", "cme", "cme_ethfut_sep23_20230804.depth5.parquet"),
    "sgx_cn": ("tick", "sgx", "sgx_cn_20140109.depth3.parquet"),
    "fxcm_eurusd": ("tick", "fx", "fxcm_eurusd_20140505.quotes.parquet"),
    "us_equity_amzn": ("tick", "lobster", "lobster_amzn_20120621.l1events.parquet"),
    "ftx_btc_perp": ("stress", "ftx_btcperp_1min_202201.parquet"),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_tick_is_that_of_the_data(name: str) -> None:
    pytest.importorskip("pyarrow", reason="the data set is Parquet")
    columns = read_market(shared_data(*FILES[name]))
    row = contract(name)
    book = next(iter(columns.streams()))
    assert describe(columns).stream(book).tick == row.tick
    value = columns.streams()[book]
    sizes = value.volume if book == "bars" else value.bid_size
    if book != "bars":
        assert not off_tick(sizes, row.size_step).any()
        assert not off_tick(value.bid_price, row.tick).any()


def test_every_instrument_of_the_data_sets_has_a_row() -> None:
    assert {*FILES, "cme_es", "bitstamp_btcusd", "us_equity_qqq", "us_equity_spy", "binance_usdm_btcusdt"} <= set(
        contract_names()
    )
    names = [contract(name).instrument_id for name in contract_names()]
    assert len(set(names)) == len(names)


def test_inverse_contracts_are_paid_in_the_base_currency() -> None:
    row = contract("binance_cm_btcusd")
    assert row.inverse
    assert (row.currency, row.settlement_currency, row.multiplier) == ("USD", "BTC", 100.0)
    # 500 contracts of 100 USD are 1 BTC at 50,000.
    assert row.notional(500, 50_000.0) == 1.0
    assert math.isclose(row.fee(-500, 50_000.0), 0.0005)
    assert math.isclose(row.profit(500, 50_000.0, 100_000.0), 0.5)
    assert math.isclose(row.profit(-500, 50_000.0, 40_000.0), 0.25)
    dollars = row.profit(500, 50_000.0, 50_100.0) * 50_100.0
    assert math.isclose(dollars, 500 * 100 * (50_100 - 50_000) / 50_000)


def test_linear_contracts() -> None:
    row = contract("cme_es")
    assert row.settlement_currency == "USD"
    assert row.profit(2, 4_800.0, 4_800.25) == 25.0
    assert row.notional(-1, 4_800.0) == 240_000.0
    assert math.isclose(row.fee(2, 4_800.0), 2.76)
    assert not any(contract(name).inverse for name in contract_names() if not name.startswith("binance_cm"))
    assert np.isclose(contract("binance_usdm_ethusdt").profit(-3, 3_000.0, 2_990.0), 30.0)
