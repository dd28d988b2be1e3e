/* What trading does to the price: samples of the column's clock, and buckets of volume.
 *
 *   Kyle's lambda   Kyle (1985): the slope of the return on signed volume, here by least squares over the window
 *   Amihud          Amihud (2002), eq. 1: mean of |return| over traded value, over samples with trades
 *   VPIN            Easley, Lopez de Prado and O'Hara (2012): mean of |V_buy - V_sell| / V over the last n buckets of
 *                   volume V; sides by trade, or by their bulk classification V_buy = V Phi(dP / sigma)
 *   Corwin-Schultz  Corwin and Schultz (2012): spread from the highs and lows of two neighbouring bars; negative: 0
 *
 * A bucket that is full to a billionth is full: volumes such as 0.1 add up with rounding. */
#include "rolling.h"
#include "trade_side.h"

#define NO_VARIANCE 1e-12
#define BUCKET_EDGE 1e-9

static void samples_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    rolling_lookback(param[0], 1, samples, nanoseconds);
}

static int samples_ready(const tf_features *f, const tf_column *c) {
    return rolling_ready(f, c->spec.param[0], tf_last(f, c->series)->count, 1);
}

static inline double sample_return(const tf_sample *sample) {
    return sample->close == sample->previous ? 0.0 : TF_BPS * tf_log_ratio(sample->close, sample->previous);
}

static inline uint64_t sample_key(const tf_rolling *w, const tf_features *f, const tf_sample *sample) {
    return w->by_event ? sample->count : f->clock;
}

/* --- Kyle's lambda --- */

enum { IMPACT_FLOW, IMPACT_RETURN, IMPACT_PRODUCT, IMPACT_FLOW_SQUARE, IMPACT_RETURN_SQUARE, IMPACT_VALUES };

static size_t impact_bytes(const double *param) { return rolling_bytes(IMPACT_VALUES, param[0], param[1]); }

static void impact_reset(void *state, const double *param) { rolling_reset(state, IMPACT_VALUES, param[0], param[1]); }

static void impact_update(void *state, tf_features *f, const tf_sample *sample) {
    tf_rolling *w = state;
    if (sample->count < 2) return;
    const double x = sample->bought - sample->sold, y = sample_return(sample);
    const double value[IMPACT_VALUES] = {x, y, x * y, x * x, y * y};
    f->counters.overflow += rolling_push(w, IMPACT_VALUES, sample_key(w, f, sample), value);
}

static void impact_expire(void *state, uint64_t clock) { rolling_age(state, IMPACT_VALUES, clock); }

static int impact_sound(const void *state, const double *param) {
    return rolling_sound(state, IMPACT_VALUES, param[0], param[1]);
}

const tf_machine_type tf_machine_IMPACT = {"impact",      TF_FEED_SAMPLE, impact_bytes, impact_reset,
                                           impact_update, impact_expire,  impact_sound};

static int32_t lambda_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_IMPACT, {param[0], rolling_places(param[0], param[2])}};
    return 1;
}

static int32_t correlation_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_IMPACT, {param[0], rolling_places(param[0], param[1])}};
    return 1;
}

/* n times the variance; 0 where it is rounding. */
static double about_mean(double square, double sum, double n) {
    const double left = square - sum * (sum / n);
    return left > NO_VARIANCE * square ? left : 0.0;
}

static double lambda_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = tf_state(f, c, 0);
    if (w->count == 0) return 0.0;
    double square = rolling_sum(w, IMPACT_VALUES, IMPACT_FLOW_SQUARE),
           product = rolling_sum(w, IMPACT_VALUES, IMPACT_PRODUCT);
    if (c->spec.param[1] != 0.0) {
        const double n = w->count, flow = rolling_sum(w, IMPACT_VALUES, IMPACT_FLOW);
        square = about_mean(square, flow, n);
        product -= flow * (rolling_sum(w, IMPACT_VALUES, IMPACT_RETURN) / n);
    }
    return square > 0.0 ? product / square : 0.0;
}

static double correlation_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = tf_state(f, c, 0);
    if (w->count < 2) return 0.0;
    const double n = w->count, flow = rolling_sum(w, IMPACT_VALUES, IMPACT_FLOW),
                 moved = rolling_sum(w, IMPACT_VALUES, IMPACT_RETURN);
    const double x = about_mean(rolling_sum(w, IMPACT_VALUES, IMPACT_FLOW_SQUARE), flow, n);
    const double y = about_mean(rolling_sum(w, IMPACT_VALUES, IMPACT_RETURN_SQUARE), moved, n);
    if (x == 0.0 || y == 0.0) return 0.0;
    const double product = rolling_sum(w, IMPACT_VALUES, IMPACT_PRODUCT) - flow * (moved / n);
    return fmax(-1.0, fmin(1.0, product / (sqrt(x) * sqrt(y))));
}

