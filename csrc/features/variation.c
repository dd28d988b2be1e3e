/* Variation of the sampled price: returns r_i in bps of the column's clock, over a window of samples or of time.
 *
 *   RV = sum r_i^2                                  Andersen, Bollerslev, Diebold and Labys (2003)
 *   BV = (pi / 2) sum |r_i| |r_i-1|                 Barndorff-Nielsen and Shephard (2004)
 *   RS+ = sum r_i^2 [r_i > 0], RS- likewise         Barndorff-Nielsen, Kinnebrock and Shephard (2010)
 *   QP = n (pi / 2)^2 sum |r_i r_i-1 r_i-2 r_i-3|   quad-power quarticity, Barndorff-Nielsen and Shephard (2004)
 *   z  = (1 - BV / RV) / sqrt((pi^2 / 4 + pi - 5) / n max(1, QP / BV^2))    ratio statistic, Huang and Tauchen (2005)
 *   skewness = sqrt(n) sum r_i^3 / RV^(3/2)         Amaya, Christoffersen, Jacobs and Vasquez (2015)
 *   VR(q) = sum (R_i - q m)^2 / (q sum (r_i - m)^2), R_i the overlapping return of q samples, m the mean of r_i
 *                                                   Lo and MacKinlay (1988), without their small-sample factors
 *
 * A term belongs to the window by its own sample i; the earlier factors of a product may be older than the window. A
 * variance about a mean below 1e-12 of the mean square is rounding and counts as none. */
#include "rolling.h"

#define HALF_PI 1.57079632679489661923
#define NO_VARIANCE 1e-12

static void samples_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    rolling_lookback(param[0], 1, samples, nanoseconds);
}

static int samples_ready(const tf_features *f, const tf_column *c) {
    return rolling_ready(f, c->spec.param[0], tf_last(f, c->series)->count, 1);
}

static inline double sample_return(const tf_sample *sample) {
    return sample->close == sample->previous ? 0.0 : TF_BPS * tf_log_ratio(sample->close, sample->previous);
}

/* The key of the latest sample: its number, or the time at which it became known. */
static inline uint64_t sample_key(const tf_rolling *w, const tf_features *f, const tf_sample *sample) {
    return w->by_event ? sample->count : f->clock;
}

/* --- realized variance, semivariances and bipower variation --- */

enum { POWER_UP, POWER_DOWN, POWER_NEIGHBOURS, POWER_VALUES };

typedef struct power_state {
    double before; /* size of the last return */
    double reserved;
} power_state;

static tf_rolling *power_window(const void *state) { return (tf_rolling *)((uintptr_t)state + sizeof(power_state)); }

static size_t power_bytes(const double *param) {
    return sizeof(power_state) + rolling_bytes(POWER_VALUES, param[0], param[1]);
}

static void power_reset(void *state, const double *param) {
    *(power_state *)state = (power_state){0.0, 0.0};
    rolling_reset(power_window(state), POWER_VALUES, param[0], param[1]);
}

static void power_update(void *state, tf_features *f, const tf_sample *sample) {
    power_state *s = state;
    tf_rolling *w = power_window(state);
    if (sample->count < 2) return;
    const uint64_t key = sample_key(w, f, sample);
    const double r = sample_return(sample), size = fabs(r);
    if (r == 0.0) { /* three zeros change no sum: no place in the ring for them */
        rolling_expire(w, POWER_VALUES, key);
    } else {
        const double value[POWER_VALUES] = {r > 0.0 ? r * r : 0.0, r < 0.0 ? r * r : 0.0, size * s->before};
        f->counters.overflow += rolling_push(w, POWER_VALUES, key, value);
    }
    s->before = size;
}

static void power_expire(void *state, uint64_t clock) { rolling_age(power_window(state), POWER_VALUES, clock); }

static int power_sound(const void *state, const double *param) {
    return isfinite(((const power_state *)state)->before) &&
           rolling_sound(power_window(state), POWER_VALUES, param[0], param[1]);
}

const tf_machine_type tf_machine_VARIATION = {"variation",  TF_FEED_SAMPLE, power_bytes, power_reset,
                                              power_update, power_expire,   power_sound};

/* --- quarticity: every return of the window, so that they are counted --- */

