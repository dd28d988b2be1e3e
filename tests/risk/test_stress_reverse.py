"""Reverse stress: closed form, SciPy and grids as oracles, and the honesty of "nothing breaches"."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.stress import reverse_stress, reverse_stress_along
from tengri_fast.risk.stress.least_distance import least_distance, non_negative_least_squares


def _covariance(size, seed=0, scale=0.02):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(size, size)) * scale
    return factor @ factor.T + 1e-6 * np.eye(size)


def _linear(size, seed=0):
    rng = np.random.default_rng(seed + 100)
    return Holdings(tuple(f"I{i}" for i in range(size)), rng.normal(0, 10, size), rng.uniform(50, 150, size))


def _norm(x, covariance):
    return math.sqrt(x @ np.linalg.solve(covariance, x))


# -- linear books ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_closed_form(size):
    book, covariance = _linear(size), _covariance(size)
    w = book.exposures()
    deviation = math.sqrt(w @ covariance @ w)
    limit = 2.5 * deviation
    found = reverse_stress(book, limit, covariance)
    assert (found.found, found.method) == (True, "closed form")
    assert found.distance == pytest.approx(2.5, rel=1e-12)
    np.testing.assert_allclose(found.shock, -limit * covariance @ w / deviation**2, rtol=1e-12)
    assert found.loss >= limit
    assert found.loss == pytest.approx(-book.pnl(found.shock)[0], rel=1e-14)
    assert found.loss == pytest.approx(limit, rel=1e-12)
    assert found.moves == {name: x for name, x in zip(book.instrument_ids, found.shock, strict=True)}


def test_no_shock_of_smaller_norm_breaches():
    book, covariance = _linear(4), _covariance(4)
    found = reverse_stress(book, 50.0, covariance)
    factor = np.linalg.cholesky(covariance)
    rng = np.random.default_rng(3)
    z = rng.normal(size=(4, 20_000))
    z *= found.distance * (1 - 1e-9) / np.linalg.norm(z, axis=0)
    assert (-book.pnl(factor @ z)).max() < 50.0


def _scipy(book, covariance, limit, low, high, starts=25, seed=1):
    """The best of many runs of SLSQP: the oracle for books without a closed form."""
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed")
    inverse = np.linalg.inv(covariance)
    rng = np.random.default_rng(seed)
    deviations = np.sqrt(np.diag(covariance))
    best = math.inf
    for _ in range(starts):
        start = np.clip(rng.normal(size=deviations.size) * deviations * rng.uniform(0.5, 6), low, high)
        result = optimize.minimize(
            lambda x: x @ inverse @ x,
            start,
            jac=lambda x: 2 * inverse @ x,
            constraints=[{"type": "ineq", "fun": lambda x: (-book.pnl(np.clip(x, low, high))[0] - limit) / limit}],
            bounds=list(zip(low, np.where(np.isinf(high), None, high), strict=True)),
            method="SLSQP",
            options={"maxiter": 400, "ftol": 1e-12},
        )
        if -book.pnl(np.clip(result.x, low, high))[0] >= limit * (1 - 1e-6):
            best = min(best, math.sqrt(result.fun))
    return best


def _same_or_better(found, book, covariance, limit, low, high, **changes):
    oracle = _scipy(book, covariance, limit, low, high, **changes)
    assert found.found
    assert found.loss >= limit * (1 - 1e-12)
    assert found.loss == pytest.approx(-book.pnl(found.shock)[0], rel=1e-12)
    assert (found.shock >= low - 1e-12).all()
    assert (found.shock <= high + 1e-12).all()
    assert found.distance == pytest.approx(_norm(found.shock, covariance), rel=1e-6)
    assert found.distance <= oracle * (1 + 1e-4)
    assert found.distance >= oracle * (1 - 1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_a_linear_book_within_bounds(seed):
    book, covariance = _linear(4, seed), _covariance(4, seed)
    w = book.exposures()
    limit = 3.0 * math.sqrt(w @ covariance @ w)
    free = reverse_stress(book, limit, covariance).shock
    low, high = np.full(4, -1.0), np.full(4, math.inf)
    k = int(np.argmax(np.abs(w * free)))
    if free[k] < 0:
        low[k] = 0.6 * free[k]
    else:
        high[k] = 0.6 * free[k]
    found = reverse_stress(book, limit, covariance, bounds=(low, high))
    assert found.method == "iterative"
    _same_or_better(found, book, covariance, limit, low, high)


# -- other payoffs ---------------------------------------------------------------------------------------------------


def _short_options(seed=0):
    rng = np.random.default_rng(seed)
    return Holdings(
        ("O1", "O2", "S"),
        [-10.0, -5.0, 3.0],
        [100.0, 80.0, 100.0],
        deltas=[rng.uniform(-0.2, 0.2), rng.uniform(-0.3, 0.3), math.nan],
        gammas=[0.05, 0.08, math.nan],
    )


@pytest.mark.parametrize("seed", range(3))
def test_short_options(seed):
    book, covariance = _short_options(seed), _covariance(3, seed)
    limit = 200.0
    found = reverse_stress(book, limit, covariance)
    _same_or_better(found, book, covariance, limit, np.full(3, -1.0), np.full(3, math.inf))


def test_a_short_straddle_has_no_slope_at_the_start():
    """delta 0: the loss is |gamma| (P x)^2 / 2 and the smallest breach has a closed form."""
    book = Holdings(("O",), [-10.0], [100.0], deltas=[0.0], gammas=[0.04])
    found = reverse_stress(book, 500.0, [[0.02**2]])
    assert abs(found.shock[0]) == pytest.approx(math.sqrt(2 * 500 / (10 * 0.04)) / 100, rel=1e-9)
    assert found.distance == pytest.approx(abs(found.shock[0]) / 0.02, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_inverse_and_linear(seed):
    rng = np.random.default_rng(seed)
    book = Holdings(
        ("I", "J", "L"),
        [rng.uniform(5e3, 2e4), -rng.uniform(5e3, 2e4), rng.normal(0, 50)],
        [100.0, 50.0, 100.0],
        rates=[100.0, 50.0, 1.0],
        payoffs=("inverse", "inverse", "linear"),
    )
    covariance = _covariance(3, seed, 0.05)
    w = book.exposures()
    limit = 4.0 * math.sqrt(w @ covariance @ w)
    found = reverse_stress(book, limit, covariance)
    low = np.array([-0.99, -0.99, -1.0])
    _same_or_better(found, book, covariance, limit, low, np.full(3, math.inf))


def test_one_inverse_contract_in_closed_form():
    """q (1/P - 1/(P (1 + x))) rate = -limit."""
    book = Holdings(("I",), [10_000.0], [100.0], rates=[100.0], payoffs=("inverse",))
    found = reverse_stress(book, 4000.0, [[0.01]])
    assert found.shock[0] == pytest.approx(1 / (1 + 4000 / 10_000) - 1, rel=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_binaries_stop_at_nothing_and_at_their_payout(seed):
    rng = np.random.default_rng(seed)
    book = Holdings(("Y", "N", "L"), [1000.0, -800.0, 5.0], [0.3, 0.6, 100.0], payoffs=("binary", "binary", "linear"))
    covariance = _covariance(3, seed, 0.2)
    limit = 300.0 + 300.0 * rng.random()
    found = reverse_stress(book, limit, covariance)
    low, high = np.full(3, -1.0), np.array([1 / 0.3 - 1, 1 / 0.6 - 1, math.inf])
    _same_or_better(found, book, covariance, limit, low, high)


@pytest.mark.parametrize("seed", range(20))
def test_two_instruments_against_a_grid(seed):
    """Whatever the payoffs: no point of a fine polar grid breaches nearer."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(["linear", "inverse", "binary", "option"], 2)
    prices = np.where(kinds == "binary", rng.uniform(0.1, 0.9, 2), 100.0)
    book = Holdings(
        ("A", "B"),
        rng.choice([-1.0, 1.0], 2) * np.where(kinds == "binary", 1000.0, np.where(kinds == "inverse", 1000.0, 10.0)),
        prices,
        rates=np.where(kinds == "inverse", 100.0, 1.0),
        payoffs=tuple("linear" if kind == "option" else str(kind) for kind in kinds),
        deltas=np.where(kinds == "option", rng.uniform(-0.5, 0.5, 2), math.nan),
        gammas=np.where(kinds == "option", rng.uniform(-0.05, 0.05, 2), math.nan),
    )
    covariance = _covariance(2, seed, 0.1)
    limit = rng.uniform(20, 300)
    low = np.where(book.codes == 1, -0.99, -1.0)
    high = np.where(book.codes == 2, 1 / prices - 1, math.inf)
    found = reverse_stress(book, limit, covariance)
    factor = np.linalg.cholesky(covariance)
    angle = np.linspace(0, 2 * math.pi, 360, endpoint=False)
    nearest = math.inf
    reach = found.distance if found.found else 60.0
    for radius in np.linspace(0.01, 0.998, 60) * reach:
        x = factor @ (radius * np.stack([np.cos(angle), np.sin(angle)]))
        inside = ((x >= low[:, None]) & (x <= high[:, None])).all(axis=0)
        if inside.any() and (-book.pnl(x[:, inside])).max() >= limit * (1 + 1e-9):
            nearest = radius
            break
    assert nearest == math.inf, f"{kinds} {nearest} {found.distance}"
    if found.found:
        assert -book.pnl(found.shock)[0] >= limit * (1 - 1e-12)


