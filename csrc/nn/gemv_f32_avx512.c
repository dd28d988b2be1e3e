#include "gemv_f32_avx512.h"

TF_INLINE tf_f32x16x2 panel2(const float *w, const float *x, const float *base, int32_t k) {
    __m512 a0_f32x16 = _mm512_loadu_ps(base), a1_f32x16 = _mm512_loadu_ps(base + 16);
    __m512 b0_f32x16 = _mm512_setzero_ps(), b1_f32x16 = b0_f32x16, c0_f32x16 = b0_f32x16, c1_f32x16 = b0_f32x16,
           d0_f32x16 = b0_f32x16, d1_f32x16 = b0_f32x16;
    int32_t i = 0;
    for (; i + 4 <= k; i += 4, w += 128) {
        const __m512 a_f32x16 = _mm512_set1_ps(x[i]), b_f32x16 = _mm512_set1_ps(x[i + 1]);
        const __m512 c_f32x16 = _mm512_set1_ps(x[i + 2]), d_f32x16 = _mm512_set1_ps(x[i + 3]);
        TF_FMA16(a0_f32x16, w, a_f32x16);
        TF_FMA16(a1_f32x16, w + 16, a_f32x16);
        TF_FMA16(b0_f32x16, w + 32, b_f32x16);
        TF_FMA16(b1_f32x16, w + 48, b_f32x16);
        TF_FMA16(c0_f32x16, w + 64, c_f32x16);
        TF_FMA16(c1_f32x16, w + 80, c_f32x16);
        TF_FMA16(d0_f32x16, w + 96, d_f32x16);
        TF_FMA16(d1_f32x16, w + 112, d_f32x16);
    }
    if (i < k) {
        const __m512 v_f32x16 = _mm512_set1_ps(x[i]);
        TF_FMA16(a0_f32x16, w, v_f32x16);
        TF_FMA16(a1_f32x16, w + 16, v_f32x16);
    }
    if (i + 1 < k) {
        const __m512 v_f32x16 = _mm512_set1_ps(x[i + 1]);
        TF_FMA16(b0_f32x16, w + 32, v_f32x16);
        TF_FMA16(b1_f32x16, w + 48, v_f32x16);
    }
    if (i + 2 < k) {
        const __m512 v_f32x16 = _mm512_set1_ps(x[i + 2]);
        TF_FMA16(c0_f32x16, w + 64, v_f32x16);
        TF_FMA16(c1_f32x16, w + 80, v_f32x16);
    }
    return (tf_f32x16x2){
        _mm512_add_ps(_mm512_add_ps(a0_f32x16, b0_f32x16), _mm512_add_ps(c0_f32x16, d0_f32x16)),
        _mm512_add_ps(_mm512_add_ps(a1_f32x16, b1_f32x16), _mm512_add_ps(c1_f32x16, d1_f32x16))};
}

TF_INLINE __m512 panel1(const float *w, const float *x, const float *base, int32_t k) {
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

void tf_gemv_f32_avx512(const float *w, const float *x, const float *base, float *z, int32_t rows, int32_t k) {
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
        const tf_f32x16x2 sum = panel2(w, x, base, k);
        _mm512_storeu_ps(z, sum.v0);
        _mm512_storeu_ps(z + 16, sum.v1);
        left -= 2, w += (size_t)k * 32, base += 32, z += 32;
    }
    if (left >= 1) _mm512_storeu_ps(z, panel1(w, x, base, k));
}
