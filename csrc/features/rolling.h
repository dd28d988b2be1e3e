/* A rolling window over entries of several values: window.h (whose header says how a sum is kept from drifting and what
 * an overflow is) for any number of values, which is a compile-time constant V at every call. Every value is summed.
 *
 * Error of a sum: about 1e-31 of the largest it has been since the turn before, so a window must have held entries
 * 1e20 times larger than what is left in it before the tenth digit suffers; one turn later that is gone. A sum below
 * 1e-26 of that largest is such a rest and reads as 0: nothing divides by what an empty sum has left behind. */
#ifndef TENGRI_FEATURES_ROLLING_H
#define TENGRI_FEATURES_ROLLING_H

#include "machine.h"
#include "window.h"

#define ROLLING_REST 1e-26

typedef union tf_cell {
    uint64_t key;
    double x;
} tf_cell;

typedef struct tf_rolling {
    uint64_t span;
    uint32_t capacity;
    uint32_t by_event; /* keys count events instead of nanoseconds */
    uint32_t tail; /* oldest entry */
    uint32_t count;
    uint32_t unmarked; /* entries still in the window that are older than the mark */
    uint32_t values;
    tf_dd
        sum[]; /* V sums, V fresh sums, V pairs of their largest sizes, then `capacity` entries of a key and V values */
} tf_rolling;

/* What a window and a capacity parameter ask for: a count of events needs exactly that many places. */
static inline uint32_t rolling_capacity(double window, double capacity) {
    return (uint32_t)(window < 0.0 ? -window : capacity);
}

static inline size_t rolling_bytes(int V, double window, double capacity) {
    return sizeof(tf_rolling) + 3 * (size_t)V * sizeof(tf_dd) +
           (size_t)rolling_capacity(window, capacity) * (size_t)(V + 1) * sizeof(tf_cell);
}

/* Columns whose windows count events share a machine whatever capacity they name: it is not used. */
static inline double rolling_places(double window, double capacity) { return window < 0.0 ? 0.0 : capacity; }

static inline double rolling_sum(const tf_rolling *w, int V, int i) {
    const double sum = dd_value(&w->sum[i]);
    return fabs(sum) > ROLLING_REST * w->sum[2 * V + i].high ? sum : 0.0;
}

static inline tf_cell *rolling_entry(const tf_rolling *w, int V, uint32_t at) {
    return (tf_cell *)(uintptr_t)(w->sum + 3 * V) + (size_t)at * (size_t)(V + 1);
}

static inline void rolling_clear(tf_rolling *w, int V) {
    w->tail = 0;
    w->count = 0;
    w->unmarked = 0;
    for (int i = 0; i < 3 * V; i++) w->sum[i] = (tf_dd){0.0, 0.0};
}

static inline void rolling_reset(tf_rolling *w, int V, double window, double capacity) {
    w->by_event = window < 0.0;
    w->span = (uint64_t)fabs(window);
    w->capacity = rolling_capacity(window, capacity);
    w->values = (uint32_t)V;
    rolling_clear(w, V);
}

static inline void rolling_pop(tf_rolling *w, int V) {
    const tf_cell *oldest = rolling_entry(w, V, w->tail);
    for (int i = 0; i < V; i++) dd_add(&w->sum[i], -oldest[1 + i].x);
    w->tail = w->tail + 1 == w->capacity ? 0 : w->tail + 1;
    w->count--;
    if (w->unmarked > 0) w->unmarked--;
    if (w->unmarked == 0) {
        for (int i = 0; i < V; i++) {
            w->sum[i] = w->sum[V + i];
            w->sum[V + i] = (tf_dd){0.0, 0.0};
            w->sum[2 * V + i] = (tf_dd){w->sum[2 * V + i].low, 0.0};
        }
        w->unmarked = w->count;
    }
}

static inline void rolling_expire(tf_rolling *w, int V, uint64_t now) {
    if (w->count == 0 || now - rolling_entry(w, V, w->tail)->key < w->span) return;
    const uint32_t end = w->tail + w->count - 1;
    const tf_cell *newest = rolling_entry(w, V, end >= w->capacity ? end - w->capacity : end);
    if (now - newest->key >= w->span) { /* after a gap everything leaves at once, without walking the ring */
        rolling_clear(w, V);
        return;
    }
    do rolling_pop(w, V);
    while (now - rolling_entry(w, V, w->tail)->key >= w->span);
}

/* For the machine's `expire`, which is called for windows of either kind. */
static inline void rolling_age(tf_rolling *w, int V, uint64_t clock) {
    if (!w->by_event) rolling_expire(w, V, clock);
}

static inline void rolling_peak(double *peak, double sum) {
    const double size = fabs(sum);
    *peak = size > *peak ? size : *peak;
}

/* Lets old entries leave and takes a new one in. Returns 1 if an entry had to leave early. */
static inline uint64_t rolling_push(tf_rolling *w, int V, uint64_t key, const double *value) {
    rolling_expire(w, V, key);
    const int full = w->count == w->capacity;
    if (full) rolling_pop(w, V);
    if (w->count == 0) rolling_clear(w, V); /* nothing to carry over: start exactly */
    const uint32_t end = w->tail + w->count;
    tf_cell *entry = rolling_entry(w, V, end >= w->capacity ? end - w->capacity : end);
    entry[0].key = key;
    for (int i = 0; i < V; i++) {
        entry[1 + i].x = value[i];
        dd_add(&w->sum[i], value[i]);
        rolling_peak(&w->sum[2 * V + i].high, w->sum[i].high);
    }
    if (w->count > 0) {
        for (int i = 0; i < V; i++) {
            dd_add(&w->sum[V + i], value[i]);
            rolling_peak(&w->sum[2 * V + i].low, w->sum[V + i].high);
        }
    } else {
        w->unmarked = 1;
    }
    w->count++;
    return (uint64_t)full;
}

static inline int rolling_sound(const tf_rolling *w, int V, double window, double capacity) {
    if (w->capacity != rolling_capacity(window, capacity) || w->span != (uint64_t)fabs(window)) return 0;
    if (w->by_event != (uint32_t)(window < 0.0) || w->values != (uint32_t)V) return 0;
    if (w->tail >= w->capacity || w->count > w->capacity || w->unmarked > w->count) return 0;
    for (int i = 0; i < 3 * V; i++) {
        if (!isfinite(w->sum[i].high) || !isfinite(w->sum[i].low)) return 0;
    }
    for (uint32_t i = 0; i < w->count; i++) {
        const uint32_t at = w->tail + i;
        const tf_cell *entry = rolling_entry(w, V, at >= w->capacity ? at - w->capacity : at);
        for (int k = 1; k <= V; k++) {
            if (!isfinite(entry[k].x)) return 0;
        }
    }
    return 1;
}

/* Lookback of a window over events of one feed: `more` events beyond a count of them, or beside a time. */
static inline void rolling_lookback(double window, uint64_t more, uint64_t *samples, uint64_t *nanoseconds) {
    *samples = window < 0.0 ? (uint64_t)-window + more : 1 + more;
    *nanoseconds = window < 0.0 ? 0 : (uint64_t)window;
}

static inline int rolling_ready(const tf_features *f, double window, uint64_t seen, uint64_t more) {
    if (window < 0.0) return seen >= (uint64_t)-window + more;
    return seen >= 1 + more && tf_elapsed(f, (uint64_t)window);
}

#endif
