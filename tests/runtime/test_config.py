from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from config_files import FULL_FILE, MINIMAL_FILE, USER_FILE
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tengri_fast.errors import ConfigurationError
from tengri_fast.runtime import TengriConfig, TengriConfigManager, load_config
from tengri_fast.runtime.config import MAX_FILE_BYTES, parse_config, zoo_folder
from tengri_fast.runtime.durations import Frequency
from tengri_fast.runtime.schema import ModelEntry, Money

SECOND = 10**9


def problem(text: str, *overrides: str, file: str | None = "demo.toml") -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text, file, overrides)
    return str(caught.value)


def line_of(text: str, fragment: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), 1) if fragment in line)


# ---------------------------------------------------------------- what a file means


def test_the_file_of_the_specification_loads_unchanged(tmp_path):
    path = tmp_path / "user.toml"
    path.write_text(USER_FILE)
    config = load_config(path)
    assert config.strategy.strategy_id == "TengriNeural001"
    assert config.strategy.instrument_id == "BTCUSDT.BINANCE"
    assert config.strategy.trade_size is None
    assert config.neural.models == (
        ModelEntry(type="LSTM", config="models/lstm_price_prediction.toml"),
        ModelEntry(type="Transformer", config="models/transformer_sentiment.toml"),
        ModelEntry(type="CNN", config="models/cnn_pattern_recognition.toml"),
    )
    assert config.neural.features.external_data == ("PolymarketOdds", "NewsNLP", "MacroEconomic")
    assert config.neural.inference.batch_size == 32
    assert config.neural.inference.inference_frequency == Frequency("time", SECOND)
    assert config.neural.inference.model_warm_up_period == 3600 * SECOND
    assert config.risk.max_portfolio_var == 0.05
    assert config.risk.limits == ("max_portfolio_var", "max_stress_loss")
    assert config.execution.optimal_execution_algorithm == "neural_twap"
    assert config.data_sources.enabled == ("binance", "polymarket", "databento", "tardis")
    assert config.data_sources.tardis is not None
    assert config.data_sources.tardis.historical_depth == 30 * 86400 * SECOND
    assert config.backtest is None
    assert config.control is None
    shorter = load_config(path, ["neural.inference.model_warm_up_period=30s"])
    assert shorter.neural.inference.model_warm_up_period == 30 * SECOND


def test_every_section_is_read():
    config = parse_config(FULL_FILE)
    assert config.strategy.trade_size == Decimal("0.01")
    assert config.neural.inference.inference_frequency == Frequency("tick", 5)
    assert config.neural.ensemble is not None
    assert config.neural.ensemble.weights == (0.5, 0.5)
    assert config.neural.ensemble.horizon == 1_500_000_000
    assert config.policy.threshold_bps == -0.25
    assert config.policy.exit_bps == 1.0
    assert isinstance(config.policy.exit_bps, float)
    assert (config.policy.max_holding, config.policy.cooldown) == (90 * SECOND, 250_000_000)
    assert config.risk.max_order_notional == Decimal(50000)
    assert config.risk.max_position == Decimal(1)
    assert config.risk.stale_quote == 5 * SECOND
    assert (config.risk.var.level, config.risk.var.horizon) == (0.975, 60 * SECOND)
    assert (config.risk.scenarios.source, config.risk.scenarios.path) == ("file", "scenarios.npz")
    assert config.backtest is not None
    assert config.backtest.quotes == ("q1.parquet", "q2.parquet")
    assert config.backtest.starting_balance == Money(Decimal("250000.5"), "USDT")
    assert config.backtest.account_type == "MARGIN"
    assert config.backtest.control_drill is True
    assert config.report.notes == "Two\nlines."
    assert config.control is not None
    assert config.control.kill_file == "STOP"


def test_defaults_are_those_of_the_semantics():
    config = parse_config(MINIMAL_FILE)
    var = config.risk.var
    assert (var.level, var.horizon, var.method, var.scenarios) == (0.99, 86400 * SECOND, "historical", 1000)
    assert config.risk.scenarios.source == "rolling"
    assert config.risk.neural_stress_testing is False
    assert config.risk.dynamic_position_sizing is False
    assert config.neural.inference.inference_frequency is None
    assert config.execution.market_impact_modeling is False
    assert config.execution.slippage_prediction is False
    assert config.pending == ()


