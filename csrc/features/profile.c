/* Volume profile: what was traded at which price over a rolling window (Steidlmayer's market profile, by volume).
 *
 * The histogram covers `bins` prices, each a multiple of the width. A trade outside, or the first into an empty one,
 * moves it so that this trade is in its middle; bins that no longer fit leave with their trades for good (counted as
 * overflow), those that come in are empty. Trades of the window stand in a ring with the number of their bin and its
 * age in lives: a trade whose bin has been given up since has left already and is not taken out twice. A bin without
 * a trade is exactly 0: rounding leaves nothing behind.
 *
 * Point of control: the bin of the largest volume, the lowest of equals. Value area: from there the larger neighbour is
 * added, both when they are equal, until 70 % of the volume are inside; empty bins at its ends do not count to it.
 *
 * Cost of a trade: O(bins) at worst (moving, a new maximum, the walk over the value area), no step over the ring. */
#include "machine.h"
#include "window.h"

#include <string.h>

#define VALUE_AREA 0.7
#define FARTHEST 0x1p53 /* numbers of bins; farther prices fall into the end bins */

typedef struct profile_bin {
    tf_dd volume;
    uint32_t trades;
    uint32_t life;
} profile_bin;

typedef struct profile_entry {
    uint64_t key;
    int64_t number;
    double size;
    uint64_t life;
} profile_entry;

typedef struct profile_state {
    uint64_t span;
    uint32_t by_event;
    uint32_t capacity;
    uint32_t tail;
    uint32_t count;
    uint32_t bins;
    uint32_t lowest;  /* place of the lowest bin, whose number is */
    int64_t base;
    uint64_t trades;  /* in the histogram */
    double width;     /* 0: not known before the first trade */
    tf_dd total;
    int64_t control;  /* numbers; they stand only while there are trades */
    int64_t area_low;
    int64_t area_high;
} profile_state;

/* After the state: double volume[bins], for the scans; profile_bin bin[bins]; profile_entry entry[capacity]. */
static double *volumes(const profile_state *s) { return (double *)(uintptr_t)(s + 1); }
static profile_bin *bin_array(const profile_state *s) { return (profile_bin *)(uintptr_t)(volumes(s) + s->bins); }
static profile_entry *entries(const profile_state *s) { return (profile_entry *)(uintptr_t)(bin_array(s) + s->bins); }

static uint32_t profile_capacity(const double *param) { return (uint32_t)(param[0] < 0.0 ? -param[0] : param[3]); }

static size_t profile_bytes(const double *param) {
    const size_t bins = (size_t)param[2];
    return sizeof(profile_state) + bins * (sizeof(double) + sizeof(profile_bin)) +
           profile_capacity(param) * sizeof(profile_entry);
}

static void profile_clear(profile_state *s) {
    s->tail = s->count = 0;
    s->trades = 0;
    s->total = (tf_dd){0.0, 0.0};
    memset(volumes(s), 0, s->bins * sizeof(double));
    memset(bin_array(s), 0, s->bins * sizeof(profile_bin));
}

static void profile_reset(void *state, const double *param) {
    profile_state *s = state;
    *s = (profile_state){.span = (uint64_t)fabs(param[0]),
                         .by_event = param[0] < 0.0,
                         .capacity = profile_capacity(param),
                         .bins = (uint32_t)param[2],
                         .width = param[1]};
    profile_clear(s);
}

static int64_t number_of(const profile_state *s, double price) {
    return (int64_t)fmax(-FARTHEST, fmin(FARTHEST, floor(price / s->width + 0.5)));
}

static int inside(const profile_state *s, int64_t number) {
    return number >= s->base && number < s->base + (int64_t)s->bins;
}

static uint32_t place_of(const profile_state *s, int64_t number) {
    const uint32_t place = s->lowest + (uint32_t)(number - s->base);
    return place >= s->bins ? place - s->bins : place;
}

static void settle(profile_state *s, uint32_t place) {
    profile_bin *bin = &bin_array(s)[place];
    if (bin->trades == 0) bin->volume = (tf_dd){0.0, 0.0};
    volumes(s)[place] = fmax(0.0, dd_value(&bin->volume));
    if (s->trades == 0) s->total = (tf_dd){0.0, 0.0};
}

/* Gives a bin up; says how many trades left with it. */
static uint64_t give_up(profile_state *s, uint32_t place) {
    profile_bin *bin = &bin_array(s)[place];
    const uint64_t lost = bin->trades;
    dd_add(&s->total, -bin->volume.high);
    dd_add(&s->total, -bin->volume.low);
    s->trades -= lost < s->trades ? lost : s->trades;
    bin->trades = 0;
    bin->life++;
    settle(s, place);
    return lost;
}

