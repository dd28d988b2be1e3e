#include "gemv_f32_avx2.h"

/* Eight lanes of a panel of 2 groups, then of 1. */
TF_INLINE tf_f32x8x2 panel2(const float *w, const float *x, const float *base, int32_t k) {
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

TF_INLINE __m256 panel1(const float *w, const float *x, const float *base, int32_t k) {
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

void tf_gemv_f32_avx2(const float *w, const float *x, const float *base, float *z, int32_t rows, int32_t k) {
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
            const tf_f32x8x2 sum = panel2(w + half, x, base + half, k);
            _mm256_storeu_ps(z + half, sum.v0);
            _mm256_storeu_ps(z + half + 16, sum.v1);
        }
        left -= 2, w += (size_t)k * 32, base += 32, z += 32;
    }
    if (left >= 1)
        for (int half = 0; half < 16; half += 8)
            _mm256_storeu_ps(z + half, panel1(w + half, x, base + half, k));
}
