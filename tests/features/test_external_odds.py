"""Odds of prediction markets: rules of a quote, live equals history, settlement without a leak, the real files."""

from __future__ import annotations

import csv
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import shared_data

from tengri_fast.errors import DataConversionError, FeatureExtractionError
from tengri_fast.features.external import (
    Market,
    PolymarketOdds,
    Settlement,
    UpDownMarket,
    gaps,
    read_markets,
    read_odds,
    read_price_feed,
    read_price_history,
    read_up_down_markets,
    select_markets,
    strikes,
)

NAN = math.nan
PRICES = st.one_of(st.sampled_from([NAN, math.inf, -math.inf, -0.01, 1.01, 0.0, -0.0, 0.5, 1.0]), st.floats(0.0, 1.0))
ROWS = st.lists(st.tuples(st.integers(0, 12), PRICES, PRICES), max_size=40)


def bits(values) -> bytes:
    return np.asarray(values, np.float64).tobytes()


def live(source: PolymarketOdds, rows):
    """(times, values) of pushing rows in order of time."""
    got = [(ts, source.push(ts, bid, ask)) for ts, bid, ask in sorted(rows, key=lambda row: row[0])]
    kept = [(ts, values) for ts, values in got if values is not None]
    return [ts for ts, _ in kept], bits([values for _, values in kept])


def arrays(rows):
    return (np.array([r[0] for r in rows], np.int64), np.array([r[1] for r in rows]), np.array([r[2] for r in rows]))


@settings(max_examples=100, deadline=None)
@given(ROWS, st.sampled_from(["drop", "fill"]), st.sampled_from([1.0, 0.3]))
def test_live_is_history_bit_for_bit(rows, one_sided, max_spread) -> None:
    source = PolymarketOdds(one_sided=one_sided, max_spread=max_spread)
    by_push = source.copy()
    columns = source.observations(*arrays(rows))
    times, values = live(by_push, rows)
    assert columns.ts_event.tolist() == times
    assert bits(columns.values) == values
    assert source.counters.seen == len(rows)
    source.counters.reordered = 0
    assert source.to_bytes() == by_push.to_bytes()


@settings(max_examples=60, deadline=None)
@given(ROWS, st.lists(st.integers(0, 40), max_size=5), st.sampled_from(["drop", "fill"]))
def test_chunks_do_not_matter_and_the_future_moves_nothing(rows, cuts, one_sided) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    whole = PolymarketOdds(one_sided=one_sided)
    columns = whole.observations(*arrays(rows))
    parts = PolymarketOdds(one_sided=one_sided)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    got = []
    for a, b in itertools.pairwise(edges):
        got.append(parts.observations(*arrays(rows[a:b])))
        parts = PolymarketOdds.from_bytes(parts.to_bytes())
    assert bits(np.concatenate([g.values for g in got])) == bits(columns.values)
    assert parts.to_bytes() == whole.to_bytes()
    for cut in cuts:
        past = PolymarketOdds(one_sided=one_sided).observations(*arrays(rows[:cut]))
        assert bits(past.values) == bits(columns.values[: len(past)])
        poisoned = [*rows[:cut], *((ts, 0.123, 0.456) for ts, _, _ in rows[cut:])]
        other = PolymarketOdds(one_sided=one_sided).observations(*arrays(poisoned))
        assert bits(other.values[: len(past)]) == bits(past.values)


def test_rules_hold_across_the_edge_of_two_chunks() -> None:
    source = PolymarketOdds()
    source.observations([5, 6], [0.1, 0.2], [0.3, 0.4])
    columns = source.observations([5, 6, 6, 7], [0.5, 0.2, 0.25, 0.25], [0.5, 0.4, 0.4, 0.4])
    assert columns.ts_event.tolist() == [6, 7]
    assert (source.counters.backward, source.counters.duplicate, source.counters.accepted) == (1, 1, 4)


