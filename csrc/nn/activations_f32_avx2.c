#include "activations_f32.h"
#include "exp2_f32_avx2.h"

#define TF_INLINE static inline __attribute__((always_inline))

TF_INLINE tf_exp2_f32x8 exponential(__m256 x_f32x8) {
    const __m256 magic_f32x8 = _mm256_set1_ps(TF_EXP2_MAGIC);
    const __m256 t_f32x8 = _mm256_fmadd_ps(x_f32x8, _mm256_set1_ps((float)TF_LOG2E), magic_f32x8);
    const __m256 n_f32x8 = _mm256_sub_ps(t_f32x8, magic_f32x8);
    __m256 f_f32x8 = _mm256_fnmadd_ps(n_f32x8, _mm256_set1_ps(TF_LN2_HIGH), x_f32x8);
    f_f32x8 = _mm256_fnmadd_ps(n_f32x8, _mm256_set1_ps(TF_LN2_LOW), f_f32x8);
    f_f32x8 = _mm256_mul_ps(f_f32x8, _mm256_set1_ps((float)TF_LOG2E));
    return tf_exp2_split_avx2(t_f32x8, f_f32x8);
}

TF_INLINE __m256 sigmoid(__m256 x_f32x8) {
    const __m256 minus_f32x8 = _mm256_sub_ps(_mm256_setzero_ps(), x_f32x8);
    const __m256 e_f32x8 =
        tf_exp2_value_avx2(exponential(tf_clamp_f32x8(minus_f32x8, -TF_EXP_LIMIT, TF_EXP_LIMIT)));
    return _mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_add_ps(_mm256_set1_ps(1.0f), e_f32x8));
}

TF_INLINE __m256 hyperbolic(__m256 x_f32x8) {
    const __m256 twice_f32x8 = _mm256_add_ps(x_f32x8, x_f32x8);
    const tf_exp2_f32x8 e = exponential(tf_clamp_f32x8(twice_f32x8, -TF_TANH_LIMIT, TF_TANH_LIMIT));
    return _mm256_div_ps(tf_exp2_minus1_avx2(e), tf_exp2_plus1_avx2(e));
}

/* The polynomial g of gelu, then c = 2^(g - a^2 log2(e) / 2), then x (1 - c) or x c. */
TF_INLINE __m256 gaussian(__m256 x_f32x8) {
    const __m256 zero_f32x8 = _mm256_setzero_ps();
    const __m256 size_f32x8 = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x_f32x8);
    const __m256 a_f32x8 = _mm256_min_ps(_mm256_set1_ps(TF_GELU_END), size_f32x8);
    __m256 g_f32x8 = _mm256_set1_ps(TF_GELU_G10);
    g_f32x8 = _mm256_fmadd_ps(g_f32x8, a_f32x8, _mm256_set1_ps(TF_GELU_G9));
    g_f32x8 = _mm256_fmadd_ps(g_f32x8, a_f32x8, _mm256_set1_ps(TF_GELU_G8));
    g_f32x8 = _mm256_fmadd_ps(g_f32x8, a_f32x8, _mm256_set1_ps(TF_GELU_G7));
    g_f32x8 = _mm256_fmadd_ps(g_f32x8, a_f32x8, _mm256_set1_ps(TF_GELU_G6));
    g_f32x8 = _mm256_fmadd_ps(g_f32x8, a_f32x8, _mm256_set1_ps(TF_GELU_G5));
    g_f32x8 = _mm256_fmadd_ps(g_f32x8, a_f32x8, _mm256_set1_ps(TF_GELU_G4));
    g_f32x8 = _mm256_fmadd_ps(g_f32x8, a_f32x8, _mm256_set1_ps(TF_GELU_G3));
    g_f32x8 = _mm256_fmadd_ps(g_f32x8, a_f32x8, _mm256_set1_ps(TF_GELU_G2));
    g_f32x8 = _mm256_fmadd_ps(g_f32x8, a_f32x8, _mm256_set1_ps(TF_GELU_G1));
    g_f32x8 = _mm256_fmadd_ps(g_f32x8, a_f32x8, _mm256_set1_ps(TF_GELU_G0));
    const __m256 z_f32x8 =
        _mm256_fmadd_ps(_mm256_mul_ps(size_f32x8, size_f32x8), _mm256_set1_ps(TF_GELU_SQUARE), g_f32x8);
    const __m256 tail_f32x8 = tf_exp2_value_avx2(tf_exp2_avx2(tf_clamp_f32x8(z_f32x8, TF_EXP2_ZERO, 0.0f)));
    const __m256 bounded_f32x8 = _mm256_max_ps(_mm256_set1_ps(TF_GELU_LOWEST), x_f32x8);
    const __m256 body_f32x8 = _mm256_sub_ps(_mm256_set1_ps(1.0f), tail_f32x8);
    const __m256 below_f32x8 = _mm256_cmp_ps(x_f32x8, zero_f32x8, _CMP_LT_OQ);
    return _mm256_mul_ps(bounded_f32x8, _mm256_blendv_ps(body_f32x8, tail_f32x8, below_f32x8));
}

