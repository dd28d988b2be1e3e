/* The limits in front of every order: a table of rows, what they have counted, and one check that asks all of them.
 *
 * A check does not stop at the first objection: it returns all of them, each with what was found and what is allowed.
 * The three kinds of rules are those of tengri_fast.risk.rules: sanity (is this an order at all; when one of these
 * objects the others are not asked), integrity (also asked of orders that only take risk off) and risk.
 *
 * Exposure of an instrument is the value in base currency, at the mark, of the worse end of what it can reach with
 * every working order of that side filled. Sums over instruments are kept per scope and changed by what changed, with
 * an exact sum every TF_RESUM_INTERVAL changes and whenever a much larger sum has gone: their error stays below that
 * many roundings of 10^4 times the sum.
 *
 * Windows slide exactly: a ring of the last N times, N being the limit. Time never goes back: what comes with an
 * earlier time counts as at the latest one seen. */
#ifndef TENGRI_RISK_LIMITS_H
#define TENGRI_RISK_LIMITS_H

#include <tengri/risk.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TF_RESUM_INTERVAL 4096u
#define TF_VIOLATIONS_MAX 64
#define TF_WARNINGS_MAX 32
#define TF_WARN_AT_MAX 8
#define TF_KILLS_MAX 64
#define TF_COUNTED 256u
#define TF_DUPLICATES_MAX 8192u /* orders remembered; when more fall into one window, nothing passes the rule */

/* Codes of violations, in the order in which they are asked. Their words are tf_rule_text, the names without TF_. */
#define TF_RULES(X)                                                                                                    \
    X(UNKNOWN_INSTRUMENT)                                                                                              \
    X(INVALID_SIDE) X(NON_FINITE_QUANTITY) X(NON_POSITIVE_QUANTITY) X(UNKNOWN_ORDER_TYPE) X(NON_FINITE_PRICE)          \
        X(NON_POSITIVE_PRICE) X(PRICE_OUT_OF_RANGE) X(PRICE_TICK) X(QUANTITY_LOT) X(MAX_QUANTITY) X(MIN_QUANTITY)      \
            X(MISSING_REFERENCE_PRICE) X(STALE_REFERENCE_PRICE) X(PRICE_COLLAR) X(PRICE_COLLAR_WINDOW)                 \
                X(DUPLICATE_ORDER) X(MAX_ORDER_RATE) X(MAX_MESSAGE_RATE) X(PORTFOLIO_FAULT) X(INSTRUMENT_NOT_ALLOWED)  \
                    X(INSTRUMENT_HALTED) X(OUTSIDE_TRADING_WINDOW) X(SHORT_SALE) X(SELF_TRADE) X(MAX_SPREAD)           \
                        X(MAX_ORDER_QUANTITY) X(MAX_ORDER_NOTIONAL) X(MAX_POSITION) X(MAX_WORKING_ORDERS)              \
                            X(MAX_WORKING_NOTIONAL) X(MAX_GROSS_EXPOSURE) X(MAX_NET_EXPOSURE) X(MAX_CONCENTRATION)     \
                                X(MAX_LEVERAGE) X(MAX_MARGIN_USE) X(MAX_PORTFOLIO_VAR) X(MAX_PORTFOLIO_ES)             \
                                    X(MAX_STRESS_LOSS) X(MAX_DAILY_LOSS) X(MAX_DRAWDOWN) X(MISSING_RATE)               \
                                        X(MISSING_EQUITY) X(MISSING_SCENARIOS) X(MISSING_STRESS_SCENARIOS)             \
                                            X(UNPRICED_POSITION) X(MISSING_MODEL_HEALTH) X(MODEL_RUNG)                 \
                                                X(MODEL_OUT_OF_DISTRIBUTION) X(MODEL_CONFIDENCE) X(MODEL_SIGNAL_AGE)   \
                                                    X(NOT_ARMED) X(KILLED) X(INTERNAL_ERROR)

#define TF_RULE_ENUM_(name) TF_##name,
enum { TF_RULES(TF_RULE_ENUM_) TF_RULE_COUNT };
#undef TF_RULE_ENUM_

