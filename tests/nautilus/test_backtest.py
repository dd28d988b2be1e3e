"""A configuration becomes a run: complete, honest about its orders, and the same bits each time."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")
pytest.importorskip("onnx", reason="the test model is written with onnx")

from model_on_disk import write_model
from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.trading.strategy import Strategy
from support import REPOSITORY, shared_data

from tengri_fast.errors import ConfigurationError, NeuralIntegrationError
from tengri_fast.nautilus import backtest as module
from tengri_fast.nautilus import backtest_record
from tengri_fast.nautilus.backtest import assemble, run_backtest
from tengri_fast.nautilus.drill import DrillStep
from tengri_fast.report import RunRecord, summary
from tengri_fast.risk import RiskLimits
from tengri_fast.runtime.config import TengriConfig, load_config, parse_config
from tengri_fast.runtime.control import RunControl

FEATURES = ("spread()", "imbalance()", "mid_return(lag=3)", "ema_difference(fast=3, slow=9)")
TRADES_OFTEN = ("policy.threshold_bps=-100", "policy.min_confidence=0", "policy.cooldown=1s", "policy.max_holding=3s")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), features=FEATURES, gain=3.0)


@pytest.fixture(scope="module")
def book_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("book"), features=FEATURES, clock="depth", gain=3.0)


def demo(model: Path, *more: str, day: str = "20230404") -> TengriConfig:
    folder = "../data/binance_usdm_btcusdt/binance_usdm_btcusdt_"
    return load_config(
        REPOSITORY / "examples" / "demo_btcusdt.toml",
        [
            f'neural.models[0].config="{model}"',
            f'backtest.quotes=["{folder}{day}.quotes.parquet"]',
            f'backtest.trades=["{folder}{day}.trades.parquet"]',
            # Bitcoin was at half the price then: half the limit meets the same order.
            "risk.max_portfolio_var=0.00005",
            *TRADES_OFTEN,
            *more,
        ],
    )


@pytest.fixture(scope="module")
def record(model: Path) -> RunRecord:
    return run_backtest(demo(model))


def same_bits(a: RunRecord, b: RunRecord) -> None:
    for name in ("equity", "fills", "trades", "signals", "mid"):
        one, two = getattr(a, name), getattr(b, name)
        assert one.keys() == two.keys()
        for column in one:
            assert one[column].tobytes() == two[column].tobytes(), (name, column)
    assert a.denied == b.denied
    assert a.denials == b.denials


# -- what a run holds -------------------------------------------------------------------------------------------------


def test_a_run_is_complete(record: RunRecord) -> None:
    assert len(record.signals["ts"]) > 1_000
    assert len(record.trades["net"]) >= 10
    assert record.currency == "USDT"
    assert set(record.data_sha256) == {
        "binance_usdm_btcusdt_20230404.quotes.parquet",
        "binance_usdm_btcusdt_20230404.trades.parquet",
        "binance_usdm_btcusdt_20230405.quotes.parquet",
    }
    assert len(record.config_sha256) == len(record.model_sha256) == 64
    assert record.isa
    assert record.versions["nautilus_trader"] == "1.231.0"
    assert record.skill is not None
    assert set(record.skill.baselines) == {"imbalance", "reverse", "repeat"}
    assert record.latency is not None
    assert record.latency.total == len(record.signals["ts"])
    assert 0 < record.latency.p50 <= record.latency.p99 <= record.latency.p999 <= record.latency.max
    assert any("below zero" in note or "below its own cost" in note for note in record.notes)
    assert any("control drill" in note for note in record.notes)
    json.dumps(summary(record))


def test_two_runs_give_the_same_bits(model: Path, record: RunRecord) -> None:
    same_bits(record, run_backtest(demo(model)))


def test_the_chunk_size_changes_nothing(model: Path, record: RunRecord) -> None:
    same_bits(record, run_backtest(demo(model), chunk=777))


def test_the_drill_changes_no_signal_fill_or_profit(model: Path, record: RunRecord) -> None:
    quiet = run_backtest(demo(model, "backtest.control_drill=false"))
    for name in ("equity", "fills", "trades", "signals"):
        for column, values in getattr(record, name).items():
            assert values.tobytes() == getattr(quiet, name)[column].tobytes(), (name, column)
    assert quiet.denied == {}
    assert record.submitted - quiet.submitted == 11  # the modification is no order


def test_pnl_is_that_of_the_account_and_of_the_trades(record: RunRecord) -> None:
    side = record.fills["side"].astype(float)
    flow = -side * record.fills["quantity"] * record.fills["price"] - record.fills["fee"]
    assert math.fsum(side * record.fills["quantity"]) == pytest.approx(0.0, abs=1e-9)
    assert record.pnl == pytest.approx(math.fsum(flow), abs=1e-6)
    assert record.pnl == pytest.approx(math.fsum(record.trades["net"]), abs=1e-6)
    # 5 basis points of every fill, all of them takers.
    assert record.fees == pytest.approx(5e-4 * math.fsum(record.fills["quantity"] * record.fills["price"]), rel=1e-6)
    assert record.equity["value"][0] == record.starting_equity


def test_denials_are_real_events_of_every_path(record: RunRecord) -> None:
    drill = [denial for denial in record.denials if denial.source == "drill"]
    assert {denial.rule for denial in drill} == {
        "MAX_ORDER_NOTIONAL", "MAX_POSITION", "PRICE_COLLAR", "MAX_PORTFOLIO_VAR",
    }  # fmt: skip
    assert len(drill) == sum(record.denied.values()) == 11
    assert sum("modification" in denial.reason for denial in drill) == 1
    assert sum(denial.order_id.endswith("-E1") for denial in drill) == 1
    assert len({denial.order_id for denial in drill}) == 11
    for denial in drill:
        assert denial.value is not None
        assert denial.limit is not None
        assert denial.value > denial.limit
        assert "TENGRI_RISK:" in denial.reason
    assert not any(denial.source == "strategy" for denial in record.denials)


def test_the_drill_saw_each_step_come_back(model: Path) -> None:
    made = assemble(demo(model))
    made.run()
    drill = made.drill
    assert drill is not None
    assert drill.finished
    assert drill.failures == []
    assert [(step.expected, step.outcomes) for step in drill.steps] == [
        ("denied", ["denied"]),
        ("denied", ["denied"] * 3),
        ("denied", ["denied"]),
        ("denied", ["denied"] * 2),
        ("denied", ["denied"]),
        ("denied", ["denied"]),
        ("denied or accepted", ["denied"]),
        ("accepted", ["accepted"]),
        ("modify rejected", ["modify rejected"]),
        ("canceled", ["canceled"]),
    ]
    assert "OrderReleased" in {
        type(event).__name__ for order in made.engine.cache.orders(strategy_id=drill.id) for event in order.events
    }
    made.dispose()


def test_a_drill_whose_order_passes_fails_the_run(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a gate that allows everything the run must not end as if nothing had happened."""

    class Open(module.NeuralRiskGate):
        def on_start(self) -> None:
            super().on_start()
            self.reload_limits(RiskLimits(max_order_notional=1e15), "test", "a gate that allows everything")

    monkeypatch.setattr(module, "NeuralRiskGate", Open)
    with pytest.raises(NeuralIntegrationError, match="control drill"):
        run_backtest(demo(model))


