#include "exp2_f32_avx2.h"
#include "gru_f32.h"

#define TF_INLINE static inline __attribute__((always_inline))

TF_INLINE tf_exp2_f32x8 exponential(__m256 z_f32x8) {
    return tf_exp2_avx2(tf_clamp_f32x8(z_f32x8, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
}

/* 1 / (1 + 2^z), with the wider clamp. */
TF_INLINE __m256 gate(__m256 z_f32x8) {
    const tf_exp2_f32x8 e = tf_exp2_avx2(tf_clamp_f32x8(z_f32x8, TF_EXP2_LOWEST, -TF_EXP2_LOWEST));
    return _mm256_div_ps(_mm256_set1_ps(1.0f), tf_exp2_plus1_avx2(e));
}

TF_INLINE __m256 sum(const float *zx, const float *zh) {
    return _mm256_add_ps(_mm256_loadu_ps(zx), _mm256_loadu_ps(zh));
}

TF_INLINE void next(__m256 zu_f32x8, __m256 zn_f32x8, float *h) {
    const tf_exp2_f32x8 u = exponential(zu_f32x8), n = exponential(zn_f32x8);
    const __m256 n1_f32x8 = tf_exp2_plus1_avx2(n);
    const __m256 top_f32x8 = _mm256_fmadd_ps(_mm256_loadu_ps(h), n1_f32x8,
                                              _mm256_mul_ps(tf_exp2_value_avx2(u), tf_exp2_minus1_avx2(n)));
    _mm256_storeu_ps(h, _mm256_div_ps(top_f32x8, _mm256_mul_ps(tf_exp2_plus1_avx2(u), n1_f32x8)));
}

void tf_gru_gates_f32_avx2(const float *zx, const float *zh, float *h, int32_t blocks) {
    const int32_t units = 16 * blocks;
    for (int32_t i = 0; i < units; i += 8) {
        const __m256 reset_f32x8 = gate(sum(zx + i, zh + i));
        const __m256 zn_f32x8 = _mm256_fmadd_ps(reset_f32x8, _mm256_loadu_ps(zh + 2 * units + i),
                                               _mm256_loadu_ps(zx + 2 * units + i));
        next(sum(zx + units + i, zh + units + i), zn_f32x8, h + i);
    }
}

void tf_gru_reset_f32_avx2(const float *zx, const float *zh, const float *h, float *rh, int32_t blocks) {
    for (int32_t i = 0; i < 16 * blocks; i += 8)
        _mm256_storeu_ps(rh + i, _mm256_mul_ps(gate(sum(zx + i, zh + i)), _mm256_loadu_ps(h + i)));
}

void tf_gru_late_f32_avx2(const float *zx, const float *zh, float *h, int32_t blocks) {
    const int32_t units = 16 * blocks;
    for (int32_t i = 0; i < units; i += 8)
        next(sum(zx + units + i, zh + units + i), sum(zx + 2 * units + i, zh + 2 * units + i), h + i);
}
