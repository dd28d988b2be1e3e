/* The feature engine: one block of memory holds header, slots (one per column) and their state, linked by offsets.
 *
 * An event passes three gates (valid, not backward, not crossed), moves the clock, lets time windows expire and then
 * reaches the columns it feeds. Everything stays in double; float32 is the last cast in emit. Rules common to all
 * columns are stated in tengri/features.h, those of one column in features.def. */
#include "tengri/features.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "window.h"

#define TF_MAX_EVENTS 1048576.0
#define TF_MAX_NS 604800e9 /* a week */
#define TF_FEATURE_MAX_WIDTH 1024
#define TF_FEATURE_MAGIC UINT64_C(0x3154414546464e54)
#define ALIGNMENT ((size_t)64)
#define BPS 1e4
#define NS_PER_SECOND 1e9
#define LN2 0.693147180559945309417
#define RSI_FLOOR 1e-300
#define NUMBER_FLOOR 1e-12

#define TF_FEATURE(ID, name, unit, needs, p0, p1, p2, p3, lookback, rule, source, text) KIND_##ID,
#define TF_P(name, type, initial, low, high)
#define TF_P0
enum feature_kind {
#include "features.def"
    KIND_COUNT
};
#undef TF_FEATURE
#undef TF_P
#undef TF_P0

