/* Folds of 16 lanes (two vectors) in the order of lanes_f32.h, and the mask of a row's end, in AVX2. */
#ifndef TF_NN_LANES_F32_AVX2_H
#define TF_NN_LANES_F32_AVX2_H

#include "lanes_f32.h"

#include <immintrin.h>
#include <stdint.h>

#ifndef TF_INLINE
#define TF_INLINE static inline __attribute__((always_inline))
#endif

/* The first `left` lanes, any number: none below 1, all from 8 on. */
TF_INLINE __m256i tf_tail_avx2(int32_t left) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

TF_INLINE float tf_fold_f32x8(__m256 low_f32x8, __m256 high_f32x8) {
    const __m256 sum_f32x8 = _mm256_add_ps(low_f32x8, high_f32x8);
    __m128 sum_f32x4 = _mm_add_ps(_mm256_castps256_ps128(sum_f32x8), _mm256_extractf128_ps(sum_f32x8, 1));
    sum_f32x4 = _mm_add_ps(sum_f32x4, _mm_movehl_ps(sum_f32x4, sum_f32x4));
    return _mm_cvtss_f32(_mm_add_ss(sum_f32x4, _mm_movehdup_ps(sum_f32x4)));
}

TF_INLINE float tf_highest_f32x8(__m256 x_f32x8) {
    __m128 x_f32x4 = _mm_max_ps(_mm256_castps256_ps128(x_f32x8), _mm256_extractf128_ps(x_f32x8, 1));
    x_f32x4 = _mm_max_ps(x_f32x4, _mm_movehl_ps(x_f32x4, x_f32x4));
    return _mm_cvtss_f32(_mm_max_ss(x_f32x4, _mm_movehdup_ps(x_f32x4)));
}

#endif
