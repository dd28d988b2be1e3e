#include "activations_f32.h"
#include "exp2_f32_avx512.h"

#define TF_INLINE static inline __attribute__((always_inline))

TF_INLINE tf_exp2_f32x16 exponential(__m512 x_f32x16) {
    const __m512 magic_f32x16 = _mm512_set1_ps(TF_EXP2_MAGIC);
    const __m512 t_f32x16 = _mm512_fmadd_ps(x_f32x16, _mm512_set1_ps((float)TF_LOG2E), magic_f32x16);
    const __m512 n_f32x16 = _mm512_sub_ps(t_f32x16, magic_f32x16);
    __m512 f_f32x16 = _mm512_fnmadd_ps(n_f32x16, _mm512_set1_ps(TF_LN2_HIGH), x_f32x16);
    f_f32x16 = _mm512_fnmadd_ps(n_f32x16, _mm512_set1_ps(TF_LN2_LOW), f_f32x16);
    f_f32x16 = _mm512_mul_ps(f_f32x16, _mm512_set1_ps((float)TF_LOG2E));
    return tf_exp2_split_avx512(t_f32x16, f_f32x16);
}

TF_INLINE __m512 sigmoid(__m512 x_f32x16) {
    const __m512 minus_f32x16 = _mm512_sub_ps(_mm512_setzero_ps(), x_f32x16);
    const __m512 e_f32x16 =
        tf_exp2_value_avx512(exponential(tf_clamp_f32x16(minus_f32x16, -TF_EXP_LIMIT, TF_EXP_LIMIT)));
    return _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_add_ps(_mm512_set1_ps(1.0f), e_f32x16));
}

TF_INLINE __m512 hyperbolic(__m512 x_f32x16) {
    const __m512 twice_f32x16 = _mm512_add_ps(x_f32x16, x_f32x16);
    const tf_exp2_f32x16 e = exponential(tf_clamp_f32x16(twice_f32x16, -TF_TANH_LIMIT, TF_TANH_LIMIT));
    return _mm512_div_ps(tf_exp2_minus1_avx512(e), tf_exp2_plus1_avx512(e));
}

/* The polynomial g of gelu, then c = 2^(g - a^2 log2(e) / 2), then x (1 - c) or x c. */
TF_INLINE __m512 gaussian(__m512 x_f32x16) {
    const __m512 zero_f32x16 = _mm512_setzero_ps();
    const __m512 size_f32x16 = _mm512_abs_ps(x_f32x16);
    const __m512 a_f32x16 = _mm512_min_ps(_mm512_set1_ps(TF_GELU_END), size_f32x16);
    __m512 g_f32x16 = _mm512_set1_ps(TF_GELU_G10);
    g_f32x16 = _mm512_fmadd_ps(g_f32x16, a_f32x16, _mm512_set1_ps(TF_GELU_G9));
    g_f32x16 = _mm512_fmadd_ps(g_f32x16, a_f32x16, _mm512_set1_ps(TF_GELU_G8));
    g_f32x16 = _mm512_fmadd_ps(g_f32x16, a_f32x16, _mm512_set1_ps(TF_GELU_G7));
    g_f32x16 = _mm512_fmadd_ps(g_f32x16, a_f32x16, _mm512_set1_ps(TF_GELU_G6));
    g_f32x16 = _mm512_fmadd_ps(g_f32x16, a_f32x16, _mm512_set1_ps(TF_GELU_G5));
    g_f32x16 = _mm512_fmadd_ps(g_f32x16, a_f32x16, _mm512_set1_ps(TF_GELU_G4));
    g_f32x16 = _mm512_fmadd_ps(g_f32x16, a_f32x16, _mm512_set1_ps(TF_GELU_G3));
    g_f32x16 = _mm512_fmadd_ps(g_f32x16, a_f32x16, _mm512_set1_ps(TF_GELU_G2));
    g_f32x16 = _mm512_fmadd_ps(g_f32x16, a_f32x16, _mm512_set1_ps(TF_GELU_G1));
    g_f32x16 = _mm512_fmadd_ps(g_f32x16, a_f32x16, _mm512_set1_ps(TF_GELU_G0));
    const __m512 z_f32x16 =
        _mm512_fmadd_ps(_mm512_mul_ps(size_f32x16, size_f32x16), _mm512_set1_ps(TF_GELU_SQUARE), g_f32x16);
    const __m512 tail_f32x16 = tf_exp2_value_avx512(tf_exp2_avx512(tf_clamp_f32x16(z_f32x16, TF_EXP2_ZERO, 0.0f)));
    const __m512 bounded_f32x16 = _mm512_max_ps(_mm512_set1_ps(TF_GELU_LOWEST), x_f32x16);
    const __m512 body_f32x16 = _mm512_sub_ps(_mm512_set1_ps(1.0f), tail_f32x16);
    const __mmask16 below = _mm512_cmp_ps_mask(x_f32x16, zero_f32x16, _CMP_LT_OQ);
    return _mm512_mul_ps(bounded_f32x16, _mm512_mask_mov_ps(body_f32x16, below, tail_f32x16));
}

TF_INLINE __m512 gaussian_tanh(__m512 x_f32x16) {
    const __m512 bounded_f32x16 = _mm512_max_ps(_mm512_set1_ps(TF_GELU_LOWEST), x_f32x16);
    const __m512 square_f32x16 = _mm512_mul_ps(bounded_f32x16, bounded_f32x16);
    const __m512 z_f32x16 =
        _mm512_mul_ps(bounded_f32x16, _mm512_fmadd_ps(_mm512_set1_ps(TF_GELU_TANH3), square_f32x16,
                                                 _mm512_set1_ps(TF_GELU_TANH1)));
    const __m512 e_f32x16 =
        tf_exp2_value_avx512(tf_exp2_avx512(tf_clamp_f32x16(z_f32x16, TF_EXP2_LOWEST, -TF_EXP2_LOWEST)));
    return _mm512_div_ps(bounded_f32x16, _mm512_add_ps(_mm512_set1_ps(1.0f), e_f32x16));
}

