from libc.stdint cimport int32_t, uint32_t, uint64_t

from nautilus_trader.core.message cimport Event
from nautilus_trader.model.identifiers cimport InstrumentId
from nautilus_trader.trading.strategy cimport Strategy

from tengri_fast.market.events cimport tf_quote
from tengri_fast.market.reader cimport TickReader
from tengri_fast.nautilus.delta_books cimport DeltaBooks
from tengri_fast.runtime.engine cimport NeuralSignal, TengriNeuralEngine, tf_signal


# What the strategy keeps of each instrument, beside the engine's own state.
cdef struct tf_desk:
    int32_t side            # +1 long, 0 flat, -1 short, from position events
    int32_t in_flight       # orders of this strategy's decisions that are not closed yet
    uint32_t refusals       # orders denied or rejected since the last fill
    uint64_t quiet_until    # no decision is acted on before this event time


cdef class TengriNeuralStrategy(Strategy):
    cdef readonly TengriNeuralEngine engine
    cdef readonly object bundle
    cdef TickReader _reader         # its slots are the engine's
    cdef tf_desk *_desks
    cdef uint32_t _desk_count
    cdef tuple _instrument_ids
    cdef list _policies             # DecisionPolicy by slot, filled at start
    cdef list _quantities           # Quantity by slot, filled at start when a trade size is configured
    cdef dict _bar_types            # slot -> BarType
    cdef DeltaBooks _books          # by slot, for depth from deltas
    cdef object _health_entry       # our own handler, one object so that the bus can compare it
    cdef object _around             # Surroundings: legs and external sources
    cdef object _means              # Means: equity and value-at-risk budget; None without dynamic sizing
    cdef list _sizers               # PositionSizer by slot, from the start on; None without dynamic sizing
    cdef list _sizes                # size of the last entry by slot
    cdef bytes _sizing_state        # what on_load was given, until the sizers are made
    cdef set _told                  # (slot, reason) of entries without a size, each logged once
    cdef object _history            # the HistoryRequest of this start, None when none was made
    cdef dict _flights              # ClientOrderId -> slot
    cdef dict _holdings             # slot -> {PositionId: signed quantity}
    cdef uint32_t _needs            # bit per kind of event that the model reads
    cdef uint32_t _ordinary         # bit per ordinary handler that the subclass overrides
    cdef bint _overrides_signal
    cdef bint _from_deltas
    cdef tf_signal *_records
    cdef size_t _record_count
    cdef size_t _record_room

    cpdef void submit_intent(self, InstrumentId instrument_id, int side)
    cpdef object entry_quantity(self, InstrumentId instrument_id, int side)
    cpdef int position_side(self, InstrumentId instrument_id)
    cpdef bint order_in_flight(self, InstrumentId instrument_id)
    cpdef void track_order(self, order)
    cpdef void refresh_handlers(self)
    cdef void _take_odds(self, const tf_quote *event, bint emit)
    cdef void _watch(self, uint32_t slot, double bid, double ask, uint64_t ts) noexcept
    cdef object _size(self, uint32_t slot, int side)
    cdef bint _listens(self, bint historical) noexcept
    cdef int _index(self, InstrumentId instrument_id) except -2
    cdef uint32_t _slot_by_id(self, InstrumentId instrument_id) except? 0xFFFFFFFF
    cdef void _answer(self, uint32_t slot, bint made)
    cdef void _act(self, const tf_signal *signal)
    cdef void _record(self, const tf_signal *signal)
    cdef int _track(self, Event event) except -2
    cdef void _settle(self, uint32_t slot)
    cdef void _hold(self, uint32_t slot, object position_id, double signed_quantity)