const tf_feature_impl tf_feature_KYLE_LAMBDA = {TF_FEED_SAMPLE,   NULL,          lambda_machines,
                                                samples_lookback, samples_ready, lambda_value};
const tf_feature_impl tf_feature_IMPACT_CORRELATION = {TF_FEED_SAMPLE,   NULL,          correlation_machines,
                                                       samples_lookback, samples_ready, correlation_value};

/* --- Amihud --- */

static size_t amihud_bytes(const double *param) { return rolling_bytes(1, param[0], param[1]); }

static void amihud_reset(void *state, const double *param) { rolling_reset(state, 1, param[0], param[1]); }

static void amihud_update(void *state, tf_features *f, const tf_sample *sample) {
    tf_rolling *w = state;
    const uint64_t key = sample_key(w, f, sample);
    rolling_expire(w, 1, key);
    if (sample->count < 2 || !(sample->notional > 0.0)) return;
    const double value = fabs(sample_return(sample)) / (sample->notional * 1e-6);
    f->counters.overflow += rolling_push(w, 1, key, &value);
}

static void amihud_expire(void *state, uint64_t clock) { rolling_age(state, 1, clock); }

static int amihud_sound(const void *state, const double *param) { return rolling_sound(state, 1, param[0], param[1]); }

const tf_machine_type tf_machine_ILLIQUIDITY = {"illiquidity", TF_FEED_SAMPLE, amihud_bytes, amihud_reset,
                                                amihud_update, amihud_expire,  amihud_sound};

static int32_t amihud_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_ILLIQUIDITY, {param[0], rolling_places(param[0], param[1])}};
    return 1;
}

static double mean_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = tf_state(f, c, 0);
    return w->count > 0 ? fmax(0.0, rolling_sum(w, 1, 0)) / w->count : 0.0;
}

const tf_feature_impl tf_feature_AMIHUD = {TF_FEED_SAMPLE,   NULL,          amihud_machines,
                                           samples_lookback, samples_ready, mean_value};

/* --- Corwin-Schultz --- */

typedef struct range_state {
    double high; /* of the sample before; 0: none */
    double low;
} range_state;

static tf_rolling *range_window(const void *state) { return (tf_rolling *)((uintptr_t)state + sizeof(range_state)); }

static size_t range_bytes(const double *param) { return sizeof(range_state) + rolling_bytes(1, param[0], param[1]); }

static void range_reset(void *state, const double *param) {
    *(range_state *)state = (range_state){0.0, 0.0};
    rolling_reset(range_window(state), 1, param[0], param[1]);
}

static void range_update(void *state, tf_features *f, const tf_sample *sample) {
    range_state *s = state;
    tf_rolling *w = range_window(state);
    if (s->low > 0.0) {
        const double part = 3.0 - 2.0 * sqrt(2.0);
        const double now = tf_log_ratio(sample->high, sample->low), before = tf_log_ratio(s->high, s->low);
        const double both = tf_log_ratio(fmax(sample->high, s->high), fmin(sample->low, s->low));
        const double beta = now * now + before * before;
        const double alpha = (sqrt(2.0 * beta) - sqrt(beta)) / part - both / sqrt(part);
        const double value = alpha > 0.0 ? TF_BPS * 2.0 * tanh(0.5 * alpha) : 0.0; /* 2 (e^a - 1) / (e^a + 1) */
        f->counters.overflow += rolling_push(w, 1, sample_key(w, f, sample), &value);
    }
    s->high = sample->high;
    s->low = sample->low;
}

static void range_expire(void *state, uint64_t clock) { rolling_age(range_window(state), 1, clock); }

static int range_sound(const void *state, const double *param) {
    const range_state *s = state;
    return isfinite(s->high) && isfinite(s->low) && rolling_sound(range_window(state), 1, param[0], param[1]);
}

const tf_machine_type tf_machine_RANGE_SPREAD = {"range_spread", TF_FEED_SAMPLE, range_bytes, range_reset,
                                                 range_update,   range_expire,   range_sound};

static int32_t range_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_RANGE_SPREAD, {param[0], rolling_places(param[0], param[1])}};
    return 1;
}

static double range_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = range_window(tf_state(f, c, 0));
    return w->count > 0 ? fmax(0.0, rolling_sum(w, 1, 0)) / w->count : 0.0;
}

const tf_feature_impl tf_feature_CORWIN_SCHULTZ = {TF_FEED_SAMPLE,   NULL,          range_machines,
                                                   samples_lookback, samples_ready, range_value};

/* --- VPIN --- */

typedef struct bucket_state {
    tf_tick_test test;
    double size;      /* of a bucket */
    double filled;    /* of the one in the making, and in it */
    double imbalance; /* bought less sold */
    double infer;     /* by trade: whether unknown sides are inferred */
    double weight;    /* in bulk: of the latest squared return, */
    double variance;  /* and their mean */
    uint64_t closed;
} bucket_state;

static tf_rolling *bucket_window(const void *state) { return (tf_rolling *)((uintptr_t)state + sizeof(bucket_state)); }

