/* From specs to one block of memory: header, columns, machines, lists of calls, clocks, and the states behind them.
 *
 * Everything is deterministic in the specs, so the unchanging part of two states of one plan is equal to the byte,
 * and a state read from a file is checked against a fresh one. */
#include "plan.h"

#include <string.h>

#define TF_FEATURE_MAX_WIDTH 1024
#define TF_FEATURE_MAGIC UINT64_C(0x3254414546464e54)
#define ALIGNMENT ((uint64_t)64)
#define NUMBER_FLOOR 1e-12
#define VOLUME_LIMIT 1e18

#define TF_FEATURE(ID, name, unit, needs, p0, p1, p2, p3, lookback, rule, source, text) KIND_##ID,
#define TF_STAGE(ID, name, p0, p1, lookback, rule, source, text)
enum feature_kind {
#include "features.def"
    KIND_COUNT
};
#undef TF_FEATURE
#undef TF_STAGE

#define TF_P(name, type, initial, low, high) {name, type, initial, low, high}
#define TF_P0 {NULL, TF_PARAM_NONE, 0.0, 0.0, 0.0}
#define TF_FEATURE(ID, name, unit, needs, p0, p1, p2, p3, lookback, rule, source, text)                                \
    {#name, unit, needs, {p0, p1, p2, p3}, lookback, rule, source, text},
static const tf_feature_info TABLE[KIND_COUNT] = {
#include "features.def"
};
#undef TF_FEATURE

#define TF_FEATURE(ID, name, unit, needs, p0, p1, p2, p3, lookback, rule, source, text) &tf_feature_##ID,
const uint32_t tf_kinds = KIND_COUNT;
const tf_feature_impl *const tf_impls[KIND_COUNT] = {
#include "features.def"
};
#undef TF_FEATURE

#define TF_MACHINE(ID) &tf_machine_##ID,
const tf_machine_type *const tf_types[TF_MACHINE_COUNT] = {
#include "machines.def"
};
#undef TF_MACHINE

#define TF_STAGE(ID, name, p0, p1, lookback, rule, source, text) STAGE_##ID,
enum stage_kind {
#include "stages.def"
    STAGE_COUNT
};
#undef TF_STAGE
#define TF_STAGE(ID, name, p0, p1, lookback, rule, source, text) {#name, {p0, p1}, lookback, rule, source, text},
static const tf_stage_info STAGE_TABLE[STAGE_COUNT] = {
#include "stages.def"
};
#undef TF_STAGE
#define TF_STAGE(ID, name, p0, p1, lookback, rule, source, text) &tf_stage_##ID,
const tf_stage_type *const tf_stages[STAGE_COUNT] = {
#include "stages.def"
};
#undef TF_STAGE

/* --- tables --- */

int32_t tf_feature_kinds(void) { return KIND_COUNT; }

const tf_feature_info *tf_feature_describe(int32_t kind) {
    return kind >= 0 && kind < KIND_COUNT ? &TABLE[kind] : NULL;
}

int32_t tf_stage_kinds(void) { return STAGE_COUNT; }

const tf_stage_info *tf_stage_describe(int32_t kind) {
    return kind >= 0 && kind < STAGE_COUNT ? &STAGE_TABLE[kind] : NULL;
}

/* --- parameters --- */

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
    case TF_PARAM_LEG: return value == floor(value) && value >= 0.0 && value < TF_MAX_LEGS;
    case TF_PARAM_LEGS: return value == floor(value) && value >= 1.0 && value < 4294967296.0;
    case TF_PARAM_SOURCE: return value == floor(value) && value >= 0.0 && value < TF_MAX_SOURCES;
    }
    return 0;
}

