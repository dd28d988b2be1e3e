# The C core of risk, csrc/risk; no code of its own.
from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "tengri/isa.h" nogil:
    ctypedef enum tf_status:
        TF_OK
        TF_ERR_ARGUMENT
        TF_ERR_MEMORY
        TF_ERR_ISA
        TF_ERR_NONFINITE
    tf_status tf_isa_select(const char *name)


cdef extern from "tengri/risk.h" nogil:
    const uint32_t TF_RISK_NONE
    enum:
        TF_PAYOFF_LINEAR
        TF_PAYOFF_INVERSE
        TF_PAYOFF_BINARY
    enum:
        TF_CASE_FILLED
        TF_CASE_BUYS
        TF_CASE_SELLS
        TF_CASE_WORST
    enum:
        TF_WHAT_FILLED
        TF_WHAT_ORDER
        TF_WHAT_BUYS
        TF_WHAT_SELLS
        TF_WHAT_WORST
        TF_WHATS
    enum:
        TF_ORDER_MARKET
        TF_ORDER_MARKET_TO_LIMIT
        TF_ORDER_LIMIT
        TF_ORDER_STOP_MARKET
        TF_ORDER_STOP_LIMIT
        TF_ORDER_MARKET_IF_TOUCHED
        TF_ORDER_LIMIT_IF_TOUCHED
        TF_ORDER_TRAILING_STOP_MARKET
        TF_ORDER_TRAILING_STOP_LIMIT
        TF_ORDER_TYPES
    enum:
        TF_VALUED
        TF_NO_SCENARIOS
        TF_NO_PRICE
        TF_NO_RATE
    enum:
        TF_TAIL_EMPIRICAL
        TF_TAIL_NORMAL
        TF_TAIL_CORNISH_FISHER
    enum:
        TF_QUOTE_USED
        TF_QUOTE_UNUSABLE
        TF_QUOTE_BACKWARD

    ctypedef struct tf_risk:
        pass
    ctypedef struct tf_risk_capacity:
        uint32_t instruments
        uint32_t positions
        uint32_t orders
    ctypedef struct tf_risk_facts:
        uint8_t payoff
        double multiplier
        double price_increment
        double size_increment
        double min_quantity
        double max_quantity
        double margin_rate
        uint32_t currency
        uint32_t venue
        uint32_t bucket
    ctypedef struct tf_risk_order:
        uint32_t order
        uint32_t instrument
        uint32_t strategy
        uint32_t account
        uint32_t position
        uint32_t group
        uint32_t parent
        int8_t side
        uint8_t type
        bint reduce_only
        double quantity
        double price
        double trigger
        uint64_t ts
    ctypedef struct tf_risk_tail:
        double var
        double es
    ctypedef struct tf_risk_counts:
        uint64_t backward_quotes
        uint64_t invalid_quotes
        uint64_t invalid_rates
        uint64_t rebuilds
        uint64_t grown
        uint64_t missed

    tf_risk *tf_risk_new(const tf_risk_capacity *capacity)
    void tf_risk_free(tf_risk *risk)
    void tf_risk_reset(tf_risk *risk)
    void tf_risk_order_names(tf_risk *risk, int (*compare)(void *, uint32_t, uint32_t) noexcept nogil, void *context)
    tf_status tf_risk_add_instrument(tf_risk *risk, const tf_risk_facts *facts, int64_t row, int64_t stress_row,
                                     uint32_t *instrument)
    tf_status tf_risk_set_tail(tf_risk *risk, unsigned method, double level)
    tf_status tf_risk_set_scenarios(tf_risk *risk, const float *returns, size_t rows, size_t count, size_t stride,
                                    const int64_t *row_of, const double *weights, uint64_t rebuild_interval)
    tf_status tf_risk_set_stress(tf_risk *risk, const float *returns, size_t rows, size_t count, size_t stride,
                                 const int64_t *row_of)
    int tf_risk_on_quote(tf_risk *risk, uint32_t instrument, double bid, double ask, uint64_t ts)
    void tf_risk_on_last(tf_risk *risk, uint32_t instrument, double price)
    tf_status tf_risk_on_rate(tf_risk *risk, uint32_t currency, double value)
    void tf_risk_on_equity(tf_risk *risk, double value)
    void tf_risk_on_margin_rate(tf_risk *risk, uint32_t instrument, double rate)
    tf_status tf_risk_on_fill(tf_risk *risk, uint32_t instrument, uint32_t account, uint32_t position,
                              uint32_t strategy, double signed_quantity, double price)
    tf_status tf_risk_set_position(tf_risk *risk, uint32_t instrument, uint32_t account, uint32_t position,
                                   uint32_t strategy, double quantity, double price)
    uint32_t tf_risk_order_working(tf_risk *risk, const tf_risk_order *order, double filled)
    bint tf_risk_order_changed(tf_risk *risk, uint32_t order, double quantity, double price, double trigger)
    bint tf_risk_order_filled(tf_risk *risk, uint32_t order, double quantity)
    void tf_risk_order_closed(tf_risk *risk, uint32_t order)
    double tf_risk_net(const tf_risk *risk, uint32_t instrument)
    double tf_risk_mark(const tf_risk *risk, uint32_t instrument)
    double tf_risk_rate(const tf_risk *risk, uint32_t currency)
    double tf_risk_equity(const tf_risk *risk)
    void tf_risk_reach(const tf_risk *risk, uint32_t instrument, const tf_risk_order *order, double leaves,
                       double *low, double *high)
    bint tf_risk_reduces(const tf_risk *risk, const tf_risk_order *order, double leaves)
    size_t tf_risk_scenarios(const tf_risk *risk)
    size_t tf_risk_stress_scenarios(const tf_risk *risk)
    int tf_risk_blocked(tf_risk *risk, uint32_t instrument, bint stress, uint32_t *culprit)
    unsigned tf_risk_what_if(tf_risk *risk, const tf_risk_order *order, double leaves, tf_risk_tail *out)
    double tf_risk_stress(tf_risk *risk, const tf_risk_order *order, double leaves, uint32_t *scenario)
    tf_risk_tail tf_risk_case(tf_risk *risk, unsigned which)
    void tf_risk_pnl(tf_risk *risk, unsigned which, double *out)
    void tf_risk_stress_pnl(tf_risk *risk, unsigned which, double *out)
    void tf_risk_rebuild(tf_risk *risk)
    tf_risk_counts tf_risk_counters(const tf_risk *risk)


