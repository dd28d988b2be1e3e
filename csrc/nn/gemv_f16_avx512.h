/* binary16 weights in AVX-512, widened by vcvtph2ps; see gemv_f32.h. */
#ifndef TF_NN_GEMV_F16_AVX512_H
#define TF_NN_GEMV_F16_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define TF_INLINE static inline __attribute__((always_inline))
#define TF_WEIGHT uint16_t
#define TF_FMA16(sum, w, v)                                                                                            \
    sum = _mm512_fmadd_ps(_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(w))), v, sum)
#define TF_FMA16X2(sum0, sum1, w, v)                                                                                   \
    do {                                                                                                               \
        TF_FMA16(sum0, w, v);                                                                                          \
        TF_FMA16(sum1, (w) + 16, v);                                                                                   \
    } while (0)
#define TF_PART16(a, b) (void)0
#define TF_JOIN16(a, b) (void)0
#include "gemv_avx512.h"

#endif
