"""What holds for every external source: the table, states as bytes, damaged states, no pickles, bounded size."""

from __future__ import annotations

import copy
import math
import pickle

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features.external import (
    SOURCES,
    MacroEconomic,
    NewsNLP,
    PolymarketOdds,
    Regime,
    SourceCounters,
    create,
)
from tengri_fast.features.external.common import number, stamp_of, usable_time

KINDS = {"PolymarketOdds": PolymarketOdds, "NewsNLP": NewsNLP, "MacroEconomic": MacroEconomic, "Regime": Regime}


def busy(name: str):
    """A source of each kind in the middle of its work."""
    if name == "PolymarketOdds":
        source = PolymarketOdds("m", one_sided="fill", max_spread=0.9)
        for ts, bid in enumerate((0.4, math.nan, 0.6, 2.0), 1):
            source.push(ts, bid, 0.7)
        return source
    if name == "NewsNLP":
        source = NewsNLP("BTC", names=["Satoshi"], related=["lightning network"], memory=5, min_relevance=0.1)
        for ts in range(1, 9):
            source.push(ts, f"Bitcoin rises {ts} times on news {ts * ts} from Satoshi")
        return source
    source = (
        MacroEconomic("s", forecast="ar1", minimum=4, transform=5) if name == "MacroEconomic" else Regime(minimum=5)
    )
    for ts, value in enumerate(100 + np.random.default_rng(3).normal(size=20), 1):
        source.push(ts, float(value))
    return source


def push(source, ts: int):
    if isinstance(source, NewsNLP):
        return source.push(ts, f"Bitcoin falls {ts} times")
    return source.push(ts, 0.5, 0.6) if isinstance(source, PolymarketOdds) else source.push(ts, 101.0 + ts)


def test_the_table_of_sources() -> None:
    assert list(SOURCES) == ["PolymarketOdds", "NewsNLP", "MacroEconomic"]
    for name, info in SOURCES.items():
        source = create(name)
        assert (info.name, source.name, type(source)) == (name, name, KINDS[name])
        assert len(info.values) == len(info.units) == 4
        assert info.values[0]
        assert info.description
        assert info.max_age_ns >= 3600 * 10**9
        assert [bool(v) for v in info.values] == [bool(u) for u in info.units]
    with pytest.raises(TypeError):
        SOURCES["PolymarketOdds"] = SOURCES["NewsNLP"]
    assert create("MacroEconomic", forecast="random_walk").forecast == "random_walk"
    with pytest.raises(FeatureExtractionError, match="did you mean 'PolymarketOdds'"):
        create("PolymarketOdd")
    with pytest.raises(FeatureExtractionError, match=r"`parameters` of NewsNLP must fit: .*'speed'"):
        create("NewsNLP", speed=3)


@pytest.mark.parametrize("name", KINDS)
def test_state_as_bytes(name) -> None:
    source = busy(name)
    data = source.to_bytes()
    again = type(source).from_bytes(data)
    assert again.to_bytes() == data == source.copy().to_bytes()
    for ts in range(30, 40):
        assert np.array(push(source, ts)).tobytes() == np.array(push(again, ts)).tobytes()
    assert again.to_bytes() == source.to_bytes() != data
    assert type(source).from_bytes(data).to_bytes() == data  # the copy did not share anything
    source.reset()
    assert source.counters == SourceCounters()
    fresh = type(source).from_bytes(data)
    fresh.reset()
    assert fresh.to_bytes() == source.to_bytes()
    for action in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="does not pickle; use to_bytes"):
            action(source)


@pytest.mark.parametrize("name", KINDS)
def test_damaged_states(name) -> None:
    kind, data = KINDS[name], busy(name).to_bytes()
    whole = msgspec.msgpack.decode(data)
    changes = [{"version": 2}, {"kind": "Other"}, {"last_ts": -1}, {"last_ts": 2**63}, {"extra": 1},
               {"counters": {"accepted": -1}}, {"counters": {"accepted": "x"}}]  # fmt: skip
    changes += {
        "PolymarketOdds": [{"last": [0.9, 0.1]}, {"last": [math.nan, 0.5]}, {"max_spread": 7.0}, {"one_sided": "keep"}],
        "NewsNLP": [{"times": b"123"}, {"signatures": b""}, {"memory": 2}, {"memory": 10**9}, {"topic": "DOGE"}],
        "MacroEconomic": [{"pairs": [-1, 0.0, 0.0, 0.0, 0.0]}, {"surprises": [1, math.nan, 0.0]}, {"transform": 9},
                          {"levels": [math.inf, 1.0]}, {"surprises": [3, 0.0, -1.0]}],
        "Regime": [{"recent": [1.0] * 9}, {"mean": [1, 0.0]}, {"recent": [math.nan]}, {"lookback": 0}],
    }[name]  # fmt: skip
    for change in changes:
        with pytest.raises(FeatureExtractionError):
            kind.from_bytes(msgspec.msgpack.encode({**whole, **change}))
    for missing in whole:
        with pytest.raises(FeatureExtractionError, match=f"`data` must be a state of {name}"):
            kind.from_bytes(msgspec.msgpack.encode({k: v for k, v in whole.items() if k != missing}))
    for bad in (b"", b"\x00", data[:-1], data + b"\x00", b"\xff" * 100, "text", None):
        with pytest.raises(FeatureExtractionError, match="`data` must be"):
            kind.from_bytes(bad)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_random_damage_is_refused_or_harmless(name, data) -> None:
    raw = bytearray(busy(name).to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        source = KINDS[name].from_bytes(bytes(raw))
    except FeatureExtractionError:
        return
    values = push(source, 2**62)
    assert values is None or len(values) == 4
    assert KINDS[name].from_bytes(source.to_bytes()).to_bytes() == source.to_bytes()


@pytest.mark.parametrize("name", KINDS)
def test_size_does_not_grow(name) -> None:
    source = busy(name)
    sizes = []
    for ts in range(100, 400):
        push(source, ts)
        sizes.append(len(source.to_bytes()))
    assert max(sizes) <= sizes[0] + 64  # digits of the counters


def test_counters_add_up() -> None:
    source = busy("PolymarketOdds")
    assert source.counters.seen == 4
    assert source.counters.accepted + source.counters.invalid == 4
    assert set(source.counters.as_dict()) >= {"accepted", "invalid", "backward", "duplicate", "crossed"}


def test_numbers_and_stamps_of_anything() -> None:
    assert math.isnan(number("5"))
    assert math.isnan(number(10**400))
    assert number(np.float32(0.5)) == 0.5
    assert not usable_time(2.0)
    assert not usable_time(-1)
    assert usable_time(np.uint64(5))
    assert stamp_of("1700000000000000000") == (1_700_000_000_000_000_000, False)
    for value in ("", "20220105x", "99999999999999999999", "9" * 5000, True, 1.5, None, [], "0001-01-01T00:00+14:00"):
        assert stamp_of(value) == (-1, False), value
