/* The features that features.def itself holds: top of book, flow, moves and ages. Formulas and sources stand in
 * their rows. */
#include <float.h>
#include <string.h>

#include "machine.h"
#include "window.h"

#define RSI_FLOOR 1e-300

/* --- windows ---
 *
 * param[0] is the window (nanoseconds when positive, a count of events when negative), param[1] the capacity. A
 * count of events needs exactly that many places, so it never overflows. */

static uint32_t capacity_of(const double *param) { return (uint32_t)(param[0] < 0.0 ? -param[0] : param[1]); }

static size_t window_size(const double *param) { return window_bytes(capacity_of(param)); }

static void window_begin(void *state, const double *param) {
    tf_window *window = state;
    window->by_event = param[0] < 0.0;
    window->span = (uint64_t)fabs(param[0]);
    window->capacity = capacity_of(param);
    window_reset(window);
}

static int window_sound(const void *state, const double *param) {
    const tf_window *window = state;
    if (window->capacity != capacity_of(param) || window->span != (uint64_t)fabs(param[0])) return 0;
    if (window->by_event != (uint32_t)(param[0] < 0.0)) return 0;
    if (window->tail >= window->capacity || window->count > window->capacity) return 0;
    if (window->unmarked > window->count || !isfinite(window->left)) return 0;
    for (int i = 0; i < TF_WINDOW_VALUES; i++) {
        if (!isfinite(window->sum[i].high) || !isfinite(window->sum[i].low)) return 0;
        if (!isfinite(window->fresh[i].high) || !isfinite(window->fresh[i].low)) return 0;
    }
    for (uint32_t i = 0; i < window->count; i++) {
        const tf_entry *entry = &window->entry[(window->tail + i) % window->capacity];
        if (!isfinite(entry->value[0]) || !isfinite(entry->value[1])) return 0;
    }
    return 1;
}

static void expire_lag(void *state, uint64_t clock) {
    if (!((tf_window *)state)->by_event) window_expire(state, clock, 0);
}

static void expire_one(void *state, uint64_t clock) {
    if (!((tf_window *)state)->by_event) window_expire(state, clock, 1);
}

static void expire_two(void *state, uint64_t clock) {
    if (!((tf_window *)state)->by_event) window_expire(state, clock, 2);
}

/* `sums` is a compile-time constant wherever this is called. */
static inline void push(tf_features *f, tf_window *window, uint64_t events, double first, double second, int sums) {
    const uint64_t key = window->by_event ? events : f->clock;
    if (window->by_event) window_expire(window, key, sums);
    f->counters.overflow += (uint64_t)window_push(window, key, first, second, sums);
}

static int32_t one(uint32_t type, double first, double second, double third, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){type, {first, second, third, 0.0}};
    return 1;
}

static void window_lookback(double window, uint64_t extra, uint64_t *samples, uint64_t *nanoseconds) {
    *samples = (window < 0.0 ? (uint64_t)-window : 0) + extra;
    *nanoseconds = window > 0.0 ? (uint64_t)window : 0;
}

static void first_event(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    (void)param;
    *samples = 1;
    *nanoseconds = 0;
}

static int has_book(const tf_features *f, const tf_column *c) {
    (void)c;
    return f->book_events >= 1;
}

/* --- mid_return --- */

static void lag_update(void *state, tf_features *f, const tf_sample *s) {
    tf_window *window = state;
    if (window->by_event) window_expire(window, s->count, 0);
    if (s->count == 1 || s->close != s->previous) push(f, window, s->count, s->close, 0.0, 0);
}

static int32_t mid_return_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_LAG_WINDOW, param[0], param[1], 0.0, out);
}

static void mid_return_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    window_lookback(param[0], 1, samples, nanoseconds);
}

static int mid_return_ready(const tf_features *f, const tf_column *c) {
    return (int)((const tf_window *)tf_state(f, c, 0))->seen;
}

static double mid_return_value(const tf_features *f, const tf_column *c) {
    return TF_BPS * tf_log_ratio(tf_last(f, c->series)->close, ((const tf_window *)tf_state(f, c, 0))->left);
}

