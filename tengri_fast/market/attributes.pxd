from tengri_fast.market.events cimport tf_bar, tf_depth10, tf_quote, tf_trade
from tengri_fast.market.slots cimport InstrumentSlots


# Each fills `out` with what the attributes of an object say: 0, or -1 with DataConversionError set.
cdef int quote_by_attributes(InstrumentSlots slots, object tick, tf_quote *out) except -1
cdef int trade_by_attributes(InstrumentSlots slots, object tick, tf_trade *out) except -1
cdef int bar_by_attributes(InstrumentSlots slots, object bar, tf_bar *out) except -1
cdef int depth_by_attributes(InstrumentSlots slots, object depth, tf_depth10 *out) except -1
cdef int sign_of(object side) except -2
cdef object wrong_object(str kind, object value, object error)
