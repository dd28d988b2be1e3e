/* The panels of gemv_f32.h in AVX-512, shared by gemv and by the fused LSTM step. gcc keeps named sums in registers where it
 * spills arrays, hence the macros. */
#ifndef TF_NN_GEMV_F32_AVX512_H
#define TF_NN_GEMV_F32_AVX512_H

#include "gemv_f32.h"

#include <immintrin.h>

#define TF_INLINE static inline __attribute__((always_inline))
#define TF_FMA16(sum, w, v) sum = _mm512_fmadd_ps(_mm512_loadu_ps(w), v, sum)

typedef struct tf_f32x16x8 { __m512 v0, v1, v2, v3, v4, v5, v6, v7; } tf_f32x16x8;
typedef struct tf_f32x16x4 { __m512 v0, v1, v2, v3; } tf_f32x16x4;
typedef struct tf_f32x16x2 { __m512 v0, v1; } tf_f32x16x2;

TF_INLINE tf_f32x16x8 tf_panel8_avx512(const float *w, const float *x, const float *base, int32_t k) {
    __m512 sum0_f32x16 = _mm512_loadu_ps(base), sum1_f32x16 = _mm512_loadu_ps(base + 16);
    __m512 sum2_f32x16 = _mm512_loadu_ps(base + 32), sum3_f32x16 = _mm512_loadu_ps(base + 48);
    __m512 sum4_f32x16 = _mm512_loadu_ps(base + 64), sum5_f32x16 = _mm512_loadu_ps(base + 80);
    __m512 sum6_f32x16 = _mm512_loadu_ps(base + 96), sum7_f32x16 = _mm512_loadu_ps(base + 112);
    for (int32_t i = 0; i < k; i++, w += 128) {
        const __m512 v_f32x16 = _mm512_set1_ps(x[i]);
        TF_FMA16(sum0_f32x16, w, v_f32x16);
        TF_FMA16(sum1_f32x16, w + 16, v_f32x16);
        TF_FMA16(sum2_f32x16, w + 32, v_f32x16);
        TF_FMA16(sum3_f32x16, w + 48, v_f32x16);
        TF_FMA16(sum4_f32x16, w + 64, v_f32x16);
        TF_FMA16(sum5_f32x16, w + 80, v_f32x16);
        TF_FMA16(sum6_f32x16, w + 96, v_f32x16);
        TF_FMA16(sum7_f32x16, w + 112, v_f32x16);
    }
    return (tf_f32x16x8){sum0_f32x16, sum1_f32x16, sum2_f32x16, sum3_f32x16,
                         sum4_f32x16, sum5_f32x16, sum6_f32x16, sum7_f32x16};
}

TF_INLINE tf_f32x16x4 tf_panel4_avx512(const float *w, const float *x, const float *base, int32_t k) {
    __m512 even0_f32x16 = _mm512_loadu_ps(base), even1_f32x16 = _mm512_loadu_ps(base + 16);
    __m512 even2_f32x16 = _mm512_loadu_ps(base + 32), even3_f32x16 = _mm512_loadu_ps(base + 48);
    __m512 odd0_f32x16 = _mm512_setzero_ps(), odd1_f32x16 = odd0_f32x16, odd2_f32x16 = odd0_f32x16,
           odd3_f32x16 = odd0_f32x16;
    int32_t i = 0;
    for (; i + 2 <= k; i += 2, w += 128) {
        const __m512 v_f32x16 = _mm512_set1_ps(x[i]), u_f32x16 = _mm512_set1_ps(x[i + 1]);
        TF_FMA16(even0_f32x16, w, v_f32x16);
        TF_FMA16(even1_f32x16, w + 16, v_f32x16);
        TF_FMA16(even2_f32x16, w + 32, v_f32x16);
        TF_FMA16(even3_f32x16, w + 48, v_f32x16);
        TF_FMA16(odd0_f32x16, w + 64, u_f32x16);
        TF_FMA16(odd1_f32x16, w + 80, u_f32x16);
        TF_FMA16(odd2_f32x16, w + 96, u_f32x16);
        TF_FMA16(odd3_f32x16, w + 112, u_f32x16);
    }
    if (i < k) {
        const __m512 v_f32x16 = _mm512_set1_ps(x[i]);
        TF_FMA16(even0_f32x16, w, v_f32x16);
        TF_FMA16(even1_f32x16, w + 16, v_f32x16);
        TF_FMA16(even2_f32x16, w + 32, v_f32x16);
        TF_FMA16(even3_f32x16, w + 48, v_f32x16);
    }
    return (tf_f32x16x4){_mm512_add_ps(even0_f32x16, odd0_f32x16), _mm512_add_ps(even1_f32x16, odd1_f32x16),
                         _mm512_add_ps(even2_f32x16, odd2_f32x16), _mm512_add_ps(even3_f32x16, odd3_f32x16)};
}

#endif
