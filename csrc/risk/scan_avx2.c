/* Loops over scenarios in AVX2: four doubles at a time. What is picked is moved to the front by a table of permutations
 * and stored whole; what is stored beyond is written over by the next. */
#include "risk/scan.h"

#include <immintrin.h>
#include <math.h>

#define NAME(function) function##_avx2

/* Halves of the doubles that a mask of four picks, in order. */
#define D(i) 2 * (i), 2 * (i) + 1
#define FRONT(a, b, c, d) {D(a), D(b), D(c), D(d)}
static const int32_t ORDER[16][8] = {
    FRONT(0, 1, 2, 3), FRONT(0, 1, 2, 3), FRONT(1, 0, 2, 3), FRONT(0, 1, 2, 3), FRONT(2, 0, 1, 3), FRONT(0, 2, 1, 3),
    FRONT(1, 2, 0, 3), FRONT(0, 1, 2, 3), FRONT(3, 0, 1, 2), FRONT(0, 3, 1, 2), FRONT(1, 3, 0, 2), FRONT(0, 1, 3, 2),
    FRONT(2, 3, 0, 1), FRONT(0, 2, 3, 1), FRONT(1, 2, 3, 0), FRONT(0, 1, 2, 3),
};

static inline size_t put(double *out, __m256d value, unsigned mask) {
    const __m256i order = _mm256_loadu_si256((const __m256i *)ORDER[mask]);
    _mm256_storeu_pd(out, _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(value), order)));
    return (size_t)__builtin_popcount(mask);
}

#define LOAD_NARROW(from) _mm256_cvtps_pd(_mm_loadu_ps(from))
#define LOAD_WIDE(from) _mm256_loadu_pd(from)
/* The larger of a NaN and -infinity is the second operand. */
#define KEEP(name, type, load)                                                                                         \
    static size_t name(double *out, const double *base, const double *offset, const type *x, double a, double most,    \
                       size_t n) {                                                                                     \
        const __m256d factor = _mm256_set1_pd(a), bound = _mm256_set1_pd(most), least = _mm256_set1_pd(-INFINITY);     \
        size_t kept = 0;                                                                                               \
        for (size_t s = 0; s < n; s += 4) {                                                                            \
            const unsigned all = n - s >= 4 ? 0xfu : (1u << (n - s)) - 1;                                              \
            __m256d value = _mm256_loadu_pd(base + s);                                                                 \
            if (offset) value = _mm256_add_pd(value, _mm256_loadu_pd(offset + s));                                     \
            value = _mm256_max_pd(_mm256_add_pd(value, _mm256_mul_pd(factor, load(x + s))), least);                    \
            kept +=                                                                                                    \
                put(out + kept, value, (unsigned)_mm256_movemask_pd(_mm256_cmp_pd(value, bound, _CMP_NGT_UQ)) & all);  \
        }                                                                                                              \
        return kept;                                                                                                   \
    }
KEEP(keep_avx2, float, LOAD_NARROW)
KEEP(keep_wide_avx2, double, LOAD_WIDE)

/* Beyond n the rows hold zeros or what nobody reads. */
#define TERM(i) value = _mm256_add_pd(value, _mm256_mul_pd(a##i, LOAD_NARROW(x##i + s)))
#define COLUMN(i)                                                                                                      \
    const float *x##i = x[count > i ? i : 0];                                                                          \
    const __m256d a##i = _mm256_set1_pd(a[count > i ? i : 0])
#define PASS(terms)                                                                                                    \
    for (size_t s = 0; s < n; s += 4) {                                                                                \
        __m256d value = _mm256_loadu_pd(y + s);                                                                        \
        terms;                                                                                                         \
        _mm256_storeu_pd(y + s, value);                                                                                \
    }
static void add_avx2(double *y, const float *const *x, const double *a, size_t count, size_t n) {
    COLUMN(0);
    COLUMN(1);
    COLUMN(2);
    COLUMN(3);
    switch (count) {
    case 1: PASS(TERM(0)) break;
    case 2: PASS(TERM(0); TERM(1)) break;
    case 3: PASS(TERM(0); TERM(1); TERM(2)) break;
    default: PASS(TERM(0); TERM(1); TERM(2); TERM(3)) break;
    }
}

#define PICK(name, relation)                                                                                           \
    static size_t name(double *out, const double *x, double value, size_t n) {                                         \
        const __m256d bound = _mm256_set1_pd(value);                                                                   \
        size_t kept = 0;                                                                                               \
        for (size_t s = 0; s < n; s += 4) {                                                                            \
            const unsigned all = n - s >= 4 ? 0xfu : (1u << (n - s)) - 1;                                              \
            const __m256d at = _mm256_loadu_pd(x + s);                                                                 \
            kept += put(out + kept, at, (unsigned)_mm256_movemask_pd(_mm256_cmp_pd(at, bound, relation)) & all);       \
        }                                                                                                              \
        return kept;                                                                                                   \
    }
PICK(below_avx2, _CMP_LT_OQ)
PICK(above_avx2, _CMP_GT_OQ)

#include "risk/scan_body.h"

const tf_scan tf_scan_avx2 = TABLE;
