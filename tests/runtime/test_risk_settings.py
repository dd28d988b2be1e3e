"""``[risk]`` of a configuration as the structures of the gate."""

from __future__ import annotations

import pytest

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk.limits import RiskLimits
from tengri_fast.runtime.config import TengriConfig, parse_config
from tengri_fast.runtime.risk_settings import buckets_of, limits_of, stressed, var_of
from tengri_fast.runtime.schema_risk import LIMITS, RiskSection

HEAD = '[strategy]\ninstrument_id = "BTCUSDT-PERP.BINANCE"\n[neural]\nmodels = [{ type = "LSTM", config = "m.toml" }]\n'


def config(text: str) -> TengriConfig:
    return parse_config(HEAD + text)


EVERYTHING = """
[risk]
max_order_notional = 100_000
max_order_quantity = "2.5"
max_position = 5
price_collar_bps = 50
collar_reference = "last"
collar_window = "1m"
stale_quote = "5s"
max_spread_bps = 20
max_order_rate = "100/1s"
max_message_rate = "500/1m"
rate_reserve = 7
duplicate_window = "250ms"
max_repeated_executions = 20
repeat_window = "30s"
max_rejects = 5
max_working_orders = 40
max_working_notional = "1_000_000"
self_trade = "deny"
max_gross_exposure = "300%"
max_net_exposure = 250_000.5
max_concentration = 0.5
max_leverage = 4
max_margin_use = 0.8
max_portfolio_var = 0.05
max_portfolio_es = 0.07
max_stress_loss = 0.25
max_daily_loss = 0.02
max_drawdown = 0.1
day_boundary = "22:00"
allow = ["BTCUSDT-PERP.BINANCE"]
deny = ["ETHUSDT-PERP.BINANCE"]
max_rung = 1
max_out_of_distribution = 4.5
min_confidence = 0.4
max_signal_age = "2s"
warn_at = [0.5, 0.9]
scoped = [
    { scope = "venue:BINANCE", measure = "gross_exposure", limit = "150%", soft = "100%" },
    { scope = "strategy:S-1", measure = "order_rate", limit = "10/1s" },
    { scope = "bucket:coins", measure = "net_exposure", limit = 1e6 },
]
window = [{ venue = "X", days = ["mon"], opens = "09:30", closes = "16:00", time_zone = "America/New_York" }]
bucket = [{ name = "coins", instruments = ["BTCUSDT-PERP.BINANCE", "ETHUSDT-PERP.BINANCE"] }]
[risk.var]
method = "age_weighted"
decay = 0.98
level = 0.975
[risk.scenarios]
keep = "prices.npz"
[risk.audit]
path = "audit.log"
sync = "order"
"""


def test_every_key_reaches_the_gate() -> None:
    risk = config(EVERYTHING).risk
    limits = limits_of(risk)
    unset = RiskLimits(max_order_notional=1.0)
    same = [
        name
        for name in RiskLimits.__struct_fields__
        if name != "max_order_notional" and getattr(limits, name) == getattr(unset, name)
    ]
    assert same == []
    assert limits.max_gross_exposure == "300%"
    assert limits.max_net_exposure == 250_000.5
    assert limits.max_working_notional == 1e6
    assert limits.max_order_quantity == 2.5
    assert limits.collar_window == 60 * 10**9
    assert [(each.scope, each.limit, each.soft) for each in limits.scoped] == [
        ("venue:BINANCE", "150%", "100%"),
        ("strategy:S-1", "10/1s", None),
        ("bucket:coins", 1e6, None),
    ]
    assert limits.window[0].time_zone == "America/New_York"
    assert buckets_of(risk) == {"BTCUSDT-PERP.BINANCE": "coins", "ETHUSDT-PERP.BINANCE": "coins"}
    var = var_of(risk, "USDT")
    assert var is not None
    assert (var.method, var.level, var.base_currency) == ("age_weighted", 0.975, "USDT")
    assert set(LIMITS) <= set(risk.limits)


def test_a_configuration_survives_being_written_and_read() -> None:
    one = config(EVERYTHING)
    assert TengriConfig.from_dict(one.to_dict()).risk == one.risk
    assert parse_config(one.to_toml()).risk == one.risk


def test_every_limit_of_the_section_is_a_field_of_the_limits() -> None:
    assert set(LIMITS) <= set(RiskLimits.__struct_fields__)
    assert set(RiskLimits.__struct_fields__) <= set(RiskSection.__struct_fields__)


def test_stress_is_three_times_the_value_at_risk_unless_it_is_given() -> None:
    asked = config("[risk]\nmax_portfolio_var = 0.05\nneural_stress_testing = true\n").risk
    assert stressed(asked) == pytest.approx(0.15)
    assert asked.limits == ("max_portfolio_var", "max_stress_loss")
    given = config("[risk]\nmax_portfolio_var = 0.05\nmax_stress_loss = 0.1\nneural_stress_testing = true\n").risk
    assert stressed(given) == 0.1
    assert stressed(config("[risk]\nmax_portfolio_var = 0.05\n").risk) is None


def test_no_scenarios_are_asked_for_where_no_limit_needs_them() -> None:
    assert var_of(config("[risk]\nmax_position = 1\n").risk, "USD") is None
    assert var_of(config("[risk]\nmax_stress_loss = 0.2\n").risk, "USD") is not None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_gross_exposure = 0", 'risk.max_gross_exposure must be an amount > 0 or a share of equity such as "150%"'),
        ('max_gross_exposure = "15x%"', "risk.max_gross_exposure must be an amount > 0"),
        ('max_gross_exposure = "0%"', "risk.max_gross_exposure must be > 0"),
        ('max_order_rate = "100"', 'risk.max_order_rate must be a number and a time, such as "100/1s"'),
        ('max_position = 1\nday_boundary = "25:00"', 'risk.day_boundary must be a time such as "09:30"'),
        ("max_position = 1\nwarn_at = [0.9, 0.5]", "risk.warn_at must be at most 8 rising shares"),
        ('max_position = 1\nscoped = [{ scope = "x", measure = "position", limit = 1 }]', "risk.scoped.scope must be"),
        (
            'max_position = 1\nscoped = [{ scope = "portfolio", measure = "nose", limit = 1 }]',
            "risk.scoped.measure must be",
        ),
        (
            'max_position = 1\nwindow = [{ opens = "09:00" }]',
            "risk.window must name either a `venue` or an `instrument`",
        ),
        ('max_position = 1\nwindow = [{ venue = "X", time_zone = "Nowhere/Else" }]', "Nowhere/Else"),
        ("max_position = 1\nneural_stress_testing = true", "needs max_stress_loss or max_portfolio_var"),
        (
            'max_position = 1\nbucket = [{ name = "a", instruments = ["X.Y"] }, { name = "b", instruments = ["X.Y"] }]',
            'risk.bucket[1].instruments[0] must be in one bucket, was "X.Y" again',
        ),
        ("max_position = 1\n[risk.var]\ndecay = 0.9", "risk.var.decay needs the method"),
        ('max_position = 1\n[risk.audit]\nsync = "often"', 'risk.audit.sync must be one of "100ms", "none", "order"'),
        ('max_position = 1\n[risk.scenarios]\nsource = "file"\npath = "a"\nkeep = "b"', "risk.scenarios.keep needs"),
    ],
)
def test_a_broken_rule_names_its_key(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config("[risk]\n" + text + "\n")
    assert told in str(caught.value)
