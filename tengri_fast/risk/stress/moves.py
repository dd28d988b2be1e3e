"""From the words of a scenario to the relative move of each instrument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.holdings import PAYOFFS, Holdings
from tengri_fast.risk.stress.scenario import StressScenario, asset_class_chain, currency_pair, symbol_of
from tengri_fast.risk.types import InstrumentFacts

__all__ = ["HIT_ONE", "Moves", "Universe", "resolve"]

Floats = npt.NDArray[np.float64]
Betas = Mapping[str, Mapping[str, float]]

#: A relative move that takes every binary price down to 1e-6 to its payout.
HIT_ONE = 1e6
# The price of an inverse instrument may fall, but not to nothing: its loss in coin has no bound there.
INVERSE_FLOOR = -0.9999


def filled(values: Floats | None) -> Floats:
    """An optional column of :class:`Holdings`, which that class has filled."""
    assert values is not None
    return values


def has_greeks(holdings: Holdings) -> npt.NDArray[np.bool_]:
    """Which instruments are expanded by their Greeks, shape (N,)."""
    return np.isfinite(filled(holdings.deltas)) | np.isfinite(filled(holdings.gammas))


def scale_of(holdings: Holdings) -> Floats:
    """Base currency per unit of quote (inverse: coin) price, times quantity: q m rate, shape (N,)."""
    result: Floats = holdings.quantities * filled(holdings.multipliers) * filled(holdings.rates)
    return result


@dataclass(frozen=True, eq=False)
class Universe:
    """What a shock can name of each of N instruments; "" where unknown.

    ``unfunded`` are names, symbols, classes or venues of instruments whose principal is not paid (futures, perpetuals).
    """

    instrument_ids: tuple[str, ...]
    payoffs: tuple[str, ...]
    asset_classes: tuple[str, ...]
    venues: tuple[str, ...]
    currencies: tuple[str, ...]
    base_currency: str = "USD"
    unfunded: tuple[str, ...] = ()

    @classmethod
    def of_holdings(cls, holdings: Holdings, unfunded: Sequence[str] = ()) -> Universe:
        """That of a portfolio; a venue that is not given is what follows the last dot of the name."""
        names = tuple(holdings.instrument_ids)
        return cls(
            names,
            tuple(holdings.payoffs),
            tuple(holdings.asset_classes),
            tuple(venue or _venue(name) for venue, name in zip(holdings.venues, names, strict=True)),
            tuple(holdings.currencies),
            holdings.base_currency,
            tuple(unfunded),
        )

    @classmethod
    def of_facts(
        cls,
        instrument_ids: Sequence[str],
        facts: Mapping[str, InstrumentFacts] | Sequence[InstrumentFacts] = (),
        *,
        asset_classes: Mapping[str, str] | None = None,
        base_currency: str = "USD",
        unfunded: Sequence[str] = (),
    ) -> Universe:
        """That of a list of names with what is known of them; ``asset_classes`` go before those of the facts."""
        known = dict(facts) if isinstance(facts, Mapping) else {fact.instrument_id: fact for fact in facts}
        names = tuple(instrument_ids)
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataConversionError(f"`instrument_ids` must be distinct, {twice!r} is there twice")
        found = [known.get(name) for name in names]
        classes = asset_classes or {}
        return cls(
            names,
            tuple(fact.payoff if fact else PAYOFFS[0] for fact in found),
            tuple(
                classes.get(name) or str(getattr(fact, "asset_class", "") or "")
                for name, fact in zip(names, found, strict=True)
            ),
            tuple(
                str(getattr(fact, "venue_name", "") or "") or _venue(name)
                for name, fact in zip(names, found, strict=True)
            ),
            tuple(fact.settlement_currency if fact else "" for fact in found),
            base_currency,
            tuple(unfunded),
        )

    def names(self, i: int, keys: Sequence[str]) -> bool:
        """Whether one of ``keys`` is the name, symbol, venue or class of instrument i."""
        if not keys:
            return False
        name = self.instrument_ids[i]
        mine = {name, symbol_of(name), self.venues[i]} - {""}
        chain = asset_class_chain(self.asset_classes[i])
        return any(key in mine or (asset_class_chain(key) or ("",))[0] in chain for key in keys)


def _venue(name: str) -> str:
    return name.rpartition(".")[2] if "." in name else ""


@dataclass(frozen=True, eq=False)
class Moves:
    """Relative moves of N instruments.

    Parameters
    ----------
    prices : ndarray, shape (N,)
        Of the price.
    currencies : ndarray, shape (N,)
        Of the value of the settlement currency in base currency.
    funded : ndarray of bool, shape (N,)
        Whether a move of the currency translates the whole position, not its result alone.
    named : ndarray of bool, shape (N,)
        Whether some shock of the scenario names the instrument.
    cut : tuple of str
        Inverse instruments whose move was cut at -99.99 %.
    """

    prices: Floats
    currencies: Floats
    funded: npt.NDArray[np.bool_]
    named: npt.NDArray[np.bool_]
    cut: tuple[str, ...] = ()


def resolve(scenario: StressScenario, universe: Universe, betas: Betas | None = None) -> Moves:
    """Move of every instrument by the rules in :mod:`tengri_fast.risk.stress.scenario`.

    Parameters
    ----------
    scenario : StressScenario
    universe : Universe
    betas : mapping, optional
        Betas of the library; those of the scenario go first.

    Raises
    ------
    DataConversionError
        When betas take a price below zero.
    """
    count = len(universe.instrument_ids)
    prices, currencies = np.zeros(count), np.zeros(count)
    named, funded = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
    cut: list[str] = []
    value = scenario.currencies
    base = 1.0 + value.get(universe.base_currency, 0.0)
    tables = (scenario.betas, betas or {})
    for i, name in enumerate(universe.instrument_ids):
        move, hit = _price_move(scenario, universe, i, tables)
        venue = universe.venues[i]
        if venue in scenario.venues:
            move, hit = (1.0 + move) * (1.0 + scenario.venues[venue]) - 1.0, True
        if move < -1.0:
            raise DataConversionError(f"{scenario.name!r}: betas must not move {name} below -1, was {move:.6g}")
        if universe.payoffs[i] == "inverse" and move < INVERSE_FLOOR:
            cut.append(name)
            move = INVERSE_FLOOR
        prices[i] = move
        # The principal of an inverse contract is in quote currency and is never paid.
        funded[i] = (
            scenario.currency_effect == "position"
            and universe.payoffs[i] != "inverse"
            and not universe.names(i, universe.unfunded)
        )
        currency = universe.currencies[i]
        if value and currency:
            currencies[i] = (1.0 + value.get(currency, 0.0)) / base - 1.0
            hit |= currencies[i] != 0.0 or currency in value
        named[i] = hit
    return Moves(prices, currencies, funded, named, tuple(cut))


def _price_move(
    scenario: StressScenario, universe: Universe, i: int, tables: tuple[Betas, Betas]
) -> tuple[float, bool]:
    name = universe.instrument_ids[i]
    own = dict.fromkeys((name, symbol_of(name)))
    for key in own:
        if key in scenario.instruments:
            return scenario.instruments[key], True
    for key in own:
        move = _by_factors(scenario, key, tables)
        if move is not None:
            return move, True
    pair = currency_pair(name, universe.asset_classes[i])
    if pair is not None and (pair[0] in scenario.currencies or pair[1] in scenario.currencies):
        first, second = (1.0 + scenario.currencies.get(currency, 0.0) for currency in pair)
        return first / second - 1.0, True
    for step in asset_class_chain(universe.asset_classes[i]):
        if step in scenario.asset_classes:
            return scenario.asset_classes[step], True
        move = _by_factors(scenario, step, tables)
        if move is not None:
            return move, True
    return 0.0, False


def _by_factors(scenario: StressScenario, key: str, tables: tuple[Betas, Betas]) -> float | None:
    """Move by the betas under a name or class, None when there are none or none of their factors is shocked."""
    for table in tables:
        row = table.get(key)
        if row is not None:
            # An unshocked factor stays where it is; the order of the sum is that of the names, for equal bits.
            shocked = sorted(factor for factor in row if factor in scenario.factors)
            if shocked:
                return float(sum(row[factor] * scenario.factors[factor] for factor in shocked))
    return None


def folded(moves: Moves, universe: Universe) -> Floats:
    """One relative move per instrument that says both: price, and translation of the settlement currency.

    For a book that revalues at constant rates. Exact for linear and inverse payoffs. A binary whose price reaches its
    bound is bounded after translation, so that it misses the translation of its payout.
    """
    r, c = moves.prices, moves.currencies
    whole = np.where(moves.funded, (1.0 + r) * (1.0 + c) - 1.0, r * (1.0 + c))
    inverse = np.array([payoff == "inverse" for payoff in universe.payoffs], dtype=np.bool_)
    if inverse.any():
        # r / (1 + r) is the result in coin; the move with (1 + c) times that result.
        result = (1.0 + c[inverse]) * r[inverse] / (1.0 + r[inverse])
        whole[inverse] = np.where(result < 1.0 - 1e-9, result / (1.0 - np.minimum(result, 1.0 - 1e-9)), 1e9)
    return np.maximum(whole, -1.0)
