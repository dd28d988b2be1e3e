/* The panels of gemv_i8.h in 512-bit registers, over the dot step of dot_i8_avx512.h or dot_i8_avx512vnni.h, which is
 * included first. Integer addition is associative, so a panel of R groups keeps as many partial sums as hide the
 * latency of the dot step, eight in flight (four in a panel of one group); the next panel's overlap with the end of
 * this one's. */
#ifndef TF_NN_PANEL_I8_X16_H
#define TF_NN_PANEL_I8_X16_H

#include "gemv_i8.h"
#include "lanes_i8_avx512.h"

#define TF_INLINE static inline __attribute__((always_inline))

typedef struct tf_i32x16x8 {
    __m512i v0, v1, v2, v3, v4, v5, v6, v7;
} tf_i32x16x8;
typedef struct tf_i32x16x4 {
    __m512i v0, v1, v2, v3;
} tf_i32x16x4;
typedef struct tf_i32x16x2 {
    __m512i v0, v1;
} tf_i32x16x2;

/* start: 16 R int32 or NULL for zero. k is rounded up to 4 by the caller. */
TF_INLINE __m512i tf_start_x16(const int32_t *start, int group) {
    return start ? _mm512_loadu_si512(start + 16 * group) : _mm512_setzero_si512();
}

TF_INLINE tf_i32x16x8 tf_panel8_x16(const int8_t *w, const uint8_t *q, const int32_t *start, int32_t k) {
    __m512i a0_i32x16 = tf_start_x16(start, 0), a1_i32x16 = tf_start_x16(start, 1), a2_i32x16 = tf_start_x16(start, 2),
            a3_i32x16 = tf_start_x16(start, 3), a4_i32x16 = tf_start_x16(start, 4), a5_i32x16 = tf_start_x16(start, 5),
            a6_i32x16 = tf_start_x16(start, 6), a7_i32x16 = tf_start_x16(start, 7);
    for (; k > 0; k -= 4, w += 512, q += 4) {
        const tf_column a = tf_column_at(q);
        TF_DOT(a0_i32x16, w, a);
        TF_DOT(a1_i32x16, w + 64, a);
        TF_DOT(a2_i32x16, w + 128, a);
        TF_DOT(a3_i32x16, w + 192, a);
        TF_DOT(a4_i32x16, w + 256, a);
        TF_DOT(a5_i32x16, w + 320, a);
        TF_DOT(a6_i32x16, w + 384, a);
        TF_DOT(a7_i32x16, w + 448, a);
    }
    return (tf_i32x16x8){a0_i32x16, a1_i32x16, a2_i32x16, a3_i32x16, a4_i32x16, a5_i32x16, a6_i32x16, a7_i32x16};
}

TF_INLINE tf_i32x16x4 tf_panel4_x16(const int8_t *w, const uint8_t *q, const int32_t *start, int32_t k) {
    __m512i a0_i32x16 = tf_start_x16(start, 0), a1_i32x16 = tf_start_x16(start, 1), a2_i32x16 = tf_start_x16(start, 2),
            a3_i32x16 = tf_start_x16(start, 3);
    __m512i b0_i32x16 = _mm512_setzero_si512(), b1_i32x16 = b0_i32x16, b2_i32x16 = b0_i32x16, b3_i32x16 = b0_i32x16;
    for (; k >= 8; k -= 8, w += 512, q += 8) {
        const tf_column a = tf_column_at(q), b = tf_column_at(q + 4);
        TF_DOT(a0_i32x16, w, a);
        TF_DOT(a1_i32x16, w + 64, a);
        TF_DOT(a2_i32x16, w + 128, a);
        TF_DOT(a3_i32x16, w + 192, a);
        TF_DOT(b0_i32x16, w + 256, b);
        TF_DOT(b1_i32x16, w + 320, b);
        TF_DOT(b2_i32x16, w + 384, b);
        TF_DOT(b3_i32x16, w + 448, b);
    }
    if (k > 0) {
        const tf_column a = tf_column_at(q);
        TF_DOT(a0_i32x16, w, a);
        TF_DOT(a1_i32x16, w + 64, a);
        TF_DOT(a2_i32x16, w + 128, a);
        TF_DOT(a3_i32x16, w + 192, a);
    }
    return (tf_i32x16x4){_mm512_add_epi32(a0_i32x16, b0_i32x16), _mm512_add_epi32(a1_i32x16, b1_i32x16),
                         _mm512_add_epi32(a2_i32x16, b2_i32x16), _mm512_add_epi32(a3_i32x16, b3_i32x16)};
}

TF_INLINE tf_i32x16x2 tf_panel2_x16(const int8_t *w, const uint8_t *q, const int32_t *start, int32_t k) {
    __m512i a0_i32x16 = tf_start_x16(start, 0), a1_i32x16 = tf_start_x16(start, 1);
    __m512i b0_i32x16 = _mm512_setzero_si512(), b1_i32x16 = b0_i32x16, c0_i32x16 = b0_i32x16, c1_i32x16 = b0_i32x16,
            d0_i32x16 = b0_i32x16, d1_i32x16 = b0_i32x16;
    for (; k >= 16; k -= 16, w += 512, q += 16) {
        const tf_column a = tf_column_at(q), b = tf_column_at(q + 4), c = tf_column_at(q + 8), d = tf_column_at(q + 12);
        TF_DOT(a0_i32x16, w, a);
        TF_DOT(a1_i32x16, w + 64, a);
        TF_DOT(b0_i32x16, w + 128, b);
        TF_DOT(b1_i32x16, w + 192, b);
        TF_DOT(c0_i32x16, w + 256, c);
        TF_DOT(c1_i32x16, w + 320, c);
        TF_DOT(d0_i32x16, w + 384, d);
        TF_DOT(d1_i32x16, w + 448, d);
    }
    for (; k > 0; k -= 4, w += 128, q += 4) {
        const tf_column a = tf_column_at(q);
        TF_DOT(a0_i32x16, w, a);
        TF_DOT(a1_i32x16, w + 64, a);
    }
    return (tf_i32x16x2){
        _mm512_add_epi32(_mm512_add_epi32(a0_i32x16, b0_i32x16), _mm512_add_epi32(c0_i32x16, d0_i32x16)),
        _mm512_add_epi32(_mm512_add_epi32(a1_i32x16, b1_i32x16), _mm512_add_epi32(c1_i32x16, d1_i32x16))};
}

