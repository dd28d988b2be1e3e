/* A rolling window over (key, value...) entries in a ring of fixed capacity.
 *
 * The key is a time in ns or a running count of events; entries with now - key >= span leave. Sums must not drift: a
 * sum is kept in two doubles (Knuth's TwoSum, error about 1e-32 of the largest value per step), and beside it grows a
 * second sum of only those entries pushed after a mark. When the last entry older than the mark leaves, the second sum
 * *is* the window's sum, made of additions only; it takes the first one's place and a new mark is set. So whatever
 * rounding the subtractions left behind lives for at most one turn of the window; each push and each pop is O(1).
 *
 * Overflow: pushing into a full ring drops the oldest entry, so the window holds the latest `capacity` entries; the
 * caller counts it. */
#ifndef TENGRI_FEATURES_WINDOW_H
#define TENGRI_FEATURES_WINDOW_H

#include <stddef.h>
#include <stdint.h>

#define TF_WINDOW_VALUES 2

typedef struct tf_dd {
    double high;
    double low;
} tf_dd;

typedef struct tf_entry {
    uint64_t key;
    double value[TF_WINDOW_VALUES];
} tf_entry;

typedef struct tf_window {
    uint64_t span;
    uint32_t capacity;
    uint32_t by_event; /* keys count events instead of nanoseconds */
    uint32_t tail;     /* oldest entry */
    uint32_t count;
    uint32_t unmarked; /* entries still in the window that are older than the mark */
    uint32_t seen;     /* 1 once an entry has left */
    double left;       /* value[0] of the entry that left last */
    tf_dd sum[TF_WINDOW_VALUES];
    tf_dd fresh[TF_WINDOW_VALUES];
    tf_entry entry[]; /* capacity */
} tf_window;

static inline size_t window_bytes(uint32_t capacity) { return sizeof(tf_window) + (size_t)capacity * sizeof(tf_entry); }

static inline void dd_add(tf_dd *sum, double x) {
    const double total = sum->high + x;
    const double shift = total - sum->high;
    sum->low += (sum->high - (total - shift)) + (x - shift);
    sum->high = total;
}

static inline double dd_value(const tf_dd *sum) { return sum->high + sum->low; }

static inline void window_clear(tf_window *window) {
    window->tail = 0;
    window->count = 0;
    window->unmarked = 0;
    for (int i = 0; i < TF_WINDOW_VALUES; i++) {
        window->sum[i] = (tf_dd){0.0, 0.0};
        window->fresh[i] = (tf_dd){0.0, 0.0};
    }
}

static inline void window_reset(tf_window *window) {
    window_clear(window);
    window->seen = 0;
    window->left = 0.0;
}

/* `sums` is a compile-time constant: how many of the values are summed. */
static inline void window_pop(tf_window *window, int sums) {
    const tf_entry *oldest = &window->entry[window->tail];
    window->left = oldest->value[0];
    window->seen = 1;
    for (int i = 0; i < sums; i++) dd_add(&window->sum[i], -oldest->value[i]);
    window->tail = window->tail + 1 == window->capacity ? 0 : window->tail + 1;
    window->count--;
    if (sums == 0) return;
    if (window->unmarked > 0) window->unmarked--;
    if (window->unmarked == 0) {
        for (int i = 0; i < sums; i++) {
            window->sum[i] = window->fresh[i];
            window->fresh[i] = (tf_dd){0.0, 0.0};
        }
        window->unmarked = window->count;
    }
}

static inline void window_expire(tf_window *window, uint64_t now, int sums) {
    if (window->count == 0 || now - window->entry[window->tail].key < window->span) return;
    const uint32_t end = window->tail + window->count - 1;
    const tf_entry *newest = &window->entry[end >= window->capacity ? end - window->capacity : end];
    if (now - newest->key >= window->span) { /* after a gap everything leaves at once, without walking the ring */
        window->left = newest->value[0];
        window->seen = 1;
        window_clear(window);
        return;
    }
    do window_pop(window, sums);
    while (now - window->entry[window->tail].key >= window->span);
}

/* Returns 1 if an entry had to leave early. Call window_expire first. */
static inline int window_push(tf_window *window, uint64_t key, double first, double second, int sums) {
    const int full = window->count == window->capacity;
    if (full) window_pop(window, sums);
    const uint32_t end = window->tail + window->count;
    tf_entry *entry = &window->entry[end >= window->capacity ? end - window->capacity : end];
    entry->key = key;
    entry->value[0] = first;
    entry->value[1] = second;
    if (sums > 0) {
        if (window->count == 0) { /* nothing to carry over: start exactly */
            window_clear(window);
            entry = &window->entry[0];
            entry->key = key;
            entry->value[0] = first;
            entry->value[1] = second;
        }
        dd_add(&window->sum[0], first);
        if (sums > 1) dd_add(&window->sum[1], second);
        if (window->count > 0) {
            dd_add(&window->fresh[0], first);
            if (sums > 1) dd_add(&window->fresh[1], second);
        } else {
            window->unmarked = 1;
        }
    }
    window->count++;
    return full;
}

#endif