def test_keys_that_are_not_acted_on_are_told():
    pending = dict(parse_config(USER_FILE).pending)
    assert "execution.slippage_prediction" in pending
    assert "risk.neural_stress_testing" not in pending
    assert "risk.dynamic_position_sizing" not in pending
    assert not any(key.startswith("data_sources") for key in pending)
    assert "neural.features.external_data" not in pending
    assert "risk.max_portfolio_var" not in pending
    assert "neural.inference.model_warm_up_period" not in pending


def test_a_size_is_what_was_written():
    for text in ("0.1", '"0.1"', "1e-1", '"0.10"'):
        config = parse_config(MINIMAL_FILE + f"strategy.trade_size = {text}\n")
        assert str(config.strategy.trade_size) == "0.1"
    assert TengriConfig.from_dict(
        {
            "strategy": {"instrument_id": "A.B", "trade_size": 0.1},
            "neural": {"models": [{"type": "GRU", "config": "m"}]},
        }
    ).strategy.trade_size == Decimal("0.1")


@pytest.mark.parametrize("text", [USER_FILE, FULL_FILE, MINIMAL_FILE])
def test_effective_values_load_again(text):
    config = parse_config(text)
    again = parse_config(config.to_toml())
    assert again.to_dict() == config.to_dict()
    assert again.sha256 == config.sha256
    assert TengriConfig.from_dict(config.to_dict()).sha256 == config.sha256


def test_hash_is_of_values_not_of_spelling():
    base = parse_config(FULL_FILE)
    same = parse_config(
        "# other\n" + FULL_FILE.replace("trade_size = 0.010", 'trade_size = "0.01"').replace('"90s"', '"1.5m"')
    )
    assert same.sha256 == base.sha256
    assert parse_config(FULL_FILE, overrides=["policy.max_holding=91s"]).sha256 != base.sha256
    negative = parse_config(MINIMAL_FILE + "policy.threshold_bps = -0.0\n")
    assert negative.sha256 == parse_config(MINIMAL_FILE + "policy.threshold_bps = 0.0\n").sha256
    # The file's name and place are not part of it.
    assert parse_config(FULL_FILE, "a/b.toml").sha256 == base.sha256


# ---------------------------------------------------------------- errors: file, line, key, rule, value


