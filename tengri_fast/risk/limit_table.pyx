"""The limits of a gate: the table, what it has counted, the switches, and what survives a restart.

:class:`LimitTable` keeps the limits and takes the events that are not orders; :class:`tengri_fast.risk.gate.RiskGate`
is built on it and examines orders. The check itself is in csrc/risk/limits_check.c.
"""

from libc.math cimport INFINITY, NAN, isnan
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from tengri_fast.risk.portfolio cimport (
    TF_RISK_NONE,
    PortfolioState,
    tf_instrument,
    tf_risk_order,
    tf_state_instrument,
    tf_state_instruments,
)

from collections import deque

import msgspec

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk._texts import SWITCHES
from tengri_fast.risk._units import duration_ns
from tengri_fast.risk.gate_state import GateState, is_scope
from tengri_fast.risk.limits import RiskLimits, table
from tengri_fast.risk.types import Utilisation
from tengri_fast.risk.windows import boundaries, clock_ns

__all__ = ["CODES", "LimitTable"]

#: Codes of violations, by number.
CODES = tuple([(<bytes>tf_rule_text(code)).decode() for code in range(TF_RULE_COUNT)])
cdef dict _CODE_OF = {text: code for code, text in enumerate(CODES)}
cdef dict _SCOPE_OF = {
    "portfolio": TF_SCOPE_PORTFOLIO, "venue": TF_SCOPE_VENUE, "bucket": TF_SCOPE_BUCKET,
    "instrument": TF_SCOPE_INSTRUMENT, "strategy": TF_SCOPE_STRATEGY, "each": TF_SCOPE_EACH,
}
cdef dict _SHORT_OF = {"allowed": 0, "forbidden": 1, "uptick": 2}
# A handle that no instrument has: it matches nothing until the instrument is known.
cdef uint32_t _UNKNOWN = <uint32_t>0xFFFFFFF0


