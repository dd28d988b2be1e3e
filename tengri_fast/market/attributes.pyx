"""Reading market data objects through their attributes: slower, and right for any type that has them.

This serves every type whose layout is not known, subclasses of those that are, and everything once zero-copy reading is
switched off.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memset

from tengri_fast.market.events cimport TF_DEPTH_LEVELS, TF_SLOT_UNKNOWN, tf_bar, tf_depth10, tf_quote, tf_trade
from tengri_fast.market.layout cimport count_levels
from tengri_fast.market.slots cimport InstrumentSlots

from tengri_fast.errors import DataConversionError

cdef dict BUY_OR_SELL = {"BUYER": 1, "BUY": 1, "SELLER": -1, "SELL": -1, "1": 1, "2": -1}


cdef object wrong_object(str kind, object value, object error):
    return DataConversionError(f"`{kind}` must have the attributes of a {kind}, was {type(value).__name__}: {error}")


cdef int sign_of(object side) except -2:
    return BUY_OR_SELL.get(str(getattr(side, "name", side)).rpartition(".")[2], 0)


cdef uint32_t slot_of_name(InstrumentSlots slots, object instrument_id):
    slot = slots._by_name.get(str(instrument_id))
    return TF_SLOT_UNKNOWN if slot is None else <uint32_t>slot


cdef int quote_by_attributes(InstrumentSlots slots, object tick, tf_quote *out) except -1:
    try:
        out.bid_price = tick.bid_price.as_double()
        out.ask_price = tick.ask_price.as_double()
        out.bid_size = tick.bid_size.as_double()
        out.ask_size = tick.ask_size.as_double()
        out.ts_event, out.ts_init = tick.ts_event, tick.ts_init
        out.slot = slot_of_name(slots, tick.instrument_id)
    except (AttributeError, TypeError, OverflowError, ValueError) as error:
        raise wrong_object("quote", tick, error) from None
    out.reserved = 0
    return 0


cdef int trade_by_attributes(InstrumentSlots slots, object tick, tf_trade *out) except -1:
    try:
        out.price = tick.price.as_double()
        out.size = tick.size.as_double()
        out.ts_event, out.ts_init = tick.ts_event, tick.ts_init
        out.aggressor = sign_of(tick.aggressor_side)
        out.slot = slot_of_name(slots, tick.instrument_id)
    except (AttributeError, TypeError, OverflowError, ValueError) as error:
        raise wrong_object("trade", tick, error) from None
    return 0


cdef int bar_by_attributes(InstrumentSlots slots, object bar, tf_bar *out) except -1:
    try:
        out.open = bar.open.as_double()
        out.high = bar.high.as_double()
        out.low = bar.low.as_double()
        out.close = bar.close.as_double()
        out.volume = bar.volume.as_double()
        out.ts_event, out.ts_init = bar.ts_event, bar.ts_init
        out.slot = slot_of_name(slots, bar.bar_type.instrument_id)
    except (AttributeError, TypeError, OverflowError, ValueError) as error:
        raise wrong_object("bar", bar, error) from None
    out.reserved = 0
    return 0


cdef int depth_by_attributes(InstrumentSlots slots, object depth, tf_depth10 *out) except -1:
    cdef int level
    memset(out, 0, sizeof(tf_depth10))
    try:
        for level, order in enumerate(depth.bids[:TF_DEPTH_LEVELS]):
            out.bid_price[level] = order.price.as_double()
            out.bid_size[level] = order.size.as_double()
        for level, order in enumerate(depth.asks[:TF_DEPTH_LEVELS]):
            out.ask_price[level] = order.price.as_double()
            out.ask_size[level] = order.size.as_double()
        out.ts_event, out.ts_init = depth.ts_event, depth.ts_init
        out.slot = slot_of_name(slots, depth.instrument_id)
    except (AttributeError, TypeError, OverflowError, ValueError) as error:
        raise wrong_object("depth", depth, error) from None
    count_levels(out)
    return 0