cdef extern from "risk/state.h" nogil:
    ctypedef struct tf_position:
        uint32_t instrument
        uint32_t account
        uint32_t position
        uint32_t strategy
        uint32_t next
        double quantity
        double last_price
    ctypedef struct tf_working:
        tf_risk_order view
        double filled
        double leaves
        uint32_t next
        bint used
        bint capped
    ctypedef struct tf_instrument:
        tf_risk_facts facts
        double bid
        double ask
        double mid
        double last
        uint64_t ts
        bint valid
        bint crossed
        bint exposed
        uint8_t blocked[2]
        uint32_t positions
        uint32_t orders
        uint32_t position_count
        uint32_t order_count
        double net
        double low
        double high
        double unit_long
        double unit_short
    double tf_state_snap(const tf_instrument *of, double quantity)
    double tf_state_tolerance(const tf_instrument *of, double quantity)
    double tf_state_rate(const tf_risk *risk, uint32_t currency)
    tf_instrument *tf_state_instrument(tf_risk *risk, uint32_t instrument)
    uint32_t tf_state_instruments(const tf_risk *risk)
    tf_working *tf_state_working(tf_risk *risk, uint32_t order)
    tf_position *tf_state_position(tf_risk *risk, uint32_t position)
    uint32_t tf_state_working_count(const tf_risk *risk)
    double tf_state_reached_by(const tf_risk *risk, const tf_risk_order *order, double leaves)
    bint tf_state_widens(const tf_risk *risk, const tf_risk_order *order, double leaves)
    double tf_state_notional(const tf_risk *risk, const tf_risk_order *order, double quantity)
    double tf_state_unit(const tf_risk *risk, uint32_t instrument, int side)
    double tf_state_worse(tf_risk *risk, uint32_t instrument)
    void tf_vector_refresh(tf_risk *risk)
    unsigned tf_vector_cases(tf_risk *risk, const tf_risk_order *order, double leaves, bint all, tf_risk_tail *out)
