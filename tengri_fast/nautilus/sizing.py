"""What the sizing of a strategy's entries needs to know of its account: equity, rates, and the value-at-risk budget.

They come from the risk gate when one stands in the node, else from NautilusTrader's portfolio. What cannot be known is
NaN, and a size that depends on it is zero.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from nautilus_trader.model.enums import PriceType
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.instruments import Instrument

from tengri_fast.errors import DataConversionError, NeuralIntegrationError
from tengri_fast.risk.sizing import Cap, PositionSizer, VarBudget
from tengri_fast.risk.sizing_settings import SizingSettings, unit_value_at_risk

__all__ = ["Means", "find_gate"]

_MAGIC = b"TGSIZES1"


def find_gate(handlers: Iterable[Any]) -> Any:
    """The ``NeuralRiskGate`` among the objects whose methods stand at the endpoints of a bus, or None."""
    from tengri_fast.nautilus.gate import NeuralRiskGate

    owners = (getattr(handler, "__self__", None) for handler in handlers)
    return next((owner for owner in owners if isinstance(owner, NeuralRiskGate)), None)


class Means:
    """Equity and value-at-risk budget of one strategy.

    Parameters
    ----------
    settings : SizingSettings
        How entries are sized.
    instruments : list of Instrument
        In the order of the strategy's slots.
    trade_size : Decimal, optional
        No entry is larger.
    """

    def __init__(self, settings: SizingSettings, instruments: list[Instrument], trade_size: Any = None) -> None:
        self._settings = settings
        self._instruments = instruments
        self._scenarios: Any = None
        self._gate: Any = None
        self._price: float = math.nan
        cap = None if trade_size is None else Cap(quantity=float(trade_size), name="trade_size")
        self.sizers: list[PositionSizer] = [
            settings.sizer(
                lot=float(instrument.size_increment),
                min_size=0.0 if instrument.min_quantity is None else float(instrument.min_quantity),
                multiplier=float(instrument.multiplier),
                inverse=bool(instrument.is_inverse),
                cap=cap,
            )
            for instrument in instruments
        ]

    def use_gate(self, gate: Any) -> None:
        """Take equity and budget from a ``NeuralRiskGate``; None goes back to the portfolio."""
        self._gate = gate

    def account(self, strategy: Any, slot: int, price: float) -> tuple[float, float, bool, float]:
        """What a question about size needs.

        Parameters
        ----------
        strategy : Strategy
            Whose cache and portfolio are asked.
        slot : int
            Of the instrument.
        price : float
            Its mid.

        Returns
        -------
        tuple of (float, float, bool, float)
            Equity and the value of the settlement currency, in base currency; whether a budget is known from
            elsewhere, and that budget.
        """
        if self._gate is not None:
            return self._from_gate(slot, price)
        return self._from_portfolio(strategy, slot)

    def note_equity(self, strategy: Any) -> None:
        """Follow the account's peak between entries, where a part measures drawdown from it."""
        if "drawdown" not in self._settings.parts:
            return
        for slot, sizer in enumerate(self.sizers):
            # Without a gate there is no common currency: each is in that of its instrument.
            sizer.on_equity(self._gate.equity() if self._gate is not None else self._portfolio_equity(strategy, slot))

    def quantity(self, slot: int, size: float) -> Any:
        """A size as a Quantity of the instrument, at most its largest order; None when that is nothing."""
        instrument = self._instruments[slot]
        if instrument.max_quantity is not None:
            size = min(size, float(instrument.max_quantity))
        made = instrument.make_qty(Decimal(round(size / float(instrument.size_increment))) * _increment(instrument))
        return made if made > 0 else None

    def to_bytes(self, sizes: list[float]) -> bytes:
        """Volatilities, peaks and last sizes by instrument."""
        parts = [_MAGIC, struct.pack("<I", len(self.sizers))]
        for sizer, instrument, size in zip(self.sizers, self._instruments, sizes, strict=True):
            name, state = instrument.id.value.encode(), sizer.to_bytes()
            parts += [struct.pack("<IId", len(name), len(state), size), name, state]
        return b"".join(parts)

    def from_bytes(self, data: bytes) -> list[float]:
        """Restore what :meth:`to_bytes` gave, by name; returns the last sizes.

        Raises
        ------
        DataConversionError
            When the bytes are damaged, or belong to sizers of other settings.
        """
        sizes = [0.0] * len(self.sizers)
        by_name = {instrument.id.value: i for i, instrument in enumerate(self._instruments)}
        try:
            if data[: len(_MAGIC)] != _MAGIC:
                raise ValueError("magic")
            (count,) = struct.unpack_from("<I", data, len(_MAGIC))
            at = len(_MAGIC) + 4
            for _ in range(count):
                length, state_length, size = struct.unpack_from("<IId", data, at)
                at += 16
                name = data[at : at + length].decode()
                at += length
                if name in by_name:
                    self.sizers[by_name[name]].from_bytes(data[at : at + state_length])
                    sizes[by_name[name]] = size
                at += state_length
        except (ValueError, struct.error) as error:
            raise DataConversionError("saved sizing state must be what was saved, was damaged") from error
        return sizes

    def _from_gate(self, slot: int, price: float) -> tuple[float, float, bool, float]:
        gate = self._gate
        instrument = self._instruments[slot]
        equity = gate.equity()
        state = gate.state
        currency = instrument.get_settlement_currency().code
        rate = 1.0 if currency == state.base_currency else state.rate(currency)
        limit = gate.gate.limits.max_portfolio_var
        if limit is None:
            return equity, rate, False, math.nan
        try:
            self._take_scenarios(state, price)
            budget = limit * equity - max(state.value_at_risk("worst"), 0.0)
        except NeuralIntegrationError:
            # No scenarios, or a position without a value: the gate refuses what adds risk, and the size is zero.
            return equity, rate, True, math.nan
        return equity, rate, True, budget

    def _take_scenarios(self, state: Any, price: float) -> None:
        """Value at risk of a unit of each instrument; again only when the scenarios, or a binary's price, change."""
        binary = any(hasattr(instrument, "outcome") for instrument in self._instruments)
        if state.scenarios is self._scenarios and not (binary and price != self._price):
            return
        settings = state.var_settings
        for sizer, instrument in zip(self.sizers, self._instruments, strict=True):
            row = state.scenarios.row(instrument.id.value)
            if row is None:
                sizer.set_unit_var(math.nan, math.nan)
                continue
            payoff = "inverse" if instrument.is_inverse else "binary" if hasattr(instrument, "outcome") else "linear"
            returns = state.scenarios.returns[row, -settings.scenarios :]
            sizer.set_unit_var(*unit_value_at_risk(returns, settings.level, payoff=payoff, price=price))  # type: ignore[arg-type]
        self._scenarios, self._price = state.scenarios, price

    def _from_portfolio(self, strategy: Any, slot: int) -> tuple[float, float, bool, float]:
        equity = self._portfolio_equity(strategy, slot)
        used = self._used(strategy, self._instruments[slot].get_settlement_currency())
        return equity, 1.0, True, self._settings.var_limit * equity - used

    def _portfolio_equity(self, strategy: Any, slot: int) -> float:
        """Equity at the instrument's venue in its settlement currency, NaN when it is not known."""
        instrument = self._instruments[slot]
        base = instrument.get_settlement_currency()
        venue = instrument.id.venue
        found = strategy.portfolio.equity(venue)
        equity = 0.0 if found else math.nan
        for currency, money in found.items():
            worth = 1.0 if currency == base else strategy.cache.get_xrate(venue, currency, base)
            equity += math.nan if money is None or not worth else money.as_double() * float(worth)
        return equity

    def _used(self, strategy: Any, base: Any) -> float:
        """Value at risk of what the strategy holds, summed over instruments: a bound, since they need not fall as one.

        Of a normal distribution with each sizer's running volatility; NaN when a held one has no price or volatility.
        """
        used = 0.0
        part = VarBudget(self._settings.var_limit, 1.0, self._settings.var_level, self._settings.var_horizon)
        for sizer, instrument in zip(self.sizers, self._instruments, strict=True):
            quantity = sum(abs(position.signed_qty) for position in _open_positions(strategy, instrument.id))
            if quantity == 0.0:
                continue
            price = strategy.cache.price(instrument.id, PriceType.MID)
            currency = instrument.get_settlement_currency()
            rate = 1.0 if currency == base else strategy.cache.get_xrate(instrument.id.venue, currency, base)
            if price is None or not rate:
                return math.nan
            exposure = sizer.multiplier * (1.0 / float(price) if sizer.inverse else float(price)) * float(rate)
            variance = sizer.volatility.variance_rate
            used += quantity * exposure * part.quantile * math.sqrt(variance * part.horizon_ns)
        return used


def _increment(instrument: Instrument) -> Decimal:
    return Decimal(str(instrument.size_increment))


def _open_positions(strategy: Any, instrument_id: InstrumentId) -> list[Any]:
    return list(strategy.cache.positions_open(instrument_id=instrument_id, strategy_id=strategy.id))