typedef struct quartic_state {
    double size[3]; /* of the last returns, latest first */
    double reserved;
} quartic_state;

static tf_rolling *quartic_window(const void *state) {
    return (tf_rolling *)((uintptr_t)state + sizeof(quartic_state));
}

static size_t quartic_bytes(const double *param) {
    return sizeof(quartic_state) + rolling_bytes(2, param[0], param[1]);
}

static void quartic_reset(void *state, const double *param) {
    *(quartic_state *)state = (quartic_state){{0.0, 0.0, 0.0}, 0.0};
    rolling_reset(quartic_window(state), 2, param[0], param[1]);
}

static void quartic_update(void *state, tf_features *f, const tf_sample *sample) {
    quartic_state *s = state;
    tf_rolling *w = quartic_window(state);
    if (sample->count < 2) return;
    const double r = sample_return(sample), size = fabs(r);
    const double value[2] = {size * s->size[0] * s->size[1] * s->size[2], r * r * r};
    f->counters.overflow += rolling_push(w, 2, sample_key(w, f, sample), value);
    s->size[2] = s->size[1];
    s->size[1] = s->size[0];
    s->size[0] = size;
}

static void quartic_expire(void *state, uint64_t clock) { rolling_age(quartic_window(state), 2, clock); }

static int quartic_sound(const void *state, const double *param) {
    const quartic_state *s = state;
    return isfinite(s->size[0]) && isfinite(s->size[1]) && isfinite(s->size[2]) &&
           rolling_sound(quartic_window(state), 2, param[0], param[1]);
}

const tf_machine_type tf_machine_QUARTICITY = {"quarticity",   TF_FEED_SAMPLE, quartic_bytes, quartic_reset,
                                               quartic_update, quartic_expire, quartic_sound};

static int32_t power_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_VARIATION, {param[0], rolling_places(param[0], param[1])}};
    return 1;
}

static int32_t semi_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_VARIATION, {param[0], rolling_places(param[0], param[2])}};
    return 1;
}

static int32_t jump_machines(const double *param, tf_machine_ref *out) {
    power_machines(param, out);
    out[1] = (tf_machine_ref){TF_MACHINE_QUARTICITY, {param[0], rolling_places(param[0], param[1])}};
    return 2;
}

static double half_variance(const tf_features *f, const tf_column *c, int half) {
    return fmax(0.0, rolling_sum(power_window(tf_state(f, c, 0)), POWER_VALUES, half));
}

static double realized(const tf_features *f, const tf_column *c) {
    return half_variance(f, c, POWER_UP) + half_variance(f, c, POWER_DOWN);
}

static double bipower(const tf_features *f, const tf_column *c) {
    return fmax(0.0, HALF_PI * rolling_sum(power_window(tf_state(f, c, 0)), POWER_VALUES, POWER_NEIGHBOURS));
}

static double semi_value(const tf_features *f, const tf_column *c) {
    return half_variance(f, c, c->spec.param[1] > 0.0 ? POWER_UP : POWER_DOWN);
}

static double semi_imbalance_value(const tf_features *f, const tf_column *c) {
    return tf_share(half_variance(f, c, POWER_UP), half_variance(f, c, POWER_DOWN));
}

static double jump_share_value(const tf_features *f, const tf_column *c) {
    const double variance = realized(f, c);
    return variance > 0.0 ? fmax(0.0, 1.0 - bipower(f, c) / variance) : 0.0;
}

/* What cannot be told apart from no variation gives no evidence of a jump. */
static double jump_test_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = quartic_window(tf_state(f, c, 1));
    const double n = w->count, variance = realized(f, c), continuous = bipower(f, c);
    if (!(variance > 0.0) || !(continuous > 1e-150)) return 0.0;
    const double quarticity = n * HALF_PI * HALF_PI * fmax(0.0, rolling_sum(w, 2, 0));
    const double spread = fmax(1.0, quarticity / (continuous * continuous)) / n;
    return (1.0 - continuous / variance) / sqrt((HALF_PI * HALF_PI + 2.0 * HALF_PI - 5.0) * spread);
}

static double skewness_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = quartic_window(tf_state(f, c, 1));
    const double variance = realized(f, c);
    if (!(variance > 1e-150)) return 0.0;
    return sqrt((double)w->count) * (rolling_sum(w, 2, 1) / variance) / sqrt(variance);
}

