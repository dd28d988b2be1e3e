"""The result of the portfolio in every scenario, kept current event by event, and what an order would change in it.

*Incremental and exact.* A price, fill or order event marks its column dirty; the next reading applies old-to-new
differences, O(scenarios) per dirty column. An upper bound of the rounding error is carried along; the vector is rebuilt
from zero when it passes 1e-11 of gross notional, after every ``rebuild_interval`` column updates, and is exactly zero
when nothing is held. :meth:`ScenarioVector.full_revaluation` is the oracle, in plain NumPy.

The payoffs, and which working orders are taken as filled, are told in :mod:`tengri_fast.risk.portfolio`; how the vector
is stored, in :mod:`tengri_fast.risk.kernels`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Literal

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk._book import ALL, CLEAN, PRICE, Book
from tengri_fast.risk.measures import tail_rank, value_at_risk
from tengri_fast.risk.scenarios import ScenarioSet
from tengri_fast.risk.types import OrderView, VarSettings

__all__ = ["Case", "ScenarioVector"]

Case = Literal["filled", "buys", "sells", "worst"]
_CASES: tuple[Case, ...] = ("filled", "buys", "sells", "worst")
_CASE_TEXT = ("filled", "filled + this order", "filled + working buys", "filled + working sells", "worse side of each")
_DRIFT_LIMIT = 1e-11
_NAN = float("nan")


class ScenarioVector:
    """Scenario results of the instruments in ``books``.

    Parameters
    ----------
    books : dict of str to Book
        All instruments; shared with the owner, who marks those that change.
    rates : dict of str to float
        Value of a currency in base currency; shared likewise.
    settings : VarSettings or None
        None when no value at risk is wanted; numba is then never imported.
    counters : dict of str to int
        ``rebuilds`` is counted here.
    rebuild_interval : int
        Column updates between exact rebuilds.
    """

    def __init__(
        self,
        books: dict[str, Book],
        rates: dict[str, float],
        settings: VarSettings | None,
        counters: dict[str, int],
        rebuild_interval: int,
    ) -> None:
        self._books = books
        self._rates = rates
        self._settings = settings
        self._level = 0.99 if settings is None else settings.level
        self._counters = counters
        self._rebuild_interval = rebuild_interval
        self._kernels: ModuleType | None = None
        self._dirty: list[Book] = []
        self.scenarios: ScenarioSet | None = None
        #: Instruments with exposure that cannot be valued: rule code and name.
        self.blocked: dict[str, tuple[str, str]] = {}
        #: Scenarios in use, 0 when there are none.
        self.used = 0
        self._reset_vectors()

    # -- set-up ------------------------------------------------------------------------------------------------------

    def use(self, scenarios: ScenarioSet) -> None:
        """Take other scenarios, or change nothing and raise ConfigurationError when they do not fit."""
        settings = self._settings
        if settings is None:
            raise ConfigurationError("`var_settings` must be given with `scenarios`, was None")
        if scenarios.horizon_ns != settings.horizon_ns:
            raise ConfigurationError(
                f"`scenarios` must have the horizon of `var` ({settings.horizon_ns} ns), had "
                f"{scenarios.horizon_ns} ns: build "
                "overlapping returns of that horizon, they are not scaled by the square root of time"
            )
        if scenarios.count < settings.min_scenarios:
            raise ConfigurationError(
                f"`scenarios` must be >= {settings.min_scenarios} for a level of {settings.level}, "
                f"were {scenarios.count}"
            )
        for book in self._books.values():
            row = scenarios.row(book.facts.instrument_id)
            if book.payoff == 1 and row is not None and float(scenarios.returns[row].min()) <= -1.0:
                raise ConfigurationError(
                    f"`scenarios` must be > -1 for the inverse instrument {book.facts.instrument_id}, had -1"
                )
        self.scenarios = scenarios
        self.bind()

    def _reset_vectors(self) -> None:
        self.used = 0
        self._returns: npt.NDArray[np.float32] = np.zeros((1, 1), dtype=np.float32)
        self._pnl: npt.NDArray[np.float64] = np.zeros((4, 1))
        self._scratch: npt.NDArray[np.float64] = np.zeros(1)
        self._heap: npt.NDArray[np.float64] = np.zeros(1)
        self._rank, self._mass = 1, 1.0
        self._updates = 0
        self._sums: npt.NDArray[np.float64] = np.zeros(8)
        # How many instruments have a position, and how many have working orders.
        self._held = self._offsets = 0.0

    def bind(self) -> None:
        """Lay out matrix and vectors for the instruments and scenarios there are, everything to be recomputed."""
        self._reset_vectors()
        n = max(len(self._books), 1)
        self._rows: npt.NDArray[np.int64] = np.zeros(n, dtype=np.int64)
        self._payoffs: npt.NDArray[np.int64] = np.zeros(n, dtype=np.int64)
        self._columns: npt.NDArray[np.int64] = np.zeros(n, dtype=np.int64)
        self._applied: npt.NDArray[np.float64] = np.zeros((n, 6))
        self._target: npt.NDArray[np.float64] = np.zeros((n, 6))
        self._reach: npt.NDArray[np.float64] = np.ones(n)
        self._dirty.clear()
        self.blocked.clear()
        scenarios, settings = self.scenarios, self._settings
        if scenarios is not None and settings is not None:
            count = min(scenarios.count, settings.scenarios)
            # Own rows, contiguous and writeable: the kernels are compiled for exactly this layout.
            self._returns = np.array(scenarios.returns[:, -count:], dtype=np.float32, order="C")
            self.used = count
            self._rank, self._mass = tail_rank(count, self._level)
            self._pnl = np.zeros((4, count))
            self._scratch = np.zeros(count)
            self._heap = np.zeros(self._rank)
        for book in self._books.values():
            book.row = -1
            book.exposed = False
            book.dirty = CLEAN
            book.unit_price = _NAN
            self._payoffs[book.index] = book.payoff
            if scenarios is not None and settings is not None:
                row = scenarios.row(book.facts.instrument_id)
                if row is not None:
                    book.row = self._rows[book.index] = row
                    self._measure_units(book)
            self.mark(book)

    def _measure_units(self, book: Book) -> None:
        """Stand-alone value at risk of one unit, long and short, without the coefficient."""
        r = self._returns[book.row].astype(np.float64)
        if book.payoff == 2:
            return
        factor = r if book.payoff == 0 else r / (1.0 + r)
        self._reach[book.index] = float(np.abs(factor).max())
        book.unit_long = value_at_risk(factor, self._level)
        book.unit_short = value_at_risk(-factor, self._level)

    def warmup(self) -> None:
        """Compile or load the kernels and bring the vector up to date."""
        self._load().warmup()
        if self.used:
            self.rebuild()

    def _load(self) -> ModuleType:
        if self._kernels is None:
            from tengri_fast.risk import kernels

            self._kernels = kernels
        return self._kernels

    # -- events ------------------------------------------------------------------------------------------------------

    def mark(self, book: Book) -> None:
        """Anything about an instrument may have changed."""
        if not book.dirty:
            self._dirty.append(book)
        book.dirty = ALL

    def mark_price(self, book: Book) -> None:
        """The price of an instrument changed, and it was neither dirty nor without exposure."""
        book.dirty = book.priced
        self._dirty.append(book)

    # -- valuation ---------------------------------------------------------------------------------------------------

    def valuation(self, book: Book) -> tuple[str, float]:
        """Reason why an instrument cannot be valued (empty when it can), and its scale, multiplier x rate."""
        if book.row < 0:
            return "MISSING_SCENARIOS", _NAN
        if book.mid != book.mid:  # NaN: never priced
            return "UNPRICED_POSITION", _NAN
        rate = self._rates.get(book.currency)
        if rate is None:
            return "MISSING_RATE", _NAN
        return "", book.multiplier * rate

    @staticmethod
    def _coefficient(book: Book, scale: float) -> float:
        """What turns a price factor into base currency, per unit."""
        if book.payoff == 0:
            return scale * book.mid
        return scale / book.mid if book.payoff == 1 else scale

    def _worse(self, book: Book, low: float, high: float) -> float:
        """The end of [low, high] with the larger stand-alone value at risk."""
        if low == high:
            return low
        if book.payoff == 2 and book.unit_price != book.mid:
            r = self._returns[book.row].astype(np.float64)
            factor = np.clip(book.mid * (1.0 + r), 0.0, 1.0) - book.mid
            book.unit_long = value_at_risk(factor, self._level)
            book.unit_short = value_at_risk(-factor, self._level)
            book.unit_price = book.mid
        at_low = low * book.unit_long if low >= 0.0 else -low * book.unit_short
        at_high = high * book.unit_long if high >= 0.0 else -high * book.unit_short
        return high if at_high >= at_low else low

    def gross_notional(self) -> float:
        """Sum of the absolute values of all filled positions in base currency, from scratch."""
        total = 0.0
        for book in self._books.values():
            net = book.net
            if net:
                reason, scale = self.valuation(book)
                if reason:
                    raise DataConversionError(f"{book.facts.instrument_id} cannot be valued: {reason}")
                total += abs(net) * self._coefficient(book, scale) * (book.mid if book.payoff == 2 else 1.0)
        return total

    # -- keeping it current ------------------------------------------------------------------------------------------

    def _retarget(self, book: Book) -> None:
        """Recompute what one column should hold."""
        name = book.facts.instrument_id
        self.blocked.pop(name, None)
        book.low, book.high = book.extremes()
        net = book.worst = book.net
        book.exposed = bool(net or book.orders)
        book.priced = ALL
        if not book.exposed:
            self._target[book.index] = 0.0
            return
        reason, scale = self.valuation(book)
        if reason:
            self._target[book.index] = 0.0
            self.blocked[name] = (reason, name)
            return
        book.worst = self._worse(book, book.low, book.high)
        if book.payoff != 2 or book.low == book.high:
            book.priced = PRICE
        self._target[book.index] = (net, book.high - net, book.low - net, book.worst - net, scale, book.mid)

    def refresh(self) -> None:
        """Apply every dirty column to the vector."""
        dirty = self._dirty
        if not dirty or not self.used:
            return
        columns, target = self._columns, self._target
        count = 0
        for book in dirty:
            if book.dirty == PRICE:
                target[book.index, 5] = book.mid
            else:
                self._retarget(book)
            book.dirty = CLEAN
            columns[count] = book.index
            count += 1
        dirty.clear()
        self._apply(count)
        self._updates += count
        gross, _, drift, held, offset_gross, _, offset_drift, offsets = self._sums.tolist()
        # Exactly zero when nothing is held; what was zero and stayed so (sums included: no overflow) is not written.
        if not held and (self._held or gross or drift):
            self._pnl[0] = 0.0
            self._sums[:4] = 0.0
            gross = drift = 0.0
        if not offsets and (self._offsets or offset_gross or offset_drift):
            self._pnl[1:] = 0.0
            self._sums[4:] = 0.0
            offset_gross = offset_drift = 0.0
        self._held, self._offsets = held, offsets
        # Written so that a sum that overflowed to NaN also leads to a rebuild.
        if not (
            self._updates < self._rebuild_interval
            and drift <= _DRIFT_LIMIT * gross
            and offset_drift <= _DRIFT_LIMIT * offset_gross
        ):
            self.rebuild()

    def _apply(self, count: int) -> None:
        kernels = self._kernels or self._load()
        kernels.apply_columns(
            self._pnl,
            self._returns,
            self._rows,
            self._payoffs,
            self._reach,
            self._applied,
            self._target,
            self._sums,
            self._columns,
            count,
        )

    def rebuild(self) -> None:
        """Recompute the vector from zero, O(held instruments x scenarios)."""
        if not self.used:
            return
        self._dirty.clear()
        self._pnl[:] = 0.0
        self._applied[:] = 0.0
        self._sums[:] = 0.0
        self._updates = 0
        count = 0
        for book in self._books.values():
            book.dirty = CLEAN
            self._retarget(book)
            if book.exposed:
                self._columns[count] = book.index
                count += 1
        self._apply(count)
        # What follows is measured against this exact state.
        self._sums[[2, 6]] = 0.0
        self._held, self._offsets = float(self._sums[3]), float(self._sums[7])
        self._counters["rebuilds"] += 1

    # -- readings ----------------------------------------------------------------------------------------------------

    def demand(self) -> None:
        """Bring the vector up to date, or raise when it cannot be known."""
        self._demand_scenarios()
        self.refresh()
        if self.blocked:
            names = ", ".join(f"{name} ({reason})" for reason, name in self.blocked.values())
            raise DataConversionError(f"value at risk is unknown, these cannot be valued: {names}")

    def _demand_scenarios(self) -> None:
        if not self.used:
            raise ConfigurationError("`scenarios` must be set before value at risk is read, there are none")

    def pnl(self, case: Case) -> npt.NDArray[np.float64]:
        """Result per scenario, shape (S,), from the incremental state."""
        self.demand()
        k = _CASES.index(case)
        result: npt.NDArray[np.float64] = self._pnl[0].copy()
        if k:
            result += self._pnl[k]
        return result

    def full_revaluation(self, case: Case) -> npt.NDArray[np.float64]:
        """As :meth:`pnl`, from positions, orders and prices alone."""
        self._demand_scenarios()
        total = np.zeros(self.used)
        for book in self._books.values():
            low, high = book.extremes()
            net = book.net
            if not (net or book.orders):
                continue
            reason, _ = self.valuation(book)
            if reason:
                raise DataConversionError(f"{book.facts.instrument_id} cannot be valued: {reason}")
            quantity = {"filled": net, "buys": high, "sells": low}.get(case)
            if quantity is None:
                quantity = self._worse(book, low, high)
            r = self._returns[book.row].astype(np.float64)
            p, facts = book.mid, book.facts
            shocked = p * (1.0 + r)
            if facts.payoff == "linear":
                unit = p * r
            elif facts.payoff == "inverse":
                unit = 1.0 / p - 1.0 / shocked
            else:
                unit = np.clip(shocked, 0.0, 1.0) - p
            total += quantity * facts.multiplier * self._rates[facts.settlement_currency] * unit
        return total

    def tail(self, case: Case) -> tuple[float, float]:
        """Value at risk and expected shortfall of a case."""
        risk, shortfall = self._load().tail(self.pnl(case), self._mass, self._heap)
        return float(risk), float(shortfall)

    # -- what an order would change ----------------------------------------------------------------------------------

    def _changes(
        self, book: Book, order: OrderView, leaves: float, capped: bool
    ) -> tuple[float, float, float, float, float]:
        """Coefficient, and the quantities an order adds: alone, and to buys, sells and worse sides."""
        _, scale = self.valuation(book)
        low, high = book.extremes(order, leaves, capped)
        alone = book.closing(order, leaves) if capped else leaves
        worst = self._worse(book, low, high)
        return self._coefficient(book, scale), order.side * alone, high - book.high, low - book.low, worst - book.worst

    def exceeds(self, book: Book, order: OrderView, leaves: float, capped: bool, limit: float) -> bool:
        """Whether value at risk in the worst case, with ``leaves`` units of an order, is above ``limit``."""
        coefficient, alone, buys, sells, worst = self._changes(book, order, float(leaves), capped)
        kernels = self._kernels or self._load()
        found = kernels.exceedances(
            self._pnl,
            self._returns,
            book.row,
            book.payoff,
            coefficient,
            book.mid,
            alone,
            buys,
            sells,
            worst,
            5 if self._offsets else 2,  # without working orders the last three cases are the same as the first two
            float(limit),
            self._rank,
            self._scratch,
        )
        return bool(found >= self._rank)

    def what_if(self, book: Book, order: OrderView, leaves: float, capped: bool) -> dict[str, tuple[float, float]]:
        """Value at risk and expected shortfall of each case with ``leaves`` units of an order."""
        coefficient, alone, buys, sells, worst = self._changes(book, order, float(leaves), capped)
        kernels = self._load()
        answer: dict[str, tuple[float, float]] = {}
        for text, offset, units in zip(_CASE_TEXT, (0, 0, 1, 2, 3), (0.0, alone, buys, sells, worst), strict=True):
            kernels.case_pnl(
                self._pnl,
                self._returns,
                book.row,
                book.payoff,
                coefficient,
                book.mid,
                offset,
                units,
                self._scratch,
            )
            risk, shortfall = kernels.tail(self._scratch, self._mass, self._heap)
            answer[text] = (float(risk), float(shortfall))
        return answer
