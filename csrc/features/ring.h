/* Rolling folds of the latest `length` samples without a subtraction.
 *
 * The stream is cut into blocks of `length` samples. The window is a suffix of the block before and a prefix of the
 * block in the making: the prefix is one running number, and the suffixes are laid down once, backwards, when a block
 * is full (van Herk 1992, Gil and Werman 1993; there for maxima). They take the places of the samples they are made
 * of, so the ring holds `length` entries and no more. A sample costs O(1) amortised: one step in `length` walks the
 * ring once.
 *
 * What that buys: a sum is made of additions of what is in the window and of nothing else. Nothing drifts, and a price
 * that was wrong by twelve orders of magnitude leaves no trace once it has left. A window of zeros sums to exactly 0.
 *
 * Until the first block is full the folds are those of the samples so far. All of it must be zero at the start. */
#ifndef TENGRI_FEATURES_RING_H
#define TENGRI_FEATURES_RING_H

#include "technical.h"

/* --- one sum --- */

typedef struct tf_ring_sum {
    double newer;    /* of the block in the making */
    uint32_t length;
    uint32_t at;     /* next place; the suffix of the block before starts here */
} tf_ring_sum;

static inline void ring_sum_push(tf_ring_sum *ring, double *value, double x) {
    value[ring->at] = x;
    ring->newer += x;
    if (++ring->at < ring->length) return;
    double sum = 0.0;
    for (uint32_t i = ring->length; i-- > 0;) value[i] = sum += value[i];
    ring->newer = 0.0;
    ring->at = 0;
}

static inline double ring_sum(const tf_ring_sum *ring, const double *value) { return ring->newer + value[ring->at]; }

static inline int ring_sum_sound(const tf_ring_sum *ring, const double *value, double length) {
    if ((double)ring->length != length || ring->at >= ring->length || !tf_sane(ring->newer)) return 0;
    for (uint32_t i = 0; i < ring->length; i++) {
        if (!tf_sane(value[i])) return 0;
    }
    return 1;
}

/* --- highest and lowest --- */

typedef struct tf_range {
    double high;
    double low;
} tf_range;

typedef struct tf_ring_range {
    tf_range newer; /* of the block in the making; of the whole block right after it was full */
    uint32_t length;
    uint32_t at;
} tf_ring_range;

static inline tf_range range_join(tf_range a, tf_range b) {
    return (tf_range){a.high > b.high ? a.high : b.high, a.low < b.low ? a.low : b.low};
}

static inline void ring_range_push(tf_ring_range *ring, tf_range *entry, double high, double low) {
    const tf_range x = {high, low};
    entry[ring->at] = x;
    ring->newer = ring->at == 0 ? x : range_join(ring->newer, x);
    if (++ring->at < ring->length) return;
    for (uint32_t i = ring->length - 1; i-- > 0;) entry[i] = range_join(entry[i], entry[i + 1]);
    ring->newer = entry[0];
    ring->at = 0;
}

/* Only when `length` samples have come. */
static inline tf_range ring_range(const tf_ring_range *ring, const tf_range *entry) {
    return range_join(ring->newer, entry[ring->at]);
}

static inline int ring_range_sound(const tf_ring_range *ring, const tf_range *entry, double length) {
    if ((double)ring->length != length || ring->at >= ring->length) return 0;
    if (!tf_sane(ring->newer.high) || !tf_sane(ring->newer.low)) return 0;
    for (uint32_t i = 0; i < ring->length; i++) {
        if (!tf_sane(entry[i].high) || !tf_sane(entry[i].low)) return 0;
    }
    return 1;
}

#endif
