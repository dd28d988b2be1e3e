"""Live equals research bit for bit: every feature, clock and stage, on every set, in chunks of 1, 7, 100 and all."""

from __future__ import annotations

import numpy as np
import pytest
from feature_names import EVERY
from support import sample_data, shared_data

pytest.importorskip("pyarrow", reason="the sets are Parquet files")

from tengri_fast.features import STAGES, FeaturePlan
from tengri_fast.market import read_market
from tengri_fast.market.columns import ExternalColumns, QuoteColumns, merge_order

CLOCKS = ("500ms", "1s trades", "9 ticks", "5 trades", "50 volume", "1e5 notional", "6 imbalance")
SETS = {
    "sample": "",
    "binance spot": "tick/binance/binance_spot_ethusdt_20240808",
    "binance coin": "tick/binance/binance_cm_btcusd_perp_20240808",
    "binance 100 ms": "tick/binance/binance_fut_btcusdt_20260216",
    "shfe": "tick/shfe_rb/shfe_rb2510_20250605",
    "cme fx": "tick/cme/cme_6b_jun23_20230503",
    "cme ether": "tick/cme/cme_ethfut_sep23_20230804",
    "gemini": "tick/gemini/gemini_ethusd_20210701",
    "lobster": "tick/lobster/lobster_amzn_20120621",
    "us": "tick/us_equity/us_ibm_20131007",
    "sgx": "tick/sgx/sgx_cn_20140109",
    "fxcm": "tick/fx/fxcm_eurusd_20140505",
}
ROWS = 700


def plan() -> FeaturePlan:
    """Every feature on the event clock, each once more on a clock of bars and behind a stage."""
    stages = [name for name in STAGES if name not in {"zscore", "robust", "rank", "minmax"}]
    windows = [f"{name}(16)" for name in ("zscore", "robust", "rank", "minmax")]
    steps = [*stages, *windows]
    mixed = [f"{text} @ {CLOCKS[i % len(CLOCKS)]} | {steps[i % len(steps)]}" for i, text in enumerate(EVERY)]
    return FeaturePlan([*EVERY, *mixed])


def streams_of(name: str):
    """Quotes, trades and depth of a set, cut to the same short span."""
    if name == "sample":
        paths = [sample_data(f"binance_usdm_btcusdt_20230404.{kind}.parquet") for kind in ("quotes", "trades")]
    else:
        stem = SETS[name]
        folder = shared_data(*stem.split("/")[:-1])
        paths = sorted(folder.glob(f"{stem.split('/')[-1]}.*.parquet"))
        assert paths, f"{folder} must hold {stem}"
    found = {}
    for path in paths:
        columns = read_market(path)
        for kind in ("quotes", "trades", "depth"):
            if getattr(columns, kind) is not None:
                found[kind] = getattr(columns, kind)
    book = "depth" if "quotes" not in found else "quotes"
    begin = len(found[book]) // 3
    first, last = found[book].ts_init[begin], found[book].ts_init[min(begin + ROWS, len(found[book]) - 1)]
    cut = {}
    for kind, columns in found.items():
        inside = np.searchsorted(columns.ts_init, [first, last])
        cut[kind] = columns[int(inside[0]) : int(inside[1])][:ROWS]
    return cut, book


def outside_of(quotes: QuoteColumns):
    """Two other instruments and a source in between; made of the set itself."""
    other = QuoteColumns(quotes.ts_event[::2], quotes.ts_init[::2], *(getattr(quotes, field)[::2] * 1.01 for field in
                         ("bid_price", "ask_price", "bid_size", "ask_size")))  # fmt: skip
    at = quotes.ts_init[::50]
    rng = np.random.default_rng(1)
    values = np.column_stack(
        [rng.uniform(0.1, 0.5, len(at)), rng.uniform(0.5, 0.9, len(at)), rng.uniform(0, 1, len(at))]
    )
    return {"OTHER": other, "THIRD": quotes[5::3]}, {"SOURCE": ExternalColumns(at, at, values)}


def live(made: FeaturePlan, cut, legs, external, book: str):
    state, rows = made.state(), []
    kinds = [cut.get(kind) for kind in ("trades", "quotes", "depth")]
    streams = [*kinds, None, *(legs[name] for name in made.legs), *(external[name] for name in made.sources)]
    order = merge_order(*(np.empty(0, np.uint64) if s is None else s.ts_init for s in streams))
    for source, i in zip(order.source.tolist(), order.row.tolist(), strict=True):
        s, ts = streams[source], int(streams[source].ts_event[i])
        if source == 0:
            state.update_trade(s.price[i], s.size[i], s.aggressor[i], ts)
        elif source == 1:
            ok = state.update_quote(s.bid_price[i], s.ask_price[i], s.bid_size[i], s.ask_size[i], ts)
        elif source == 2:
            ok = state.update_depth(s.bid_price[i], s.bid_size[i], s.ask_price[i], s.ask_size[i], ts)
        elif source < 4 + len(made.legs):
            state.update_leg(made.legs[source - 4], s.bid_price[i], s.ask_price[i], ts)
        else:
            state.update_external(made.sources[source - 4 - len(made.legs)], list(s.values[i]), ts)
        if source == (1 if book == "quotes" else 2) and ok:
            rows.append(state.row())
    return state, np.array(rows)


def chunked(made: FeaturePlan, cut, legs, external, book: str, size: int):
    """The same through arrays, so many events at a time, in the order in which they are merged."""
    state, parts = made.state(), []
    pool = {kind: cut[kind] for kind in ("trades", "quotes", "depth") if kind in cut}
    pool |= {("leg", name): legs[name] for name in made.legs} | {
        ("source", name): external[name] for name in made.sources
    }
    order = merge_order(*(stream.ts_init for stream in pool.values()))
    for begin in range(0, len(order.row), size):
        part, got = slice(begin, begin + size), {}
        for number, (key, stream) in enumerate(pool.items()):
            rows = order.row[part][order.source[part] == number]
            got[key] = stream[int(rows[0]) : int(rows[-1]) + 1] if len(rows) else stream[:0]
        out = made.compute(got.get("quotes"), got.get("trades"), got.get("depth"), book.removesuffix("s"),
                           legs={name: got["leg", name] for name in made.legs},
                           external={name: got["source", name] for name in made.sources}, state=state)  # fmt: skip
        parts.append(out.values)
    return state, np.concatenate(parts)


@pytest.mark.parametrize("name", SETS)
def test_live_is_research(name: str) -> None:
    cut, book = streams_of(name)
    quotes = cut.get("quotes")
    if quotes is None:
        d = cut["depth"]
        first = (
            np.ascontiguousarray(getattr(d, field)[:, 0])
            for field in ("bid_price", "ask_price", "bid_size", "ask_size")
        )
        quotes = QuoteColumns(d.ts_event, d.ts_init, *first)
    made = plan()
    legs, external = outside_of(quotes)
    whole = made.compute(cut.get("quotes"), cut.get("trades"), cut.get("depth"),
                         book.removesuffix("s"), legs=legs, external=external)  # fmt: skip
    state, rows = live(made, cut, legs, external, book)
    assert len(rows) > 300
    assert rows.tobytes() == whole.values.tobytes()
    assert state.counters == whole.counters
    assert np.isfinite(rows).all()
    for size in (7, 100) if name != "sample" else (1, 7, 100):
        chunk_state, chunk_rows = chunked(made, cut, legs, external, book, size)
        assert chunk_rows.tobytes() == whole.values.tobytes(), size
        assert chunk_state.to_bytes() == state.to_bytes(), size
