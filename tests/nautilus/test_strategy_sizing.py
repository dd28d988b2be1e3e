"""Dynamic sizing inside the strategy: what the orders' quantities follow, and that without it nothing changes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")

from model_on_disk import write_model
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import OrderSide
from neural_scene import INSTRUMENT, START, backtest, market, quote, register, run

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus import NeuralRiskGate, RiskGateConfig, TengriNeuralConfig, TengriNeuralStrategy
from tengri_fast.nautilus.strategy import SIZING_KEY
from tengri_fast.risk import RiskLimits, ScenarioSet, VarSettings, value_at_risk
from tengri_fast.risk.sizing_settings import SizingSettings
from tengri_fast.runtime.config import parse_config
from tengri_fast.runtime.model_spec import load_bundle

SECOND = 10**9
SETTINGS = {"parts": ("volatility_target",), "volatility_samples": 20, "target_volatility": 1e-3}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_bundle(write_model(tmp_path_factory.mktemp("model"), gain=8.0))


def config(**changes: Any) -> TengriNeuralConfig:
    values = {"model": "unused", "instrument_id": INSTRUMENT.id, "threshold_bps": 2.0, "exit_bps": 1.0, "fee_bps": 0.0}
    return TengriNeuralConfig(**(values | {"sizing": SETTINGS} | changes))


def walk(count: int, scale: float, start: int = START) -> list[QuoteTick]:
    """The same random walk at any scale, so that the model sees equal imbalances and only the moves differ."""
    rng = np.random.default_rng(11)
    mid = 50_000.0 + scale * np.cumsum(rng.integers(-3, 4, count))
    sizes = 0.001 * rng.integers(1, 5_000, (count, 2))
    return [
        quote(round(mid[i], 1) - 0.1, round(mid[i], 1) + 0.1, start + i * 100_000_000, sizes[i, 0], sizes[i, 1])
        for i in range(count)
    ]


class Sized(TengriNeuralStrategy):
    """Keeps the explanation of each entry, with what it was explained from."""

    def __init__(self, config: Any, bundle: Any) -> None:
        super().__init__(config, bundle)
        self.entries: list[tuple[float, Any]] = []

    def submit_order(self, order: Any, *args: Any, **options: Any) -> None:
        if "TENGRI_ENTRY" in order.tags:
            self.entries.append((float(order.quantity), self.sizer(INSTRUMENT.id).explain()))
        super().submit_order(order, *args, **options)


def entries(data: list[Any], bundle: Any, *others: Any, **changes: Any) -> list[float]:
    strategy = TengriNeuralStrategy(config(**changes), bundle)
    engine = backtest(data, strategy)
    for actor in others:
        engine.add_actor(actor)
    run(engine)
    found = sorted((o.init_event.ts_init, float(o.quantity)) for o in engine.cache.orders() if not o.is_reduce_only)
    assert not engine.cache.positions_open()
    engine.dispose()
    return [size for _, size in found]


def test_quantities_are_those_of_the_sizer(bundle: Any) -> None:
    strategy = Sized(config(), bundle)
    engine = backtest(list(market(800)), strategy)
    run(engine)
    assert len(strategy.entries) > 5
    for size, said in strategy.entries:
        assert size == pytest.approx(said.size, rel=1e-12)
        assert said.bound_by == "volatility_target"
        assert 0.0 <= said.bounds["volatility_target"] - size < 0.001 + 1e-9  # rounded down to the lot
    assert len({size for size, _ in strategy.entries}) > 1
    engine.dispose()


def test_more_volatility_smaller_orders(bundle: Any) -> None:
    calm, wild = (entries(walk(800, scale), bundle) for scale in (0.2, 1.0))
    assert len(calm) > 5
    assert len(wild) > 5
    assert max(wild) < min(calm)
    assert np.median(calm) / np.median(wild) == pytest.approx(5.0, rel=0.2)


def test_a_deeper_drawdown_smaller_orders(bundle: Any) -> None:
    """Each round trip pays fees here, so equity falls through the run and the sizes fall with it."""
    drawdown = SETTINGS | {"parts": ("volatility_target", "drawdown"), "drawdown_start": 0.0, "drawdown_stop": 0.01}
    strategy = Sized(config(sizing=drawdown, cooldown="1s"), bundle)
    engine = backtest(walk(1500, 0.2), strategy)
    run(engine)
    scales = [said.scales["drawdown"] for _, said in strategy.entries]
    shares = [size / said.bounds["volatility_target"] for size, said in strategy.entries]
    assert len(scales) > 10
    assert scales[0] == 1.0
    assert scales == sorted(scales, reverse=True)
    assert scales[-1] < 0.9
    assert shares == pytest.approx(scales, abs=0.001)
    engine.dispose()


def test_without_sizing_the_trade_size_is_sent_exactly(bundle: Any) -> None:
    fixed = entries(list(market(600)), bundle, sizing=None, trade_size="0.017")
    assert len(fixed) > 5
    assert set(fixed) == {0.017}


def test_a_trade_size_is_the_largest_entry(bundle: Any) -> None:
    free = entries(walk(600, 0.2), bundle)
    capped = entries(walk(600, 0.2), bundle, trade_size="1.5")
    assert min(free) > 1.5
    assert set(capped) == {1.5}


def test_no_entry_before_the_volatility_is_known_and_one_warning(bundle: Any) -> None:
    strategy = TengriNeuralStrategy(config(sizing=SETTINGS | {"volatility_samples": 10_000}), bundle)
    engine = backtest(list(market(400)), strategy)
    run(engine)
    assert engine.cache.orders() == []
    said = strategy.sizer(INSTRUMENT.id).explain()
    assert said.size == 0.0
    assert "samples of 10000" in said.reason
    engine.dispose()


def test_the_gate_gives_equity_and_budget(bundle: Any) -> None:
    """With a gate in the node the entry stays within its limit of value at risk, and the gate lets it pass."""
    half = 1e-3 * np.random.default_rng(5).standard_normal((1, 250))
    returns = np.hstack([half, -half])  # both tails alike, since the walk may begin either way
    settings = VarSettings(level=0.99, horizon="60s", scenarios=500, base_currency="USDT")
    name = INSTRUMENT.id.value
    sizes = {}
    for limit in (1e-4, 4e-4):
        gate = NeuralRiskGate(RiskGateConfig(limits=RiskLimits(max_portfolio_var=limit), var=settings))
        gate.load_scenarios(ScenarioSet((name,), returns, 60 * SECOND))
        sizes[limit] = entries(walk(600, 0.2), bundle, gate, sizing=SETTINGS | {"parts": ("var_budget",)})
        assert gate.denied == {}
        assert gate.forwarded > 10
        unit = 50_000 * value_at_risk(returns[0].astype(np.float32), 0.99)
        assert sizes[limit][0] == pytest.approx(limit * 1_000_000 / unit, rel=0.002)
    assert sizes[4e-4][0] == pytest.approx(4 * sizes[1e-4][0], rel=0.01)


def test_a_gate_without_scenarios_gets_no_entry(bundle: Any) -> None:
    settings = VarSettings(level=0.99, horizon="60s", scenarios=500, base_currency="USDT")
    gate = NeuralRiskGate(RiskGateConfig(limits=RiskLimits(max_portfolio_var=0.01), var=settings))
    assert entries(list(market(300)), bundle, gate, sizing=SETTINGS | {"parts": ("var_budget",)}) == []
    assert gate.submitted == 0


def test_an_override_sends_the_sized_quantity(bundle: Any) -> None:
    class Limits(TengriNeuralStrategy):
        """Enters by limit orders inside the spread's far side."""

        def submit_intent(self, instrument_id: Any, side: int) -> None:
            if side == 0:
                super().submit_intent(instrument_id, side)
                return
            quantity = self.entry_quantity(instrument_id, side)
            if quantity is None:
                return
            price = self.engine.signal.mid * (1.001 if side > 0 else 0.999)
            order = self.order_factory.limit(
                instrument_id, OrderSide.BUY if side > 0 else OrderSide.SELL, quantity, INSTRUMENT.make_price(price)
            )
            self.track_order(order)
            self.submit_order(order)
            sizes.append((float(quantity), self.sizer(instrument_id).explain().size))

    sizes: list[tuple[float, float]] = []
    strategy = Limits(config(), bundle)
    engine = backtest(walk(500, 0.2), strategy)
    run(engine)
    assert len(sizes) > 5
    assert all(a == pytest.approx(b, rel=1e-12) for a, b in sizes)
    engine.dispose()
    fixed = register(TengriNeuralStrategy(config(sizing=None, trade_size="0.017"), bundle))
    fixed.start()
    assert str(fixed.entry_quantity(INSTRUMENT.id, 1)) == "0.017"
    bare = register(TengriNeuralStrategy(config(sizing=None), bundle))
    bare.start()
    with pytest.raises(ConfigurationError, match="`trade_size` must be set"):
        bare.entry_quantity(INSTRUMENT.id, 1)


