/* Oscillators: MACD, stochastic, commodity channel index.
 *
 * MACD is the distance between two exponential averages; both keep their distance from the latest close (technical.h),
 * so the line is made of moves and has its digits at 65,000 +- 0.01 too, and so has the histogram, which follows the
 * line in the same way. Both averages start at the sample `slow`, each as the mean of its own last closes, as TA-Lib
 * has it.
 *
 * The mean absolute deviation of the commodity channel index is about a mean that moves with every sample. Windows up
 * to LOOP_LIMIT are walked; longer ones keep an ordered set (ordered.h), where the sum of what lies below the mean is
 * found in O(log period), and half of the deviations lie below the mean. */
#include "ordered.h"
#include "ring.h"
#include "technical.h"

#define CCI_SCALE 0.015 /* Lambert's, so that most values lie within +-100 */
#define LOOP_LIMIT 64u

/* --- MACD: param fast, slow, signal --- */

typedef struct macd_state {
    tf_ema fast;
    tf_ema slow;
    double line;
    double histogram; /* line minus its average */
    double keep;      /* of the signal */
    double sum;       /* of the first lines */
    double signal;    /* its period */
} macd_state;

static size_t macd_bytes(const double *param) {
    (void)param;
    return sizeof(macd_state);
}

static void macd_reset(void *state, const double *param) {
    macd_state *s = state;
    *s = (macd_state){.keep = (param[2] - 1.0) / (param[2] + 1.0), .signal = param[2]};
    tf_ema_reset(&s->fast, param[0]);
    tf_ema_reset(&s->slow, param[1]);
}

static void macd_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    macd_state *s = state;
    const double count = (double)sample->count;
    tf_ema_push(&s->slow, count, sample->close, sample->previous);
    const double late = count - (s->slow.period - s->fast.period); /* the fast one waits for the slow one */
    if (late < 1.0) return;
    tf_ema_push(&s->fast, late, sample->close, sample->previous);
    const double lines = count - s->slow.period + 1.0;
    if (lines < 1.0) return;
    const double line = s->fast.distance - s->slow.distance;
    if (lines > s->signal) {
        s->histogram = tf_settle(s->keep * (s->histogram + (line - s->line)));
    } else {
        s->sum += line;
        if (lines == s->signal) s->histogram = line - s->sum / s->signal;
    }
    s->line = line;
}

static int macd_sound(const void *state, const double *param) {
    const macd_state *s = state;
    return tf_ema_sound(&s->fast, param[0]) && tf_ema_sound(&s->slow, param[1]) && s->signal == param[2] &&
           s->keep == (param[2] - 1.0) / (param[2] + 1.0) && tf_sane(s->line) && tf_sane(s->histogram) &&
           tf_sane(s->sum);
}

const tf_machine_type tf_machine_MACD = {"MACD", TF_FEED_SAMPLE, macd_bytes, macd_reset, macd_update, NULL, macd_sound};

static int macd_check(const double *param) { return param[0] < param[1]; }

static int32_t macd_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_MACD, param[0], param[1], param[2], out);
}

static void macd_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(param[1] + param[2] - 1.0, samples, nanoseconds);
}

static int macd_ready(const tf_features *f, const tf_column *c) {
    return tf_seen(f, c, c->spec.param[1] + c->spec.param[2] - 1.0);
}

static double macd_scaled(const tf_features *f, const tf_column *c, double x) {
    return c->spec.param[3] != 0.0 ? TF_BPS * (x / tf_close(f, c)) : x;
}

static double macd_value(const tf_features *f, const tf_column *c) {
    return macd_scaled(f, c, ((const macd_state *)tf_state(f, c, 0))->line);
}

static double macd_signal_value(const tf_features *f, const tf_column *c) {
    const macd_state *s = tf_state(f, c, 0);
    return macd_scaled(f, c, s->line - s->histogram);
}

static double macd_histogram_value(const tf_features *f, const tf_column *c) {
    return macd_scaled(f, c, ((const macd_state *)tf_state(f, c, 0))->histogram);
}

#define MACD_FEATURE(ID, VALUE)                                                                                        \
    const tf_feature_impl tf_feature_##ID = {TF_FEED_SAMPLE, macd_check, macd_machines,                                \
                                             macd_lookback,  macd_ready, VALUE}
MACD_FEATURE(MACD, macd_value);
MACD_FEATURE(MACD_SIGNAL, macd_signal_value);
MACD_FEATURE(MACD_HISTOGRAM, macd_histogram_value);

