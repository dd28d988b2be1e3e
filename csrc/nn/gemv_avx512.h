/* The panels of gemv_f32.h in AVX-512, shared by gemv and by the fused LSTM step, for every weight format. A file
 * includes this after it has said what a weight is: gemv_f32_avx512.h, gemv_f16_avx512.h, gemv_bf16_avx512.h define
 *
 *     TF_WEIGHT                     type of a packed weight
 *     TF_FMA16(sum, w, v)           sum += (16 weights at w) v
 *     TF_FMA16X2(sum0, sum1, w, v)  the same for the 16 weights at w and the 16 after them
 *     TF_PART16(a, b), TF_JOIN16(a, b)  to and from the order of lanes in which TF_FMA16X2 keeps two sums
 *
 * gcc keeps named sums in registers where it spills arrays, hence the macros. */
#ifndef TF_NN_GEMV_AVX512_H
#define TF_NN_GEMV_AVX512_H

#include "gemv_f32.h"

#include <immintrin.h>

typedef struct tf_f32x16x8 { __m512 v0, v1, v2, v3, v4, v5, v6, v7; } tf_f32x16x8;
typedef struct tf_f32x16x4 { __m512 v0, v1, v2, v3; } tf_f32x16x4;
typedef struct tf_f32x16x2 { __m512 v0, v1; } tf_f32x16x2;

TF_INLINE tf_f32x16x8 tf_panel8_avx512(const TF_WEIGHT *w, const float *x, const float *base, int32_t k) {
    __m512 sum0_f32x16 = _mm512_loadu_ps(base), sum1_f32x16 = _mm512_loadu_ps(base + 16);
    __m512 sum2_f32x16 = _mm512_loadu_ps(base + 32), sum3_f32x16 = _mm512_loadu_ps(base + 48);
    __m512 sum4_f32x16 = _mm512_loadu_ps(base + 64), sum5_f32x16 = _mm512_loadu_ps(base + 80);
    __m512 sum6_f32x16 = _mm512_loadu_ps(base + 96), sum7_f32x16 = _mm512_loadu_ps(base + 112);
    TF_PART16(sum0_f32x16, sum1_f32x16);
    TF_PART16(sum2_f32x16, sum3_f32x16);
    TF_PART16(sum4_f32x16, sum5_f32x16);
    TF_PART16(sum6_f32x16, sum7_f32x16);
    for (int32_t i = 0; i < k; i++, w += 128) {
        const __m512 v_f32x16 = _mm512_set1_ps(x[i]);
        TF_FMA16X2(sum0_f32x16, sum1_f32x16, w, v_f32x16);
        TF_FMA16X2(sum2_f32x16, sum3_f32x16, w + 32, v_f32x16);
        TF_FMA16X2(sum4_f32x16, sum5_f32x16, w + 64, v_f32x16);
        TF_FMA16X2(sum6_f32x16, sum7_f32x16, w + 96, v_f32x16);
    }
    TF_JOIN16(sum0_f32x16, sum1_f32x16);
    TF_JOIN16(sum2_f32x16, sum3_f32x16);
    TF_JOIN16(sum4_f32x16, sum5_f32x16);
    TF_JOIN16(sum6_f32x16, sum7_f32x16);
    return (tf_f32x16x8){sum0_f32x16, sum1_f32x16, sum2_f32x16, sum3_f32x16,
                         sum4_f32x16, sum5_f32x16, sum6_f32x16, sum7_f32x16};
}