@pytest.mark.parametrize(
    ("old", "new", "key", "rule"),
    [
        ("trade_size = 0.010", "trade_size = 0", "strategy.trade_size", "must be a number > 0"),
        ("trade_size = 0.010", "trade_size = nan", "strategy.trade_size", "must be a number > 0"),
        ("trade_size = 0.010", "trade_size = true", "strategy.trade_size", "must be a number > 0"),
        ("trade_size = 0.010", "trade_size = 1e15", "strategy.trade_size", "must be below 1e15"),
        ("trade_size = 0.010", "trade_size = 1e-19", "strategy.trade_size", "at most 18 decimal places"),
        ("order_id_tag = 'D1'", "order_id_tag = 'D-1'", "strategy.order_id_tag", "letters, digits or underscores"),
        ("order_id_tag = 'D1'", "order_id_tag = 1", "strategy.order_id_tag", "must be a text in quotes, was 1"),
        ('id = "BTCUSDT-PERP.BINANCE"', 'id = "BTCUSDT"', "strategy.instrument_id", "a symbol and a venue"),
        ('type = "MLP"', 'type = "MPL"', "neural.models[1].type", 'was "MPL"; did you mean "MLP"?'),
        ('config = "other.toml"', 'config = ""', "neural.models[1].config", "must not be empty"),
        ('config = "other.toml"', "", "neural.models[1].config", "must be given, was missing"),
        ('"5 ticks"', '"0 ticks"', "neural.inference.inference_frequency", "at least 1 tick"),
        ('"5 ticks"', "5", "neural.inference.inference_frequency", 'must be "tick"'),
        ('"10s"', "10", "neural.inference.model_warm_up_period", 'must be a duration such as "250ms", "1s"'),
        ('"10s"', '"10 parsecs"', "neural.inference.model_warm_up_period", "must be a duration"),
        ('"10s"', '"0.5ns"', "neural.inference.model_warm_up_period", "whole number of nanoseconds"),
        ('"10s"', '"300000d"', "neural.inference.model_warm_up_period", "292 years"),
        ("weights = [0.5, 0.5]", "weights = [0.5, 2]", "neural.ensemble.weights[1]", "must be from 0 to 1, was 2"),
        ("weights = [0.5, 0.5]", "weights = [1]", "neural.ensemble.weights", "one weight for each of the 2 models"),
        ("weights = [0.5, 0.5]", "weights = [0, 0]", "neural.ensemble.weights", "must not all be zero"),
        ("threshold_bps = -0.25", "threshold_bps = inf", "policy.threshold_bps", "must be a finite number"),
        ("threshold_bps = -0.25", "threshold_bps = 1e400", "policy.threshold_bps", "must be a finite number"),
        ("threshold_bps = -0.25", 'threshold_bps = "1"', "policy.threshold_bps", "must be a number from -10000"),
        ("exit_bps = 1", "exit_bps = -1", "policy.exit_bps", "must be from 0 to 10000, was -1"),
        ("min_confidence = 0.4", "min_confidence = 40", "policy.min_confidence", "must be from 0 to 1, was 40"),
        ("price_collar_bps = 50", "price_collar_bps = 0", "risk.price_collar_bps", "must be > 0 and <= 10000, was 0"),
        ("max_portfolio_var = 5e-2", "max_portfolio_var = 5", "risk.max_portfolio_var", "must be > 0 and <= 1, was 5"),
        ("level = 0.975", "level = 0.5", "risk.var.level", "must be > 0.5 and < 1, was 0.5"),
        ("level = 0.975", "level = 0.999", "risk.var.scenarios", "must be >= 1000 for a level of 0.999"),
        ('horizon = "60s"', 'horizon = "0s"', "risk.var.horizon", "must be longer than zero"),
        ("scenarios = 500", "scenarios = 5.0", "risk.var.scenarios", "must be a whole number from 2"),
        ('base_currency = "USDT"', 'base_currency = "usdt"', "risk.var.base_currency", "in capitals"),
        ('scenarios.source = "file"', 'scenarios.source = "rolling"', "risk.scenarios.path", "needs risk.scenarios"),
        ('scenarios.path = "scenarios.npz"', "", "risk.scenarios.path", "must be given when"),
        ('"q2.parquet",', '"q1.parquet",', "backtest.quotes[1]", 'must not repeat a file, was "q1.parquet"'),
        ('"q2.parquet",', "7,", "backtest.quotes[1]", "must be a text in quotes, was 7"),
        ("depth = []", 'depth = "d.parquet"', "backtest.depth", "must be a list"),
        ('"250_000.50 USDT"', '"-1 USDT"', "backtest.starting_balance", "an amount > 0 and a currency"),
        ('account_type = "margin"', 'account_type = "x"', "backtest.account_type", 'must be one of "CASH", "MARGIN"'),
        ("control_drill = true", 'control_drill = "yes"', "backtest.control_drill", 'must be true or false, was "yes"'),
        ("[report]", "[report.title]", "report.title", "must be a text in quotes"),
    ],
)  # fmt: skip
def test_a_broken_rule_names_file_line_key_rule_and_value(old, new, key, rule):
    assert FULL_FILE.count(old) == 1
    text = FULL_FILE.replace(old, new)
    message = problem(text)
    # The offending line is where the key stands; a missing key points at the table that should hold it.
    expected = [line for line in message.splitlines() if f" {key} " in line]
    assert len(expected) == 1, message
    assert rule in expected[0]
    found = re.search(r"demo\.toml:(\d+): ", expected[0])
    assert found is not None
    last = re.sub(r"\[\d+\]$", "", key).rpartition(".")[2]
    near = "\n".join(text.splitlines()[int(found[1]) - 1 : int(found[1]) + 3])
    assert last in near or "must be given" in rule or "[" in key


def test_the_line_is_exact():
    for fragment, new, key in (
        ("price_collar_bps", "price_collar_bps = -1", "risk.price_collar_bps"),
        ("fee_bps = 5", "fee_bps = -5", "policy.fee_bps"),
        ('    "q2.parquet",', "    9,", "backtest.quotes[1]"),
        ("order_latency", "order_latency = 2", "backtest.order_latency"),
        ("socket =", "socket = 1", "control.socket"),
    ):
        text = "\n".join(new if line.startswith(fragment) else line for line in FULL_FILE.splitlines())
        assert problem(text).startswith(f"demo.toml:{line_of(text, new)}: {key} must be"), new
    windows = FULL_FILE.replace("fee_bps = 5", "fee_bps = -5").replace("\n", "\r\n")
    assert problem(windows).startswith(f"demo.toml:{line_of(FULL_FILE, 'fee_bps')}: policy.fee_bps")