def test_each_rule_of_a_quote() -> None:
    source = PolymarketOdds(max_spread=0.5)
    assert source.push(10, 0.4, 0.6)[:2] == (0.4, 0.6)
    for ts, bid, ask, count in (
        (10, 0.4, 0.6, "duplicate"),
        (9, 0.4, 0.6, "backward"),
        (11, 0.6, 0.4, "crossed"),
        (11, 0.1, 0.9, "filtered"),
        (11, NAN, 0.6, "invalid"),
        (11, 0.4, math.inf, "invalid"),
        (11, -0.1, 0.6, "invalid"),
        (11, 0.4, 1.1, "invalid"),
        (-1, 0.4, 0.6, "invalid"),
        (2**63, 0.4, 0.6, "invalid"),
        (11.5, 0.4, 0.6, "invalid"),
        (11, None, "0.6", "invalid"),
        (11, 10**400, 0.6, "invalid"),
    ):
        before = getattr(source.counters, count)
        assert source.push(ts, bid, ask) is None, (ts, bid, ask)
        assert getattr(source.counters, count) == before + 1, (ts, bid, ask)
    assert source.push(11, 0.4, 0.6) is not None  # the same prices later: the quote still stands
    assert source.push(11, 0.5, 0.5) is not None  # locked is not crossed
    assert source.counters.accepted == 3


def test_a_missing_side() -> None:
    fill = PolymarketOdds(one_sided="fill")
    assert fill.push(1, NAN, 0.02)[:2] == (0.0, 0.02)
    assert fill.push(2, 0.97, NAN)[:2] == (0.97, 1.0)
    assert fill.push(3, NAN, NAN) is None
    assert PolymarketOdds().push(1, NAN, 0.02) is None
    assert fill.counters.as_dict()["invalid"] == 1


def test_settlement_is_the_last_observation_and_comes_at_its_time() -> None:
    rows = [(10, 0.4, 0.5), (20, 0.6, 0.7), (30, 0.98, 0.99), (40, 0.1, 0.2)]
    source = PolymarketOdds()
    columns = source.observations(*arrays(rows), settlement=Settlement(30, 1.0), delay_ns=5)
    assert columns.ts_event.tolist() == [10, 20, 30, 30]
    assert columns.ts_init.tolist() == [15, 25, 35, 35]
    assert columns.values[-1, :2].tolist() == [1.0, 1.0]
    assert source.counters.settled == 1
    by_push = PolymarketOdds()
    got = [by_push.push(*row) for row in rows[:3]] + [by_push.settle(30, 1), by_push.push(*rows[3])]
    assert bits([g for g in got if g is not None]) == bits(columns.values)
    assert by_push.to_bytes() == source.to_bytes()
    assert by_push.settle(50, 0) is None
    fresh = PolymarketOdds()
    assert fresh.push(9, 0.1, 0.2) is not None
    for ts, outcome, count in ((8, 1, "backward"), (10, NAN, "invalid"), (10, 0.7, "invalid"), (-1, 1, "invalid")):
        assert fresh.settle(ts, outcome) is None
        assert getattr(fresh.counters, count) >= 1
    assert fresh.settle(10, 0.5)[:2] == (0.5, 0.5)


def test_hostile_arrays_and_parameters() -> None:
    source = PolymarketOdds()
    assert len(source.observations([], [], [])) == 0
    columns = source.observations(np.array([5, 2**63 + 1], np.uint64), [0.1, 0.1], [0.2, 0.2])
    assert columns.ts_event.tolist() == [5]
    assert source.counters.invalid == 1
    for arguments, message in (
        (([1.5], [0.1], [0.2]), "`ts_event` must be one column of whole nanoseconds"),
        (([1], [0.1, 0.2], [0.2]), "must have 1 rows as `ts_event`"),
        (([1], ["x"], [0.2]), "`bid` must hold numbers, had 'x'"),
        (([1], [0.1], [[0.2]]), "`ask` must have 1 dimension, had 2"),
    ):
        with pytest.raises(DataConversionError) as caught:
            source.observations(*arguments)
        assert message in str(caught.value)
    with pytest.raises(FeatureExtractionError, match="`delay_ns` must be a whole number >= 0"):
        source.observations([1], [0.1], [0.2], delay_ns=-1)
    for parameters in ({"one_sided": "keep"}, {"max_spread": 1.5}, {"max_spread": NAN}, {"market": 3}):
        with pytest.raises(FeatureExtractionError, match="must be"):
            PolymarketOdds(**parameters)


