"""Readers of files of exchanges and vendors: what they give, what they refuse, and in which words."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import zipfile

import numpy as np
import pytest
from support import sample_data, shared_data

from tengri_fast.errors import DataConversionError
from tengri_fast.market import (
    FORMATS,
    ReadOptions,
    detect_format,
    read_depth,
    read_market,
    read_quotes,
    read_trades,
    with_depth,
)

pytest.importorskip("pyarrow", reason="files of exchanges are read by pyarrow")
import pyarrow
import pyarrow.parquet

HEADERS = {
    "binance-book-ticker": "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,"
                           "event_time",
    "binance-agg-trades": "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker",
    "binance-trades": "id,price,qty,quote_qty,time,is_buyer_maker",
    "binance-klines": "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
                      "taker_buy_quote_volume,ignore",
    "binance-t-depth": "symbol,timestamp,first_update_id,last_update_id,side,update_type,price,qty,pu",
}  # fmt: skip
ROWS = {
    "binance-book-ticker": ["7,63959.90,20.327,63960.00,4.952,1721347202811,1721347202815",
                            "8,63959.80,1.000,63960.00,4.951,1721347202812,1721347202816"],
    "binance-agg-trades": ["1,63960.00,0.310,5,7,1721347202811,false", "2,63959.90,0.002,8,8,1721347202812,true"],
    "binance-trades": ["1,63960.00,0.310,19827.6,1721347202811,false", "2,63959.90,0.002,127.9,1721347202812,true"],
    "binance-klines": ["1721347200000,1.5,2.5,1.0,2.0,10.25,1721347259999,20,3,4,8,0",
                       "1721347260000,2.0,2.0,1.5,1.5,0,1721347319999,0,0,0,0,0"],
    "binance-t-depth": ["BTCUSDT,1721347202811,0,10,b,snap,100.0,2.0,-1",
                        "BTCUSDT,1721347202811,0,10,a,snap,100.1,3.0,-1",
                        "BTCUSDT,1721347202812,11,12,b,set,100.0,0.0,10",
                        "BTCUSDT,1721347202812,11,12,a,set,100.2,1.0,10",
                        "BTCUSDT,1721347202813,14,15,a,set,100.3,1.0,13"],
}  # fmt: skip


def store(path, text: str, how: str):
    if how == "gz":
        path = path.with_name(path.name + ".gz")
        path.write_bytes(gzip.compress(text.encode()))
    elif how == "zip":
        path = path.with_name(path.stem + ".zip")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(path.stem + ".csv", text)
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("how", ["plain", "gz", "zip"])
@pytest.mark.parametrize("kind", sorted(HEADERS))
def test_binance_files_are_told_by_content_in_every_wrapping(tmp_path, kind: str, how: str, header: bool) -> None:
    text = "\n".join([*([HEADERS[kind]] if header else []), *ROWS[kind]]) + "\n"
    path = store(tmp_path / "file.csv", text, how)
    assert detect_format(path) == kind
    found = read_market(path)
    assert found.source == path.name
    if kind == "binance-book-ticker":
        quotes = found.quotes
        assert quotes.ts_event.tolist() == [1721347202811_000_000, 1721347202812_000_000]
        assert quotes.ts_init.tolist() == [1721347202815_000_000, 1721347202816_000_000]
        assert (quotes.bid_price[0], quotes.bid_size[0], quotes.ask_price[0], quotes.ask_size[0]) == (
            63959.9, 20.327, 63960.0, 4.952)  # fmt: skip
    elif kind in ("binance-agg-trades", "binance-trades"):
        trades = found.trades
        assert trades.price.tolist() == [63960.0, 63959.9]
        assert trades.size.tolist() == [0.31, 0.002]
        assert trades.aggressor.tolist() == [1, -1], "the buyer was not the maker, so the buyer took"
        assert trades.ts_event.tolist() == [1721347202811_000_000, 1721347202812_000_000]
    elif kind == "binance-klines":
        bars = found.bars
        assert bars.ts_event.tolist() == [1721347260_000_000_000, 1721347320_000_000_000], "known when it has closed"
        assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0], bars.volume[0]) == (1.5, 2.5, 1.0, 2.0, 10.25)
    else:
        deltas = found.deltas
        assert deltas.action.tolist() == [4, 1, 1, 3, 2, 2], "clear, two of the snapshot, delete, two updates"
        assert deltas.side.tolist() == [0, 1, -1, 1, -1, -1]
        assert deltas.flags.tolist() == [32, 32, 32 | 128, 0, 128, 128]
        assert deltas.sequence.tolist() == [1, 1, 1, 2, 2, 4], "3 is left out where the chain is broken"
        assert any("1 gap(s)" in note for note in found.notes), "13 is missing"


def test_spot_files_have_a_last_column_and_microseconds(tmp_path) -> None:
    path = tmp_path / "BTCUSDT-aggTrades-2025-01-01.csv"
    path.write_text(
        "1,93576.00,0.0002,5,5,1735689600010866,False,True\n2,93575.99,0.1,6,7,1735689600010870,True,True\n"
    )
    assert detect_format(path) == "binance-agg-trades"
    trades = read_market(path).trades
    assert trades.ts_event.tolist() == [1735689600010866_000, 1735689600010870_000]
    assert trades.aggressor.tolist() == [1, -1]
    path.write_text("1,93576.00,0.0002,18.7,1735689600010866,False,True\n")
    assert detect_format(path) == "binance-trades"
    path.write_text("1,93576.00,0.1,5,5,1735689600010866,False,True\n2,93575.99,0.1,6,7,1735689600010,True,True\n")
    with pytest.raises(DataConversionError, match="`transact_time` must have one unit, was in ms in row 1"):
        read_market(path)


def test_t_depth_takes_the_snapshot_beside_the_updates(tmp_path) -> None:
    stem = "BTCUSDT_T_DEPTH_2022-11-01_depth"
    (tmp_path / f"{stem}_snap.csv").write_text("\n".join([HEADERS["binance-t-depth"], *ROWS["binance-t-depth"][:2]]))
    update = tmp_path / f"{stem}_update.csv"
    update.write_text("\n".join([HEADERS["binance-t-depth"], *ROWS["binance-t-depth"][2:]]))
    found = read_market(update)
    assert found.deltas.action.tolist() == [4, 1, 1, 3, 2, 2]
    assert f"Snapshots are from {stem}_snap.csv." in found.notes
    assert with_depth(found, 2).depth.ask_price.tolist() == [[100.1, 0.0], [100.1, 100.2], [100.1, 100.2]]
    whole = with_depth(found, 2, chained=True)
    assert whole.depth.ask_price.tolist() == [[100.1, 0.0], [100.1, 100.2]], "after a gap there is no book"
    assert "1 gap(s): there is no book from there to the next snapshot." in whole.notes
    early = "BTCUSDT,1721347202813,5,9,b,set,90.0,1.0,4"
    update.write_text("\n".join([HEADERS["binance-t-depth"], early, *ROWS["binance-t-depth"][2:4]]))
    found = read_market(update)
    assert found.deltas.price.tolist() == [0.0, 100.0, 100.1, 100.0, 100.2]
    assert "1 change(s) came before any snapshot and were left out." in found.notes
    update.write_text("\n".join([HEADERS["binance-t-depth"], "ETHUSDT,1721347202812,11,12,b,set,1.0,0.0,10"]))
    with pytest.raises(DataConversionError, match="`instrument_id` must be one of BTCUSDT, ETHUSDT, was None"):
        read_market(update)
    assert len(read_market(update, options=ReadOptions(instrument_id="ETHUSDT")).deltas) == 1
    update.write_text("\n".join([HEADERS["binance-t-depth"], "BTCUSDT,1721347202812,11,12,x,set,1.0,0.0,10"]))
    with pytest.raises(DataConversionError, match=r"`side` must be one of b, a, .* row 2 was 'x'"):
        read_market(update)


def capture(lines) -> bytes:
    return gzip.compress("".join(f"{ns} {json.dumps(message)}\n" for ns, message in lines).encode())


def message(kind: str, **values):
    return {"stream": f"x@{kind}", "data": {"e": kind, "s": "BTCUSDT", **values}}


def update(first: int, last: int, before: int, bids, asks, ms: int = 5):
    return message("depthUpdate", E=ms, T=ms, U=first, u=last, pu=before, b=bids, a=asks)


def test_a_capture_follows_the_rules_of_the_feed(tmp_path) -> None:
    path = tmp_path / "raw.gz"
    lines = [
        (1_000_000_000_000_000_001, update(1, 3, 0, [["9.0", "1"]], [])),  # in the snapshot already
        (1_000_000_000_000_000_002, update(4, 6, 3, [["10.0", "0"]], [["10.4", "7"]])),  # came before it, is not in it
        (1_000_000_000_000_000_003, {"lastUpdateId": 4, "E": 4, "T": 4, "bids": [["10.0", "1"], ["9.9", "2"]],
                                     "asks": [["10.2", "3"]]}),
        (1_000_000_000_000_000_004, update(7, 7, 6, [], [])),  # says nothing
        (1_000_000_000_000_000_005, message("bookTicker", u=7, b="9.9", B="2", a="10.2", A="3", T=8, E=9)),
        (1_000_000_000_000_000_006, message("trade", t=1, p="10.2", q="0.5", m=False, T=8, E=9)),
        (1_000_000_000_000_000_007, message("trade", t=2, p="9.9", q="0.25", m=True, T=8, E=9)),
        (1_000_000_000_000_000_008, update(9, 9, 8, [], [["10.2", "0"]])),  # 8 is missing
        (1_000_000_000_000_000_009, message("markPriceUpdate", p="10.0", T=8, E=9)),
    ]  # fmt: skip
    path.write_bytes(capture(lines))
    assert detect_format(path) == "binance-capture"
    found = read_market(path)
    assert found.quotes.bid_price.tolist() == [9.9]
    assert found.exchange_times["quotes"].tolist() == [8_000_000]
    assert found.trades.aggressor.tolist() == [1, -1]
    assert found.deltas.action.tolist() == [4, 1, 1, 1, 3, 2, 3]
    assert found.deltas.ts_init.tolist() == [1_000_000_000_000_000_003] * 6 + [1_000_000_000_000_000_008]
    assert found.deltas.flags.tolist() == [32, 32, 32, 32 | 128, 0, 128, 128]
    assert found.exchange_times["deltas"].tolist() == [4_000_000] * 4 + [5_000_000] * 3
    assert found.notes == (
        "1 book update(s) are in the snapshot already and were left out.",
        "1 gap(s): a book update does not follow the one before it.",
        "1 line(s) of other kinds were left out.",
    )
    assert found.deltas.sequence.tolist() == [1, 1, 1, 1, 2, 2, 4]
    depth = with_depth(found, 2).depth
    assert depth.bid_price.tolist() == [[10.0, 9.9], [9.9, 0.0], [9.9, 0.0]]
    assert depth.ask_price.tolist() == [[10.2, 0.0], [10.2, 10.4], [10.4, 0.0]]
    assert len(with_depth(found, 2, chained=True).depth) == 2
    lines.append((1_000_000_000_000_000_010, {"data": {"e": "trade", "s": "ETHUSDT", "p": "1", "q": "1", "T": 1}}))
    path.write_bytes(capture(lines))
    with pytest.raises(DataConversionError, match=r"`instrument_id` must be given: raw.gz holds BTCUSDT and ETHUSDT"):
        read_market(path)
    assert len(read_market(path, options=ReadOptions(instrument_id="BTCUSDT")).trades) == 2


def test_the_raw_capture_gives_the_reference_files_bit_for_bit() -> None:
    found = with_depth(read_market(shared_data("tick", "binance", "raw", "btcusdt_usdm_20240718.gz")), chained=True)
    stem = "binance_usdm_btcusdt_20240718"
    quotes = read_quotes(shared_data("tick", "binance", f"{stem}.quotes.parquet"))
    trades = read_trades(shared_data("tick", "binance", f"{stem}.trades.parquet"))
    depth = read_depth(shared_data("tick", "binance", f"{stem}.depth10.parquet"))
    for made, wanted in ((found.quotes, quotes), (found.trades, trades)):
        for name, array in vars(wanted).items():
            assert np.array_equal(getattr(made, name), array), name
    last = np.searchsorted(found.depth.ts_init, depth.ts_init, side="right") - 1
    for name in ("bid_price", "ask_price", "bid_size", "ask_size"):
        assert np.array_equal(getattr(found.depth, name)[last], getattr(depth, name)), name


def lobster_pair(folder, levels: int = 1, rows: int = 2000):
    """The messages and the book of the sample in LOBSTER's own form; the sample has one level."""
    table = pyarrow.parquet.read_table(shared_data("tick", "lobster", "lobster_amzn_20120621.l1events.parquet"))
    table = table.slice(0, rows)
    column = {name: table[name].to_numpy() for name in table.column_names}
    midnight = 1340251200_000_000_000  # 2012-06-21 00:00 in New York
    nanos = column["ts_ns"] - midnight
    price = np.rint(column["event_price"] * 10_000).astype(np.int64)
    stem = f"AMZN_2012-06-21_34200000_57600000_{{}}_{levels}.csv"
    message, book = folder / stem.format("message"), folder / stem.format("orderbook")
    message.write_text("".join(
        f"{n // 10**9}.{n % 10**9:09d},{e},{o},{s},{p},{d}\n"
        for n, e, o, s, p, d in zip(nanos, column["event"], column["order_id"], column["event_size"], price,
                                    column["direction"], strict=True)))  # fmt: skip
    lines = []
    for i in range(len(nanos)):
        ask, bid = (round(float(column[f"{side}_price_0"][i]) * 10_000) for side in ("ask", "bid"))
        fields = [ask, int(column["ask_size_0"][i]), bid, int(column["bid_size_0"][i])]
        for level in range(1, levels):
            fields += (
                [ask + 100 * level, level, bid - 100 * level, level] if level < 3 else [9999999999, 0, -9999999999, 0]
            )
        lines.append(",".join(map(str, fields)))
    book.write_text("\n".join(lines) + "\n")
    return message, book


