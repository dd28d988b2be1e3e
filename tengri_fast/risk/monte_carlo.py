"""Monte Carlo: joint returns from a Gaussian or Student-t copula with empirical, Student-t or normal margins.

*Model.* z = R^(1/2) e is normal with correlation R; a Student-t copula divides it by the root of one shared chi-square
(McNeil, Frey and Embrechts 2015, sections 7.3 and 7.5). A margin maps each coordinate x to a return, F_i^-1(F(x)):
*empirical* is the inverse of the empirical distribution, so a path never leaves the history of its instrument; *t* and
*normal* are fitted to log returns, so that no return falls below -1. These maps are tables: steps for empirical
margins, exactly; cubics on segments that widen with |x| otherwise, within about 1e-9.

*Fit.* Margins by maximum likelihood. Gaussian correlation from normal scores, Student-t from Kendall's tau, sin(pi tau
/ 2), then the degrees of freedom by maximum likelihood of the pseudo-observations (McNeil, Frey and Embrechts, 7.5).

*Draws.* SplitMix64 by counter, or Sobol points scrambled with the seed. The unit of work is a block of 256 paths whose
numbers follow from its index: results are the same bits with any number of threads. Threads are plain ones around
kernels that release the lock, because numba's own layers may end the process when two threads use them at once.
"""

from __future__ import annotations

import inspect
import itertools
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk._scipy import scipy_module
from tengri_fast.risk.greeks import position_terms
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.measures import tail_rank
from tengri_fast.risk.scenarios import ScenarioSet

__all__ = ["PathModel", "draw_scenarios", "fit_paths", "fit_student", "scenario_risk", "simulate_pnl"]

Floats = npt.NDArray[np.float64]
_COPULAS = ("gaussian", "student_t")
_MARGINS = ("empirical", "t", "normal")
_SAMPLINGS = ("plain", "antithetic", "sobol")
_FEWEST = 10
_NORMAL_OCTAVES = 4  # |x| < 15, which no normal draw reaches
_LOG_LIMIT = 15.0  # log returns are held within it: -1 itself is no price


@dataclass(frozen=True, eq=False)
class PathModel:
    """A fitted joint distribution of returns over one horizon.

    Attributes
    ----------
    copula, margins : str
        "gaussian" or "student_t"; "empirical", "t" or "normal".
    correlation : ndarray, shape (N, N)
        Of the copula.
    degrees : float
        Degrees of freedom of the copula, infinite when Gaussian.
    location, scale, margin_degrees : ndarray, shape (N,)
        Of the margins in log returns (NaN for empirical margins; degrees are infinite for normal ones).
    values : ndarray, shape (N, S)
        Sorted returns per instrument, what empirical margins return.
    """

    copula: str
    margins: str
    correlation: Floats
    degrees: float
    location: Floats
    scale: Floats
    margin_degrees: Floats
    values: Floats = field(repr=False)
    _tables: dict[str, Any] = field(default_factory=dict, repr=False)

    def tables(self) -> dict[str, Any]:
        """The arrays that the kernel works from; made once."""
        if not self._tables:
            self._tables.update(_make_tables(self))
        return self._tables


# -- fitting ----------------------------------------------------------------------------------------------------------


def _average_ranks(table: Floats) -> Floats:
    """Ranks 1 to S along each row, ties sharing their mean."""
    out = np.empty_like(table)
    for row, target in zip(table, out, strict=True):
        _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        target[:] = (ends - 0.5 * (counts - 1))[inverse]
    return out


def _kendall(table: Floats) -> Floats:
    """Kendall's tau-b of every pair of rows [N, N]: concordant minus discordant pairs of observations."""
    names, count = table.shape
    total = np.zeros((names, names))
    for lag in range(1, count):
        sign = np.sign(table[:, lag:] - table[:, :-lag]).astype(np.float32)
        total += sign @ sign.T  # whole numbers below 2^24: exact
    untied = np.sqrt(np.maximum(np.diag(total), 1.0))
    tau: Floats = total / np.outer(untied, untied)
    return tau