@pytest.mark.parametrize(
    ("section", "key", "advice"),
    [
        ("risk", "max_portfolio_vr", "did you mean risk.max_portfolio_var?"),
        ("risk", "Max-Portfolio-VaR", "did you mean risk.max_portfolio_var?"),
        ("policy", "treshold_bps", "did you mean policy.threshold_bps?"),
        ("risk", "cooldown", "did you mean policy.cooldown?"),
        ("strategy", "base_currency", "did you mean risk.var.base_currency?"),
        ("report", "zzz", "the keys of [report] are title, notes"),
        ("neural.inference", "batchsize", "did you mean neural.inference.batch_size?"),
    ],
)
def test_an_unknown_key_names_the_nearest(section, key, advice):
    text = FULL_FILE.replace(f"[{section}]\n", f"[{section}]\n{key} = 3\n")
    message = problem(text)
    line = line_of(text, f"{key} = 3")
    assert message == f"demo.toml:{line}: {section}.{key} is not a known key, was 3; {advice}"


def test_an_unknown_section_names_the_nearest():
    message = problem(FULL_FILE + "\n[backtset]\ncontract = 'x'\n")
    assert message.endswith("backtset is not a known key; did you mean backtest?")


def test_all_problems_are_told_at_once_in_the_order_of_the_file():
    text = USER_FILE.replace("max_portfolio_var", "max_var").replace("batch_size = 32", "batch_size = 0")
    text = text.replace('"TN"', '"T N"').replace("spot = true", "spto = true")
    lines = problem(text).splitlines()
    assert lines[0] == "4 problems in the configuration:"
    assert [line.split(" ")[3] for line in lines[1:]] == [
        "strategy.order_id_tag",
        "neural.inference.batch_size",
        "risk.max_var",
        "data_sources.binance.spto",
    ]
    numbers = [int(re.search(r"demo\.toml:(\d+):", line)[1]) for line in lines[1:]]
    assert numbers == sorted(numbers)


def test_a_flood_of_problems_is_cut():
    text = FULL_FILE + "\n".join(f"x{i} = 1" for i in range(500))
    lines = problem(text).splitlines()
    assert lines[0] == "500 problems in the configuration:"
    assert lines[-1].strip() == "and 475 more"


def test_a_secret_is_not_repeated():
    message = problem(USER_FILE.replace("spot = true", 'spot = true, api_key = "hunter2hunter2"'))
    assert "data_sources.binance.api_key is not a known key" in message
    assert "hunter2" not in message
    assert "environment" in message


def test_no_limit_with_trading_is_refused():
    without = USER_FILE.replace("max_portfolio_var = 0.05\n", "")
    message = problem(without)
    assert "risk must set a limit, such as max_order_notional" in message
    assert "[data_sources]" in message
    assert message.startswith(f"demo.toml:{line_of(without, '[risk]')}: ")
    quiet = re.sub(r"\[data_sources\].*", "", without, flags=re.DOTALL)
    assert parse_config(quiet).risk.limits == ()
    off = quiet + "[data_sources]\nbinance = { enabled = false, spot = true }\n"
    assert parse_config(off).data_sources.enabled == ()
    backtest = "[backtest]\ncontract = 'c'\nquotes = ['q']\n"
    message = problem(quiet + backtest, "strategy.trade_size=1")
    assert message == (
        f"demo.toml:{line_of(quiet, '[risk]')}: risk must set a limit, such as max_order_notional, max_position, "
        "price_collar_bps or max_portfolio_var, when [backtest] is configured, sets none"
    )
    assert parse_config(
        quiet + backtest, overrides=["strategy.trade_size=1", "risk.max_position=1", "risk.neural_stress_testing=false"]
    ).risk.limits


def test_backtest_needs_size_and_data():
    text = MINIMAL_FILE + "risk.max_position = 1\nbacktest.contract = 'c'\n"
    message = problem(text)
    assert "strategy.trade_size must be given when [backtest] is configured" in message
    assert "backtest.quotes must name at least one file" in message
    assert parse_config(text + "backtest.depth = ['d']\nstrategy.trade_size = 1\n").backtest is not None