const tf_machine_type tf_machine_LAG_WINDOW = {"lagged mid", TF_FEED_SAMPLE, window_size, window_begin,
                                               lag_update,   expire_lag,     window_sound};
const tf_feature_impl tf_feature_MID_RETURN = {
    TF_FEED_SAMPLE, NULL, mid_return_machines, mid_return_lookback, mid_return_ready, mid_return_value};

/* --- spread, microprice_deviation, imbalance --- */

static double spread_value(const tf_features *f, const tf_column *c) {
    const double spread = f->book.ask - f->book.bid, tick = c->spec.param[0];
    return tick > 0.0 ? spread / tick : TF_BPS * spread / f->book.mid;
}

static double microprice_deviation_value(const tf_features *f, const tf_column *c) {
    (void)c;
    const tf_top *book = &f->book;
    return TF_BPS * 0.5 * (book->ask - book->bid) * tf_share(book->bid_size, book->ask_size) / book->mid;
}

static double imbalance_value(const tf_features *f, const tf_column *c) {
    (void)c;
    return tf_share(f->book.bid_size, f->book.ask_size);
}

const tf_feature_impl tf_feature_SPREAD = {TF_FEED_BOOK, NULL, NULL, first_event, has_book, spread_value};
const tf_feature_impl tf_feature_MICROPRICE_DEVIATION = {TF_FEED_BOOK, NULL,     NULL,
                                                         first_event,  has_book, microprice_deviation_value};
const tf_feature_impl tf_feature_IMBALANCE = {TF_FEED_BOOK, NULL, NULL, first_event, has_book, imbalance_value};

/* --- depth_imbalance --- */

typedef struct weights_state {
    double weight[TF_DEPTH_LEVELS];
    double value;
} weights_state;

static size_t weights_bytes(const double *param) {
    (void)param;
    return sizeof(weights_state);
}

static void weights_reset(void *state, const double *param) {
    weights_state *s = state;
    for (int i = 0; i < TF_DEPTH_LEVELS; i++) s->weight[i] = i < (int)param[0] ? exp(-param[1] * i) : 0.0;
    s->value = 0.0;
}

static void weights_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    weights_state *s = state;
    double bids = 0.0, asks = 0.0;
    for (int level = 0; level < TF_DEPTH_LEVELS; level++) {
        bids += s->weight[level] * f->depth.bid_size[level];
        asks += s->weight[level] * f->depth.ask_size[level];
    }
    s->value = tf_share(bids, asks);
}

static int weights_sound(const void *state, const double *param) {
    const weights_state *s = state;
    for (int i = 0; i < TF_DEPTH_LEVELS; i++) {
        if (s->weight[i] != (i < (int)param[0] ? exp(-param[1] * i) : 0.0)) return 0;
    }
    return isfinite(s->value);
}

static int32_t depth_imbalance_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_DEPTH_WEIGHTS, param[0], param[1], 0.0, out);
}

static int has_depth(const tf_features *f, const tf_column *c) {
    (void)c;
    return f->depth_events >= 1;
}

static double depth_imbalance_value(const tf_features *f, const tf_column *c) {
    return ((const weights_state *)tf_state(f, c, 0))->value;
}

const tf_machine_type tf_machine_DEPTH_WEIGHTS = {"weighted depth", TF_FEED_DEPTH, weights_bytes, weights_reset,
                                                  weights_update,   NULL,          weights_sound};
const tf_feature_impl tf_feature_DEPTH_IMBALANCE = {TF_FEED_DEPTH, NULL,      depth_imbalance_machines,
                                                    first_event,   has_depth, depth_imbalance_value};

/* --- order_flow_imbalance --- */

