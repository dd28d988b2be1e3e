/* Trades: which side, how many, how far from the mid, how fast.
 *
 *   side               the venue's word, else Lee and Ready (1991): trade_side.h
 *   imbalance          Chordia, Roll and Subrahmanyam (2002), by number of trades
 *   effective spread   Bessembinder and Venkataraman (2010): 2 |p - m| / m, m the mid before the trade; by size
 *   realized spread    Huang and Stoll (1996): 2 q (p - m') / m with the mid m' of a stated time later
 *   Roll spread        Roll (1984): 2 sqrt(-cov(d_t, d_t-1)) of price changes; a covariance >= 0 gives 0
 *   intensity          Hawkes (1971), exponential kernel, by side
 *   durations          exponentially weighted mean and variance (West 1979); Engle and Russell (1998) */
#include "rolling.h"
#include "trade_side.h"

static int trade_ready(const tf_features *f, const tf_column *c) {
    (void)c;
    return f->trade_events >= 1;
}

static void one_event(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    (void)param;
    *samples = 1;
    *nanoseconds = 0;
}

/* --- the last trade --- */

typedef struct side_state {
    tf_tick_test test;
    double side;
    double infer;
} side_state;

static size_t side_bytes(const double *param) {
    (void)param;
    return sizeof(side_state);
}

static void side_reset(void *state, const double *param) {
    *(side_state *)state = (side_state){{0.0, 0.0}, 0.0, param[0]};
}

static void side_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    side_state *s = state;
    s->side = trade_side(&s->test, f, s->infer != 0.0);
}

static int side_sound(const void *state, const double *param) {
    const side_state *s = state;
    return tick_test_sound(&s->test) && isfinite(s->side) && s->infer == param[0];
}

const tf_machine_type tf_machine_TRADE_SIDE = {.name = "trade_side",
                                               .feed = TF_FEED_TRADE,
                                               .bytes = side_bytes,
                                               .reset = side_reset,
                                               .update = side_update,
                                               .sound = side_sound};

static int32_t side_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_TRADE_SIDE, {param[0]}};
    return 1;
}

static double side_value(const tf_features *f, const tf_column *c) {
    return ((const side_state *)tf_state(f, c, 0))->side;
}

const tf_feature_impl tf_feature_TRADE_SIGN = {TF_FEED_TRADE, NULL, side_machines, one_event, trade_ready, side_value};

static int both_ready(const tf_features *f, const tf_column *c) {
    (void)c;
    return f->trade_events >= 1 && f->book_events >= 1;
}

static double deviation_value(const tf_features *f, const tf_column *c) {
    (void)c;
    return TF_BPS * ((f->trade.price - f->book.mid) / f->book.mid);
}

const tf_feature_impl tf_feature_LAST_TRADE_DEVIATION = {TF_FEED_TRADE, NULL,       NULL,
                                                         one_event,     both_ready, deviation_value};

/* --- sides of a window --- */

enum { SIDES_SIGN, SIDES_SIGNED, SIDES_KNOWN, SIDES_VALUES };

typedef struct sides_state {
    tf_tick_test test;
    double infer;
    double reserved;
} sides_state;

static tf_rolling *sides_window(const void *state) { return (tf_rolling *)((uintptr_t)state + sizeof(sides_state)); }

static size_t sides_bytes(const double *param) {
    return sizeof(sides_state) + rolling_bytes(SIDES_VALUES, param[0], param[2]);
}

static void sides_reset(void *state, const double *param) {
    *(sides_state *)state = (sides_state){{0.0, 0.0}, param[1], 0.0};
    rolling_reset(sides_window(state), SIDES_VALUES, param[0], param[2]);
}

static void sides_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    sides_state *s = state;
    tf_rolling *w = sides_window(state);
    const double side = trade_side(&s->test, f, s->infer != 0.0), size = f->trade.size;
    const double value[SIDES_VALUES] = {side, side * size, fabs(side) * size};
    f->counters.overflow += rolling_push(w, SIDES_VALUES, w->by_event ? f->trade_events : f->clock, value);
}

static void sides_expire(void *state, uint64_t clock) { rolling_age(sides_window(state), SIDES_VALUES, clock); }

static int sides_sound(const void *state, const double *param) {
    const sides_state *s = state;
    return tick_test_sound(&s->test) && s->infer == param[1] &&
           rolling_sound(sides_window(state), SIDES_VALUES, param[0], param[2]);
}

const tf_machine_type tf_machine_TRADE_SIDES = {"trade_sides", TF_FEED_TRADE, sides_bytes, sides_reset,
                                                sides_update,  sides_expire,  sides_sound};

