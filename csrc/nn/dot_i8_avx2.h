/* Four columns of eight rows (AVX2): sum[j] += w[j][0..3] . q[0..3], exact, as in dot_i8_avx512.h. */
#ifndef TF_NN_DOT_I8_H
#define TF_NN_DOT_I8_H

#include "gemv_i8.h"

#include <immintrin.h>

#define TF_I8(name) tf_##name##_avx2

typedef struct tf_column {
    __m256i even, odd;
} tf_column;

static inline __attribute__((always_inline)) tf_column tf_column_at(const uint8_t *q) {
    const __m256i q_u8x32 = _mm256_set1_epi32(*(const tf_four_bytes *)q);
    return (tf_column){_mm256_and_si256(q_u8x32, _mm256_set1_epi16(255)), _mm256_srli_epi16(q_u8x32, 8)};
}

static inline __attribute__((always_inline)) __m256i tf_dot(__m256i sum_i32x8, const void *w, tf_column column) {
    const __m256i w_i8x32 = _mm256_loadu_si256(w);
    const __m256i even_i16x16 = _mm256_srai_epi16(_mm256_slli_epi16(w_i8x32, 8), 8);
    const __m256i odd_i16x16 = _mm256_srai_epi16(w_i8x32, 8);
    return _mm256_add_epi32(sum_i32x8, _mm256_add_epi32(_mm256_madd_epi16(even_i16x16, column.even),
                                                        _mm256_madd_epi16(odd_i16x16, column.odd)));
}

#define TF_DOT(sum, w, column) sum = tf_dot(sum, w, column)

#endif
