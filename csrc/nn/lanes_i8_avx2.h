/* What the 256-bit integer kernels share: 2^z, the LSTM's gates and quantising, on 8 lanes; see lstm_i8.h and
 * gemv_i8.h. */
#ifndef TF_NN_LANES_I8_AVX2_H
#define TF_NN_LANES_I8_AVX2_H

#include "exp2_f32_avx2.h"
#include "lstm_i8.h"

typedef struct tf_exp2_i8x8 {
    __m256 s, p; /* 2^z = s p */
} tf_exp2_i8x8;

static inline __attribute__((always_inline)) tf_exp2_i8x8 tf_exp2_i8_avx2(__m256 z_f32x8) {
    const __m256 magic_f32x8 = _mm256_set1_ps(TF_EXP2_I8_MAGIC);
    const __m256 t_f32x8 = _mm256_add_ps(z_f32x8, magic_f32x8);
    const __m256 f_f32x8 = _mm256_sub_ps(z_f32x8, _mm256_sub_ps(t_f32x8, magic_f32x8));
    const __m256i t_i32x8 = _mm256_castps_si256(t_f32x8);
    /* The table in two halves; bit 3 of the index chooses. */
    const __m256i first_i32x8 = _mm256_loadu_si256((const __m256i *)TF_EXP2_I8_TABLE);
    const __m256i second_i32x8 = _mm256_loadu_si256((const __m256i *)(TF_EXP2_I8_TABLE + 8));
    const __m256 root_f32x8 = _mm256_blendv_ps(_mm256_castsi256_ps(_mm256_permutevar8x32_epi32(first_i32x8, t_i32x8)),
                                               _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(second_i32x8, t_i32x8)),
                                               _mm256_castsi256_ps(_mm256_slli_epi32(t_i32x8, 28)));
    const __m256 slope_f32x8 = _mm256_fmadd_ps(_mm256_set1_ps(TF_EXP2_I8_Q1), f_f32x8, _mm256_set1_ps(TF_EXP2_I8_Q0));
    return (tf_exp2_i8x8){
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(root_f32x8), _mm256_slli_epi32(t_i32x8, 19))),
        _mm256_fmadd_ps(f_f32x8, slope_f32x8, _mm256_set1_ps(1.0f))};
}

static inline __attribute__((always_inline)) tf_exp2_i8x8 tf_exp2_i8_clamped_avx2(__m256 z_f32x8) {
    return tf_exp2_i8_avx2(tf_clamp_f32x8(z_f32x8, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
}

static inline __attribute__((always_inline)) __m256 tf_exp2_i8_plus_avx2(tf_exp2_i8x8 e, float addend) {
    return _mm256_fmadd_ps(e.s, e.p, _mm256_set1_ps(addend));
}

/* Eight units whose gates stand 16 floats apart at z: updates c and h. */
static inline __attribute__((always_inline)) void tf_gates_i8_avx2(const float *z, float *c, float *h) {
    const tf_exp2_i8x8 ei = tf_exp2_i8_clamped_avx2(_mm256_loadu_ps(z));
    const tf_exp2_i8x8 ef = tf_exp2_i8_clamped_avx2(_mm256_loadu_ps(z + 16));
    const tf_exp2_i8x8 eg = tf_exp2_i8_clamped_avx2(_mm256_loadu_ps(z + 32));
    const tf_exp2_i8x8 eo = tf_exp2_i8_clamped_avx2(_mm256_loadu_ps(z + 48));
    const __m256 f1_f32x8 = tf_exp2_i8_plus_avx2(ef, 1.0f);
    const __m256 ig_f32x8 = _mm256_mul_ps(tf_exp2_i8_plus_avx2(ei, 1.0f), tf_exp2_i8_plus_avx2(eg, 1.0f));
    const __m256 top_f32x8 =
        _mm256_fmadd_ps(_mm256_loadu_ps(c), ig_f32x8, _mm256_mul_ps(tf_exp2_i8_plus_avx2(eg, -1.0f), f1_f32x8));
    const __m256 next_f32x8 = _mm256_div_ps(top_f32x8, _mm256_mul_ps(f1_f32x8, ig_f32x8));
    const tf_exp2_i8x8 ec = tf_exp2_i8_clamped_avx2(_mm256_mul_ps(next_f32x8, _mm256_set1_ps((float)(2.0 * TF_LOG2E))));
    _mm256_storeu_ps(c, next_f32x8);
    _mm256_storeu_ps(h, _mm256_div_ps(tf_exp2_i8_plus_avx2(ec, -1.0f),
                                      _mm256_mul_ps(tf_exp2_i8_plus_avx2(eo, 1.0f), tf_exp2_i8_plus_avx2(ec, 1.0f))));
}

/* Quanta of x * inverse as in lanes_i8_avx512.h; 0 for NaN, which is reported. */
static inline __attribute__((always_inline)) __m256i tf_quantum_avx2(__m256 x_f32x8, __m256 inverse_f32x8, float high,
                                                                     int32_t *nan) {
    const __m256 plain_f32x8 = _mm256_cmp_ps(x_f32x8, x_f32x8, _CMP_ORD_Q);
    if (_mm256_movemask_ps(plain_f32x8) != 0xFF) *nan |= 1;
    const __m256 v_f32x8 = _mm256_mul_ps(_mm256_and_ps(plain_f32x8, x_f32x8), inverse_f32x8);
    return _mm256_cvtps_epi32(_mm256_min_ps(v_f32x8, _mm256_set1_ps(high)));
}

/* Sixteen activations of gemv_i8.h, offset 128. */
static inline __attribute__((always_inline)) __m128i tf_quantize16_avx2(__m256 a_f32x8, __m256 b_f32x8,
                                                                        __m256 inverse_f32x8, int32_t *nan) {
    const __m256i v_i16x16 = _mm256_packs_epi32(tf_quantum_avx2(a_f32x8, inverse_f32x8, 127.0f, nan),
                                                tf_quantum_avx2(b_f32x8, inverse_f32x8, 127.0f, nan));
    const __m256i sorted_i16x16 = _mm256_permute4x64_epi64(v_i16x16, 0xD8);
    const __m128i q_i8x16 =
        _mm_packs_epi16(_mm256_castsi256_si128(sorted_i16x16), _mm256_extracti128_si256(sorted_i16x16, 1));
    return _mm_xor_si128(q_i8x16, _mm_set1_epi8(-128));
}

/* Eight floats of which `left` (any number) exist; the others are 0. */
static inline __attribute__((always_inline)) __m256 tf_load_first_avx2(const float *x, int32_t left) {
    if (left >= 8) return _mm256_loadu_ps(x);
    if (left <= 0) return _mm256_setzero_ps();
    return _mm256_maskload_ps(x,
                              _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
}

#endif
