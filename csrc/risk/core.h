/* The block behind tf_risk. */
#ifndef TENGRI_RISK_CORE_H
#define TENGRI_RISK_CORE_H

#include "risk/scan.h"
#include "risk/state.h"

#include <math.h>

/* One matrix of scenarios and what the portfolio makes in them. */
typedef struct {
    size_t count, stride; /* scenarios; floats from row to row, and doubles from row to row of pnl: a multiple of 16 */
    size_t rows;
    float *returns; /* [rows][stride] */
    double *pnl; /* [TF_CASES][stride]: filled, and what the other cases add to it */
    double **wide; /* [instruments' capacity]: factors of an inverse instrument, NULL for others */
} tf_matrix;

/* What bounds the rounding in the results: gross notional, bound of the results, bound of the error, instruments. */
typedef struct {
    double gross, bound, drift, held;
} tf_sums;

struct tf_risk {
    tf_instrument *instruments;
    uint32_t instrument_count, instrument_room;
    tf_position *positions;
    uint32_t position_room, position_free;
    tf_working *orders;
    uint32_t order_room, order_free, order_count;
    double *rates;
    uint32_t rate_room;
    double equity;
    int (*compare)(void *context, uint32_t a, uint32_t b);
    void *context;
    uint32_t *changed, changed_count;
    uint64_t drains;
    tf_risk_counts counts;

    /* vector.c */
    const tf_scan *scan;
    tf_matrix matrix[2]; /* scenarios, stress scenarios */
    double *weights; /* of the scenarios, adding up to 1; NULL: equal */
    double *scratch[3]; /* each with room for the longer stride + 16; scratch[2] holds the results of one unit */
    uint32_t *picked; /* [stride of the scenarios] */
    unsigned method, next_method;
    double level, next_level;
    size_t rank; /* of the VaR loss counted from the worst */
    double mass; /* scenarios in the tail */
    double z, density; /* quantile of the normal at 1 - level, and its density there */
    uint32_t *dirty, dirty_count;
    uint32_t blocked_count[2];
    uint64_t updates, rebuild_interval;
    tf_sums filled, offsets; /* of row 0, and of the others */
    double held, offset_held;
    tf_risk_tail known[TF_CASES]; /* tails of the cases as they stand */
    bool is_known[TF_CASES];
    double losses[TF_CASES]; /* stress losses likewise */
    uint32_t loss_at[TF_CASES];
    bool loss_known[TF_CASES];
    double edges[TF_WHATS]; /* where the tail began last time, NAN: not known; see tail.c */
    double margins[TF_WHATS]; /* how much further in the next one looks, as a share of it */
};

/* ---- vector.c, for state.c ---- */

void tf_vector_mark(tf_risk *risk, uint32_t instrument); /* anything may have changed */
void tf_vector_mark_price(tf_risk *risk, uint32_t instrument); /* the price, of an exposed instrument */
bool tf_vector_grow(tf_risk *risk, uint32_t instruments); /* room for so many instruments; false: no memory */
void tf_vector_reset(tf_risk *risk);
void tf_vector_free(tf_risk *risk);
tf_status tf_vector_measure(tf_risk *risk, uint32_t instrument); /* after its rows were set */
void tf_vector_refresh(tf_risk *risk);

/* ---- tail.c ---- */

/* One column: a narrow or a wide row of factors. */
typedef struct {
    const float *narrow;
    const double *wide;
} tf_column;

/* Standard normal quantile at 1 - level. */
double tf_tail_quantile(double level);
/* Rank of the VaR loss counted from the worst, and scenarios in the tail: tengri_fast.risk.measures.tail_rank. */
void tf_tail_rank(size_t count, double level, size_t *rank, double *mass);
/* Tail of base + offset + a column. Only what lies below a guess is looked at closer; whatever the guess of the slot
 * (a TF_WHAT_*; -1: none) is, the answer has the same bits. */
tf_risk_tail tf_tail_of(tf_risk *risk, const double *base, const double *offset, tf_column c, double a, int slot);

static inline double tf_larger(double a, double b) { return a > b ? a : b; }
static inline double tf_smaller(double a, double b) { return a < b ? a : b; }

#endif
