/* The panels of gemv_f32.h in AVX2, shared by gemv and by the fused LSTM step, for every weight format. A file includes
 * this after it has said what a weight is: gemv_f32_avx2.h, gemv_f16_avx2.h, gemv_bf16_avx2.h define
 *
 *     TF_WEIGHT           type of a packed weight
 *     TF_FMA8(sum, w, v)  sum += (8 weights at w) v
 *
 * Sixteen registers hold eight sums of eight lanes, so a panel is walked in two passes of 64 sums; each pass adds in
 * the same order as AVX-512 does. */
#ifndef TF_NN_GEMV_AVX2_H
#define TF_NN_GEMV_AVX2_H

#include "gemv_f32.h"

#include <immintrin.h>

typedef struct tf_f32x8x8 { __m256 v0, v1, v2, v3, v4, v5, v6, v7; } tf_f32x8x8;
typedef struct tf_f32x8x4 { __m256 v0, v1, v2, v3; } tf_f32x8x4;
typedef struct tf_f32x8x2 { __m256 v0, v1; } tf_f32x8x2;

/* Half of a panel of 8 groups: the 64 rows at w, v0..v7 in row order. */
TF_INLINE tf_f32x8x8 tf_panel8_avx2(const TF_WEIGHT *w, const float *x, const float *base, int32_t k) {
    __m256 sum0_f32x8 = _mm256_loadu_ps(base), sum1_f32x8 = _mm256_loadu_ps(base + 8);
    __m256 sum2_f32x8 = _mm256_loadu_ps(base + 16), sum3_f32x8 = _mm256_loadu_ps(base + 24);
    __m256 sum4_f32x8 = _mm256_loadu_ps(base + 32), sum5_f32x8 = _mm256_loadu_ps(base + 40);
    __m256 sum6_f32x8 = _mm256_loadu_ps(base + 48), sum7_f32x8 = _mm256_loadu_ps(base + 56);
    for (int32_t i = 0; i < k; i++, w += 128) {
        const __m256 v_f32x8 = _mm256_set1_ps(x[i]);
        TF_FMA8(sum0_f32x8, w, v_f32x8);
        TF_FMA8(sum1_f32x8, w + 8, v_f32x8);
        TF_FMA8(sum2_f32x8, w + 16, v_f32x8);
        TF_FMA8(sum3_f32x8, w + 24, v_f32x8);
        TF_FMA8(sum4_f32x8, w + 32, v_f32x8);
        TF_FMA8(sum5_f32x8, w + 40, v_f32x8);
        TF_FMA8(sum6_f32x8, w + 48, v_f32x8);
        TF_FMA8(sum7_f32x8, w + 56, v_f32x8);
    }
    return (tf_f32x8x8){sum0_f32x8, sum1_f32x8, sum2_f32x8, sum3_f32x8, sum4_f32x8, sum5_f32x8, sum6_f32x8, sum7_f32x8};
}

/* Eight lanes (those at w, w + 16, w + 32, w + 48) of a panel of 4 groups. */
TF_INLINE tf_f32x8x4 tf_panel4_avx2(const TF_WEIGHT *w, const float *x, const float *base, int32_t k) {
    __m256 even0_f32x8 = _mm256_loadu_ps(base), even1_f32x8 = _mm256_loadu_ps(base + 16);
    __m256 even2_f32x8 = _mm256_loadu_ps(base + 32), even3_f32x8 = _mm256_loadu_ps(base + 48);
    __m256 odd0_f32x8 = _mm256_setzero_ps(), odd1_f32x8 = odd0_f32x8, odd2_f32x8 = odd0_f32x8, odd3_f32x8 = odd0_f32x8;
    int32_t i = 0;
    for (; i + 2 <= k; i += 2, w += 128) {
        const __m256 v_f32x8 = _mm256_set1_ps(x[i]), u_f32x8 = _mm256_set1_ps(x[i + 1]);
        TF_FMA8(even0_f32x8, w, v_f32x8);
        TF_FMA8(even1_f32x8, w + 16, v_f32x8);
        TF_FMA8(even2_f32x8, w + 32, v_f32x8);
        TF_FMA8(even3_f32x8, w + 48, v_f32x8);
        TF_FMA8(odd0_f32x8, w + 64, u_f32x8);
        TF_FMA8(odd1_f32x8, w + 80, u_f32x8);
        TF_FMA8(odd2_f32x8, w + 96, u_f32x8);
        TF_FMA8(odd3_f32x8, w + 112, u_f32x8);
    }
    if (i < k) {
        const __m256 v_f32x8 = _mm256_set1_ps(x[i]);
        TF_FMA8(even0_f32x8, w, v_f32x8);
        TF_FMA8(even1_f32x8, w + 16, v_f32x8);
        TF_FMA8(even2_f32x8, w + 32, v_f32x8);
        TF_FMA8(even3_f32x8, w + 48, v_f32x8);
    }
    return (tf_f32x8x4){_mm256_add_ps(even0_f32x8, odd0_f32x8), _mm256_add_ps(even1_f32x8, odd1_f32x8),
                        _mm256_add_ps(even2_f32x8, odd2_f32x8), _mm256_add_ps(even3_f32x8, odd3_f32x8)};
}

