/* lstm_fused_i8, lstm_finish_i8 and lstm_finish_i8a16 of lstm_i8.h in 512-bit registers, for one dot step. */
#ifndef TF_NN_LSTM_I8_X16_H
#define TF_NN_LSTM_I8_X16_H

#include "panel_i8_x16.h"

/* Where the h of 16 units goes. */
typedef struct tf_state_x16 {
    float *c, *h;
    uint8_t *hq;
    __m512 inverse_f32x16;
    __mmask16 plain; /* lanes in which no h was NaN */
} tf_state_x16;

TF_INLINE void tf_units_x16(tf_state_x16 *to, __m512 zi, __m512 zf, __m512 zg, __m512 zo) {
    const __m512 h_f32x16 = tf_gates_i8_avx512(zi, zf, zg, zo, to->c);
    _mm512_storeu_ps(to->h, h_f32x16);
    if (to->hq) {
        _mm_storeu_si128((__m128i *)to->hq, tf_quantize16_avx512(h_f32x16, to->inverse_f32x16, &to->plain));
        to->hq += 16;
    }
    to->c += 16, to->h += 16;
}

#define TF_ROW(group) tf_row_x16(sum.v##group, scale, pre, group)

TF_INLINE void tf_lstm_x16(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *pre,
                           tf_state_x16 *to, int32_t blocks, int32_t k) {
    k = tf_up4(k);
    for (; blocks >= 2; blocks -= 2, w += (size_t)k * 128, scale += 128, corr += 128, pre += 128) {
        const tf_i32x16x8 sum = tf_panel8_x16(w, q, corr, k);
        tf_units_x16(to, TF_ROW(0), TF_ROW(1), TF_ROW(2), TF_ROW(3));
        tf_units_x16(to, TF_ROW(4), TF_ROW(5), TF_ROW(6), TF_ROW(7));
    }
    if (blocks > 0) {
        const tf_i32x16x4 sum = tf_panel4_x16(w, q, corr, k);
        tf_units_x16(to, TF_ROW(0), TF_ROW(1), TF_ROW(2), TF_ROW(3));
    }
}

#undef TF_ROW

void TF_I8(lstm_finish_i8)(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *pre,
                           float *c, float *h, int32_t blocks, int32_t k) {
    tf_state_x16 to = {c, h, NULL, _mm512_setzero_ps(), 0xFFFF};
    tf_lstm_x16(w, q, scale, corr, pre, &to, blocks, k);
}

void TF_I8(lstm_fused_i8)(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *pre,
                          float *c, float *h, uint8_t *hq, float inverse, int32_t *nan, int32_t blocks, int32_t k) {
    tf_state_x16 to = {c, h, hq, _mm512_set1_ps(inverse), 0xFFFF};
    tf_lstm_x16(w, q, scale, corr, pre, &to, blocks, k);
    if (to.plain != 0xFFFF) *nan |= 1;
}

#define TF_ROW(group) tf_row16_x16(high.v##group, low.v##group, scale, pre, group)

void TF_I8(lstm_finish_i8a16)(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr,
                              const float *pre, float *c, float *h, int32_t blocks, int32_t k) {
    const uint8_t *q_low = q + tf_plane_i8a16(k);
    tf_state_x16 to = {c, h, NULL, _mm512_setzero_ps(), 0xFFFF};
    k = tf_up4(k);
    for (; blocks >= 2; blocks -= 2, w += (size_t)k * 128, scale += 128, corr += 128, pre += 128) {
        const tf_i32x16x8x2 sum = tf_planes8_x16(w, q, q_low, corr, k);
        const tf_i32x16x8 high = sum.high, low = sum.low;
        tf_units_x16(&to, TF_ROW(0), TF_ROW(1), TF_ROW(2), TF_ROW(3));
        tf_units_x16(&to, TF_ROW(4), TF_ROW(5), TF_ROW(6), TF_ROW(7));
    }
    if (blocks > 0) {
        const tf_i32x16x4 high = tf_panel4_x16(w, q, corr, k), low = tf_panel4_x16(w, q_low, NULL, k);
        tf_units_x16(&to, TF_ROW(0), TF_ROW(1), TF_ROW(2), TF_ROW(3));
    }
}

#undef TF_ROW

#endif
