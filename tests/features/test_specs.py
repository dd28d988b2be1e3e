"""Specs and plans: text, checks, hash, lookback."""

from __future__ import annotations

import numpy as np
import pytest
from feature_names import written
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import FEATURES, Clock, FeaturePlan, FeatureSpec, parse_spec
from tengri_fast.features.spec import STAGES, StageSpec
from tengri_fast.market.columns import ExternalColumns, QuoteColumns


def test_the_table_is_complete() -> None:
    assert len(FEATURES) >= 12
    for info in FEATURES.values():
        assert all((info.unit, info.needs, info.lookback, info.rule, info.source, info.description))
        plan = FeaturePlan([written(info.name)])
        text = plan.explain()
        for word in (info.name, info.unit, info.rule, info.source, plan.hash):
            assert word in text
        for parameter in info.parameters:
            assert parameter.low <= parameter.high


@pytest.mark.parametrize(
    ("text", "canonical", "short"),
    [
        ("rsi(14)", "rsi(period=14)", "rsi"),
        ("rsi", "rsi(period=14)", "rsi"),
        (" rsi( period = 9 ) ", "rsi(period=9)", "rsi(period=9)"),
        ("mid_return(5)", "mid_return(lag=5, capacity=4096)", "mid_return(lag=5)"),
        ("mid_return(lag='1500ms')", "mid_return(lag='1500ms', capacity=4096)", "mid_return(lag='1500ms')"),
        ("mid_return(lag='1.5s')", "mid_return(lag='1500ms', capacity=4096)", "mid_return(lag='1500ms')"),
        ("spread(tick=0.1)", "spread(tick=0.1)", "spread(tick=0.1)"),
        ("order_flow_imbalance(window='60s', levels=5)",
         "order_flow_imbalance(window='1m', levels=5, normalise=1, capacity=4096)",
         "order_flow_imbalance(window='1m', levels=5)"),
        ("order_flow_imbalance('1s', normalise=False)",
         "order_flow_imbalance(window='1s', levels=1, normalise=0, capacity=4096)",
         "order_flow_imbalance(normalise=0)"),
        ("ema_difference(fast='1s', slow='10s')", "ema_difference(fast='1s', slow='10s')",
         "ema_difference(fast='1s', slow='10s')"),
        ("last_move_direction(half_life='2s')", "last_move_direction(half_life='2s')",
         "last_move_direction(half_life='2s')"),
    ],
)  # fmt: skip
def test_text_and_back(text: str, canonical: str, short: str) -> None:
    spec = parse_spec(text)
    assert spec.canonical == canonical
    assert str(spec) == short
    assert parse_spec(spec.canonical) == parse_spec(str(spec)) == spec
    assert hash(parse_spec(canonical)) == hash(spec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rsy(14)", "did you mean `rsi`"),
        ("order_flow_inbalance", "did you mean `order_flow_imbalance`"),
        ("price", "must be in the feature table, was 'price'"),
        ("rsi(perod=3)", "`perod` is not a parameter of rsi; did you mean `period`"),
        ("imbalance(levels=3)", "`levels` is not a parameter of imbalance; known: none"),
        ("rsi(0)", "`period` of rsi must be a whole number from 1 to 1048576, was 0"),
        ("rsi(2.5)", "`period` of rsi must be a whole number from 1 to 1048576, was 2.5"),
        ("rsi(True)", "`period` of rsi must be a whole number"),
        ("rsi('1s')", "`period` of rsi must be a whole number"),
        ("rsi(1, 2)", "must have at most 1 parameters, had 2"),
        ("rsi(14, period=3)", "`period` of rsi must be given once"),
        ("mid_return(lag=0)", "`lag` of mid_return must be a count of events"),
        ("mid_return(lag='0s')", "`lag` of mid_return must be a count of events"),
        ("mid_return(lag='1ns')", "`lag` of mid_return must be a count of events"),
        ("mid_return(lag='8d')", "`lag` of mid_return must be a count of events"),
        ("mid_return(lag='1 fortnight')", "was '1 fortnight'"),
        ("mid_return(lag=None)", "`lag` of mid_return must be a count of events"),
        ("spread(tick=-1)", "`tick` of spread must be 0 or a number from 1e-12"),
        ("spread(tick=1e-13)", "`tick` of spread must be 0 or a number from 1e-12"),
        ("depth_imbalance(levels=11)", "`levels` of depth_imbalance must be a whole number from 1 to 10, was 11"),
        ("ema_difference(fast=30)", "`ema_difference` must keep its rule"),
        ("ema_difference(fast='1s')", "`ema_difference` must keep its rule"),
        ("rsi(__import__('os'))", "`spec` must look like"),
        ("rsi(*[1])", "`spec` must look like"),
        ("rsi(**{'period': 3})", "`spec` must look like"),
        ("a.b(3)", "`spec` must look like"),
        ("rsi(14", "`spec` must look like"),
        ("", "`spec` must look like"),
        ("rsi;imbalance", "`spec` must look like"),
        ("(" * 300, "`spec` must look like"),
        ("r" * 9_000, "at most 8000 characters"),
        ("rsi(period=14, period=20)", "`period` of rsi must be given once, was given twice"),
        ("rsi(name=3)", "`name` is not a parameter of rsi"),
        ("rsi(self=3)", "`self` is not a parameter of rsi"),
        ("rsi | clip(name=3)", "`name` is not a parameter of clip"),
        ("rsi(1" + "0" * 400 + ")", "`period` of rsi must be a whole number"),
        ("rsi(1e999)", "`period` of rsi must be a whole number"),
        ("rsi([14])", "`period` of rsi must be a whole number"),
        ("rsi('14|@')", "`period` of rsi must be a whole number from 1 to 1048576, was '14|@'"),
        ("rsi('\ud800')", "`spec` must look like"),
        ("rsi(14) @ 1M", "`clock` must be"),
        ("rsi(" + "-" * 7_000 + "1)", "`spec` must look like"),
    ],
)  # fmt: skip
def test_wrong_text_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(FeatureExtractionError, match=r"must|not a parameter") as caught:
        parse_spec(text)
    assert message in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=60)
    | st.sampled_from(list(FEATURES)).flatmap(
        lambda name: st.text("()=,.'\"0123456789abwindow slev-+e[]{}*", max_size=30).map(lambda rest: name + rest)
    )
)
def test_any_text_parses_or_raises_our_error(text: str) -> None:
    try:
        spec = parse_spec(text)
    except FeatureExtractionError:
        return
    assert parse_spec(spec.canonical) == spec


