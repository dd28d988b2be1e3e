"""The risk gate: an actor that stands in front of the execution engine.

NautilusTrader sends every command that can create risk to one endpoint of its message bus, ``ExecEngine.execute``:
orders that its own risk engine has passed, orders that its emulator releases (which never met the risk engine), child
orders of execution algorithms, and modifications. The gate takes that endpoint when it starts and hands on what
:class:`tengri_fast.risk.RiskGate` allows. A refusal is NautilusTrader's own ``OrderDenied`` or ``OrderModifyRejected``.

*Fail closed.* An exception while checking refuses the command; so does a command of a kind the gate does not know, and
so does everything before the gate is armed. Cancels and queries pass untouched in every state.

*Life.* The endpoint is taken in ``on_start`` (once, also after a reset) and kept when the actor stops: a Trader stops
actors before strategies, and what strategies send while they stop must meet the gate too. It is given back when the
actor is disposed.

*Where the portfolio comes from.* Orders and positions are followed through the topic ``events.order.*``, not by a
second interceptor at ``ExecEngine.process``. The engine publishes an event there after it has applied it, and only if
it applied it: duplicate fills, overfills and events of unknown orders are gone, fills found by reconciliation (which
never pass the endpoint) are there, and live, where the endpoint only queues, the cache already agrees with the event.
The gate subscribes ahead of strategies and then reads what the order and its positions now are, instead of adding up
events, so an event seen twice or missed changes nothing. Between a command and its first event the order counts as
working, and between a modification and its answer as the largest and dearest that it may become, see
:mod:`tengri_fast.nautilus.gate_pending`.

*Quote quantity.* An order for an amount of money is examined with the units that Nautilus' own conversion gives it.

The parts, all :mod:`tengri_fast.nautilus`: ``gate_market`` (the base class, which follows prices and statuses),
``gate_prices`` (marks and rates), ``gate_accounts`` (equity), ``gate_orders`` (orders as the rules see them),
``gate_screen`` (what is asked about them), ``gate_events`` (what became of them), ``gate_refusals``, ``gate_kill``.
"""

cimport cython
from libc.math cimport NAN
from libc.stdint cimport uint32_t

from datetime import timedelta

from nautilus_trader.model.objects import Currency as PyCurrency

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus.gate_config import RiskGateConfig, check_needs
from tengri_fast.nautilus.gate_audit import GateAudit as OpenAudit
from tengri_fast.nautilus.gate_health import HEALTH, HEALTH_WANTED
from tengri_fast.nautilus.gate_inputs import StateFile
from tengri_fast.nautilus.gate_kill import KillSwitches, cancel_working
from tengri_fast.nautilus.gate_refusals import Refusals
from tengri_fast.risk import RiskLimits, Violation

from nautilus_trader.core.message cimport Command
from nautilus_trader.execution.engine cimport ExecutionEngine
from nautilus_trader.execution.messages cimport (
    BatchCancelOrders,
    CancelAllOrders,
    CancelOrder,
    ModifyOrder,
    QueryAccount,
    QueryOrder,
    SubmitOrder,
    SubmitOrderList,
)
from nautilus_trader.model.events.order cimport OrderEvent
from nautilus_trader.model.identifiers cimport InstrumentId
from nautilus_trader.model.orders.base cimport Order

from tengri_fast.nautilus.gate_accounts cimport GateAccounts, is_settled
from tengri_fast.nautilus.gate_events cimport GateEvents, tells_nothing
from tengri_fast.nautilus.gate_market cimport GateMarket
from tengri_fast.nautilus.gate_orders cimport GateOrders
from tengri_fast.nautilus.gate_prices cimport GatePrices
from tengri_fast.nautilus.gate_screen cimport GateScreen, submit
from tengri_fast.risk.gate cimport RiskGate
from tengri_fast.risk.portfolio cimport PortfolioState, tf_risk_on_equity, tf_risk_order