def test_lobster_pairs_give_the_sample_bit_for_bit(tmp_path) -> None:
    message, book = lobster_pair(tmp_path)
    assert detect_format(message) == detect_format(book) == "lobster"
    wanted = read_market(shared_data("tick", "lobster", "lobster_amzn_20120621.l1events.parquet"))
    for path in (message, book):
        found = read_market(path)
        assert found.depth is None
        for name, array in vars(found.quotes).items():
            assert np.array_equal(array, getattr(wanted.quotes, name)[:2000]), name
        rows = len(found.trades)
        assert rows > 100
        for name, array in vars(found.trades).items():
            assert np.array_equal(array, getattr(wanted.trades, name)[:rows]), name
    assert len(wanted.quotes) == 57_515
    assert len(wanted.trades) == 11_419


def test_lobster_levels_dummies_and_what_is_refused(tmp_path) -> None:
    message, book = lobster_pair(tmp_path, levels=5, rows=50)
    found = read_market(message)
    assert found.depth.levels == 5
    assert (found.depth.bid_price[:, 3:] == 0).all()
    assert (found.depth.ask_size[:, 3:] == 0).all()
    tops = found.depth.bid_price[:, 0]
    assert np.allclose(found.depth.bid_price[:, 2], tops - 0.02)
    assert read_market(message, options=ReadOptions(levels=2)).depth.levels == 2
    assert read_market(message, options=ReadOptions(levels=1)).depth is None
    text = message.read_text()
    lines = text.splitlines()
    for broken, rule in (
        ("34200.1,9,1,1,1,1\n", "`event` must be one of 1, 2, 3, 4, 5, 6, 7, .* row 0 was 9"),
        ("34200.1,4,1,1,1,3\n", "`direction` must be one of -1, 0, 1, .* row 0 was 3"),
        ("99999.1,4,1,1,1,1\n", "`time` must be from 0 to 86400 s after midnight, .* row 0 was 99999.1"),
    ):
        message.write_text(broken + "\n".join(lines[1:]) + "\n")
        with pytest.raises(DataConversionError, match=rule):
            read_market(message)
    message.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(DataConversionError, match=r"as many rows as its message file \(49\), .* has 50"):
        read_market(message)
    message.write_text(text)
    book.unlink()
    with pytest.raises(DataConversionError, match=r"`path` must be a file, was .*orderbook_5.csv"):
        read_market(message)