static int32_t sides_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_TRADE_SIDES, {param[0], param[1], rolling_places(param[0], param[2])}};
    return 1;
}

static void trades_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    rolling_lookback(param[0], 0, samples, nanoseconds);
}

static int trades_ready(const tf_features *f, const tf_column *c) {
    return rolling_ready(f, c->spec.param[0], f->trade_events, 0);
}

static double sides_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = sides_window(tf_state(f, c, 0));
    return w->count > 0 ? rolling_sum(w, SIDES_VALUES, SIDES_SIGN) / w->count : 0.0;
}

static double buy_ratio_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = sides_window(tf_state(f, c, 0));
    const double known = rolling_sum(w, SIDES_VALUES, SIDES_KNOWN);
    if (!(known > 0.0)) return 0.5;
    return 0.5 + 0.5 * fmax(-1.0, fmin(1.0, rolling_sum(w, SIDES_VALUES, SIDES_SIGNED) / known));
}

const tf_feature_impl tf_feature_TRADE_IMBALANCE = {TF_FEED_TRADE,   NULL,         sides_machines,
                                                    trades_lookback, trades_ready, sides_value};
const tf_feature_impl tf_feature_BUY_RATIO = {TF_FEED_TRADE,   NULL,         sides_machines,
                                              trades_lookback, trades_ready, buy_ratio_value};

/* --- effective spread --- */

enum { EFFECTIVE_COST, EFFECTIVE_SIZE, EFFECTIVE_VALUES };

static size_t effective_bytes(const double *param) { return rolling_bytes(EFFECTIVE_VALUES, param[0], param[1]); }

static void effective_reset(void *state, const double *param) {
    rolling_reset(state, EFFECTIVE_VALUES, param[0], param[1]);
}

static void effective_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    tf_rolling *w = state;
    const uint64_t key = w->by_event ? f->trade_events : f->clock;
    rolling_expire(w, EFFECTIVE_VALUES, key);
    if (f->book_events == 0) return;
    const double size = f->trade.size, mid = f->book.mid;
    const double value[EFFECTIVE_VALUES] = {size * (2.0 * TF_BPS * (fabs(f->trade.price - mid) / mid)), size};
    f->counters.overflow += rolling_push(w, EFFECTIVE_VALUES, key, value);
}

static void effective_expire(void *state, uint64_t clock) { rolling_age(state, EFFECTIVE_VALUES, clock); }

static int effective_sound(const void *state, const double *param) {
    return rolling_sound(state, EFFECTIVE_VALUES, param[0], param[1]);
}

const tf_machine_type tf_machine_EFFECTIVE_SPREAD = {"effective_spread", TF_FEED_TRADE,    effective_bytes,
                                                     effective_reset,    effective_update, effective_expire,
                                                     effective_sound};

static int32_t effective_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_EFFECTIVE_SPREAD, {param[0], rolling_places(param[0], param[1])}};
    return 1;
}

static double effective_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = tf_state(f, c, 0);
    const double size = rolling_sum(w, EFFECTIVE_VALUES, EFFECTIVE_SIZE);
    return size > 0.0 ? fmax(0.0, rolling_sum(w, EFFECTIVE_VALUES, EFFECTIVE_COST)) / size : 0.0;
}

const tf_feature_impl tf_feature_EFFECTIVE_SPREAD = {TF_FEED_TRADE,   NULL,         effective_machines,
                                                     trades_lookback, trades_ready, effective_value};

/* --- realized spread --- */

typedef struct waiting_trade {
    uint64_t time;
    double price;
    double mid; /* before it */
    double side_size;
} waiting_trade;

typedef struct waiting_state {
    tf_tick_test test;
    double infer;
    uint64_t horizon;
    uint64_t judged;
    uint32_t capacity;
    uint32_t tail;
    uint32_t count;
    uint32_t reserved;
} waiting_state;

/* After the state: waiting_trade[capacity], then the window of those judged. */
static waiting_trade *waiting_ring(const void *state) {
    return (waiting_trade *)((uintptr_t)state + sizeof(waiting_state));
}

static tf_rolling *judged_window(const void *state) {
    return (tf_rolling *)(uintptr_t)(waiting_ring(state) + ((const waiting_state *)state)->capacity);
}

static size_t waiting_bytes(const double *param) {
    return sizeof(waiting_state) + (size_t)param[3] * sizeof(waiting_trade) +
           rolling_bytes(EFFECTIVE_VALUES, param[1], param[3]);
}

