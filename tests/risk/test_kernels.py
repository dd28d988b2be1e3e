"""Every numba kernel against its Python self, and the ones with a published or exact answer against that."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tengri_fast.risk import expected_shortfall, value_at_risk
from tengri_fast.risk.greeks import position_terms
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.measures import tail_rank


@pytest.fixture(scope="module")
def kernels():
    from tengri_fast.risk import kernels

    kernels.warmup()
    return kernels


def _draw_arguments(kernels, variant):
    """Arguments of draw_blocks for three blocks of which the last is not full."""
    rng = np.random.default_rng(3)
    names, paths = 3, 600
    heavy, empirical, given = variant in ("student", "empirical"), variant == "empirical", variant == "points"
    side = 4 * 64
    root = np.linalg.cholesky(np.array([[1.0, 0.3, 0.1], [0.3, 1.0, -0.2], [0.1, -0.2, 1.0]]))
    sizes = 20
    return (
        0,
        3,
        np.uint64(7),
        variant == "student",
        rng.uniform(0.01, 0.99, (names + 1, paths)) if given else np.empty((0, 0)),
        root,
        True,
        np.abs(rng.standard_normal((2 * side, 4))) if heavy else np.empty((0, 4)),
        np.empty((names, 0, 4)) if empirical else 0.01 * rng.standard_normal((names, 2 * side, 4)),
        np.append(np.sort(rng.standard_normal(sizes - 1)), math.inf) if empirical else np.empty(0),
        np.sort(rng.standard_normal((names, sizes)) * 0.01, axis=1) if empirical else np.empty((names, 0)),
        np.zeros(2 * side, np.int32) if empirical else np.empty(0, np.int32),
        46,
        np.array([0, 1, 3], np.int64),
        rng.standard_normal((names, 3)),
        np.zeros((names, paths), np.float32),
        np.zeros(paths),
    )


def _arguments(kernels, variant):
    rng = np.random.default_rng(3)
    size = 64
    x = rng.standard_normal(size)
    whole = np.empty(size)
    index = rng.integers(0, 30, size)
    code = {"plain": 0, "student": 1, "empirical": 2, "points": 3}[variant]
    returns = (0.05 * rng.standard_normal((4, 37))).astype(np.float32)
    returns.setflags(write=False)  # as in a ScenarioSet
    return {
        "tail": (x, 3.5, np.empty(4)),
        "uniforms": (np.uint64(2**63 + 5), 11, np.empty(size)),
        "normal_quantiles": (
            np.concatenate((rng.uniform(size=size - 4), [1e-300, 1e-14, 1.0 - 1e-14, 0.5])),
            np.empty(size),
            np.zeros(size + 1, np.int64),
            np.zeros(size + 1),
            np.zeros(size + 1),
        ),
        "correlate": (
            rng.standard_normal((6, 6)),
            variant == "plain",
            rng.standard_normal((7, size)),
            np.empty((6, size)),
        ),
        "segments": (100.0 * x, 256, 46, whole, whole.view(np.int64), np.empty(size, np.int64), np.empty(size)),
        "cubic": (rng.standard_normal((30, 4)), index, rng.uniform(size=size), np.empty(size)),
        "steps": (
            np.append(np.sort(rng.standard_normal(9)), math.inf),
            np.sort(rng.standard_normal(10)),
            np.zeros(30, np.int32),
            index,
            x,
            np.empty(size),
        ),
        "add_results": (code, 2.0, -0.7, 0.4, returns[1], rng.standard_normal(37)),
        "revalue": (np.array([0, 1, 2, 3]), rng.uniform(0.1, 0.9, (4, 3)), returns, np.empty(37)),
        "draw_blocks": _draw_arguments(kernels, variant),
    }


@pytest.mark.parametrize("variant", ["plain", "student", "empirical", "points"])
def test_every_kernel_equals_its_python_self(kernels, variant):
    names = {function.py_func.__name__ for function, _ in kernels.SIGNATURES}
    assert names == set(_arguments(kernels, variant))  # no kernel without a row here
    for function, _ in kernels.SIGNATURES:
        name = function.py_func.__name__
        compiled, plain = _arguments(kernels, variant)[name], _arguments(kernels, variant)[name]
        before = len(function.signatures)
        a = function(*compiled)
        with np.errstate(over="ignore"):  # the generator wraps around on purpose
            b = function.py_func(*plain)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-13)
        for left, right in zip(compiled, plain, strict=True):
            if isinstance(left, np.ndarray):
                np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-13)
        assert len(function.signatures) == before, f"a call compiled a second version of {name}"


@pytest.mark.parametrize("count", [1, 2, 5, 100, 513, 1000])
@pytest.mark.parametrize("level", [0.6, 0.95, 0.99])
@pytest.mark.parametrize("order", ["random", "ascending", "descending", "equal", "ties"])
def test_tail_kernel_is_the_definition(kernels, count, level, order):
    rng = np.random.default_rng(count)
    values = rng.standard_normal(count)
    values = {
        "random": values,
        "ascending": np.sort(values),
        "descending": np.sort(values)[::-1].copy(),
        "equal": np.full(count, -3.25),
        "ties": np.round(values),
    }[order]
    rank, mass = tail_rank(count, level)
    risk, shortfall = kernels.tail(values, mass, np.empty(rank))
    assert risk == value_at_risk(values, level)
    assert shortfall == pytest.approx(expected_shortfall(values, level), rel=1e-12, abs=1e-12)


def test_uniforms_are_splitmix64(kernels):
    """First outputs for seed 1234567, as printed with the public-domain reference code of Vigna."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    out = np.empty(5)
    kernels.uniforms(np.uint64(1234567), 0, out)
    assert out.tolist() == [((n >> 11) + 0.5) * 2.0**-53 for n in published]
    later = np.empty(3)
    kernels.uniforms(np.uint64(1234567), 2, later)
    assert later.tolist() == out[2:].tolist()


