/* What machines of several instruments share: pairing the own samples with the mids of legs.
 *
 * A sample is paired when every leg it needs has been seen and, with max_age > 0, is no older than that; else it
 * is skipped as if it had not been, and the next return spans the gap on both sides. The leg's mid is the latest
 * at the time of the sample, so nothing that happened later is ever paired. */
#ifndef TENGRI_FEATURES_CROSS_H
#define TENGRI_FEATURES_CROSS_H

#include <math.h>

#include "machine.h"

#define TF_LOG_LIMIT 100.0 /* |log| of a ratio of two prices in [1e-18, 1e18] is below 83 */

static inline uint32_t cross_legs(uint32_t mask) { return (uint32_t)__builtin_popcount(mask); }

/* `mids` gets the mids of the legs in rising order. 0 when the sample cannot be paired. */
static inline int cross_mids(const tf_features *f, uint32_t mask, uint64_t max_age, double *mids) {
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        const tf_leg *leg = tf_leg_of(f, (uint32_t)__builtin_ctz(rest));
        if (leg->count == 0 || (max_age > 0 && f->clock - leg->time > max_age)) return 0;
        *mids++ = leg->mid;
    }
    return 1;
}

/* Own price and those of the legs at the last paired sample. */
typedef struct cross_prices {
    uint32_t mask;
    uint32_t count; /* of prices: 1 + legs */
    uint64_t max_age;
    uint64_t paired; /* samples */
    double price[1 + TF_MAX_LEGS];
} cross_prices;

static inline void cross_reset(cross_prices *c, double mask, double max_age) {
    *c = (cross_prices){.mask = (uint32_t)mask, .max_age = (uint64_t)max_age};
    c->count = 1 + cross_legs(c->mask);
}

/* Pairs a sample; `now` gets own price and the legs'. 0 when it cannot be paired. */
static inline int cross_pair(const cross_prices *c, const tf_features *f, const tf_sample *s, double *now) {
    now[0] = s->close;
    return cross_mids(f, c->mask, c->max_age, now + 1);
}

/* Log returns since the last paired sample, own first. 0 when there are none: not paired, or the first. */
static inline int cross_returns(cross_prices *c, const tf_features *f, const tf_sample *s, double *out) {
    double now[1 + TF_MAX_LEGS];
    if (!cross_pair(c, f, s, now)) return 0;
    const int first = c->paired++ == 0;
    for (uint32_t i = 0; i < c->count; i++) {
        if (!first) out[i] = now[i] == c->price[i] ? 0.0 : tf_log_ratio(now[i], c->price[i]);
        c->price[i] = now[i];
    }
    return !first;
}

static inline int cross_sound(const cross_prices *c, double mask, double max_age) {
    if ((double)c->mask != mask || (double)c->max_age != max_age || c->count != 1 + cross_legs(c->mask)) return 0;
    for (uint32_t i = 0; i < c->count; i++) {
        const double x = c->price[i];
        if (c->paired > 0 ? !(x >= TF_VALUE_MIN && x <= TF_VALUE_MAX) : x != 0.0) return 0;
    }
    return 1;
}

static inline double cross_mask(double leg) { return (double)(UINT32_C(1) << (uint32_t)leg); }

static inline void cross_lookback(double samples, uint64_t *out, uint64_t *nanoseconds) {
    *out = (uint64_t)samples;
    *nanoseconds = 0;
}

#endif