def write_csv(path, header, rows) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_files_and_the_outcome_that_is_not_read(tmp_path) -> None:
    path = tmp_path / "quotes.csv"
    rows = [[30, "b", 0.7, 0.8, 1.0], [10, "a", 0.1, 0.2, 0.0], [20, "a", "", 0.3, 0.0], [15, "a", 0.15, 0.2, 0.0]]
    write_csv(path, ["ts_ns", "slug", "bid", "ask", "y"], rows)
    source = PolymarketOdds("a")
    columns = source.from_file(path)
    assert columns.ts_event.tolist() == [10, 15]
    assert source.counters.as_dict() | {"accepted": 2, "invalid": 1, "reordered": 1} == source.counters.as_dict()
    other = tmp_path / "other.csv"
    write_csv(other, ["ts_ns", "slug", "bid", "ask", "y"], [[*row[:4], "poison"] for row in rows])
    assert bits(PolymarketOdds("a").from_file(other).values) == bits(columns.values)
    streams = read_odds(path)
    assert list(streams) == ["a", "b"]
    assert bits(streams["a"].values) == bits(columns.values)
    assert streams["b"].values[0, :2].tolist() == [0.7, 0.8]
    with pytest.raises(DataConversionError, match="`market` must be given: the file holds 2"):
        PolymarketOdds().from_file(path)
    with pytest.raises(DataConversionError, match="`market` must be in"):
        PolymarketOdds("c").from_file(path)
    with pytest.raises(DataConversionError, match="'c' is not"):
        read_odds(path, ["a", "c"])
    with pytest.raises(DataConversionError, match=r"`price` must be a column of quotes\.csv, which has"):
        PolymarketOdds("a").from_file(path, columns={"bid": "price"})
    with pytest.raises(DataConversionError, match="did you mean 'bid'"):
        PolymarketOdds("a").from_file(path, columns={"bit": "bid"})
    with pytest.raises(DataConversionError, match="must be a file"):
        PolymarketOdds("a").from_file(tmp_path / "absent.csv")
    (tmp_path / "bad.csv").write_text("ts_ns,slug,bid,ask\n1,a,0.1\n")
    with pytest.raises(DataConversionError, match=r"line 2 of bad\.csv must have 4 cells, had 3"):
        PolymarketOdds("a").from_file(tmp_path / "bad.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow")
    with pytest.raises(DataConversionError, match="must be a readable Parquet file"):
        PolymarketOdds("a").from_file(tmp_path / "bad.parquet")


def test_a_market_has_no_outcome(tmp_path) -> None:
    path = tmp_path / "markets.csv"
    write_csv(path, ["slug", "question", "category", "y"], [["btc-up", "Will Bitcoin rise?", "crypto", 1.0],
                                                           ["rain", "Rain in May?", "climate", 0.0]])  # fmt: skip
    markets = read_markets(path)
    assert markets[0] == Market("btc-up", "Will Bitcoin rise?", "crypto")
    assert set(Market._fields) == {"slug", "question", "category"}
    assert select_markets(markets, category="crypto", keywords=["BITCOIN"]) == markets[:1]
    assert select_markets(markets, keywords=["bit"]) == []
    assert select_markets(markets, keywords=["btc", "rain"]) == markets
    assert select_markets(markets) == markets