static size_t bucket_bytes(const double *param) { return sizeof(bucket_state) + rolling_bytes(1, -param[1], 0.0); }

static void bucket_reset(void *state, const double *param) {
    *(bucket_state *)state = (bucket_state){.size = param[0]};
    rolling_reset(bucket_window(state), 1, -param[1], 0.0);
}

static void by_trade_reset(void *state, const double *param) {
    bucket_reset(state, param);
    ((bucket_state *)state)->infer = param[2];
}

static void in_bulk_reset(void *state, const double *param) {
    bucket_reset(state, param);
    ((bucket_state *)state)->weight = 2.0 / (param[2] + 1.0);
}

/* Volume of which `side` (-1..1) was bought less sold; what does not fit opens the next bucket. A volume of more
 * buckets than are remembered fills all of them: the ones before need no counting out. */
static void bucket_add(bucket_state *s, tf_rolling *w, double volume, double side) {
    const double most = s->size * (w->capacity + 2.0);
    if (volume > most) volume = fmod(volume, s->size) + most;
    while (volume > 0.0) {
        const double room = s->size - s->filled;
        if (volume < room - BUCKET_EDGE * s->size) {
            s->filled += volume;
            s->imbalance += side * volume;
            return;
        }
        const double part = fmin(volume, room), gap = fabs(s->imbalance + side * part);
        rolling_push(w, 1, ++s->closed, &gap);
        volume -= room;
        if (volume < BUCKET_EDGE * s->size) volume = 0.0;
        s->filled = s->imbalance = 0.0;
    }
}

static void by_trade_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    bucket_state *s = state;
    const double side = trade_side(&s->test, f, s->infer != 0.0);
    bucket_add(s, bucket_window(state), f->trade.size, side);
}

static void in_bulk_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    bucket_state *s = state;
    double side = 0.0;
    if (sample->count > 1) {
        const double r = sample_return(sample);
        s->variance = sample->count == 2 ? r * r : s->variance + s->weight * (r * r - s->variance);
        if (s->variance < 1e-200) s->variance = 0.0;
        if (r != 0.0) side = s->variance > 0.0 ? erf(r / sqrt(2.0 * s->variance)) : copysign(1.0, r); /* 2 Phi(z) - 1 */
    }
    if (sample->volume > 0.0) bucket_add(s, bucket_window(state), sample->volume, side);
}

static int bucket_sound(const void *state, const double *param) {
    const bucket_state *s = state;
    return tick_test_sound(&s->test) && s->size == param[0] && s->filled >= 0.0 && s->filled <= s->size &&
           isfinite(s->imbalance) && isfinite(s->variance) && rolling_sound(bucket_window(state), 1, -param[1], 0.0);
}

static int by_trade_sound(const void *state, const double *param) {
    const bucket_state *s = state;
    return bucket_sound(state, param) && s->infer == param[2] && s->weight == 0.0;
}

static int in_bulk_sound(const void *state, const double *param) {
    const bucket_state *s = state;
    return bucket_sound(state, param) && s->infer == 0.0 && s->weight == 2.0 / (param[2] + 1.0);
}

const tf_machine_type tf_machine_BUCKETS = {.name = "buckets",
                                            .feed = TF_FEED_TRADE,
                                            .bytes = bucket_bytes,
                                            .reset = by_trade_reset,
                                            .update = by_trade_update,
                                            .sound = by_trade_sound};
const tf_machine_type tf_machine_BULK_BUCKETS = {.name = "bulk_buckets",
                                                 .feed = TF_FEED_SAMPLE,
                                                 .bytes = bucket_bytes,
                                                 .reset = in_bulk_reset,
                                                 .update = in_bulk_update,
                                                 .sound = in_bulk_sound};

static int32_t vpin_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_BUCKETS, {param[0], param[1], param[2]}};
    return 1;
}

static int32_t bulk_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_BULK_BUCKETS, {param[0], param[1], param[2]}};
    return 1;
}

static void vpin_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    (void)param; /* one trade may fill every bucket */
    *samples = 1;
    *nanoseconds = 0;
}

static int vpin_ready(const tf_features *f, const tf_column *c) {
    return ((const bucket_state *)tf_state(f, c, 0))->closed >= (uint64_t)c->spec.param[1];
}

static double vpin_value(const tf_features *f, const tf_column *c) {
    const double *param = c->spec.param;
    return fmax(0.0, fmin(1.0, rolling_sum(bucket_window(tf_state(f, c, 0)), 1, 0) / param[1] / param[0]));
}

const tf_feature_impl tf_feature_VPIN = {TF_FEED_TRADE, NULL, vpin_machines, vpin_lookback, vpin_ready, vpin_value};
const tf_feature_impl tf_feature_BULK_VPIN = {TF_FEED_SAMPLE, NULL,       bulk_machines,
                                              vpin_lookback,  vpin_ready, vpin_value};
