from __future__ import annotations

import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from config_files import FULL_FILE, MINIMAL_FILE, USER_FILE
from rich.console import Console
from support import REPOSITORY

import tengri_fast
from tengri_fast.cli import COMMANDS, LazyGroup, main
from tengri_fast.cli import backtest as backtest_module
from tengri_fast.cli.backtest import RunDisplay, live_text
from tengri_fast.cli.config import pending_notes
from tengri_fast.errors import ConfigurationError, MissingExtraError, NeuralIntegrationError
from tengri_fast.runtime import ControlClient, ControlServer
from tengri_fast.runtime.info import EXTRAS, collect, render

CORE = ("click", "msgspec", "numpy", "rich", "pygments", "markdown_it", "mdurl")
RUNNABLE = MINIMAL_FILE + (
    "risk.max_position = 1\nstrategy.trade_size = 1\nbacktest.contract = 'c'\nbacktest.quotes = ['q.parquet']\n"
)


def call(*args: str | Path, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(main, [str(arg) for arg in args], env=env)


def write(folder: Path, text: str, name: str = "demo.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture
def short() -> Iterator[Path]:
    # A socket's path must be short; pytest's own temporary paths may not be.
    with tempfile.TemporaryDirectory(prefix="tg") as name:
        yield Path(name)


# ---------------------------------------------------------------- the group


def test_version_and_help():
    assert call("--version").output == f"tengri {tengri_fast.__version__}\n"
    text = call("--help").output
    for name, (_, line) in COMMANDS.items():
        words = r"\s+".join(map(re.escape, line.split()))  # a long line wraps
        assert re.search(rf"^  {name} +{words}$", text, re.MULTILINE)
    assert call("-h").output == text
    # Without a command there is nothing to do, so the help is shown.
    assert "Commands:" in call().output


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from tengri_fast.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'numpy', 'numba', 'rich', 'msgspec', 'nautilus_trader', 'pyarrow', 'plotly', 'tomllib', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_can_be_loaded_and_says_the_same_line():
    context = click.Context(main)
    assert isinstance(main, LazyGroup)
    for name, (where, line) in COMMANDS.items():
        if importlib.util.find_spec(where.partition(":")[0]) is None:
            continue
        command = main.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.get_short_help_str(200).rstrip(".") == line.rstrip(".") or name == "engine"


def test_a_wrong_command_names_the_nearest():
    result = call("bakctest")
    assert result.exit_code == 2
    assert "there is no command 'bakctest'; did you mean 'backtest'?" in result.output
    assert "there is no command 'xyzzy'\n" in call("xyzzy").output


def test_our_errors_are_one_sentence(tmp_path):
    path = write(tmp_path, MINIMAL_FILE + "policy.coldown = '1s'\n")
    result = call("config", "check", path)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        f'Error: {path}:3: policy.coldown is not a known key, was "1s"; did you mean policy.cooldown?\n'
    )
    result = call("config", "check", path, env={"TENGRI_TRACEBACK": "1"})
    assert isinstance(result.exception, ConfigurationError)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (NeuralIntegrationError("plain words"), 2, "Error: plain words\n"),
        (MissingExtraError("plotly", "report", "The report"), 2, "pip install 'tengri_fast[report]'"),
        (PermissionError(13, "Permission denied", "/x"), 2, "Error: /x: Permission denied\n"),
        (OSError(28, "No space left on device"), 2, "Error: No space left on device\n"),
        (KeyboardInterrupt(), 130, "Stopped by Ctrl-C."),
    ],
)
def test_exit_codes(monkeypatch, error, code, text):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("tengri_fast.runtime.info.collect", fail)
    result = call("info")
    assert result.exit_code == code
    assert text in result.stderr
    assert "Traceback" not in result.output


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr("tengri_fast.runtime.info.collect", lambda: 1 // 0)
    assert isinstance(call("info").exception, ZeroDivisionError)


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m tengri_fast.cli info --json | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=True)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


# ---------------------------------------------------------------- config


