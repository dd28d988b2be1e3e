"""The default policy, rule by rule."""

from __future__ import annotations

import pytest
from model_on_disk import write_model

from tengri_fast.errors import ConfigurationError
from tengri_fast.runtime.engine import TengriNeuralEngine
from tengri_fast.runtime.model_spec import load_bundle
from tengri_fast.runtime.policy import DecisionPolicy

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def signals(tmp_path_factory):
    """Signals of both signs, one second apart, from a model whose output is tilted one way or the other."""

    def make(tilt, returns=(-20.0, 0.0, 20.0)):
        folder = tmp_path_factory.mktemp("m")
        engine = TengriNeuralEngine(load_bundle(write_model(folder, gain=0.0, tilt=tilt, returns=returns)))
        engine.add_instrument("A")
        out = []
        for i in range(30):
            signal = engine.process_quote(0, 64_999.95, 65_000.05, 1.0, 1.0, (1000 + i) * SECOND)
            if signal is not None:
                out.append(signal.copy())
        return out

    return {"up": make((0.0, 0.0, 3.0)), "down": make((3.0, 0.0, 0.0)), "none": make((0.0, 0.0, 0.0))}


def test_enters_only_past_the_cost(signals):
    up = signals["up"][0]
    half_spread = 0.5e4 * up.spread / up.mid
    room = up.value - half_spread
    assert room > 1
    for name, side in (("up", "enter_long"), ("down", "enter_short"), ("none", "hold")):
        policy = DecisionPolicy(fee_bps=room - 0.5, threshold_bps=0.49)
        assert policy.action(signals[name][0], 0) == side
    assert DecisionPolicy(fee_bps=room - 0.5, threshold_bps=0.51).action(up, 0) == "hold"
    assert DecisionPolicy(fee_bps=room + 0.01).action(up, 0) == "hold"
    assert DecisionPolicy(fee_bps=room + 5, threshold_bps=-6).action(up, 0) == "enter_long"


def test_needs_confidence_and_a_free_hand(signals):
    up = signals["up"][0]
    assert DecisionPolicy(min_confidence=up.confidence + 1e-9).action(up, 0) == "hold"
    assert DecisionPolicy(min_confidence=up.confidence).action(up, 0) == "enter_long"
    assert DecisionPolicy().action(up, 0, order_in_flight=True) == "hold"


def test_exit_has_hysteresis(signals):
    down = signals["down"][0]
    against = -down.value
    assert DecisionPolicy(exit_bps=against - 0.1).action(down, 1) == "exit"
    assert DecisionPolicy(exit_bps=against + 0.1).action(down, 1) == "hold"
    assert DecisionPolicy(exit_bps=0).action(down, -1) == "hold"
    assert DecisionPolicy(exit_bps=0).action(signals["none"][0], 1) == "hold"


def test_holding_time_and_cooldown_are_event_time(signals):
    up = signals["up"]
    policy = DecisionPolicy(max_holding_ns=3 * SECOND, cooldown_ns=4 * SECOND)
    assert policy.action(up[0], 0) == "enter_long"
    assert [policy.action(s, 1) for s in up[1:5]] == ["hold", "hold", "hold", "exit"]
    assert [policy.action(s, 0) for s in up[5:10]] == ["hold", "hold", "hold", "hold", "enter_long"]
    policy.reset()
    assert policy.action(up[10], 0) == "enter_long"


def test_exit_waits_for_the_order_in_flight(signals):
    policy = DecisionPolicy(exit_bps=0)
    assert policy.action(signals["down"][0], 1, order_in_flight=True) == "hold"
    assert policy.action(signals["down"][1], 1) == "exit"


@pytest.mark.parametrize(("options", "word"), [
    ({"fee_bps": -1}, "fee_bps"), ({"exit_bps": -1}, "exit_bps"), ({"threshold_bps": float("nan")}, "threshold_bps"),
    ({"min_confidence": 1.1}, "min_confidence"), ({"fee_bps": float("inf")}, "fee_bps"),
])  # fmt: skip
def test_bad_values_are_named(options, word):
    with pytest.raises(ConfigurationError, match=f"`{word}`"):
        DecisionPolicy(**options)


def test_bad_side_is_named(signals):
    with pytest.raises(ValueError, match="position_side"):
        DecisionPolicy().action(signals["up"][0], 2)
