/* The result of the portfolio in every scenario, kept current event by event, and what an order would change in it.
 *
 * An event marks the column of its instrument; the next reading applies old-to-new differences, O(scenarios) per marked
 * column. Row 0 holds what is filled, rows 1 to 3 what working orders would add in the other cases: most instruments
 * have none and touch row 0 only. With r the return of a scenario, one unit is worth coefficient x factor:
 *
 *     payoff   coefficient   factor
 *     linear   scale P       r
 *     inverse  scale / P     r / (1 + r)
 *     binary   scale         clip(P (1 + r), 0, 1) - P
 *
 * Rounding: one update of a column errs by at most a few times 2^-52 (|old| + |new| + |sum|) per scenario. These bounds
 * are added up next to the gross notional; the rows are rebuilt from zero long before they can be seen, and are exactly
 * zero when nothing is held. */
#include "risk/core.h"

#include <stdlib.h>
#include <string.h>

#define DRIFT_LIMIT 1e-11
#define EPSILON 0x1p-52
#define MANY 32 /* marked columns from which a rebuild may be the shorter way */

/* ---- memory ---- */

static void *aligned(size_t count, size_t size) {
    const size_t bytes = (count * size + 63) / 64 * 64;
    void *block = aligned_alloc(64, bytes ? bytes : 64);
    if (block) memset(block, 0, bytes ? bytes : 64);
    return block;
}

static void free_wide(double **wide, uint32_t count) {
    for (uint32_t i = 0; wide && i < count; i++) free(wide[i]);
}

bool tf_vector_grow(tf_risk *risk, uint32_t instruments) {
    uint32_t *dirty = realloc(risk->dirty, instruments * sizeof *dirty);
    if (!dirty) return false;
    risk->dirty = dirty;
    for (int m = 0; m < 2; m++) {
        double **wide = realloc(risk->matrix[m].wide, instruments * sizeof *wide);
        if (!wide) return false;
        risk->matrix[m].wide = wide;
        for (uint32_t i = risk->instrument_room; i < instruments; i++) wide[i] = NULL;
    }
    return true;
}

void tf_vector_free(tf_risk *risk) {
    for (int m = 0; m < 2; m++) {
        free_wide(risk->matrix[m].wide, risk->instrument_count);
        free(risk->matrix[m].wide);
        free(risk->matrix[m].returns);
        free(risk->matrix[m].pnl);
    }
    for (int i = 0; i < 3; i++) free(risk->scratch[i]);
    free(risk->picked);
    free(risk->weights);
    free(risk->dirty);
}

static const float *row_of(const tf_matrix *matrix, int64_t row) {
    return matrix->returns + (size_t)row * matrix->stride;
}
static int64_t instrument_row(const tf_instrument *of, int m) { return m ? of->stress_row : of->row; }

/* Factors r / (1 + r) of an inverse instrument. */
static tf_status make_wide(const tf_matrix *matrix, int64_t row, double **made) {
    const float *r = row_of(matrix, row);
    double *wide = aligned(matrix->stride + 16, sizeof *wide);
    if (!wide) return TF_ERR_MEMORY;
    for (size_t s = 0; s < matrix->count; s++) {
        if (!(r[s] > -1.0f)) {
            free(wide);
            return TF_ERR_ARGUMENT;
        }
        wide[s] = (double)r[s] / (1.0 + (double)r[s]);
    }
    *made = wide;
    return TF_OK;
}

/* ---- one unit ---- */

static double coefficient(const tf_instrument *of, double scale, double price) {
    if (scale == 0.0) return 0.0;
    if (of->facts.payoff == TF_PAYOFF_LINEAR) return scale * price;
    return of->facts.payoff == TF_PAYOFF_INVERSE ? scale / price : scale;
}

/* Factors of an instrument with a row; those of a binary are written to scratch[2]. */
static tf_column column_of(tf_risk *risk, uint32_t instrument, int m, double price) {
    const tf_instrument *of = &risk->instruments[instrument];
    const tf_matrix *matrix = &risk->matrix[m];
    tf_column c = {row_of(matrix, instrument_row(of, m)), NULL};
    if (of->facts.payoff == TF_PAYOFF_INVERSE) {
        c.wide = matrix->wide[instrument];
    } else if (of->facts.payoff == TF_PAYOFF_BINARY) {
        risk->scan->binary(risk->scratch[2], c.narrow, price, matrix->count);
        c.wide = risk->scratch[2];
    }
    return c;
}