#define TF_FEATURE(ID, name, unit, needs, p0, p1, p2, p3, lookback, rule, source, text)                                \
    {#name, unit, needs, {p0, p1, p2, p3}, lookback, rule, source, text},
#define TF_P(name, type, initial, low, high) {name, type, initial, low, high}
#define TF_P0 {NULL, TF_PARAM_NONE, 0.0, 0.0, 0.0}
static const tf_feature_info TABLE[KIND_COUNT] = {
#include "features.def"
};

typedef struct top {
    double bid;
    double ask;
    double bid_size;
    double ask_size;
    double mid;
} top;

typedef struct slot {
    tf_feature_spec spec;
    size_t offset; /* of its state, from the start of the block; 0: none */
} slot;

struct tf_features {
    uint64_t magic;
    uint32_t version;
    int32_t width;
    size_t bytes;
    tf_feature_counters counters;
    uint64_t first; /* event time of the first accepted event */
    uint64_t clock; /* latest event time */
    uint64_t first_book;
    uint64_t book_time;
    uint64_t trade_time;
    uint64_t bar_time;
    uint64_t move_time;
    uint64_t book_events;
    uint64_t depth_events;
    uint64_t trade_events;
    int32_t started;
    int32_t has_bar;
    int32_t has_top; /* a quote or depth was seen: bars no longer make the book */
    int32_t all_ready;
    double move_sign;
    top book;
    tf_depth10 depth;
    slot slots[];
};

/* --- state of single columns --- */

typedef struct weights_state {
    double weight[TF_DEPTH_LEVELS];
    double value;
} weights_state;

typedef struct ema_state {
    double fast;
    double slow;
    double fast_rate; /* alpha, or ln 2 / half-life in ns */
    double slow_rate;
    uint64_t time;
    int32_t by_event;
    int32_t reserved;
} ema_state;

typedef struct rsi_state {
    double gain;
    double loss;
    uint64_t count;
} rsi_state;

typedef struct intensity_state {
    double value;
    uint64_t time;
} intensity_state;

static inline void *state_of(const tf_features *f, const slot *s) { return (char *)(uintptr_t)f + s->offset; }

/* --- arithmetic --- */

/* log1p keeps the digits of a small move; a large one (bad data) must not reach log1p(-1). */
static inline double log_ratio_bps(double now, double before) {
    const double change = (now - before) / before;
    return BPS * (fabs(change) < 0.5 ? log1p(change) : log(now / before));
}

static inline double seconds_between(uint64_t now, uint64_t then) {
    return now > then ? (double)(now - then) / NS_PER_SECOND : 0.0;
}

static inline double share(double a, double b) {
    const double sum = a + b;
    return sum > 0.0 ? (a - b) / sum : 0.0;
}

static inline double half_decay(uint64_t now, uint64_t then, double rate) {
    return now > then ? exp(-(double)(now - then) * rate) : 1.0;
}

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

/* --- table, parameters and layout --- */

int32_t tf_feature_kinds(void) { return KIND_COUNT; }

const tf_feature_info *tf_feature_describe(int32_t kind) {
    return kind >= 0 && kind < KIND_COUNT ? &TABLE[kind] : NULL;
}

static int parameter_fits(const tf_feature_param *rule, double value) {
    if (!isfinite(value)) return 0;
    switch (rule->type) {
    case TF_PARAM_NONE: return value == 0.0;
    case TF_PARAM_FLAG: return value == 0.0 || value == 1.0;
    case TF_PARAM_COUNT: return value == floor(value) && value >= rule->low && value <= rule->high;
    case TF_PARAM_NUMBER:
        return value == 0.0 ? rule->low <= 0.0 : value >= fmax(rule->low, NUMBER_FLOOR) && value <= rule->high;
    case TF_PARAM_DURATION:
        if (value == 0.0) return rule->low == 0.0;
        return value == floor(value) && value >= fmax(rule->low, 1e3) && value <= rule->high;
    case TF_PARAM_WINDOW:
        if (value != floor(value)) return 0;
        return value < 0.0 ? value >= -TF_MAX_EVENTS : value >= rule->low && value <= rule->high;
    }
    return 0;
}

static tf_status check_spec(const tf_feature_spec *spec) {
    if (spec->kind >= KIND_COUNT) return TF_ERR_ARGUMENT;
    for (int i = 0; i < TF_FEATURE_PARAMS; i++) {
        if (!parameter_fits(&TABLE[spec->kind].param[i], spec->param[i])) return TF_ERR_ARGUMENT;
    }
    if (!isfinite(spec->mean) || !isfinite(spec->scale) || !isfinite(spec->clip)) return TF_ERR_NONFINITE;
    if (spec->scale <= 0.0 || spec->clip < 0.0) return TF_ERR_ARGUMENT;
    if (spec->kind == KIND_EMA_DIFFERENCE) {
        const double fast = spec->param[0], slow = spec->param[1];
        if ((fast < 0.0) != (slow < 0.0) || fabs(fast) >= fabs(slow)) return TF_ERR_ARGUMENT;
    }
    return TF_OK;
}

/* Where the window of a windowed kind keeps its capacity among the parameters; -1: the kind has no window. */
static int capacity_index(uint32_t kind) {
    switch (kind) {
    case KIND_MID_RETURN:
    case KIND_SIGNED_TRADE_FLOW:
    case KIND_REALIZED_VOLATILITY: return 1;
    case KIND_ORDER_FLOW_IMBALANCE: return 3;
    default: return -1;
    }
}

/* A count of events needs exactly that many places, so it never overflows. */
static uint32_t capacity_of(const tf_feature_spec *spec) {
    if (spec->param[0] < 0.0) return (uint32_t)-spec->param[0];
    return (uint32_t)spec->param[capacity_index(spec->kind)];
}

static size_t state_bytes(const tf_feature_spec *spec) {
    switch (spec->kind) {
    case KIND_DEPTH_IMBALANCE: return sizeof(weights_state);
    case KIND_EMA_DIFFERENCE: return sizeof(ema_state);
    case KIND_RSI: return sizeof(rsi_state);
    case KIND_TRADE_INTENSITY: return sizeof(intensity_state);
    default: return capacity_index(spec->kind) >= 0 ? window_bytes(capacity_of(spec)) : 0;
    }
}

static size_t round_up(size_t bytes) { return (bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1); }

static size_t header_bytes(int32_t count) { return round_up(sizeof(tf_features) + (size_t)count * sizeof(slot)); }

tf_status tf_feature_lookback(const tf_feature_spec *spec, uint64_t *events, uint64_t *nanoseconds) {
    if (spec == NULL || events == NULL || nanoseconds == NULL) return TF_ERR_ARGUMENT;
    const tf_status status = check_spec(spec);
    if (status != TF_OK) return status;
    const double first = spec->param[0];
    *events = 1;
    *nanoseconds = 0;
    switch (spec->kind) {
    case KIND_MID_RETURN:
    case KIND_REALIZED_VOLATILITY:
        if (first < 0.0) *events = (uint64_t)-first + 1;
        else *nanoseconds = (uint64_t)first;
        break;
    case KIND_ORDER_FLOW_IMBALANCE:
        *events = first < 0.0 ? (uint64_t)-first + 1 : 2;
        if (first > 0.0) *nanoseconds = (uint64_t)first;
        break;
    case KIND_SIGNED_TRADE_FLOW:
        if (first < 0.0) *events = (uint64_t)-first;
        else *nanoseconds = (uint64_t)first;
        break;
    case KIND_EMA_DIFFERENCE:
        if (first < 0.0) *events = (uint64_t)-spec->param[1];
        else *nanoseconds = (uint64_t)spec->param[1];
        break;
    case KIND_RSI: *events = (uint64_t)first + 1; break;
    case KIND_TRADE_INTENSITY: *nanoseconds = (uint64_t)first; break;
    default: break;
    }
    return TF_OK;
}

tf_status tf_features_size(const tf_feature_spec *specs, int32_t count, size_t *bytes) {
    if (specs == NULL || bytes == NULL) return TF_ERR_ARGUMENT;
    if (count < 1 || count > TF_FEATURE_MAX_WIDTH) return TF_ERR_SHAPE;
    size_t total = header_bytes(count);
    for (int32_t i = 0; i < count; i++) {
        const tf_status status = check_spec(&specs[i]);
        if (status != TF_OK) return status;
        total += round_up(state_bytes(&specs[i]));
    }
    *bytes = total;
    return TF_OK;
}

static void reset_slot(tf_features *f, const slot *s) {
    const double *param = s->spec.param;
    switch (s->spec.kind) {
    case KIND_DEPTH_IMBALANCE: {
        weights_state *state = state_of(f, s);
        for (int i = 0; i < TF_DEPTH_LEVELS; i++) state->weight[i] = i < (int)param[0] ? exp(-param[1] * i) : 0.0;
        state->value = 0.0;
        break;
    }
    case KIND_EMA_DIFFERENCE: {
        ema_state *state = state_of(f, s);
        *state = (ema_state){.by_event = param[0] < 0.0};
        state->fast_rate = state->by_event ? 2.0 / (1.0 - param[0]) : LN2 / param[0];
        state->slow_rate = state->by_event ? 2.0 / (1.0 - param[1]) : LN2 / param[1];
        break;
    }
    case KIND_RSI: *(rsi_state *)state_of(f, s) = (rsi_state){0}; break;
    case KIND_TRADE_INTENSITY: *(intensity_state *)state_of(f, s) = (intensity_state){0}; break;
    default:
        if (capacity_index(s->spec.kind) >= 0) {
            tf_window *window = state_of(f, s);
            window->by_event = param[0] < 0.0;
            window->span = (uint64_t)fabs(param[0]);
            window->capacity = capacity_of(&s->spec);
            window_reset(window);
        }
    }
}

void tf_features_reset(tf_features *f) {
    const size_t from = offsetof(tf_features, counters), to = offsetof(tf_features, slots);
    memset((char *)f + from, 0, to - from);
    for (int32_t i = 0; i < f->width; i++) reset_slot(f, &f->slots[i]);
}

tf_status tf_features_init(void *memory, size_t bytes, const tf_feature_spec *specs, int32_t count, tf_features **out) {
    size_t needed;
    const tf_status status = tf_features_size(specs, count, &needed);
    if (status != TF_OK) return status;
    if (memory == NULL || out == NULL || (uintptr_t)memory % ALIGNMENT != 0) return TF_ERR_ARGUMENT;
    if (bytes < needed) return TF_ERR_MEMORY;
    memset(memory, 0, needed);
    tf_features *f = memory;
    f->magic = TF_FEATURE_MAGIC;
    f->version = TF_FEATURE_ENGINE_VERSION;
    f->width = count;
    f->bytes = needed;
    size_t offset = header_bytes(count);
    for (int32_t i = 0; i < count; i++) {
        const size_t size = round_up(state_bytes(&specs[i]));
        f->slots[i].spec = specs[i];
        f->slots[i].offset = size > 0 ? offset : 0;
        offset += size;
    }
    tf_features_reset(f);
    *out = f;
    return TF_OK;
}

static int window_sound(const tf_window *window, const tf_feature_spec *spec) {
    if (window->capacity != capacity_of(spec) || window->span != (uint64_t)fabs(spec->param[0])) return 0;
    if (window->by_event != (uint32_t)(spec->param[0] < 0.0)) return 0;
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

tf_status tf_features_check(const void *memory, size_t bytes, const tf_feature_spec *specs, int32_t count) {
    size_t needed;
    const tf_status status = tf_features_size(specs, count, &needed);
    if (status != TF_OK) return status;
    if (memory == NULL || (uintptr_t)memory % ALIGNMENT != 0) return TF_ERR_ARGUMENT;
    if (bytes != needed) return TF_ERR_SHAPE;
    const tf_features *f = memory;
    if (f->magic != TF_FEATURE_MAGIC || f->version != TF_FEATURE_ENGINE_VERSION) return TF_ERR_FORMAT;
    if (f->width != count || f->bytes != needed) return TF_ERR_FORMAT;
    const double *book = &f->book.bid;
    for (size_t i = 0; i < sizeof(top) / sizeof(double); i++) {
        if (!isfinite(book[i])) return TF_ERR_NONFINITE;
    }
    size_t offset = header_bytes(count);
    for (int32_t i = 0; i < count; i++) {
        const size_t size = round_up(state_bytes(&specs[i]));
        const slot *s = &f->slots[i];
        if (memcmp(&s->spec, &specs[i], sizeof specs[i]) != 0) return TF_ERR_FORMAT;
        if (s->offset != (size > 0 ? offset : 0)) return TF_ERR_FORMAT;
        if (capacity_index(specs[i].kind) >= 0 && !window_sound(state_of(f, s), &specs[i])) return TF_ERR_FORMAT;
        offset += size;
    }
    return TF_OK;
}

int32_t tf_features_width(const tf_features *f) { return f->width; }
size_t tf_features_bytes(const tf_features *f) { return f->bytes; }
double tf_features_mid(const tf_features *f) { return f->book.mid; }
double tf_features_spread(const tf_features *f) { return f->book.ask - f->book.bid; }
void tf_features_counters(const tf_features *f, tf_feature_counters *out) { *out = f->counters; }

/* --- readiness and values --- */

int tf_features_ready_at(const tf_features *f, int32_t index) {
    const slot *s = &f->slots[index];
    const double first = s->spec.param[0];
    const uint64_t span = (uint64_t)fabs(first);
    const uint64_t elapsed = f->clock - f->first;
    const int by_event = first < 0.0;
    switch (s->spec.kind) {
    case KIND_MID_RETURN: return (int)((const tf_window *)state_of(f, s))->seen;
    case KIND_DEPTH_IMBALANCE: return f->depth_events >= 1;
    case KIND_ORDER_FLOW_IMBALANCE: {
        const uint64_t events = s->spec.param[1] > 1.0 ? f->depth_events : f->book_events;
        return by_event ? events > span : events >= 2 && elapsed >= span;
    }
    case KIND_SIGNED_TRADE_FLOW: return by_event ? f->trade_events >= span : f->started && elapsed >= span;
    case KIND_REALIZED_VOLATILITY: return by_event ? f->book_events > span : f->book_events >= 1 && elapsed >= span;
    case KIND_EMA_DIFFERENCE: {
        const uint64_t slow = (uint64_t)fabs(s->spec.param[1]);
        return by_event ? f->book_events >= slow : f->book_events >= 1 && f->clock - f->first_book >= slow;
    }
    case KIND_RSI: return ((const rsi_state *)state_of(f, s))->count >= span;
    case KIND_TIME_SINCE_TRADE: return f->trade_events >= 1;
    case KIND_LAST_MOVE_DIRECTION:
    case KIND_MID_MOVE_AGE: return f->move_sign != 0.0;
    case KIND_TRADE_INTENSITY: return f->started && elapsed >= span;
    default: return f->book_events >= 1;
    }
}

int tf_features_ready(const tf_features *f) { return f->all_ready; }

static void note_ready(tf_features *f) {
    for (int32_t i = 0; i < f->width; i++) {
        if (!tf_features_ready_at(f, i)) return;
    }
    f->all_ready = 1; /* readiness is never lost before a reset */
}

static double ema_value(const tf_features *f, const ema_state *state) {
    double fast = state->fast, slow = state->slow;
    if (!state->by_event && f->clock > state->time) { /* the mid has stood still since the last book event */
        const double age = (double)(f->clock - state->time);
        fast += -expm1(-age * state->fast_rate) * (f->book.mid - fast);
        slow += -expm1(-age * state->slow_rate) * (f->book.mid - slow);
    }
    return log_ratio_bps(fast, slow);
}

static double flow_value(const tf_window *window, const tf_feature_spec *spec) {
    if (window->count == 0) return 0.0;
    const double flow = dd_value(&window->sum[0]) / spec->param[1];
    if (spec->param[2] == 0.0) return flow;
    const double depth = dd_value(&window->sum[1]) / window->count;
    return depth > 0.0 ? flow / depth : 0.0;
}

static double rsi_value(const rsi_state *state) {
    const double sum = state->gain + state->loss;
    return sum > RSI_FLOOR ? 100.0 * (state->gain / sum) : 50.0;
}

static double trade_flow_value(const tf_window *window) {
    const double volume = dd_value(&window->sum[1]);
    if (volume <= 0.0) return 0.0;
    return fmax(-1.0, fmin(1.0, dd_value(&window->sum[0]) / volume));
}

static double value_of(const tf_features *f, int32_t index) {
    if (!f->all_ready && !tf_features_ready_at(f, index)) return 0.0;
    const slot *s = &f->slots[index];
    const double *param = s->spec.param;
    const top *book = &f->book;
    switch (s->spec.kind) {
    case KIND_MID_RETURN: return log_ratio_bps(book->mid, ((const tf_window *)state_of(f, s))->left);
    case KIND_SPREAD:
        return param[0] > 0.0 ? (book->ask - book->bid) / param[0] : BPS * (book->ask - book->bid) / book->mid;
    case KIND_MICROPRICE_DEVIATION:
        return BPS * 0.5 * (book->ask - book->bid) * share(book->bid_size, book->ask_size) / book->mid;
    case KIND_IMBALANCE: return share(book->bid_size, book->ask_size);
    case KIND_DEPTH_IMBALANCE: return ((const weights_state *)state_of(f, s))->value;
    case KIND_ORDER_FLOW_IMBALANCE: return flow_value(state_of(f, s), &s->spec);
    case KIND_SIGNED_TRADE_FLOW: return trade_flow_value(state_of(f, s));
    case KIND_REALIZED_VOLATILITY: return sqrt(fmax(0.0, dd_value(&((const tf_window *)state_of(f, s))->sum[0])));
    case KIND_EMA_DIFFERENCE: return ema_value(f, state_of(f, s));
    case KIND_RSI: return rsi_value(state_of(f, s));
    case KIND_TIME_SINCE_TRADE: return log1p(seconds_between(f->clock, f->trade_time));
    case KIND_LAST_MOVE_DIRECTION:
        return param[0] > 0.0 ? f->move_sign * half_decay(f->clock, f->move_time, LN2 / param[0]) : f->move_sign;
    case KIND_MID_MOVE_AGE: return log1p(seconds_between(f->clock, f->move_time));
    case KIND_TRADE_INTENSITY: {
        const intensity_state *state = state_of(f, s);
        const double rate = LN2 / param[0];
        return state->value * half_decay(f->clock, state->time, rate) * rate * NS_PER_SECOND;
    }
    default: return 0.0; /* unreachable: init admits only kinds of the table */
    }
}

void tf_features_row(const tf_features *f, double *out) {
    for (int32_t i = 0; i < f->width; i++) out[i] = value_of(f, i);
}

static inline float normalise(const tf_feature_spec *spec, double value, int *finite) {
    double x = (value - spec->mean) / spec->scale;
    if (spec->clip > 0.0) x = fmin(spec->clip, fmax(-spec->clip, x));
    if (!(fabs(x) <= FLT_MAX)) {
        *finite = 0;
        x = isnan(x) ? 0.0 : copysign(FLT_MAX, x);
    }
    return (float)x;
}

int tf_features_emit(const tf_features *f, float *out) {
    int finite = 1;
    for (int32_t i = 0; i < f->width; i++) out[i] = normalise(&f->slots[i].spec, value_of(f, i), &finite);
    return finite;
}

int tf_features_normalise(const tf_features *f, const double *row, float *out) {
    int finite = 1;
    for (int32_t i = 0; i < f->width; i++) out[i] = normalise(&f->slots[i].spec, row[i], &finite);
    return finite;
}

/* --- events --- */

static int price_fits(double x) { return x >= TF_VALUE_MIN && x <= TF_VALUE_MAX; } /* false for NaN */
static int size_fits(double x) { return x == 0.0 || price_fits(x); }

static int drop(uint64_t *counter) {
    (*counter)++;
    return 0;
}

/* Moves the clock (never back) and lets every time window lose what has become too old, whatever kind of event came. */
static void advance(tf_features *f, uint64_t time) {
    f->counters.accepted++;
    if (!f->started) {
        f->started = 1;
        f->first = f->clock = time;
        return;
    }
    if (time <= f->clock) return;
    f->clock = time;
    for (int32_t i = 0; i < f->width; i++) {
        const slot *s = &f->slots[i];
        if (s->spec.param[0] <= 0.0) continue;
        switch (s->spec.kind) {
        case KIND_MID_RETURN: window_expire(state_of(f, s), time, 0); break;
        case KIND_REALIZED_VOLATILITY: window_expire(state_of(f, s), time, 1); break;
        case KIND_ORDER_FLOW_IMBALANCE:
        case KIND_SIGNED_TRADE_FLOW: window_expire(state_of(f, s), time, 2); break;
        default: break;
        }
    }
}

static void ema_update(ema_state *state, const tf_features *f, double mid_before, double mid, int first) {
    if (first) {
        state->fast = state->slow = mid;
    } else if (state->by_event) {
        state->fast += state->fast_rate * (mid - state->fast);
        state->slow += state->slow_rate * (mid - state->slow);
    } else if (f->clock > state->time) { /* the mid held from the last event until now is what is averaged */
        const double age = (double)(f->clock - state->time);
        state->fast += -expm1(-age * state->fast_rate) * (mid_before - state->fast);
        state->slow += -expm1(-age * state->slow_rate) * (mid_before - state->slow);
    }
    state->time = f->clock;
}

static void rsi_update(rsi_state *state, double period, double change) {
    const double up = change > 0.0 ? change : 0.0, down = change < 0.0 ? -change : 0.0;
    state->count++;
    if (state->count <= (uint64_t)period) { /* Wilder starts from the plain mean of the first changes */
        state->gain += up / period;
        state->loss += down / period;
        return;
    }
    state->gain += (up - state->gain) / period;
    state->loss += (down - state->loss) / period;
    if (state->gain + state->loss < RSI_FLOOR) state->gain = state->loss = 0.0; /* never crawl through denormals */
}

/* The accepted top of book reaches every column that is fed by it. */
static void book_update(tf_features *f, const top *next) {
    const top before = f->book;
    const int first = f->book_events == 0;
    const double change = next->mid - before.mid;
    const int moved = !first && change != 0.0;
    double squared = 0.0;
    f->book = *next;
    f->book_events++;
    if (first) f->first_book = f->clock;
    if (moved) {
        f->move_sign = change > 0.0 ? 1.0 : -1.0;
        f->move_time = f->clock;
    }
    const uint64_t events = f->book_events;
    for (int32_t i = 0; i < f->width; i++) {
        const slot *s = &f->slots[i];
        switch (s->spec.kind) {
        case KIND_MID_RETURN: {
            tf_window *window = state_of(f, s);
            const uint64_t key = window->by_event ? events : f->clock;
            if (window->by_event) window_expire(window, key, 0);
            if (first || moved) f->counters.overflow += (uint64_t)window_push(window, key, next->mid, 0.0, 0);
            break;
        }
        case KIND_ORDER_FLOW_IMBALANCE: {
            if (s->spec.param[1] > 1.0 || first) break;
            tf_window *window = state_of(f, s);
            const uint64_t key = window->by_event ? events : f->clock;
            if (window->by_event) window_expire(window, key, 2);
            const double flow = level_flow(before.bid, before.bid_size, before.ask, before.ask_size, next->bid,
                                           next->bid_size, next->ask, next->ask_size);
            const double depth = 0.5 * (next->bid_size + next->ask_size);
            f->counters.overflow += (uint64_t)window_push(window, key, flow, depth, 2);
            break;
        }
        case KIND_REALIZED_VOLATILITY: {
            tf_window *window = state_of(f, s);
            const uint64_t key = window->by_event ? events : f->clock;
            if (window->by_event) window_expire(window, key, 1);
            if (!moved) break;
            if (squared == 0.0) {
                const double bps = log_ratio_bps(next->mid, before.mid);
                squared = bps * bps;
            }
            f->counters.overflow += (uint64_t)window_push(window, key, squared, 0.0, 1);
            break;
        }
        case KIND_EMA_DIFFERENCE: ema_update(state_of(f, s), f, before.mid, next->mid, first); break;
        case KIND_RSI:
            if (!first) rsi_update(state_of(f, s), s->spec.param[0], change);
            break;
        default: break;
        }
    }
}

static inline top top_of(double bid, double ask, double bid_size, double ask_size) {
    return (top){bid, ask, bid_size, ask_size, 0.5 * (bid + ask)};
}

int tf_features_on_quote(tf_features *f, const tf_quote *quote) {
    if (!price_fits(quote->bid_price) || !price_fits(quote->ask_price) || !size_fits(quote->bid_size) ||
        !size_fits(quote->ask_size))
        return drop(&f->counters.invalid);
    if (f->has_top && quote->ts_event < f->book_time) return drop(&f->counters.backward);
    if (quote->bid_price > quote->ask_price) return drop(&f->counters.crossed);
    advance(f, quote->ts_event);
    f->has_top = 1;
    f->book_time = quote->ts_event;
    const top next = top_of(quote->bid_price, quote->ask_price, quote->bid_size, quote->ask_size);
    book_update(f, &next);
    if (!f->all_ready) note_ready(f);
    return 1;
}

/* How many levels one side has, or -1 if it is not a book: prices out of order, holes, values out of bounds. */
static int side_levels(const double *price, const double *size, uint32_t levels, double direction) {
    int count = 0;
    for (uint32_t i = 0; i < levels; i++) {
        if (price[i] == 0.0 && size[i] == 0.0) continue;
        if ((uint32_t)count != i || !price_fits(price[i]) || !size_fits(size[i])) return -1;
        if (i > 0 && (price[i] - price[i - 1]) * direction <= 0.0) return -1;
        count++;
    }
    return count;
}

static void depth_update(tf_features *f, const tf_depth10 *next) {
    const tf_depth10 *before = &f->depth;
    const int first = f->depth_events == 0;
    f->depth_events++;
    for (int32_t i = 0; i < f->width; i++) {
        const slot *s = &f->slots[i];
        if (s->spec.kind == KIND_DEPTH_IMBALANCE) {
            weights_state *state = state_of(f, s);
            double bids = 0.0, asks = 0.0;
            for (int level = 0; level < TF_DEPTH_LEVELS; level++) {
                bids += state->weight[level] * next->bid_size[level];
                asks += state->weight[level] * next->ask_size[level];
            }
            state->value = share(bids, asks);
        } else if (s->spec.kind == KIND_ORDER_FLOW_IMBALANCE && s->spec.param[1] > 1.0) {
            if (first) continue;
            tf_window *window = state_of(f, s);
            const uint64_t key = window->by_event ? f->depth_events : f->clock;
            if (window->by_event) window_expire(window, key, 2);
            const int levels = (int)s->spec.param[1];
            double flow = 0.0, depth = 0.0;
            for (int level = 0; level < levels; level++) {
                flow += level_flow(before->bid_price[level], before->bid_size[level],
                                   ask_or_far(before->ask_price[level]), before->ask_size[level],
                                   next->bid_price[level], next->bid_size[level], ask_or_far(next->ask_price[level]),
                                   next->ask_size[level]);
                depth += 0.5 * (next->bid_size[level] + next->ask_size[level]);
            }
            f->counters.overflow += (uint64_t)window_push(window, key, flow, depth / levels, 2);
        }
    }
    f->depth = *next;
}

int tf_features_on_depth(tf_features *f, const tf_depth10 *depth) {
    if (depth->levels < 1 || depth->levels > TF_DEPTH_LEVELS) return drop(&f->counters.invalid);
    const int bids = side_levels(depth->bid_price, depth->bid_size, depth->levels, -1.0);
    const int asks = side_levels(depth->ask_price, depth->ask_size, depth->levels, 1.0);
    if (bids < 1 || asks < 1) return drop(&f->counters.invalid);
    if (f->has_top && depth->ts_event < f->book_time) return drop(&f->counters.backward);
    if (depth->bid_price[0] > depth->ask_price[0]) return drop(&f->counters.crossed);
    advance(f, depth->ts_event);
    f->has_top = 1;
    f->book_time = depth->ts_event;
    tf_depth10 clean = *depth; /* whatever lies beyond the stated levels does not count */
    for (int level = (int)depth->levels; level < TF_DEPTH_LEVELS; level++) {
        clean.bid_price[level] = clean.bid_size[level] = clean.ask_price[level] = clean.ask_size[level] = 0.0;
    }
    const top next = top_of(clean.bid_price[0], clean.ask_price[0], clean.bid_size[0], clean.ask_size[0]);
    book_update(f, &next);
    depth_update(f, &clean);
    if (!f->all_ready) note_ready(f);
    return 1;
}

int tf_features_on_trade(tf_features *f, const tf_trade *trade) {
    if (!price_fits(trade->price) || !price_fits(trade->size) || trade->aggressor < -1 || trade->aggressor > 1)
        return drop(&f->counters.invalid);
    if (f->trade_events > 0 && trade->ts_event < f->trade_time) return drop(&f->counters.backward);
    advance(f, trade->ts_event);
    f->trade_time = trade->ts_event;
    f->trade_events++;
    for (int32_t i = 0; i < f->width; i++) {
        const slot *s = &f->slots[i];
        if (s->spec.kind == KIND_SIGNED_TRADE_FLOW) {
            tf_window *window = state_of(f, s);
            const uint64_t key = window->by_event ? f->trade_events : f->clock;
            if (window->by_event) window_expire(window, key, 2);
            f->counters.overflow += (uint64_t)window_push(window, key, trade->aggressor * trade->size, trade->size, 2);
        } else if (s->spec.kind == KIND_TRADE_INTENSITY) {
            intensity_state *state = state_of(f, s);
            state->value = state->value * half_decay(f->clock, state->time, LN2 / s->spec.param[0]) + 1.0;
            state->time = f->clock;
        }
    }
    if (!f->all_ready) note_ready(f);
    return 1;
}

int tf_features_on_bar(tf_features *f, const tf_bar *bar) {
    if (!price_fits(bar->open) || !price_fits(bar->high) || !price_fits(bar->low) || !price_fits(bar->close) ||
        !size_fits(bar->volume) || bar->high < bar->low)
        return drop(&f->counters.invalid);
    if (f->has_bar && bar->ts_event < f->bar_time) return drop(&f->counters.backward);
    advance(f, bar->ts_event);
    f->has_bar = 1;
    f->bar_time = bar->ts_event;
    if (!f->has_top) {
        const top next = top_of(bar->close, bar->close, 0.0, 0.0);
        book_update(f, &next);
    }
    if (!f->all_ready) note_ready(f);
    return 1;
}
