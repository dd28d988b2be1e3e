/* The panels of gemv_f32.h in AVX2, shared by gemv and by the fused LSTM step. Sixteen registers hold eight sums of eight
 * lanes, so a panel is walked in two passes of 64 sums; each pass adds in the same order as AVX-512 does. */
#ifndef TF_NN_GEMV_F32_AVX2_H
#define TF_NN_GEMV_F32_AVX2_H

#include "gemv_f32.h"

#include <immintrin.h>

#define TF_INLINE static inline __attribute__((always_inline))
#define TF_FMA8(sum, w, v) sum = _mm256_fmadd_ps(_mm256_loadu_ps(w), v, sum)

typedef struct tf_f32x8x8 { __m256 v0, v1, v2, v3, v4, v5, v6, v7; } tf_f32x8x8;
typedef struct tf_f32x8x4 { __m256 v0, v1, v2, v3; } tf_f32x8x4;
typedef struct tf_f32x8x2 { __m256 v0, v1; } tf_f32x8x2;

/* Half of a panel of 8 groups: the 64 rows at w, v0..v7 in row order. */
TF_INLINE tf_f32x8x8 tf_panel8_avx2(const float *w, const float *x, const float *base, int32_t k) {
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
TF_INLINE tf_f32x8x4 tf_panel4_avx2(const float *w, const float *x, const float *base, int32_t k) {
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

#endif
