from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tengri_fast.risk.capi cimport tf_risk, tf_risk_order
from tengri_fast.risk.names cimport Names, Recent


cdef class Ledger:
    cdef tf_risk *core
    cdef object __weakref__
    cdef dict _instruments      # id -> handle
    cdef list _facts            # by handle, as the next two
    cdef list _quotes
    cdef list _ids
    cdef dict _orders           # client order id -> handle
    cdef dict _order_names      # handle -> client order id
    cdef dict _odd_types        # handle -> an order type nobody knows
    cdef dict _currencies
    cdef dict _venues
    cdef dict _buckets
    cdef Names _names
    cdef Recent _closed
    cdef Recent _trades
    cdef Recent _early_fills
    cdef list _faults
    cdef dict _rows             # id -> row of the scenarios, and of the stress scenarios
    cdef dict _stress_rows
    cdef str _base
    cdef uint64_t _duplicate_fills
    cdef uint64_t _early_count
    cdef uint64_t _fault_total
    cdef uint64_t _late_orders
    cdef uint64_t _unknown_orders
    cdef uint64_t _unknown_quotes
    cdef uint64_t _early_quotes

    # Names and handles.
    cdef uint32_t name(self, str text) except? 0xFFFFFFFF
    cdef uint32_t name_kept(self, str text) except? 0xFFFFFFFF
    cdef str name_text(self, uint32_t name)
    cdef int64_t instrument(self, object instrument_id) except? -2
    cdef uint32_t currency(self, str text) except? 0xFFFFFFFF
    cdef uint32_t venue(self, str text) except? 0xFFFFFFFF
    cdef uint32_t bucket(self, str text) except? 0xFFFFFFFF
    cdef uint32_t order_handle(self, str client_order_id) except? 0xFFFFFFFE
    cdef str order_name(self, uint32_t order)
    cdef double filled(self, str client_order_id) except? -1.0
    cdef int read_order(self, object view, tf_risk_order *out) except -1
    cdef object make_view(self, uint32_t order)

    # Events by handle.
    cdef int put_quote(self, uint32_t instrument, double bid, double ask, uint64_t ts) noexcept
    cdef int put_fill(
        self, uint32_t instrument, double signed_quantity, double price, uint32_t position, uint32_t account,
        uint32_t strategy, str client_order_id, str trade_id
    ) except -1
    cdef int put_position(
        self, uint32_t instrument, double quantity, uint32_t position, uint32_t account, uint32_t strategy,
        double price
    ) except -1
    cdef int order_working(self, tf_risk_order *order, str client_order_id) except -1
    cdef int order_update(self, str client_order_id, double quantity, double price, double trigger) except -1
    cdef int order_closed(self, str client_order_id) except -1
    cdef int add_fault(self, str text) except -1
    cdef uint32_t fault_count(self) noexcept

    cdef int _insert(self, object fact) except -1
    cdef int _discount(self, str client_order_id) except -1
    cdef int _count_fill(self, str client_order_id, double quantity) except -1
    cdef uint32_t _demand_instrument(self, object instrument_id) except? 0xFFFFFFFF
