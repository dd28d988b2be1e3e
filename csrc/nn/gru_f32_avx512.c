#include "exp2_f32_avx512.h"
#include "gru_f32.h"

#define TF_INLINE static inline __attribute__((always_inline))

TF_INLINE tf_exp2_f32x16 exponential(__m512 z_f32x16) {
    return tf_exp2_avx512(tf_clamp_f32x16(z_f32x16, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
}

/* 1 / (1 + 2^z), with the wider clamp. */
TF_INLINE __m512 gate(__m512 z_f32x16) {
    const tf_exp2_f32x16 e = tf_exp2_avx512(tf_clamp_f32x16(z_f32x16, TF_EXP2_LOWEST, -TF_EXP2_LOWEST));
    return _mm512_div_ps(_mm512_set1_ps(1.0f), tf_exp2_plus1_avx512(e));
}

TF_INLINE __m512 sum(const float *zx, const float *zh) {
    return _mm512_add_ps(_mm512_loadu_ps(zx), _mm512_loadu_ps(zh));
}

TF_INLINE void next(__m512 zu_f32x16, __m512 zn_f32x16, float *h) {
    const tf_exp2_f32x16 u = exponential(zu_f32x16), n = exponential(zn_f32x16);
    const __m512 n1_f32x16 = tf_exp2_plus1_avx512(n);
    const __m512 top_f32x16 = _mm512_fmadd_ps(_mm512_loadu_ps(h), n1_f32x16,
                                              _mm512_mul_ps(tf_exp2_value_avx512(u), tf_exp2_minus1_avx512(n)));
    _mm512_storeu_ps(h, _mm512_div_ps(top_f32x16, _mm512_mul_ps(tf_exp2_plus1_avx512(u), n1_f32x16)));
}

void tf_gru_gates_f32_avx512(const float *zx, const float *zh, float *h, int32_t blocks) {
    const int32_t units = 16 * blocks;
    for (int32_t i = 0; i < units; i += 16) {
        const __m512 reset_f32x16 = gate(sum(zx + i, zh + i));
        const __m512 zn_f32x16 = _mm512_fmadd_ps(reset_f32x16, _mm512_loadu_ps(zh + 2 * units + i),
                                               _mm512_loadu_ps(zx + 2 * units + i));
        next(sum(zx + units + i, zh + units + i), zn_f32x16, h + i);
    }
}

void tf_gru_reset_f32_avx512(const float *zx, const float *zh, const float *h, float *rh, int32_t blocks) {
    for (int32_t i = 0; i < 16 * blocks; i += 16)
        _mm512_storeu_ps(rh + i, _mm512_mul_ps(gate(sum(zx + i, zh + i)), _mm512_loadu_ps(h + i)));
}

void tf_gru_late_f32_avx512(const float *zx, const float *zh, float *h, int32_t blocks) {
    const int32_t units = 16 * blocks;
    for (int32_t i = 0; i < units; i += 16)
        next(sum(zx + units + i, zh + units + i), sum(zx + 2 * units + i, zh + 2 * units + i), h + i);
}
