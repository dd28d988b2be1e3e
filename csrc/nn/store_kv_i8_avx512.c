#include "attend_i8.h"
#include "lanes_i8_avx512.h"

/* Whole vectors are read, blended and written: attend_i8 reads them next, and a narrow store would not be forwarded to
 * a wide load. */
void tf_store_kv_i8_avx512(const float *k, const float *v, int8_t *keys, int32_t *corr, int8_t *values, float k_inverse,
                           float v_inverse, int32_t kv_heads, int32_t dim, int32_t value_dim, int32_t slots,
                           int32_t slot, int32_t *nan) {
    const int32_t padded = tf_up4(dim), value_padded = (value_dim + 15) / 16 * 16;
    const __m512 k_inverse_f32x16 = _mm512_set1_ps(k_inverse), v_inverse_f32x16 = _mm512_set1_ps(v_inverse);
    const __m512i lowest_i32x16 = _mm512_set1_epi32(-128);
    const __mmask16 own_slot = (__mmask16)(1u << slot % 16);
    const __mmask64 own_byte = 0x1111111111111111u << slot % 4;
    __mmask16 plain = 0xFFFF;
    for (int32_t head = 0; head < kv_heads; head++, k += dim, v += value_dim) {
        const size_t from = (size_t)head * (size_t)slots;
        int8_t *key = keys + (from + (size_t)(slot / 16 * 16)) * (size_t)padded;
        int8_t *value = values + (from + (size_t)(slot / 4 * 4)) * (size_t)value_padded;
        __m512i sum_i32x16 = _mm512_setzero_si512();
        for (int32_t d = 0; d < dim; d += 16) {
            const __m512 k_f32x16 = _mm512_maskz_loadu_ps(tf_first_avx512(dim - d), k + d);
            const __m512i v_i32x16 =
                _mm512_max_epi32(tf_quantum_avx512(k_f32x16, k_inverse_f32x16, 127.0f, &plain), lowest_i32x16);
            __m128i quartets_i8x16 = _mm512_cvtepi32_epi8(v_i32x16);
            sum_i32x16 = _mm512_add_epi32(sum_i32x16, v_i32x16);
            for (int32_t i = d; i < padded && i < d + 16; i += 4, quartets_i8x16 = _mm_srli_si128(quartets_i8x16, 4)) {
                const __m512i quartet_i8x64 = _mm512_broadcastd_epi32(quartets_i8x16);
                const __m512i old_i8x64 = _mm512_loadu_si512(key + i * 16);
                _mm512_storeu_si512(key + i * 16, _mm512_mask_mov_epi32(old_i8x64, own_slot, quartet_i8x64));
            }
        }
        corr[from + (size_t)slot] = -128 * _mm512_reduce_add_epi32(sum_i32x16);
        for (int32_t d = 0; d < value_dim; d += 16) {
            const __m512 x_f32x16 = _mm512_maskz_loadu_ps(tf_first_avx512(value_dim - d), v + d);
            const __m512i v_i32x16 =
                _mm512_max_epi32(tf_quantum_avx512(x_f32x16, v_inverse_f32x16, 127.0f, &plain), lowest_i32x16);
            const __m512i spread_i8x64 = _mm512_sllv_epi32(v_i32x16, _mm512_set1_epi32(slot % 4 * 8));
            const __m512i old_i8x64 = _mm512_loadu_si512(value + d * 4);
            _mm512_storeu_si512(value + d * 4, _mm512_mask_mov_epi8(old_i8x64, own_byte, spread_i8x64));
        }
    }
    if (plain != 0xFFFF) *nan |= 1;
}
