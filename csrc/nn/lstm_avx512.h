/* The step of lstm_f32.h in AVX-512, for the weight format of the gemv_*_avx512.h included before. */
#ifndef TF_NN_LSTM_AVX512_H
#define TF_NN_LSTM_AVX512_H

#include "exp2_f32_avx512.h"
#include "lstm_f32.h"

TF_INLINE void tf_gates_avx512(__m512 zi, __m512 zf, __m512 zg, __m512 zo, float *c, float *h) {
    const tf_exp2_f32x16 ei = tf_exp2_avx512(tf_clamp_f32x16(zi, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
    const tf_exp2_f32x16 ef = tf_exp2_avx512(tf_clamp_f32x16(zf, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
    const tf_exp2_f32x16 eg = tf_exp2_avx512(tf_clamp_f32x16(zg, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
    const tf_exp2_f32x16 eo = tf_exp2_avx512(tf_clamp_f32x16(zo, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
    const __m512 f1_f32x16 = tf_exp2_plus1_avx512(ef);
    const __m512 ig_f32x16 = _mm512_mul_ps(tf_exp2_plus1_avx512(ei), tf_exp2_plus1_avx512(eg));
    const __m512 top_f32x16 = _mm512_fmadd_ps(_mm512_loadu_ps(c), ig_f32x16,
                                              _mm512_mul_ps(tf_exp2_minus1_avx512(eg), f1_f32x16));
    const __m512 next_f32x16 = _mm512_div_ps(top_f32x16, _mm512_mul_ps(f1_f32x16, ig_f32x16));
    const __m512 y_f32x16 = _mm512_mul_ps(next_f32x16, _mm512_set1_ps((float)(2.0 * TF_LOG2E)));
    const tf_exp2_f32x16 ec = tf_exp2_avx512(tf_clamp_f32x16(y_f32x16, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
    _mm512_storeu_ps(c, next_f32x16);
    _mm512_storeu_ps(h, _mm512_div_ps(tf_exp2_minus1_avx512(ec),
                                      _mm512_mul_ps(tf_exp2_plus1_avx512(eo), tf_exp2_plus1_avx512(ec))));
}

/* A sum as the exponent that the gates take; `natural`: the weights lack the factor log2(e) (lstm_f32.h). */
TF_INLINE __m512 tf_exponent_f32x16(__m512 z_f32x16, int natural) {
    return natural ? _mm512_mul_ps(z_f32x16, _mm512_set1_ps((float)TF_LOG2E)) : z_f32x16;
}

TF_INLINE void tf_exponents_avx512(__m512 zi, __m512 zf, __m512 zg, __m512 zo, int natural, float *c, float *h) {
    tf_gates_avx512(tf_exponent_f32x16(zi, natural), tf_exponent_f32x16(zf, natural),
                 tf_exponent_f32x16(zg, natural), tf_exponent_f32x16(zo, natural), c, h);
}

TF_INLINE void tf_lstm_panels_avx512(const TF_WEIGHT *w, const float *x, const float *pre, float *c, float *h,
                                   int32_t blocks, int32_t k, int natural) {
    for (; blocks >= 2; blocks -= 2, w += (size_t)k * 128, pre += 128, c += 32, h += 32) {
        const tf_f32x16x8 z = tf_panel8_avx512(w, x, pre, k);
        tf_exponents_avx512(z.v0, z.v1, z.v2, z.v3, natural, c, h);
        tf_exponents_avx512(z.v4, z.v5, z.v6, z.v7, natural, c + 16, h + 16);
    }
    if (blocks > 0) {
        const tf_f32x16x4 z = tf_panel4_avx512(w, x, pre, k);
        tf_exponents_avx512(z.v0, z.v1, z.v2, z.v3, natural, c, h);
    }
}

#endif
