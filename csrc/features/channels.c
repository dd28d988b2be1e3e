/* Ranges and channels: true range, ATR, Keltner, highest and lowest, Donchian, Williams %R.
 *
 * Highest and lowest of a window come from rings of suffixes (ring.h): three comparisons a sample, no branch that
 * depends on prices, O(1) amortised. Wilder's average starts as the mean of the first n true ranges and is
 * (1 - 1/n) of itself plus 1/n of the new one after that: only positive numbers are added. */
#include "ring.h"
#include "technical.h"

/* --- true range --- */

static void true_range_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    (void)param;
    tf_samples(2.0, samples, nanoseconds);
}

static int true_range_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, 2.0); }

static double true_range_value(const tf_features *f, const tf_column *c) {
    const tf_sample *s = tf_last(f, c->series);
    const double range = tf_true_range(s);
    return c->spec.param[0] != 0.0 ? TF_BPS * range / s->close : range;
}

const tf_feature_impl tf_feature_TRUE_RANGE = {TF_FEED_SAMPLE,  NULL, NULL, true_range_lookback, true_range_ready,
                                               true_range_value};

/* --- average true range --- */

typedef struct range_state {
    double average;
    double rate; /* 1 / period */
    double keep; /* 1 - rate */
    double period;
} range_state;

static size_t range_bytes(const double *param) {
    (void)param;
    return sizeof(range_state);
}

static void range_reset(void *state, const double *param) {
    *(range_state *)state =
        (range_state){.rate = 1.0 / param[0], .keep = (param[0] - 1.0) / param[0], .period = param[0]};
}

static void range_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    range_state *s = state;
    if (sample->count == 1) return; /* no close before it */
    const double range = tf_true_range(sample);
    if ((double)(sample->count - 1) <= s->period) s->average += range * s->rate;
    else s->average = tf_settle(s->keep * s->average + s->rate * range);
}

static int range_sound(const void *state, const double *param) {
    const range_state *s = state;
    return tf_sane(s->average) && s->period == param[0] && s->rate == 1.0 / param[0] &&
           s->keep == (param[0] - 1.0) / param[0];
}

const tf_machine_type tf_machine_AVERAGE_RANGE = {"average true range", TF_FEED_SAMPLE, range_bytes, range_reset,
                                                  range_update,         NULL,           range_sound};

static int32_t atr_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_AVERAGE_RANGE, param[0], 0.0, 0.0, out);
}

static void atr_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(param[0] + 1.0, samples, nanoseconds);
}

static int atr_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, c->spec.param[0] + 1.0); }

static double atr_value(const tf_features *f, const tf_column *c) {
    return ((const range_state *)tf_state(f, c, 0))->average;
}

static double natr_value(const tf_features *f, const tf_column *c) {
    return 100.0 * (atr_value(f, c) / tf_close(f, c));
}

const tf_feature_impl tf_feature_ATR = {TF_FEED_SAMPLE, NULL, atr_machines, atr_lookback, atr_ready, atr_value};
const tf_feature_impl tf_feature_NATR = {TF_FEED_SAMPLE, NULL, atr_machines, atr_lookback, atr_ready, natr_value};

/* --- Keltner: param period, multiplier, atr_period --- */

static int32_t keltner_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){.type = TF_MACHINE_EXPONENTIAL_MEAN, .param = {param[0], 0.0, 0.0, 0.0}};
    out[1] = (tf_machine_ref){.type = TF_MACHINE_AVERAGE_RANGE, .param = {param[2], 0.0, 0.0, 0.0}};
    return 2;
}

static double keltner_samples(const double *param) { return fmax(param[0], param[2] + 1.0); }

static void keltner_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(keltner_samples(param), samples, nanoseconds);
}

static int keltner_ready(const tf_features *f, const tf_column *c) {
    return tf_seen(f, c, keltner_samples(c->spec.param));
}

static double keltner_distance(const tf_features *f, const tf_column *c) {
    return ((const tf_ema *)tf_state(f, c, 0))->distance;
}

static double keltner_band(const tf_features *f, const tf_column *c) {
    return c->spec.param[1] * ((const range_state *)tf_state(f, c, 1))->average;
}

static double keltner_middle_value(const tf_features *f, const tf_column *c) {
    return tf_close(f, c) + keltner_distance(f, c);
}

static double keltner_upper_value(const tf_features *f, const tf_column *c) {
    return keltner_middle_value(f, c) + keltner_band(f, c);
}

static double keltner_lower_value(const tf_features *f, const tf_column *c) {
    return keltner_middle_value(f, c) - keltner_band(f, c);
}