static int clock_fits(const tf_clock *clock) {
    if (!isfinite(clock->size) || clock->trades > 1) return 0;
    const double size = clock->size;
    switch (clock->kind) {
    case TF_CLOCK_EVENT:
    case TF_CLOCK_BARS: return size == 0.0 && clock->trades == 0;
    case TF_CLOCK_TIME: return size == floor(size) && size >= 1e6 && size <= TF_MAX_NS;
    case TF_CLOCK_TICKS: return size == floor(size) && size >= 1.0 && size <= TF_MAX_EVENTS;
    case TF_CLOCK_VOLUME:
    case TF_CLOCK_NOTIONAL: return clock->trades == 1 && size >= NUMBER_FLOOR && size <= VOLUME_LIMIT;
    case TF_CLOCK_IMBALANCE: return clock->trades == 1 && size == floor(size) && size >= 2.0 && size <= TF_MAX_EVENTS;
    default: return 0;
    }
}

static tf_status check_spec(const tf_feature_spec *spec) {
    const tf_feature_impl *impl = tf_impl(spec->kind);
    if (impl == NULL) return TF_ERR_ARGUMENT;
    for (int i = 0; i < TF_FEATURE_PARAMS; i++) {
        if (spec->kind < KIND_COUNT ? !parameter_fits(&TABLE[spec->kind].param[i], spec->param[i])
                                    : !isfinite(spec->param[i]))
            return TF_ERR_ARGUMENT;
    }
    if (!clock_fits(&spec->clock) || spec->stages > TF_FEATURE_STAGES) return TF_ERR_ARGUMENT;
    for (uint32_t i = 0; i < TF_FEATURE_STAGES; i++) {
        const tf_stage *stage = &spec->stage[i];
        if (i >= spec->stages) {
            if (stage->kind != 0 || stage->param[0] != 0.0 || stage->param[1] != 0.0) return TF_ERR_ARGUMENT;
            continue;
        }
        if (stage->kind >= STAGE_COUNT || stage->reserved != 0) return TF_ERR_ARGUMENT;
        for (int k = 0; k < 2; k++) {
            if (!parameter_fits(&STAGE_TABLE[stage->kind].param[k], stage->param[k])) return TF_ERR_ARGUMENT;
        }
    }
    if (!isfinite(spec->mean) || !isfinite(spec->scale) || !isfinite(spec->clip)) return TF_ERR_NONFINITE;
    if (spec->scale <= 0.0 || spec->clip < 0.0) return TF_ERR_ARGUMENT;
    return impl->check == NULL || impl->check(spec->param) ? TF_OK : TF_ERR_ARGUMENT;
}

static int same_clock(const tf_clock *a, const tf_clock *b) {
    return a->kind == b->kind && a->trades == b->trades && a->size == b->size;
}

/* A column that holds its value between beats: one with stages, or one of ticks on a clock of bars. */
static int holds(const tf_feature_spec *spec) {
    if (spec->stages > 0) return 1;
    if (spec->clock.kind == TF_CLOCK_EVENT) return 0;
    return spec->kind < KIND_COUNT && tf_impl(spec->kind)->beat != TF_FEED_SAMPLE;
}

tf_status tf_feature_lookback(const tf_feature_spec *spec, uint64_t *events, uint64_t *nanoseconds) {
    if (spec == NULL || events == NULL || nanoseconds == NULL) return TF_ERR_ARGUMENT;
    const tf_status status = check_spec(spec);
    if (status != TF_OK) return status;
    if (spec->kind < KIND_COUNT) tf_impl(spec->kind)->lookback(spec->param, events, nanoseconds);
    else tf_user_lookback(spec->kind, events, nanoseconds);
    for (uint32_t i = 0; i < spec->stages; i++)
        *events += tf_stages[spec->stage[i].kind]->lookback(spec->stage[i].param);
    return TF_OK;
}

/* --- machines of a column --- */

typedef struct wish {
    uint32_t type;
    tf_clock clock;
    double param[TF_FEATURE_PARAMS];
} wish;

