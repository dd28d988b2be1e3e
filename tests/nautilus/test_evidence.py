"""The control evidence: every control behaves on both paths, every rule is tried, and a control that fails is found."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")

from tengri_fast.cli import main
from tengri_fast.nautilus import evidence as module
from tengri_fast.nautilus.evidence import PATHS, Evidence, collect, exercised
from tengri_fast.nautilus.evidence_rows import AREAS, ROWS
from tengri_fast.nautilus.evidence_steps import Modify, Row, Send, denied
from tengri_fast.risk.limit_table import CODES
from tengri_fast.risk.limits import MEASURES


@pytest.fixture(scope="module")
def found() -> Evidence:
    return collect()


def row(key: str) -> Row:
    return next(each for each in ROWS if each.key == key)


def problems(evidence: Evidence) -> list[str]:
    return [f"{failed.key}, {answer.path}: {text}" for failed, answer in evidence.failures for text in answer.problems]


def test_every_control_behaves_on_both_paths(found: Evidence) -> None:
    assert problems(found) == []
    assert found.passed
    assert all([answer.path for answer in answers] == list(PATHS) for answers in found.answers)


def test_every_rule_is_tried_and_answers(found: Evidence) -> None:
    """A new rule without a row fails here."""
    assert set(CODES) - exercised() == set()
    assert exercised() - set(CODES) == set()
    for path in range(len(PATHS)):
        told = {
            code
            for answers in found.answers
            for seen in answers[path].came
            for code in seen.word.rpartition(" ")[2].split("+")
        }
        assert set(CODES) <= told


def test_every_measure_that_can_be_limited_is_tried() -> None:
    assert {kind.code for kind in MEASURES.values()} <= exercised()


def test_the_script_itself() -> None:
    keys = [each.key for each in ROWS]
    assert len(set(keys)) == len(keys) > 80
    assert [each for rows in AREAS.values() for each in rows] == list(ROWS)
    for each in ROWS:
        assert each.expected, f"{each.key} tries nothing"
        assert each.serves
        assert all(each.serves)
        sends = [step for step in each.steps if isinstance(step, Send | Modify)]
        assert sends or "asked" in each.path
    kinds = {step.kind for each in ROWS for step in each.steps if isinstance(step, Send)}
    assert kinds == {"plain", "bracket", "emulated", "emulated stop-limit", "algorithm"}


def test_every_row_lets_something_pass() -> None:
    """A gate that refuses everything would pass a script of refusals only."""
    silent = {"equity", "negative-price", "instrument-maximum", "instrument-minimum", "scenarios", "stress-scenarios"}
    for each in ROWS:
        wants = {want for step in each.steps for want in step.wants}
        assert (wants & {"accepted", "filled", "changed", "canceled"} != set()) is (each.key not in silent), each.key


def test_the_backtest_answers_the_same_texts_again(found: Evidence) -> None:
    again = collect(paths=("backtest",))
    assert [[answer.text() for answer in answers[:1]] for answers in again.answers] == [
        [answer.text() for answer in answers[:1]] for answers in found.answers
    ]


def test_both_paths_answer_alike(found: Evidence) -> None:
    for each, (backtest, sandbox) in zip(found.rows, found.answers, strict=True):
        assert [seen.word for seen in backtest.came] == [seen.word for seen in sandbox.came], each.key


def test_reasons_are_those_of_nautilus_events(found: Evidence) -> None:
    by_key = dict(zip([each.key for each in found.rows], found.answers, strict=True))
    for answer in by_key["notional-bracket"]:
        assert answer.text().startswith("3 x OrderDenied: TENGRI_RISK:MAX_ORDER_NOTIONAL value=125001.25 limit=100000")
    for answer in by_key["notional-modify"]:
        assert answer.text().startswith("OrderModifyRejected: TENGRI_RISK:MAX_ORDER_NOTIONAL value=")


def test_a_drawdown_is_measured_from_the_peak(found: Evidence) -> None:
    by_key = dict(zip([each.key for each in found.rows], found.answers, strict=True))
    for answer in by_key["drawdown"]:
        # 2 BTC bought at 50,001 were worth 58,000 each, and 44,000 now.
        fallen = 2 * (58_000 - 44_000) / (1_000_000 + 2 * (58_000 - 50_001))
        assert f"MAX_DRAWDOWN value={fallen:.10g} limit=0.01" in answer.text()


# -- a control that does not behave is found ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("key", "limits", "message"),
    [
        ("collar", {"price_collar_bps": 1_000.0}, "filled instead of denied PRICE_COLLAR"),
        ("notional-emulated", {"max_order_notional": 1e9}, "filled instead of denied MAX_ORDER_NOTIONAL"),
        ("notional-algorithm", {"max_order_notional": 1e9}, "filled, filled instead of denied MAX_ORDER_NOTIONAL"),
        ("notional-modify", {"max_order_notional": 1e9}, "changed instead of change refused MAX_ORDER_NOTIONAL"),
        # Refused under another rule, or what must pass does not.
        ("position", {"max_order_quantity": 0.15, "max_position": 2.0}, "denied MAX_ORDER_QUANTITY instead of"),
        ("legal", {"max_order_notional": 1.0}, "denied MAX_ORDER_NOTIONAL instead of accepted"),
        ("self-trade", {"max_order_notional": 1e9}, "filled instead of denied SELF_TRADE"),
        ("var", {"nothing": 1.0}, "could not be played: TypeError"),
    ],
)
def test_a_control_that_does_not_behave_fails_its_row(path: str, key: str, limits: Any, message: str) -> None:
    evidence = collect([dataclasses.replace(row(key), limits=limits)], (path,))
    assert not evidence.passed
    assert any(message in text for text in problems(evidence)), problems(evidence)


def test_without_its_limit_no_row_passes() -> None:
    """Each refusal comes from the limit that the row sets, but for those that no configuration switches off."""
    wide = {"max_order_notional": 1e9}
    bare = collect([dataclasses.replace(each, limits=wide, config={}) for each in ROWS], ("backtest",))
    always = {
        "legal", "not-armed", "no-limits", "reload", "reducing", "tick", "negative-price", "binary-price", "crossed",
        "no-quote", "lot", "instrument-maximum", "instrument-minimum", "halted", "rearm", "rate", "instrument", "side",
        "type", "nan-quantity", "negative-quantity", "nan-price", "fault", "kill", "kill-emulated", "kill-reducing",
        "kill-cancel", "kill-restart", "kill-instrument", "kill-venue", "kill-strategy",
    }  # fmt: skip
    assert {each.key for each in ROWS} - {failed.key for failed, _ in bare.failures} == always


@pytest.mark.parametrize("path", PATHS)
def test_a_warning_that_nobody_hears_fails_its_row(path: str) -> None:
    soft = {"scoped": ({"scope": "instrument:$BTC", "measure": "position", "limit": 40.0, "soft": 10.0},)}
    assert "nobody was told" in problems(collect([dataclasses.replace(row("soft"), limits=soft)], (path,)))[0]


def test_a_gate_that_is_not_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The orders of the script are real: without the gate they are executed."""

    class Bare(module.Scene):
        def cue(self) -> None:
            self.gate.on_dispose()
            super().cue()

    monkeypatch.setattr(module, "Scene", Bare)
    evidence = collect([row("notional-market")], ("backtest",))
    assert problems(evidence) == [
        "notional-market, backtest: step 2 (send): filled instead of denied MAX_ORDER_NOTIONAL"
    ]