def _repaired(correlation: Floats) -> Floats:
    """The same matrix when it is positive semidefinite, else with negative eigenvalues cut off and rescaled."""
    symmetric = 0.5 * (correlation + correlation.T)
    np.fill_diagonal(symmetric, 1.0)
    values, vectors = np.linalg.eigh(symmetric)
    if values[0] >= -1e-12:
        return symmetric
    cut = (vectors * np.maximum(values, 1e-10)) @ vectors.T
    deviation = np.sqrt(np.diag(cut))
    repaired: Floats = cut / np.outer(deviation, deviation)
    np.fill_diagonal(repaired, 1.0)
    return repaired


def fit_student(table: Floats) -> tuple[Floats, Floats, Floats]:
    """Location, scale and degrees of freedom of each row by maximum likelihood.

    ECME (Liu and Rubin 1995, "ML estimation of the t distribution using EM and its extensions", Statistica Sinica 5):
    reweighting for location and scale, then the degrees from the likelihood itself, within 1.1 and 200.
    """
    special = scipy_module("special", "Student-t margins")
    location = np.median(table, axis=1)
    scale = 1.4826 * np.median(np.abs(table - location[:, None]), axis=1)
    deviation = table.std(axis=1)
    scale = np.where(scale > 0.0, scale, deviation)
    constant = deviation <= 1e-12 * np.abs(table).max(axis=1)
    scale = np.where(constant, 1.0, scale)
    degrees = np.full(table.shape[0], 5.0)
    for turn in range(300):
        before = np.stack((location / scale, np.log(scale), np.log(degrees)))
        squares = ((table - location[:, None]) / scale[:, None]) ** 2
        weights = (degrees[:, None] + 1.0) / (degrees[:, None] + squares)
        location = (weights * table).sum(axis=1) / weights.sum(axis=1)
        scale = np.sqrt((weights * (table - location[:, None]) ** 2).mean(axis=1))
        scale = np.where(constant, 1.0, np.maximum(scale, 1e-300))
        if turn % 3 == 0:
            squares = ((table - location[:, None]) / scale[:, None]) ** 2
            low, high = np.full(table.shape[0], math.log(1.1)), np.full(table.shape[0], math.log(200.0))
            for _ in range(30):
                middle = 0.5 * (low + high)
                nu = np.exp(middle)
                slope = (
                    special.digamma(0.5 * (nu + 1.0))
                    - special.digamma(0.5 * nu)
                    - 1.0 / nu
                    - np.log1p(squares / nu[:, None]).mean(axis=1)
                    + ((nu[:, None] + 1.0) * squares / (nu[:, None] * (nu[:, None] + squares))).mean(axis=1)
                )
                low, high = np.where(slope > 0.0, middle, low), np.where(slope > 0.0, high, middle)
            degrees = np.exp(0.5 * (low + high))
            after = np.stack((location / scale, np.log(scale), np.log(degrees)))
            if turn and float(np.abs(after - before).max()) < 1e-7:
                break
    return location, np.where(constant, 0.0, scale), degrees


def _copula_degrees(ranks: Floats, correlation: Floats) -> float:
    """Degrees of freedom of a t copula by maximum likelihood of pseudo-observations, within 2 and 200."""
    optimize = scipy_module("optimize", "fitting a Student-t copula")
    special = scipy_module("special", "fitting a Student-t copula")
    names, count = ranks.shape
    if names == 1:
        return 200.0
    spread = correlation + 1e-10 * np.eye(names)
    root = np.linalg.cholesky(spread)
    log_det = 2.0 * float(np.log(np.diag(root)).sum())
    levels, where = np.unique(ranks / (count + 1.0), return_inverse=True)
    where = where.reshape(ranks.shape)

    def cost(inverse: float) -> float:
        nu = 1.0 / inverse
        x = special.stdtrit(nu, levels)[where]
        squares = (np.linalg.solve(root, x) ** 2).sum(axis=0)
        joint = special.gammaln(0.5 * (nu + names)) + (names - 1) * special.gammaln(0.5 * nu)
        joint -= names * special.gammaln(0.5 * (nu + 1.0)) + 0.5 * log_det
        single = 0.5 * (nu + 1.0) * np.log1p(x * x / nu).sum(axis=0)
        return -float(count * joint + (single - 0.5 * (nu + names) * np.log1p(squares / nu)).sum())

    found = optimize.minimize_scalar(cost, bounds=(1.0 / 200.0, 0.5), method="bounded", options={"xatol": 1e-5})
    return float(1.0 / found.x)