static int32_t wishes_of(const tf_feature_spec *spec, wish *out) {
    tf_machine_ref refs[TF_COLUMN_MACHINES];
    memset(refs, 0, sizeof refs);
    int32_t count = 0;
    if (spec->kind >= KIND_COUNT) {
        refs[0].type = spec->kind;
        memcpy(refs[0].param, spec->param, sizeof refs[0].param);
        count = 1;
    } else if (tf_impls[spec->kind]->machines != NULL) {
        count = tf_impls[spec->kind]->machines(spec->param, refs);
    }
    for (int32_t i = 0; i < count; i++) {
        memset(&out[i], 0, sizeof out[i]);
        out[i].type = refs[i].type;
        memcpy(out[i].param, refs[i].param, sizeof out[i].param);
        /* Ticks come on one clock only, so machines of ticks are shared between clocks. */
        const int by_sample = refs[i].type >= TF_MACHINE_COUNT ? 1 : tf_types[refs[i].type]->feed == TF_FEED_SAMPLE;
        if (by_sample) out[i].clock = spec->clock;
    }
    return count;
}

static int same_param(const double *a, const double *b) {
    for (int i = 0; i < TF_FEATURE_PARAMS; i++) {
        if (a[i] != b[i]) return 0;
    }
    return 1;
}

static int same_wish(const wish *a, const wish *b) {
    return a->type == b->type && same_clock(&a->clock, &b->clock) && same_param(a->param, b->param);
}

static uint64_t round_up(uint64_t bytes) { return (bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1); }

static uint64_t machine_bytes(const wish *w) {
    if (w->type >= TF_MACHINE_COUNT) return round_up(tf_user_bytes(w->type));
    return round_up(tf_types[w->type]->bytes(w->param));
}

static int expires(uint32_t type) { return type < TF_MACHINE_COUNT && tf_types[type]->expire != NULL; }

static uint64_t stage_bytes(const tf_stage *stage) { return round_up(tf_stages[stage->kind]->bytes(stage->param)); }

/* Feed of a machine on its clock. */
static uint32_t feed_of(const wish *w) {
    if (w->type >= TF_MACHINE_COUNT) return tf_user_feed(w->type, w->clock.kind == TF_CLOCK_EVENT);
    return tf_types[w->type]->feed;
}

static uint32_t beat_of(const tf_feature_spec *spec) {
    if (spec->kind < KIND_COUNT) return tf_impls[spec->kind]->beat;
    return tf_user_feed(spec->kind, spec->clock.kind == TF_CLOCK_EVENT);
}

/* Whether an earlier column (or an earlier machine of this one) already has this machine. */
static int seen_before(const tf_feature_spec *specs, int32_t column, const wish *mine, int32_t before) {
    wish other[TF_COLUMN_MACHINES];
    for (int32_t i = 0; i <= column; i++) {
        int32_t count = wishes_of(&specs[i], other);
        if (i == column && before < count) count = before;
        for (int32_t k = 0; k < count; k++) {
            if (same_wish(mine, &other[k])) return 1;
        }
    }
    return 0;
}

typedef struct tally {
    uint32_t machines;
    uint32_t expiring;
    uint32_t helds;
    uint32_t series;
    uint32_t legs;
    uint32_t sources;
    uint64_t state; /* bytes of machines, stages and held values */
} tally;

static void count_outside(const tf_feature_spec *spec, tally *t) {
    if (spec->kind >= KIND_COUNT) return;
    for (int i = 0; i < TF_FEATURE_PARAMS; i++) {
        const tf_param_type type = TABLE[spec->kind].param[i].type;
        uint32_t *const most = type == TF_PARAM_SOURCE ? &t->sources : &t->legs;
        uint32_t needed = 0;
        if (type == TF_PARAM_LEG || type == TF_PARAM_SOURCE) needed = (uint32_t)spec->param[i] + 1;
        if (type == TF_PARAM_LEGS) {
            for (uint32_t legs = (uint32_t)spec->param[i]; legs != 0; legs >>= 1) needed++;
        }
        if (needed > *most) *most = needed;
    }
}