def test_signals_are_given_back() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    collect([row("legal")], ("sandbox",))
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


# -- the command -------------------------------------------------------------------------------------------------------


def call(monkeypatch: pytest.MonkeyPatch, evidence: Evidence, *arguments: object) -> Any:
    monkeypatch.setattr(module, "collect", lambda: evidence)
    return CliRunner().invoke(main, ["risk", "evidence", *map(str, arguments)])


def test_page_and_json(found: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = call(monkeypatch, found, "--out", tmp_path / "evidence")
    assert result.exit_code == 0, result.output
    assert f"{len(ROWS)} of {len(ROWS)} controls behaved" in result.output
    record = json.loads((tmp_path / "evidence" / "evidence.json").read_text())
    assert record["passed"]
    assert record["controls"] == len(ROWS)
    assert [each["key"] for each in record["rows"]] == [each.key for each in ROWS]
    assert all(each["area"] for each in record["rows"])
    page = (tmp_path / "evidence" / "evidence.html").read_text()
    assert "TENGRI_RISK:MAX_PORTFOLIO_VAR value=" in page
    assert "RTS 6 Art. 15(3)" in page
    assert "15c3-5(c)(1)(ii)" in page
    assert "http" not in page.replace("Content-Security-Policy", "").replace("http-equiv", "")
    assert page.count(">passed</span>") > 2 * len(ROWS)
    assert ">FAILED</span>" not in page


def test_a_failure_is_exit_code_1_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = dataclasses.replace(row("legal"), steps=(Send(quantity=0.1, price=49_900.0, wants=(denied("KILLED"),)),))
    failed = collect([bad], PATHS)
    result = call(monkeypatch, failed, "--out", tmp_path, "--json")
    assert result.exit_code == 1
    record = json.loads(result.output)
    assert not record["passed"]
    assert record["failed"] == 1
    assert record["rows"][0]["sandbox"]["problems"] == ["step 1 (send): accepted instead of denied KILLED"]
    assert ">FAILED</span>" in (tmp_path / "evidence.html").read_text()
    shown = call(monkeypatch, failed)
    assert shown.exit_code == 1
    assert "FAILED" in shown.output
    assert "legal, backtest: step 1 (send): accepted instead of" in shown.output
