/* Moving averages of moving averages, and one that adapts.
 *
 * Double and triple exponential averages (Mulloy 1994) take back the lag of the first by those of its averages: with e2
 * the average of e1 and e3 that of e2, 2 e1 - e2 and 3 e1 - 3 e2 + e3. Each average starts as the mean of the first n
 * of what it averages, as TA-Lib has it.
 *
 * Kaufman's (1995) moves by the square of a rate between those of 30 and of 2 samples, as far as the price went
 * straight: the distance of n samples over the sum of their moves. It keeps its distance from the close (technical.h).
 */
#include "ring.h"
#include "technical.h"

/* --- double and triple: one machine --- */

typedef struct chain_state {
    tf_ema first;
    tf_ema second;
    tf_ema third;
    double one; /* the average itself and its average */
    double two;
} chain_state;

static size_t chain_bytes(const double *param) {
    (void)param;
    return sizeof(chain_state);
}

static void chain_reset(void *state, const double *param) {
    chain_state *s = state;
    memset(s, 0, sizeof *s);
    tf_ema_reset(&s->first, param[0]);
    tf_ema_reset(&s->second, param[0]);
    tf_ema_reset(&s->third, param[0]);
}

static void chain_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    chain_state *s = state;
    const double later = s->first.period - 1.0, count = (double)sample->count;
    tf_ema_push(&s->first, count, sample->close, sample->previous);
    if (count <= later) return;
    const double one = sample->close + s->first.distance;
    tf_ema_push(&s->second, count - later, one, s->one);
    s->one = one;
    if (count <= 2.0 * later) return;
    const double two = one + s->second.distance;
    tf_ema_push(&s->third, count - 2.0 * later, two, s->two);
    s->two = two;
}

static int chain_sound(const void *state, const double *param) {
    const chain_state *s = state;
    return tf_ema_sound(&s->first, param[0]) && tf_ema_sound(&s->second, param[0]) &&
           tf_ema_sound(&s->third, param[0]) && tf_sane(s->one) && tf_sane(s->two);
}

static int32_t chain_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_EXPONENTIAL_CHAIN, param[0], 0.0, 0.0, out);
}

static void dema_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(2.0 * param[0] - 1.0, samples, nanoseconds);
}

static void tema_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(3.0 * param[0] - 2.0, samples, nanoseconds);
}

static int dema_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, 2.0 * c->spec.param[0] - 1.0); }

static int tema_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, 3.0 * c->spec.param[0] - 2.0); }

static double dema_value(const tf_features *f, const tf_column *c) {
    const chain_state *s = tf_state(f, c, 0);
    return s->one - s->second.distance;
}

static double tema_value(const tf_features *f, const tf_column *c) {
    const chain_state *s = tf_state(f, c, 0);
    return s->one - 2.0 * s->second.distance + s->third.distance;
}

const tf_machine_type tf_machine_EXPONENTIAL_CHAIN = {"averages of averages", TF_FEED_SAMPLE, chain_bytes, chain_reset,
                                                      chain_update,           NULL,           chain_sound};
const tf_feature_impl tf_feature_DEMA = {TF_FEED_SAMPLE, NULL, chain_machines, dema_lookback, dema_ready, dema_value};
const tf_feature_impl tf_feature_TEMA = {TF_FEED_SAMPLE, NULL, chain_machines, tema_lookback, tema_ready, tema_value};

/* --- Kaufman's --- */

#define KAUFMAN_SLOW (2.0 / 31.0)
#define KAUFMAN_FAST (2.0 / 3.0)

typedef struct adaptive_entry {
    double close;
    double move; /* |move| into this close; of the block before, sums of suffixes */
} adaptive_entry;

typedef struct adaptive_state {
    double distance; /* average minus close */
    double newer;    /* sum of the moves of the block in the making */
    uint32_t length;
    uint32_t at;
    adaptive_entry entry[];
} adaptive_state;

static size_t adaptive_bytes(const double *param) {
    return sizeof(adaptive_state) + (size_t)param[0] * sizeof(adaptive_entry);
}

static void adaptive_reset(void *state, const double *param) {
    adaptive_state *s = state;
    memset(s, 0, adaptive_bytes(param));
    s->length = (uint32_t)param[0];
}

static void adaptive_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    adaptive_state *s = state;
    adaptive_entry *entry = &s->entry[s->at];
    const double past = entry->close, change = sample->count > 1 ? sample->close - sample->previous : 0.0;
    *entry = (adaptive_entry){sample->close, fabs(change)};
    s->newer += fabs(change);
    if (++s->at == s->length) { /* as in ring.h */
        double sum = 0.0;
        for (uint32_t i = s->length; i-- > 0;) s->entry[i].move = sum += s->entry[i].move;
        s->newer = 0.0;
        s->at = 0;
    }
    if (sample->count <= s->length) return; /* it starts at the close before the first whole window */
    const double path = s->newer + s->entry[s->at].move, straight = fabs(sample->close - past);
    const double efficiency = path > straight ? straight / path : 1.0;
    const double root = KAUFMAN_SLOW + efficiency * (KAUFMAN_FAST - KAUFMAN_SLOW);
    s->distance = tf_settle((1.0 - root * root) * (s->distance - change));
}

static int adaptive_sound(const void *state, const double *param) {
    const adaptive_state *s = state;
    if ((double)s->length != param[0] || s->at >= s->length || !tf_sane(s->distance) || !tf_sane(s->newer)) return 0;
    for (uint32_t i = 0; i < s->length; i++) {
        if (!tf_sane(s->entry[i].close) || !tf_sane(s->entry[i].move)) return 0;
    }
    return 1;
}

static int32_t adaptive_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_ADAPTIVE_MEAN, param[0], 0.0, 0.0, out);
}

static void kama_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(param[0] + 1.0, samples, nanoseconds);
}

static int kama_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, c->spec.param[0] + 1.0); }

static double kama_value(const tf_features *f, const tf_column *c) {
    return tf_close(f, c) + ((const adaptive_state *)tf_state(f, c, 0))->distance;
}

const tf_machine_type tf_machine_ADAPTIVE_MEAN = {"adaptive average", TF_FEED_SAMPLE, adaptive_bytes, adaptive_reset,
                                                  adaptive_update,    NULL,           adaptive_sound};
const tf_feature_impl tf_feature_KAMA = {TF_FEED_SAMPLE, NULL,       adaptive_machines,
                                         kama_lookback,  kama_ready, kama_value};