static tf_status count_up(const tf_feature_spec *specs, int32_t count, tally *t) {
    memset(t, 0, sizeof *t);
    t->series = 1;
    wish mine[TF_COLUMN_MACHINES];
    for (int32_t i = 0; i < count; i++) {
        const tf_status status = check_spec(&specs[i]);
        if (status != TF_OK) return status;
        if (specs[i].clock.kind != TF_CLOCK_EVENT) {
            int known = 0;
            for (int32_t k = 0; k < i && !known; k++) known = same_clock(&specs[k].clock, &specs[i].clock);
            if (!known && ++t->series > TF_MAX_SERIES) return TF_ERR_SHAPE;
        }
        count_outside(&specs[i], t);
        if (holds(&specs[i])) {
            t->helds++;
            t->state += round_up(sizeof(tf_held));
        }
        for (uint32_t k = 0; k < specs[i].stages; k++) t->state += stage_bytes(&specs[i].stage[k]);
        const int32_t machines = wishes_of(&specs[i], mine);
        for (int32_t k = 0; k < machines; k++) {
            if (seen_before(specs, i, &mine[k], k)) continue;
            t->machines++;
            t->expiring += expires(mine[k].type) ? 1u : 0u;
            t->state += machine_bytes(&mine[k]);
        }
    }
    return TF_OK;
}

typedef struct layout {
    tally t;
    uint64_t columns, machines, calls, helds, series, plan_end, bars, legs, sources, waiting, latched, state, bytes;
} layout;

static tf_status lay_out(const tf_feature_spec *specs, int32_t count, layout *l) {
    if (specs == NULL) return TF_ERR_ARGUMENT;
    if (count < 1 || count > TF_FEATURE_MAX_WIDTH) return TF_ERR_SHAPE;
    const tf_status status = count_up(specs, count, &l->t);
    if (status != TF_OK) return status;
    const tally *t = &l->t;
    l->columns = round_up(sizeof(tf_features));
    l->machines = l->columns + round_up((uint64_t)count * sizeof(tf_column));
    l->calls = l->machines + round_up(t->machines * sizeof(tf_machine));
    l->helds = l->calls + round_up((t->machines + t->expiring) * sizeof(uint32_t));
    l->series = l->helds + round_up(t->helds * sizeof(uint32_t));
    l->plan_end = l->series + round_up(t->series * sizeof(tf_series));
    l->bars = l->plan_end;
    l->legs = l->bars + round_up(t->series * sizeof(tf_bar_state));
    l->sources = l->legs + round_up(t->legs * sizeof(tf_leg));
    l->waiting = l->sources + round_up(t->sources * sizeof(tf_observation));
    l->latched = l->waiting + round_up((uint64_t)count * sizeof(uint32_t));
    l->state = l->latched + round_up((uint64_t)count);
    l->bytes = l->state + t->state;
    return TF_OK;
}

tf_status tf_features_size(const tf_feature_spec *specs, int32_t count, size_t *bytes) {
    layout l;
    if (bytes == NULL) return TF_ERR_ARGUMENT;
    const tf_status status = lay_out(specs, count, &l);
    if (status == TF_OK) *bytes = l.bytes;
    return status;
}

/* --- building --- */

static uint32_t series_of(tf_features *f, const tf_clock *clock) {
    tf_series *series = tf_at(f, f->series_at);
    for (uint32_t i = 0; i < f->series; i++) {
        if (same_clock(&series[i].clock, clock)) return i;
    }
    series[f->series].clock = *clock;
    return f->series++;
}

static uint64_t machine_of(tf_features *f, const wish *w, uint64_t *next) {
    tf_machine *machines = tf_at(f, f->machines_at);
    const uint32_t series = series_of(f, &w->clock);
    for (uint32_t i = 0; i < f->machines; i++) {
        if (machines[i].type == w->type && machines[i].series == series && same_param(machines[i].param, w->param))
            return machines[i].offset;
    }
    tf_machine *made = &machines[f->machines++];
    made->type = w->type;
    made->series = series;
    memcpy(made->param, w->param, sizeof made->param);
    made->offset = *next;
    made->bytes = machine_bytes(w);
    *next += made->bytes;
    return made->offset;
}

