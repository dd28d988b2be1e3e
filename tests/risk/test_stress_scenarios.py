"""Stress scenarios: what their words mean, what TOML may say, what ships, and the matrix for the gate."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk import InstrumentFacts
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.stress import (
    Correlation,
    Event,
    Gap,
    Jump,
    Liquidity,
    StressLibrary,
    StressScenario,
    stress_test,
)
from tengri_fast.risk.stress.moves import Universe, folded, resolve
from tengri_fast.risk.stress.toml_file import parse, to_toml


def _universe(name, asset_class="", currency="USD", payoff="linear", base="USD", unfunded=()):
    venue = name.rpartition(".")[2] if "." in name else ""
    return Universe((name,), (payoff,), (asset_class,), (venue,), (currency,), base, tuple(unfunded))


def _move(scenario, *args, betas=None, **kwargs):
    return float(resolve(scenario, _universe(*args, **kwargs), betas).prices[0])


# -- the move of an instrument ---------------------------------------------------------------------------------------


def test_the_most_special_shock_wins():
    scenario = StressScenario(
        "s",
        instruments={"AAPL.XNAS": -0.5, "MSFT": -0.4},
        factors={"index": -0.1, "size": 0.02},
        betas={"IBM": {"index": 1.5, "size": 2.0, "oil": 9.0}, "equity": {"index": 7.0}},
        asset_classes={"equity.energy": -0.3, "Equity": -0.2},
    )
    assert _move(scenario, "AAPL.XNAS", "equity") == -0.5
    assert _move(scenario, "AAPL.OTHER", "equity") == -0.2
    assert _move(scenario, "MSFT.ANY", "equity") == -0.4
    assert _move(scenario, "IBM.XNYS", "equity") == pytest.approx(1.5 * -0.1 + 2.0 * 0.02, abs=1e-15)
    assert _move(scenario, "XOM.XNYS", "equity.energy.oil") == -0.3
    assert _move(scenario, "GE.XNYS", "EQUITY") == -0.2
    assert _move(scenario, "GE.XNYS", "fx") == 0.0


def test_factors_through_classes_and_the_order_of_betas():
    scenario = StressScenario("s", factors={"btc": -0.5}, betas={"crypto": {"btc": 1.2}})
    assert _move(scenario, "ETH.X", "cryptocurrency") == pytest.approx(-0.6)
    assert _move(scenario, "ETH.X", "crypto", betas={"crypto": {"btc": 9.0}}) == pytest.approx(-0.6)
    assert _move(scenario, "ETH.X", "crypto", betas={"ETH": {"btc": 0.8}}) == pytest.approx(-0.4)
    assert not resolve(scenario, _universe("ETH.X", "equity")).named[0]
    assert _move(scenario, "ETH.X", "crypto", betas={"ETH": {"other": 1.0}}) == pytest.approx(-0.6)


def test_a_venue_is_compounded():
    scenario = StressScenario("s", asset_classes={"crypto": -0.5}, venues={"FTX": -0.2})
    assert _move(scenario, "BTC.FTX", "crypto") == pytest.approx(0.5 * 0.8 - 1.0)
    assert _move(scenario, "GOLD.FTX", "commodity") == pytest.approx(-0.2)
    assert resolve(scenario, _universe("GOLD.FTX")).named[0]


@pytest.mark.parametrize("name", ["EUR/USD.SIM", "EURUSD.SIM"])
def test_pairs_of_currencies(name):
    scenario = StressScenario("s", currencies={"EUR": -0.1, "USD": 0.05})
    assert _move(scenario, name, "fx") == pytest.approx(0.9 / 1.05 - 1.0)
    assert _move(scenario, name, "equity") == 0.0
    assert _move(scenario, "GBP/JPY.SIM", "fx") == 0.0


def test_settlement_currencies_move_against_the_base():
    scenario = StressScenario("s", currencies={"EUR": -0.1, "USD": 0.05})
    for currency, base, expected in (
        ("EUR", "USD", 0.9 / 1.05 - 1.0),
        ("JPY", "USD", 1.0 / 1.05 - 1.0),
        ("USD", "USD", 0.0),
        ("USD", "EUR", 1.05 / 0.9 - 1.0),
        ("", "USD", 0.0),
    ):
        moves = resolve(scenario, _universe("A", currency=currency, base=base))
        assert moves.currencies[0] == pytest.approx(expected, abs=1e-15)


def test_betas_below_nothing_and_inverse_contracts():
    scenario = StressScenario("s", factors={"f": -1.0}, betas={"A": {"f": 1.5}, "B": {"f": 1.0}})
    with pytest.raises(DataConversionError, match=r"must not move A below -1, was -1\.5"):
        resolve(scenario, _universe("A"))
    moves = resolve(scenario, _universe("B", payoff="inverse"))
    assert moves.prices[0] == -0.9999
    assert moves.cut == ("B",)


@given(
    st.sampled_from(["linear", "inverse"]),
    st.floats(-0.9, 3.0),
    st.floats(-0.9, 0.5),
    st.booleans(),
    st.floats(-5, 5).filter(lambda q: abs(q) > 0.01),
)
@settings(max_examples=200, deadline=None)
def test_the_folded_move_gives_the_same_result_at_constant_rates(payoff, r, c, funded, q):
    """A book that knows no move of currencies loses as much with one folded move (within its reach)."""
    scenario = StressScenario("s", instruments={"A": r}, currencies={"EUR": c}, currency_effect="position")
    universe = _universe("A", currency="EUR", payoff=payoff, unfunded=() if funded else ("A",))
    moves = resolve(scenario, universe)
    if payoff == "inverse" and (1.0 + c) * r / (1.0 + r) > 0.999:
        return
    book = Holdings(("A",), [q], [40.0], payoffs=(payoff,), currencies=("EUR",), rates=[1.3])
    one = book.pnl(folded(moves, universe))[0]
    row = stress_test(book, [scenario], unfunded=universe.unfunded).table[0]
    assert row.pnl == pytest.approx(one, rel=1e-9, abs=1e-9)


def test_an_unfunded_position_loses_on_its_result_only():
    scenario = StressScenario("s", asset_classes={"crypto": -0.1}, currencies={"USDT": -0.2})
    book = Holdings(("BTC.X",), [2.0], [100.0], asset_classes=("crypto",), currencies=("USDT",))
    assert stress_test(book, [scenario]).table[0].pnl == pytest.approx(200 * (0.9 * 0.8 - 1.0))
    for key in ("BTC.X", "BTC", "crypto", "X"):
        assert stress_test(book, [scenario], unfunded=[key]).table[0].pnl == pytest.approx(200 * -0.1 * 0.8)


# -- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": " "}, "`name` must be a text that is not empty"),
        ({"kind": "odd"}, "`kind` must be one of replay"),
        ({"verified": 1}, "`verified` must be true or false, was 1"),
        ({"asset_classes": {"equity": -1.01}}, r"`asset_classes\.equity` must be a finite number >= -1, was -1\.01"),
        ({"asset_classes": {"crypto": -0.1, "Cryptocurrency": -0.1}}, "'crypto' is there twice"),
        ({"asset_classes": {".x": -0.1}}, r"`asset_classes` must be names of classes, was '\.x'"),
        ({"instruments": {"A": math.nan}}, r"`instruments\.A` must be a finite number >= -1, was nan"),
        ({"instruments": {"A": True}}, r"`instruments\.A` must be a finite number >= -1, was True"),
        ({"instruments": {"A": 10**400}}, r"`instruments\.A` must be a finite number"),
        ({"instruments": [1]}, "`instruments` must be a table of numbers"),
        ({"instruments": {"": 0.1}}, "`instruments key`"),
        ({"currencies": {"EUR": -1.0}}, r"`currencies\.EUR` must be > -1"),
        ({"factors": {"f": "x"}}, r"`factors\.f` must be a finite number, was 'x'"),
        ({"betas": {"A": 1.0}}, r"`betas\.A` must be a table of numbers"),
        ({"betas": {"equity": {}, "EQUITY": {}}}, "'equity' is there twice"),
        ({"units": {"f": 1}}, r"`units\.f` must be a text"),
        ({"currency_effect": "all"}, "`currency_effect` must be position or result"),
        ({"instruments": {}}, "must have at least one of"),
        ({"correlation": Correlation(level=1.0)}, "`correlation` makes the moves itself"),
        ({"jump": Jump(), "gap": Gap()}, "`jump` must not stand beside"),
    ],
)
def test_a_scenario_checks_itself(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        StressScenario(**{"name": "s", "instruments": {"A": -0.1}, **changes})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Liquidity(spread_multiple=0.5), r"`liquidity\.spread_multiple` must be a finite number >= 1"),
        (lambda: Liquidity(depth_divisor=math.inf), r"`liquidity\.depth_divisor`"),
        (lambda: Liquidity(fraction=1.1), r"`liquidity\.fraction` must be within 0 and 1, was 1\.1"),
        (lambda: Correlation(), "exactly one of `level` and `matrix`"),
        (lambda: Correlation(level=1.5), "within -1 and 1"),
        (lambda: Correlation(level=1.0, sigmas=0.0), r"`correlation\.sigmas` must be a finite number > 0"),
        (lambda: Correlation(matrix=[[1.0, 0.2], [0.2, 1.0]], instrument_ids=("A",)), r"shape \(1, 1\)"),
        (lambda: Correlation(matrix=[[1.0, 0.2], [0.3, 1.0]], instrument_ids=("A", "B")), "must be symmetric"),
        (lambda: Correlation(matrix=[[1.0, "x"], [0.3, 1.0]], instrument_ids=("A", "B")), "square of numbers"),
        (lambda: Correlation(matrix=[[1.0]], instrument_ids=("A", "A")), "distinct names"),
        (lambda: Gap(rebound=-0.1), r"`gap\.rebound` must be within 0 and 1"),
        (lambda: Gap(halted="A"), r"`gap\.halted` must be a list"),
        (lambda: Jump(to="two"), r"`jump\.to` must be worst, zero or one"),
        (lambda: Jump(to="one", events={"e": Event(("A",))}), r"`jump\.events` needs"),
        (lambda: Event(("A", "A")), "distinct names"),
        (lambda: Event(("A",), exhaustive=1), "`exhaustive` must be true or false"),
    ],
)
def test_parts_check_themselves(make, words):
    with pytest.raises(ConfigurationError, match=words):
        make()


# -- TOML ------------------------------------------------------------------------------------------------------------

EXAMPLE = """
[betas.debt]
rates_10y = -0.07

