/* Several instruments: returns beside those of a leg or a basket, correlation and beta, lead and lag, spreads of
 * pairs.
 *
 * Every machine runs on the samples of its clock and pairs them as cross.h says. Correlation and beta are of log
 * returns per paired sample, own on leg; a basket is the plain mean of its legs' log returns (an index rebalanced
 * to equal weights at every sample). Second moments come from moments.h, so they do not drift. Spreads follow
 * Gatev, Goetzmann, Rouwenhorst (2006) with a fixed hedge ratio and Vidyamurthy (2004), ch. 5-6, with one from
 * least squares over the window. */
#include "cross.h"

#include <string.h>

#include "moments.h"

#define ROUNDING 1e-12 /* a residual with less than this share of the variance is what rounding left of a perfect fit */

static int32_t one(uint32_t type, double mask, double p1, double p2, double p3, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){type, {mask, p1, p2, p3}};
    return 1;
}

static int number_fits(double x, double limit) { return fabs(x) <= limit; }

/* --- leg_return, relative_return, basket_return, basket_deviation ---
 *
 * param: legs, lag, max_age. A ring of lag + 1 rows of prices, so that a return is one ratio and no sum of
 * roundings. */

typedef struct rows_state {
    uint32_t mask;
    uint32_t width; /* prices in a row: own and the legs' */
    uint32_t rows;
    uint32_t place; /* of the next row, where the oldest lies when the ring is full */
    uint64_t max_age;
    uint64_t paired;
    double price[];
} rows_state;

static size_t rows_count(const double *param) { return ((size_t)param[1] + 1) * (1 + cross_legs((uint32_t)param[0])); }

static size_t rows_bytes(const double *param) { return sizeof(rows_state) + rows_count(param) * sizeof(double); }

static void rows_reset(void *state, const double *param) {
    rows_state *s = state;
    memset(s, 0, rows_bytes(param));
    s->mask = (uint32_t)param[0];
    s->width = 1 + cross_legs(s->mask);
    s->rows = (uint32_t)param[1] + 1;
    s->max_age = (uint64_t)param[2];
}

static void rows_update(void *state, tf_features *f, const tf_sample *sample) {
    rows_state *s = state;
    double *row = s->price + (size_t)s->place * s->width;
    double mids[TF_MAX_LEGS];
    if (!cross_mids(f, s->mask, s->max_age, mids)) return;
    row[0] = sample->close;
    memcpy(row + 1, mids, (s->width - 1) * sizeof(double));
    s->place = s->place + 1 == s->rows ? 0 : s->place + 1;
    s->paired++;
}

static int rows_sound(const void *state, const double *param) {
    const rows_state *s = state;
    if ((double)s->mask != param[0] || s->width != 1 + cross_legs(s->mask)) return 0;
    if ((double)s->rows != param[1] + 1.0 || (double)s->max_age != param[2] || s->place >= s->rows) return 0;
    if (s->paired < s->rows && s->place != s->paired) return 0;
    const size_t used = (s->paired < s->rows ? (size_t)s->paired : s->rows) * s->width;
    for (size_t i = 0; i < used; i++) {
        if (!(s->price[i] >= TF_VALUE_MIN && s->price[i] <= TF_VALUE_MAX)) return 0;
    }
    return 1;
}

const tf_machine_type tf_machine_LEG_PRICES = {"prices of legs", TF_FEED_SAMPLE, rows_bytes, rows_reset,
                                               rows_update,      NULL,           rows_sound};

static int32_t leg_rows(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_LEG_PRICES, cross_mask(param[0]), param[1], param[2], 0.0, out);
}

static int32_t basket_rows(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_LEG_PRICES, param[0], param[1], param[2], 0.0, out);
}

static void rows_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    cross_lookback(param[1] + 1.0, samples, nanoseconds);
}

static int rows_ready(const tf_features *f, const tf_column *c) {
    const rows_state *s = tf_state(f, c, 0);
    return s->paired >= s->rows;
}

/* Own log return over the lag, and the mean of the legs'. */
static void rows_returns(const tf_features *f, const tf_column *c, double *own, double *legs) {
    const rows_state *s = tf_state(f, c, 0);
    const double *old = s->price + (size_t)s->place * s->width;
    const double *now = s->price + (size_t)(s->place == 0 ? s->rows - 1 : s->place - 1) * s->width;
    double sum = 0.0;
    for (uint32_t i = 1; i < s->width; i++) sum += tf_log_ratio(now[i], old[i]);
    *legs = sum / (double)(s->width - 1);
    *own = tf_log_ratio(now[0], old[0]);
}