static uint64_t centre_on(profile_state *s, int64_t number) {
    const int64_t bins = s->bins, base = number - bins / 2, shift = base - s->base;
    uint64_t lost = 0;
    if (shift >= bins || shift <= -bins) {
        for (uint32_t place = 0; place < s->bins; place++) lost += give_up(s, place);
        s->base = base;
        s->lowest =
            (uint32_t)(((int64_t)s->lowest + shift % bins + bins) % bins); /* a number keeps its place for life */
        return lost;
    }
    for (; s->base < base; s->base++) {
        lost += give_up(s, s->lowest);
        s->lowest = s->lowest + 1 == s->bins ? 0 : s->lowest + 1;
    }
    for (; s->base > base; s->base--) {
        s->lowest = s->lowest == 0 ? s->bins - 1 : s->lowest - 1;
        lost += give_up(s, s->lowest);
    }
    return lost;
}

/* What became of the histogram. */
enum { SAME = 0, CHANGED = 1, CONTROL_LOST = 2 }; /* the last: the point of control must be looked for again */

static int take_out(profile_state *s) {
    const profile_entry *oldest = &entries(s)[s->tail];
    s->tail = s->tail + 1 == s->capacity ? 0 : s->tail + 1;
    s->count--;
    if (!inside(s, oldest->number)) return SAME;
    const uint32_t place = place_of(s, oldest->number);
    profile_bin *bin = &bin_array(s)[place];
    if (bin->life != oldest->life || bin->trades == 0) return SAME;
    dd_add(&bin->volume, -oldest->size);
    dd_add(&s->total, -oldest->size);
    bin->trades--;
    if (s->trades > 0) s->trades--;
    settle(s, place);
    return oldest->number == s->control ? CHANGED | CONTROL_LOST : CHANGED;
}

static int64_t largest(const profile_state *s) {
    const double *volume = volumes(s);
    uint32_t best = s->lowest;
    for (uint32_t place = s->lowest; place < s->bins; place++) {
        if (volume[place] > volume[best]) best = place;
    }
    for (uint32_t place = 0; place < s->lowest; place++) {
        if (volume[place] > volume[best]) best = place;
    }
    return s->base + (int64_t)(best >= s->lowest ? best - s->lowest : best + s->bins - s->lowest);
}

static double volume_at(const profile_state *s, int64_t number) {
    return inside(s, number) ? volumes(s)[place_of(s, number)] : -1.0; /* less than an empty one */
}

static void find_area(profile_state *s) {
    if (s->trades == 0) return;
    const double wanted =
        VALUE_AREA * (1.0 - 1e-12) * dd_value(&s->total); /* sums that are equal but for rounding are equal */
    int64_t low = s->control, high = s->control;
    double held = volume_at(s, s->control), below = volume_at(s, low - 1), above = volume_at(s, high + 1);
    while (held < wanted && (below >= 0.0 || above >= 0.0)) {
        const int up = above >= below, down = below >= above;
        if (up) {
            held += above;
            above = volume_at(s, ++high + 1);
        }
        if (down) {
            held += below;
            below = volume_at(s, --low - 1);
        }
    }
    while (low < s->control && volume_at(s, low) == 0.0) low++;
    while (high > s->control && volume_at(s, high) == 0.0) high--;
    s->area_low = low;
    s->area_high = high;
}

/* Lets old trades leave. */
static int leave(profile_state *s, uint64_t now) {
    if (s->count == 0 || now - entries(s)[s->tail].key < s->span) return SAME;
    const uint32_t end = s->tail + s->count - 1;
    if (now - entries(s)[end >= s->capacity ? end - s->capacity : end].key >= s->span) {
        profile_clear(s); /* after a gap, without walking the ring */
        return CHANGED | CONTROL_LOST;
    }
    int changed = SAME;
    do changed |= take_out(s);
    while (now - entries(s)[s->tail].key >= s->span);
    return changed;
}

static void profile_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    profile_state *s = state;
    const double price = f->trade.price, size = f->trade.size;
    if (s->width == 0.0) s->width = price * 1e-4;
    const uint64_t key = s->by_event ? f->trade_events : f->clock;
    int changed = leave(s, key);
    if (s->count == s->capacity) {
        changed |= take_out(s);
        f->counters.overflow++;
    }
    const int64_t number = number_of(s, price);
    if (s->trades == 0 || !inside(s, number)) {
        f->counters.overflow += centre_on(s, number);
        changed |= CONTROL_LOST;
    }
    const uint32_t place = place_of(s, number), end = s->tail + s->count;
    profile_bin *bin = &bin_array(s)[place];
    entries(s)[end >= s->capacity ? end - s->capacity : end] = (profile_entry){key, number, size, bin->life};
    s->count++;
    dd_add(&bin->volume, size);
    dd_add(&s->total, size);
    bin->trades++;
    s->trades++;
    settle(s, place);
    if (changed & CONTROL_LOST) {
        s->control = largest(s);
    } else {
        const double volume = volumes(s)[place], most = volume_at(s, s->control);
        if (volume > most || (volume == most && number < s->control)) s->control = number;
    }
    find_area(s);
}

