"""What the portfolio holds, owes to working orders, and would lose in every scenario; kept current event by event.

*Payoffs.* With q units, multiplier m, price P, scenario return r and the rate of the settlement currency in base
currency, the result of one scenario is revalued, not linearised::

    linear   q m (P' - P) rate                   P' = P (1 + r)
    inverse  q m (1/P - 1/P') rate               in coin, times the coin's rate
    binary   q m (clip(P', 0, 1) - P) rate       cannot be worth less than nothing or more than its payout

All are linear in q, so a position, a fill and a what-if order are the same operation: add a column times a quantity.
A quanto is linear with a settlement currency of its own. Rates are held constant within a scenario. Prices must be
positive: a negative price has no relative return, so it counts as missing.

*Valuation.* The mark is the mid of the last valid two-sided quote. An invalid or crossed quote leaves the mark but
takes away the reference price (:meth:`PortfolioState.quote`) until a valid quote comes. A position that has never been
priced, has no rate, or has no scenarios cannot be valued: value at risk is then unknown and the gate denies.

*Working orders.* Which of them will fill is unknown. The check takes the worst value at risk of five portfolios:
filled; filled and the order in question; filled and all working buys; filled and all working sells; filled and, per
instrument, the side that is worse by stand-alone value at risk. The order in question counts as working in the last
three. What holds: every case is a portfolio that can come about (reduce-only orders, below, aside: there the sequence
of fills matters), so the answer never exceeds the true worst over all subsets of fills; for one instrument, and for
instruments that move together (linear, all rows positive multiples of one), it equals it; in general it is a heuristic
that can fall short, because 2^n subsets cannot be looked at. The second case is not needed by that definition but
catches an order that other working orders would hedge.

*Reduce-only.* A venue cuts a reduce-only order at the position, so as working order it can only take the position to
zero. Nothing but that flag does it: an exit that names its entry in ``parent_id`` counts like any other order, because
it can fill when the entry has not, or when the entry was closed in another way.

*Exclusive groups.* Orders with the same ``exclusive_group`` (the venue cancels the others when one fills) count once,
with the largest open quantity; :class:`~tengri_fast.risk.types.OrderView` says who may share one.

The book of one instrument is in :mod:`tengri_fast.risk._book`; the scenario results, and how they are kept both
incremental and exact, in :mod:`tengri_fast.risk._vector`.

*Threads.* One thread, the one that delivers the events.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk._book import Book, PositionView, Quote, Recent, Working
from tengri_fast.risk._vector import Case, ScenarioVector
from tengri_fast.risk.scenarios import ScenarioSet
from tengri_fast.risk.types import InstrumentFacts, OrderView, VarSettings

__all__ = ["Case", "PortfolioState", "PositionView", "Quote"]

_NAN = float("nan")


class PortfolioState:
    """Positions, working orders, prices, rates and the scenario P&L vector.

    Parameters
    ----------
    facts : iterable of InstrumentFacts
        The instruments that may be traded.
    scenarios : ScenarioSet, optional
        None when they are not ready yet; see :meth:`set_scenarios`.
    var_settings : VarSettings, optional
        None when no value at risk is wanted; numba is then never imported.
    base_currency : str, optional
        Needed only when there are no ``var_settings`` and instruments settle in different currencies.
    rebuild_interval : int
        Column updates between exact rebuilds.

    Raises
    ------
    ConfigurationError
        When an instrument is there twice, the base currency is open, or scenarios do not fit the settings.
    """

    def __init__(
        self,
        facts: Iterable[InstrumentFacts],
        scenarios: ScenarioSet | None = None,
        var_settings: VarSettings | None = None,
        *,
        base_currency: str | None = None,
        rebuild_interval: int = 4096,
    ) -> None:
        if rebuild_interval < 1:
            raise ConfigurationError(f"`rebuild_interval` must be >= 1, was {rebuild_interval}")
        self._books: dict[str, Book] = {}
        self._orders: dict[str, Working] = {}
        self._closed = Recent()
        self._trades = Recent()
        self._early_fills = Recent()
        self._rates: dict[str, float] = {}
        self._equity = _NAN
        self._faults: list[str] = []
        self._settings = var_settings
        self.counters: dict[str, int] = {
            "backward_quotes": 0,
            "duplicate_fills": 0,
            "early_fills": 0,
            "faults": 0,
            "invalid_quotes": 0,
            "invalid_rates": 0,
            "late_orders": 0,
            "rebuilds": 0,
            "unknown_orders": 0,
            "unknown_quotes": 0,
        }
        listed = list(facts)
        currencies = {fact.settlement_currency for fact in listed}
        if var_settings is not None:
            if base_currency is not None and base_currency != var_settings.base_currency:
                raise ConfigurationError(
                    f"`base_currency` must be that of `var` ({var_settings.base_currency}), was {base_currency!r}"
                )
            base_currency = var_settings.base_currency
        elif base_currency is None:
            if len(currencies) > 1:
                raise ConfigurationError(
                    "`base_currency` must be given when instruments settle in several currencies, "
                    f"which were {', '.join(sorted(currencies))}"
                )
            base_currency = next(iter(currencies), "USD")
        self._base = base_currency
        self._rates[base_currency] = 1.0
        self._vector = ScenarioVector(self._books, self._rates, var_settings, self.counters, rebuild_interval)
        for fact in listed:
            self._insert(fact)
        if scenarios is not None:
            self.set_scenarios(scenarios)
        else:
            self._vector.bind()

    # -- set-up ------------------------------------------------------------------------------------------------------

    def _insert(self, fact: InstrumentFacts) -> None:
        if fact.instrument_id in self._books:
            raise ConfigurationError(f"`facts` must name each instrument once, {fact.instrument_id!r} is there twice")
        self._books[fact.instrument_id] = Book(fact, len(self._books))

    def add_instrument(self, fact: InstrumentFacts) -> None:
        """Make one more instrument known; costs an exact rebuild."""
        self._insert(fact)
        self._vector.bind()

    def set_scenarios(self, scenarios: ScenarioSet) -> None:
        """Use these scenarios from now on; costs an exact rebuild.

        Raises
        ------
        ConfigurationError
            When no settings were given, horizons differ, there are too few scenarios for the level, or a scenario
            takes the price of an inverse instrument to zero. Nothing is changed then.
        """
        self._vector.use(scenarios)

    def reset(self) -> None:
        """Forget positions, orders, quotes, rates and equity, as before a second run; facts and scenarios stay."""
        for book in self._books.values():
            book.clear()
        self._orders.clear()
        for memory in (self._closed, self._trades, self._early_fills):
            memory.clear()
        self._rates.clear()
        self._rates[self._base] = 1.0
        self._equity = _NAN
        self._faults.clear()
        for name in self.counters:
            self.counters[name] = 0
        self._vector.bind()

    def warmup(self) -> None:
        """Compile or load the kernels and bring the vector up to date; does nothing without ``var_settings``."""
        if self._settings is not None:
            self._vector.warmup()

    # -- events ------------------------------------------------------------------------------------------------------

    def _fault(self, text: str) -> None:
        self.counters["faults"] += 1
        if len(self._faults) < 64:
            self._faults.append(text)

    def on_price(self, instrument_id: str, bid: float, ask: float, ts: int) -> None:
        """A quote: ``bid`` and ``ask`` in quote currency, ``ts`` in ns.

        A quote that is older than the last one is dropped. One that is not finite, not positive, one-sided or crossed
        (for a binary: outside 0 <= bid, ask <= 1) leaves no reference price.
        """
        book = self._books.get(instrument_id)
        if book is None:
            self.counters["unknown_quotes"] += 1
            return
        if ts < book.ts:
            self.counters["backward_quotes"] += 1
            return
        book.ts = ts
        if book.payoff == 2:
            usable = 0.0 <= bid <= ask <= 1.0 and ask > 0.0 and bid < 1.0
        else:
            usable = 0.0 < bid <= ask < math.inf
        book.valid = usable
        book.quote = None
        if not usable:
            self.counters["invalid_quotes"] += 1
            return
        book.bid = bid
        book.ask = ask
        mid = bid + 0.5 * (ask - bid)
        if mid != book.mid:
            book.mid = mid
            if book.exposed and not book.dirty:
                self._vector.mark_price(book)

    def on_rate(self, currency: str, value_in_base: float) -> None:
        """Value of one unit of a currency in base currency; one that is not finite and positive removes the rate."""
        if currency == self._base:
            if value_in_base != 1.0:
                self.counters["invalid_rates"] += 1
            return
        if not 0.0 < value_in_base < math.inf:
            self.counters["invalid_rates"] += 1
            if self._rates.pop(currency, None) is None:
                return
        elif self._rates.get(currency) == value_in_base:
            return
        else:
            self._rates[currency] = float(value_in_base)
        for book in self._books.values():
            if book.exposed and book.currency == currency:
                self._vector.mark(book)

    def on_equity(self, value: float) -> None:
        """Equity of the account in base currency; a value that is not finite means unknown."""
        self._equity = value if math.isfinite(value) else _NAN

    def on_fill(
        self,
        instrument_id: str,
        signed_quantity: float,
        price: float,
        position_id: str = "",
        account_id: str = "",
        strategy_id: str = "",
        client_order_id: str = "",
        trade_id: str = "",
    ) -> None:
        """A fill of ``signed_quantity`` units (+ bought, - sold).

        A fill seen before (same instrument, order and trade id) is ignored; an empty trade id is never a duplicate. A
        fill may come before its order is reported as working, or after the order was closed. A fill that cannot be
        booked makes the portfolio inconsistent (:attr:`faults`), and the gate closes for orders that add risk.
        """
        book = self._books.get(instrument_id)
        if book is None:
            self._fault(f"fill in the unknown instrument {instrument_id}")
            return
        if trade_id:
            key = (instrument_id, client_order_id, trade_id)
            if key in self._trades:
                self.counters["duplicate_fills"] += 1
                return
            self._trades.put(key)
        if not math.isfinite(signed_quantity):
            self._fault(f"fill of {signed_quantity} in {instrument_id}")
            return
        if signed_quantity == 0.0:
            return
        position = book.position(position_id, account_id, strategy_id)
        if position.quantity == 0.0:
            position.strategy = strategy_id
        position.quantity = book.snap(position.quantity + signed_quantity)
        position.last_price = price
        if not math.isfinite(position.quantity):
            self._fault(f"position in {instrument_id} is not finite")
        if client_order_id:
            self._count_fill(client_order_id, abs(signed_quantity))
        book.moved(position)
        self._vector.mark(book)

    def _count_fill(self, client_order_id: str, quantity: float) -> None:
        working = self._orders.get(client_order_id)
        if working is not None:
            working.resize(working.book.snap(working.filled + quantity))
            if working.done:
                self._close(client_order_id)
        elif client_order_id not in self._closed:
            self.counters["early_fills"] += 1
            self._early_fills.put(client_order_id, self._early_fills.get(client_order_id, 0.0) + quantity)

    def set_position(
        self,
        instrument_id: str,
        quantity: float,
        position_id: str = "",
        account_id: str = "",
        strategy_id: str = "",
        price: float = _NAN,
    ) -> None:
        """State a position outright, as at start or after a reconciliation."""
        book = self._books.get(instrument_id)
        if book is None or not math.isfinite(quantity):
            self._fault(f"position of {quantity} in {instrument_id}")
            return
        position = book.position(position_id, account_id, strategy_id)
        position.strategy = strategy_id
        position.quantity = book.snap(quantity)
        position.last_price = price
        book.moved(position)
        self._vector.mark(book)

    def on_working(self, order: OrderView) -> None:
        """An order left, or is about to leave, for the venue; it counts as exposure from now on.

        Call it before sending and :meth:`on_order_closed` on rejection, expiry or cancellation. A repeated call
        replaces what was known, but keeps the filled quantity.
        """
        book = self._books.get(order.instrument_id)
        if book is None:
            self._fault(f"working order {order.client_order_id} in the unknown instrument {order.instrument_id}")
            return
        if not (math.isfinite(order.quantity) and order.quantity > 0.0 and order.side in (1, -1)):
            self._fault(f"working order {order.client_order_id} with side {order.side} and quantity {order.quantity}")
            return
        name = order.client_order_id
        if name in self._closed:
            self.counters["late_orders"] += 1
            return
        before = self._orders.get(name)
        filled = before.filled if before is not None else float(self._early_fills.pop(name, 0.0))
        if order.quantity - filled <= book.tolerance(order.quantity):
            self._close(name)
            return
        # A copy, because the caller may go on to change its own.
        self._count(Working(copy.copy(order), book, filled, self.is_capped(order)))

    def _count(self, working: Working) -> None:
        book = working.book
        self._orders[working.view.client_order_id] = working
        book.add(working)
        self._vector.mark(book)

    def on_order_update(
        self,
        client_order_id: str,
        quantity: float | None = None,
        price: float | None = None,
        trigger_price: float | None = None,
    ) -> None:
        """The venue changed a working order; None leaves a field as it is, ``quantity`` is the whole quantity."""
        working = self._orders.get(client_order_id)
        if working is None:
            self.counters["unknown_orders"] += 1
            return
        if quantity is not None:
            if not (math.isfinite(quantity) and quantity > 0.0):
                self._fault(f"order {client_order_id} changed to quantity {quantity}")
                return
            working.view.quantity = quantity
        if price is not None:
            working.view.price = price
        if trigger_price is not None:
            working.view.trigger_price = trigger_price
        working.resize(working.filled)
        self._vector.mark(working.book)
        if working.done:
            self._close(client_order_id)

    def on_order_closed(self, client_order_id: str) -> None:
        """The order can no longer fill: filled, cancelled, expired, rejected or denied."""
        self._close(client_order_id)

    def _close(self, client_order_id: str) -> None:
        self._closed.put(client_order_id)
        self._early_fills.pop(client_order_id, None)
        self._discount(client_order_id)

    def _discount(self, client_order_id: str) -> None:
        working = self._orders.pop(client_order_id, None)
        if working is not None:
            working.book.drop(client_order_id)
            self._vector.mark(working.book)

    def stage(self, order: OrderView) -> bool:
        """Count an order as working for the length of an examination; False when it is working already."""
        if order.client_order_id in self._orders:
            return False
        book = self._books[order.instrument_id]
        filled = self.filled_quantity(order.client_order_id)
        self._count(Working(order, book, filled, self.is_capped(order)))
        return True

    def unstage(self, client_order_ids: Iterable[str]) -> None:
        """Undo :meth:`stage`."""
        for name in client_order_ids:
            self._discount(name)

    def clear_faults(self) -> None:
        """Declare the portfolio consistent again, after positions were restated with :meth:`set_position`."""
        self._faults.clear()

    # -- plain readings ----------------------------------------------------------------------------------------------

    @property
    def base_currency(self) -> str:
        """Currency of the P&L vector."""
        return self._base

    @property
    def var_settings(self) -> VarSettings | None:
        """How value at risk is measured, None when it is not."""
        return self._settings

    @property
    def scenarios(self) -> ScenarioSet | None:
        """The scenario set in use."""
        return self._vector.scenarios

    @property
    def scenarios_ready(self) -> bool:
        """Whether value at risk can be computed."""
        return self._vector.used > 0

    @property
    def equity(self) -> float:
        """Equity in base currency, NaN when unknown."""
        return self._equity

    @property
    def faults(self) -> tuple[str, ...]:
        """Events that could not be booked; while there are any, the gate admits only reducing orders."""
        return tuple(self._faults)

    def facts(self, instrument_id: str) -> InstrumentFacts | None:
        """Facts of an instrument, None when it is unknown."""
        book = self._books.get(instrument_id)
        return None if book is None else book.facts

    def quote(self, instrument_id: str) -> Quote | None:
        """Reference quote, None when the instrument is unknown or was never quoted."""
        book = self._books.get(instrument_id)
        if book is None or math.isnan(book.mid):
            return None
        quote = book.quote
        if quote is None:
            quote = book.quote = Quote(book.bid, book.ask, book.mid, book.ts, book.valid)
        return quote

    def rate(self, currency: str) -> float:
        """Value of one unit of a currency in base currency, NaN when unknown."""
        return self._rates.get(currency, _NAN)

    def position(self, instrument_id: str) -> float:
        """Net filled quantity of an instrument over all accounts and positions, units."""
        book = self._books.get(instrument_id)
        return 0.0 if book is None else book.net

    def positions(self) -> list[PositionView]:
        """All open positions."""
        return [
            PositionView(name, item.account, item.position_id, item.strategy, item.quantity, item.last_price)
            for name, book in self._books.items()
            for item in book.positions.values()
        ]

    def working_orders(self) -> list[OrderView]:
        """All working orders, with their whole quantity."""
        return [working.view for working in self._orders.values()]

    def working_order(self, client_order_id: str) -> OrderView | None:
        """A working order as it is known here, None when it is not working."""
        working = self._orders.get(client_order_id)
        return None if working is None else working.view

    def filled_quantity(self, client_order_id: str) -> float:
        """Filled quantity of a working order, 0 when it is not known."""
        working = self._orders.get(client_order_id)
        return working.filled if working is not None else float(self._early_fills.get(client_order_id, 0.0))

    # -- exposure ----------------------------------------------------------------------------------------------------

    def is_capped(self, order: OrderView) -> bool:
        """Whether an order can only take a position down to zero: the venue cuts reduce-only orders, and no others."""
        return order.reduce_only

    def is_reducing(self, order: OrderView, leaves: float | None = None) -> bool:
        """Whether an order only takes risk off.

        It does when its side is opposite to its position and its open quantity is at most the size of the position
        minus the working orders of that side for the same account and position. Those of one exclusive group count
        once, and those of its own group not at all.
        """
        book = self._books.get(order.instrument_id)
        if book is None:
            return False
        if leaves is None:
            leaves = order.quantity - self.filled_quantity(order.client_order_id)
        return book.reduces(order, leaves)

    def what_if_position(self, order: OrderView, leaves: float) -> float:
        """Largest quantity in the direction of an order (+ is further), it and its side's working orders filled.

        The net quantity, or what is open on that side alone when this is more: a position of the other side, held by
        another strategy or under another id, may be closed later and then no longer offsets anything.
        """
        book = self._books[order.instrument_id]
        capped = self.is_capped(order)
        low, high = book.extremes(order, leaves, capped)
        reached = high if order.side > 0 else -low
        for position in book.positions.values():
            if position.quantity * order.side < 0.0:
                return max(reached, book.opening(order, leaves, capped))
        return reached

    def widens(self, order: OrderView, leaves: float) -> bool:
        """Whether an order lets the net quantity get further in its direction than without it."""
        book = self._books[order.instrument_id]
        capped = self.is_capped(order)
        low, high = book.extremes(order, leaves, capped)
        lowest, highest = book.extremes(order, 0.0, capped)
        return (high - highest if order.side > 0 else lowest - low) > book.tolerance(leaves)

    def order_notional(self, order: OrderView, quantity: float) -> float:
        """Value of an order in base currency, NaN when a price or a rate is missing.

        The largest value over its price, its trigger price and the mid. Linear: |q| m P. Inverse: |q| m / P in coin.
        Binary: what can be lost, |q| m P for a buy and |q| m (1 - P) for a sell.
        """
        book = self._books[order.instrument_id]
        return book.notional(order, quantity, self._rates.get(book.currency, _NAN))

    # -- value at risk -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Apply every dirty column to the vector; the checks call it."""
        self._vector.refresh()

    def rebuild(self) -> None:
        """Recompute the vector from zero, O(held instruments x scenarios)."""
        self._vector.rebuild()

    def blocked(self) -> dict[str, tuple[str, str]]:
        """Instruments with exposure that cannot be valued: rule code and name, by instrument."""
        self._vector.refresh()
        return dict(self._vector.blocked)

    def gross_notional(self) -> float:
        """Sum of the absolute values of all filled positions in base currency, from scratch."""
        return self._vector.gross_notional()

    def scenario_pnl(self, case: Case = "filled") -> npt.NDArray[np.float64]:
        """Result per scenario in base currency, shape (S,), from the incremental state.

        Parameters
        ----------
        case : {"filled", "buys", "sells", "worst"}
            Which working orders to take as filled.

        Raises
        ------
        ConfigurationError, DataConversionError
            When there are no scenarios, or an exposed instrument cannot be valued.
        """
        return self._vector.pnl(case)

    def full_revaluation(self, case: Case = "filled") -> npt.NDArray[np.float64]:
        """As :meth:`scenario_pnl`, from positions, orders and prices alone, in NumPy: the oracle."""
        return self._vector.full_revaluation(case)

    def value_at_risk(self, case: Case = "filled") -> float:
        """Value at risk in base currency, positive for a loss; errors as :meth:`scenario_pnl`."""
        return self._vector.tail(case)[0]

    def expected_shortfall(self, case: Case = "filled") -> float:
        """Expected shortfall in base currency, positive for a loss; errors as :meth:`scenario_pnl`."""
        return self._vector.tail(case)[1]

    def var_blocked(self, order: OrderView) -> tuple[str, str] | None:
        """Why value at risk with this order cannot be known: rule code and instrument; None when it can."""
        vector = self._vector
        vector.refresh()
        if vector.blocked:
            return next(iter(vector.blocked.values()))
        reason, _ = vector.valuation(self._books[order.instrument_id])
        return (reason, order.instrument_id) if reason else None

    def var_exceeds(self, order: OrderView, leaves: float, limit: float) -> bool:
        """Whether value at risk in the worst case, with ``leaves`` units of this order, is above ``limit``.

        Exact and O(scenarios): counts the scenarios that lose more. :meth:`var_blocked` must have answered None.
        """
        return self._vector.exceeds(self._books[order.instrument_id], order, leaves, self.is_capped(order), limit)

    def what_if(self, order: OrderView, leaves: float | None = None) -> dict[str, tuple[float, float]]:
        """Value at risk and expected shortfall of each case with this order, in base currency.

        Raises
        ------
        ConfigurationError, DataConversionError
            When there are no scenarios, the instrument is unknown, or something cannot be valued.
        """
        self._vector.demand()
        if order.instrument_id not in self._books:
            raise DataConversionError(f"`instrument_id` must be known, was {order.instrument_id!r}")
        reason = self.var_blocked(order)
        if reason is not None:
            raise DataConversionError(f"{reason[1]} cannot be valued: {reason[0]}")
        if leaves is None:
            leaves = order.quantity - self.filled_quantity(order.client_order_id)
        return self._vector.what_if(self._books[order.instrument_id], order, leaves, self.is_capped(order))