def test_progress_and_the_saved_record(model: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, dict[str, Any]]] = []
    found = run_backtest(
        demo(model), tmp_path / "run", progress=lambda done, total, live: seen.append((done, total, dict(live))),
        chunk=3_000,
    )  # fmt: skip
    total = 6_765 + 2_197
    assert [done for done, _, _ in seen] == [3_000, 6_000, total]
    assert {item[1] for item in seen} == {total}
    assert set(seen[-1][2]) == {"pnl", "currency", "trades", "orders", "denied", "killed"}
    same_bits(found, RunRecord.from_json(tmp_path / "run" / "record.json"))


def test_a_kill_from_outside_stops_new_orders(model: Path, record: RunRecord) -> None:
    control = RunControl()
    control.kill("test", "from the start")
    killed = run_backtest(demo(model, "backtest.control_drill=false"), control=control)
    assert len(killed.fills["ts"]) == 0
    assert set(killed.denied) == {"KILLED"}
    assert len(record.fills["ts"]) > 0


def test_a_run_that_is_killed_before_its_drill_ends_says_so(model: Path, tmp_path: Path) -> None:
    control = RunControl()
    control.kill("alice", "exchange maintenance")
    killed = run_backtest(demo(model), tmp_path, control=control)
    assert len(killed.fills["ts"]) == 0
    assert "KILLED" in killed.denied
    assert killed.notes[0].startswith('This run was killed by "alice": exchange maintenance.')
    drill = next(note for note in killed.notes if "control drill" in note)
    assert "1 of the 8 steps that were taken met the kill instead of a limit, so the drill is not complete" in drill
    assert "every one that was made to break a limit" not in drill
    assert RunRecord.from_json(tmp_path / "record.json").notes == killed.notes
    assert killed.notes[0] in summary(killed)["notes"]