def fit_paths(
    returns: npt.ArrayLike,
    *,
    copula: str = "student_t",
    margins: str = "empirical",
    degrees: float | None = None,
    correlation: npt.ArrayLike | None = None,
) -> PathModel:
    """Fit copula and margins to joint returns.

    Parameters
    ----------
    returns : array_like, shape (N, S)
        Simple returns over the horizon, finite and >= -1 (parametric margins: > -1), S >= 10.
    copula : str
        "gaussian" or "student_t".
    margins : str
        "empirical", "t" or "normal"; the last two in log returns.
    degrees : float, optional
        Degrees of freedom of the Student-t copula, >= 1; fitted when not given.
    correlation : array_like, shape (N, N), optional
        Correlation of the copula (stress, shrinkage); fitted when not given.

    Raises
    ------
    ConfigurationError
        When an option is unknown or breaks its rule.
    DataConversionError
        When returns or correlation break theirs.
    MissingExtraError
        When SciPy is not installed.
    """
    if copula not in _COPULAS:
        raise ConfigurationError(f"`copula` must be one of {', '.join(_COPULAS)}, was {copula!r}")
    if margins not in _MARGINS:
        raise ConfigurationError(f"`margins` must be one of {', '.join(_MARGINS)}, was {margins!r}")
    if degrees is not None and not 1.0 <= degrees < math.inf:
        raise ConfigurationError(f"`degrees` must be finite and >= 1, was {degrees}")
    table = np.array(returns, dtype=np.float64)
    if table.ndim == 1:
        table = table[None, :]
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < _FEWEST:
        raise DataConversionError(f"`returns` must have shape (N, S) with S >= {_FEWEST}, had {table.shape}")
    good = np.isfinite(table) & ((table >= -1.0) if margins == "empirical" else (table > -1.0))
    if not good.all():
        i, s = (int(x) for x in np.argwhere(~good)[0])
        rule = "finite and >= -1" if margins == "empirical" else "finite and > -1"
        raise DataConversionError(f"`returns` must be {rule}, was {table[i, s]} in row {i}, column {s}")
    names = table.shape[0]
    ranks = _average_ranks(table)
    if correlation is not None:
        fitted = np.array(correlation, dtype=np.float64)
        if fitted.shape != (names, names) or not np.isfinite(fitted).all():
            raise DataConversionError(f"`correlation` must be finite with shape ({names}, {names}), had {fitted.shape}")
        if float(np.abs(fitted - fitted.T).max()) > 1e-9 or float(np.abs(np.diag(fitted) - 1.0).max()) > 1e-9:
            raise DataConversionError("`correlation` must be symmetric with ones on the diagonal")
        least = float(np.linalg.eigvalsh(fitted)[0])
        if least < -1e-8:
            raise DataConversionError(f"`correlation` must be positive semidefinite, smallest eigenvalue was {least:g}")
    elif copula == "gaussian":
        special = scipy_module("special", "fitting a copula")
        scores = special.ndtri(ranks / (table.shape[1] + 1.0))
        norms = np.sqrt((scores * scores).sum(axis=1))
        norms[norms < 1e-9] = 1.0
        fitted = (scores / norms[:, None]) @ (scores / norms[:, None]).T
    else:
        fitted = np.sin(0.5 * math.pi * _kendall(table))
    fitted = _repaired(fitted)
    nu = math.inf
    if copula == "student_t":
        nu = float(degrees) if degrees is not None else _copula_degrees(ranks, fitted)
    location = scale = margin_degrees = np.full(names, math.nan)
    if margins != "empirical":
        logs = np.log1p(table)
        if margins == "normal":
            location, scale, margin_degrees = logs.mean(axis=1), logs.std(axis=1), np.full(names, math.inf)
        else:
            location, scale, margin_degrees = fit_student(logs)
    return PathModel(copula, margins, fitted, nu, location, scale, margin_degrees, np.sort(table, axis=1))


# -- tables -----------------------------------------------------------------------------------------------------------


