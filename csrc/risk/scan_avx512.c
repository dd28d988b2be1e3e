/* Loops over scenarios in AVX-512: eight doubles at a time. A compress goes to a register and is stored whole, which is
 * far cheaper on some processors than a compressing store; what is stored beyond is written over by the next. */
#include "risk/scan.h"

#include <immintrin.h>
#include <math.h>

#define NAME(function) function##_avx512

static inline size_t put(double *out, __m512d value, __mmask8 mask) {
    _mm512_storeu_pd(out, _mm512_maskz_compress_pd(mask, value));
    return (size_t)__builtin_popcount(mask);
}

#define LOAD_NARROW(from) _mm512_cvtps_pd(_mm256_loadu_ps(from))
#define LOAD_WIDE(from) _mm512_loadu_pd(from)
/* The larger of a NaN and -infinity is the second operand. */
#define STEP(load, mask)                                                                                               \
    do {                                                                                                               \
        __m512d value = _mm512_loadu_pd(base + s);                                                                     \
        if (offset) value = _mm512_add_pd(value, _mm512_loadu_pd(offset + s));                                         \
        value = _mm512_max_pd(_mm512_add_pd(value, _mm512_mul_pd(factor, load(x + s))), least);                        \
        kept += put(out + kept, value, _mm512_cmp_pd_mask(value, bound, _CMP_NGT_UQ) & (mask));                        \
    } while (0)
#define KEEP(name, type, load)                                                                                         \
    static size_t name(double *out, const double *base, const double *offset, const type *x, double a, double most,    \
                       size_t n) {                                                                                     \
        const __m512d factor = _mm512_set1_pd(a), bound = _mm512_set1_pd(most), least = _mm512_set1_pd(-INFINITY);     \
        size_t kept = 0, s = 0;                                                                                        \
        for (; s + 8 <= n; s += 8) STEP(load, (__mmask8)0xff);                                                         \
        if (s < n) STEP(load, (__mmask8)((1u << (n - s)) - 1));                                                        \
        return kept;                                                                                                   \
    }
KEEP(keep_avx512, float, LOAD_NARROW)
KEEP(keep_wide_avx512, double, LOAD_WIDE)

/* Beyond n the rows hold zeros or what nobody reads. */
#define TERM(i) value = _mm512_add_pd(value, _mm512_mul_pd(a##i, LOAD_NARROW(x##i + s)))
#define COLUMN(i)                                                                                                      \
    const float *x##i = x[count > i ? i : 0];                                                                          \
    const __m512d a##i = _mm512_set1_pd(a[count > i ? i : 0])
#define PASS(terms)                                                                                                    \
    for (size_t s = 0; s < n; s += 8) {                                                                                \
        __m512d value = _mm512_loadu_pd(y + s);                                                                        \
        terms;                                                                                                         \
        _mm512_storeu_pd(y + s, value);                                                                                \
    }
static void add_avx512(double *y, const float *const *x, const double *a, size_t count, size_t n) {
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
        const __m512d bound = _mm512_set1_pd(value);                                                                   \
        size_t kept = 0, s = 0;                                                                                        \
        for (; s < n; s += 8) {                                                                                        \
            const __mmask8 mask = n - s >= 8 ? (__mmask8)0xff : (__mmask8)((1u << (n - s)) - 1);                       \
            const __m512d at = _mm512_loadu_pd(x + s);                                                                 \
            kept += put(out + kept, at, _mm512_cmp_pd_mask(at, bound, relation) & mask);                               \
        }                                                                                                              \
        return kept;                                                                                                   \
    }
PICK(below_avx512, _CMP_LT_OQ)
PICK(above_avx512, _CMP_GT_OQ)

#include "risk/scan_body.h"

const tf_scan tf_scan_avx512 = TABLE;
