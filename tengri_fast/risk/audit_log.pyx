"""Writer of the audit log: every decision of the gate, before the order goes on. The reader is in plain Python.

Source of the format: csrc/include/tengri/audit.h and :mod:`tengri_fast.risk.audit`.
"""

from libc.errno cimport errno
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, strlen

import json
import math
import os
import threading
import time

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.audit import ACTIONS, DECISION, EVENT, ORDER_TYPES, SYNCS

__all__ = ["AuditLog"]

# Numbers in front of the texts of a decision, see tengri_fast.risk.audit.
cdef size_t FIXED = 32
cdef size_t TEXT_MAX = 4096
cdef double SYNC_SECONDS = 0.1
cdef uint32_t KIND_DECISION = DECISION
cdef uint32_t KIND_EVENT = EVENT
cdef const char *EMPTY = ""


cdef unsigned char *_write(unsigned char *at, const char *text, size_t size) noexcept:
    at[0] = <unsigned char>(size & 0xFF)
    at[1] = <unsigned char>(size >> 8)
    memcpy(at + 2, text, size)
    return at + 2 + size


cdef class AuditLog:
    """An append-only log in which every record carries the hash of all before it.

    Parameters
    ----------
    path : path-like
        File to append to; made when it is not there. One process at a time.
    sync : {"order", "100ms", "none"}
        When records are forced to the disk: before each order goes on (milliseconds each), ten times a second by a
        thread of its own, or when the system likes. A process that dies loses nothing with any of them; a loss of
        power costs nothing, up to 0.1 s, or up to about half a minute of records.
    previous : str, optional
        Last hash (64 hexadecimal digits) of the log that a new file continues.

    Raises
    ------
    ConfigurationError
        When the file cannot be used: it is open elsewhere, is no log, or is damaged before its end.
    """

    def __cinit__(self, *args, **kwargs):
        self._log = NULL

    def __init__(self, path, sync="100ms", previous=None):
        cdef int status = 0
        cdef bytes before
        cdef const unsigned char *start = NULL
        if self._log != NULL:
            raise ConfigurationError("an audit log must be opened once, is open already")
        if sync not in SYNCS:
            raise ConfigurationError(f"`sync` must be one of {', '.join(SYNCS)}, was {sync!r}")
        if previous is not None:
            try:
                before = bytes.fromhex(previous)
            except (TypeError, ValueError):
                before = b""
            if len(before) != 32:
                raise ConfigurationError(f"`previous` must be 64 hexadecimal digits, was {previous!r}")
            start = before
        self.path = os.path.abspath(os.fspath(path))
        self.sync = sync
        self._each = sync == "order"
        self.failure = None
        self._stop = None
        self._thread = None
        name = os.fsencode(self.path)
        self._log = tf_audit_open(name, time.time_ns(), start, &status)
        if self._log == NULL:
            raise ConfigurationError(f"`path` must be an audit log that can be written, was {self.path}: {_why(status)}")
        removed = tf_audit_removed(self._log)
        if removed:
            self.note(time.time_ns(), "recovered", {"removed_bytes": removed})
        if sync == "100ms":
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._keep_syncing, name="tengri-audit", daemon=True)
            self._thread.start()

    def __dealloc__(self):
        if self._log != NULL:
            tf_audit_close(self._log)
            self._log = NULL

    def _keep_syncing(self):
        cdef tf_audit *log
        cdef int status
        seen = 0
        while not self._stop.wait(SYNC_SECONDS):
            log = self._log
            if log == NULL:
                return
            count = tf_audit_count(log)
            if count == seen:
                continue
            with nogil:
                status = tf_audit_sync(log)
            if status == TF_AUDIT_OK:
                seen = count
            else:
                self.failure = _why(status)

    cdef bint decided(self, const tf_decision *decision) noexcept:
        cdef const char *texts[5]
        cdef size_t sizes[5]
        cdef size_t total = FIXED
        cdef int status = 0
        cdef int i
        cdef unsigned char *at
        cdef unsigned char *p
        if self._log == NULL or self.failure is not None:
            return False
        texts[0], texts[1], texts[2] = decision.order, decision.strategy, decision.instrument
        texts[3], texts[4] = decision.account, decision.reason
        for i in range(5):
            if texts[i] == NULL:
                texts[i] = EMPTY
            sizes[i] = strlen(texts[i])
            if sizes[i] > TEXT_MAX:
                sizes[i] = TEXT_MAX
            total += 2 + sizes[i]
        p = tf_audit_begin(self._log, total, &status)
        if p == NULL:
            return False
        p[0] = 1 if decision.allowed else 0
        p[1] = 1 if decision.reducing else 0
        p[2] = <unsigned char>decision.side
        p[3] = decision.type
        p[4] = decision.action
        p[5] = p[6] = p[7] = 0
        memcpy(p + 8, &decision.quantity, 8)
        memcpy(p + 16, &decision.price, 8)
        memcpy(p + 24, &decision.trigger, 8)
        at = p + FIXED
        for i in range(5):
            at = _write(at, texts[i], sizes[i])
        tf_audit_commit(self._log, KIND_DECISION, decision.ts, total)
        if self._each and tf_audit_sync(self._log) != TF_AUDIT_OK:
            return False
        return True

    def decide(
        self,
        ts,
        allowed,
        *,
        order,
        strategy="",
        instrument="",
        account="",
        side=1,
        quantity=math.nan,
        price=math.nan,
        trigger=math.nan,
        order_type="MARKET",
        action="submit",
        reducing=False,
        reason="",
    ):
        """Append a decision, from Python; arguments as the columns of :class:`tengri_fast.risk.audit.Decision`.

        Raises
        ------
        DataConversionError
            When it could not be written: the order must not go on then.
        """
        cdef tf_decision decision
        texts = [str(text).replace("\0", " ").encode() for text in (order, strategy, instrument, account, reason)]
        decision.ts = ts
        decision.allowed = bool(allowed)
        decision.reducing = bool(reducing)
        decision.side = side
        decision.type = ORDER_TYPES.index(order_type) if order_type in ORDER_TYPES else len(ORDER_TYPES)
        decision.action = ACTIONS.index(action)
        decision.quantity, decision.price, decision.trigger = quantity, price, trigger
        decision.order, decision.strategy, decision.instrument = texts[0], texts[1], texts[2]
        decision.account, decision.reason = texts[3], texts[4]
        if not self.decided(&decision):
            raise DataConversionError(f"the decision about {order} could not be written to {self.path}: {self._state()}")

    def note(self, ts, name, facts=None):
        """Append something that is no decision, such as a kill, a rearm, new limits or an alert.

        Parameters
        ----------
        ts : int
            Time, ns.
        name : str
            Kind of event in a word.
        facts : mapping, optional
            What else belongs to it; anything that JSON can hold.

        Raises
        ------
        DataConversionError
            When it could not be written.
        """
        cdef int status
        if self._log == NULL:
            raise DataConversionError(f"{name} could not be written to {self.path}: the log is closed")
        text = json.dumps({"name": str(name), **(facts or {})}, sort_keys=True, default=str, allow_nan=True).encode()
        if len(text) > TF_AUDIT_RECORD_MAX - 64:
            text = json.dumps({"name": str(name), "truncated": text[:60_000].decode(errors="replace")[:30_000]}).encode()
        status = tf_audit_append(self._log, KIND_EVENT, ts, <const char *>text, len(text))
        if status == TF_AUDIT_OK and self._each:
            status = tf_audit_sync(self._log)
        if status != TF_AUDIT_OK:
            raise DataConversionError(f"{name} could not be written to {self.path}: {_why(status)}")

    def flush(self):
        """Wait until everything is on the disk.

        Raises
        ------
        DataConversionError
            When the disk does not take it.
        """
        cdef int status
        cdef tf_audit *log = self._log
        if log == NULL:
            return
        with nogil:
            status = tf_audit_sync(log)
        if status != TF_AUDIT_OK:
            raise DataConversionError(f"{self.path} could not be written to the disk: {_why(status)}")

    def close(self):
        """End the log: nothing is appended any more. A second call does nothing.

        Raises
        ------
        DataConversionError
            When the last records could not be written to the disk.
        """
        cdef tf_audit *log = self._log
        if log == NULL:
            return
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
        self._log = NULL
        cdef int status = tf_audit_close(log)
        if status != TF_AUDIT_OK:
            raise DataConversionError(f"{self.path} could not be written to the disk: {_why(status)}")

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def __reduce__(self):
        raise TypeError("an audit log cannot be pickled: it is a file that one process writes")

    def _state(self):
        return "the log is closed" if self._log == NULL else self.failure or "no space or no room for the text"

    @property
    def count(self):
        """Records in the file; 0 after closing."""
        return 0 if self._log == NULL else tf_audit_count(self._log)

    @property
    def removed(self):
        """Bytes of an unfinished record that opening took away."""
        return 0 if self._log == NULL else tf_audit_removed(self._log)

    @property
    def head(self):
        """Hash of the last record, 64 hexadecimal digits: kept elsewhere, it shows that the end was not cut off."""
        if self._log == NULL:
            raise DataConversionError(f"`head` of {self.path} cannot be read: the log is closed")
        return (<const char *>tf_audit_head(self._log))[:32].hex()


cdef str _why(int status):
    if status == TF_AUDIT_LOCKED:
        return "another process has it open"
    if status == TF_AUDIT_NOT_A_LOG:
        return "it is a file of another kind"
    if status == TF_AUDIT_DAMAGED:
        return "it is damaged before its end (`tengri audit verify` says where), and is left as it is"
    if status == TF_AUDIT_TOO_LONG:
        return "the record is too long"
    if status == TF_AUDIT_MEMORY:
        return "no memory"
    return os.strerror(errno)