[[scenario]]
name = "tech sell-off"
source = "a risk committee"
horizon = "5d"
factors = { equity_index = -0.1, rates_10y = 0.5 }
units = { rates_10y = "percentage points" }
asset_classes = { "equity.technology" = -0.25, crypto = -0.3 }
instruments = { "AAPL.XNAS" = -0.3 }
currencies = { JPY = 0.05 }
venues = { FTX = -0.2 }
betas.equity = { equity_index = 1.0 }
liquidity = { spread_multiple = 5, depth_divisor = 4, fraction = 0.5 }
gap = { rebound = 0.5, halted = ["AAPL.XNAS"] }

[[scenario]]
name = "all together"
correlation = { level = 1.0, sigmas = 3 }

[[scenario]]
name = "by hand"
correlation = { matrix = [[1.0, 0.9], [0.9, 1.0]], instrument_ids = ["equity", "BTC"] }

[[scenario]]
name = "election"
jump = { to = "worst", events.winner = { instruments = ["A.P", "B.P"], exhaustive = false } }
"""


def _plain(scenario):
    found = {}
    for field in fields(scenario):
        value = getattr(scenario, field.name)
        if isinstance(value, Correlation):
            value = (value.level, None if value.matrix is None else value.matrix.tolist(), value.instrument_ids,
                     value.sigmas, value.volatility_multiple)  # fmt: skip
        found[field.name] = value
    return found


def test_the_example_says_what_it_says():
    scenarios, betas = parse(EXAMPLE, "example.toml")
    assert betas == {"debt": {"rates_10y": -0.07}}
    first, together, by_hand, election = scenarios
    assert first.kind == "user"
    assert first.instruments == {"AAPL.XNAS": -0.3}
    assert first.liquidity == Liquidity(5.0, 4.0, 0.5)
    assert first.gap == Gap(0.5, ("AAPL.XNAS",))
    assert first.betas == {"equity": {"equity_index": 1.0}}
    assert (together.correlation.level, together.correlation.sigmas) == (1.0, 3.0)
    assert by_hand.correlation.matrix.tolist() == [[1.0, 0.9], [0.9, 1.0]]
    assert election.jump == Jump("worst", {"winner": Event(("A.P", "B.P"), False)})


def test_what_is_written_reads_back_as_the_same():
    scenarios, betas = parse(EXAMPLE, "example.toml")
    odd = StressScenario('a "quoted"\n\\ name \x7f', "gap", "source\tä", instruments={'x"y.Z': 1e-300})
    again, betas_again = parse(to_toml((*scenarios, odd), betas), "again.toml")
    assert betas_again == betas
    assert [_plain(scenario) for scenario in again] == [_plain(scenario) for scenario in (*scenarios, odd)]


@given(st.text(max_size=20), st.floats(-1, 1e300, allow_nan=False), st.text(min_size=1, max_size=10))
@settings(max_examples=100, deadline=None)
def test_any_text_survives_the_file(source, move, key):
    if not key.strip() or any("\ud800" <= c <= "\udfff" for c in source + key):
        return
    scenario = StressScenario("s", source=source, instruments={key: move}, venues={key: move})
    assert _plain(parse(to_toml((scenario,)), "x")[0][0]) == _plain(scenario)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must have at least one"),
        ("x = [", "is not TOML"),
        ("x = 1", r"`x` is not known; known are scenario, betas"),
        ("scenario = 1", "`scenario` must be a list of tables"),
        ("scenario = [1]", "`scenario` must be a list of tables"),
        ("[[scenario]]\ninstruments = { A = 1 }", r"scenario 1: `name` must be given"),
        ("[[scenario]]\nname = 3\ninstruments = { A = 1 }", "`name` must be a text"),
        ('[[scenario]]\nname = "a"', r"scenario 1 'a': a scenario must have at least one of"),
        ('[[scenario]]\nname = "a"\nshock = 1', "'a': `shock` is not known"),
        ('[[scenario]]\nname = "a"\ninstruments = { A = nan }', r"`instruments\.A`.*was nan"),
        ('[[scenario]]\nname = "a"\ninstruments = { A = inf }', r"`instruments\.A`.*was inf"),
        ('[[scenario]]\nname = "a"\ninstruments = { A = "-10 %" }', r"`instruments\.A`.*was '-10 %'"),
        ('[[scenario]]\nname = "a"\ninstruments = { A = 2020-03-12 }', r"`instruments\.A`"),
        ('[[scenario]]\nname = "a"\ninstruments = 5', "`instruments` must be a table of numbers, was 5"),
        ('[[scenario]]\nname = "a"\nliquidity = 5', "`liquidity` must be a table, was 5"),
        ('[[scenario]]\nname = "a"\nliquidity = { spread = 5 }', "liquidity: `spread` is not known"),
        ('[[scenario]]\nname = "a"\nliquidity = { spread_multiple = 0 }', r"`liquidity\.spread_multiple`.*was 0"),
        ('[[scenario]]\nname = "a"\ngap = { halted = "A" }\ninstruments = { A = 0 }', r"`gap\.halted` must be a list"),
        ('[[scenario]]\nname = "a"\ncorrelation = { level = 1.0, matrix = [[1]] }', "exactly one"),
        ('[[scenario]]\nname = "a"\njump = { events = { e = 1 } }', r"jump\.events\.e must be a table"),
        ('[[scenario]]\nname = "a"\njump = { events = { e = { instruments = "A" } } }', "must be a list of names"),
        ('[[scenario]]\nname = "a"\njump = { events = { e = { instruments = [1] } } }', "must be a text"),
        ('[[scenario]]\nname = "a"\njump = { when = 1 }', "jump: `when` is not known"),
        ('[[scenario]]\nname = "a"\nbetas = { A = { f = [1] } }\nfactors = { f = 1 }', r"`betas\.A\.f`"),
        ("betas = 3", "`betas` must be a table of tables"),
        ("[betas]\nA = 3", r"`betas\.A` must be a table of numbers"),
        ("[betas.A]\nf = nan", r"`betas\.A\.f` must be a finite number, was nan"),
        ("x = " + "[" * 5000, "is not TOML"),
        ('[[scenario]]\nname = "a"\ninstruments = { A = ' + "9" * 5000 + " }", "hostile.toml"),
    ],
    ids=range(29),
)
def test_hostile_files_are_refused_whole(tmp_path, text, words):
    good = '[[scenario]]\nname = "good"\ninstruments = { A = -0.1 }\n'
    path = tmp_path / "hostile.toml"
    path.write_text(text)
    library = StressLibrary([StressScenario("old", instruments={"A": 0.1})], {"A": {"f": 1.0}})
    with pytest.raises(ConfigurationError, match=words) as caught:
        library.add_file(path)
    assert "hostile.toml" in str(caught.value)
    if text.startswith("[["):
        path.write_text(good + text)
        with pytest.raises(ConfigurationError, match=r"scenario 2|hostile\.toml is not TOML"):
            library.add_file(path)
    assert library.names == ("old",)
    assert library.betas == {"A": {"f": 1.0}}


def test_names_are_unique(tmp_path):
    path = tmp_path / "mine.toml"
    twice = '[[scenario]]\nname = "a"\ninstruments = { A = -0.1 }\n'
    path.write_text(twice + twice)
    with pytest.raises(ConfigurationError, match="scenario 2 'a': `name` must be unique"):
        StressLibrary.load(path)
    path.write_text('[[scenario]]\nname = "crypto -50 %"\ninstruments = { A = -0.1 }\n')
    with pytest.raises(ConfigurationError, match=r"mine\.toml: `name` must be unique, 'crypto -50 %' is there twice"):
        StressLibrary.load(path)
    assert StressLibrary.load(path, built_in=False).names == ("crypto -50 %",)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist"):
        StressLibrary.load(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"bytes\.toml must be a text in UTF-8"):
        StressLibrary.load(tmp_path / "bytes.toml")
    with pytest.raises(ConfigurationError, match="at least one scenario"):
        StressLibrary.load(built_in=False)


# -- what ships ------------------------------------------------------------------------------------------------------


def test_what_ships_says_where_it_comes_from():
    library = StressLibrary.built_in()
    assert len(library) > 90
    kinds = {scenario.kind for scenario in library}
    assert {"replay", "hypothetical", "correlation", "liquidity", "gap", "jump"} <= kinds
    for scenario in library:
        assert scenario.source
        assert scenario.horizon
        if scenario.kind == "replay":
            assert scenario.licence
            assert ".." in scenario.dates
    unverified = [scenario.name for scenario in library if not scenario.verified]
    assert unverified == ["Federal Reserve 2026 severely adverse (headline)"]


def test_select_and_look_up():
    library = StressLibrary.built_in()
    chosen = library.select(["equity -20 %", "crypto -50 %"])
    assert chosen.names == ("equity -20 %", "crypto -50 %")
    assert chosen.betas == library.betas
    assert {scenario.kind for scenario in library.select(kinds=["jump"])} == {"jump"}
    for call in (lambda: library["no"], lambda: library.select(["no"])):
        with pytest.raises(ConfigurationError, match="'no'"):
            call()
    chosen.add(StressScenario("new", instruments={"A": 0.1}))
    assert "new" in chosen
    assert "new" not in library


# -- the matrix of the gate ------------------------------------------------------------------------------------------


def _facts(name, payoff="linear", currency="USD", asset_class=""):
    return InstrumentFacts(name, payoff=payoff, settlement_currency=currency, asset_class=asset_class)


def test_the_matrix_revalues_to_the_same_table():
    """Every column, revalued by a book at constant rates, is the market part of its scenario's row."""
    names = ("AAPL.XNAS", "SAP.XETR", "BTCUSD-PERP.X", "ES.CME", "YES.P")
    facts = [
        _facts("AAPL.XNAS", asset_class="equity"),
        _facts("SAP.XETR", currency="EUR", asset_class="equity"),
        _facts("BTCUSD-PERP.X", "inverse", "BTC", "crypto"),
        _facts("ES.CME", asset_class="index"),
        _facts("YES.P", "binary", "USD"),
    ]
    book = Holdings(
        names,
        [100.0, -50.0, 3e4, -2.0, 500.0],
        [190.0, 150.0, 60_000.0, 5000.0, 0.3],
        multipliers=[1, 1, 1, 50, 1],
        rates=[1.0, 1.1, 60_000.0, 1.0, 1.0],
        payoffs=tuple(fact.payoff for fact in facts),
        asset_classes=tuple(fact.asset_class for fact in facts),
        currencies=tuple(fact.settlement_currency for fact in facts),
    )
    library = StressLibrary.built_in()
    matrix = library.to_matrix(names, facts)
    assert matrix.returns.shape == (5, len(matrix.names))
    assert matrix.returns.dtype == np.float32
    assert matrix.returns.flags.c_contiguous
    columns, returns = matrix
    assert columns is matrix.names
    assert returns is matrix.returns
    table = stress_test(book, library)
    pnl = book.pnl(np.maximum(returns.astype(np.float64), -1.0))
    checked = 0
    for k, name in enumerate(columns):
        if name in library:
            assert pnl[k] == pytest.approx(table[name].parts["market"], rel=1e-5, abs=0.1)
            checked += 1
    assert checked > 80
    worst = table["binaries settle at the worst"].parts["jump"]
    jumps = [pnl[k] for k, name in enumerate(columns) if name.startswith("binaries settle at the worst")]
    assert min(jumps) == pytest.approx(worst, rel=1e-5)


