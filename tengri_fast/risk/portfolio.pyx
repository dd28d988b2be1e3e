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

*Scope.* The position that an order would close: that of its ``position_id``, or, without one, that of its strategy. An
account that is not known yet matches every account.

*Reduce-only.* A venue cuts a reduce-only order at the position, so as working order it can only take the position to
zero; all of one scope and side share that room. Nothing but that flag does it: an exit that names its entry in
``parent_id`` counts like any other order, because it can fill when the entry has not, or when the entry was closed in
another way.

*Exclusive groups.* Orders with the same ``exclusive_group`` (the venue cancels the others when one fills) count once,
with the largest open quantity; :class:`~tengri_fast.risk.types.OrderView` says who may share one.

*Opening side.* One position can be closed at any time, and nothing asks a limit then. Long and short positions of one
instrument must therefore not make room for each other: what is open on one side of the market counts by itself, when
all orders of that side have filled, each taking off its own position first.

*Lots.* Sums of decimal quantities are off by rounding. A quantity that is a whole number of lots up to a millionth is
taken as that number of lots, so that a closed position is exactly zero.

*Tails.* Empirical (:mod:`tengri_fast.risk.measures`), normal, or Cornish-Fisher, read off the same scenario results.
With ``weights`` w the loss of rank j (counted from the worst) is value at risk when j is the largest number with
w_1 + ... + w_(j-1) <= 1 - level, and expected shortfall takes of it what is left of 1 - level; equal weights give the
unweighted definition. The parametric ones use the (weighted) moments of the results, with the unbiased variance
sum w (x - mean)^2 / (1 - sum w^2): for linear instruments this is the sample covariance of the scenarios, without a
matrix. Expected shortfall of Cornish-Fisher is that of Maillard (2012), "A user's guide to the Cornish Fisher
expansion", eq. 20, and never below value at risk. The expansion holds for moderate skewness and kurtosis only: where it
does not increase (section 3 there), as with rare large losses, value at risk and expected shortfall are the larger of
what it says and the empirical ones.

*Where it is kept.* In C, csrc/risk: a fill, quote or order event costs O(1), or O(orders and positions of that
instrument) where orders are capped or share a group; a check costs O(scenarios) for the case that the order changes.

