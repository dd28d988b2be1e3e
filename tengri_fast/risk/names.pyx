"""Memories of fixed or bounded size for the texts that orders and fills carry."""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport uint8_t, uint32_t

from tengri_fast.risk.capi cimport (
    TF_RISK_NONE,
    tf_instrument,
    tf_position,
    tf_risk_order,
    tf_state_instrument,
    tf_state_instruments,
    tf_state_position,
    tf_state_working,
)

__all__ = ["Recent"]

cdef Py_ssize_t MEMORY = 1 << 16
cdef Py_ssize_t NAMES_KEPT = 4096   # new names that come before an unused one is forgotten, at least
cdef uint8_t USED = 1, ASKED = 2, PINNED = 4


cdef class Recent:
    """A bounded memory: remembers the latest keys and forgets the oldest, so that long runs do not grow.

    Parameters
    ----------
    size : int
        How many keys are remembered.
    """

    def __init__(self, Py_ssize_t size=MEMORY):
        self._size = size
        self.clear()

    def __len__(self):
        return len(self._slots)

    def __contains__(self, key):
        return key in self._slots

    cpdef put(self, object key, object value=None):
        """Remember a key as the latest."""
        slot = self._slots.get(key)
        if slot is not None:
            self._keys[slot] = None
            self._values[slot] = None
        if len(self._keys) < self._size:
            self._slots[key] = len(self._keys)
            self._keys.append(key)
            self._values.append(value)
            return
        oldest = self._keys[self._at]
        if oldest is not None:
            del self._slots[oldest]
        self._slots[key] = self._at
        self._keys[self._at] = key
        self._values[self._at] = value
        self._at = self._at + 1 if self._at + 1 < self._size else 0

    cpdef get(self, object key, object default=None):
        """Value of a key."""
        slot = self._slots.get(key)
        return default if slot is None else self._values[slot]

    cpdef pop(self, object key, object default=None):
        """Value of a key, which is forgotten."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return default
        value = self._values[slot]
        self._keys[slot] = None
        self._values[slot] = None
        return value

    cpdef clear(self):
        """Forget all."""
        self._slots = {}
        self._keys = []
        self._values = []
        self._at = 0


cdef class Names:
    """Small integers for names; those that nothing refers to any more are used again, so that long runs do not grow."""

    def __cinit__(self):
        self._codes = {"": 0}
        self._texts = [""]
        self._free = []
        self._limit = NAMES_KEPT

    def __dealloc__(self):
        PyMem_Free(self._marks)

    cdef uint32_t code(self, str text) except? 0xFFFFFFFF:
        cdef uint32_t made
        if not text:  # none given
            return 0
        known = self._codes.get(text)
        if known is not None:
            made = known
            self._marks[made] |= ASKED
            return made
        if len(self._codes) >= self._limit:
            self._sweep()
        if self._free:
            made = self._free.pop()
            self._texts[made] = text
        else:
            made = len(self._texts)
            if made >= self._room:
                room = 2 * made + 64
                marks = <uint8_t *>PyMem_Realloc(self._marks, <size_t>room)
                if marks is NULL:
                    raise MemoryError("no memory for names")
                self._marks = marks
                self._room = room
            self._texts.append(text)
        self._codes[text] = made
        self._marks[made] = ASKED
        return made

    cdef str text(self, uint32_t code):
        return <str>self._texts[code] if code < len(self._texts) else ""

    cdef void pin(self, uint32_t code) noexcept:
        if code:
            self._marks[code] |= PINNED

    cdef int _sweep(self) except -1:
        """Forget names that no position and no order has, and that nobody asked for since the last sweep."""
        cdef uint32_t i, at
        cdef tf_instrument *of
        cdef tf_position *position
        cdef tf_risk_order *view
        for i in range(tf_state_instruments(self._core)):
            of = tf_state_instrument(self._core, i)
            at = of.positions
            while at != TF_RISK_NONE:
                position = tf_state_position(self._core, at)
                for code in (position.account, position.position, position.strategy):
                    self._marks[<uint32_t>code] |= USED
                at = position.next
            at = of.orders
            while at != TF_RISK_NONE:
                view = &tf_state_working(self._core, at).view
                for code in (view.account, view.position, view.strategy, view.group, view.parent):
                    self._marks[<uint32_t>code] |= USED
                at = tf_state_working(self._core, at).next
        for i in range(1, <uint32_t>len(self._texts)):
            text = self._texts[i]
            if text is None:
                continue
            if not self._marks[i]:
                del self._codes[text]
                self._texts[i] = None
                self._free.append(i)
            self._marks[i] &= PINNED
        self._limit = len(self._codes) + max(NAMES_KEPT, len(self._codes))
        return 0
