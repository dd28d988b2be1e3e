"""Into a ParquetDataCatalog and out again: the same bits, nothing written over, nothing half written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")

from nautilus_trader.model.data import OrderBookDeltas
from nautilus_trader.persistence.catalog import ParquetDataCatalog
from support import sample_data, shared_data

import tengri_fast.nautilus  # noqa: F401  (installs the zero-copy layouts)
from tengri_fast.errors import DataConversionError
from tengri_fast.market import (
    BarColumns,
    DeltaColumns,
    DepthColumns,
    QuoteColumns,
    TradeColumns,
    read_quotes,
    read_trades,
)
from tengri_fast.market.columns import MarketColumns
from tengri_fast.market.contracts import contract
from tengri_fast.nautilus import catalog as module
from tengri_fast.nautilus.catalog import bar_type_of, read_catalog, write_catalog
from tengri_fast.nautilus.loaders import (
    MarketData,
    bars_to_objects,
    delta_batches,
    deltas_to_objects,
    instrument_from_contract,
)
from tengri_fast.nautilus.sources import columns_from_objects, read_source

NAME = "binance_usdm_btcusdt"
BTC = instrument_from_contract(contract(NAME))
MINUTE = 60_000_000_000
T = 1_700_000_000_000_000_000 - 1_700_000_000_000_000_000 % MINUTE


def times(*offsets: int) -> Any:
    return np.array([T + offset for offset in offsets], np.uint64)


def every_stream() -> MarketColumns:
    at = times(1, 2, 2, 5)
    grid = np.array([[100.1, 100.0], [100.2, 0.0], [100.3, 100.1], [100.4, 100.2]])
    sizes = np.array([[1.0, 2.0], [1.5, 0.0], [0.001, 3.0], [2.0, 1.0]])
    bars = times(MINUTE, 2 * MINUTE, 4 * MINUTE)
    number = np.array([100.0, 101.0, 102.0])
    return MarketColumns(
        quotes=QuoteColumns(at, at + np.uint64(3), grid[:, 0], grid[:, 0] + 0.5, sizes[:, 0], sizes[:, 0]),
        trades=TradeColumns(at, at, grid[:, 0], sizes[:, 0], np.array([1, -1, 0, 1])),
        depth=DepthColumns(at, at, grid, np.where(grid > 0, grid + 1.0, 0.0), sizes, sizes),
        deltas=DeltaColumns(
            np.array([4, 1, 2, 3], np.uint8),
            np.array([0, 1, -1, -1], np.int8),
            np.array([0.0, 100.1, 100.2, 100.2]),
            np.array([0.0, 1.0, 2.0, 0.0]),
            np.array([0, 7, 8, 8], np.uint64),
            np.array([32, 32, 128, 128], np.uint8),
            np.array([1, 2, 3, 4], np.uint64),
            at,
            at,
        ),
        bars=BarColumns(bars, bars, number, number + 1.5, number - 1.5, number + 0.5, number / 1000.0),
    )


def assert_same(got: MarketColumns, expected: MarketColumns) -> None:
    assert list(got.streams()) == list(expected.streams())
    for name, columns in expected.streams().items():
        for field, values in vars(columns).items():
            assert getattr(getattr(got, name), field).tobytes() == values.tobytes(), f"{name}.{field}"


def through(columns: MarketColumns) -> MarketColumns:
    """The same numbers as NautilusTrader's fixed point gives them back."""
    data = MarketData(
        BTC, columns.quotes, columns.trades, columns.depth, columns.bars, columns.deltas,
        bar_type=f"{BTC.id}-1-MINUTE-LAST-EXTERNAL",
    )  # fmt: skip
    return columns_from_objects(data.objects())


@pytest.mark.parametrize("rows", [1, 2, 1_000])
def test_every_stream_comes_back_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(module, "_ROWS_PER_FILE", rows)
    folder = tmp_path / "catalog"
    columns = through(every_stream())
    write_catalog(folder, columns, NAME)
    assert_same(read_catalog(folder), columns)
    assert_same(read_source("catalog", folder, instrument_id=BTC.id.value), columns)
    catalog = ParquetDataCatalog(str(folder))
    assert [item.id for item in catalog.instruments()] == [BTC.id]
    assert str(catalog.bars()[0].bar_type) == f"{BTC.id}-1-MINUTE-LAST-EXTERNAL"
    assert sorted(place.name for place in tmp_path.iterdir()) == ["catalog"]  # no staging folder is left


def test_real_quotes_and_trades(tmp_path: Path) -> None:
    quotes = read_quotes(sample_data("binance_usdm_btcusdt_20240719.quotes.parquet"))[:20_000]
    trades = read_trades(sample_data("binance_usdm_btcusdt_20240719.trades.parquet"))[:3_000]
    columns = MarketColumns(quotes=quotes, trades=trades)
    write_catalog(tmp_path / "c", columns, contract(NAME))
    assert_same(read_catalog(tmp_path / "c"), columns)
    middle = int(quotes.ts_init[10_000])
    part = read_catalog(tmp_path / "c", start=middle).quotes
    assert part is not None
    assert len(part) == int((quotes.ts_init >= middle).sum())