TF_INLINE __m512 swish(__m512 x_f32x16) {
    const __m512 minus_f32x16 = _mm512_sub_ps(_mm512_setzero_ps(), x_f32x16);
    const __m512 e_f32x16 =
        tf_exp2_value_avx512(exponential(tf_clamp_f32x16(minus_f32x16, -TF_EXP_LIMIT, TF_EXP_LIMIT)));
    const __m512 bounded_f32x16 = _mm512_max_ps(_mm512_set1_ps(-TF_EXP_LIMIT), x_f32x16);
    return _mm512_div_ps(bounded_f32x16, _mm512_add_ps(_mm512_set1_ps(1.0f), e_f32x16));
}

/* NaN and -0 are the second operand, which max returns. */
TF_INLINE __m512 rectified(__m512 x_f32x16) { return _mm512_max_ps(_mm512_setzero_ps(), x_f32x16); }

TF_INLINE __mmask16 tail_mask(int32_t left) { return (__mmask16)((1u << left) - 1u); }

#define TF_ELEMENTWISE(name, function)                                                                                 \
    void name(const float *x, float *y, int32_t n) {                                                                   \
        int32_t i = 0;                                                                                                 \
        for (; i + 16 <= n; i += 16) _mm512_storeu_ps(y + i, function(_mm512_loadu_ps(x + i)));                        \
        if (i < n) {                                                                                                   \
            const __mmask16 mask = tail_mask(n - i);                                                                   \
            _mm512_mask_storeu_ps(y + i, mask, function(_mm512_maskz_loadu_ps(mask, x + i)));                          \
        }                                                                                                              \
    }
TF_ELEMENTWISE(tf_relu_f32_avx512, rectified)
TF_ELEMENTWISE(tf_sigmoid_f32_avx512, sigmoid)
TF_ELEMENTWISE(tf_tanh_f32_avx512, hyperbolic)
TF_ELEMENTWISE(tf_gelu_f32_avx512, gaussian)
TF_ELEMENTWISE(tf_gelu_tanh_f32_avx512, gaussian_tanh)
TF_ELEMENTWISE(tf_silu_f32_avx512, swish)

void tf_leaky_relu_f32_avx512(const float *x, float *y, float slope, int32_t n) {
    const __m512 slope_f32x16 = _mm512_set1_ps(slope);
    for (int32_t i = 0; i < n; i += 16) {
        const __mmask16 mask = n - i >= 16 ? (__mmask16)0xFFFF : tail_mask(n - i);
        const __m512 x_f32x16 = _mm512_maskz_loadu_ps(mask, x + i);
        const __mmask16 keep = _mm512_cmp_ps_mask(x_f32x16, _mm512_setzero_ps(), _CMP_GT_OQ);
        _mm512_mask_storeu_ps(y + i, mask,
                              _mm512_mask_mov_ps(_mm512_mul_ps(slope_f32x16, x_f32x16), keep, x_f32x16));
    }
}

void tf_softmax_f32_avx512(const float *x, float *y, int32_t n) {
    const int32_t whole = n / 16 * 16;
    const __mmask16 mask = tail_mask(n - whole);
    const __m512 lowest_f32x16 = _mm512_set1_ps(-INFINITY);
    __m512 max_f32x16 = lowest_f32x16;
    for (int32_t i = 0; i < whole; i += 16) max_f32x16 = _mm512_max_ps(_mm512_loadu_ps(x + i), max_f32x16);
    if (mask) max_f32x16 = _mm512_max_ps(_mm512_mask_loadu_ps(lowest_f32x16, mask, x + whole), max_f32x16);
    const __m512 maximum_f32x16 = _mm512_set1_ps(_mm512_reduce_max_ps(max_f32x16));
    __m512 sum_f32x16 = _mm512_setzero_ps();
    for (int32_t i = 0; i < whole; i += 16) {
        const __m512 below_f32x16 = _mm512_sub_ps(_mm512_loadu_ps(x + i), maximum_f32x16);
        const __m512 e_f32x16 =
            tf_exp2_value_avx512(exponential(tf_clamp_f32x16(below_f32x16, -TF_EXP_LIMIT, TF_EXP_LIMIT)));
        _mm512_storeu_ps(y + i, e_f32x16);
        sum_f32x16 = _mm512_add_ps(sum_f32x16, e_f32x16);
    }
    if (mask) {
        const __m512 below_f32x16 = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + whole), maximum_f32x16);
        const __m512 e_f32x16 = _mm512_maskz_mov_ps(
            mask, tf_exp2_value_avx512(exponential(tf_clamp_f32x16(below_f32x16, -TF_EXP_LIMIT, TF_EXP_LIMIT))));
        _mm512_mask_storeu_ps(y + whole, mask, e_f32x16);
        sum_f32x16 = _mm512_add_ps(sum_f32x16, e_f32x16);
    }
    float lanes[16];
    _mm512_storeu_ps(lanes, sum_f32x16);
    const __m512 inverse_f32x16 = _mm512_set1_ps(1.0f / tf_fold_f32(lanes));
    for (int32_t i = 0; i < whole; i += 16)
        _mm512_storeu_ps(y + i, _mm512_mul_ps(_mm512_loadu_ps(y + i), inverse_f32x16));
    if (mask)
        _mm512_mask_storeu_ps(y + whole, mask,
                              _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, y + whole), inverse_f32x16));
}