static void waiting_reset(void *state, const double *param) {
    *(waiting_state *)state =
        (waiting_state){.infer = param[2], .horizon = (uint64_t)param[0], .capacity = (uint32_t)param[3]};
    rolling_reset(judged_window(state), EFFECTIVE_VALUES, param[1], param[3]);
}

static void waiting_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    waiting_state *s = state;
    tf_rolling *w = judged_window(state);
    waiting_trade *ring = waiting_ring(state);
    const double side = trade_side(&s->test, f, s->infer != 0.0), mid = f->book.mid;
    while (s->count > 0 && f->clock - ring[s->tail].time >= s->horizon) { /* each trade leaves once */
        const waiting_trade *t = &ring[s->tail];
        const double size = fabs(t->side_size);
        const double value[EFFECTIVE_VALUES] = {t->side_size * (2.0 * TF_BPS * ((t->price - mid) / t->mid)), size};
        s->judged++;
        f->counters.overflow += rolling_push(w, EFFECTIVE_VALUES, w->by_event ? s->judged : f->clock, value);
        s->tail = s->tail + 1 == s->capacity ? 0 : s->tail + 1;
        s->count--;
    }
    if (side == 0.0 || f->book_events == 0) return;
    if (s->count == s->capacity) {
        s->tail = s->tail + 1 == s->capacity ? 0 : s->tail + 1;
        s->count--;
        f->counters.overflow++;
    }
    const uint32_t end = s->tail + s->count;
    ring[end >= s->capacity ? end - s->capacity : end] =
        (waiting_trade){f->clock, f->trade.price, mid, side * f->trade.size};
    s->count++;
}

static void waiting_expire(void *state, uint64_t clock) { rolling_age(judged_window(state), EFFECTIVE_VALUES, clock); }

static int waiting_sound(const void *state, const double *param) {
    const waiting_state *s = state;
    if (!tick_test_sound(&s->test) || s->infer != param[2] || s->horizon != (uint64_t)param[0]) return 0;
    if (s->capacity != (uint32_t)param[3] || s->tail >= s->capacity || s->count > s->capacity) return 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const uint32_t at = s->tail + i;
        const waiting_trade *t = &waiting_ring(state)[at >= s->capacity ? at - s->capacity : at];
        if (!isfinite(t->price) || !isfinite(t->side_size) || !(t->mid >= TF_VALUE_MIN)) return 0;
    }
    return rolling_sound(judged_window(state), EFFECTIVE_VALUES, param[1], param[3]);
}

const tf_machine_type tf_machine_REALIZED_SPREAD = {"realized_spread", TF_FEED_TRADE,  waiting_bytes, waiting_reset,
                                                    waiting_update,    waiting_expire, waiting_sound};

static int32_t waiting_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_REALIZED_SPREAD, {param[0], param[1], param[2], param[3]}};
    return 1;
}

static void waiting_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    rolling_lookback(param[1], 1, samples, nanoseconds);
    *nanoseconds += (uint64_t)param[0];
}

static int waiting_ready(const tf_features *f, const tf_column *c) {
    const waiting_state *s = tf_state(f, c, 0);
    const double horizon = c->spec.param[0], window = c->spec.param[1];
    if (window < 0.0) return s->judged >= (uint64_t)-window;
    return s->judged >= 1 && tf_elapsed(f, (uint64_t)window + (uint64_t)horizon);
}

static double waiting_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = judged_window(tf_state(f, c, 0));
    const double size = rolling_sum(w, EFFECTIVE_VALUES, EFFECTIVE_SIZE);
    return size > 0.0 ? rolling_sum(w, EFFECTIVE_VALUES, EFFECTIVE_COST) / size : 0.0;
}

const tf_feature_impl tf_feature_REALIZED_SPREAD = {TF_FEED_TRADE,    NULL,          waiting_machines,
                                                    waiting_lookback, waiting_ready, waiting_value};

/* --- Roll's spread --- */

enum { ROLL_NOW, ROLL_BEFORE, ROLL_PRODUCT, ROLL_VALUES };

typedef struct roll_state {
    double price; /* of the trade before; 0: none */
    double change;
    uint64_t changes;
    uint64_t reserved;
} roll_state;

static tf_rolling *roll_window(const void *state) { return (tf_rolling *)((uintptr_t)state + sizeof(roll_state)); }

static size_t roll_bytes(const double *param) {
    return sizeof(roll_state) + rolling_bytes(ROLL_VALUES, param[0], param[1]);
}

static void roll_reset(void *state, const double *param) {
    *(roll_state *)state = (roll_state){0};
    rolling_reset(roll_window(state), ROLL_VALUES, param[0], param[1]);
}

