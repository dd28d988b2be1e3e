/* attend_i8 of attend_i8.h in 256-bit registers, for one dot step. */
#ifndef TF_NN_ATTEND_I8_X8_H
#define TF_NN_ATTEND_I8_X8_H

#include "attend_i8.h"
#include "gemv_i8_x8.h"

/* Scores of one head into p; returns their maxima by lane. */
TF_INLINE __m256 tf_scores_x8(const uint8_t *q, const int8_t *key, const int32_t *corr, const float *bias, float *p,
                              float score, int32_t dim, int32_t slots) {
    const __m256 score_f32x8 = _mm256_set1_ps(score);
    __m256 most_f32x8 = _mm256_set1_ps(-INFINITY);
    for (int32_t j = 0; j < slots; j += 16, key += 16 * dim) {
        const tf_i32x8x2 sum = tf_single_x8(key, q, corr + j, dim);
        const __m256 a_f32x8 = _mm256_fmadd_ps(score_f32x8, _mm256_cvtepi32_ps(sum.v0), _mm256_loadu_ps(bias + j));
        const __m256 b_f32x8 = _mm256_fmadd_ps(score_f32x8, _mm256_cvtepi32_ps(sum.v1), _mm256_loadu_ps(bias + j + 8));
        _mm256_storeu_ps(p + j, a_f32x8);
        _mm256_storeu_ps(p + j + 8, b_f32x8);
        most_f32x8 = _mm256_max_ps(most_f32x8, _mm256_max_ps(a_f32x8, b_f32x8));
    }
    return most_f32x8;
}

TF_INLINE __m256i tf_weight_x8(const float *p, __m256 top_f32x8) {
    const __m256 below_f32x8 = _mm256_sub_ps(_mm256_loadu_ps(p), top_f32x8);
    const tf_exp2_i8x8 e = tf_exp2_i8_avx2(_mm256_max_ps(_mm256_set1_ps(-TF_EXP2_LIMIT), below_f32x8));
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_mul_ps(e.s, _mm256_set1_ps(255.0f)), e.p));
}

/* Scores to quantised weights in p's own memory, as in attend_i8_x16.h; returns their sum. */
TF_INLINE int32_t tf_weights_x8(float *p, __m256 most_f32x8, int32_t slots) {
    most_f32x8 = _mm256_max_ps(most_f32x8, _mm256_permute2f128_ps(most_f32x8, most_f32x8, 1));
    most_f32x8 = _mm256_max_ps(most_f32x8, _mm256_permute_ps(most_f32x8, 0x4E));
    most_f32x8 = _mm256_max_ps(most_f32x8, _mm256_permute_ps(most_f32x8, 0xB1));
    __m256i total_i32x8 = _mm256_setzero_si256();
    for (int32_t j = 0; j < slots; j += 16) {
        const __m256i a_i32x8 = tf_weight_x8(p + j, most_f32x8), b_i32x8 = tf_weight_x8(p + j + 8, most_f32x8);
        const __m256i sorted_i16x16 = _mm256_permute4x64_epi64(_mm256_packus_epi32(a_i32x8, b_i32x8), 0xD8);
        total_i32x8 = _mm256_add_epi32(total_i32x8, _mm256_add_epi32(a_i32x8, b_i32x8));
        _mm_storeu_si128((__m128i *)((uint8_t *)p + j), _mm_packus_epi16(_mm256_castsi256_si128(sorted_i16x16),
                                                                         _mm256_extracti128_si256(sorted_i16x16, 1)));
    }
    __m128i total_i32x4 = _mm_add_epi32(_mm256_castsi256_si128(total_i32x8), _mm256_extracti128_si256(total_i32x8, 1));
    total_i32x4 = _mm_add_epi32(total_i32x4, _mm_shuffle_epi32(total_i32x4, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(total_i32x4, _mm_shuffle_epi32(total_i32x4, 0xB1)));
}

TF_INLINE void tf_output_x8(const uint8_t *weight, const int8_t *values, float *y, float scale, int32_t value_dim,
                            int32_t slots) {
    const size_t quartet = (size_t)(value_dim + 15) / 16 * 64; /* bytes of four slots */
    for (int32_t d = 0; d < value_dim; d += 8, values += 32) {
        const int8_t *v = values;
        __m256i a_i32x8 = _mm256_setzero_si256(), b_i32x8 = a_i32x8, c_i32x8 = a_i32x8, d_i32x8 = a_i32x8;
        for (int32_t j = 0; j < slots; j += 16, v += 4 * quartet) {
            const tf_column a = tf_column_at(weight + j), b = tf_column_at(weight + j + 4),
                            e = tf_column_at(weight + j + 8), f = tf_column_at(weight + j + 12);
            TF_DOT(a_i32x8, v, a);
            TF_DOT(b_i32x8, v + quartet, b);
            TF_DOT(c_i32x8, v + 2 * quartet, e);
            TF_DOT(d_i32x8, v + 3 * quartet, f);
        }
        const __m256i sum_i32x8 =
            _mm256_add_epi32(_mm256_add_epi32(a_i32x8, b_i32x8), _mm256_add_epi32(c_i32x8, d_i32x8));
        const __m256 y_f32x8 = _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(sum_i32x8));
        const __m256i mask_i32x8 =
            _mm256_cmpgt_epi32(_mm256_set1_epi32(value_dim - d), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        _mm256_maskstore_ps(y + d, mask_i32x8, y_f32x8);
    }
}

void TF_I8(attend_i8)(const uint8_t *q, const int8_t *keys, const int32_t *corr, const int8_t *values,
                      const float *bias, float *p, float *y, float score, float value, int32_t heads, int32_t group,
                      int32_t dim, int32_t value_dim, int32_t slots) {
    const size_t key_bytes = (size_t)tf_up4(dim), value_bytes = (size_t)(value_dim + 15) / 16 * 16;
    for (int32_t head = 0; head < heads; head++, q += key_bytes, bias += slots, p += slots, y += value_dim) {
        const size_t from = (size_t)(head / group) * (size_t)slots;
        const __m256 most_f32x8 =
            tf_scores_x8(q, keys + from * key_bytes, corr + from, bias, p, score, (int32_t)key_bytes, slots);
        const int32_t total = tf_weights_x8(p, most_f32x8, slots);
        tf_output_x8((const uint8_t *)p, values + from * value_bytes, y, value / (float)total, value_dim, slots);
    }
}

#endif
