/* The portfolio that a pre-trade check looks at and its result in every scenario; one block per book of risk.
 *
 * Quantities are in units of the instrument, prices in quote currency, times in ns, money in base currency. A loss is
 * positive. Names (strategies, accounts, position ids, groups, currencies, venues) are small integers given by the
 * caller; 0 is "none given", currency 0 is the base currency. NaN in a price is "the order has none". Handles of
 * instruments count up from 0; those of working orders are used again after an order was closed.
 *
 * Payoffs, valuation, working orders, reduce-only and exclusive groups are defined in tengri_fast.risk.portfolio.
 *
 * One thread. What the order path calls (quotes, fills, orders, tf_risk_what_if) does not allocate while the capacities
 * of tf_risk_new hold; a pool that is full grows by doubling, which is counted. Nothing here reads a clock. */
#ifndef TENGRI_RISK_H
#define TENGRI_RISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tengri/isa.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TF_RISK_NONE UINT32_MAX

enum { TF_PAYOFF_LINEAR = 0, TF_PAYOFF_INVERSE = 1, TF_PAYOFF_BINARY = 2 };

/* Which working orders are taken as filled: rows of the scenario results. */
enum { TF_CASE_FILLED = 0, TF_CASE_BUYS = 1, TF_CASE_SELLS = 2, TF_CASE_WORST = 3, TF_CASES = 4 };

/* The portfolios that tf_risk_what_if looks at. */
enum {
    TF_WHAT_FILLED = 0, /* what is filled */
    TF_WHAT_ORDER = 1,  /* and the order */
    TF_WHAT_BUYS = 2,   /* filled, the order working, all buys filled */
    TF_WHAT_SELLS = 3,  /* all sells */
    TF_WHAT_WORST = 4,  /* of each instrument the worse side */
    TF_WHATS = 5
};

enum {
    TF_ORDER_MARKET,
    TF_ORDER_MARKET_TO_LIMIT,
    TF_ORDER_LIMIT,
    TF_ORDER_STOP_MARKET,
    TF_ORDER_STOP_LIMIT,
    TF_ORDER_MARKET_IF_TOUCHED,
    TF_ORDER_LIMIT_IF_TOUCHED,
    TF_ORDER_TRAILING_STOP_MARKET,
    TF_ORDER_TRAILING_STOP_LIMIT,
    TF_ORDER_TYPES /* this and above: a type nobody knows */
};

/* Why an exposure cannot be valued. */
enum { TF_VALUED = 0, TF_NO_SCENARIOS = 1, TF_NO_PRICE = 2, TF_NO_RATE = 3 };

/* How value at risk and expected shortfall are read off the scenario results. */
enum { TF_TAIL_EMPIRICAL = 0, TF_TAIL_NORMAL = 1, TF_TAIL_CORNISH_FISHER = 2 };

/* What became of a quote. */
enum { TF_QUOTE_USED = 0, TF_QUOTE_UNUSABLE = 1, TF_QUOTE_BACKWARD = 2 };

typedef struct tf_risk tf_risk;

typedef struct {
    uint32_t instruments, positions, orders;
} tf_risk_capacity;

typedef struct {
    uint8_t payoff;
    double multiplier;
    double price_increment, size_increment; /* 0: no grid */
    double min_quantity, max_quantity;      /* 0: none */
    double margin_rate;                     /* initial margin as a share of notional; 0: none */
    uint32_t currency;                      /* of settlement */
    uint32_t venue;
    uint32_t bucket;                        /* correlation bucket */
} tf_risk_facts;

typedef struct {
    uint32_t order; /* handle of the working order that this one is or replaces, else TF_RISK_NONE */
    uint32_t instrument;
    uint32_t strategy, account, position, group;
    uint32_t parent; /* name of the entry that this is an exit of */
    int8_t side;     /* +1 buys, -1 sells */
    uint8_t type;    /* TF_ORDER_* */
    bool reduce_only;
    double quantity; /* whole, filled part included */
    double price, trigger;
    uint64_t ts;
} tf_risk_order;

typedef struct {
    double var, es;
} tf_risk_tail;

typedef struct {
    uint64_t backward_quotes, invalid_quotes, invalid_rates;
    uint64_t rebuilds; /* of the scenario results, from zero */
    uint64_t grown;    /* pools that were full */
    uint64_t missed;   /* tails whose first guess of the threshold did not reach far enough */
} tf_risk_counts;

/* ---- making one ---- */

/* NULL when there is no memory. Zeros in `capacity` (or NULL) mean 64 of each. */
tf_risk *tf_risk_new(const tf_risk_capacity *capacity);
void tf_risk_free(tf_risk *risk);
/* Forgets positions, orders, prices, rates and equity; instruments, scenarios and settings stay. */
void tf_risk_reset(tf_risk *risk);
/* Order of the names of positions (as strcmp): where several positions could be closed by one order, the first one is.
 * Without it the order of the integers. */
void tf_risk_order_names(tf_risk *risk, int (*compare)(void *context, uint32_t a, uint32_t b), void *context);
/* `row`: of the scenario matrix in use, `stress_row`: of the stress matrix; -1 when it has none there. */
tf_status tf_risk_add_instrument(tf_risk *risk, const tf_risk_facts *facts, int64_t row, int64_t stress_row,
                                 uint32_t *instrument);