static double keltner_position_value(const tf_features *f, const tf_column *c) {
    const double half = keltner_band(f, c);
    return half > 0.0 ? -keltner_distance(f, c) / half : 0.0;
}

#define KELTNER_FEATURE(ID, VALUE)                                                                                     \
    const tf_feature_impl tf_feature_##ID = {TF_FEED_SAMPLE,   NULL,          keltner_machines,                        \
                                             keltner_lookback, keltner_ready, VALUE}
KELTNER_FEATURE(KELTNER_MIDDLE, keltner_middle_value);
KELTNER_FEATURE(KELTNER_UPPER, keltner_upper_value);
KELTNER_FEATURE(KELTNER_LOWER, keltner_lower_value);
KELTNER_FEATURE(KELTNER_POSITION, keltner_position_value);

/* --- highest and lowest: param period, 1 for closes alone --- */

typedef struct extremes_state {
    tf_range range; /* of the window; once it is full */
    tf_ring_range ring;
    uint64_t closes;
    tf_range entry[];
} extremes_state;

static size_t extremes_bytes(const double *param) {
    return sizeof(extremes_state) + (size_t)param[0] * sizeof(tf_range);
}

static void extremes_reset(void *state, const double *param) {
    extremes_state *s = state;
    memset(s, 0, extremes_bytes(param));
    s->ring.length = (uint32_t)param[0];
    s->closes = param[1] != 0.0;
}

static void extremes_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    extremes_state *s = state;
    ring_range_push(&s->ring, s->entry, s->closes ? sample->close : sample->high,
                    s->closes ? sample->close : sample->low);
    s->range = ring_range(&s->ring, s->entry);
}

static int extremes_sound(const void *state, const double *param) {
    const extremes_state *s = state;
    return tf_sane(s->range.high) && tf_sane(s->range.low) && s->closes == (param[1] != 0.0) &&
           ring_range_sound(&s->ring, s->entry, param[0]);
}

const tf_machine_type tf_machine_HIGH_LOW = {"highest and lowest", TF_FEED_SAMPLE, extremes_bytes, extremes_reset,
                                             extremes_update,      NULL,           extremes_sound};

static int32_t channel_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_HIGH_LOW, param[0], 0.0, 0.0, out);
}

static int32_t closes_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_HIGH_LOW, param[0], 1.0, 0.0, out);
}

static void extremes_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(param[0], samples, nanoseconds);
}

static int extremes_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, c->spec.param[0]); }

static const tf_range *range_of(const tf_features *f, const tf_column *c) {
    return &((const extremes_state *)tf_state(f, c, 0))->range;
}

static double highest_value(const tf_features *f, const tf_column *c) { return range_of(f, c)->high; }

static double lowest_value(const tf_features *f, const tf_column *c) { return range_of(f, c)->low; }

static double donchian_middle_value(const tf_features *f, const tf_column *c) {
    return 0.5 * (range_of(f, c)->high + range_of(f, c)->low);
}

static double donchian_width_value(const tf_features *f, const tf_column *c) {
    return TF_BPS * (range_of(f, c)->high - range_of(f, c)->low) / donchian_middle_value(f, c);
}

static double donchian_position_value(const tf_features *f, const tf_column *c) {
    const tf_range *r = range_of(f, c);
    return r->high > r->low ? (tf_close(f, c) - r->low) / (r->high - r->low) : 0.5;
}

static double williams_r_value(const tf_features *f, const tf_column *c) {
    const tf_range *r = range_of(f, c);
    return r->high > r->low ? -100.0 * ((r->high - tf_close(f, c)) / (r->high - r->low)) : -50.0;
}

#define EXTREMES_FEATURE(ID, MACHINES, VALUE)                                                                          \
    const tf_feature_impl tf_feature_##ID = {TF_FEED_SAMPLE, NULL, MACHINES, extremes_lookback, extremes_ready, VALUE}
EXTREMES_FEATURE(HIGHEST, closes_machines, highest_value);
EXTREMES_FEATURE(LOWEST, closes_machines, lowest_value);
EXTREMES_FEATURE(DONCHIAN_UPPER, channel_machines, highest_value);
EXTREMES_FEATURE(DONCHIAN_LOWER, channel_machines, lowest_value);
EXTREMES_FEATURE(DONCHIAN_MIDDLE, channel_machines, donchian_middle_value);
EXTREMES_FEATURE(DONCHIAN_WIDTH, channel_machines, donchian_width_value);
EXTREMES_FEATURE(DONCHIAN_POSITION, channel_machines, donchian_position_value);
EXTREMES_FEATURE(WILLIAMS_R, channel_machines, williams_r_value);
