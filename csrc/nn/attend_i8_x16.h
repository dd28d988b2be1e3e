/* attend_i8 of attend_i8.h in 512-bit registers, for one dot step. */
#ifndef TF_NN_ATTEND_I8_X16_H
#define TF_NN_ATTEND_I8_X16_H

#include "attend_i8.h"
#include "panel_i8_x16.h"

#include <math.h>

TF_INLINE __m512 tf_score_x16(__m512i sum_i32x16, __m512 score_f32x16, const float *bias) {
    return _mm512_fmadd_ps(score_f32x16, _mm512_cvtepi32_ps(sum_i32x16), _mm512_loadu_ps(bias));
}

/* Scores of one head into p; returns their maxima by lane. Four blocks of 16 slots at a time, so that four sums are in
 * flight for each byte quartet of the query. */
TF_INLINE __m512 tf_scores_x16(const uint8_t *q, const int8_t *key, const int32_t *corr, const float *bias, float *p,
                               float score, int32_t dim, int32_t slots) {
    const __m512 score_f32x16 = _mm512_set1_ps(score);
    const size_t block = (size_t)dim * 16;
    __m512 most_f32x16 = _mm512_set1_ps(-INFINITY);
    int32_t j = 0;
    for (; j + 64 <= slots; j += 64, key += 4 * block) {
        __m512i a_i32x16 = _mm512_loadu_si512(corr + j), b_i32x16 = _mm512_loadu_si512(corr + j + 16),
                c_i32x16 = _mm512_loadu_si512(corr + j + 32), d_i32x16 = _mm512_loadu_si512(corr + j + 48);
        for (int32_t i = 0; i < dim; i += 4) {
            const tf_column column = tf_column_at(q + i);
            TF_DOT(a_i32x16, key + i * 16, column);
            TF_DOT(b_i32x16, key + block + i * 16, column);
            TF_DOT(c_i32x16, key + 2 * block + i * 16, column);
            TF_DOT(d_i32x16, key + 3 * block + i * 16, column);
        }
        const __m512 a_f32x16 = tf_score_x16(a_i32x16, score_f32x16, bias + j);
        const __m512 b_f32x16 = tf_score_x16(b_i32x16, score_f32x16, bias + j + 16);
        const __m512 c_f32x16 = tf_score_x16(c_i32x16, score_f32x16, bias + j + 32);
        const __m512 d_f32x16 = tf_score_x16(d_i32x16, score_f32x16, bias + j + 48);
        _mm512_storeu_ps(p + j, a_f32x16);
        _mm512_storeu_ps(p + j + 16, b_f32x16);
        _mm512_storeu_ps(p + j + 32, c_f32x16);
        _mm512_storeu_ps(p + j + 48, d_f32x16);
        most_f32x16 = _mm512_max_ps(
            most_f32x16, _mm512_max_ps(_mm512_max_ps(a_f32x16, b_f32x16), _mm512_max_ps(c_f32x16, d_f32x16)));
    }
    for (; j < slots; j += 16, key += block) {
        __m512i sum_i32x16 = _mm512_loadu_si512(corr + j);
        for (int32_t i = 0; i < dim; i += 4) TF_DOT(sum_i32x16, key + i * 16, tf_column_at(q + i));
        const __m512 z_f32x16 = tf_score_x16(sum_i32x16, score_f32x16, bias + j);
        _mm512_storeu_ps(p + j, z_f32x16);
        most_f32x16 = _mm512_max_ps(most_f32x16, z_f32x16);
    }
    return most_f32x16;
}

/* Scores to quantised weights, a byte for each of the first slots of p's own memory; returns their sum. A block's bytes
 * lie at or before its scores, which were read by then. */
