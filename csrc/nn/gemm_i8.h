/* z_s = base_s + scale (corr + W q_s) for n sessions s at once, int8 weights: gemm_f32.h's idea on the layout and the
 * arithmetic of gemv_i8.h. The integer sums are exact in any order and what follows them is a fixed chain of float
 * operations, so the bits are those of gemv_i8 on every instruction set.
 *
 * A register block multiplies four vectors of weights with several rows of bytes, six with 32 registers and three with
 * 16. For i8a16 half of the rows are high planes and half are low planes of the same sessions; they meet after the
 * last column. `q[s]` has two planes then. Sizes and overlap as in gemm_f32.h. */
#ifndef TF_NN_GEMM_I8_H
#define TF_NN_GEMM_I8_H

#include "gemv_i8.h"

#include <string.h>

/* Four bytes of a row, to be broadcast. */
static inline int32_t tf_load_four(const uint8_t *q) {
    int32_t bytes;
    memcpy(&bytes, q, sizeof bytes);
    return bytes;
}

#endif
