"""A strategy with a model tells the gates of its node what the model thinks of itself, whichever starts first."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")
pytest.importorskip("tengri_fast.nautilus.gate", reason="the adapter's extensions are not built")

from model_on_disk import write_model
from neural_scene import INSTRUMENT, backtest, market, run

from tengri_fast.nautilus import TengriNeuralConfig, TengriNeuralStrategy
from tengri_fast.nautilus.gate import NeuralRiskGate, RiskGateConfig
from tengri_fast.nautilus.gate_health import HEALTH
from tengri_fast.risk import RiskLimits
from tengri_fast.runtime.model_spec import load_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_bundle(write_model(tmp_path_factory.mktemp("model"), gain=8.0))


class Starter(TengriNeuralStrategy):
    """Starts something when it has started itself."""

    then: Any = None

    def on_start(self) -> None:
        super().on_start()
        if self.then is not None:
            self.then()


def play(bundle: Any, late: bool = False, **limits: Any) -> tuple[NeuralRiskGate, TengriNeuralStrategy, list[Any]]:
    config = TengriNeuralConfig(
        model="unused", instrument_id=INSTRUMENT.id, trade_size="0.010", threshold_bps=2.0, fee_bps=0.0
    )
    strategy = Starter(config, bundle)
    gate = NeuralRiskGate(RiskGateConfig(limits=RiskLimits(max_position=10.0, **limits), kill_poll_ms=0))
    engine = backtest(market(600), strategy)

    def start_gate() -> None:
        gate.register_base(
            portfolio=engine.portfolio, msgbus=engine.kernel.msgbus, cache=engine.cache, clock=strategy.clock
        )
        gate.start()

    if late:
        strategy.then = start_gate
    else:
        engine.add_actor(gate)
    told: list[Any] = []
    engine.kernel.msgbus.subscribe(HEALTH, told.append)
    run(engine)
    return gate, strategy, told


@pytest.mark.parametrize("late", [False, True])
def test_a_healthy_model_trades(bundle: Any, late: bool) -> None:
    gate, strategy, told = play(bundle, late, max_rung=0, max_signal_age="1h", min_confidence=0.01)
    assert gate.submitted == gate.forwarded > 0
    assert gate.denied == {}
    health = told[-1]
    assert health.strategy_id == strategy.id.value
    assert (health.rung, health.ts) == (0, strategy.engine.signal.ts_event)
    assert 1 / 3 <= health.confidence == strategy.engine.signal.confidence <= 1.0
    assert math.isnan(health.out_of_distribution)


def test_a_model_that_is_not_sure_enough_does_not(bundle: Any) -> None:
    gate, _, _ = play(bundle, min_confidence=0.9999999)
    assert gate.submitted > 0
    assert gate.forwarded == 0
    assert set(gate.refused) == {"MODEL_CONFIDENCE"}


def test_what_a_model_cannot_say_is_not_taken_for_good(bundle: Any) -> None:
    """These models do not say how far an input is from what they know, so a limit on that refuses all of them."""
    gate, _, _ = play(bundle, max_out_of_distribution=0.5)
    assert gate.submitted > 0
    assert gate.forwarded == 0
    assert set(gate.refused) == {"MODEL_OUT_OF_DISTRIBUTION"}
