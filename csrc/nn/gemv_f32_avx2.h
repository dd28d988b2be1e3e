/* float32 weights in AVX2; see gemv_f32.h. */
#ifndef TF_NN_GEMV_F32_AVX2_H
#define TF_NN_GEMV_F32_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define TF_INLINE static inline __attribute__((always_inline))
#define TF_WEIGHT float
#define TF_FMA8(sum, w, v) sum = _mm256_fmadd_ps(_mm256_loadu_ps(w), v, sum)
#include "gemv_avx2.h"

#endif