/* What the number of a violation means, where its code does not say it. */
enum {
    TF_DETAIL_NONE = 0,
    TF_DETAIL_PRICE,           /* about the price */
    TF_DETAIL_TRIGGER,         /* about the trigger price */
    TF_DETAIL_NEEDS_PRICE,     /* an order of this type needs one */
    TF_DETAIL_NEEDS_TRIGGER,
    TF_DETAIL_NO_QUOTE,        /* none yet */
    TF_DETAIL_BAD_QUOTE,       /* crossed, one-sided or not a number */
    TF_DETAIL_NO_TRADE,        /* the reference is the last trade, and there was none */
    TF_DETAIL_NO_VALUE,        /* the order cannot be valued */
    TF_DETAIL_NS,
    TF_DETAIL_BPS,
    TF_DETAIL_OF_EQUITY,       /* `what` is the case of working orders */
    TF_DETAIL_STRESS,          /* `what` is the stress scenario */
    TF_DETAIL_SCOPE,           /* the row is of a scope, which `row` tells */
    TF_DETAIL_INSTRUMENT,      /* `what` is the instrument */
    TF_DETAIL_NO_MEMORY,       /* more orders within the window than are remembered */
    TF_DETAIL_EQUITY,          /* `value` is the equity */
    TF_DETAIL_MESSAGES,        /* messages in the window */
    TF_DETAIL_NO_CALENDAR,     /* no boundaries of trading windows are known for this time */
    TF_DETAIL_FORBIDDEN,       /* short sales are forbidden */
    TF_DETAIL_UPTICK           /* a short sale must be priced above the bid */
};

enum { TF_SCOPE_PORTFOLIO, TF_SCOPE_VENUE, TF_SCOPE_BUCKET, TF_SCOPE_INSTRUMENT, TF_SCOPE_STRATEGY, TF_SCOPE_EACH };

typedef struct tf_limits tf_limits;

/* One limit. `rule` is a code from TF_MAX_ORDER_RATE on that has a number. Rates have `window` and `reserve`. */
typedef struct {
    uint8_t rule, scope; /* TF_SCOPE_EACH: every instrument by itself, its limit set by tf_limits_each */
    bool of_equity;      /* limit and soft are fractions of equity, the value is money */
    uint32_t key;        /* id of the venue, bucket, instrument or strategy */
    double limit;        /* NaN: warns only */
    double soft;         /* a warning when it is passed; NaN: none */
    uint64_t window;     /* ns */
    uint32_t reserve;    /* of a rate: kept for orders that only take risk off */
} tf_limit;

/* What is not a row; NaN and 0 switch a rule off. */
typedef struct {
    uint64_t stale, collar_window, duplicate_window, repeat_window, max_signal_age; /* ns */
    double collar_bps, max_spread_bps;
    double max_out_of_distribution, min_confidence, max_rung;
    uint32_t max_repeats, max_rejects;
    bool collar_last, deny_self_trade;
    uint64_t day_offset; /* ns after midnight UTC at which the trading day begins */
    double warn_at[TF_WARN_AT_MAX]; /* rising shares of a limit */
    uint32_t warn_count;
} tf_limits_config;

typedef struct {
    double rung, out_of_distribution, confidence;
    uint64_t ts;
} tf_health;

/* What the check is told beside the order. */
typedef struct {
    double filled;     /* of the order, units */
    uint64_t name;     /* a hash of the order's name; an order is no duplicate of one of the same name. 0: none */
    uint32_t faults;   /* events that could not be booked */
    bool armed;
    bool modify;       /* a change of a working order: a message, not an order */
    bool calmer;       /* the change only takes risk off */
    bool exit_only; /* a reduce-only exit that its entry covers: integrity, and the position where it widens that */
    bool covered; /* the value of one order was asked with its entry */
    bool dry; /* nothing is counted */
    bool health_failed; /* the source of the model's health raised */
    const tf_health *health; /* of the model behind the order; NULL: no source */
} tf_ask;

typedef struct {
    uint8_t rule, detail;
    uint32_t row; /* of the table, TF_RISK_NONE: no row */
    uint32_t what; /* see TF_DETAIL_* */
    double value, limit;
} tf_violation;

typedef struct {
    uint32_t row, instrument; /* the instrument of a row of TF_SCOPE_EACH */
    double value, limit;
    double at; /* the share that was passed; NaN: the soft limit was */
} tf_warning;

typedef struct {
    bool allowed, reducing;
    bool sane; /* no sanity rule objected */
    bool health_excused; /* a failed source of health was let pass for an order that takes risk off */
    uint8_t breach; /* TF_BREACH_*: the caller turns the switch on */
    uint32_t count, warning_count;
    double leaves;
    tf_violation violations[TF_VIOLATIONS_MAX];
    tf_warning warnings[TF_WARNINGS_MAX];
} tf_verdict;

/* What a limit is used by. */
typedef struct {
    uint32_t row, instrument; /* TF_RISK_NONE: not of one instrument */
    double value, limit; /* NaN value: not known */
} tf_usage;

typedef struct {
    uint64_t checks, backwards, resums, syncs;
} tf_limits_counts;

