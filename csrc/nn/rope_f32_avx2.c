#include "lanes_f32_avx2.h"
#include "rope_f32.h"

/* Pairs that lie together: 4 in a vector. */
static void together(const float *x, const float *cos_sin, float *y, int32_t dim) {
    for (int32_t i = 0; i < dim; i += 8) {
        const __m256i mask_i32x8 = tf_tail_avx2(dim - i);
        const __m256 x_f32x8 = _mm256_maskload_ps(x + i, mask_i32x8);
        const __m256 t_f32x8 = _mm256_maskload_ps(cos_sin + i, mask_i32x8);
        const __m256 other_f32x8 = _mm256_mul_ps(_mm256_permute_ps(x_f32x8, 0xB1), _mm256_movehdup_ps(t_f32x8));
        const __m256 y_f32x8 = _mm256_fmaddsub_ps(x_f32x8, _mm256_moveldup_ps(t_f32x8), other_f32x8);
        if (i + 8 <= dim)
            _mm256_storeu_ps(y + i, y_f32x8);
        else
            _mm256_maskstore_ps(y + i, mask_i32x8, y_f32x8);
    }
}

/* Pairs that lie half a vector of `dim` apart: 8 at a time, cosines and sines parted on the way. */
static void apart(const float *x, const float *cos_sin, float *y, int32_t half) {
    for (int32_t i = 0; i < half; i += 8) {
        const __m256i mask_i32x8 = tf_tail_avx2(half - i);
        const __m256 low_f32x8 = _mm256_maskload_ps(cos_sin + 2 * i, tf_tail_avx2(2 * (half - i)));
        const __m256i more_i32x8 = tf_tail_avx2(2 * (half - i) - 8);
        const __m256 high_f32x8 =
            half - i > 4 ? _mm256_maskload_ps(cos_sin + 2 * i + 8, more_i32x8) : _mm256_setzero_ps();
        const __m256d cos_f64x4 = _mm256_castps_pd(_mm256_shuffle_ps(low_f32x8, high_f32x8, 0x88));
        const __m256d sin_f64x4 = _mm256_castps_pd(_mm256_shuffle_ps(low_f32x8, high_f32x8, 0xDD));
        const __m256 cos_f32x8 = _mm256_castpd_ps(_mm256_permute4x64_pd(cos_f64x4, 0xD8));
        const __m256 sin_f32x8 = _mm256_castpd_ps(_mm256_permute4x64_pd(sin_f64x4, 0xD8));
        const __m256 a_f32x8 = _mm256_maskload_ps(x + i, mask_i32x8);
        const __m256 b_f32x8 = _mm256_maskload_ps(x + half + i, mask_i32x8);
        _mm256_maskstore_ps(y + i, mask_i32x8,
                            _mm256_fmsub_ps(a_f32x8, cos_f32x8, _mm256_mul_ps(b_f32x8, sin_f32x8)));
        _mm256_maskstore_ps(y + half + i, mask_i32x8,
                            _mm256_fmadd_ps(b_f32x8, cos_f32x8, _mm256_mul_ps(a_f32x8, sin_f32x8)));
    }
}

void tf_rope_f32_avx2(const float *x, const float *cos_sin, float *y, int32_t heads, int32_t dim, int32_t interleaved) {
    for (int32_t head = 0; head < heads; head++, x += dim, y += dim)
        if (interleaved)
            together(x, cos_sin, y, dim);
        else
            apart(x, cos_sin, y, dim / 2);
}
