"""Monte Carlo VaR of 50 instruments on 100,000 fresh paths of a copula: our kernels, 1 and 2 threads, NumPy and SciPy.

Every row of the first group answers the same question: draw joint returns from a Student-t copula with the empirical
margins of 1,000 days, revalue the portfolio, and read off 99 % VaR and ES. *NumPy* finds each return by a search among
the copula's quantiles, which spares it the distribution function; *SciPy* does what the books write, cdf and then
quantile; *copulas* is the package of that name (Gaussian copula with its own margins: less work than ours). The second
group has the other models and samplings, and the reuse of drawn paths.

``roofline_share``: floating-point operations from uniform to result, counted in the source, per second of processor
time of one thread, over what a core does in a loop of fused multiply-adds timed in the same rounds (the best of both:
neighbours on the machine can only slow them). The integer work of the generator and the look-ups are not counted, and
our kernels do not fuse multiply and add, which alone halves what they can reach.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from time import perf_counter_ns, thread_time_ns

from _measure import interleaved, record

from tengri_fast.risk.functionals import ScenarioRisk
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.monte_carlo import draw_scenarios, fit_paths, scenario_risk, simulate_pnl

PATHS, NAMES, DAYS, LEVEL, DEGREES = 100_000, 50, 1_000, 0.99, 5.0
ROUNDS = 5
GROUP = f"risk: Monte Carlo, {PATHS:,} paths x {NAMES} instruments, copula"
OTHERS = f"risk: Monte Carlo, {PATHS:,} paths x {NAMES} instruments, other models"
# Per path and instrument: quantile of a normal 31 (15 % once more), copula scale 1, segment 4, result 2; the margin is
# a look-up. Correlation: N (N + 1) for all instruments of a path.
OPERATIONS = PATHS * (NAMES * (31 * 1.15 + 7) + NAMES * (NAMES + 1))


class Scene:
    """History, portfolio and every rival's prepared state."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.returns = 0.01 * (rng.standard_t(4, (NAMES, DAYS)) + rng.standard_t(4, DAYS))
        self.returns = np.clip(self.returns, -0.5, 0.5)
        quantities, prices = rng.normal(size=NAMES) * 100.0, rng.uniform(10.0, 100.0, NAMES)
        self.names = tuple(f"I{i}" for i in range(NAMES))
        self.holdings = Holdings(self.names, quantities, prices)
        self.exposures = quantities * prices
        self.model = fit_paths(self.returns, degrees=DEGREES)
        self.root = np.linalg.cholesky(self.model.correlation)
        self.values = np.sort(self.returns, axis=1)
        self.seed = 0
        tables = self.model.tables()
        self.thresholds = tables["thresholds"][:-1]
        self.drawn = draw_scenarios(self.model, self.names, horizon_ns=1, paths=PATHS, seed=1)

    def next_seed(self) -> int:
        self.seed += 1
        return self.seed

    def ours(self, threads: int) -> tuple[float, float]:
        pnl = simulate_pnl(self.model, self.holdings, paths=PATHS, seed=self.next_seed(), threads=threads)
        return ScenarioRisk(pnl[None, :], LEVEL).risk(np.ones(1))

    def measure(self, pnl: np.ndarray) -> tuple[float, float]:
        rank = PATHS - int(LEVEL * PATHS) + 1
        worst = np.partition(pnl, rank - 1)[:rank]
        return -float(worst[rank - 1]), -float(worst[: rank - 1].mean())

    def numpy(self) -> tuple[float, float]:
        rng = np.random.default_rng(self.next_seed())
        z = self.root @ rng.standard_normal((NAMES, PATHS))
        z /= np.sqrt(rng.chisquare(DEGREES, PATHS) / DEGREES)
        pnl = np.zeros(PATHS)
        for i in range(NAMES):
            pnl += self.exposures[i] * self.values[i][np.searchsorted(self.thresholds, z[i])]
        return self.measure(pnl)

    def scipy(self) -> tuple[float, float]:
        from scipy import stats

        law = stats.multivariate_t(shape=self.model.correlation, df=DEGREES, seed=self.next_seed())
        u = stats.t.cdf(law.rvs(PATHS), DEGREES)
        pnl = np.zeros(PATHS)
        for i in range(NAMES):
            pnl += self.exposures[i] * np.quantile(self.returns[i], u[:, i], method="inverted_cdf")
        return self.measure(pnl)