def test_nothing_breaches():
    book = Holdings(("Y", "L"), [100.0, 10.0], [0.4, 50.0], payoffs=("binary", "linear"))
    found = reverse_stress(book, 541.0, np.eye(2))
    assert (found.found, found.distance) == (False, math.inf)
    assert np.isnan(found.shock).all()
    assert found.loss == pytest.approx(540.0)
    assert found.reason == "no shock within bounds breaches: the largest loss is 540"
    assert reverse_stress(book, 539.0, np.eye(2)).found
    bounded = reverse_stress(book, 100.0, np.eye(2), bounds=(-0.1, 0.1))
    assert not bounded.found
    assert bounded.loss == pytest.approx(54.0)


def test_a_singular_covariance_allows_what_it_can_make():
    """Two prices that move as one: a hedged book cannot lose, an open one can."""
    together = np.outer([0.01, 0.02], [0.01, 0.02])
    hedged = Holdings(("A", "B"), [2.0, -1.0], [100.0, 100.0])
    found = reverse_stress(hedged, 50.0, together)
    assert not found.found
    assert "that the covariance can make" in found.reason
    open_ = Holdings(("A", "B"), [2.0, 1.0], [100.0, 100.0])
    found = reverse_stress(open_, 8.0, together)
    assert found.distance == pytest.approx(8.0 / 4.0)
    np.testing.assert_allclose(found.shock, [-0.02, -0.04])
    flat = reverse_stress(open_, 8.0, np.zeros((2, 2)))
    assert not flat.found