/* Contribution of one level, Cont-Kukanov-Stoikov eq. 3. An empty level has size 0 and the worst possible price. */
static inline double level_flow(double bid0, double bid_size0, double ask0, double ask_size0, double bid1,
                                double bid_size1, double ask1, double ask_size1) {
    double bought = 0.0, sold = 0.0; /* apart, so that an unchanged side adds no rounding to the other */
    if (bid1 >= bid0) bought += bid_size1;
    if (bid1 <= bid0) bought -= bid_size0;
    if (ask1 <= ask0) sold += ask_size1;
    if (ask1 >= ask0) sold -= ask_size0;
    return bought - sold;
}

static inline double ask_or_far(double price) { return price > 0.0 ? price : DBL_MAX; }

static void flow_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    if (f->book_events == 1) return;
    const tf_top *was = &f->before, *is = &f->book;
    const double flow =
        level_flow(was->bid, was->bid_size, was->ask, was->ask_size, is->bid, is->bid_size, is->ask, is->ask_size);
    push(f, state, f->book_events, flow, 0.5 * (is->bid_size + is->ask_size), 2);
}

/* param[2]: levels */
static void deep_flow_reset(void *state, const double *param) {
    window_begin((char *)state + 64, param);
    *(double *)state = param[2];
}

static size_t deep_flow_bytes(const double *param) { return 64 + window_size(param); }

static void deep_flow_expire(void *state, uint64_t clock) { expire_two((char *)state + 64, clock); }

static int deep_flow_sound(const void *state, const double *param) {
    return *(const double *)state == param[2] && window_sound((const char *)state + 64, param);
}

static void deep_flow_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    if (f->depth_events == 1) return;
    const tf_depth10 *was = &f->depth_before, *is = &f->depth;
    const int levels = (int)*(const double *)state;
    double flow = 0.0, depth = 0.0;
    for (int i = 0; i < levels; i++) {
        flow += level_flow(was->bid_price[i], was->bid_size[i], ask_or_far(was->ask_price[i]), was->ask_size[i],
                           is->bid_price[i], is->bid_size[i], ask_or_far(is->ask_price[i]), is->ask_size[i]);
        depth += 0.5 * (is->bid_size[i] + is->ask_size[i]);
    }
    push(f, (tf_window *)(void *)((char *)state + 64), f->depth_events, flow, depth / levels, 2);
}

static int32_t flow_machines(const double *param, tf_machine_ref *out) {
    const int deep = param[1] > 1.0;
    return one(deep ? TF_MACHINE_DEEP_FLOW_WINDOW : TF_MACHINE_FLOW_WINDOW, param[0], param[3], deep ? param[1] : 0.0,
               out);
}

static void flow_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    window_lookback(param[0], 1, samples, nanoseconds);
    if (*samples < 2) *samples = 2;
}

static int flow_ready(const tf_features *f, const tf_column *c) {
    const double *param = c->spec.param;
    const uint64_t events = param[1] > 1.0 ? f->depth_events : f->book_events;
    return param[0] < 0.0 ? events > (uint64_t)-param[0] : events >= 2 && tf_elapsed(f, (uint64_t)param[0]);
}

static double flow_value(const tf_features *f, const tf_column *c) {
    const double *param = c->spec.param;
    const tf_window *window =
        (const tf_window *)(const void *)((const char *)tf_state(f, c, 0) + (param[1] > 1.0 ? 64 : 0));
    if (window->count == 0) return 0.0;
    const double flow = dd_value(&window->sum[0]) / param[1];
    if (param[2] == 0.0) return flow;
    const double depth = dd_value(&window->sum[1]) / window->count;
    return depth > 0.0 ? flow / depth : 0.0;
}

const tf_machine_type tf_machine_FLOW_WINDOW = {"order flow", TF_FEED_BOOK, window_size, window_begin,
                                                flow_update,  expire_two,   window_sound};
const tf_machine_type tf_machine_DEEP_FLOW_WINDOW = {"order flow of levels", TF_FEED_DEPTH,    deep_flow_bytes,
                                                     deep_flow_reset,        deep_flow_update, deep_flow_expire,
                                                     deep_flow_sound};
const tf_feature_impl tf_feature_ORDER_FLOW_IMBALANCE = {TF_FEED_BOOK,  NULL,       flow_machines,
                                                         flow_lookback, flow_ready, flow_value};

