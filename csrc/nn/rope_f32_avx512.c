#include "lanes_f32_avx512.h"
#include "rope_f32.h"

/* Pairs that lie together: 8 in a vector. */
static void together(const float *x, const float *cos_sin, float *y, int32_t dim) {
    for (int32_t i = 0; i < dim; i += 16) {
        const __mmask16 mask = tf_tail_avx512(dim - i);
        const __m512 x_f32x16 = _mm512_maskz_loadu_ps(mask, x + i), t_f32x16 = _mm512_maskz_loadu_ps(mask, cos_sin + i);
        const __m512 other_f32x16 = _mm512_mul_ps(_mm512_permute_ps(x_f32x16, 0xB1), _mm512_movehdup_ps(t_f32x16));
        _mm512_mask_storeu_ps(y + i, mask,
                              _mm512_fmaddsub_ps(x_f32x16, _mm512_moveldup_ps(t_f32x16), other_f32x16));
    }
}

/* Pairs that lie half a vector of `dim` apart: 16 at a time, cosines and sines parted on the way. */
static void apart(const float *x, const float *cos_sin, float *y, int32_t half) {
    const __m512i even_i32x16 = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd_i32x16 = _mm512_add_epi32(even_i32x16, _mm512_set1_epi32(1));
    for (int32_t i = 0; i < half; i += 16) {
        const __mmask16 mask = tf_tail_avx512(half - i);
        const __m512 low_f32x16 = _mm512_maskz_loadu_ps(tf_tail_avx512(2 * (half - i)), cos_sin + 2 * i);
        const __mmask16 more = tf_tail_avx512(2 * (half - i) - 16);
        const __m512 high_f32x16 = more ? _mm512_maskz_loadu_ps(more, cos_sin + 2 * i + 16) : _mm512_setzero_ps();
        const __m512 cos_f32x16 = _mm512_permutex2var_ps(low_f32x16, even_i32x16, high_f32x16);
        const __m512 sin_f32x16 = _mm512_permutex2var_ps(low_f32x16, odd_i32x16, high_f32x16);
        const __m512 a_f32x16 = _mm512_maskz_loadu_ps(mask, x + i);
        const __m512 b_f32x16 = _mm512_maskz_loadu_ps(mask, x + half + i);
        _mm512_mask_storeu_ps(y + i, mask,
                              _mm512_fmsub_ps(a_f32x16, cos_f32x16, _mm512_mul_ps(b_f32x16, sin_f32x16)));
        _mm512_mask_storeu_ps(y + half + i, mask,
                              _mm512_fmadd_ps(b_f32x16, cos_f32x16, _mm512_mul_ps(a_f32x16, sin_f32x16)));
    }
}

void tf_rope_f32_avx512(const float *x, const float *cos_sin, float *y, int32_t heads, int32_t dim,
                        int32_t interleaved) {
    for (int32_t head = 0; head < heads; head++, x += dim, y += dim)
        if (interleaved)
            together(x, cos_sin, y, dim);
        else
            apart(x, cos_sin, y, dim / 2);
}
