/* Trend: directional movement (Wilder 1978, chapter 4) and Aroon (Chande 1995).
 *
 * Wilder's sums of moves up, moves down and true range begin as plain sums of the first n - 1 samples and are then
 * (1 - 1/n) of themselves plus the new one, as TA-Lib has it. They shrink geometrically, so no rounding lives long.
 * The index of one sample is |up - down| / (up + down): the range cancels. Its average starts as the mean of the
 * first n. */
#include "technical.h"

/* --- directional movement --- */

typedef struct direction_state {
    double up;
    double down;
    double range;
    double average; /* of the index */
    double high;    /* of the sample before */
    double low;
    double rate;    /* 1 / period */
    double keep;    /* 1 - rate */
    double period;
} direction_state;

static size_t direction_bytes(const double *param) {
    (void)param;
    return sizeof(direction_state);
}

static void direction_reset(void *state, const double *param) {
    *(direction_state *)state =
        (direction_state){.rate = 1.0 / param[0], .keep = (param[0] - 1.0) / param[0], .period = param[0]};
}

static void direction_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    direction_state *s = state;
    const double up = sample->high - s->high, down = s->low - sample->low;
    s->high = sample->high;
    s->low = sample->low;
    if (sample->count == 1) return;
    const double moves = (double)(sample->count - 1);
    const double range = tf_true_range(sample);
    const double rose = up > down && up > 0.0 ? up : 0.0, fell = down > up && down > 0.0 ? down : 0.0;
    if (moves < s->period) {
        s->up += rose;
        s->down += fell;
        s->range += range;
        return;
    }
    s->up = tf_settle(s->keep * s->up + rose);
    s->down = tf_settle(s->keep * s->down + fell);
    s->range = tf_settle(s->keep * s->range + range);
    const double sum = s->up + s->down;
    const double index = sum > 0.0 ? 100.0 * (fabs(s->up - s->down) / sum) : 0.0;
    if (moves < 2.0 * s->period) s->average += index * s->rate;
    else if (sum > 0.0) s->average = tf_settle(s->keep * s->average + s->rate * index);
}

static int direction_sound(const void *state, const double *param) {
    const direction_state *s = state;
    return tf_sane(s->up) && tf_sane(s->down) && tf_sane(s->range) && tf_sane(s->average) && tf_sane(s->high) &&
           tf_sane(s->low) && s->period == param[0] && s->rate == 1.0 / param[0] &&
           s->keep == (param[0] - 1.0) / param[0];
}

const tf_machine_type tf_machine_DIRECTION = {"directional movement", TF_FEED_SAMPLE, direction_bytes, direction_reset,
                                              direction_update,       NULL,           direction_sound};

static int32_t direction_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_DIRECTION, param[0], 0.0, 0.0, out);
}

static void adx_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(2.0 * param[0], samples, nanoseconds);
}

static void move_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(param[0] + 1.0, samples, nanoseconds);
}

static int adx_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, 2.0 * c->spec.param[0]); }

static int move_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, c->spec.param[0] + 1.0); }

static double adx_value(const tf_features *f, const tf_column *c) {
    return ((const direction_state *)tf_state(f, c, 0))->average;
}

static double plus_di_value(const tf_features *f, const tf_column *c) {
    const direction_state *s = tf_state(f, c, 0);
    return s->range > 0.0 ? 100.0 * (s->up / s->range) : 0.0;
}

static double minus_di_value(const tf_features *f, const tf_column *c) {
    const direction_state *s = tf_state(f, c, 0);
    return s->range > 0.0 ? 100.0 * (s->down / s->range) : 0.0;
}

const tf_feature_impl tf_feature_ADX = {TF_FEED_SAMPLE, NULL, direction_machines, adx_lookback, adx_ready, adx_value};
const tf_feature_impl tf_feature_PLUS_DI = {TF_FEED_SAMPLE, NULL,       direction_machines,
                                            move_lookback,  move_ready, plus_di_value};
const tf_feature_impl tf_feature_MINUS_DI = {TF_FEED_SAMPLE, NULL,       direction_machines,
                                             move_lookback,  move_ready, minus_di_value};

/* --- Aroon: how long ago the highest high and the lowest low of period + 1 samples were ---
 *
 * A ring of suffixes as in ring.h, with places beside the prices. Of equal prices the latest counts. */