/* Eight lanes of a panel of 2 groups, then of 1. */
TF_INLINE tf_f32x8x2 tf_panel2_avx2(const TF_WEIGHT *w, const float *x, const float *base, int32_t k) {
    __m256 a0_f32x8 = _mm256_loadu_ps(base), a1_f32x8 = _mm256_loadu_ps(base + 16);
    __m256 b0_f32x8 = _mm256_setzero_ps(), b1_f32x8 = b0_f32x8, c0_f32x8 = b0_f32x8, c1_f32x8 = b0_f32x8,
           d0_f32x8 = b0_f32x8, d1_f32x8 = b0_f32x8;
    int32_t i = 0;
    for (; i + 4 <= k; i += 4, w += 128) {
        const __m256 a_f32x8 = _mm256_set1_ps(x[i]), b_f32x8 = _mm256_set1_ps(x[i + 1]);
        const __m256 c_f32x8 = _mm256_set1_ps(x[i + 2]), d_f32x8 = _mm256_set1_ps(x[i + 3]);
        TF_FMA8(a0_f32x8, w, a_f32x8);
        TF_FMA8(a1_f32x8, w + 16, a_f32x8);
        TF_FMA8(b0_f32x8, w + 32, b_f32x8);
        TF_FMA8(b1_f32x8, w + 48, b_f32x8);
        TF_FMA8(c0_f32x8, w + 64, c_f32x8);
        TF_FMA8(c1_f32x8, w + 80, c_f32x8);
        TF_FMA8(d0_f32x8, w + 96, d_f32x8);
        TF_FMA8(d1_f32x8, w + 112, d_f32x8);
    }
    if (i < k) {
        const __m256 v_f32x8 = _mm256_set1_ps(x[i]);
        TF_FMA8(a0_f32x8, w, v_f32x8);
        TF_FMA8(a1_f32x8, w + 16, v_f32x8);
    }
    if (i + 1 < k) {
        const __m256 v_f32x8 = _mm256_set1_ps(x[i + 1]);
        TF_FMA8(b0_f32x8, w + 32, v_f32x8);
        TF_FMA8(b1_f32x8, w + 48, v_f32x8);
    }
    if (i + 2 < k) {
        const __m256 v_f32x8 = _mm256_set1_ps(x[i + 2]);
        TF_FMA8(c0_f32x8, w + 64, v_f32x8);
        TF_FMA8(c1_f32x8, w + 80, v_f32x8);
    }
    return (tf_f32x8x2){
        _mm256_add_ps(_mm256_add_ps(a0_f32x8, b0_f32x8), _mm256_add_ps(c0_f32x8, d0_f32x8)),
        _mm256_add_ps(_mm256_add_ps(a1_f32x8, b1_f32x8), _mm256_add_ps(c1_f32x8, d1_f32x8))};
}

