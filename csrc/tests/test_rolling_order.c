/* What rolling statistics stand on: the ordered multiset and the moments of a window. Each step is compared with a
 * plain recomputation of the whole window (sorted copies, long double sums), on levels, ticks, ramps, flat
 * stretches and prices of 1e12 beside 1e-12; damaged bytes are refused, or what is accepted stays sound and
 * finite. */
#include "check.h"

#include "features/moments.h"
#include "features/ordered.h"

#define LONGEST 512

static uint64_t seed = UINT64_C(88172645463325252);

static uint64_t next(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static double uniform(void) { return (double)(next() >> 11) * 0x1p-53; }

enum kind { UNIFORM, TICKS, RAMP, FLAT, STEPS, SCALES, HUGE_VALUES, KINDS };

static double value_of(enum kind kind, int t) {
    switch (kind) {
    case UNIFORM: return uniform();
    case TICKS: return 65000.0 + 0.01 * (double)(next() % 7);
    case RAMP: return 1e6 * t;
    case FLAT: return 0.1;
    case STEPS: return t / 37 % 3 * 1e3 + 0.1;
    case SCALES: return t % 50 == 3 ? 1e12 : 1e-12 * uniform();
    default: return 1e150 * (uniform() - 0.5);
    }
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static long double log_ratio(double a, double b) {
    const long double change = ((long double)a - b) / b;
    return fabsl(change) < 0.5L ? log1pl(change) : logl((long double)a / b);
}

static double far_off(double made, long double wanted, long double scale) {
    return scale > 0.0L ? (double)(fabsl((long double)made - wanted) / scale) : made != 0.0;
}

static void compare_order(const tf_ordered *set, const double *window, uint32_t count) {
    double sorted[LONGEST];
    memcpy(sorted, window, count * sizeof(double));
    qsort(sorted, count, sizeof(double), by_size);
    CHECK(ordered_count(set) == count);
    for (uint32_t k = 0; k < count; k += 3) CHECK(ordered_select(set, k) == sorted[k]);
    const double x = sorted[next() % count];
    uint32_t below = 0, equal = 0, seen_equal, seen_below;
    long double short_of = 0.0L, sum = 0.0L, off = 0.0L, spread = 0.0L;
    for (uint32_t k = 0; k < count; k++) {
        below += sorted[k] < x;
        equal += sorted[k] == x;
        if (sorted[k] < x) short_of += (long double)x - sorted[k];
        sum += sorted[k];
    }
    for (uint32_t k = 0; k < count; k++) {
        off += fabsl(sorted[k] - sum / count);
        spread += fabsl((long double)sorted[k] - sorted[0]);
    }
    CHECK(ordered_rank(set, x, &seen_equal) == below && seen_equal == equal);
    CHECK(far_off(ordered_shortfall(set, x, &seen_below), short_of, short_of) < 1e-14 && seen_below == below);
    /* The mean itself is a double: at 65,000 it is off by up to 4e-12, which no spread can make good. */
    CHECK(far_off(ordered_mean_deviation(set), off / count, spread / count + fabsl(sum / count) * 1e-4L) < 1e-11);
}

static void order(enum kind kind, uint32_t window) {
    tf_ordered *set = malloc(ordered_bytes(window)), *plain = malloc(ordered_bytes(window)); /* with sums and without */
    double ring[LONGEST];
    if (set == NULL || plain == NULL) abort();
    ordered_reset(set, window);
    ordered_reset(plain, window);
    for (int t = 0; t < 400; t++) {
        const double x = value_of(kind, t);
        const uint32_t place = (uint32_t)t % window, count = (uint32_t)t < window ? (uint32_t)t + 1 : window;
        if ((uint32_t)t < window) {
            CHECK(ordered_insert(set, x) && ordered_put(plain, x, 0));
        } else {
            CHECK(!ordered_insert(set, x) && !ordered_put(plain, x, 0));
            CHECK(ordered_replace(set, ring[place], x) && ordered_exchange(plain, ring[place], x));
        }
        ring[place] = x;
        CHECK(ordered_sound(set, window) && ordered_sound_of(plain, window, 0));
        CHECK(plain->root == set->root && ordered_quantile(plain, 0.3) == ordered_quantile(set, 0.3));
        compare_order(set, ring, count);
    }
    CHECK(!ordered_erase(set, -7.0) && !ordered_insert(set, NAN) && !ordered_insert(set, INFINITY));
    for (uint32_t k = 0; k < window && k < 400; k++) {
        CHECK(ordered_erase(set, ring[k]) && ordered_take(plain, ring[k], 0));
        CHECK(ordered_sound(set, window) && ordered_sound_of(plain, window, 0));
    }
    CHECK(ordered_count(set) == 0 && ordered_mean_deviation(set) == 0.0 && ordered_quantile(set, 0.5) == 0.0);
    free(set), free(plain);
}

/* An AVL tree of n nodes is at most 1.44 log2(n + 2) deep, whatever comes. */
static void depth(void) {
    const uint32_t window = 4096;
    tf_ordered *set = malloc(ordered_bytes(window));
    if (set == NULL) abort();
    for (int kind = 0; kind < 3; kind++) {
        ordered_reset(set, window);
        for (uint32_t t = 0; t < window; t++) {
            const uint32_t zigzag = t % 2 == 0 ? t : 2 * window - t;
            CHECK(ordered_insert(set, kind == 0 ? t : kind == 1 ? -(double)t : zigzag));
        }
        CHECK(set->node[set->root].height <= 17);
        CHECK(ordered_quantile(set, 0.5) == (kind == 0 ? 2047.5 : kind == 1 ? -2047.5 : 4095.5) || kind == 2);
    }
    free(set);
}

static void moments(enum kind kind, uint32_t window, int logs) {
    tf_moments *m = malloc(moments_bytes(window, 2));
    double x[400][2];
    if (m == NULL) abort();
    moments_reset(m, window, 2);
    m->hedge = logs ? 0.5 : 0.0;
    for (int t = 0; t < 400; t++) {
        for (int i = 0; i < 2; i++) {
            x[t][i] = value_of(kind, t);
            if (logs) x[t][i] = fmin(1e18, fabs(x[t][i]) + 1e-12);
        }
        if (logs) moments_push(m, x[t], 2, 1);
        else moments_push(m, x[t], 2, 0);
        CHECK(moments_sound(m, window, 2, logs));
        const uint32_t count = (uint32_t)t + 1 < window ? (uint32_t)t + 1 : window;
        CHECK(m->count == count);
        const int from = t + 1 - (int)count;
        const long double unit = kind == HUGE_VALUES && !logs ? 1e-150L : 1.0L;
        long double mean[2] = {0.0L, 0.0L}, square[2] = {0.0L, 0.0L}, product = 0.0L, last[2], v[2];
        for (int pass = 0; pass < 2; pass++) {
            for (int k = from; k <= t; k++) {
                for (int i = 0; i < 2; i++) /* relative to the last one, so that a flat window is exactly flat */
                    v[i] = logs ? log_ratio(x[k][i], x[t][i]) : ((long double)x[k][i] - x[t][i]) * unit;
                if (logs) v[1] -= 0.5L * v[0];
                for (int i = 0; i < 2; i++) {
                    if (pass == 0) mean[i] += v[i] / count;
                    else square[i] += (v[i] - mean[i]) * (v[i] - mean[i]);
                }
                if (pass == 1) product += (v[0] - mean[0]) * (v[1] - mean[1]);
            }
        }
        for (int i = 0; i < 2; i++) {
            /* A hedged spread may be all but 0 where its two sides are not: what is lost is relative to them. */
            const long double scale = square[i] + (logs ? 0.25L * square[0] : 0.0L);
            last[i] = -mean[i];
            CHECK(far_off(m->now.square[i], square[i] / unit / unit, scale / unit / unit) < 1e-13);
            if (scale > 0.0L) CHECK(far_off(moments_deviation(m, i), last[i] / unit, sqrtl(scale) / unit) < 1e-13);
        }
        const long double sides = sqrtl(square[0]) * sqrtl(square[1] + (logs ? 0.25L * square[0] : 0.0L));
        CHECK(far_off(m->now.product, product / unit / unit, sides / unit / unit) < 1e-13);
        const double correlation = moments_correlation(m);
        CHECK(correlation >= -1.0 && correlation <= 1.0 && isfinite(moments_slope(m)));
    }
    free(m);
}

static void damage(void) {
    const uint32_t window = 24;
    const size_t ordered = ordered_bytes(window), rolled = moments_bytes(window, 2);
    tf_ordered *set = malloc(ordered), *torn = malloc(ordered);
    tf_moments *m = malloc(rolled), *broken = malloc(rolled);
    if (set == NULL || torn == NULL || m == NULL || broken == NULL) abort();
    ordered_reset(set, window);
    moments_reset(m, window, 2);
    for (int t = 0; t < 77; t++) {
        const double x[2] = {1.0 + uniform(), 1.0 + uniform()};
        moments_push(m, x, 2, 1);
        if (t < 24) ordered_insert(set, x[0]);
        if (t >= 24 && t % 3 == 0) ordered_erase(set, ordered_select(set, 0));
    }
    int refused_sets = 0, refused_moments = 0;
    for (int t = 0; t < 20000; t++) {
        memcpy(torn, set, ordered);
        memcpy(broken, m, rolled);
        for (int k = 0; k <= t % 3; k++) {
            ((unsigned char *)torn)[next() % ordered] ^= (unsigned char)(1u << next() % 8);
            ((unsigned char *)broken)[next() % rolled] ^= (unsigned char)(1u << next() % 8);
        }
        if (ordered_sound(torn, window)) {
            for (int k = 0; k < 30; k++) {
                const uint32_t count = ordered_count(torn);
                if (count > 0) ordered_erase(torn, ordered_select(torn, (uint32_t)(next() % count)));
                ordered_insert(torn, (double)(next() % 100));
            }
            CHECK(ordered_sound(torn, window) && isfinite(ordered_mean_deviation(torn)));
        } else {
            refused_sets++;
        }
        if (moments_sound(broken, window, 2, 1)) {
            for (int k = 0; k < 60; k++) {
                const double x[2] = {1.0 + uniform(), 1.0 + uniform()};
                moments_push(broken, x, 2, 1);
                CHECK(isfinite(broken->now.square[0]) && isfinite(broken->now.product));
                CHECK(isfinite(moments_deviation(broken, 1)));
            }
        } else {
            refused_moments++;
        }
    }
    CHECK(refused_sets > 8000 && refused_moments > 800 && refused_moments < 20000);
    free(set), free(torn), free(m), free(broken);
}

int main(void) {
    static const uint32_t windows[] = {2, 3, 4, 7, 10, 65};
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
            order((enum kind)kind, windows[i]);
            moments((enum kind)kind, windows[i], 0);
            if (kind != RAMP && kind != HUGE_VALUES) moments((enum kind)kind, windows[i], 1);
        }
        order((enum kind)kind, 1);
    }
    depth();
    damage();
    return done("test_rolling_order");
}