@pytest.fixture(scope="module")
def scene() -> Scene:
    made = Scene()
    expected = np.array(made.ours(1))
    # All answer the same question, or the comparison means nothing.
    np.testing.assert_allclose(made.numpy(), expected, rtol=0.05)
    np.testing.assert_allclose(made.scipy(), expected, rtol=0.05)
    return made


def _peaks() -> tuple[Callable[[], float], Callable[[], float]]:
    """Nanoseconds of a loop of fused multiply-adds, and of a triad over arrays that do not fit into the cache."""
    from numba import njit

    @njit(fastmath={"contract"}, error_model="numpy")
    def eight(a: float, v: float) -> float:
        a = a * v + 0.5
        a = a * v + 0.5
        a = a * v + 0.5
        a = a * v + 0.5
        a = a * v + 0.5
        a = a * v + 0.5
        a = a * v + 0.5
        return a * v + 0.5

    @njit(fastmath={"contract"}, error_model="numpy")
    def fused(x: np.ndarray, turns: int) -> float:
        # 128 multiply-adds per element in four chains, straight-line so that the loop over elements runs on vectors.
        total = 0.0
        for _ in range(turns):
            for j in range(x.shape[0]):
                v = x[j]
                a = eight(eight(eight(eight(v, v), v), v), v)
                b = eight(eight(eight(eight(v + 1.0, v), v), v), v)
                c = eight(eight(eight(eight(v + 2.0, v), v), v), v)
                d = eight(eight(eight(eight(v + 3.0, v), v), v), v)
                x[j] = v + 1e-30 * ((a + b) + (c + d))
            total += x[0]
        return total

    @njit(fastmath={"contract"}, error_model="numpy")
    def triad(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
        for j in range(a.shape[0]):
            a[j] = b[j] + 0.5 * c[j]

    x = np.linspace(0.1, 0.9, 512)
    a, b, c = (np.ones(8_000_000) for _ in range(3))
    fused(x, 1)
    triad(a, b, c)

    def flops() -> float:
        start = perf_counter_ns()
        fused(x, 400)
        return 400 * 512 * 128 * 2 / (perf_counter_ns() - start)

    def bandwidth() -> float:
        start = perf_counter_ns()
        triad(a, b, c)
        return 24.0 * a.size / (perf_counter_ns() - start)

    return flops, bandwidth


def timed(function: Callable[[], Any]) -> Callable[[], float]:
    def once() -> float:
        start = perf_counter_ns()
        function()
        return float(perf_counter_ns() - start)

    return once


@pytest.fixture(scope="module")
def figures(scene: Scene) -> dict[str, np.ndarray]:
    flops, bandwidth = _peaks()

    def processor() -> float:
        start = thread_time_ns()
        scene.ours(1)
        return float(thread_time_ns() - start)

    measures = {
        "ours, 1 thread": timed(lambda: scene.ours(1)),
        "ours, 2 threads": timed(lambda: scene.ours(2)),
        "numpy": timed(scene.numpy),
        "scipy": timed(scene.scipy),
        "processor": processor,
        "gigaflops": flops,
        "gigabytes": bandwidth,
    }
    return interleaved(measures, ROUNDS)


@pytest.mark.parametrize("row", ["numpy", "scipy", "ours, 1 thread", "ours, 2 threads"])
def test_copula(benchmark: Any, scene: Scene, figures: dict[str, np.ndarray], row: str) -> None:
    times = figures[row]
    extra: dict[str, Any] = {"rival": row, "paths": PATHS, "instruments": NAMES}
    if row.startswith("ours"):
        peak, work = float(figures["gigaflops"].max()), OPERATIONS / float(figures["processor"].min())
        extra["processor_ms"] = round(float(figures["processor"].min()) / 1e6, 1)
        extra["gigaflops"] = round(work, 2)
        extra["roofline_gigaflops"] = round(peak, 1)
        extra["roofline_share"] = round(work / peak, 3)
        extra["triad_gigabytes_per_s"] = round(float(figures["gigabytes"].max()), 1)
        extra["scaling_2_threads"] = round(float(figures["ours, 1 thread"].min() / figures["ours, 2 threads"].min()), 3)
    against = {name: float(figures[name].min()) for name in ("numpy", "scipy") if name != row}
    record(benchmark, times, baseline_ns=float(np.median(figures["numpy"])), against=against, **extra)
    functions = {
        "numpy": scene.numpy,
        "scipy": scene.scipy,
        "ours, 1 thread": lambda: scene.ours(1),
        "ours, 2 threads": lambda: scene.ours(2),
    }
    benchmark.group = GROUP
    benchmark.pedantic(functions[row], rounds=2)


def test_copulas_package(benchmark: Any, scene: Scene, figures: dict[str, np.ndarray]) -> None:
    multivariate = pytest.importorskip("copulas.multivariate", reason="copulas is not installed")
    pandas = pytest.importorskip("pandas", reason="copulas works on pandas tables")
    from copulas.univariate import GaussianUnivariate

    model = multivariate.GaussianMultivariate(distribution=GaussianUnivariate, random_state=1)
    model.fit(pandas.DataFrame(scene.returns.T, columns=scene.names))

    def draw() -> tuple[float, float]:
        return scene.measure(model.sample(PATHS).to_numpy() @ scene.exposures)

    once = timed(draw)
    times = np.array([once() for _ in range(3)])
    record(
        benchmark,
        times,
        baseline_ns=float(np.median(figures["numpy"])),
        against={"ours, 1 thread": float(figures["ours, 1 thread"].min())},
        rival="copulas: Gaussian copula, normal margins",
    )
    benchmark.group = GROUP
    benchmark.pedantic(draw, rounds=1)


@pytest.mark.parametrize(
    ("copula", "margins", "sampling"),
    [
        ("gaussian", "normal", "plain"),
        ("gaussian", "empirical", "plain"),
        ("student_t", "t", "plain"),
        ("student_t", "empirical", "antithetic"),
        ("student_t", "empirical", "sobol"),
    ],
)
def test_other_models(benchmark: Any, scene: Scene, copula: str, margins: str, sampling: str) -> None:
    degrees = DEGREES if copula == "student_t" else None
    model = fit_paths(scene.returns, copula=copula, margins=margins, degrees=degrees)
    model.tables()
    paths = 131_072 if sampling == "sobol" else PATHS

    def draw() -> None:
        simulate_pnl(model, scene.holdings, paths=paths, seed=scene.next_seed(), sampling=sampling, threads=1)

    once = timed(draw)
    once()
    record(benchmark, np.array([once() for _ in range(ROUNDS)]), rival=f"{copula}, {margins}, {sampling}", paths=paths)
    benchmark.group = OTHERS
    benchmark.pedantic(draw, rounds=2)


def test_drawn_paths_again(benchmark: Any, scene: Scene) -> None:
    """What reuse costs: revalue a drawn set in full, VaR and ES."""

    def reuse() -> None:
        scenario_risk(scene.holdings, scene.drawn, LEVEL)

    once = timed(reuse)
    once()
    record(benchmark, np.array([once() for _ in range(ROUNDS)]), rival="drawn before: revalue, VaR and ES")
    benchmark.group = OTHERS
    benchmark.pedantic(reuse, rounds=5)