/* Confidence in (0, 1), default 0.99 empirical; takes effect with the next tf_risk_set_scenarios. */
tf_status tf_risk_set_tail(tf_risk *risk, unsigned method, double level);
/* Scenario returns [rows][count], rows `stride` floats apart, finite and >= -1 (> -1 for an inverse instrument); they
 * are copied. `row_of` [instruments] names the row of each, or -1. `weights` [count] are positive, NULL: all equal. The
 * results are rebuilt from zero after `rebuild_interval` column updates. On an error nothing is changed. count = 0 takes
 * them away. */
tf_status tf_risk_set_scenarios(tf_risk *risk, const float *returns, size_t rows, size_t count, size_t stride,
                                const int64_t *row_of, const double *weights, uint64_t rebuild_interval);
/* The same for stress scenarios. */
tf_status tf_risk_set_stress(tf_risk *risk, const float *returns, size_t rows, size_t count, size_t stride,
                             const int64_t *row_of);

/* ---- events ---- */

int tf_risk_on_quote(tf_risk *risk, uint32_t instrument, double bid, double ask, uint64_t ts);
/* Last traded price; one that is not finite and positive (a binary: outside 0 to 1) is ignored. */
void tf_risk_on_last(tf_risk *risk, uint32_t instrument, double price);
/* Value of one unit of a currency in base currency; not finite or not positive: none from now on. */
tf_status tf_risk_on_rate(tf_risk *risk, uint32_t currency, double value);
void tf_risk_on_equity(tf_risk *risk, double value); /* not finite: unknown */
void tf_risk_on_margin_rate(tf_risk *risk, uint32_t instrument, double rate);
/* TF_ERR_NONFINITE when the position overflowed. */
tf_status tf_risk_on_fill(tf_risk *risk, uint32_t instrument, uint32_t account, uint32_t position, uint32_t strategy,
                          double signed_quantity, double price);
tf_status tf_risk_set_position(tf_risk *risk, uint32_t instrument, uint32_t account, uint32_t position,
                               uint32_t strategy, double quantity, double price);

/* An order that may fill from now on, with a finite quantity > `filled`; in place of `order->order` when that is given.
 * Returns its handle, or TF_RISK_NONE when there is no memory. */
uint32_t tf_risk_order_working(tf_risk *risk, const tf_risk_order *order, double filled);
/* The venue changed it. True when nothing is left to fill: close it then. */
bool tf_risk_order_changed(tf_risk *risk, uint32_t order, double quantity, double price, double trigger);
/* So much of it filled; the same answer. The position is changed by tf_risk_on_fill. */
bool tf_risk_order_filled(tf_risk *risk, uint32_t order, double quantity);
void tf_risk_order_closed(tf_risk *risk, uint32_t order);

/* ---- readings ---- */

double tf_risk_net(const tf_risk *risk, uint32_t instrument);
double tf_risk_mark(const tf_risk *risk, uint32_t instrument);
double tf_risk_rate(const tf_risk *risk, uint32_t currency);
double tf_risk_equity(const tf_risk *risk);
/* Lowest and highest net quantity, every working order of that side filled; with `leaves` units of `order`, NULL: none.
 */
void tf_risk_reach(const tf_risk *risk, uint32_t instrument, const tf_risk_order *order, double leaves, double *low,
                   double *high);
bool tf_risk_reduces(const tf_risk *risk, const tf_risk_order *order, double leaves);
size_t tf_risk_scenarios(const tf_risk *risk);
size_t tf_risk_stress_scenarios(const tf_risk *risk);
/* 0, or TF_NO_*: why the results with an order in this instrument (or TF_RISK_NONE) cannot be known; `culprit` says
 * which instrument is to blame. `stress`: of the stress scenarios. */
int tf_risk_blocked(tf_risk *risk, uint32_t instrument, bool stress, uint32_t *culprit);
/* Value at risk and expected shortfall of the portfolios TF_WHAT_* with `leaves` units of an order (NULL: none). Returns
 * how many were written: 2 when no order is working (the others would be the same), else 5. tf_risk_blocked must have
 * answered 0. Results that are NaN count as infinite losses. */
unsigned tf_risk_what_if(tf_risk *risk, const tf_risk_order *order, double leaves, tf_risk_tail out[TF_WHATS]);
/* Largest loss over the same portfolios and the stress scenario it is in. */
double tf_risk_stress(tf_risk *risk, const tf_risk_order *order, double leaves, uint32_t *scenario);
/* Value at risk and expected shortfall of one TF_CASE_*, and its results [tf_risk_scenarios]. */
tf_risk_tail tf_risk_case(tf_risk *risk, unsigned which);
void tf_risk_pnl(tf_risk *risk, unsigned which, double *out);
void tf_risk_stress_pnl(tf_risk *risk, unsigned which, double *out);
/* Recomputes the results from zero. */
void tf_risk_rebuild(tf_risk *risk);
tf_risk_counts tf_risk_counters(const tf_risk *risk);

#ifdef __cplusplus
}
#endif

#endif