def some_value(parameter, rng: np.random.Generator):
    """A value that the rule of a parameter allows, as somebody would write it."""
    low, high = max(parameter.low, 1e-12), parameter.high
    if parameter.type == "instrument":
        return str(rng.choice(["ETHUSDT", "EUR/USD.SIM", "BTC-PERP.X"]))
    if parameter.type == "instruments":
        return tuple(f"LEG{i}.BINANCE" for i in range(rng.integers(1, 33)))
    if parameter.type == "source":
        return "odds:election-2024"
    if parameter.type == "flag":
        return int(rng.integers(0, 2))
    if parameter.type == "any":
        return float(rng.normal(0.0, 1e3))
    if parameter.type == "count":
        return int(min(np.exp(rng.uniform(np.log(max(low, 1)), np.log(high))) // 1, high))
    if parameter.type == "number":
        wild = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return rng.choice([min(max(wild, low), high), low, high, max(low, min(high, 0.1))]).item()
    if parameter.type == "window" and rng.random() < 0.5:
        return int(rng.integers(1, 1_000))
    span = int(np.exp(rng.uniform(np.log(max(parameter.low, 1e3)), np.log(high))))
    return f"{span}ns" if rng.random() < 0.5 else f"{max(span // 10**9, 1)}s"


def test_every_row_survives_as_text() -> None:
    """Features with every stage on every kind of clock: what is written is read back as the same numbers."""
    rng = np.random.default_rng(17)
    clocks = ["event", "1ms", "7d", "90s", "1m trades", "1 ticks", "500 trades", "1e-9 volume", "0.1 volume",
              "123456789.125 notional", "1e18 notional", "2 imbalance", "bars"]  # fmt: skip
    made = 0
    for _ in range(4):
        for name, info in FEATURES.items():
            stages = tuple(
                StageSpec(stage, **{p.name: some_value(p, rng) for p in STAGES[stage].parameters})
                for stage in rng.choice(list(STAGES), rng.integers(0, 4))
            )
            params = {p.name: some_value(p, rng) for p in info.parameters if p.outside or rng.random() < 0.7}
            try:
                spec = FeatureSpec(name, clock=str(rng.choice(clocks)), stages=stages, **params)
            except FeatureExtractionError as error:
                assert "must keep its rule" in str(error)  # noqa: PT017 (a rule between two parameters)
                continue
            made += 1
            for text in (spec.canonical, str(spec)):
                again = parse_spec(text)
                assert again == spec
                assert (again.values, again.clock, again.stages) == (spec.values, spec.clock, spec.stages), text
                assert (again.canonical, str(again), again.lookback) == (spec.canonical, str(spec), spec.lookback)
    assert made > 3 * len(FEATURES)


def test_objects_of_wrong_types_are_refused() -> None:
    for call, message in (
        (lambda: FeatureSpec("rsi", clock=3), "`clock` of rsi must be a Clock or its text, was 3"),
        (lambda: FeatureSpec("rsi", clock=Clock("moon", False, 1.0)), "`clock` of rsi must be a Clock"),
        (lambda: FeatureSpec("rsi", clock=Clock("time", False, -1.0)), "`clock`"),
        (lambda: FeatureSpec("rsi", clock=Clock("time", False, np.nan)), "`clock` of rsi must be a Clock"),
        (lambda: FeatureSpec("rsi", clock=Clock("time", False, "x")), "`clock` of rsi must be a Clock"),
        (lambda: FeatureSpec("rsi", clock=Clock("volume", False, 5.0)), "`clock` of rsi must be a Clock"),
        (lambda: FeatureSpec("rsi", stages="clip(3)"), "`stages` of rsi must be a sequence"),
        (lambda: FeatureSpec("rsi", stages=3), "`stages` of rsi must be a sequence"),
        (lambda: FeatureSpec("rsi", stages=(3,)), "`stages` of rsi must hold StageSpec or text, held 3"),
        (lambda: FeatureSpec("rsi", period=np.array([1, 2])), "`period` of rsi must be a whole number"),
        (lambda: FeaturePlan(None), "`specs` must be a sequence"),
        (lambda: FeaturePlan("rsi", (1, 2)), "`normalisation` must be (mean, scale, clip)"),
        (lambda: FeaturePlan("rsi", ("a", 1, 1)), "`mean` must be a number or 1 numbers"),
        (lambda: FeaturePlan("rsi").normalise(np.zeros(3)), "`values` must have 2 dimensions, had 1"),
    ):
        with pytest.raises(FeatureExtractionError) as caught:
            call()
        assert message in str(caught.value)


def test_most_clocks_in_a_plan() -> None:
    assert FeaturePlan([f"rsi @ {k}s" for k in range(1, 32)] + ["rsi"]).width == 32
    assert FeaturePlan([f"rsi({n}) @ {k}s" for k in range(1, 32) for n in (5, 9)]).width == 62
    with pytest.raises(FeatureExtractionError, match="at most 31 clocks beside the event clock, had 32"):
        FeaturePlan([f"rsi @ {k}s" for k in range(1, 33)])


def test_most_columns_in_a_plan() -> None:
    plan = FeaturePlan([f"rsi({n})" for n in range(1, 1_025)])
    state = plan.state()
    for k in range(3):
        state.update_quote(100.0 + k, 101.0 + k, 1, 1, k)
    assert state.row()[:2].tolist() == [100.0, 100.0]
    assert state.ready_columns.tolist() == [True, True] + [False] * 1_022
    with pytest.raises(FeatureExtractionError, match="1 to 1024 entries, had 1025"):
        FeaturePlan([f"rsi({n})" for n in range(1, 1_026)])


def test_plan_checks() -> None:
    for specs, message in (
        ([], "`specs` must have 1 to 1024 entries, had 0"),
        (["rsi", "rsi(14)"], "must not repeat a feature, had rsi twice"),
        ([3], "must hold FeatureSpec or text, held int"),
    ):
        with pytest.raises(FeatureExtractionError, match="`specs` must") as caught:
            FeaturePlan(specs)
        assert message in str(caught.value)
    plan = FeaturePlan(["rsi", FeatureSpec("imbalance")])
    assert (plan.width, len(plan), plan.names) == (2, 2, ("rsi", "imbalance"))
    for bad, message in (
        ((0.0, 0.0, 1.0), "`scale[0]` must be finite and > 0, was 0.0"),
        ((0.0, [1.0, np.nan], 1.0), "`scale[1]` must be finite"),
        ((np.inf, 1.0, 1.0), "`mean[0]` must be finite"),
        (([0.0], 1.0, 1.0), "`mean` must have 2 entries"),
        ((0.0, 1.0, -1.0), "`clip[0]` must be finite and >= 0"),
    ):
        with pytest.raises(FeatureExtractionError, match="must") as caught:
            plan.with_normalisation(*bad)
        assert message in str(caught.value)


def test_hash_is_of_the_specs_alone() -> None:
    plan = FeaturePlan(["rsi", "spread"])
    assert plan.hash == FeaturePlan(["rsi(period=14)", "spread(tick=0)"]).hash
    assert plan.hash == plan.with_normalisation(1.0, 2.0, 3.0).hash
    others = [FeaturePlan(s).hash for s in (["spread", "rsi"], ["rsi"], ["rsi(15)", "spread"])]
    assert len({plan.hash, *others}) == 4
    assert len(plan.hash) == 64


def test_lookback_says_when_a_plan_becomes_ready() -> None:
    for text in ("rsi(5)", "mid_return(lag=7)", "realized_volatility(window=9)", "ema_difference(fast=2, slow=6)",
                 "order_flow_imbalance(window=4)", "imbalance"):  # fmt: skip
        plan = FeaturePlan([text])
        state = plan.state()
        for k in range(1, plan.lookback.events + 1):
            assert not state.ready, text
            state.update_quote(100.0 + k % 2, 102.0, 1, 1, k)
        assert state.ready, text
    plan = FeaturePlan(["realized_volatility(window='3s')", "trade_intensity(half_life='2s')"])
    assert plan.lookback == (1, 3_000_000_000)
    state = plan.state()
    state.update_quote(100, 101, 1, 1, 10**9)
    state.update_quote(100, 101, 1, 1, 4 * 10**9 - 1)
    assert not state.ready
    state.update_quote(100, 101, 1, 1, 4 * 10**9)
    assert state.ready


def test_specs_are_immutable_and_survive_as_text() -> None:
    spec = parse_spec("rsi(9)")
    with pytest.raises(AttributeError, match="immutable"):
        spec.lookback = (0, 0)
    with pytest.raises(AttributeError, match="immutable"):
        del spec.lookback
    assert parse_spec(spec.canonical) == spec
    assert spec.params == {"period": 9.0}


def test_compute_checks() -> None:
    plan = FeaturePlan("imbalance")
    name = next(name for name, info in FEATURES.items() if any(p.type == "source" for p in info.parameters))
    odds = FeaturePlan([f"{name}(source='x')"])
    ts = np.array([1, 2], np.uint64)
    early = ExternalColumns(ts + 1, ts, np.full((2, 1), 0.5))
    quotes = QuoteColumns(ts, ts, ts, ts + 1, ts, ts)
    for call, message in (
        (lambda: plan.compute(quotes, clock="tick"), "`clock` must be one of trade, quote, depth, bar, was 'tick'"),
        (lambda: plan.compute(quotes, clock="trade"), "`clock` must name a stream that is given"),
        (lambda: plan.compute(quotes, quotes), "`trades` must be TradeColumns, was QuoteColumns"),
        (lambda: plan.compute(quotes, state=FeaturePlan("rsi").state()), "`state` must belong to plan"),
        (lambda: plan.normalise(np.zeros((2, 3))), "`values` must have 1 columns, had 3"),
        (lambda: plan.compute(quotes, legs=[("ETHUSDT", quotes)]), "`legs` must map names to QuoteColumns, was list"),
        (lambda: plan.compute(quotes, legs={"ETHUSDT": quotes}), "`legs` must name what the plan reads (nothing)"),
        (lambda: odds.compute(quotes, external={"x": quotes}), "`external['x']` must be ExternalColumns"),
        (lambda: odds.compute(quotes, external={"x": early}), "must not be received before its publication"),
    ):
        with pytest.raises(FeatureExtractionError) as caught:
            call()
        assert message in str(caught.value)
    empty = plan.compute(quotes[:0])
    assert empty.values.shape == (0, 1)
    assert len(plan.compute(quotes).ts) == 2


@pytest.mark.parametrize(
    ("text", "is_price"),
    [("sma(20)", True), ("sma(20) | clip(5)", True), ("sma(20) | lag(1)", True), ("sma(20) | to_mid", False),
     ("sma(20) | to_mid | clip(5)", False), ("sma(20) | zscore(50)", False), ("mid | difference(1)", False),
     ("atr(14)", True), ("natr(14)", False), ("true_range", False), ("true_range(relative=0)", True),
     ("macd(relative=0)", True), ("macd", False), ("rsi", False)],
)  # fmt: skip
def test_what_is_a_price_level(text: str, is_price: bool) -> None:
    assert parse_spec(text).is_price == is_price
