#include "gemv_i8.h"
#include "lanes_i8_avx512.h"

void tf_quantize_i8_avx512(const float *x, uint8_t *q, float inverse, int32_t n, int32_t *nan) {
    const __m512 inverse_f32x16 = _mm512_set1_ps(inverse);
    __mmask16 plain = 0xFFFF;
    for (; n >= 16; n -= 16, x += 16, q += 16)
        _mm_storeu_si128((__m128i *)q, tf_quantize16_avx512(_mm512_loadu_ps(x), inverse_f32x16, &plain));
    if (n > 0) {
        const __m512 x_f32x16 = _mm512_maskz_loadu_ps(tf_first_avx512(n), x);
        _mm_storeu_si128((__m128i *)q, tf_quantize16_avx512(x_f32x16, inverse_f32x16, &plain));
    }
    if (plain != 0xFFFF) *nan |= 1;
}

void tf_quantize_i8a16_avx512(const float *x, uint8_t *q, float inverse, int32_t n, int32_t *nan) {
    const __m512 inverse_f32x16 = _mm512_set1_ps(inverse);
    uint8_t *low = q + tf_plane_i8a16(n);
    __mmask16 plain = 0xFFFF;
    for (; n > 0; n -= 16, x += 16, q += 16, low += 16) {
        const __m512 x_f32x16 = _mm512_maskz_loadu_ps(tf_first_avx512(n), x);
        const __m512i v_i32x16 =
            _mm512_max_epi32(tf_quantum_avx512(x_f32x16, inverse_f32x16, 32767.0f, &plain), _mm512_set1_epi32(-32767));
        const __m512i value_i32x16 = _mm512_add_epi32(v_i32x16, _mm512_set1_epi32(32768));
        _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(_mm512_srli_epi32(value_i32x16, 8)));
        _mm_storeu_si128((__m128i *)low, _mm512_cvtepi32_epi8(value_i32x16));
    }
    if (plain != 0xFFFF) *nan |= 1;
}