static int side_check(const double *param) { return param[1] != 0.0; }

const tf_feature_impl tf_feature_REALIZED_VARIANCE = {TF_FEED_SAMPLE,   NULL,          power_machines,
                                                      samples_lookback, samples_ready, realized};
const tf_feature_impl tf_feature_BIPOWER_VARIATION = {TF_FEED_SAMPLE,   NULL,          power_machines,
                                                      samples_lookback, samples_ready, bipower};
const tf_feature_impl tf_feature_REALIZED_SEMIVARIANCE = {TF_FEED_SAMPLE,   side_check,    semi_machines,
                                                          samples_lookback, samples_ready, semi_value};
const tf_feature_impl tf_feature_SEMIVARIANCE_IMBALANCE = {TF_FEED_SAMPLE,   NULL,          power_machines,
                                                           samples_lookback, samples_ready, semi_imbalance_value};
const tf_feature_impl tf_feature_JUMP_SHARE = {TF_FEED_SAMPLE,   NULL,          power_machines,
                                               samples_lookback, samples_ready, jump_share_value};
const tf_feature_impl tf_feature_JUMP_TEST = {TF_FEED_SAMPLE,   NULL,          jump_machines,
                                              samples_lookback, samples_ready, jump_test_value};
const tf_feature_impl tf_feature_REALIZED_SKEWNESS = {TF_FEED_SAMPLE,   NULL,          jump_machines,
                                                      samples_lookback, samples_ready, skewness_value};

/* --- autocorrelation: pairs of neighbours --- */

enum { PAIR_NOW, PAIR_BEFORE, PAIR_PRODUCT, PAIR_SQUARE, PAIR_SQUARE_BEFORE, PAIR_VALUES };

static size_t pair_bytes(const double *param) {
    return sizeof(power_state) + rolling_bytes(PAIR_VALUES, param[0], param[1]);
}

static void pair_reset(void *state, const double *param) {
    *(power_state *)state = (power_state){0.0, 0.0};
    rolling_reset(power_window(state), PAIR_VALUES, param[0], param[1]);
}

static void pair_update(void *state, tf_features *f, const tf_sample *sample) {
    power_state *s = state;
    tf_rolling *w = power_window(state);
    if (sample->count < 2) return;
    const double r = sample_return(sample), x = s->before;
    s->before = r;
    if (sample->count < 3) return;
    const double value[PAIR_VALUES] = {r, x, r * x, r * r, x * x};
    f->counters.overflow += rolling_push(w, PAIR_VALUES, sample_key(w, f, sample), value);
}

static void pair_expire(void *state, uint64_t clock) { rolling_age(power_window(state), PAIR_VALUES, clock); }

static int pair_sound(const void *state, const double *param) {
    return isfinite(((const power_state *)state)->before) &&
           rolling_sound(power_window(state), PAIR_VALUES, param[0], param[1]);
}

const tf_machine_type tf_machine_RETURN_PAIRS = {"return_pairs", TF_FEED_SAMPLE, pair_bytes, pair_reset,
                                                 pair_update,    pair_expire,    pair_sound};

static int32_t pair_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_RETURN_PAIRS, {param[0], rolling_places(param[0], param[1])}};
    return 1;
}

static void pair_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    rolling_lookback(param[0], 2, samples, nanoseconds);
}

static int pair_ready(const tf_features *f, const tf_column *c) {
    return rolling_ready(f, c->spec.param[0], tf_last(f, c->series)->count, 2);
}

/* n times the variance; 0 where it is rounding. */
static double about_mean(double square, double sum, double n) {
    const double left = square - sum * (sum / n);
    return left > NO_VARIANCE * square ? left : 0.0;
}

static double pair_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = power_window(tf_state(f, c, 0));
    if (w->count < 2) return 0.0;
    const double n = w->count, now = rolling_sum(w, PAIR_VALUES, PAIR_NOW),
                 before = rolling_sum(w, PAIR_VALUES, PAIR_BEFORE);
    const double y = about_mean(rolling_sum(w, PAIR_VALUES, PAIR_SQUARE), now, n);
    const double x = about_mean(rolling_sum(w, PAIR_VALUES, PAIR_SQUARE_BEFORE), before, n);
    if (y == 0.0 || x == 0.0) return 0.0;
    const double product = rolling_sum(w, PAIR_VALUES, PAIR_PRODUCT) - now * (before / n);
    return fmax(-1.0, fmin(1.0, product / (sqrt(x) * sqrt(y))));
}

