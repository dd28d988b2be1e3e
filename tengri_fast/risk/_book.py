"""What is known about one instrument: its quote, its positions, and its working orders.

*Reach of working orders.* Which of them will fill is unknown, so :meth:`Book.extremes` gives the lowest and the highest
net quantity that can come about: every sell filled, every buy filled. A venue cuts a reduce-only order at the position,
so such an order, as a working order, can only take the position to zero; all of one scope and side share that room.
Orders of one exclusive group (the venue cancels the others when one fills) count once, with the largest open quantity.
Nothing else makes an order count less: an exit that names its entry can still fill when the entry does not, or again
after it was closed.

*Opening side.* One position can be closed at any time, and nothing asks a limit then. Long and short positions of one
instrument must therefore not make room for each other: :meth:`Book.opening` counts what is open on one side of the
market when all orders of that side have filled, each taking off its own position first.

*Scope.* The position that an order would close: that of its ``position_id``, or, without one, that of its strategy. An
account that is not known yet matches every account.

*Lots.* Sums of decimal quantities are off by rounding. A quantity that is a whole number of lots up to a millionth is
taken as that number of lots, so that a closed position is exactly zero.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tengri_fast.risk.types import InstrumentFacts, OrderView

__all__ = ["ALL", "CLEAN", "PRICE", "Book", "Position", "PositionView", "Quote", "Recent", "Working"]

#: What a book has to bring up to date in the scenario vector: nothing, its price, everything.
CLEAN, PRICE, ALL = 0, 1, 2

_PAYOFF_CODES = {"linear": 0, "inverse": 1, "binary": 2}
_MEMORY = 1 << 16
_NAN = float("nan")


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


class Recent(dict[Any, Any]):
    """A bounded memory: remembers the latest keys and forgets the oldest, so that long runs do not grow."""

    __slots__ = ("_size",)

    def __init__(self, size: int = _MEMORY) -> None:
        super().__init__()
        self._size = size

    def put(self, key: Any, value: Any = None) -> None:
        """Remember a key as the latest."""
        self.pop(key, None)
        self[key] = value
        if len(self) > self._size:
            del self[next(iter(self))]


class Position:
    """One position: a quantity that one account, position id and strategy hold."""

    __slots__ = ("account", "key", "last_price", "position_id", "quantity", "strategy")

    def __init__(self, key: tuple[str, str, str], strategy: str) -> None:
        self.key = key
        self.account, self.position_id, _ = key
        self.strategy = strategy
        self.quantity = 0.0
        self.last_price = _NAN


class Working:
    """One working order, with what of it has filled and what is still open."""

    __slots__ = ("book", "capped", "filled", "leaves", "view")

    def __init__(self, view: OrderView, book: Book, filled: float, capped: bool) -> None:
        self.view = view
        self.book = book
        self.capped = capped
        self.resize(filled)

    def resize(self, filled: float) -> None:
        """Take note of the filled quantity, or of a new whole quantity in ``view``."""
        self.filled = filled
        self.leaves = float(max(self.view.quantity - filled, 0.0))
        self.book.sides = None

    @property
    def done(self) -> bool:
        """Whether nothing is left to fill."""
        return self.leaves <= self.book.tolerance(self.view.quantity)


#: Account, strategy, group and side: orders that share them share one fill.
_Group = tuple[str, str, str, int]
#: Open quantity of the buys and of the sells that can open a position, what of it each exclusive group adds, and the
#: orders that can only close a position.
_Sides = tuple[float, float, dict[_Group, float], list[tuple[OrderView, float]]]


def _group(order: OrderView) -> _Group:
    return order.account_id, order.strategy_id, order.exclusive_group, order.side


def _closes(order: OrderView, position: Position) -> bool:
    """Whether a position is one that an order would close."""
    if order.account_id and position.account and order.account_id != position.account:
        return False
    if order.position_id:
        return position.position_id == order.position_id
    return position.strategy == order.strategy_id


class Book:
    """Everything known about one instrument.

    Parameters
    ----------
    facts : InstrumentFacts
        The instrument.
    index : int
        Its column in the scenario vector.
    """

    __slots__ = (
        "ask",
        "bid",
        "currency",
        "dirty",
        "exposed",
        "facts",
        "high",
        "index",
        "lot",
        "low",
        "mid",
        "multiplier",
        "net",
        "orders",
        "payoff",
        "positions",
        "priced",
        "quote",
        "row",
        "sides",
        "ts",
        "unit_long",
        "unit_price",
        "unit_short",
        "valid",
        "worst",
    )

    def __init__(self, facts: InstrumentFacts, index: int) -> None:
        self.facts = facts
        self.index = index
        self.payoff = _PAYOFF_CODES[facts.payoff]
        # Floats by type here and below, not only by value: an int would make numba compile another version of a kernel.
        self.multiplier = float(facts.multiplier)
        self.currency = facts.settlement_currency
        self.lot = facts.size_increment
        self.row = -1
        self.positions: dict[tuple[str, str, str], Position] = {}
        self.orders: dict[str, Working] = {}
        self.low = self.high = self.worst = 0.0
        self.exposed = False
        self.dirty = CLEAN
        # What a price move asks for: the price alone, or everything (a binary's worse side depends on its price).
        self.priced = ALL
        self.unit_long = self.unit_short = 0.0
        self.unit_price = _NAN
        self.clear()

    def clear(self) -> None:
        """Forget quote, positions and orders."""
        self.bid = self.ask = self.mid = _NAN
        self.ts = 0
        self.valid = False
        # The quote as the outside sees it, made when first asked for after a change.
        self.quote: Quote | None = None
        self.positions.clear()
        self.orders.clear()
        self.net = 0.0
        self.sides: _Sides | None = None

    # -- quantities --------------------------------------------------------------------------------------------------

    def snap(self, quantity: float) -> float:
        """Take a quantity that is a whole number of lots up to rounding as that number of lots."""
        lot = self.lot
        if lot > 0.0 and math.isfinite(quantity):
            lots = quantity / lot
            whole = round(lots)
            if abs(lots - whole) < 1e-6:
                return whole * lot
        return quantity

    def tolerance(self, quantity: float) -> float:
        """Difference of two quantities that is rounding and nothing else."""
        return 1e-6 * self.lot if self.lot > 0.0 else 1e-12 * abs(quantity)

    def notional(self, order: OrderView, quantity: float, rate: float) -> float:
        """Value of an order, see :meth:`PortfolioState.order_notional`; NaN when there is no price or rate."""
        scale = abs(quantity) * self.multiplier * rate
        most = _NAN
        for price in (self.mid, order.price, order.trigger_price):
            if price != price:  # NaN: the order has none
                continue
            if self.payoff == 0:
                value = scale * price
            elif self.payoff == 1:
                value = scale / price
            else:
                value = scale * (1.0 - price) if order.side < 0 else scale * price
            if most != most or value > most:  # the first value replaces NaN
                most = value
        return most

    # -- positions ---------------------------------------------------------------------------------------------------

    def position(self, position_id: str, account_id: str, strategy_id: str) -> Position:
        """The position of these names, made when there is none."""
        # Without a position id a venue nets, but each strategy must still be able to close what it opened.
        key = (account_id, position_id, "" if position_id else strategy_id)
        position = self.positions.get(key)
        if position is None:
            position = self.positions[key] = Position(key, strategy_id)
        return position

    def moved(self, position: Position) -> None:
        """A position changed: forget it when it is flat, and sum anew."""
        if position.quantity == 0.0:
            self.positions.pop(position.key, None)
        self.net = float(self.snap(sum(item.quantity for item in self.positions.values())))

    def scope(self, order: OrderView) -> float:
        """Quantity of the position that an order would close."""
        total = 0.0
        parts = 0
        for position in self.positions.values():
            if _closes(order, position):
                total += position.quantity
                parts += 1
        # One position is a whole number of lots already; only a sum can be off.
        return total if parts < 2 else self.snap(total)

    def _same_scope(self, a: OrderView, b: OrderView) -> bool:
        """Whether two orders would close the same position."""
        if a.account_id and b.account_id and a.account_id != b.account_id:
            return False
        if bool(a.position_id) == bool(b.position_id):
            return a.position_id == b.position_id and (bool(a.position_id) or a.strategy_id == b.strategy_id)
        named, other = (a, b) if a.position_id else (b, a)
        return any(
            position.position_id == named.position_id
            and position.strategy == other.strategy_id
            and (not position.account or position.account == (a.account_id or b.account_id or position.account))
            for position in self.positions.values()
        )

    # -- working orders ----------------------------------------------------------------------------------------------

    def add(self, working: Working) -> None:
        """Count an order as working, in place of one of the same name."""
        self.orders[working.view.client_order_id] = working
        self.sides = None

    def drop(self, client_order_id: str) -> None:
        """No longer count an order as working."""
        self.orders.pop(client_order_id, None)
        self.sides = None

    def reduces(self, order: OrderView, leaves: float) -> bool:
        """Whether ``leaves`` units of an order only take risk off, see :meth:`PortfolioState.is_reducing`."""
        if not self.positions:
            return False
        side = order.side
        position = self.scope(order)
        if position * side >= 0.0:
            return False
        capacity = abs(position)
        groups: dict[_Group, float] = {}
        for name, working in self.orders.items():
            view = working.view
            if view.side == side and name != order.client_order_id and self._same_scope(order, view):
                if view.exclusive_group:
                    key = _group(view)
                    groups[key] = max(groups.get(key, 0.0), working.leaves)
                else:
                    capacity -= working.leaves
        if groups:
            # Those that are cancelled when this one fills take no room from it.
            if order.exclusive_group:
                groups.pop(_group(order), None)
            capacity -= sum(groups.values())
        return 0.0 < leaves <= capacity + self.tolerance(position)

    def closing(self, order: OrderView, leaves: float) -> float:
        """What a reduce-only order can fill before its position is flat, units."""
        return min(leaves, max(-order.side * self.scope(order), 0.0))

    def _open(self, skip: str) -> _Sides:
        """Open quantities of the working orders, that of the name ``skip`` left out."""
        wanted = skip in self.orders
        if self.sides is not None and not wanted:
            return self.sides
        buys = sells = 0.0
        groups: dict[_Group, float] = {}
        capped: list[tuple[OrderView, float]] = []
        for name, working in self.orders.items():
            if name == skip:
                continue
            view = working.view
            if working.capped:
                capped.append((view, working.leaves))
            elif view.exclusive_group:
                key = _group(view)
                groups[key] = max(groups.get(key, 0.0), working.leaves)
            elif view.side > 0:
                buys += working.leaves
            else:
                sells += working.leaves
        for key, quantity in groups.items():
            if key[3] > 0:
                buys += quantity
            else:
                sells += quantity
        sides = (buys, sells, groups, capped)
        if not wanted:
            self.sides = sides
        return sides

    def extremes(
        self, order: OrderView | None = None, leaves: float = 0.0, capped: bool = False
    ) -> tuple[float, float]:
        """Lowest and highest net quantity, every working order of that side filled.

        Parameters
        ----------
        order : OrderView, optional
            One more working order, in place of one of the same name.
        leaves : float
            Its open quantity, units.
        capped : bool
            Whether it can only take a position down to zero.

        Returns
        -------
        low, high : float
            Units.
        """
        net = self.net
        if order is None:
            if not self.orders:
                return net, net
            buys, sells, _, closers = self._open("")
        else:
            buys, sells, groups, closers = self._open(order.client_order_id)
            if not capped and order.exclusive_group:
                # Of its group only what is larger than the largest adds to the reach.
                leaves = max(leaves - groups.get(_group(order), 0.0), 0.0)
            if capped:
                closers = [*closers, (order, leaves)]
            elif order.side > 0:
                buys += leaves
            else:
                sells += leaves
        if closers:
            room: dict[tuple[str, str, str, int], list[float]] = {}
            for view, quantity in closers:
                strategy = "" if view.position_id else view.strategy_id
                key = (view.account_id, view.position_id, strategy, view.side)
                entry = room.get(key)
                if entry is None:
                    entry = room[key] = [max(-view.side * self.scope(view), 0.0), 0.0]
                entry[1] += quantity
            for key, (size, total) in room.items():
                if key[3] > 0:
                    buys += min(size, total)
                else:
                    sells += min(size, total)
        return net - sells, net + buys

    def opening(self, order: OrderView, leaves: float, capped: bool) -> float:
        """Quantity open on the side of an order, positions of the other side left out, all orders of its side filled.

        Needed where there are such positions: without them the net quantity of :meth:`extremes` is the same.

        An order takes off its own position before it opens anything; reduce-only orders come first, so that the others
        find less to take off. An exclusive group counts once for each position that its orders name.

        Parameters
        ----------
        order : OrderView
            One more working order, in place of one of the same name.
        leaves : float
            Its open quantity, units.
        capped : bool
            Whether it can only take a position down to zero.

        Returns
        -------
        float
            Units, >= 0.
        """
        side = order.side
        total = 0.0
        room: dict[tuple[str, str, str], float] = {}
        for key, position in sorted(self.positions.items()):
            if position.quantity * side > 0.0:
                total += abs(position.quantity)
            else:
                room[key] = abs(position.quantity)
        entries: list[tuple[OrderView, float, bool]] = []
        plain: list[tuple[OrderView, float, bool]] = []
        for name, working in self.orders.items():
            if working.view.side == side and name != order.client_order_id:
                (entries if working.capped else plain).append((working.view, working.leaves, working.capped))
        (entries if capped else plain).append((order, leaves, capped))
        entries += plain
        groups: dict[tuple[_Group, str], float] = {}
        for view, quantity, cut in entries:
            left = quantity
            if not cut and view.exclusive_group:
                member = (_group(view), view.position_id)
                largest = groups.get(member, 0.0)
                left = max(quantity - largest, 0.0)
                groups[member] = largest + left
            for key, size in room.items():
                if size > 0.0 and left > 0.0 and _closes(view, self.positions[key]):
                    taken = min(size, left)
                    room[key] = size - taken
                    left -= taken
            if not cut:
                total += left
        return float(self.snap(total))