static void roll_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    roll_state *s = state;
    tf_rolling *w = roll_window(state);
    const double price = f->trade.price;
    if (s->price > 0.0) {
        const double before = s->change;
        s->change = price == s->price ? 0.0 : TF_BPS * tf_log_ratio(price, s->price);
        if (++s->changes > 1) {
            const double value[ROLL_VALUES] = {s->change, before, s->change * before};
            f->counters.overflow += rolling_push(w, ROLL_VALUES, w->by_event ? f->trade_events : f->clock, value);
        }
    }
    s->price = price;
}

static void roll_expire(void *state, uint64_t clock) { rolling_age(roll_window(state), ROLL_VALUES, clock); }

static int roll_sound(const void *state, const double *param) {
    const roll_state *s = state;
    return isfinite(s->price) && isfinite(s->change) &&
           rolling_sound(roll_window(state), ROLL_VALUES, param[0], param[1]);
}

const tf_machine_type tf_machine_ROLL_SPREAD = {"roll_spread", TF_FEED_TRADE, roll_bytes, roll_reset,
                                                roll_update,   roll_expire,   roll_sound};

static int32_t roll_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_ROLL_SPREAD, {param[0], rolling_places(param[0], param[1])}};
    return 1;
}

static void roll_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    rolling_lookback(param[0], 2, samples, nanoseconds);
}

static int roll_ready(const tf_features *f, const tf_column *c) {
    return rolling_ready(f, c->spec.param[0], f->trade_events, 2);
}

static double roll_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = roll_window(tf_state(f, c, 0));
    if (w->count == 0) return 0.0;
    const double n = w->count;
    const double covariance =
        rolling_sum(w, ROLL_VALUES, ROLL_PRODUCT) / n -
        rolling_sum(w, ROLL_VALUES, ROLL_NOW) / n * (rolling_sum(w, ROLL_VALUES, ROLL_BEFORE) / n);
    return covariance < 0.0 ? 2.0 * sqrt(-covariance) : 0.0;
}

const tf_feature_impl tf_feature_ROLL_SPREAD = {TF_FEED_TRADE, NULL,       roll_machines,
                                                roll_lookback, roll_ready, roll_value};

/* --- intensities by side --- */

typedef struct arrivals_state {
    tf_tick_test test;
    double bought; /* trades, halved every half-life */
    double sold;
    double signed_size;
    double size;
    double rate; /* ln 2 / half-life, per ns */
    double infer;
    uint64_t time;
} arrivals_state;

static size_t arrivals_bytes(const double *param) {
    (void)param;
    return sizeof(arrivals_state);
}

static void arrivals_reset(void *state, const double *param) {
    *(arrivals_state *)state = (arrivals_state){.rate = TF_LN2 / param[0], .infer = param[1]};
}

static void arrivals_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    arrivals_state *s = state;
    const double side = trade_side(&s->test, f, s->infer != 0.0), size = f->trade.size;
    double decay = tf_decay(f->clock, s->time, s->rate);
    if (decay < 1e-100) decay = 0.0; /* nothing of before is left; never crawl through denormals */
    s->bought = s->bought * decay + (side > 0.0);
    s->sold = s->sold * decay + (side < 0.0);
    s->signed_size = s->signed_size * decay + side * size;
    s->size = s->size * decay + fabs(side) * size;
    if (s->bought < 1e-100) s->bought = 0.0;
    if (s->sold < 1e-100) s->sold = 0.0;
    if (s->size < 1e-100) s->size = s->signed_size = 0.0;
    s->time = f->clock;
}

static int arrivals_sound(const void *state, const double *param) {
    const arrivals_state *s = state;
    return tick_test_sound(&s->test) && isfinite(s->bought) && isfinite(s->sold) && isfinite(s->signed_size) &&
           isfinite(s->size) && s->rate == TF_LN2 / param[0] && s->infer == param[1];
}

const tf_machine_type tf_machine_ARRIVALS = {.name = "arrivals",
                                             .feed = TF_FEED_TRADE,
                                             .bytes = arrivals_bytes,
                                             .reset = arrivals_reset,
                                             .update = arrivals_update,
                                             .sound = arrivals_sound};

static int32_t arrivals_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_ARRIVALS, {param[0], param[1]}};
    return 1;
}

static void arrivals_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    *samples = 0;
    *nanoseconds = (uint64_t)param[0];
}

static int arrivals_ready(const tf_features *f, const tf_column *c) {
    return tf_elapsed(f, (uint64_t)c->spec.param[0]);
}