TF_INLINE __m256 tf_panel1_avx2(const TF_WEIGHT *w, const float *x, const float *base, int32_t k) {
    __m256 sum0_f32x8 = _mm256_loadu_ps(base), sum1_f32x8 = _mm256_setzero_ps(), sum2_f32x8 = sum1_f32x8,
           sum3_f32x8 = sum1_f32x8, sum4_f32x8 = sum1_f32x8, sum5_f32x8 = sum1_f32x8, sum6_f32x8 = sum1_f32x8,
           sum7_f32x8 = sum1_f32x8;
    int32_t i = 0;
    for (; i + 8 <= k; i += 8, w += 128) {
        TF_FMA8(sum0_f32x8, w, _mm256_set1_ps(x[i]));
        TF_FMA8(sum1_f32x8, w + 16, _mm256_set1_ps(x[i + 1]));
        TF_FMA8(sum2_f32x8, w + 32, _mm256_set1_ps(x[i + 2]));
        TF_FMA8(sum3_f32x8, w + 48, _mm256_set1_ps(x[i + 3]));
        TF_FMA8(sum4_f32x8, w + 64, _mm256_set1_ps(x[i + 4]));
        TF_FMA8(sum5_f32x8, w + 80, _mm256_set1_ps(x[i + 5]));
        TF_FMA8(sum6_f32x8, w + 96, _mm256_set1_ps(x[i + 6]));
        TF_FMA8(sum7_f32x8, w + 112, _mm256_set1_ps(x[i + 7]));
    }
    if (i < k) TF_FMA8(sum0_f32x8, w, _mm256_set1_ps(x[i]));
    if (i + 1 < k) TF_FMA8(sum1_f32x8, w + 16, _mm256_set1_ps(x[i + 1]));
    if (i + 2 < k) TF_FMA8(sum2_f32x8, w + 32, _mm256_set1_ps(x[i + 2]));
    if (i + 3 < k) TF_FMA8(sum3_f32x8, w + 48, _mm256_set1_ps(x[i + 3]));
    if (i + 4 < k) TF_FMA8(sum4_f32x8, w + 64, _mm256_set1_ps(x[i + 4]));
    if (i + 5 < k) TF_FMA8(sum5_f32x8, w + 80, _mm256_set1_ps(x[i + 5]));
    if (i + 6 < k) TF_FMA8(sum6_f32x8, w + 96, _mm256_set1_ps(x[i + 6]));
    const __m256 low_f32x8 =
        _mm256_add_ps(_mm256_add_ps(sum0_f32x8, sum1_f32x8), _mm256_add_ps(sum2_f32x8, sum3_f32x8));
    const __m256 high_f32x8 =
        _mm256_add_ps(_mm256_add_ps(sum4_f32x8, sum5_f32x8), _mm256_add_ps(sum6_f32x8, sum7_f32x8));
    return _mm256_add_ps(low_f32x8, high_f32x8);
}

TF_INLINE void tf_gemv_panels_avx2(const TF_WEIGHT *w, const float *x, const float *base, float *z, int32_t rows,
                                   int32_t k) {
    int32_t left = (rows + 15) / 16;
    for (; left >= 8; left -= 8, w += (size_t)k * 128, base += 128, z += 128)
        for (int half = 0; half < 128; half += 64) {
            const tf_f32x8x8 sum = tf_panel8_avx2(w + half, x, base + half, k);
            _mm256_storeu_ps(z + half, sum.v0);
            _mm256_storeu_ps(z + half + 8, sum.v1);
            _mm256_storeu_ps(z + half + 16, sum.v2);
            _mm256_storeu_ps(z + half + 24, sum.v3);
            _mm256_storeu_ps(z + half + 32, sum.v4);
            _mm256_storeu_ps(z + half + 40, sum.v5);
            _mm256_storeu_ps(z + half + 48, sum.v6);
            _mm256_storeu_ps(z + half + 56, sum.v7);
        }
    if (left >= 4) {
        for (int half = 0; half < 16; half += 8) {
            const tf_f32x8x4 sum = tf_panel4_avx2(w + half, x, base + half, k);
            _mm256_storeu_ps(z + half, sum.v0);
            _mm256_storeu_ps(z + half + 16, sum.v1);
            _mm256_storeu_ps(z + half + 32, sum.v2);
            _mm256_storeu_ps(z + half + 48, sum.v3);
        }
        left -= 4, w += (size_t)k * 64, base += 64, z += 64;
    }
    if (left >= 2) {
        for (int half = 0; half < 16; half += 8) {
            const tf_f32x8x2 sum = tf_panel2_avx2(w + half, x, base + half, k);
            _mm256_storeu_ps(z + half, sum.v0);
            _mm256_storeu_ps(z + half + 16, sum.v1);
        }
        left -= 2, w += (size_t)k * 32, base += 32, z += 32;
    }
    if (left >= 1)
        for (int half = 0; half < 16; half += 8)
            _mm256_storeu_ps(z + half, tf_panel1_avx2(w + half, x, base + half, k));
}

#endif
