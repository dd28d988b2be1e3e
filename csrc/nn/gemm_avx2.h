/* gemm_f32.h in AVX2 for any weights that load as 8 floats. The including file defines
 *
 *     TF_WEIGHT      type of a packed weight
 *     TF_LOAD8(p)    8 weights at p as __m256
 *     TF_GEMM        name of the kernel
 *
 * gcc keeps named sums in registers where it spills arrays, hence the macros. Each weight is used by three sessions at
 * once and then forgotten: 12 sums, three broadcasts and it are the 16 registers. */
#include "gemm_f32.h"

#include <immintrin.h>

#define TF_INLINE static inline __attribute__((always_inline))

/* The sessions of a block of `count`; all are constants after inlining, so what is not there costs nothing. */
#define TF_SESSIONS(M) M(0) M(1) M(2)

/* Four sums a, b, c, d of 8 lanes per session, as in gemm_avx512.h. `part` is the quarter of a panel of 8 groups (32
 * rows), else 2 half + upper eight lanes. */
TF_INLINE void quarter_panel(const TF_WEIGHT *w, const float *const *x, const float *const *base, float *const *z,
                             int32_t at, int32_t k, const int count, const int turn, const int part, float (*low)[8]) {
    const int half = part / 2, upper = part % 2 * 8;
    const int oa = turn == 1 ? 32 * part : upper + (turn == 2 ? 32 * half : turn == 4 ? 16 * half : 64 * half);
    const int ob = oa + (turn == 1 ? 8 : turn == 4 ? 32 : 16);
    const int oc = oa + (turn == 1 ? 16 : turn == 8 ? 32 : 64);
    const int od = oa + (turn == 1 ? 24 : turn == 2 ? 80 : turn == 4 ? 96 : 48);
    const int first = turn == 8 ? 4 * half : 0;
    const int ca = first, cb = first + (turn >= 4 ? 1 : 0), cc = first + (turn >= 4 ? 2 : turn == 2 ? 1 : 0);
    const int cd = first + (turn >= 4 ? 3 : turn == 2 ? 1 : 0);
    const int row_b = turn == 1 ? 8 : turn == 2 ? 16 : 0; /* used with a column offset of 0 only, as 16 and 24 below */

#define TF_START(s)                                                                                                    \
    const float *const x##s = x[s < count ? s : 0];                                                                    \
    const float *const base##s = base[s < count ? s : 0] + at;                                                         \
    __m256 a##s##_f32x8 = ca == 0 ? _mm256_loadu_ps(base##s) : _mm256_setzero_ps();                                    \
    __m256 b##s##_f32x8 = cb == 0 ? _mm256_loadu_ps(base##s + row_b) : _mm256_setzero_ps();                            \
    __m256 c##s##_f32x8 = cc == 0 ? _mm256_loadu_ps(base##s + 16) : _mm256_setzero_ps();                               \
    __m256 d##s##_f32x8 = cd == 0 ? _mm256_loadu_ps(base##s + 24) : _mm256_setzero_ps();
    TF_SESSIONS(TF_START)
#undef TF_START

#define TF_ADD(s, sum, column)                                                                                         \
    if (s < count) sum = _mm256_fmadd_ps(w_f32x8, _mm256_set1_ps(x##s[i + column]), sum);
#define TF_A(s) TF_ADD(s, a##s##_f32x8, ca)
#define TF_B(s) TF_ADD(s, b##s##_f32x8, cb)
#define TF_C(s) TF_ADD(s, c##s##_f32x8, cc)
#define TF_D(s) TF_ADD(s, d##s##_f32x8, cd)
    int32_t i = 0;
    __m256 w_f32x8;
    for (; i + turn <= k; i += turn, w += 128) {
        w_f32x8 = TF_LOAD8(w + oa);
        TF_SESSIONS(TF_A)
        w_f32x8 = TF_LOAD8(w + ob);
        TF_SESSIONS(TF_B)
        w_f32x8 = TF_LOAD8(w + oc);
        TF_SESSIONS(TF_C)
        w_f32x8 = TF_LOAD8(w + od);
        TF_SESSIONS(TF_D)
    }
    /* Columns after the last whole turn; the last partial sum never has one. */
    if (turn > 1 && i + ca < k) {
        w_f32x8 = TF_LOAD8(w + oa);
        TF_SESSIONS(TF_A)
    }
    if (turn > 1 && i + cb < k) {
        w_f32x8 = TF_LOAD8(w + ob);
        TF_SESSIONS(TF_B)
    }
    if (turn > 2 && i + cc < k) {
        w_f32x8 = TF_LOAD8(w + oc);
        TF_SESSIONS(TF_C)
    }
    if (turn > 4 && half == 0 && i + cd < k) {
        w_f32x8 = TF_LOAD8(w + od);
        TF_SESSIONS(TF_D)
    }
#undef TF_A
#undef TF_B
#undef TF_C
#undef TF_D
#undef TF_ADD

#define TF_END(s)                                                                                                      \
    if (s < count) {                                                                                                   \
        float *const z##s = z[s] + at;                                                                                 \
        if (turn == 1) {                                                                                               \
            _mm256_storeu_ps(z##s, a##s##_f32x8);                                                                      \
            _mm256_storeu_ps(z##s + 8, b##s##_f32x8);                                                                  \
            _mm256_storeu_ps(z##s + 16, c##s##_f32x8);                                                                 \
            _mm256_storeu_ps(z##s + 24, d##s##_f32x8);                                                                 \
        } else if (turn == 2) {                                                                                        \
            _mm256_storeu_ps(z##s, _mm256_add_ps(a##s##_f32x8, c##s##_f32x8));                                         \
            _mm256_storeu_ps(z##s + 16, _mm256_add_ps(b##s##_f32x8, d##s##_f32x8));                                    \
        } else {                                                                                                       \
            const __m256 sum_f32x8 = _mm256_add_ps(_mm256_add_ps(a##s##_f32x8, b##s##_f32x8),                          \
                                                   _mm256_add_ps(c##s##_f32x8, d##s##_f32x8));                         \
            if (turn == 8 && half == 0)                                                                                \
                _mm256_storeu_ps(low[s], sum_f32x8);                                                                   \
            else if (turn == 8)                                                                                        \
                _mm256_storeu_ps(z##s, _mm256_add_ps(_mm256_loadu_ps(low[s]), sum_f32x8));                             \
            else                                                                                                       \
                _mm256_storeu_ps(z##s, sum_f32x8);                                                                     \
        }                                                                                                              \
    }
    TF_SESSIONS(TF_END)
#undef TF_END
}

/* `at`: first row. A panel of one group has both halves on the same rows, the others on different ones. */
TF_INLINE void block(const TF_WEIGHT *w, const float *const *x, const float *const *base, float *const *z, int32_t at,
                     int32_t k, const int count, const int turn, const int part) {
    float low[3][8];
    if (turn == 8) {
        quarter_panel(w, x, base, z, at + part * 8, k, count, turn, part, low);
        quarter_panel(w, x, base, z, at + part * 8, k, count, turn, 2 + part, low);
    } else if (turn == 1) {
        quarter_panel(w, x, base, z, at + part * 32, k, count, turn, part, low);
    } else {
        quarter_panel(w, x, base, z, at + part / 2 * (64 / turn) + part % 2 * 8, k, count, turn, part, low);
    }
}

TF_INLINE void sweep(const TF_WEIGHT *w, const float *const *x, const float *const *base, float *const *z, int32_t n,
                     int32_t at, int32_t k, const int turn, const int part) {
    for (; n >= 3; n -= 3, x += 3, base += 3, z += 3) block(w, x, base, z, at, k, 3, turn, part);
    if (n == 2) block(w, x, base, z, at, k, 2, turn, part);
    if (n == 1) block(w, x, base, z, at, k, 1, turn, part);
}

void TF_GEMM(const TF_WEIGHT *w, const float *const *x, const float *const *base, float *const *z, int32_t n,
             int32_t rows, int32_t k) {
    int32_t left = (rows + 15) / 16, at = 0;
    for (; left >= 8; left -= 8, at += 128, w += (size_t)k * 128) {
        sweep(w, x, base, z, n, at, k, 1, 0);
        sweep(w, x, base, z, n, at, k, 1, 1);
        sweep(w, x, base, z, n, at, k, 1, 2);
        sweep(w, x, base, z, n, at, k, 1, 3);
    }
    if (left >= 4) {
        sweep(w, x, base, z, n, at, k, 2, 0);
        sweep(w, x, base, z, n, at, k, 2, 1);
        sweep(w, x, base, z, n, at, k, 2, 2);
        sweep(w, x, base, z, n, at, k, 2, 3);
        left -= 4, at += 64, w += (size_t)k * 64;
    }
    if (left >= 2) {
        sweep(w, x, base, z, n, at, k, 4, 0);
        sweep(w, x, base, z, n, at, k, 4, 1);
        sweep(w, x, base, z, n, at, k, 4, 2);
        sweep(w, x, base, z, n, at, k, 4, 3);
        left -= 2, at += 32, w += (size_t)k * 32;
    }
    if (left >= 1) {
        sweep(w, x, base, z, n, at, k, 8, 0);
        sweep(w, x, base, z, n, at, k, 8, 1);
    }
}