static uint32_t machine_feed(const tf_features *f, const tf_machine *m) {
    wish w;
    memset(&w, 0, sizeof w);
    w.type = m->type;
    w.clock = ((const tf_series *)tf_at(f, f->series_at))[m->series].clock;
    return feed_of(&w);
}

static void list_calls(tf_features *f) {
    const tf_machine *machines = tf_at(f, f->machines_at);
    tf_series *series = tf_at(f, f->series_at);
    uint32_t *calls = tf_at(f, f->calls_at), at = 0;
    for (uint32_t s = 0; s < f->series; s++) {
        series[s].first_call = at;
        for (uint32_t i = 0; i < f->machines; i++) {
            if (machines[i].series == s && machine_feed(f, &machines[i]) == TF_FEED_SAMPLE) calls[at++] = i;
        }
        series[s].calls = at - series[s].first_call;
    }
    for (uint32_t feed = TF_FEED_BOOK; feed < TF_FEEDS; feed++) {
        f->feed_call[feed] = at;
        for (uint32_t i = 0; i < f->machines; i++) {
            if (machine_feed(f, &machines[i]) == feed) calls[at++] = i;
        }
        f->feed_calls[feed] = at - f->feed_call[feed];
    }
    f->expire_call = at;
    for (uint32_t i = 0; i < f->machines; i++) {
        if (expires(machines[i].type)) calls[at++] = i;
    }
    f->expire_calls = at - f->expire_call;
}

static void list_helds(tf_features *f) {
    const tf_column *columns = tf_at(f, f->columns_at);
    tf_series *series = tf_at(f, f->series_at);
    uint32_t *helds = tf_at(f, f->helds_at), at = 0;
    const uint32_t width = (uint32_t)f->width;
    for (uint32_t s = 0; s < f->series; s++) {
        series[s].first_held = at;
        for (uint32_t i = 0; i < width; i++) {
            if (columns[i].held == 0 || columns[i].series != s) continue;
            if (s > 0 || beat_of(&columns[i].spec) == TF_FEED_SAMPLE) helds[at++] = i;
        }
        series[s].helds = at - series[s].first_held;
    }
    for (uint32_t feed = TF_FEED_BOOK; feed < TF_FEEDS; feed++) {
        f->feed_held[feed] = at;
        for (uint32_t i = 0; i < width; i++) {
            if (columns[i].held != 0 && columns[i].series == 0 && beat_of(&columns[i].spec) == feed) helds[at++] = i;
        }
        f->feed_helds[feed] = at - f->feed_held[feed];
    }
}

tf_status tf_features_init(void *memory, size_t bytes, const tf_feature_spec *specs, int32_t count, tf_features **out) {
    layout l;
    const tf_status status = lay_out(specs, count, &l);
    if (status != TF_OK) return status;
    if (memory == NULL || out == NULL || (uintptr_t)memory % ALIGNMENT != 0) return TF_ERR_ARGUMENT;
    if (bytes < l.bytes) return TF_ERR_MEMORY;
    memset(memory, 0, l.bytes);
    tf_features *f = memory;
    f->magic = TF_FEATURE_MAGIC;
    f->version = TF_FEATURE_ENGINE_VERSION;
    f->width = count;
    f->bytes = l.bytes;
    f->plan_end = l.plan_end;
    f->columns_at = l.columns;
    f->machines_at = l.machines;
    f->calls_at = l.calls;
    f->helds_at = l.helds;
    f->series_at = l.series;
    f->bars_at = l.bars;
    f->legs_at = l.legs;
    f->sources_at = l.sources;
    f->waiting_at = l.waiting;
    f->latched_at = l.latched;
    f->legs = l.t.legs;
    f->sources = l.t.sources;
    f->series = 1; /* the event clock, all zeros */
    uint64_t next = l.state;
    tf_column *columns = tf_at(f, f->columns_at);
    for (int32_t i = 0; i < count; i++) {
        tf_column *c = &columns[i];
        wish mine[TF_COLUMN_MACHINES];
        c->spec = specs[i];
        c->series = series_of(f, &specs[i].clock);
        c->machines = (uint32_t)wishes_of(&specs[i], mine);
        for (uint32_t k = 0; k < c->machines; k++) c->machine[k] = machine_of(f, &mine[k], &next);
        for (uint32_t k = 0; k < specs[i].stages; k++) {
            c->stage[k] = next;
            next += stage_bytes(&specs[i].stage[k]);
        }
        if (holds(&specs[i])) {
            c->held = next;
            next += round_up(sizeof(tf_held));
        }
    }
    list_calls(f);
    list_helds(f);
    tf_features_reset(f);
    *out = f;
    return TF_OK;
}

