"""Facts about instruments that profit and loss need (tick, multiplier, currency, fees, hours), each with its source."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources

import msgspec

from tengri_fast.errors import ConfigurationError

__all__ = ["InstrumentContract", "contract", "contract_names"]


class InstrumentContract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One row of the table ``contracts.toml``.

    Attributes
    ----------
    instrument_id : str
        "SYMBOL.VENUE" as NautilusTrader writes it.
    description, asset_class, kind : str
    base_currency, currency : str
        What is traded and what its price is quoted in.
    tick : float
        Smallest price step, in `currency`.
    price_precision, size_precision : int
        Decimals of prices and sizes.
    size_step : float
        Smallest order size step, in contracts, coins or shares.
    multiplier : float
        Units of the base per contract; profit = multiplier * size * price difference. Of an inverse contract: units of
        `currency` per contract; profit, in the base currency, = multiplier * size * (1 / entry - 1 / exit).
    multiplier_unit : str
    timezone : str
        IANA name of the time zone of `hours`.
    hours : tuple of str
        Trading sessions as "HH:MM-HH:MM"; one that ends before it starts runs over midnight.
    source, notes : str
        Where the facts come from, and what they leave out.
    maker_bps, taker_bps : float
        Fees per side in basis points of notional.
    fee_per_contract : float
        Fee per side and contract (or share) in `settlement_currency`.
    inverse : bool
        Quoted in `currency`, margined and settled in the base currency.
    """

    instrument_id: str
    description: str
    asset_class: str
    kind: str
    base_currency: str
    currency: str
    tick: float
    price_precision: int
    size_step: float
    size_precision: int
    multiplier: float
    multiplier_unit: str
    timezone: str
    hours: tuple[str, ...]
    source: str
    notes: str
    maker_bps: float = 0.0
    taker_bps: float = 0.0
    fee_per_contract: float = 0.0
    inverse: bool = False

    @property
    def settlement_currency(self) -> str:
        """What profit, loss and fees are paid in."""
        return self.base_currency if self.inverse else self.currency

    def notional(self, size: float, price: float) -> float:
        """Value of a position in `settlement_currency`; the sign of `size` does not matter.

        Parameters
        ----------
        size : float
            Contracts, coins or shares.
        price : float
        """
        return abs(size) * (self.multiplier / price if self.inverse else self.multiplier * price)

    def profit(self, size: float, entry: float, exit: float) -> float:
        """Profit in `settlement_currency` of a position opened at one price and closed at another, before fees.

        Parameters
        ----------
        size : float
            Contracts, coins or shares; below 0 for a short position.
        entry, exit : float
            Prices.
        """
        move = 1.0 / entry - 1.0 / exit if self.inverse else exit - entry
        return self.multiplier * size * move

    def fee(self, size: float, price: float, *, maker: bool = False) -> float:
        """Fee of one fill in `settlement_currency`.

        Parameters
        ----------
        size : float
            Contracts, coins or shares; the sign does not matter.
        price : float
        maker : bool
            Whether the fill added liquidity.
        """
        rate = self.maker_bps if maker else self.taker_bps
        return self.notional(size, price) * rate * 1e-4 + abs(size) * self.fee_per_contract


@cache
def _table() -> dict[str, InstrumentContract]:
    text = resources.files("tengri_fast.market").joinpath("contracts.toml").read_bytes()
    return msgspec.toml.decode(text, type=dict[str, InstrumentContract])


def contract_names() -> tuple[str, ...]:
    """Names of the rows."""
    return tuple(_table())


def contract(name: str) -> InstrumentContract:
    """A row of the contract table.

    Parameters
    ----------
    name : str
        Row, such as "binance_usdm_btcusdt".

    Raises
    ------
    ConfigurationError
        If there is no such row; the nearest is named.
    """
    found = _table().get(name)
    if found is None:
        close = difflib.get_close_matches(str(name), contract_names(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(contract_names())}"
        raise ConfigurationError(f"`contract` must be a row of the contract table, was {name!r}{hint}")
    return found