def test_saved_sizing_goes_on(bundle: Any) -> None:
    whole = walk(900, 0.2)
    first = register(TengriNeuralStrategy(config(trade_size=None), bundle))
    first.start()
    for tick in whole[:500]:
        first.handle_quote_tick(tick)
    saved = first.on_save()
    assert SIZING_KEY in saved
    second = register(TengriNeuralStrategy(config(trade_size=None), bundle))
    second.on_load(saved)
    second.start()
    assert second.sizer(INSTRUMENT.id).to_bytes() == first.sizer(INSTRUMENT.id).to_bytes()
    for tick in whole[500:]:
        first.handle_quote_tick(tick)
        second.handle_quote_tick(tick)
    assert second.sizer(INSTRUMENT.id).to_bytes() == first.sizer(INSTRUMENT.id).to_bytes()
    assert second.sizer(INSTRUMENT.id).volatility.samples > 50


def test_the_sizer_exists_from_the_start_on(bundle: Any) -> None:
    strategy = register(TengriNeuralStrategy(config(), bundle))
    with pytest.raises(ConfigurationError, match="has not started"):
        strategy.sizer(INSTRUMENT.id)
    plain = register(TengriNeuralStrategy(config(sizing=None), bundle))
    plain.start()
    assert plain.sizer(INSTRUMENT.id) is None
    assert SIZING_KEY not in plain.on_save()


