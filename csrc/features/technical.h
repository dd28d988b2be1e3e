/* What the files of technical indicators share. */
#ifndef TENGRI_FEATURES_TECHNICAL_H
#define TENGRI_FEATURES_TECHNICAL_H

#include <string.h>

#include "machine.h"

/* Averages below this are none: a smoothed number of a market that stands still must not crawl through denormals, and
 * prices start at 1e-18. */
#define TF_TINY 1e-300
#define TF_SANE 1e100

static inline double tf_settle(double x) { return fabs(x) < TF_TINY ? 0.0 : x; }

/* Whether a number from a file may be worked on: sums and squares of what is within stay finite. */
static inline int tf_sane(double x) { return fabs(x) <= TF_SANE; }

static inline int tf_seen(const tf_features *f, const tf_column *c, double samples) {
    return (double)tf_last(f, c->series)->count >= samples;
}

static inline double tf_close(const tf_features *f, const tf_column *c) { return tf_last(f, c->series)->close; }

static inline void tf_samples(double count, uint64_t *samples, uint64_t *nanoseconds) {
    *samples = (uint64_t)count;
    *nanoseconds = 0;
}

static inline int32_t tf_one_machine(uint32_t type, double p0, double p1, double p2, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){.type = type, .param = {p0, p1, p2, 0.0}};
    return 1;
}

/* Wilder (1978): the move from the close before counts as well. `previous` is that close. */
static inline double tf_true_range(const tf_sample *s) {
    const double high = s->high > s->previous ? s->high : s->previous;
    const double low = s->low < s->previous ? s->low : s->previous;
    return high - low;
}

static inline double tf_typical(const tf_sample *s) { return (s->high + s->low + s->close) / 3.0; }

/* Exponential average, alpha = 2 / (n + 1), which starts as the mean of the first n closes. What is kept is its
 * distance from the latest close, d' = (1 - alpha)(d - move), so that its digits are those of the moves and not those
 * of the price. */
typedef struct tf_ema {
    double distance; /* average minus close */
    double keep;     /* 1 - alpha */
    double first;    /* while the mean is made: the first close and the sum of distances from it */
    double sum;
    double period;
} tf_ema;

static inline void tf_ema_reset(tf_ema *e, double period) {
    *e = (tf_ema){.keep = (period - 1.0) / (period + 1.0), .period = period};
}

/* `count` is the number of this close among those that it sees, from 1. */
static inline void tf_ema_push(tf_ema *e, double count, double close, double previous) {
    if (count > e->period) {
        e->distance = tf_settle(e->keep * (e->distance - (close - previous)));
        return;
    }
    if (count == 1.0) {
        e->first = close;
        e->sum = 0.0;
    }
    e->sum += close - e->first;
    if (count == e->period) e->distance = e->first - close + e->sum / e->period;
}

static inline int tf_ema_sound(const tf_ema *e, double period) {
    return e->period == period && e->keep == (period - 1.0) / (period + 1.0) && tf_sane(e->distance) &&
           tf_sane(e->first) && tf_sane(e->sum);
}

#endif