def test_uniforms_are_uniform_and_independent(kernels):
    draws = np.empty(200_000)
    kernels.uniforms(np.uint64(42), 0, draws)
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4.0 / math.sqrt(draws.size)
    other = np.empty(200_000)
    kernels.uniforms(np.uint64(43), 0, other)
    assert abs(np.corrcoef(draws, other)[0, 1]) < 4.0 / math.sqrt(draws.size)


def test_normal_quantiles_are_scipys(kernels):
    u = np.concatenate((np.geomspace(1e-300, 0.5, 4000), 1.0 - np.geomspace(2.0**-53, 0.5, 4000)))
    out, rest, value = np.empty(u.size), np.empty(u.size + 1), np.empty(u.size + 1)
    kernels.normal_quantiles(u, out, np.empty(u.size + 1, np.int64), rest, value)
    np.testing.assert_allclose(out, stats.norm.ppf(u), rtol=4e-15, atol=1e-16)


def test_revaluation_is_that_of_holdings(kernels):
    rng = np.random.default_rng(1)
    holdings = Holdings(
        ["linear", "inverse", "binary", "option"],
        [3.0, -200.0, 50.0, 7.0],
        [100.0, 30_000.0, 0.4, 55.0],
        multipliers=[10.0, 1.0, 1.0, 100.0],
        rates=[1.1, 30_000.0, 1.0, 0.9],
        payoffs=["linear", "inverse", "binary", "linear"],
        deltas=[math.nan, math.nan, math.nan, 0.6],
        gammas=[math.nan, math.nan, math.nan, -0.05],
    )
    returns = np.clip(0.4 * rng.standard_normal((4, 5000)), -0.95, 4.0).astype(np.float32)
    returns.setflags(write=False)
    out = np.empty(5000)
    kernels.revalue(*position_terms(holdings), returns, out)
    np.testing.assert_allclose(out, holdings.pnl(returns), rtol=1e-12, atol=1e-9)
