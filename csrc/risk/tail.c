/* Value at risk and expected shortfall of one vector of results; definitions in tengri_fast.risk.measures, those of
 * weighted scenarios and of the parametric tails in tengri_fast.risk.portfolio. */
#include "risk/core.h"

#include <string.h>

void tf_tail_rank(size_t count, double level, size_t *rank, double *mass) {
    double exact = level * (double)count;
    const double nearest = nearbyint(exact);
    if (fabs(exact - nearest) < 1e-9 * (double)count) exact = nearest;
    const double below_it = tf_larger(ceil(exact), 1.0);
    *rank = count - (size_t)below_it + 1;
    *mass = (double)count - exact;
}

/* By bisection: exact to rounding, and only done at set-up. */
double tf_tail_quantile(double level) {
    double low = -40.0, high = 40.0;
    for (int i = 0; i < 200; i++) {
        const double middle = 0.5 * (low + high);
        if (0.5 * erfc(-middle * 0.70710678118654752440) < 1.0 - level) low = middle;
        else high = middle;
    }
    return 0.5 * (low + high);
}

/* Mean, variance (unbiased), skewness and excess kurtosis of the results: of linear instruments the variance is w'Cw
 * with C the sample covariance of their (weighted) returns, without C ever being formed. Cornish-Fisher quantile:
 * Cornish and Fisher (1938); its expected shortfall: Maillard (2012), eq. 20, here with the sign of a loss. `sound` is
 * false where the expansion does not increase, and so is no quantile function (Maillard 2012, section 3). */
static tf_risk_tail parametric(const tf_risk *risk, const double *x, size_t n, bool *sound) {
    const double *w = risk->weights, each = 1.0 / (double)n;
    double mean = 0.0, squares = 0.0;
    for (size_t s = 0; s < n; s++) {
        mean += (w ? w[s] : each) * x[s];
        if (w) squares += w[s] * w[s];
    }
    if (!w) squares = each;
    double second = 0.0, third = 0.0, fourth = 0.0;
    for (size_t s = 0; s < n; s++) {
        const double d = x[s] - mean, weighted = (w ? w[s] : each) * d * d;
        second += weighted;
        third += weighted * d;
        fourth += weighted * d * d;
    }
    const double deviation = sqrt(second / (1.0 - squares)), tail = 1.0 - risk->level, z = risk->z;
    double quantile = z, shortfall = risk->density / tail;
    if (risk->method == TF_TAIL_CORNISH_FISHER && second > 0.0) {
        const double skew = third / (second * sqrt(second)), excess = fourth / (second * second) - 3.0, zz = z * z;
        quantile +=
            (zz - 1.0) * skew / 6.0 + (zz - 3.0) * z * excess / 24.0 - (2.0 * zz - 5.0) * z * skew * skew / 36.0;
        shortfall *= 1.0 + z * skew / 6.0 + (zz - 1.0) * excess / 24.0 - (2.0 * zz - 1.0) * skew * skew / 36.0;
        const double line = 1.0 - excess / 8.0 + 5.0 * skew * skew / 36.0, cube = excess / 24.0 - skew * skew / 18.0;
        *sound = line >= 0.0 && cube >= 0.0 && skew * skew / 36.0 <= 3.0 * line * cube;
    }
    tf_risk_tail out = {-(mean + deviation * quantile), -mean + deviation * shortfall};
    if (!(out.var == out.var)) out.var = INFINITY;
    if (!(out.es >= out.var)) out.es = out.var;
    return out;
}

/* Smallest values first, of equal ones the earlier scenario first. */
static bool before(const double *x, uint32_t a, uint32_t b) { return x[a] < x[b] || (x[a] == x[b] && a < b); }

static void sort_picked(const double *x, uint32_t *picked, size_t n) {
    for (size_t start = n / 2; start-- > 0;) { /* heap of the largest, then taken apart from behind */
        for (size_t at = start, child; (child = 2 * at + 1) < n; at = child) {
            if (child + 1 < n && before(x, picked[child], picked[child + 1])) child++;
            if (!before(x, picked[at], picked[child])) break;
            const uint32_t swap = picked[at];
            picked[at] = picked[child];
            picked[child] = swap;
        }
    }
    for (size_t end = n; end-- > 1;) {
        const uint32_t last = picked[end];
        picked[end] = picked[0];
        picked[0] = last;
        for (size_t at = 0, child; (child = 2 * at + 1) < end; at = child) {
            if (child + 1 < end && before(x, picked[child], picked[child + 1])) child++;
            if (!before(x, picked[at], picked[child])) break;
            const uint32_t swap = picked[at];
            picked[at] = picked[child];
            picked[child] = swap;
        }
    }
}

