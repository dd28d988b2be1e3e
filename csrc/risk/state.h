/* Inside of a book of risk: what is kept per instrument, position and order. state.c keeps it, reach.c asks what orders
 * can do to it, vector.c keeps the scenario results, limits.c asks. Handles are indexes into the pools and stay valid
 * when a pool grows; pointers do not. */
#ifndef TENGRI_RISK_STATE_H
#define TENGRI_RISK_STATE_H

#include <tengri/risk.h>

/* What an instrument has to bring up to date in the scenario results. */
enum { TF_CLEAN = 0, TF_PRICE = 1, TF_ALL = 2 };

/* What one account, position id and strategy hold. */
typedef struct {
    uint32_t instrument, account, position, strategy;
    uint32_t next; /* of the same instrument, by name; TF_RISK_NONE at the end */
    double quantity, last_price;
    double room; /* scratch of tf_state_opening */
} tf_position;

typedef struct {
    tf_risk_order view; /* `order` is its own handle */
    double filled, leaves;
    uint32_t next, before; /* working orders of the same instrument, oldest first */
    bool used, capped; /* capped: can only take a position down to zero */
    /* First order of the same exclusive group, of the same group and position id, and first capped one of the same
     * scope: where sums over them are collected. */
    uint32_t group_head, place_head, closer_head;
    double largest, sum, size; /* scratch of the first ones */
} tf_working;

typedef struct {
    tf_risk_facts facts;
    double bid, ask, mid; /* of the last usable quote; NaN before */
    double last; /* last traded price, NaN before */
    uint64_t ts; /* of the last quote, usable or not */
    bool valid; /* whether the last quote is usable */
    bool crossed; /* it was not, because bid > ask */
    bool exposed; /* has a position or a working order */
    bool listed; /* in the list of tf_state_changed */
    bool reach_known; /* low and high are up to date */
    uint8_t dirty, priced;
    uint8_t blocked[2]; /* TF_NO_* of the scenarios and of the stress scenarios, while exposed */
    uint32_t positions, orders, orders_end; /* heads of the lists; last order */
    uint32_t position_count;
    uint32_t order_count, special_count; /* working orders; those capped or in an exclusive group */
    double buys, sells; /* open quantity of the plain ones */
    double buys_peak, sells_peak; /* largest since they were last summed from the orders */
    uint32_t sum_changes;
    double net; /* filled, units */
    double low, high; /* reach with every working order of that side filled: tf_state_reached brings them up to date */
    double worst; /* the worse end */
    int64_t row, stress_row; /* in the scenario matrices, -1: none */
    double unit_long, unit_short, unit_price; /* stand-alone value at risk of one unit, without the coefficient */
    double scale; /* multiplier x rate, NaN when it cannot be valued */
    double reach_factor; /* largest |factor| over all scenarios */
    double applied[6], target[6]; /* quantities of the four rows, scale, price */
} tf_instrument;

/* ---- state.c ---- */
double tf_state_snap(const tf_instrument *of, double quantity);
double tf_state_tolerance(const tf_instrument *of, double quantity);
double tf_state_rate(const tf_risk *risk, uint32_t currency); /* NaN: none */
/* Brings low and high of an instrument up to date. */
void tf_state_reached(tf_risk *risk, uint32_t instrument);

/* For limits.c; the arrays may move when an instrument, order or position is added. */
tf_instrument *tf_state_instrument(tf_risk *risk, uint32_t instrument);
uint32_t tf_state_instruments(const tf_risk *risk);
tf_working *tf_state_working(tf_risk *risk, uint32_t order); /* NULL: not working */
tf_position *tf_state_position(tf_risk *risk, uint32_t position);
uint32_t tf_state_working_count(const tf_risk *risk);
/* Instruments whose reach, mark or rate changed since limits.c last asked, their low and high brought up to date: it
 * drains this list into its own sums. */
uint32_t tf_state_changed(tf_risk *risk, const uint32_t **instruments);
void tf_state_changed_done(tf_risk *risk);
/* How often the list was drained: who does not find his own number here was not the only reader. */
uint64_t tf_state_drains(const tf_risk *risk);

/* ---- reach.c ---- */
/* Lowest and highest net quantity, every working order of that side filled, `order` (or NULL) among them with `leaves`
 * units open, in place of its own handle. */
void tf_state_reach(const tf_risk *risk, uint32_t instrument, const tf_risk_order *order, double leaves, double *low,
                    double *high);
/* Quantity open on the side of an order, positions of the other side left out, all orders of its side filled. */
double tf_state_opening(const tf_risk *risk, const tf_risk_order *order, double leaves);
/* The larger of what is reached in the direction of an order and of what is open on that side. */
double tf_state_reached_by(const tf_risk *risk, const tf_risk_order *order, double leaves);
/* Whether an order lets the net quantity get further in its direction than without it. */
bool tf_state_widens(const tf_risk *risk, const tf_risk_order *order, double leaves);
/* Quantity of the position that an order would close. */
double tf_state_scope(const tf_risk *risk, const tf_risk_order *order);
bool tf_state_reduces(const tf_risk *risk, const tf_risk_order *order, double leaves);
/* Value in base currency, the largest over price, trigger and mid; NaN when a price or a rate is missing. */
double tf_state_notional(const tf_risk *risk, const tf_risk_order *order, double quantity);
/* Value in base currency of one unit at the mark (a binary: what a long unit can lose, a short one with `side` < 0);
 * NaN when there is no price or rate. */
double tf_state_unit(const tf_risk *risk, uint32_t instrument, int side);

/* ---- vector.c ---- */
void tf_vector_refresh(tf_risk *risk); /* applies what changed; everything below does it by itself */
/* The end of the reach with the larger stand-alone risk. */
double tf_state_worse(tf_risk *risk, uint32_t instrument);
/* tf_vector_what_if, with `all` of the five cases also where no order is working. */
unsigned tf_vector_cases(tf_risk *risk, const tf_risk_order *order, double leaves, bool all,
                         tf_risk_tail out[TF_WHATS]);
/* 0, or TF_NO_*: why the result with this order cannot be known; `instrument` says which one. */
int tf_vector_blocked(tf_risk *risk, uint32_t instrument_of_order, uint32_t *instrument);
int tf_vector_stress_blocked(tf_risk *risk, uint32_t instrument_of_order, uint32_t *instrument);
/* Value at risk and expected shortfall of: filled, filled + order, and with working orders + order: all buys, all
 * sells, worse sides. Returns how many cases there are (2 or 5). `order` may be NULL. */
unsigned tf_vector_what_if(tf_risk *risk, const tf_risk_order *order, double leaves, tf_risk_tail out[5]);
/* Largest stress loss over the same cases, and the stress scenario it is in. */
double tf_vector_stress(tf_risk *risk, const tf_risk_order *order, double leaves, uint32_t *scenario);

#endif
