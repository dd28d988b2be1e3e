from libc.stdint cimport int32_t, uint32_t, uint64_t

from nautilus_trader.common.actor cimport Actor
from nautilus_trader.core.message cimport Command
from nautilus_trader.model.identifiers cimport ClientOrderId, InstrumentId, PositionId
from nautilus_trader.model.objects cimport Currency, Quantity
from nautilus_trader.model.orders.base cimport Order
from nautilus_trader.model.position cimport Position

from tengri_fast.market.reader cimport TickReader


# The last prices of one instrument. Market data only writes here; a check hands what changed to the portfolio.
cdef struct tf_mark:
    double bid              # of the last usable quote, or the last price while there was no quote; NaN before
    double ask
    uint64_t good_ts        # when that was
    uint64_t ts             # of the last quote, usable or not
    bint valid              # whether the last quote is usable
    bint quoted             # whether there ever was a quote
    bint dirty
    bint binary             # worth 0 to 1


cdef class NeuralRiskGate(Actor):
    cdef readonly object gate           # tengri_fast.risk.RiskGate
    cdef readonly object state          # tengri_fast.risk.PortfolioState
    cdef public object alert            # called with one text when something inside fails; None: log only
    cdef readonly dict denied           # rule -> count of refusals that broke it
    cdef readonly dict refused          # first broken rule -> count: adds up to the refusals
    cdef readonly uint64_t submitted    # orders seen in submit commands
    cdef readonly uint64_t forwarded    # orders passed on
    cdef readonly uint64_t modified     # modifications seen
    cdef readonly uint64_t errors       # exceptions caught inside the gate
    cdef readonly list records          # one (ts, client_order_id, strategy_id, violations, kind) per denial
    cdef object _next                   # the handler behind us at the execution endpoint
    cdef object _entry                  # our own handler, one object so that the bus can compare it
    cdef object _on_event_entry
    cdef object _on_account_entry
    cdef object _scenarios
    cdef bint _armed
    cdef bint _retired
    cdef bint _uncertain                # an event could not be followed: read the cache again before the next check
    cdef volatile int _kill_wanted      # set by any thread, cleared by the node's thread
    cdef dict _kills                    # name -> reason; written whole entries at a time, so any thread may
    cdef TickReader _reader
    cdef tf_mark *_marks
    cdef uint32_t _mark_count
    cdef uint32_t _mark_room
    cdef bint _any_dirty
    cdef list _ids                      # InstrumentId by mark
    cdef list _names                    # str by mark
    cdef dict _index                    # InstrumentId -> mark
    cdef dict _held                     # PositionId -> Position, open ones
    cdef dict _working                  # ClientOrderId -> InstrumentId, orders that the portfolio counts as working
    cdef object _ask                    # puts orders to the rules
    cdef object _pending                # modifications that are under way
    cdef set _cash_accounts             # accounts that are valued by Nautilus' portfolio
    cdef object _base                   # base currency
    cdef double _cash
    cdef bint _cash_stale

    cpdef void execute(self, Command command)
    cpdef void _on_account_event(self, event)
    cpdef void _on_order_event(self, event)
    cpdef void _on_kill_timer(self, event)
    cdef void _install(self)
    cdef void _forget(self)
    cdef void _keep_quote(self, uint32_t slot, double bid, double ask, uint64_t ts) noexcept
    cdef void _keep_last(self, uint32_t slot, double price, uint64_t ts) noexcept
    cdef int32_t _follow(self, InstrumentId instrument_id) except -1
    cdef void _read_cached_price(self, uint32_t number)
    cdef void _build(self)
    cdef object _view(self, Order order, PositionId position_id, str parent=*)
    cdef double _base_quantity(self, Order order, Quantity quantity, double price)
    cdef str _account_id(self, Order order)
    cdef str _position_id(self, Order order, PositionId position_id)
    cdef void _refresh(self, InstrumentId instrument_id)
    cdef double _equity(self)
    cdef double _read_cash(self)
    cdef double _rate(self, Currency currency) except? -1.0
    cdef bint _screen(self, object command, object check)
    cdef str _parent(self, Order order)
    cdef void _drop_children(self, Order order)
    cdef void _note(self, uint64_t now, object client_order_id, object strategy_id, object violations, str kind)
    cdef void _complain(self, str text)
    cdef void _sync_positions(self, InstrumentId instrument_id)
    cdef void _state_position(self, Position position, double quantity)
    cdef void _sync_order(self, Order order)
    cdef void _close(self, ClientOrderId client_order_id)
    cdef void _resync(self)
    cdef void _attend(self)
    cdef object _cancel_command(self, Order order)
