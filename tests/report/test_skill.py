"""Hit rates, moves, calibration: each against an oracle that is obvious and slow."""

from __future__ import annotations

import itertools
import json
import math
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support import sample_data

from tengri_fast.errors import DataConversionError
from tengri_fast.report import _files, skill

TICKS = st.lists(st.integers(-3, 3), min_size=0, max_size=60).map(lambda steps: np.cumsum([640_000, *steps]))
SIGNS = st.sampled_from([-1, 0, 1])


def mids(ticks: np.ndarray, spread: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Bid and ask at a tick of 0.1, rounded as an exchange file would hold them."""
    bid = np.array([float(Decimal(int(t)) / 10) for t in ticks])
    ask = np.array([float(Decimal(int(t) + spread) / 10) for t in ticks])
    return bid, ask


@given(TICKS)
def test_fresh_books_and_next_move_match_a_loop_over_exact_ticks(ticks: np.ndarray) -> None:
    bid, ask = mids(ticks)
    mid = (bid + ask) / 2
    expected_fresh = [i for i in range(1, len(ticks)) if ticks[i] != ticks[i - 1]]
    expected_move = []
    for i in range(len(ticks)):
        later = [int(np.sign(t - ticks[i])) for t in ticks[i + 1 :] if t != ticks[i]]
        expected_move.append(later[0] if later else 0)
    assert skill.fresh_books(mid).tolist() == expected_fresh
    assert skill.next_move(mid).tolist() == expected_move


def test_a_book_that_widens_evenly_is_not_a_move() -> None:
    # Both mids are 0.3, but 0.1 + 0.5 and 0.2 + 0.4 differ in the last digit.
    bid, ask = np.array([0.1, 0.2, 0.1]), np.array([0.5, 0.4, 0.5])
    mid = (bid + ask) / 2
    assert mid[0] != mid[1]
    assert skill.fresh_books(mid).tolist() == []
    assert skill.next_move(mid).tolist() == [0, 0, 0]


@pytest.mark.parametrize("mid", [[], [1.0], [5.0, 5.0, 5.0]])
def test_no_move_means_no_books_and_no_labels(mid: list[float]) -> None:
    assert skill.fresh_books(mid).tolist() == []
    assert skill.next_move(mid).tolist() == [0] * len(mid)


def test_one_move_has_a_book_but_no_label_after_it() -> None:
    assert skill.fresh_books([1.0, 1.0, 2.0, 2.0]).tolist() == [2]
    assert skill.next_move([1.0, 1.0, 2.0, 2.0]).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("mid", "message"),
    [
        ([1.0, math.nan], "`mid` must be finite, row 1 was nan"),
        ([math.inf, 1.0], "row 0 was inf"),
        ([[1.0, 2.0]], "one dimension"),
    ],
)
def test_mids_that_are_no_prices_are_refused(mid: list[float], message: str) -> None:
    for function in (skill.fresh_books, skill.next_move):
        with pytest.raises(DataConversionError, match=message):
            function(mid)


@given(TICKS.filter(lambda t: len(t) > 2), st.data())
def test_baselines_match_a_loop(ticks: np.ndarray, data: st.DataObject) -> None:
    bid, ask = mids(ticks)
    sizes = st.lists(st.sampled_from([1.0, 2.0, 7.0, math.nan]), min_size=len(ticks), max_size=len(ticks))
    bid_size, ask_size = np.array(data.draw(sizes)), np.array(data.draw(sizes))
    found = skill.baselines(SimpleNamespace(bid_price=bid, ask_price=ask, bid_size=bid_size, ask_size=ask_size))
    expected = {"imbalance": [], "reverse": [], "repeat": []}
    for i in range(1, len(ticks)):
        if ticks[i] == ticks[i - 1]:
            continue
        move = 1 if ticks[i] > ticks[i - 1] else -1
        lean = (bid_size[i] > ask_size[i]) * 1 - (bid_size[i] < ask_size[i]) * 1
        for name, value in (("imbalance", lean), ("reverse", -move), ("repeat", move)):
            expected[name].append(value)
    assert {name: values.tolist() for name, values in found.items()} == expected


@given(st.lists(st.tuples(SIGNS, SIGNS), max_size=80))
def test_hit_rate_counts_ties_as_half_and_drops_rows_without_label(rows: list[tuple[int, int]]) -> None:
    prediction, label = [p for p, _ in rows], [y for _, y in rows]
    points = [0.5 if p == 0 else float(p == y) for p, y in rows if y != 0]
    found = skill.hit_rate(prediction, label)
    assert found.moves == len(points)
    assert found.ties == points.count(0.5)
    if points:
        assert found.rate == pytest.approx(sum(points) / len(points))
        assert found.low <= found.rate <= found.high
    else:
        assert math.isnan(found.rate)
        assert (found.low, found.high) == (0.0, 1.0)


@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_agrees_with_scipy(trials: int, share: float, level: float) -> None:
    successes = round(share * trials)
    expected = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert skill.wilson(successes, trials, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3), (0, -1)])
def test_wilson_refuses_what_cannot_be(successes: float, trials: int) -> None:
    with pytest.raises(DataConversionError):
        skill.wilson(successes, trials)
    with pytest.raises(DataConversionError, match="`level`"):
        skill.wilson(1, 2, 1.0)


@pytest.mark.parametrize(("n", "block"), [(1, 1), (2, 2), (3, 2), (4, 3), (4, 1), (3, 9)])
def test_block_bootstrap_draws_exactly_the_circular_blocks(n: int, block: int) -> None:
    values = 10.0 ** np.arange(n)
    length = min(block, n)
    starts = itertools.product(range(n), repeat=math.ceil(n / length))
    possible = set()
    for draw in starts:
        rows = [(start + k) % n for start in draw for k in range(length)][:n]
        possible.add(round(float(values[rows].sum()) / n, 9))
    found = skill.block_bootstrap(values, resamples=4000, block=block, seed=1)
    assert {round(v, 9) for v in found.tolist()} == possible


def test_block_bootstrap_is_seeded_and_wider_for_sticky_data() -> None:
    rng = np.random.default_rng(0)
    sticky = np.repeat(rng.random(40) < 0.5, 25).astype(float)
    again = [skill.block_bootstrap(sticky, resamples=500, seed=5) for _ in range(2)]
    assert (again[0] == again[1]).all()
    assert (again[0] != skill.block_bootstrap(sticky, resamples=500, seed=6)).any()
    plain = skill.block_bootstrap(sticky, resamples=2000, block=1).std()
    assert plain == pytest.approx(math.sqrt(sticky.var() / len(sticky)), rel=0.1)
    assert skill.block_bootstrap(sticky, resamples=2000, block=50).std() > 3 * plain
    assert np.isnan(skill.block_bootstrap([], resamples=3)).all()


def test_batches_of_the_bootstrap_do_not_change_what_it_means() -> None:
    values = np.random.default_rng(1).random(30_000)
    means = skill.block_bootstrap(values, resamples=300, block=2)
    assert abs(means.mean() - values.mean()) < 5 * means.std() / math.sqrt(300)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60), st.integers(1, 12))
def test_reliability_matches_a_loop(rows: list[tuple[float, bool]], bins: int) -> None:
    found = skill.reliability([p for p, _ in rows], [y for _, y in rows], bins=bins)
    error = 0.0
    for i, (low, high) in enumerate(itertools.pairwise(found.edges)):
        inside = [(p, y) for p, y in rows if low <= p < high or (i == bins - 1 and p == 1.0)]
        assert found.count[i] == len(inside)
        if inside:
            said = math.fsum(p for p, _ in inside) / len(inside)
            was = sum(y for _, y in inside) / len(inside)
            assert found.predicted[i] == pytest.approx(said)
            assert found.observed[i] == pytest.approx(was)
            assert found.low[i] <= was <= found.high[i]
            error += abs(said - was) * len(inside)
        else:
            assert math.isnan(found.predicted[i])
    assert sum(found.count) == len(rows)
    if rows:
        assert found.ece == pytest.approx(error / len(rows), abs=1e-12)
        assert found.brier == pytest.approx(sum((p - y) ** 2 for p, y in rows) / len(rows))
    else:
        assert math.isnan(found.ece)


@pytest.mark.parametrize("p", [[-0.1], [1.1], [math.nan]])
def test_reliability_refuses_what_is_no_probability(p: list[float]) -> None:
    with pytest.raises(DataConversionError, match="`probability`"):
        skill.reliability(p, [True])


@given(st.lists(st.tuples(st.sampled_from([0.5, 0.6, 0.8, 0.9]), st.sampled_from([0.0, 0.5, 1.0])), max_size=40))
def test_coverage_does_not_depend_on_the_order_of_ties(rows: list[tuple[float, float]]) -> None:
    sure, outcome = [c for c, _ in rows], [h for _, h in rows]
    found = skill.coverage_curve(sure, outcome, points=7)
    back = skill.coverage_curve(sure[::-1], outcome[::-1], points=7)
    assert found.accuracy == pytest.approx(back.accuracy)
    for kept, accuracy in zip(found.moves, found.accuracy, strict=True):
        # Expected hits of a random tie-break: whole groups above the cut, a share of the group on it.
        total, left = 0.0, kept
        for level in sorted(set(sure), reverse=True):
            group = [h for c, h in rows if c == level]
            total += sum(group) / len(group) * min(left, len(group))
            left -= min(left, len(group))
        assert accuracy == pytest.approx(total / kept)
    if rows:
        assert found.coverage[-1] == 1.0
        assert found.accuracy[-1] == pytest.approx(sum(outcome) / len(outcome))


@given(st.lists(st.tuples(SIGNS, SIGNS), max_size=50))
def test_confusion_matches_a_loop(rows: list[tuple[int, int]]) -> None:
    found = skill.confusion([p for p, _ in rows], [y for _, y in rows])
    for p, y in itertools.product((-1, 0, 1), repeat=2):
        assert found[p + 1, y + 1] == rows.count((p, y))


def simulate(n: int, edge: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ticks = 640_000 + np.cumsum(np.where(rng.random(n) < 0.4, rng.choice([-1, 1], n), 0))
    mid = ticks / 10.0
    label = skill.next_move(mid)
    right = np.where(rng.random(n) < 0.5 + edge, label, -label)
    p_up = np.where(right > 0, 0.7, 0.1)
    probabilities = np.stack([0.8 - p_up, np.full(n, 0.2), p_up], axis=1)
    return mid, rng.integers(1, 9, n).astype(float), rng.integers(1, 9, n).astype(float), probabilities


def test_evaluate_measures_the_model_and_its_rivals_on_the_same_moves() -> None:
    mid, bids, asks, probabilities = simulate(6000, 0.2)
    probabilities[:500] = math.nan
    found = skill.evaluate(mid, bids, asks, probabilities, resamples=400)
    rows = [i for i in skill.fresh_books(mid) if i >= 500 and skill.next_move(mid)[i] != 0]
    assert found.moves == len(rows) == found.model.moves
    assert {rate.moves for rate in found.baselines.values()} == {found.moves}
    label = skill.next_move(mid)[rows]
    called = np.where(probabilities[rows, 2] > probabilities[rows, 0], 1, -1)
    assert found.model.rate == pytest.approx((called == label).mean())
    assert found.up_share == pytest.approx((label > 0).mean())
    assert found.baselines["reverse"].rate + found.baselines["repeat"].rate == pytest.approx(1.0)
    assert np.sum(found.confusion) == found.moves
    # P(up) given a move is 0.7 / 0.8 or 0.1 / 0.8; both say the same confidence.
    assert found.calibration.count[1] + found.calibration.count[8] == found.moves
    assert found.differences["imbalance"].rate == pytest.approx(found.model.rate - found.baselines["imbalance"].rate)
    assert found.differences["imbalance"].shown
    assert found.differences["imbalance"].p_value < 1e-6


def test_few_moves_report_power_and_no_p_value() -> None:
    found = skill.evaluate(*simulate(900, 0.2), resamples=300)
    assert 0 < found.moves < skill.MIN_MOVES
    assert all(gap.p_value is None for gap in found.differences.values())
    assert any("no p-value" in note and "percentage points" in note for note in found.notes)


def test_power_is_what_it_says() -> None:
    # The detectable difference of two independent coins is known in closed form.
    rng = np.random.default_rng(3)
    n = 4000
    label = np.ones(n)
    first, second = rng.choice([-1, 1], n), rng.choice([-1, 1], n)
    found = skill.compare(first, second, label, block=1, resamples=4000)
    expected = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * math.sqrt(0.5 / n)
    assert found.detectable == pytest.approx(expected, rel=0.06)
    gap = (first > 0).mean() - (second > 0).mean()
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(gap) / found.standard_error), rel=1e-9)


def test_the_interval_of_the_difference_covers_zero_about_as_often_as_promised() -> None:
    rng = np.random.default_rng(11)
    shown = 0
    for i in range(200):
        a, b, y = (rng.choice([-1, 1], 300) for _ in range(3))
        shown += skill.compare(a, b, y, resamples=300, seed=i).shown
    assert 1 <= shown <= 26  # 5 % of 200 is 10; a block bootstrap of 300 moves is a little too narrow


@pytest.mark.parametrize("mid", [np.full(50, 7.0), np.r_[np.full(25, 7.0), np.full(25, 7.1)], np.empty(0)])
def test_evaluate_survives_markets_without_a_labelled_move(mid: np.ndarray) -> None:
    n = len(mid)
    found = skill.evaluate(mid, np.ones(n), np.ones(n), np.full((n, 3), 1 / 3))
    assert found.moves == 0
    assert math.isnan(found.model.rate)
    assert found.coverage.accuracy == []
    assert not found.differences["repeat"].shown


def test_a_model_without_opinion_earns_half() -> None:
    mid, bids, _, probabilities = simulate(2000, 0.0)
    probabilities[:] = 1 / 3
    found = skill.evaluate(mid, bids, bids, probabilities, resamples=100)
    assert found.model.rate == 0.5
    assert found.model.ties == found.moves
    assert found.baselines["imbalance"].rate == 0.5
    assert found.differences["imbalance"].rate == 0.0
    assert found.differences["imbalance"].p_value is None


def test_evaluation_survives_json() -> None:
    for arguments in (simulate(3000, 0.1), (np.full(9, 1.0), np.ones(9), np.ones(9), np.full((9, 3), 0.3))):
        found = skill.evaluate(*arguments, resamples=50)
        text = _files.to_json_text(found.to_dict())
        back = skill.Skill.from_dict(json.loads(text))
        assert _files.to_json_text(back.to_dict()) == text
    with pytest.raises(DataConversionError, match="`skill`"):
        skill.Skill.from_dict({"moves": 3})


def test_shapes_are_checked() -> None:
    with pytest.raises(DataConversionError, match=r"shape \[n, 3\]"):
        skill.evaluate([1.0], [1.0], [1.0], [[0.5, 0.5]])
    with pytest.raises(DataConversionError, match="equal lengths"):
        skill.evaluate([1.0, 2.0], [1.0], [1.0, 1.0], np.zeros((2, 3)))
    with pytest.raises(DataConversionError, match="equal lengths"):
        skill.hit_rate([1], [1, 1])
    with pytest.raises(DataConversionError, match="must be >= 0"):
        skill.evaluate_moves([1.0], [-0.2], [1.2], {})


def test_align_signals_gives_shared_times_to_the_last_quotes() -> None:
    quotes = [1, 1, 1, 2, 3, 3, 9]
    assert skill.align_signals(quotes, [1, 3, 3]).tolist() == [-1, -1, 0, -1, 1, 2, -1]
    assert skill.align_signals(quotes, []).tolist() == [-1] * 7
    assert skill.align_signals(quotes, quotes).tolist() == list(range(7))
    with pytest.raises(DataConversionError, match="occurs 2 times, but only 1"):
        skill.align_signals(quotes, [2, 2])
    with pytest.raises(DataConversionError, match="only 0 quotes"):
        skill.align_signals(quotes, [4])
    with pytest.raises(DataConversionError, match="must not decrease"):
        skill.align_signals([2, 1], [1])


@settings(deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=30), st.data())
def test_align_signals_is_a_matching_in_time_order(times: list[int], data: st.DataObject) -> None:
    quotes = np.sort(np.array(times, np.uint64))
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(quotes), max_size=len(quotes))))
    signals = quotes[kept]
    found = skill.align_signals(quotes, signals)
    used = found[found >= 0]
    assert used.tolist() == list(range(len(signals)))
    assert (signals[used] == quotes[found >= 0]).all()


def test_baselines_on_the_sample_agree_with_the_published_figures() -> None:
    """Imbalance calls about 89 % of the moves after a fresh book of this file; 8 % of the moves reverse."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the sample is Parquet")
    path = sample_data("binance_usdm_btcusdt_20240719.quotes.parquet")
    if not path.exists():
        pytest.skip("the sample is not here")
    table = {name: column.to_numpy() for name, column in zip(*_columns(parquet.read_table(path)), strict=True)}
    quotes = SimpleNamespace(
        **{name: table[f"{name}_0"] for name in ("bid_price", "ask_price", "bid_size", "ask_size")}
    )
    mid = (quotes.bid_price + quotes.ask_price) / 2
    fresh = skill.fresh_books(mid)
    assert len(fresh) == 919
    label = skill.next_move(mid)[fresh]
    rates = {name: skill.hit_rate(values, label).rate for name, values in skill.baselines(quotes).items()}
    assert rates["imbalance"] == pytest.approx(0.889, abs=0.002)
    assert rates["reverse"] == pytest.approx(0.076, abs=0.002)
    assert rates["repeat"] == pytest.approx(1 - rates["reverse"])


def _columns(table: object) -> tuple[list[str], list[object]]:
    return table.column_names, table.columns  # type: ignore[attr-defined]
