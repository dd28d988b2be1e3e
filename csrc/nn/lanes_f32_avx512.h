/* Folds of 16 lanes in the order of lanes_f32.h, and the mask of a row's end, in AVX-512. */
#ifndef TF_NN_LANES_F32_AVX512_H
#define TF_NN_LANES_F32_AVX512_H

#include "lanes_f32.h"

#include <immintrin.h>
#include <stdint.h>

#ifndef TF_INLINE
#define TF_INLINE static inline __attribute__((always_inline))
#endif

/* The first `left` lanes, 0 to 16. */
TF_INLINE __mmask16 tf_tail_avx512(int32_t left) {
    return left >= 16 ? (__mmask16)0xFFFF : left > 0 ? (__mmask16)((1u << left) - 1u) : (__mmask16)0;
}

TF_INLINE float tf_fold_f32x16(__m512 sum_f32x16) {
    const __m256 sum_f32x8 =
        _mm256_add_ps(_mm512_castps512_ps256(sum_f32x16), _mm512_extractf32x8_ps(sum_f32x16, 1));
    __m128 sum_f32x4 = _mm_add_ps(_mm256_castps256_ps128(sum_f32x8), _mm256_extractf128_ps(sum_f32x8, 1));
    sum_f32x4 = _mm_add_ps(sum_f32x4, _mm_movehl_ps(sum_f32x4, sum_f32x4));
    return _mm_cvtss_f32(_mm_add_ss(sum_f32x4, _mm_movehdup_ps(sum_f32x4)));
}

TF_INLINE float tf_highest_f32x16(__m512 x_f32x16) {
    const __m256 x_f32x8 = _mm256_max_ps(_mm512_castps512_ps256(x_f32x16), _mm512_extractf32x8_ps(x_f32x16, 1));
    __m128 x_f32x4 = _mm_max_ps(_mm256_castps256_ps128(x_f32x8), _mm256_extractf128_ps(x_f32x8, 1));
    x_f32x4 = _mm_max_ps(x_f32x4, _mm_movehl_ps(x_f32x4, x_f32x4));
    return _mm_cvtss_f32(_mm_max_ss(x_f32x4, _mm_movehdup_ps(x_f32x4)));
}

#endif