/* Largest loss of base + offset + a column over the stress scenarios, and where it is. */
static double loss_of(tf_risk *risk, const double *base, const double *offset, tf_column c, double a, uint32_t *at) {
    const size_t n = risk->matrix[1].count;
    double *x = risk->scratch[0];
    if (c.wide) risk->scan->line_wide(x, base, offset, c.wide, a, n);
    else risk->scan->line(x, base, offset, c.narrow, a, n);
    const double least = risk->scan->least(x, n);
    if (at) {
        size_t s = 0;
        while (s + 1 < n && !(x[s] <= least || x[s] != x[s])) s++;
        *at = (uint32_t)s;
    }
    return -least;
}

/* Stand-alone risk of one unit, long and short, without the coefficient: at risk, or by stress where there is nothing
 * else. */
static void measure_units(tf_risk *risk, uint32_t instrument, double price) {
    tf_instrument *of = &risk->instruments[instrument];
    const int m = risk->matrix[0].count && of->row >= 0 ? 0 : 1;
    of->unit_long = of->unit_short = 0.0;
    of->unit_price = price;
    if (!risk->matrix[m].count || instrument_row(of, m) < 0) return;
    const tf_column c = column_of(risk, instrument, m, price);
    const double *zeros = risk->scratch[1] + 2 * (risk->matrix[0].stride + 16); /* kept zero */
    if (m == 0) {
        of->unit_long = tf_tail_of(risk, zeros, NULL, c, 1.0, -1).var;
        of->unit_short = tf_tail_of(risk, zeros, NULL, c, -1.0, -1).var;
    } else {
        of->unit_long = loss_of(risk, zeros, NULL, c, 1.0, NULL);
        of->unit_short = loss_of(risk, zeros, NULL, c, -1.0, NULL);
    }
}

static void measure(tf_risk *risk, uint32_t instrument) {
    tf_instrument *of = &risk->instruments[instrument];
    of->unit_price = NAN;
    of->reach_factor = 1.0;
    if (of->facts.payoff == TF_PAYOFF_BINARY) return; /* depends on the price */
    double most = 0.0;
    bool any = false;
    for (int m = 0; m < 2; m++) {
        if (!risk->matrix[m].count || instrument_row(of, m) < 0) continue;
        const tf_column c = column_of(risk, instrument, m, NAN);
        any = true;
        for (size_t s = 0; s < risk->matrix[m].count; s++)
            most = tf_larger(most, fabs(c.wide ? c.wide[s] : (double)c.narrow[s]));
    }
    if (any) of->reach_factor = most;
    measure_units(risk, instrument, NAN);
}

tf_status tf_vector_measure(tf_risk *risk, uint32_t instrument) {
    tf_instrument *of = &risk->instruments[instrument];
    for (int m = 0; m < 2; m++) {
        risk->matrix[m].wide[instrument] = NULL;
        if (of->facts.payoff != TF_PAYOFF_INVERSE || !risk->matrix[m].count || instrument_row(of, m) < 0) continue;
        const tf_status status = make_wide(&risk->matrix[m], instrument_row(of, m), &risk->matrix[m].wide[instrument]);
        if (status != TF_OK) {
            free(risk->matrix[0].wide[instrument]);
            risk->matrix[0].wide[instrument] = NULL;
            return status;
        }
    }
    if (risk->scratch[0]) measure(risk, instrument);
    return TF_OK;
}

/* ---- set-up ---- */

static void forget(tf_risk *risk) {
    memset(risk->is_known, 0, sizeof risk->is_known);
    memset(risk->loss_known, 0, sizeof risk->loss_known);
}