/* Daily loss and drawdown; what has to survive a restart. */
typedef struct {
    double equity, day_start, peak;
    int64_t day; /* days since 1970 of the trading day, -1: none yet */
    uint64_t ts;
} tf_account;

enum { TF_BREACH_DAILY_LOSS = 1, TF_BREACH_DRAWDOWN = 2 };

const char *tf_rule_text(unsigned rule);

/* NULL when there is no memory. */
tf_limits *tf_limits_new(void);
void tf_limits_free(tf_limits *limits);

/* Takes a new table, whole or not at all: 0, or -1 when there is no memory, and then nothing changed. Rings of rates,
 * levels of warnings and what else was counted is kept where rule, scope and key stay. */
int tf_limits_set(tf_limits *limits, tf_risk *risk, const tf_limits_config *config, const tf_limit *rows,
                  uint32_t count);
/* Makes room for instruments that were added; 0, or -1 when there is no memory. Call it when tf_limits_room is less
 * than the number of instruments: a check denies an instrument that it has no room for. */
int tf_limits_grow(tf_limits *limits, tf_risk *risk);
uint32_t tf_limits_room(const tf_limits *limits);
/* Of one instrument: whether it may be traded, its short rule (0 allowed, 1 forbidden, 2 uptick), its calendar
 * (TF_RISK_NONE: always open). */
void tf_limits_instrument(tf_limits *limits, uint32_t instrument, bool allowed, uint8_t short_rule, uint32_t calendar);
/* Limit of one instrument in a row of TF_SCOPE_EACH. */
void tf_limits_each(tf_limits *limits, uint32_t row, uint32_t instrument, double limit);
void tf_limits_status(tf_limits *limits, uint32_t instrument, bool tradable);
/* Boundaries of a calendar, rising UTC ns; open between the first and the second, the third and the fourth, and so on;
 * known from `from` to `to`. 0, or -1 when there is no memory. */
int tf_limits_calendar(tf_limits *limits, uint32_t calendar, const uint64_t *bounds, uint32_t count, uint64_t from,
                       uint64_t to);
/* Whether the calendar of an instrument knows this time. */
bool tf_limits_calendar_knows(const tf_limits *limits, uint32_t instrument, uint64_t ts);

/* Asks every rule. An order that passes is counted at once (not when `dry`). No allocation. */
bool tf_limits_check(tf_limits *limits, tf_risk *risk, const tf_risk_order *order, const tf_ask *ask,
                     tf_verdict *verdict);
/* Takes back what the last `count` counted checks counted (at most TF_COUNTED): of a list one order was denied. */
void tf_limits_undo(tf_limits *limits, tf_risk *risk, uint32_t count);
/* Takes back a warning of an order that did not go: the next order that passes a share of this limit tells it. */
void tf_limits_unwarn(tf_limits *limits, uint32_t row, uint32_t instrument);
/* Counts a cancel, which is never refused. */
void tf_limits_on_cancel(tf_limits *limits, tf_risk *risk, uint32_t strategy, uint32_t instrument, uint64_t ts);
/* A mid price, for the collar over a window; none is lost between two checks that way. */
void tf_limits_on_mid(tf_limits *limits, uint32_t instrument, double mid, uint64_t ts);
/* A fill: true when it is one too many on the same side within the window. -1: no memory. */
int tf_limits_on_execution(tf_limits *limits, uint32_t strategy, uint32_t instrument, int side, uint64_t ts);
void tf_limits_clear_executions(tf_limits *limits, uint32_t strategy);

/* Equity of the account: TF_BREACH_* of the limits that are passed. */
unsigned tf_limits_on_equity(tf_limits *limits, double equity, uint64_t ts);
/* New reference after a person said that trading goes on: the day's start, or the peak, is the equity of now. */
void tf_limits_restart(tf_limits *limits, unsigned breach);
const tf_account *tf_limits_account(const tf_limits *limits);
void tf_limits_set_account(tf_limits *limits, const tf_account *account);

/* Kill switches: of a scope, TF_SCOPE_PORTFOLIO for all. Replaces all of them; at most TF_KILLS_MAX are told apart,
 * more hold for everything. */
void tf_limits_kills(tf_limits *limits, const uint8_t *scopes, const uint32_t *keys, uint32_t count);

/* Forgets counts, levels and the account; the table stays. */
void tf_limits_reset(tf_limits *limits);
/* What each row is used by now; returns how many were written, at most `room`. */
uint32_t tf_limits_usage(tf_limits *limits, tf_risk *risk, tf_usage *usage, uint32_t room);
tf_limits_counts tf_limits_counters(const tf_limits *limits);
/* Latest time seen, ns. */
uint64_t tf_limits_now(const tf_limits *limits);

#ifdef __cplusplus
}
#endif

#endif