const tf_feature_impl tf_feature_RETURN_AUTOCORRELATION = {TF_FEED_SAMPLE, NULL,       pair_machines,
                                                           pair_lookback,  pair_ready, pair_value};

/* --- variance ratio --- */

#define RATIO_MOST 64

enum { RATIO_ONE, RATIO_SQUARE, RATIO_LONG, RATIO_LONG_SQUARE, RATIO_VALUES };

typedef struct ratio_state {
    double last[RATIO_MOST]; /* returns of one sample, a ring of q */
    uint32_t at;
    uint32_t q;
} ratio_state;

static tf_rolling *ratio_window(const void *state) { return (tf_rolling *)((uintptr_t)state + sizeof(ratio_state)); }

static size_t ratio_bytes(const double *param) {
    return sizeof(ratio_state) + rolling_bytes(RATIO_VALUES, param[0], param[2]);
}

static void ratio_reset(void *state, const double *param) {
    *(ratio_state *)state = (ratio_state){.q = (uint32_t)param[1]};
    rolling_reset(ratio_window(state), RATIO_VALUES, param[0], param[2]);
}

static void ratio_update(void *state, tf_features *f, const tf_sample *sample) {
    ratio_state *s = state;
    tf_rolling *w = ratio_window(state);
    if (sample->count < 2) return;
    const double r = sample_return(sample);
    s->last[s->at] = r;
    s->at = s->at + 1 == s->q ? 0 : s->at + 1;
    if (sample->count <= s->q) return;
    double sum = 0.0;
    for (uint32_t i = 0; i < s->q; i++) sum += s->last[i];
    const double value[RATIO_VALUES] = {r, r * r, sum, sum * sum};
    f->counters.overflow += rolling_push(w, RATIO_VALUES, sample_key(w, f, sample), value);
}

static void ratio_expire(void *state, uint64_t clock) { rolling_age(ratio_window(state), RATIO_VALUES, clock); }

static int ratio_sound(const void *state, const double *param) {
    const ratio_state *s = state;
    if (s->q != (uint32_t)param[1] || s->at >= s->q) return 0;
    for (uint32_t i = 0; i < s->q; i++) {
        if (!isfinite(s->last[i])) return 0;
    }
    return rolling_sound(ratio_window(state), RATIO_VALUES, param[0], param[2]);
}

const tf_machine_type tf_machine_VARIANCE_RATIO = {"variance_ratio", TF_FEED_SAMPLE, ratio_bytes, ratio_reset,
                                                   ratio_update,     ratio_expire,   ratio_sound};

static int32_t ratio_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_VARIANCE_RATIO, {param[0], param[1], rolling_places(param[0], param[2])}};
    return 1;
}

static void ratio_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    rolling_lookback(param[0], (uint64_t)param[1], samples, nanoseconds);
}

static int ratio_ready(const tf_features *f, const tf_column *c) {
    return rolling_ready(f, c->spec.param[0], tf_last(f, c->series)->count, (uint64_t)c->spec.param[1]);
}

static double ratio_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = ratio_window(tf_state(f, c, 0));
    if (w->count < 2) return 1.0;
    const double n = w->count, q = c->spec.param[1], sum = rolling_sum(w, RATIO_VALUES, RATIO_ONE), mean = sum / n;
    const double one = about_mean(rolling_sum(w, RATIO_VALUES, RATIO_SQUARE), sum, n);
    if (one == 0.0) return 1.0;
    const double drift = q * mean;
    const double longer = rolling_sum(w, RATIO_VALUES, RATIO_LONG_SQUARE) -
                          drift * (2.0 * rolling_sum(w, RATIO_VALUES, RATIO_LONG) - n * drift);
    return fmax(0.0, longer) / (q * one);
}

const tf_feature_impl tf_feature_VARIANCE_RATIO = {TF_FEED_SAMPLE, NULL,        ratio_machines,
                                                   ratio_lookback, ratio_ready, ratio_value};
