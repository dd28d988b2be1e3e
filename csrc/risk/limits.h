/* Inside of the limits: limits.c holds the table and asks the rules, limits_sums.c what exposures add up to per scope,
 * limits_flow.c what has happened lately (rates, duplicates, repeats, mids), limits_account.c the day. */
#ifndef TENGRI_RISK_LIMITS_INSIDE_H
#define TENGRI_RISK_LIMITS_INSIDE_H

#include <tengri/risk_limits.h>

#include "state.h"

#define TF_MID_PARTS 16u /* a window of the collar is kept in so many parts, each with its extremes */

/* ---- flow ---- */

/* The last `size` times; an event at `now` counts while now - time < window. */
typedef struct {
    uint64_t *times;
    uint32_t size, head, count;
} tf_ring;

typedef struct {
    uint32_t strategy, instrument, link; /* link: the one before in the same chain, a sequence number */
    int8_t side;
    uint8_t type;
    double quantity, price, trigger;
    uint64_t name, ts;
} tf_sent;

typedef struct {
    tf_sent *sent;   /* TF_DUPLICATES_MAX, by sequence number; number 0 is none */
    uint32_t *heads; /* as many chains */
    uint32_t last;
    uint32_t first; /* below it nothing is remembered */
} tf_duplicates;

/* Executions of one strategy in one instrument on the side it dealt last. */
typedef struct {
    uint32_t strategy, instrument;
    int8_t side; /* 0: free */
    tf_ring times;
} tf_run;

typedef struct {
    tf_run *runs; /* open addressing, a power of two */
    uint32_t room, used;
} tf_runs;

typedef struct {
    uint64_t part[TF_MID_PARTS + 1]; /* number of the part, ts / length; 0: empty */
    double low[TF_MID_PARTS + 1], high[TF_MID_PARTS + 1];
} tf_mids;

/* ---- sums ---- */

/* What one instrument brings to a scope. */
typedef struct {
    double gross, low, high, margin, notional;
    uint32_t working;
    bool unvalued, unvalued_orders; /* what it holds and can reach; what is working */
} tf_part;

typedef struct {
    double gross, low, high, margin, notional;
    uint32_t working, unvalued, unvalued_orders;
} tf_totals;

typedef struct {
    uint8_t kind;
    uint32_t key;
    tf_totals sums;
    tf_part *cells; /* of a strategy: by instrument */
} tf_scope;

/* ---- the table ---- */

typedef struct {
    tf_limit spec;
    uint32_t scope; /* whose sums it reads, TF_RISK_NONE: none */
    tf_ring ring;
    double *each;     /* TF_SCOPE_EACH: by instrument */
    uint8_t *levels;  /* highest share that was passed, by instrument; one entry otherwise */
    bool soft_passed;
    double value, bound; /* of the order under examination; bound NaN: not asked */
} tf_row;

typedef struct {
    bool allowed, halted;
    uint8_t short_rule;
    uint32_t calendar;
    uint32_t venue_scope, bucket_scope, own_scope;
    double own_bid, own_ask; /* best prices of own resting orders, NaN: none */
} tf_tradable;

typedef struct {
    uint64_t *bounds;
    uint32_t count;
    uint64_t from, to;           /* known in between */
    uint64_t part_from, part_to; /* of the last answer */
    bool open;
} tf_calendar;

/* What one counted check has to take back. */
typedef struct {
    uint32_t strategy, instrument;
    bool order;
} tf_counted;

struct tf_limits {
    tf_limits_config config;
    tf_row *rows;
    uint32_t count;
    tf_scope *scopes;
    uint32_t scope_count;
    uint32_t all; /* the scope of the portfolio, TF_RISK_NONE */
    bool exposure, working, resting; /* what the sums have to hold */
    bool rates;                      /* some row is one */
    bool cells;                      /* some scope is of a strategy */
    tf_part *parts;                  /* by instrument */
    tf_tradable *tradable;
    tf_mids *mids; /* NULL: no window */
    uint32_t room;
    bool invalid; /* sums must be made anew */
    uint64_t drains; /* tf_state_drains after the last reading */
    uint32_t updates;
    double total, largest; /* of all parts: now, and since the last exact sum */
    tf_duplicates duplicates;
    tf_runs runs;
    tf_calendar *calendars;
    uint32_t calendar_count;
    tf_account account;
    unsigned breach;   /* of its equity, as long as that and the day stay */
    uint64_t next_day; /* 0: look anew */
    bool watches_account;
    uint64_t now;
    tf_limits_counts counts;
    uint32_t kill_count;
    bool kill_all;
    uint8_t kill_scopes[TF_KILLS_MAX];
    uint32_t kill_keys[TF_KILLS_MAX];
    tf_counted counted[TF_COUNTED]; /* the latest, for tf_limits_undo */
    uint32_t counted_last;
};

/* Sums of products are off by rounding: an excess below a part in 10^9 is none. */
static inline bool tf_over(double value, double limit) { return value > limit + 1e-9 * (limit < 0.0 ? -limit : limit); }

/* ---- limits_flow.c ---- */
bool tf_ring_make(tf_ring *ring, uint32_t size, const tf_ring *before);
void tf_ring_put(tf_ring *ring, uint64_t ts);
void tf_ring_drop_last(tf_ring *ring);
uint32_t tf_ring_within(const tf_ring *ring, uint64_t now, uint64_t window);
bool tf_duplicates_make(tf_duplicates *duplicates);
/* 1: there is one, -1: it cannot be told, 0: none; `age` is the time since. */
int tf_duplicates_find(const tf_duplicates *duplicates, const tf_risk_order *order, uint64_t name, uint64_t now,
                       uint64_t window, uint64_t *age);
void tf_duplicates_put(tf_duplicates *duplicates, const tf_risk_order *order, uint64_t name, uint64_t now);
void tf_duplicates_drop_last(tf_duplicates *duplicates);
void tf_duplicates_free(tf_duplicates *duplicates);
void tf_runs_free(tf_runs *runs);
void tf_mids_put(tf_mids *mids, double mid, uint64_t ts, uint64_t window);
/* Lowest and highest mid of the window and at most a part of it more; false when there is none. */
bool tf_mids_extremes(const tf_mids *mids, uint64_t now, uint64_t window, double *low, double *high);

/* ---- limits_sums.c ---- */
/* Which scopes each instrument belongs to; everything is summed anew at the next check. */
void tf_sums_bind(tf_limits *limits, tf_risk *risk);
/* Takes what changed since the last call. */
void tf_sums_drain(tf_limits *limits, tf_risk *risk);
/* What an instrument brings when it can reach from `low` to `high`. */
void tf_sums_value(const tf_risk *risk, const tf_instrument *of, uint32_t instrument, double low, double high,
                   tf_part *part);
/* Reach of one strategy in one instrument, with an order in place (or NULL). */
void tf_sums_cell_reach(tf_risk *risk, uint32_t instrument, uint32_t strategy, const tf_risk_order *order,
                        double leaves, double *low, double *high);
/* First instrument of a scope that, or whose orders, cannot be valued, `skip` aside. */
uint32_t tf_sums_unvalued(const tf_limits *limits, const tf_scope *scope, uint32_t skip, bool orders);
bool tf_sums_holds(const tf_limits *limits, const tf_scope *scope, uint32_t instrument);

/* ---- limits_account.c ---- */
unsigned tf_account_note(tf_limits *limits, double equity, uint64_t ts);
double tf_account_daily_loss(const tf_account *account);
double tf_account_drawdown(const tf_account *account);

#endif