/* --- signed_trade_flow --- */

static void trade_window_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    push(f, state, f->trade_events, f->trade.aggressor * f->trade.size, f->trade.size, 2);
}

static int32_t trade_flow_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_TRADE_WINDOW, param[0], param[1], 0.0, out);
}

static void trade_flow_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    window_lookback(param[0], 0, samples, nanoseconds);
    if (*samples < 1) *samples = 1;
}

static int trade_flow_ready(const tf_features *f, const tf_column *c) {
    const double window = c->spec.param[0];
    return window < 0.0 ? f->trade_events >= (uint64_t)-window : tf_elapsed(f, (uint64_t)window);
}

static double trade_flow_value(const tf_features *f, const tf_column *c) {
    const tf_window *window = tf_state(f, c, 0);
    const double volume = dd_value(&window->sum[1]);
    if (volume <= 0.0) return 0.0;
    return fmax(-1.0, fmin(1.0, dd_value(&window->sum[0]) / volume));
}

const tf_machine_type tf_machine_TRADE_WINDOW = {"signed trades",     TF_FEED_TRADE, window_size, window_begin,
                                                 trade_window_update, expire_two,    window_sound};
const tf_feature_impl tf_feature_SIGNED_TRADE_FLOW = {
    TF_FEED_TRADE, NULL, trade_flow_machines, trade_flow_lookback, trade_flow_ready, trade_flow_value};

/* --- realized_volatility --- */

static void variance_update(void *state, tf_features *f, const tf_sample *s) {
    tf_window *window = state;
    if (window->by_event) window_expire(window, s->count, 1);
    if (s->count == 1 || s->close == s->previous) return;
    const double bps = TF_BPS * tf_log_ratio(s->close, s->previous);
    push(f, window, s->count, bps * bps, 0.0, 1);
}

static int32_t volatility_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_VARIANCE_WINDOW, param[0], param[1], 0.0, out);
}

static int volatility_ready(const tf_features *f, const tf_column *c) {
    const uint64_t count = tf_last(f, c->series)->count;
    const double window = c->spec.param[0];
    return window < 0.0 ? count > (uint64_t)-window : count >= 1 && tf_elapsed(f, (uint64_t)window);
}

static double volatility_value(const tf_features *f, const tf_column *c) {
    return sqrt(fmax(0.0, dd_value(&((const tf_window *)tf_state(f, c, 0))->sum[0])));
}

const tf_machine_type tf_machine_VARIANCE_WINDOW = {"squared returns", TF_FEED_SAMPLE, window_size, window_begin,
                                                    variance_update,   expire_one,     window_sound};
const tf_feature_impl tf_feature_REALIZED_VOLATILITY = {
    TF_FEED_SAMPLE, NULL, volatility_machines, mid_return_lookback, volatility_ready, volatility_value};

/* --- ema_difference --- */

typedef struct ema_state {
    double fast;
    double slow;
    double fast_rate; /* alpha, or ln 2 / half-life in ns */
    double slow_rate;
    uint64_t time;
    uint64_t start;
    uint64_t by_event;
} ema_state;

static size_t ema_bytes(const double *param) {
    (void)param;
    return sizeof(ema_state);
}

static void ema_reset(void *state, const double *param) {
    ema_state *s = state;
    *s = (ema_state){.by_event = param[0] < 0.0};
    s->fast_rate = s->by_event ? 2.0 / (1.0 - param[0]) : TF_LN2 / param[0];
    s->slow_rate = s->by_event ? 2.0 / (1.0 - param[1]) : TF_LN2 / param[1];
}

static void ema_update(void *state, tf_features *f, const tf_sample *sample) {
    ema_state *s = state;
    if (sample->count == 1) {
        s->fast = s->slow = sample->close;
        s->start = f->clock;
    } else if (s->by_event) {
        s->fast += s->fast_rate * (sample->close - s->fast);
        s->slow += s->slow_rate * (sample->close - s->slow);
    } else if (f->clock > s->time) { /* what held from the last sample until now is what is averaged */
        const double age = (double)(f->clock - s->time);
        s->fast += tf_decayed(age * s->fast_rate) * (sample->previous - s->fast);
        s->slow += tf_decayed(age * s->slow_rate) * (sample->previous - s->slow);
    }
    s->time = f->clock;
}

