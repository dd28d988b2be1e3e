/* What the 512-bit integer kernels share: 2^z, the LSTM's gates and quantising, on 16 lanes; see lstm_i8.h and
 * gemv_i8.h. */
#ifndef TF_NN_LANES_I8_AVX512_H
#define TF_NN_LANES_I8_AVX512_H

#include "exp2_f32_avx512.h"
#include "lstm_i8.h"

typedef struct tf_exp2_i8x16 {
    __m512 s, p; /* 2^z = s p */
} tf_exp2_i8x16;

static inline __attribute__((always_inline)) tf_exp2_i8x16 tf_exp2_i8_avx512(__m512 z_f32x16) {
    const __m512 magic_f32x16 = _mm512_set1_ps(TF_EXP2_I8_MAGIC);
    const __m512 t_f32x16 = _mm512_add_ps(z_f32x16, magic_f32x16);
    const __m512 f_f32x16 = _mm512_sub_ps(z_f32x16, _mm512_sub_ps(t_f32x16, magic_f32x16));
    const __m512i t_i32x16 = _mm512_castps_si512(t_f32x16);
    const __m512i root_i32x16 = _mm512_permutexvar_epi32(t_i32x16, _mm512_loadu_si512(TF_EXP2_I8_TABLE));
    const __m512 slope_f32x16 = _mm512_fmadd_ps(_mm512_set1_ps(TF_EXP2_I8_Q1), f_f32x16, _mm512_set1_ps(TF_EXP2_I8_Q0));
    return (tf_exp2_i8x16){_mm512_castsi512_ps(_mm512_add_epi32(root_i32x16, _mm512_slli_epi32(t_i32x16, 19))),
                           _mm512_fmadd_ps(f_f32x16, slope_f32x16, _mm512_set1_ps(1.0f))};
}

static inline __attribute__((always_inline)) tf_exp2_i8x16 tf_exp2_i8_clamped_avx512(__m512 z_f32x16) {
    return tf_exp2_i8_avx512(tf_clamp_f32x16(z_f32x16, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
}

static inline __attribute__((always_inline)) __m512 tf_exp2_i8_plus_avx512(tf_exp2_i8x16 e, float addend) {
    return _mm512_fmadd_ps(e.s, e.p, _mm512_set1_ps(addend));
}

/* Sixteen units: updates c, returns h. */
static inline __attribute__((always_inline)) __m512 tf_gates_i8_avx512(__m512 zi, __m512 zf, __m512 zg, __m512 zo,
                                                                       float *c) {
    const tf_exp2_i8x16 ei = tf_exp2_i8_clamped_avx512(zi), eg = tf_exp2_i8_clamped_avx512(zg);
    const tf_exp2_i8x16 ef = tf_exp2_i8_clamped_avx512(zf), eo = tf_exp2_i8_clamped_avx512(zo);
    const __m512 f1_f32x16 = tf_exp2_i8_plus_avx512(ef, 1.0f);
    const __m512 ig_f32x16 = _mm512_mul_ps(tf_exp2_i8_plus_avx512(ei, 1.0f), tf_exp2_i8_plus_avx512(eg, 1.0f));
    const __m512 top_f32x16 =
        _mm512_fmadd_ps(_mm512_loadu_ps(c), ig_f32x16, _mm512_mul_ps(tf_exp2_i8_plus_avx512(eg, -1.0f), f1_f32x16));
    const __m512 next_f32x16 = _mm512_div_ps(top_f32x16, _mm512_mul_ps(f1_f32x16, ig_f32x16));
    const tf_exp2_i8x16 ec =
        tf_exp2_i8_clamped_avx512(_mm512_mul_ps(next_f32x16, _mm512_set1_ps((float)(2.0 * TF_LOG2E))));
    _mm512_storeu_ps(c, next_f32x16);
    return _mm512_div_ps(tf_exp2_i8_plus_avx512(ec, -1.0f),
                         _mm512_mul_ps(tf_exp2_i8_plus_avx512(eo, 1.0f), tf_exp2_i8_plus_avx512(ec, 1.0f)));
}

/* Sixteen quanta of x * inverse up to `high`; what is below the int32 range converts to its lowest value, which the
 * callers' narrowing saturates. A NaN gives 0 and clears its lane of *plain; mask registers keep that off the path of
 * the data. */
static inline __attribute__((always_inline)) __m512i tf_quantum_avx512(__m512 x_f32x16, __m512 inverse_f32x16,
                                                                       float high, __mmask16 *plain) {
    const __mmask16 number = _mm512_cmp_ps_mask(x_f32x16, x_f32x16, _CMP_ORD_Q);
    *plain = _kand_mask16(*plain, number);
    return _mm512_maskz_cvtps_epi32(number,
                                    _mm512_min_ps(_mm512_mul_ps(x_f32x16, inverse_f32x16), _mm512_set1_ps(high)));
}

/* Sixteen activations of gemv_i8.h, offset 128. */
static inline __attribute__((always_inline)) __m128i tf_quantize16_avx512(__m512 x_f32x16, __m512 inverse_f32x16,
                                                                          __mmask16 *plain) {
    const __m128i q_i8x16 = _mm512_cvtsepi32_epi8(tf_quantum_avx512(x_f32x16, inverse_f32x16, 127.0f, plain));
    return _mm_xor_si128(q_i8x16, _mm_set1_epi8(-128));
}

/* The first `left` lanes, for left < 16; all of them otherwise. */
static inline __attribute__((always_inline)) __mmask16 tf_first_avx512(int32_t left) {
    return left >= 16 ? 0xFFFF : (__mmask16)((1u << left) - 1u);
}

#endif
