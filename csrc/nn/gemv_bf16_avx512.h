/* bfloat16 weights in AVX-512, widened by a shift; see gemv_f32.h. */
#ifndef TF_NN_GEMV_BF16_AVX512_H
#define TF_NN_GEMV_BF16_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define TF_INLINE static inline __attribute__((always_inline))
#define TF_WEIGHT uint16_t
#define TF_FMA16(sum, w, v)                                                                                            \
    sum = _mm512_fmadd_ps(                                                                                             \
        _mm512_castsi512_ps(_mm512_slli_epi32(                                                                         \
            _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(w))), 16)), v, sum)

/* Two groups at once: one shift yields the 16 even of 32 rows, one mask the 16 odd ones, where widening each group on
 * its own takes a shuffle and a shift. The sums stay parted into even and odd rows until the panel is done. */
#define TF_FMA16X2(sum0, sum1, w, v)                                                                                   \
    do {                                                                                                               \
        const __m512i pair_u16x32 = _mm512_loadu_si512(w);                                                             \
        sum0 = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(pair_u16x32, 16)), v, sum0);                      \
        sum1 = _mm512_fmadd_ps(                                                                                        \
            _mm512_castsi512_ps(_mm512_and_si512(pair_u16x32, _mm512_set1_epi32((int)0xFFFF0000u))), v, sum1);         \
    } while (0)
#define TF_PART16(a, b) tf_part_f32x16(&(a), &(b))
#define TF_JOIN16(a, b) tf_join_f32x16(&(a), &(b))

TF_INLINE void tf_part_f32x16(__m512 *a, __m512 *b) {
    const __m512i even_i32x16 = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512 even_f32x16 = _mm512_permutex2var_ps(*a, even_i32x16, *b);
    *b = _mm512_permutex2var_ps(*a, _mm512_add_epi32(even_i32x16, _mm512_set1_epi32(1)), *b);
    *a = even_f32x16;
}

TF_INLINE void tf_join_f32x16(__m512 *a, __m512 *b) {
    const __m512i low_i32x16 = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512 low_f32x16 = _mm512_permutex2var_ps(*a, low_i32x16, *b);
    *b = _mm512_permutex2var_ps(*a, _mm512_add_epi32(low_i32x16, _mm512_set1_epi32(8)), *b);
    *a = low_f32x16;
}

#include "gemv_avx512.h"

#endif