TF_INLINE tf_f32x16x4 tf_panel4_avx512(const TF_WEIGHT *w, const float *x, const float *base, int32_t k) {
    __m512 even0_f32x16 = _mm512_loadu_ps(base), even1_f32x16 = _mm512_loadu_ps(base + 16);
    __m512 even2_f32x16 = _mm512_loadu_ps(base + 32), even3_f32x16 = _mm512_loadu_ps(base + 48);
    __m512 odd0_f32x16 = _mm512_setzero_ps(), odd1_f32x16 = odd0_f32x16, odd2_f32x16 = odd0_f32x16,
           odd3_f32x16 = odd0_f32x16;
    TF_PART16(even0_f32x16, even1_f32x16);
    TF_PART16(even2_f32x16, even3_f32x16);
    int32_t i = 0;
    for (; i + 2 <= k; i += 2, w += 128) {
        const __m512 v_f32x16 = _mm512_set1_ps(x[i]), u_f32x16 = _mm512_set1_ps(x[i + 1]);
        TF_FMA16X2(even0_f32x16, even1_f32x16, w, v_f32x16);
        TF_FMA16X2(even2_f32x16, even3_f32x16, w + 32, v_f32x16);
        TF_FMA16X2(odd0_f32x16, odd1_f32x16, w + 64, u_f32x16);
        TF_FMA16X2(odd2_f32x16, odd3_f32x16, w + 96, u_f32x16);
    }
    if (i < k) {
        const __m512 v_f32x16 = _mm512_set1_ps(x[i]);
        TF_FMA16X2(even0_f32x16, even1_f32x16, w, v_f32x16);
        TF_FMA16X2(even2_f32x16, even3_f32x16, w + 32, v_f32x16);
    }
    even0_f32x16 = _mm512_add_ps(even0_f32x16, odd0_f32x16);
    even1_f32x16 = _mm512_add_ps(even1_f32x16, odd1_f32x16);
    even2_f32x16 = _mm512_add_ps(even2_f32x16, odd2_f32x16);
    even3_f32x16 = _mm512_add_ps(even3_f32x16, odd3_f32x16);
    TF_JOIN16(even0_f32x16, even1_f32x16);
    TF_JOIN16(even2_f32x16, even3_f32x16);
    return (tf_f32x16x4){even0_f32x16, even1_f32x16, even2_f32x16, even3_f32x16};
}

TF_INLINE tf_f32x16x2 tf_panel2_avx512(const TF_WEIGHT *w, const float *x, const float *base, int32_t k) {
    __m512 a0_f32x16 = _mm512_loadu_ps(base), a1_f32x16 = _mm512_loadu_ps(base + 16);
    __m512 b0_f32x16 = _mm512_setzero_ps(), b1_f32x16 = b0_f32x16, c0_f32x16 = b0_f32x16, c1_f32x16 = b0_f32x16,
           d0_f32x16 = b0_f32x16, d1_f32x16 = b0_f32x16;
    TF_PART16(a0_f32x16, a1_f32x16);
    int32_t i = 0;
    for (; i + 4 <= k; i += 4, w += 128) {
        const __m512 a_f32x16 = _mm512_set1_ps(x[i]), b_f32x16 = _mm512_set1_ps(x[i + 1]);
        const __m512 c_f32x16 = _mm512_set1_ps(x[i + 2]), d_f32x16 = _mm512_set1_ps(x[i + 3]);
        TF_FMA16X2(a0_f32x16, a1_f32x16, w, a_f32x16);
        TF_FMA16X2(b0_f32x16, b1_f32x16, w + 32, b_f32x16);
        TF_FMA16X2(c0_f32x16, c1_f32x16, w + 64, c_f32x16);
        TF_FMA16X2(d0_f32x16, d1_f32x16, w + 96, d_f32x16);
    }
    if (i < k) {
        const __m512 v_f32x16 = _mm512_set1_ps(x[i]);
        TF_FMA16X2(a0_f32x16, a1_f32x16, w, v_f32x16);
    }
    if (i + 1 < k) {
        const __m512 v_f32x16 = _mm512_set1_ps(x[i + 1]);
        TF_FMA16X2(b0_f32x16, b1_f32x16, w + 32, v_f32x16);
    }
    if (i + 2 < k) {
        const __m512 v_f32x16 = _mm512_set1_ps(x[i + 2]);
        TF_FMA16X2(c0_f32x16, c1_f32x16, w + 64, v_f32x16);
    }
    a0_f32x16 = _mm512_add_ps(_mm512_add_ps(a0_f32x16, b0_f32x16), _mm512_add_ps(c0_f32x16, d0_f32x16));
    a1_f32x16 = _mm512_add_ps(_mm512_add_ps(a1_f32x16, b1_f32x16), _mm512_add_ps(c1_f32x16, d1_f32x16));
    TF_JOIN16(a0_f32x16, a1_f32x16);
    return (tf_f32x16x2){a0_f32x16, a1_f32x16};
}