/* All columns are to be applied anew, to rows of zeros. */
static void start_over(tf_risk *risk) {
    for (int m = 0; m < 2; m++) {
        tf_matrix *matrix = &risk->matrix[m];
        if (matrix->count) memset(matrix->pnl, 0, TF_CASES * matrix->stride * sizeof *matrix->pnl);
        risk->blocked_count[m] = 0;
    }
    risk->filled = risk->offsets = (tf_sums){0};
    risk->held = risk->offset_held = 0.0;
    risk->updates = 0;
    risk->dirty_count = 0;
    forget(risk);
    for (uint32_t i = 0; i < risk->instrument_count; i++) {
        tf_instrument *of = &risk->instruments[i];
        memset(of->applied, 0, sizeof of->applied);
        memset(of->target, 0, sizeof of->target);
        of->blocked[0] = of->blocked[1] = 0;
        of->dirty = TF_ALL;
        of->priced = TF_ALL;
        risk->dirty[risk->dirty_count++] = i;
    }
}

void tf_vector_reset(tf_risk *risk) { start_over(risk); }

tf_status tf_risk_set_tail(tf_risk *risk, unsigned method, double level) {
    if (method > TF_TAIL_CORNISH_FISHER || !(level > 0.0 && level < 1.0)) return TF_ERR_ARGUMENT;
    risk->next_method = method;
    risk->next_level = level;
    return TF_OK;
}

static tf_status set_matrix(tf_risk *risk, int m, const float *returns, size_t rows, size_t count, size_t stride,
                            const int64_t *row_for, const double *weights, uint64_t rebuild_interval) {
    tf_matrix made = {.count = count, .rows = rows, .stride = (count + 15) / 16 * 16};
    double *scratch[3] = {NULL, NULL, NULL}, *own_weights = NULL, mass = 1.0;
    uint32_t *picked = NULL;
    size_t rank = 1;
    tf_status status = TF_ERR_MEMORY;
    if (count && (rows < 1 || stride < count || count >= UINT32_MAX / 4)) return TF_ERR_ARGUMENT;
    for (size_t i = 0; count && i < rows; i++) {
        for (size_t s = 0; s < count; s++) {
            const float r = returns[i * stride + s];
            if (!(r >= -1.0f && r < INFINITY)) return TF_ERR_NONFINITE;
        }
    }
    for (uint32_t i = 0; count && i < risk->instrument_count; i++) {
        if (row_for[i] >= (int64_t)rows) return TF_ERR_ARGUMENT;
    }
    if (m == 0 && count) {
        tf_tail_rank(count, risk->next_level, &rank, &mass);
        if (!(mass > 0.0) || rank < 1 || rank > count) return TF_ERR_ARGUMENT;
        if (risk->next_method != TF_TAIL_EMPIRICAL && count < 2) return TF_ERR_ARGUMENT;
    }
    double total = 0.0;
    for (size_t s = 0; weights && s < count; s++) {
        if (!(weights[s] > 0.0)) return TF_ERR_ARGUMENT;
        total += weights[s];
    }
    if (weights && !(total < INFINITY)) return TF_ERR_ARGUMENT;

    const size_t other = risk->matrix[1 - m].stride, first = m ? other : made.stride;
    const size_t longer = made.stride > other ? made.stride : other;
    /* [1] is three parts: two for a selection, and zeros, see measure_units. */
    const size_t rooms[3] = {longer + 16, 2 * (first + 16) + longer + 16, longer + 16};
    for (int i = 0; i < 3; i++) {
        if (!(scratch[i] = aligned(rooms[i], sizeof(double)))) goto failed;
    }
    if (!(made.wide = calloc(risk->instrument_room, sizeof *made.wide))) goto failed;
    if (count) {
        made.returns = aligned(rows * made.stride + 16, sizeof *made.returns);
        made.pnl = aligned(TF_CASES * made.stride + 16, sizeof *made.pnl);
        if (!made.returns || !made.pnl) goto failed;
        for (size_t i = 0; i < rows; i++)
            memcpy(made.returns + i * made.stride, returns + i * stride, count * sizeof *returns);
        for (uint32_t i = 0; i < risk->instrument_count; i++) {
            if (risk->instruments[i].facts.payoff != TF_PAYOFF_INVERSE || row_for[i] < 0) continue;
            status = make_wide(&made, row_for[i], &made.wide[i]);
            if (status != TF_OK) goto failed;
        }
        status = TF_ERR_MEMORY;
        if (weights) {
            if (!(own_weights = aligned(made.stride, sizeof *own_weights)) ||
                !(picked = aligned(made.stride + 16, sizeof *picked)))
                goto failed;
            for (size_t s = 0; s < count; s++) own_weights[s] = weights[s] / total;
        }
    }

    /* Nothing can fail from here on. */
    tf_matrix *matrix = &risk->matrix[m];
    free_wide(matrix->wide, risk->instrument_count);
    free(matrix->wide);
    free(matrix->returns);
    free(matrix->pnl);
    *matrix = made;
    for (int i = 0; i < 3; i++) {
        free(risk->scratch[i]);
        risk->scratch[i] = scratch[i];
    }
    if (m == 0) {
        free(risk->weights);
        free(risk->picked);
        risk->weights = own_weights;
        risk->picked = picked;
        risk->method = risk->next_method;
        risk->level = risk->next_level;
        risk->rank = rank;
        risk->mass = mass;
        risk->z = tf_tail_quantile(risk->level);
        risk->density = exp(-0.5 * risk->z * risk->z) * 0.39894228040143267794;
        risk->rebuild_interval = rebuild_interval ? rebuild_interval : 4096;
        for (int i = 0; i < TF_WHATS; i++) {
            risk->edges[i] = NAN;
            risk->margins[i] = 0.3;
        }
    }
    for (uint32_t i = 0; i < risk->instrument_count; i++) {
        tf_instrument *of = &risk->instruments[i];
        const int64_t row = count ? (row_for[i] < 0 ? -1 : row_for[i]) : -1;
        *(m ? &of->stress_row : &of->row) = row;
    }
    for (uint32_t i = 0; i < risk->instrument_count; i++) measure(risk, i);
    start_over(risk);
    return TF_OK;

failed:
    free_wide(made.wide, risk->instrument_count);
    free(made.wide);
    free(made.returns);
    free(made.pnl);
    for (int i = 0; i < 3; i++) free(scratch[i]);
    free(own_weights);
    free(picked);
    return status;
}