static int ema_sound(const void *state, const double *param) {
    const ema_state *s = state;
    ema_state fresh;
    ema_reset(&fresh, param);
    return isfinite(s->fast) && isfinite(s->slow) && s->fast_rate == fresh.fast_rate &&
           s->slow_rate == fresh.slow_rate && s->by_event == fresh.by_event;
}

static int ema_check(const double *param) {
    return (param[0] < 0.0) == (param[1] < 0.0) && fabs(param[0]) < fabs(param[1]);
}

static int32_t ema_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_EMA_PAIR, param[0], param[1], 0.0, out);
}

static void ema_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    window_lookback(param[1], 0, samples, nanoseconds);
    if (*samples < 1) *samples = 1;
}

static int ema_ready(const tf_features *f, const tf_column *c) {
    const uint64_t count = tf_last(f, c->series)->count;
    const double slow = c->spec.param[1];
    if (slow < 0.0) return count >= (uint64_t)-slow;
    return count >= 1 && f->clock - ((const ema_state *)tf_state(f, c, 0))->start >= (uint64_t)slow;
}

static double ema_value(const tf_features *f, const tf_column *c) {
    const ema_state *s = tf_state(f, c, 0);
    double fast = s->fast, slow = s->slow;
    if (!s->by_event && f->clock > s->time) { /* the price has stood still since the last sample */
        const double age = (double)(f->clock - s->time), close = tf_last(f, c->series)->close;
        fast += tf_decayed(age * s->fast_rate) * (close - fast);
        slow += tf_decayed(age * s->slow_rate) * (close - slow);
    }
    return TF_BPS * tf_log_ratio(fast, slow);
}

const tf_machine_type tf_machine_EMA_PAIR = {
    "two moving averages", TF_FEED_SAMPLE, ema_bytes, ema_reset, ema_update, NULL, ema_sound};
const tf_feature_impl tf_feature_EMA_DIFFERENCE = {TF_FEED_SAMPLE, ema_check, ema_machines,
                                                   ema_lookback,   ema_ready, ema_value};

/* --- rsi --- */

typedef struct wilder_state {
    double gain;
    double loss;
    double rate; /* 1 / period */
    uint64_t period;
    uint64_t count;
} wilder_state;

static size_t wilder_bytes(const double *param) {
    (void)param;
    return sizeof(wilder_state);
}

static void wilder_reset(void *state, const double *param) {
    *(wilder_state *)state = (wilder_state){.rate = 1.0 / param[0], .period = (uint64_t)param[0]};
}

static void wilder_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    wilder_state *s = state;
    if (sample->count == 1) return;
    const double change = sample->close - sample->previous;
    const double up = change > 0.0 ? change : 0.0, down = change < 0.0 ? -change : 0.0;
    s->count++;
    if (s->count <= s->period) { /* Wilder starts from the plain mean of the first changes */
        s->gain += up * s->rate;
        s->loss += down * s->rate;
        return;
    }
    s->gain += (up - s->gain) * s->rate;
    s->loss += (down - s->loss) * s->rate;
    if (s->gain + s->loss < RSI_FLOOR) s->gain = s->loss = 0.0; /* never crawl through denormals */
}

static int wilder_sound(const void *state, const double *param) {
    const wilder_state *s = state;
    return isfinite(s->gain) && isfinite(s->loss) && s->rate == 1.0 / param[0] && s->period == (uint64_t)param[0];
}

static int32_t rsi_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_WILDER, param[0], 0.0, 0.0, out);
}

static void rsi_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    *samples = (uint64_t)param[0] + 1;
    *nanoseconds = 0;
}

