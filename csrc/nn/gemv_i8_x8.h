/* gemv_i8, gemv_i8a16 and dense_i8 of gemv_i8.h in 256-bit registers, over the dot step of dot_i8_avx2.h or
 * dot_i8_avxvnni.h, which is included first. Sixteen registers hold eight sums, so a panel is walked in pairs of
 * groups: four vectors of eight rows, each with two sums (of even and odd quartets of columns). */
#ifndef TF_NN_GEMV_I8_X8_H
#define TF_NN_GEMV_I8_X8_H

#include "gemv_i8.h"
#include "lanes_i8_avx2.h"

#include <math.h>

#define TF_INLINE static inline __attribute__((always_inline))

typedef struct tf_i32x8x4 {
    __m256i v0, v1, v2, v3;
} tf_i32x8x4;

TF_INLINE __m256i tf_start_x8(const int32_t *start, int eight) {
    return start ? _mm256_loadu_si256((const __m256i *)(start + 8 * eight)) : _mm256_setzero_si256();
}

/* Sums of two groups of a panel in which four columns take `stride` bytes; `start` has 32 int32 or is NULL for zero. */
TF_INLINE tf_i32x8x4 tf_pair_x8(const int8_t *w, const uint8_t *q, const int32_t *start, int32_t k, size_t stride) {
    __m256i a0_i32x8 = tf_start_x8(start, 0), a1_i32x8 = tf_start_x8(start, 1), a2_i32x8 = tf_start_x8(start, 2),
            a3_i32x8 = tf_start_x8(start, 3);
    __m256i b0_i32x8 = _mm256_setzero_si256(), b1_i32x8 = b0_i32x8, b2_i32x8 = b0_i32x8, b3_i32x8 = b0_i32x8;
    for (; k >= 8; k -= 8, w += 2 * stride, q += 8) {
        const tf_column a = tf_column_at(q), b = tf_column_at(q + 4);
        TF_DOT(a0_i32x8, w, a);
        TF_DOT(a1_i32x8, w + 32, a);
        TF_DOT(a2_i32x8, w + 64, a);
        TF_DOT(a3_i32x8, w + 96, a);
        TF_DOT(b0_i32x8, w + stride, b);
        TF_DOT(b1_i32x8, w + stride + 32, b);
        TF_DOT(b2_i32x8, w + stride + 64, b);
        TF_DOT(b3_i32x8, w + stride + 96, b);
    }
    if (k > 0) {
        const tf_column a = tf_column_at(q);
        TF_DOT(a0_i32x8, w, a);
        TF_DOT(a1_i32x8, w + 32, a);
        TF_DOT(a2_i32x8, w + 64, a);
        TF_DOT(a3_i32x8, w + 96, a);
    }
    return (tf_i32x8x4){_mm256_add_epi32(a0_i32x8, b0_i32x8), _mm256_add_epi32(a1_i32x8, b1_i32x8),
                        _mm256_add_epi32(a2_i32x8, b2_i32x8), _mm256_add_epi32(a3_i32x8, b3_i32x8)};
}

typedef struct tf_i32x8x2 {
    __m256i v0, v1;
} tf_i32x8x2;

/* Sums of a panel of one group. */
TF_INLINE tf_i32x8x2 tf_single_x8(const int8_t *w, const uint8_t *q, const int32_t *start, int32_t k) {
    __m256i a0_i32x8 = tf_start_x8(start, 0), a1_i32x8 = tf_start_x8(start, 1);
    __m256i b0_i32x8 = _mm256_setzero_si256(), b1_i32x8 = b0_i32x8;
    for (; k >= 8; k -= 8, w += 128, q += 8) {
        const tf_column a = tf_column_at(q), b = tf_column_at(q + 4);
        TF_DOT(a0_i32x8, w, a);
        TF_DOT(a1_i32x8, w + 32, a);
        TF_DOT(b0_i32x8, w + 64, b);
        TF_DOT(b1_i32x8, w + 96, b);
    }
    if (k > 0) {
        const tf_column a = tf_column_at(q);
        TF_DOT(a0_i32x8, w, a);
        TF_DOT(a1_i32x8, w + 32, a);
    }
    return (tf_i32x8x2){_mm256_add_epi32(a0_i32x8, b0_i32x8), _mm256_add_epi32(a1_i32x8, b1_i32x8)};
}

/* z of eight rows at scale, base and z. */
TF_INLINE void tf_row_x8(__m256i sum_i32x8, const float *scale, const float *base, float *z) {
    _mm256_storeu_ps(z, _mm256_fmadd_ps(_mm256_loadu_ps(scale), _mm256_cvtepi32_ps(sum_i32x8), _mm256_loadu_ps(base)));
}
TF_INLINE void tf_row16_x8(__m256i high_i32x8, __m256i low_i32x8, const float *scale, const float *base, float *z) {
    const __m256 sum_f32x8 =
        _mm256_fmadd_ps(_mm256_set1_ps(256.0f), _mm256_cvtepi32_ps(high_i32x8), _mm256_cvtepi32_ps(low_i32x8));
    _mm256_storeu_ps(z, _mm256_fmadd_ps(_mm256_loadu_ps(scale), sum_f32x8, _mm256_loadu_ps(base)));
}

#define TF_ROW(eight) tf_row_x8(sum.v##eight, scale + 8 * eight, base + 8 * eight, z + 8 * eight)

/* k is a multiple of 4 here. */
TF_INLINE void tf_gemv_x8(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *base,
                          float *z, int32_t rows, int32_t k) {
    for (int32_t left = (rows + 15) / 16, groups; left > 0; left -= groups, w += (size_t)groups * 16 * (size_t)k) {
        groups = tf_panel_groups(left);
        for (int32_t pair = 0; pair + 2 <= groups; pair += 2) {
            const tf_i32x8x4 sum = tf_pair_x8(w + 64 * pair, q, corr, k, (size_t)groups * 64);
            TF_ROW(0), TF_ROW(1), TF_ROW(2), TF_ROW(3);
            scale += 32, corr += 32, base += 32, z += 32;
        }
        if (groups == 1) {
            const tf_i32x8x2 sum = tf_single_x8(w, q, corr, k);
            TF_ROW(0), TF_ROW(1);
        }
    }
}

#undef TF_ROW
#define TF_ROW(eight) tf_row16_x8(high.v##eight, low.v##eight, scale + 8 * eight, base + 8 * eight, z + 8 * eight)

TF_INLINE void tf_gemv16_x8(const int8_t *w, const uint8_t *q, const uint8_t *q_low, const float *scale,
                            const int32_t *corr, const float *base, float *z, int32_t rows, int32_t k) {
    for (int32_t left = (rows + 15) / 16, groups; left > 0; left -= groups, w += (size_t)groups * 16 * (size_t)k) {
        groups = tf_panel_groups(left);
        for (int32_t pair = 0; pair + 2 <= groups; pair += 2) {
            const tf_i32x8x4 high = tf_pair_x8(w + 64 * pair, q, corr, k, (size_t)groups * 64);
            const tf_i32x8x4 low = tf_pair_x8(w + 64 * pair, q_low, NULL, k, (size_t)groups * 64);
            TF_ROW(0), TF_ROW(1), TF_ROW(2), TF_ROW(3);
            scale += 32, corr += 32, base += 32, z += 32;
        }
        if (groups == 1) {
            const tf_i32x8x2 high = tf_single_x8(w, q, corr, k), low = tf_single_x8(w, q_low, NULL, k);
            TF_ROW(0), TF_ROW(1);
        }
    }
}

#undef TF_ROW

#endif
