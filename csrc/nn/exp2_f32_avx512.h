/* 2^z on 16 lanes (AVX-512F); see exp2_f32.h. */
#ifndef TF_NN_EXP2_F32_AVX512_H
#define TF_NN_EXP2_F32_AVX512_H

#include "exp2_f32.h"

#include <immintrin.h>

typedef struct tf_exp2_f32x16 {
    __m512 s, fq; /* 2^z = fma(s, fq, s) */
} tf_exp2_f32x16;

static inline __attribute__((always_inline)) __m512 tf_clamp_f32x16(__m512 z, float low, float high) {
    return _mm512_max_ps(_mm512_set1_ps(low), _mm512_min_ps(_mm512_set1_ps(high), z));
}

/* From t = n + TF_EXP2_MAGIC and f. */
static inline __attribute__((always_inline)) tf_exp2_f32x16 tf_exp2_split_avx512(__m512 t_f32x16, __m512 f_f32x16) {
    __m512 q_f32x16 = _mm512_set1_ps(TF_EXP2_Q5);
    q_f32x16 = _mm512_fmadd_ps(q_f32x16, f_f32x16, _mm512_set1_ps(TF_EXP2_Q4));
    q_f32x16 = _mm512_fmadd_ps(q_f32x16, f_f32x16, _mm512_set1_ps(TF_EXP2_Q3));
    q_f32x16 = _mm512_fmadd_ps(q_f32x16, f_f32x16, _mm512_set1_ps(TF_EXP2_Q2));
    q_f32x16 = _mm512_fmadd_ps(q_f32x16, f_f32x16, _mm512_set1_ps(TF_EXP2_Q1));
    q_f32x16 = _mm512_fmadd_ps(q_f32x16, f_f32x16, _mm512_set1_ps(TF_EXP2_Q0));
    const __m512i s_i32x16 =
        _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(t_f32x16), 23), _mm512_set1_epi32(TF_EXP2_ONE));
    return (tf_exp2_f32x16){_mm512_castsi512_ps(s_i32x16), _mm512_mul_ps(f_f32x16, q_f32x16)};
}

static inline __attribute__((always_inline)) tf_exp2_f32x16 tf_exp2_avx512(__m512 z_f32x16) {
    const __m512 magic_f32x16 = _mm512_set1_ps(TF_EXP2_MAGIC);
    const __m512 t_f32x16 = _mm512_add_ps(z_f32x16, magic_f32x16);
    return tf_exp2_split_avx512(t_f32x16, _mm512_sub_ps(z_f32x16, _mm512_sub_ps(t_f32x16, magic_f32x16)));
}

/* 2^z, 2^z + 1 and 2^z - 1 */
static inline __attribute__((always_inline)) __m512 tf_exp2_value_avx512(tf_exp2_f32x16 e) {
    return _mm512_fmadd_ps(e.s, e.fq, e.s);
}
static inline __attribute__((always_inline)) __m512 tf_exp2_plus1_avx512(tf_exp2_f32x16 e) {
    return _mm512_fmadd_ps(e.s, e.fq, _mm512_add_ps(e.s, _mm512_set1_ps(1.0f)));
}
static inline __attribute__((always_inline)) __m512 tf_exp2_minus1_avx512(tf_exp2_f32x16 e) {
    return _mm512_fmadd_ps(e.s, e.fq, _mm512_sub_ps(e.s, _mm512_set1_ps(1.0f)));
}

#endif