TF_INLINE __m256 gaussian_tanh(__m256 x_f32x8) {
    const __m256 bounded_f32x8 = _mm256_max_ps(_mm256_set1_ps(TF_GELU_LOWEST), x_f32x8);
    const __m256 square_f32x8 = _mm256_mul_ps(bounded_f32x8, bounded_f32x8);
    const __m256 z_f32x8 =
        _mm256_mul_ps(bounded_f32x8, _mm256_fmadd_ps(_mm256_set1_ps(TF_GELU_TANH3), square_f32x8,
                                                 _mm256_set1_ps(TF_GELU_TANH1)));
    const __m256 e_f32x8 =
        tf_exp2_value_avx2(tf_exp2_avx2(tf_clamp_f32x8(z_f32x8, TF_EXP2_LOWEST, -TF_EXP2_LOWEST)));
    return _mm256_div_ps(bounded_f32x8, _mm256_add_ps(_mm256_set1_ps(1.0f), e_f32x8));
}

TF_INLINE __m256 swish(__m256 x_f32x8) {
    const __m256 minus_f32x8 = _mm256_sub_ps(_mm256_setzero_ps(), x_f32x8);
    const __m256 e_f32x8 =
        tf_exp2_value_avx2(exponential(tf_clamp_f32x8(minus_f32x8, -TF_EXP_LIMIT, TF_EXP_LIMIT)));
    const __m256 bounded_f32x8 = _mm256_max_ps(_mm256_set1_ps(-TF_EXP_LIMIT), x_f32x8);
    return _mm256_div_ps(bounded_f32x8, _mm256_add_ps(_mm256_set1_ps(1.0f), e_f32x8));
}

/* NaN and -0 are the second operand, which max returns. */
TF_INLINE __m256 rectified(__m256 x_f32x8) { return _mm256_max_ps(_mm256_setzero_ps(), x_f32x8); }

#define TF_ELEMENTWISE(name, function)                                                                                 \
    void name(const float *x, float *y, int32_t n) {                                                                   \
        int32_t i = 0;                                                                                                 \
        for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, function(_mm256_loadu_ps(x + i)));                          \
        if (i < n) {                                                                                                   \
            float rest[8] = {0};                                                                                       \
            memcpy(rest, x + i, (size_t)(n - i) * sizeof *x);                                                          \
            _mm256_storeu_ps(rest, function(_mm256_loadu_ps(rest)));                                                   \
            memcpy(y + i, rest, (size_t)(n - i) * sizeof *y);                                                          \
        }                                                                                                              \
    }
TF_ELEMENTWISE(tf_relu_f32_avx2, rectified)
TF_ELEMENTWISE(tf_sigmoid_f32_avx2, sigmoid)
TF_ELEMENTWISE(tf_tanh_f32_avx2, hyperbolic)
TF_ELEMENTWISE(tf_gelu_f32_avx2, gaussian)
TF_ELEMENTWISE(tf_gelu_tanh_f32_avx2, gaussian_tanh)
TF_ELEMENTWISE(tf_silu_f32_avx2, swish)