def test_auctions_have_no_aggressor_and_halts_are_told(tmp_path) -> None:
    (tmp_path / "X_2012-06-21_1_2_orderbook_1.csv").write_text("100100,1,100000,2\n" * 3)
    message = tmp_path / "X_2012-06-21_1_2_message_1.csv"
    message.write_text("34200.5,4,1,10,100000,1\n34200.6,6,2,5,100000,-1\n34200.7,7,0,0,-1,-1\n")
    found = read_market(message)
    assert found.trades.aggressor.tolist() == [-1, 0], "a resting buy order that is hit was sold to"
    assert "1 trading halt message(s)." in found.notes


def test_bitstamp_orders_and_trades() -> None:
    orders = read_market(shared_data("tick", "l3_bitstamp", "bitstamp_btcusd_20260502_orders.csv.gz"))
    deltas = orders.deltas
    assert len(deltas) == 314_057
    assert np.bincount(deltas.action).tolist() == [0, 156_889, 266, 156_902]
    assert (deltas.order_id[0], deltas.price[0], deltas.size[0], deltas.side[0]) == (
        2002347637329922,
        78318.0,
        1.53453667,
        1,
    )
    assert deltas.ts_event[0] == 1777689383201_000_000
    assert orders.exchange_times["deltas"][0] == 1777689380521_000_000
    trades = read_market(shared_data("tick", "l3_bitstamp", "bitstamp_btcusd_20260502_trades.csv.gz")).trades
    assert len(trades) == 284
    assert set(trades.aggressor.tolist()) == {-1, 1}


