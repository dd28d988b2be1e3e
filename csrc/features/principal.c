/* Principal components of the returns of the own instrument and its legs, kept up to date sample by sample.
 *
 * The covariance about zero of log returns per paired sample (cross.h) is exponentially weighted (RiskMetrics
 * 1996, the weights of the samples so far summing to 1). Its eigenvectors are those of the sample before, turned:
 * the covariance is written in the old vectors, where it is nearly diagonal, and cyclic Jacobi sweeps (Golub and
 * Van Loan 2013, alg. 8.5.2) finish it, two or three as a rule and never more than SWEEPS. The covariance itself
 * is the state, so nothing that a sweep leaves is carried on; the vectors are made orthonormal again every RENEW
 * samples.
 *
 * A component has no sign of its own. Here the own instrument's loading is never negative, so an exposure moves
 * continuously and a component's return is that of the portfolio that is long the own instrument. */
#include "cross.h"

#include <string.h>

#define MOST 8 /* instruments, the own one included */
#define SWEEPS 6
#define RENEW 64
#define DONE 1e-16 /* of the trace: what is left off the diagonal */
#define NONE 1e-13 /* of the trace: a smaller eigenvalue is rounding */
#define TINY 1e-300

typedef struct principal_state {
    cross_prices prices;
    double keep; /* 2^(-1 / half_life) */
    double weight;
    uint64_t count; /* of returns */
    double covariance[MOST][MOST];
    double vector[MOST][MOST]; /* rows, largest eigenvalue first */
    double eigenvalue[MOST];
    double last[MOST];  /* returns of the last paired sample */
    double score[MOST]; /* and their components */
} principal_state;

static double dot(const double *a, const double *b, uint32_t n) {
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static size_t principal_bytes(const double *param) {
    (void)param;
    return sizeof(principal_state);
}

static void principal_reset(void *state, const double *param) {
    principal_state *s = state;
    memset(s, 0, sizeof *s);
    cross_reset(&s->prices, param[0], param[2]);
    s->keep = exp2(-1.0 / param[1]);
    for (int i = 0; i < MOST; i++) s->vector[i][i] = 1.0;
}

/* Gram-Schmidt on rows that are orthonormal but for rounding. */
static void orthonormal(double (*v)[MOST], uint32_t n) {
    for (uint32_t k = 0; k < n; k++) {
        for (uint32_t i = 0; i < k; i++) {
            const double shadow = dot(v[k], v[i], n);
            for (uint32_t j = 0; j < n; j++) v[k][j] -= shadow * v[i][j];
        }
        const double scale = 1.0 / sqrt(dot(v[k], v[k], n));
        for (uint32_t j = 0; j < n; j++) v[k][j] *= scale;
    }
}

/* Turns rows p and q of the vectors so that a[p][q] becomes 0. */
static void rotate(double (*a)[MOST], double (*v)[MOST], uint32_t n, uint32_t p, uint32_t q) {
    const double tau = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    const double t = copysign(1.0, tau) / (fabs(tau) + sqrt(1.0 + tau * tau));
    const double c = 1.0 / sqrt(1.0 + t * t), s = t * c;
    const double cross = t * a[p][q];
    a[p][p] -= cross;
    a[q][q] += cross;
    a[p][q] = a[q][p] = 0.0;
    for (uint32_t k = 0; k < n; k++) {
        const double vp = v[p][k], vq = v[q][k];
        v[p][k] = c * vp - s * vq;
        v[q][k] = s * vp + c * vq;
        if (k == p || k == q) continue;
        const double ap = a[k][p], aq = a[k][q];
        a[k][p] = a[p][k] = c * ap - s * aq;
        a[k][q] = a[q][k] = s * ap + c * aq;
    }
}

static void swap_rows(principal_state *s, uint32_t a, uint32_t b) {
    double row[MOST];
    memcpy(row, s->vector[a], sizeof row);
    memcpy(s->vector[a], s->vector[b], sizeof row);
    memcpy(s->vector[b], row, sizeof row);
    const double value = s->eigenvalue[a];
    s->eigenvalue[a] = s->eigenvalue[b];
    s->eigenvalue[b] = value;
}

static void turn(principal_state *s, uint32_t n, double trace) {
    double a[MOST][MOST], half[MOST];
    if (s->count % RENEW == 0) orthonormal(s->vector, n);
    for (uint32_t k = 0; k < n; k++) {
        for (uint32_t j = 0; j < n; j++) half[j] = dot(s->covariance[j], s->vector[k], n);
        for (uint32_t j = 0; j <= k; j++) a[j][k] = a[k][j] = dot(half, s->vector[j], n);
    }
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        int turned = 0;
        for (uint32_t p = 0; p + 1 < n; p++) {
            for (uint32_t q = p + 1; q < n; q++) {
                if (fabs(a[p][q]) <= DONE * trace) continue;
                rotate(a, s->vector, n, p, q);
                turned = 1;
            }
        }
        if (!turned) break;
    }
    for (uint32_t k = 0; k < n; k++) s->eigenvalue[k] = a[k][k] > 0.0 ? a[k][k] : 0.0;
    for (uint32_t k = 1; k < n; k++) {
        for (uint32_t i = k; i > 0 && s->eigenvalue[i] > s->eigenvalue[i - 1]; i--) swap_rows(s, i, i - 1);
    }
}

