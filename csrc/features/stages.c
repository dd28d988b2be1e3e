/* Stages: what a column's value passes on its way out (stages.def). Each is pushed once per beat of its column.
 *
 * A number of any size may come in. Windows and weights take in at most +-LIMIT, whose square still fits a double,
 * so what they keep and what they give is finite; the stages without a state give what a double can hold of their
 * formula. */
#include "machine.h"

#include <string.h>

#include "moments.h"
#include "ordered.h"

#define LIMIT TF_MOMENTS_LIMIT
#define FLAT 1e-300 /* a variance or a range below counts as none: its digits are lost to denormals */
#define IQR_OF_NORMAL 1.3489795003921634 /* interquartile range of the standard normal distribution: 2 x 0.67448975 */

static double within(double x, double limit) { return fmin(limit, fmax(-limit, x)); }

static int within_limit(const double *x, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!(fabs(x[i]) <= LIMIT)) return 0;
    }
    return 1;
}

static uint32_t window_of(const double *param) { return (uint32_t)param[0]; }
/* Lookbacks count the pushes that are needed beyond the first. */
static uint64_t window_lookback(const double *param) { return (uint64_t)param[0] - 1; }

/* --- without a state --- */

static size_t no_bytes(const double *param) {
    (void)param;
    return 0;
}

static void no_reset(void *state, const double *param) {
    (void)state;
    (void)param;
}

static int always(const void *state, const double *param) {
    (void)state;
    (void)param;
    return 1;
}

static uint64_t no_lookback(const double *param) {
    (void)param;
    return 0;
}

static double clip_push(void *state, const double *param, double x, const tf_features *f) {
    (void)state;
    (void)f;
    return within(x, param[0]);
}

static double log_push(void *state, const double *param, double x, const tf_features *f) {
    (void)state;
    (void)param;
    (void)f;
    return copysign(log1p(fabs(x)), x);
}

static double sqrt_push(void *state, const double *param, double x, const tf_features *f) {
    (void)state;
    (void)param;
    (void)f;
    return copysign(sqrt(fabs(x)), x);
}

static double tanh_push(void *state, const double *param, double x, const tf_features *f) {
    (void)state;
    (void)f;
    return tanh(within(x, LIMIT) / param[0]);
}

static double to_mid_push(void *state, const double *param, double x, const tf_features *f) {
    (void)state;
    (void)param;
    const double mid = f->book.mid;
    return mid > 0.0 ? within(TF_BPS * ((x - mid) / mid), LIMIT) : 0.0;
}

const tf_stage_type tf_stage_CLIP = {no_bytes, no_reset, clip_push, always, always, no_lookback};
const tf_stage_type tf_stage_LOG = {no_bytes, no_reset, log_push, always, always, no_lookback};
const tf_stage_type tf_stage_SQRT = {no_bytes, no_reset, sqrt_push, always, always, no_lookback};
const tf_stage_type tf_stage_TANH = {no_bytes, no_reset, tanh_push, always, always, no_lookback};
const tf_stage_type tf_stage_TO_MID = {no_bytes, no_reset, to_mid_push, always, always, no_lookback};

/* --- zscore --- */

static size_t zscore_bytes(const double *param) { return moments_bytes(window_of(param), 1); }
static void zscore_reset(void *state, const double *param) { moments_reset(state, window_of(param), 1); }
static int zscore_sound(const void *state, const double *param) { return moments_sound(state, window_of(param), 1, 0); }

static int zscore_ready(const void *state, const double *param) {
    return ((const tf_moments *)state)->count == window_of(param);
}

static double zscore_push(void *state, const double *param, double x, const tf_features *f) {
    (void)param;
    (void)f;
    tf_moments *m = state;
    x = within(x, LIMIT);
    moments_push(m, &x, 1, 0);
    const double count = (double)m->count, variance = m->now.square[0] / count;
    if (!(variance > FLAT)) return 0.0;
    return within(moments_deviation(m, 0) / sqrt(variance), sqrt(count)); /* no value is further out than that */
}

const tf_stage_type tf_stage_ZSCORE = {zscore_bytes, zscore_reset, zscore_push,
                                       zscore_ready, zscore_sound, window_lookback};

/* --- ewm_zscore ---
 *
 * What is kept is the mean relative to the last value, so that the level takes no digits from it; both recursions
 * contract, and what was rounded is forgotten like everything else. */

typedef struct ewm_state {
    double keep;     /* 2^(-1 / half_life) */
    double weight;   /* sum of the weights so far */
    double last;
    double offset;   /* mean minus the last value */
    double variance;
    uint64_t count;
} ewm_state;

static size_t ewm_bytes(const double *param) {
    (void)param;
    return sizeof(ewm_state);
}

static void ewm_reset(void *state, const double *param) {
    *(ewm_state *)state = (ewm_state){.keep = exp2(-1.0 / param[0])};
}

