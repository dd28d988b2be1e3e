/* Mean, variance and covariance of the last `window` values, each push O(1) in the worst case, with nothing ever
 * subtracted.
 *
 * Sums that lose what leaves the window keep the rounding of everything that was ever in it: after one price of
 * 1e12 the variance of prices around 1 is noise. Here the stream is cut into blocks of half a window. A window is
 * a suffix of the block before last, the whole block before, and the values so far of the present one (van Herk
 * 1992, Gil and Werman 1993). While a block fills, the suffixes of the block before are made, one a push, from its
 * end; they are read one block later. What is combined is count, mean and co-moments (Chan, Golub, LeVeque 1983,
 * eq. 2.1), which only adds; so the error is a few roundings of what the window holds now, and a flat window has a
 * variance of exactly 0.
 *
 * Means are kept relative to a value of their own block (its first; its last for suffixes): at 65,000 +- 0.01 no
 * digits are lost to the level. With `logs` values are prices, and what is averaged are their logs, taken relative
 * to those references in the same way. Values must lie in [-1e150, 1e150]. `dims` (1 or 2) and `logs` are
 * compile-time constants. */
#ifndef TENGRI_FEATURES_MOMENTS_H
#define TENGRI_FEATURES_MOMENTS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "machine.h"

#define TF_MOMENTS_LIMIT 1e150
#define TF_MOMENTS_SECOND 1e307 /* no sum of squares is larger: (4e150)^2 times a quarter of 2^20 */

typedef struct tf_moment {
    double mean[2];   /* relative to a reference kept elsewhere */
    double square[2]; /* sums of squares and products around the mean */
    double product;
} tf_moment;

typedef struct tf_moments {
    uint32_t window;
    uint32_t half;
    uint32_t block;        /* which third of the cells is being filled */
    uint32_t place;        /* values in it */
    uint32_t whole_blocks; /* before it; counts to 2 */
    uint32_t count;        /* values in the window */
    double hedge;           /* logs: what is kept in the second dimension is log b - hedge log a */
    double first[2];        /* value of the present block */
    double before_last[2];  /* value of the block before: its suffixes are relative to it */
    double before_shift[2]; /* first value of the block before, relative to `first` */
    double older_shift[2];  /* last value of the block before that, relative to `first` */
    double newest[2];       /* last value, relative to `first` */
    tf_moment part;   /* of the present block */
    tf_moment before; /* of the block before */
    tf_moment now;    /* of the window, relative to `first` */
    double cell[];    /* 3 x half cells: first the values, then moments of suffixes; of 2 or 5 doubles */
} tf_moments;

static inline uint32_t moments_stride(int dims) { return dims == 1 ? 2 : 5; }

static inline size_t moments_bytes(uint32_t window, int dims) {
    return sizeof(tf_moments) + (size_t)3 * (window / 2) * moments_stride(dims) * sizeof(double);
}

/* `window` is at least 2. */
static inline void moments_reset(tf_moments *m, uint32_t window, int dims) {
    memset(m, 0, moments_bytes(window, dims));
    m->window = window;
    m->half = window / 2;
}

static inline double *moments_cell(tf_moments *m, uint32_t block, uint32_t place, int dims) {
    return m->cell + ((size_t)block * m->half + place) * moments_stride(dims);
}

/* One more value, given relative to the reference; it is number 1 / inverse. */
static inline void moment_add(tf_moment *m, const double *value, double inverse, int dims) {
    double d[2] = {0.0, 0.0};
    for (int i = 0; i < dims; i++) {
        d[i] = value[i] - m->mean[i];
        m->mean[i] += d[i] * inverse;
        m->square[i] += d[i] * d[i] * (1.0 - inverse);
    }
    if (dims == 2) m->product += d[0] * d[1] * (1.0 - inverse);
}

/* Merges `other`, whose reference lies `shift` above ours and which has `weight` of all values; `factor` is n_a
 * n_b / n. */
static inline void moment_merge(tf_moment *m, const tf_moment *other, const double *shift, double weight, double factor,
                                int dims) {
    double d[2] = {0.0, 0.0};
    for (int i = 0; i < dims; i++) {
        d[i] = (other->mean[i] - m->mean[i]) + shift[i];
        m->mean[i] += d[i] * weight;
        m->square[i] += other->square[i] + d[i] * d[i] * factor;
    }
    if (dims == 2) m->product += other->product + d[0] * d[1] * factor;
}

static inline void moment_load(tf_moment *m, const double *cell, int dims) {
    *m = (tf_moment){.mean = {cell[0], dims == 2 ? cell[1] : 0.0}};
    m->square[0] = cell[dims];
    if (dims == 2) {
        m->square[1] = cell[3];
        m->product = cell[4];
    }
}

static inline void moment_store(const tf_moment *m, double *cell, int dims) {
    for (int i = 0; i < dims; i++) {
        cell[i] = m->mean[i];
        cell[dims + i] = m->square[i];
    }
    if (dims == 2) cell[4] = m->product;
}

/* a relative to b. */
static inline void moments_gap(const double *a, const double *b, double hedge, double *out, int dims, int logs) {
    for (int i = 0; i < dims; i++) {
        if (logs) out[i] = a[i] == b[i] ? 0.0 : tf_log_ratio(a[i], b[i]);
        else out[i] = a[i] - b[i];
    }
    if (logs && dims == 2) out[1] -= hedge * out[0];
}

