/* The step of lstm_f32.h in AVX2, for the weight format of the gemv_*_avx2.h included before. */
#ifndef TF_NN_LSTM_AVX2_H
#define TF_NN_LSTM_AVX2_H

#include "exp2_f32_avx2.h"
#include "lstm_f32.h"

TF_INLINE void tf_gates_avx2(__m256 zi, __m256 zf, __m256 zg, __m256 zo, float *c, float *h) {
    const tf_exp2_f32x8 ei = tf_exp2_avx2(tf_clamp_f32x8(zi, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
    const tf_exp2_f32x8 ef = tf_exp2_avx2(tf_clamp_f32x8(zf, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
    const tf_exp2_f32x8 eg = tf_exp2_avx2(tf_clamp_f32x8(zg, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
    const tf_exp2_f32x8 eo = tf_exp2_avx2(tf_clamp_f32x8(zo, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
    const __m256 f1_f32x8 = tf_exp2_plus1_avx2(ef);
    const __m256 ig_f32x8 = _mm256_mul_ps(tf_exp2_plus1_avx2(ei), tf_exp2_plus1_avx2(eg));
    const __m256 top_f32x8 = _mm256_fmadd_ps(_mm256_loadu_ps(c), ig_f32x8,
                                              _mm256_mul_ps(tf_exp2_minus1_avx2(eg), f1_f32x8));
    const __m256 next_f32x8 = _mm256_div_ps(top_f32x8, _mm256_mul_ps(f1_f32x8, ig_f32x8));
    const __m256 y_f32x8 = _mm256_mul_ps(next_f32x8, _mm256_set1_ps((float)(2.0 * TF_LOG2E)));
    const tf_exp2_f32x8 ec = tf_exp2_avx2(tf_clamp_f32x8(y_f32x8, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
    _mm256_storeu_ps(c, next_f32x8);
    _mm256_storeu_ps(h, _mm256_div_ps(tf_exp2_minus1_avx2(ec),
                                      _mm256_mul_ps(tf_exp2_plus1_avx2(eo), tf_exp2_plus1_avx2(ec))));
}

/* A sum as the exponent that the gates take; `natural`: the weights lack the factor log2(e) (lstm_f32.h). */
TF_INLINE __m256 tf_exponent_f32x8(__m256 z_f32x8, int natural) {
    return natural ? _mm256_mul_ps(z_f32x8, _mm256_set1_ps((float)TF_LOG2E)) : z_f32x8;
}

TF_INLINE void tf_exponents_avx2(__m256 zi, __m256 zf, __m256 zg, __m256 zo, int natural, float *c, float *h) {
    tf_gates_avx2(tf_exponent_f32x8(zi, natural), tf_exponent_f32x8(zf, natural),
                 tf_exponent_f32x8(zg, natural), tf_exponent_f32x8(zo, natural), c, h);
}

TF_INLINE void tf_lstm_panels_avx2(const TF_WEIGHT *w, const float *x, const float *pre, float *c, float *h,
                                   int32_t blocks, int32_t k, int natural) {
    for (; blocks >= 2; blocks -= 2, w += (size_t)k * 128, pre += 128, c += 32, h += 32)
        for (int b = 0; b < 2; b++) {
            const tf_f32x8x8 z = tf_panel8_avx2(w + 64 * b, x, pre + 64 * b, k);
            tf_exponents_avx2(z.v0, z.v2, z.v4, z.v6, natural, c + 16 * b, h + 16 * b);
            tf_exponents_avx2(z.v1, z.v3, z.v5, z.v7, natural, c + 16 * b + 8, h + 16 * b + 8);
        }
    if (blocks > 0)
        for (int half = 0; half < 16; half += 8) {
            const tf_f32x8x4 z = tf_panel4_avx2(w + half, x, pre + half, k);
            tf_exponents_avx2(z.v0, z.v1, z.v2, z.v3, natural, c + half, h + half);
        }
}

#endif
