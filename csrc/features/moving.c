/* Moving averages, Bollinger bands, lags.
 *
 * Mean and variance of the latest n closes are made of sums of x - r and (x - r)^2 in a ring of suffixes (ring.h),
 * where r is the last close of the block before. r is always one of the n closes or equal to one, so that
 *     sum (x - r)^2 <= (n + 1) sum (x - mean)^2,
 * and the subtraction in sum (x - r)^2 - (sum (x - r))^2 / n loses at most a factor of n + 1 whatever the series does:
 * a tick of 0.01 at a price of 65,000, a gap, a price that is wrong for one sample. There is nothing to drift. (A sum
 * of squares of prices, as in most libraries, has lost all digits at 65,000 +- 0.01; Welford's update with removal
 * drifts.)
 *
 * The weighted average has weights 1..n, oldest first. For the suffix that starts at j, W(j) = W(j + 1) + S(j) with S
 * the plain sum; for the prefix the weights start at n - at + 1. */
#include "ring.h"
#include "technical.h"

/* --- mean and variance --- */

typedef struct moments_entry {
    double sum;
    double squares;
} moments_entry;

typedef struct moments_state {
    double mean;      /* minus the reference */
    double variance;  /* of the population */
    double reference;
    double inverse;   /* 1 / length */
    moments_entry newer;
    uint32_t length;
    uint32_t at;
    moments_entry entry[];
} moments_state;

static size_t moments_bytes(const double *param) {
    return sizeof(moments_state) + (size_t)param[0] * sizeof(moments_entry);
}

static void moments_reset(void *state, const double *param) {
    moments_state *s = state;
    memset(s, 0, moments_bytes(param));
    s->length = (uint32_t)param[0];
    s->inverse = 1.0 / param[0];
}

static void moments_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    moments_state *s = state;
    if (sample->count == 1) s->reference = sample->close;
    const double x = sample->close - s->reference;
    s->entry[s->at].sum = sample->close; /* as it is until its block is full */
    s->newer.sum += x;
    s->newer.squares += x * x;
    if (++s->at == s->length) { /* the last close becomes the reference, of the suffixes and of the next block */
        moments_entry total = {0.0, 0.0};
        for (uint32_t i = s->length; i-- > 0;) {
            const double y = s->entry[i].sum - sample->close;
            total.sum += y;
            total.squares += y * y;
            s->entry[i] = total;
        }
        s->newer = (moments_entry){0.0, 0.0};
        s->reference = sample->close;
        s->at = 0;
    }
    const moments_entry *older = &s->entry[s->at];
    const double sum = s->newer.sum + older->sum;
    s->mean = sum * s->inverse;
    const double variance = (s->newer.squares + older->squares - sum * s->mean) * s->inverse;
    s->variance = variance > 0.0 ? variance : 0.0;
}

static int moments_sound(const void *state, const double *param) {
    const moments_state *s = state;
    if ((double)s->length != param[0] || s->at >= s->length || s->inverse != 1.0 / param[0]) return 0;
    if (!tf_sane(s->mean) || !(s->variance >= 0.0 && s->variance <= TF_SANE) || !tf_sane(s->reference)) return 0;
    if (!tf_sane(s->newer.sum) || !tf_sane(s->newer.squares)) return 0;
    for (uint32_t i = 0; i < s->length; i++) {
        if (!tf_sane(s->entry[i].sum) || !tf_sane(s->entry[i].squares)) return 0;
    }
    return 1;
}

const tf_machine_type tf_machine_MEAN_VARIANCE = {"mean and variance", TF_FEED_SAMPLE, moments_bytes, moments_reset,
                                                  moments_update,      NULL,           moments_sound};

static int32_t moments_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_MEAN_VARIANCE, param[0], 0.0, 0.0, out);
}

/* Lookback and readiness of everything that needs as many samples as its first parameter says. */
static void period_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(param[0], samples, nanoseconds);
}

static int period_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, c->spec.param[0]); }

static double mean_value(const tf_features *f, const tf_column *c) {
    const moments_state *s = tf_state(f, c, 0);
    return s->reference + s->mean;
}

