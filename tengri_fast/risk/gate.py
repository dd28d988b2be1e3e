"""The pre-trade gate: every order is asked about, and the default answer is no.

*Fail closed.* An exception while an order is examined denies it under ``INTERNAL_ERROR`` with the type of the
exception. One case is different: when a risk rule fails, an order that only takes risk off passes and an alert is
raised, because a broken limit must not trap a position. Integrity rules fail closed even then.

*Armed.* A gate with a value-at-risk limit arms when :meth:`RiskGate.warmup` has compiled the kernels and scenarios are
there; one with plain limits when :meth:`RiskGate.warmup` has run. Until then only reducing orders pass.

*Kill.* Any number of named switches; while one is on, only reducing orders pass. Switches are turned off one by one, by
name and with a reason; nothing turns them off by itself. Setting one is a single dictionary write, so another thread
may do it.

*Cancels* are none of the gate's business: whoever routes commands lets them pass.

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

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypedDict

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk.portfolio import PortfolioState
from tengri_fast.risk.rules import CheckContext, MaxOrderNotional, MaxPosition, Rule, Switch, default_rules
from tengri_fast.risk.types import OrderView, RiskLimits, Verdict, Violation

__all__ = ["Counters", "RiskGate"]

_ALLOWED = Verdict(True, False)
_ALLOWED_REDUCING = Verdict(True, True)


class Counters(TypedDict):
    """What the gate has counted since it was made."""

    checked: int
    allowed: int
    denied: dict[str, int]
    alerts: int


class RiskGate:
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
        Receives a line of text when something failed that did not stop an order.

    Raises
    ------
    ConfigurationError
        When a value-at-risk limit is set and the portfolio has no settings for it.
    """

    def __init__(
        self,
        limits: RiskLimits,
        portfolio: PortfolioState,
        *,
        extra_rules: Sequence[Rule] = (),
        on_alert: Callable[[str], None] | None = None,
    ) -> None:
        if limits.max_portfolio_var is not None and portfolio.var_settings is None:
            raise ConfigurationError("`risk.var` must be set when `max_portfolio_var` is, was missing")
        self.limits = limits
        self.portfolio = portfolio
        self.rules: list[Rule] = default_rules(limits)
        self.rules += [Switch("NOT_ARMED", self._not_armed), Switch("KILLED", self._kill_reason), *extra_rules]
        self.history: deque[tuple[str, str, str]] = deque(maxlen=1024)
        self._kills: dict[str, str] = {}
        self._warm = False
        self._on_alert = on_alert
        self.counters: Counters = {"checked": 0, "allowed": 0, "denied": {}, "alerts": 0}

    # -- state -------------------------------------------------------------------------------------------------------

    def warmup(self) -> None:
        """Compile or load what the rules need, so that no order waits for it; may be called again."""
        if self.limits.max_portfolio_var is not None:
            self.portfolio.warmup()
        self._warm = True

    @property
    def armed(self) -> bool:
        """Whether orders that add risk can be examined."""
        return self._warm and (self.limits.max_portfolio_var is None or self.portfolio.scenarios_ready)

    def _not_armed(self) -> str:
        if not self._warm:
            return "warmup() has not run"
        return "" if self.armed else "scenarios are not ready"

    @property
    def killed(self) -> bool:
        """Whether a kill switch is on."""
        return bool(self._kills)

    @property
    def kills(self) -> dict[str, str]:
        """The switches that are on: name and reason."""
        return dict(self._kills)

    def _kill_reason(self) -> str:
        if not self._kills:
            return ""
        return "; ".join(f"{name}: {reason}" for name, reason in self._kills.copy().items())

    def kill(self, name: str, reason: str) -> None:
        """Turn a named switch on; from now on only reducing orders pass. A repeated call keeps the first reason."""
        if name not in self._kills:
            self._kills[name] = reason or "no reason given"
            self.history.append(("kill", name, reason))

    def rearm(self, name: str, reason: str) -> None:
        """Turn a named switch off.

        Raises
        ------
        ConfigurationError
            When that switch is not on, or no reason is given. Other switches stay as they are.
        """
        if not reason.strip():
            raise ConfigurationError(f"`reason` must say why {name!r} may trade again, was empty")
        if name not in self._kills:
            on = ", ".join(sorted(self._kills)) or "none"
            raise ConfigurationError(f"`name` must be a kill switch that is on ({on}), was {name!r}")
        del self._kills[name]
        self.history.append(("rearm", name, reason))

    # -- examination -------------------------------------------------------------------------------------------------

    def check(self, order: OrderView) -> Verdict:
        """Examine one order.

        Parameters
        ----------
        order : OrderView
            The order. When an order of the same client id is working, it is examined in its place.

        Returns
        -------
        Verdict
            Never raises: a failure is a denial.
        """
        return self._finish(self._examine(order), 1)

    def check_list(self, orders: Sequence[OrderView]) -> Verdict:
        """Examine orders that are sent together; all pass or none.

        Returns
        -------
        Verdict
            ``reducing`` when every order takes risk off; violations name their order in ``detail``.
        """
        try:
            verdict = self._examine_list(list(orders))
            count = len(orders)
        except Exception as error:
            verdict = Verdict(False, False, (self._internal("check_list", error),))
            count = 1
        return self._finish(verdict, max(count, 1))

    def check_modify(
        self,
        order: OrderView,
        new_quantity: float | None = None,
        new_price: float | None = None,
        new_trigger: float | None = None,
    ) -> Verdict:
        """Examine a change of a working order.

        Parameters
        ----------
        order : OrderView
            The order as it is.
        new_quantity, new_price, new_trigger : float, optional
            Whole quantity and prices after the change; None leaves a field as it is.

        Returns
        -------
        Verdict
            Never raises: a failure is a denial.
        """
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
            known = self.portfolio.working_order(order.client_order_id)
            calmer = (
                known is not None
                and changed.instrument_id == known.instrument_id
                and changed.side == known.side
                and changed.quantity <= known.quantity
                and _same(changed.price, known.price)
                and _same(changed.trigger_price, known.trigger_price)
            )
            verdict = self._examine(changed, calmer)
        except Exception as error:
            verdict = Verdict(False, False, (self._internal("check_modify", error),))
        return self._finish(verdict, 1)

    def _finish(self, verdict: Verdict, orders: int) -> Verdict:
        counters = self.counters
        counters["checked"] += orders
        if verdict.allowed:
            counters["allowed"] += orders
        else:
            denied = counters["denied"]
            for violation in verdict.violations:
                denied[violation.rule] = denied.get(violation.rule, 0) + 1
        for alert in verdict.alerts:
            counters["alerts"] += 1
            if self._on_alert is not None:
                try:
                    self._on_alert(alert)
                except Exception:
                    # Whoever listens must not decide about orders by failing; the failure itself is counted.
                    counters["alerts"] += 1
        return verdict

    @staticmethod
    def _internal(where: str, error: Exception) -> Violation:
        return Violation("INTERNAL_ERROR", detail=f"{type(error).__name__} in {where}")

    def _examine(
        self, order: OrderView, calmer: bool = False, exit_only: bool = False, covered: bool = False
    ) -> Verdict:
        """Ask every rule.

        ``calmer`` counts as reducing. Of an ``exit_only`` only integrity is asked, and the position limit when it
        widens the reach. The value of a ``covered`` order was asked with its entry.
        """
        violations: list[Violation] = []
        alerts: list[str] = []
        try:
            portfolio = self.portfolio
            name = order.instrument_id
            context = CheckContext(order, portfolio, portfolio.facts(name), portfolio.quote(name), 0.0, False)
            ready = False
            for rule in self.rules:
                if not ready and rule.kind != "sanity":
                    if violations:
                        break
                    # Only now is the order known to be one that can be computed with.
                    context.leaves = max(order.quantity - portfolio.filled_quantity(order.client_order_id), 0.0)
                    context.reducing = calmer or portfolio.is_reducing(order, context.leaves)
                    ready = True
                if exit_only and rule.kind == "risk":
                    if not (isinstance(rule, MaxPosition) and portfolio.widens(order, context.leaves)):
                        continue
                elif covered and isinstance(rule, MaxOrderNotional):
                    continue
                try:
                    violation = rule.check(context)
                except Exception as error:
                    if context.reducing and rule.kind == "risk":
                        alerts.append(f"{type(error).__name__} in {rule.code}: reducing order let pass")
                        continue
                    violation = self._internal(rule.code, error)
                if violation is not None and not (context.reducing and rule.kind == "risk"):
                    violations.append(violation)
            reducing = context.reducing
        except Exception as error:
            return Verdict(False, False, (*violations, self._internal("check", error)), tuple(alerts))
        if not violations and not alerts:
            return _ALLOWED_REDUCING if reducing else _ALLOWED
        return Verdict(not violations, reducing, tuple(violations), tuple(alerts))

    @staticmethod
    def _entry_of(order: OrderView, earlier: list[OrderView]) -> OrderView | None:
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

    def _is_covered(self, order: OrderView, entry: OrderView, earlier: list[OrderView]) -> bool:
        """Whether all that can fill of the exits of ``entry``, ``order`` among them, is no more than its quantity."""
        names = {exit_.client_order_id for exit_ in earlier}
        names.add(order.client_order_id)
        working = (view for view in self.portfolio.working_orders() if view.client_order_id not in names)
        total = 0.0
        groups: dict[str, float] = {}
        for view in (*earlier, *working, order):
            if view.parent_id != entry.client_order_id or view.reduce_only:
                continue
            if view.exclusive_group:
                groups[view.exclusive_group] = max(groups.get(view.exclusive_group, 0.0), view.quantity)
            else:
                total += view.quantity
        # Sums of decimal quantities are off by rounding.
        return total + sum(groups.values()) <= entry.quantity * (1.0 + 1e-12)

    def _examine_list(self, orders: list[OrderView]) -> Verdict:
        if not orders:
            return Verdict(False, False, (Violation("EMPTY_LIST"),))
        violations: list[Violation] = []
        alerts: list[str] = []
        reducing = True
        names = [order.client_order_id for order in orders]
        if len(set(names)) != len(names):
            return Verdict(False, False, (Violation("DUPLICATE_ORDER", detail="a client order id is there twice"),))
        portfolio = self.portfolio
        # Earlier orders of the list count as working while later ones are examined, and only for that long.
        staged: list[str] = []
        entries: list[OrderView] = []
        exits: list[OrderView] = []
        try:
            for order in orders:
                entry = self._entry_of(order, entries)
                exit_only = entry is not None and order.reduce_only
                covered = entry is not None and not exit_only and self._is_covered(order, entry, exits)
                verdict = self._examine(order, exit_only=exit_only, covered=covered)
                violations += (_named(violation, order.client_order_id) for violation in verdict.violations)
                alerts += verdict.alerts
                reducing = reducing and verdict.reducing
                if entry is not None:
                    exits.append(order)
                if verdict.allowed:
                    if entry is None:
                        entries.append(order)
                    if portfolio.stage(order):
                        staged.append(order.client_order_id)
        finally:
            portfolio.unstage(staged)
        return Verdict(not violations, reducing, tuple(violations), tuple(alerts))


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _named(violation: Violation, client_order_id: str) -> Violation:
    detail = f"{violation.detail}, order {client_order_id}" if violation.detail else f"order {client_order_id}"
    return Violation(violation.rule, violation.value, violation.limit, detail)
