/* 2^z on 8 lanes (AVX2 + FMA); see exp2_f32.h. */
#ifndef TF_NN_EXP2_F32_AVX2_H
#define TF_NN_EXP2_F32_AVX2_H

#include "exp2_f32.h"

#include <immintrin.h>

typedef struct tf_exp2_f32x8 {
    __m256 s, fq; /* 2^z = fma(s, fq, s) */
} tf_exp2_f32x8;

static inline __attribute__((always_inline)) __m256 tf_clamp_f32x8(__m256 z, float low, float high) {
    return _mm256_max_ps(_mm256_set1_ps(low), _mm256_min_ps(_mm256_set1_ps(high), z));
}

/* From t = n + TF_EXP2_MAGIC and f. */
static inline __attribute__((always_inline)) tf_exp2_f32x8 tf_exp2_split_avx2(__m256 t_f32x8, __m256 f_f32x8) {
    __m256 q_f32x8 = _mm256_set1_ps(TF_EXP2_Q5);
    q_f32x8 = _mm256_fmadd_ps(q_f32x8, f_f32x8, _mm256_set1_ps(TF_EXP2_Q4));
    q_f32x8 = _mm256_fmadd_ps(q_f32x8, f_f32x8, _mm256_set1_ps(TF_EXP2_Q3));
    q_f32x8 = _mm256_fmadd_ps(q_f32x8, f_f32x8, _mm256_set1_ps(TF_EXP2_Q2));
    q_f32x8 = _mm256_fmadd_ps(q_f32x8, f_f32x8, _mm256_set1_ps(TF_EXP2_Q1));
    q_f32x8 = _mm256_fmadd_ps(q_f32x8, f_f32x8, _mm256_set1_ps(TF_EXP2_Q0));
    const __m256i s_i32x8 =
        _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(t_f32x8), 23), _mm256_set1_epi32(TF_EXP2_ONE));
    return (tf_exp2_f32x8){_mm256_castsi256_ps(s_i32x8), _mm256_mul_ps(f_f32x8, q_f32x8)};
}

static inline __attribute__((always_inline)) tf_exp2_f32x8 tf_exp2_avx2(__m256 z_f32x8) {
    const __m256 magic_f32x8 = _mm256_set1_ps(TF_EXP2_MAGIC);
    const __m256 t_f32x8 = _mm256_add_ps(z_f32x8, magic_f32x8);
    return tf_exp2_split_avx2(t_f32x8, _mm256_sub_ps(z_f32x8, _mm256_sub_ps(t_f32x8, magic_f32x8)));
}

/* 2^z, 2^z + 1 and 2^z - 1 */
static inline __attribute__((always_inline)) __m256 tf_exp2_value_avx2(tf_exp2_f32x8 e) {
    return _mm256_fmadd_ps(e.s, e.fq, e.s);
}
static inline __attribute__((always_inline)) __m256 tf_exp2_plus1_avx2(tf_exp2_f32x8 e) {
    return _mm256_fmadd_ps(e.s, e.fq, _mm256_add_ps(e.s, _mm256_set1_ps(1.0f)));
}
static inline __attribute__((always_inline)) __m256 tf_exp2_minus1_avx2(tf_exp2_f32x8 e) {
    return _mm256_fmadd_ps(e.s, e.fq, _mm256_sub_ps(e.s, _mm256_set1_ps(1.0f)));
}

#endif
