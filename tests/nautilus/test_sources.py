"""Vendor files through NautilusTrader's loaders to columns: the same bits as its attributes give, and nothing lost."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")

import pyarrow as pa
from dbn_files import NO_PRICE, bar_record, book_record, dbn_file, definition_record, trade_record
from nautilus_trader.adapters.databento.loaders import DatabentoDataLoader
from nautilus_trader.model.data import OrderBookDelta, QuoteTick, TradeTick
from nautilus_trader.model.enums import AggressorSide, OrderSide
from nautilus_trader.model.objects import Price
from support import shared_data

import tengri_fast.nautilus  # noqa: F401  (installs the zero-copy layouts)
from tengri_fast.errors import ConfigurationError, DataConversionError, MissingExtraError
from tengri_fast.nautilus.csv_precision import csv_precisions
from tengri_fast.nautilus.sources import KINDS, columns_from_objects, read_definitions, read_source

T = 1_700_000_000_000_000_000
ES = {5: "ESH4"}


def nano(price: float) -> int:
    return round(price * 1_000_000_000)


def same(got: Any, expected: list[Any], dtype: Any = np.float64) -> None:
    assert got.tobytes() == np.array(expected, dtype).tobytes()


# ---- Databento -------------------------------------------------------------------------------------------------------


def test_real_market_by_order_equals_an_attribute_loop() -> None:
    path = shared_data("tick", "databento", "esh4-glbx-mdp3-20231225.mbo.dbn.zst")
    found = read_source("databento", path)
    objects = DatabentoDataLoader().from_dbn_file(path, price_precision=2, include_trades=True)
    changes = [item for item in objects if isinstance(item, OrderBookDelta)]
    trades = [item for item in objects if isinstance(item, TradeTick)]
    assert found.deltas is not None
    assert found.trades is not None
    assert (len(found.deltas), len(found.trades)) == (59_448, 2_973)
    sides = {OrderSide.BUY: 1, OrderSide.SELL: -1, OrderSide.NO_ORDER_SIDE: 0}
    signs = {AggressorSide.BUYER: 1, AggressorSide.SELLER: -1, AggressorSide.NO_AGGRESSOR: 0}
    deltas = found.deltas
    same(deltas.action, [int(item.action) for item in changes], np.uint8)
    same(deltas.side, [sides[item.order.side] for item in changes], np.int8)
    same(deltas.price, [item.order.price.as_double() for item in changes])
    same(deltas.size, [item.order.size.as_double() for item in changes])
    same(deltas.order_id, [item.order.order_id for item in changes], np.uint64)
    same(deltas.flags, [item.flags for item in changes], np.uint8)
    same(deltas.sequence, [item.sequence for item in changes], np.uint64)
    same(deltas.ts_event, [item.ts_event for item in changes], np.uint64)
    same(deltas.ts_init, [item.ts_init for item in changes], np.uint64)
    same(found.trades.price, [item.price.as_double() for item in trades])
    same(found.trades.size, [item.size.as_double() for item in trades])
    same(found.trades.aggressor, [signs[item.aggressor_side] for item in trades], np.int32)
    assert len(np.unique(deltas.price)) > 50
    assert found.source == path.name


@pytest.mark.parametrize("compressed", [True, False])
def test_every_databento_schema(tmp_path: Path, compressed: bool) -> None:
    def read(schema: str, *records: bytes) -> Any:
        path = dbn_file(tmp_path / f"{schema}.dbn", schema, records, ES, T)
        if compressed:
            data = pa.compress(path.read_bytes(), codec="zstd", asbytes=True)
            path = tmp_path / f"{schema}.dbn.zst"
            path.write_bytes(data)
        return read_source("databento", path)

    # Nine decimals survive: no tick of ours is assumed.
    trades = read(
        "trades", trade_record(5, T, nano(4800.25), 3, "A"), trade_record(5, T + 9, 4_800_500_000_001, 1, "B")
    )
    same(trades.trades.price, [4800.25, Price(4800.500000001, 9).as_double()])
    same(trades.trades.aggressor, [-1, 1], np.int32)
    same(trades.trades.ts_event, [T + 1000, T + 1009], np.uint64)

    top = (nano(4800.25), nano(4800.5), 3, 4)
    quotes = read(
        "mbp-1",
        book_record(5, T, [top]),
        book_record(5, T + 1, [(NO_PRICE, nano(4800.5), 0, 4)]),
        book_record(5, T + 2, [top], "T", (nano(4800.5), 2, "B")),
    )
    assert (len(quotes.quotes), len(quotes.trades)) == (2, 1)
    same(quotes.quotes.ask_size, [4, 4])
    assert any(note.startswith("1 records without both") for note in quotes.notes)

    levels = [(nano(4800.25 - i / 4), nano(4800.5 + i / 4), i + 1, i + 2) for i in range(10)]
    thin = [level if i < 4 else (NO_PRICE, NO_PRICE, 0, 0) for i, level in enumerate(levels)]
    depth = read("mbp-10", book_record(5, T, levels), book_record(5, T + 1, thin)).depth
    same(depth.bid_price, [[4800.25 - i / 4 for i in range(10)], [4800.25 - i / 4 if i < 4 else 0 for i in range(10)]])
    same(depth.ask_size, [[i + 2 for i in range(10)], [i + 2 if i < 4 else 0 for i in range(10)]])

    bars = read("ohlcv-1m", bar_record(5, T, (nano(1), nano(3.000000001), nano(0.5), nano(2)), 77))
    same(bars.bars.high, [Price(3.000000001, 9).as_double()])
    same(bars.bars.ts_event, [T + 60_000_000_000], np.uint64)
    assert "Bars are ESH4.GLBX-1-MINUTE-LAST-EXTERNAL." in bars.notes


def test_several_instruments_must_be_named(tmp_path: Path) -> None:
    records = [trade_record(5, T, nano(4800), 1, "A"), trade_record(6, T + 1, nano(17000), 2, "B")]
    path = dbn_file(tmp_path / "two.dbn", "trades", records, {5: "ESH4", 6: "NQH4"}, T)
    with pytest.raises(DataConversionError, match=r"one of the 2 instruments of the source \(ESH4.GLBX, NQH4.GLBX\)"):
        read_source("databento", path)
    found = read_source("databento", path, instrument_id="NQH4.GLBX")
    assert found.trades is not None
    same(found.trades.price, [17000.0])
    assert "1 events of 1 other instruments are left out." in found.notes
    one = dbn_file(tmp_path / "one.dbn", "trades", records[:1], ES, T)
    renamed = read_source("databento", one, instrument_id="ESH4.XCME")
    assert "ESH4.GLBX of the source is taken as ESH4.XCME." in renamed.notes


def test_definitions_give_facts_and_check_the_tick(tmp_path: Path) -> None:
    definitions = dbn_file(
        tmp_path / "d.dbn", "definition", [definition_record(5, T, "ESH4", "ES", nano(0.25), nano(50))], ES, T
    )
    made = read_definitions(definitions)
    assert [(item.id.symbol.value, float(item.price_increment), float(item.multiplier)) for item in made] == [
        ("ESH4", 0.25, 50.0)
    ]
    records = [trade_record(5, T, nano(4800.25), 1, "A"), trade_record(5, T + 1, nano(4800.3), 2, "B")]
    path = dbn_file(tmp_path / "t.dbn", "trades", records, ES, T)
    notes = read_source("databento", path, definitions=definitions).notes
    assert any("tick 0.25, multiplier 50, USD" in note for note in notes), notes
    assert "1 prices do not lie on the defined tick." in notes
    with pytest.raises(DataConversionError, match="holds definitions"):
        read_source("databento", definitions)
    with pytest.raises(DataConversionError, match="must have the schema definition"):
        read_definitions(path)


# ---- Tardis ----------------------------------------------------------------------------------------------------------

HEAD = "exchange,symbol,timestamp,local_timestamp,"
ROW = "binance-futures,BTCUSDT,{0}00000,{0}00100,"


def tardis_file(folder: Path, header: str, *rows: str, name: str = "file.csv") -> Path:
    text = HEAD + header + "\n" + "".join(ROW.format(15822432000 + i) + row + "\n" for i, row in enumerate(rows))
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["q.csv", "q.csv.gz"])
def test_tardis_quotes_keep_decimals_that_appear_late(tmp_path: Path, name: str) -> None:
    # Left to itself, the loader takes one decimal from the first rows and rounds the last ask to 9600.3.
    rows = ["1,9600,9599.5,2.5"] * 30 + ["1.123,9600.25,9599.5,2.5", ",,9599.5,2.5"]
    path = tardis_file(tmp_path, "ask_amount,ask_price,bid_price,bid_amount", *rows, name=name)
    found = read_source("tardis", path).quotes
    assert found is not None
    same(found.ask_price, [9600.0] * 30 + [9600.25, np.nan])
    same(found.ask_size, [1.0] * 30 + [1.123, 0.0])
    same(found.bid_price, [9599.5] * 32)
    same(found.ts_event[:2], [1_582_243_200_000_000_000, 1_582_243_200_100_000_000], np.uint64)
    same(found.ts_init[:1], [1_582_243_200_000_100_000], np.uint64)


def test_tardis_trades_book_and_snapshots(tmp_path: Path) -> None:
    trades = read_source(
        "tardis",
        tardis_file(tmp_path, "id,side,price,amount", "1,buy,9600.5,0.001", "2,sell,9600.25,10", "3,unknown,9600,5e-1"),
    ).trades
    assert trades is not None
    same(trades.price, [9600.5, 9600.25, 9600.0])
    same(trades.size, [0.001, 10.0, 0.5])
    same(trades.aggressor, [1, -1, 0], np.int32)

    book = read_source(
        "tardis",
        tardis_file(
            tmp_path, "is_snapshot,side,price,amount", "true,bid,9600.5,100", "false,bid,9600.5,0", "false,ask,9601,20"
        ),
    ).deltas
    assert book is not None
    same(book.action, [4, 1, 3, 2], np.uint8)  # a snapshot begins with a clear
    same(book.side, [0, 1, 1, -1], np.int8)
    same(book.price[1:], [9600.5, 9600.5, 9601.0])

    for levels in (5, 25):
        header = ",".join(f"asks[{i}].price,asks[{i}].amount,bids[{i}].price,bids[{i}].amount" for i in range(levels))
        full = ",".join(f"{9600 + i / 2},{i + 1},{9599.5 - i / 2},{i + 2}" for i in range(levels))
        thin = ",".join(f"{9600 + i / 2},{i + 1},{9599.5 - i / 2},{i + 2}" if i < 3 else ",,," for i in range(levels))
        found = read_source("tardis", tardis_file(tmp_path, header, full, thin))
        depth = found.depth
        assert depth is not None
        kept = min(levels, 10)
        same(depth.ask_price[0], [9600 + i / 2 for i in range(kept)])
        same(depth.bid_size[1], [i + 2 if i < 3 else 0 for i in range(kept)])
        assert any("Levels 11 to 25" in note for note in found.notes) == (levels == 25)


def test_a_tardis_precision_that_would_round_is_refused(tmp_path: Path) -> None:
    path = tardis_file(tmp_path, "id,side,price,amount", "1,buy,9600.25,0.001")
    with pytest.raises(DataConversionError, match="`price_precision` must be at least 2, the decimals of file"):
        read_source("tardis", path, price_precision=1)
    with pytest.raises(DataConversionError, match="`size_precision` must be at least 3"):
        read_source("tardis", path, size_precision=0)


def test_decimals_are_counted_from_the_text(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_text("a,b,c\n1,1e-7,\n2.50,3,-0.001\n1E2,0.1,\n")
    assert csv_precisions(path, {"a": ["a"], "b": ["b"], "c": ["c"], "all": ["a", "b", "c"]}) == {
        "a": 2, "b": 7, "c": 3, "all": 7,
    }  # fmt: skip
    path.write_text("a\n1\nx\n")
    with pytest.raises(DataConversionError, match="must hold numbers, held 'x'"):
        csv_precisions(path, {"a": ["a"]})


# ---- Binance depth, Polymarket ---------------------------------------------------------------------------------------


def test_binance_depth(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT_T_DEPTH.csv"
    path.write_text(
        "symbol,timestamp,first_update_id,last_update_id,side,update_type,price,qty,pu\n"
        "BTCUSDT,1667260799999,2151,2151,a,snap,20496.8,1.25,-1\n"
        "BTCUSDT,1667260799999,2151,2151,b,snap,20496.7,0.001,-1\n"
        "BTCUSDT,1667260800123,2152,2155,b,set,20496.7,0,2151\n"
        "BTCUSDT,1667260800123,2152,2155,b,set,20496.6,3,2151\n"
    )
    found = read_source("binance_depth", path, contract="binance_usdm_btcusdt").deltas
    assert found is not None
    same(found.action, [4, 1, 1, 3, 2], np.uint8)
    same(found.price[1:], [20496.8, 20496.7, 20496.7, 20496.6])
    same(found.sequence, [2151, 2151, 2151, 2155, 2155], np.uint64)
    same(found.ts_init[-1:], [1_667_260_800_123_000_000], np.uint64)
    with pytest.raises(ConfigurationError, match="`contract` must be given"):
        read_source("binance_depth", path)
    with pytest.raises(DataConversionError, match="at most 0 decimals"):
        read_source("binance_depth", path, contract="shfe_rb2510")


def test_polymarket_trades(tmp_path: Path) -> None:
    row = {"asset": "11", "conditionId": "0xab", "side": "BUY", "price": 0.55, "size": 10.5, "transactionHash": "0x1"}
    rows = [{**row, "timestamp": 1_700_000_002, "side": "SELL"}, {**row, "timestamp": 1_700_000_001}]
    path = tmp_path / "trades.json"
    path.write_text(json.dumps(rows))
    try:
        import py_clob_client_v2  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"pip install 'tengri_fast\[polymarket\]'"):
            read_source("polymarket", path)
        return
    found = read_source("polymarket", path).trades
    assert found is not None
    same(found.price, [0.55, 0.55])
    same(found.aggressor, [1, -1], np.int32)
    same(found.ts_event, [1_700_000_001_000_000_000, 1_700_000_002_000_000_000], np.uint64)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataConversionError, match="`kind` must be one of databento, tardis"):
        read_source("csv", tmp_path / "x")
    with pytest.raises(DataConversionError, match="must be a file"):
        read_source("tardis", tmp_path / "x")
    bad = tmp_path / "bad"
    for content in (b"", b"DBN", b"\x28\xb5\x2f\xfdrubbish", b"a,b\n1,2\n", bytes(64), b"\xff\xfe"):
        bad.write_bytes(content)
        for kind in set(KINDS) - {"polymarket"}:
            options = {"contract": "binance_usdm_btcusdt"} if kind == "binance_depth" else {}
            with pytest.raises(DataConversionError):
                read_source(kind, bad, **options)
    with pytest.raises(ConfigurationError, match="`price` is not an option of the kind 'tardis'"):
        read_source("tardis", bad, price=1)
    with pytest.raises(DataConversionError, match="held int"):
        columns_from_objects([1])


def test_objects_of_mixed_types_keep_their_order() -> None:
    from neural_scene import market

    objects = market(200)
    found = columns_from_objects(objects)
    quotes = [item for item in objects if isinstance(item, QuoteTick)]
    assert found.quotes is not None
    same(found.quotes.bid_price, [item.bid_price.as_double() for item in quotes])
    same(found.quotes.ts_init, [item.ts_init for item in quotes], np.uint64)
    assert len(found) == len(objects)