def test_missing_sections_are_named():
    message = problem("[policy]\n")
    assert "strategy must be given, was missing" in message
    assert "neural must be given, was missing" in message
    assert "neural.models must have at least 1 entry" in problem(MINIMAL_FILE.split("\n")[0] + "\nneural.models = []\n")
    message = problem('strategy = 1\nneural = [1]\nrisk = "x"\n')
    assert message.count("must be a table") == 3


def test_not_toml_names_the_line():
    assert problem("[strategy\n").startswith("demo.toml:1: not valid TOML at column 10: ")
    assert problem("[strategy]\na = 1\na = 2\n").startswith("demo.toml:3: not valid TOML at column 6: ")
    assert problem('[strategy]\nx = "').startswith("demo.toml:2: not valid TOML")
    assert "nested too deeply" in problem("a = " + "[" * 100_000)
    assert "cannot be read" in problem("a = " + "9" * 10_000)
    assert "cannot be read" in problem("a = 2024-02-31") or "not valid TOML" in problem("a = 2024-02-31")


def test_unreadable_files(tmp_path):
    for path, text in (
        (tmp_path / "absent.toml", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "latin.toml", "latin.toml:2: the file must be UTF-8 text, found byte 0xff"),
        (tmp_path / "large.toml", f"at most {MAX_FILE_BYTES} bytes"),
        ("a\0b", "cannot be read"),
    ):
        if str(path).endswith("latin.toml"):
            path.write_bytes(b"[strategy]\nx = '\xff'\n")
        if str(path).endswith("large.toml"):
            path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
        with pytest.raises(ConfigurationError, match=re.escape(text)):
            load_config(path)


def test_a_pipe_in_place_of_the_file_does_not_block(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ConfigurationError, match="strategy must be given"):
        load_config(tmp_path / "pipe.toml")


# ---------------------------------------------------------------- overrides


def test_overrides_take_toml_and_bare_words():
    config = parse_config(
        FULL_FILE,
        overrides=[
            "strategy.order_id_tag=001",
            "strategy.strategy_id=123",
            "policy.cooldown = 5s",
            "risk.max_order_notional=0.30",
            "risk.var.level=0.95",
            'neural.models[0].config="a b.toml"',
            "neural.models.1.type=CNN",
            "backtest.quotes=one.parquet",
            'backtest.trades=["x", "y"]',
            "backtest.control_drill=false",
            "backtest.starting_balance=5000",
            "report.title=true",
            "control.socket=1979-05-27",
            "neural.inference.inference_frequency=tick",
        ],
    )
    assert config.strategy.order_id_tag == "001"
    assert config.strategy.strategy_id == "123"
    assert config.policy.cooldown == 5 * SECOND
    assert str(config.risk.max_order_notional) == "0.3"
    assert config.risk.var.level == 0.95
    assert [m.config for m in config.neural.models] == ["a b.toml", "other.toml"]
    assert config.neural.models[1].type == "CNN"
    assert config.backtest is not None
    assert config.backtest.quotes == ("one.parquet",)
    assert config.backtest.trades == ("x", "y")
    assert config.backtest.control_drill is False
    assert config.backtest.starting_balance == Money(Decimal(5000))
    assert config.report.title == "true"
    assert config.control is not None
    assert config.control.socket == "1979-05-27"
    assert config.neural.inference.inference_frequency == Frequency("tick", 1)


def test_the_last_override_wins_and_sections_are_made():
    config = parse_config(
        MINIMAL_FILE, overrides=["policy.cooldown=1s", "policy.cooldown=2s", "risk.var.scenarios=200"]
    )
    assert config.policy.cooldown == 2 * SECOND
    assert config.risk.var.scenarios == 200
    whole = parse_config(MINIMAL_FILE, overrides=['policy={cooldown="3s"}', "policy.exit_bps=2"])
    assert (whole.policy.cooldown, whole.policy.exit_bps) == (3 * SECOND, 2.0)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("policy.cooldown", "--set policy.cooldown: must have the form section.key=value"),
        ("=1", "--set =1: must have the form section.key=value"),
        ("a..b=1", "must have the form section.key=value"),
        (
            "policy.coldown=1s",
            '--set policy.coldown=1s: policy.coldown is not a known key, was "1s"; did you mean policy.cooldown?',
        ),
        ("policy.cooldown=-1s", '--set policy.cooldown=-1s: policy.cooldown must be a duration'),
        ("risk.var.level=2", "--set risk.var.level=2: risk.var.level must be > 0.5 and < 1, was 2"),
        ("neural.models[7].type=GRU", "neural.models must be given an index below 2, was 7"),
        ("neural.models.x=1", 'neural.models must be given an index below 2, was "x"'),
        ("strategy.strategy_id.x=1", "strategy.strategy_id is not a list or table"),
        ("policy[0]=1", "policy is not a list or table"),
        ("policy.cooldown=1s\nrisk.var.level=0.6", "must be a duration"),
    ],
)  # fmt: skip
def test_a_wrong_override_names_itself(override, text):
    assert text in problem(FULL_FILE, override)