static double band(const tf_features *f, const tf_column *c) {
    return c->spec.param[1] * sqrt(((const moments_state *)tf_state(f, c, 0))->variance);
}

static double bollinger_upper_value(const tf_features *f, const tf_column *c) { return mean_value(f, c) + band(f, c); }

static double bollinger_lower_value(const tf_features *f, const tf_column *c) { return mean_value(f, c) - band(f, c); }

static double bollinger_percent_value(const tf_features *f, const tf_column *c) {
    const moments_state *s = tf_state(f, c, 0);
    const double half = band(f, c);
    if (!(half > 0.0)) return 0.5;
    return 0.5 + 0.5 * (tf_close(f, c) - s->reference - s->mean) / half;
}

static double bollinger_bandwidth_value(const tf_features *f, const tf_column *c) {
    return 2.0 * TF_BPS * band(f, c) / mean_value(f, c);
}

#define MOMENTS_FEATURE(ID, VALUE)                                                                                     \
    const tf_feature_impl tf_feature_##ID = {TF_FEED_SAMPLE,  NULL,         moments_machines,                          \
                                             period_lookback, period_ready, VALUE}
MOMENTS_FEATURE(SMA, mean_value);
MOMENTS_FEATURE(BOLLINGER_MIDDLE, mean_value);
MOMENTS_FEATURE(BOLLINGER_UPPER, bollinger_upper_value);
MOMENTS_FEATURE(BOLLINGER_LOWER, bollinger_lower_value);
MOMENTS_FEATURE(BOLLINGER_PERCENT, bollinger_percent_value);
MOMENTS_FEATURE(BOLLINGER_BANDWIDTH, bollinger_bandwidth_value);

/* --- weighted average --- */

typedef struct weighted_entry {
    double sum;
    double weighted;
} weighted_entry;

typedef struct weighted_state {
    double mean; /* minus the reference */
    double reference;
    double inverse; /* 1 / (1 + 2 + .. + length) */
    weighted_entry newer;
    uint32_t length;
    uint32_t at;
    weighted_entry entry[];
} weighted_state;

static size_t weighted_bytes(const double *param) {
    return sizeof(weighted_state) + (size_t)param[0] * sizeof(weighted_entry);
}

static void weighted_reset(void *state, const double *param) {
    weighted_state *s = state;
    memset(s, 0, weighted_bytes(param));
    s->length = (uint32_t)param[0];
    s->inverse = 2.0 / (param[0] * (param[0] + 1.0));
}

static void weighted_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    weighted_state *s = state;
    if (sample->count == 1) s->reference = sample->close;
    const double x = sample->close - s->reference;
    s->entry[s->at].sum = sample->close; /* as it is until its block is full */
    s->newer.sum += x;
    s->newer.weighted += (double)++s->at * x;
    if (s->at == s->length) {
        weighted_entry total = {0.0, 0.0};
        for (uint32_t i = s->length; i-- > 0;) {
            total.sum += s->entry[i].sum - sample->close;
            total.weighted += total.sum;
            s->entry[i] = total;
        }
        s->newer = (weighted_entry){0.0, 0.0};
        s->reference = sample->close;
        s->at = 0;
    }
    const double older = (double)(s->length - s->at); /* samples of the block before: the newer weigh that much more */
    s->mean = (s->entry[s->at].weighted + s->newer.weighted + older * s->newer.sum) * s->inverse;
}

static int weighted_sound(const void *state, const double *param) {
    const weighted_state *s = state;
    if ((double)s->length != param[0] || s->at >= s->length || s->inverse != 2.0 / (param[0] * (param[0] + 1.0)))
        return 0;
    if (!tf_sane(s->mean) || !tf_sane(s->reference) || !tf_sane(s->newer.sum) || !tf_sane(s->newer.weighted)) return 0;
    for (uint32_t i = 0; i < s->length; i++) {
        if (!tf_sane(s->entry[i].sum) || !tf_sane(s->entry[i].weighted)) return 0;
    }
    return 1;
}