void tf_features_reset(tf_features *f) {
    memset((char *)f + offsetof(tf_features, counters), 0, sizeof(tf_features) - offsetof(tf_features, counters));
    memset(tf_at(f, f->plan_end), 0, f->bytes - f->plan_end);
    const tf_machine *machines = tf_at(f, f->machines_at);
    for (uint32_t i = 0; i < f->machines; i++) {
        if (machines[i].type >= TF_MACHINE_COUNT) continue; /* zeros */
        tf_types[machines[i].type]->reset(tf_at(f, machines[i].offset), machines[i].param);
    }
    const tf_column *columns = tf_at(f, f->columns_at);
    for (int32_t i = 0; i < f->width; i++) {
        for (uint32_t k = 0; k < columns[i].spec.stages; k++) {
            const tf_stage *stage = &columns[i].spec.stage[k];
            tf_stages[stage->kind]->reset(tf_at(f, columns[i].stage[k]), stage->param);
        }
    }
    tf_series_reset(f);
    uint32_t *waiting = tf_at(f, f->waiting_at);
    for (uint32_t i = 0; i < (uint32_t)f->width; i++) waiting[i] = i;
    f->waiting = (uint32_t)f->width;
}

/* A column is latched or waits, never both, and a latched one is really ready: its value is read unasked. */
static int readiness_sound(const tf_features *f) {
    const tf_column *columns = tf_at(f, f->columns_at);
    const uint32_t *waiting = tf_at(f, f->waiting_at);
    const unsigned char *latched = tf_at(f, f->latched_at);
    uint32_t ready = 0;
    if (f->waiting > (uint32_t)f->width || f->all_ready != (f->waiting == 0)) return 0;
    for (int32_t i = 0; i < f->width; i++) {
        if (latched[i] > 1) return 0;
        ready += latched[i];
        if (!latched[i]) continue;
        const tf_column *c = &columns[i];
        if (c->held != 0 ? !((const tf_held *)tf_at(f, c->held))->ready : !tf_impl(c->spec.kind)->ready(f, c)) return 0;
    }
    for (uint32_t i = 0; i < f->waiting; i++) {
        if (waiting[i] >= (uint32_t)f->width || latched[waiting[i]] || (i > 0 && waiting[i] <= waiting[i - 1]))
            return 0;
    }
    return ready + f->waiting == (uint32_t)f->width;
}

/* --- bytes from outside --- */

static int all_finite(const double *x, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(x[i])) return 0;
    }
    return 1;
}

static int price_sound(double x) { return x >= TF_VALUE_MIN && x <= TF_VALUE_MAX; }

/* Ratios of prices are taken, so a book that was seen has prices like those that are let in. */
static int top_sound(double bid, double ask, double mid) {
    return price_sound(bid) && price_sound(ask) && price_sound(mid);
}