def test_fxcm_days_start_at_utc_minus_five() -> None:
    path = shared_data("tick", "fx", "fxcm_eurusd_20140508.quotes.parquet")
    quotes = read_market(path).quotes
    start = int(dt.datetime(2014, 5, 8, 5, tzinfo=dt.UTC).timestamp()) * 10**9
    assert quotes.ts_event[0] >= start
    assert quotes.ts_event[-1] < start + 86_400 * 10**9
    # The press conference of the central bank began at 12:30 UTC; euro and dollar moved most in the hour after it.
    mid = (quotes.bid_price + quotes.ask_price) / 2
    hour = (quotes.ts_event // np.uint64(3_600 * 10**9) % np.uint64(24)).astype(int)
    moves = {h: np.ptp(mid[hour == h]) for h in np.unique(hour)}
    assert max(moves, key=moves.get) == 12
    assert (quotes.bid_size == 0).all()
    sized = read_market(path, options=ReadOptions(missing_size=1e6, date=dt.date(2014, 5, 9))).quotes
    assert sized.ask_size[0] == 1e6
    assert int(sized.ts_event[0]) - int(quotes.ts_event[0]) == 86_400 * 10**9


def test_bars_are_known_when_they_have_closed(tmp_path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("Date,Open,High,Low,Close,Adj Close,Volume\n1/4/1999,2,4,1,3,9,100\n1/5/1999,3,5,2,4,9,200\n")
    found = read_market(path)
    day = int(dt.datetime(1999, 1, 4, tzinfo=dt.UTC).timestamp()) * 10**9
    assert found.bars.ts_event.tolist() == [day + 86_400 * 10**9, day + 2 * 86_400 * 10**9]
    assert found.bars.close.tolist() == [3.0, 4.0]
    assert any("known 86400 s later" in note for note in found.notes)
    assert read_market(path, options=ReadOptions(bar_stamp="close")).bars.ts_event[0] == day
    local = read_market(path, options=ReadOptions(bar_stamp="close", timezone="America/New_York")).bars
    assert local.ts_event[0] == day + 5 * 3_600 * 10**9
    closes = read_market(path, "bars", ReadOptions(columns={"close": "Adj Close"})).bars
    assert closes.close.tolist() == [9.0, 9.0]
    path.write_text("Date,SP500\n1990-01-02,359.69\n1990-01-03,358.76\n")
    only = read_market(path, "bars", ReadOptions(columns={"close": "SP500"}))
    assert only.bars.open.tolist() == only.bars.close.tolist() == [359.69, 358.76]
    assert "The file has no volumes: 0 throughout." in only.notes
    path.write_text("Date,Open,High,Low,Close\n1990-01-02,1,1,1,1\nsoon,1,1,1,1\n")
    with pytest.raises(DataConversionError, match="`Date` must hold dates or times"):
        read_market(path)
    path.write_text("Date,Open,High,Low,Close\n20200102,1,1,1,1\n20200103,1,1,1,1\n")
    assert read_market(path).bars.ts_event[0] == int(dt.datetime(2020, 1, 3, tzinfo=dt.UTC).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("parts", "kind", "streams"),
    [
        (("daily", "spy_daily.parquet"), "bars", {"bars": 5_849}),
        (("daily", "sp500_ohlcv_1999_2018.csv.gz"), "bars", {"bars": 5_031}),
        (("stress", "spy_hour_1998_2021.parquet"), "bars", {"bars": 40_832}),
        (("stress", "ftx_btcperp_1min_202201.parquet"), "bars", {"bars": 45_031}),
        (("stress", "spy_1min_2008-08_2008-12.parquet"), "bars", {"bars": 78_240}),
        (("intraday", "qqq_itch_minute_features_dev.parquet"), "minutes", {"bars": 91_224}),
        (("tick", "gemini", "gemini_ethusd_20210701.quotes.parquet"), "quotes", {"quotes": 72_180}),
        (("tick", "gemini", "gemini_ethusd_20210701.trades.parquet"), "trades", {"trades": 25_222}),
        (("tick", "sgx", "sgx_cn_20140109.depth3.parquet"), "depth", {"depth": 26_805}),
        (("tick", "shfe_rb", "shfe_rb2510_20250605.depth5.parquet"), "depth", {"trades": 34_566, "depth": 41_201}),
        (("tick", "cme", "cme_ethfut_sep23_20230804.trades.parquet"), "trades", {"trades": 20}),
        (("tick", "us_equity", "us_ibm_20131008.quotes.parquet"), "quotes", {"quotes": 124_241}),
        (("tick", "us_equity", "us_ibm_20131008.trades.parquet"), "trades", {"trades": 33_323}),
        (("tick", "binance", "binance_fut_btcusdt_20260216.trades.parquet"), "trades", {"trades": 11_947}),
        (("tick", "binance", "binance_spot_ethusdt_20240808.depth10.parquet"), "depth", {"depth": 3_432}),
    ],
)  # fmt: skip
def test_the_layouts_of_the_data_set(parts, kind: str, streams: dict[str, int]) -> None:
    path = shared_data(*parts)
    assert detect_format(path) == kind
    found = read_market(path)
    assert {name: len(value) for name, value in found.streams().items()} == streams


def test_minute_bars_lie_in_new_york_hours() -> None:
    bars = read_market(shared_data("intraday", "qqq_itch_minute_features_dev.parquet")).bars
    first = dt.datetime(2023, 9, 20, 13, 31, tzinfo=dt.UTC)  # 09:31 in New York, when the first minute is over
    assert bars.ts_event[0] == int(first.timestamp()) * 10**9
    assert (np.diff(bars.ts_event.astype(np.int64)) > 0).all()


def test_letters_for_the_side_are_read_when_they_are_clear(tmp_path) -> None:
    path = tmp_path / "trades.parquet"
    for letters, signs in (("OB", [1, -1]), ("BS", [1, -1]), ("BA", [1, -1]), ("NO", [0, 1])):
        table = pyarrow.table({"ts_ns": [1, 2], "price": [1.0, 2.0], "size": [1.0, 1.0], "side": list(letters)})
        pyarrow.parquet.write_table(table, path)
        assert read_market(path).trades.aggressor.tolist() == signs, letters
    table = pyarrow.table({"ts_ns": [1, 2], "price": [1.0, 2.0], "size": [1.0, 1.0], "side": ["B", "B"]})
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(DataConversionError, match=r"`aggressors` must be given: trades.parquet writes B in `side`"):
        read_market(path)
    assert read_market(path, options=ReadOptions(aggressors={"B": -1})).trades.aggressor.tolist() == [-1, -1]


def test_a_file_of_many_instruments_needs_a_name() -> None:
    path = shared_data("prediction_market", "pm_dev.quotes.parquet")
    with pytest.raises(DataConversionError, match=r"`instrument_id` must be given: .* holds 468 in `slug`"):
        read_market(path)
    table = pyarrow.parquet.read_table(path)
    slug = table["slug"][0].as_py()
    wanted = [row for row in table.to_pylist() if row["slug"] == slug]
    found = read_market(path, options=ReadOptions(instrument_id=slug)).quotes
    assert found.ts_event.tolist() == [row["ts_ns"] for row in wanted]
    assert np.array_equal(found.bid_price, np.array([row["bid"] for row in wanted], float), equal_nan=True)
    with pytest.raises(DataConversionError, match="did you mean"):
        read_market(path, options=ReadOptions(instrument_id=slug[:-1]))


def test_options_that_mean_nothing_are_refused(tmp_path) -> None:
    path = sample_data("binance_usdm_btcusdt_20240719.quotes.parquet")
    for options, rule in (
        (ReadOptions(bar_stamp="close"), "`bar_stamp` must be left out for the format quotes"),
        (ReadOptions(instrument_id="BTCUSDT"), "`instrument_id` must be left out: .* names no instruments"),
    ):
        with pytest.raises(DataConversionError, match=rule):
            read_market(path, options=options)
    for wrong, rule in (
        ({"bar_stamp": "middle"}, "`bar_stamp` must be one of open, close, was 'middle'"),
        ({"timezone": "Mars/Base"}, "`timezone` must be an IANA name"),
        ({"missing_size": float("nan")}, "`missing_size` must be finite and >= 0, was nan"),
    ):
        with pytest.raises(DataConversionError, match=rule):
            ReadOptions(**wrong)
    with pytest.raises(DataConversionError, match="was 'quote'; did you mean 'quotes'"):
        read_market(path, "quote")
    with pytest.raises(DataConversionError, match="`format` must be one that is read without NautilusTrader"):
        read_market(path, "databento")


@pytest.mark.parametrize("data", [b"", b"   \n", b"\x00\x01\x02\x03" * 100, b"hello, world\n1, 2\n", b"\xff\xfe" * 50])
def test_garbage_is_no_format(tmp_path, data: bytes) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(data)
    with pytest.raises(DataConversionError, match=r"`(path|format)` must"):
        read_market(path)


@pytest.mark.parametrize("kind", sorted(HEADERS))
def test_rows_that_are_no_rows_are_named(tmp_path, kind: str) -> None:
    path = tmp_path / "file.csv"
    good = [HEADERS[kind], *ROWS[kind]]
    for broken in (
        [*good, ROWS[kind][0].rsplit(",", 3)[0]],  # cut in the middle of a row
        [*good, ROWS[kind][0].replace("172", "soon", 1)],  # a time that is none
        [good[0], ",".join("x" for _ in good[0].split(","))],
    ):
        path.write_text("\n".join(broken) + "\n")
        with pytest.raises(DataConversionError, match=r"file\.csv"):
            read_market(path, kind)
    path.write_text(good[0] + "\n")
    with pytest.raises(DataConversionError, match=r"`path` must hold at least one row, file.csv holds none"):
        read_market(path, kind)
    path.write_text("1,2\n")
    with pytest.raises(DataConversionError, match="columns"):
        read_market(path, kind)


@pytest.mark.parametrize("name", ["damaged.csv.gz", "damaged.zip"])
def test_damaged_archives_are_named(tmp_path, name: str) -> None:
    text = "\n".join([HEADERS["binance-trades"], *ROWS["binance-trades"] * 20_000]) + "\n"
    path = tmp_path / name
    if name.endswith("gz"):
        whole = gzip.compress(text.encode())
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.csv", text)
        whole = path.read_bytes()
    middle = bytearray(whole)
    middle[len(middle) // 2] ^= 0xFF
    for data in (whole[: len(whole) // 2], whole[:-4], bytes(middle), whole[:20]):
        path.write_bytes(data)
        with pytest.raises(DataConversionError, match=f"{name}"):
            read_market(path, "binance-trades")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", text)
        archive.writestr("b.csv", text)
    with pytest.raises(DataConversionError, match=r"zip archive of one file, two.zip has 2"):
        read_market(tmp_path / "two.zip")


def test_a_broken_line_of_a_capture_is_named(tmp_path) -> None:
    path = tmp_path / "raw.txt"
    good = "1721347021080832061 " + json.dumps(message("bookTicker", b="1", B="1", a="2", A="1", T=1, E=1))
    for bad in ("1721347021080832062 {not json}", "soon {}", "1721347021080832062", '17 {"data":{"b":"x"}}'):
        path.write_text(f"{good}\n{bad}\n")
        with pytest.raises(DataConversionError, match=r"raw.txt line 2"):
            read_market(path)


def test_the_table_of_formats_is_whole() -> None:
    for name, entry in FORMATS.items():
        assert entry.name == name
        assert entry.streams
        assert all((entry.columns, entry.units, entry.clock, entry.lost)), name


def test_progress_is_told(tmp_path) -> None:
    seen: list[tuple[int, int]] = []
    path = tmp_path / "file.csv.gz"
    path.write_bytes(gzip.compress(("\n".join(ROWS["binance-trades"] * 1000) + "\n").encode()))
    read_market(path, options=ReadOptions(progress=lambda done, total: seen.append((done, total))))
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