tf_status tf_risk_set_scenarios(tf_risk *risk, const float *returns, size_t rows, size_t count, size_t stride,
                                const int64_t *row_of_each, const double *weights, uint64_t rebuild_interval) {
    return set_matrix(risk, 0, returns, rows, count, stride, row_of_each, weights, rebuild_interval);
}

tf_status tf_risk_set_stress(tf_risk *risk, const float *returns, size_t rows, size_t count, size_t stride,
                             const int64_t *row_of_each) {
    return set_matrix(risk, 1, returns, rows, count, stride, row_of_each, NULL, 0);
}

/* ---- keeping it current ---- */

void tf_vector_mark(tf_risk *risk, uint32_t instrument) {
    tf_instrument *of = &risk->instruments[instrument];
    if (!of->dirty) risk->dirty[risk->dirty_count++] = instrument;
    of->dirty = TF_ALL;
}

void tf_vector_mark_price(tf_risk *risk, uint32_t instrument) {
    risk->instruments[instrument].dirty = risk->instruments[instrument].priced;
    risk->dirty[risk->dirty_count++] = instrument;
}

/* The end of [low, high] with the larger stand-alone risk. */
static double worse(tf_risk *risk, uint32_t instrument, double low, double high) {
    tf_instrument *of = &risk->instruments[instrument];
    if (low == high) return low;
    if (of->facts.payoff == TF_PAYOFF_BINARY && of->unit_price != of->mid) measure_units(risk, instrument, of->mid);
    const double at_low = low >= 0.0 ? low * of->unit_long : -low * of->unit_short;
    const double at_high = high >= 0.0 ? high * of->unit_long : -high * of->unit_short;
    return at_high >= at_low ? high : low;
}

double tf_state_worse(tf_risk *risk, uint32_t instrument) {
    tf_state_reached(risk, instrument);
    return worse(risk, instrument, risk->instruments[instrument].low, risk->instruments[instrument].high);
}

