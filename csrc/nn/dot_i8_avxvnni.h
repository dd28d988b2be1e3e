/* Four columns of eight rows in one instruction (AVX-VNNI): sum[j] += w[j][0..3] . q[0..3], exact; why it is an asm
 * statement says dot_i8_avx512vnni.h.
 *
 * AVX-VNNI is the VEX encoding; AVX-512 VNNI with VL has the same instruction in the EVEX encoding. With TF_TEST_EVEX
 * this file uses that one, so that a machine without AVX-VNNI can test all of the code around it
 * (csrc/tests/test_kernels_i8.c). */
#ifndef TF_NN_DOT_I8_H
#define TF_NN_DOT_I8_H

#include "gemv_i8.h"

#include <immintrin.h>

#ifdef TF_TEST_EVEX
#define TF_I8(name) tf_##name##_test_double_evex
#define TF_ENCODING "%{evex%} "
#else
#define TF_I8(name) tf_##name##_avxvnni
#define TF_ENCODING "%{vex%} "
#endif

typedef __m256i tf_column;

static inline __attribute__((always_inline)) tf_column tf_column_at(const uint8_t *q) {
    return _mm256_set1_epi32(*(const tf_four_bytes *)q);
}

#define TF_DOT(sum, w, column)                                                                                         \
    __asm__(TF_ENCODING "vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(column), "m"(*(const __m256i_u *)(w)))

#endif