def test_config_show_is_a_file_that_loads_again(tmp_path):
    path = write(tmp_path, FULL_FILE)
    shown = call("config", "show", path, "--set", "policy.cooldown=7s").stdout
    assert tomllib.loads(shown)["policy"]["cooldown"] == "7s"
    again = call("config", "show", write(tmp_path, shown, "again.toml"))
    assert again.stdout == shown
    as_json = json.loads(call("config", "show", path, "--json").stdout)
    assert as_json["risk"]["var"]["horizon"] == "1m"
    assert as_json["strategy"]["trade_size"] == "0.01"


def test_config_check_tells_files_and_notes(tmp_path):
    path = write(tmp_path, USER_FILE)
    result = call("config", "check", path)
    assert result.exit_code == 2
    assert result.stderr.count("must name an existing file") == 3
    (tmp_path / "models").mkdir()
    for name in ("lstm_price_prediction", "transformer_sentiment", "cnn_pattern_recognition"):
        (tmp_path / "models" / f"{name}.toml").write_text("")
    result = call("config", "check", path)
    assert result.exit_code == 0, result.output
    assert f"neural.models[0].config: {tmp_path}/models/lstm_price_prediction.toml" in result.stdout
    assert "Note: execution.market_impact_modeling, execution.optimal_execution_algorithm" in result.stdout
    assert re.search(r"is right\. sha256 [0-9a-f]{64}$", result.stdout.strip())


def test_notes_are_grouped():
    notes = pending_notes((("a.b", "x"), ("c", "y"), ("a.d", "x")))
    assert notes == ["Note: a.b, a.d: not acted on by this version (x).", "Note: c: not acted on by this version (y)."]


# ---------------------------------------------------------------- info


def test_info_json_has_what_it_promises():
    found = json.loads(call("info", "--json").stdout)
    assert found["versions"]["tengri_fast"] == tengri_fast.__version__
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["versions"]["numpy"]
    assert found["cpu"]["model"]
    assert found["machine"]["cores"] >= 1
    assert set(found["extras"]) == set(EXTRAS)
    for row in found["backends"].values():
        assert row["available"] is (row["reason"] is None)
    if found["isa"]["active"] is not None:
        assert found["isa"]["active"] in found["isa"]["available"]
        assert "scalar" in found["isa"]["available"]
        assert found["isa"]["reason"] is None
    else:
        assert found["isa"]["reason"]


def test_info_text_says_it_all():
    found = collect()
    out = io.StringIO()
    Console(file=out, width=200).print(render(found))
    text = out.getvalue()
    for title in ("Versions", "CPU", "Zero-copy layouts", "Inference backends", "Extras"):
        assert title in text
    assert found["cpu"]["model"] in text
    assert found["versions"]["numpy"] in text
    for name in found["backends"]:
        assert name in text


def test_info_when_the_instruction_set_is_impossible():
    pytest.importorskip("tengri_fast._native")
    command = [sys.executable, "-m", "tengri_fast.cli", "info", "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "TENGRI_ISA": "abacus"}
    )
    isa = json.loads(done.stdout)["isa"]
    assert isa["active"] is None
    assert isa["reason"]


def test_extras_are_those_of_the_project():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {
        extra: {re.split(r"[><=;\[ ]", requirement)[0].lower() for requirement in requirements}
        for extra, requirements in project["optional-dependencies"].items()
        if extra != "dev"
    }
    assert declared == {extra: {name.lower() for name in names} for extra, names in EXTRAS.items()}


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Any:
    """Runs the command where only the core dependencies exist, Nautilus, numba and every extra being really absent."""
    site = tmp_path_factory.mktemp("bare")
    for name in CORE:
        module = importlib.import_module(name)
        assert module.__file__ is not None
        home = Path(module.__file__).parent
        (site / name).symlink_to(home)
        if (home.parent / f"{name}.libs").exists():
            (site / f"{name}.libs").symlink_to(home.parent / f"{name}.libs")
    (site / "tengri_fast").symlink_to(Path(tengri_fast.__file__).parent)

    def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", "-m", "tengri_fast.cli", *map(str, args)]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=environment, cwd=site, check=False
        )

    return run