static double arrivals_rate(const tf_features *f, const arrivals_state *s, double count) {
    return count > 0.0 ? count * tf_decay(f->clock, s->time, s->rate) * s->rate * TF_NS_PER_SECOND : 0.0;
}

static double buy_intensity_value(const tf_features *f, const tf_column *c) {
    const arrivals_state *s = tf_state(f, c, 0);
    return arrivals_rate(f, s, s->bought);
}

static double sell_intensity_value(const tf_features *f, const tf_column *c) {
    const arrivals_state *s = tf_state(f, c, 0);
    return arrivals_rate(f, s, s->sold);
}

static double intensity_imbalance_value(const tf_features *f, const tf_column *c) {
    const arrivals_state *s = tf_state(f, c, 0);
    return tf_share(s->bought, s->sold);
}

static double signed_volume_value(const tf_features *f, const tf_column *c) {
    const arrivals_state *s = tf_state(f, c, 0);
    if (c->spec.param[2] == 0.0) return s->signed_size * tf_decay(f->clock, s->time, s->rate);
    return s->size > 0.0 ? s->signed_size / s->size : 0.0;
}

const tf_feature_impl tf_feature_BUY_INTENSITY = {TF_FEED_TRADE,     NULL,           arrivals_machines,
                                                  arrivals_lookback, arrivals_ready, buy_intensity_value};
const tf_feature_impl tf_feature_SELL_INTENSITY = {TF_FEED_TRADE,     NULL,           arrivals_machines,
                                                   arrivals_lookback, arrivals_ready, sell_intensity_value};
const tf_feature_impl tf_feature_INTENSITY_IMBALANCE = {TF_FEED_TRADE,     NULL,           arrivals_machines,
                                                        arrivals_lookback, arrivals_ready, intensity_imbalance_value};
const tf_feature_impl tf_feature_SIGNED_VOLUME = {TF_FEED_TRADE,     NULL,           arrivals_machines,
                                                  arrivals_lookback, arrivals_ready, signed_volume_value};

/* --- durations --- */

typedef struct durations_state {
    double mean; /* seconds */
    double variance;
    double weight;
    uint64_t time;
    uint64_t seen; /* trades */
} durations_state;

static size_t durations_bytes(const double *param) {
    (void)param;
    return sizeof(durations_state);
}

static void durations_reset(void *state, const double *param) {
    *(durations_state *)state = (durations_state){.weight = 2.0 / (param[0] + 1.0)};
}

static void durations_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    durations_state *s = state;
    s->seen++;
    const double age = tf_seconds(f->clock, s->time);
    s->time = f->clock;
    if (s->seen < 3) { /* the first trade has no duration, the first duration starts the mean */
        if (s->seen == 2) s->mean = age;
        return;
    }
    const double difference = age - s->mean, step = s->weight * difference;
    s->mean += step;
    s->variance = (1.0 - s->weight) * (s->variance + difference * step);
    if (s->mean < 1e-12) s->mean = 0.0; /* below a thousandth of a nanosecond; never crawl through denormals */
    if (s->variance < 1e-24) s->variance = 0.0;
}

static int durations_sound(const void *state, const double *param) {
    const durations_state *s = state;
    return isfinite(s->mean) && isfinite(s->variance) && s->weight == 2.0 / (param[0] + 1.0);
}

const tf_machine_type tf_machine_TRADE_DURATIONS = {.name = "trade_durations",
                                                    .feed = TF_FEED_TRADE,
                                                    .bytes = durations_bytes,
                                                    .reset = durations_reset,
                                                    .update = durations_update,
                                                    .sound = durations_sound};

static int32_t durations_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_TRADE_DURATIONS, {param[0]}};
    return 1;
}

static void durations_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    *samples = (uint64_t)param[0] + 1;
    *nanoseconds = 0;
}

static int durations_ready(const tf_features *f, const tf_column *c) {
    return f->trade_events > (uint64_t)c->spec.param[0];
}

static double duration_value(const tf_features *f, const tf_column *c) {
    return tf_log1p(((const durations_state *)tf_state(f, c, 0))->mean);
}

static double dispersion_value(const tf_features *f, const tf_column *c) {
    const durations_state *s = tf_state(f, c, 0);
    return s->mean > 0.0 ? sqrt(fmax(0.0, s->variance)) / s->mean : 0.0;
}

const tf_feature_impl tf_feature_TRADE_DURATION = {
    TF_FEED_TRADE, NULL, durations_machines, durations_lookback, durations_ready, duration_value};
const tf_feature_impl tf_feature_TRADE_CLUSTERING = {
    TF_FEED_TRADE, NULL, durations_machines, durations_lookback, durations_ready, dispersion_value};