def test_equal_input_gives_equal_bits():
    book, covariance = _short_options(1), _covariance(3, 1)
    one, two = (reverse_stress(book, 200.0, covariance) for _ in range(2))
    assert one.shock.tobytes() == two.shock.tobytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limit": 0.0}, "`limit` must be finite and > 0"),
        ({"limit": math.nan}, "`limit`"),
        ({"covariance": np.eye(3)}, r"`covariance` must have shape \(2, 2\)"),
        ({"covariance": [[1.0, 2.0], [2.0, 1.0]]}, "positive semidefinite, had the eigenvalue -1; see nearest"),
        ({"bounds": (0.1, 0.2)}, r"`bounds` \(low\) must be <= 0"),
        ({"bounds": (-0.1, [0.1, math.nan])}, r"`bounds` \(high\) must be >= 0.*for B"),
        ({"starts": 0}, "`starts` must be >= 1"),
    ],
)
def test_arguments_are_checked(changes, words):
    book = Holdings(("A", "B"), [1.0, 1.0], [1.0, 1.0])
    given = {"limit": 1.0, "covariance": np.eye(2), **changes}
    with pytest.raises(DataConversionError, match=words):
        reverse_stress(book, given.pop("limit"), given.pop("covariance"), **given)


# -- along a direction -----------------------------------------------------------------------------------------------