@pytest.mark.parametrize("after", [20, 46, 54, 62, 66])
def test_a_kill_in_the_middle_of_the_drill(model: Path, after: int) -> None:
    """Whatever the drill is doing when the kill comes, the run ends and tells of both the kill and its end."""
    control = RunControl()

    class Switch(Strategy):
        seen = 0

        def on_start(self) -> None:
            self.subscribe_quote_ticks(made.instrument.id)

        def on_quote_tick(self, tick: Any) -> None:
            self.seen += 1
            if self.seen == after:
                control.kill("bob", "test of the switch")
            if self.seen == 2_000:
                control.rearm("bob", "test is over")

    config = demo(model)
    made = assemble(config)
    made.engine.add_strategy(Switch(StrategyConfig(strategy_id="SWITCH", order_id_tag="SW")))
    made.run(control=control)
    found = backtest_record.make_record(config, made, {})
    made.dispose()
    assert found.notes[0].startswith('This run was killed by "bob": test of the switch.')
    assert found.notes[1] == 'The kill by "bob" was lifted: test is over.'
    assert any("The run was killed before the drill ended" in note for note in found.notes)
    assert len(found.fills["ts"]) > 0  # after the rearm


def test_a_kill_after_the_drill_leaves_its_proof(model: Path) -> None:
    control = RunControl()

    def kill(done: int, total: int, live: Any) -> None:
        if not live["killed"]:
            control.kill("carol", "late")

    killed = run_backtest(demo(model), progress=kill, control=control, chunk=4_000)
    assert killed.notes[0].startswith('This run was killed by "carol": late.')
    assert any("every one that was made to break a limit" in note for note in killed.notes)


def test_a_kill_excuses_no_order_that_passed() -> None:
    def step(expected: str, outcomes: list[str], *reasons: str) -> DrillStep:
        return DrillStep("tried", expected, max(1, len(outcomes)), outcomes, list(reasons))

    by_switch = "TENGRI_RISK:KILLED bob: test"
    assert backtest_record._cut_short(step("accepted", ["denied"], by_switch))
    assert backtest_record._cut_short(step("modify rejected", ["canceled"]))
    assert backtest_record._cut_short(step("accepted", []))
    assert not backtest_record._cut_short(step("accepted", ["denied"], "TENGRI_RISK:MAX_POSITION value=2 limit=1"))
    assert not backtest_record._cut_short(step("accepted", ["denied"], "TENGRI_RISK:MAX_POSITION; " + by_switch))
    assert not backtest_record._cut_short(step("denied", ["ACCEPTED", "canceled"], by_switch))
    assert not backtest_record._cut_short(step("denied", ["filled"], by_switch))
    assert not backtest_record._cut_short(step("modify rejected", ["updated"], by_switch))


