/* binary16 weights in AVX2, widened by vcvtph2ps (F16C); see gemv_f32.h. */
#ifndef TF_NN_GEMV_F16_AVX2_H
#define TF_NN_GEMV_F16_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define TF_INLINE static inline __attribute__((always_inline))
#define TF_WEIGHT uint16_t
#define TF_FMA8(sum, w, v) sum = _mm256_fmadd_ps(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(w))), v, sum)
#include "gemv_avx2.h"

#endif