# ---------------------------------------------------------------- paths


def test_paths_are_found_beside_the_file_then_here_then_in_the_zoo(tmp_path, monkeypatch):
    folder, here, zoo = tmp_path / "cfg", tmp_path / "cwd", tmp_path / "zoo"
    for place in (folder, here, zoo):
        (place / "models").mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr("tengri_fast.runtime.config.zoo_folder", lambda: zoo)
    config = parse_config(MINIMAL_FILE.replace("m.toml", "models/m.toml"), folder / "c.toml")
    with pytest.raises(ConfigurationError) as caught:
        config.files()
    tried = [folder / "models/m.toml", here / "models/m.toml", zoo / "m.toml"]
    assert str(caught.value) == (
        f'{folder}/c.toml:2: neural.models[0].config must name an existing file, was "models/m.toml"; '
        f"looked for {', '.join(map(str, tried))}"
    )
    for path in reversed(tried):
        path.write_text("x")
        assert config.files() == {"neural.models[0].config": path}
    assert config.resolve(str(tried[2]), "x") == tried[2]
    assert zoo_folder().name == "models"
    assert zoo_folder().is_dir()


def test_all_missing_files_are_told():
    with pytest.raises(ConfigurationError) as caught:
        parse_config(FULL_FILE, "nowhere/c.toml").files()
    lines = str(caught.value).splitlines()
    named = [line.split(" ")[1] for line in lines]
    assert "risk.scenarios.path" in named
    assert "backtest.trades[1]" in named
    assert len(lines) == 7 - _zoo_has_demo_model()
    assert f"c.toml:{line_of(FULL_FILE, 'q2.parquet')}: backtest.quotes[1]" in str(caught.value)


def _zoo_has_demo_model() -> int:
    return int((zoo_folder() / "lstm_btcusdt" / "model.toml").exists())


def test_environment_variables_in_paths(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "m.toml").write_text("x")
    config = parse_config(MINIMAL_FILE.replace("m.toml", "${SOME_PLACE}/m.toml"), "c.toml")
    before = config.sha256
    monkeypatch.delenv("SOME_PLACE", raising=False)
    with pytest.raises(ConfigurationError, match="needs the environment variable SOME_PLACE, which is not set"):
        config.files()
    monkeypatch.setenv("SOME_PLACE", str(tmp_path / "d"))
    assert config.files() == {"neural.models[0].config": tmp_path / "d" / "m.toml"}
    assert config.sha256 == before
    fallback = parse_config(MINIMAL_FILE.replace("m.toml", "${NO_SUCH_PLACE:-" + str(tmp_path) + "}/d/m.toml"))
    assert fallback.files() == {"neural.models[0].config": tmp_path / "d" / "m.toml"}


def test_odd_paths_are_not_found_politely():
    config = parse_config(MINIMAL_FILE)
    for path in ("x" * 5000, "a\0b", "~nobody_of_this_name/x", "../" * 200 + "nothing_here"):
        with pytest.raises(ConfigurationError, match="must name an existing file"):
            config.resolve(path, "neural.models[0].config")


def test_error_points_at_the_line():
    config = parse_config(FULL_FILE, "demo.toml")
    error = config.error("neural.models[1].config", "must be good, was bad")
    line = line_of(FULL_FILE, "other.toml")
    assert str(error) == f"demo.toml:{line}: neural.models[1].config must be good, was bad"
    assert str(parse_config(FULL_FILE).error("risk", "is odd")) == "risk is odd"


def test_place_is_relative_to_the_file(tmp_path):
    config = parse_config(FULL_FILE, tmp_path / "c.toml")
    assert config.place("run.sock", "control.socket") == tmp_path / "run.sock"
    assert config.place("/abs/x", "control.socket") == Path("/abs/x")


