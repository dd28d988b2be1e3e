/* Four columns of sixteen rows in one instruction (AVX-512 VNNI): sum[j] += w[j][0..3] . q[0..3], exact.
 *
 * gcc 12 copies the accumulator of the dpbusd intrinsic at every use and spills arrays of them; an asm statement with
 * the sum tied in place, and sums that have names, compile to the one instruction with the weights as memory
 * operand. */
#ifndef TF_NN_DOT_I8_H
#define TF_NN_DOT_I8_H

#include "gemv_i8.h"

#include <immintrin.h>

#define TF_I8(name) tf_##name##_avx512vnni

typedef __m512i tf_column;

static inline __attribute__((always_inline)) tf_column tf_column_at(const uint8_t *q) {
    return _mm512_set1_epi32(*(const tf_four_bytes *)q);
}

#define TF_DOT(sum, w, column) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(column), "m"(*(const __m512i_u *)(w)))

#endif
