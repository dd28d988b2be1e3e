#include "exp2_f32_avx2.h"
#include "gemv_f32_avx2.h"
#include "lstm_f32.h"

TF_INLINE void gates(__m256 zi, __m256 zf, __m256 zg, __m256 zo, float *c, float *h) {
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

void tf_lstm_gates_f32_avx2(const float *z, float *c, float *h, int32_t blocks) {
    for (int32_t b = 0; b < blocks; b++, z += 64, c += 16, h += 16)
        for (int half = 0; half < 16; half += 8)
            gates(_mm256_loadu_ps(z + half), _mm256_loadu_ps(z + 16 + half), _mm256_loadu_ps(z + 32 + half),
                  _mm256_loadu_ps(z + 48 + half), c + half, h + half);
}

void tf_lstm_finish_f32_avx2(const float *w, const float *x, const float *pre, float *c, float *h, int32_t blocks,
                             int32_t k) {
    for (; blocks >= 2; blocks -= 2, w += (size_t)k * 128, pre += 128, c += 32, h += 32)
        for (int b = 0; b < 2; b++) {
            const tf_f32x8x8 z = tf_panel8_avx2(w + 64 * b, x, pre + 64 * b, k);
            gates(z.v0, z.v2, z.v4, z.v6, c + 16 * b, h + 16 * b);
            gates(z.v1, z.v3, z.v5, z.v7, c + 16 * b + 8, h + 16 * b + 8);
        }
    if (blocks > 0)
        for (int half = 0; half < 16; half += 8) {
            const tf_f32x8x4 z = tf_panel4_avx2(w + half, x, pre + half, k);
            gates(z.v0, z.v1, z.v2, z.v3, c + half, h + half);
        }
}
