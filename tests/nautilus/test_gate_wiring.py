"""What a gate is given beside orders: methods, stress scenarios, collected scenarios, the audit log, its state file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")
pytest.importorskip("tengri_fast.nautilus.gate", reason="the adapter's extensions are not built")

from gate_play import BUY, NAME, SELL, bracket, make_gate, play
from gate_scene import INSTRUMENT, STEP, Script, quotes

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.nautilus.gate import RiskGateConfig
from tengri_fast.nautilus.gate_inputs import AuditSettings, RollingSettings, StressSettings
from tengri_fast.risk import RiskLimits, ScenarioSet, VarSettings
from tengri_fast.risk.audit import Decision, Event, read, verify

MINUTE = 60 * STEP


def scenarios(count: int = 400, scale: float = 0.01) -> ScenarioSet:
    rng = np.random.default_rng(7)
    return ScenarioSet((NAME,), scale * rng.standard_t(5, (1, count)).clip(-20, 20), MINUTE, {"step_ns": str(MINUTE)})


def denials(script: Script) -> list[str]:
    return [event.reason.split(":")[1].split()[0] for event in script.events("OrderDenied")]


# -- audit ------------------------------------------------------------------------------------------------------------


def test_every_decision_is_logged_before_it_is_carried_out(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    gate = make_gate(max_position=2.0, audit=AuditSettings(path=str(path), sync="none"))
    seen: list[int] = []

    def look(s: Script, t: Any) -> None:
        s.market(BUY, 1)
        # The order has gone through the gate by now: the log has it.
        seen.append(sum(isinstance(record, Decision) for record in read(path)))

    actions = {
        2: look,
        4: lambda s, t: s.market(BUY, 5),
        6: lambda s, t: bracket(s, 9),
        8: lambda s, t: gate.kill("desk", "news"),
        10: lambda s, t: s.market(SELL, 0.5),
        12: lambda s, t: gate.rearm("desk", "over"),
        14: lambda s, t: gate.reload_limits(RiskLimits(max_position=3.0), "risk", "a calm day"),
        16: lambda s, t: s.limit(BUY, 1, 49_000.0),
    }
    engine = play(Script(actions), gate)
    engine.dispose()
    assert seen == [1]
    report = verify(path)
    assert report.sound
    records = list(read(path))
    events = [record.name for record in records if isinstance(record, Event)]
    assert events == ["armed", "kill", "rearm", "reload"]
    decisions = [record for record in records if isinstance(record, Decision)]
    assert [record.allowed for record in decisions] == [True, False, False, False, False, True, True]
    assert [record.action for record in decisions] == ["submit", "submit", "list", "list", "list", "submit", "submit"]
    assert decisions[5].reducing
    assert decisions[1].reason.startswith("TENGRI_RISK:MAX_POSITION")
    assert decisions[1].instrument == NAME
    assert (decisions[1].quantity, decisions[1].side) == (5.0, 1)
    assert (decisions[6].price, decisions[6].order_type) == (49_000.0, "LIMIT")
    kill = next(record for record in records if isinstance(record, Event) and record.name == "kill")
    assert kill.facts == {"by": "desk", "reason": "news", "scope": "portfolio"}


def test_an_order_that_cannot_be_logged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.log"
    gate = make_gate(max_position=2.0, audit=AuditSettings(path=str(path), sync="none"))
    script = Script({3: lambda s, t: gate.audit.log.close(), 5: lambda s, t: s.market(BUY, 1)})
    engine = play(script, gate)
    assert not script.events("OrderFilled")
    assert denials(script) == ["INTERNAL_ERROR"]
    engine.dispose()


def test_a_log_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    gate = make_gate(max_position=2.0, audit=AuditSettings(path=str(tmp_path)))
    with pytest.raises(ConfigurationError, match="must be an audit log"):
        play(Script({}), gate)


# -- state ------------------------------------------------------------------------------------------------------------


def test_a_kill_and_the_peak_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    gate = make_gate(max_drawdown=0.5, state=str(path))
    play(Script({3: lambda s, t: gate.kill("desk", "news", f"instrument:{NAME}")}), gate).dispose()
    assert "desk" in path.read_text()
    second = make_gate(max_drawdown=0.5, state=str(path))
    script = Script({3: lambda s, t: s.market(BUY, 1), 5: lambda s, t: second.rearm("desk", "over"),
                     7: lambda s, t: s.market(BUY, 1)})  # fmt: skip
    play(script, second).dispose()
    assert denials(script) == ["KILLED"]
    assert len(script.events("OrderFilled")) == 1
    assert second.kills == {}
    third = make_gate(max_drawdown=0.5, state=str(path))
    play(Script({}), third)
    assert third.kills == {}


def test_a_damaged_state_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text('{"kills": ')
    with pytest.raises(DataConversionError, match="is damaged"):
        play(Script({}), make_gate(max_position=1.0, state=str(path)))


# -- methods and stress -----------------------------------------------------------------------------------------------


def value_at_risk(method: str, **options: Any) -> float:
    var = VarSettings(horizon=MINUTE, method=method, base_currency="USDT", scenarios=400, **options)  # type: ignore[arg-type]
    gate = make_gate(max_portfolio_var=0.9, var=var)
    gate.load_scenarios(scenarios())
    play(Script({3: lambda s, t: s.market(BUY, 1)}), gate)
    return gate.state.value_at_risk()  # type: ignore[no-any-return]


def test_the_method_of_the_configuration_is_used() -> None:
    plain = value_at_risk("historical")
    assert plain > 0.0
    found = {method: value_at_risk(method) for method in ("filtered", "normal", "cornish_fisher")}
    found["age_weighted"] = value_at_risk("age_weighted", decay=0.97)
    assert len({plain, *found.values()}) == 5
    for value in found.values():
        assert value == pytest.approx(plain, rel=0.5)


def test_stress_scenarios_stop_an_order() -> None:
    var = VarSettings(horizon=MINUTE, base_currency="USDT", scenarios=400)
    gate = make_gate(max_stress_loss=0.05, var=var, stress=StressSettings(columns=8))
    gate.load_scenarios(scenarios())
    # 50 % of 50,000 is what a unit loses in the worst built-in scenario of its class, roughly: 0.5 units are half that.
    script = Script({3: lambda s, t: s.market(BUY, 0.5), 6: lambda s, t: s.market(BUY, 5)})
    play(script, gate)
    assert len(script.events("OrderFilled")) == 1
    assert denials(script) == ["MAX_STRESS_LOSS"]
    names = gate.state.stress_scenarios
    assert sum(name.startswith("model ") for name in names) == 8
    loss, worst = gate.state.stress_loss()
    assert 0.0 < loss <= 0.05 * 1_000_000
    assert worst in names


def test_a_given_stress_matrix_replaces_the_library() -> None:
    var = VarSettings(horizon=MINUTE, base_currency="USDT")
    gate = make_gate(max_stress_loss=0.05, var=var, stress=StressSettings())
    gate.load_stress(["crash"], [NAME], [[-0.5]])
    script = Script({3: lambda s, t: s.market(BUY, 1), 6: lambda s, t: s.market(BUY, 2)})
    play(script, gate)
    assert gate.state.stress_scenarios == ("crash",)
    assert gate.state.stress_loss()[0] == pytest.approx(0.5 * 50_000.0, rel=1e-3)
    assert denials(script) == ["MAX_STRESS_LOSS"]


# -- collected scenarios ----------------------------------------------------------------------------------------------


def rolling_gate(tmp_path: Path, **more: Any) -> Any:
    from tengri_fast.nautilus.gate import NeuralRiskGate

    return NeuralRiskGate(
        RiskGateConfig(
            limits=RiskLimits(max_portfolio_var=0.05),
            var=VarSettings(horizon=2 * STEP, base_currency="USDT", scenarios=150),
            rolling=RollingSettings(refresh_ns=5 * STEP, keep=str(tmp_path / "prices.npz")),
            kill_poll_ms=1_000,
            **more,
        )
    )


def wandering(count: int) -> list[Any]:
    rng = np.random.default_rng(11)
    ticks = quotes(count)
    steps = np.cumsum(rng.integers(-30, 31, count))
    return [
        type(tick)(
            tick.instrument_id,
            INSTRUMENT.make_price(50_000.0 + float(step)),
            INSTRUMENT.make_price(50_000.5 + float(step)),
            tick.bid_size,
            tick.ask_size,
            tick.ts_event,
            tick.ts_init,
        )
        for tick, step in zip(ticks, steps, strict=True)
    ]


def test_scenarios_are_collected_and_kept(tmp_path: Path) -> None:
    gate = rolling_gate(tmp_path)
    script = Script({20: lambda s, t: s.market(BUY, 1), 150: lambda s, t: s.market(BUY, 1)})
    engine = play(script, gate, data=wandering(170))
    assert denials(script)[0] in {"NOT_ARMED", "MISSING_SCENARIOS"}
    assert len(script.events("OrderFilled")) == 1
    found = gate.state.scenarios
    assert found is not None
    assert found.count >= 100
    assert gate.state.value_at_risk() > 0.0
    engine.dispose()
    # A second run begins with the prices of the first.
    again = rolling_gate(tmp_path)
    early = Script({2: lambda s, t: s.market(BUY, 1)})
    play(early, again, data=wandering(10))
    assert len(early.events("OrderFilled")) == 1


def test_contradictions_are_refused(tmp_path: Path) -> None:
    for more in ({"kill_poll_ms": 0}, {"scenarios": "x.npz"}, {"var": None}):
        settings: dict[str, Any] = {
            "limits": RiskLimits(max_position=1.0),
            "var": VarSettings(horizon=STEP),
            "rolling": RollingSettings(),
            **more,
        }
        with pytest.raises(ConfigurationError, match="`rolling` needs"):
            RiskGateConfig(**settings)
    with pytest.raises(ConfigurationError, match=r"`audit\.sync` must be one of"):
        RiskGateConfig(limits=RiskLimits(max_position=1.0), audit=AuditSettings(path="a", sync="often"))