static void profile_expire(void *state, uint64_t clock) {
    profile_state *s = state;
    const int changed = s->by_event ? SAME : leave(s, clock);
    if (changed & CONTROL_LOST) s->control = largest(s);
    if (changed != SAME) find_area(s);
}

static int profile_sound(const void *state, const double *param) {
    const profile_state *s = state;
    if (s->span != (uint64_t)fabs(param[0]) || s->by_event != (uint32_t)(param[0] < 0.0)) return 0;
    if (s->capacity != profile_capacity(param) || s->bins != (uint32_t)param[2]) return 0;
    if (s->tail >= s->capacity || s->count > s->capacity || s->lowest >= s->bins) return 0;
    if (s->base > (int64_t)0x1p54 || s->base < -(int64_t)0x1p54) return 0;
    if (!isfinite(s->width) || s->width < 0.0 || (param[1] > 0.0 && s->width != param[1])) return 0;
    if (s->width == 0.0 && s->count > 0) return 0;
    if (!isfinite(s->total.high) || !isfinite(s->total.low)) return 0;
    if (s->trades > 0 && (!inside(s, s->control) || !inside(s, s->area_low) || !inside(s, s->area_high))) return 0;
    for (uint32_t i = 0; i < s->bins; i++) {
        const profile_bin *bin = &bin_array(s)[i];
        if (!isfinite(volumes(s)[i]) || !isfinite(bin->volume.high) || !isfinite(bin->volume.low)) return 0;
    }
    for (uint32_t i = 0; i < s->count; i++) {
        const uint32_t at = s->tail + i;
        if (!isfinite(entries(s)[at >= s->capacity ? at - s->capacity : at].size)) return 0;
    }
    return 1;
}

const tf_machine_type tf_machine_PROFILE = {"profile",      TF_FEED_TRADE,  profile_bytes, profile_reset,
                                            profile_update, profile_expire, profile_sound};

static int32_t profile_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_PROFILE, {param[0], param[1], param[2], param[0] < 0.0 ? 0.0 : param[3]}};
    return 1;
}

static void profile_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    *samples = param[0] < 0.0 ? (uint64_t)-param[0] : 1;
    *nanoseconds = param[0] < 0.0 ? 0 : (uint64_t)param[0];
}

static int profile_ready(const tf_features *f, const tf_column *c) {
    const double window = c->spec.param[0];
    if (window < 0.0) return f->trade_events >= (uint64_t)-window;
    return f->trade_events >= 1 && tf_elapsed(f, (uint64_t)window);
}

/* The price that distances are taken from: the mid, or the last trade while there is no book. */
static double here(const tf_features *f) { return f->book_events > 0 ? f->book.mid : f->trade.price; }

static double distance(const tf_features *f, const profile_state *s, int64_t number) {
    const double price = here(f);
    return s->trades > 0 ? TF_BPS * (((double)number * s->width - price) / price) : 0.0;
}

static double control_value(const tf_features *f, const tf_column *c) {
    const profile_state *s = tf_state(f, c, 0);
    return distance(f, s, s->control);
}

static double area_high_value(const tf_features *f, const tf_column *c) {
    const profile_state *s = tf_state(f, c, 0);
    return distance(f, s, s->area_high);
}

static double area_low_value(const tf_features *f, const tf_column *c) {
    const profile_state *s = tf_state(f, c, 0);
    return distance(f, s, s->area_low);
}

static double in_area_value(const tf_features *f, const tf_column *c) {
    const profile_state *s = tf_state(f, c, 0);
    if (s->trades == 0) return 0.0;
    const int64_t number = number_of(s, here(f));
    return number >= s->area_low && number <= s->area_high ? 1.0 : 0.0;
}

static double share_value(const tf_features *f, const tf_column *c) {
    const profile_state *s = tf_state(f, c, 0);
    const double total = dd_value(&s->total);
    if (s->trades == 0 || !(total > 0.0)) return 0.0;
    return fmin(1.0, fmax(0.0, volume_at(s, number_of(s, here(f))) / total));
}

const tf_feature_impl tf_feature_POINT_OF_CONTROL = {TF_FEED_TRADE,    NULL,          profile_machines,
                                                     profile_lookback, profile_ready, control_value};
const tf_feature_impl tf_feature_VALUE_AREA_HIGH = {TF_FEED_TRADE,    NULL,          profile_machines,
                                                    profile_lookback, profile_ready, area_high_value};
const tf_feature_impl tf_feature_VALUE_AREA_LOW = {TF_FEED_TRADE,    NULL,          profile_machines,
                                                   profile_lookback, profile_ready, area_low_value};
const tf_feature_impl tf_feature_IN_VALUE_AREA = {TF_FEED_TRADE,    NULL,          profile_machines,
                                                  profile_lookback, profile_ready, in_area_value};
const tf_feature_impl tf_feature_PROFILE_SHARE = {TF_FEED_TRADE,    NULL,          profile_machines,
                                                  profile_lookback, profile_ready, share_value};