TF_INLINE __m256 leaky(__m256 x_f32x8, __m256 slope_f32x8) {
    const __m256 keep_f32x8 = _mm256_cmp_ps(x_f32x8, _mm256_setzero_ps(), _CMP_GT_OQ);
    return _mm256_blendv_ps(_mm256_mul_ps(slope_f32x8, x_f32x8), x_f32x8, keep_f32x8);
}

void tf_leaky_relu_f32_avx2(const float *x, float *y, float slope, int32_t n) {
    const __m256 slope_f32x8 = _mm256_set1_ps(slope);
    int32_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, leaky(_mm256_loadu_ps(x + i), slope_f32x8));
    if (i < n) {
        float rest[8] = {0};
        memcpy(rest, x + i, (size_t)(n - i) * sizeof *x);
        _mm256_storeu_ps(rest, leaky(_mm256_loadu_ps(rest), slope_f32x8));
        memcpy(y + i, rest, (size_t)(n - i) * sizeof *y);
    }
}

TF_INLINE __m256 below_maximum(__m256 x_f32x8, __m256 maximum_f32x8) {
    const __m256 below_f32x8 = _mm256_sub_ps(x_f32x8, maximum_f32x8);
    return tf_exp2_value_avx2(exponential(tf_clamp_f32x8(below_f32x8, -TF_EXP_LIMIT, TF_EXP_LIMIT)));
}

/* Steps of 16 in two vectors, so that lane j sums the elements j mod 16 as in AVX-512. */
void tf_softmax_f32_avx2(const float *x, float *y, int32_t n) {
    const int32_t whole = n / 16 * 16;
    float rest[16], lanes[16];
    for (int j = 0; j < 16; j++) rest[j] = j < n - whole ? x[whole + j] : -INFINITY;
    __m256 low_f32x8 = _mm256_loadu_ps(rest), high_f32x8 = _mm256_loadu_ps(rest + 8);
    for (int32_t i = 0; i < whole; i += 16) {
        low_f32x8 = _mm256_max_ps(_mm256_loadu_ps(x + i), low_f32x8);
        high_f32x8 = _mm256_max_ps(_mm256_loadu_ps(x + i + 8), high_f32x8);
    }
    _mm256_storeu_ps(lanes, _mm256_max_ps(low_f32x8, high_f32x8));
    float maximum = lanes[0];
    for (int j = 1; j < 8; j++) maximum = lanes[j] > maximum ? lanes[j] : maximum;
    const __m256 maximum_f32x8 = _mm256_set1_ps(maximum);
    low_f32x8 = high_f32x8 = _mm256_setzero_ps();
    for (int32_t i = 0; i < whole; i += 16) {
        const __m256 first_f32x8 = below_maximum(_mm256_loadu_ps(x + i), maximum_f32x8);
        const __m256 second_f32x8 = below_maximum(_mm256_loadu_ps(x + i + 8), maximum_f32x8);
        _mm256_storeu_ps(y + i, first_f32x8);
        _mm256_storeu_ps(y + i + 8, second_f32x8);
        low_f32x8 = _mm256_add_ps(low_f32x8, first_f32x8);
        high_f32x8 = _mm256_add_ps(high_f32x8, second_f32x8);
    }
    _mm256_storeu_ps(lanes, low_f32x8);
    _mm256_storeu_ps(lanes + 8, high_f32x8);
    if (whole < n) {
        _mm256_storeu_ps(rest, below_maximum(_mm256_loadu_ps(rest), maximum_f32x8));
        _mm256_storeu_ps(rest + 8, below_maximum(_mm256_loadu_ps(rest + 8), maximum_f32x8));
        for (int32_t j = 0; j < n - whole; j++) {
            y[whole + j] = rest[j];
            lanes[j] += rest[j];
        }
    }
    const float inverse = 1.0f / tf_fold_f32(lanes);
    for (int32_t i = 0; i < n; i++) y[i] *= inverse;
}