def test_parts_that_are_no_move_are_named():
    matrix = StressLibrary.built_in().to_matrix(("A",), [_facts("A", asset_class="equity")])
    assert "covariance" in matrix.skipped["correlations to one"]
    assert (
        "depends on the portfolio" in matrix.skipped["correlations to zero"]
        or "covariance" in matrix.skipped["correlations to zero"]
    )
    assert matrix.skipped["liquidity: spread x 3, depth / 3"] == "costs of liquidation are no price move"
    assert matrix.skipped["crypto +50 %"] == "no shock names an instrument"
    assert matrix.skipped["binaries settle at 0"] == "no binaries"
    assert "equity -35 %" in matrix.names
    assert matrix.skipped["equity -35 %"] == "costs of liquidation are no price move"
    assert set(StressLibrary.built_in().names) == {name.split(" (gap)")[0].split(" (after)")[0] for name in
                                                   matrix.names} | set(matrix.skipped)  # fmt: skip


def test_correlations_at_one_are_two_columns():
    covariance = np.array([[0.0004, 0.0001], [0.0001, 0.0009]])
    library = StressLibrary([StressScenario("one", correlation=Correlation(level=1.0, sigmas=2.0))])
    matrix = library.to_matrix(("A", "B"), covariance=covariance)
    assert matrix.names == ("one (down)", "one (up)")
    np.testing.assert_allclose(matrix.returns, [[-0.04, 0.04], [-0.06, 0.06]], rtol=1e-6)
    book = Holdings(("A", "B"), [10.0, 3.0], [100.0, 50.0])
    row = stress_test(book, library, covariance=covariance).table[0]
    assert book.pnl(matrix.returns.astype(float)).min() == pytest.approx(row.pnl, rel=1e-6)