def test_real_market_by_order_through_objects_and_catalog(tmp_path: Path) -> None:
    path = shared_data("tick", "databento", "esh4-glbx-mdp3-20231225.mbo.dbn.zst")
    deltas = read_source("databento", path).deltas
    assert deltas is not None
    deltas = deltas[:12_000]
    es = instrument_from_contract(contract("cme_es"))
    objects = deltas_to_objects(deltas, es)
    back = columns_from_objects(objects).deltas
    assert_same(MarketColumns(deltas=back), MarketColumns(deltas=deltas))
    batches = MarketData(es, deltas=deltas).objects()
    assert all(isinstance(item, OrderBookDeltas) for item in batches)
    assert sum(len(item.deltas) for item in batches) == len(deltas)
    assert len(batches) == len(delta_batches(deltas)) > 1_000
    write_catalog(tmp_path / "es", MarketColumns(deltas=deltas), "cme_es")
    assert_same(read_catalog(tmp_path / "es"), MarketColumns(deltas=deltas))


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    columns = through(every_stream())
    write_catalog(folder, columns, NAME)
    before = {place: place.read_bytes() for place in folder.rglob("*.parquet")}
    with pytest.raises(DataConversionError, match=r"must not hold quotes of BTCUSDT-PERP\.BINANCE of the same time"):
        write_catalog(folder, columns, NAME)
    assert {place: place.read_bytes() for place in folder.rglob("*.parquet")} == before
    assert columns.trades is not None
    later = TradeColumns(*(getattr(columns.trades, name) + (MINUTE if name.startswith("ts_") else 0)
                           for name in ("ts_event", "ts_init", "price", "size", "aggressor")))  # fmt: skip
    write_catalog(folder, MarketColumns(trades=later), NAME)
    found = read_catalog(folder).trades
    assert found is not None
    assert len(found) == 8


def test_a_value_that_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    at = times(1, 2)
    price = np.array([100.1, 100.123])
    columns = MarketColumns(
        quotes=QuoteColumns(at, at, price, price, price, price), trades=TradeColumns(at, at, price, price, [1, 1])
    )
    with pytest.raises(DataConversionError, match=r"`quotes.bid_price` must have at most 1 decimals"):
        write_catalog(tmp_path / "c", columns, NAME)
    assert list(tmp_path.iterdir()) == []


def test_several_instruments_and_wrong_names(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    columns = MarketColumns(trades=every_stream().trades)
    write_catalog(folder, columns, NAME)
    write_catalog(folder, columns, "binance_usdm_ethusdt")
    with pytest.raises(DataConversionError, match=r"has BTCUSDT-PERP.BINANCE, ETHUSDT-PERP.BINANCE, was None"):
        read_catalog(folder)
    assert len(read_catalog(folder, "ETHUSDT-PERP.BINANCE")) == 4
    with pytest.raises(DataConversionError, match="has no folder `data`"):
        read_catalog(tmp_path)
    with pytest.raises(DataConversionError, match="`bar_type` must be one of none"):
        read_catalog(folder, "BTCUSDT-PERP.BINANCE", bar_type="x")


@pytest.mark.parametrize(
    ("step", "expected"),
    [(10**9, "1-SECOND"), (5 * MINUTE, "5-MINUTE"), (60 * MINUTE, "1-HOUR"), (1440 * MINUTE, "1-DAY")],
)
def test_bar_types_from_times(step: int, expected: str) -> None:
    assert bar_type_of(times(0, step, 4 * step), "A.B") == f"A.B-{expected}-LAST-EXTERNAL"


def test_bars_whose_step_is_unknown() -> None:
    for at in (times(0), times(0, 7 * 10**8), times(0, 7 * MINUTE)):
        with pytest.raises(DataConversionError, match="`bar_type` must be given"):
            bar_type_of(at, "A.B")


def test_bars_and_changes_that_are_not_possible() -> None:
    columns = every_stream()
    assert columns.bars is not None
    assert columns.deltas is not None
    kind = f"{BTC.id}-1-MINUTE-LAST-EXTERNAL"
    bars = columns.bars
    wrong = BarColumns(bars.ts_event, bars.ts_init, bars.open, bars.low, bars.low, bars.close, bars.volume)
    with pytest.raises(DataConversionError, match="must have low <= open, close <= high, row 0"):
        bars_to_objects(wrong, BTC, kind)
    with pytest.raises(DataConversionError, match=r"`bar_type` must be one of BTCUSDT-PERP\.BINANCE"):
        bars_to_objects(bars, BTC, "ETHUSDT-PERP.BINANCE-1-MINUTE-LAST-EXTERNAL")
    d = columns.deltas
    for field, value, message in (
        ("action", np.array([4, 1, 2, 9], np.uint8), "`deltas.action` must be one of 1, 2, 3, 4, row 3 was 9"),
        ("side", np.array([0, 5, 1, 1], np.int8), "`deltas.side` must be one of -1, 0, 1, row 1 was 5"),
        ("size", np.array([0.0, 0.0, 2.0, 0.0]), "must be > 0, row 1 was 0.0"),
        ("price", np.array([0.0, np.nan, 2.0, 0.0]), "`deltas.price` must be finite, row 1"),
    ):
        with pytest.raises(DataConversionError, match=message):
            deltas_to_objects(DeltaColumns(**{**vars(d), field: value}), BTC)


def test_order_at_equal_times() -> None:
    columns = every_stream()
    at = times(1)
    streams: dict[str, Any] = {}
    for name, value in columns.streams().items():
        first = value[1:2]
        streams[name] = type(first)(**{**vars(first), "ts_event": at, "ts_init": at})
    data = MarketData(BTC, **streams, bar_type=f"{BTC.id}-1-MINUTE-LAST-EXTERNAL")
    order = [type(item).__name__ for item in data.objects()]
    assert order == ["TradeTick", "QuoteTick", "OrderBookDepth10", "OrderBookDeltas", "Bar"]
    with pytest.raises(DataConversionError, match="`bar_type` must be given"):
        MarketData(BTC, bars=columns.bars)
