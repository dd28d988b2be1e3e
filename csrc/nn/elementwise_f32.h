/* Arithmetic of rows, element by element over n floats. y may be any of the inputs; no alignment, no padding needed.
 *
 *     add    a + b               mul    a b               scale  a x
 *     max    the larger; NaN when either is NaN, as pooling over a window needs it; of +0 and -0 the second
 *     tap    base + w x          depthwise convolution taps and affine maps; fused multiply-add on AVX2 and AVX-512,
 *                                two roundings in the scalar file
 *
 * All others are one rounding, so every instruction set gives the same bits. */
#ifndef TF_NN_ELEMENTWISE_F32_H
#define TF_NN_ELEMENTWISE_F32_H

#include "kernels.h"

#endif