def _nodes(octaves: int, per_octave: int = 64) -> Floats:
    """Ends of the segments in |x|: ``per_octave`` for each factor of two of 1 + |x|."""
    steps = np.arange(octaves * per_octave + 1)
    nodes: Floats = 2.0 ** (steps // per_octave) * (1.0 + (steps % per_octave) / per_octave) - 1.0
    return nodes


def _cubics(nodes: Floats, values: Floats, slopes: Floats) -> Floats:
    """Hermite cubics in the place within each segment, shape (segments, 4)."""
    width = np.diff(nodes)
    start, end = values[:-1], values[1:]
    from_slope, to_slope = slopes[:-1] * width, slopes[1:] * width
    return np.column_stack(
        (
            start,
            from_slope,
            3.0 * (end - start) - 2.0 * from_slope - to_slope,
            2.0 * (start - end) + from_slope + to_slope,
        )
    )


def _make_tables(model: PathModel) -> dict[str, Any]:
    stats = scipy_module("stats", "Monte Carlo margins")
    heavy = model.copula == "student_t"
    cdf = stats.t(model.degrees) if heavy else stats.norm()
    octaves = _NORMAL_OCTAVES
    if heavy:
        octaves = max(octaves, math.ceil(math.log2(1.0 + float(cdf.isf(1e-18)))))
    nodes = _nodes(octaves)
    names, count = model.values.shape
    out: dict[str, Any] = {
        "mixing": np.empty((0, 4)),
        "tables": np.empty((names, 0, 4)),
        "thresholds": np.empty(0),
        "values": np.empty((names, 0)),
        "guide": np.empty(0, np.int32),
        "fraction": 0,
    }
    if heavy:
        # z > 0 stands for a large chi-square. Both tails from their own side, where probabilities keep their digits.
        z = _nodes(_NORMAL_OCTAVES)
        sides = []
        for chi, sign in ((stats.chi2.isf(stats.norm.sf(z), model.degrees), 1.0),
                          (stats.chi2.ppf(stats.norm.sf(z), model.degrees), -1.0)):  # fmt: skip
            chi = np.maximum(chi, 1e-280)
            mixed = np.sqrt(model.degrees / chi)
            density = stats.chi2.logpdf(chi, model.degrees)
            slope = -0.5 * mixed / chi * np.exp(stats.norm.logpdf(z) - density)
            sides.append(_cubics(z, mixed, sign * slope))
        out["mixing"] = np.ascontiguousarray(np.vstack(sides))
    if model.margins == "empirical":
        thresholds = np.append(np.asarray(cdf.ppf(np.arange(1, count) / count), dtype=np.float64), math.inf)
        # Beyond the last threshold nothing changes, so the table may end there. About four segments per threshold.
        octaves = max(1, math.ceil(math.log2(1.001 + float(np.abs(thresholds[:-1]).max(initial=0.0)))))
        per_octave = 1 << min(max((2 * count).bit_length(), 6), 14)
        edges = _nodes(octaves, per_octave)
        below = np.searchsorted(thresholds, np.append(-edges[1:-1], -math.inf))
        out.update(
            thresholds=thresholds,
            values=np.ascontiguousarray(model.values),
            guide=np.concatenate((np.searchsorted(thresholds, edges[:-1]), below)).astype(np.int32),
            fraction=52 - per_octave.bit_length() + 1,
        )
        return out
    tail = cdf.sf(nodes)
    density = cdf.pdf(nodes)
    tables = np.empty((names, 2 * (nodes.size - 1), 4))
    for n in range(names):
        own = stats.norm() if math.isinf(model.margin_degrees[n]) else stats.t(model.margin_degrees[n])
        score = nodes if _same(model, n) else own.isf(np.maximum(tail, 1e-300))
        growth = np.ones_like(nodes) if _same(model, n) else density / np.maximum(own.pdf(score), 1e-300)
        for side, sign in enumerate((1.0, -1.0)):
            logs = model.location[n] + sign * model.scale[n] * score
            held = np.clip(logs, -_LOG_LIMIT, _LOG_LIMIT)
            slope = np.where(held == logs, sign * model.scale[n] * growth * np.exp(held), 0.0)
            half = slice(side * (nodes.size - 1), (side + 1) * (nodes.size - 1))
            tables[n, half] = _cubics(nodes, np.expm1(held), slope)
    out["tables"] = tables
    return out


def _same(model: PathModel, n: int) -> bool:
    """Whether margin and copula have the same distribution, which makes the map linear."""
    return bool(model.margin_degrees[n] == model.degrees)


# -- drawing ----------------------------------------------------------------------------------------------------------


def _root(correlation: Floats, spectral: bool) -> tuple[Floats, bool]:
    """A root of the correlation and whether it is triangular; by eigenvectors where Cholesky's does not exist.

    Sobol points use eigenvectors, largest first: their first coordinates are the most even ones.
    """
    if not spectral:
        try:
            return np.ascontiguousarray(np.linalg.cholesky(correlation)), True
        except np.linalg.LinAlgError:
            pass  # singular: the spectral root serves
    values, vectors = np.linalg.eigh(correlation)
    root = vectors[:, ::-1] * np.sqrt(np.maximum(values[::-1], 0.0))
    return np.ascontiguousarray(root), False


def _sobol(dimensions: int, paths: int, seed: int) -> Floats:
    qmc = scipy_module("stats.qmc", "Sobol sampling")
    if paths & (paths - 1):
        raise ConfigurationError(
            f"`paths` must be a power of two with Sobol sampling, was {paths} ({1 << paths.bit_length()} is the next)"
        )
    keyword = "rng" if "rng" in inspect.signature(qmc.Sobol.__init__).parameters else "seed"
    points = qmc.Sobol(dimensions, scramble=True, **{keyword: np.random.default_rng(seed)}).random(paths)
    # 30 bits: the middle of a cell is never 0. The first coordinate goes to the mixing variable, which is the last.
    shifted = np.empty((dimensions, paths))
    np.add(points.T[1:], 2.0**-31, out=shifted[:-1])
    np.add(points.T[0], 2.0**-31, out=shifted[-1])
    return shifted


def _draw(
    model: PathModel,
    paths: int,
    seed: int,
    sampling: str,
    threads: int | None,
    codes: npt.NDArray[np.int64],
    terms: Floats,
    returns: npt.NDArray[np.float32],
    pnl: Floats,
) -> None:
    from tengri_fast.risk import kernels

    if isinstance(paths, bool) or int(paths) != paths or paths < 1:
        raise ConfigurationError(f"`paths` must be an integer >= 1, was {paths!r}")
    if isinstance(seed, bool) or int(seed) != seed or not 0 <= seed < 2**64:
        raise ConfigurationError(f"`seed` must be an integer within [0, 2^64), was {seed!r}")
    if sampling not in _SAMPLINGS:
        raise ConfigurationError(f"`sampling` must be one of {', '.join(_SAMPLINGS)}, was {sampling!r}")
    if threads is not None and threads < 1:
        raise ConfigurationError(f"`threads` must be >= 1, was {threads}")
    kernels.warmup()
    names = model.correlation.shape[0]
    heavy = model.copula == "student_t"
    points = _sobol(names + 1 if heavy else names, paths, seed) if sampling == "sobol" else np.empty((0, 0))
    root, triangular = _root(model.correlation, sampling == "sobol")
    made = model.tables()
    blocks = -(-paths // kernels.BLOCK)

    def work(first: int, last: int) -> None:
        kernels.draw_blocks(
            first, last, np.uint64(seed), sampling == "antithetic", points, root, triangular, made["mixing"],
            made["tables"], made["thresholds"], made["values"], made["guide"],
            made["fraction"], codes, terms, returns, pnl,
        )  # fmt: skip

    workers = min(threads if threads is not None else len(os.sched_getaffinity(0)), blocks)
    if workers == 1:
        work(0, blocks)
        return
    cuts = np.linspace(0, blocks, min(4 * workers, blocks) + 1).astype(int).tolist()
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work, a, b) for a, b in itertools.pairwise(cuts)]:
            done.result()