static int rsi_ready(const tf_features *f, const tf_column *c) {
    return ((const wilder_state *)tf_state(f, c, 0))->count >= (uint64_t)c->spec.param[0];
}

static double rsi_value(const tf_features *f, const tf_column *c) {
    const wilder_state *s = tf_state(f, c, 0);
    const double sum = s->gain + s->loss;
    return sum > RSI_FLOOR ? 100.0 * (s->gain / sum) : 50.0;
}

const tf_machine_type tf_machine_WILDER = {"Wilder's averages", TF_FEED_SAMPLE, wilder_bytes, wilder_reset,
                                           wilder_update,       NULL,           wilder_sound};
const tf_feature_impl tf_feature_RSI = {TF_FEED_SAMPLE, NULL, rsi_machines, rsi_lookback, rsi_ready, rsi_value};

/* --- ages and moves: all that they need stands in the header --- */

static int has_trade(const tf_features *f, const tf_column *c) {
    (void)c;
    return f->trade_events >= 1;
}

static int has_move(const tf_features *f, const tf_column *c) {
    (void)c;
    return f->move_sign != 0.0;
}

static void move_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    (void)param;
    *samples = 2;
    *nanoseconds = 0;
}

static double time_since_trade_value(const tf_features *f, const tf_column *c) {
    (void)c;
    return tf_log1p(tf_seconds(f->clock, f->trade_time));
}

static double last_move_direction_value(const tf_features *f, const tf_column *c) {
    const double half_life = c->spec.param[0];
    return half_life > 0.0 ? f->move_sign * tf_decay(f->clock, f->move_time, TF_LN2 / half_life) : f->move_sign;
}

static double mid_move_age_value(const tf_features *f, const tf_column *c) {
    (void)c;
    return tf_log1p(tf_seconds(f->clock, f->move_time));
}

const tf_feature_impl tf_feature_TIME_SINCE_TRADE = {TF_FEED_BOOK, NULL,      NULL,
                                                     first_event,  has_trade, time_since_trade_value};
const tf_feature_impl tf_feature_LAST_MOVE_DIRECTION = {TF_FEED_BOOK,  NULL,     NULL,
                                                        move_lookback, has_move, last_move_direction_value};
const tf_feature_impl tf_feature_MID_MOVE_AGE = {TF_FEED_BOOK, NULL, NULL, move_lookback, has_move, mid_move_age_value};

/* --- trade_intensity --- */

typedef struct intensity_state {
    double value;
    double rate;
    uint64_t time;
} intensity_state;

static size_t intensity_bytes(const double *param) {
    (void)param;
    return sizeof(intensity_state);
}

static void intensity_reset(void *state, const double *param) {
    *(intensity_state *)state = (intensity_state){.rate = TF_LN2 / param[0]};
}

static void intensity_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    intensity_state *s = state;
    s->value = s->value * tf_decay(f->clock, s->time, s->rate) + 1.0;
    s->time = f->clock;
}

static int intensity_sound(const void *state, const double *param) {
    const intensity_state *s = state;
    return isfinite(s->value) && s->rate == TF_LN2 / param[0];
}

static int32_t intensity_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_INTENSITY, param[0], 0.0, 0.0, out);
}

static void intensity_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    *samples = 1;
    *nanoseconds = (uint64_t)param[0];
}

static int intensity_ready(const tf_features *f, const tf_column *c) {
    return tf_elapsed(f, (uint64_t)c->spec.param[0]);
}

static double intensity_value(const tf_features *f, const tf_column *c) {
    const intensity_state *s = tf_state(f, c, 0);
    return s->value * tf_decay(f->clock, s->time, s->rate) * s->rate * TF_NS_PER_SECOND;
}

const tf_machine_type tf_machine_INTENSITY = {"decaying count", TF_FEED_TRADE, intensity_bytes, intensity_reset,
                                              intensity_update, NULL,          intensity_sound};
const tf_feature_impl tf_feature_TRADE_INTENSITY = {
    TF_FEED_TRADE, NULL, intensity_machines, intensity_lookback, intensity_ready, intensity_value};