static uint64_t ewm_lookback(const double *param) { return (uint64_t)ceil(param[0]) - 1; }

static int ewm_ready(const void *state, const double *param) {
    return ((const ewm_state *)state)->count > ewm_lookback(param);
}

static double ewm_push(void *state, const double *param, double x, const tf_features *f) {
    (void)param;
    (void)f;
    ewm_state *s = state;
    x = within(x, LIMIT);
    const double offset = s->count > 0 ? s->offset + (s->last - x) : 0.0; /* of the mean before, relative to x */
    s->weight = s->keep * s->weight + 1.0;
    const double share = 1.0 / s->weight, rest = 1.0 - share;
    s->offset = rest * offset;
    s->variance = rest * (s->variance + share * offset * offset);
    s->last = x;
    s->count++;
    if (fabs(s->offset) < FLAT) s->offset = 0.0;
    if (s->variance < FLAT) s->variance = 0.0;
    return s->variance > 0.0 ? within(-s->offset / sqrt(s->variance), LIMIT) : 0.0;
}

static int ewm_sound(const void *state, const double *param) {
    const ewm_state *s = state;
    if (s->keep != exp2(-1.0 / param[0]) || !(s->weight >= 0.0 && s->weight <= 2.0 * TF_MAX_EVENTS)) return 0;
    if (!(fabs(s->last) <= LIMIT) || !(fabs(s->offset) <= 4.0 * LIMIT)) return 0;
    return s->variance >= 0.0 && s->variance <= TF_MOMENTS_SECOND;
}

const tf_stage_type tf_stage_EWM_ZSCORE = {ewm_bytes, ewm_reset, ewm_push, ewm_ready, ewm_sound, ewm_lookback};

/* --- robust, rank: the values of the window in the order they came, and in order of size --- */

typedef struct sorted_state {
    uint32_t window;
    uint32_t place; /* of the next value, which is where the oldest one lies */
    double value[]; /* window; then a tf_ordered */
} sorted_state;

static tf_ordered *set_of(const sorted_state *s) { return (tf_ordered *)(uintptr_t)(s->value + s->window); }

static size_t sorted_bytes(const double *param) {
    return sizeof(sorted_state) + window_of(param) * sizeof(double) + ordered_bytes(window_of(param));
}

static void sorted_reset(void *state, const double *param) {
    sorted_state *s = state;
    memset(s, 0, sorted_bytes(param));
    s->window = window_of(param);
    ordered_reset(set_of(s), s->window);
}

static int sorted_ready(const void *state, const double *param) {
    return ordered_count(set_of(state)) == window_of(param);
}

static double sorted_push(sorted_state *s, double x) {
    x = within(x, LIMIT);
    tf_ordered *set = set_of(s);
    if (ordered_count(set) < s->window) ordered_put(set, x, 0);
    else ordered_exchange(set, s->value[s->place], x);
    s->value[s->place] = x;
    s->place = s->place + 1 == s->window ? 0 : s->place + 1;
    return x;
}

/* Every value of the ring is in the set, and the set holds no more than the ring does. */
static int sorted_sound(const void *state, const double *param) {
    const sorted_state *s = state;
    if (s->window != window_of(param) || s->place >= s->window || !within_limit(s->value, s->window)) return 0;
    const tf_ordered *set = set_of(s);
    if (!ordered_sound_of(set, s->window, 0)) return 0;
    const uint32_t count = ordered_count(set);
    if (count < s->window && count != s->place) return 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t equal;
        ordered_rank(set, s->value[i], &equal);
        if (equal == 0) return 0;
    }
    return 1;
}

static double robust_push(void *state, const double *param, double x, const tf_features *f) {
    (void)param;
    (void)f;
    x = sorted_push(state, x);
    const tf_ordered *set = set_of(state);
    const double range = ordered_quantile(set, 0.75) - ordered_quantile(set, 0.25);
    if (!(range > FLAT)) return 0.0;
    return within((x - ordered_quantile(set, 0.5)) / range * IQR_OF_NORMAL, LIMIT);
}

static double rank_push(void *state, const double *param, double x, const tf_features *f) {
    (void)param;
    (void)f;
    x = sorted_push(state, x);
    uint32_t equal;
    const uint32_t below = ordered_rank(set_of(state), x, &equal);
    return (2.0 * (double)below + (double)equal) / (double)ordered_count(set_of(state)) - 1.0;
}

const tf_stage_type tf_stage_ROBUST = {sorted_bytes, sorted_reset, robust_push,
                                       sorted_ready, sorted_sound, window_lookback};
const tf_stage_type tf_stage_RANK = {sorted_bytes, sorted_reset, rank_push,
                                     sorted_ready, sorted_sound, window_lookback};

/* --- minmax: blocks of half a window, as in moments.h --- */

typedef struct range {
    double low;
    double high;
} range;

