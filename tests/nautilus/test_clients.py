"""``[data_sources]`` to client configurations: who serves what, with which keys, and what is refused."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")

from config_files import USER_FILE

from tengri_fast.errors import ConfigurationError, MissingExtraError
from tengri_fast.nautilus.clients import plan_clients
from tengri_fast.runtime.config import TengriConfig, parse_config

SECRET = "s3cr3t-value-that-is-never-shown"


def config_of(sources: str, instrument: str = "BTCUSDT.BINANCE") -> TengriConfig:
    return parse_config(
        f'strategy.instrument_id = "{instrument}"\n'
        'neural.models = [{ type = "LSTM", config = "m.toml" }]\n'
        f"risk.max_position = 1\n[data_sources]\n{sources}\n"
    )


def names(config: TengriConfig, environ: dict[str, str] | None = None) -> dict[str, Any]:
    return {plan.name: plan for plan in plan_clients(config, environ or {})}


def test_the_file_of_the_specification() -> None:
    config = parse_config(USER_FILE)
    assert config.data_sources.historical_depth == 30 * 86_400 * 10**9
    if importlib.util.find_spec("py_clob_client_v2") is None:
        with pytest.raises(MissingExtraError, match=r"pip install 'tengri_fast\[polymarket\]'"):
            names(config)
        config = parse_config(USER_FILE, overrides=["data_sources.polymarket.enabled=false"])
    found = names(config)
    assert {"BINANCE", "BINANCE_USDM", "DATABENTO", "TARDIS"} <= set(found)
    assert found["BINANCE"].account_type == "SPOT"
    assert found["BINANCE"].instruments == ("BTCUSDT.BINANCE",)
    assert found["BINANCE"].missing == ()  # public data need no key
    assert found["DATABENTO"].missing == ("DATABENTO_API_KEY",)
    assert found["TARDIS"].missing == ("TARDIS_API_KEY", "TARDIS_MACHINE_WS_URL")


@pytest.mark.parametrize(
    ("sources", "instrument", "market", "endpoint"),
    [
        ("binance = { spot = true }", "BTCUSDT.BINANCE", "SPOT", "https://api.binance.com"),
        ("binance = { futures = true }", "BTCUSDT-PERP.BINANCE", "USDT_FUTURES", "https://fapi.binance.com"),
        (
            'binance = { futures = true, futures_accounts = ["usdm", "coinm"] }',
            "BTCUSD-PERP.BINANCE",
            "COIN_FUTURES",
            "https://dapi.binance.com",
        ),
        (
            'binance = { spot = true, environment = "testnet" }',
            "BTCUSDT.BINANCE",
            "SPOT",
            "https://testnet.binance.vision",
        ),
    ],
)
def test_binance_markets(sources: str, instrument: str, market: str, endpoint: str) -> None:
    plan = names(config_of(sources, instrument))["BINANCE"]
    assert (plan.account_type, plan.endpoints[0]) == (market, endpoint)
    assert plan.instruments == (instrument,)
    assert plan.config.account_type.value == market
    assert {item.value for item in plan.config.instrument_provider.load_ids} == {instrument}


@pytest.mark.parametrize(
    ("sources", "instrument", "message"),
    [
        ("binance = { futures = true }", "BTCUSDT.BINANCE", "needs data_sources.binance with spot = true"),
        ("binance = {}", "BTCUSDT.BINANCE", "must have spot = true or futures = true, had neither"),
        (
            'binance = { spot = true, futures = true, instruments = ["ETHUSDT-PERP.BINANCE"] }',
            "BTCUSDT.BINANCE",
            r"instruments\[0\] must be an instrument of spot, is one of usdm",
        ),
        (
            'binance = { spot = true, instruments = ["ETHUSDT.KRAKEN"] }',
            "BTCUSDT.BINANCE",
            "must have one of the venues BINANCE, was ETHUSDT.KRAKEN",
        ),
        ("databento = { enabled = true }", "ESH4.GLBX", "must name at least one feed"),
        (
            'databento = { feeds = ["XNAS.ITCH"], instruments = ["ESH4.GLBX"] }',
            "AAPL.XNAS",
            "must be of one of the feeds XNAS.ITCH, belongs to GLBX.MDP3",
        ),
        ('databento = { feeds = ["XNAS.ITCH"] }', "ESH4.GLBX", "must be served by a source that is on"),
        ("tardis = { enabled = false }", "A.B", "must switch on a live source"),
    ],
)
def test_what_does_not_fit_is_refused(sources: str, instrument: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        plan_clients(config_of(sources, instrument), {})


def test_databento_and_tardis_route_by_venue() -> None:
    sources = 'databento = { feeds = ["GLBX.MDP3"] }\ntardis = { instruments = ["BTC-PERPETUAL.DERIBIT"] }'
    found = names(config_of(sources, "ESH4.GLBX"))
    assert found["DATABENTO"].instruments == ("ESH4.GLBX",)
    assert found["DATABENTO"].config.routing.venues == frozenset({"GLBX"})
    assert found["TARDIS"].config.routing.venues == frozenset({"DERIBIT"})


def test_keys_reach_nautilus_and_no_text() -> None:
    sources = 'binance = { spot = true }\ndatabento = { feeds = ["GLBX.MDP3"] }'
    keys = {"BINANCE_API_KEY": SECRET, "BINANCE_API_SECRET": SECRET, "DATABENTO_API_KEY": SECRET}
    found = names(config_of(sources), keys)
    assert found["BINANCE"].config.api_key == SECRET
    assert found["DATABENTO"].config.api_key == SECRET
    for plan in found.values():
        assert SECRET not in repr(plan) + str(plan) + "".join(map(str, plan.keys))
        assert all(str(key).endswith(" set") for key in plan.keys)
    # Half a pair is not used.
    half = names(config_of(sources), {"BINANCE_API_KEY": SECRET})["BINANCE"]
    assert half.config.api_key is None


@pytest.mark.parametrize("key", ["api_key", "api_secret", "private_key", "passphrase"])
def test_a_key_in_the_file_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigurationError, match="keys and passwords are taken from the environment only") as caught:
        config_of(f'binance = {{ spot = true, {key} = "{SECRET}" }}')
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ('databento = { feeds = ["glbx"] }', r"data_sources.databento.feeds\[0\] must be a dataset code"),
        ('binance = { spot = true, environment = "paper" }', 'must be one of "demo", "live", "testnet"'),
        ('binance = { futures = true, futures_accounts = ["coin"] }', 'must be one of "coinm", "usdm"'),
        ('tardis = { historical_depth = "30 moons" }', "must be a duration"),
        ("catalog = { enabled = true }", "data_sources.catalog.path must be given"),
        ('[node]\ntrader_id = "tengri"', "node.trader_id must be NAME-NUMBER"),
    ],
)
def test_rules_of_the_keys(sources: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        config_of(sources)
