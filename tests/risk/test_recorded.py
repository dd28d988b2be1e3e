"""Portfolio files: what is written is read, and what is wrong is named."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, RiskGate, RiskLimits
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.recorded import (
    LimitUse,
    decode_portfolio,
    holdings_document,
    limit_use,
    portfolio_document,
    read_holdings,
    read_portfolio,
    write_holdings,
)
from tengri_fast.risk.types import Utilisation

FULL = Holdings(
    ("SPY.ARCA", "BTCUSD.BITMEX", "YES.POLYMARKET", "C450.OPRA"),
    quantities=[100.0, -5000.0, 40.0, 3.0],
    prices=[450.25, 67_000.5, 0.37, 450.0],
    multipliers=[1.0, 1.0, 1.0, 100.0],
    rates=[1.0, 67_000.5, 1.0, 1.0],
    payoffs=("linear", "inverse", "binary", "linear"),
    spreads=[2e-5, math.nan, 0.02, 0.01],
    depths=[900.0, math.nan, math.nan, 4.0],
    volumes=[8e7, 1e9, math.nan, math.nan],
    asset_classes=("equity", "crypto", "prediction", ""),
    venues=("ARCA", "BITMEX", "POLYMARKET", "OPRA"),
    currencies=("USD", "BTC", "USDC", "USD"),
    deltas=[math.nan, math.nan, math.nan, 0.5],
    gammas=[math.nan, math.nan, math.nan, 0.004],
    base_currency="USD",
    equity=1_000_000.0,
)
LIMITS = (
    LimitUse(rule="MAX_PORTFOLIO_VAR", value=0.021, limit=0.05, unit="of equity"),
    LimitUse(rule="MAX_POSITION", scope="SPY.ARCA", value=100.0, limit=0.0, hard=False),
)


def same(a: Holdings, b: Holdings) -> None:
    for name in Holdings.__dataclass_fields__:
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right, err_msg=name)
        else:
            assert left == right or (left != left and right != right), name


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "book.json"
    write_holdings(path, FULL, limits=LIMITS, ts=1_700_000_000_000_000_000, source="desk")
    found = read_portfolio(path)
    same(found.holdings, FULL)
    same(read_holdings(path), FULL)
    assert (found.limits, found.ts, found.source) == (LIMITS, 1_700_000_000_000_000_000, "desk")
    assert [use.share for use in found.limits] == [pytest.approx(0.42), math.inf]
    assert [item.name for item in tmp_path.iterdir()] == ["book.json"]
    assert "NaN" not in path.read_text()


@given(
    st.lists(
        st.tuples(
            st.floats(-1e12, 1e12), st.floats(1e-9, 1e9), st.sampled_from(["linear", "inverse"]), st.text(max_size=5)
        ),
        max_size=4,
    ),
    st.one_of(st.just(math.nan), st.floats(-1e9, 1e9)),
)
def test_any_holdings_survive(rows: list[tuple[float, float, str, str]], equity: float) -> None:
    names = tuple(f"{i}{row[3]}" for i, row in enumerate(rows))
    given_holdings = Holdings(
        names, [row[0] for row in rows], [row[1] for row in rows], payoffs=tuple(row[2] for row in rows),
        venues=tuple(row[3] for row in rows), equity=equity,
    )  # fmt: skip
    document = holdings_document(given_holdings)
    same(decode_portfolio(json.dumps(document)).holdings, given_holdings)
    same(decode_portfolio(document).holdings, given_holdings)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "book.json"
    write_holdings(path, FULL)
    before = path.read_bytes()

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_holdings(path, FULL, source="other")
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["book.json"]


GOOD: dict[str, Any] = {"format": 1, "positions": [{"instrument_id": "A", "quantity": 1, "price": 2.0}]}


def changed(**fields: Any) -> dict[str, Any]:
    return {**GOOD, **fields}


def position(**fields: Any) -> dict[str, Any]:
    return changed(positions=[{**GOOD["positions"][0], **fields}])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "p.json is not JSON"),
        ("{", "p.json is not JSON"),
        ("[]", "p.json: `the document` must be a table, was a?r?r?a?y?"),
        ('{"format": 1, "positions": [{"instrument_id": "A", "quantity": NaN, "price": 1}]}', "is not JSON"),
        (b"\xff\xfe", "p.json is not JSON"),
        ({"positions": []}, "p.json: `format` must be there, was missing"),
        (changed(format=2), "p.json: `format` must be 1, was 2"),
        (changed(format="1"), "p.json: `format` must be int, was str"),
        (changed(ts=-1), "p.json: `ts` must be >= 0, was -1"),
        (changed(positions={}), "p.json: `positions` must be a list, was object"),
        (changed(holdings=[]), "p.json: `holdings` is not a known key"),
        (position(quantty=3), "p.json: `positions\\[0\\].quantty` is not a known key"),
        (position(quantity="3"), "p.json: `positions\\[0\\].quantity` must be float, was str"),
        (position(spread="x"), "p.json: `positions\\[0\\].spread` must be float or null, was str"),
        (position(price=-1.0), "p.json: `prices` must be finite and > 0 .* was -1.0 for A"),
        (position(price=0), "p.json: `prices` must be finite and > 0"),
        (position(rate=0), "p.json: `rates` must be finite and > 0, was 0.0 for A"),
        (position(payoff="digital"), "p.json: `payoffs` must be of linear, inverse, binary, was 'digital'"),
        (position(instrument_id=""), "p.json: `positions\\[0\\].instrument_id` must not be empty"),
        (changed(positions=GOOD["positions"] * 2), "p.json: `instrument_ids` must be distinct, 'A' is there twice"),
        (changed(limits=[{"value": 1.0}]), "p.json: `limits\\[0\\].rule` must be there, was missing"),
        (changed(limits=[{"rule": ""}]), "p.json: `limits\\[0\\].rule` must not be empty"),
    ],
)
def test_errors_name_the_key(document: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(document if isinstance(document, bytes) else (
        document if isinstance(document, str) else json.dumps(document)
    ).encode())  # fmt: skip
    with pytest.raises(DataConversionError, match=message):
        read_portfolio(path)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(DataConversionError):
        decode_portfolio("[" * 100_000)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="`portfolio` must name a file"):
        read_portfolio(tmp_path / "none.json")


def test_an_empty_portfolio_is_one() -> None:
    assert len(decode_portfolio({"format": 1, "positions": []}).holdings) == 0


@dataclass
class Row:
    rule: str
    value: float
    limit: float
    extra: int = 3


class StructRow(msgspec.Struct):
    rule: str
    value: float
    limit: float
    scope: str = "V"


@pytest.mark.parametrize(
    "row",
    [
        Row("R", 1.0, 2.0),
        StructRow("R", 1.0, 2.0),
        {"rule": "R", "value": np.float64(1.0), "limit": 2, "other": 1},
        SimpleNamespace(rule="R", value=1, limit=2.0),
        LimitUse(rule="R", value=1.0, limit=2.0),
    ],
)
def test_rows_of_a_gate(row: Any) -> None:
    state, gate = SimpleNamespace(holdings=lambda: FULL), SimpleNamespace(utilisation=lambda: [row])
    document = portfolio_document(state, gate, ts=5, source="run")
    found = decode_portfolio(json.dumps(document, allow_nan=False))
    assert (found.limits[0].rule, found.limits[0].value, found.limits[0].limit) == ("R", 1.0, 2.0)
    assert found.limits[0].scope == ("V" if isinstance(row, StructRow) else "portfolio")
    same(found.holdings, FULL)
    assert (found.ts, found.source) == (5, "run")
    assert decode_portfolio(portfolio_document(state)).limits == ()


def test_rows_of_the_gate_itself() -> None:
    row = Utilisation("MAX_POSITION", "instrument:SPY.ARCA", 4.0, 5.0, 0.8)
    assert limit_use(row) == LimitUse(rule="MAX_POSITION", scope="instrument:SPY.ARCA", value=4.0, limit=5.0)
    warning = limit_use(Utilisation("MAX_POSITION", "portfolio", 4.0, math.inf, 0.0))
    assert (warning.limit, warning.hard, warning.share) == (None, False, None)


def test_a_live_portfolio_and_its_gate() -> None:
    portfolio = PortfolioState([InstrumentFacts("A", size_increment=0.1), InstrumentFacts("B")])
    gate = RiskGate(RiskLimits(max_order_notional=1e6, max_position=5.0), portfolio)
    gate.warmup()
    for name, price in (("A", 100.0), ("B", 20.0)):
        portfolio.on_price(name, price - 0.05, price + 0.05, ts=1)
    portfolio.on_fill("A", 4.0, 100.0)
    gate.check(OrderView("o1", "S", "X", "A", quantity=0.5, ts=2))
    found = decode_portfolio(json.dumps(portfolio_document(portfolio, gate, ts=2), allow_nan=False))
    assert found.holdings.instrument_ids == ("A",)
    assert found.holdings.quantities.tolist() == [4.0]
    assert found.holdings.prices.tolist() == [100.0]
    assert {use.rule for use in found.limits} == {row.code for row in gate.utilisation()}
    for use, row in zip(found.limits, gate.utilisation(), strict=True):
        assert use.value == pytest.approx(row.value)
        assert use.scope == row.scope


def test_a_row_that_is_none_is_refused() -> None:
    state = SimpleNamespace(holdings=lambda: FULL)
    for row, message in (
        ({"value": 1.0}, "must have a `rule`"),
        ({"rule": "R", "value": "much"}, "`value` of R must be a number, was 'much'"),
    ):
        rows = [row]
        with pytest.raises(DataConversionError, match=message):
            portfolio_document(state, SimpleNamespace(utilisation=lambda rows=rows: rows))
    unlimited = {"rule": "R", "value": math.nan, "limit": math.inf}
    found = portfolio_document(state, SimpleNamespace(utilisation=lambda: [unlimited]))["limits"]
    assert found == [{"rule": "R", "hard": False}]