# ---------------------------------------------------------------- hostile input

RUBBISH = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.decimals(),
    st.dates(),
    st.binary(max_size=4),
    st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=3),
    st.dictionaries(st.text(max_size=8), st.integers(), max_size=3),
    st.sampled_from(["1s", "tick", "3 ticks", "0", "1e400", "9" * 400, 10**400, -(10**30), "\ud800", "LSTM", ""]),
)


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    yield path


FULL = parse_config(FULL_FILE).to_dict()
PLACES = [path for path in leaves(FULL) if path]


def loads_or_tells(load: Callable[[], TengriConfig]) -> bool:
    """Whether it loads; then it must survive a round trip. Anything but a ConfigurationError with words escapes."""
    try:
        config = load()
    except ConfigurationError as error:
        told = str(error)
    else:
        assert parse_config(config.to_toml()).sha256 == config.sha256
        return True
    assert told.strip()
    return False


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PLACES), RUBBISH), min_size=1, max_size=3))
def test_any_value_anywhere_is_accepted_or_a_configuration_error(changes):
    document = copy.deepcopy(FULL)
    for path, rubbish in changes:
        here = document
        try:
            for step in path[:-1]:
                here = here[step]
            here[path[-1]] = rubbish
        except (TypeError, KeyError, IndexError):
            continue  # an earlier change took the place away
    loads_or_tells(lambda: TengriConfig.from_dict(document))


TOKENS = st.sampled_from(
    ['"', "'", '"""', "'''", "[", "]", "[[", "]]", "{", "}", "=", ".", ",", "#", "\n", "\r\n", "\\", "\\u0041", "nan",
     "inf", "-", "1e999999999999999999999", "0x", "1_0", "true", "2024-01-01", "\x00", "é", "\U0001f600", "risk", "a.b",
     " = 1\n"]
)  # fmt: skip


@settings(max_examples=1200, deadline=None)
@given(st.sampled_from([USER_FILE, FULL_FILE]), st.data())
def test_a_mutated_file_is_accepted_or_a_configuration_error(text, data):
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        match data.draw(st.sampled_from(["delete", "insert", "cut", "swap", "copy"])):
            case "delete":
                text = text[:at] + text[at + data.draw(st.integers(1, 12)) :]
            case "insert":
                text = text[:at] + data.draw(st.one_of(TOKENS, st.text(max_size=4))) + text[at:]
            case "cut":
                text = text[:at] if data.draw(st.booleans()) else text[at:]
            case "swap":
                lines = text.split("\n")
                i, j = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
                lines[i], lines[j] = lines[j], lines[i]
                text = "\n".join(lines)
            case "copy":
                end = min(len(text), at + data.draw(st.integers(1, 60)))
                text = text[:at] + text[at:end] + text[at:]
    loads_or_tells(lambda: parse_config(text, "demo.toml"))


@settings(max_examples=400, deadline=None)
@example("a=[")
@example("neural.models[0]=1")
@example("neural.models.0.x.y=1")
@example("risk={}")
@example("risk.var=1")
@example("strategy.trade_size=sNaN")
@example("policy.fee_bps=" + "9" * 9000)
@given(st.one_of(st.text(max_size=30), st.builds("{}={}".format, st.sampled_from(
    ["risk.var.level", "neural.models", "neural.models[1]", "policy", "backtest.quotes", "strategy.trade_size",
     "neural.inference.inference_frequency", "risk", "x", "report.notes"]), st.text(max_size=12))))  # fmt: skip
def test_any_override_is_accepted_or_a_configuration_error(override):
    loads_or_tells(lambda: parse_config(FULL_FILE, "demo.toml", [override]))


def test_the_fuzzing_sees_both_outcomes():
    assert loads_or_tells(lambda: parse_config(FULL_FILE))
    assert not loads_or_tells(lambda: parse_config(FULL_FILE.replace("exit_bps", "exit")))


# ---------------------------------------------------------------- manager


def manager() -> TengriConfigManager:
    return TengriConfigManager(parse_config(FULL_FILE, "some/demo.toml"))


