/* The public products of gemv_i8.h and lstm_i8.h over gemv_i8_x8.h. dense and the LSTM go through a small buffer of z:
 * it costs little beside the products of these instruction sets. */
#ifndef TF_NN_PRODUCTS_I8_X8_H
#define TF_NN_PRODUCTS_I8_X8_H

#include "gemv_i8_x8.h"

void TF_I8(gemv_i8)(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *base,
                    float *z, int32_t rows, int32_t k) {
    tf_gemv_x8(w, q, scale, corr, base, z, rows, tf_up4(k));
}

void TF_I8(gemv_i8a16)(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *base,
                       float *z, int32_t rows, int32_t k) {
    tf_gemv16_x8(w, q, q + tf_plane_i8a16(k), scale, corr, base, z, rows, tf_up4(k));
}

void TF_I8(dense_i8)(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *base,
                     const float *add, float *y, uint8_t *yq, float inverse, int32_t *nan, int32_t rows, int32_t k,
                     int32_t relu) {
    const __m256 zero_f32x8 = _mm256_setzero_ps(), lowest_f32x8 = _mm256_set1_ps(-INFINITY);
    const __m256 floor1_f32x8 = relu & 1 ? zero_f32x8 : lowest_f32x8,
                 floor2_f32x8 = relu & 2 ? zero_f32x8 : lowest_f32x8;
    const __m256 inverse_f32x8 = _mm256_set1_ps(inverse);
    float z[128];
    for (int32_t first = 0; first < rows;) {
        const int32_t lanes = tf_panel_groups((rows - first + 15) / 16) * 16;
        TF_I8(gemv_i8)(w, q, scale + first, corr + first, base + first, z, lanes, k);
        for (int32_t j = 0; j < lanes; j += 16, first += 16) {
            __m256 v_f32x8[2];
            for (int half = 0; half < 2; half++) {
                v_f32x8[half] = _mm256_max_ps(floor1_f32x8, _mm256_loadu_ps(z + j + 8 * half));
                if (add) v_f32x8[half] = _mm256_add_ps(v_f32x8[half], _mm256_loadu_ps(add + first + 8 * half));
                v_f32x8[half] = _mm256_max_ps(floor2_f32x8, v_f32x8[half]);
                if (y) _mm256_storeu_ps(y + first + 8 * half, v_f32x8[half]);
                _mm256_storeu_ps(z + j + 8 * half, v_f32x8[half]);
            }
            if (!yq) continue;
            if (rows - first < 16) { /* padding rows become 0 */
                v_f32x8[0] = tf_load_first_avx2(z + j, rows - first);
                v_f32x8[1] = tf_load_first_avx2(z + j + 8, rows - first - 8);
            }
            _mm_storeu_si128((__m128i *)(yq + first), tf_quantize16_avx2(v_f32x8[0], v_f32x8[1], inverse_f32x8, nan));
        }
        w += (size_t)lanes * (size_t)tf_up4(k);
    }
}

void TF_I8(lstm_fused_i8)(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *pre,
                          float *c, float *h, uint8_t *hq, float inverse, int32_t *nan, int32_t blocks, int32_t k) {
    float z[128];
    for (int32_t count; blocks > 0; blocks -= count) {
        count = blocks >= 2 ? 2 : 1;
        TF_I8(gemv_i8)(w, q, scale, corr, pre, z, count * 64, k);
        for (int32_t b = 0; b < count; b++, c += 16, h += 16) {
            tf_gates_i8_avx2(z + 64 * b, c, h);
            tf_gates_i8_avx2(z + 64 * b + 8, c + 8, h + 8);
            if (!hq) continue;
            const __m128i q_u8x16 =
                tf_quantize16_avx2(_mm256_loadu_ps(h), _mm256_loadu_ps(h + 8), _mm256_set1_ps(inverse), nan);
            _mm_storeu_si128((__m128i *)hq, q_u8x16);
            hq += 16;
        }
        w += (size_t)count * 64 * (size_t)tf_up4(k), scale += count * 64, corr += count * 64, pre += count * 64;
    }
}

void TF_I8(lstm_finish_i8)(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *pre,
                           float *c, float *h, int32_t blocks, int32_t k) {
    TF_I8(lstm_fused_i8)(w, q, scale, corr, pre, c, h, NULL, 0.0f, NULL, blocks, k);
}

void TF_I8(lstm_finish_i8a16)(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr,
                              const float *pre, float *c, float *h, int32_t blocks, int32_t k) {
    float z[128];
    for (int32_t count; blocks > 0; blocks -= count) {
        count = blocks >= 2 ? 2 : 1;
        TF_I8(gemv_i8a16)(w, q, scale, corr, pre, z, count * 64, k);
        for (int32_t b = 0; b < count; b++, c += 16, h += 16) {
            tf_gates_i8_avx2(z + 64 * b, c, h);
            tf_gates_i8_avx2(z + 64 * b + 8, c + 8, h + 8);
        }
        w += (size_t)count * 64 * (size_t)tf_up4(k), scale += count * 64, corr += count * 64, pre += count * 64;
    }
}

#endif