def test_real_quotes_and_their_outage() -> None:
    quotes = shared_data("prediction_market", "pm_dev.quotes.parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="reading Parquet needs pyarrow")
    table = parquet.read_table(quotes, columns=["slug", "bid", "ask"]).to_pydict()
    bid, ask = np.array(table["bid"], float), np.array(table["ask"], float)
    streams = read_odds(quotes)
    good = np.isfinite(bid) & np.isfinite(ask) & (bid <= ask)
    assert len(streams) == 468
    assert sum(map(len, streams.values())) == int(good.sum()) == 181_022
    start, end = 1_784_309_169_000_000_000, 1_784_716_368_000_000_000  # 2026-07-17 17:26:09 and 07-22 10:32:48
    for columns in streams.values():
        stamps = columns.ts_event.astype(np.int64)
        assert np.all(np.diff(stamps) > 0)
        assert not np.any((stamps > start) & (stamps < end))
    alive = [c for c in streams.values() if len(c) and int(c.ts_event[0]) <= start and int(c.ts_event[-1]) >= end]
    assert len(alive) > 50
    for columns in alive:
        assert any(a <= start and b >= end for a, b in gaps(columns, 4 * 24 * 3600 * 10**9))
    markets = read_markets(shared_data("prediction_market", "pm_dev.markets.parquet"))
    chosen = select_markets(markets, category="crypto", keywords=["bitcoin"])
    assert len(chosen) > 10
    name = chosen[0].slug
    assert bits(PolymarketOdds(name).from_file(quotes).values) == bits(streams[name].values)
    filled = read_odds(quotes, [name], one_sided="fill")[name]
    assert len(filled) >= len(streams[name])


def test_real_up_down_markets_are_settled_when_the_price_arrived() -> None:
    feed = read_price_feed(shared_data("prediction_market", "BTCUSD-chainlink-1hz-2026-06-08.csv.gz"))
    markets = read_up_down_markets(shared_data("prediction_market", "btc_5m_markets_2026-06-08.parquet"))
    columns = feed.columns
    assert np.all(np.diff(columns.ts_init.astype(np.int64)) >= 0)
    assert np.all(columns.ts_init >= columns.ts_event)
    assert np.all(feed.measured_ns < columns.ts_event.astype(np.int64))  # nothing is known when it is measured
    agreed = priced = settled = 0
    for market in markets:
        settlement = market.settlement(feed)
        if settlement is None:
            continue
        settled += 1
        assert settlement.ts_event > market.end_ns
        if market.strike > 0.0:
            at = int(np.searchsorted(feed.measured_ns, market.end_ns))
            priced += 1
            agreed += (columns.values[at, 0] >= market.strike) == (settlement.outcome == 1.0)
    assert settled == 288
    assert agreed == priced == 284  # the price that we say decides does decide
    known = strikes(markets, feed)
    by_value = {m.strike: m for m in markets}
    assert all(int(ts) > by_value[v[0]].start_ns for ts, v in zip(known.ts_event, known.values, strict=True))
    assert PolymarketOdds().observations([], [], [], settlement=markets[5].settlement(feed)).values[0, 0] in (0.0, 1.0)


def test_price_feed_leaves_out_what_cannot_be(tmp_path) -> None:
    path = tmp_path / "feed.csv"
    write_csv(path, ["feed_ts_ms", "value", "server_ts_ms", "recv_ms"], [
        [1000, 5.0, 1100, 1200], [2000, 6.0, 2100, 2050], [3000, "nan", 3100, 3200], [4000, -1, 4100, 4200],
        [6000, 7.0, 6100, 6200], [5000, 8.0, 6150, 6300], [7000, 9.0, 7100, 7200]])  # fmt: skip
    feed = read_price_feed(path)
    assert feed.columns.values[:, 0].tolist() == [5.0, 7.0, 9.0]
    assert feed.columns.values[:, 1].tolist() == [0.1, 0.1, 0.1]
    assert feed.received(5500) == 1_200_000_000
    assert feed.received(1_000_000_001) == 6_200_000_000
    assert feed.received(8 * 10**9) is None
    market = UpDownMarket("m", 10**9, 7 * 10**9, 5.0, 1.0)
    assert market.settlement(feed) == Settlement(7_200_000_000, 1.0)
    assert market._replace(end_ns=8 * 10**9).settlement(feed) is None
    assert market._replace(up_won=NAN).settlement(feed) is None
    assert strikes([market, market._replace(strike=NAN)], feed).values[:, :2].tolist() == [[5.0, 5.8]]


def test_price_history_of_the_public_endpoint(tmp_path) -> None:
    path = tmp_path / "history.json"
    prices = [0.51, 0.535, 1.2, 0.4]
    rows = [{"t": 1717200000 + 60 * i, "p": price} for i, price in enumerate(prices)]
    path.write_text(json.dumps({"history": rows}), encoding="utf-8")
    found = read_price_history(path, delay_ns=5)
    assert found.ts_event.tolist() == [1717200000 * 10**9, 1717200060 * 10**9, 1717200180 * 10**9]
    assert (found.ts_init - found.ts_event).tolist() == [5, 5, 5]
    assert found.values[:, 0].tolist() == found.values[:, 1].tolist() == [0.51, 0.535, 0.4]
    assert np.isnan(found.values[:, 2:]).all()


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"history": 3}', '{"history": [{"t": 1}]}', '{"history": [{"t": "x", "p": 0.5}]}', '{"other": []}',
     '{"history": [{"t": -5, "p": 0.5}]}', '{"history": [{"t": 1e30, "p": 0.5}]}'],
)  # fmt: skip
def test_price_history_of_another_form_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "history.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataConversionError, match="must be"):
        read_price_history(path)
    with pytest.raises(DataConversionError, match="must be JSON"):
        read_price_history(tmp_path / "none.json")