/* --- stochastic: param period, smooth_k, smooth_d --- */

typedef struct stochastic_state {
    tf_ring_range range;
    tf_ring_sum fast; /* the raw %K, smoothed over smooth_k */
    tf_ring_sum slow; /* %K, smoothed over smooth_d */
    double k;
    double d;
    double k_rate; /* 1 / smooth_k */
    double d_rate;
    tf_range entry[]; /* period; then smooth_k and smooth_d doubles */
} stochastic_state;

static double *stochastic_fast(stochastic_state *s) { return (double *)&s->entry[s->range.length]; }

static size_t stochastic_bytes(const double *param) {
    return sizeof(stochastic_state) + (size_t)param[0] * sizeof(tf_range) +
           (size_t)(param[1] + param[2]) * sizeof(double);
}

static void stochastic_reset(void *state, const double *param) {
    stochastic_state *s = state;
    memset(s, 0, stochastic_bytes(param));
    s->range.length = (uint32_t)param[0];
    s->fast.length = (uint32_t)param[1];
    s->slow.length = (uint32_t)param[2];
    s->k_rate = 1.0 / param[1];
    s->d_rate = 1.0 / param[2];
}

static void stochastic_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    stochastic_state *s = state;
    ring_range_push(&s->range, s->entry, sample->high, sample->low);
    if (sample->count < s->range.length) return;
    const tf_range range = ring_range(&s->range, s->entry);
    double *const fast = stochastic_fast(s), *const slow = fast + s->fast.length;
    const double width = range.high - range.low;
    ring_sum_push(&s->fast, fast, width > 0.0 ? 100.0 * ((sample->close - range.low) / width) : 50.0);
    if (sample->count < (uint64_t)s->range.length + s->fast.length - 1) return;
    s->k = ring_sum(&s->fast, fast) * s->k_rate;
    ring_sum_push(&s->slow, slow, s->k);
    s->d = ring_sum(&s->slow, slow) * s->d_rate;
}

static int stochastic_sound(const void *state, const double *param) {
    const stochastic_state *s = state;
    if (!tf_sane(s->k) || !tf_sane(s->d) || s->k_rate != 1.0 / param[1] || s->d_rate != 1.0 / param[2]) return 0;
    if (!ring_range_sound(&s->range, s->entry, param[0])) return 0;
    const double *fast = (const double *)&s->entry[s->range.length];
    return (double)s->fast.length == param[1] && ring_sum_sound(&s->fast, fast, param[1]) &&
           ring_sum_sound(&s->slow, fast + s->fast.length, param[2]);
}

const tf_machine_type tf_machine_STOCHASTIC = {"stochastic",      TF_FEED_SAMPLE, stochastic_bytes, stochastic_reset,
                                               stochastic_update, NULL,           stochastic_sound};

static int32_t stochastic_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_STOCHASTIC, param[0], param[1], param[2], out);
}

static double stochastic_samples(const double *param) { return param[0] + param[1] + param[2] - 2.0; }

static void stochastic_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(stochastic_samples(param), samples, nanoseconds);
}

static int stochastic_ready(const tf_features *f, const tf_column *c) {
    return tf_seen(f, c, stochastic_samples(c->spec.param));
}

static double stochastic_k_value(const tf_features *f, const tf_column *c) {
    return ((const stochastic_state *)tf_state(f, c, 0))->k;
}

static double stochastic_d_value(const tf_features *f, const tf_column *c) {
    return ((const stochastic_state *)tf_state(f, c, 0))->d;
}

const tf_feature_impl tf_feature_STOCHASTIC_K = {
    TF_FEED_SAMPLE, NULL, stochastic_machines, stochastic_lookback, stochastic_ready, stochastic_k_value};
const tf_feature_impl tf_feature_STOCHASTIC_D = {
    TF_FEED_SAMPLE, NULL, stochastic_machines, stochastic_lookback, stochastic_ready, stochastic_d_value};

/* --- commodity channel index --- */

typedef struct channel_state {
    double excess;    /* of the latest typical price over the mean */
    double deviation; /* mean absolute deviation */
    double inverse;   /* 1 / length */
    uint32_t length;
    uint32_t at;
    double typical[]; /* length; then a tf_ordered when length > LOOP_LIMIT */
} channel_state;

static tf_ordered *channel_set(const channel_state *s) { return (tf_ordered *)(uintptr_t)&s->typical[s->length]; }

static size_t channel_bytes(const double *param) {
    const uint32_t length = (uint32_t)param[0];
    return sizeof(channel_state) + length * sizeof(double) + (length > LOOP_LIMIT ? ordered_bytes(length) : 0);
}

