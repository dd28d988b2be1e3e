"""The gate's audit log: what it decided, before it is carried out, and what changed its mind.

The log is written by the node's thread only. A switch may be turned by another one, so such events wait in a queue that
is emptied before the next record.
"""

from libc.math cimport NAN
from libc.stdint cimport uint8_t, uint64_t

from collections import deque

from tengri_fast.errors import DataConversionError
from tengri_fast.nautilus.gate_facts import reason

from nautilus_trader.core.rust.model cimport OrderSide
from nautilus_trader.model.objects cimport Price
from nautilus_trader.model.orders.base cimport Order

from tengri_fast.risk.audit_log cimport AuditLog, tf_decision
from tengri_fast.risk.portfolio cimport tf_risk_order

__all__ = ["GateAudit"]

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8(object text) except NULL


cdef class GateAudit:
    """Writes the decisions of one gate.

    Parameters
    ----------
    settings : tengri_fast.nautilus.gate_inputs.AuditSettings
        Where, and when it is forced to the disk.

    Raises
    ------
    ConfigurationError
        When the file cannot be used.
    """

    def __init__(self, settings):
        self.log = AuditLog(settings.path, settings.sync)
        self._waiting = deque()

    def later(self, str name, dict facts):
        """Note an event at the next record; any thread may call it."""
        self._waiting.append((name, facts))

    def flush(self, now):
        """Write the events that wait.

        Raises
        ------
        DataConversionError
            When the log cannot be written.
        """
        while self._waiting:
            name, facts = self._waiting.popleft()
            self.log.note(now, name, facts)

    def close(self, now):
        """Write what waits and end the log."""
        self.flush(now)
        self.log.close()

    cdef int decided(
        self, Order order, const tf_risk_order *asked, bint reducing, tuple violations, uint8_t action, uint64_t now
    ) except -1:
        """Write one decision; an exception refuses the command, because what is not written must not be done."""
        cdef tf_decision record
        cdef str name = order.client_order_id.value
        cdef str strategy = order.strategy_id.value
        cdef str instrument = order.instrument_id.value
        cdef str account = "" if order.account_id is None else order.account_id.value
        cdef str text = reason(violations) if violations else ""
        if self._waiting:
            self.flush(now)
        record.ts = now
        record.allowed = not violations
        record.reducing = reducing
        record.action = action
        if asked != NULL:
            record.side = asked.side
            record.type = asked.type
            record.quantity, record.price, record.trigger = asked.quantity, asked.price, asked.trigger
        else:
            # It was not examined: what the order itself says.
            record.side = 1 if order.side == OrderSide.BUY else -1
            record.type = 255
            record.quantity, record.price, record.trigger = order.quantity.as_f64_c(), NAN, NAN
            if order.has_price_c() and order.price is not None:
                record.price = (<Price>order.price).as_f64_c()
            if order.has_trigger_price_c() and order.trigger_price is not None:
                record.trigger = (<Price>order.trigger_price).as_f64_c()
        record.order = PyUnicode_AsUTF8(name)
        record.strategy = PyUnicode_AsUTF8(strategy)
        record.instrument = PyUnicode_AsUTF8(instrument)
        record.account = PyUnicode_AsUTF8(account)
        record.reason = PyUnicode_AsUTF8(text)
        if not self.log.decided(&record):
            raise DataConversionError(f"the decision about {name} could not be written to {self.log.path}")
        return 0