/* Why an instrument cannot be valued in a matrix; its scale when it can. */
static int valuation(const tf_risk *risk, const tf_instrument *of, int m, double *scale) {
    if (instrument_row(of, m) < 0) return TF_NO_SCENARIOS;
    if (of->mid != of->mid) return TF_NO_PRICE;
    const double rate = tf_state_rate(risk, of->facts.currency);
    if (rate != rate) return TF_NO_RATE;
    *scale = of->facts.multiplier * rate;
    return TF_VALUED;
}

/* Recomputes what one column should hold. */
static void retarget(tf_risk *risk, uint32_t instrument) {
    tf_instrument *of = &risk->instruments[instrument];
    double scale = 0.0;
    bool valued = false;
    tf_state_reached(risk, instrument);
    of->worst = of->net;
    of->priced = TF_ALL;
    of->scale = NAN;
    for (int m = 0; m < 2; m++) {
        if (of->blocked[m]) risk->blocked_count[m]--;
        of->blocked[m] = TF_VALUED;
        if (!of->exposed || !risk->matrix[m].count) continue;
        of->blocked[m] = (uint8_t)valuation(risk, of, m, &scale);
        if (of->blocked[m]) risk->blocked_count[m]++;
        else valued = true;
    }
    if (!valued) {
        memset(of->target, 0, sizeof of->target);
        return;
    }
    of->scale = scale;
    of->worst = worse(risk, instrument, of->low, of->high);
    if (of->facts.payoff != TF_PAYOFF_BINARY || of->low == of->high) of->priced = TF_PRICE;
    const double target[6] = {of->net, of->high - of->net, of->low - of->net, of->worst - of->net, scale, of->mid};
    memcpy(of->target, target, sizeof target);
}

/* Takes one column into the sums that bound the error. */
static void account(tf_risk *risk, const tf_instrument *of, double c0, double c1) {
    const double *old_state = of->applied, *new_state = of->target;
    const double p0 = old_state[5], p1 = new_state[5], reach = of->reach_factor;
    for (int part = 0; part < 2; part++) {
        tf_sums *sums = part ? &risk->offsets : &risk->filled;
        const double q0 = part ? tf_larger(old_state[1], -old_state[2]) : fabs(old_state[0]);
        const double q1 = part ? tf_larger(new_state[1], -new_state[2]) : fabs(new_state[0]);
        const double old = q0 * c0, new = q1 * c1;
        sums->gross += of->facts.payoff == TF_PAYOFF_BINARY ? new * p1 - old * p0 : new - old;
        sums->bound += (new - old) * reach;
        if (old != 0.0 || new != 0.0) sums->drift += 4.0 * EPSILON * ((old + new) * reach + fabs(sums->bound));
        sums->held += (q1 != 0.0 ? 1.0 : 0.0) - (q0 != 0.0 ? 1.0 : 0.0);
    }
}

/* Moves one row of results from the applied to the wanted state in these columns. */
static void move_row(tf_risk *risk, int m, int k, const uint32_t *columns, uint32_t count) {
    const tf_matrix *matrix = &risk->matrix[m];
    double *y = matrix->pnl + (size_t)k * matrix->stride;
    const float *together[TF_SCAN_TOGETHER];
    double changes[TF_SCAN_TOGETHER];
    size_t waiting = 0;
    for (uint32_t i = 0; i < count; i++) {
        tf_instrument *of = &risk->instruments[columns[i]];
        if (instrument_row(of, m) < 0) continue;
        const double old = of->applied[k] * coefficient(of, of->applied[4], of->applied[5]);
        const double new = of->target[k] * coefficient(of, of->target[4], of->target[5]);
        if (of->facts.payoff == TF_PAYOFF_BINARY) {
            const bool moved = of->applied[5] != of->target[5];
            if (old != 0.0 && moved)
                risk->scan->add_wide(y, column_of(risk, columns[i], m, of->applied[5]).wide, -old, matrix->count);
            const double change = moved ? new : new - old;
            if (change != 0.0)
                risk->scan->add_wide(y, column_of(risk, columns[i], m, of->target[5]).wide, change, matrix->count);
            continue;
        }
        const double change = new - old;
        if (change == 0.0) continue;
        if (of->facts.payoff == TF_PAYOFF_INVERSE) {
            risk->scan->add_wide(y, matrix->wide[columns[i]], change, matrix->count);
            continue;
        }
        together[waiting] = row_of(matrix, instrument_row(of, m));
        changes[waiting++] = change;
        if (waiting == TF_SCAN_TOGETHER) {
            risk->scan->add(y, together, changes, waiting, matrix->count);
            waiting = 0;
        }
    }
    if (waiting) risk->scan->add(y, together, changes, waiting, matrix->count);
}

