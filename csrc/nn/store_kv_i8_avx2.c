#include "attend_i8.h"
#include "lanes_i8_avx2.h"

#include <string.h>

void tf_store_kv_i8_avx2(const float *k, const float *v, int8_t *keys, int32_t *corr, int8_t *values, float k_inverse,
                         float v_inverse, int32_t kv_heads, int32_t dim, int32_t value_dim, int32_t slots, int32_t slot,
                         int32_t *nan) {
    const int32_t padded = tf_up4(dim), value_padded = (value_dim + 15) / 16 * 16;
    const __m256 k_inverse_f32x8 = _mm256_set1_ps(k_inverse), v_inverse_f32x8 = _mm256_set1_ps(v_inverse);
    const __m128i offset_i8x16 = _mm_set1_epi8(-128);
    int8_t quanta[16];
    for (int32_t head = 0; head < kv_heads; head++, k += dim, v += value_dim) {
        const size_t from = (size_t)head * (size_t)slots;
        int8_t *key = keys + (from + (size_t)(slot / 16 * 16)) * (size_t)padded + slot % 16 * 4;
        int8_t *value = values + (from + (size_t)(slot / 4 * 4)) * (size_t)value_padded + slot % 4;
        int32_t sum = 0;
        for (int32_t d = 0; d < dim; d += 16) {
            const __m128i q_u8x16 = tf_quantize16_avx2(
                tf_load_first_avx2(k + d, dim - d), tf_load_first_avx2(k + d + 8, dim - d - 8), k_inverse_f32x8, nan);
            _mm_storeu_si128((__m128i *)quanta, _mm_xor_si128(q_u8x16, offset_i8x16));
            for (int32_t i = 0; i < 16 && d + i < padded; i += 4) {
                memcpy(key + (d + i) * 16, quanta + i, 4);
                sum += quanta[i] + quanta[i + 1] + quanta[i + 2] + quanta[i + 3];
            }
        }
        corr[from + (size_t)slot] = -128 * sum;
        for (int32_t d = 0; d < value_dim; d += 16) {
            const __m128i q_u8x16 =
                tf_quantize16_avx2(tf_load_first_avx2(v + d, value_dim - d),
                                   tf_load_first_avx2(v + d + 8, value_dim - d - 8), v_inverse_f32x8, nan);
            _mm_storeu_si128((__m128i *)quanta, _mm_xor_si128(q_u8x16, offset_i8x16));
            for (int32_t i = 0; i < 16; i++) value[(d + i) * 4] = quanta[i];
        }
    }
}