static void principal_update(void *state, tf_features *f, const tf_sample *sample) {
    principal_state *s = state;
    const uint32_t n = s->prices.count;
    double r[1 + TF_MAX_LEGS];
    if (!cross_returns(&s->prices, f, sample, r)) return;
    memcpy(s->last, r, n * sizeof(double));
    s->count++;
    s->weight = s->keep * s->weight + 1.0;
    const double share = 1.0 / s->weight;
    double trace = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j <= i; j++) {
            const double old = s->covariance[i][j], now = old + share * (r[i] * r[j] - old);
            s->covariance[i][j] = s->covariance[j][i] = fabs(now) < TINY ? 0.0 : now;
        }
        trace += s->covariance[i][i];
    }
    if (trace > 0.0) turn(s, n, trace);
    else memset(s->eigenvalue, 0, sizeof s->eigenvalue);
    for (uint32_t k = 0; k < n; k++) s->score[k] = dot(s->vector[k], r, n);
}

static int rows_fit(const double *x, size_t count, double limit) {
    for (size_t i = 0; i < count; i++) {
        if (!(fabs(x[i]) <= limit)) return 0;
    }
    return 1;
}

static int principal_sound(const void *state, const double *param) {
    const principal_state *s = state;
    if (!cross_sound(&s->prices, param[0], param[2]) || s->keep != exp2(-1.0 / param[1])) return 0;
    if (!(s->weight >= 0.0 && s->weight <= 2.0 * TF_MAX_EVENTS) || (s->count > 0 && s->weight < 0.5)) return 0;
    if (!rows_fit(s->covariance[0], MOST * MOST, TF_LOG_LIMIT * TF_LOG_LIMIT)) return 0;
    for (int k = 0; k < MOST; k++) { /* near enough to orthonormal that renewing them cannot divide by zero */
        if (!rows_fit(s->vector[k], MOST, 1.5)) return 0;
        for (int i = 0; i <= k; i++) {
            if (!(fabs(dot(s->vector[k], s->vector[i], MOST) - (i == k ? 1.0 : 0.0)) <= 1e-6)) return 0;
        }
        if (!(s->eigenvalue[k] >= 0.0 && s->eigenvalue[k] <= MOST * TF_LOG_LIMIT * TF_LOG_LIMIT)) return 0;
    }
    return rows_fit(s->last, MOST, TF_LOG_LIMIT) && rows_fit(s->score, MOST, MOST * TF_LOG_LIMIT);
}

const tf_machine_type tf_machine_PRINCIPAL = {"principal components", TF_FEED_SAMPLE, principal_bytes, principal_reset,
                                              principal_update,       NULL,           principal_sound};

/* --- pca_exposure, pca_explained, pca_return, pca_residual: param others, factor(s), half_life, max_age --- */

static int factor_fits(const double *param) {
    const uint32_t n = 1 + cross_legs((uint32_t)param[0]);
    return n <= MOST && param[1] <= (double)n;
}

static int factors_fit(const double *param) {
    const uint32_t n = 1 + cross_legs((uint32_t)param[0]);
    return n <= MOST && param[1] < (double)n;
}

static int32_t principal_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_PRINCIPAL, {param[0], param[2], param[3], 0.0}};
    return 1;
}

static void principal_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    cross_lookback(param[2] + 1.0, samples, nanoseconds);
}

static int principal_ready(const tf_features *f, const tf_column *c) {
    return ((const principal_state *)tf_state(f, c, 0))->count >= (uint64_t)c->spec.param[2];
}

static double trace_of(const principal_state *s) {
    double trace = 0.0;
    for (uint32_t i = 0; i < s->prices.count; i++) trace += s->covariance[i][i];
    return trace;
}

/* Whether component k has a variance to speak of. */
static int stands(const principal_state *s, uint32_t k) { return s->eigenvalue[k] > NONE * trace_of(s); }

static uint32_t factor_of(const tf_column *c) { return (uint32_t)c->spec.param[1] - 1; }

static double exposure_value(const tf_features *f, const tf_column *c) {
    const principal_state *s = tf_state(f, c, 0);
    const uint32_t k = factor_of(c);
    return stands(s, k) ? fmin(1.0, fabs(s->vector[k][0])) : 0.0;
}

static double explained_value(const tf_features *f, const tf_column *c) {
    const principal_state *s = tf_state(f, c, 0);
    const uint32_t k = factor_of(c);
    return stands(s, k) ? fmin(1.0, s->eigenvalue[k] / trace_of(s)) : 0.0;
}

static double factor_return_value(const tf_features *f, const tf_column *c) {
    const principal_state *s = tf_state(f, c, 0);
    const uint32_t k = factor_of(c);
    return stands(s, k) ? TF_BPS * (s->vector[k][0] < 0.0 ? -s->score[k] : s->score[k]) : 0.0;
}

static double residual_value(const tf_features *f, const tf_column *c) {
    const principal_state *s = tf_state(f, c, 0);
    double rest = s->last[0];
    for (uint32_t k = 0; k < (uint32_t)c->spec.param[1]; k++) {
        if (stands(s, k)) rest -= s->vector[k][0] * s->score[k];
    }
    return TF_BPS * rest;
}

const tf_feature_impl tf_feature_PCA_EXPOSURE = {TF_FEED_SAMPLE,     factor_fits,     principal_machines,
                                                 principal_lookback, principal_ready, exposure_value};
const tf_feature_impl tf_feature_PCA_EXPLAINED = {TF_FEED_SAMPLE,     factor_fits,     principal_machines,
                                                  principal_lookback, principal_ready, explained_value};
const tf_feature_impl tf_feature_PCA_RETURN = {TF_FEED_SAMPLE,     factor_fits,     principal_machines,
                                               principal_lookback, principal_ready, factor_return_value};
const tf_feature_impl tf_feature_PCA_RESIDUAL = {TF_FEED_SAMPLE,     factors_fit,     principal_machines,
                                                 principal_lookback, principal_ready, residual_value};
