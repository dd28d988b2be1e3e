/* Rotary positions (Su et al. 2021) of `heads` vectors of `dim` floats (even), by the angles of one position:
 *
 *     y_a = x_a cos_i - x_b sin_i,   y_b = x_b cos_i + x_a sin_i,   i = 0 .. dim / 2 - 1
 *
 * with (a, b) = (2 i, 2 i + 1) when `interleaved`, else (i, i + dim / 2); `cos_sin` is [dim / 2][2]. y may be x. The
 * vector files fuse the second product into the subtraction or addition. */
#ifndef TF_NN_ROPE_F32_H
#define TF_NN_ROPE_F32_H

#include "kernels.h"

#endif