cdef class LimitTable:
    """Limits in force, and what they have counted.

    Parameters
    ----------
    limits : RiskLimits
        What is allowed.
    portfolio : PortfolioState
        What the limits are measured against.
    on_alert, on_warning : callable, optional
        See :class:`tengri_fast.risk.gate.RiskGate`.

    Raises
    ------
    ConfigurationError
        When a limit is read off scenarios and the portfolio has no settings for value at risk.
    """

    def __cinit__(self, *args, **kwargs):
        self._limits = tf_limits_new()
        if self._limits == NULL:
            raise MemoryError("no memory for the limits")

    def __dealloc__(self):
        tf_limits_free(self._limits)

    def __init__(self, limits, PortfolioState portfolio not None, *, on_alert=None, on_warning=None):
        self.portfolio = portfolio
        self.history = deque(maxlen=1024)
        self.generation = 0
        self._kills = {}
        self._halts = {}
        self._rejects = {}
        self._on_alert = on_alert
        self._on_warning = on_warning
        self._alerts = self._warnings = 0
        self._take(limits)

    def __reduce__(self):
        raise TypeError("a gate cannot be pickled: see state()")

    # ---- limits --------------------------------------------------------------------------------------------------

    cdef int _take(self, object limits) except -1:
        """Put limits in force, or raise and change nothing."""
        if not isinstance(limits, RiskLimits):
            raise ConfigurationError(f"`limits` must be RiskLimits, was {type(limits).__name__}")
        if limits.needs_scenarios and self.portfolio.var_settings is None:
            raise ConfigurationError(
                "`risk.var` must be set when `max_portfolio_var` or `max_portfolio_es` is, was missing"
            )
        cdef list calendars = []
        cdef dict calendar_of = {}
        for window in limits.window:
            place = ("instrument", window.instrument) if window.instrument else ("venue", window.venue)
            if place not in calendar_of:
                calendar_of[place] = len(calendars)
                calendars.append(())
            calendars[calendar_of[place]] += (window,)
        self._set_rows(limits, table(limits))
        self.limits = limits
        self._calendars = calendars
        self._calendar_of = calendar_of
        self._needs_scenarios = limits.needs_scenarios
        self._needs_health = limits.needs_health
        self._max_rejects = limits.max_rejects or 0
        self.wants_mids = limits.collar_window is not None
        for calendar in range(len(calendars)):
            if tf_limits_calendar(self._limits, calendar, NULL, 0, 0, 0) < 0:  # known when first asked
                raise MemoryError("no memory for trading windows")
        self._set_instruments(0)
        self._write_kills()
        return 0

    cdef int _set_rows(self, object limits, list rows) except -1:
        cdef tf_limits_config config
        cdef tf_limit *made
        cdef uint32_t number
        cdef int status
        memset(&config, 0, sizeof(config))
        config.stale = limits.stale_quote_ns or 0
        config.collar_window = _span(limits, "collar_window")
        config.duplicate_window = _span(limits, "duplicate_window")
        config.repeat_window = _span(limits, "repeat_window")
        config.max_signal_age = _span(limits, "max_signal_age")
        config.collar_bps = _number(limits.price_collar_bps)
        config.max_spread_bps = _number(limits.max_spread_bps)
        config.max_out_of_distribution = _number(limits.max_out_of_distribution)
        config.min_confidence = _number(limits.min_confidence)
        config.max_rung = _number(limits.max_rung)
        config.max_repeats = limits.max_repeated_executions or 0
        config.max_rejects = limits.max_rejects or 0
        config.collar_last = limits.collar_reference == "last"
        config.deny_self_trade = limits.self_trade == "deny"
        config.day_offset = clock_ns("day_boundary", limits.day_boundary)
        config.warn_count = len(limits.warn_at)
        for number, share in enumerate(limits.warn_at):
            config.warn_at[number] = share
        self._unresolved = False
        made = <tf_limit *>malloc((len(rows) + 1) * sizeof(tf_limit))
        if made == NULL:
            raise MemoryError("no memory for the limits")
        try:
            for number, row in enumerate(rows):
                memset(&made[number], 0, sizeof(tf_limit))
                made[number].rule = _CODE_OF[row.code]
                made[number].scope = _SCOPE_OF[row.scope]
                made[number].key = self._key(row.scope, row.name)
                made[number].of_equity = row.of_equity
                made[number].limit = row.limit
                made[number].soft = row.soft
                made[number].window = row.window
                made[number].reserve = row.reserve
            status = tf_limits_set(self._limits, self.portfolio.core, &config, made, <uint32_t>len(rows))
        finally:
            free(made)
        if status < 0:
            raise MemoryError("no memory for the limits")
        self._rows = rows
        return 0

    cdef uint32_t _key(self, str kind, str name) except? 0xFFFFFFFE:
        """Handle of what a limit or a switch is of."""
        cdef int64_t found
        if kind == "venue":
            return self.portfolio.venue(name)
        if kind == "bucket":
            return self.portfolio.bucket(name)
        if kind == "strategy":
            return self.portfolio.name_kept(name)
        if kind == "instrument":
            found = self.portfolio.instrument(name)
            if found < 0:
                self._unresolved = True
                return _UNKNOWN
            return <uint32_t>found
        return 0

    cdef int _sync(self) except -1:
        """Instruments were added: make room, and tell the table about them."""
        cdef uint32_t known = tf_limits_room(self._limits)
        if tf_limits_grow(self._limits, self.portfolio.core) < 0:
            raise MemoryError("no memory for the limits of more instruments")
        if self._unresolved:
            self._set_rows(self.limits, self._rows)
            known = 0
        self._set_instruments(known)
        self._write_kills()
        return 0

    cdef int _set_instruments(self, uint32_t begin) except -1:
        cdef uint32_t i, row
        cdef object limits = self.limits
        for i in range(begin, tf_limits_room(self._limits)):
            fact = self.portfolio._facts[i]
            name = fact.instrument_id
            allowed = name not in limits.deny and (not limits.allow or name in limits.allow)
            calendar = self._calendar_of.get(("instrument", name))
            if calendar is None:
                calendar = self._calendar_of.get(("venue", fact.venue_name), TF_RISK_NONE)
            tf_limits_instrument(self._limits, i, allowed, _SHORT_OF[fact.short], calendar)
            if name in self._halts:
                tf_limits_status(self._limits, i, False)
            for row in range(len(self._rows)):
                if self._rows[row].scope == "each":
                    if self._rows[row].code == "MAX_POSITION":
                        tf_limits_each(self._limits, row, i, limits.position_limit(name))
                    else:
                        tf_limits_each(self._limits, row, i, limits.quantity_limit(name))
        return 0

    cdef int _refresh_calendar(self, const tf_risk_order *order) except -1:
        """Look up the boundaries around the time of an order."""
        cdef uint64_t *times
        cdef uint32_t number
        fact = self.portfolio._facts[order.instrument]
        calendar = self._calendar_of.get(("instrument", fact.instrument_id))
        if calendar is None:
            calendar = self._calendar_of[("venue", fact.venue_name)]
        known = boundaries(self._calendars[calendar], max(order.ts, tf_limits_now(self._limits)))
        times = <uint64_t *>malloc((len(known.times) + 1) * sizeof(uint64_t))
        if times == NULL:
            raise MemoryError("no memory for trading windows")
        try:
            for number, time in enumerate(known.times):
                times[number] = time
            if tf_limits_calendar(
                self._limits, calendar, times, <uint32_t>len(known.times), known.known_from, known.known_to
            ) < 0:
                raise MemoryError("no memory for trading windows")
        finally:
            free(times)
        return 0

    def reload(self, limits, name, reason):
        """Replace the limits between two orders.

        Counts, windows and warnings go on where a limit stays. Switches stay as they are.

        Parameters
        ----------
        limits : RiskLimits
            In force for the next order.
        name, reason : str
            Who, and why; kept in :attr:`history`.

        Raises
        ------
        ConfigurationError
            When they cannot be taken, or name or reason is empty. Nothing is changed then.
        """
        if not (name.strip() and reason.strip()):
            raise ConfigurationError(
                f"`name` and `reason` must say who changes the limits and why, were {name!r}, {reason!r}"
            )
        self._take(limits)
        self.generation += 1
        self.history.append(("reload", name, reason, tf_limits_now(self._limits)))

    # ---- switches ------------------------------------------------------------------------------------------------

    @property
    def killed(self):
        """Whether a kill switch is on."""
        return bool(self._kills)

    @property
    def kills(self):
        """The switches that are on: name and reason."""
        return {name: reason for name, (reason, _) in self._kills.copy().items()}

    @property
    def kill_scopes(self):
        """The switches that are on: name and scope."""
        return {name: scope for name, (_, scope) in self._kills.copy().items()}

    def kill(self, name, reason, scope="portfolio"):
        """Turn a named switch on; from now on only reducing orders pass where it holds.

        A repeated call keeps the first reason. One of another scope widens the switch to the whole portfolio, so that
        no call is without effect.

        Parameters
        ----------
        name, reason : str
            Of the switch.
        scope : str
            "portfolio", "venue:NAME", "bucket:NAME", "instrument:ID" or "strategy:ID".

        Raises
        ------
        ConfigurationError
            When the scope is none of these.
        """
        if not is_scope(scope):
            raise ConfigurationError(
                f"`scope` must be portfolio, venue:, bucket:, instrument: or strategy: and a name, was {scope!r}"
            )
        first, where = self._kills.get(name, (reason or "no reason given", scope))
        if name not in self._kills or where not in (scope, "portfolio"):
            self._kills[name] = (first, scope if where == scope else "portfolio")
            self._write_kills()
            self.history.append(("kill", name, reason, tf_limits_now(self._limits)))

    def rearm(self, name, reason):
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
        kind, _, strategy = name.partition(":")
        if name == SWITCHES["daily_loss"]:
            tf_limits_restart(self._limits, TF_BREACH_DAILY_LOSS)
        elif name == SWITCHES["drawdown"]:
            tf_limits_restart(self._limits, TF_BREACH_DRAWDOWN)
        elif kind == "rejects":
            self._rejects.pop(strategy, None)
        elif kind == "repeated-executions":
            tf_limits_clear_executions(self._limits, self.portfolio.name_kept(strategy))
        self._write_kills()
        self.history.append(("rearm", name, reason, tf_limits_now(self._limits)))

    cdef int _write_kills(self) except -1:
        cdef uint8_t scopes[TF_KILLS_MAX + 1]
        cdef uint32_t keys[TF_KILLS_MAX + 1]
        cdef uint32_t count = 0
        for _, scope in list(self._kills.values()):
            kind, _, of = scope.partition(":")
            if count <= TF_KILLS_MAX:
                scopes[count] = _SCOPE_OF[kind]
                keys[count] = self._key(kind, of)
                count += 1
        tf_limits_kills(self._limits, scopes, keys, count)
        return 0

    cdef str _kill_reason(self, const tf_risk_order *order):
        cdef const tf_instrument *of = tf_state_instrument(self.portfolio.core, order.instrument)
        cdef uint32_t key
        cdef list reasons = []
        for name, (reason, scope) in self._kills.copy().items():
            kind, _, what = scope.partition(":")
            key = self._key(kind, what)
            if (
                kind == "portfolio"
                or (kind == "venue" and key == of.facts.venue)
                or (kind == "bucket" and key == of.facts.bucket)
                or (kind == "instrument" and key == order.instrument)
                or (kind == "strategy" and key == order.strategy)
            ):
                reasons.append(f"{name}: {reason}")
        return "; ".join(reasons)

    # ---- restart -------------------------------------------------------------------------------------------------

    def state(self):
        """What has to survive a restart, as plain values: day and peak of the account, switches, refusals in a row."""
        cdef const tf_account *account = tf_limits_account(self._limits)
        return msgspec.to_builtins(GateState(
            equity=_optional(account.equity), day_start=_optional(account.day_start), peak=_optional(account.peak),
            day=account.day, ts=account.ts, kills={name: list(pair) for name, pair in self._kills.items()},
            rejects=dict(self._rejects), halts=dict(self._halts),
        ))

    def restore(self, state):
        """Go on from what :meth:`state` gave; switches that are on stay on.

        Raises
        ------
        DataConversionError
            When it is not such a state. Nothing is changed then.
        """
        cdef tf_account account
        try:
            found = msgspec.convert(state, GateState)
        except msgspec.ValidationError as error:
            raise DataConversionError(f"`state` must be what RiskGate.state() gave: {error}") from error
        account.equity, account.day_start = _number(found.equity), _number(found.day_start)
        account.peak, account.day, account.ts = _number(found.peak), found.day, found.ts
        tf_limits_set_account(self._limits, &account)
        for name, (reason, scope) in found.kills.items():
            self._kills.setdefault(name, (reason, scope))
        self._rejects.update(found.rejects)
        for name, reason in found.halts.items():
            self.on_status(name, False, reason)
        self._write_kills()
        self.history.append(("restore", "state", f"{len(found.kills)} switches", tf_limits_now(self._limits)))

    # ---- events --------------------------------------------------------------------------------------------------

    def on_equity(self, double value, uint64_t ts):
        """Equity of the account in base currency at a time; a daily loss or a drawdown past its limit stops trading.

        The portfolio is told as well. A value that is not finite means unknown.
        """
        self.portfolio.on_equity(value)
        self._breached(tf_limits_on_equity(self._limits, value, ts))

    cdef int _breached(self, unsigned breach) except -1:
        cdef const tf_account *account = tf_limits_account(self._limits)
        for bit, word, start in (
            (TF_BREACH_DAILY_LOSS, "daily_loss", account.day_start), (TF_BREACH_DRAWDOWN, "drawdown", account.peak)
        ):
            # A switch that a person called so for a part of the portfolio does not stand in for this one.
            if breach & bit and self._kills.get(SWITCHES[word], ("", ""))[1] != "portfolio":
                of = "the begin of the day" if word == "daily_loss" else "the peak"
                reason = f"equity {account.equity:.10g} after {start:.10g} at {of}"
                self.kill(SWITCHES[word], reason)
                self._tell(f"trading stopped, {SWITCHES[word]}: {reason}")
        return 0

    def on_cancel(self, str strategy_id, str instrument_id, uint64_t ts):
        """A cancel was sent: it counts as a message."""
        cdef int64_t instrument = self.portfolio.instrument(instrument_id)
        tf_limits_on_cancel(
            self._limits, self.portfolio.core, self.portfolio.name_kept(strategy_id),
            TF_RISK_NONE if instrument < 0 else <uint32_t>instrument, ts,
        )

    def on_execution(self, str strategy_id, str instrument_id, int side, uint64_t ts):
        """A fill of a strategy: one too many on one side stops it, see ``max_repeated_executions``."""
        cdef int64_t instrument = self.portfolio.instrument(instrument_id)
        self.on_accept(strategy_id)
        if instrument < 0:
            return
        if tf_limits_on_execution(
            self._limits, self.portfolio.name_kept(strategy_id), <uint32_t>instrument, side, ts
        ) != 0:  # also when there is no memory to count it
            name = f"repeated-executions:{strategy_id}"
            if name not in self._kills:
                word = "buys" if side > 0 else "sells"
                reason = f"more than {self.limits.max_repeated_executions} {word} in {instrument_id} in a row"
                self.kill(name, reason, f"strategy:{strategy_id}")
                self._tell(f"strategy stopped, {name}: {reason}")

    def on_reject(self, str strategy_id, str reason=""):
        """The venue refused an order of a strategy; ``max_rejects`` in a row stop it."""
        if not self._max_rejects:
            return
        self._rejects[strategy_id] = self._rejects.get(strategy_id, 0) + 1
        name = f"rejects:{strategy_id}"
        if self._rejects[strategy_id] >= self._max_rejects and name not in self._kills:
            text = f"{self._rejects[strategy_id]} orders refused in a row, the last: {reason or 'no reason given'}"
            self.kill(name, text, f"strategy:{strategy_id}")
            self._tell(f"strategy stopped, {name}: {text}")

    def on_accept(self, str strategy_id):
        """The venue accepted an order of a strategy: refusals are no longer in a row."""
        if self._rejects:
            self._rejects.pop(strategy_id, None)

    def on_status(self, str instrument_id, bint tradable, str reason=""):
        """An instrument was halted, or trades again."""
        cdef int64_t instrument = self.portfolio.instrument(instrument_id)
        if tradable:
            self._halts.pop(instrument_id, None)
        else:
            self._halts[instrument_id] = reason or "no reason given"
        if instrument >= 0:
            tf_limits_status(self._limits, <uint32_t>instrument, tradable)

    def on_mid(self, str instrument_id, double mid, uint64_t ts):
        """A mid price, for ``collar_window``: the mids at checks are seen anyway, those in between only this way."""
        cdef int64_t instrument = self.portfolio.instrument(instrument_id)
        if instrument >= 0:
            tf_limits_on_mid(self._limits, <uint32_t>instrument, mid, ts)

    cdef void note_mid(self, uint32_t instrument, double mid, uint64_t ts) noexcept:
        tf_limits_on_mid(self._limits, instrument, mid, ts)

    def _warn(self, warning):
        self._warnings += 1
        if self._on_warning is not None:
            try:
                self._on_warning(warning)
            except Exception:
                # Whoever listens must not decide about orders by failing; the failure itself is counted.
                self._alerts += 1

    cdef void _tell(self, str alert):
        self._alerts += 1
        if self._on_alert is not None:
            try:
                self._on_alert(alert)
            except Exception:
                self._alerts += 1

    cdef str _row_scope(self, uint32_t row, uint32_t instrument):
        """What a row is of, in words."""
        found = self._rows[row]
        if instrument != TF_RISK_NONE:
            return f"instrument:{self.portfolio._facts[instrument].instrument_id}"
        return f"{found.scope}:{found.name}" if found.name else "portfolio"

    cdef object _warning(self, const tf_warning *warning):
        return Utilisation(
            self._rows[warning.row].code, self._row_scope(warning.row, warning.instrument), warning.value,
            warning.limit, warning.value / warning.limit, warning.at,
        )

    # ---- what limits are used by ---------------------------------------------------------------------------------

    def utilisation(self):
        """How far each limit is used now: a list of :class:`~tengri_fast.risk.types.Utilisation`.

        A limit per instrument has one entry for each that has a position or a working order. Limits on one order are
        not used up, and are left out.
        """
        cdef uint32_t i, room, count
        cdef tf_usage *rows
        cdef list found = []
        if tf_state_instruments(self.portfolio.core) != tf_limits_room(self._limits):
            self._sync()
        each = sum(1 for row in self._rows if row.scope == "each")
        room = <uint32_t>(len(self._rows) + each * tf_limits_room(self._limits))
        rows = <tf_usage *>malloc((room + 1) * sizeof(tf_usage))
        if rows == NULL:
            raise MemoryError("no memory for the use of limits")
        try:
            count = tf_limits_usage(self._limits, self.portfolio.core, rows, room)
            for i in range(count):
                row = self._rows[rows[i].row]
                limit = INFINITY if isnan(row.limit) and not isnan(row.soft) else rows[i].limit
                share = rows[i].value / limit if limit > 0.0 else (0.0 if rows[i].value == 0.0 else INFINITY)
                instrument = rows[i].instrument if row.scope == "each" else TF_RISK_NONE
                scope = self._row_scope(rows[i].row, instrument)
                found.append(Utilisation(row.code, scope, rows[i].value, limit, share))
        finally:
            free(rows)
        return found


cdef double _number(object value):
    return NAN if value is None else value


cdef object _optional(double value):
    return None if isnan(value) else value


cdef uint64_t _span(object limits, str field) except? 0:
    value = getattr(limits, field)
    return 0 if value is None else duration_ns(field, value)
