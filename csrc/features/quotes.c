/* The best quotes: how old they are, how often they change, how their sizes move, how wide they stand for their past.
 *
 *   intensity       Hawkes (1971), exponential kernel: every change adds one, halved each half-life
 *   queue flow      Cont, Kukanov and Stoikov (2014): the contribution e_n of a book event, kept apart by side
 *   spread average  exponentially weighted mean and variance (West 1979; by time the spread counts as long as it stood)
 *   spread ranks    a histogram of the window's spreads in eighths of an octave; the rank of the latest is read off
 *                   exactly up to that width. The edges lie a millionth below 2^k (1 + j/8): a spread of one tick has
 *                   rounding of the prices' size in it and must not fall on either side of one. */
#include "rolling.h"

#include <string.h>

static int book_ready(const tf_features *f, const tf_column *c) {
    (void)c;
    return f->book_events >= 1;
}

static void one_event(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    (void)param;
    *samples = 1;
    *nanoseconds = 0;
}

static void half_life_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    *samples = 1;
    *nanoseconds = (uint64_t)param[0];
}

static inline int prices_changed(const tf_features *f) {
    return f->book.bid != f->before.bid || f->book.ask != f->before.ask;
}

static inline int quotes_changed(const tf_features *f) {
    return prices_changed(f) || f->book.bid_size != f->before.bid_size || f->book.ask_size != f->before.ask_size;
}

/* --- age --- */

typedef struct quote_clock {
    uint64_t prices; /* time of the last change of a best price */
    uint64_t quotes; /* or of its size */
} quote_clock;

static size_t clock_bytes(const double *param) {
    (void)param;
    return sizeof(quote_clock);
}

static void clock_reset(void *state, const double *param) {
    (void)param;
    *(quote_clock *)state = (quote_clock){0, 0};
}

static void clock_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    quote_clock *s = state;
    const int first = f->book_events <= 1;
    if (first || prices_changed(f)) s->prices = f->clock;
    if (first || quotes_changed(f)) s->quotes = f->clock;
}

static int clock_sound(const void *state, const double *param) {
    (void)state, (void)param; /* any two times will do */
    return 1;
}

const tf_machine_type tf_machine_QUOTE_CLOCK = {.name = "quote_clock",
                                                .feed = TF_FEED_BOOK,
                                                .bytes = clock_bytes,
                                                .reset = clock_reset,
                                                .update = clock_update,
                                                .sound = clock_sound};

static int32_t age_machines(const double *param, tf_machine_ref *out) {
    (void)param;
    out[0] = (tf_machine_ref){TF_MACHINE_QUOTE_CLOCK, {0}};
    return 1;
}

static double age_value(const tf_features *f, const tf_column *c) {
    const quote_clock *s = tf_state(f, c, 0);
    return tf_log1p(tf_seconds(f->clock, c->spec.param[0] != 0.0 ? s->quotes : s->prices));
}

const tf_feature_impl tf_feature_QUOTE_AGE = {TF_FEED_BOOK, NULL, age_machines, one_event, book_ready, age_value};

/* --- intensity of changes --- */

typedef struct pulse_state {
    double value;
    double rate; /* ln 2 / half-life, per ns */
    uint64_t time;
} pulse_state;

static size_t pulse_bytes(const double *param) {
    (void)param;
    return sizeof(pulse_state);
}

static void pulse_reset(void *state, const double *param) {
    *(pulse_state *)state = (pulse_state){0.0, TF_LN2 / param[0], 0};
}

static void pulse_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    pulse_state *s = state;
    if (f->book_events > 1 && !quotes_changed(f)) return;
    s->value = s->value * tf_decay(f->clock, s->time, s->rate) + 1.0;
    s->time = f->clock;
}

static int pulse_sound(const void *state, const double *param) {
    const pulse_state *s = state;
    return isfinite(s->value) && s->rate == TF_LN2 / param[0];
}

const tf_machine_type tf_machine_QUOTE_INTENSITY = {.name = "quote_intensity",
                                                    .feed = TF_FEED_BOOK,
                                                    .bytes = pulse_bytes,
                                                    .reset = pulse_reset,
                                                    .update = pulse_update,
                                                    .sound = pulse_sound};

