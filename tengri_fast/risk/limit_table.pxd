from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tengri_fast.risk.portfolio cimport PortfolioState, tf_risk, tf_risk_order


cdef extern from "tengri/risk_limits.h" nogil:
    enum:
        TF_VIOLATIONS_MAX
        TF_WARNINGS_MAX
        TF_WARN_AT_MAX
        TF_KILLS_MAX
    enum:
        TF_RULE_COUNT
        TF_UNKNOWN_INSTRUMENT
        TF_INTERNAL_ERROR
        TF_MAX_POSITION
        TF_NOT_ARMED
        TF_KILLED
    enum:
        TF_SCOPE_PORTFOLIO
        TF_SCOPE_VENUE
        TF_SCOPE_BUCKET
        TF_SCOPE_INSTRUMENT
        TF_SCOPE_STRATEGY
        TF_SCOPE_EACH
    enum:
        TF_BREACH_DAILY_LOSS
        TF_BREACH_DRAWDOWN

    ctypedef struct tf_limits:
        pass
    ctypedef struct tf_limit:
        uint8_t rule
        uint8_t scope
        bint of_equity
        uint32_t key
        double limit
        double soft
        uint64_t window
        uint32_t reserve
    ctypedef struct tf_limits_config:
        uint64_t stale
        uint64_t collar_window
        uint64_t duplicate_window
        uint64_t repeat_window
        uint64_t max_signal_age
        double collar_bps
        double max_spread_bps
        double max_out_of_distribution
        double min_confidence
        double max_rung
        uint32_t max_repeats
        uint32_t max_rejects
        bint collar_last
        bint deny_self_trade
        uint64_t day_offset
        double *warn_at
        uint32_t warn_count
    ctypedef struct tf_health:
        double rung
        double out_of_distribution
        double confidence
        uint64_t ts
    ctypedef struct tf_ask:
        double filled
        uint64_t name
        uint32_t faults
        bint armed
        bint modify
        bint calmer
        bint exit_only
        bint covered
        bint dry
        bint health_failed
        const tf_health *health
    ctypedef struct tf_violation:
        uint8_t rule
        uint8_t detail
        uint32_t row
        uint32_t what
        double value
        double limit
    ctypedef struct tf_warning:
        uint32_t row
        uint32_t instrument
        double value
        double limit
        double at
    ctypedef struct tf_verdict:
        bint allowed
        bint reducing
        bint sane
        bint health_excused
        uint8_t breach
        uint32_t count
        uint32_t warning_count
        double leaves
        tf_violation *violations
        tf_warning *warnings
    ctypedef struct tf_usage:
        uint32_t row
        uint32_t instrument
        double value
        double limit
    ctypedef struct tf_limits_counts:
        uint64_t checks
        uint64_t backwards
        uint64_t resums
    ctypedef struct tf_account:
        double equity
        double day_start
        double peak
        int64_t day
        uint64_t ts

    const char *tf_rule_text(unsigned rule)
    tf_limits *tf_limits_new()
    void tf_limits_free(tf_limits *limits)
    int tf_limits_set(tf_limits *limits, tf_risk *risk, const tf_limits_config *config, const tf_limit *rows,
                      uint32_t count)
    int tf_limits_grow(tf_limits *limits, tf_risk *risk)
    uint32_t tf_limits_room(const tf_limits *limits)
    void tf_limits_instrument(tf_limits *limits, uint32_t instrument, bint allowed, uint8_t short_rule,
                              uint32_t calendar)
    void tf_limits_each(tf_limits *limits, uint32_t row, uint32_t instrument, double limit)
    void tf_limits_status(tf_limits *limits, uint32_t instrument, bint tradable)
    int tf_limits_calendar(tf_limits *limits, uint32_t calendar, const uint64_t *bounds, uint32_t count,
                           uint64_t begin, uint64_t end)
    bint tf_limits_calendar_knows(const tf_limits *limits, uint32_t instrument, uint64_t ts)
    bint tf_limits_check(tf_limits *limits, tf_risk *risk, const tf_risk_order *order, const tf_ask *ask,
                         tf_verdict *verdict)
    void tf_limits_undo(tf_limits *limits, tf_risk *risk, uint32_t count)
    void tf_limits_unwarn(tf_limits *limits, uint32_t row, uint32_t instrument)
    void tf_limits_on_cancel(tf_limits *limits, tf_risk *risk, uint32_t strategy, uint32_t instrument, uint64_t ts)
    void tf_limits_on_mid(tf_limits *limits, uint32_t instrument, double mid, uint64_t ts)
    int tf_limits_on_execution(tf_limits *limits, uint32_t strategy, uint32_t instrument, int side, uint64_t ts)
    void tf_limits_clear_executions(tf_limits *limits, uint32_t strategy)
    unsigned tf_limits_on_equity(tf_limits *limits, double equity, uint64_t ts)
    void tf_limits_restart(tf_limits *limits, unsigned breach)
    const tf_account *tf_limits_account(const tf_limits *limits)
    void tf_limits_set_account(tf_limits *limits, const tf_account *account)
    void tf_limits_kills(tf_limits *limits, const uint8_t *scopes, const uint32_t *keys, uint32_t count)
    void tf_limits_reset(tf_limits *limits)
    uint32_t tf_limits_usage(tf_limits *limits, tf_risk *risk, tf_usage *usage, uint32_t room)
    tf_limits_counts tf_limits_counters(const tf_limits *limits)
    uint64_t tf_limits_now(const tf_limits *limits)


cdef class LimitTable:
    cdef readonly PortfolioState portfolio
    cdef readonly object limits         # tengri_fast.risk.RiskLimits
    cdef readonly object history        # deque of (kind, name, reason, ts)
    cdef readonly bint wants_mids       # whether note_mid is needed
    cdef readonly uint64_t generation
    cdef tf_limits *_limits
    cdef bint _needs_scenarios
    cdef bint _needs_health
    cdef bint _unresolved               # a row or a switch names an instrument that is not known yet
    cdef uint32_t _max_rejects
    cdef list _rows                     # LimitRow by row
    cdef list _calendars                # tuples of TradingWindow by calendar
    cdef dict _calendar_of              # (kind, name) -> calendar
    cdef dict _kills                    # name -> (reason, scope)
    cdef dict _halts                    # instrument -> reason
    cdef dict _rejects                  # strategy -> refusals in a row
    cdef object _on_alert
    cdef object _on_warning
    cdef uint64_t _alerts
    cdef uint64_t _warnings

    cdef void note_mid(self, uint32_t instrument, double mid, uint64_t ts) noexcept
    cdef int _take(self, object limits) except -1
    cdef int _set_rows(self, object limits, list rows) except -1
    cdef int _sync(self) except -1
    cdef int _set_instruments(self, uint32_t begin) except -1
    cdef int _refresh_calendar(self, const tf_risk_order *order) except -1
    cdef int _write_kills(self) except -1
    cdef uint32_t _key(self, str kind, str name) except? 0xFFFFFFFE
    cdef int _breached(self, unsigned breach) except -1
    cdef str _kill_reason(self, const tf_risk_order *order)
    cdef object _warning(self, const tf_warning *warning)
    cdef str _row_scope(self, uint32_t row, uint32_t instrument)
    cdef void _tell(self, str alert)