*Threads.* One thread, the one that delivers the events.
"""

import math

import msgspec
import numpy as np

from libc.math cimport INFINITY, NAN, fabs, isnan
from libc.stdint cimport int64_t, uint32_t

from tengri_fast.risk.capi cimport (
    TF_CASE_BUYS,
    TF_CASE_FILLED,
    TF_CASE_WORST,
    TF_ERR_MEMORY,
    TF_OK,
    TF_RISK_NONE,
    TF_TAIL_CORNISH_FISHER,
    TF_TAIL_EMPIRICAL,
    TF_TAIL_NORMAL,
    TF_VALUED,
    tf_instrument,
    tf_risk_blocked,
    tf_risk_case,
    tf_risk_equity,
    tf_risk_net,
    tf_risk_order,
    tf_risk_pnl,
    tf_risk_rate,
    tf_risk_reach,
    tf_risk_rebuild,
    tf_risk_scenarios,
    tf_risk_set_scenarios,
    tf_risk_set_stress,
    tf_risk_set_tail,
    tf_risk_stress,
    tf_risk_stress_pnl,
    tf_risk_stress_scenarios,
    tf_risk_tail,
    tf_risk_what_if,
    tf_state_instrument,
    tf_state_instruments,
    tf_state_rate,
    tf_state_unit,
    tf_state_worse,
    tf_vector_cases,
    tf_vector_refresh,
)
from tengri_fast.risk.ledger cimport Ledger

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.types import OrderView
from tengri_fast.risk.views import CASES, Case, PositionView, Quote, Snapshot, SnapshotOrder, SnapshotQuote

__all__ = ["Case", "PortfolioState", "PositionView", "Quote"]

cdef dict TAIL_CODES = {"empirical": TF_TAIL_EMPIRICAL, "normal": TF_TAIL_NORMAL,
                        "cornish_fisher": TF_TAIL_CORNISH_FISHER}
cdef list REASONS = ["", "MISSING_SCENARIOS", "UNPRICED_POSITION", "MISSING_RATE"]
cdef tuple WHAT_TEXTS = ("filled", "filled + this order", "filled + working buys", "filled + working sells",
                         "worse side of each")


cdef double number(object value):
    """None and NaN are a number that is not known."""
    return NAN if value is None else value


cdef object known(double value):
    """The number, None when it is not known."""
    return None if isnan(value) else value


cdef class PortfolioState(Ledger):
    """Positions, working orders, prices, rates and the scenario P&L vector.

    Parameters
    ----------
    facts : iterable of InstrumentFacts
        The instruments that may be traded.
    scenarios : ScenarioSet, optional
        None when they are not ready yet; see :meth:`set_scenarios`.
    var_settings : VarSettings, optional
        None when no value at risk is wanted.
    base_currency : str, optional
        Needed only when there are no ``var_settings`` and instruments settle in different currencies.
    rebuild_interval : int
        Column updates between exact rebuilds.

    Raises
    ------
    ConfigurationError
        When an instrument is there twice, the base currency is open, or scenarios do not fit the settings.
    """

    def __init__(self, facts, scenarios=None, var_settings=None, *, base_currency=None, rebuild_interval=4096):
        if rebuild_interval < 1:
            raise ConfigurationError(f"`rebuild_interval` must be >= 1, was {rebuild_interval}")
        if var_settings is not None:
            if base_currency is not None and base_currency != var_settings.base_currency:
                raise ConfigurationError(
                    f"`base_currency` must be that of `var` ({var_settings.base_currency}), was {base_currency!r}"
                )
            base_currency = var_settings.base_currency
        Ledger.__init__(self, facts, base_currency)
        self._settings = var_settings
        self._stress_names = ()
        self._rebuild_interval = rebuild_interval
        if var_settings is not None:
            tf_risk_set_tail(self.core, TAIL_CODES[var_settings.tail], var_settings.level)
        if scenarios is not None:
            self.set_scenarios(scenarios)

    # -- set-up ------------------------------------------------------------------------------------------------------

    def set_scenarios(self, scenarios, weights=None):
        """Use these scenarios from now on; costs an exact rebuild.

        Parameters
        ----------
        scenarios : ScenarioSet
            Of the horizon of the settings.
        weights : array_like, shape (S,), optional
            Of each scenario, finite and > 0 (age-weighted simulation); they need not add up to one.

        Raises
        ------
        ConfigurationError
            When no settings were given, horizons differ, there are too few scenarios for the level, a weight breaks
            its rule, or a scenario takes the price of an inverse instrument to zero. Nothing is changed then.
        """
        cdef float[:, ::1] returns
        cdef int64_t[::1] rows
        cdef double[::1] weighted
        cdef Py_ssize_t first
        cdef double *weight_at = NULL
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
        where = {name: row for row, name in enumerate(scenarios.instrument_ids)}
        for fact in self._facts:
            row = where.get(fact.instrument_id)
            if fact.payoff == "inverse" and row is not None and float(scenarios.returns[row].min()) <= -1.0:
                raise ConfigurationError(
                    f"`scenarios` must be > -1 for the inverse instrument {fact.instrument_id}, had -1"
                )
        count = min(scenarios.count, settings.scenarios)
        if weights is not None:
            given = np.array(weights, dtype=np.float64)
            if given.shape != (scenarios.count,) or not (np.isfinite(given).all() and (given > 0.0).all()):
                raise ConfigurationError(
                    f"`weights` must be finite and > 0, one for each of the {scenarios.count} scenarios"
                )
            weighted = np.ascontiguousarray(given[-count:])
            weight_at = &weighted[0]
        returns = np.array(scenarios.returns, dtype=np.float32, order="C")
        rows = np.array([where.get(name, -1) for name in self._ids] or [-1], dtype=np.int64)
        first = returns.shape[1] - count
        status = tf_risk_set_scenarios(
            self.core, &returns[0, first], returns.shape[0], count, returns.shape[1], &rows[0], weight_at,
            self._rebuild_interval,
        )
        if status == TF_ERR_MEMORY:
            raise MemoryError("no memory for the scenarios")
        if status != TF_OK:
            raise ConfigurationError("`scenarios` must be finite and >= -1, and enough for the level and the weights")
        self._scenarios = scenarios
        self._rows = where

    def set_stress(self, names, instrument_ids, returns):
        """Use these stress scenarios from now on.

        Parameters
        ----------
        names : sequence of str, length K
            What each scenario is called; K = 0 takes them away.
        instrument_ids : sequence of str, length N
            Distinct names. An instrument that is not among them and has exposure cannot be stressed: the limit on
            stress losses then denies.
        returns : array_like, shape (N, K)
            Relative price moves, finite and >= -1 (an inverse instrument: > -1); kept as float32.

        Raises
        ------
        DataConversionError
            When a shape or a value breaks its rule. Nothing is changed then.
        """
        cdef float[:, ::1] moves
        cdef int64_t[::1] rows
        scenarios, ids = tuple(names), tuple(instrument_ids)
        if len(set(ids)) != len(ids):
            raise DataConversionError("`instrument_ids` must be distinct, a name is there twice")
        with np.errstate(over="ignore"):
            table = np.array(returns, dtype=np.float32, order="C")
        if table.shape != (len(ids), len(scenarios)):
            raise DataConversionError(f"`returns` must have shape ({len(ids)}, {len(scenarios)}), had {table.shape}")
        inverse = {fact.instrument_id for fact in self._facts if fact.payoff == "inverse"}
        bad = ~np.isfinite(table) | (table < -1.0)
        bad |= np.array([name in inverse for name in ids], dtype=bool)[:, None] & (table <= -1.0)
        if bad.any():
            i, k = (int(x) for x in np.argwhere(bad)[0])
            rule = "finite and > -1" if ids[i] in inverse else "finite and >= -1"
            raise DataConversionError(f"`returns` must be {rule}, was {table[i, k]} for {ids[i]} in {scenarios[k]!r}")
        where = {name: row for row, name in enumerate(ids)} if scenarios else {}
        rows = np.array([where.get(name, -1) for name in self._ids] or [-1], dtype=np.int64)
        if table.size:
            moves = table
            status = tf_risk_set_stress(
                self.core, &moves[0, 0], moves.shape[0], moves.shape[1], moves.shape[1], &rows[0]
            )
        else:
            status = tf_risk_set_stress(self.core, NULL, 0, 0, 0, &rows[0])
        if status != TF_OK:
            raise MemoryError("no memory for the stress scenarios")
        self._stress_names = scenarios
        self._stress_rows = where

    def warmup(self):
        """Bring the vector up to date, so that no order waits for it; does nothing without ``var_settings``."""
        if self._settings is not None:
            tf_risk_rebuild(self.core)

    @property
    def var_settings(self):
        """How value at risk is measured, None when it is not."""
        return self._settings

    @property
    def scenarios(self):
        """The scenario set in use."""
        return self._scenarios

    @property
    def scenarios_ready(self):
        """Whether value at risk can be computed."""
        return tf_risk_scenarios(self.core) > 0

    @property
    def stress_scenarios(self):
        """Names of the stress scenarios in use."""
        return self._stress_names

    cdef str stress_name(self, uint32_t scenario):
        return self._stress_names[scenario] if scenario < len(self._stress_names) else ""

    # -- value at risk -----------------------------------------------------------------------------------------------

    def refresh(self):
        """Apply every dirty column to the vector; the checks call it."""
        tf_vector_refresh(self.core)

    def rebuild(self):
        """Recompute the vector from zero, O(held instruments x scenarios)."""
        tf_risk_rebuild(self.core)

    def blocked(self):
        """Instruments with exposure that cannot be valued: rule code and name, by instrument."""
        cdef uint32_t i
        cdef tf_instrument *of
        tf_vector_refresh(self.core)
        found = {}
        for i in range(tf_state_instruments(self.core)):
            of = tf_state_instrument(self.core, i)
            if of.blocked[0]:
                found[self._ids[i]] = (REASONS[of.blocked[0]], self._ids[i])
        return found

    def gross_notional(self):
        """Sum of the absolute values of all filled positions in base currency, from scratch."""
        cdef uint32_t i
        cdef tf_instrument *of
        cdef double total = 0.0, unit
        for i in range(tf_state_instruments(self.core)):
            of = tf_state_instrument(self.core, i)
            if of.net != 0.0:
                unit = tf_state_unit(self.core, i, 1)
                if isnan(unit):
                    reason = "UNPRICED_POSITION" if isnan(of.mid) else "MISSING_RATE"
                    raise DataConversionError(f"{self._ids[i]} cannot be valued: {reason}")
                total += fabs(of.net) * unit
        return total

    cdef int _demand_scenarios(self) except -1:
        if not tf_risk_scenarios(self.core):
            raise ConfigurationError("`scenarios` must be set before value at risk is read, there are none")
        return 0

    cdef int _demand(self) except -1:
        cdef uint32_t culprit
        self._demand_scenarios()
        if tf_risk_blocked(self.core, TF_RISK_NONE, False, &culprit) != TF_VALUED:
            names = ", ".join(f"{name} ({reason})" for reason, name in self.blocked().values())
            raise DataConversionError(f"value at risk is unknown, these cannot be valued: {names}")
        return 0

    def scenario_pnl(self, case="filled"):
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
        cdef double[::1] out
        self._demand()
        result = np.empty(tf_risk_scenarios(self.core))
        out = result
        tf_risk_pnl(self.core, CASES.index(case), &out[0])
        return result

    def stress_pnl(self, case="filled"):
        """Result per stress scenario in base currency, shape (K,); arguments and errors as :meth:`scenario_pnl`."""
        cdef double[::1] out
        cdef uint32_t culprit = 0
        cdef int reason
        if not tf_risk_stress_scenarios(self.core):
            raise ConfigurationError("`stress` must be set before stress losses are read, there are none")
        reason = tf_risk_blocked(self.core, TF_RISK_NONE, True, &culprit)
        if reason != TF_VALUED:
            raise DataConversionError(f"{self._ids[culprit]} cannot be stressed: {REASONS[reason]}")
        result = np.empty(tf_risk_stress_scenarios(self.core))
        out = result
        tf_risk_stress_pnl(self.core, CASES.index(case), &out[0])
        return result

    def full_revaluation(self, case="filled"):
        """As :meth:`scenario_pnl`, from positions, orders and prices alone, in NumPy: the oracle."""
        cdef uint32_t i
        cdef tf_instrument *of
        self._demand_scenarios()
        which = CASES.index(case)
        used = tf_risk_scenarios(self.core)
        total = np.zeros(used)
        for i in range(tf_state_instruments(self.core)):
            of = tf_state_instrument(self.core, i)
            if not of.exposed:
                continue
            name, facts = self._ids[i], self._facts[i]
            row, rate = self._scenarios.row(name), tf_state_rate(self.core, of.facts.currency)
            if row is None or isnan(of.mid) or isnan(rate):
                reason = "UNPRICED_POSITION" if isnan(of.mid) else "MISSING_RATE"
                reason = "MISSING_SCENARIOS" if row is None else reason
                raise DataConversionError(f"{name} cannot be valued: {reason}")
            r = self._scenarios.returns[row, -used:].astype(np.float64)
            p = of.mid
            shocked = p * (1.0 + r)
            if facts.payoff == "linear":
                unit = p * r
            elif facts.payoff == "inverse":
                unit = 1.0 / p - 1.0 / shocked
            else:
                unit = np.clip(shocked, 0.0, 1.0) - p
            total += self._case_quantity(i, which) * facts.multiplier * rate * unit
        return total

    cdef double _case_quantity(self, uint32_t i, int which):
        """Quantity of an instrument in a case, from its positions and orders."""
        cdef double low, high
        tf_risk_reach(self.core, i, NULL, 0.0, &low, &high)
        if which == TF_CASE_FILLED:
            return tf_risk_net(self.core, i)
        if which == TF_CASE_WORST:
            return tf_state_worse(self.core, i)
        return high if which == TF_CASE_BUYS else low

    def value_at_risk(self, case="filled"):
        """Value at risk in base currency, positive for a loss; errors as :meth:`scenario_pnl`."""
        self._demand()
        return tf_risk_case(self.core, CASES.index(case)).var

    def expected_shortfall(self, case="filled"):
        """Expected shortfall in base currency, positive for a loss; errors as :meth:`scenario_pnl`."""
        self._demand()
        return tf_risk_case(self.core, CASES.index(case)).es

    def var_blocked(self, order):
        """Why value at risk with this order cannot be known: rule code and instrument; None when it can."""
        cdef uint32_t culprit = 0
        cdef uint32_t i = self._demand_instrument(order.instrument_id)
        cdef int reason = tf_risk_blocked(self.core, i, False, &culprit)
        return None if reason == TF_VALUED else (REASONS[reason], self._ids[culprit])

    def var_exceeds(self, order, double leaves, double limit):
        """Whether value at risk in the worst case, with ``leaves`` units of this order, is above ``limit``.

        Exact and O(scenarios). :meth:`var_blocked` must have answered None.
        """
        cdef tf_risk_order view
        cdef tf_risk_tail tails[5]
        cdef unsigned i, cases
        self._demand_scenarios()
        self._demand_instrument(order.instrument_id)
        self.read_order(order, &view)
        cases = tf_risk_what_if(self.core, &view, leaves, tails)
        for i in range(cases):
            if not tails[i].var <= limit:
                return True
        return False

    def what_if(self, order, leaves=None):
        """Value at risk and expected shortfall of each case with this order, in base currency.

        Raises
        ------
        ConfigurationError, DataConversionError
            When there are no scenarios, the instrument is unknown, or something cannot be valued.
        """
        cdef tf_risk_order view
        cdef tf_risk_tail tails[5]
        self._demand()
        if self.instrument(order.instrument_id) < 0:
            raise DataConversionError(f"`instrument_id` must be known, was {order.instrument_id!r}")
        reason = self.var_blocked(order)
        if reason is not None:
            raise DataConversionError(f"{reason[1]} cannot be valued: {reason[0]}")
        if leaves is None:
            leaves = order.quantity - self.filled(order.client_order_id)
        self.read_order(order, &view)
        tf_vector_cases(self.core, &view, leaves, True, tails)
        return {text: (tails[i].var, tails[i].es) for i, text in enumerate(WHAT_TEXTS)}

    def stress_loss(self, order=None, leaves=None):
        """Largest loss over the stress scenarios and the cases of :meth:`what_if`, with ``leaves`` units of an order.

        Returns
        -------
        loss : float
            Base currency, positive for a loss.
        scenario : str
            The scenario it is in.

        Raises
        ------
        ConfigurationError, DataConversionError
            When there are no stress scenarios, the instrument is unknown, or something cannot be valued.
        """
        cdef tf_risk_order view
        cdef tf_risk_order *given = NULL
        cdef uint32_t culprit = TF_RISK_NONE, scenario = 0
        cdef double open = 0.0
        cdef int reason
        if not tf_risk_stress_scenarios(self.core):
            raise ConfigurationError("`stress` must be set before stress losses are read, there are none")
        if order is not None:
            if self.instrument(order.instrument_id) < 0:
                raise DataConversionError(f"`instrument_id` must be known, was {order.instrument_id!r}")
            self.read_order(order, &view)
            given = &view
            culprit = view.instrument
            open = order.quantity - self.filled(order.client_order_id) if leaves is None else leaves
        reason = tf_risk_blocked(self.core, culprit, True, &culprit)
        if reason != TF_VALUED:
            raise DataConversionError(f"{self._ids[culprit]} cannot be stressed: {REASONS[reason]}")
        loss = tf_risk_stress(self.core, given, open, &scenario)
        return loss, self._stress_names[scenario]

    # -- as plain data -----------------------------------------------------------------------------------------------

    def holdings(self, case="filled"):
        """The positions as arrays, for analyses outside of the order path.

        Parameters
        ----------
        case : {"filled", "buys", "sells", "worst"}
            Which working orders to take as filled.

        Returns
        -------
        Holdings
            Instruments whose quantity is not zero, spreads from the last valid quote.

        Raises
        ------
        DataConversionError
            When one of them has no price or no rate.
        """
        cdef uint32_t i
        cdef tf_instrument *of
        which = CASES.index(case)
        rows = []
        for i in range(tf_state_instruments(self.core)):
            of = tf_state_instrument(self.core, i)
            quantity = self._case_quantity(i, which)
            if quantity == 0.0:
                continue
            rate = tf_state_rate(self.core, of.facts.currency)
            if isnan(of.mid) or isnan(rate):
                reason = "UNPRICED_POSITION" if isnan(of.mid) else "MISSING_RATE"
                raise DataConversionError(f"{self._ids[i]} cannot be valued: {reason}")
            spread = (of.ask - of.bid) / of.mid if of.valid else NAN
            rows.append((i, quantity, of.mid, of.facts.multiplier, rate, spread))
        facts = [self._facts[row[0]] for row in rows]
        return Holdings(
            instrument_ids=tuple(fact.instrument_id for fact in facts),
            quantities=np.array([row[1] for row in rows]),
            prices=np.array([row[2] for row in rows]),
            multipliers=np.array([row[3] for row in rows]),
            rates=np.array([row[4] for row in rows]),
            payoffs=tuple(fact.payoff for fact in facts),
            spreads=np.array([row[5] for row in rows]),
            asset_classes=tuple(fact.asset_class for fact in facts),
            venues=tuple(fact.venue_name for fact in facts),
            currencies=tuple(fact.settlement_currency for fact in facts),
            base_currency=self._base,
            equity=tf_risk_equity(self.core),
        )

    def snapshot(self):
        """Instruments, positions, working orders, prices, rates and equity as plain data for JSON or MessagePack.

        Scenarios and settings are no part of it; the memory of closed orders and of fills is not either.
        """
        cdef uint32_t i
        cdef tf_instrument *of
        quotes, last_prices = {}, {}
        for i in range(tf_state_instruments(self.core)):
            of = tf_state_instrument(self.core, i)
            if not isnan(of.mid):
                quotes[self._ids[i]] = SnapshotQuote(of.bid, of.ask, of.ts, bool(of.valid))
            if not isnan(of.last):
                last_prices[self._ids[i]] = of.last
        rates = {text: tf_risk_rate(self.core, <uint32_t>code) for text, code in self._currencies.items()}
        orders = []
        for name, handle in self._orders.items():
            view = self.make_view(handle)
            fields = {field: getattr(view, field) for field in OrderView.__struct_fields__}
            fields["price"], fields["trigger_price"] = known(view.price), known(view.trigger_price)
            orders.append(SnapshotOrder(**fields, filled=self.filled(name)))
        return msgspec.to_builtins(Snapshot(
            format=1,
            base_currency=self._base,
            equity=known(tf_risk_equity(self.core)),
            instruments=self._facts,
            rates={text: rate for text, rate in rates.items() if not isnan(rate)},
            quotes=quotes,
            last_prices=last_prices,
            positions=[[*position[:5], known(position.last_price)] for position in self.positions()],
            orders=orders,
        ))

    def restore(self, data):
        """Take what :meth:`snapshot` gave in place of positions, orders, prices, rates and equity.

        Raises
        ------
        DataConversionError
            When the data is damaged, of another base currency, or names an instrument that is not known here. Nothing
            is changed then.
        """
        try:
            given = msgspec.convert(data, Snapshot)
        except (msgspec.ValidationError, ConfigurationError) as error:
            raise DataConversionError(f"`data` must be a snapshot of a portfolio: {error}") from error
        if given.base_currency != self._base:
            raise DataConversionError(f"`base_currency` must be {self._base}, was {given.base_currency!r}")
        orders = [(order.view(), order.filled) for order in given.orders]
        names = {*given.quotes, *given.last_prices, *(row[0] for row in given.positions)}
        names |= {view.instrument_id for view, _ in orders}
        unknown = sorted(name for name in names if name not in self._instruments)
        if unknown:
            raise DataConversionError(f"`data` must name known instruments, named {', '.join(unknown[:5])}")
        if len({view.client_order_id for view, _ in orders}) != len(orders):
            raise DataConversionError("`data` must name each order once, a client order id is there twice")
        for view, filled in orders:
            if view.side not in (1, -1) or not 0.0 <= filled < view.quantity < INFINITY:
                raise DataConversionError(f"`data` must hold open orders, {view.client_order_id!r} is none")
        for row in given.positions:
            if not math.isfinite(row[4]):
                raise DataConversionError(f"`data` must hold finite positions, was {row[4]} in {row[0]}")
        self.reset()
        for currency, rate in given.rates.items():
            self.on_rate(currency, rate)
        for name, quote in given.quotes.items():
            self.on_price(name, quote.bid, quote.ask, quote.ts)
            if not quote.valid:
                self.on_price(name, NAN, NAN, quote.ts)
        for name, price in given.last_prices.items():
            self.on_last(name, price)
        for name, account, position_id, strategy, quantity, price in given.positions:
            self.set_position(name, quantity, position_id, account, strategy, number(price))
        for view, filled in orders:
            if filled:
                self._early_fills.put(view.client_order_id, filled)
            self.on_working(view)
        self.on_equity(number(given.equity))

    @classmethod
    def from_snapshot(cls, data, scenarios=None, var_settings=None):
        """A portfolio with the instruments of a snapshot and everything in it; errors as :meth:`restore`."""
        try:
            given = msgspec.convert(data, Snapshot)
        except (msgspec.ValidationError, ConfigurationError) as error:
            raise DataConversionError(f"`data` must be a snapshot of a portfolio: {error}") from error
        base = given.base_currency if var_settings is None else None
        made = cls(given.instruments, scenarios, var_settings, base_currency=base)
        made.restore(data)
        return made