static int32_t pulse_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_QUOTE_INTENSITY, {param[0]}};
    return 1;
}

static int pulse_ready(const tf_features *f, const tf_column *c) {
    return f->book_events >= 1 && tf_elapsed(f, (uint64_t)c->spec.param[0]);
}

static double pulse_value(const tf_features *f, const tf_column *c) {
    const pulse_state *s = tf_state(f, c, 0);
    return s->value * tf_decay(f->clock, s->time, s->rate) * s->rate * TF_NS_PER_SECOND;
}

const tf_feature_impl tf_feature_QUOTE_INTENSITY = {TF_FEED_BOOK,       NULL,        pulse_machines,
                                                    half_life_lookback, pulse_ready, pulse_value};

/* --- flow of the best queues --- */

enum { FLOW_BID, FLOW_ASK, FLOW_TURNOVER, FLOW_SIZE, FLOW_VALUES };

static size_t flow_bytes(const double *param) { return rolling_bytes(FLOW_VALUES, param[0], param[1]); }

static void flow_reset(void *state, const double *param) { rolling_reset(state, FLOW_VALUES, param[0], param[1]); }

static void flow_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    tf_rolling *w = state;
    if (f->book_events < 2) return;
    const tf_top *now = &f->book, *old = &f->before;
    double bid = 0.0, ask = 0.0;
    if (now->bid >= old->bid) bid += now->bid_size;
    if (now->bid <= old->bid) bid -= old->bid_size;
    if (now->ask <= old->ask) ask += now->ask_size;
    if (now->ask >= old->ask) ask -= old->ask_size;
    const double value[FLOW_VALUES] = {bid, ask, fabs(bid) + fabs(ask), 0.5 * (now->bid_size + now->ask_size)};
    f->counters.overflow += rolling_push(w, FLOW_VALUES, w->by_event ? f->book_events : f->clock, value);
}

static void flow_expire(void *state, uint64_t clock) { rolling_age(state, FLOW_VALUES, clock); }

static int flow_sound(const void *state, const double *param) {
    return rolling_sound(state, FLOW_VALUES, param[0], param[1]);
}

const tf_machine_type tf_machine_QUEUE_FLOW = {"queue_flow", TF_FEED_BOOK, flow_bytes, flow_reset,
                                               flow_update,  flow_expire,  flow_sound};

static int32_t flow_machines_at(int capacity, const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_QUEUE_FLOW, {param[0], rolling_places(param[0], param[capacity])}};
    return 1;
}

static int32_t flow_ratio_machines(const double *param, tf_machine_ref *out) { return flow_machines_at(1, param, out); }
static int32_t queue_flow_machines(const double *param, tf_machine_ref *out) { return flow_machines_at(2, param, out); }

static void flow_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    rolling_lookback(param[0], 1, samples, nanoseconds);
}

static int flow_ready(const tf_features *f, const tf_column *c) {
    return rolling_ready(f, c->spec.param[0], f->book_events, 1);
}

static double flow_ratio_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = tf_state(f, c, 0);
    const double turnover = rolling_sum(w, FLOW_VALUES, FLOW_TURNOVER);
    if (!(turnover > 0.0)) return 0.0;
    const double ratio = (rolling_sum(w, FLOW_VALUES, FLOW_BID) - rolling_sum(w, FLOW_VALUES, FLOW_ASK)) / turnover;
    return fmax(-1.0, fmin(1.0, ratio));
}

static double queue_flow_value(const tf_features *f, const tf_column *c) {
    const tf_rolling *w = tf_state(f, c, 0);
    const double size = rolling_sum(w, FLOW_VALUES, FLOW_SIZE);
    return size > 0.0 ? rolling_sum(w, FLOW_VALUES, c->spec.param[1] < 0.0 ? FLOW_ASK : FLOW_BID) / (size / w->count)
                      : 0.0;
}

static int side_check(const double *param) { return param[1] != 0.0; }

const tf_feature_impl tf_feature_ORDER_FLOW_RATIO = {TF_FEED_BOOK,  NULL,       flow_ratio_machines,
                                                     flow_lookback, flow_ready, flow_ratio_value};
