"""The pre-trade gate: every order is asked about, and the default answer is no.

*Fail closed.* A failure while an order is examined denies it under ``INTERNAL_ERROR`` with the type of the exception.
One case is different: when a risk rule written in Python or the source of a model's health fails, an order that only
takes risk off passes and an alert is raised, because a broken limit must not trap a position. Integrity rules fail
closed even then.

*Armed.* A gate with a limit on value at risk or expected shortfall arms when :meth:`RiskGate.warmup` has run and
scenarios are there; one with plain limits when :meth:`RiskGate.warmup` has run. Until then only reducing orders pass.

*Kill.* Any number of named switches, for everything or for one strategy, instrument, venue or bucket; while one is on,
only reducing orders pass where it holds. Switches are turned off one by one, by name and with a reason; nothing turns
them off by itself. Any thread may set one. The gate itself sets "daily-loss" and "drawdown" (turning one off starts a
new allowance from the equity of that moment), "repeated-executions:STRATEGY" and "rejects:STRATEGY".

*Cancels* are none of the gate's business: whoever routes commands lets them pass, and counts them with
:meth:`RiskGate.on_cancel`.

*An order that passes is sent.* It is counted at once, in rates and against duplicates: what only wants to know asks
:meth:`RiskGate.preview`.

*Lists* stand or fall together; earlier orders of a list count as working while later ones are examined. Exits are
orders that face an earlier order of the list, their entry, in the same account and instrument:

- A *reduce-only* exit that is not larger than its entry is cut by the venue at the position, so risk rules are not
  asked about it, integrity rules are. One risk rule is: the position limit, when the exit would clear the way for other
  working orders of its side to go further than they could before.
- Another exit that names its entry in ``parent_id`` is not asked about the value of one order, which the entry has
  passed, while all that can fill of the entry's exits (those of one ``exclusive_group`` once, reduce-only ones not at
  all) is no more than the quantity of the entry; one that exceeds it is asked that too. Every other rule is asked in
  any case: an exit that only names its entry fills without it as soon as the venue does not hold it back, and such
  pairs, sent again and again, would build any position. What the limits see is therefore the position with all of
  these exits filled and the entry not. A bracket whose exits share an ``exclusive_group`` passes from flat whenever
  its entry does, as far as position limits go, and a bracket that turns a position needs reduce-only exits.

``parent_id`` of an order that is sent alone changes nothing: once its entry has filled it is a reducing order like
others, as far as there is a position that no working order closes yet.

*Modifications* are examined as the order they would make, in place of the old one. One that neither raises the quantity
nor changes a price of an order known to be working takes risk off.

``counters`` counts orders: ``checked``, ``allowed``, ``denied`` by rule (an order that breaks two rules counts under
both) and ``alerts``.
"""

from libc.math cimport NAN, isnan
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from tengri_fast.risk.limit_table cimport (
    TF_INTERNAL_ERROR,
    TF_KILLED,
    TF_NOT_ARMED,
    TF_UNKNOWN_INSTRUMENT,
    LimitTable,
    tf_ask,
    tf_health,
    tf_limits_calendar_knows,
    tf_limits_check,
    tf_limits_counters,
    tf_limits_counts,
    tf_limits_now,
    tf_limits_on_equity,
    tf_limits_reset,
    tf_limits_room,
    tf_limits_undo,
    tf_limits_unwarn,
    tf_verdict,
    tf_violation,
)
from tengri_fast.risk.portfolio cimport (
    TF_RISK_NONE,
    PortfolioState,
    tf_risk_equity,
    tf_risk_order,
    tf_risk_scenarios,
    tf_state_instruments,
    tf_state_working,
    tf_working,
)

import copy
import math

from tengri_fast.risk._texts import detail_text
from tengri_fast.risk.limit_table import CODES
from tengri_fast.risk.rules import CheckContext
from tengri_fast.risk.types import Verdict, Violation

__all__ = ["RiskGate"]