static double legs_return_value(const tf_features *f, const tf_column *c) {
    double own, legs;
    rows_returns(f, c, &own, &legs);
    return TF_BPS * legs;
}

static double relative_return_value(const tf_features *f, const tf_column *c) {
    double own, legs;
    rows_returns(f, c, &own, &legs);
    return TF_BPS * (own - legs);
}

const tf_feature_impl tf_feature_LEG_RETURN = {TF_FEED_SAMPLE, NULL,       leg_rows,
                                               rows_lookback,  rows_ready, legs_return_value};
const tf_feature_impl tf_feature_RELATIVE_RETURN = {TF_FEED_SAMPLE, NULL,       leg_rows,
                                                    rows_lookback,  rows_ready, relative_return_value};
const tf_feature_impl tf_feature_BASKET_RETURN = {TF_FEED_SAMPLE, NULL,       basket_rows,
                                                  rows_lookback,  rows_ready, legs_return_value};
const tf_feature_impl tf_feature_BASKET_DEVIATION = {TF_FEED_SAMPLE, NULL,       basket_rows,
                                                     rows_lookback,  rows_ready, relative_return_value};

/* --- correlation, beta, and those to a basket ---
 *
 * param: legs, window, max_age. First dimension: the legs' mean return; second: the own one. */

static const size_t PRICES = (sizeof(cross_prices) + 15) / 16 * 16;

static tf_moments *moments_after(const void *state) { return (tf_moments *)((uintptr_t)state + PRICES); }

static size_t returns_bytes(const double *param) { return PRICES + moments_bytes((uint32_t)param[1], 2); }

static void returns_reset(void *state, const double *param) {
    cross_reset(state, param[0], param[2]);
    moments_reset(moments_after(state), (uint32_t)param[1], 2);
}

static void returns_update(void *state, tf_features *f, const tf_sample *sample) {
    cross_prices *c = state;
    double made[1 + TF_MAX_LEGS];
    if (!cross_returns(c, f, sample, made)) return;
    double sum = 0.0;
    for (uint32_t i = 1; i < c->count; i++) sum += made[i];
    moments_push(moments_after(state), (double[]){c->count == 2 ? sum : sum / (double)(c->count - 1), made[0]}, 2, 0);
}

static int returns_sound(const void *state, const double *param) {
    return cross_sound(state, param[0], param[2]) && moments_sound(moments_after(state), (uint32_t)param[1], 2, 0);
}

const tf_machine_type tf_machine_RETURN_MOMENTS = {"moments of returns", TF_FEED_SAMPLE, returns_bytes, returns_reset,
                                                   returns_update,       NULL,           returns_sound};

static int32_t leg_moments(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_RETURN_MOMENTS, cross_mask(param[0]), param[1], param[2], 0.0, out);
}

static int32_t basket_moments(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_RETURN_MOMENTS, param[0], param[1], param[2], 0.0, out);
}

static int returns_ready(const tf_features *f, const tf_column *c) {
    const tf_moments *m = moments_after(tf_state(f, c, 0));
    return m->count == m->window;
}

static double correlation_value(const tf_features *f, const tf_column *c) {
    return moments_correlation(moments_after(tf_state(f, c, 0)));
}

static double beta_value(const tf_features *f, const tf_column *c) {
    return moments_slope(moments_after(tf_state(f, c, 0)));
}

const tf_feature_impl tf_feature_CORRELATION = {TF_FEED_SAMPLE, NULL,          leg_moments,
                                                rows_lookback,  returns_ready, correlation_value};
const tf_feature_impl tf_feature_BETA = {TF_FEED_SAMPLE, NULL, leg_moments, rows_lookback, returns_ready, beta_value};
const tf_feature_impl tf_feature_BASKET_CORRELATION = {TF_FEED_SAMPLE, NULL,          basket_moments,
                                                       rows_lookback,  returns_ready, correlation_value};
const tf_feature_impl tf_feature_BASKET_BETA = {TF_FEED_SAMPLE, NULL,          basket_moments,
                                                rows_lookback,  returns_ready, beta_value};

/* --- lead_lag, lead_lag_asymmetry ---
 *
 * param: legs (one), lag, window, max_age. Behind the prices lie a ring of the last `lag` pairs of returns and two
 * sets of moments: (leg then, own now) and (own then, leg now). */

