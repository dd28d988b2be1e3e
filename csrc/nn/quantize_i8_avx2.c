#include "gemv_i8.h"
#include "lanes_i8_avx2.h"

void tf_quantize_i8_avx2(const float *x, uint8_t *q, float inverse, int32_t n, int32_t *nan) {
    const __m256 inverse_f32x8 = _mm256_set1_ps(inverse);
    for (; n > 0; n -= 16, x += 16, q += 16) {
        const __m256 a_f32x8 = tf_load_first_avx2(x, n), b_f32x8 = tf_load_first_avx2(x + 8, n - 8);
        _mm_storeu_si128((__m128i *)q, tf_quantize16_avx2(a_f32x8, b_f32x8, inverse_f32x8, nan));
    }
}

/* v + 32768 of eight lanes. */
static inline __attribute__((always_inline)) __m256i wide(__m256 x_f32x8, __m256 inverse_f32x8, int32_t *nan) {
    const __m256i v_i32x8 =
        _mm256_max_epi32(tf_quantum_avx2(x_f32x8, inverse_f32x8, 32767.0f, nan), _mm256_set1_epi32(-32767));
    return _mm256_add_epi32(v_i32x8, _mm256_set1_epi32(32768));
}

static inline __attribute__((always_inline)) __m128i narrow(__m256i a_i32x8, __m256i b_i32x8) {
    const __m256i sorted_i16x16 = _mm256_permute4x64_epi64(_mm256_packus_epi32(a_i32x8, b_i32x8), 0xD8);
    return _mm_packus_epi16(_mm256_castsi256_si128(sorted_i16x16), _mm256_extracti128_si256(sorted_i16x16, 1));
}

void tf_quantize_i8a16_avx2(const float *x, uint8_t *q, float inverse, int32_t n, int32_t *nan) {
    const __m256 inverse_f32x8 = _mm256_set1_ps(inverse);
    const __m256i byte_i32x8 = _mm256_set1_epi32(255);
    uint8_t *low = q + tf_plane_i8a16(n);
    for (; n > 0; n -= 16, x += 16, q += 16, low += 16) {
        const __m256i a_i32x8 = wide(tf_load_first_avx2(x, n), inverse_f32x8, nan);
        const __m256i b_i32x8 = wide(tf_load_first_avx2(x + 8, n - 8), inverse_f32x8, nan);
        _mm_storeu_si128((__m128i *)q, narrow(_mm256_srli_epi32(a_i32x8, 8), _mm256_srli_epi32(b_i32x8, 8)));
        _mm_storeu_si128((__m128i *)low,
                         narrow(_mm256_and_si256(a_i32x8, byte_i32x8), _mm256_and_si256(b_i32x8, byte_i32x8)));
    }
}