typedef struct minmax_state {
    uint32_t window;
    uint32_t half;
    uint32_t block;
    uint32_t place;
    uint32_t whole_blocks;
    uint32_t count;
    range part;   /* of the present block */
    range before; /* of the block before */
    range cell[]; /* 3 x half: values, then the ranges of suffixes */
} minmax_state;

static range join(range a, range b) { return (range){fmin(a.low, b.low), fmax(a.high, b.high)}; }

static size_t minmax_bytes(const double *param) {
    return sizeof(minmax_state) + (size_t)3 * (window_of(param) / 2) * sizeof(range);
}

static void minmax_reset(void *state, const double *param) {
    minmax_state *s = state;
    memset(s, 0, minmax_bytes(param));
    s->window = window_of(param);
    s->half = s->window / 2;
}

static int minmax_ready(const void *state, const double *param) {
    return ((const minmax_state *)state)->count == window_of(param);
}

static range minmax_step(minmax_state *s, double x) {
    const uint32_t half = s->half;
    if (s->place == half) {
        s->before = s->part;
        s->block = s->block == 2 ? 0 : s->block + 1;
        s->place = 0;
        if (s->whole_blocks < 2) s->whole_blocks++;
    }
    const range one = {x, x};
    s->cell[(size_t)s->block * half + s->place] = one;
    s->part = s->place == 0 ? one : join(s->part, one);
    s->count = ++s->place;
    if (s->whole_blocks == 0) return s->part;
    const uint32_t before = s->block == 0 ? 2 : s->block - 1;
    range *made = &s->cell[(size_t)before * half + half - s->place];
    if (s->place > 1) *made = join(made[0], made[1]);
    range now = join(s->part, s->before);
    s->count += half;
    if (s->whole_blocks < 2 || s->count == s->window) return now;
    const uint32_t older = before == 0 ? 2 : before - 1;
    now = join(now, s->cell[(size_t)older * half + half - (s->window - s->count)]);
    s->count = s->window;
    return now;
}

static double minmax_push(void *state, const double *param, double x, const tf_features *f) {
    (void)param;
    (void)f;
    x = within(x, LIMIT);
    const range now = minmax_step(state, x);
    const double span = now.high - now.low;
    return span > FLAT ? within(((x - now.low) - (now.high - x)) / span, 1.0) : 0.0;
}

static int minmax_sound(const void *state, const double *param) {
    const minmax_state *s = state;
    if (s->window != window_of(param) || s->half != s->window / 2 || s->block > 2 || s->place > s->half) return 0;
    if (s->whole_blocks > 2 || s->count > s->window) return 0;
    if (s->place == 0 && (s->whole_blocks != 0 || s->count != 0 || s->block != 0)) return 0;
    return within_limit(&s->part.low, 4) && within_limit(&s->cell[0].low, (size_t)6 * s->half);
}

const tf_stage_type tf_stage_MINMAX = {minmax_bytes, minmax_reset, minmax_push,
                                       minmax_ready, minmax_sound, window_lookback};

/* --- difference, lag --- */

typedef struct lag_state {
    uint32_t lag;
    uint32_t place;
    uint64_t count;
    double value[]; /* lag */
} lag_state;

static size_t lag_bytes(const double *param) { return sizeof(lag_state) + window_of(param) * sizeof(double); }

static void lag_reset(void *state, const double *param) {
    lag_state *s = state;
    memset(s, 0, lag_bytes(param));
    s->lag = window_of(param);
}

static uint64_t lag_lookback(const double *param) { return (uint64_t)param[0]; }
static int lag_ready(const void *state, const double *param) {
    return ((const lag_state *)state)->count > (uint64_t)param[0];
}

/* The value `lag` pushes ago; 0 while there is none. */
static double lag_step(lag_state *s, double x) {
    const double old = s->value[s->place];
    s->value[s->place] = x;
    s->place = s->place + 1 == s->lag ? 0 : s->place + 1;
    s->count++;
    return old;
}

static double lag_push(void *state, const double *param, double x, const tf_features *f) {
    (void)param;
    (void)f;
    return lag_step(state, within(x, LIMIT));
}

static double difference_push(void *state, const double *param, double x, const tf_features *f) {
    (void)param;
    (void)f;
    lag_state *s = state;
    x = within(x, LIMIT);
    const double old = lag_step(s, x);
    return s->count > s->lag ? x - old : 0.0;
}

static int lag_sound(const void *state, const double *param) {
    const lag_state *s = state;
    return s->lag == window_of(param) && s->place < s->lag && within_limit(s->value, s->lag);
}

const tf_stage_type tf_stage_DIFFERENCE = {lag_bytes, lag_reset, difference_push, lag_ready, lag_sound, lag_lookback};
const tf_stage_type tf_stage_LAG = {lag_bytes, lag_reset, lag_push, lag_ready, lag_sound, lag_lookback};
