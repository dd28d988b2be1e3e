/* bfloat16 weights in AVX2, widened by a shift; see gemv_f32.h. */
#ifndef TF_NN_GEMV_BF16_AVX2_H
#define TF_NN_GEMV_BF16_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define TF_INLINE static inline __attribute__((always_inline))
#define TF_WEIGHT uint16_t
#define TF_FMA8(sum, w, v)                                                                                             \
    sum = _mm256_fmadd_ps(                                                                                             \
        _mm256_castsi256_ps(                                                                                           \
            _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(w))), 16)), v, sum)
#include "gemv_avx2.h"

#endif