def test_the_configuration_file_reaches_the_strategy() -> None:
    from tengri_fast.nautilus.backtest_config import sizing_of

    text = 'strategy.instrument_id = "A.B"\nneural.models = [{ type = "LSTM", config = "m.toml" }]\n'
    assert sizing_of(parse_config(text)) is None
    on = sizing_of(parse_config(text + "[risk]\ndynamic_position_sizing = true\n"))
    assert on == SizingSettings(
        volatility_horizon=86_400 * SECOND, volatility_half_life=600 * SECOND, volatility_step=SECOND,
        volatility_gap=3600 * SECOND,
    )  # fmt: skip
    made = sizing_of(
        parse_config(
            text + "[risk]\ndynamic_position_sizing = true\nmax_portfolio_var = 0.03\n[risk.var]\nlevel = 0.95\n"
            '[risk.sizing]\nparts = ["kelly", "drawdown"]\nkelly_fraction = 0.5\nvolatility_step = "5s"\n'
        )
    )
    assert made is not None
    assert (made.parts, made.kelly_fraction, made.volatility_step) == (("kelly", "drawdown"), 0.5, 5 * SECOND)
    assert (made.var_limit, made.var_level) == (0.03, 0.95)
    for line, words in (
        ("kelly_fraction = 1.5", "risk.sizing.kelly_fraction"),
        ('parts = ["luck"]', "risk.sizing.parts"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            parse_config(text + f"[risk.sizing]\n{line}\n")
    with pytest.raises(ConfigurationError, match=r"risk.sizing `stop` must be > `start`"):
        sizing_of(parse_config(text + "[risk]\ndynamic_position_sizing = true\n[risk.sizing]\ndrawdown_start = 0.5\n"))


def test_settings_from_json_are_the_same() -> None:
    made = config(trade_size=Decimal("0.5"))
    again = TengriNeuralConfig.parse(made.json())
    assert again == made
    assert again.sizing == SizingSettings(**SETTINGS)
    with pytest.raises(ConfigurationError, match="`sizing`"):
        config(sizing={"partz": ()})
