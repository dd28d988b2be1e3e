"""The configuration: strings and objects, every rule, and Nautilus' importable form."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")

from model_on_disk import write_model
from nautilus_trader.config import ImportableStrategyConfig
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.trading.config import StrategyFactory
from neural_scene import BAR_TYPE, INSTRUMENT

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus import TengriNeuralConfig, TengriNeuralStrategy
from tengri_fast.nautilus.config import duration_ns

BTC = "BTCUSDT-PERP.BINANCE"


def test_strings_become_identifiers_and_decimals() -> None:
    config = TengriNeuralConfig(
        model="m.toml", instrument_id=BTC, instrument_ids=("ETHUSDT-PERP.BINANCE", BTC), trade_size="0.010"
    )
    assert config.instrument_id == InstrumentId.from_str(BTC)
    assert [str(i) for i in config.instrument_ids] == [BTC, "ETHUSDT-PERP.BINANCE"]
    assert config.trade_size == Decimal("0.010")


def test_json_and_back_is_the_same_configuration() -> None:
    config = TengriNeuralConfig(
        model="m.toml",
        instrument_id=BTC,
        bar_types=(str(BAR_TYPE),),
        trade_size="0.001",
        max_holding="250ms",
        cooldown=5,
    )
    again = TengriNeuralConfig.parse(config.json())
    assert again == config
    assert again.id == config.id


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"instrument_id": None}, ["instrument_id", "None"]),
        ({"instrument_id": "BTCUSDT"}, ["instrument_id", "BTCUSDT"]),
        ({"instrument_ids": (7,)}, ["instrument_ids", "7"]),
        ({"bar_types": ("ETHUSDT.BINANCE-1-MINUTE-LAST-EXTERNAL",)}, ["bar_types", "ETHUSDT.BINANCE"]),
        ({"bar_types": ("hourly",)}, ["bar_types", "hourly"]),
        (
            {"bar_types": (f"{BTC}-1-MINUTE-LAST-EXTERNAL", f"{BTC}-5-MINUTE-LAST-EXTERNAL")},
            ["bar_types", "one per instrument", "5-MINUTE"],
        ),
        ({"book": "level2"}, ["book", "depth10", "level2"]),
        ({"book_type": "L9"}, ["book_type", "L2_MBP", "L9"]),
        ({"trade_size": "0"}, ["trade_size", "> 0", "0"]),
        ({"trade_size": "-1"}, ["trade_size", "> 0", "-1"]),
        ({"trade_size": "NaN"}, ["trade_size", "NaN"]),
        ({"trade_size": "much"}, ["trade_size", "much"]),
        ({"threshold_bps": float("nan")}, ["threshold_bps", "nan"]),
        ({"threshold_bps": "1"}, ["threshold_bps", "'1'"]),
        ({"exit_bps": -0.1}, ["exit_bps", "-0.1"]),
        ({"fee_bps": -1.0}, ["fee_bps", "-1"]),
        ({"fee_bps": float("inf")}, ["fee_bps", "inf"]),
        ({"min_confidence": 1.5}, ["min_confidence", "1.5"]),
        ({"min_confidence": True}, ["min_confidence", "True"]),
        ({"max_holding": "soon"}, ["max_holding", "soon"]),
        ({"cooldown": -1}, ["cooldown", "-1"]),
        ({"warm_up": None}, ["warm_up", "None"]),
        ({"warm_up": True}, ["warm_up", "True"]),
    ],
)
def test_a_broken_rule_names_field_and_value(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TengriNeuralConfig(**{"model": "m.toml", "instrument_id": BTC, **changes})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("10s", 10_000_000_000), ("250ms", 250_000_000), ("1.5us", 1_500), ("2m", 120_000_000_000), (17, 17), (0, 0)],
)
def test_durations(value: str | int, expected: int) -> None:
    assert duration_ns(value) == expected


def test_another_configuration_class_is_refused() -> None:
    from nautilus_trader.config import StrategyConfig

    with pytest.raises(ConfigurationError, match="TengriNeuralConfig, was StrategyConfig"):
        TengriNeuralStrategy(StrategyConfig())


def test_importable_configuration(tmp_path: Any) -> None:
    path = write_model(tmp_path)
    strategy = StrategyFactory.create(
        ImportableStrategyConfig(
            strategy_path="tengri_fast.nautilus.strategy:TengriNeuralStrategy",
            config_path="tengri_fast.nautilus.config:TengriNeuralConfig",
            config={
                "model": str(path),
                "instrument_id": BTC,
                "trade_size": "0.002",
                "order_id_tag": "007",
                "max_holding": "5s",
            },
        )
    )
    assert type(strategy) is TengriNeuralStrategy
    assert strategy.id.value == "TengriNeuralStrategy-007"
    assert strategy.config.instrument_id == INSTRUMENT.id
    assert strategy.engine.bundle.spec.id == "tiny"
    again = StrategyFactory.create(strategy.to_importable_config())
    assert again.config == strategy.config
