/* gemm_f32.h in AVX-512 for any weights that load as 16 floats. The including file defines
 *
 *     TF_WEIGHT       type of a packed weight
 *     TF_LOAD16(p)    16 weights at p as __m512
 *     TF_GEMM         name of the kernel
 *
 * gcc keeps named sums in registers where it spills arrays, hence the macros. */
#include "gemm_f32.h"

#include <immintrin.h>

#define TF_INLINE static inline __attribute__((always_inline))

/* The sessions of a block of `count`; all are constants after inlining, so what is not there costs nothing. */
#define TF_SESSIONS(M) M(0) M(1) M(2) M(3) M(4) M(5)

/* One half of a panel for `count` sessions: sums a, b, c, d of each start from `base` (those whose column offset is
 * not 0 from nothing), take the weights at w + oa .. w + od of each turn and columns i + ca .. i + cd, `turn` columns
 * a turn. How the four meet is `turn`'s business: 1: four rows groups; 2: a + c, b + d; 4: (a + b) + (c + d); 8: the
 * same, with the first half's sum waiting in `low` for the second. */
TF_INLINE void half_panel(const TF_WEIGHT *w, const float *const *x, const float *const *base, float *const *z,
                          int32_t at, int32_t k, const int count, const int turn, const int half, float (*low)[16]) {
    const int oa = turn == 1 || turn == 8 ? 64 * half : turn == 2 ? 32 * half : 16 * half;
    const int ob = oa + (turn == 4 ? 32 : 16);
    const int oc = turn == 2 ? oa + 64 : turn == 4 ? oa + 64 : oa + 32;
    const int od = turn == 2 ? oc + 16 : turn == 4 ? oa + 96 : oa + 48;
    const int first = turn == 8 ? 4 * half : 0;
    const int ca = first, cb = first + (turn >= 4 ? 1 : 0), cc = first + (turn >= 4 ? 2 : turn == 2 ? 1 : 0);
    const int cd = first + (turn >= 4 ? 3 : turn == 2 ? 1 : 0);
    const int row_b = turn == 1 || turn == 2 ? 16 : 0, row_c = 32, row_d = 48; /* used with ca .. cd = 0 only */

#define TF_START(s)                                                                                                    \
    const float *const x##s = x[s < count ? s : 0];                                                                    \
    const float *const base##s = base[s < count ? s : 0] + at;                                                         \
    __m512 a##s##_f32x16 = ca == 0 ? _mm512_loadu_ps(base##s) : _mm512_setzero_ps();                                   \
    __m512 b##s##_f32x16 = cb == 0 ? _mm512_loadu_ps(base##s + row_b) : _mm512_setzero_ps();                           \
    __m512 c##s##_f32x16 = cc == 0 ? _mm512_loadu_ps(base##s + row_c) : _mm512_setzero_ps();                           \
    __m512 d##s##_f32x16 = cd == 0 ? _mm512_loadu_ps(base##s + row_d) : _mm512_setzero_ps();
    TF_SESSIONS(TF_START)
#undef TF_START

    int32_t i = 0;
    for (; i + turn <= k; i += turn, w += 128) {
        const __m512 wa_f32x16 = TF_LOAD16(w + oa), wb_f32x16 = TF_LOAD16(w + ob);
        const __m512 wc_f32x16 = TF_LOAD16(w + oc), wd_f32x16 = TF_LOAD16(w + od);
#define TF_TURN(s)                                                                                                     \
    if (s < count) {                                                                                                   \
        a##s##_f32x16 = _mm512_fmadd_ps(wa_f32x16, _mm512_set1_ps(x##s[i + ca]), a##s##_f32x16);                       \
        b##s##_f32x16 = _mm512_fmadd_ps(wb_f32x16, _mm512_set1_ps(x##s[i + cb]), b##s##_f32x16);                       \
        c##s##_f32x16 = _mm512_fmadd_ps(wc_f32x16, _mm512_set1_ps(x##s[i + cc]), c##s##_f32x16);                       \
        d##s##_f32x16 = _mm512_fmadd_ps(wd_f32x16, _mm512_set1_ps(x##s[i + cd]), d##s##_f32x16);                       \
    }
        TF_SESSIONS(TF_TURN)
#undef TF_TURN
    }
    /* Columns after the last whole turn; the last partial sum never has one. */
#define TF_LAST(s, sum, weights, column)                                                                               \
    if (s < count) sum = _mm512_fmadd_ps(weights, _mm512_set1_ps(x##s[i + column]), sum);
    if (turn > 1 && i + ca < k) {
        const __m512 w_f32x16 = TF_LOAD16(w + oa);
#define TF_A(s) TF_LAST(s, a##s##_f32x16, w_f32x16, ca)
        TF_SESSIONS(TF_A)
#undef TF_A
    }
    if (turn > 1 && i + cb < k) {
        const __m512 w_f32x16 = TF_LOAD16(w + ob);
#define TF_B(s) TF_LAST(s, b##s##_f32x16, w_f32x16, cb)
        TF_SESSIONS(TF_B)
#undef TF_B
    }
    if (turn > 2 && i + cc < k) {
        const __m512 w_f32x16 = TF_LOAD16(w + oc);
#define TF_C(s) TF_LAST(s, c##s##_f32x16, w_f32x16, cc)
        TF_SESSIONS(TF_C)
#undef TF_C
    }
    if (turn > 4 && half == 0 && i + cd < k) {
        const __m512 w_f32x16 = TF_LOAD16(w + od);
#define TF_D(s) TF_LAST(s, d##s##_f32x16, w_f32x16, cd)
        TF_SESSIONS(TF_D)
#undef TF_D
    }
#undef TF_LAST

#define TF_END(s)                                                                                                      \
    if (s < count) {                                                                                                   \
        float *const z##s = z[s] + at;                                                                                 \
        if (turn == 1) {                                                                                               \
            _mm512_storeu_ps(z##s, a##s##_f32x16);                                                                     \
            _mm512_storeu_ps(z##s + 16, b##s##_f32x16);                                                                \
            _mm512_storeu_ps(z##s + 32, c##s##_f32x16);                                                                \
            _mm512_storeu_ps(z##s + 48, d##s##_f32x16);                                                                \
        } else if (turn == 2) {                                                                                        \
            _mm512_storeu_ps(z##s, _mm512_add_ps(a##s##_f32x16, c##s##_f32x16));                                       \
            _mm512_storeu_ps(z##s + 16, _mm512_add_ps(b##s##_f32x16, d##s##_f32x16));                                  \
        } else {                                                                                                       \
            const __m512 sum_f32x16 = _mm512_add_ps(_mm512_add_ps(a##s##_f32x16, b##s##_f32x16),                       \
                                                    _mm512_add_ps(c##s##_f32x16, d##s##_f32x16));                      \
            if (turn == 8 && half == 0)                                                                                \
                _mm512_storeu_ps(low[s], sum_f32x16);                                                                  \
            else if (turn == 8)                                                                                        \
                _mm512_storeu_ps(z##s, _mm512_add_ps(_mm512_loadu_ps(low[s]), sum_f32x16));                            \
            else                                                                                                       \
                _mm512_storeu_ps(z##s, sum_f32x16);                                                                    \
        }                                                                                                              \
    }
    TF_SESSIONS(TF_END)
#undef TF_END
}

/* `at`: first row. A panel of one group has both halves on the same rows, the others on different ones. */
TF_INLINE void block(const TF_WEIGHT *w, const float *const *x, const float *const *base, float *const *z, int32_t at,
                     int32_t k, const int count, const int turn, const int half) {
    float low[6][16];
    if (turn == 8) {
        half_panel(w, x, base, z, at, k, count, turn, 0, low);
        half_panel(w, x, base, z, at, k, count, turn, 1, low);
    } else {
        half_panel(w, x, base, z, at + half * (64 / turn), k, count, turn, half, low);
    }
}

TF_INLINE void sweep(const TF_WEIGHT *w, const float *const *x, const float *const *base, float *const *z, int32_t n,
                     int32_t at, int32_t k, const int turn, const int half) {
    for (; n >= 6; n -= 6, x += 6, base += 6, z += 6) block(w, x, base, z, at, k, 6, turn, half);
    if (n >= 3) block(w, x, base, z, at, k, 3, turn, half), n -= 3, x += 3, base += 3, z += 3;
    if (n == 2) block(w, x, base, z, at, k, 2, turn, half);
    if (n == 1) block(w, x, base, z, at, k, 1, turn, half);
}

void TF_GEMM(const TF_WEIGHT *w, const float *const *x, const float *const *base, float *const *z, int32_t n,
             int32_t rows, int32_t k) {
    int32_t left = (rows + 15) / 16, at = 0;
    for (; left >= 8; left -= 8, at += 128, w += (size_t)k * 128) {
        sweep(w, x, base, z, n, at, k, 1, 0);
        sweep(w, x, base, z, n, at, k, 1, 1);
    }
    if (left >= 4) {
        sweep(w, x, base, z, n, at, k, 2, 0);
        sweep(w, x, base, z, n, at, k, 2, 1);
        left -= 4, at += 64, w += (size_t)k * 64;
    }
    if (left >= 2) {
        sweep(w, x, base, z, n, at, k, 4, 0);
        sweep(w, x, base, z, n, at, k, 4, 1);
        left -= 2, at += 32, w += (size_t)k * 32;
    }
    if (left >= 1) sweep(w, x, base, z, n, at, k, 8, 0);
}