def test_info_works_with_the_core_alone(bare):
    done = bare("info", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["versions"]["nautilus_trader"] is None
    assert found["versions"]["numba"] is None
    assert found["layouts"] == {
        "found": None,
        "reason": "nautilus_trader is not installed: pip install 'tengri_fast[nautilus]'",
    }
    assert found["extras"]["report"] == {"installed": {}, "missing": ["plotly", "matplotlib"]}
    text = bare("info")
    assert text.returncode == 0
    assert "not installed" in text.stdout


def test_backtest_with_the_core_alone_names_the_extra(bare, tmp_path):
    done = bare("backtest", write(tmp_path, RUNNABLE))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "Error: the report of `tengri backtest` needs `plotly`, which is not installed: "
        "pip install 'tengri_fast[report]'\n"
    )
    assert bare("config", "show", write(tmp_path, RUNNABLE)).returncode == 0


# ---------------------------------------------------------------- backtest


class Run:
    """Stands in for the simulation: reports progress, keeps what it was given."""

    def __init__(self, steps: int = 20) -> None:
        self.steps = steps
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, config: Any, out_dir: Any, progress: Any, control: Any) -> str:
        self.calls.append((config, out_dir, control))
        for step in range(self.steps + 1):
            progress(step, self.steps, {"pnl": step / 2, "currency": "USDT", "trades": step})
        return "the record"


@pytest.fixture
def run(monkeypatch) -> Run:
    report = pytest.importorskip("tengri_fast.report")
    run = Run()
    monkeypatch.setattr(backtest_module, "_runner", lambda: run)

    def write_report(record: str, out_dir: Path) -> dict[str, Path]:
        assert record == "the record"
        (out_dir / "report.html").write_text(record)
        return {"html": out_dir / "report.html"}

    monkeypatch.setattr(report, "write_report", write_report)
    monkeypatch.setattr(report, "terminal_summary", lambda record: f"Summary of {record}")
    return run


def test_backtest_runs_and_reports(run, tmp_path):
    out = tmp_path / "deep" / "out"
    result = call("backtest", write(tmp_path, RUNNABLE), "--out", out, "--set", "policy.cooldown=9s")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Summary of the record\nhtml       {out}/report.html\n"
    lines = result.stderr.splitlines()
    assert len(lines) == 10
    assert re.fullmatch(r"demo:  10% after \d+\.\d s  PnL \+1\.00 USDT, trades 2", lines[0])
    assert re.fullmatch(r"demo: 100% after \d+\.\d s  PnL \+10\.00 USDT, trades 20", lines[-1])
    ((config, folder, control),) = run.calls
    assert config.policy.cooldown == 9 * 10**9
    assert folder == out
    assert not control.serving
    assert control.status()["progress"]["done"] == 20


def test_backtest_defaults_and_quiet(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, RUNNABLE)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    result = call("backtest", "demo.toml", "--quiet", "--open")
    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "out" / "demo" / "report.html").exists()
    assert opened == [(tmp_path / "out" / "demo" / "report.html").as_uri()]


def test_backtest_says_what_is_not_acted_on(run, tmp_path):
    path = write(tmp_path, RUNNABLE + "execution.slippage_prediction = true\n")
    result = call("backtest", path, "--out", tmp_path / "o")
    assert "Note: execution.slippage_prediction: not acted on by this version" in result.stderr


def test_backtest_needs_its_section(run, tmp_path):
    path = write(tmp_path, USER_FILE)
    result = call("backtest", path)
    assert result.exit_code == 2
    assert run.calls == []
    assert result.stderr == f"Error: {path}: backtest must be given for `tengri backtest`, was missing\n"


def test_an_out_folder_that_cannot_be_made_is_told_before_the_run(run, tmp_path):
    (tmp_path / "file").write_text("")
    result = call("backtest", write(tmp_path, RUNNABLE), "--out", tmp_path / "file" / "out")
    assert result.exit_code == 2
    assert "Not a directory" in result.stderr
    assert run.calls == []