/* From the sum over the `less` scenarios (or their weight) that are worse than x, to the mean of the tail. */
static tf_risk_tail close_tail(double x, double sum, double part, double whole) {
    const double rest = part < whole ? whole - part : 0.0;
    tf_risk_tail out = {-x, -(sum + (rest > 0.0 ? rest * x : 0.0)) / whole};
    if (!(out.es == out.es)) out.es = INFINITY;
    return out;
}

static tf_risk_tail weighted(tf_risk *risk, double *x, size_t n, double most) {
    const double tail = 1.0 - risk->level, *w = risk->weights;
    uint32_t *picked = risk->picked;
    size_t kept = 0;
    double total = 0.0;
    for (size_t s = 0; s < n; s++) {
        x[s] = x[s] > -INFINITY ? x[s] : -INFINITY;
        picked[kept] = (uint32_t)s;
        const bool keep = !(x[s] > most);
        kept += keep;
        total += keep ? w[s] : 0.0;
    }
    if (total <= tail + 2e-9) {
        risk->counts.missed++;
        for (kept = 0; kept < n; kept++) picked[kept] = (uint32_t)kept;
    }
    sort_picked(x, picked, kept);
    size_t j = 0;
    double part = 0.0, sum = 0.0;
    while (j + 1 < kept && part + w[picked[j]] <= tail + 1e-9) {
        part += w[picked[j]];
        sum += w[picked[j]] * x[picked[j]];
        j++;
    }
    return close_tail(x[picked[j]], sum, part, tail);
}

/* Equal weights and all scenarios, none of them NaN; x is used up. */
static tf_risk_tail plain(const tf_risk *risk, double *x, size_t n) {
    double *spare = risk->scratch[1];
    memcpy(spare, x, n * sizeof *x);
    const double value = tf_scan_select(risk->scan, spare, spare + risk->matrix[0].stride + 16, n, risk->rank);
    const size_t less = risk->scan->below(x, x, value, n);
    return close_tail(value, risk->scan->sum(x, less), (double)less, risk->mass);
}

static tf_risk_tail larger_tail(tf_risk_tail a, tf_risk_tail b) {
    return (tf_risk_tail){tf_larger(a.var, b.var), tf_larger(a.es, b.es)};
}

/* A value that a little more than the tail lies below, by where the tail of this case (and of what is filled) began
 * last time; infinite when nothing is known. */
static double guess(const tf_risk *risk, int slot) {
    if (slot < 0) return INFINITY;
    double edge = risk->edges[slot];
    if (edge != edge || risk->edges[0] > edge) edge = risk->edges[0];
    return edge == edge ? edge + risk->margins[slot] * fabs(edge) : INFINITY;
}

/* Looks further in next time when too few were kept, and less far when too many were. */
static void learn(tf_risk *risk, int slot, double edge, size_t kept, bool missed) {
    if (slot < 0) return;
    risk->edges[slot] = edge;
    double *margin = &risk->margins[slot];
    if (missed) *margin = tf_smaller(1.5 * *margin + 0.02, 2.0);
    else if (kept < risk->rank + risk->rank / 2 + 4) *margin = tf_smaller(1.1 * *margin + 0.001, 2.0);
    else if (kept > 2 * risk->rank + 8) *margin *= 0.95;
}

tf_risk_tail tf_tail_of(tf_risk *risk, const double *base, const double *offset, tf_column c, double a, int slot) {
    const tf_scan *scan = risk->scan;
    const size_t n = risk->matrix[0].count, rank = risk->rank;
    double *x = risk->scratch[0], *spare = risk->scratch[1], most = guess(risk, slot);
    if (risk->method != TF_TAIL_EMPIRICAL || risk->weights) {
        if (c.wide) scan->line_wide(x, base, offset, c.wide, a, n);
        else scan->line(x, base, offset, c.narrow, a, n);
        if (risk->method != TF_TAIL_EMPIRICAL) {
            bool sound = true;
            const tf_risk_tail found = parametric(risk, x, n, &sound);
            return sound ? found
                         : larger_tail(found, risk->weights ? weighted(risk, x, n, INFINITY) : plain(risk, x, n));
        }
        const tf_risk_tail found = weighted(risk, x, n, most);
        if (slot >= 0) risk->edges[slot] = -found.var;
        return found;
    }
    size_t kept = 0;
    bool missed = false;
    for (;;) {
        kept = c.wide ? scan->keep_wide(x, base, offset, c.wide, a, most, n)
                      : scan->keep(x, base, offset, c.narrow, a, most, n);
        if (kept >= rank) break;
        missed = true;
        risk->counts.missed++;
        most = INFINITY;
    }
    memcpy(spare, x, kept * sizeof *x);
    const double value = tf_scan_select(scan, spare, spare + risk->matrix[0].stride + 16, kept, rank);
    const size_t less = scan->below(x, x, value, kept);
    learn(risk, slot, value, kept, missed);
    return close_tail(value, scan->sum(x, less), (double)less, risk->mass);
}