typedef struct lead_state {
    cross_prices prices;
    uint32_t lag;
    uint32_t place;
    uint64_t pairs; /* of returns */
    double past[]; /* lag x (own, leg) */
} lead_state;

static size_t lead_head(const double *param) { return sizeof(lead_state) + (size_t)param[1] * 2 * sizeof(double); }

static tf_moments *lead_moments(const lead_state *s, int second) {
    const uintptr_t first = (uintptr_t)(s->past + (size_t)2 * s->lag);
    if (second) return (tf_moments *)(first + moments_bytes(((const tf_moments *)first)->window, 2));
    return (tf_moments *)first;
}

static size_t lead_bytes(const double *param) { return lead_head(param) + 2 * moments_bytes((uint32_t)param[2], 2); }

static void lead_reset(void *state, const double *param) {
    lead_state *s = state;
    memset(s, 0, lead_bytes(param));
    cross_reset(&s->prices, param[0], param[3]);
    s->lag = (uint32_t)param[1];
    moments_reset(lead_moments(s, 0), (uint32_t)param[2], 2);
    moments_reset(lead_moments(s, 1), (uint32_t)param[2], 2);
}

static void lead_update(void *state, tf_features *f, const tf_sample *sample) {
    lead_state *s = state;
    double now[1 + TF_MAX_LEGS];
    if (!cross_returns(&s->prices, f, sample, now)) return;
    double *then = s->past + (size_t)2 * s->place;
    if (s->pairs++ >= s->lag) {
        moments_push(lead_moments(s, 0), (double[]){then[1], now[0]}, 2, 0);
        moments_push(lead_moments(s, 1), (double[]){then[0], now[1]}, 2, 0);
    }
    then[0] = now[0];
    then[1] = now[1];
    s->place = s->place + 1 == s->lag ? 0 : s->place + 1;
}

static int lead_sound(const void *state, const double *param) {
    const lead_state *s = state;
    if (!cross_sound(&s->prices, param[0], param[3]) || (double)s->lag != param[1] || s->place >= s->lag) return 0;
    for (size_t i = 0; i < (size_t)2 * s->lag; i++) {
        if (!number_fits(s->past[i], TF_LOG_LIMIT)) return 0;
    }
    const uint32_t window = (uint32_t)param[2];
    return moments_sound(lead_moments(s, 0), window, 2, 0) && moments_sound(lead_moments(s, 1), window, 2, 0);
}

const tf_machine_type tf_machine_LEAD_LAG = {"lead and lag", TF_FEED_SAMPLE, lead_bytes, lead_reset,
                                             lead_update,    NULL,           lead_sound};

static int32_t lead_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_LEAD_LAG, cross_mask(param[0]), param[1], param[2], param[3], out);
}

static void lead_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    cross_lookback(param[1] + param[2] + 1.0, samples, nanoseconds);
}

static int lead_ready(const tf_features *f, const tf_column *c) {
    const tf_moments *m = lead_moments(tf_state(f, c, 0), 0);
    return m->count == m->window;
}

static double lead_value(const tf_features *f, const tf_column *c) {
    return moments_correlation(lead_moments(tf_state(f, c, 0), 0));
}

static double asymmetry_value(const tf_features *f, const tf_column *c) {
    const lead_state *s = tf_state(f, c, 0);
    return moments_correlation(lead_moments(s, 0)) - moments_correlation(lead_moments(s, 1));
}

const tf_feature_impl tf_feature_LEAD_LAG = {TF_FEED_SAMPLE, NULL,       lead_machines,
                                             lead_lookback,  lead_ready, lead_value};
const tf_feature_impl tf_feature_LEAD_LAG_ASYMMETRY = {TF_FEED_SAMPLE, NULL,       lead_machines,
                                                       lead_lookback,  lead_ready, asymmetry_value};

/* --- pair_spread, pair_spread_zscore, hedge_ratio ---
 *
 * param: legs (one), window, hedge, max_age. Moments of log prices, the leg's first. With a fixed hedge ratio the
 * second dimension is the spread itself; with hedge = 0 it is the own level, and the line through the window is
 * taken off when read. */

static size_t pair_bytes(const double *param) { return PRICES + moments_bytes((uint32_t)param[1], 2); }

static void pair_reset(void *state, const double *param) {
    cross_reset(state, param[0], param[3]);
    moments_reset(moments_after(state), (uint32_t)param[1], 2);
    moments_after(state)->hedge = param[2];
}