static int header_sound(const tf_features *f) {
    if (f->book_events > 0 && !top_sound(f->book.bid, f->book.ask, f->book.mid)) return 0;
    if (f->book_events > 1 && !top_sound(f->before.bid, f->before.ask, f->before.mid)) return 0;
    if (!all_finite(&f->book.bid, 5) || !all_finite(&f->before.bid, 5) || !isfinite(f->move_sign)) return 0;
    if (!isfinite(f->trade.price) || !isfinite(f->trade.size) || f->trade.aggressor < -1 || f->trade.aggressor > 1)
        return 0;
    if (!all_finite(f->depth.bid_price, 4 * TF_DEPTH_LEVELS) || f->depth.levels > TF_DEPTH_LEVELS) return 0;
    if (!all_finite(f->depth_before.bid_price, 4 * TF_DEPTH_LEVELS) || f->depth_before.levels > TF_DEPTH_LEVELS)
        return 0;
    if (f->external.slot >= (f->sources > 0 ? f->sources : 1)) return 0;
    if (f->clock < f->first) return 0;
    for (uint32_t i = 0; i < f->legs; i++) {
        const tf_leg *leg = tf_leg_of(f, i);
        if (leg->count > 0 && !top_sound(leg->bid, leg->ask, leg->mid)) return 0;
        if (!isfinite(leg->bid) || !isfinite(leg->ask) || !isfinite(leg->mid)) return 0;
    }
    for (uint32_t i = 0; i < f->sources; i++) {
        const tf_observation *o = tf_observation_of(f, i);
        if (o->count > 0 && !isfinite(o->value[0])) return 0;
        for (int k = 1; k < TF_EXTERNAL_VALUES; k++) {
            if (isinf(o->value[k])) return 0; /* NaN: there is none */
        }
    }
    return tf_series_sound(f);
}

tf_status tf_features_check(const tf_features *like, const void *memory, size_t bytes) {
    if (like == NULL || memory == NULL || (uintptr_t)memory % ALIGNMENT != 0) return TF_ERR_ARGUMENT;
    if (bytes != like->bytes) return TF_ERR_SHAPE;
    const tf_features *f = memory;
    if (memcmp(f, like, offsetof(tf_features, counters)) != 0) return TF_ERR_FORMAT;
    const size_t head = round_up(sizeof(tf_features));
    if (memcmp((const char *)memory + head, (const char *)like + head, like->plan_end - head) != 0)
        return TF_ERR_FORMAT;
    if (!header_sound(f)) return TF_ERR_FORMAT;
    const tf_machine *machines = tf_at(f, f->machines_at);
    for (uint32_t i = 0; i < f->machines; i++) {
        if (machines[i].type >= TF_MACHINE_COUNT) continue; /* any number is a state of the user's */
        if (!tf_types[machines[i].type]->sound(tf_at(f, machines[i].offset), machines[i].param)) return TF_ERR_FORMAT;
    }
    const tf_column *columns = tf_at(f, f->columns_at);
    for (int32_t i = 0; i < f->width; i++) {
        const tf_feature_spec *spec = &columns[i].spec;
        for (uint32_t k = 0; k < spec->stages; k++) {
            if (!tf_stages[spec->stage[k].kind]->sound(tf_at(f, columns[i].stage[k]), spec->stage[k].param))
                return TF_ERR_FORMAT;
        }
        if (columns[i].held != 0 && !isfinite(((const tf_held *)tf_at(f, columns[i].held))->value))
            return TF_ERR_FORMAT;
    }
    return readiness_sound(f) ? TF_OK : TF_ERR_FORMAT;
}

/* --- telling --- */

int32_t tf_features_width(const tf_features *f) { return f->width; }
size_t tf_features_bytes(const tf_features *f) { return f->bytes; }
int32_t tf_features_machines(const tf_features *f) { return (int32_t)f->machines; }

int tf_features_machine(const tf_features *f, int32_t index, tf_machine_info *out) {
    if (index < 0 || (uint32_t)index >= f->machines) return 0;
    const tf_machine *m = (const tf_machine *)tf_at(f, f->machines_at) + index;
    const tf_column *columns = tf_at(f, f->columns_at);
    memset(out, 0, sizeof *out);
    out->name = m->type >= TF_MACHINE_COUNT ? tf_user_name(m->type) : tf_types[m->type]->name;
    out->clock = ((const tf_series *)tf_at(f, f->series_at))[m->series].clock;
    memcpy(out->param, m->param, sizeof out->param);
    out->bytes = m->bytes;
    for (int32_t i = 0; i < f->width; i++) {
        for (uint32_t k = 0; k < columns[i].machines; k++) out->columns += columns[i].machine[k] == m->offset;
    }
    return 1;
}