static inline void moments_push(tf_moments *m, const double *value, int dims, int logs) {
    const uint32_t half = m->half;
    if (m->place == half) { /* the block is full: it becomes the one before */
        const double *last = moments_cell(m, m->block, half - 1, dims);
        moments_gap(m->first, value, m->hedge, m->before_shift, dims, logs);
        if (m->whole_blocks > 0) moments_gap(m->before_last, value, m->hedge, m->older_shift, dims, logs);
        for (int i = 0; i < dims; i++) m->before_last[i] = last[i];
        m->before = m->part;
        m->part = (tf_moment){.product = 0.0};
        m->block = m->block == 2 ? 0 : m->block + 1;
        m->place = 0;
        if (m->whole_blocks < 2) m->whole_blocks++;
    }
    double *cell = moments_cell(m, m->block, m->place, dims);
    for (int i = 0; i < dims; i++) {
        if (m->place == 0) m->first[i] = value[i];
        cell[i] = value[i];
    }
    moments_gap(value, m->first, m->hedge, m->newest, dims, logs);
    m->place++;
    const double place = (double)m->place, inverse = 1.0 / place;
    moment_add(&m->part, m->newest, inverse, dims);
    m->now = m->part;
    m->count = m->place;
    if (m->whole_blocks == 0) return;

    const uint32_t before = m->block == 0 ? 2 : m->block - 1;
    double *made = moments_cell(m, before, half - m->place, dims);
    double relative[2] = {0.0, 0.0};
    tf_moment suffix = {.product = 0.0};
    if (m->place > 1) moment_load(&suffix, made + moments_stride(dims), dims);
    moments_gap(made, m->before_last, m->hedge, relative, dims, logs);
    moment_add(&suffix, relative, inverse, dims);
    moment_store(&suffix, made, dims);

    double weight = (double)half / (place + (double)half);
    moment_merge(&m->now, &m->before, m->before_shift, weight, weight * place, dims);
    m->count += half;
    if (m->whole_blocks < 2 || m->count == m->window) return;
    const uint32_t rest = m->window - m->count;
    moment_load(&suffix, moments_cell(m, before == 0 ? 2 : before - 1, half - rest, dims), dims);
    weight = (double)rest / (double)m->window;
    moment_merge(&m->now, &suffix, m->older_shift, weight, weight * (double)m->count, dims);
    m->count = m->window;
}

/* The last value minus the mean of the window. */
static inline double moments_deviation(const tf_moments *m, int i) { return m->newest[i] - m->now.mean[i]; }

/* Pearson's coefficient; 0 where either side stood still. The roots are apart: their product cannot underflow. */
static inline double moments_correlation(const tf_moments *m) {
    const double both = sqrt(m->now.square[0]) * sqrt(m->now.square[1]);
    return both > 0.0 ? fmax(-1.0, fmin(1.0, m->now.product / both)) : 0.0;
}

/* Slope of the second on the first; 0 where the first stood still. */
static inline double moments_slope(const tf_moments *m) {
    const double slope = m->now.square[0] > 0.0 ? m->now.product / m->now.square[0] : 0.0;
    return fmax(-TF_MOMENTS_LIMIT, fmin(TF_MOMENTS_LIMIT, slope));
}

static inline int moment_sound(const tf_moment *m) {
    for (int i = 0; i < 2; i++) {
        if (!(fabs(m->mean[i]) <= 4.0 * TF_MOMENTS_LIMIT)) return 0;
        if (!(m->square[i] >= 0.0 && m->square[i] <= TF_MOMENTS_SECOND)) return 0;
    }
    return fabs(m->product) <= TF_MOMENTS_SECOND;
}

/* With logs, what a logarithm will be taken of must be a price. */
static inline int moments_fit(const double *value, int dims, int logs) {
    for (int i = 0; i < dims; i++) {
        const double x = value[i];
        if (logs ? !(x >= TF_VALUE_MIN && x <= TF_VALUE_MAX) : !(fabs(x) <= TF_MOMENTS_LIMIT)) return 0;
    }
    return 1;
}

static inline int moments_sound(const tf_moments *m, uint32_t window, int dims, int logs) {
    if (m->window != window || m->half != window / 2 || m->block > 2 || m->place > m->half) return 0;
    if (m->whole_blocks > 2 || m->count > window) return 0;
    if (m->place == 0 && (m->whole_blocks != 0 || m->count != 0 || m->block != 0)) return 0;
    if (m->place > 0 && !moments_fit(m->first, dims, logs)) return 0;
    if (m->whole_blocks > 0 && !moments_fit(m->before_last, dims, logs)) return 0;
    const double limit = 2.0 * TF_MOMENTS_LIMIT;
    for (int i = 0; i < 2; i++) {
        if (!(fabs(m->before_shift[i]) <= limit && fabs(m->older_shift[i]) <= limit)) return 0;
        if (!(fabs(m->newest[i]) <= limit)) return 0;
    }
    if (!moment_sound(&m->part) || !moment_sound(&m->before) || !moment_sound(&m->now)) return 0;
    const uint32_t before = m->block == 0 ? 2 : m->block - 1;
    for (uint32_t block = 0; block < 3; block++) {
        uint32_t values = block == m->block ? m->place : 0; /* the cells that hold values */
        if (block == before && m->whole_blocks > 0) values = m->half - m->place;
        for (uint32_t place = 0; place < m->half; place++) {
            const double *cell = m->cell + ((size_t)block * m->half + place) * moments_stride(dims);
            tf_moment suffix;
            moment_load(&suffix, cell, dims);
            if (place < values ? !moments_fit(cell, dims, logs) : !moment_sound(&suffix)) return 0;
        }
    }
    return 1;
}

#endif