def test_gaps_are_columns_before_and_after_the_rebound():
    gap = StressScenario("g", instruments={"A": -0.2, "B": -0.1}, gap=Gap(0.5, ("A",)))
    matrix = StressLibrary([gap]).to_matrix(("A", "B"))
    assert matrix.names == ("g (gap)", "g (after)")
    np.testing.assert_allclose(matrix.returns, [[-0.2, -0.2], [-0.1, -0.05]], rtol=1e-6)


def test_events_are_columns_by_winner():
    jump = StressScenario("j", jump=Jump("worst", {"e": Event(("A", "B"))}))
    matrix = StressLibrary([jump]).to_matrix(("A.P", "B.P", "C.P"), [_facts(f"{n}.P", "binary") for n in "ABC"])
    assert matrix.names == ("j (all at 0)", "j (all at 1)", "j (e: A.P)", "j (e: B.P)")
    np.testing.assert_array_equal(matrix.returns[:, 2:], np.float32([[1e6, -1], [-1, 1e6], [0, 0]]))
    assert matrix.covered.tolist() == [True, True, True]


def test_the_matrix_checks_its_arguments():
    library = StressLibrary([StressScenario("s", factors={"f": 1e300}, betas={"A": {"f": 1.0}})])
    with pytest.raises(DataConversionError, match="'A' is there twice"):
        library.to_matrix(("A", "A"))
    with pytest.raises(DataConversionError, match="'s' must move A by a finite part"):
        library.to_matrix(("A",))
    with pytest.raises(DataConversionError, match=r"`covariance` must have shape \(1, 1\)"):
        library.to_matrix(("B",), covariance=np.eye(2))
    empty = library.to_matrix(("B",))
    assert empty.returns.shape == (1, 0)
    assert empty.skipped == {"s": "no shock names an instrument"}