def test_the_adapter_that_cannot_be_loaded_is_a_sentence(tmp_path, monkeypatch):
    pytest.importorskip("plotly", reason="plotly is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setitem(sys.modules, "tengri_fast.nautilus.backtest", None)
    result = call("backtest", write(tmp_path, RUNNABLE), "--out", tmp_path / "o")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: the NautilusTrader adapter of tengri_fast cannot be loaded (")


def test_kill_and_status_reach_a_running_backtest(run, tmp_path, short, monkeypatch):
    """The commands a person would type, against a run that waits for them."""

    class Gate:
        def __init__(self) -> None:
            self.counters: dict[str, int] = {}
            self.kills: dict[str, str] = {}

        @property
        def killed(self) -> bool:
            return bool(self.kills)

        def kill(self, name: str, reason: str) -> None:
            self.kills[name] = reason

        def rearm(self, name: str, reason: str) -> None:
            del self.kills[name]

    gate = Gate()
    go, started = threading.Event(), threading.Event()

    def waiting(config, out_dir, progress, control):
        control.attach(gate)
        progress(1, 2, {"pnl": 3.0})
        started.set()
        assert go.wait(60)
        return "the record"

    monkeypatch.setattr(backtest_module, "_runner", lambda: waiting)
    socket = short / "run.sock"
    path = write(tmp_path, RUNNABLE + f"control.socket = '{socket}'\ncontrol.kill_file = 'STOP'\n")
    # CliRunner swaps the process' output streams, so only the outer command goes through it.
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(call("backtest", path, "--out", tmp_path / "o", "-q")))
    thread.start()
    try:
        assert started.wait(60)

        def ask(*args: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "tengri_fast.cli", *args, "--socket", str(socket)]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

        status = json.loads(ask("status", "--json").stdout)
        assert status["state"] == "running"
        assert status["progress"]["pnl"] == 3.0
        assert status["killed"] is False
        assert status["config"] == str(path)
        assert status["control"]["kill_file"] == str(tmp_path / "STOP")
        assert "Missing option '--name'" in ask("kill").stderr
        killed = ask("kill", "--name", "alice", "--reason", "drill")
        assert killed.stdout == f"Trading is stopped ({socket}). It stays so until `tengri rearm --name 'alice'`.\n"
        assert gate.kills == {"alice": "drill"}
        assert re.search(r"^killed +true$", ask("status").stdout, re.MULTILINE)
        assert ask("kill", "--name", "bob", "--reason", "me too").returncode == 0
        assert ask("rearm", "--name", "alice", "--reason", "done").stdout == (
            f"The switch of 'alice' is off, but trading stays stopped by: bob ({socket}).\n"
        )
        assert gate.kills == {"bob": "me too"}
        assert ask("rearm", "--name", "bob", "--reason", "done").stdout == f"Trading is allowed again ({socket}).\n"
        assert not gate.killed
        (tmp_path / "STOP").write_text("")
        end = threading.Event()
        for _ in range(2000):
            if gate.killed:
                break
            end.wait(0.005)
        assert gate.killed
        refused = ask("rearm", "--name", "bob", "--reason", "done")
        assert refused.returncode == 2
        assert "remove it first" in refused.stderr
    finally:
        go.set()
        thread.join()
    assert result[0].exit_code == 0, result[0].output
    assert not socket.exists()
    gone = ask("status")
    assert gone.returncode == 2
    assert "no running process listens" in gone.stderr


def test_the_socket_is_removed_when_the_run_fails(run, tmp_path, short, monkeypatch):
    def broken(*_, **__):
        raise NeuralIntegrationError("the data end early")

    monkeypatch.setattr(backtest_module, "_runner", lambda: broken)
    path = write(tmp_path, RUNNABLE + f"control.socket = '{short}/run.sock'\n")
    result = call("backtest", path, "--out", tmp_path / "o")
    assert result.exit_code == 2
    assert "the data end early" in result.stderr
    assert list(short.iterdir()) == []


def test_auto_means_the_place_where_the_commands_look(run, tmp_path, short, monkeypatch):
    monkeypatch.setenv("TENGRI_CONTROL_SOCKET", str(short / "auto.sock"))
    seen: list[bool] = []
    monkeypatch.setattr(
        backtest_module, "_runner", lambda: lambda *_, **__: seen.append(bool(ControlClient().ping())) or "the record"
    )
    path = write(tmp_path, RUNNABLE + "control.socket = 'auto'\n")
    assert call("backtest", path, "--out", tmp_path / "o", "-q").exit_code == 0
    assert seen == [True]


def test_ctrl_c_in_a_real_process(tmp_path, short):
    """A run in another process is interrupted: one sentence, 130, and the socket is gone."""
    pytest.importorskip("tengri_fast.report")
    code = (
        "import signal, sys, time\n"
        "from tengri_fast.cli import backtest, main\n"
        # A shell that starts tests in the background lets them inherit an ignored SIGINT.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def forever(config, out_dir, progress, control):\n"
        "    while True:\n"
        "        progress(1, 2, {})\n"
        "        time.sleep(0.01)\n"
        "backtest._runner = lambda: forever\n"
        "main(sys.argv[1:])\n"
    )
    socket = short / "run.sock"
    path = write(tmp_path, RUNNABLE + f"control.socket = '{socket}'\n")
    process = subprocess.Popen(
        [sys.executable, "-c", code, "backtest", str(path), "--out", str(tmp_path / "o")],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        client = ControlClient(socket, timeout=30.0)
        wait = threading.Event()
        for _ in range(6000):
            if socket.exists() and process.poll() is None:
                break
            wait.wait(0.01)
        assert client.ping()["pid"] == process.pid
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == 130
    assert errors.endswith("Stopped by Ctrl-C.\n")
    assert "Traceback" not in errors
    assert not socket.exists()


def test_control_server_status_in_text(short):
    with ControlServer(lambda: {"a": {"b": True, "c": None}, "d": 1.5}, lambda *_: None, lambda *_: None, short / "s"):
        lines = call("status", "--socket", short / "s").stdout.splitlines()
    assert lines[:2] == [f"{'a.b':28} true", f"{'d':28} 1.5"]


def test_a_second_run_gets_a_socket_of_its_own(run, tmp_path, short, monkeypatch):
    usual, own = short / "auto.sock", short / f"auto-{os.getpid()}.sock"
    monkeypatch.setenv("TENGRI_CONTROL_SOCKET", str(usual))
    seen: list[str] = []
    monkeypatch.setattr(
        backtest_module,
        "_runner",
        lambda: lambda *_, **__: seen.append(ControlClient(own).status()["control"]["socket"]) or "the record",
    )
    path = write(tmp_path, RUNNABLE + "control.socket = 'auto'\n")
    with ControlServer(dict, lambda *_: None, lambda *_: None, usual):
        result = call("backtest", path, "--out", tmp_path / "o")
        assert result.exit_code == 0, result.output
        assert "is served by another process" in result.stderr
        assert f"This run listens at {own}" in result.stderr
        assert seen == [str(own)]
        assert not own.exists()
        # A path that was asked for by name is not replaced by another.
        named = write(tmp_path, RUNNABLE + f"control.socket = '{usual}'\n")
        assert call("backtest", named, "--out", tmp_path / "o").exit_code == 2


# ---------------------------------------------------------------- display


@pytest.mark.parametrize(
    ("live", "text"),
    [
        ({}, ""),
        ({"pnl": -1234.5, "currency": "USDT"}, "PnL -1,234.50 USDT"),
        ({"pnl": 0, "orders": 1200, "denied": 3, "killed": True}, "PnL +0.00, orders 1,200, denied 3, KILLED"),
        ({"pnl": None, "trades": 1, "other": 5}, "trades 1"),
    ],
)
def test_live_numbers(live, text):
    assert live_text(live) == text


def draw(steps: Sequence[tuple[int, int]], **kwargs: Any) -> str:
    out = io.StringIO()
    with RunDisplay(Console(file=out, width=120, **kwargs), "[bold]name") as show:
        for done, total in steps:
            show(done, total, {"pnl": 1.0})
    return out.getvalue()


def test_the_bar_is_drawn_in_a_terminal():
    text = draw([(0, 4), (2, 4), (4, 4)], force_terminal=True)
    # Brackets in a name are a name, not markup.
    assert "[bold]name" in text
    assert "100%" in text
    assert "PnL +1.00" in text
    assert "[bold]name" in draw([(3, 0)], force_terminal=True)


def test_lines_are_drawn_elsewhere():
    assert draw([(3, 0), (0, 10)]) == ""
    lines = draw([(i, 1000) for i in range(1001)]).splitlines()
    assert [re.search(r"(\d+)%", line)[1] for line in lines] == [str(10 * i) for i in range(1, 11)]
    # A leap over several tenths is one line.
    assert len(draw([(1, 100), (95, 100), (100, 100)]).splitlines()) == 2