def simulate_pnl(
    model: PathModel,
    holdings: Holdings,
    *,
    paths: int = 100_000,
    seed: int = 0,
    sampling: str = "plain",
    threads: int | None = None,
) -> Floats:
    """Results of a portfolio on drawn paths, full revaluation, without keeping the paths.

    Parameters
    ----------
    model : PathModel
        Of the same N instruments, in the same order.
    holdings : Holdings
        Positions; all payoffs are revalued, instruments with Greeks to second order.
    paths : int
        Number of paths; a power of two with Sobol points.
    seed : int
        Within [0, 2^64). Equal arguments give equal bits, whatever ``threads`` is.
    sampling : str
        "plain", "antithetic" (every second half block mirrors the first) or "sobol" (scrambled).
    threads : int, optional
        Default: the processors that this process may use.

    Returns
    -------
    ndarray, shape (paths,)
        Base currency.

    Raises
    ------
    ConfigurationError, DataConversionError, MissingExtraError
        When an argument breaks its rule, or an inverse instrument's history holds a return of -1.
    """
    if len(holdings) != model.correlation.shape[0]:
        raise DataConversionError(
            f"`holdings` must have the {model.correlation.shape[0]} instruments of the model, had {len(holdings)}"
        )
    lost = (holdings.codes == 1) & (model.values[:, 0].astype(np.float32) <= -1.0)
    if model.margins == "empirical" and lost.any():
        i = int(np.argmax(lost))
        raise DataConversionError(f"`returns` must be > -1 for the inverse {holdings.instrument_ids[i]}, held -1")
    codes, terms = position_terms(holdings)
    pnl = np.empty(paths)
    _draw(model, paths, seed, sampling, threads, codes, terms, np.empty((len(holdings), 0), np.float32), pnl)
    return pnl