static void apply(tf_risk *risk, const uint32_t *columns, uint32_t count) {
    bool offsets = false;
    for (uint32_t i = 0; i < count; i++) {
        const tf_instrument *of = &risk->instruments[columns[i]];
        account(risk, of, coefficient(of, of->applied[4], of->applied[5]),
                coefficient(of, of->target[4], of->target[5]));
        for (int k = 1; k < TF_CASES; k++) offsets = offsets || of->applied[k] != 0.0 || of->target[k] != 0.0;
    }
    for (int m = 0; m < 2; m++) {
        if (!risk->matrix[m].count) continue;
        for (int k = 0; k < (offsets ? TF_CASES : 1); k++) move_row(risk, m, k, columns, count);
    }
    for (uint32_t i = 0; i < count; i++) {
        tf_instrument *of = &risk->instruments[columns[i]];
        memcpy(of->applied, of->target, sizeof of->applied);
    }
    forget(risk);
}

/* From zero, everything that is exposed and has its target. */
static void rebuild(tf_risk *risk) {
    for (int m = 0; m < 2; m++) {
        tf_matrix *matrix = &risk->matrix[m];
        if (matrix->count) memset(matrix->pnl, 0, TF_CASES * matrix->stride * sizeof *matrix->pnl);
    }
    risk->filled = risk->offsets = (tf_sums){0};
    risk->updates = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < risk->instrument_count; i++) {
        tf_instrument *of = &risk->instruments[i];
        memset(of->applied, 0, sizeof of->applied);
        if (of->exposed) risk->dirty[count++] = i; /* the list is empty: its room is free */
    }
    apply(risk, risk->dirty, count);
    /* What follows is measured against this exact state. */
    risk->filled.drift = risk->offsets.drift = 0.0;
    risk->held = risk->filled.held;
    risk->offset_held = risk->offsets.held;
    risk->counts.rebuilds++;
}

static void zero_rows(tf_risk *risk, int first, int end) {
    for (int m = 0; m < 2; m++) {
        const tf_matrix *matrix = &risk->matrix[m];
        if (!matrix->count) continue;
        memset(matrix->pnl + (size_t)first * matrix->stride, 0,
               (size_t)(end - first) * matrix->stride * sizeof(double));
    }
}

void tf_vector_refresh(tf_risk *risk) {
    if (!risk->dirty_count || (!risk->matrix[0].count && !risk->matrix[1].count)) return;
    const uint32_t count = risk->dirty_count;
    for (uint32_t i = 0; i < count; i++) {
        tf_instrument *of = &risk->instruments[risk->dirty[i]];
        if (of->dirty == TF_PRICE) of->target[5] = of->mid;
        else retarget(risk, risk->dirty[i]);
        of->dirty = TF_CLEAN;
    }
    risk->dirty_count = 0;
    risk->updates += count;
    if (count >= MANY && (double)count >= risk->held) {
        rebuild(risk);
        return;
    }
    apply(risk, risk->dirty, count);
    tf_sums *filled = &risk->filled, *offsets = &risk->offsets;
    /* Exactly zero when nothing is held; what was zero and stayed so (sums included: no overflow) is not written. */
    if (filled->held == 0.0 && (risk->held != 0.0 || filled->gross != 0.0 || filled->drift != 0.0)) {
        zero_rows(risk, 0, 1);
        filled->gross = filled->bound = filled->drift = 0.0;
    }
    if (offsets->held == 0.0 && (risk->offset_held != 0.0 || offsets->gross != 0.0 || offsets->drift != 0.0)) {
        zero_rows(risk, 1, TF_CASES);
        offsets->gross = offsets->bound = offsets->drift = 0.0;
    }
    risk->held = filled->held;
    risk->offset_held = offsets->held;
    /* Written so that a sum that overflowed to NaN also leads to a rebuild. */
    if (!(risk->updates < risk->rebuild_interval && filled->drift <= DRIFT_LIMIT * filled->gross &&
          offsets->drift <= DRIFT_LIMIT * offsets->gross))
        rebuild(risk);
}