def test_along_a_factor():
    book = Holdings(("A", "B"), [10.0, -5.0], [100.0, 100.0])
    found = reverse_stress_along(book, 60.0, [-1.2, -0.8])
    assert (found.method, found.distance) == ("ray", pytest.approx(60 / (1200 - 400)))
    assert found.loss >= 60.0
    np.testing.assert_allclose(found.shock, np.array([-1.2, -0.8]) * found.distance)
    other = reverse_stress_along(book, 60.0, [1.2, 0.8], largest=5.0)
    assert not other.found
    assert "up to 5 times it" in other.reason


def test_along_a_ray_with_two_crossings_the_first_counts():
    """-2x + 5x^2 against a limit: in between the loss recovers."""
    book = Holdings(("O",), [100.0], [1.0], deltas=[-2.0], gammas=[10.0])
    found = reverse_stress_along(book, 10.0, [1.0])
    assert found.distance == pytest.approx((2 - math.sqrt(4 - 4 * 5 * 0.1)) / 10, rel=1e-9)


def test_instruments_stay_at_their_bounds():
    book = Holdings(("Y", "L"), [100.0, 1.0], [0.5, 100.0], payoffs=("binary", "linear"))
    found = reverse_stress_along(book, 80.0, [-1.0, -0.5])
    assert found.distance == pytest.approx(0.8)
    found = reverse_stress_along(book, 95.0, [-1.0, -0.25])
    assert found.distance == pytest.approx(1.8)
    np.testing.assert_allclose(found.shock, [-1.0, -0.45])
    assert not reverse_stress_along(book, 151.0, [-1.0, -0.5]).found


def test_directions_are_checked():
    book = Holdings(("A",), [1.0], [1.0])
    for direction, largest, words in (
        ([1.0, 2.0], 1.0, "`direction`"),
        ([math.nan], 1.0, "`direction`"),
        ([1.0], 0.0, "`largest`"),
    ):
        with pytest.raises(DataConversionError, match=words):
            reverse_stress_along(book, 1.0, direction, largest=largest)
    assert not reverse_stress_along(book, 1.0, [0.0]).found


# -- the algorithms below --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 2), (5, 5), (4, 12), (30, 10)])
def test_non_negative_least_squares(shape):
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed")
    rng = np.random.default_rng(sum(shape))
    for _ in range(20):
        a, b = rng.normal(size=shape), rng.normal(size=shape[0])
        mine = non_negative_least_squares(a, b)
        _, residual = optimize.nnls(a, b)
        assert (mine >= 0.0).all()
        assert np.linalg.norm(a @ mine - b) == pytest.approx(residual, abs=1e-9)


def test_least_distance():
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed")
    rng = np.random.default_rng(4)
    solved = 0
    for _ in range(60):
        rows, bounds = rng.normal(size=(6, 3)) * 10 ** rng.uniform(-3, 3), rng.normal(size=6)
        mine = least_distance(rows, bounds)
        feasible = optimize.linprog(np.zeros(3), -rows, -bounds, bounds=[(None, None)] * 3).status == 0
        assert (mine is not None) == feasible
        if mine is None:
            continue
        solved += 1
        assert (rows @ mine >= bounds - 1e-7 * np.abs(bounds).max()).all()
        other = optimize.minimize(
            lambda z: z @ z, mine, jac=lambda z: 2 * z, method="SLSQP", options={"ftol": 1e-14},
            constraints=[{"type": "ineq", "fun": lambda z, r=rows, b=bounds: r @ z - b}],
        )  # fmt: skip
        assert np.linalg.norm(mine) <= np.linalg.norm(other.x) * (1 + 1e-6) + 1e-9
    assert 5 < solved < 60