def test_only_pandas_own_announcement_is_silenced(model: Path) -> None:
    class Noisy(UserWarning):
        pass

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_backtest(
            demo(model, "backtest.control_drill=false"),
            progress=lambda done, total, live: warnings.warn("heard", Noisy, stacklevel=1),
        )
    assert any(item.category is Noisy for item in caught)
    assert not [item for item in caught if item.category.__name__ == "Pandas4Warning"]


def test_order_latency_moves_fills(model: Path, record: RunRecord) -> None:
    slow = run_backtest(demo(model, "backtest.order_latency=400ms"))
    assert len(slow.fills["ts"]) > 0
    assert slow.signals["value_bps"].tobytes() == record.signals["value_bps"].tobytes()
    assert slow.fills["ts"].tobytes() != record.fills["ts"].tobytes()
    # The first order is decided on the same signal in both runs, and meets the market later.
    assert slow.fills["ts"][0] >= record.fills["ts"][0] + 395_000_000


def test_the_shipped_demo_runs_as_it_ships() -> None:
    """The configuration, model and data of ``make demo``: trades, a drill, denials, and the same bits again."""
    config = load_config(REPOSITORY / "examples" / "demo_btcusdt.toml")
    if not (REPOSITORY / "models" / "lstm_btcusdt" / "model.toml").exists():
        pytest.skip("models/lstm_btcusdt has not been trained")
    one = run_backtest(config)
    assert len(one.trades["net"]) > 10
    assert len(one.signals["ts"]) > 10_000
    assert {denial.source for denial in one.denials} == {"drill"}
    assert "MAX_PORTFOLIO_VAR" in one.denied
    assert any("below zero on purpose" in note for note in one.notes)
    same_bits(one, run_backtest(config))


# -- depth -----------------------------------------------------------------------------------------------------------


def test_depth_trades_ten_yuan_a_tick(book_model: Path) -> None:
    path = shared_data("tick", "shfe_rb", "shfe_rb2510_20250609.depth5.parquet")
    config = load_config(
        REPOSITORY / "examples" / "shfe_rb2510.toml",
        [
            f'neural.models[0].config="{book_model}"',
            f'backtest.depth=["{path}"]',
            f'risk.scenarios.path="{path.with_name("shfe_rb2510_20250606.depth5.parquet")}"',
            "policy.threshold_bps=-100",
            "policy.cooldown=60s",
        ],
    )
    found = run_backtest(config)
    assert found.currency == "CNY"
    assert len(found.trades["net"]) > 20
    assert np.all(found.trades["gross"] % 10 == 0)  # one lot, ten tonnes, whole ticks
    assert np.allclose(found.fills["fee"], 1e-4 * 10 * found.fills["price"] * found.fills["quantity"], atol=0.006)
    assert found.pnl == pytest.approx(math.fsum(found.trades["net"]), abs=0.01 * 3 * len(found.fills["ts"]))
    assert {denial.rule for denial in found.denials} == {
        "MAX_ORDER_NOTIONAL",
        "MAX_PORTFOLIO_VAR",
        "MAX_POSITION",
        "PRICE_COLLAR",
    }
    assert found.skill is not None


# -- what is refused before the run ----------------------------------------------------------------------------------


