#include "elementwise_f32.h"
#include "lanes_f32_avx2.h"

TF_INLINE __m256 larger(__m256 a_f32x8, __m256 b_f32x8) {
    const __m256 nan_f32x8 = _mm256_cmp_ps(a_f32x8, a_f32x8, _CMP_UNORD_Q);
    return _mm256_blendv_ps(_mm256_max_ps(a_f32x8, b_f32x8), a_f32x8, nan_f32x8);
}

#define TF_BINARY(name, function)                                                                                      \
    void name(const float *a, const float *b, float *y, int32_t n) {                                                   \
        int32_t i = 0;                                                                                                 \
        for (; i + 8 <= n; i += 8)                                                                                     \
            _mm256_storeu_ps(y + i, function(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i)));                         \
        if (i < n) {                                                                                                   \
            const __m256i mask_i32x8 = tf_tail_avx2(n - i);                                                            \
            const __m256 a_f32x8 = _mm256_maskload_ps(a + i, mask_i32x8);                                              \
            const __m256 b_f32x8 = _mm256_maskload_ps(b + i, mask_i32x8);                                              \
            _mm256_maskstore_ps(y + i, mask_i32x8, function(a_f32x8, b_f32x8));                                        \
        }                                                                                                              \
    }
TF_BINARY(tf_add_f32_avx2, _mm256_add_ps)
TF_BINARY(tf_mul_f32_avx2, _mm256_mul_ps)
TF_BINARY(tf_max_f32_avx2, larger)

void tf_tap_f32_avx2(const float *w, const float *x, const float *base, float *y, int32_t n) {
    int32_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_fmadd_ps(_mm256_loadu_ps(w + i), _mm256_loadu_ps(x + i),
                                                _mm256_loadu_ps(base + i)));
    if (i < n) {
        const __m256i mask_i32x8 = tf_tail_avx2(n - i);
        const __m256 w_f32x8 = _mm256_maskload_ps(w + i, mask_i32x8);
        const __m256 x_f32x8 = _mm256_maskload_ps(x + i, mask_i32x8);
        const __m256 base_f32x8 = _mm256_maskload_ps(base + i, mask_i32x8);
        _mm256_maskstore_ps(y + i, mask_i32x8, _mm256_fmadd_ps(w_f32x8, x_f32x8, base_f32x8));
    }
}

void tf_scale_f32_avx2(const float *x, float *y, float a, int32_t n) {
    const __m256 a_f32x8 = _mm256_set1_ps(a);
    int32_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, _mm256_mul_ps(a_f32x8, _mm256_loadu_ps(x + i)));
    if (i < n) {
        const __m256i mask_i32x8 = tf_tail_avx2(n - i);
        _mm256_maskstore_ps(y + i, mask_i32x8, _mm256_mul_ps(a_f32x8, _mm256_maskload_ps(x + i, mask_i32x8)));
    }
}
