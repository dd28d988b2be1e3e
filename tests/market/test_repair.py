"""Repairs do what they say and nothing else; files keep every bit and tell how they were made."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.market import (
    BarColumns,
    DeltaColumns,
    DepthColumns,
    DescribeOptions,
    MarketColumns,
    QuoteColumns,
    RepairOptions,
    TradeColumns,
    describe,
    merge_columns,
    provenance,
    read_market,
    read_quotes,
    repair,
    require_usable,
    write_market,
)
from tengri_fast.market.provenance import targets
from tengri_fast.market.repair import REPAIRS

SECOND = 1_000_000_000


def times(rows: int):
    return np.uint64(1_700_000_000 * SECOND) + np.arange(rows, dtype=np.uint64) * np.uint64(SECOND)


def quotes(rows: int = 60) -> QuoteColumns:
    ts = times(rows)
    bid = np.round(100 + 0.1 * (np.arange(rows) % 7), 1)
    return QuoteColumns(ts, ts.copy(), bid, np.round(bid + 0.2, 1), np.arange(rows) + 1.0, np.ones(rows))


def trades(rows: int = 40) -> TradeColumns:
    ts = times(rows) + np.uint64(SECOND // 2)
    return TradeColumns(ts, ts.copy(), quotes(rows).bid_price.copy(), np.arange(rows) + 1.0, np.full(rows, -1))


def put(value, name: str, row, content):
    array = getattr(value, name).copy()
    array[row] = content
    return replace(value, **{name: array})


def same(one, other) -> bool:
    return type(one) is type(other) and all(
        np.array_equal(array.view(np.uint8), getattr(other, name).view(np.uint8)) for name, array in vars(one).items()
    )


def kept(value, rows):
    return replace(value, **{name: np.delete(array, rows, axis=0) for name, array in vars(value).items()})


def test_with_nothing_chosen_nothing_changes() -> None:
    columns = MarketColumns(quotes=put(quotes(), "bid_price", 3, math.nan))
    found, log = repair(columns)
    assert found is columns
    assert log.entries == ()
    assert log.rows_in == log.rows_out == {"quotes": 60}


def test_every_repair_leaves_clean_data_alone() -> None:
    columns = MarketColumns(quotes=quotes(), trades=trades())
    for name in REPAIRS:
        found, log = repair(columns, (name,))
        assert log.entries == (), name
        assert same(found.quotes, columns.quotes)
        assert same(found.trades, columns.trades)


DROPS = [
    ("drop-nan", "quotes", lambda v: put(v, "ask_size", [4, 9], math.nan), [4, 9]),
    ("drop-nan", "quotes", lambda v: put(v, "bid_price", 5, -math.inf), [5]),
    ("drop-nonpositive", "quotes", lambda v: put(put(v, "bid_price", 6, 0.0), "ask_size", 8, -1.0), [6, 8]),
    ("drop-nonpositive", "trades", lambda v: put(v, "price", 7, -3.0), [7]),
    ("drop-backward", "quotes", lambda v: put(v, "ts_init", [10, 11], times(60)[2]), [10, 11]),
    ("drop-crossed", "quotes", lambda v: put(v, "bid_price", [12, 20], 150.0), [12, 20]),
    ("drop-locked", "quotes", lambda v: put(v, "bid_price", 13, v.ask_price[13]), [13]),
    ("drop-off-tick", "quotes", lambda v: put(v, "bid_price", 14, 100.05), [14]),
    ("drop-outliers", "trades", lambda v: put(v, "price", [15, 16], 170.0), [15, 16]),
    ("drop-outside", "trades", lambda v: put(v, "price", 17, 99.5), [17]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "stream", "plant", "rows"), DROPS)
def test_a_drop_takes_the_rows_and_no_others(name: str, stream: str, plant, rows: list[int]) -> None:
    clean = {"quotes": quotes(), "trades": trades()}
    planted = plant(clean[stream])
    exchange = {stream: times(len(planted)) + np.uint64(5)}
    columns = MarketColumns(**{**clean, stream: planted}, exchange_times=exchange)
    found, log = repair(columns, RepairOptions((name,), DescribeOptions(tick=0.1)))
    assert same(found.streams()[stream], kept(planted, rows))
    assert found.exchange_times[stream].tolist() == np.delete(exchange[stream], rows).tolist()
    (entry,) = log.entries
    assert (entry.repair, entry.stream, entry.dropped, entry.changed, entry.first_row) == (
        name, stream, len(rows), 0, rows[0])  # fmt: skip
    assert log.rows_out[stream] == log.rows_in[stream] - len(rows)
    other = "trades" if stream == "quotes" else "quotes"
    assert same(found.streams()[other], clean[other])
    again, second = repair(found, RepairOptions((name,), DescribeOptions(tick=0.1)))
    assert second.entries == (), "a second time there is nothing left to do"
    assert same(again.streams()[stream], found.streams()[stream])


def test_sort_is_stable_and_takes_everything_along() -> None:
    value = quotes(6)
    value = replace(value, ts_init=value.ts_init[[0, 2, 2, 1, 4, 3]])
    exchange = np.arange(6, dtype=np.uint64) + np.uint64(1)
    found, log = repair(MarketColumns(quotes=value, exchange_times={"quotes": exchange}), ("sort",))
    assert found.quotes.bid_size.tolist() == [1.0, 4.0, 2.0, 3.0, 6.0, 5.0]
    assert found.exchange_times["quotes"].tolist() == [1, 4, 2, 3, 6, 5]
    assert (np.diff(found.quotes.ts_init.astype(np.int64)) >= 0).all()
    assert (log.entries[0].changed, log.entries[0].first_row) == (5, 1)


def test_sort_keeps_the_order_of_equal_times_in_long_streams() -> None:
    rows = 5_000
    ts = times(rows) - (np.arange(rows, dtype=np.uint64) % np.uint64(7)) * np.uint64(100 * SECOND)
    ts //= np.uint64(500 * SECOND)
    value = TradeColumns(ts, ts, np.ones(rows), np.arange(rows) + 1.0, np.zeros(rows, int))
    found, _ = repair(MarketColumns(trades=value), ("sort",))
    wanted = sorted(range(rows), key=lambda row: int(ts[row]))
    assert found.trades.size.tolist() == [row + 1.0 for row in wanted]


def test_a_clear_has_no_price_and_stays() -> None:
    ts, none = times(3), np.zeros(3, np.uint64)
    value = DeltaColumns(np.array([4, 1, 1]), np.array([0, 1, 1]), np.array([0.0, 0.0, 5.0]), np.array([0.0, 1.0, 1.0]),
                         none, none, none, ts, ts.copy())  # fmt: skip
    found, log = repair(MarketColumns(deltas=value), ("drop-nonpositive",))
    assert found.deltas.action.tolist() == [4, 1]
    assert found.deltas.price.tolist() == [0.0, 5.0]
    assert (log.entries[0].dropped, log.entries[0].first_row) == (1, 1)
    require_usable(found)


def test_dedupe_keeps_the_first_of_equal_rows() -> None:
    order = np.array([0, 1, 1, 2, 1, 3])
    value = replace(quotes(4), **{name: array[order] for name, array in vars(quotes(4)).items()})
    found, log = repair(MarketColumns(quotes=value), ("dedupe",))
    assert same(found.quotes, quotes(4))
    assert (log.entries[0].dropped, log.entries[0].first_row) == (2, 2)
    one, none = np.ones(3, np.int8), np.zeros(3, np.uint64)
    deltas = DeltaColumns(one, one, np.ones(3), np.ones(3), none, none, none, none, none)
    found, _ = repair(MarketColumns(deltas=deltas), ("dedupe",))
    assert len(found.deltas) == 3, "a change of a book may come twice"


def test_snap_puts_spoilt_decimals_back_and_leaves_real_prices() -> None:
    value = put(put(quotes(), "bid_price", 3, 100.30000000000003), "ask_price", 4, 100.63)
    found, log = repair(MarketColumns(quotes=value), RepairOptions(("snap-to-tick",), DescribeOptions(tick=0.1)))
    assert found.quotes.bid_price[3] == 100.3
    assert found.quotes.ask_price[4] == 100.63, "a price between two ticks is not noise"
    assert (log.entries[0].changed, log.entries[0].first_row) == (1, 3)


def test_clip_moves_spikes_to_the_edge_of_the_band() -> None:
    value = put(put(quotes(), "bid_price", 30, 20.0), "ask_price", 40, 300.0)
    limits = DescribeOptions(tick=0.1, outlier_sigmas=20.0)
    found, log = repair(MarketColumns(quotes=value), RepairOptions(("clip-outliers",), limits))
    # The scale is 1.4826 ticks, the band 29.652 ticks wide on each side; a clipped price lies on the tick inside it.
    middle = float(np.median(value.bid_price[25:36]))
    assert math.isclose(found.quotes.bid_price[30], middle - 2.9)
    middle = float(np.median(value.ask_price[35:46]))
    assert math.isclose(found.quotes.ask_price[40], middle + 2.9)
    assert (log.entries[0].changed, log.entries[0].dropped) == (2, 0)
    rest = np.delete(np.arange(60), [30, 40])
    assert np.array_equal(found.quotes.bid_price[rest], value.bid_price[rest])
    assert np.array_equal(found.quotes.ask_price[rest], value.ask_price[rest])


def test_holes_close_and_unsorted_levels_go() -> None:
    ts = times(3)
    bid = np.array([[10.0, 0.0, 9.8], [10.0, 9.9, 9.8], [10.0, 10.0, 9.8]])
    size = np.array([[1.0, 0.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    ask = np.array([[10.1, 10.2, 10.3]] * 3)
    value = DepthColumns(ts, ts.copy(), bid, ask, size, np.ones((3, 3)))
    found, log = repair(MarketColumns(depth=value), ("close-holes", "drop-unsorted"))
    assert found.depth.bid_price.tolist() == [[10.0, 9.8, 0.0], [10.0, 9.9, 9.8]]
    assert found.depth.bid_size.tolist() == [[1.0, 3.0, 0.0], [1.0, 2.0, 3.0]]
    assert found.depth.ask_price.tolist() == ask[:2].tolist()
    assert [(entry.repair, entry.changed, entry.dropped) for entry in log.entries] == [
        ("close-holes", 1, 0), ("drop-unsorted", 0, 1)]  # fmt: skip
    require_usable(found)


def test_bad_bars_go() -> None:
    ts = times(3)
    value = BarColumns(ts, ts.copy(), np.full(3, 5.0), np.array([6.0, 4.0, 6.0]), np.full(3, 4.0),
                       np.array([5.0, 5.0, 3.0]), np.ones(3))  # fmt: skip
    found, _ = repair(MarketColumns(bars=value), ("drop-bad-bars",))
    assert same(found.bars, value[:1])


def test_repairs_run_in_their_own_order() -> None:
    value = put(put(quotes(), "bid_price", 5, math.nan), "ts_init", 5, 0)
    one, first = repair(MarketColumns(quotes=value), ("sort", "drop-nan"))
    other, second = repair(MarketColumns(quotes=value), ("drop-nan", "sort"))
    assert first == second
    assert same(one.quotes, other.quotes)
    assert [entry.repair for entry in first.entries] == ["drop-nan"], "the row that was out of order had gone by then"


def test_wrong_choices_are_named() -> None:
    for names, rule in (
        (("drop-crosed",), "was 'drop-crosed'; did you mean 'drop-crossed'"),
        (("sort", "drop-backward"), "`repair` must not hold both sort and drop-backward"),
        (("clip-outliers", "drop-outliers"), "`repair` must not hold both"),
    ):
        with pytest.raises(ConfigurationError, match=rule):
            repair(MarketColumns(quotes=quotes()), names)
    with pytest.raises(DataConversionError, match="drop-outside needs quotes or depth beside the trades"):
        repair(MarketColumns(trades=trades()), ("drop-outside",))


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (lambda v: put(v, "ask_price", [7, 8], math.nan),
         r"`ask_price` of quotes breaks the rule nan .*: row 7 was nan \(2 such rows\); the repair drop-nan removes"),
        (lambda v: put(v, "bid_size", 3, -2.0), "`bid_size` of quotes breaks the rule negative_size .*: row 3 was -2"),
        (lambda v: put(v, "ts_init", 9, 5), "`ts_init` of quotes breaks the rule backward_time .*: row 9 was 5; the"),
        (lambda v: kept(v, np.arange(60)), "`columns` must hold at least one row, none of x is left"),
    ],
)  # fmt: skip
def test_data_that_would_break_later_use_is_refused(plant, rule: str) -> None:
    with pytest.raises(DataConversionError, match=rule):
        require_usable(MarketColumns(quotes=plant(quotes()), source="x"))


def test_facts_of_markets_are_not_refused() -> None:
    value = put(put(quotes(), "bid_price", 3, 200.0), "bid_size", 5, 0.0)
    require_usable(MarketColumns(quotes=put(value, "ts_init", 8, value.ts_init[7])))


# Every double, also NaN with a payload, infinities, denormals and -0.
BITS = hnp.arrays(np.uint64, st.shared(st.integers(0, 30), key="rows"), elements=st.integers(0, 2**64 - 1))


@settings(max_examples=12, deadline=None)
@given(st.data(), st.integers(1, 10))
def test_columns_come_back_bit_for_bit(tmp_path_factory, data, levels: int) -> None:
    pytest.importorskip("pyarrow", reason="files of ours are Parquet")
    folder = tmp_path_factory.mktemp("bits")

    def bits():
        return data.draw(BITS)

    def doubles():
        return bits().view(np.float64)

    def grid():
        return np.column_stack([doubles() for _ in range(levels)])

    ts, init = bits(), bits()
    made = MarketColumns(
        quotes=QuoteColumns(ts, init, doubles(), doubles(), doubles(), doubles()),
        trades=TradeColumns(ts, ts.copy(), doubles(), doubles(), bits().astype(np.int64) % 3 - 1),
        depth=DepthColumns(ts, init, grid(), grid(), grid(), grid()),
        bars=BarColumns(ts, init, doubles(), doubles(), doubles(), doubles(), doubles()),
        deltas=DeltaColumns(bits() % np.uint64(5), bits().astype(np.int64) % 2, doubles(), doubles(), bits(),
                            bits() % np.uint64(256), bits(), ts, init),
        source="bits.x", exchange_times={"quotes": bits(), "depth": bits()},
    )  # fmt: skip
    written = write_market(folder, made, {"format": "test"})
    assert [path.name for path in written] == [
        "bits.quotes.parquet", "bits.trades.parquet", f"bits.depth{levels}.parquet", "bits.bars.parquet",
        "bits.deltas.parquet"]  # fmt: skip
    if not len(ts):
        return
    found = merge_columns(read_market(path) for path in written if levels > 1 or "depth" not in path.name)
    for name, value in found.streams().items():
        assert same(value, made.streams()[name]), name
    if levels == 1:
        one = read_market(written[2], "depth")
        assert same(one.depth, made.depth)
        found = replace(found, depth=one.depth, exchange_times={**found.exchange_times, **one.exchange_times})
    for name, value in made.exchange_times.items():
        assert np.array_equal(found.exchange_times[name], value)
    assert same(read_quotes(written[0]), made.quotes)


def test_the_story_is_in_the_file(tmp_path) -> None:
    pytest.importorskip("pyarrow", reason="files of ours are Parquet")
    facts = {"tool": "tengri_fast", "repairs": [{"repair": "sort", "changed": 3}], "notes": ["a", "ü"]}
    (path,) = write_market(tmp_path / "a.parquet", MarketColumns(quotes=quotes()), facts)
    assert provenance(path) == {"provenance": 1, **facts, "stream": "quotes"}
    before = path.read_bytes()
    write_market(path, MarketColumns(quotes=quotes()), facts)
    assert path.read_bytes() == before, "the same data and options give the same bytes"
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left"
    with pytest.raises(DataConversionError, match="`facts` must be plain values with finite numbers"):
        write_market(path, MarketColumns(quotes=quotes()), {"value": math.nan})
    assert path.read_bytes() == before, "what fails changes nothing"
    assert list(tmp_path.iterdir()) == [path]
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    for story, rule in ((b"{", "must be JSON"), (json.dumps({"provenance": 9}).encode(), "of version 1, was 9"),
                        (b"[1]", "of version 1, was None")):  # fmt: skip
        pyarrow.parquet.write_table(table.replace_schema_metadata({b"tengri_fast.provenance": story}), path)
        with pytest.raises(DataConversionError, match=rule):
            provenance(path)
    pyarrow.parquet.write_table(table.replace_schema_metadata(None), path)
    assert provenance(path) is None


def test_a_flipped_bit_is_an_error_and_no_other_price(tmp_path) -> None:
    pytest.importorskip("pyarrow", reason="files of ours are Parquet")
    (path,) = write_market(tmp_path / "a.parquet", MarketColumns(quotes=quotes(5_000)), {})
    whole = path.read_bytes()
    for place in range(200, len(whole) - 8, len(whole) // 60):
        broken = bytearray(whole)
        broken[place] ^= 4
        path.write_bytes(broken)
        try:
            found = read_market(path, "quotes").quotes
        except DataConversionError:
            continue
        assert same(found, quotes(5_000)), f"byte {place} changed a value unseen"


def test_large_streams_have_row_groups(tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="files of ours are Parquet")
    seen: list[tuple[int, int]] = []
    rows = 300_000
    (path,) = write_market(tmp_path / "a.parquet", MarketColumns(trades=trades(rows)), {},
                           progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert parquet.ParquetFile(path).metadata.num_row_groups == 3
    assert seen == [(131_072, rows), (262_144, rows), (rows, rows)]
    assert same(read_market(path).trades, trades(rows))


def test_targets_are_checked() -> None:
    both = MarketColumns(quotes=quotes(), trades=trades(), source="day.csv.gz")
    assert [path.name for path in targets("out", both)] == ["day.quotes.parquet", "day.trades.parquet"]
    assert [path.name for path in targets("out", both, stem="x", streams=["trades"])] == ["x.trades.parquet"]
    for call, rule in (
        (lambda: targets("a.parquet", both), r"`out` must be a folder for 2 streams \(quotes, trades\)"),
        (lambda: targets("out", both, streams=["bars"]), "`streams` must be among quotes, trades, named 'bars'"),
        (lambda: targets("out", MarketColumns()), "`columns` must hold a stream to write"),
    ):
        with pytest.raises(DataConversionError, match=rule):
            call()


def test_parts_are_joined_in_the_order_given() -> None:
    whole = quotes()
    one = MarketColumns(quotes=whole[:20], source="a", notes=("n",), exchange_times={"quotes": times(20)})
    two = MarketColumns(quotes=whole[20:], trades=trades(), source="b", notes=("n",))
    found = merge_columns([one, two])
    assert same(found.quotes, whole)
    assert same(found.trades, trades())
    assert (found.source, found.notes) == ("a + b", ("n",))
    assert found.exchange_times == {}, "only a part of the rows has exchange times"
    back = merge_columns([two, one])
    assert describe(back).defects()[0][1].rule == "backward_time"


def test_market_columns_check_their_exchange_times() -> None:
    with pytest.raises(DataConversionError, match="must name streams that are there, named 'trades'"):
        MarketColumns(quotes=quotes(), exchange_times={"trades": times(60)})
    with pytest.raises(DataConversionError, match="must have 60 rows, had 3"):
        MarketColumns(quotes=quotes(), exchange_times={"quotes": times(3)})
    assert len(MarketColumns(quotes=quotes(), trades=trades())) == 100
