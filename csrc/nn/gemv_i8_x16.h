/* gemv_i8, gemv_i8a16 and dense_i8 of gemv_i8.h in 512-bit registers, for one dot step. */
#ifndef TF_NN_GEMV_I8_X16_H
#define TF_NN_GEMV_I8_X16_H

#include "panel_i8_x16.h"

#include <math.h>

#define TF_ROW(group) _mm512_storeu_ps(z + 16 * group, tf_row_x16(sum.v##group, scale, base, group))

void TF_I8(gemv_i8)(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *base,
                    float *z, int32_t rows, int32_t k) {
    int32_t left = (rows + 15) / 16;
    k = tf_up4(k);
    for (; left >= 8; left -= 8) {
        const tf_i32x16x8 sum = tf_panel8_x16(w, q, corr, k);
        TF_ROW(0), TF_ROW(1), TF_ROW(2), TF_ROW(3), TF_ROW(4), TF_ROW(5), TF_ROW(6), TF_ROW(7);
        w += (size_t)k * 128, scale += 128, corr += 128, base += 128, z += 128;
    }
    if (left >= 4) {
        const tf_i32x16x4 sum = tf_panel4_x16(w, q, corr, k);
        TF_ROW(0), TF_ROW(1), TF_ROW(2), TF_ROW(3);
        left -= 4, w += (size_t)k * 64, scale += 64, corr += 64, base += 64, z += 64;
    }
    if (left >= 2) {
        const tf_i32x16x2 sum = tf_panel2_x16(w, q, corr, k);
        TF_ROW(0), TF_ROW(1);
        left -= 2, w += (size_t)k * 32, scale += 32, corr += 32, base += 32, z += 32;
    }
    if (left >= 1) _mm512_storeu_ps(z, tf_row_x16(tf_panel1_x16(w, q, corr, k), scale, base, 0));
}

#undef TF_ROW
#define TF_ROW(group) _mm512_storeu_ps(z + 16 * group, tf_row16_x16(high.v##group, low.v##group, scale, base, group))

void TF_I8(gemv_i8a16)(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *base,
                       float *z, int32_t rows, int32_t k) {
    const uint8_t *q_low = q + tf_plane_i8a16(k);
    int32_t left = (rows + 15) / 16;
    k = tf_up4(k);
    for (; left >= 8; left -= 8) {
        const tf_i32x16x8x2 sum = tf_planes8_x16(w, q, q_low, corr, k);
        const tf_i32x16x8 high = sum.high, low = sum.low;
        TF_ROW(0), TF_ROW(1), TF_ROW(2), TF_ROW(3), TF_ROW(4), TF_ROW(5), TF_ROW(6), TF_ROW(7);
        w += (size_t)k * 128, scale += 128, corr += 128, base += 128, z += 128;
    }
    if (left >= 4) {
        const tf_i32x16x4 high = tf_panel4_x16(w, q, corr, k), low = tf_panel4_x16(w, q_low, NULL, k);
        TF_ROW(0), TF_ROW(1), TF_ROW(2), TF_ROW(3);
        left -= 4, w += (size_t)k * 64, scale += 64, corr += 64, base += 64, z += 64;
    }
    if (left >= 2) {
        const tf_i32x16x2 high = tf_panel2_x16(w, q, corr, k), low = tf_panel2_x16(w, q_low, NULL, k);
        TF_ROW(0), TF_ROW(1);
        left -= 2, w += (size_t)k * 32, scale += 32, corr += 32, base += 32, z += 32;
    }
    if (left >= 1) {
        const __m512i high_i32x16 = tf_panel1_x16(w, q, corr, k), low_i32x16 = tf_panel1_x16(w, q_low, NULL, k);
        _mm512_storeu_ps(z, tf_row16_x16(high_i32x16, low_i32x16, scale, base, 0));
    }
}

#undef TF_ROW

/* What dense_i8 does with sums. */
typedef struct tf_dense_x16 {
    __m512 floor1_f32x16, floor2_f32x16, inverse_f32x16; /* a floor is 0 for ReLU, -infinity for none */
    const float *add;
    float *y;
    uint8_t *yq;
    int32_t rows;
    __mmask16 plain; /* lanes in which no y was NaN */
} tf_dense_x16;

/* The last steps of 16 rows. */
TF_INLINE void tf_dense_row_x16(tf_dense_x16 *to, __m512 z_f32x16, int32_t first) {
    __m512 y_f32x16 = _mm512_max_ps(to->floor1_f32x16, z_f32x16);
    if (to->add) y_f32x16 = _mm512_max_ps(to->floor2_f32x16, _mm512_add_ps(y_f32x16, _mm512_loadu_ps(to->add + first)));
    if (to->y) _mm512_storeu_ps(to->y + first, y_f32x16);
    if (to->yq) {
        if (to->rows - first < 16) y_f32x16 = _mm512_maskz_mov_ps(tf_first_avx512(to->rows - first), y_f32x16);
        _mm_storeu_si128((__m128i *)(to->yq + first), tf_quantize16_avx512(y_f32x16, to->inverse_f32x16, &to->plain));
    }
}

#define TF_ROW(group)                                                                                                  \
    tf_dense_row_x16(&to, tf_row_x16(sum.v##group, scale + first, base + first, group), first + 16 * group)

void TF_I8(dense_i8)(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *base,
                     const float *add, float *y, uint8_t *yq, float inverse, int32_t *nan, int32_t rows, int32_t k,
                     int32_t relu) {
    const __m512 zero_f32x16 = _mm512_setzero_ps(), lowest_f32x16 = _mm512_set1_ps(-INFINITY);
    tf_dense_x16 to = {relu & 1 || (relu & 2 && !add) ? zero_f32x16 : lowest_f32x16,
                       relu & 2 ? zero_f32x16 : lowest_f32x16,
                       _mm512_set1_ps(inverse),
                       add,
                       y,
                       yq,
                       rows,
                       0xFFFF};
    const int32_t end = (rows + 15) / 16 * 16;
    int32_t first = 0;
    k = tf_up4(k);
    for (; end - first >= 128; first += 128, w += (size_t)k * 128) {
        const tf_i32x16x8 sum = tf_panel8_x16(w, q, corr + first, k);
        TF_ROW(0), TF_ROW(1), TF_ROW(2), TF_ROW(3), TF_ROW(4), TF_ROW(5), TF_ROW(6), TF_ROW(7);
    }
    if (end - first >= 64) {
        const tf_i32x16x4 sum = tf_panel4_x16(w, q, corr + first, k);
        TF_ROW(0), TF_ROW(1), TF_ROW(2), TF_ROW(3);
        first += 64, w += (size_t)k * 64;
    }
    if (end - first >= 32) {
        const tf_i32x16x2 sum = tf_panel2_x16(w, q, corr + first, k);
        TF_ROW(0), TF_ROW(1);
        first += 32, w += (size_t)k * 32;
    }
    if (end - first >= 16) {
        const __m512i sum_i32x16 = tf_panel1_x16(w, q, corr + first, k);
        tf_dense_row_x16(&to, tf_row_x16(sum_i32x16, scale + first, base + first, 0), first);
    }
    if (to.plain != 0xFFFF) *nan |= 1;
}

#undef TF_ROW

#endif