TF_INLINE __m512 tf_panel1_avx512(const TF_WEIGHT *w, const float *x, const float *base, int32_t k) {
    __m512 sum0_f32x16 = _mm512_loadu_ps(base), sum1_f32x16 = _mm512_setzero_ps(), sum2_f32x16 = sum1_f32x16,
           sum3_f32x16 = sum1_f32x16, sum4_f32x16 = sum1_f32x16, sum5_f32x16 = sum1_f32x16, sum6_f32x16 = sum1_f32x16,
           sum7_f32x16 = sum1_f32x16;
    int32_t i = 0;
    for (; i + 8 <= k; i += 8, w += 128) {
        TF_FMA16(sum0_f32x16, w, _mm512_set1_ps(x[i]));
        TF_FMA16(sum1_f32x16, w + 16, _mm512_set1_ps(x[i + 1]));
        TF_FMA16(sum2_f32x16, w + 32, _mm512_set1_ps(x[i + 2]));
        TF_FMA16(sum3_f32x16, w + 48, _mm512_set1_ps(x[i + 3]));
        TF_FMA16(sum4_f32x16, w + 64, _mm512_set1_ps(x[i + 4]));
        TF_FMA16(sum5_f32x16, w + 80, _mm512_set1_ps(x[i + 5]));
        TF_FMA16(sum6_f32x16, w + 96, _mm512_set1_ps(x[i + 6]));
        TF_FMA16(sum7_f32x16, w + 112, _mm512_set1_ps(x[i + 7]));
    }
    if (i < k) TF_FMA16(sum0_f32x16, w, _mm512_set1_ps(x[i]));
    if (i + 1 < k) TF_FMA16(sum1_f32x16, w + 16, _mm512_set1_ps(x[i + 1]));
    if (i + 2 < k) TF_FMA16(sum2_f32x16, w + 32, _mm512_set1_ps(x[i + 2]));
    if (i + 3 < k) TF_FMA16(sum3_f32x16, w + 48, _mm512_set1_ps(x[i + 3]));
    if (i + 4 < k) TF_FMA16(sum4_f32x16, w + 64, _mm512_set1_ps(x[i + 4]));
    if (i + 5 < k) TF_FMA16(sum5_f32x16, w + 80, _mm512_set1_ps(x[i + 5]));
    if (i + 6 < k) TF_FMA16(sum6_f32x16, w + 96, _mm512_set1_ps(x[i + 6]));
    const __m512 low_f32x16 =
        _mm512_add_ps(_mm512_add_ps(sum0_f32x16, sum1_f32x16), _mm512_add_ps(sum2_f32x16, sum3_f32x16));
    const __m512 high_f32x16 =
        _mm512_add_ps(_mm512_add_ps(sum4_f32x16, sum5_f32x16), _mm512_add_ps(sum6_f32x16, sum7_f32x16));
    return _mm512_add_ps(low_f32x16, high_f32x16);
}

TF_INLINE void tf_gemv_panels_avx512(const TF_WEIGHT *w, const float *x, const float *base, float *z, int32_t rows,
                                     int32_t k) {
    int32_t left = (rows + 15) / 16;
    for (; left >= 8; left -= 8, w += (size_t)k * 128, base += 128, z += 128) {
        const tf_f32x16x8 sum = tf_panel8_avx512(w, x, base, k);
        _mm512_storeu_ps(z, sum.v0);
        _mm512_storeu_ps(z + 16, sum.v1);
        _mm512_storeu_ps(z + 32, sum.v2);
        _mm512_storeu_ps(z + 48, sum.v3);
        _mm512_storeu_ps(z + 64, sum.v4);
        _mm512_storeu_ps(z + 80, sum.v5);
        _mm512_storeu_ps(z + 96, sum.v6);
        _mm512_storeu_ps(z + 112, sum.v7);
    }
    if (left >= 4) {
        const tf_f32x16x4 sum = tf_panel4_avx512(w, x, base, k);
        _mm512_storeu_ps(z, sum.v0);
        _mm512_storeu_ps(z + 16, sum.v1);
        _mm512_storeu_ps(z + 32, sum.v2);
        _mm512_storeu_ps(z + 48, sum.v3);
        left -= 4, w += (size_t)k * 64, base += 64, z += 64;
    }
    if (left >= 2) {
        const tf_f32x16x2 sum = tf_panel2_avx512(w, x, base, k);
        _mm512_storeu_ps(z, sum.v0);
        _mm512_storeu_ps(z + 16, sum.v1);
        left -= 2, w += (size_t)k * 32, base += 32, z += 32;
    }
    if (left >= 1) _mm512_storeu_ps(z, tf_panel1_avx512(w, x, base, k));
}

#endif