const tf_feature_impl tf_feature_QUEUE_FLOW = {TF_FEED_BOOK,  side_check, queue_flow_machines,
                                               flow_lookback, flow_ready, queue_flow_value};

/* --- the spread against its average --- */

typedef struct average_state {
    double mean;
    double variance;
    double rate; /* weight of an event, or ln 2 / half-life per ns */
    uint64_t time;
    uint64_t seen; /* book events */
    uint32_t by_event;
    uint32_t started;
} average_state;

static size_t average_bytes(const double *param) {
    (void)param;
    return sizeof(average_state);
}

static double average_rate(const double *param) { return param[0] < 0.0 ? 2.0 / (1.0 - param[0]) : TF_LN2 / param[0]; }

static void average_reset(void *state, const double *param) {
    *(average_state *)state = (average_state){.rate = average_rate(param), .by_event = param[0] < 0.0};
}

/* The spread before this event enters: the one that is judged is never part of what it is judged by. */
static void average_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    average_state *s = state;
    s->seen++;
    if (s->seen == 1) {
        s->time = f->clock;
        return;
    }
    const double x = f->before.ask - f->before.bid;
    if (!s->started) {
        s->started = 1;
        s->mean = x;
    } else {
        const double weight =
            s->by_event ? s->rate : tf_decayed(tf_seconds(f->clock, s->time) * TF_NS_PER_SECOND * s->rate);
        const double difference = x - s->mean, step = weight * difference;
        s->mean += step;
        s->variance = (1.0 - weight) * (s->variance + difference * step);
        if (s->variance < 1e-200) s->variance = 0.0; /* never crawl through denormals */
    }
    s->time = f->clock;
}

static int average_sound(const void *state, const double *param) {
    const average_state *s = state;
    return isfinite(s->mean) && isfinite(s->variance) && s->rate == average_rate(param) && s->started <= 1 &&
           s->by_event == (uint32_t)(param[0] < 0.0);
}

const tf_machine_type tf_machine_SPREAD_AVERAGE = {.name = "spread_average",
                                                   .feed = TF_FEED_BOOK,
                                                   .bytes = average_bytes,
                                                   .reset = average_reset,
                                                   .update = average_update,
                                                   .sound = average_sound};

static int32_t average_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_SPREAD_AVERAGE, {param[0]}};
    return 1;
}

static double average_value(const tf_features *f, const tf_column *c) {
    const average_state *s = tf_state(f, c, 0);
    const double deviation = sqrt(s->variance);
    return deviation > 1e-6 * s->mean ? ((f->book.ask - f->book.bid) - s->mean) / deviation : 0.0;
}

const tf_feature_impl tf_feature_SPREAD_ZSCORE = {TF_FEED_BOOK,  NULL,       average_machines,
                                                  flow_lookback, flow_ready, average_value};

/* --- the spread among those of a window --- */

#define RANK_OCTAVES 124 /* spreads of 2^-62 to 2^62; smaller and larger ones fall into the end bins */
#define RANK_BINS (8 * RANK_OCTAVES + 1)

typedef struct rank_entry {
    uint64_t key;
    uint64_t bin;
} rank_entry;

typedef struct rank_state {
    uint64_t span;
    uint32_t by_event;
    uint32_t capacity;
    uint32_t tail;
    uint32_t count;
    uint32_t bin; /* of the latest spread */
    uint32_t below; /* entries in lower bins */
    uint32_t entries[RANK_BINS];
    uint32_t reserved;
    rank_entry entry[];
} rank_state;

static uint32_t spread_bin(double spread) {
    const double shifted = spread * (1.0 + 1e-6);
    if (!(shifted >= 0x1p-62)) return 0; /* bin 0: locked */
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    const uint64_t eighth = (bits >> 49) - ((UINT64_C(1023) - 62) << 3) + 1;
    return eighth < RANK_BINS ? (uint32_t)eighth : RANK_BINS - 1;
}

static size_t rank_bytes(const double *param) {
    return sizeof(rank_state) + (size_t)rolling_capacity(param[0], param[1]) * sizeof(rank_entry);
}

static void rank_clear(rank_state *s) {
    s->tail = s->count = s->below = 0;
    memset(s->entries, 0, sizeof s->entries);
}