static void pair_update(void *state, tf_features *f, const tf_sample *sample) {
    cross_prices *c = state;
    double now[1 + TF_MAX_LEGS];
    if (!cross_pair(c, f, sample, now)) return;
    c->paired++;
    memcpy(c->price, now, 2 * sizeof(double));
    moments_push(moments_after(state), (double[]){now[1], now[0]}, 2, 1);
}

static int pair_sound(const void *state, const double *param) {
    if (!cross_sound(state, param[0], param[3]) || moments_after(state)->hedge != param[2]) return 0;
    return moments_sound(moments_after(state), (uint32_t)param[1], 2, 1);
}

const tf_machine_type tf_machine_PAIR_LEVELS = {"levels of a pair", TF_FEED_SAMPLE, pair_bytes, pair_reset,
                                                pair_update,        NULL,           pair_sound};

static int32_t pair_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_PAIR_LEVELS, cross_mask(param[0]), param[1], param[2], param[3], out);
}

static int32_t hedge_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_PAIR_LEVELS, cross_mask(param[0]), param[1], 0.0, param[2], out);
}

static void pair_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    cross_lookback(param[1], samples, nanoseconds);
}

static int pair_ready(const tf_features *f, const tf_column *c) {
    const tf_moments *m = moments_after(tf_state(f, c, 0));
    return m->count == m->window;
}

static double pair_slope(const tf_moments *m) { return m->hedge > 0.0 ? 0.0 : moments_slope(m); }

static double pair_residual(const tf_moments *m, double slope) {
    return moments_deviation(m, 1) - slope * moments_deviation(m, 0);
}

static double pair_spread_value(const tf_features *f, const tf_column *c) {
    const tf_moments *m = moments_after(tf_state(f, c, 0));
    return TF_BPS * fmin(TF_MOMENTS_LIMIT, fmax(-TF_MOMENTS_LIMIT, pair_residual(m, pair_slope(m))));
}

static double pair_zscore_value(const tf_features *f, const tf_column *c) {
    const tf_moments *m = moments_after(tf_state(f, c, 0));
    const double slope = pair_slope(m), rest = m->now.square[1] - slope * m->now.product;
    if (!(rest > ROUNDING * m->now.square[1])) return 0.0;
    const double count = (double)m->count, limit = sqrt(count); /* no residual of the window is further out */
    return fmin(limit, fmax(-limit, pair_residual(m, slope) / sqrt(rest / count)));
}

static double hedge_ratio_value(const tf_features *f, const tf_column *c) {
    return moments_slope(moments_after(tf_state(f, c, 0)));
}

const tf_feature_impl tf_feature_PAIR_SPREAD = {TF_FEED_SAMPLE, NULL,       pair_machines,
                                                pair_lookback,  pair_ready, pair_spread_value};
const tf_feature_impl tf_feature_PAIR_SPREAD_ZSCORE = {TF_FEED_SAMPLE, NULL,       pair_machines,
                                                       pair_lookback,  pair_ready, pair_zscore_value};
const tf_feature_impl tf_feature_HEDGE_RATIO = {TF_FEED_SAMPLE, NULL,       hedge_machines,
                                                pair_lookback,  pair_ready, hedge_ratio_value};

/* --- premium, leg_age: read off the latest books --- */

static void first_event(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    (void)param;
    cross_lookback(1.0, samples, nanoseconds);
}

static int premium_ready(const tf_features *f, const tf_column *c) {
    return f->book_events >= 1 && tf_leg_of(f, (uint32_t)c->spec.param[0])->count >= 1;
}

static double premium_value(const tf_features *f, const tf_column *c) {
    const tf_leg *leg = tf_leg_of(f, (uint32_t)c->spec.param[0]);
    const uint64_t max_age = (uint64_t)c->spec.param[1];
    if (max_age > 0 && f->clock - leg->time > max_age) return 0.0;
    return TF_BPS * ((f->book.mid - leg->mid) / leg->mid);
}

static int leg_age_ready(const tf_features *f, const tf_column *c) {
    return tf_leg_of(f, (uint32_t)c->spec.param[0])->count >= 1;
}

static double leg_age_value(const tf_features *f, const tf_column *c) {
    return tf_log1p(tf_seconds(f->clock, tf_leg_of(f, (uint32_t)c->spec.param[0])->time));
}

const tf_feature_impl tf_feature_PREMIUM = {TF_FEED_BOOK, NULL, NULL, first_event, premium_ready, premium_value};
const tf_feature_impl tf_feature_LEG_AGE = {TF_FEED_BOOK, NULL, NULL, first_event, leg_age_ready, leg_age_value};
