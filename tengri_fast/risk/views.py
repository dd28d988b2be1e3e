"""What a portfolio shows of itself: a quote, a position, and everything at once as plain data."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from tengri_fast.risk.types import InstrumentFacts, OrderView

__all__ = ["CASES", "Case", "PositionView", "Quote", "Snapshot", "SnapshotOrder", "SnapshotQuote"]

#: Which working orders are taken as filled.
Case = Literal["filled", "buys", "sells", "worst"]
CASES: tuple[Case, ...] = ("filled", "buys", "sells", "worst")


class Quote(NamedTuple):
    """Reference quote of an instrument; ``valid`` is False when the last one received was not usable."""

    bid: float
    ask: float
    mid: float
    ts: int
    valid: bool


class PositionView(NamedTuple):
    """One position as the portfolio knows it."""

    instrument_id: str
    account_id: str
    position_id: str
    strategy_id: str
    quantity: float
    last_price: float


class SnapshotQuote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Last usable quote of an instrument, when the last one came, and whether that one was usable."""

    bid: float
    ask: float
    ts: int
    valid: bool


class SnapshotOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A working order and what of it has filled; None in a price means that it has none."""

    client_order_id: str
    strategy_id: str
    account_id: str
    instrument_id: str
    position_id: str
    side: int
    quantity: float
    price: float | None
    trigger_price: float | None
    order_type: str
    reduce_only: bool
    ts: int
    parent_id: str
    exclusive_group: str
    filled: float

    def view(self) -> OrderView:
        """The order as the gate sees it."""
        nan = float("nan")
        fields = {name: getattr(self, name) for name in OrderView.__struct_fields__}
        fields["price"] = nan if self.price is None else self.price
        fields["trigger_price"] = nan if self.trigger_price is None else self.trigger_price
        return OrderView(**fields)


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A portfolio at one moment; None stands for a number that is not known.

    Parameters
    ----------
    format : int
        1.
    base_currency : str
    equity : float, optional
    instruments : list of InstrumentFacts
    rates : dict of str to float
        Value of a currency in base currency.
    quotes : dict of str to SnapshotQuote
    last_prices : dict of str to float
        Last traded price, by instrument.
    positions : list of PositionView
        A last price that is not known is None there too.
    orders : list of SnapshotOrder
    """

    format: Literal[1]
    base_currency: str
    equity: float | None
    instruments: list[InstrumentFacts]
    rates: dict[str, float]
    quotes: dict[str, SnapshotQuote]
    last_prices: dict[str, float]
    positions: list[tuple[str, str, str, str, float, float | None]]
    orders: list[SnapshotOrder]