static int32_t weighted_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_WEIGHTED_MEAN, param[0], 0.0, 0.0, out);
}

static double wma_value(const tf_features *f, const tf_column *c) {
    const weighted_state *s = tf_state(f, c, 0);
    return s->reference + s->mean;
}

const tf_machine_type tf_machine_WEIGHTED_MEAN = {"weighted mean", TF_FEED_SAMPLE, weighted_bytes, weighted_reset,
                                                  weighted_update, NULL,           weighted_sound};
const tf_feature_impl tf_feature_WMA = {TF_FEED_SAMPLE,  NULL,         weighted_machines,
                                        period_lookback, period_ready, wma_value};

/* --- exponential average --- */

static size_t ema_bytes(const double *param) {
    (void)param;
    return sizeof(tf_ema);
}

static void ema_reset(void *state, const double *param) { tf_ema_reset(state, param[0]); }

static void ema_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    tf_ema_push(state, (double)sample->count, sample->close, sample->previous);
}

static int ema_sound(const void *state, const double *param) { return tf_ema_sound(state, param[0]); }

static int32_t ema_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_EXPONENTIAL_MEAN, param[0], 0.0, 0.0, out);
}

static double ema_value(const tf_features *f, const tf_column *c) {
    return tf_close(f, c) + ((const tf_ema *)tf_state(f, c, 0))->distance;
}

const tf_machine_type tf_machine_EXPONENTIAL_MEAN = {"moving average", TF_FEED_SAMPLE, ema_bytes, ema_reset,
                                                     ema_update,       NULL,           ema_sound};
const tf_feature_impl tf_feature_EMA = {TF_FEED_SAMPLE, NULL, ema_machines, period_lookback, period_ready, ema_value};

/* --- the close some samples ago --- */

typedef struct lag_state {
    double past;
    uint32_t length;
    uint32_t at;
    double close[];
} lag_state;

static size_t lag_bytes(const double *param) { return sizeof(lag_state) + (size_t)param[0] * sizeof(double); }

static void lag_reset(void *state, const double *param) {
    lag_state *s = state;
    memset(s, 0, lag_bytes(param));
    s->length = (uint32_t)param[0];
}

static void lag_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    lag_state *s = state;
    s->past = s->close[s->at];
    s->close[s->at] = sample->close;
    if (++s->at == s->length) s->at = 0;
}

/* It is divided by; 0 stands where none has come yet. */
static int is_close(double x) { return x == 0.0 || (x >= TF_VALUE_MIN && x <= TF_VALUE_MAX); }

static int lag_sound(const void *state, const double *param) {
    const lag_state *s = state;
    if ((double)s->length != param[0] || s->at >= s->length || !is_close(s->past)) return 0;
    for (uint32_t i = 0; i < s->length; i++) {
        if (!is_close(s->close[i])) return 0;
    }
    return 1;
}

static int32_t lag_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_CLOSE_LAG, param[0], 0.0, 0.0, out);
}

static void lag_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(param[0] + 1.0, samples, nanoseconds);
}

static int lag_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, c->spec.param[0] + 1.0); }

static double momentum_value(const tf_features *f, const tf_column *c) {
    return tf_close(f, c) - ((const lag_state *)tf_state(f, c, 0))->past;
}

static double rate_of_change_value(const tf_features *f, const tf_column *c) {
    const double past = ((const lag_state *)tf_state(f, c, 0))->past;
    return past > 0.0 ? 100.0 * ((tf_close(f, c) - past) / past) : 0.0;
}

const tf_machine_type tf_machine_CLOSE_LAG = {"close before", TF_FEED_SAMPLE, lag_bytes, lag_reset,
                                              lag_update,     NULL,           lag_sound};
const tf_feature_impl tf_feature_MOMENTUM = {TF_FEED_SAMPLE, NULL,      lag_machines,
                                             lag_lookback,   lag_ready, momentum_value};
const tf_feature_impl tf_feature_RATE_OF_CHANGE = {TF_FEED_SAMPLE, NULL,      lag_machines,
                                                   lag_lookback,   lag_ready, rate_of_change_value};
