"""Limits refuse nonsense, durations are exact, violations read well."""

from __future__ import annotations

import math

import msgspec
import pytest

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk import InstrumentFacts, RiskLimits, VarSettings, Verdict, Violation
from tengri_fast.risk._units import duration_ns


def test_a_gate_without_any_limit_is_refused():
    with pytest.raises(ConfigurationError, match="at least one of"):
        RiskLimits()
    with pytest.raises(ConfigurationError, match="at least one of"):
        RiskLimits(stale_quote="5s")  # an age check limits nothing by itself


@pytest.mark.parametrize("field", ["max_order_notional", "max_position", "price_collar_bps", "max_portfolio_var"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_limits_must_be_positive_and_finite(field, value):
    with pytest.raises(ConfigurationError, match=f"`{field}` must be finite and > 0, was"):
        RiskLimits(**{field: value})


def test_position_limits_per_instrument():
    limits = RiskLimits(max_position={"A": 5.0})
    assert limits.position_limit("A") == 5.0
    assert limits.position_limit("B") == 0.0  # forgotten is not unlimited
    assert RiskLimits(max_position={"A": 5.0, "*": 2.0}).position_limit("B") == 2.0
    assert RiskLimits(max_position=3.0).position_limit("B") == 3.0
    assert RiskLimits(price_collar_bps=3.0).position_limit("B") is None
    with pytest.raises(ConfigurationError, match=r"max_position\.A"):
        RiskLimits(max_position={"A": -1.0})
    with pytest.raises(ConfigurationError, match="at least one instrument"):
        RiskLimits(max_position={})


def test_limits_decode_from_a_table_and_refuse_unknown_keys():
    limits = msgspec.convert({"max_order_notional": 100_000, "stale_quote": "250ms"}, RiskLimits)
    assert limits.max_order_notional == 100_000.0
    assert limits.stale_quote_ns == 250_000_000
    with pytest.raises(msgspec.ValidationError, match="max_order_notionl"):
        msgspec.convert({"max_order_notionl": 1.0}, RiskLimits)
    with pytest.raises(msgspec.ValidationError, match="max_position"):
        msgspec.convert({"max_position": "lots"}, RiskLimits)


@pytest.mark.parametrize(
    ("text", "ns"),
    [("5s", 5 * 10**9), ("100ms", 10**8), ("1d", 86_400 * 10**9), ("1.5m", 90 * 10**9), (" 7 us ", 7000), (42, 42)],
)
def test_durations(text, ns):
    assert duration_ns("x", text) == ns


def test_long_durations_in_ns_stay_exact():
    assert duration_ns("x", "9007199254740993ns") == 9007199254740993


@pytest.mark.parametrize("bad", ["", "5", "5 weeks", "-5s", "0s", 0, -1, "nan s", True, 1.5, None])
def test_bad_durations_name_the_field(bad):
    with pytest.raises(ConfigurationError, match="`stale_quote` must be"):
        duration_ns("stale_quote", bad)


def test_violation_text():
    assert Violation("MAX_ORDER_NOTIONAL", 3_355_000.0, 100_000.0).text() == (
        "TENGRI_RISK:MAX_ORDER_NOTIONAL value=3355000 limit=100000"
    )
    assert Violation("KILLED", detail="desk: fat finger").text() == "TENGRI_RISK:KILLED (desk: fat finger)"
    assert Violation("X", 0.0712345, 0.05, "d").text() == "TENGRI_RISK:X value=0.0712345 limit=0.05 (d)"
    assert Violation("X", math.inf).text() == "TENGRI_RISK:X value=inf"
    assert Verdict(False, False, (Violation("A"), Violation("B"))).text() == "TENGRI_RISK:A; TENGRI_RISK:B"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instrument_id": ""}, "instrument_id"),
        ({"payoff": "quadratic"}, "payoff"),
        ({"multiplier": 0.0}, "multiplier"),
        ({"multiplier": math.nan}, "multiplier"),
        ({"price_increment": -0.1}, "price_increment"),
        ({"size_increment": math.inf}, "size_increment"),
        ({"min_quantity": 2.0, "max_quantity": 1.0}, "max_quantity"),
        ({"settlement_currency": ""}, "settlement_currency"),
        ({"margin_rate": -0.1}, "margin_rate"),
        ({"margin_rate": math.nan}, "margin_rate"),
        ({"short": "maybe"}, "short"),
    ],
)
def test_facts_are_checked(change, words):
    with pytest.raises(ConfigurationError, match=f"`{words}` must"):
        InstrumentFacts(**{"instrument_id": "A", **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"level": 1.0}, "level"),
        ({"level": 0.4}, "level"),
        ({"level": math.nan}, "level"),
        ({"horizon": "soon"}, "horizon"),
        ({"scenarios": 99}, "`scenarios` must be >= 100"),
        ({"method": "guess"}, "method"),
        ({"base_currency": ""}, "base_currency"),
        ({"tail": "fat"}, "`tail` must be one of empirical"),
    ],
)
def test_var_settings_are_checked(change, words):
    with pytest.raises(ConfigurationError, match=words):
        VarSettings(**change)


def test_var_settings_horizon_and_fewest_scenarios():
    assert VarSettings(horizon="60s").horizon_ns == 60 * 10**9
    assert VarSettings(level=0.975).min_scenarios == 40
    assert VarSettings(level=0.95).min_scenarios == 20


def test_the_venue_of_an_instrument():
    assert InstrumentFacts("BTCUSDT-PERP.BINANCE").venue_name == "BINANCE"
    assert InstrumentFacts("BRK.B.XNYS").venue_name == "XNYS"
    assert InstrumentFacts("BTC").venue_name == ""
    assert InstrumentFacts("BTC.X", venue="Y").venue_name == "Y"


def test_a_method_brings_its_tail() -> None:
    assert VarSettings(method="normal").tail == "normal"
    assert VarSettings(method="cornish_fisher").tail == "cornish_fisher"
    assert VarSettings(method="filtered").tail == "empirical"
    assert VarSettings(tail="normal").tail == "normal"
