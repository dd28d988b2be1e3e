"""The scenario library: what ships, what a user adds, and the matrix of it for the pre-trade gate."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.stress.correlation import checked_covariance
from tengri_fast.risk.stress.moves import HIT_ONE, INVERSE_FLOOR, Betas, Universe, folded, resolve
from tengri_fast.risk.stress.scenario import StressScenario
from tengri_fast.risk.stress.toml_file import read_file
from tengri_fast.risk.types import InstrumentFacts

__all__ = ["BUILT_IN", "StressLibrary", "StressMatrix"]

Floats = npt.NDArray[np.float64]

_DATA = Path(__file__).with_name("data")
#: What ships: numbers drawn from price histories by :mod:`tengri_fast.risk.stress.replays`, and written ones.
BUILT_IN = ("replays.toml", "hypothetical.toml")


@dataclass(frozen=True, eq=False)
class StressMatrix:
    """Scenarios as relative moves per instrument, for a gate that revalues a portfolio order by order.

    Parameters
    ----------
    names : tuple of str, length K
        One per column: the scenario, with " (...)" where one scenario makes several columns.
    returns : ndarray of float32, shape (N, K)
        Relative moves, >= -1 and finite.
    skipped : mapping of str to str
        Scenarios, or parts of them, that are no fixed move, and why.
    covered : ndarray of bool, shape (N,)
        Whether any column moves the instrument.

    Unpacks as ``names, returns``.
    """

    names: tuple[str, ...]
    returns: npt.NDArray[np.float32]
    skipped: Mapping[str, str] = field(default_factory=dict)
    covered: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))

    def __iter__(self) -> Iterator[object]:
        return iter((self.names, self.returns))


class StressLibrary:
    """Scenarios by unique name, and betas that hold for all of them.

    Parameters
    ----------
    scenarios : iterable of StressScenario
    betas : mapping of str to mapping of str to float, optional
        By instrument, symbol or asset class.

    Raises
    ------
    ConfigurationError
        When a name is there twice.

    Examples
    --------
    >>> from tengri_fast.risk.stress import StressLibrary
    >>> library = StressLibrary.built_in()
    >>> library["equity -20 %"].asset_classes["crypto"]
    -0.3
    """

    def __init__(self, scenarios: Iterable[StressScenario] = (), betas: Betas | None = None) -> None:
        self._scenarios: dict[str, StressScenario] = {}
        self._betas: dict[str, dict[str, float]] = {}
        self._replace(tuple(scenarios), betas or {}, "scenarios")

    def _replace(self, added: tuple[StressScenario, ...], betas: Betas, where: str) -> None:
        """All of it or, when a name is taken, nothing."""
        table = dict(self._scenarios)
        for scenario in added:
            if scenario.name in table:
                raise ConfigurationError(f"{where}: `name` must be unique, {scenario.name!r} is there twice")
            table[scenario.name] = scenario
        known = {key: dict(row) for key, row in self._betas.items()}
        for key, row in betas.items():
            known[key] = {**known.get(key, {}), **row}
        self._scenarios, self._betas = table, known

    @classmethod
    def built_in(cls) -> StressLibrary:
        """What ships: historical replays and hypothetical scenarios."""
        library = cls()
        for name in BUILT_IN:
            library.add_file(_DATA / name)
        return library

    @classmethod
    def load(cls, *paths: str | os.PathLike[str], built_in: bool = True) -> StressLibrary:
        """The built-in library (unless told not to) and the files of a user.

        Raises
        ------
        ConfigurationError
            As :meth:`add_file`; or when there would be no scenario at all.
        """
        library = cls.built_in() if built_in else cls()
        for path in paths:
            library.add_file(path)
        if not library.scenarios:
            raise ConfigurationError("`scenarios` must hold at least one scenario, was empty")
        return library

    def add_file(self, path: str | os.PathLike[str]) -> None:
        """Add the scenarios and betas of a TOML file (:mod:`tengri_fast.risk.stress.toml_file`): all or nothing.

        A beta replaces one of the same name and factor.

        Raises
        ------
        ConfigurationError
            When the file cannot be read, breaks a rule, or has a name that is taken. Nothing is changed then.
        """
        scenarios, betas = read_file(path)
        self._replace(scenarios, betas, Path(path).name)

    def add(self, scenario: StressScenario) -> None:
        """Add one scenario; its name must be free."""
        self._replace((scenario,), {}, "scenarios")

    @property
    def scenarios(self) -> tuple[StressScenario, ...]:
        """All scenarios, in the order of their addition."""
        return tuple(self._scenarios.values())

    @property
    def betas(self) -> dict[str, dict[str, float]]:
        """A copy of the betas."""
        return {key: dict(row) for key, row in self._betas.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of their addition."""
        return tuple(self._scenarios)

    def __len__(self) -> int:
        return len(self._scenarios)

    def __iter__(self) -> Iterator[StressScenario]:
        return iter(self.scenarios)

    def __contains__(self, name: object) -> bool:
        return name in self._scenarios

    def __getitem__(self, name: str) -> StressScenario:
        try:
            return self._scenarios[name]
        except KeyError:
            raise ConfigurationError(f"`scenario` must be one of the library, was {name!r}") from None

    def select(self, names: Iterable[str] | None = None, *, kinds: Iterable[str] | None = None) -> StressLibrary:
        """A library of some scenarios, with the same betas; an unknown name is an error."""
        wanted = self.scenarios if names is None else tuple(self[name] for name in names)
        chosen = set(kinds) if kinds is not None else None
        return StressLibrary((s for s in wanted if chosen is None or s.kind in chosen), self._betas)

    def to_matrix(
        self,
        instrument_ids: Sequence[str],
        facts: Mapping[str, InstrumentFacts] | Sequence[InstrumentFacts] = (),
        *,
        asset_classes: Mapping[str, str] | None = None,
        base_currency: str = "USD",
        covariance: npt.ArrayLike | None = None,
        betas: Betas | None = None,
        unfunded: Sequence[str] = (),
    ) -> StressMatrix:
        """Relative moves of N instruments in every scenario that is one.

        A shock is one column. A gap with a rebound or a halt is two: at the gap, and after it. A jump is a column for
        all binaries at 0, one for all at 1, and one for each event and winner. Correlations at one are two columns,
        all prices k standard deviations up and down; any other correlation depends on the portfolio and is skipped,
        and so are costs of liquidation. Moves of currencies are folded into the moves of prices.

        Parameters
        ----------
        instrument_ids : sequence of str, length N
            Distinct names, the rows.
        facts : mapping or sequence of InstrumentFacts
            What is known of them: payoff, settlement currency, asset class, venue.
        asset_classes : mapping of str to str, optional
            Asset class by instrument; goes before ``facts``.
        base_currency : str
        covariance : array_like, shape (N, N), optional
            For scenarios with ``correlation``.
        betas : mapping, optional
            Further betas, before those of the library.
        unfunded : sequence of str
            As in :func:`tengri_fast.risk.stress.stress_test`.

        Returns
        -------
        StressMatrix

        Raises
        ------
        DataConversionError
            When names repeat, the covariance does not fit, or betas take a price below zero.
        """
        universe = Universe.of_facts(
            instrument_ids, facts, asset_classes=asset_classes, base_currency=base_currency, unfunded=unfunded
        )
        count = len(universe.instrument_ids)
        sigma = None if covariance is None else np.sqrt(np.diag(checked_covariance(covariance, count)).clip(0.0))
        tables = {**self._betas, **(betas or {})}
        binary = np.array([payoff == "binary" for payoff in universe.payoffs], dtype=np.bool_)
        inverse = np.array([payoff == "inverse" for payoff in universe.payoffs], dtype=np.bool_)
        low = np.where(inverse, INVERSE_FLOOR, -1.0)
        names: list[str] = []
        columns: list[Floats] = []
        skipped: dict[str, str] = {}

        def put(name: str, column: Floats) -> None:
            names.append(name)
            columns.append(np.maximum(column, low))

        for scenario in self.scenarios:
            moves = resolve(scenario, universe, tables)
            after = folded(moves, universe)
            if scenario.liquidity is not None:
                skipped[scenario.name] = "costs of liquidation are no price move"
            if scenario.correlation is not None:
                if sigma is None:
                    skipped[scenario.name] = "a correlation needs `covariance`"
                elif scenario.correlation.level != 1.0:
                    skipped[scenario.name] = "its worst move depends on the portfolio"
                else:
                    step = scenario.correlation.sigmas * scenario.correlation.volatility_multiple * sigma
                    put(f"{scenario.name} (down)", -step)
                    put(f"{scenario.name} (up)", step)
            elif scenario.jump is not None:
                if binary.any():
                    self._jumps(scenario, universe, after, binary, put)
                else:
                    skipped[scenario.name] = "no binaries"
            elif not moves.named.any():
                skipped.setdefault(scenario.name, "no shock names an instrument")
            elif scenario.gap is not None and (scenario.gap.rebound > 0.0):
                halted = np.array([universe.names(i, scenario.gap.halted) for i in range(count)], dtype=np.bool_)
                back = np.where(halted, moves.prices, moves.prices * (1.0 - scenario.gap.rebound))
                put(f"{scenario.name} (gap)", after)
                put(f"{scenario.name} (after)", folded(replace(moves, prices=back), universe))
            else:
                put(scenario.name, after)
        returns = np.stack(columns, axis=1) if columns else np.zeros((count, 0))
        if not np.isfinite(returns).all() or (np.abs(returns) > 1e30).any():
            i, k = (int(x) for x in np.argwhere(~(np.abs(returns) <= 1e30))[0])
            raise DataConversionError(
                f"{names[k]!r} must move {universe.instrument_ids[i]} by a finite part, was {returns[i, k]:.6g}"
            )
        table = np.ascontiguousarray(returns, dtype=np.float32)
        return StressMatrix(tuple(names), table, skipped, (table != 0.0).any(axis=1))

    @staticmethod
    def _jumps(
        scenario: StressScenario,
        universe: Universe,
        after: Floats,
        binary: npt.NDArray[np.bool_],
        put: Callable[[str, Floats], None],
    ) -> None:
        assert scenario.jump is not None  # asked by the caller
        jump = scenario.jump
        if jump.to in ("worst", "zero"):
            put(f"{scenario.name} (all at 0)", np.where(binary, -1.0, after))
        if jump.to in ("worst", "one"):
            put(f"{scenario.name} (all at 1)", np.where(binary, HIT_ONE, after))
        for label, event in jump.events.items():
            members = [i for i in np.flatnonzero(binary) if universe.names(int(i), event.instrument_ids)]
            for winner in members:
                column = after.copy()
                column[members] = -1.0
                column[winner] = HIT_ONE
                put(f"{scenario.name} ({label}: {universe.instrument_ids[int(winner)]})", column)