typedef struct aroon_entry {
    double high;
    double low;
    uint32_t high_at; /* places in their block */
    uint32_t low_at;
} aroon_entry;

typedef struct aroon_state {
    double up;
    double down;
    double scale; /* 100 / period */
    aroon_entry newer;
    uint32_t length; /* period + 1 */
    uint32_t at;
    aroon_entry entry[];
} aroon_state;

static size_t aroon_bytes(const double *param) {
    return sizeof(aroon_state) + ((size_t)param[0] + 1) * sizeof(aroon_entry);
}

static void aroon_reset(void *state, const double *param) {
    aroon_state *s = state;
    memset(s, 0, aroon_bytes(param));
    s->length = (uint32_t)param[0] + 1;
    s->scale = 100.0 / param[0];
}

static void aroon_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    aroon_state *s = state;
    const uint32_t length = s->length;
    const aroon_entry x = {sample->high, sample->low, s->at, s->at};
    s->entry[s->at] = x;
    if (s->at == 0 || x.high >= s->newer.high) {
        s->newer.high = x.high;
        s->newer.high_at = x.high_at;
    }
    if (s->at == 0 || x.low <= s->newer.low) {
        s->newer.low = x.low;
        s->newer.low_at = x.low_at;
    }
    if (++s->at == length) {
        for (uint32_t i = length - 1; i-- > 0;) {
            aroon_entry *e = &s->entry[i];
            const aroon_entry *later = &s->entry[i + 1];
            if (later->high >= e->high) {
                e->high = later->high;
                e->high_at = later->high_at;
            }
            if (later->low <= e->low) {
                e->low = later->low;
                e->low_at = later->low_at;
            }
        }
        s->at = 0;
    }
    /* Age of a place: this block's newest is at - 1; what stands in the block before is `length` older. */
    const aroon_entry *older = &s->entry[s->at];
    const uint32_t now = s->at + length - 1;
    const int high_is_new = s->at > 0 && s->newer.high >= older->high,
              low_is_new = s->at > 0 && s->newer.low <= older->low;
    const uint32_t high_age = now - (high_is_new ? s->newer.high_at + length : older->high_at);
    const uint32_t low_age = now - (low_is_new ? s->newer.low_at + length : older->low_at);
    s->up = s->scale * (double)(length - 1 - high_age);
    s->down = s->scale * (double)(length - 1 - low_age);
}

static int aroon_entry_sound(const aroon_entry *e, uint32_t length) {
    return tf_sane(e->high) && tf_sane(e->low) && e->high_at < length && e->low_at < length;
}

static int aroon_sound(const void *state, const double *param) {
    const aroon_state *s = state;
    if ((double)s->length != param[0] + 1.0 || s->at >= s->length || s->scale != 100.0 / param[0]) return 0;
    if (!tf_sane(s->up) || !tf_sane(s->down) || !aroon_entry_sound(&s->newer, s->length)) return 0;
    for (uint32_t i = 0; i < s->length; i++) {
        if (!aroon_entry_sound(&s->entry[i], s->length)) return 0;
    }
    return 1;
}

const tf_machine_type tf_machine_AROON = {"Aroon",      TF_FEED_SAMPLE, aroon_bytes, aroon_reset,
                                          aroon_update, NULL,           aroon_sound};

static int32_t aroon_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_AROON, param[0], 0.0, 0.0, out);
}

static double aroon_up_value(const tf_features *f, const tf_column *c) {
    return ((const aroon_state *)tf_state(f, c, 0))->up;
}

static double aroon_down_value(const tf_features *f, const tf_column *c) {
    return ((const aroon_state *)tf_state(f, c, 0))->down;
}

static double aroon_oscillator_value(const tf_features *f, const tf_column *c) {
    return aroon_up_value(f, c) - aroon_down_value(f, c);
}

const tf_feature_impl tf_feature_AROON_UP = {TF_FEED_SAMPLE, NULL,       aroon_machines,
                                             move_lookback,  move_ready, aroon_up_value};
const tf_feature_impl tf_feature_AROON_DOWN = {TF_FEED_SAMPLE, NULL,       aroon_machines,
                                               move_lookback,  move_ready, aroon_down_value};
const tf_feature_impl tf_feature_AROON_OSCILLATOR = {TF_FEED_SAMPLE, NULL,       aroon_machines,
                                                     move_lookback,  move_ready, aroon_oscillator_value};