def draw_scenarios(
    model: PathModel,
    instrument_ids: tuple[str, ...],
    *,
    horizon_ns: int,
    paths: int = 10_000,
    seed: int = 0,
    sampling: str = "plain",
    threads: int | None = None,
    provenance: Mapping[str, str] | None = None,
) -> ScenarioSet:
    """Paths as a scenario set, which the gate and every analysis can use.

    Revaluing them gives the results of :func:`simulate_pnl`: both round returns to float32.

    Parameters
    ----------
    model : PathModel
        N instruments.
    instrument_ids : tuple of str
        Their names, in the same order.
    horizon_ns : int
        Horizon of the returns that the model was fitted to.
    paths, seed, sampling, threads
        As :func:`simulate_pnl`.
    provenance : mapping, optional
        Extra facts for the report.

    Raises
    ------
    ConfigurationError, DataConversionError, MissingExtraError
        As :func:`simulate_pnl` and :class:`ScenarioSet`.
    """
    names = model.correlation.shape[0]
    if len(instrument_ids) != names:
        raise DataConversionError(f"`instrument_ids` must have {names} entries, had {len(instrument_ids)}")
    returns = np.empty((names, paths), np.float32)
    no_codes, no_terms = np.zeros(names, np.int64), np.zeros((names, 3))
    _draw(model, paths, seed, sampling, threads, no_codes, no_terms, returns, np.empty(0))
    facts = {
        "source": "monte carlo",
        "copula": model.copula if math.isinf(model.degrees) else f"{model.copula}, {model.degrees:.4g} degrees",
        "margins": model.margins,
        "sampling": sampling,
        "seed": str(seed),
        **(provenance or {}),
    }
    return ScenarioSet(tuple(instrument_ids), returns, horizon_ns, facts)


def scenario_risk(holdings: Holdings, scenarios: ScenarioSet, level: float = 0.99) -> tuple[float, float]:
    """VaR and ES of a portfolio over drawn scenarios, without a table of results: for sets that are large.

    Parameters
    ----------
    holdings : Holdings
        N positions; every instrument must have a row in the set.
    scenarios : ScenarioSet
        Float32 returns, in any order of instruments.
    level : float
        Confidence in (0, 1).

    Returns
    -------
    tuple of (float, float)
        Base currency, positive for a loss; the definitions of :mod:`tengri_fast.risk.measures`.

    Raises
    ------
    ConfigurationError
        When ``level`` breaks its rule.
    DataConversionError
        When an instrument has no scenarios, or a result is not finite (an inverse instrument at a return of -1).
    """
    from tengri_fast.risk import kernels

    if not 0.0 < level < 1.0:
        raise ConfigurationError(f"`level` must be between 0 and 1, was {level}")
    rows: list[int] = []
    for name in holdings.instrument_ids:
        row = scenarios.row(name)
        if row is None:
            raise DataConversionError(f"`scenarios` must have every instrument, have none for {name}")
        rows.append(row)
    kernels.warmup()
    returns = scenarios.returns if rows == list(range(scenarios.returns.shape[0])) else scenarios.returns[rows]
    returns.setflags(write=False)  # the kernel is compiled for what a set holds
    codes, terms = position_terms(holdings)
    pnl = np.empty(scenarios.count)
    kernels.revalue(codes, terms, returns, pnl)
    if not np.isfinite(pnl).all():
        s = int(np.argmin(np.isfinite(pnl)))
        raise DataConversionError(f"results must be finite, was {pnl[s]} in scenario {s}")
    rank, mass = tail_rank(scenarios.count, level)
    var, es = kernels.tail(pnl, mass, np.empty(rank))
    return float(var), float(es)