__all__ = ["NeuralRiskGate", "RiskGateConfig"]

cdef str EXECUTE = "ExecEngine.execute"
cdef str KILL_TIMER = "TENGRI-GATE-KILL-POLL"

# Ahead of the portfolio (10) and of strategies (0): whoever reacts to an event must meet a gate that knows it.
cdef int PRIORITY = 100

cdef str SUBMIT = "submit"
cdef str LIST = "list"
cdef str MODIFY = "modify"
cdef tuple NOT_ARMED = (Violation(rule="NOT_ARMED", detail="the gate has not started"),)
cdef tuple UNKNOWN_ORDER = (Violation(rule="UNKNOWN_ORDER", detail="not in the cache"),)


cdef class NeuralRiskGate(GateMarket):
    """Checks every order of a node before it reaches the execution engine.

    Add it like any actor; nothing else changes. It serves all strategies and algorithms of the node.

    Parameters
    ----------
    config : RiskGateConfig
        Limits, scenarios, and which prices to follow.

    Attributes
    ----------
    gate : tengri_fast.risk.RiskGate
        The rules; None before the start.
    state : tengri_fast.risk.PortfolioState
        Positions, working orders and prices as the rules see them; None before the start.
    alert : callable or None
        Called with a text when something fails inside the gate, trading is stopped, or a warning level or soft limit is
        passed; it must not raise and must not send orders.
    extra_rules : tuple of tengri_fast.risk.Rule
        Rules of your own, asked after the standard ones; set them before the start. Each order then costs a few
        microseconds more, because such rules are written for Python objects.
    submitted, forwarded, modified, errors : int
        Orders seen in submit commands, orders passed on, modifications seen, exceptions caught.
    """

    def __init__(self, config):
        if not isinstance(config, RiskGateConfig):
            raise ConfigurationError(f"`config` must be a RiskGateConfig, was {type(config).__name__}")
        super().__init__(config)
        self.extra_rules = ()
        self._limits = None
        self._state_file = None if config.state is None else StateFile(config.state)
        self.audit = None
        self._next = None
        self._entry = self.execute
        self._on_event_entry = self._on_order_event
        self._on_health_entry = self._on_health
        self._switches = KillSwitches()
        self._health = {}
        self._forget()

    # ---- life ----------------------------------------------------------------------------------------------------

    cpdef void on_start(self):
        """Take the endpoint, then learn instruments, positions and working orders from the cache, then arm."""
        self._armed = False
        self._install()
        self._forget()
        if self.audit is None and self.config.audit is not None:
            self.audit = OpenAudit(self.config.audit)
        self._build()
        self._msgbus.subscribe("events.order.*", self._on_event_entry, PRIORITY)
        self._msgbus.subscribe(HEALTH, self._on_health_entry)
        self._msgbus.publish(HEALTH_WANTED, self.id)
        for instrument_id in self._wanted():
            self._follow(instrument_id)
        for bar_type in self.config.bar_types:
            (<object>self).subscribe_bars(bar_type)
        self._events.read_all()
        if self.config.kill_poll_ms:
            (<object>self.clock).set_timer(
                KILL_TIMER, timedelta(milliseconds=self.config.kill_poll_ms), callback=self._on_kill_timer
            )
        for name, (reason, scope) in list(self._switches.on.items()):
            self.gate.kill(name, reason, scope)
        self._adopt_kills()
        self._keep(True)
        self._tell_audit("armed", {"limits": self.gate.limits, "armed": self.gate.armed})
        self._armed = True

    cpdef void on_stop(self):
        """Keep the endpoint: strategies stop after actors, and what they send then is checked too."""
        self._keep(True)
        self._inputs.keep()

    cpdef void on_reset(self):
        """Forget the run; kills, reloaded limits and health sources stay."""
        self._armed = False
        self._forget()

    cpdef void on_dispose(self):
        """Give the endpoint back, and end the log."""
        self._retired = True
        self._keep(True)
        if self.audit is not None:
            self.audit.close(self.clock.timestamp_ns())
        if self._next is not None and self._msgbus._endpoints.get(EXECUTE) is self._entry:
            self._msgbus.deregister(EXECUTE, self._entry)
            self._msgbus.register(EXECUTE, self._next)
        self._msgbus.unsubscribe("events.order.*", self._on_event_entry)
        self._msgbus.unsubscribe(HEALTH, self._on_health_entry)

    cdef void _install(self):
        cdef object found
        if self._next is not None:
            return  # still in place from an earlier start; whoever came later stands in front of us
        found = self._msgbus._endpoints.get(EXECUTE)
        if found is None:
            raise ConfigurationError(f"`{EXECUTE}` must be registered before the gate starts: no execution engine")
        self._msgbus.deregister(EXECUTE, found)
        self._msgbus.register(EXECUTE, self._entry)
        self._next = found
        owner = getattr(found, "__self__", None)
        self._engine = owner if type(owner) is ExecutionEngine and found == owner.execute else None

    cdef void _forget(self):
        self._refusals = Refusals(self._msgbus, self.cache, self.clock, self._tell)
        self.submitted = 0
        self.forwarded = 0
        self.modified = 0
        self.errors = 0
        self._prices = None
        self._accounts = None
        self._orders = None
        self._events = None
        self._screen = None
        self._uncertain = False

    def _build(self):
        config = self.config
        wanted = self._wanted()
        base = config.base_currency if config.var is None else config.var.base_currency
        if base is None:
            if not wanted:
                raise ConfigurationError("`base_currency` must be given when the cache holds no instrument, was None")
            base = self.cache.instrument(wanted[0]).get_settlement_currency().code
        known = [self._facts(self.cache.instrument(instrument_id)) for instrument_id in wanted]
        self.state = PortfolioState(known, None, self._inputs.var, base_currency=base)
        self._inputs.begin(self.state)
        self.gate = RiskGate(
            self.limits, self.state, extra_rules=self.extra_rules, on_alert=self._warn, on_warning=self._warn
        )
        self._prices = GatePrices(self.cache, PyCurrency.from_str(base), "quotes" in config.prices, self.state)
        self._prices.rolling = self._inputs.rolling
        self._reader = self._prices.reader
        self._accounts = GateAccounts(self.cache, self._prices)
        self._orders = GateOrders(self.cache, self.clock, self.state, self._prices)
        self._screen = GateScreen(self.gate, self._orders)
        self._events = GateEvents(self.gate, self._prices, self._accounts, self._orders, self._make_known)
        for strategy_id, source in self._health.items():
            self.gate.register_health(strategy_id, source)
        self._note_limits()
        self.gate.warmup()
        if self._state_file is not None:
            self._state_file.load(self.gate)

    def _keep(self, force=False):
        """Write what must survive a restart; a failure is told, because trading goes on without it."""
        if self._state_file is None or self.gate is None:
            return
        try:
            self._state_file.save(self.gate, self.clock.timestamp_ns(), force=force)
        except OSError as error:
            self._complain(f"the state could not be kept: {error}")

    def _tell_audit(self, name, facts):
        if self.audit is not None:
            self.audit.later(name, facts)

    def _note_limits(self):
        """Note what the limits in force want to be told, so that nothing else is told."""
        limits = self.gate.limits
        self._wants_mids = self.gate.wants_mids
        self._counts_messages = limits.max_message_rate is not None or any(
            each.measure == "message_rate" for each in limits.scoped
        )
        self._events.counts_executions = limits.max_repeated_executions is not None
        self._events.counts_rejects = limits.max_rejects is not None

    # ---- commands ------------------------------------------------------------------------------------------------

    @cython.binding(False)
    def execute(self, Command command):
        """Stand at the endpoint: pass, or refuse (system method)."""
        cdef int passes = 0
        if self._retired:
            self._next(command)
            return
        if self._kill_wanted:
            self._attend()
        try:
            if type(command) is SubmitOrder:
                passes = self._screen_submit(<SubmitOrder>command)
            elif isinstance(command, ModifyOrder):
                passes = self._screen_modify(<ModifyOrder>command)
            elif isinstance(command, SubmitOrderList):
                passes = self._screen_list(<SubmitOrderList>command)
            elif isinstance(command, (CancelOrder, CancelAllOrders, BatchCancelOrders, QueryOrder, QueryAccount)):
                passes = 1
                if self._counts_messages:
                    self._count_cancels(command)
            else:
                self._complain(f"a command of the unknown kind {type(command).__name__} was not passed on")
        except Exception as error:
            self.errors += 1
            if passes:
                self._complain(f"{type(command).__name__} could not be counted: {type(error).__name__}: {error}")
            else:
                self._refuse_after_error(command, error)
        if not passes:
            return
        if self._engine is not None:
            self._engine.execute(command)
        else:
            self._next(command)

    def _refuse_after_error(self, command, error):
        text = f"{type(error).__name__}: {error}"
        self._complain(f"{type(command).__name__} refused, the check failed: {text}")
        violation = (Violation(rule="INTERNAL_ERROR", detail=text[:200]),)
        try:
            if isinstance(command, ModifyOrder):
                self._reject(command, self.cache.order(command.client_order_id), violation)
            elif isinstance(command, SubmitOrderList):
                for order in (<SubmitOrderList>command).order_list.orders:
                    self._refuse(order, violation, LIST)
            elif isinstance(command, SubmitOrder):
                self._refuse((<SubmitOrder>command).order, violation, SUBMIT)
        except Exception as second:
            # The command is not passed on in any case; only its sender does not hear of it.
            self._complain(f"the refusal could not be sent: {type(second).__name__}: {second}")

    def _count_cancels(self, command):
        """Cancels are never refused, but they are messages."""
        if isinstance(command, (QueryOrder, QueryAccount)) or self.gate is None:
            return
        cancels = command.cancels if isinstance(command, BatchCancelOrders) else [command]
        for cancel in cancels:
            self.gate.on_cancel(cancel.strategy_id.value, cancel.instrument_id.value, self.clock.timestamp_ns())

    cdef uint32_t _begin(self, InstrumentId instrument_id) except? 0xFFFFFFFF:
        """Number of an instrument; what the rules read is brought up to date."""
        found = self._prices.index.get(instrument_id)
        cdef uint32_t number = self._follow(instrument_id) if found is None else found
        self._refresh()
        return number

    cdef int _refresh(self) except -1:
        """Tell the rules the rates and the equity as they now are."""
        if self._uncertain or self.state._faults:
            self._resync()
        if self._prices.currencies > 1:
            self._prices.refresh_rates()
        if not is_settled(self._accounts):
            tf_risk_on_equity(self.state.core, self._accounts.equity())
        return 0

    cdef int _screen_submit(self, SubmitOrder command) except -1:
        """Whether an order may go on; its sender is told if not."""
        cdef Order order = command.order
        cdef tuple violations
        self.submitted += 1
        if not self._armed:
            return self._refuse(order, NOT_ARMED, SUBMIT)
        violations = submit(self._screen, order, command.position_id, self._begin(order.instrument_id))
        if self._screen.breached:
            self._adopt_kills()
        self._decided(order, &self._screen.asked, violations, SUBMIT)
        if violations:
            self._refusals.deny(order, violations, SUBMIT)
            return 0
        self._orders.count(order, self._screen.name, &self._screen.asked)
        self.forwarded += 1
        return 1

    cdef int _screen_list(self, SubmitOrderList command) except -1:
        """Whether orders that are sent together may go on: all or none, or an entry would leave its exits behind."""
        cdef list orders = command.order_list.orders
        cdef list views = []
        cdef tuple violations
        cdef Order order
        self.submitted += len(orders)
        if not self._armed:
            for order in orders:
                self._refuse(order, NOT_ARMED, LIST)
            return 0
        for order in orders:
            views.append(self._screen.view(order, command.position_id, self._begin(order.instrument_id)))
        violations = self._screen.sent_together(views)
        if self._screen.breached:
            self._adopt_kills()
        for order, view in zip(orders, views):
            self._screen.load(view)
            self._decided(order, &self._screen.asked, violations, LIST)
        if violations:
            for order in orders:
                self._refusals.deny(order, violations, LIST)
            return 0
        for order, view in zip(orders, views):
            self._screen.load(view)
            self._orders.count(order, self._screen.name, &self._screen.asked)
        self.forwarded += len(orders)
        return 1

    cdef int _screen_modify(self, ModifyOrder command) except -1:
        """Whether an order may be changed; its sender is told if not."""
        cdef Order order = self.cache.order(command.client_order_id)
        cdef tuple violations
        cdef uint32_t number
        self.modified += 1
        if not self._armed or order is None:
            return self._reject(command, order, NOT_ARMED if not self._armed else UNKNOWN_ORDER)
        number = self._begin(order.instrument_id)
        violations = self._screen.modify(command, order, number)
        if self._screen.breached:
            self._adopt_kills()
        self._decided(order, &self._screen.asked, violations, MODIFY)
        if violations:
            self._tell_sender(command, order, violations)
            return 0
        self._screen.modified(command, order, number)
        return 1

    # ---- decisions -----------------------------------------------------------------------------------------------

    cdef int _decided(self, Order order, const tf_risk_order *asked, tuple violations, str kind) except -1:
        """Record a decision before it is carried out; an exception here refuses the command.

        `asked` is the order as it was examined, NULL when it was not (``self._screen.reducing`` then says nothing).
        `violations` is empty when the command goes on.
        """
        if violations:
            self._refusals.note(
                self.clock.timestamp_ns(), order.client_order_id, order.strategy_id, violations, kind
            )
        if self.audit is not None:
            try:
                self.audit.decided(
                    order,
                    asked,
                    asked != NULL and self._screen.reducing,
                    violations,
                    0 if kind is SUBMIT else 1 if kind is LIST else 2,
                    self.clock.timestamp_ns(),
                )
            except Exception as error:
                # What is not written must not be done; a refusal does nothing, and its sender must hear of it.
                if not violations:
                    raise
                self._complain(f"{type(error).__name__}: {error}")
        return 0

    cdef int _refuse(self, Order order, tuple violations, str kind) except -1:
        """Refuse an order that was not examined; answers 0."""
        self._decided(order, NULL, violations, kind)
        self._refusals.deny(order, violations, kind)
        return 0

    cdef int _reject(self, ModifyOrder command, Order order, tuple violations) except -1:
        """Reject a modification that was not examined."""
        if order is None:
            self._refusals.note(
                self.clock.timestamp_ns(), command.client_order_id, command.strategy_id, violations, MODIFY
            )
            self._complain(f"modification of the unknown order {command.client_order_id} was not passed on")
            return 0
        self._decided(order, NULL, violations, MODIFY)
        self._tell_sender(command, order, violations)
        return 0

    def _tell_sender(self, command, order, violations):
        if self._orders is not None:
            self._orders.any_pending = True
            self._orders.pending.refused(order.client_order_id, command.id)
        self._refusals.reject_modification(command, order, violations)

    # ---- events --------------------------------------------------------------------------------------------------

    @cython.binding(False)
    def _on_order_event(self, event):
        """Follow an order event that the execution engine has applied."""
        if self._events is None or (
            tells_nothing(<OrderEvent>event, self._orders) and not self._events.counts_rejects
        ):
            return
        try:
            self._events.follow(<OrderEvent?>event)
        except Exception as error:
            self._lose_track(error)
        if (self._events.counts_executions or self._events.counts_rejects) and self.gate.killed:
            self._adopt_kills()
        if self._kill_wanted:
            self._attend()

    def _lose_track(self, error):
        """What the portfolio holds is no longer certain: it is read again before the next check."""
        self.errors += 1
        self._uncertain = True
        self._complain(f"an event could not be followed: {type(error).__name__}: {error}")

    def _resync(self):
        """State every position and working order from the cache again; raises when that fails, and so refuses."""
        self._events.read_all()
        self.state.clear_faults()
        self._uncertain = False
        self._complain("positions and working orders were read from the cache again")

    # ---- limits, health ------------------------------------------------------------------------------------------

    @property
    def limits(self):
        """The limits in force."""
        return self.config.limits if self._limits is None else self._limits

    def reload_limits(self, limits, name, reason):
        """Put other limits in force, whole or not at all; the next order meets them. Call it on the node's thread.

        They stay in force after a reset.

        Parameters
        ----------
        limits : tengri_fast.risk.RiskLimits
            All of them: what is None here is not checked any more.
        name, reason : str
            Who changes them, and why; kept in the history of the rules.

        Raises
        ------
        ConfigurationError
            When they cannot be used, or no reason is given; the old ones stay in force then.
        """
        if not isinstance(limits, RiskLimits):
            raise ConfigurationError(f"`limits` must be a RiskLimits, was {type(limits).__name__}")
        if not str(reason).strip():
            raise ConfigurationError("`reason` must say why the limits change, was empty")
        check_needs(limits, self.config)
        if self.gate is not None:
            self.gate.reload(limits, str(name), str(reason))
            self._note_limits()
        self._limits = limits
        self._tell_audit("reload", {"by": str(name), "reason": str(reason), "limits": limits})
        self._complain(f"{name} changed the limits: {reason}")

    def register_health(self, strategy_id, source):
        """Say where the health of the model behind a strategy is read; strategies with a model do this by themselves.

        Parameters
        ----------
        strategy_id : str
            The strategy.
        source : object
            With ``rung``, ``out_of_distribution``, ``confidence`` and ``ts``, read at every order of that strategy.
        """
        self._health[str(strategy_id)] = source
        if self.gate is not None:
            self.gate.register_health(str(strategy_id), source)

    cpdef void _on_health(self, source):
        self.register_health(source.strategy_id, source)

    # ---- kill ----------------------------------------------------------------------------------------------------

    def kill(self, name, reason, scope="portfolio"):
        """Turn a named switch on: from now on only reducing orders and cancels pass. Any thread may call it.

        With ``cancel_on_kill`` the node's thread then cancels every working order that is not reduce-only: protective
        orders stay, because taking them away would add risk. A kill outlives a reset.

        Parameters
        ----------
        name : str
            Who stops trading; several may, and each must allow it again.
        reason : str
            Told in every denial from now on.
        scope : str
            What is stopped: "portfolio" (everything), "strategy:ID", "instrument:ID", "venue:NAME" or "bucket:NAME".
        """
        name, reason, scope = str(name), str(reason) or "no reason given", str(scope)
        gate = self.gate
        if gate is not None:
            gate.kill(name, reason, scope)
        self._switches.turn_on(name, reason, scope)
        self._tell_audit("kill", {"by": name, "reason": reason, "scope": scope})
        self._kill_wanted = 1

    def rearm(self, name, reason):
        """Turn a named switch off; any thread may call it. Trading is allowed again when none is left.

        Raises
        ------
        ConfigurationError
            When that switch is not on, or no reason is given.
        """
        name, reason = str(name), str(reason)
        self._switches.check_off(name, reason)
        gate = self.gate
        if gate is not None and name in gate.kills:
            gate.rearm(name, reason)
        self._switches.turn_off(name)
        self._tell_audit("rearm", {"by": name, "reason": reason})

    @property
    def killed(self):
        """Whether a kill switch is on."""
        return bool(self._switches.on)

    @property
    def kills(self):
        """The kill switches that are on: name and reason."""
        return {name: reason for name, (reason, _) in list(self._switches.on.items())}

    @property
    def kill_scopes(self):
        """The kill switches that are on: name and scope."""
        return {name: scope for name, (_, scope) in list(self._switches.on.items())}

    def _adopt_kills(self):
        """Take over the switches that the rules turned on by themselves: daily loss, drawdown, repeats, rejects."""
        scopes = self.gate.kill_scopes
        for name, reason in self.gate.kills.items():
            if self._switches.turn_on(name, reason, scopes[name]):
                self._tell_audit("kill", {"by": name, "reason": reason, "scope": scopes[name]})
                self._kill_wanted = 1

    cpdef void _on_kill_timer(self, event):
        if self._armed:
            try:
                # Losses stop trading when they happen, not at the next order.
                self._refresh()
                self.gate.on_equity(self._accounts.equity(), self.clock.timestamp_ns())
            except Exception as error:
                self._lose_track(error)
            if self.gate.killed:
                self._adopt_kills()
            self._renew()
        if self._kill_wanted:
            self._attend()

    def _renew(self):
        """What is due from time to time: collected scenarios, the state's file, and what the log has not heard yet."""
        now = self.clock.timestamp_ns()
        text = self._inputs.poll(self.state, now)
        if text:
            self._complain(text)
        self._keep()
        try:
            if self.audit is not None:
                self.audit.flush(now)
        except Exception as error:
            # Orders will be refused too, for the same reason.
            self._complain(f"{type(error).__name__}: {error}")

    cdef void _attend(self):
        """On the node's thread: what a kill asks for beyond refusing."""
        self._kill_wanted = 0
        self._keep(True)
        wishes = self._switches.wishes()
        reasons = "; ".join(f"{name}: {reason}" for name, reason, _ in wishes)
        if not wishes:
            return
        self._complain(f"trading was stopped: {reasons}")
        if not self.config.cancel_on_kill or self._next is None:
            return
        scopes = {scope for _, _, scope in wishes}
        send = (<object>self.msgbus).send
        failures = cancel_working(scopes, self.cache, self.clock, self._next, send, self._bucket)
        for failure in failures:
            self.errors += 1
            self._complain(failure)

    def _bucket(self, instrument_id):
        return self.config.buckets.get(instrument_id.value, self.config.buckets.get("*", ""))

    # ---- questions -----------------------------------------------------------------------------------------------

    @property
    def armed(self):
        """Whether orders are checked against the limits; before that, everything is refused."""
        return self._armed

    @property
    def installed(self):
        """Whether the execution endpoint is this gate's own handler."""
        return self._msgbus is not None and self._msgbus._endpoints.get(EXECUTE) is self._entry

    @property
    def denied(self):
        """Denials and rejected modifications by rule; one that broke two rules counts under both."""
        return self._refusals.denied

    @property
    def refused(self):
        """The same, each counted once, under the first rule that it broke."""
        return self._refusals.refused

    @property
    def records(self):
        """One ``(ts, client_order_id, strategy_id, violations, kind)`` per refusal; the latest 10,000 are kept."""
        return self._refusals.records

    def equity(self):
        """Account equity in base currency as the rules see it, NaN when unknown."""
        if self._accounts is None:
            return NAN
        self._refresh()
        return self.state.equity

    @property
    def counters(self):
        """What the gate has counted and holds: a dict of plain values."""
        return {
            "armed": self._armed,
            "installed": self.installed,
            "killed": self.killed,
            "submitted": self.submitted,
            "forwarded": self.forwarded,
            "modified": self.modified,
            "denied": dict(self.denied),
            "errors": self.errors,
            "working": 0 if self._orders is None else len(self._orders),
            "positions": 0 if self._accounts is None else len(self._accounts.held),
        }
