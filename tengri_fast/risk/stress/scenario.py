"""One stress scenario: which prices move by how much, at what cost one gets out, and where the numbers come from.

*Moves.* The relative price move of an instrument is, of these, the first that names it:

1. ``instruments``: the whole name, or the symbol (what stands before its last dot), total move;
2. ``factors`` through the betas of its name or symbol: the sum of beta times shock, when one of them is shocked;
3. for a pair of currencies ("EUR/USD", "EURUSD" of class ``fx``): what ``currencies`` makes of it;
4. its asset class, then the classes above it ("equity.energy", "equity"): the shock in ``asset_classes``, else
   ``factors`` through the betas of that class;
5. otherwise nothing: the price stays, and the result says which part of the portfolio no shock has named.

Betas stand in ``betas`` of the scenario or of the library; those of the scenario go first.

A shock of its venue is compounded onto it: (1 + move)(1 + venue) - 1.

*Currencies.* ``currencies`` holds the change of a currency's value against a basket, so that the rate of currency c in
base currency b moves by (1 + s_c) / (1 + s_b) - 1. With ``currency_effect = "position"`` a whole linear or binary
position is translated (a share in another currency), with "result" only its result (a future or a perpetual).

Everything is checked when it is made; what a field means for the P&L stands in :mod:`tengri_fast.risk.stress.engine`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError

__all__ = ["KINDS", "Correlation", "Event", "Gap", "Jump", "Liquidity", "StressScenario"]

Floats = npt.NDArray[np.float64]

#: What a scenario is; says where to look for its numbers, changes nothing in how it is valued.
KINDS = ("replay", "hypothetical", "correlation", "liquidity", "gap", "jump", "model", "user")

_ALIASES = {"cryptocurrency": "crypto", "currency": "fx", "bond": "debt", "rates": "debt"}
_CLASSES = frozenset({"equity", "index", "fx", "commodity", "debt", "crypto", "alternative", "prediction"})
_PAIR = re.compile(r"([A-Z]{3})/?([A-Z]{3})")


def symbol_of(instrument_id: str) -> str:
    """What stands before the last dot of a name: the instrument without its venue."""
    return instrument_id.rpartition(".")[0] or instrument_id


@functools.lru_cache(maxsize=4096)
def asset_class_chain(asset_class: str) -> tuple[str, ...]:
    """The class and its parents, most special first; "Cryptocurrency.Meme" gives crypto.meme, crypto."""
    parts = asset_class.strip().lower().split(".")
    parts[0] = _ALIASES.get(parts[0], parts[0])
    return tuple(".".join(parts[:n]) for n in range(len(parts), 0, -1)) if parts[0] else ()


def currency_pair(instrument_id: str, asset_class: str) -> tuple[str, str] | None:
    """Base and quote currency of a pair; only the class ``fx`` has pairs."""
    chain = asset_class_chain(asset_class)
    if not chain or chain[-1] != "fx":
        return None
    match = _PAIR.fullmatch(symbol_of(instrument_id))
    return (match[1], match[2]) if match else None


def _number(name: str, value: object, *, low: float = -math.inf, rule: str = "a finite number") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ConfigurationError(f"`{name}` must be {rule}, was {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number >= low):
        raise ConfigurationError(f"`{name}` must be {rule}, was {value!r}")
    return number


def _text(name: str, value: object, *, empty: bool = True) -> str:
    if not isinstance(value, str) or (not empty and not value.strip()):
        raise ConfigurationError(f"`{name}` must be a text{'' if empty else ' that is not empty'}, was {value!r}")
    return value


def _moves(name: str, value: object, low: float = -1.0) -> dict[str, float]:
    """A table of numbers by name; a relative move cannot be below -1."""
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"`{name}` must be a table of numbers, was {value!r}")
    rule = "a finite number >= -1" if low == -1.0 else "a finite number"
    return {
        _text(f"{name} key", key, empty=False): _number(f"{name}.{key}", move, low=low, rule=rule)
        for key, move in value.items()
    }


@dataclass(frozen=True)
class Liquidity:
    """Costs of getting out when markets are thin.

    Parameters
    ----------
    spread_multiple : float
        The bid-ask spread is this many times the usual one, >= 1.
    depth_divisor : float
        Depth and daily volume are the usual ones divided by this, >= 1.
    fraction : float
        Part of every position that is sold, within 0 and 1.
    """

    spread_multiple: float = 1.0
    depth_divisor: float = 1.0
    fraction: float = 1.0

    def __post_init__(self) -> None:
        for name in ("spread_multiple", "depth_divisor"):
            value = _number(f"liquidity.{name}", getattr(self, name), low=1.0, rule="a finite number >= 1")
            object.__setattr__(self, name, value)
        value = _number("liquidity.fraction", self.fraction, low=0.0, rule="within 0 and 1")
        if value > 1.0:
            raise ConfigurationError(f"`liquidity.fraction` must be within 0 and 1, was {value}")
        object.__setattr__(self, "fraction", value)


@dataclass(frozen=True, eq=False)
class Correlation:
    """Correlations as they are not usually: the worst move of ``sigmas`` standard deviations under them.

    Parameters
    ----------
    level : float, optional
        All correlations become this, within -1 and 1. Exactly one of ``level`` and ``matrix`` is given.
    matrix : array_like, shape (M, M), optional
        Symmetric, ones on the diagonal, within -1 and 1; repaired to the nearest positive semidefinite one (Higham
        2002) where it is not. Pairs that it does not name keep the correlation of the covariance given.
    instrument_ids : sequence of str
        Names, symbols or asset classes of the rows of ``matrix``.
    sigmas : float
        Mahalanobis length of the move, > 0.
    volatility_multiple : float
        Standard deviations are this many times the usual ones, > 0.
    """

    level: float | None = None
    matrix: Floats | None = None
    instrument_ids: tuple[str, ...] = ()
    sigmas: float = 3.0
    volatility_multiple: float = 1.0

    def __post_init__(self) -> None:
        if (self.level is None) == (self.matrix is None):
            raise ConfigurationError("`correlation` must have exactly one of `level` and `matrix`")
        for name in ("sigmas", "volatility_multiple"):
            value = _number(f"correlation.{name}", getattr(self, name), rule="a finite number > 0")
            if value <= 0.0:
                raise ConfigurationError(f"`correlation.{name}` must be a finite number > 0, was {value}")
            object.__setattr__(self, name, value)
        if self.level is not None:
            level = _number("correlation.level", self.level, low=-1.0, rule="within -1 and 1")
            if level > 1.0:
                raise ConfigurationError(f"`correlation.level` must be within -1 and 1, was {level}")
            object.__setattr__(self, "level", level)
            return
        names = tuple(_text("correlation.instrument_ids", name, empty=False) for name in self.instrument_ids)
        if not names or len(set(names)) != len(names):
            raise ConfigurationError(f"`correlation.instrument_ids` must be distinct names of the rows, was {names!r}")
        try:
            matrix = np.array(self.matrix, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"`correlation.matrix` must be a square of numbers: {error}") from error
        if matrix.shape != (len(names), len(names)):
            raise ConfigurationError(
                f"`correlation.matrix` must have shape ({len(names)}, {len(names)}), had {matrix.shape}"
            )
        good = np.isfinite(matrix) & (np.abs(matrix) <= 1.0)
        if not good.all() or not np.array_equal(matrix, matrix.T) or not (np.diag(matrix) == 1.0).all():
            raise ConfigurationError(
                "`correlation.matrix` must be symmetric, within -1 and 1, with ones on its diagonal, was "
                f"{matrix.tolist()}"
            )
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "instrument_ids", names)


@dataclass(frozen=True)
class Gap:
    """The moves come at once, between two trades.

    Parameters
    ----------
    rebound : float
        Part of the gap that prices then move back, within 0 and 1.
    halted : sequence of str
        What is halted: names, symbols, asset classes or venues. It stays at its gap price, its stops do not fill.
    """

    rebound: float = 0.0
    halted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        value = _number("gap.rebound", self.rebound, low=0.0, rule="within 0 and 1")
        if value > 1.0:
            raise ConfigurationError(f"`gap.rebound` must be within 0 and 1, was {value}")
        object.__setattr__(self, "rebound", value)
        if isinstance(self.halted, str):
            raise ConfigurationError(f"`gap.halted` must be a list of names, was {self.halted!r}")
        object.__setattr__(self, "halted", tuple(_text("gap.halted", name, empty=False) for name in self.halted))


@dataclass(frozen=True)
class Event:
    """Binaries of one question, of which at most one pays.

    Parameters
    ----------
    instrument_ids : sequence of str
        Distinct names or symbols.
    exhaustive : bool
        Whether one of them must pay; otherwise all may end at nothing.
    """

    instrument_ids: tuple[str, ...]
    exhaustive: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.instrument_ids, str):
            raise ConfigurationError(f"`instruments` of an event must be a list, was {self.instrument_ids!r}")
        names = tuple(_text("instruments", name, empty=False) for name in self.instrument_ids)
        if not names or len(set(names)) != len(names):
            raise ConfigurationError(f"`instruments` of an event must be distinct names, was {names!r}")
        if not isinstance(self.exhaustive, bool):
            raise ConfigurationError(f"`exhaustive` must be true or false, was {self.exhaustive!r}")
        object.__setattr__(self, "instrument_ids", names)


@dataclass(frozen=True)
class Jump:
    """Binaries settle: every one at 0, every one at 1, or as is worst for the portfolio.

    Parameters
    ----------
    to : {"worst", "zero", "one"}
    events : mapping of str to Event
        Binaries that belong together, for ``to = "worst"``; those in no event are independent of each other.
    """

    to: Literal["worst", "zero", "one"] = "worst"
    events: Mapping[str, Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.to not in ("worst", "zero", "one"):
            raise ConfigurationError(f"`jump.to` must be worst, zero or one, was {self.to!r}")
        if self.events and self.to != "worst":
            raise ConfigurationError(f'`jump.events` needs `jump.to` = "worst", was {self.to!r}')
        object.__setattr__(self, "events", dict(self.events))


@dataclass(frozen=True, eq=False)
class StressScenario:
    """A named set of shocks with its source.

    Parameters
    ----------
    name : str
        Unique within a library.
    kind : str
        One of :data:`KINDS`.
    source : str
        Where the numbers come from.
    dates : str
        First and last day of a replay, empty otherwise.
    horizon : str
        Time over which it happens, for the report: "1d", "60m".
    licence : str
        Of the data behind the numbers.
    verified : bool
        False where the source is a secondary one.
    instruments, asset_classes, venues, currencies : mapping of str to float
        Relative moves, finite and >= -1 (a currency: > -1).
    factors : mapping of str to float
        Shocks of factors, in whatever unit their betas expect.
    betas : mapping of str to mapping of str to float
        By instrument, symbol or asset class: move per unit of each factor; before those of the library.
    units : mapping of str to str
        Unit of a factor for the report; "relative" where nothing is said.
    currency_effect : {"position", "result"}
        What a shock of the settlement currency translates.
    liquidity, correlation, gap, jump : optional
        Further parts; see their classes.

    Raises
    ------
    ConfigurationError
        When a field breaks its rule, or the scenario does nothing.
    """

    name: str
    kind: str = "user"
    source: str = ""
    dates: str = ""
    horizon: str = ""
    licence: str = ""
    verified: bool = True
    instruments: Mapping[str, float] = field(default_factory=dict)
    asset_classes: Mapping[str, float] = field(default_factory=dict)
    venues: Mapping[str, float] = field(default_factory=dict)
    currencies: Mapping[str, float] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    betas: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    currency_effect: Literal["position", "result"] = "position"
    liquidity: Liquidity | None = None
    correlation: Correlation | None = None
    gap: Gap | None = None
    jump: Jump | None = None

    def __post_init__(self) -> None:
        _text("name", self.name, empty=False)
        for name in ("source", "dates", "horizon", "licence"):
            _text(name, getattr(self, name))
        if self.kind not in KINDS:
            raise ConfigurationError(f"`kind` must be one of {', '.join(KINDS)}, was {self.kind!r}")
        if not isinstance(self.verified, bool):
            raise ConfigurationError(f"`verified` must be true or false, was {self.verified!r}")
        for name in ("instruments", "asset_classes", "venues", "currencies"):
            object.__setattr__(self, name, _moves(name, getattr(self, name)))
        classes: dict[str, float] = {}
        for key, move in self.asset_classes.items():
            chain = asset_class_chain(key)
            if not chain:
                raise ConfigurationError(f"`asset_classes` must be names of classes, was {key!r}")
            known = chain[0]
            if known in classes:
                raise ConfigurationError(f"`asset_classes` must name each class once, {known!r} is there twice")
            classes[known] = move
        object.__setattr__(self, "asset_classes", classes)
        for currency, move in self.currencies.items():
            if move <= -1.0:
                raise ConfigurationError(f"`currencies.{currency}` must be > -1, was {move}")
        object.__setattr__(self, "factors", _moves("factors", self.factors, -math.inf))
        object.__setattr__(self, "betas", checked_betas("betas", self.betas))
        if not isinstance(self.units, Mapping):
            raise ConfigurationError(f"`units` must be a table of texts, was {self.units!r}")
        object.__setattr__(self, "units", {key: _text(f"units.{key}", unit) for key, unit in self.units.items()})
        if self.currency_effect not in ("position", "result"):
            raise ConfigurationError(f"`currency_effect` must be position or result, was {self.currency_effect!r}")
        moves = self.instruments or self.asset_classes or self.venues or self.currencies or self.factors
        if not (moves or self.liquidity or self.correlation or self.jump):
            raise ConfigurationError(
                "a scenario must have at least one of `instruments`, `asset_classes`, `venues`, `currencies`, "
                f"`factors`, `liquidity`, `correlation`, `jump`; {self.name!r} has none"
            )
        if self.correlation is not None and (self.instruments or self.asset_classes or self.factors or self.venues):
            raise ConfigurationError(
                "`correlation` makes the moves itself and must not stand beside `instruments`, `asset_classes`, "
                f"`venues` or `factors`, in {self.name!r} it does"
            )
        if self.jump is not None and (self.gap is not None or self.correlation is not None):
            raise ConfigurationError(f"`jump` must not stand beside `gap` or `correlation`, in {self.name!r} it does")


def checked_betas(name: str, value: object) -> dict[str, dict[str, float]]:
    """Betas by instrument or class, with classes in the spelling of the lookup."""
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"`{name}` must be a table of tables, was {value!r}")
    found: dict[str, dict[str, float]] = {}
    for key, row in value.items():
        _text(f"{name} key", key, empty=False)
        # Names of instruments keep their case; a class is known by its own spelling.
        chain = asset_class_chain(key)
        known = chain[0] if chain and chain[-1] in _CLASSES else key
        if known in found:
            raise ConfigurationError(f"`{name}` must name each class once, {known!r} is there twice")
        found[known] = _moves(f"{name}.{key}", row, -math.inf)
    return found
