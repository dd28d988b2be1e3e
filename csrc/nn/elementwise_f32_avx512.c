#include "elementwise_f32.h"
#include "lanes_f32_avx512.h"

TF_INLINE __m512 larger(__m512 a_f32x16, __m512 b_f32x16) {
    const __mmask16 nan = _mm512_cmp_ps_mask(a_f32x16, a_f32x16, _CMP_UNORD_Q);
    return _mm512_mask_mov_ps(_mm512_max_ps(a_f32x16, b_f32x16), nan, a_f32x16);
}

#define TF_BINARY(name, function)                                                                                      \
    void name(const float *a, const float *b, float *y, int32_t n) {                                                   \
        int32_t i = 0;                                                                                                 \
        for (; i + 16 <= n; i += 16)                                                                                   \
            _mm512_storeu_ps(y + i, function(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i)));                         \
        if (i < n) {                                                                                                   \
            const __mmask16 mask = tf_tail_avx512(n - i);                                                              \
            const __m512 a_f32x16 = _mm512_maskz_loadu_ps(mask, a + i), b_f32x16 = _mm512_maskz_loadu_ps(mask, b + i); \
            _mm512_mask_storeu_ps(y + i, mask, function(a_f32x16, b_f32x16));                                          \
        }                                                                                                              \
    }
TF_BINARY(tf_add_f32_avx512, _mm512_add_ps)
TF_BINARY(tf_mul_f32_avx512, _mm512_mul_ps)
TF_BINARY(tf_max_f32_avx512, larger)

void tf_tap_f32_avx512(const float *w, const float *x, const float *base, float *y, int32_t n) {
    int32_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(y + i, _mm512_fmadd_ps(_mm512_loadu_ps(w + i), _mm512_loadu_ps(x + i),
                                                _mm512_loadu_ps(base + i)));
    if (i < n) {
        const __mmask16 mask = tf_tail_avx512(n - i);
        const __m512 w_f32x16 = _mm512_maskz_loadu_ps(mask, w + i), x_f32x16 = _mm512_maskz_loadu_ps(mask, x + i);
        const __m512 base_f32x16 = _mm512_maskz_loadu_ps(mask, base + i);
        _mm512_mask_storeu_ps(y + i, mask, _mm512_fmadd_ps(w_f32x16, x_f32x16, base_f32x16));
    }
}

void tf_scale_f32_avx512(const float *x, float *y, float a, int32_t n) {
    const __m512 a_f32x16 = _mm512_set1_ps(a);
    int32_t i = 0;
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(y + i, _mm512_mul_ps(a_f32x16, _mm512_loadu_ps(x + i)));
    if (i < n) {
        const __mmask16 mask = tf_tail_avx512(n - i);
        _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(a_f32x16, _mm512_maskz_loadu_ps(mask, x + i)));
    }
}