static void rank_reset(void *state, const double *param) {
    rank_state *s = state;
    s->span = (uint64_t)fabs(param[0]);
    s->by_event = param[0] < 0.0;
    s->capacity = rolling_capacity(param[0], param[1]);
    s->bin = 0;
    s->reserved = 0;
    rank_clear(s);
}

static void rank_pop(rank_state *s) {
    const uint32_t bin = (uint32_t)s->entry[s->tail].bin;
    s->entries[bin]--;
    if (bin < s->bin) s->below--;
    s->tail = s->tail + 1 == s->capacity ? 0 : s->tail + 1;
    s->count--;
}

static void rank_leave(rank_state *s, uint64_t now) {
    if (s->count == 0 || now - s->entry[s->tail].key < s->span) return;
    const uint32_t end = s->tail + s->count - 1;
    if (now - s->entry[end >= s->capacity ? end - s->capacity : end].key >= s->span) {
        rank_clear(s);
        return;
    }
    do rank_pop(s);
    while (now - s->entry[s->tail].key >= s->span);
}

static void rank_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    rank_state *s = state;
    const uint64_t key = s->by_event ? f->book_events : f->clock;
    rank_leave(s, key);
    if (s->count == s->capacity) {
        rank_pop(s);
        f->counters.overflow++;
    }
    const uint32_t bin = spread_bin(f->book.ask - f->book.bid);
    for (; s->bin < bin; s->bin++) s->below += s->entries[s->bin]; /* at most the bins, mostly a few */
    for (; s->bin > bin; s->bin--) s->below -= s->entries[s->bin - 1];
    const uint32_t end = s->tail + s->count;
    s->entry[end >= s->capacity ? end - s->capacity : end] = (rank_entry){key, bin};
    s->entries[bin]++;
    s->count++;
}

static void rank_expire(void *state, uint64_t clock) {
    rank_state *s = state;
    if (!s->by_event) rank_leave(s, clock);
}

static int rank_sound(const void *state, const double *param) {
    const rank_state *s = state;
    if (s->capacity != rolling_capacity(param[0], param[1]) || s->span != (uint64_t)fabs(param[0])) return 0;
    if (s->by_event != (uint32_t)(param[0] < 0.0) || s->tail >= s->capacity || s->count > s->capacity) return 0;
    if (s->bin >= RANK_BINS || s->below > s->count) return 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const uint32_t at = s->tail + i;
        if (s->entry[at >= s->capacity ? at - s->capacity : at].bin >= RANK_BINS) return 0;
    }
    return 1;
}

const tf_machine_type tf_machine_SPREAD_RANKS = {"spread_ranks", TF_FEED_BOOK, rank_bytes, rank_reset,
                                                 rank_update,    rank_expire,  rank_sound};

static int32_t rank_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_SPREAD_RANKS, {param[0], rolling_places(param[0], param[1])}};
    return 1;
}

static int32_t regime_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_SPREAD_RANKS, {param[0], rolling_places(param[0], param[3])}};
    return 1;
}

static void rank_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    rolling_lookback(param[0], 0, samples, nanoseconds);
}

static int rank_ready(const tf_features *f, const tf_column *c) {
    return rolling_ready(f, c->spec.param[0], f->book_events, 0);
}

static double rank_value(const tf_features *f, const tf_column *c) {
    const rank_state *s = tf_state(f, c, 0);
    if (s->count == 0) return 0.5;
    return (s->below + 0.5 * s->entries[s->bin]) / s->count;
}

static double regime_value(const tf_features *f, const tf_column *c) {
    const double rank = rank_value(f, c);
    return rank < c->spec.param[1] ? -1.0 : rank > c->spec.param[2] ? 1.0 : 0.0;
}

static int regime_check(const double *param) { return param[1] < param[2]; }

const tf_feature_impl tf_feature_SPREAD_RANK = {TF_FEED_BOOK,  NULL,       rank_machines,
                                                rank_lookback, rank_ready, rank_value};
const tf_feature_impl tf_feature_SPREAD_REGIME = {TF_FEED_BOOK,  regime_check, regime_machines,
                                                  rank_lookback, rank_ready,   regime_value};