void tf_risk_rebuild(tf_risk *risk) {
    if (!risk->matrix[0].count && !risk->matrix[1].count) return;
    for (uint32_t i = 0; i < risk->instrument_count; i++) {
        retarget(risk, i);
        risk->instruments[i].dirty = TF_CLEAN;
    }
    risk->dirty_count = 0;
    rebuild(risk);
}

/* ---- readings ---- */

size_t tf_risk_scenarios(const tf_risk *risk) { return risk->matrix[0].count; }
size_t tf_risk_stress_scenarios(const tf_risk *risk) { return risk->matrix[1].count; }

int tf_risk_blocked(tf_risk *risk, uint32_t instrument, bool stress, uint32_t *culprit) {
    const int m = stress ? 1 : 0;
    *culprit = instrument;
    if (!risk->matrix[m].count) return TF_NO_SCENARIOS;
    tf_vector_refresh(risk);
    if (risk->blocked_count[m]) {
        for (uint32_t i = 0; i < risk->instrument_count; i++) {
            if (!risk->instruments[i].blocked[m]) continue;
            *culprit = i;
            return risk->instruments[i].blocked[m];
        }
    }
    double scale;
    return instrument == TF_RISK_NONE ? TF_VALUED : valuation(risk, &risk->instruments[instrument], m, &scale);
}

int tf_vector_blocked(tf_risk *risk, uint32_t instrument_of_order, uint32_t *instrument) {
    return tf_risk_blocked(risk, instrument_of_order, false, instrument);
}

int tf_vector_stress_blocked(tf_risk *risk, uint32_t instrument_of_order, uint32_t *instrument) {
    return tf_risk_blocked(risk, instrument_of_order, true, instrument);
}

static const double *offset_row(const tf_matrix *matrix, unsigned k) {
    return k ? matrix->pnl + (size_t)k * matrix->stride : NULL;
}

/* Tail of a case as it stands, remembered until something changes. */
static tf_risk_tail known_tail(tf_risk *risk, unsigned k) {
    if (!risk->is_known[k]) {
        const tf_matrix *matrix = &risk->matrix[0];
        const tf_column nothing = {matrix->returns, NULL};
        risk->known[k] = tf_tail_of(risk, matrix->pnl, offset_row(matrix, k), nothing, 0.0, k ? (int)k + 1 : 0);
        risk->is_known[k] = true;
    }
    return risk->known[k];
}

static double known_loss(tf_risk *risk, unsigned k, uint32_t *at) {
    if (!risk->loss_known[k]) {
        const tf_matrix *matrix = &risk->matrix[1];
        const tf_column nothing = {matrix->returns, NULL};
        risk->losses[k] = loss_of(risk, matrix->pnl, offset_row(matrix, k), nothing, 0.0, &risk->loss_at[k]);
        risk->loss_known[k] = true;
    }
    *at = risk->loss_at[k];
    return risk->losses[k];
}