cdef object _ALLOWED = Verdict(True, False)
cdef object _ALLOWED_REDUCING = Verdict(True, True)
cdef tuple _CODES = CODES
cdef tuple _TYPES = (
    "MARKET", "MARKET_TO_LIMIT", "LIMIT", "STOP_MARKET", "STOP_LIMIT", "MARKET_IF_TOUCHED", "LIMIT_IF_TOUCHED",
    "TRAILING_STOP_MARKET", "TRAILING_STOP_LIMIT",
)


cdef class RiskGate(LimitTable):
    """Checks orders against limits.

    Parameters
    ----------
    limits : RiskLimits
        What is allowed.
    portfolio : PortfolioState
        Kept current by whoever delivers events; the gate only reads it, except while it examines a list.
    extra_rules : sequence of Rule
        Asked after the standard ones.
    on_alert : callable, optional
        Receives a line of text when something failed that did not stop an order, or when the gate turned a switch on.
    on_warning : callable, optional
        Receives a :class:`~tengri_fast.risk.types.Utilisation` when a share of a limit, or a soft limit, was passed.

    Attributes
    ----------
    limits, portfolio, extra_rules
        As given.
    history : deque of tuple
        The latest 1,024 changes: ``(kind, name, reason, ts)``, `kind` "kill", "rearm", "reload" or "restore" and `ts`
        the latest time that the gate has seen, ns.
    generation : int
        How often the limits were replaced.
    plain : bool
        Whether there are no extra rules, so that an examination is all C.
    wants_mids : bool
        Whether mids between two checks matter, see :meth:`on_mid`.

    Raises
    ------
    ConfigurationError
        When a limit is read off scenarios and the portfolio has no settings for value at risk.
    """

    def __cinit__(self, *args, **kwargs):
        memset(&self._verdict, 0, sizeof(tf_verdict))

    def __init__(self, limits, PortfolioState portfolio not None, *, extra_rules=(), on_alert=None, on_warning=None):
        super().__init__(limits, portfolio, on_alert=on_alert, on_warning=on_warning)
        self.extra_rules = tuple(extra_rules)
        self.plain = not self.extra_rules
        self._warm = False
        self._sources = {}
        self._denied = {}
        self._checked = self._allowed = 0
        self._failure = ""

    # ---- state ---------------------------------------------------------------------------------------------------

    def warmup(self):
        """Compile or load what the rules need, so that no order waits for it; may be called again."""
        if self._needs_scenarios:
            self.portfolio.warmup()
        self._warm = True

    @property
    def armed(self):
        """Whether orders that add risk can be examined."""
        return self._warm and (not self._needs_scenarios or tf_risk_scenarios(self.portfolio.core) > 0)

    @property
    def counters(self):
        """What the gate has counted since it was made: checked, allowed, denied (by rule), alerts."""
        return {
            "checked": self._checked, "allowed": self._allowed, "denied": dict(self._denied), "alerts": self._alerts
        }

    @property
    def diagnostics(self):
        """Checks, warnings, times that went backwards, exact sums of exposures."""
        cdef tf_limits_counts counts = tf_limits_counters(self._limits)
        return {
            "checks": counts.checks, "warnings": self._warnings, "clock_backwards": counts.backwards,
            "resums": counts.resums,
        }

    def reset(self):
        """Forget what was counted, halts and the account, as before a second run; limits, switches and sources stay."""
        tf_limits_reset(self._limits)
        self._denied.clear()
        self._rejects.clear()
        self._halts.clear()
        self._checked = self._allowed = self._alerts = self._warnings = 0

    def register_health(self, str strategy_id, source):
        """Where the health of the model behind a strategy is read; None takes the source away.

        Parameters
        ----------
        strategy_id : str
            Its orders are denied while a limit on health is set and it has no source.
        source : ModelHealth
            Read at every order.
        """
        cdef uint32_t strategy = self.portfolio.name_kept(strategy_id)
        if source is None:
            self._sources.pop(strategy, None)
        else:
            self._sources[strategy] = source

    # ---- examination ---------------------------------------------------------------------------------------------

    cdef const tf_verdict *ask(self, const tf_risk_order *order, double filled, uint64_t name, unsigned flags) noexcept:
        """Every rule about one order, counted; see gate.pxd for the flags."""
        cdef uint32_t i
        self._examine(order, filled, name, flags)
        if flags & ASK_DRY:
            return &self._verdict
        self._checked += 1
        if self._verdict.allowed:
            self._allowed += 1
            if self._verdict.warning_count or self._verdict.health_excused:
                try:
                    self._finish_alerts()
                except Exception as error:
                    self._alerts += 1
                    self._failure = type(error).__name__
        else:
            try:
                for i in range(self._verdict.count):
                    code = _CODES[self._verdict.violations[i].rule]
                    self._denied[code] = self._denied.get(code, 0) + 1
            except Exception as error:
                self._failure = type(error).__name__
        return &self._verdict

    def _finish_alerts(self):
        cdef uint32_t i
        if self._verdict.health_excused:
            self._tell(f"{self._failure} in MODEL_HEALTH: reducing order let pass")
        for i in range(self._verdict.warning_count):
            self._warn(self._warning(&self._verdict.warnings[i]))

    cdef void _examine(self, const tf_risk_order *order, double filled, uint64_t name, unsigned flags) noexcept:
        cdef tf_ask ask
        cdef tf_health health
        memset(&ask, 0, sizeof(ask))
        ask.filled = filled
        ask.name = name
        ask.modify = (flags & ASK_MODIFY) != 0
        ask.calmer = (flags & ASK_CALMER) != 0
        ask.exit_only = (flags & ASK_EXIT_ONLY) != 0
        ask.covered = (flags & ASK_COVERED) != 0
        ask.dry = (flags & ASK_DRY) != 0
        try:
            self._prepare(order, &ask, &health)
            tf_limits_check(self._limits, self.portfolio.core, order, &ask, &self._verdict)
            if self._verdict.breach:
                self._breached(self._verdict.breach)
        except Exception as error:
            self._failure = type(error).__name__
            self._verdict.allowed = self._verdict.reducing = self._verdict.sane = False
            self._verdict.health_excused = False
            self._verdict.warning_count = 0
            self._verdict.count = 1
            memset(&self._verdict.violations[0], 0, sizeof(tf_violation))
            self._verdict.violations[0].rule = TF_INTERNAL_ERROR
            self._verdict.violations[0].row = TF_RISK_NONE
            self._verdict.violations[0].value = self._verdict.violations[0].limit = NAN

    cdef int _prepare(self, const tf_risk_order *order, tf_ask *ask, tf_health *health) except -1:
        """What the check is told beside the order."""
        if tf_state_instruments(self.portfolio.core) != tf_limits_room(self._limits):
            self._sync()
        ask.faults = self.portfolio.fault_count()
        ask.armed = self._warm and (not self._needs_scenarios or tf_risk_scenarios(self.portfolio.core) > 0)
        if self._needs_health and not ask.calmer:
            source = self._sources.get(order.strategy)
            if source is not None:
                try:
                    health.rung = source.rung
                    health.out_of_distribution = source.out_of_distribution
                    health.confidence = source.confidence
                    health.ts = source.ts
                    ask.health = health
                except Exception as error:
                    self._failure = type(error).__name__
                    ask.health_failed = True
        if self._calendars and not tf_limits_calendar_knows(self._limits, order.instrument, order.ts):
            self._refresh_calendar(order)
        return 0

    cdef object verdict(self, const tf_verdict *verdict, const tf_risk_order *order, object view=None):
        """A verdict with its words."""
        cdef uint32_t i
        cdef tuple alerts = ()
        if verdict.allowed and not verdict.warning_count and not verdict.health_excused:
            return _ALLOWED_REDUCING if verdict.reducing else _ALLOWED
        if verdict.health_excused:
            alerts = (f"{self._failure} in MODEL_HEALTH: reducing order let pass",)
        return Verdict(
            verdict.allowed,
            verdict.reducing,
            tuple([self._violation(&verdict.violations[i], order, view) for i in range(verdict.count)]),
            alerts,
            tuple([self._warning(&verdict.warnings[i]) for i in range(verdict.warning_count)]),
        )

    cdef object _violation(self, const tf_violation *violation, const tf_risk_order *order, object view):
        cdef str code = _CODES[violation.rule]
        cdef str scope = "", name = ""
        cdef double value = violation.value
        cdef tuple rate = (0, 0)
        if violation.rule == TF_UNKNOWN_INSTRUMENT:
            return Violation(code, detail="" if view is None else str(view.instrument_id)[:80])
        if code == "UNKNOWN_ORDER_TYPE":
            return Violation(code, detail="" if view is None else str(view.order_type)[:80])
        if code == "INVALID_SIDE" and view is not None:
            return Violation(code, float(view.side))
        if violation.rule == TF_INTERNAL_ERROR:
            where = "MODEL_HEALTH" if self._verdict.sane else "check"
            return Violation(code, detail=f"{self._failure} in {where}")
        if violation.rule == TF_NOT_ARMED:
            return Violation(code, detail="scenarios are not ready" if self._warm else "warmup() has not run")
        if violation.rule == TF_KILLED:
            return Violation(code, detail=self._kill_reason(order))
        if code == "PORTFOLIO_FAULT":
            return Violation(code, value, 0.0, self.portfolio.faults[0])
        if code == "INSTRUMENT_HALTED":
            return Violation(code, detail=self._halts.get(self.portfolio._facts[order.instrument].instrument_id, ""))
        if code == "MISSING_MODEL_HEALTH":
            return Violation(code, detail=f"no source for strategy {self.portfolio.name_text(order.strategy)}")
        if violation.row != TF_RISK_NONE:
            row = self._rows[violation.row]
            scope = self._row_scope(violation.row, TF_RISK_NONE)
            rate = (row.window, row.reserve)
        if violation.what != TF_RISK_NONE:
            if code == "MAX_STRESS_LOSS":
                name = self.portfolio.stress_name(violation.what)
            elif code not in ("MAX_PORTFOLIO_VAR", "MAX_PORTFOLIO_ES"):
                fact = self.portfolio._facts[violation.what]
                name = fact.instrument_id
                if code == "MISSING_RATE":
                    name = f"{fact.settlement_currency} in {self.portfolio.base_currency}"
        text = detail_text(
            code, violation.detail, value, _TYPES[order.type] if order.type < len(_TYPES) else "", order.price,
            order.trigger, order.quantity, scope, tf_risk_equity(self.portfolio.core), violation.what, name, rate,
        )
        if code == "MISSING_EQUITY":
            value = NAN
        return Violation(code, value, violation.limit, text)

    def check(self, order, *, calmer=False, dry=False):
        """Examine one order that is sent when it passes.

        Parameters
        ----------
        order : OrderView
            The order. When an order of the same client id is working, it is examined in its place.
        calmer : bool
            It is known to add nothing (a reduce-only order that nothing else can flip): integrity rules only.
        dry : bool
            Count nothing, see :meth:`preview`.

        Returns
        -------
        Verdict
            Never raises: a failure is a denial.
        """
        verdict = self._check_view(order, (ASK_CALMER if calmer else 0) | (ASK_DRY if dry else 0))
        return verdict if dry else self._finish(verdict, 1)

    def preview(self, order):
        """What :meth:`check` would answer, with nothing counted."""
        return self.check(order, dry=True)

    cdef object _check_view(self, object view, unsigned flags):
        """Verdict on one order; what passes is counted in rates and against duplicates, not in the counters."""
        cdef tf_risk_order order
        cdef double filled
        cdef uint64_t name
        try:
            self.portfolio.read_order(view, &order)
            # A fill that came before its order was reported must not hide an order that is only about to be sent.
            known = order.order != TF_RISK_NONE or flags & ASK_MODIFY
            filled = self.portfolio.filled(view.client_order_id) if known else 0.0
            name = <uint64_t>hash(view.client_order_id)
            if self.plain:
                self._examine(&order, filled, name, flags)
                return self.verdict(&self._verdict, &order, view)
            return self._ask_extra(view, &order, filled, name, flags)
        except Exception as error:
            return Verdict(False, False, (Violation("INTERNAL_ERROR", detail=f"{type(error).__name__} in check"),))

    cdef object _ask_extra(self, object view, tf_risk_order *order, double filled, uint64_t name, unsigned flags):
        """With rules written in Python: nothing is counted before they have agreed."""
        self._examine(order, filled, name, flags | ASK_DRY)
        verdict = self.verdict(&self._verdict, order, view)
        if not self._verdict.sane:
            return verdict
        cdef bint reducing = self._verdict.reducing
        cdef list violations = list(verdict.violations), alerts = list(verdict.alerts)
        context = CheckContext(
            view, self.portfolio, self.portfolio.facts(view.instrument_id), self.portfolio.quote(view.instrument_id),
            self._verdict.leaves, reducing,
        )
        for rule in self.extra_rules:
            risk = rule.kind == "risk"
            if risk and flags & ASK_EXIT_ONLY:
                continue
            try:
                found = rule.check(context)
            except Exception as error:
                if reducing and risk:
                    alerts.append(f"{type(error).__name__} in {rule.code}: reducing order let pass")
                    continue
                found = Violation("INTERNAL_ERROR", detail=f"{type(error).__name__} in {rule.code}")
            if found is not None and not (reducing and risk):
                violations.append(found)
        if violations or flags & ASK_DRY:
            if not flags & ASK_DRY and any(row.code in ("MAX_DAILY_LOSS", "MAX_DRAWDOWN") for row in self._rows):
                now = max(order.ts, tf_limits_now(self._limits))
                self._breached(tf_limits_on_equity(self._limits, tf_risk_equity(self.portfolio.core), now))
            return Verdict(not violations, reducing, tuple(violations), tuple(alerts), verdict.warnings)
        self._examine(order, filled, name, flags)
        verdict = self.verdict(&self._verdict, order, view)
        if not alerts:
            return verdict
        return Verdict(verdict.allowed, verdict.reducing, verdict.violations, tuple(alerts), verdict.warnings)

    def check_list(self, orders, *, calmer=frozenset()):
        """Examine orders that are sent together; all pass or none.

        Parameters
        ----------
        orders : sequence of OrderView
            In the order in which they are sent.
        calmer : set of str
            Client ids of those that are known to add nothing, see :meth:`check`.

        Returns
        -------
        Verdict
            ``reducing`` when every order takes risk off; violations name their order in ``detail``.
        """
        try:
            verdict = self._examine_list(list(orders), calmer)
            count = len(orders)
        except Exception as error:
            verdict = Verdict(
                False, False, (Violation("INTERNAL_ERROR", detail=f"{type(error).__name__} in check_list"),)
            )
            count = 1
        return self._finish(verdict, max(count, 1))

    cdef object _examine_list(self, list orders, object calmer):
        cdef unsigned flags
        cdef uint32_t counted = 0, i
        cdef bint reducing = True, allowed = False
        if not orders:
            return Verdict(False, False, (Violation("EMPTY_LIST"),))
        names = [order.client_order_id for order in orders]
        if len(set(names)) != len(names):
            return Verdict(False, False, (Violation("DUPLICATE_ORDER", detail="a client order id is there twice"),))
        violations, alerts, warnings, told = [], [], [], []
        # Earlier orders of the list count as working while later ones are examined, and only for that long.
        staged, entries, exits = [], [], []
        try:
            for order in orders:
                flags = ASK_CALMER if order.client_order_id in calmer else 0
                entry = _entry_of(order, entries)
                if entry is not None:
                    if order.reduce_only:
                        flags |= ASK_EXIT_ONLY
                    elif self._is_covered(order, entry, exits):
                        flags |= ASK_COVERED
                verdict = self._check_view(order, flags)
                violations += [_named(violation, order.client_order_id) for violation in verdict.violations]
                alerts += verdict.alerts
                warnings += verdict.warnings
                for i in range(self._verdict.warning_count if verdict.warnings else 0):
                    told.append((self._verdict.warnings[i].row, self._verdict.warnings[i].instrument))
                reducing = reducing and verdict.reducing
                if entry is not None:
                    exits.append(order)
                if verdict.allowed:
                    counted += 1
                    if entry is None:
                        entries.append(order)
                    if not flags & ASK_CALMER and self.portfolio.stage(order):
                        staged.append(order.client_order_id)
            allowed = not violations
        finally:
            self.portfolio.unstage(staged)
            if not allowed:
                tf_limits_undo(self._limits, self.portfolio.core, counted)
                for row, instrument in told:
                    tf_limits_unwarn(self._limits, row, instrument)
        return Verdict(allowed, reducing, tuple(violations), tuple(alerts), tuple(warnings))

    def _is_covered(self, order, entry, earlier):
        """Whether all that can fill of the exits of ``entry``, ``order`` among them, is no more than its quantity."""
        names = {exit_.client_order_id for exit_ in earlier}
        names.add(order.client_order_id)
        working = [view for view in self.portfolio.working_orders() if view.client_order_id not in names]
        total = 0.0
        groups = {}
        for view in (*earlier, *working, order):
            if view.parent_id != entry.client_order_id or view.reduce_only:
                continue
            if view.exclusive_group:
                groups[view.exclusive_group] = max(groups.get(view.exclusive_group, 0.0), view.quantity)
            else:
                total += view.quantity
        # Sums of decimal quantities are off by rounding.
        return total + sum(groups.values()) <= entry.quantity * (1.0 + 1e-12)

    def check_modify(self, order, new_quantity=None, new_price=None, new_trigger=None, *, calmer=False):
        """Examine a change of a working order.

        Parameters
        ----------
        order : OrderView
            The order as it is.
        new_quantity, new_price, new_trigger : float, optional
            Whole quantity and prices after the change; None leaves a field as it is.
        calmer : bool
            It is known to add nothing, see :meth:`check`.

        Returns
        -------
        Verdict
            Never raises: a failure is a denial.
        """
        cdef tf_risk_order read
        cdef const tf_working *known
        try:
            changed = copy.copy(order)
            if new_quantity is not None:
                changed.quantity = new_quantity
            # NaN is "no price", so a change to NaN would take the price away from the rules: infinity is refused.
            if new_price is not None:
                changed.price = math.inf if math.isnan(new_price) else new_price
            if new_trigger is not None:
                changed.trigger_price = math.inf if math.isnan(new_trigger) else new_trigger
            # Measured against what is known to work, not against what the caller says: only that is counted already.
            self.portfolio.read_order(changed, &read)
            known = NULL if read.order == TF_RISK_NONE else tf_state_working(self.portfolio.core, read.order)
            calmer = calmer or (
                known != NULL
                and read.instrument == known.view.instrument
                and read.side == known.view.side
                and read.quantity <= known.view.quantity
                and _same(read.price, known.view.price)
                and _same(read.trigger, known.view.trigger)
            )
            verdict = self._check_view(changed, ASK_MODIFY | (ASK_CALMER if calmer else 0))
        except Exception as error:
            verdict = Verdict(
                False, False, (Violation("INTERNAL_ERROR", detail=f"{type(error).__name__} in check_modify"),)
            )
        return self._finish(verdict, 1)

    cdef object _finish(self, object verdict, Py_ssize_t orders):
        self._checked += orders
        if verdict.allowed:
            self._allowed += orders
            for warning in verdict.warnings:
                self._warn(warning)
        else:
            for violation in verdict.violations:
                self._denied[violation.rule] = self._denied.get(violation.rule, 0) + 1
        for alert in verdict.alerts:
            self._tell(alert)
        return verdict


cdef bint _same(double a, double b) noexcept:
    return a == b or (isnan(a) and isnan(b))


cdef object _entry_of(object order, list earlier):
    """The order of the list that ``order`` is an exit of."""
    for entry in earlier:
        linked = order.parent_id == entry.client_order_id if order.parent_id else order.reduce_only
        if (
            linked
            and entry.instrument_id == order.instrument_id
            and entry.account_id == order.account_id
            and entry.side == -order.side
            and order.quantity <= entry.quantity
        ):
            return entry
    return None


cdef object _named(object violation, object client_order_id):
    detail = f"{violation.detail}, order {client_order_id}" if violation.detail else f"order {client_order_id}"
    return Violation(violation.rule, violation.value, violation.limit, detail)