TF_INLINE __m512i tf_panel1_x16(const int8_t *w, const uint8_t *q, const int32_t *start, int32_t k) {
    __m512i a_i32x16 = tf_start_x16(start, 0), b_i32x16 = _mm512_setzero_si512(), c_i32x16 = b_i32x16,
            d_i32x16 = b_i32x16;
    for (; k >= 16; k -= 16, w += 256, q += 16) {
        TF_DOT(a_i32x16, w, tf_column_at(q));
        TF_DOT(b_i32x16, w + 64, tf_column_at(q + 4));
        TF_DOT(c_i32x16, w + 128, tf_column_at(q + 8));
        TF_DOT(d_i32x16, w + 192, tf_column_at(q + 12));
    }
    for (; k > 0; k -= 4, w += 64, q += 4) TF_DOT(a_i32x16, w, tf_column_at(q));
    return _mm512_add_epi32(_mm512_add_epi32(a_i32x16, b_i32x16), _mm512_add_epi32(c_i32x16, d_i32x16));
}

typedef struct tf_i32x16x8x2 {
    tf_i32x16x8 high, low;
} tf_i32x16x8x2;

/* Both planes of i8a16 over a panel of eight groups: weights are read once. */
TF_INLINE tf_i32x16x8x2 tf_planes8_x16(const int8_t *w, const uint8_t *q_high, const uint8_t *q_low,
                                       const int32_t *start, int32_t k) {
    __m512i a0_i32x16 = tf_start_x16(start, 0), a1_i32x16 = tf_start_x16(start, 1), a2_i32x16 = tf_start_x16(start, 2),
            a3_i32x16 = tf_start_x16(start, 3), a4_i32x16 = tf_start_x16(start, 4), a5_i32x16 = tf_start_x16(start, 5),
            a6_i32x16 = tf_start_x16(start, 6), a7_i32x16 = tf_start_x16(start, 7);
    __m512i b0_i32x16 = _mm512_setzero_si512(), b1_i32x16 = b0_i32x16, b2_i32x16 = b0_i32x16, b3_i32x16 = b0_i32x16,
            b4_i32x16 = b0_i32x16, b5_i32x16 = b0_i32x16, b6_i32x16 = b0_i32x16, b7_i32x16 = b0_i32x16;
    for (; k > 0; k -= 4, w += 512, q_high += 4, q_low += 4) {
        const tf_column a = tf_column_at(q_high), b = tf_column_at(q_low);
        TF_DOT(a0_i32x16, w, a);
        TF_DOT(b0_i32x16, w, b);
        TF_DOT(a1_i32x16, w + 64, a);
        TF_DOT(b1_i32x16, w + 64, b);
        TF_DOT(a2_i32x16, w + 128, a);
        TF_DOT(b2_i32x16, w + 128, b);
        TF_DOT(a3_i32x16, w + 192, a);
        TF_DOT(b3_i32x16, w + 192, b);
        TF_DOT(a4_i32x16, w + 256, a);
        TF_DOT(b4_i32x16, w + 256, b);
        TF_DOT(a5_i32x16, w + 320, a);
        TF_DOT(b5_i32x16, w + 320, b);
        TF_DOT(a6_i32x16, w + 384, a);
        TF_DOT(b6_i32x16, w + 384, b);
        TF_DOT(a7_i32x16, w + 448, a);
        TF_DOT(b7_i32x16, w + 448, b);
    }
    return (tf_i32x16x8x2){{a0_i32x16, a1_i32x16, a2_i32x16, a3_i32x16, a4_i32x16, a5_i32x16, a6_i32x16, a7_i32x16},
                           {b0_i32x16, b1_i32x16, b2_i32x16, b3_i32x16, b4_i32x16, b5_i32x16, b6_i32x16, b7_i32x16}};
}

/* z of the 16 rows of `group` from their sums. */
TF_INLINE __m512 tf_row_x16(__m512i sum_i32x16, const float *scale, const float *base, int group) {
    return _mm512_fmadd_ps(_mm512_loadu_ps(scale + 16 * group), _mm512_cvtepi32_ps(sum_i32x16),
                           _mm512_loadu_ps(base + 16 * group));
}
TF_INLINE __m512 tf_row16_x16(__m512i high_i32x16, __m512i low_i32x16, const float *scale, const float *base,
                              int group) {
    const __m512 sum_f32x16 =
        _mm512_fmadd_ps(_mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(high_i32x16), _mm512_cvtepi32_ps(low_i32x16));
    return _mm512_fmadd_ps(_mm512_loadu_ps(scale + 16 * group), sum_f32x16, _mm512_loadu_ps(base + 16 * group));
}

#endif
