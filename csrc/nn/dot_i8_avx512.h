/* Four columns of sixteen rows without VNNI (AVX-512 BW): sum[j] += w[j][0..3] . q[0..3], exact.
 *
 * vpmaddubsw would add pairs of products in 16 bits and saturate (2 * 255 * 127 > 32767). So weights and activations
 * are taken apart into even and odd columns of 16 bits; vpmaddwd then adds pairs of products in 32 bits. */
#ifndef TF_NN_DOT_I8_H
#define TF_NN_DOT_I8_H

#include "gemv_i8.h"

#include <immintrin.h>

#define TF_I8(name) tf_##name##_avx512

typedef struct tf_column {
    __m512i even, odd;
} tf_column;

static inline __attribute__((always_inline)) tf_column tf_column_at(const uint8_t *q) {
    const __m512i q_u8x64 = _mm512_set1_epi32(*(const tf_four_bytes *)q);
    return (tf_column){_mm512_and_si512(q_u8x64, _mm512_set1_epi16(255)), _mm512_srli_epi16(q_u8x64, 8)};
}

static inline __attribute__((always_inline)) __m512i tf_dot(__m512i sum_i32x16, const void *w, tf_column column) {
    const __m512i w_i8x64 = _mm512_loadu_si512(w);
    const __m512i even_i16x32 = _mm512_srai_epi16(_mm512_slli_epi16(w_i8x64, 8), 8);
    const __m512i odd_i16x32 = _mm512_srai_epi16(w_i8x64, 8);
    return _mm512_add_epi32(sum_i32x16, _mm512_add_epi32(_mm512_madd_epi16(even_i16x32, column.even),
                                                         _mm512_madd_epi16(odd_i16x32, column.odd)));
}

#define TF_DOT(sum, w, column) sum = tf_dot(sum, w, column)

#endif