TF_INLINE int32_t tf_weights_x16(float *p, __m512 most_f32x16, int32_t slots) {
    const __m512 lowest_f32x16 = _mm512_set1_ps(-TF_EXP2_LIMIT);
    const __m512 top_f32x16 = _mm512_set1_ps(_mm512_reduce_max_ps(most_f32x16));
    __m512i total_i32x16 = _mm512_setzero_si512();
    for (int32_t j = 0; j < slots; j += 16) {
        const __m512 below_f32x16 = _mm512_sub_ps(_mm512_loadu_ps(p + j), top_f32x16);
        const tf_exp2_i8x16 e = tf_exp2_i8_avx512(_mm512_max_ps(lowest_f32x16, below_f32x16));
        const __m512i weight_i32x16 =
            _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_mul_ps(e.s, _mm512_set1_ps(255.0f)), e.p));
        total_i32x16 = _mm512_add_epi32(total_i32x16, weight_i32x16);
        _mm_storeu_si128((__m128i *)((uint8_t *)p + j), _mm512_cvtepi32_epi8(weight_i32x16));
    }
    return _mm512_reduce_add_epi32(total_i32x16);
}

/* sum_j p_j v_j of one head, times scale. */
TF_INLINE void tf_output_x16(const uint8_t *weight, const int8_t *values, float *y, float scale, int32_t value_dim,
                             int32_t slots) {
    const __m512 scale_f32x16 = _mm512_set1_ps(scale);
    const size_t quartet = (size_t)(value_dim + 15) / 16 * 64; /* bytes of four slots */
    for (int32_t d = 0; d < value_dim; d += 16, values += 64) {
        const int8_t *v = values;
        __m512i a_i32x16 = _mm512_setzero_si512(), b_i32x16 = a_i32x16, c_i32x16 = a_i32x16, d_i32x16 = a_i32x16;
        for (int32_t j = 0; j < slots; j += 16, v += 4 * quartet) {
            TF_DOT(a_i32x16, v, tf_column_at(weight + j));
            TF_DOT(b_i32x16, v + quartet, tf_column_at(weight + j + 4));
            TF_DOT(c_i32x16, v + 2 * quartet, tf_column_at(weight + j + 8));
            TF_DOT(d_i32x16, v + 3 * quartet, tf_column_at(weight + j + 12));
        }
        const __m512i sum_i32x16 =
            _mm512_add_epi32(_mm512_add_epi32(a_i32x16, b_i32x16), _mm512_add_epi32(c_i32x16, d_i32x16));
        const int32_t left = value_dim - d;
        const __mmask16 mask = left >= 16 ? 0xFFFF : (__mmask16)((1u << left) - 1u);
        _mm512_mask_storeu_ps(y + d, mask, _mm512_mul_ps(scale_f32x16, _mm512_cvtepi32_ps(sum_i32x16)));
    }
}

/* Each head goes through three stages, a step behind the head before it: while a stage waits for its loads or for its
 * reduction, there is a neighbour's work to do. */
void TF_I8(attend_i8)(const uint8_t *q, const int8_t *keys, const int32_t *corr, const int8_t *values,
                      const float *bias, float *p, float *y, float score, float value, int32_t heads, int32_t group,
                      int32_t dim, int32_t value_dim, int32_t slots) {
    const size_t key_bytes = (size_t)tf_up4(dim), value_bytes = (size_t)(value_dim + 15) / 16 * 16;
    __m512 most_f32x16 = _mm512_setzero_ps();
    int32_t total = 0;
    for (int32_t step = 0; step < heads + 2; step++) {
        const __m512 last_most_f32x16 = most_f32x16;
        const int32_t last_total = total;
        if (step < heads) {
            const size_t head = (size_t)step, from = (size_t)(step / group) * (size_t)slots;
            most_f32x16 =
                tf_scores_x16(q + head * key_bytes, keys + from * key_bytes, corr + from, bias + head * (size_t)slots,
                              p + head * (size_t)slots, score, (int32_t)key_bytes, slots);
        }
        if (step >= 1 && step <= heads)
            total = tf_weights_x16(p + (size_t)(step - 1) * (size_t)slots, last_most_f32x16, slots);
        if (step >= 2) {
            const size_t head = (size_t)step - 2, from = (size_t)((step - 2) / group) * (size_t)slots;
            tf_output_x16((const uint8_t *)(p + head * (size_t)slots), values + from * value_bytes,
                          y + head * (size_t)value_dim, value / (float)last_total, value_dim, slots);
        }
    }
}

#endif
