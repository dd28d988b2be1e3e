"""A portfolio at one moment as plain arrays: what the analyses of risk work on, outside the order path.

Positions are linear in quantity, so everything follows from the result of one unit of each instrument under a relative
price move r, in base currency::

    linear   m rate P r
    inverse  m rate (1/P - 1/(P (1 + r)))
    binary   m rate (clip(P (1 + r), 0, 1) - P)

An instrument with Greeks (``gammas`` not NaN) is expanded to second order instead, per unit of its own quantity, in the
price of its underlying U: m rate (delta U r + gamma (U r)^2 / 2), where ``prices`` holds U.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError

__all__ = ["PAYOFFS", "Holdings"]

#: Payoff codes, in this order everywhere.
PAYOFFS = ("linear", "inverse", "binary")

Floats = npt.NDArray[np.float64]
_NONE: Floats = np.empty(0)
_NONE.setflags(write=False)


@dataclass(frozen=True, eq=False)
class Holdings:
    """N positions and what is needed to revalue them.

    Parameters
    ----------
    instrument_ids : sequence of str, length N
        Distinct names.
    quantities : array_like, shape (N,)
        Net quantity in units, + is long.
    prices : array_like, shape (N,)
        Marks in quote currency, finite and > 0 (a binary: within 0 and 1).
    multipliers, rates : array_like, shape (N,), optional
        Contract multiplier, and value of the settlement currency in base currency; 1 by default.
    payoffs : sequence of str, length N, optional
        "linear" (default), "inverse" or "binary".
    spreads : array_like, shape (N,), optional
        Bid-ask spread as a share of the mid; NaN where unknown.
    depths : array_like, shape (N,), optional
        Quantity that can be traded near the best price; NaN where unknown.
    volumes : array_like, shape (N,), optional
        Quantity traded per day; NaN where unknown.
    asset_classes, venues, currencies : sequence of str, length N, optional
        Groups for shocks and limits; "" where unknown.
    deltas, gammas : array_like, shape (N,), optional
        Greeks per unit of quantity with respect to ``prices``, which then holds the underlying; NaN: none.
    base_currency : str
        Currency of all results.
    equity : float
        Equity of the account in base currency; NaN when unknown.

    Raises
    ------
    DataConversionError
        When a length, a payoff or a value breaks its rule; the message names the instrument.
    """

    instrument_ids: tuple[str, ...]
    quantities: Floats
    prices: Floats
    multipliers: Floats = field(default_factory=lambda: _NONE)
    rates: Floats = field(default_factory=lambda: _NONE)
    payoffs: tuple[str, ...] = ()
    spreads: Floats = field(default_factory=lambda: _NONE)
    depths: Floats = field(default_factory=lambda: _NONE)
    volumes: Floats = field(default_factory=lambda: _NONE)
    asset_classes: tuple[str, ...] = ()
    venues: tuple[str, ...] = ()
    currencies: tuple[str, ...] = ()
    deltas: Floats = field(default_factory=lambda: _NONE)
    gammas: Floats = field(default_factory=lambda: _NONE)
    base_currency: str = "USD"
    equity: float = math.nan
    codes: npt.NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = tuple(self.instrument_ids)
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataConversionError(f"`instrument_ids` must be distinct, {twice!r} is there twice")
        object.__setattr__(self, "instrument_ids", names)
        for name, default in (
            ("quantities", math.nan),
            ("prices", math.nan),
            ("multipliers", 1.0),
            ("rates", 1.0),
            ("spreads", math.nan),
            ("depths", math.nan),
            ("volumes", math.nan),
            ("deltas", math.nan),
            ("gammas", math.nan),
        ):
            given = getattr(self, name)
            empty = given is None or given is _NONE
            values = np.full(len(names), default) if empty else np.array(given, dtype=np.float64)
            if values.shape != (len(names),):
                raise DataConversionError(f"`{name}` must have shape ({len(names)},), had {values.shape}")
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        for name, default_text in (("payoffs", "linear"), ("asset_classes", ""), ("venues", ""), ("currencies", "")):
            texts = tuple(getattr(self, name)) or (default_text,) * len(names)
            if len(texts) != len(names):
                raise DataConversionError(f"`{name}` must have {len(names)} entries, had {len(texts)}")
            object.__setattr__(self, name, texts)
        unknown = [payoff for payoff in self.payoffs if payoff not in PAYOFFS]
        if unknown:
            raise DataConversionError(f"`payoffs` must be of {', '.join(PAYOFFS)}, was {unknown[0]!r}")
        object.__setattr__(self, "codes", np.array([PAYOFFS.index(payoff) for payoff in self.payoffs], dtype=np.int64))
        self._demand("quantities", np.isfinite(self.quantities), "finite")
        binary = self.codes == 2
        priced = np.isfinite(self.prices) & np.where(
            binary, (self.prices >= 0.0) & (self.prices <= 1.0), self.prices > 0
        )
        self._demand("prices", priced, "finite and > 0 (a binary: within 0 and 1)")
        for name in ("multipliers", "rates"):
            values = getattr(self, name)
            self._demand(name, np.isfinite(values) & (values > 0.0), "finite and > 0")

    def _demand(self, name: str, good: npt.NDArray[np.bool_], rule: str) -> None:
        if not good.all():
            i = int(np.argmin(good))
            value = getattr(self, name)[i]
            raise DataConversionError(f"`{name}` must be {rule}, was {value} for {self.instrument_ids[i]}")

    def __len__(self) -> int:
        return len(self.instrument_ids)

    def unit_pnl(self, returns: npt.ArrayLike) -> Floats:
        """Result of one unit of each instrument, base currency.

        Parameters
        ----------
        returns : array_like, shape (N, S) or (N,)
            Relative price moves, finite and >= -1 (an inverse instrument: > -1).

        Returns
        -------
        ndarray, shape as ``returns``

        Raises
        ------
        DataConversionError
            When the shape or a value breaks its rule.
        """
        r = np.asarray(returns, dtype=np.float64)
        if r.ndim not in (1, 2) or r.shape[0] != len(self):
            raise DataConversionError(f"`returns` must have shape ({len(self)}, S), had {r.shape}")
        flat = r.ndim == 1
        table = r[:, None] if flat else r
        good = np.isfinite(table) & (table >= -1.0) & ((self.codes[:, None] != 1) | (table > -1.0))
        if not good.all():
            i, s = (int(x) for x in np.argwhere(~good)[0])
            rule = "finite and > -1" if self.codes[i] == 1 else "finite and >= -1"
            raise DataConversionError(
                f"`returns` must be {rule}, was {table[i, s]} for {self.instrument_ids[i]} in scenario {s}"
            )
        price = self.prices[:, None]
        unit = price * table
        inverse, binary = self.codes == 1, self.codes == 2
        if inverse.any():
            unit[inverse] = table[inverse] / ((1.0 + table[inverse]) * price[inverse])
        if binary.any():
            unit[binary] = np.clip(price[binary] * (1.0 + table[binary]), 0.0, 1.0) - price[binary]
        greeks = np.isfinite(self.gammas) | np.isfinite(self.deltas)
        if greeks.any():
            move = price[greeks] * table[greeks]
            delta = np.nan_to_num(self.deltas[greeks])[:, None]
            gamma = np.nan_to_num(self.gammas[greeks])[:, None]
            unit[greeks] = delta * move + 0.5 * gamma * move * move
        unit *= (self.multipliers * self.rates)[:, None]
        return unit[:, 0] if flat else unit

    def pnl(self, returns: npt.ArrayLike) -> Floats:
        """Result of the whole portfolio, base currency, shape (S,); arguments and errors as :meth:`unit_pnl`."""
        result: Floats = np.atleast_1d(self.quantities @ self.unit_pnl(returns))
        return result

    def exposures(self) -> Floats:
        """Signed exposure dV/dr of each position in base currency, shape (N,); a binary counts as linear."""
        # Only an inverse instrument is divided by its price, which is above zero: that of a binary may be zero.
        per_unit = np.where(self.codes == 1, 1.0 / np.where(self.codes == 1, self.prices, 1.0), self.prices)
        greeks = np.isfinite(self.deltas) | np.isfinite(self.gammas)
        per_unit = np.where(greeks, np.nan_to_num(self.deltas) * self.prices, per_unit)
        result: Floats = self.quantities * self.multipliers * self.rates * per_unit
        return result