def test_a_missing_data_file_is_one_sentence(book_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TENGRI_SHARED_DATA", str(tmp_path / "nowhere"))
    config = load_config(REPOSITORY / "examples" / "shfe_rb2510.toml", [f'neural.models[0].config="{book_model}"'])
    with pytest.raises(ConfigurationError) as error:
        run_backtest(config)
    text = str(error.value)
    assert "\n" not in text
    assert "shfe_rb2510_20250609.depth5.parquet is expected at" in text
    assert str(tmp_path / "nowhere" / "tick" / "shfe_rb") in text
    assert "MANIFEST.md" in text
    assert "backtest.depth[0]" in text
    assert "shfe_rb2510.toml:" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backtest.contract=binance_usdm_btcusd", "did you mean 'binance_usdm_btcusdt'"),
        ("backtest.starting_balance=1000 EUR", r"backtest.starting_balance must be in the currency .*USDT.*, was EUR"),
        ("neural.models[0].type=MLP", r"neural.models\[0\].type must be what .* declares \(LSTM\), was MLP"),
        ("neural.inference.inference_frequency=1s", r"inference_frequency must agree with the clock of the model"),
    ],
)
def test_what_does_not_fit_is_refused(model: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run_backtest(demo(model, override))


def test_rolling_scenarios_are_collected_while_a_backtest_runs(model: Path) -> None:
    text = demo(model).to_toml()
    lines = [line for line in text.splitlines() if "20230405.quotes" not in line]
    # A hundred seconds of ticks: short scenarios, and few.
    overrides = ["risk.var.horizon=5s", "risk.var.level=0.95", "risk.var.scenarios=60"]
    config = parse_config("\n".join(lines).replace('source = "file"', 'source = "rolling"'), overrides=overrides)
    made = assemble(config, data=assemble_data(model))
    assert made.scenarios is None
    made.run()
    assert made.gate.state.scenarios is not None
    assert made.gate.state.scenarios.count == 60
    assert made.gate.counters["denied"]["MISSING_SCENARIOS"] > 0
    made.dispose()


def assemble_data(model: Path) -> Any:
    made = assemble(demo(model), strategy="none")
    made.dispose()
    return made.data


def test_a_run_without_a_neural_strategy(model: Path) -> None:
    made = assemble(demo(model), strategy="none", gate=False)
    made.run()
    assert made.gate is None
    assert made.fills() == []
    assert made.equity() == 100_000.0
    made.dispose()


# -- round trips ------------------------------------------------------------------------------------------------------


def test_round_trips_add_up_whatever_the_fills(model: Path) -> None:
    made = assemble(demo(model), strategy="none", gate=False)
    rng = np.random.default_rng(11)
    for _ in range(30):
        n = int(rng.integers(1, 25))
        side = rng.choice([-1, 1], n)
        size = rng.integers(1, 9, n) / 10
        fills = {
            "ts": np.sort(rng.integers(1, 1_000, n)).astype(np.uint64),
            "side": side.astype(np.int8),
            "quantity": size,
            "price": 50_000 + rng.integers(-500, 500, n) / 10,
            "fee": rng.integers(0, 100, n) / 100,
            "tag": np.array([""] * n),
        }
        # Closed at the end, so that all money is in the trips.
        rest = round(float((side * size).sum()), 6)
        if rest:
            last = {"ts": 2_000, "side": -int(np.sign(rest)), "quantity": abs(rest), "price": 50_001.0, "fee": 0.3,
                    "tag": ""}  # fmt: skip
            fills = {name: np.append(values, last[name]) for name, values in fills.items()}
        trips = backtest_record._round_trips(made, fills)
        cash = -(fills["side"] * fills["quantity"] * fills["price"]).sum() - fills["fee"].sum()
        got = sum(trips["gross"]) - sum(trips["fees"]) if trips else 0.0
        assert got == pytest.approx(cash, abs=1e-6)
        if trips:
            assert np.all(trips["quantity"] > 0)
            assert np.all(trips["exit_ts"] >= trips["entry_ts"])
            assert math.fsum(trips["fees"]) == pytest.approx(fills["fee"].sum())
    made.dispose()


def test_fill_sides_are_those_of_the_orders(model: Path) -> None:
    made = assemble(demo(model, "backtest.control_drill=false"))
    made.run()
    fills = made.fills()
    table = backtest_record._fill_table(made, fills)
    assert [1 if event.order_side == OrderSide.BUY else -1 for event in fills] == table["side"].tolist()
    assert all(tag in {"TENGRI_ENTRY", "TENGRI_EXIT"} for tag in table["tag"])
    assert np.all(np.diff(table["ts"].astype(np.int64)) >= 0)
    made.dispose()