/* Units that an order adds to TF_WHAT_*, and its coefficient; the number of cases. */
static unsigned changes(tf_risk *risk, const tf_risk_order *order, double leaves, double units[TF_WHATS],
                        double *coef) {
    for (int i = 0; i < TF_WHATS; i++) units[i] = 0.0;
    *coef = 0.0;
    if (order) {
        const uint32_t i = order->instrument;
        double low, high, alone = leaves;
        tf_state_reached(risk, i);
        tf_state_reach(risk, i, order, leaves, &low, &high);
        if (order->reduce_only) alone = tf_smaller(leaves, tf_larger(-order->side * tf_state_scope(risk, order), 0.0));
        const tf_instrument *of = &risk->instruments[i];
        const double end = worse(risk, i, low, high);
        units[TF_WHAT_ORDER] = order->side * alone;
        units[TF_WHAT_BUYS] = high - of->high;
        units[TF_WHAT_SELLS] = low - of->low;
        units[TF_WHAT_WORST] = end - of->worst;
        *coef = coefficient(of, of->facts.multiplier * tf_state_rate(risk, of->facts.currency), of->mid);
    }
    return risk->offset_held != 0.0 ? TF_WHATS : 2;
}

unsigned tf_vector_cases(tf_risk *risk, const tf_risk_order *order, double leaves, bool all,
                         tf_risk_tail out[TF_WHATS]) {
    double units[TF_WHATS], coef;
    tf_vector_refresh(risk);
    unsigned cases = changes(risk, order, leaves, units, &coef);
    if (all) cases = TF_WHATS;
    const tf_matrix *matrix = &risk->matrix[0];
    tf_column c = {NULL, NULL};
    for (unsigned i = 0; i < cases; i++) {
        const unsigned k = i < 2 ? TF_CASE_FILLED : i - 1;
        if (units[i] == 0.0) {
            out[i] = known_tail(risk, k);
            continue;
        }
        if (!c.narrow) c = column_of(risk, order->instrument, 0, risk->instruments[order->instrument].mid);
        out[i] = tf_tail_of(risk, matrix->pnl, offset_row(matrix, k), c, units[i] * coef, (int)i);
    }
    return cases;
}

unsigned tf_vector_what_if(tf_risk *risk, const tf_risk_order *order, double leaves, tf_risk_tail out[5]) {
    return tf_vector_cases(risk, order, leaves, false, out);
}

unsigned tf_risk_what_if(tf_risk *risk, const tf_risk_order *order, double leaves, tf_risk_tail out[TF_WHATS]) {
    return tf_vector_cases(risk, order, leaves, false, out);
}

double tf_vector_stress(tf_risk *risk, const tf_risk_order *order, double leaves, uint32_t *scenario) {
    double units[TF_WHATS], coef, most = -INFINITY;
    tf_vector_refresh(risk);
    const unsigned cases = changes(risk, order, leaves, units, &coef);
    const tf_matrix *matrix = &risk->matrix[1];
    tf_column c = {NULL, NULL};
    *scenario = 0;
    for (unsigned i = 0; i < cases; i++) {
        const unsigned k = i < 2 ? TF_CASE_FILLED : i - 1;
        uint32_t at;
        double loss;
        if (units[i] == 0.0) {
            loss = known_loss(risk, k, &at);
        } else {
            if (!c.narrow) c = column_of(risk, order->instrument, 1, risk->instruments[order->instrument].mid);
            loss = loss_of(risk, matrix->pnl, offset_row(matrix, k), c, units[i] * coef, &at);
        }
        if (loss > most) {
            most = loss;
            *scenario = at;
        }
    }
    return most;
}

double tf_risk_stress(tf_risk *risk, const tf_risk_order *order, double leaves, uint32_t *scenario) {
    return tf_vector_stress(risk, order, leaves, scenario);
}

tf_risk_tail tf_risk_case(tf_risk *risk, unsigned which) {
    tf_vector_refresh(risk);
    return known_tail(risk, which < TF_CASES ? which : TF_CASE_FILLED);
}

static void write_row(const tf_matrix *matrix, unsigned which, double *out) {
    const double *offset = offset_row(matrix, which < TF_CASES ? which : TF_CASE_FILLED);
    for (size_t s = 0; s < matrix->count; s++) out[s] = offset ? matrix->pnl[s] + offset[s] : matrix->pnl[s];
}

void tf_risk_pnl(tf_risk *risk, unsigned which, double *out) {
    tf_vector_refresh(risk);
    write_row(&risk->matrix[0], which, out);
}

void tf_risk_stress_pnl(tf_risk *risk, unsigned which, double *out) {
    tf_vector_refresh(risk);
    write_row(&risk->matrix[1], which, out);
}