static void channel_reset(void *state, const double *param) {
    channel_state *s = state;
    memset(s, 0, channel_bytes(param));
    s->length = (uint32_t)param[0];
    s->inverse = 1.0 / param[0];
    if (s->length > LOOP_LIMIT) ordered_reset(channel_set(s), s->length);
}

/* Sums in four parts, which the processor adds side by side; distances from the newest, x, keep their digits. */
static void channel_walk(channel_state *s, double x) {
    const uint32_t length = s->length, whole = length & ~3u;
    double part[4] = {0.0, 0.0, 0.0, 0.0};
    for (uint32_t i = 0; i < whole; i += 4) {
        for (int k = 0; k < 4; k++) part[k] += s->typical[i + (uint32_t)k] - x;
    }
    for (uint32_t i = whole; i < length; i++) part[0] += s->typical[i] - x;
    const double mean = ((part[0] + part[1]) + (part[2] + part[3])) * s->inverse;
    part[0] = part[1] = part[2] = part[3] = 0.0;
    for (uint32_t i = 0; i < whole; i += 4) {
        for (int k = 0; k < 4; k++) part[k] += fabs(s->typical[i + (uint32_t)k] - x - mean);
    }
    for (uint32_t i = whole; i < length; i++) part[0] += fabs(s->typical[i] - x - mean);
    s->excess = -mean;
    s->deviation = ((part[0] + part[1]) + (part[2] + part[3])) * s->inverse;
}

static void channel_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    channel_state *s = state;
    const double x = tf_typical(sample);
    const double old = s->typical[s->at];
    s->typical[s->at] = x;
    if (++s->at == s->length) s->at = 0;
    const int full = sample->count >= s->length;
    if (s->length <= LOOP_LIMIT) {
        if (full) channel_walk(s, x);
        return;
    }
    tf_ordered *set = channel_set(s);
    if (sample->count <= s->length) ordered_insert(set, x);
    else ordered_replace(set, old, x);
    if (!full) return;
    /* The mean in one double is off by up to half a unit of a price; what that adds below it is taken back. */
    const tf_ordered_node *root = &set->node[set->root];
    const double rest = root->excess * s->inverse, mean = root->value + rest, slip = (mean - root->value) - rest;
    uint32_t below, equal = 0;
    const double shortfall = ordered_shortfall(set, mean, &below);
    if (slip < 0.0) ordered_rank(set, mean, &equal);
    s->excess = x - root->value - rest;
    s->deviation = 2.0 * (shortfall - (double)(below + equal) * slip) * s->inverse;
}

static int channel_sound(const void *state, const double *param) {
    const channel_state *s = state;
    if ((double)s->length != param[0] || s->at >= s->length || s->inverse != 1.0 / param[0]) return 0;
    if (!tf_sane(s->excess) || !tf_sane(s->deviation)) return 0;
    for (uint32_t i = 0; i < s->length; i++) {
        if (!(fabs(s->typical[i]) <= TF_ORDERED_LIMIT)) return 0;
    }
    return s->length <= LOOP_LIMIT || ordered_sound(channel_set(s), s->length);
}

const tf_machine_type tf_machine_MEAN_DEVIATION = {
    "mean absolute deviation", TF_FEED_SAMPLE, channel_bytes, channel_reset, channel_update, NULL, channel_sound};

static int32_t cci_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_MEAN_DEVIATION, param[0], 0.0, 0.0, out);
}

static void cci_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(param[0], samples, nanoseconds);
}

static int cci_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, c->spec.param[0]); }

static double cci_value(const tf_features *f, const tf_column *c) {
    const channel_state *s = tf_state(f, c, 0);
    return s->deviation > 0.0 ? s->excess / (CCI_SCALE * s->deviation) : 0.0;
}

static double mean_absolute_deviation_value(const tf_features *f, const tf_column *c) {
    const double deviation = ((const channel_state *)tf_state(f, c, 0))->deviation;
    return c->spec.param[1] != 0.0 ? TF_BPS * (deviation / tf_close(f, c)) : deviation;
}

const tf_feature_impl tf_feature_CCI = {TF_FEED_SAMPLE, NULL, cci_machines, cci_lookback, cci_ready, cci_value};
const tf_feature_impl tf_feature_MEAN_ABSOLUTE_DEVIATION = {TF_FEED_SAMPLE, NULL,      cci_machines,
                                                            cci_lookback,   cci_ready, mean_absolute_deviation_value};