def test_update_is_versioned_and_told():
    held = manager()
    told: list[tuple[int, int]] = []
    end = held.subscribe(lambda config, version: told.append((config.policy.cooldown, version)))
    assert held.version == 1
    assert held.update(["policy.cooldown=1s"]) == 2
    assert held.update({"policy": {"cooldown": "2s"}, "risk": {"max_position": None}}) == 3
    assert held.current.policy.cooldown == 2 * SECOND
    assert held.current.risk.max_position is None
    assert held.current.policy.threshold_bps == -0.25
    end()
    assert held.update(["policy.cooldown=3s"]) == 4
    assert told == [(SECOND, 2), (2 * SECOND, 3)]
    assert held.current.place("x", "y") == Path("some/x").absolute()


def test_a_wrong_update_changes_nothing():
    held = manager()
    before = held.snapshot
    told: list[int] = []
    held.subscribe(lambda _, version: told.append(version))
    for overrides in (
        ["policy.cooldown=x"],
        ["policy.nothing=1"],
        {"risk": {"var": {"level": 3}}},
        {"neural": {"models": []}},
    ):
        with pytest.raises(ConfigurationError):
            held.update(overrides)
    assert held.snapshot is before
    assert told == []


def test_a_subscriber_that_refuses_rolls_everyone_back():
    held = manager()
    seen: list[tuple[str, float, int]] = []

    def first(config, version):
        seen.append(("first", config.policy.fee_bps, version))

    def second(config, version):
        seen.append(("second", config.policy.fee_bps, version))
        if config.policy.fee_bps > 6:
            raise RuntimeError("no room")

    def third(config, version):
        seen.append(("third", config.policy.fee_bps, version))

    for subscriber in (first, second, third):
        held.subscribe(subscriber)
    with pytest.raises(ConfigurationError, match=r"refused by .*second: no room"):
        held.update(["policy.fee_bps=7"])
    assert (held.version, held.current.policy.fee_bps) == (1, 5.0)
    assert seen == [("first", 7.0, 2), ("second", 7.0, 2), ("second", 5.0, 1), ("first", 5.0, 1)]
    assert held.update(["policy.fee_bps=6"]) == 2
    assert [name for name, fee, _ in seen if fee == 6.0] == ["first", "second", "third"]


def test_a_subscriber_that_cannot_go_back_is_named():
    held = manager()

    def stubborn(config, version):
        raise RuntimeError(f"version {version}")

    held.subscribe(stubborn)
    with pytest.raises(
        ConfigurationError, match=r"refused by .*stubborn: version 2; and going back failed in .*stubborn"
    ):
        held.update(["policy.fee_bps=7"])
    assert held.version == 1


def test_an_update_from_within_is_refused():
    held = manager()
    held.subscribe(lambda *_: held.update(["policy.fee_bps=1"]))
    with pytest.raises(ConfigurationError, match="may not update"):
        held.update(["policy.fee_bps=2"])
    assert held.version == 1


def test_readers_never_see_half_an_update():
    held = manager()
    stop = threading.Event()
    torn: list[object] = []
    reads = [0]

    def read():
        while not stop.is_set():
            config, version = held.snapshot
            reads[0] += 1
            # Each update moves both together.
            if version > 1 and not config.policy.fee_bps == config.policy.exit_bps == version % 100:
                torn.append((version, config.policy))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    errors: list[Exception] = []
    lock = threading.Lock()

    def write():
        for _ in range(15):
            with lock:  # the next version is known only while nobody else updates
                value = (held.version + 1) % 100
                try:
                    held.update([f"policy.fee_bps={value}", f"policy.exit_bps={value}"])
                except Exception as error:
                    errors.append(error)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert not torn
    assert not errors
    assert held.version == 31
    assert reads[0] > 0


def test_concurrent_updates_are_all_counted():
    held = manager()
    versions: list[int] = []

    def write(key: str):
        for value in range(1, 11):
            versions.append(held.update([f"{key}={value}"]))

    keys = ["policy.fee_bps", "policy.exit_bps", "risk.max_position"]
    threads = [threading.Thread(target=write, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == list(range(2, 32))
    assert (held.current.policy.fee_bps, held.current.policy.exit_bps, held.current.risk.max_position) == (10, 10, 10)


def test_replace_and_load(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(FULL_FILE)
    held = TengriConfigManager.load(path, ["policy.fee_bps=2"])
    assert held.current.policy.fee_bps == 2.0
    assert held.replace(parse_config(MINIMAL_FILE)) == 2
    assert held.current.strategy.instrument_id == "A.B"
